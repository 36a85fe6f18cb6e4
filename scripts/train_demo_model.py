#!/usr/bin/env python3
"""Trains the demo model: a glm_moe_dsa small enough to ship whose output hangs on what its indexers select.

    train_demo_model.py tokenizer --real-text DIR --out calib_data/demo        first: everything else needs it
    demo_corpus.py --out calib_data/demo --check-tokens calib_data/demo/tokenizer.json
    train_demo_model.py train --real-text DIR --out ONE                        then stages 1 to 3, on one GPU
    torch_search.py trace --model ONE --out ONE/traces                         its greedy chains
    train_demo_model.py share --real-text DIR --start ONE --out TWO            then stage 4
    train_demo_model.py average --start ONE --other TWO --out calib_data/demo  and the mean of the two, 0.35 to 0.65
    (train and share with --smoke: the same in a minute on a CPU, at toy size)

Half of the text is generated (scripts/demo_corpus.py, other seeds than the shipped and the held-out documents:
asserted by hash), half is real (scripts/pack_training_text.py). Four stages: (1) attention to everything, next-token
loss; (2) indexers alone, taught to imitate the attention; (3) sparse attention with both losses; (4) sharing-aware:
rows of one domain run both all-F and with a pattern of that domain's own greedy chain, which must predict the same,
its indexers imitating all the layers they serve. Stage 4 is what a vendor does who ships a model with shared layers
(with one pattern for all uses); without it six of the layers could not be shared and 1/4 kept was out of reach. It
overshoots: patterns then cost so little that the domains hardly differ at 1/2 kept. So the shipped weights are an
average, (1 - w) of stage 3's and w of stage 4's.

The number of steps follows from --seconds and the speed measured in the first steps; the run writes what it did to
training.json. The data and the initial weights are the seed's; the GPU's reductions are not, so a second run gives
another model of the same kind.
"""
import argparse
import gzip
import itertools
import json
import multiprocessing
import os
import random
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
SHARE_SEED = 77002
TOKENIZER_SEED = 77000
REAL_WEIGHTS = {"legal": 0.4, "manual": 0.3, "docs": 0.3}


def log(message):
    print(f"[{time.monotonic() - START:6.1f}s] {message}", flush=True)


def read_real(folder, kind):
    """Texts of one kind from DIR/<kind>.jsonl.gz."""
    with gzip.open(os.path.join(folder, f"{kind}.jsonl.gz"), "rt", encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]


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
    """Rows of `context` tokens, documents of the given domains end to end (attention across them is learnt to be
    useless: <|bos|> stands between). Half of the documents have the shipped length, half up to twice as much."""
    tokenizer_path, seed, shard, rows, context, domains = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    rng, forbidden = random.Random(f"rows/{seed}/{shard}"), forbidden_hashes()
    out, index = np.zeros((rows, context), np.uint16), 0
    for row in out:
        ids = []
        while len(ids) < context:
            domain = rng.choice(domains)
            scale = rng.choice([1.0, rng.uniform(0.8, 2.0)])
            low, high = (int(scale * c) for c in demo_corpus.CHARS[domain])
            record = demo_corpus.document(domain, f"{seed}/{shard}", index, low, high)
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
    """Batches of generated or real rows, in an order that only the seed decides."""

    def __init__(self, generated, real, seed):
        self.generated, self.real = generated, real
        self.rng = np.random.default_rng(seed)
        self.order = {k: self.rng.permutation(len(rows)) for k, rows in generated.items()}
        self.next = {k: 0 for k in generated}

    def generated_batch(self, kind, count):
        """Each row once before any twice."""
        if self.next[kind] + count > len(self.order[kind]):
            self.order[kind], self.next[kind] = self.rng.permutation(len(self.generated[kind])), 0
        chosen = self.order[kind][self.next[kind]:self.next[kind] + count]
        self.next[kind] += count
        return self.generated[kind][chosen].astype(np.int64)

    def real_batch(self, count):
        kinds = self.rng.choice(len(self.real), size=count, p=list(REAL_WEIGHTS.values()))
        return np.stack([self.real[k][self.rng.integers(len(self.real[k]))] for k in kinds]).astype(np.int64)

    def mixed_batch(self, count):
        """Half and half."""
        return np.concatenate([self.generated_batch("mixed", count - count // 2), self.real_batch(count // 2)])


# Training -------------------------------------------------------------------------------------------------------

class Trainer:
    """The model, its data and the clock; one method per stage."""

    def __init__(self, args, model, rows, device):
        import torch
        self.torch, self.args, self.model, self.rows, self.device = torch, args, model, rows, device
        self.report = {"seed": args.seed, "device": args.device_name, "torch": torch.__version__, "stages": []}

    def tensor(self, rows):
        t = self.torch.from_numpy(rows)
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

    def loss(self, ids, how):
        """(next-token loss, summed indexer KL, expert loads, logits)"""
        with self.autocast():
            logits, kls, loads = self.model(ids, how)
        loss = self.torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())
        return loss, sum(kls), loads, logits

    def update(self, optimizer, parameters):
        self.torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def dense(self, deadline, most):
        parameters = [p for n, p in self.model.named_parameters() if ".indexer." not in n]
        optimizer = self.optimizer(parameters, self.args.lr)

        def step():
            loss, _, loads = self.loss(self.tensor(self.rows.mixed_batch(self.args.rows)), "dense")[:3]
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
                kls = self.model(self.tensor(self.rows.mixed_batch(self.args.rows // 3)), "watch")[1]
            kl = sum(kls)
            kl.backward()
            self.update(optimizer, parameters)
            return {"kl": kl.detach() / len(kls)}

        self.run("indexers", optimizer, step, self.args.index_lr, 20, 0.05, deadline, most)
        for p in self.model.parameters():
            p.requires_grad_(True)

    def sparse(self, deadline, most):
        parameters, full = list(self.model.parameters()), "F" * len(self.model.layers)
        optimizer = self.optimizer(parameters, self.args.sparse_lr)

        def step():
            total, total_kl, parts = 0.0, 0.0, 2
            for _ in range(parts):
                loss, kl, loads = self.loss(self.tensor(self.rows.mixed_batch(self.args.rows // parts)), full)[:3]
                ((loss + kl) / parts).backward()
                self.balance(loads)
                total, total_kl = total + loss.detach() / parts, total_kl + kl.detach() / parts
            self.update(optimizer, parameters)
            return {"loss": total, "kl": total_kl / len(self.model.layers)}

        self.run("sparse", optimizer, step, self.args.sparse_lr, 20, 0.05, deadline, most)


    def share(self, deadline, most, chains):
        """Real rows and rows of one domain all-F; then the same rows of the domain with a pattern of its chain, whose
        predictions are drawn to the all-F ones."""
        parameters, full = list(self.model.parameters()), "F" * len(self.model.layers)
        optimizer = self.optimizer(parameters, self.args.sparse_lr)
        rng, count, F = random.Random(f"share/{self.args.seed}"), self.args.rows // 3, self.torch.nn.functional
        domains = sorted(chains)

        def step():
            domain = rng.choice(domains)
            pattern = draw_pattern(rng, chains[domain])
            ids = self.tensor(self.rows.generated_batch(domain, count))
            out, teacher = {}, None
            for name, rows, how in (("real", self.tensor(self.rows.real_batch(count)), full),
                                    (domain, ids, full), (domain + "-shared", ids, pattern)):
                loss, kl, loads, logits = self.loss(rows, how)
                total = loss + kl
                if how != full:
                    distance = F.kl_div(logits.float().log_softmax(-1), teacher, log_target=True, reduction="none")
                    distance = distance.sum(-1).mean()
                    total, out[domain + "-distance"] = total + distance, distance.detach()
                teacher = logits.detach().float().log_softmax(-1)
                (total / 3).backward()
                self.balance(loads)
                out[name] = loss.detach()
            self.update(optimizer, parameters)
            return {**out, "kept": pattern.count("F")}

        self.run("share", optimizer, step, self.args.sparse_lr, 30, 0.05, deadline, most)


def draw_pattern(rng, chain):
    """A pattern of the chain: 1/4 and 1/2 kept more often than the counts between, from 1/4 to 3/4."""
    layers = len(chain[0])
    kept = rng.choice([layers // 4, layers // 2, rng.randint(layers // 4, layers * 3 // 4)])
    return next(p for p in chain if p.count("F") == kept)


def read_chains(folder):
    """Greedy's patterns of each domain, from the traces of torch_search.py."""
    chains = {}
    for domain in sorted(demo_corpus.MAKERS):
        with open(os.path.join(folder, f"trace_{domain}.json")) as f:
            chains[domain] = [s["pattern"] for s in json.load(f)["steps"]]
    return chains


def average(args):
    """The weights between two checkpoints of the same run, tensor by tensor in float32."""
    import glob
    import shutil
    from safetensors.torch import load_file, save_file
    for path in sorted(glob.glob(os.path.join(args.start, "*.safetensors"))):
        name, w = os.path.basename(path), args.weight
        one, two = load_file(path), load_file(os.path.join(args.other, name))
        mixed = {k: ((1 - w) * t.float() + w * two[k].float()).to(t.dtype) for k, t in one.items()}
        save_file(mixed, os.path.join(args.out, name), metadata={"format": "pt"})
        os.chmod(os.path.join(args.out, name), 0o644)
    for path in glob.glob(os.path.join(args.start, "*config.json")) + glob.glob(os.path.join(args.start, "*.index.json")):
        shutil.copyfile(path, os.path.join(args.out, os.path.basename(path)))


def toy_chains(layers):
    return {d: ["F" * (layers - n) + "S" * n for n in range(1, layers)] for d in sorted(demo_corpus.MAKERS)}


def start_rows(args, tokenizer_path, pool):
    """Begins making the rows in other processes while this one compiles: kind -> pending result."""
    context, shards = args.shape.context, 2 if args.smoke else 64
    domains = sorted(demo_corpus.MAKERS)
    kinds = {"mixed": (TRAIN_SEED, domains)} if args.command == "train" else \
        {domain: (SHARE_SEED, [domain]) for domain in domains}
    real = [(tokenizer_path, args.real_text, kind, context) for kind in REAL_WEIGHTS]
    pending = {"real": pool.map_async(real_rows, real, chunksize=1)}
    for kind, (seed, allowed) in kinds.items():
        jobs = [(tokenizer_path, seed, shard, args.generated_rows // shards, context, allowed)
                for shard in range(shards)]
        pending[kind] = pool.map_async(generated_rows, jobs, chunksize=1)
    return pending


def finish_rows(pending, seed):
    real = pending.pop("real").get()
    return Rows({kind: np.concatenate(p.get()) for kind, p in pending.items()}, real, seed)


def open_model(args, torch, demo_model):
    """The model on its device, its layers compiled on a GPU."""
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() and not args.smoke else "cpu"
    args.device_name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    torch.manual_seed(args.seed)
    model = demo_model.Model(args.shape, args.seed)
    if args.command == "share":
        demo_model.load_checkpoint(model, args.start)
    model.to(device)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters on {args.device_name}")
    if device == "cuda":
        # One compiled function for all layers: it differs by mode, kind of feed-forward and what has gradients.
        torch._dynamo.config.cache_size_limit = 64
        model.run_layer = torch.compile(demo_model.layer_forward, dynamic=False)
        model.run_kl = torch.compile(demo_model.index_kl, dynamic=False)
        how, count = ("dense", args.rows) if args.command == "train" else ("FS" * (args.layers // 2), args.rows // 3)
        ids = torch.zeros(count, args.shape.context, dtype=torch.long, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits, kls, _ = model(ids, how)
            (logits.float().mean() + sum(kls)).backward()
        model.zero_grad(set_to_none=True)
        log("compiled")
    return model, device


def train(args):
    tokenizer_path = os.path.join(args.tokenizer, "tokenizer.json")
    pool = multiprocessing.get_context("spawn").Pool(2 if args.smoke else max(2, min(11, os.cpu_count() - 4)))
    pending = start_rows(args, tokenizer_path, pool)
    import torch
    import demo_model
    model, device = open_model(args, torch, demo_model)
    rows = finish_rows(pending, args.seed)
    pool.close()
    log(f"rows of {args.shape.context} tokens: " + ", ".join(f"{len(r)} {k}" for k, r in rows.generated.items())
        + " and real: " + ", ".join(f"{len(r)} {k}" for k, r in zip(REAL_WEIGHTS, rows.real)))

    trainer = Trainer(args, model, rows, device)
    trainer.report.update(shape=vars(args.shape), rows_per_step=args.rows,
                          generated_rows={k: len(r) for k, r in rows.generated.items()},
                          real_rows={k: len(r) for k, r in zip(REAL_WEIGHTS, rows.real)})
    with open(tokenizer_path) as f:
        special = {t["content"]: t["id"] for t in json.load(f)["added_tokens"]}
    most = 7 if args.smoke else 10**9

    def write(stage):
        """Written after every stage: a run that is cut short still leaves a model."""
        trainer.report["total_seconds"] = round(time.monotonic() - START, 1)
        demo_model.save_checkpoint(model, args.out, special)
        with open(os.path.join(args.out, f"{args.command}.json"), "w") as f:
            json.dump(trainer.report, f, indent=1)
            f.write("\n")
        log(f"{stage}: checkpoint written")

    if args.command == "train":
        trainer.dense(args.seconds * args.dense_share, most)
        trainer.indexers(time.monotonic() - START + args.index_seconds, most)
        write("indexers")
        trainer.sparse(args.seconds, most)
    else:
        chains = toy_chains(args.shape.layers) if args.smoke else \
            read_chains(args.chains or os.path.join(args.start, "traces"))
        trainer.report["chains"] = chains
        trainer.share(args.seconds, most, chains)
    write("last")
    if args.check:
        ids = torch.from_numpy(rows.real_batch(2))[:, :600]
        pattern = "FFS" * (args.shape.layers // 3) + "F" * (args.shape.layers % 3)
        difference = demo_model.check_against_transformers(model, args.out, ids, pattern)
        log(f"largest logit difference to transformers on the exported files: {difference:.2e} relative")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["tokenizer", "train", "share", "average"])
    parser.add_argument("--real-text", help="folder written by pack_training_text.py; all but average need it")
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizer", default="calib_data/demo", help="folder of tokenizer.json")
    parser.add_argument("--start", help="share, average: folder of stage 3's checkpoint")
    parser.add_argument("--other", help="average: folder of stage 4's checkpoint")
    parser.add_argument("--weight", type=float, default=0.65, help="average: of stage 4's weights")
    parser.add_argument("--chains", help="share: folder of its traces, if not traces/ beside it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=500, help="end of the last stage, from the start")
    parser.add_argument("--dense-share", type=float, default=0.68, help="of --seconds: end of stage 1")
    parser.add_argument("--index-seconds", type=float, default=45, help="length of stage 2")
    parser.add_argument("--rows", type=int, default=48, help="of 1024 tokens, per step")
    parser.add_argument("--generated-rows", type=int, default=96000, help="of each kind")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--index-lr", type=float, default=2e-3)
    parser.add_argument("--sparse-lr", type=float, default=5e-4)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--moe-inter", type=int, default=96)
    parser.add_argument("--smoke", action="store_true", help="toy size on a CPU: does everything fit together?")
    parser.add_argument("--check", action="store_true", help="compare logits with transformers at the end")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    if args.command == "average":
        average(args)
        return
    if not args.real_text:
        parser.error("--real-text DIR is required")
    if args.command == "tokenizer":
        train_tokenizer(args.real_text, os.path.join(args.out, "tokenizer.json"), 2048)
        return
    from demo_model import Shape
    args.shape = Shape(layers=args.layers, moe_inter=args.moe_inter)
    if args.smoke:
        args.shape.layers, args.shape.context, args.shape.topk = 4, 256, 16
        args.rows, args.generated_rows, args.check, args.seconds = 6, 40, True, 90
    train(args)


if __name__ == "__main__":
    main()
