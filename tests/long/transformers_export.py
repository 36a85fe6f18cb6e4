#!/usr/bin/env python3
"""What dsacal exports for transformers, loaded by transformers: its forward pass is ours.

A tiny checkpoint is copied, its config.json is written by `dsacal export --config-json`, and transformers loads the
copy in float32 with eager attention. On the same ids, per document, mean NLL and mean KL against the untouched
checkpoint are computed in double from its logits and held against `dsacal evaluate --json`. The one thing changed in
transformers is top-k among equal scores, which it leaves open (scripts/torch_oracle.py).

Needs torch and transformers: scripts/bootstrap.sh long puts them into build/venv-transformers. Prints the largest
relative difference of each figure.
"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
sys.path.insert(0, os.path.join(HERE, "..", "..", "scripts"))

import torch  # noqa: E402
import transformers  # noqa: E402

import harness  # noqa: E402
from harness import GLM, SHARED, TINY, TOPK, equal, expect, good, jsonl, model, results, scratch, write  # noqa: E402
from torch_oracle import log_softmax, settle_precision, settle_topk  # noqa: E402

settle_topk()
settle_precision()
transformers.utils.logging.disable_progress_bar()
CLOSE = 1e-5  # relative
CPU = ("--device", "cpu", "--quiet")


def load(folder):
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    return network.eval()


def log_probabilities(network, ids):
    """(scored tokens, vocabulary) in double: positions K to the last but one."""
    with torch.no_grad():
        return log_softmax(network(torch.tensor([ids]), use_cache=False).logits[0, TOPK:len(ids) - 1])


def figures(base, pattern, ids):
    targets = torch.tensor(ids[TOPK + 1:])
    nll = -pattern.gather(-1, targets[:, None]).mean()
    return nll.item(), (base.exp() * (base - pattern)).sum(-1).mean().item()


def exported(source, pattern_yaml, engine="transformers"):
    here = model(source)
    before = json.loads(harness.read(source, "config.json"))
    good("export", pattern_yaml, "--engine", engine, "--config-json", os.path.join(here, "config.json"), "--quiet")
    after = json.loads(harness.read(here, "config.json"))
    equal({k: v for k, v in after.items() if k not in ("indexer_types", "index_topk_pattern")},
          {k: v for k, v in before.items() if k not in ("indexer_types", "index_topk_pattern")}, "the rest of it")
    return here


def compare(source, pattern, pattern_yaml, documents):
    """Largest relative difference of NLL and of KL over the documents, each a corpus of its own."""
    corpora = []
    for i, ids in enumerate(documents):
        corpora += ["--corpus", f"d{i}=" + write(jsonl([ids]), scratch(), "d.jsonl")]
    ours = good("evaluate", "--model", source, "--pattern", pattern, *corpora, "--json", *CPU).json()["corpora"]
    here = exported(source, pattern_yaml)
    base, network = load(source), load(here)
    equal([{"full": "F", "shared": "S"}[t] for t in network.config.indexer_types], list(pattern), "what was loaded")
    shares = [getattr(layer.self_attn, "indexer", None) is None for layer in network.model.layers]
    equal("".join("S" if s else "F" for s in shares), pattern, "layers without an indexer")
    worst_nll = worst_kl = 0
    for i, ids in enumerate(documents):
        nll, kl = figures(log_probabilities(base, ids), log_probabilities(network, ids), ids)
        found = ours[f"d{i}"]
        equal(found["scored_tokens"], len(ids) - 1 - TOPK, "scored tokens")
        worst_nll = max(worst_nll, abs(nll - found["nll"]) / nll)
        if kl > 1e-9 or found["kl"]["mean"] > 1e-9:
            worst_kl = max(worst_kl, abs(kl - found["kl"]["mean"]) / max(kl, found["kl"]["mean"]))
    print(f"  {os.path.basename(source):20} {pattern:8} NLL within {worst_nll:.1e}, KL within {worst_kl:.1e}",
          flush=True)
    expect(worst_nll < CLOSE, f"{pattern}: NLL differs by {worst_nll}")
    expect(worst_kl < CLOSE, f"{pattern}: KL differs by {worst_kl}")


def yaml_of(pattern):
    return write(f'pattern: "{pattern}"\n', scratch(), "p.yaml")


def test_every_pattern_of_a_checkpoint_runs_as_measured():
    documents = harness.documents(4, 30, 60, seed=3)
    for bits in range(1, 8):
        pattern = "F" + "".join("S" if bits >> l & 1 else "F" for l in range(3))
        compare(GLM, pattern, yaml_of(pattern), documents)


def test_a_calibrated_pattern_runs_as_measured():
    run = os.path.join(scratch(), "run")
    good("calibrate", "--model", GLM, "--corpus", harness.corpus(8), "--max-shared", 2, "--out", run, *CPU)
    compare(GLM, results(run)["pattern"], os.path.join(run, "pattern.yaml"), harness.documents(4, 30, 60, seed=4))


def test_a_native_list_is_replaced():
    """FFSFSS by itself, S layers without indexers; further layers may be shared."""
    for pattern in ("FSSFSS", "FFSSSS", "FSSSSS"):
        compare(SHARED, pattern, yaml_of(pattern), harness.documents(3, 30, 60, seed=5))


def test_letters_of_the_checkpoint_are_replaced():
    """A checkpoint that says its pattern in letters: the list that is written wins, the letters agree with it."""
    source = os.path.join(TINY, "glm-pattern-string")
    native = json.loads(harness.read(source, "config.json"))["index_topk_pattern"]
    shared = native.rfind("F")
    pattern = native[:shared] + "S" + native[shared + 1:]
    here = exported(source, yaml_of(pattern))
    equal(json.loads(harness.read(here, "config.json"))["index_topk_pattern"], pattern, "letters")
    compare(source, pattern, yaml_of(pattern), harness.documents(3, 30, 60, seed=6, vocab=90))


harness.main(globals())
