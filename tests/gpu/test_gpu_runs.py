#!/usr/bin/env python3
"""Whole runs of the program on a GPU: the same bits however they go, and the demo's trace against PyTorch in float32.

Only the standard library is used. $DSACAL is the program; DSA_GPU_TEST_DEVICE=cpu runs it on the CPU, which tests this
file.

  test_gpu_runs.py            everything
  test_gpu_runs.py --quick    the demo's own run alone, few documents elsewhere
"""
import json
import os
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))
from harness import equal, expect, figures, good, main, results, same_run, scratch, start  # noqa: E402

DEVICE = os.environ.get("DSA_GPU_TEST_DEVICE", "cuda")
QUICK = "--quick" in sys.argv
DEMO = os.path.join(ROOT, "calib_data", "demo")
GOLDEN = os.path.join(ROOT, "tests", "golden", "demo")
CORPORA = {"legal": ["legal"], "rag": ["rag"], "both": ["legal", "rag"]}
_whole = {}


def options(names, out, *extra):
    words = ["calibrate", "--device", DEVICE, "--model", DEMO, "--holdout", "25%", "--host-memory", "1GiB", "--full-trace",
             "--no-refine", "--out", out]
    if "--search" not in extra:
        words += ["--search", "exact"]  # the golden traces know every candidate's figure
    for name in names:
        words += ["--corpus", f"{name}={DEMO}/{name}.jsonl.zst"]
    return [*words, *extra]


def calibrate(names, *extra):
    out = os.path.join(scratch(), "run")
    good(*options(names, out, *extra), timeout=900)
    return out


def whole(name):
    """The run of a golden trace's documents, made once."""
    if name not in _whole:
        began = time.time()
        _whole[name] = calibrate(CORPORA[name])
        work = results(_whole[name])["work"]
        print(f"# {name}: {time.time() - began:.1f} s, token-layers "
              f"{work['token_layers'] / work['token_layers_naive']:.3f} of naive", flush=True)
    return _whole[name]


# The corpus of what follows: small in a quick run.
def part():
    return (["rag"], ("--max-tokens", 5000)) if QUICK else (["legal", "rag"], ())


def plain():
    names, few = part()
    if few and "part" not in _whole:
        _whole["part"] = calibrate(names, *few)
    return _whole["part"] if few else whole("both")


def test_two_runs_have_the_same_bits():
    names, few = part()
    same_run(calibrate(names, *few), plain(), "a second run")


def test_a_killed_and_resumed_run_has_the_bits_of_an_undisturbed_one():
    names, few = part()
    size = os.path.getsize(os.path.join(plain(), "journal"))
    for share in (0.1, 0.6):
        out = os.path.join(scratch(), "run")
        journal = os.path.join(out, "journal")
        command = options(names, out, *few, "--resume")
        process = start(*command)
        while process.poll() is None and not (os.path.exists(journal) and os.path.getsize(journal) > share * size):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        err = process.communicate()[1].decode()
        equal(process.returncode, -signal.SIGKILL, f"status of the killed run: {err}")
        print(f"# killed with {os.path.getsize(journal) / size:.2f} of the journal written", flush=True)
        good(*command, timeout=900)
        same_run(out, plain(), f"killed at {share} of its journal and resumed")


def test_naive_search_has_the_bits_of_the_default_one():
    few = ("--max-tokens", 1500 if QUICK else 4000)
    exact, naive = results(calibrate(["rag"], *few)), results(calibrate(["rag"], *few, "--search", "naive"))
    equal((exact["search"], naive["search"]), ("exact", "naive"), "search")
    equal(figures(naive, "search", "work"), figures(exact, "search", "work"), "naive against exact")
    equal(naive["work"]["token_layers"], naive["work"]["token_layers_naive"], "naive work")


def test_wherever_layers_lie_the_bits_are_the_same():
    """In host memory, as stored on the device, on disk; and resumed in another place than where it was killed."""
    names, few = part()
    for place in ("stored", "host", "disk"):
        began = time.time()
        out = calibrate(names, *few, "--residency", place)
        print(f"# layers {place}: {time.time() - began:.1f} s", flush=True)
        same_run(out, plain(), f"layers {place}")
    size = os.path.getsize(os.path.join(plain(), "journal"))
    out = os.path.join(scratch(), "run")
    journal = os.path.join(out, "journal")
    command = options(names, out, *few, "--resume")
    process = start(*command, "--residency", "disk")
    while process.poll() is None and not (os.path.exists(journal) and os.path.getsize(journal) > 0.3 * size):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    err = process.communicate()[1].decode()
    equal(process.returncode, -signal.SIGKILL, f"status of the killed run: {err}")
    good(*command, "--residency", "stored", timeout=900)
    same_run(out, plain(), "killed on disk and resumed as stored")


def test_batches_and_what_is_kept_change_no_bit():
    names, few = part()
    many, found = results(plain()), results(calibrate(names, *few, "--batch-tokens", 1500, "--host-memory", "1MiB"))
    for key in ("trace", "best", "noise_floor", "overlap"):
        equal(json.dumps(found[key]), json.dumps(many[key]), f"{key} in small batches, without kept states")


def test_indexers_in_fp8_keep_as_many_positions_as_on_the_cpu():
    shares = {}
    for device in (DEVICE, "cpu"):
        found = good("overlap", "--device", device, "--model", DEMO, "--corpus", f"legal={DEMO}/legal.jsonl.zst", "--max-tokens",
                     3000, "--indexer-precision", "fp8", "--out", os.path.join(scratch(), "run"), "--json", timeout=300).json()
        shares[device] = found["overlap_with_f32"]["legal"]
        print(f"# FP8 on {device}: {sum(shares[device]) / len(shares[device]):.4f} of the positions of f32", flush=True)
    for layer, (ours, theirs) in enumerate(zip(shares[DEVICE], shares["cpu"])):
        expect(abs(ours - theirs) < 0.01, f"layer {layer}: {ours} of f32's positions, {theirs} on the CPU")


def compare_trace(name):
    """Flips in order; another one is right only where PyTorch's two candidates are closer than the noise floor. After
    such a swap steps are compared again once both chains share the same layers."""
    found, floor = results(whole(name)), results(whole(name))["noise_floor"]["kl"]
    with open(os.path.join(GOLDEN, f"trace_{name}.json"), encoding="utf-8") as file:
        steps = json.load(file)["steps"]
    equal(len(found["trace"]), len(steps), "steps")
    ours_shared, theirs_shared, swaps, compared, worst = set(), set(), [], 0, (0, 0, 0, 0)
    for ours, theirs in zip(found["trace"], steps):
        if ours_shared == theirs_shared:
            compared += 1
            kl = {c["layer"]: c["kl"] for c in theirs["candidates"]}
            mine = {c["layer"]: c["kl"] for c in ours["candidates"]}
            equal(sorted(mine), sorted(kl), f"{name} step {ours['step']}: candidates")
            worst = max([worst] + [(abs(mine[i] - kl[i]) / kl[i], i, mine[i], kl[i]) for i in kl if kl[i] > 10 * floor])
            if ours["flip"] != theirs["flip"]:
                apart = kl[ours["flip"]] - kl[theirs["flip"]]
                swaps.append((ours["step"], ours["flip"], theirs["flip"], apart))
                expect(abs(apart) <= floor, f"{name} step {ours['step']}: flips {ours['flip']}, PyTorch {theirs['flip']}, which "
                       f"are {apart:.3g} apart; the noise floor is {floor:.3g}")
        ours_shared.add(ours["flip"])
        theirs_shared.add(theirs["flip"])
    print(f"# {name}: noise floor {floor:.3g}; {compared} of {len(steps)} steps from the same pattern; swaps (step, ours, PyTorch's, "
          f"KL apart) {[(s, a, b, float(f'{d:.2g}')) for s, a, b, d in swaps]}; of candidates above 10 floors the KL is within "
          f"{100 * worst[0]:.1f}% (layer {worst[1]}: {worst[2]:.4g} against {worst[3]:.4g})", flush=True)
    expect(compared >= len(steps) / 2, f"{name}: only {compared} of {len(steps)} steps could be compared")


def test_racing_emits_what_the_exact_search_does():
    """The default search under the default budget: the same pattern, or one that is as good on held-out documents."""
    for name in [] if QUICK else CORPORA:
        raced = results(calibrate(CORPORA[name], "--search", "racing"))
        ours, theirs = raced["heldout"]["kl"]["mean"], results(whole(name))["heldout"]["kl"]["mean"]
        print(f"# {name}: racing emits {raced['pattern']} (held-out KL {ours:.4g}), exact {results(whole(name))['pattern']} "
              f"({theirs:.4g}); {raced['work']['token_layers'] / raced['work']['token_layers_naive']:.3f} of naive", flush=True)
        expect(raced["pattern"] == results(whole(name))["pattern"] or ours <= 1.05 * theirs,
               f"{name}: racing's pattern costs {ours:.4g} held out, exact's {theirs:.4g}")


def test_trace_of_the_demo_is_that_of_pytorch():
    compare_trace("both")


def test_traces_of_single_corpora_are_those_of_pytorch():
    for name in [] if QUICK else ["legal", "rag"]:
        compare_trace(name)


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word != "--quick"]
    main(globals())
