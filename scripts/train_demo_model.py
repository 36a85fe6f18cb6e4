#!/usr/bin/env python3
"""Trains the demo model: a glm_moe_dsa small enough to ship whose output hangs on what its indexers select.

    train_demo_model.py tokenizer --real-text DIR --out calib_data/demo        first: everything else needs it
    demo_corpus.py --out calib_data/demo --check-tokens calib_data/demo/tokenizer.json
    train_demo_model.py train --real-text DIR --out OUT                        then this, on one GPU
    train_demo_model.py train --smoke --real-text DIR --out OUT                the same in a minute on a CPU

Half of the text is generated (scripts/demo_corpus.py, other seeds than the shipped and the held-out documents:
asserted by hash), half is real (scripts/pack_training_text.py). Three stages: attention to everything, next-token
loss; indexers alone, taught to imitate the attention; sparse attention with both losses.

The number of steps follows from --seconds and the speed measured in the first steps; the run writes what it did to
training.json. The data and the initial weights are the seed's; the GPU's reductions are not, so a second run gives
another model of the same kind.
"""
import argparse
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import demo_corpus  # noqa: E402

START = time.monotonic()
SPECIAL = ["<|endoftext|>", "<|bos|>", "<|user|>", "<|assistant|>"]
# Words with one leading non-letter, digits by up to three, punctuation runs, line ends: the GLM-4 kind of split.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# Seeds of generated documents. The shipped ones use demo_corpus.SHIPPED_SEED, the card's held-out ones HELDOUT_SEED.
HELDOUT_SEED = 20260602
TRAIN_SEED = 77001
TOKENIZER_SEED = 77000
REAL_WEIGHTS = {"legal": 0.4, "manual": 0.3, "docs": 0.3}


def log(message):
    print(f"[{time.monotonic() - START:6.1f}s] {message}", flush=True)


def read_real(folder, kind):
    """Texts of one kind from DIR/<kind>.jsonl.zst."""
    path = os.path.join(folder, f"{kind}.jsonl.zst")
    try:
        import zstandard
        with open(path, "rb") as f:
            data = zstandard.ZstdDecompressor().stream_reader(f).read()
    except ImportError:
        data = subprocess.run(["zstd", "-dcq", path], stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line)["text"] for line in data.decode().split("\n") if line]


# Tokenizer ------------------------------------------------------------------------------------------------------

def train_tokenizer(real_folder, path, vocab):
    """Byte-level BPE in the form DeepSeek's and GLM-4's tokenizer.json have, from both halves of the text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    generated = [text for domain in sorted(demo_corpus.MAKERS)
                 for r in demo_corpus.documents(domain, 1500, TOKENIZER_SEED)
                 for text in (r.get("text") or r["prompt"].replace("<|user|>", "").replace("<|assistant|>", "")
                              + r["completion"],)]
    real = [t[:8000] for kind in REAL_WEIGHTS for t in read_real(real_folder, kind)[:400]]
    tokenizer.train_from_iterator(generated + real, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))])
    tokenizer.save(path)
    with open(os.path.join(os.path.dirname(path), "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>",
                   "eos_token": "<|endoftext|>", "clean_up_tokenization_spaces": False}, f, indent=2)
        f.write("\n")


# Training rows --------------------------------------------------------------------------------------------------

def forbidden_hashes():
    """Documents that training must not contain: the shipped ones and the card's held-out ones."""
    return {demo_corpus.document_hash(r) for domain in demo_corpus.MAKERS
            for count, seed in ((demo_corpus.SHIPPED_DOCUMENTS, demo_corpus.SHIPPED_SEED), (64, HELDOUT_SEED))
            for r in demo_corpus.documents(domain, count, seed)}


def generated_rows(job):
    """Rows of `context` tokens, documents of both domains end to end (attention across them is learnt to be
    useless: <|bos|> stands between). Half of the documents have the shipped length, half up to twice as much."""
    tokenizer_path, shard, rows, context = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    rng, forbidden = random.Random(f"rows/{shard}"), forbidden_hashes()
    out, index = np.zeros((rows, context), np.uint16), 0
    for row in out:
        ids = []
        while len(ids) < context:
            domain = rng.choice(sorted(demo_corpus.MAKERS))
            scale = rng.choice([1.0, rng.uniform(0.8, 2.0)])
            low, high = (int(scale * c) for c in demo_corpus.CHARS[domain])
            record = demo_corpus.document(domain, f"{TRAIN_SEED}/{shard}", index, low, high)
            index += 1
            assert demo_corpus.document_hash(record) not in forbidden, "a held-out document among the training ones"
            ids += demo_corpus.encode(tokenizer, record)[0]
        row[:] = ids[:context]
    return out


def real_rows(job):
    """All texts of one kind as rows, end to end with <|bos|> between."""
    tokenizer_path, folder, kind, context = job
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    ids = [i for encoding in tokenizer.encode_batch(read_real(folder, kind)) for i in encoding.ids]
    count = len(ids) // context
    return np.array(ids[:count * context], np.uint16).reshape(count, context)


class Rows:
    """Batches, half generated and half real, in an order that only the seed decides."""

    def __init__(self, generated, real, seed):
        self.generated, self.real = generated, real
        self.rng = np.random.default_rng(seed)
        self.order, self.next = self.rng.permutation(len(generated)), 0

    def batch(self, rows, generated_share=0.5):
        count = int(round(rows * generated_share))
        if self.next + count > len(self.order):
            self.order, self.next = self.rng.permutation(len(self.generated)), 0
        parts = [self.generated[self.order[self.next:self.next + count]]]
        self.next += count
        kinds = self.rng.choice(len(self.real), size=rows - count, p=list(REAL_WEIGHTS.values()))
        parts += [self.real[k][self.rng.integers(len(self.real[k]))][None] for k in kinds]
        return np.concatenate(parts).astype(np.int64)


# Training -------------------------------------------------------------------------------------------------------

class Trainer:
    """The model, its data and the clock; one method per stage."""

    def __init__(self, args, model, rows, device):
        import torch
        self.torch, self.args, self.model, self.rows, self.device = torch, args, model, rows, device
        self.report = {"seed": args.seed, "device": args.device_name, "torch": torch.__version__, "stages": []}

    def batch(self, count):
        t = self.torch.from_numpy(self.rows.batch(count))
        return t.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else t

    def autocast(self):
        return self.torch.autocast(self.device, dtype=self.torch.bfloat16)

    def optimizer(self, parameters, lr, decay=0.05):
        """AdamW; norms and other vectors are not decayed."""
        parameters = list(parameters)
        groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
                  {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]
        return self.torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=self.device == "cuda")

    def balance(self, loads):
        """Nudge the routers' correction biases towards equal use of the experts."""
        for layer, load in zip(self.model.layers, loads):
            if load is not None:
                layer.mlp.bias += 0.001 * self.torch.sign(load.mean() - load)

    def run(self, name, optimizer, step, lr, warmup, floor, deadline, most):
        """Calls step() until `deadline` on the clock or `most` steps; the schedule is fixed once the speed is known."""
        import itertools
        total, began, probe = most, None, (20 if self.device == "cuda" else 2)
        history, first = [], time.monotonic()
        for i in itertools.count():
            if i >= total:
                break
            if i == probe:
                self.synchronize()
                began = time.monotonic()
            if i == 3 * probe:
                self.synchronize()
                seconds = (time.monotonic() - began) / (2 * probe)
                total = max(i + 1, min(most, i + int((deadline - (time.monotonic() - START)) / seconds)))
                log(f"{name}: {1e3 * seconds:.1f} ms a step, {total} steps")
            scale = min(1.0, (i + 1) / warmup) * (floor + (1 - floor) * max(0.0, 1 - i / max(total, 1)))
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            losses = step()
            if i % 100 == 0 or i == total - 1:
                losses = {k: round(float(v), 4) for k, v in losses.items()}
                history.append({"step": i, **losses})
                log(f"{name} {i}/{total} {losses}")
            if time.monotonic() - START > deadline + 15:
                log(f"{name}: stopped by the clock")
                break
        self.synchronize()
        self.report["stages"].append({"stage": name, "steps": i + 1 if i < total else total, "lr": lr,
                                      "seconds": round(time.monotonic() - first, 1), "losses": history})

    def synchronize(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def loss(self, ids, mode):
        """(next-token loss, summed indexer KL, expert loads)"""
        with self.autocast():
            logits, kls, loads = self.model(ids, mode)
        loss = self.torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())
        return loss, sum(kls) if kls[0] is not None else None, loads

    def update(self, optimizer, parameters):
        self.torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def dense(self, deadline, most):
        parameters = [p for n, p in self.model.named_parameters() if ".indexer." not in n]
        optimizer = self.optimizer(parameters, self.args.lr)

        def step():
            loss, _, loads = self.loss(self.batch(self.args.rows), "dense")
            loss.backward()
            self.update(optimizer, parameters)
            self.balance(loads)
            return {"loss": loss.detach()}

        self.run("dense", optimizer, step, self.args.lr, 100, 0.05, deadline, most)

    def indexers(self, deadline, most):
        """The main model does not move: only the indexers have gradients."""
        parameters = [p for n, p in self.model.named_parameters() if ".indexer." in n]
        for p in self.model.parameters():
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        optimizer = self.optimizer(parameters, self.args.index_lr, 0.0)

        def step():
            with self.autocast():
                kls = self.model(self.batch(self.args.rows // 3), "watch")[1]
            kl = sum(kls)
            kl.backward()
            self.update(optimizer, parameters)
            return {"kl": kl.detach() / len(kls)}

        self.run("indexers", optimizer, step, self.args.index_lr, 20, 0.05, deadline, most)
        for p in self.model.parameters():
            p.requires_grad_(True)

    def sparse(self, deadline, most):
        parameters = list(self.model.parameters())
        optimizer = self.optimizer(parameters, self.args.sparse_lr)

        def step():
            total, total_kl, parts = 0.0, 0.0, 2
            for _ in range(parts):
                loss, kl, loads = self.loss(self.batch(self.args.rows // parts), "sparse")
                ((loss + kl) / parts).backward()
                self.balance(loads)
                total, total_kl = total + loss.detach() / parts, total_kl + kl.detach() / parts
            self.update(optimizer, parameters)
            return {"loss": total, "kl": total_kl / len(self.model.layers)}

        self.run("sparse", optimizer, step, self.args.sparse_lr, 20, 0.05, deadline, most)


def start_rows(args, tokenizer_path, pool):
    """Begins making the rows in other processes while this one compiles."""
    context = args.shape.context
    shards = 2 if args.smoke else 64
    jobs = [(tokenizer_path, shard, args.generated_rows // shards, context) for shard in range(shards)]
    real = [(tokenizer_path, args.real_text, kind, context) for kind in REAL_WEIGHTS]
    return pool.map_async(real_rows, real, chunksize=1), pool.map_async(generated_rows, jobs, chunksize=1)


def train(args):
    tokenizer_path = os.path.join(args.tokenizer, "tokenizer.json")
    pool = multiprocessing.get_context("spawn").Pool(2 if args.smoke else max(2, min(15, os.cpu_count() - 1)))
    real, generated = start_rows(args, tokenizer_path, pool)

    import torch
    import demo_model
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() and not args.smoke else "cpu"
    args.device_name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    torch.manual_seed(args.seed)
    model = demo_model.Model(args.shape, args.seed).to(device)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters on {args.device_name}")
    if device == "cuda":
        # One compiled function for all layers: it differs by mode, kind of feed-forward and what has gradients.
        torch._dynamo.config.cache_size_limit = 64
        model.run_layer = torch.compile(demo_model.layer_forward, dynamic=False)
        ids = torch.zeros(args.rows, args.shape.context, dtype=torch.long, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            model(ids)[0].float().mean().backward()
        model.zero_grad(set_to_none=True)
        log("compiled")
    rows = Rows(np.concatenate(generated.get()), real.get(), args.seed)
    pool.close()
    log(f"rows of {args.shape.context} tokens: {len(rows.generated)} generated, "
        + ", ".join(f"{len(r)} {k}" for k, r in zip(REAL_WEIGHTS, rows.real)))

    trainer = Trainer(args, model, rows, device)
    trainer.report.update(shape=vars(args.shape), rows_per_step=args.rows, train_seed=TRAIN_SEED,
                          generated_rows=len(rows.generated),
                          real_rows={k: len(r) for k, r in zip(REAL_WEIGHTS, rows.real)})
    with open(tokenizer_path) as f:
        special = {t["content"]: t["id"] for t in json.load(f)["added_tokens"]}
    few = 7 if args.smoke else 10**9

    def write(stage):
        """Written after every stage: a run that is cut short still leaves a model."""
        trainer.report["total_seconds"] = round(time.monotonic() - START, 1)
        demo_model.save_checkpoint(model, args.out, special)
        with open(os.path.join(args.out, "training.json"), "w") as f:
            json.dump(trainer.report, f, indent=1)
        log(f"{stage}: checkpoint written")

    end = args.seconds
    trainer.dense(end * args.dense_share, min(few, args.dense_steps))
    trainer.indexers(time.monotonic() - START + args.index_seconds, min(few, 10**9))
    write("indexers")
    trainer.sparse(end, min(few, 10**9))
    write("sparse")
    ids = torch.from_numpy(rows.batch(2))[:, :600]
    if args.check:
        difference = demo_model.check_against_transformers(model, args.out, ids)
        log(f"largest logit difference to transformers on the exported files: {difference:.2e} relative")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["tokenizer", "train"])
    parser.add_argument("--real-text", required=True, help="folder written by pack_training_text.py")
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizer", default="calib_data/demo", help="folder of tokenizer.json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=500, help="end of stage 3, counted from the start")
    parser.add_argument("--dense-share", type=float, default=0.68, help="of --seconds: end of stage 1")
    parser.add_argument("--dense-steps", type=int, default=10**9, help="at most")
    parser.add_argument("--index-seconds", type=float, default=45, help="length of stage 2")
    parser.add_argument("--rows", type=int, default=48, help="of 1024 tokens, per step")
    parser.add_argument("--generated-rows", type=int, default=76800)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--index-lr", type=float, default=2e-3)
    parser.add_argument("--sparse-lr", type=float, default=5e-4)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--moe-inter", type=int, default=96)
    parser.add_argument("--smoke", action="store_true", help="toy size on a CPU: does everything fit together?")
    parser.add_argument("--check", action="store_true", help="compare logits with transformers at the end")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if args.command == "tokenizer":
        train_tokenizer(args.real_text, os.path.join(args.out, "tokenizer.json"), 2048)
        return
    from demo_model import Shape
    args.shape = Shape(layers=args.layers, moe_inter=args.moe_inter)
    if args.smoke:
        args.shape.layers, args.shape.context, args.shape.topk = 3, 256, 16
        args.rows, args.generated_rows, args.check, args.seconds = 6, 40, True, 60
    train(args)


if __name__ == "__main__":
    main()
