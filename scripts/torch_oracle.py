"""What a pattern of full and shared layers costs, according to PyTorch: the oracle dsacal is held against.

Nothing here is shared with the C program: the model is transformers' own GlmMoeDsaForCausalLM in float32 with eager
attention, whole documents are run for every pattern, and only the two places where PyTorch leaves the result open
are settled: top-k among equal scores (the lower position wins) and TF32 (off).

Letters: N documents, T positions, V vocabulary, L layers, K index_topk.
"""
import hashlib
import json
import math
import struct
import subprocess

import torch


def settle_topk():
    """Replaces torch's top-k, which promises no order among equal values, by a stable descending sort. Adding 0.0
    makes -0 into +0, so that they are equal for any sort."""
    def topk(values, k, dim=-1, largest=True, sorted=True):
        assert largest
        order = torch.sort(values + 0.0, dim=dim, descending=True, stable=True)
        return torch.return_types.topk((order.values.narrow(dim, 0, k), order.indices.narrow(dim, 0, k)))
    torch.topk = topk
    torch.Tensor.topk = topk


def settle_precision():
    """float32 products are float32 products."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


# Documents ------------------------------------------------------------------------------------------------------

def read_records(path):
    """The JSON objects of a .jsonl or .jsonl.zst file."""
    if path.endswith(".zst"):
        data = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout if not zstandard() \
            else zstandard().ZstdDecompressor().stream_reader(open(path, "rb")).read()
    else:
        data = open(path, "rb").read()
    return [json.loads(line) for line in data.decode().split("\n") if line.strip()]


def zstandard():
    """The Python package if it is there; else the zstd tool is used."""
    try:
        import zstandard as package
        return package
    except ImportError:
        return None


class Document:
    """Token ids, which tokens are targets, and the position in the file."""

    def __init__(self, index, ids, first_target):
        self.index, self.ids, self.first_target = index, ids, first_target

    def digest(self):
        return hashlib.sha256(struct.pack(f"<{len(self.ids)}i", *self.ids)).hexdigest()

    def scored(self, topk):
        """Positions t >= K that have a next token, which is of the completion where there is one."""
        return range(max(topk, self.first_target - 1), len(self.ids) - 1)


def encode_records(records, tokenizer):
    """text, or prompt with special tokens followed by completion without."""
    out = []
    for index, r in enumerate(records):
        if "text" in r:
            out.append(Document(index, tokenizer.encode(r["text"]).ids, 0))
        else:
            prompt = tokenizer.encode(r["prompt"]).ids
            completion = tokenizer.encode(r["completion"], add_special_tokens=False).ids
            out.append(Document(index, prompt + completion, len(prompt)))
    return out


def split_heldout(documents, share):
    """(calibration, held out), each in file order: the first round(share * n) by content hash are held out."""
    order = sorted(documents, key=lambda d: (d.digest(), d.index))
    count = int(math.floor(share * len(documents) + 0.5))
    held = {d.index for d in order[:count]}
    return [d for d in documents if d.index not in held], [d for d in documents if d.index in held]


# Model ----------------------------------------------------------------------------------------------------------

class Oracle:
    """The model, and the figures of any pattern on any documents."""

    def __init__(self, folder, device, batch=32):
        from transformers import GlmMoeDsaForCausalLM
        settle_topk()
        settle_precision()
        self.folder, self.device, self.batch = folder, device, batch
        self.model = GlmMoeDsaForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
        self.model.to(device).eval()
        self.layers = self.model.config.num_hidden_layers
        self.topk = self.model.config.index_topk
        self.full = "F" * self.layers
        self.indexers = [layer.self_attn.indexer for layer in self.model.model.layers]

    def set_pattern(self, pattern):
        """A layer without an indexer uses the selection handed on by the layer before: what the model builds for
        indexer_types "shared" (pattern_is_indexer_types checks that)."""
        for layer, indexer, letter in zip(self.model.model.layers, self.indexers, pattern):
            layer.self_attn.indexer = indexer if letter == "F" else None

    def pattern_is_indexer_types(self, pattern, document):
        """Whether a model built with this pattern in its configuration gives the same bits."""
        from transformers import GlmMoeDsaConfig, GlmMoeDsaForCausalLM
        config = GlmMoeDsaConfig.from_pretrained(self.folder)
        config.indexer_types = [{"F": "full", "S": "shared"}[c] for c in pattern]
        other = GlmMoeDsaForCausalLM.from_pretrained(
            self.folder, config=config, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager").to(self.device).eval()
        ids = torch.tensor([document.ids], device=self.device)
        self.set_pattern(pattern)
        with torch.no_grad():
            return torch.equal(self.model(input_ids=ids, use_cache=False).logits,
                               other(input_ids=ids, use_cache=False).logits)

    def batches(self, documents):
        """(documents, ids): rows padded on the right, which no earlier position can see."""
        for i in range(0, len(documents), self.batch):
            part = documents[i:i + self.batch]
            ids = torch.zeros(len(part), max(len(d.ids) for d in part), dtype=torch.long)
            for row, d in zip(ids, part):
                row[:len(d.ids)] = torch.tensor(d.ids)
            yield part, ids.to(self.device)

    @torch.no_grad()
    def scored_logits(self, pattern, documents):
        """Per document, the logits (scored, V) float32 of a pattern at its scored positions."""
        self.set_pattern(pattern)
        out = []
        for part, ids in self.batches(documents):
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            for row, d in zip(hidden, part):
                s = d.scored(self.topk)
                out.append(self.model.lm_head(row[s.start:s.stop]))
        return out

    @torch.no_grad()
    def selections(self, documents, positions):
        """All-F selections at the given positions of each document: bool (L, positions, T) per document."""
        self.set_pattern(self.full)
        seen = []
        hooks = [indexer.register_forward_hook(lambda m, i, o: seen.append(o)) for indexer in self.indexers]
        out = []
        for part, ids in self.batches(documents):
            seen.clear()
            self.model.model(input_ids=ids, use_cache=False)
            for row, d in enumerate(part):
                at = torch.tensor(list(positions(d)), device=self.device)
                chosen = torch.stack([s[row][at].long() for s in seen])
                mask = torch.zeros(self.layers, len(at), ids.shape[1], dtype=torch.bool, device=self.device)
                out.append(mask.scatter_(-1, chosen, True)[..., :len(d.ids)])
        for hook in hooks:
            hook.remove()
        return out


class Corpus:
    """Documents with their all-F distributions, and the figures of patterns against them, remembered."""

    def __init__(self, oracle, name, documents):
        self.oracle, self.name, self.documents = oracle, name, documents
        self.base = [log_softmax(x) for x in oracle.scored_logits(oracle.full, documents)]
        self.known = {}

    def figures(self, pattern):
        """Per document: {scored, kl, nll, top1}, sums over its scored tokens; kl and nll in nats."""
        if pattern not in self.known:
            logits = self.oracle.scored_logits(pattern, self.documents)
            self.known[pattern] = [document_figures(d, self.oracle.topk, b, x)
                                   for d, b, x in zip(self.documents, self.base, logits)]
        return self.known[pattern]

    def mean(self, pattern):
        """{kl, nll, top1} per scored token over the corpus."""
        rows = self.figures(pattern)
        scored = sum(r["scored"] for r in rows)
        return {key: sum(r[key] for r in rows) / scored for key in ("kl", "nll", "top1")}

    def overlap(self):
        """(L, L): mean over scored queries of |T_i and T_j| / K."""
        topk, total, count = self.oracle.topk, 0, 0
        for i in range(0, len(self.documents), 8):       # a few at a time: the masks are L x T x T
            part = self.documents[i:i + 8]
            for mask in self.oracle.selections(part, lambda d: d.scored(topk)):
                total = total + torch.einsum("iqt,jqt->ij", mask.float(), mask.float()).double() / topk
                count += mask.shape[1]
        return (total / count).tolist()


def log_softmax(logits):
    """In double: the sums below are over small differences."""
    return logits.double().log_softmax(-1)


def document_figures(document, topk, base, logits):
    pattern = log_softmax(logits)
    s = document.scored(topk)
    target = torch.tensor(document.ids[s.start + 1:s.stop + 1], device=logits.device)
    kl = (base.exp() * (base - pattern)).sum()
    nll = -pattern.gather(-1, target[:, None]).sum()
    top1 = (base.argmax(-1) == pattern.argmax(-1)).sum()
    return {"scored": len(s), "kl": kl.item(), "nll": nll.item(), "top1": top1.item()}


def macro(corpora, pattern):
    """Mean over corpora, of equal weight, of their per-token means; the corpora's own beside it."""
    each = {c.name: c.mean(pattern) for c in corpora}
    out = {key: sum(m[key] for m in each.values()) / len(each) for key in ("kl", "nll", "top1")}
    return {**out, "corpora": each} if len(each) > 1 else out


def greedy(corpora, progress=None):
    """All the way down by mean KL, ties to the lower layer; every candidate's figures at every step."""
    pattern, steps = corpora[0].oracle.full, []
    while "F" in pattern[1:]:
        candidates = [{"layer": i, **macro(corpora, pattern[:i] + "S" + pattern[i + 1:])}
                      for i in range(1, len(pattern)) if pattern[i] == "F"]
        best = min(candidates, key=lambda c: (c["kl"], c["layer"]))
        flip = best["layer"]
        after = pattern[:flip] + "S" + pattern[flip + 1:]
        steps.append({"step": len(steps) + 1, "base": pattern, "flip": flip, "pattern": after, "kl": best["kl"],
                      "nll": best["nll"], "top1": best["top1"], "candidates": candidates})
        pattern = after
        if progress:
            progress(steps[-1])
    return steps


def pattern_at(steps, kept):
    """Greedy's pattern with that many F layers."""
    return next(s["pattern"] for s in steps if s["pattern"].count("F") == kept)


def uniform(layers, every):
    """F in every `every`-th layer, from layer 0."""
    return "".join("F" if i % every == 0 else "S" for i in range(layers))


def provenance(oracle):
    import platform
    import transformers
    cuda = oracle.device != "cpu"
    return {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if cuda else "CPU", "precision": "float32, TF32 off",
            "attention": "eager", "topk": "stable, lower position first"}
