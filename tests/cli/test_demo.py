#!/usr/bin/env python3
"""The shipped model against independent PyTorch figures: the greedy trace, overlap, and single patterns.

The oracle is scripts/torch_search.py (transformers in float32, run once on a GPU), its output is tests/golden/demo.
Wanted of the trace: the same flips in order and every candidate's KL within 1e-4 or 1%, except where two candidates are
closer than that; after such a swap the two chains are compared by evaluating PyTorch's own pattern.

  test_demo.py           one corpus, retrieval-augmented questions
  test_demo.py --long    also the other, both together, and that racing emits as good a pattern (make check-long)
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from harness import DSACAL

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "calib_data/demo"
GOLDEN = ROOT / "tests/golden/demo"
CORPORA = {"legal": ["legal"], "rag": ["rag"], "both": ["legal", "rag"]}
passed = failed = 0


def check(good, what):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
    print(("ok     " if good else "FAILED ") + what, flush=True)


def near(a, b, relative=0.01, absolute=1e-4):
    """Issue tolerance: within either."""
    return abs(a - b) <= max(absolute, relative * abs(b))


def run(*words):
    done = subprocess.run([DSACAL, *map(str, words), "--quiet"], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        raise SystemExit(f"dsacal {words[0]} ended with {done.returncode}")
    return done.stdout


def corpus_words(names):
    words = []
    for name in names:
        words += ["--corpus", f"{name}={DEMO}/{name}.jsonl.zst"]
    return words


def calibrate(names, out):
    run("calibrate", "--model", DEMO, *corpus_words(names), "--holdout", "25%", "--host-memory", "1GiB", "--full-trace",
        "--search", "exact", "--no-refine", "--out", out)
    return json.loads((out / "results.json").read_text())


def compare_step(name, ours, theirs):
    """Every candidate of one step, from the same base pattern."""
    by_layer = {c["layer"]: c for c in theirs["candidates"]}
    same = [c["layer"] for c in ours["candidates"]] == sorted(by_layer)
    check(same, f"{name} step {ours['step']}: the same candidates")
    if not same:
        return
    worst = max(ours["candidates"], key=lambda c: abs(c["kl"] - by_layer[c["layer"]]["kl"]) / by_layer[c["layer"]]["kl"])
    reference = by_layer[worst["layer"]]["kl"]
    check(all(near(c["kl"], by_layer[c["layer"]]["kl"]) for c in ours["candidates"]),
          f"{name} step {ours['step']}: every KL within 1e-4 or 1% (worst relative: layer {worst['layer']}, "
          f"{worst['kl']:.6g} against {reference:.6g})")
    check(all(near(c["nll"], by_layer[c["layer"]]["nll"]) for c in ours["candidates"]),
          f"{name} step {ours['step']}: every NLL within 1e-4 or 1%")


def compare_trace(name, results, golden):
    """Flips in order; a swap is allowed only between candidates that the tolerance cannot tell apart."""
    check(len(results["trace"]) == len(golden["steps"]), f"{name}: {len(golden['steps'])} steps")
    ours_shared, theirs_shared = set(), set()
    for ours, theirs in zip(results["trace"], golden["steps"]):
        if ours_shared == theirs_shared:
            compare_step(name, ours, theirs)
            kl = {c["layer"]: c["kl"] for c in theirs["candidates"]}
            check(ours["flip"] == theirs["flip"] or near(kl[ours["flip"]], kl[theirs["flip"]]),
                  f"{name} step {ours['step']}: flips {ours['flip']}, PyTorch {theirs['flip']}")
        ours_shared.add(ours["flip"])
        theirs_shared.add(theirs["flip"])
        if ours_shared != theirs_shared:
            compare_pattern(name, theirs_shared, min(c["kl"] for c in theirs["candidates"]))


def compare_pattern(name, shared, kl):
    """PyTorch's pattern after a swap, measured by us on the calibration documents alone."""
    pattern = "".join("S" if layer in shared else "F" for layer in range(16))
    with tempfile.TemporaryDirectory() as folder:
        results = run("calibrate", "--model", DEMO, *corpus_words(CORPORA[name]), "--holdout", "25%", "--max-shared", "0",
                      "--baseline", pattern, "--json", "--out", f"{folder}/run")
    found = json.loads(results)["baselines"][pattern]["kl"]["mean"]
    check(near(found, kl), f"{name}: PyTorch's pattern {pattern}: KL {found:.6g} against {kl:.6g}")


def compare_overlap(name, results):
    golden = json.loads((GOLDEN / f"overlap_{name}.json").read_text())["calibration"]
    ours = results["overlap"][name]
    worst = max(abs(ours[i][j] - golden[i][j]) for i in range(16) for j in range(16))
    check(worst < 2e-4, f"{name}: overlap matrix, largest difference {worst:.2g}")


def compare_racing(name, exact):
    """What the default search emits, against the exact one's pattern under the same, default budget."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        run("calibrate", "--model", DEMO, *corpus_words(CORPORA[name]), "--holdout", "25%", "--host-memory", "1GiB",
            "--out", out)
        raced = json.loads((out / "results.json").read_text())
    check(raced["search"] == "racing", f"{name}: racing is the default")
    ours, theirs = raced["heldout"]["kl"]["mean"], exact["heldout"]["kl"]["mean"]
    check(raced["pattern"] == exact["pattern"] or ours <= 1.05 * theirs,
          f"{name}: racing emits {raced['pattern']}, exact search {exact['pattern']}; held-out KL {ours:.6g} and {theirs:.6g}")
    print(f"       {name}, racing: {raced['work']['seconds']:.0f} s, {raced['provenance']['executed']} token-layers run; "
          f"search {raced['work']['token_layers'] / raced['work']['token_layers_naive']:.3f} of naive")


def main():
    print("calibrating the demo to its last layer: some minutes", flush=True)
    names = ["rag"] + (["legal", "both"] if "--long" in sys.argv else [])
    for name in names:
        golden = json.loads((GOLDEN / f"trace_{name}.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            results = calibrate(CORPORA[name], pathlib.Path(folder) / "run")
        compare_trace(name, results, golden)
        for corpus in CORPORA[name]:
            compare_overlap(corpus, results)
        if "--long" in sys.argv:
            compare_racing(name, results)
        print(f"       {name}: {results['work']['seconds']:.0f} s, token-layers "
              f"{results['work']['token_layers'] / results['work']['token_layers_naive']:.3f} of naive")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
