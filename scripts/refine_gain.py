#!/usr/bin/env python3
"""Prints what refinement gained at each count of a run directory, on calibration and on held-out documents.

    build/dsacal calibrate ... --full-trace --out RUN && scripts/refine_gain.py RUN
"""
import json
import pathlib
import sys


def figure(quality):
    return f"{quality['kl']['mean']:.4g}" if quality else "-"


run = json.loads((pathlib.Path(sys.argv[1]) / "results.json").read_text())
refined = {entry["shared"]: entry for entry in run["refined"]}
print("| kept | greedy | refined | difference ± SE | greedy, held out | refined, held out |")
print("|---|---|---|---|---|---|")
for step in run["trace"]:
    shared = step["pattern"].count("S")
    found = refined.get(shared)
    difference = f"{found['difference']:.3g} ± {found['difference_se'] or 0:.2g}" if found else "no better one"
    new = found or step
    print(f"| {run['layers'] - shared} | {figure(step['calibration'])} | {figure(new['calibration'])} | {difference} | "
          f"{figure(step['heldout'])} | {figure(new['heldout'])} |")
work = run["work"]
print(f"refinement took {work['refine_token_layers'] / work['token_layers']:.2f} of the search's token-layers")
