#!/usr/bin/env python3
"""The shipped model on real legal text: the licence and copyright files of the machine the test runs on.

scripts/build_corpus.sh builds the corpus; nothing of it is kept. Real text differs from machine to machine, so this
asserts what must hold on any.
"""
import functools
import json
import os
import subprocess

import harness
from harness import ROOT, DSACAL, equal, expect, scratch

MODEL = os.path.join(ROOT, "calib_data", "demo")
CONTEXT, TOPK, MOST = 512, 64, 6


def build():
    path = os.path.join(scratch(), "licences.jsonl")
    subprocess.run([os.path.join(ROOT, "scripts/build_corpus.sh"), "--out", path, "--max-documents", str(MOST),
                    "--min-bytes", "3000"], check=True, capture_output=True)
    return path


@functools.cache
def corpus():
    return build()


@functools.cache
def documents():
    with open(corpus(), encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@functools.cache
def evaluate(pattern):
    done = subprocess.run([DSACAL, "evaluate", "--model", MODEL, "--corpus", f"licences={corpus()}", "--context",
                           str(CONTEXT), "--pattern", pattern, "--quiet", "--json"], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_same_machine_builds_the_same_corpus():
    with open(corpus(), "rb") as one, open(build(), "rb") as two:
        expect(one.read() == two.read(), "two builds differ")


def test_corpus_has_documents_once_and_their_sources():
    expect(1 <= len(documents()) <= MOST, f"{len(documents())} documents")
    equal(len(set(documents())), len(documents()), "distinct documents")
    with open(corpus().removesuffix(".jsonl") + ".sources", encoding="utf-8") as file:
        sources = [line for line in file if "/usr/share/" in line]
    equal(len(sources), len(documents()), "sources")


def test_long_documents_are_cut_and_every_position_from_k_on_is_scored():
    found = evaluate("FSFSSFSSFSSFSSFS")
    facts = found["corpora"]["licences"]["corpus"]
    equal(facts["documents"], len(documents()), "documents")
    equal(facts["cut"], len(documents()), "cut documents")
    equal(facts["tokens"], CONTEXT * len(documents()), "tokens")
    # The last position has no next token.
    equal(found["quality"]["scored_tokens"], (CONTEXT - TOPK - 1) * len(documents()), "scored tokens")


def test_pattern_found_on_real_text_beats_the_one_found_on_generated_text():
    """The reason to calibrate on one's own documents: the demo's first six flips cost more here than this text's own."""
    demo = "FSFSFFSSFSFFFSFF"
    out = os.path.join(scratch(), "run")
    done = subprocess.run([DSACAL, "calibrate", "--model", MODEL, "--corpus", f"licences={corpus()}", "--context", "256",
                           "--max-shared", "6", "--holdout", "0%", "--baseline", demo, "--out", out, "--quiet", "--json"],
                          capture_output=True, check=True)
    data = json.loads(done.stdout)
    equal(data["pattern"].count("S"), 6, "shared layers")
    equal(data["stopped_by"], "max-shared", "stopped_by")
    found, other = data["quality"]["kl"]["mean"], data["baselines"][demo]["kl"]["mean"]
    expect(0 < found < other, f"{found} against {other}")


if __name__ == "__main__":
    harness.main(globals())
