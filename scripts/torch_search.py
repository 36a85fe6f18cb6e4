#!/usr/bin/env python3
"""An independent greedy search in PyTorch, whose trace dsacal must reproduce, and the figures of the demo's card.

    torch_search.py trace --model calib_data/demo --out tests/golden/demo
        trace_legal.json, trace_rag.json, trace_both.json, overlap_legal.json, overlap_rag.json
    torch_search.py table --model calib_data/demo --traces tests/golden/demo --out calib_data/demo/card.json
        the patterns of those traces, uniform ones and each single flip on fresh documents no search has seen
    torch_search.py evaluate PATTERN --model calib_data/demo
        per-document figures of one pattern, as JSON

A trace holds, per step: `base` (the pattern before), `flip` (the layer that became S), `pattern` (after), and for
each candidate `layer` its mean `kl` (nats, against all F), `nll` (nats, of the pattern) and `top1` (share of equal
argmax). Means are over the scored tokens of the calibration documents: of one corpus, or the unweighted mean of the
two corpora's means in trace_both. `documents` lists the file indices of both sides of the split, and per document
the scored tokens and the sums under all F.
"""
import argparse
import datetime
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import demo_corpus  # noqa: E402
import torch_oracle as oracle_module  # noqa: E402
from torch_oracle import Corpus, Oracle, encode_records, greedy, macro, pattern_at, split_heldout, uniform  # noqa: E402

NAMES = ("legal", "rag")
HELDOUT = 0.25
CARD_SEED, CARD_DOCUMENTS = 20260602, 64


def log(message):
    print(message, file=sys.stderr, flush=True)


def open_oracle(args):
    import torch
    from tokenizers import Tokenizer
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Oracle(args.model, device), Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))


def shipped(args, tokenizer, name):
    path = os.path.join(args.corpora or args.model, f"{name}.jsonl")
    return encode_records(oracle_module.read_records(path if os.path.exists(path) else path + ".zst"), tokenizer)


def write_json(path, data):
    """One line per innermost object, so that a diff of two traces can be read."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as f:
        f.write(format_json(data) + "\n")
    log(f"wrote {path}")


def format_json(data, indent=0):
    flat = json.dumps(data)
    if not isinstance(data, (dict, list)) or len(flat) < 150:
        return flat
    pad = " " * (indent + 1)
    if isinstance(data, dict):
        parts = [f"{pad}{json.dumps(k)}: {format_json(v, indent + 1)}" for k, v in data.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    if not any(isinstance(x, (dict, list)) for x in data):
        return flat
    return "[\n" + ",\n".join(pad + format_json(x, indent + 1) for x in data) + "\n" + " " * indent + "]"


def stamp(args, oracle):
    return {**oracle_module.provenance(oracle), "date": datetime.date.today().isoformat(),
            "corpus_seed": demo_corpus.SHIPPED_SEED, "command": "scripts/torch_search.py " + args.command}


def trace(args):
    """Searches each corpus, then both together, over the calibration side of the split."""
    oracle, tokenizer = open_oracle(args)
    documents = {name: shipped(args, tokenizer, name) for name in NAMES}
    corpora, sides = {}, {}
    for name in NAMES:
        calibration, held = split_heldout(documents[name], HELDOUT)
        corpora[name] = Corpus(oracle, name, calibration)
        rows = corpora[name].figures(oracle.full)
        sides[name] = {"calibration": [d.index for d in calibration], "heldout": [d.index for d in held],
                       "base": [{"index": d.index, "tokens": len(d.ids), "scored": r["scored"], "nll": r["nll"]}
                                for d, r in zip(calibration, rows)]}
    check = uniform(oracle.layers, 2)
    assert oracle.pattern_is_indexer_types(check, documents["legal"][0]), "removing indexers is not indexer_types"
    for label, chosen in (("legal", ["legal"]), ("rag", ["rag"]), ("both", list(NAMES))):
        began = time.monotonic()
        steps = greedy([corpora[n] for n in chosen],
                       lambda s: log(f"{label} {s['step']:2d} flip {s['flip']:2d} {s['pattern']} kl {s['kl']:.6f}"))
        write_json(os.path.join(args.out, f"trace_{label}.json"), {
            "schema": 1, "layers": oracle.layers, "index_topk": oracle.topk, "objective": "kl", "holdout": HELDOUT,
            "corpora": chosen, "documents": {n: sides[n] for n in chosen},
            "base": macro([corpora[n] for n in chosen], oracle.full), "steps": steps,
            "seconds": round(time.monotonic() - began, 1), "provenance": stamp(args, oracle)})
    for name in NAMES:
        everything = Corpus(oracle, name, documents[name])
        write_json(os.path.join(args.out, f"overlap_{name}.json"), {
            "schema": 1, "layers": oracle.layers, "index_topk": oracle.topk, "corpus": name,
            "calibration": corpora[name].overlap(), "all": everything.overlap(), "provenance": stamp(args, oracle)})


def kept_counts(layers):
    """1/2, 1/4 and 1/8 of the layers."""
    return [layers // 2, layers // 4, layers // 8]


def table(args):
    """The card's figures on fresh documents: see calib_data/demo/README.md."""
    oracle, tokenizer = open_oracle(args)
    steps = {}
    for label in NAMES + ("both",):
        with open(os.path.join(args.traces, f"trace_{label}.json")) as f:
            steps[label] = json.load(f)["steps"]
    patterns = {f"uniform-1/{k}": uniform(oracle.layers, k) for k in (2, 4, 8)}
    for label in steps:
        for kept in kept_counts(oracle.layers):
            patterns[f"{label}-{kept}"] = pattern_at(steps[label], kept)
    out = {"schema": 1, "layers": oracle.layers, "index_topk": oracle.topk, "documents": CARD_DOCUMENTS,
           "document_seed": CARD_SEED, "patterns": patterns, "corpora": {}}
    for name in NAMES:
        records = demo_corpus.documents(name, CARD_DOCUMENTS, CARD_SEED)
        corpus = Corpus(oracle, name, encode_records(records, tokenizer))
        flips = [oracle.full[:i] + "S" + oracle.full[i + 1:] for i in range(1, oracle.layers)]
        out["corpora"][name] = {
            "scored": sum(r["scored"] for r in corpus.figures(oracle.full)), "base": corpus.mean(oracle.full),
            "one_flip": [{"layer": i, **corpus.mean(p)} for i, p in enumerate(flips, 1)],
            "patterns": {label: corpus.mean(p) for label, p in patterns.items()}, "overlap": corpus.overlap()}
    out["provenance"] = stamp(args, oracle)
    write_json(args.out, out)
    verdict(out)


def verdict(card):
    """The figures the demo was wanted to show."""
    half = card["layers"] // 2
    for name, c in card["corpora"].items():
        other = next(n for n in NAMES if n != name)
        flips = sorted(f["kl"] for f in c["one_flip"])
        p = c["patterns"]
        log(f"{name}: nll {c['base']['nll']:.3f}, flips {flips[0]:.2e}..{flips[-1]:.2e} ({flips[-1] / flips[0]:.0f}x), "
            + ", ".join(f"uniform/greedy at 1/{k} kept {p[f'uniform-1/{k}']['kl']:.4f}/{p[f'{name}-{n}']['kl']:.4f} "
                        f"({p[f'uniform-1/{k}']['kl'] / p[f'{name}-{n}']['kl']:.1f}x)"
                        for k, n in zip((2, 4, 8), kept_counts(card["layers"])))
            + f", {other}'s pattern here at 1/2 {p[f'{other}-{half}']['kl'] / p[f'{name}-{half}']['kl']:.1f}x")


def evaluate(args):
    oracle, tokenizer = open_oracle(args)
    out = {}
    for name in NAMES:
        corpus = Corpus(oracle, name, shipped(args, tokenizer, name))
        out[name] = {"mean": corpus.mean(args.pattern), "documents": corpus.figures(args.pattern)}
    print(format_json({"pattern": args.pattern, "corpora": out, "provenance": stamp(args, oracle)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["trace", "table", "evaluate"])
    parser.add_argument("pattern", nargs="?", help="of evaluate")
    parser.add_argument("--model", default="calib_data/demo")
    parser.add_argument("--corpora", help="folder of legal.jsonl.zst and rag.jsonl.zst, if not the model's")
    parser.add_argument("--traces", default="tests/golden/demo")
    parser.add_argument("--out", default="tests/golden/demo")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    args = parser.parse_args()
    {"trace": trace, "table": table, "evaluate": evaluate}[args.command](args)


if __name__ == "__main__":
    main()
