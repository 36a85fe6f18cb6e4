#!/usr/bin/env python3
"""How far PyTorch's bf16 autocast is from its float32 on the demo model: the measure of dsacal's own bf16 path.

    torch_bf16_kl.py --documents FILE

FILE is what `DSA_GPU_TEST_DOCUMENTS=FILE gpu_tests forward` writes: a JSON object a line with `corpus`, `ids`, `scored`
(positions), `tokens` (how many) and `kl`, the sum over them of KL(CPU float32 || GPU), all F, in nats. Here the same documents go through
transformers' GlmMoeDsaForCausalLM in float32 and under torch.autocast(bfloat16), KL in double by log-softmax. Prints
both means per corpus and `1 passed, 0 failed` if ours is at most --ratio times PyTorch's on each.
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def scored_log_softmax(oracle, document, autocast):
    """(scored, V) in double, of one document alone."""
    import torch
    from torch_oracle import log_softmax
    oracle.set_pattern(oracle.full)
    ids = torch.tensor([document["ids"]], device=oracle.device)
    at = torch.tensor(document["scored"], device=oracle.device)
    with torch.no_grad(), torch.autocast("cuda" if oracle.device != "cpu" else "cpu", dtype=torch.bfloat16, enabled=autocast):
        hidden = oracle.model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
        return log_softmax(oracle.model.lm_head(hidden[at]).float())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", required=True)
    parser.add_argument("--model", default="calib_data/demo")
    parser.add_argument("--ratio", type=float, default=1.5)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    args = parser.parse_args()
    import torch
    from torch_oracle import Oracle, provenance
    oracle = Oracle(args.model, args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with open(args.documents, encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    sums = {}
    for document in documents:
        base, other = (scored_log_softmax(oracle, document, autocast) for autocast in (False, True))
        mean = sums.setdefault(document["corpus"], [0, 0, 0])
        mean[0] += document["kl"]
        mean[1] += (base.exp() * (base - other)).sum().item()
        mean[2] += document["tokens"]
    print(json.dumps(provenance(oracle)))
    good = bool(sums)
    for corpus, (ours, theirs, tokens) in sums.items():
        print(f"{corpus}: mean KL to float32 over {tokens} tokens: dsacal {ours / tokens:.3e}, PyTorch bf16 autocast "
              f"{theirs / tokens:.3e}, ratio {ours / theirs:.3f}")
        good = good and ours <= args.ratio * theirs
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
