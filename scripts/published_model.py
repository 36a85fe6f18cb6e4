#!/usr/bin/env python3
"""Writes a published checkpoint without its weights: config.json, and safetensors files whose headers declare every
tensor and whose data is a hole. Apparent sizes are the real ones, hundreds of GB; on the disk it takes some MB. For
`inspect` and the plan of memory; every weight reads as zero, so no figure of quality means anything.

    scripts/published_model.py deepseek-v3.2|glm-5|glm-5-fp8|glm-5.2|glm-5.2-fp8 --out DIR [--layers N]

Sizes are those of the published configurations; FP8 ones have a scale per 128 x 128 block. The multi-token-prediction
layer behind the last is there too, as published. Needs a file system with sparse files.
"""
import argparse
import json
import os
import struct
import sys

BLOCK = 128
SHARD_BYTES = 5_000_000_000
BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}

COMMON = {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "first_k_dense_replace": 3,
          "hidden_act": "silu", "index_head_dim": 128, "index_topk": 2048, "initializer_range": 0.02,
          "kv_lora_rank": 512, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_routed_experts": 256,
          "n_shared_experts": 1, "norm_topk_prob": True, "num_experts_per_tok": 8, "num_nextn_predict_layers": 1,
          "qk_rope_head_dim": 64, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
          "tie_word_embeddings": False, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": True}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
DEEPSEEK_V32 = {**COMMON, "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32",
                "eos_token_id": 1, "hidden_size": 7168, "index_n_heads": 64, "intermediate_size": 18432,
                "max_position_embeddings": 163840, "n_group": 8, "num_attention_heads": 128,
                "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
                "rms_norm_eps": 1e-06, "rope_theta": 10000, "topk_group": 4, "v_head_dim": 128,
                "vocab_size": 129280,
                "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
                                 "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
                "quantization_config": {**FP8, "scale_fmt": "ue8m0"}}
GLM_5 = {**COMMON, "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa",
         "eos_token_id": [154820, 154827, 154829], "hidden_size": 6144, "index_n_heads": 32,
         "indexer_rope_interleave": True, "intermediate_size": 12288, "max_position_embeddings": 202752,
         "n_group": 1, "num_attention_heads": 64, "num_hidden_layers": 78, "num_key_value_heads": 64,
         "q_lora_rank": 2048, "qk_nope_head_dim": 192, "rms_norm_eps": 1e-05,
         "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "topk_group": 1, "v_head_dim": 256,
         "vocab_size": 154880}
# F at 0, 1, 2 and then at every fourth: 6, 10, ..., 74.
GLM_52 = {**GLM_5, "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"}, "index_topk_freq": 4,
          "index_skip_topk_offset": 3,
          "indexer_types": ["full" if max(layer - 2, 0) % 4 == 0 else "shared" for layer in range(78)]}
CONFIGS = {"deepseek-v3.2": DEEPSEEK_V32, "glm-5": GLM_5, "glm-5-fp8": {**GLM_5, "quantization_config": FP8},
           "glm-5.2": GLM_52, "glm-5.2-fp8": {**GLM_52, "quantization_config": FP8}}


def cut(config, layers):
    """The same with fewer layers, for quick tests; the pattern is cut with them."""
    config = {**config, "num_hidden_layers": layers}
    if "indexer_types" in config:
        config["indexer_types"] = config["indexer_types"][:layers]
    return config


class Tensors:
    """(name, dtype, shape) in the order of the files."""

    def __init__(self, config):
        self.list = []
        self.fp8 = "quantization_config" in config

    def plain(self, name, shape, dtype="BF16"):
        self.list.append((name, dtype, shape))

    def product(self, name, rows, columns):
        """The weight of a matrix product: in FP8 with its scales, or in BF16."""
        if not self.fp8:
            return self.plain(name + ".weight", [rows, columns])
        self.plain(name + ".weight", [rows, columns], "F8_E4M3")
        self.plain(name + ".weight_scale_inv", [-(-rows // BLOCK), -(-columns // BLOCK)], "F32")

    def feed_forward(self, name, inner, hidden):
        self.product(name + ".gate_proj", inner, hidden)
        self.product(name + ".up_proj", inner, hidden)
        self.product(name + ".down_proj", hidden, inner)


def has_indexer(config, layer):
    types = config.get("indexer_types")
    return not types or layer >= len(types) or types[layer] == "full"


def add_layer(tensors, config, layer):
    c, p = config, f"model.layers.{layer}."
    d, heads, q, latent, r = (c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"], c["kv_lora_rank"],
                              c["qk_rope_head_dim"])
    tensors.plain(p + "input_layernorm.weight", [d])
    tensors.plain(p + "post_attention_layernorm.weight", [d])
    a = p + "self_attn."
    tensors.product(a + "q_a_proj", q, d)
    tensors.plain(a + "q_a_layernorm.weight", [q])
    tensors.product(a + "q_b_proj", heads * (c["qk_nope_head_dim"] + r), q)
    tensors.product(a + "kv_a_proj_with_mqa", latent + r, d)
    tensors.plain(a + "kv_a_layernorm.weight", [latent])
    tensors.product(a + "kv_b_proj", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), latent)
    tensors.product(a + "o_proj", d, heads * c["v_head_dim"])
    if has_indexer(c, layer):
        width = c["index_head_dim"]
        tensors.product(a + "indexer.wq_b", c["index_n_heads"] * width, q)
        tensors.product(a + "indexer.wk", width, d)
        tensors.plain(a + "indexer.k_norm.weight", [width], "F32")
        tensors.plain(a + "indexer.k_norm.bias", [width], "F32")
        tensors.plain(a + "indexer.weights_proj.weight", [c["index_n_heads"], d])
    m = p + "mlp"
    if layer < c["first_k_dense_replace"]:
        tensors.feed_forward(m, c["intermediate_size"], d)
        return
    tensors.plain(m + ".gate.weight", [c["n_routed_experts"], d])
    tensors.plain(m + ".gate.e_score_correction_bias", [c["n_routed_experts"]], "F32")
    for expert in range(c["n_routed_experts"]):
        tensors.feed_forward(f"{m}.experts.{expert}", c["moe_intermediate_size"], d)
    tensors.feed_forward(m + ".shared_experts", c["moe_intermediate_size"] * c["n_shared_experts"], d)


def tensors_of(config):
    tensors, d, vocabulary = Tensors(config), config["hidden_size"], config["vocab_size"]
    tensors.plain("model.embed_tokens.weight", [vocabulary, d])
    for layer in range(config["num_hidden_layers"]):
        add_layer(tensors, config, layer)
    tensors.plain("model.norm.weight", [d])
    tensors.plain("lm_head.weight", [vocabulary, d])
    for layer in range(config["num_hidden_layers"],
                       config["num_hidden_layers"] + config["num_nextn_predict_layers"]):
        add_layer(tensors, config, layer)
        p = f"model.layers.{layer}."
        tensors.plain(p + "eh_proj.weight", [d, 2 * d])
        for name in ("enorm", "hnorm", "shared_head.norm"):
            tensors.plain(f"{p}{name}.weight", [d])
        for name in ("embed_tokens", "shared_head.head"):
            tensors.plain(f"{p}{name}.weight", [vocabulary, d])
    return tensors.list


def size(dtype, shape):
    count = BYTES[dtype]
    for n in shape:
        count *= n
    return count


def shards_of(tensors):
    shards, used = [[]], 0
    for tensor in tensors:
        bytes_ = size(*tensor[1:])
        if shards[-1] and used + bytes_ > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += bytes_
    return shards


def write_shard(path, tensors):
    header, at = {}, 0
    for name, dtype, shape in tensors:
        end = at + size(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return at


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(CONFIGS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--layers", type=int, help="only the first so many layers")
    args = parser.parse_args()
    config = CONFIGS[args.name]
    if args.layers is not None:
        if not 1 <= args.layers <= config["num_hidden_layers"]:
            parser.error(f"--layers: expected 1 to {config['num_hidden_layers']}")
        config = cut(config, args.layers)
    os.makedirs(args.out, exist_ok=True)
    if os.listdir(args.out):
        sys.exit(f"{args.out} is not empty")
    shards = shards_of(tensors_of(config))
    where, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        total += write_shard(os.path.join(args.out, file), tensors)
        where.update({name: file for name, _, _ in tensors})
    with open(os.path.join(args.out, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, file)
    with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    print(f"{args.out}: {len(where)} tensors in {len(shards)} files, {total} bytes, all of them holes")


main()
