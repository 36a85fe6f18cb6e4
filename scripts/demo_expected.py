#!/usr/bin/env python3
"""Writes transformers' own figures on a few shipped documents, small enough to commit.

    demo_expected.py --model calib_data/demo --traces tests/golden/demo --out tests/golden/demo

expected.safetensors, per document d (expected.json says which it is):
  d.ids          (T,)       i32  token ids, the document cut to `tokens`
  d.positions    (P,)       i32  the positions below, all >= index_topk
  d.logits       (P, V)     f32  all-F logits
  d.selections   (L, P, K)  i32  all-F selections, each ascending
  d.logits.many  (P, V)     f32  logits of the pattern named `many`
expected.json: the patterns by name, and per document and pattern the mean KL to all F over the scored tokens of the
cut document (nats), and their number. All of it in float32 on the CPU (the KL itself in double).
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch_search  # noqa: E402
from torch_oracle import Corpus, Document, pattern_at, uniform  # noqa: E402

CHOSEN = [("legal", 0, 320), ("legal", 1, 400), ("rag", 0, 10**6)]
POSITIONS = 6


def chosen_patterns(layers, traces):
    steps = {}
    for label in ("legal", "rag", "both"):
        with open(os.path.join(traces, f"trace_{label}.json")) as f:
            steps[label] = json.load(f)["steps"]
    half = layers // 2
    return {"one": pattern_at(steps["both"], layers - 1), "legal-half": pattern_at(steps["legal"], half),
            "rag-half": pattern_at(steps["rag"], half), "uniform": uniform(layers, 2),
            "many": pattern_at(steps["both"], layers // 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="calib_data/demo")
    parser.add_argument("--traces", default="tests/golden/demo")
    parser.add_argument("--out", default="tests/golden/demo")
    args = parser.parse_args()
    args.device, args.corpora, args.command = "cpu", None, "expected"
    import torch
    from safetensors.torch import save_file
    oracle, tokenizer = torch_search.open_oracle(args)
    patterns = chosen_patterns(oracle.layers, args.traces)
    tensors, listing = {}, []
    for n, (name, index, limit) in enumerate(CHOSEN):
        whole = torch_search.shipped(args, tokenizer, name)[index]
        document = Document(index, whole.ids[:limit], whole.first_target)
        scored = document.scored(oracle.topk)
        at = [scored.start + i * (len(scored) - 1) // (POSITIONS - 1) for i in range(POSITIONS)]
        corpus, rows = Corpus(oracle, name, [document]), [t - scored.start for t in at]
        masks = oracle.selections([document], lambda d: at)[0]
        tensors[f"{n}.ids"] = torch.tensor(document.ids, dtype=torch.int32)
        tensors[f"{n}.positions"] = torch.tensor(at, dtype=torch.int32)
        tensors[f"{n}.logits"] = oracle.scored_logits(oracle.full, [document])[0][rows].clone()
        tensors[f"{n}.logits.many"] = oracle.scored_logits(patterns["many"], [document])[0][rows].clone()
        tensors[f"{n}.selections"] = masks.nonzero()[:, 2].view(*masks.shape[:2], oracle.topk).to(torch.int32)
        listing.append({"name": str(n), "corpus": name, "index": index, "tokens": len(document.ids),
                        "first_target": document.first_target, "scored": len(scored),
                        "kl": {label: corpus.mean(p)["kl"] for label, p in patterns.items()}})
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "expected.safetensors")
    save_file(tensors, path)
    os.chmod(path, 0o644)
    torch_search.write_json(os.path.join(args.out, "expected.json"), {
        "schema": 1, "layers": oracle.layers, "index_topk": oracle.topk, "patterns": patterns, "documents": listing,
        "tensors": {k: {"dtype": str(v.dtype).replace("torch.", ""), "shape": list(v.shape)}
                    for k, v in tensors.items()},
        "provenance": {**torch_search.stamp(args, oracle), "command": "scripts/demo_expected.py"}})


if __name__ == "__main__":
    main()
