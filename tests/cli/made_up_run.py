"""A results.json made of arithmetic, of any size: what the tests of the report start from where no run would be quick
enough. The figures are plausible, not measured, and the same every time."""
import json
import math
import random


def _quality(kl, documents, topk, buckets):
    tokens = documents * 100 * buckets
    return {"kl": {"mean": kl, "se": kl * 0.07, "p50": kl * 0.25, "p90": kl * 2.5, "p99": kl * 9, "max": kl * 64,
                   "ci95": [kl * 0.86, kl * 1.15]},
            "nll": 2.125 + kl * 0.3, "nll_base": 2.125, "nll_delta": kl * 0.3, "nll_delta_se": kl * 0.04,
            "nll_delta_ci95": [kl * 0.22, kl * 0.38], "ppl_ratio": math.exp(kl * 0.3), "top1": 1 / (1 + kl),
            "top1_ci95": [1 / (1 + 1.2 * kl), 1 / (1 + 0.8 * kl)], "documents": documents, "scored_tokens": tokens,
            "by_position": [{"from": topk << p, "to": topk << (p + 1), "scored_tokens": tokens // buckets,
                             "kl": kl * (0.8 + 0.1 * p), "kl_p99": kl * 9, "nll_delta": kl * 0.3,
                             "top1": 1 / (1 + kl)} for p in range(buckets)]}


def _sums(rng, layers, topk, documents, means):
    """One slot of the overlap: documents of several lengths whose means scatter about `means`."""
    queries = [60 + 13 * d for d in range(documents)]
    total, weight2 = sum(queries), sum(n * n for n in queries)
    matrix = [[1.0] * layers for _ in range(layers)]
    squared, crossed = [], []
    for i in range(layers):
        rows = [weight2], [weight2]
        for j in range(i + 1, layers):
            common = [round(n * topk * min(1, means(i, j) * rng.uniform(0.9, 1.1))) / topk for n in queries]
            matrix[i][j] = matrix[j][i] = sum(common) / total
            rows[0].append(sum(y * y for y in common))
            rows[1].append(sum(n * y for n, y in zip(queries, common)))
        squared.append(rows[0])
        crossed.append(rows[1])
    return {"queries": total, "overlap": matrix, "documents": documents, "weight2": weight2, "squared": squared,
            "crossed": crossed}


def _trace(rng, layers, topk, steps):
    cost = [0] + [10 ** rng.uniform(-4.2, -1.2) for _ in range(1, layers)]
    pattern, kl, trace = ["F"] * layers, 0, []
    for number in range(1, steps + 1):
        left = [l for l in range(1, layers) if pattern[l] == "F"]
        if not left:
            break
        candidates = [{"layer": l, "objective": kl + cost[l], "kl": kl + cost[l], "kl_se": 0.08 * (kl + cost[l]),
                       "nll": 2.125 + 0.3 * (kl + cost[l]), "documents": 24, "bound": None} for l in left]
        flip = min(left, key=lambda l: (cost[l], l))
        for candidate in candidates:
            if cost[candidate["layer"]] > 3 * cost[flip]:
                candidate.update(documents=16, bound=cost[candidate["layer"]] / 2)
        kl += cost[flip]
        pattern[flip] = "S"
        side = _quality(kl, 24, topk, 2)
        trace.append({"step": number, "flip": flip, "pattern": "".join(pattern), "kl": kl, "kl_se": side["kl"]["se"],
                      "nll": side["nll"], "top1": side["top1"], "broken": None if kl <= 0.02 else "budget-kl",
                      "calibration": side, "heldout": _quality(kl * rng.uniform(0.9, 1.1), 8, topk, 2),
                      "candidates": candidates})
    return trace


def results(layers=78, names=("legal", "rag", "code"), buckets=7, topk=2048, steps=None, model="glm-made-up",
            architecture="glm_moe_dsa", device="cpu"):
    """As json.dumps takes it; steps: None for all that there can be."""
    rng = random.Random(7)
    trace = _trace(rng, layers, topk, layers if steps is None else steps)
    emitted = max((s for s in trace if not s["broken"]), key=lambda s: s["step"])
    reference = "F" * layers
    sums = {}
    for name in names:
        scale = rng.uniform(0.4, 0.8)
        slots = [_sums(rng, layers, topk, 4, lambda i, j, p=p, s=scale: s / (1 + 0.12 * (j - i)) * (1 - 0.05 * p))
                 for p in range(buckets)]
        sums[name] = [{"bucket": p, "from": topk << p, "to": topk << (p + 1), **slot} for p, slot in enumerate(slots)]
    everything = {name: _sums(rng, layers, topk, 4, lambda i, j: 0.5 / (1 + 0.12 * (j - i))) for name in names}
    uniform = {f"uniform-1/{n}": "".join("S" if l % n else "F" for l in range(layers)) for n in (2, 4)}
    return {
        "schema": 1, "layers": layers, "index_topk": topk, "pattern": emitted["pattern"],
        "model": {"name": model, "architecture": architecture, "fingerprint": "3f" * 32, "hidden": 6144, "heads": 64,
                  "index_heads": 32, "index_dim": 128, "latent": 512, "rope": 64, "q_rank": 2048, "nope": 192,
                  "value": 256, "dense_inner": 12288, "expert_inner": 2048, "experts": 256, "experts_per_token": 9,
                  "dense_layers": 3},
        "context": topk << buckets, "seed": 1, "holdout": 0.25, "search": "racing", "delta": 0.01, "epsilon": 0.0004,
        "refine_work": None, "objective": "kl",
        "budget": {"kl": 0.02, "nll": None, "top1": None, "kl_p99": None, "max_shared": None, "scope": "mean",
                   "default": False},
        "base": {"pattern": reference, "nll": 2.125, "scored_tokens": 4800, "documents": 24,
                 "quality": _quality(0, 24, topk, 2), "calibration": _quality(0, 24, topk, 2),
                 "heldout": _quality(0, 8, topk, 2)},
        "trace": trace, "emitted_step": emitted["step"],
        "best": [{"shared": s["step"], "pattern": s["pattern"], "kl": s["kl"],
                  "heldout_kl": s["heldout"]["kl"]["mean"]} for s in trace],
        "refined": [], "quality": _quality(emitted["kl"], 24, topk, buckets),
        "heldout": emitted["heldout"],
        "corpora": {name: {**_quality(emitted["kl"] * (0.5 + 0.5 * c), 8, topk, buckets),
                           "heldout": _quality(emitted["kl"] * (0.6 + 0.4 * c), 3, topk, buckets),
                           "corpus": {"weight": 1, "sha256": f"{c:x}" * 64, "documents": 12,
                                      "documents_calibration": 8, "documents_heldout": 3, "unscored": 1, "cut": 0,
                                      "tokens": 123456, "scored": 7700, "scored_calibration": 5600,
                                      "scored_heldout": 2100}} for c, name in enumerate(names)},
        "baselines": {name: {"pattern": pattern, **_quality(0.3 * (1 + b), 24, topk, buckets),
                             "heldout": _quality(0.32 * (1 + b), 8, topk, buckets)}
                      for b, (name, pattern) in enumerate(uniform.items())},
        "noise_floor": {"kl": 0.000125, "corpora": {name: 0.000125 for name in names}},
        "overlap": {name: everything[name]["overlap"] for name in names},
        "overlap_by_position": sums,
        "overlap_documents": {name: {"documents": 4, "sum": [[0] * (layers - i) for i in range(layers)],
                                     "sum2": [[0] * (layers - i) for i in range(layers)],
                                     "weight2": everything[name]["weight2"], "squared": everything[name]["squared"],
                                     "crossed": everything[name]["crossed"]} for name in names},
        "stopped_by": "budget-kl",
        "work": {"token_layers": 123456789, "refine_token_layers": 0, "head_tokens": 4567890,
                 "token_layers_naive": 345678901, "seconds": 83.25},
        "provenance": {"version": "0.1", "commit": "0123456789ab", "device": device, "date": "2026-01-01T00:00:00Z",
                       "threads": 2, "host_memory": 1 << 30, "executed": 130000000, "peak_memory": 700 << 20}}


def write(path, **how):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(results(**how), file, ensure_ascii=False)
