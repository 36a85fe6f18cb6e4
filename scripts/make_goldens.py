#!/usr/bin/env python3
"""Make tests/golden/tiny: small random checkpoints and what HF transformers computes with them.

Every case is a checkpoint as it would be published (config.json, one safetensors file or shards with an index), read back
by transformers itself in float32 with eager attention on the CPU, and beside it expected.safetensors:

    tokens              I32 (T)      one document
    logits              F32 (T, V)
    hidden.{l}          F32 (T, D)   residual stream after layer l
    selection.{l}       I32 (T, K)   selection in force at layer l: positions ascending, then -1
    scores.{l}          F32 (T, T)   index scores of F layers; 0 where s > t
    routing.{l}         I32 (T, k)   experts chosen in MoE layers, ascending
    pattern.{FS…}.logits F32 (T, V)  the same checkpoint under another pattern (some cases)
    fp8.selection.{l}, fp8.logits    native pattern, indexers in FP8: queries and keys rotated by a Hadamard matrix, each row
                                     as F8_E4M3 numbers times one scale, amax / 448 or the power of two above (FP8 cases)

An FP8 case stores its products as F8_E4M3 with block scales, as published FP8 checkpoints do; transformers reads the same
checkpoint with each of these weights replaced by number times scale in float32.

Two things differ from plain transformers. torch.topk promises no order among ties, so while a model runs it is replaced by
a stable descending sort (lower position wins, -0 equals +0). And deepseek_v32 ignores sharing patterns, so indexers of its
S layers are made to return the selection of the last F layer. glm_moe_dsa shares by itself.

A case is kept only if it is sharp, and the script fails otherwise, naming the case:
  - float32 logits agree with a float64 run of the same model to 2e-6 of the row's largest logit, under every pattern stored;
  - both choose the same positions and experts, and nothing chosen is within 1e-5, nor 4 times the float32 error of the scores,
    of anything left out, except scores that relu makes exactly 0, and those only where no head's dot product is that near 0;
  - without the stable sort, transformers gives the same selections in all rows without such a tie, and with no tie the
    same logits to the bit;
  - a stored pattern that shares moves the logits by at least 1% against the all-F pattern;
  - with indexers in FP8, float32 and float64 choose the same positions, and in every F layer others than without.

    python3 scripts/make_goldens.py                 write tests/golden/tiny (needs torch, transformers, safetensors)
    python3 scripts/make_goldens.py --check         recompute from the committed checkpoints and compare
    python3 scripts/make_goldens.py --only NAME     one case: to write it, and its entry in the manifest, without the others
    python3 scripts/make_goldens.py --find-seeds    print, for each case, the first seed from its own on that is sharp
"""

import argparse
import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM

NEAR = 1e-5  # closest allowed distance between chosen and not chosen,
ERRORS = 4  # and that in units of the largest float32 error of what is compared
MAX_ERROR = 2e-6  # float32 against float64, relative to the row's largest logit
MIN_MOVE = 1e-2  # least effect of sharing on the logits, same measure
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# ---------------------------------------------------------------------------------------------------------------- cases

# What a case does not say. Sizes are odd on purpose; keys are config.json's.
SIZES = dict(
    vocab_size=101, hidden_size=40, intermediate_size=36, moe_intermediate_size=9, num_hidden_layers=4,
    num_attention_heads=5, q_lora_rank=22, kv_lora_rank=14, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=9,
    index_n_heads=3, index_head_dim=14, index_topk=7, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1,
    n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=2.5, first_k_dense_replace=1,
)  # fmt: skip
DEFAULTED = [
    "attention_bias", "hidden_act", "n_group", "n_shared_experts", "norm_topk_prob", "rms_norm_eps", "routed_scaling_factor",
    "scoring_func", "topk_group", "topk_method",
]  # fmt: skip
YARN = dict(factor=40, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=64)


def case(name, covers, arch, seed, tokens, dtype="F32", **options):
    known = {"config", "drop", "packed", "shards", "spared", "mtp", "bias", "wk", "patterns", "fp8"}
    assert set(options) <= known, set(options) - known
    return dict(name=name, covers=covers, arch=arch, seed=seed, tokens=tokens, dtype=dtype, **options)


# config: keys over SIZES; drop: keys left out of config.json, so that their defaults hold; packed: experts as one tensor;
# shards: number of files; spared: S layers carry no indexer; mtp: tensors of a layer beyond num_hidden_layers; bias: (mean,
# spread) of e_score_correction_bias; wk: gain of the index key projection; patterns: non-native patterns evaluated too;
# fp8: block: sizes of the blocks, ue8m0: scales are powers of two, kept: a part of the names that stay in dtype.
# The number after the architecture is the seed, found with --find-seeds; then the tokens.
CASES = [
    case(
        "v32-all-full", "deepseek_v32 with no pattern key, default rotary spelled rope_theta, separate experts, "
        "first_k_dense_replace 1, rms_norm_eps 1e-4; two other patterns evaluated", "deepseek_v32", 112, 40,
        config=dict(rope_theta=10000, rms_norm_eps=1e-4, moe_intermediate_size=6), patterns=["FSFS", "FSSS"],
    ),
    case(
        "v32-groups-yarn", "group-limited routing (12 experts in 4 groups, 2 kept) with negative choice scores, old-spelling "
        "yarn with mscale = mscale_all_dim, BF16 with k_norm and correction bias kept in F32, 2 shards, tensors of a "
        "multi-token-prediction layer to ignore, two shared experts", "deepseek_v32", 226, 41, dtype="BF16",
        config=dict(n_routed_experts=12, n_group=4, topk_group=2, num_experts_per_tok=3, moe_intermediate_size=7,
                    n_shared_experts=2, qk_rope_head_dim=12, index_head_dim=18, rope_theta=10000,
                    rope_scaling=dict(type="yarn", **YARN), max_position_embeddings=2560),
        shards=2, mtp=True, bias=(-1.2, 0.2), patterns=["FFSS"],
    ),
    case(
        "v32-yarn-mscale", "yarn with mscale != mscale_all_dim in rope_parameters (cos and sin scaled, attention scale by "
        "mscale_all_dim), index_topk_pattern as a string, packed experts, F16, norm_topk_prob false, "
        "routed_scaling_factor 1.7, one index head", "deepseek_v32", 308, 41, dtype="F16",
        config=dict(num_hidden_layers=5, index_topk_pattern="FFSFS", norm_topk_prob=False, routed_scaling_factor=1.7,
                    qk_rope_head_dim=10, index_n_heads=1,
                    rope_parameters=dict(rope_type="yarn", rope_theta=50000.0, **{**YARN, "factor": 8, "mscale": 1.3,
                                                                               "mscale_all_dim": 0.7})),
        packed=True,
    ),
    case(
        "v32-yarn-one-mscale", "yarn with mscale_all_dim alone (attention_factor by the factor only), truncate false, other "
        "betas, attention_bias, index_topk_freq with index_skip_topk_offset, 2 shards", "deepseek_v32", 402, 39,
        config=dict(num_hidden_layers=5, index_topk_freq=2, index_skip_topk_offset=3, attention_bias=True, qk_rope_head_dim=12,
                    first_k_dense_replace=2, moe_intermediate_size=7,
                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, beta_fast=8, beta_slow=2,
                                         mscale_all_dim=0.8, original_max_position_embeddings=128, truncate=False)),
        shards=2,
    ),
    case(
        "v32-yarn-attention-factor", "yarn with an explicit attention_factor, indexer_types in deepseek_v32 with S layers that "
        "carry no indexer, tied embeddings, BF16, every layer MoE, routing keys left to their defaults (8 groups, 4 kept, "
        "normalised, times 2.5)", "deepseek_v32", 501, 37, dtype="BF16",
        config=dict(indexer_types=["full", "shared", "full", "shared"], tie_word_embeddings=True, first_k_dense_replace=0,
                    n_routed_experts=16, n_group=8, topk_group=4, moe_intermediate_size=5, qk_rope_head_dim=8, rope_theta=20000,
                    rope_scaling=dict(type="yarn", factor=6.0, attention_factor=1.25, original_max_position_embeddings=48)),
        spared=True, drop=DEFAULTED,
    ),
    case(
        "v32-ties-dense", "one index head without a pass-through part, so that the K-th score is often exactly 0 and the "
        "tie rule decides; all layers dense by mlp_layer_types", "deepseek_v32", 600, 56,
        config=dict(num_hidden_layers=3, index_n_heads=1, index_head_dim=6, index_topk=13, mlp_layer_types=["dense"] * 3,
                    rope_theta=10000, index_topk_pattern="FSF"),
    ),
    case(
        "glm-all-full", "glm_moe_dsa with no pattern key (offset and freq default to all F), default rotary in "
        "rope_parameters, separate experts, rms_norm_eps 1e-3; two other patterns evaluated", "glm_moe_dsa", 700, 40,
        config=dict(rope_parameters=dict(rope_type="default", rope_theta=1000000.0), moe_intermediate_size=6,
                    rms_norm_eps=1e-3),
        patterns=["FSFS", "FFSS"],
    ),
    case(
        "glm-types-spared", "indexer_types with S layers that carry no indexer, packed experts, BF16, 2 shards, "
        "mlp_layer_types with a dense layer in the middle", "glm_moe_dsa", 800, 38, dtype="BF16",
        config=dict(num_hidden_layers=6, indexer_types=["full", "full", "shared", "full", "shared", "shared"],
                    mlp_layer_types=["dense", "sparse", "sparse", "dense", "sparse", "sparse"],
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
        packed=True, shards=2, spared=True,
    ),
    case(
        "glm-pattern-string", "index_topk_pattern as a string with unused indexers present on S layers, F16, top-level "
        "rope_theta, index keys so small that the eps of k_norm matters",
        "glm_moe_dsa", 902, 47, dtype="F16",
        config=dict(index_topk_pattern="FSSF", rope_theta=8000.0, vocab_size=97, num_attention_heads=3, index_n_heads=5),
        wk=0.003, patterns=["FFFF", "FSFS"],
    ),
    case(
        "glm-pattern-list", "index_topk_pattern as a list of full/shared, tied embeddings, attention_bias, old-spelling yarn "
        "with neither mscale nor mscale_all_dim", "glm_moe_dsa", 1001, 40, dtype="F16",
        config=dict(index_topk_pattern=["full", "shared", "full", "shared"], tie_word_embeddings=True, attention_bias=True,
                    qk_rope_head_dim=10, rope_theta=10000,
                    rope_scaling=dict(type="yarn", factor=16, original_max_position_embeddings=32)),
    ),
    case(
        "glm-pattern-letters", "index_topk_pattern as a list of F and S letters (transformers itself reads this spelling as "
        "all F; the expected values share, as serving engines do)", "glm_moe_dsa", 1100, 43, dtype="BF16",
        config=dict(index_topk_pattern=["F", "S", "S", "F"], rope_parameters=dict(rope_type="default", rope_theta=10000.0),
                    norm_topk_prob=False, routed_scaling_factor=1.0, index_topk=5, n_shared_experts=2),
    ),
    case(
        "glm-freq-offset", "index_topk_freq 4 with index_skip_topk_offset 3 (F at 0, 1, 2, 6) and S layers that carry no "
        "indexer, two dense layers, packed experts, routing keys, rms_norm_eps and others left to their defaults",
        "glm_moe_dsa", 1203, 38, dtype="F16",
        config=dict(num_hidden_layers=8, index_topk_freq=4, index_skip_topk_offset=3, first_k_dense_replace=2,
                    moe_intermediate_size=8, rope_parameters=dict(rope_type="default", rope_theta=8000000.0)),
        packed=True, spared=True, drop=DEFAULTED,
    ),
    case(
        "glm-groups-yarn", "group-limited routing in glm_moe_dsa (8 experts in 2 groups, 1 kept), yarn with mscale_all_dim in "
        "rope_parameters, index head as wide as the rotary part, 7 heads", "glm_moe_dsa", 1302, 39,
        config=dict(num_hidden_layers=3, n_routed_experts=8, n_group=2, topk_group=1, num_attention_heads=7,
                    qk_rope_head_dim=12, index_head_dim=12, moe_intermediate_size=9,
                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, **{**YARN, "factor": 32})),
        bias=(0.0, 0.3), patterns=["FSS"],
    ),
    case(
        "v32-fp8", "FP8 weights with float32 scales of 128 x 128 blocks, ragged last blocks in both directions, separate "
        "experts, index projections in FP8, layer 1's attention left in BF16, 2 shards",
        "deepseek_v32", 1411, 40, dtype="BF16",
        config=dict(num_hidden_layers=3, hidden_size=136, q_lora_rank=132, kv_lora_rank=130, intermediate_size=200,
                    moe_intermediate_size=24, n_routed_experts=4, qk_nope_head_dim=24, v_head_dim=27, index_head_dim=16,
                    index_n_heads=9, rope_theta=10000),
        shards=2, patterns=["FSF"], fp8=dict(block=[128, 128], ue8m0=False, kept=".layers.1.self_attn."),
    ),
    case(
        "glm-fp8-ue8m0", "FP8 weights whose scales are powers of two (scale_fmt ue8m0), packed experts with scales of their "
        "own per expert and a ragged block in the middle of gate_up_proj, S layers that carry no indexer, 2 shards",
        "glm_moe_dsa", 1502, 38, dtype="BF16",
        config=dict(num_hidden_layers=3, indexer_types=["full", "shared", "full"], hidden_size=144, q_lora_rank=40,
                    intermediate_size=72, moe_intermediate_size=70, n_routed_experts=4, index_head_dim=32, index_n_heads=4,
                    rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
        packed=True, spared=True, shards=2, fp8=dict(block=[128, 128], ue8m0=True),
    ),
    case(
        "glm-fp8-blocks", "FP8 weights with blocks of 16 x 24, far smaller than the weights, separate experts, tied embeddings, "
        "router and head weights of the indexer in FP8 too", "glm_moe_dsa", 1601, 39, dtype="F32",
        config=dict(num_hidden_layers=3, tie_word_embeddings=True, index_head_dim=8, moe_intermediate_size=17,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
        patterns=["FFS"], fp8=dict(block=[16, 24], ue8m0=False, all=True),
    ),
]  # fmt: skip


def full_config(c):
    """config.json of a case before keys are dropped, with the keys and the spelling of the published checkpoints."""
    sizes = {**SIZES, **c.get("config", {})}
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[c["dtype"]]
    out = dict(model_type=c["arch"], hidden_act="silu", attention_bias=False, attention_dropout=0.0, bos_token_id=0,
               eos_token_id=1, initializer_range=0.02, max_position_embeddings=2048, moe_layer_freq=1, ep_size=1,
               num_nextn_predict_layers=int(c.get("mtp", False)), scoring_func="sigmoid", topk_method="noaux_tc",
               tie_word_embeddings=False, use_cache=True)  # fmt: skip
    if c["arch"] == "deepseek_v32":
        out |= dict(architectures=["DeepseekV32ForCausalLM"], rms_norm_eps=1e-6, torch_dtype=dtype)
    else:
        out |= dict(architectures=["GlmMoeDsaForCausalLM"], rms_norm_eps=1e-5, dtype=dtype, indexer_rope_interleave=True)
        out |= dict(head_dim=sizes["qk_rope_head_dim"], qk_head_dim=sizes["qk_nope_head_dim"] + sizes["qk_rope_head_dim"])
    out |= sizes
    if c.get("fp8"):
        out["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                          weight_block_size=c["fp8"]["block"])  # fmt: skip
        if c["fp8"]["ue8m0"]:
            out["quantization_config"]["scale_fmt"] = "ue8m0"
    out["num_key_value_heads"] = out["num_attention_heads"]
    return dict(sorted(out.items()))


def native_pattern(config):
    """The F/S string a checkpoint declares."""
    layers = config["num_hidden_layers"]
    entries = config.get("indexer_types") or config.get("index_topk_pattern")
    if entries is None:
        freq, offset = config.get("index_topk_freq", 1), config.get("index_skip_topk_offset", 2)
        return "".join("F" if max(i - offset + 1, 0) % freq == 0 else "S" for i in range(layers))
    return "".join({"full": "F", "shared": "S"}.get(e, e) for e in entries)


def is_moe(config, layer):
    types = config.get("mlp_layer_types")
    return types[layer] == "sparse" if types else layer >= config["first_k_dense_replace"]


# ---------------------------------------------------------------------------------------------------- random checkpoints


def make_tensors(c, config, seed):
    """Weights in file order, as float32. Gains make attention peaked and scores and routing spread."""
    rng = np.random.default_rng(seed)
    g = dict(config)
    d, heads, r = g["hidden_size"], g["num_attention_heads"], g["qk_rope_head_dim"]
    qk, v, q, kv = g["qk_nope_head_dim"] + r, g["v_head_dim"], g["q_lora_rank"], g["kv_lora_rank"]
    pattern = native_pattern(config)
    tensors = {}

    def normal(*shape, std=1.0):
        return torch.from_numpy((rng.standard_normal(shape) * std).astype(np.float32))

    def linear(name, out, inp, gain=1.0, bias=False):
        tensors[name + ".weight"] = normal(out, inp, std=gain / inp**0.5)
        if bias:
            tensors[name + ".bias"] = normal(out, std=0.3)

    def norm(name, size, bias=False):
        tensors[name + ".weight"] = 1 + normal(size, std=0.2)
        if bias:
            tensors[name + ".bias"] = normal(size, std=0.2)

    def mlp(name, inner):
        linear(name + ".gate_proj", inner, d, 1.2)
        linear(name + ".up_proj", inner, d)
        linear(name + ".down_proj", d, inner, 0.8)

    tensors["model.embed_tokens.weight"] = normal(g["vocab_size"], d, std=0.8)
    for l in range(g["num_hidden_layers"] + (1 if c.get("mtp") else 0)):
        p = f"model.layers.{l}."
        a = p + "self_attn."
        bias = g["attention_bias"]
        norm(p + "input_layernorm", d)
        linear(a + "q_a_proj", q, d, bias=bias)
        norm(a + "q_a_layernorm", q)
        linear(a + "q_b_proj", heads * qk, q, 1.4)
        linear(a + "kv_a_proj_with_mqa", kv + r, d, 1.2, bias=bias)
        norm(a + "kv_a_layernorm", kv)
        linear(a + "kv_b_proj", heads * (g["qk_nope_head_dim"] + v), kv, 1.3)
        linear(a + "o_proj", d, heads * v, 1.2, bias=bias)
        if not (c.get("spared") and pattern[l] == "S"):
            linear(a + "indexer.wq_b", g["index_n_heads"] * g["index_head_dim"], q, 1.2)
            linear(a + "indexer.wk", g["index_head_dim"], d, c.get("wk", 1.0))
            norm(a + "indexer.k_norm", g["index_head_dim"], bias=True)
            linear(a + "indexer.weights_proj", g["index_n_heads"], d, 1.5)
        norm(p + "post_attention_layernorm", d)
        if not is_moe(config, min(l, g["num_hidden_layers"] - 1)):
            mlp(p + "mlp", g["intermediate_size"])
            continue
        experts, inner = g["n_routed_experts"], g["moe_intermediate_size"]
        mean, spread = c.get("bias", (0.0, 0.1))
        linear(p + "mlp.gate", experts, d, 1.5)
        tensors[p + "mlp.gate.e_score_correction_bias"] = mean + normal(experts, std=spread)
        for e in range(experts):
            mlp(f"{p}mlp.experts.{e}", inner)
        mlp(p + "mlp.shared_experts", inner * g["n_shared_experts"])
    norm("model.norm", d)
    if not g["tie_word_embeddings"]:
        linear("lm_head", g["vocab_size"], d, 1.5)
    return pack_experts(tensors) if c.get("packed") else tensors


def pack_experts(tensors):
    """Separate experts to (E, 2·moe_inter, D) with gate rows first and (E, D, moe_inter)."""
    out = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            out[name] = tensor
        elif name.endswith(".experts.0.gate_proj.weight"):
            base = name[: -len("0.gate_proj.weight")]
            count = sum(n.startswith(base) and n.endswith(".gate_proj.weight") for n in tensors)
            get = lambda e, kind: tensors[f"{base}{e}.{kind}_proj.weight"]
            out[base + "gate_up_proj"] = torch.stack([torch.cat([get(e, "gate"), get(e, "up")]) for e in range(count)])
            out[base + "down_proj"] = torch.stack([get(e, "down") for e in range(count)])
    return out


SCALES = "_scale_inv"  # what a weight's scales are named behind its own name
NOT_FP8 = ("embed_tokens", "lm_head", "norm", "mlp.gate.", "weights_proj", ".bias")


def in_blocks(tensor, block):
    """(…, R, C) to (…, R / block, C / block, block, block), padded with zeros."""
    rows, cols = -tensor.shape[-2] % block[0], -tensor.shape[-1] % block[1]
    whole = torch.nn.functional.pad(tensor, (0, cols, 0, rows))
    return whole.unflatten(-1, (-1, block[1])).unflatten(-3, (-1, block[0])).transpose(-2, -3)


def widened(scales, shape, block):
    """Each scale over its block, cut to the weight's shape."""
    return scales.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)[..., : shape[-2], : shape[-1]]


def quantised(tensors, fp8):
    """The weights of products as F8_E4M3, each with its scales behind it."""
    out = {}
    for name, tensor in tensors.items():
        spared = any(part in name for part in NOT_FP8) and not (fp8.get("all") and ("gate." in name or "weights_proj" in name))
        if spared or tensor.ndim < 2 or (fp8.get("kept") and fp8["kept"] in name):
            out[name] = tensor
            continue
        tensor = tensor.float()
        scales = in_blocks(tensor, fp8["block"]).abs().amax((-1, -2)) / 448
        if fp8["ue8m0"]:
            scales = torch.exp2(torch.ceil(torch.log2(scales)))
        out[name] = (tensor / widened(scales, tensor.shape, fp8["block"])).clamp(-448, 448).to(torch.float8_e4m3fn)
        out[name + SCALES] = scales.contiguous()
    return out


@functools.cache
def readable(directory):
    """The directory, or a copy in which FP8 weights are float32: what transformers is to compute with."""
    config = json.loads((directory / "config.json").read_text())
    if "quantization_config" not in config:
        return directory
    block = config.pop("quantization_config")["weight_block_size"]
    tensors, out = {}, {}
    for file in sorted(directory.glob("model*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float8_e4m3fn:
            out[name] = tensor.float() * widened(tensors[name + SCALES], tensor.shape, block)
        elif not name.endswith(SCALES):
            out[name] = tensor.float()
    copy = Path(tempfile.mkdtemp(prefix=directory.name))
    atexit.register(shutil.rmtree, copy)
    (copy / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(out, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def write_checkpoint(c, seed, directory):
    directory.mkdir(parents=True)
    config = full_config(c)
    written = {k: v for k, v in config.items() if k not in c.get("drop", ())}
    (directory / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    tensors = make_tensors(c, config, seed)
    mixed = c["dtype"] == "BF16"  # published BF16 checkpoints keep these in F32
    for name, tensor in tensors.items():
        keep = mixed and ("k_norm" in name or "e_score_correction_bias" in name)
        tensors[name] = tensor if keep else tensor.to(DTYPES[c["dtype"]])
    if c.get("fp8"):
        tensors = quantised(tensors, c["fp8"])
    count = c.get("shards", 1)
    if count == 1:
        safetensors.torch.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names, total, weight_map = list(tensors), sum(t.nbytes for t in tensors.values()), {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = names[len(names) * i // count : len(names) * (i + 1) // count]
        safetensors.torch.save_file({n: tensors[n] for n in part}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = dict(metadata=dict(total_size=total), weight_map=dict(sorted(weight_map.items())))
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------------- the reference


def in_fp8(x, scale_fmt, paired):
    """Rows (…, d) as serving engines score them: rotated, then F8_E4M3 numbers and a scale per row. The first `paired` numbers
    are rotary pairs that transformers has put into two halves: engines leave them side by side, and the matrix sees order."""
    d = x.shape[-1]
    pairs = x[..., :paired].unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2) if paired else x[..., :0]
    x = torch.cat([pairs, x[..., paired:]], -1)
    signs = [[(-1.0) ** bin(i & j).count("1") for j in range(d)] for i in range(d)]
    y = x @ torch.tensor(signs, dtype=x.dtype) * d**-0.5
    scale = y.abs().amax(-1, keepdim=True).clamp(min=1e-4) / 448
    if scale_fmt == "ue8m0":
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    return (y / scale).to(torch.float8_e4m3fn).to(x.dtype), scale


class Arithmetic(TorchFunctionMode):
    """While active: top-k is a stable descending sort (if stable), with wide, every float32 the model asks for is float64, and
    with fp8 (scale_fmt and paired of in_fp8), indexers multiply queries and keys in FP8.
    What the indexers and routers saw is kept in the two logs."""

    def __init__(self, stable=True, wide=False, fp8=None):
        super().__init__()
        self.stable, self.wide, self.fp8, self.scoring = stable, wide, fp8, False
        self.topk_log, self.relu_log = [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self.wide:
            wider = lambda x: torch.float64 if x is torch.float32 else x
            args = tuple(wider(a) for a in args)
            kwargs = {k: wider(v) for k, v in kwargs.items()}
            if func is torch.Tensor.float:
                func = torch.Tensor.double
        if func is torch.matmul and self.fp8 and self.scoring:
            self.scoring = False  # queries (B, T, h, d) by keys (B, 1, d, T) comes first, the sum over heads next
            (q, q_scale), (k, k_scale) = (in_fp8(x, *self.fp8) for x in (args[0], args[1].transpose(-1, -2)))
            # Scales are positive, so they may come before relu; but not into the sums, where what cancels is to be 0.
            return func(q, k.transpose(-1, -2)) * q_scale * k_scale.transpose(-1, -2)
        if func is torch.nn.functional.relu:
            self.relu_log.append(args[0].detach().clone())
        if func in (torch.topk, torch.Tensor.topk):
            values, k = args[0], args[1] if len(args) > 1 else kwargs["k"]
            if self.stable:
                order = torch.sort(values + 0.0, dim=-1, descending=True, stable=True)  # + 0.0: no negative zero
                result = torch.return_types.topk((order.values[..., :k], order.indices[..., :k]))
            else:
                result = func(*args, **kwargs)
            self.topk_log.append((values.detach().clone(), result[1].clone()))
            return result
        return func(*args, **kwargs)


def load(directory, pattern, wide):
    """The checkpoint as transformers reads it, under a pattern."""
    directory = readable(directory)
    raw = json.loads((directory / "config.json").read_text())
    config = AutoConfig.from_pretrained(directory)
    if config.model_type == "glm_moe_dsa":
        if not raw.get("index_topk_pattern") == list(native_pattern(raw)):  # the list of letters is the exception
            read = "".join("FS"[t == "shared"] for t in config.indexer_types)
            assert read == native_pattern(raw), f"{directory}: transformers reads {read}"
        config.indexer_types = ["full" if p == "F" else "shared" for p in pattern]
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float64 if wide else torch.float32, attn_implementation="eager",
        experts_implementation="eager", output_loading_info=True,
    )  # fmt: skip
    missing = [k for k in info["missing_keys"] if not (".indexer." in k and pattern[int(k.split(".")[2])] == "S")]
    assert not missing, f"{directory}: transformers misses {missing}"
    model.eval()
    if wide:
        model.double()
        with Arithmetic(wide=True):
            model.model.rotary_emb = type(model.model.rotary_emb)(config).double()
    return model


def run(directory, tokens, pattern, stable=True, wide=False, fp8=None):
    """One forward pass; everything that expected.safetensors stores, and the logs that the checks need."""
    model = load(directory, pattern, wide)
    config, length = model.config, len(tokens)
    dtype = torch.float64 if wide else torch.float32
    mode = Arithmetic(stable, wide, fp8)
    out = dict(hidden={}, selection={}, scores={}, dots={}, routing={}, choice={})
    in_force = {}

    def wrap_indexer(layer, indexer):
        original = indexer.forward

        def forward(*args, **kwargs):
            if pattern[layer] == "S":  # deepseek_v32 only: glm_moe_dsa has no indexer here
                return in_force["topk"]
            mode.scoring = True
            indices = original(*args, **kwargs)
            seen = mode.topk_log.pop()[0][0]
            out["scores"][layer] = torch.where(seen.new_ones(seen.shape).tril().bool(), seen, 0.0)
            out["dots"][layer] = mode.relu_log.pop()[0]
            in_force["topk"] = indices
            return indices

        indexer.forward = forward

    def after_router(layer):
        def hook(_module, _args, result):
            (inside, _), (groups, kept), (choice, chosen) = mode.topk_log[-3:]
            out["routing"][layer] = chosen.sort(-1).values
            out["choice"][layer] = [(groups, kept), (choice, chosen)]

        return hook

    def after_layer(layer):
        def hook(_module, _args, result):
            out["hidden"][layer] = (result[0] if isinstance(result, tuple) else result)[0]
            rows = torch.arange(length)[:, None]
            topk = in_force["topk"][0].long()
            topk = torch.where(topk <= rows, topk, length).sort(-1).values
            out["selection"][layer] = torch.where(topk < length, topk, -1)

        return hook

    for l, layer in enumerate(model.model.layers):
        if layer.self_attn.indexer is not None:
            wrap_indexer(l, layer.self_attn.indexer)
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.register_forward_hook(after_router(l))
        layer.register_forward_hook(after_layer(l))
    with torch.no_grad(), mode:
        out["logits"] = model(torch.tensor([tokens]), use_cache=False).logits[0]
    assert out["logits"].dtype == dtype and all(h.dtype == dtype for h in out["hidden"].values())
    assert out["logits"].isfinite().all()
    out["topk"] = config.index_topk
    return out


# ------------------------------------------------------------------------------------------------------------ sharpness


def relative(a, b):
    """Largest difference in a row, relative to the row's largest value, over rows."""
    a, b = a.double(), b.double()
    return ((a - b).abs().amax(-1) / b.abs().amax(-1)).max().item()


def threshold(a, b):
    """How far apart two of these numbers must be for float32 to order them safely."""
    return max(NEAR, ERRORS * (a.double() - b.double()).abs().max().item())


def gap(values, chosen):
    """(rows, N), (rows, k) -> (rows): lowest chosen minus highest not chosen."""
    inside = torch.zeros_like(values, dtype=torch.bool).scatter(-1, chosen.long(), True)
    return values.masked_fill(~inside, np.inf).amin(-1) - values.masked_fill(inside, -np.inf).amax(-1)


def selection_gaps(out, layer):
    """For rows t >= K: distance across the selection's edge, and which rows are decided by the tie rule."""
    k, scores = out["topk"], out["scores"][layer]
    length = scores.shape[0]
    causal = torch.ones(length, length).tril().bool()
    rows = scores.masked_fill(~causal, -np.inf)[k:]
    gaps = gap(rows, out["selection"][layer][k:])
    edge = torch.gather(rows, 1, out["selection"][layer][k:]).amin(-1)
    return gaps, (gaps == 0) & (edge == 0)


def sharpness(directory, tokens, pattern):
    """Run a pattern in float32 and float64; returns (float32 result, figures, what is wrong or None)."""
    out, ref = run(directory, tokens, pattern), run(directory, tokens, pattern, wide=True)
    error = relative(out["logits"], ref["logits"])
    figures = dict(f32_error=error, least_selection_gap=np.inf, least_routing_gap=np.inf, tie_rows=0)
    wrong = f"float32 is off by {error:.1e}" if error >= MAX_ERROR else None
    for l in out["selection"]:
        if not torch.equal(out["selection"][l], ref["selection"][l]):
            wrong = f"layer {l}: float64 selects other positions"
    for l in out["scores"]:
        near = threshold(out["scores"][l], ref["scores"][l])
        near_dot = threshold(out["dots"][l], ref["dots"][l])
        for result in (out, ref):
            gaps, tied = selection_gaps(result, l)
            figures["least_selection_gap"] = min(figures["least_selection_gap"], gaps[~tied].min().item())
            if gaps[~tied].min() < near:
                wrong = f"layer {l}: scores near the edge of the selection"
            near_zero = (result["dots"][l].abs() < near_dot).any(1)
            near_zero |= (result["scores"][l] != 0) & (result["scores"][l].abs() < near)
            if near_zero[out["topk"] :].tril(out["topk"])[tied].any():
                wrong = f"layer {l}: a tie at 0 is not robust"
        figures["tie_rows"] += int(tied.sum())
    for l in out["routing"]:
        if not torch.equal(out["routing"][l], ref["routing"][l]):
            wrong = f"layer {l}: float64 routes otherwise"
        for pair in zip(out["choice"][l], ref["choice"][l]):
            near = threshold(*(values[values.isfinite()] for values, _ in pair))
            for values, chosen in pair:
                if chosen.shape[-1] < values.shape[-1]:
                    least = gap(values, chosen).min().item()
                    figures["least_routing_gap"] = min(figures["least_routing_gap"], least)
                    if least < near:
                        wrong = f"layer {l}: experts or groups near the edge of the choice"
    return out, figures, wrong


def check_unpatched(directory, tokens, pattern, out):
    """Plain torch.topk must select the same wherever no tie decides; with no tie anywhere, same bits."""
    plain = run(directory, tokens, pattern, stable=False)
    clean = True
    for l in sorted(out["scores"]):
        tied = selection_gaps(out, l)[1]
        same = (out["selection"][l][out["topk"] :] == plain["selection"][l][out["topk"] :]).all(-1)
        if clean and not same[~tied].all():
            return f"layer {l}: plain topk selects other positions without a tie"
        clean = clean and not tied.any()  # from here on the residual streams may differ
    if clean and not torch.equal(out["logits"], plain["logits"]):
        return "plain topk gives other logits without a tie"
    return None


def fp8_indexers(config, directory, tokens, pattern, plain):
    """What is stored of a run whose indexers are in FP8, and what is wrong with it or None."""
    interleaved = config["model_type"] == "glm_moe_dsa"
    fp8 = config["quantization_config"].get("scale_fmt"), config["qk_rope_head_dim"] if interleaved else 0
    out, ref = (run(directory, tokens, pattern, wide=wide, fp8=fp8) for wide in (False, True))
    stored, wrong = {"fp8.logits": out["logits"]}, None
    if relative(out["logits"], ref["logits"]) >= 2 * MAX_ERROR:
        wrong = "in FP8, float32 is off"
    for l, selection in out["selection"].items():
        stored[f"fp8.selection.{l}"] = selection.to(torch.int32)
        if not torch.equal(selection, ref["selection"][l]):
            wrong = f"layer {l}: in FP8, float64 selects other positions"
        if pattern[l] == "F" and torch.equal(selection, plain[l]):
            wrong = f"layer {l}: FP8 selects the same positions as float32"
    return stored, wrong


def examine(c, directory, tokens):
    """All that is to be stored for a case, its figures, and what is wrong with it or None."""
    config = json.loads((directory / "config.json").read_text())
    native = native_pattern(config)
    out, figures, wrong = sharpness(directory, tokens, native)
    wrong = wrong or check_unpatched(directory, tokens, native, out)
    layers = config["num_hidden_layers"]
    stored = dict(tokens=torch.tensor(tokens, dtype=torch.int32), logits=out["logits"])
    for l in range(layers):
        stored[f"hidden.{l}"] = out["hidden"][l]
        stored[f"selection.{l}"] = out["selection"][l].to(torch.int32)
        if l in out["scores"]:
            stored[f"scores.{l}"] = out["scores"][l]
        if l in out["routing"]:
            stored[f"routing.{l}"] = out["routing"][l].to(torch.int32)
    if c.get("fp8"):
        more, bad = fp8_indexers(config, directory, tokens, native, out["selection"])
        stored |= more
        wrong = wrong or bad
    moves = {}
    full = None if c.get("spared") else run(directory, tokens, "F" * layers)["logits"]
    if "S" in native and full is not None:
        moves[native] = relative(out["logits"], full)
    for pattern in c.get("patterns", ()):
        other, more, bad = sharpness(directory, tokens, pattern)
        wrong = wrong or (f"pattern {pattern}: {bad}" if bad else None)
        wrong = wrong or check_unpatched(directory, tokens, pattern, other)
        stored[f"pattern.{pattern}.logits"] = other["logits"]
        figures["f32_error"] = max(figures["f32_error"], more["f32_error"])
        for key in ("least_selection_gap", "least_routing_gap"):
            figures[key] = min(figures[key], more[key])
        if "S" in pattern:
            moves[pattern] = relative(other["logits"], full)
    if moves and min(moves.values()) < MIN_MOVE:
        wrong = wrong or f"sharing hardly moves the logits: {moves}"
    used = {int(e) for l in out["routing"] for e in out["routing"][l].unique()}
    if out["routing"] and len(used) < config["n_routed_experts"]:
        wrong = wrong or "some expert is never chosen"
    figures["moves_logits_by"] = moves
    return stored, figures, wrong


# ---------------------------------------------------------------------------------------------------------------- main


def rounded(figures):
    number = lambda x: float(f"{x:.2g}") if np.isfinite(x) else None
    return {k: {p: number(m) for p, m in v.items()} if isinstance(v, dict) else v if isinstance(v, int) else number(v)
            for k, v in figures.items()}  # fmt: skip


def document(c, seed):
    return np.random.default_rng(seed + 7).integers(2, SIZES["vocab_size"] - 4, c["tokens"]).tolist()


def with_entry(manifest, new):
    """The manifest with the entry of one case put in the place that it has among all. Made by other versions, it says so."""
    entry = new["cases"][0]
    if manifest["versions"] != new["versions"]:
        entry["versions"] = new["versions"]
    entries = {e["name"]: e for e in manifest["cases"]} | {entry["name"]: entry}
    manifest["cases"] = [entries[c["name"]] for c in CASES if c["name"] in entries]
    return manifest


def build(c, seed, directory):
    tokens = document(c, seed)
    write_checkpoint(c, seed, directory)
    stored, figures, wrong = examine(c, directory, tokens)
    stored = {k: v.contiguous() for k, v in stored.items()}
    safetensors.torch.save_file(stored, directory / "expected.safetensors")
    return figures, wrong


def check(c, directory):
    """Recompute from the committed checkpoint; integers must be equal, floats close."""
    expected = safetensors.torch.load_file(directory / "expected.safetensors")
    stored, _, wrong = examine(c, directory, expected["tokens"].tolist())
    if wrong:
        return wrong
    if set(stored) != set(expected):
        return f"other tensors: {sorted(set(stored) ^ set(expected))}"
    for name, tensor in expected.items():
        if tensor.dtype == torch.int32 and not torch.equal(tensor, stored[name]):
            return f"{name} differs"
        if tensor.dtype != torch.int32 and (tensor - stored[name]).abs().max() > 1e-5 * tensor.abs().max():
            return f"{name} differs"
    return None


def main():
    parser = argparse.ArgumentParser(description="Make or check the tiny goldens.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "tests/golden/tiny")
    parser.add_argument("--check", action="store_true", help="recompute and compare instead of writing")
    parser.add_argument("--find-seeds", action="store_true", help="print the first sharp seed of each case")
    parser.add_argument("--only", help="one case by name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    failed, entries = 0, []
    for c in (c for c in CASES if args.only in (None, c["name"])):
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch) / c["name"]
            if args.check:
                wrong = check(c, args.out / c["name"])
                print(f"{c['name']}: {wrong or 'ok'}")
                failed += wrong is not None
                continue
            seed, (figures, wrong) = c["seed"], build(c, c["seed"], work)
            while args.find_seeds and wrong and seed < c["seed"] + 99:
                print(f"{c['name']} {seed}: {wrong}", file=sys.stderr)
                seed += 1
                shutil.rmtree(work)
                readable.cache_clear()
                figures, wrong = build(c, seed, work)
            print(f"{c['name']}: seed {seed}: {wrong or 'sharp'} {rounded(figures)}")
            failed += wrong is not None
            if args.find_seeds or wrong:
                continue
            shutil.rmtree(args.out / c["name"], ignore_errors=True)
            shutil.copytree(work, args.out / c["name"])
            config = full_config(c)
            entries.append(dict(name=c["name"], covers=c["covers"], pattern=native_pattern(config), tokens=c["tokens"],
                                dtype=c["dtype"], seed=seed, other_patterns=c.get("patterns", []),
                                **rounded(figures)))  # fmt: skip
    if entries and not failed:
        versions = dict(python=sys.version.split()[0], torch=torch.__version__, transformers=transformers.__version__,
                        safetensors=safetensors.__version__, numpy=np.__version__)  # fmt: skip
        manifest = dict(
            made_by="python3 scripts/make_goldens.py", versions=versions,
            reference="transformers, float32, eager attention and experts, CPU, one thread; top-k replaced by a stable "
            "descending sort; deepseek_v32 made to share selections",
            figures=dict(f32_error="float32 against float64 logits: largest difference in a row over the row's largest logit",
                         least_selection_gap="least distance between a selected and an unselected score, exact ties at 0 aside",
                         least_routing_gap="the same for experts and groups",
                         tie_rows="rows, over F layers, where the K-th score is exactly 0 and the lower position wins",
                         moves_logits_by="effect of each pattern against all F, same measure as f32_error"),
            cases=entries,
        )  # fmt: skip
        if args.only:
            manifest = with_entry(json.loads((args.out / "manifest.json").read_text()), manifest)
        (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
