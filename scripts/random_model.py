#!/usr/bin/env python3
"""Writes a checkpoint of a published model's layer shapes with few layers and random weights, and documents of random
token ids: something to run long contexts on where the real model does not fit. Quality figures mean nothing on it.

    scripts/random_model.py --shape glm5 --layers 4 --experts 16 --out DIR [--fp8] [--documents 2 --tokens 65536]

With --fp8 products are F8_E4M3 with a float32 scale per 128 x 128 block, as published.

Leaves DIR/config.json, DIR/model-*.safetensors, DIR/model.safetensors.index.json and DIR/documents.jsonl
(`input_ids`, so no tokenizer is needed). Needs torch and safetensors; makes the weights on a GPU if there is one.
"""
import argparse
import json
import os
import random

import torch
from safetensors.torch import save_file

SHAPES = {
    "glm5": {"model_type": "glm_moe_dsa", "architectures": ["GlmMoeDsaForCausalLM"], "hidden_size": 6144,
             "num_attention_heads": 64, "q_lora_rank": 2048, "kv_lora_rank": 512, "qk_nope_head_dim": 192,
             "qk_rope_head_dim": 64, "v_head_dim": 256, "index_n_heads": 32, "index_head_dim": 128,
             "intermediate_size": 12288, "moe_intermediate_size": 2048, "rope_parameters": {
                 "rope_type": "default", "rope_theta": 1000000.0}, "n_group": 1, "topk_group": 1,
             "routed_scaling_factor": 2.5},
    "dsv32": {"model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"], "hidden_size": 7168,
              "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
              "qk_rope_head_dim": 64, "v_head_dim": 128, "index_n_heads": 64, "index_head_dim": 128,
              "intermediate_size": 18432, "moe_intermediate_size": 2048, "rope_theta": 10000.0, "n_group": 1,
              "topk_group": 1, "routed_scaling_factor": 2.5},
}


BLOCK = 128
MOST = 448  # the largest number of F8_E4M3


def config_of(args):
    quantised = {"quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                         "weight_block_size": [BLOCK, BLOCK]}} if args.fp8 else {}
    return {**quantised, **SHAPES[args.shape], "num_hidden_layers": args.layers, "first_k_dense_replace": args.dense,
            "n_routed_experts": args.experts, "num_experts_per_tok": min(8, args.experts), "n_shared_experts": 1,
            "norm_topk_prob": True, "index_topk": 2048, "vocab_size": args.vocab, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
            "max_position_embeddings": max(args.tokens, 4096), "scoring_func": "sigmoid", "topk_method": "noaux_tc"}


def layer_shapes(c, layer):
    heads, d = c["num_attention_heads"], c["hidden_size"]
    n, r, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    q, kv, h, dim = c["q_lora_rank"], c["kv_lora_rank"], c["index_n_heads"], c["index_head_dim"]
    shapes = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,),
              "self_attn.q_a_proj.weight": (q, d), "self_attn.q_a_layernorm.weight": (q,),
              "self_attn.q_b_proj.weight": (heads * (n + r), q),
              "self_attn.kv_a_proj_with_mqa.weight": (kv + r, d), "self_attn.kv_a_layernorm.weight": (kv,),
              "self_attn.kv_b_proj.weight": (heads * (n + v), kv), "self_attn.o_proj.weight": (d, heads * v),
              "self_attn.indexer.wq_b.weight": (h * dim, q), "self_attn.indexer.wk.weight": (dim, d),
              "self_attn.indexer.weights_proj.weight": (h, d), "self_attn.indexer.k_norm.weight": (dim,),
              "self_attn.indexer.k_norm.bias": (dim,)}
    if layer < c["first_k_dense_replace"]:
        parts = {"mlp": c["intermediate_size"]}
    else:
        m = c["moe_intermediate_size"]
        shapes["mlp.gate.weight"] = (c["n_routed_experts"], d)
        shapes["mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        parts = {f"mlp.experts.{e}": m for e in range(c["n_routed_experts"])} | {"mlp.shared_experts": m}
    for name, inner in parts.items():
        shapes |= {f"{name}.gate_proj.weight": (inner, d), f"{name}.up_proj.weight": (inner, d),
                   f"{name}.down_proj.weight": (d, inner)}
    return shapes


def make(name, shape, device, layers):
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.float32)
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    # Products keep the size of their input; what is added to the residual stream shrinks with depth.
    scale = shape[1] ** -0.5 / (layers ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1)
    return torch.randn(shape, device=device).mul_(scale)


def is_product(name, shape):
    return len(shape) == 2 and ".layers." in name and not name.endswith(("mlp.gate.weight", "weights_proj.weight"))


def quantise(name, weight):
    """name and scales -> tensors: each block divided by what takes its largest number to 448."""
    rows, cols = weight.shape
    down, across = -(-rows // BLOCK), -(-cols // BLOCK)
    padded = torch.nn.functional.pad(weight, (0, across * BLOCK - cols, 0, down * BLOCK - rows))
    blocks = padded.view(down, BLOCK, across, BLOCK)
    scales = blocks.abs().amax(dim=(1, 3)).clamp_(min=1e-12) / MOST
    codes = (blocks / scales[:, None, :, None]).view(padded.shape)[:rows, :cols].to(torch.float8_e4m3fn)
    return {name: codes.contiguous().cpu(), name + "_scale_inv": scales.contiguous().cpu()}


def tensors_of(shapes, device, layers, fp8):
    tensors = {}
    for name, shape in shapes.items():
        weight = make(name, shape, device, layers)
        if fp8 and is_product(name, shape):
            tensors |= quantise(name, weight)
        else:
            tensors[name] = weight.to(torch.bfloat16).cpu() if weight.dim() == 2 else weight
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="glm5")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dense", type=int, default=1, help="of them, the first that have no experts")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = config_of(args)
    os.makedirs(args.out, exist_ok=True)
    where = {}

    def shard(number, shapes):
        file = f"model-{number:05d}.safetensors"
        tensors = tensors_of(shapes, device, args.layers, args.fp8)
        save_file(tensors, os.path.join(args.out, file))
        where.update({n: file for n in tensors})

    d, v = config["hidden_size"], config["vocab_size"]
    shard(0, {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,), "lm_head.weight": (v, d)})
    for layer in range(args.layers):
        shard(layer + 1, {f"model.layers.{layer}.{n}": s for n, s in layer_shapes(config, layer).items()})
    with open(os.path.join(args.out, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
        json.dump({"metadata": {}, "weight_map": where}, f)
    with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)
    ids = random.Random(args.seed)
    with open(os.path.join(args.out, "documents.jsonl"), "w", encoding="utf-8") as f:
        for _ in range(args.documents):
            f.write(json.dumps({"input_ids": [ids.randrange(v) for _ in range(args.tokens)]}) + "\n")


main()
