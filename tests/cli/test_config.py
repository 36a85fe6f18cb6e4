#!/usr/bin/env python3
# sanitizers: yes
"""Options from a file: what a run writes is read again, flags win, and a slip is named with its line."""
import os

from harness import (GLM, corpus, equal, expect, good, main, read, refused, results, run, same_run, scratch, write)

DOCUMENTS = corpus(6)
OTHERS = corpus(6, name="others.jsonl", seed=2)
# Random weights are noisy: a generous bound, so that the search takes steps.
FLAGS = ("--corpus", f"a={DOCUMENTS}:weight=2", "--corpus", OTHERS, "--budget-kl", "2.5", "--max-shared", "50%",
         "--holdout", "30%", "--force-full", "1", "--context", "60", "--batch-tokens", "150", "--seed", "3",
         "--budget-scope", "worst", "--baseline", "FSFS", "--threads", "1")
_runs = {}


def by_flags():
    if "flags" not in _runs:
        _runs["flags"] = os.path.join(scratch(), "run")
        good("calibrate", "--model", GLM, *FLAGS, "--out", _runs["flags"])
    return _runs["flags"]


def config(*lines):
    return write("\n".join(lines) + "\n", scratch(), "run.yaml")


def plain(*lines):
    return config(f"model: {GLM}", f"corpus: [{DOCUMENTS}]", "budget-kl: 2.5", "threads: 1", *lines)


def ruled(*lines, command="calibrate"):
    return run(command, "--config", plain(*lines), "--out", os.path.join(scratch(), "run"))


def test_a_run_is_reproduced_from_its_own_config_yaml():
    again = os.path.join(scratch(), "again")
    good("calibrate", "--config", os.path.join(by_flags(), "config.yaml"), "--out", again, "--threads", 1)
    same_run(again, by_flags(), "run from config.yaml")
    equal(read(again, "config.yaml"), read(by_flags(), "config.yaml"), "config.yaml")


def test_a_file_written_by_hand_gives_the_run_of_the_same_flags():
    out = os.path.join(scratch(), "run")
    path = config("command: calibrate", f"model: {GLM}", "corpus:", f"  - {{name: a, path: {DOCUMENTS}, weight: 2}}",
                  f"  - {OTHERS}", "budget-kl: 2.5", "max-shared: 50%", "holdout: 30%", "force-full: 1", "context: 60",
                  "batch-tokens: 150", "seed: 3", "budget-scope: worst", "baseline: [FSFS]", "threads: 1",
                  "host-memory: 64MiB", "full-trace: false", "budget-nll: null", f"out: {out}")
    good("calibrate", "--config", path)
    same_run(out, by_flags(), "run from a file")
    equal(read(out, "config.yaml"), read(by_flags(), "config.yaml"), "config.yaml")


def test_flags_win_over_the_file_wherever_they_stand():
    out = os.path.join(scratch(), "run")
    path = plain("context: 60", "max-shared: 0", "baseline: [FSFS, FFSS]")
    good("calibrate", "--context", 50, "--corpus", f"b={OTHERS}", "--baseline", "FFFS", "--config", path, "--out", out,
         "--max-shared", 1)
    found = results(out)
    equal(found["context"], 50, "context")
    equal(list(found["corpora"]), ["b"], "corpora")
    text = read(out, "config.yaml").decode()
    expect('\nmax-shared: "1"\n' in text and '\nbaseline: ["FFFS"]\n' in text, text)


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_key():
    refused(ruled("bugdet-kl: 1"), 2, "run.yaml: line 5", "'bugdet-kl'", "nearest is 'budget-kl'")
    refused(ruled("context: 60", "thread: 2"), 2, "line 6", "'thread'", "nearest is 'threads'")
    refused(ruled("hold_out: 0.2"), 2, "line 5", "nearest is 'holdout'")
    refused(ruled("x" * 500 + ": 1"), 2, "line 5", "dsacal help calibrate")
    # Options of the terminal and of other commands are no keys.
    refused(ruled("resume: true"), 2, "line 5", "'resume'")
    refused(ruled("holdout: 0.2", command="overlap"), 2, "'budget-kl' for overlap")


def test_a_value_of_another_type_names_file_line_key_found_and_expected():
    for line, *words in (("context: many", "context", "'many'", "an integer"),
                         ("context: -1", "'-1'", "an integer"),
                         ('context: "60"', "the string '60'", "an integer"),
                         ("context: 1.5", "'1.5'", "an integer"),
                         ("context: 99999999999999999999", "an integer"),
                         ("budget-nll: low", "budget-nll", "'low'", "a number"),
                         ("budget-nll: .inf", "a number"),
                         ("budget-nll: 0x10", "a number"),
                         ("min-top1: [1]", "min-top1", "a list", "a number"),
                         ("holdout: 120%", "holdout", "'120%'", "20%"),
                         ("full-trace: yes", "full-trace", "'yes'", "true or false"),
                         ("host-memory: 4 apples", "host-memory", "'4 apples'", "4GiB"),
                         ("objective: speed", "objective", "'speed'", "kl|nll"),
                         ("objective: {a: 1}", "objective", "a map", "kl|nll"),
                         ("force-full: [1, 2]", "force-full", "a list", "a string"),
                         ("baseline: FSFS", "baseline", "'FSFS'", "a list"),
                         ("baseline: [[FSFS]]", "baseline", "a list", "PATTERN"),
                         ("command: evaluate", "command", "'evaluate'", "calibrate")):
        refused(ruled(line), 2, "run.yaml: line 5", *words)


def corpora(value):
    path = config(f"model: {GLM}", f"corpus: {value}")
    return run("calibrate", "--config", path, "--out", os.path.join(scratch(), "run"))


def test_a_corpus_that_makes_no_sense_is_refused():
    for value, *words in (("docs.jsonl", "a list"), ("[[a]]", "a list"), ("[null]", "expected"), ('[""]', "expected"),
                          ("[{name: a}]", "no path"), ("[{path: []}]", "corpus: path", "a list"),
                          ("[{path: x, wait: 2}]", "'wait'"), ("[{path: x, weight: heavy}]", "corpus: weight", "'heavy'"),
                          ("[{path: x, weight: 0}]", "weight", "above 0"), ("[{path: x, name: {}}]", "corpus: name"),
                          ("[{path: 'a=b.jsonl'}]", "'='"), ("[{path: 'x:weight=3'}]", "':weight='")):
        refused(corpora(value), 2, "run.yaml: line 2", *words)
    refused(corpora("[" + ", ".join(["a"] * 65) + "]"), 2, "line 2", "more than 64")


def test_a_file_that_is_no_map_of_options_is_refused():
    missing = os.path.join(scratch(), "none.yaml")
    refused(run("calibrate", "--config", missing), 3, "--config", missing)
    for text in ("- a\n", "text\n"):
        refused(run("calibrate", "--config", write(text, scratch(), "run.yaml")), 2, "run.yaml: line 1", "option: value")
    for text in ("", "a: [\n", "model: &x y\nout: *x\n", "seed: 1\nseed: 2\n"):
        refused(run("calibrate", "--config", write(text, scratch(), "run.yaml")), 3, "run.yaml")


def test_evaluate_and_overlap_read_files_too():
    shared = (f"model: {GLM}", f"corpus: [{DOCUMENTS}]", "threads: 1")
    with_file = good("evaluate", "--config", config(*shared, "pattern: FFSS", "budget-kl: 100"), "--json").json()
    with_flags = good("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFSS", "--json").json()
    equal(with_file["quality"], with_flags["quality"], "quality")
    out = os.path.join(scratch(), "overlap")
    good("overlap", "--config", config(*shared, f"out: {out}"))
    again = os.path.join(scratch(), "again")
    good("overlap", "--config", os.path.join(out, "config.yaml"), "--out", again)
    equal(read(again, "overlap.csv"), read(out, "overlap.csv"), "overlap.csv")


main(globals())
