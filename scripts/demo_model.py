"""The glm_moe_dsa forward pass in a form that trains fast, and its export as an ordinary checkpoint.

Training wants what inference avoids: whole rows of positions at once, every expert computed for every token (the
experts side by side are one wide feed-forward layer whose hidden units are scaled by the router), and a loss for
the indexers. The function computed is the one of transformers' GlmMoeDsaForCausalLM; check_against_transformers()
proves it on the exported files.

Letters: B rows, T positions, D hidden, H heads, K index_topk, E experts; n, r, v, c, q as in the configuration.
"""
import json
import math
import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    """Sizes of the model; the defaults are the demo's."""
    layers: int = 16
    hidden: int = 256
    heads: int = 8
    q_rank: int = 128
    kv_rank: int = 64
    nope: int = 32
    rope: int = 16
    value: int = 32
    index_heads: int = 4
    index_dim: int = 32
    topk: int = 64
    dense_inter: int = 768
    moe_inter: int = 96
    experts: int = 8
    per_token: int = 2
    scaling: float = 2.0
    vocab: int = 2048
    context: int = 1024
    theta: float = 10000.0
    eps: float = 1e-5


def rms_norm(x, weight, eps):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)) * weight


def rotate(x, cos, sin):
    """Rotary on pairs (2i, 2i+1) of the last dimension; x (B, T, heads, r), cos and sin (T, r/2)."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1).to(x.dtype)


def rotary_tables(shape, positions, device):
    inv_freq = 1.0 / shape.theta ** (torch.arange(0, shape.rope, 2, device=device, dtype=torch.float32) / shape.rope)
    angle = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * inv_freq[None, :]
    return angle.cos(), angle.sin()


class Indexer(nn.Module):
    """The lightning indexer: which earlier positions a query attends to."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.wq_b = nn.Linear(s.q_rank, s.index_heads * s.index_dim, bias=False)
        self.wk = nn.Linear(s.hidden, s.index_dim, bias=False)
        self.k_norm = nn.LayerNorm(s.index_dim, eps=1e-6)
        self.weights_proj = nn.Linear(s.hidden, s.index_heads, bias=False)

    def forward(self, a, qr, cos, sin):
        """Index scores (B, T, T), not yet causal, from the normed input a and the query latent qr."""
        s, (b, t, _) = self.s, a.shape
        q = self.wq_b(qr).view(b, t, s.index_heads, s.index_dim)
        k = self.k_norm(self.wk(a)).view(b, t, 1, s.index_dim).to(q.dtype)
        q = torch.cat([rotate(q[..., :s.rope], cos, sin), q[..., s.rope:]], dim=-1)
        k = torch.cat([rotate(k[..., :s.rope], cos, sin), k[..., s.rope:]], dim=-1)
        dots = torch.einsum("bthd,bsd->bhts", q, k.squeeze(2)).float() * s.index_dim ** -0.5
        weights = self.weights_proj(a).float() * s.index_heads ** -0.5
        return (F.relu(dots) * weights.transpose(1, 2)[..., None]).sum(1)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q_a_proj = nn.Linear(s.hidden, s.q_rank, bias=False)
        self.q_a_layernorm = nn.Parameter(torch.ones(s.q_rank))
        self.q_b_proj = nn.Linear(s.q_rank, s.heads * (s.nope + s.rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(s.hidden, s.kv_rank + s.rope, bias=False)
        self.kv_a_layernorm = nn.Parameter(torch.ones(s.kv_rank))
        self.kv_b_proj = nn.Linear(s.kv_rank, s.heads * (s.nope + s.value), bias=False)
        self.o_proj = nn.Linear(s.heads * s.value, s.hidden, bias=False)
        self.indexer = Indexer(s)

    def project(self, a, cos, sin):
        """Query latent (B,T,q), queries and keys (B,H,T,n+r), values (B,H,T,v)."""
        s, (b, t, _) = self.s, a.shape
        qr = rms_norm(self.q_a_proj(a), self.q_a_layernorm, 1e-6)
        q = self.q_b_proj(qr).view(b, t, s.heads, s.nope + s.rope)
        q = torch.cat([q[..., :s.nope], rotate(q[..., s.nope:], cos, sin)], dim=-1)
        latent = self.kv_a_proj_with_mqa(a)
        k_rope = rotate(latent[..., s.kv_rank:].reshape(b, t, 1, s.rope), cos, sin)
        kv = self.kv_b_proj(rms_norm(latent[..., :s.kv_rank], self.kv_a_layernorm, 1e-6))
        kv = kv.view(b, t, s.heads, s.nope + s.value)
        k = torch.cat([kv[..., :s.nope], k_rope.expand(-1, -1, s.heads, -1).to(kv.dtype)], dim=-1)
        return qr, q.transpose(1, 2), k.transpose(1, 2), kv[..., s.nope:].transpose(1, 2)

    def output(self, o):
        b, _, t, _ = o.shape
        return self.o_proj(o.transpose(1, 2).reshape(b, t, -1))

    def dense(self, a, cos, sin):
        """Causal attention to everything. Values are padded to the key width, for the fused kernels need one width."""
        s = self.s
        _, q, k, v = self.project(a, cos, sin)
        v = F.pad(v, (0, s.nope + s.rope - s.value))
        o = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True,
                                           scale=(s.nope + s.rope) ** -0.5)
        return self.output(o[..., :s.value])

    def explicit(self, a, cos, sin, mode, allowed):
        """Attention with its probabilities in sight -> (output, index scores, allowed, target).

        watch  attends to everything; full to the indexer's top K; shared to `allowed`, which an earlier layer chose.
        target (B, T, T) is the attention, mean over heads, that an indexer is taught to imitate: detached, as are the
        indexer's inputs, so that its loss moves nothing else."""
        s, t = self.s, a.shape[1]
        qr, q, k, v = self.project(a, cos, sin)
        index = None
        if mode != "shared":
            causal = torch.ones(t, t, dtype=torch.bool, device=a.device).tril()
            index = self.indexer(a.detach(), qr.detach(), cos, sin).masked_fill(~causal, -math.inf)
            allowed = causal.expand(a.shape[0], t, t)
            if mode == "full":
                chosen = index.detach().topk(min(s.topk, t), dim=-1).indices
                allowed = torch.zeros_like(allowed, dtype=torch.bool).scatter(-1, chosen, True) & causal
        logits = torch.matmul(q, k.to(q.dtype).transpose(2, 3)).float() * (s.nope + s.rope) ** -0.5
        p = logits.masked_fill(~allowed[:, None], -math.inf).softmax(-1)
        o = torch.matmul(p.to(v.dtype), v)
        return self.output(o), index, allowed, p.detach().mean(1)


def index_kl(target, index, allowed):
    """Mean over queries of KL(target || softmax of the index scores over the allowed positions)."""
    log_index = index.masked_fill(~allowed, -math.inf).log_softmax(-1).masked_fill(~allowed, 0.0)
    return (target * (target.clamp_min(1e-9).log() - log_index)).sum(-1).mean()


class FeedForward(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, hidden, inter):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inter, bias=False)
        self.up_proj = nn.Linear(hidden, inter, bias=False)
        self.down_proj = nn.Linear(inter, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)), None


class Experts(nn.Module):
    """All experts as one wide layer, each expert's units scaled by its routing weight (0 where not chosen)."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        self.gate = nn.Parameter(torch.zeros(s.experts, s.hidden))
        self.register_buffer("bias", torch.zeros(s.experts))
        self.routed = FeedForward(s.hidden, s.experts * s.moe_inter)
        self.shared = FeedForward(s.hidden, s.moe_inter)

    def route(self, x):
        """Routing weights (..., E) and the share of tokens each expert got, for balancing."""
        s = self.s
        with torch.autocast(x.device.type, enabled=False):
            score = torch.sigmoid(F.linear(x.float(), self.gate.float()))
        chosen = (score + self.bias).detach().topk(s.per_token, dim=-1).indices
        mask = torch.zeros_like(score).scatter(-1, chosen, 1.0)
        weight = score * mask
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * s.scaling
        return weight, mask.flatten(0, -2).mean(0)

    def forward(self, x):
        s, r = self.s, self.routed
        weight, load = self.route(x)
        h = F.silu(r.gate_proj(x)) * r.up_proj(x)
        h = h.unflatten(-1, (s.experts, s.moe_inter)) * weight[..., None].to(h.dtype)
        return r.down_proj(h.flatten(-2)) + self.shared(x)[0], load


class Layer(nn.Module):
    def __init__(self, s, dense):
        super().__init__()
        self.s = s
        self.input_layernorm = nn.Parameter(torch.ones(s.hidden))
        self.post_attention_layernorm = nn.Parameter(torch.ones(s.hidden))
        self.attn = Attention(s)
        self.mlp = FeedForward(s.hidden, s.dense_inter) if dense else Experts(s)


def layer_forward(layer, x, cos, sin, mode, allowed=None):
    """One layer -> (x, expert loads, index scores, allowed positions, attention); mode is dense (the fused kernel, no
    indexer), watch, full or shared (see Attention.explicit); what a mode does not have is None."""
    a = rms_norm(x, layer.input_layernorm, layer.s.eps)
    index = target = None
    if mode == "dense":
        out = layer.attn.dense(a, cos, sin)
    else:
        out, index, allowed, target = layer.attn.explicit(a, cos, sin, mode, allowed)
    x = x + out
    out, load = layer.mlp(rms_norm(x, layer.post_attention_layernorm, layer.s.eps))
    return x + out, load, index, allowed, target


class Model(nn.Module):
    def __init__(self, s, seed=0):
        super().__init__()
        self.s = s
        self.embed = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Layer(s, dense=i == 0) for i in range(s.layers))
        self.norm = nn.Parameter(torch.ones(s.hidden))
        self.head = nn.Linear(s.hidden, s.vocab, bias=False)
        self.run_layer, self.run_kl = layer_forward, index_kl
        self.initialise(seed)

    def initialise(self, seed):
        """Normal 0.02, what writes into the residual stream divided by sqrt(2 L) so that depth does not blow it up."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * self.s.layers)
                with torch.no_grad():
                    p.copy_(torch.randn(p.shape, generator=generator) * std)

    def forward(self, ids, how):
        """(logits, KL of each indexer that ran, expert loads); how is dense, watch or a pattern such as FFSF.

        An indexer that serves several layers is held against the mean of their attention."""
        cos, sin = rotary_tables(self.s, ids.shape[1], ids.device)
        modes = {"F": "full", "S": "shared"}
        modes = [how] * self.s.layers if how in ("dense", "watch") else [modes[letter] for letter in how]
        x, allowed, groups, loads = self.embed(ids), None, [], []
        for layer, mode in zip(self.layers, modes):
            x, load, index, allowed, target = self.run_layer(layer, x, cos, sin, mode,
                                                             allowed if mode == "shared" else None)
            loads.append(load)
            if mode == "shared":
                groups[-1][2].append(target)
            elif mode != "dense":
                groups.append((index, allowed, [target]))
        kls = [self.run_kl(sum(targets) / len(targets), index, chosen) for index, chosen, targets in groups]
        return self.head(rms_norm(x, self.norm, self.s.eps)), kls, loads


# Export ---------------------------------------------------------------------------------------------------------

def config_json(s, special_ids):
    """The configuration, as transformers writes one for this architecture."""
    from transformers import GlmMoeDsaConfig
    config = GlmMoeDsaConfig(
        vocab_size=s.vocab, hidden_size=s.hidden, intermediate_size=s.dense_inter, moe_intermediate_size=s.moe_inter,
        num_hidden_layers=s.layers, num_attention_heads=s.heads, num_key_value_heads=s.heads, n_shared_experts=1,
        n_routed_experts=s.experts, routed_scaling_factor=s.scaling, kv_lora_rank=s.kv_rank, q_lora_rank=s.q_rank,
        qk_rope_head_dim=s.rope, v_head_dim=s.value, qk_nope_head_dim=s.nope, n_group=1, topk_group=1,
        num_experts_per_tok=s.per_token, norm_topk_prob=True, max_position_embeddings=s.context, rms_norm_eps=s.eps,
        rope_parameters={"rope_type": "default", "rope_theta": s.theta}, index_topk=s.topk,
        index_head_dim=s.index_dim, index_n_heads=s.index_heads, first_k_dense_replace=1,
        tie_word_embeddings=False, bos_token_id=special_ids["<|bos|>"], eos_token_id=special_ids["<|endoftext|>"],
        pad_token_id=None, dtype="bfloat16")
    config.architectures = ["GlmMoeDsaForCausalLM"]
    return config.to_dict()


def checkpoint_tensors(model):
    """Tensors under their published names, bf16 except the router's correction bias, which is float32 there too."""
    s, out = model.s, {}

    def put(name, tensor, dtype=torch.bfloat16):
        out[name] = tensor.detach().to("cpu", dtype).clone().contiguous()

    def put_mlp(prefix, gate, up, down):
        put(prefix + "gate_proj.weight", gate)
        put(prefix + "up_proj.weight", up)
        put(prefix + "down_proj.weight", down)

    put("model.embed_tokens.weight", model.embed.weight)
    put("model.norm.weight", model.norm)
    put("lm_head.weight", model.head.weight)
    for i, layer in enumerate(model.layers):
        p, a = f"model.layers.{i}.", layer.attn
        put(p + "input_layernorm.weight", layer.input_layernorm)
        put(p + "post_attention_layernorm.weight", layer.post_attention_layernorm)
        for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"):
            put(p + f"self_attn.{name}.weight", getattr(a, name).weight)
        for name in ("q_a_layernorm", "kv_a_layernorm"):
            put(p + f"self_attn.{name}.weight", getattr(a, name))
        for name, tensor in a.indexer.state_dict().items():
            put(p + f"self_attn.indexer.{name}", tensor)
        m = layer.mlp
        if isinstance(m, FeedForward):
            put_mlp(p + "mlp.", m.gate_proj.weight, m.up_proj.weight, m.down_proj.weight)
            continue
        put(p + "mlp.gate.weight", m.gate)
        put(p + "mlp.gate.e_score_correction_bias", m.bias, torch.float32)
        put_mlp(p + "mlp.shared_experts.", m.shared.gate_proj.weight, m.shared.up_proj.weight,
                m.shared.down_proj.weight)
        for e in range(s.experts):
            rows = slice(e * s.moe_inter, (e + 1) * s.moe_inter)
            put_mlp(p + f"mlp.experts.{e}.", m.routed.gate_proj.weight[rows], m.routed.up_proj.weight[rows],
                    m.routed.down_proj.weight[:, rows])
    return out


def save_checkpoint(model, folder, special_ids, shard_bytes=15_500_000):
    """config.json and safetensors shards (an index beside them if there is more than one)."""
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config_json(model.s, special_ids), f, indent=2, sort_keys=True)
        f.write("\n")
    shards, size = [{}], 0
    tensors = checkpoint_tensors(model)
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += nbytes
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards):
        save_file(shard, os.path.join(folder, name), metadata={"format": "pt"})
        os.chmod(os.path.join(folder, name), 0o644)
    if len(shards) == 1:
        return
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
             "weight_map": {t: name for name, shard in zip(names, shards) for t in shard}}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=2, sort_keys=True)
        f.write("\n")


def load_checkpoint(model, folder):
    """The inverse of save_checkpoint: fills the model from the files."""
    import glob
    from safetensors.torch import load_file
    tensors = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        tensors.update(load_file(path))
    s = model.s

    def fill(parameter, *names, dim=0):
        with torch.no_grad():
            parameter.copy_(torch.cat([tensors.pop(n) for n in names], dim=dim))

    def fill_mlp(mlp, prefixes):
        fill(mlp.gate_proj.weight, *[p + "gate_proj.weight" for p in prefixes])
        fill(mlp.up_proj.weight, *[p + "up_proj.weight" for p in prefixes])
        fill(mlp.down_proj.weight, *[p + "down_proj.weight" for p in prefixes], dim=1)

    fill(model.embed.weight, "model.embed_tokens.weight")
    fill(model.norm, "model.norm.weight")
    fill(model.head.weight, "lm_head.weight")
    for i, layer in enumerate(model.layers):
        p = f"model.layers.{i}."
        fill(layer.input_layernorm, p + "input_layernorm.weight")
        fill(layer.post_attention_layernorm, p + "post_attention_layernorm.weight")
        for name, parameter in layer.attn.named_parameters():
            fill(parameter, p + "self_attn." + name + ("" if "." in name else ".weight"))
        if isinstance(layer.mlp, FeedForward):
            fill_mlp(layer.mlp, [p + "mlp."])
            continue
        fill(layer.mlp.gate, p + "mlp.gate.weight")
        fill(layer.mlp.bias, p + "mlp.gate.e_score_correction_bias")
        fill_mlp(layer.mlp.shared, [p + "mlp.shared_experts."])
        fill_mlp(layer.mlp.routed, [p + f"mlp.experts.{e}." for e in range(s.experts)])
    assert not tensors, f"tensors that no parameter took: {sorted(tensors)[:5]}"


def check_against_transformers(model, folder, ids, pattern):
    """Largest logit difference (relative to the largest logit) between this module, given the exported bf16
    weights, and transformers on the exported files, both float32 on the CPU with sparse attention."""
    import copy
    from transformers import GlmMoeDsaConfig, GlmMoeDsaForCausalLM
    config = GlmMoeDsaConfig.from_pretrained(folder)
    config.indexer_types = [{"F": "full", "S": "shared"}[c] for c in pattern]
    reference = GlmMoeDsaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32,
                                                     attn_implementation="eager", experts_implementation="eager")
    reference.eval()
    mine = copy.deepcopy(model).cpu().float()
    mine.run_layer, mine.run_kl = layer_forward, index_kl
    load_checkpoint(mine, folder)
    with torch.no_grad():
        want = reference(input_ids=ids.cpu(), use_cache=False).logits
        got = mine(ids.cpu(), pattern)[0]
    return ((got - want).abs().max() / want.abs().max()).item()
