#!/usr/bin/env python3
"""Prints the tables of the demo's card from its measured figures: calib_data/demo/README.md is this script's output
put between fixed text, so that no number there is typed by hand.

    demo_card.py --update calib_data/demo/README.md      replaces what stands between the markers
    demo_card.py --check calib_data/demo/README.md       fails if it is not what the figures say
"""
import argparse
import json
import os
import sys

BEGIN, END = "<!-- begin: scripts/demo_card.py -->\n", "<!-- end -->\n"
NAMES = ("legal", "rag")


def figure(x):
    """Three significant digits, small ones as 1.2e-05."""
    return f"{x:.1e}" if x < 1e-3 else f"{x:.3g}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]) + "\n"


def one_flip(card):
    flips = {n: {f["layer"]: f["kl"] for f in card["corpora"][n]["one_flip"]} for n in NAMES}
    rows = [[n] + [figure(flips[n][i]) for i in range(1, card["layers"])] for n in NAMES]
    spread = ", ".join(f"{n} {max(flips[n].values()) / min(flips[n].values()):,.0f}x" for n in NAMES)
    return table(["mean KL"] + [str(i) for i in range(1, card["layers"])], rows) \
        + f"\nMost over least sensitive layer: {spread} (wanted: at least 500x).\n"


def greedy_against_uniform(card):
    rows = []
    for share, kept in ((2, card["layers"] // 2), (4, card["layers"] // 4), (8, card["layers"] // 8)):
        for n in NAMES:
            p = card["corpora"][n]["patterns"]
            best, even = p[f"{n}-{kept}"]["kl"], p[f"uniform-1/{share}"]["kl"]
            rows.append([f"1/{share}", n, f"`{card['patterns'][f'{n}-{kept}']}`", figure(best),
                         f"`{card['patterns'][f'uniform-1/{share}']}`", figure(even), f"{even / best:.3g}x"])
    return table(["kept", "corpus", "greedy", "mean KL", "uniform", "mean KL", "ratio"], rows)


def across(card):
    rows = []
    for share, kept in ((2, card["layers"] // 2), (4, card["layers"] // 4)):
        for label in NAMES + ("both",):
            key = f"{label}-{kept}"
            kl = {n: card["corpora"][n]["patterns"][key]["kl"] for n in NAMES}
            home = {n: card["corpora"][n]["patterns"][f"{n}-{kept}"]["kl"] for n in NAMES}
            rows.append([f"1/{share}", label, f"`{card['patterns'][key]}`"]
                        + [f"{figure(kl[n])} ({kl[n] / home[n]:.3g}x home)" if label != n else figure(kl[n])
                           for n in NAMES])
    return table(["kept", "calibrated on", "pattern", "on legal", "on rag"], rows)


def overlap(card, name):
    matrix = card["corpora"][name]["overlap"]
    rows = [[f"**{i}**"] + [f"{x:.2f}"[1:] if x < 0.995 else "1" for x in row] for i, row in enumerate(matrix)]
    return table([name] + [str(i) for i in range(len(matrix))], rows)


def tables(card):
    base = ", ".join(f"{n} NLL {c['base']['nll']:.3f} over {c['scored']:,} scored tokens"
                     for n, c in card["corpora"].items())
    p = card["provenance"]
    return "\n".join([
        f"Measured on {card['documents']} fresh documents of each domain (seed {card['document_seed']}; neither trained "
        f"on nor searched on), {p['precision']}, torch {p['torch']}, transformers {p['transformers']}, {p['device']}, "
        f"{p['date']}. All F: {base}.\n",
        "### One flip\n", one_flip(card), "### Greedy against uniform\n", greedy_against_uniform(card),
        "### Across domains\n", across(card),
        "### Selection overlap, all F (mean of |T_i and T_j| / K)\n", overlap(card, "legal"), overlap(card, "rag")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", help="default: card.json beside the README")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--update", metavar="README")
    group.add_argument("--check", metavar="README")
    args = parser.parse_args()
    path = args.update or args.check
    with open(args.card or os.path.join(os.path.dirname(path), "card.json")) as f:
        card = json.load(f)
    with open(path) as f:
        text = f.read()
    before, rest = text.split(BEGIN)
    wanted = before + BEGIN + "\n" + tables(card) + "\n" + END + rest.split(END)[1]
    if args.check:
        sys.exit(0 if wanted == text else f"{path} does not match its figures: run demo_card.py --update {path}")
    with open(path, "w") as f:
        f.write(wanted)


if __name__ == "__main__":
    main()
