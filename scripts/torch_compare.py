#!/usr/bin/env python3
"""dsacal's demo calibration beside the PyTorch search on the same GPU, same documents: prints both speeds and ratios.

    torch_compare.py [--dsacal build/dsacal] [--device cuda] [--corpora DIR]

Per corpus and for both together, to the last layer: wall time of `dsacal calibrate` as it stands in the shell (start,
noise floor, baselines, overlap and held-out documents included), the seconds of torch_search.py's greedy loop alone,
and forward tokens per second, counted alike: candidates × tokens of the calibration documents, all through all layers.
dsacal's forward rate is that of `--search naive`, which does what PyTorch does. PyTorch's loop for both corpora finds
the patterns that it has measured for each corpus alone: those are not counted.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORPORA = {"legal": ["legal"], "rag": ["rag"], "both": ["legal", "rag"]}


def calibrate(args, names, search):
    """(wall seconds, results)"""
    with tempfile.TemporaryDirectory() as folder:
        words = [args.dsacal, "calibrate", "--model", args.model, "--device", args.device, "--holdout", "25%",
                 "--host-memory", "1GiB", "--full-trace", "--no-refine", "--search", search, "--quiet", "--json",
                 "--out", os.path.join(folder, "run")]
        for name in names:
            words += ["--corpus", f"{name}={args.model}/{name}.jsonl.zst"]
        began = time.monotonic()
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        return time.monotonic() - began, json.loads(done.stdout)


def torch_traces(args):
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, os.path.join(ROOT, "scripts", "torch_search.py"), "trace", "--model", args.model, "--out",
                 folder, "--device", args.device]
        began = time.monotonic()
        subprocess.run(words + (["--corpora", args.corpora] if args.corpora else []), check=True)
        print(f"torch_search.py trace: {time.monotonic() - began:.1f} s in all", flush=True)
        return {name: json.load(open(os.path.join(folder, f"trace_{name}.json"), encoding="utf-8")) for name in CORPORA}


def asked(trace):
    """Every pattern that a trace's loop measured."""
    return {s["base"][:c["layer"]] + "S" + s["base"][c["layer"] + 1:] for s in trace["steps"] for c in s["candidates"]}


def tokens(traces, name):
    """Tokens of calibration documents that the loop of `name` ran, each new pattern counted."""
    total = 0
    for corpus, side in traces[name]["documents"].items():
        new = asked(traces[name]) - (asked(traces[corpus]) if corpus != name else set())
        total += len(new) * sum(d["tokens"] for d in side["base"])
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsacal", default=os.path.join(ROOT, "build", "dsacal"))
    parser.add_argument("--model", default=os.path.join(ROOT, "calib_data", "demo"))
    parser.add_argument("--corpora", help="folder of legal.jsonl and rag.jsonl, where there is no zstd for Python")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    calibrate(args, ["rag"], "exact")  # warms the driver and the page cache
    rows = {}
    for name, names in CORPORA.items():
        rows[name] = calibrate(args, names, "exact"), calibrate(args, names, "naive")
    traces = torch_traces(args)
    print("| corpus | dsacal, exact | PyTorch's loop | ratio | naive in dsacal | dsacal, tokens/s | PyTorch, tokens/s | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name, ((wall, found), (naive_wall, naive)) in rows.items():
        loop = traces[name]["seconds"]
        ours = naive["provenance"]["executed"] / naive["layers"] / naive["work"]["seconds"]
        theirs = tokens(traces, name) / loop
        print(f"| {name} | {wall:.2f} s | {loop:.1f} s | {loop / wall:.1f} | {naive_wall:.2f} s | {ours:.0f} | {theirs:.0f} | "
              f"{ours / theirs:.1f} |")
    print(f"dsacal on {found['provenance']['device']}, PyTorch {traces['both']['provenance']}")


if __name__ == "__main__":
    main()
