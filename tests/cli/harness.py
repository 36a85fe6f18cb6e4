"""What the tests of the program share: running it, making models and corpora, comparing results.

A test file defines functions test_*() and ends with harness.main(globals()). Only the standard library is used. The
program is $DSACAL or build/dsacal.
"""
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DSACAL = os.path.abspath(os.environ.get("DSACAL") or os.path.join(ROOT, "build", "dsacal"))
TINY = os.path.join(ROOT, "tests", "golden", "tiny")
GLM = os.path.join(TINY, "glm-all-full")  # 4 layers, K = 7, vocabulary 101, FFFF
V32 = os.path.join(TINY, "v32-all-full")  # the same sizes in the other architecture
SHARED = os.path.join(TINY, "glm-types-spared")  # 6 layers, natively FFSFSS, S layers without indexers
DEEP = os.path.join(TINY, "v32-yarn-mscale")  # 5 layers
TOPK, VOCAB = 7, 101
RUN_FILES = ["config.yaml", "corpora.csv", "curve.csv", "gain.csv", "journal", "log.txt", "overlap.csv", "pattern.csv",
             "pattern.yaml", "positions.csv", "report.html", "results.json", "sensitivity.csv", "tokens", "trace.csv"]


class Failure(AssertionError):
    pass


def expect(condition, message):
    if not condition:
        raise Failure(message)


def equal(found, expected, what="value"):
    if found != expected:
        raise Failure(f"{what}: found {found!r:.600}, expected {expected!r:.600}")


def near(found, expected, what, relative=1e-12):
    if abs(found - expected) > relative * max(abs(expected), 1e-300):
        raise Failure(f"{what}: found {found!r}, expected {expected!r}")


_scratch = None


def scratch():
    """A fresh directory that goes when the tests end."""
    global _scratch
    if _scratch is None:
        _scratch = tempfile.mkdtemp(prefix="dsacal-cli-")
    return tempfile.mkdtemp(dir=_scratch)


class Result:
    def __init__(self, args, status, out, err):
        self.args, self.status, self.out, self.err = args, status, out, err

    def json(self):
        return strict_json(self.out)

    def __str__(self):
        return f"dsacal {' '.join(map(str, self.args))}: exit {self.status}\n{self.err[-2000:]}"


def environment(extra=None):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "OMP_NUM_THREADS")}
    env.update(extra or {})
    return env


def start(*args, **how):
    how.setdefault("stdout", subprocess.PIPE)
    how.setdefault("stderr", subprocess.PIPE)
    how.setdefault("env", environment())
    return subprocess.Popen([DSACAL, *map(str, args)], **how)


def run(*args, stdin=b"", limits=None, env=None, timeout=120, stdout=subprocess.PIPE, cwd=None):
    """limits: [(resource, value)]. Runs without a terminal."""
    def limit():
        for what, value in limits:
            resource.setrlimit(what, (value, value))

    done = subprocess.run([DSACAL, *map(str, args)], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                          env=environment(env), timeout=timeout, preexec_fn=limit if limits else None, cwd=cwd)
    return Result(args, done.returncode, (done.stdout or b"").decode("utf-8", "replace"),
                  done.stderr.decode("utf-8", "replace"))


def good(*args, **how):
    result = run(*args, **how)
    expect(result.status == 0, f"expected exit 0: {result}")
    return result


def sanitizers(result):
    for word in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "UndefinedBehavior"):
        expect(word not in result.err, f"{word}: {result}")


def refused(result, status, *words):
    """One line of error, the last one, that says all words; the status is that of wrong usage or of no measurement."""
    sanitizers(result)
    allowed = status if isinstance(status, tuple) else (status,)
    expect(result.status in allowed, f"expected exit {status}: {result}")
    lines = result.err.splitlines()
    expect(lines and lines[-1].startswith("dsacal: "), f"the last line is no error: {result}")
    equal(sum(line.startswith("dsacal: ") for line in lines), 1, f"lines of error of {result}")
    for word in words:
        expect(word in lines[-1], f"the error does not say {word!r}: {result}")
    return result


def strict_json(text):
    def constant(name):
        raise Failure(f"JSON holds {name}")

    def members(pairs):
        keys = [k for k, _ in pairs]
        expect(len(set(keys)) == len(keys), f"JSON repeats a key of {keys}")
        return dict(pairs)

    return json.loads(text, parse_constant=constant, object_pairs_hook=members)


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def write(data, *path):
    with open(os.path.join(*path), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return os.path.join(*path)


def results(run_directory):
    return strict_json(read(run_directory, "results.json").decode())


def figures(data, *without):
    """Results less what may differ between two runs of the same inputs, and less `without`."""
    data = json.loads(json.dumps(data))
    data.pop("provenance", None)
    data.get("work", {}).pop("seconds", None)
    for name in without:
        data.pop(name)
    return data


def settled(run_directory):
    """The run's files as text, less work.seconds and provenance: what has to be equal to the last byte."""
    text = read(run_directory, "results.json").decode()
    head, tail = text.split('\n  "work": {', 1)
    work = tail.split('"provenance"', 1)[0]
    work = "\n".join(line for line in work.splitlines() if '"seconds"' not in line)
    yaml = read(run_directory, "pattern.yaml").decode().split("\nprovenance:\n", 1)[0]
    tables = {name: read(run_directory, name) for name in RUN_FILES if name.endswith(".csv")}
    return {"results.json": head + work, "pattern.yaml": yaml, "tokens": read(run_directory, "tokens"), **tables}


def same_run(found, expected, what):
    found, expected = settled(found), settled(expected)
    for name in expected:
        expect(found[name] == expected[name], f"{what}: {name} differs")


def listing(directory):
    return sorted(os.listdir(directory))


def contents(directory, *without):
    return {name: read(directory, name) for name in listing(directory) if name not in without}


def documents(count, shortest=20, longest=90, seed=1, vocab=VOCAB):
    rng = random.Random(seed)
    return [[rng.randrange(vocab) for _ in range(rng.randint(shortest, longest))] for _ in range(count)]


def jsonl(ids):
    return "".join(json.dumps({"input_ids": d}) + "\n" for d in ids).encode()


def corpus(count=8, name="docs.jsonl", directory=None, **how):
    return write(jsonl(documents(count, **how)), directory or scratch(), name)


def zst(data):
    """A zstd frame of raw blocks."""
    out = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    blocks = [data[i:i + 100000] for i in range(0, len(data), 100000)] or [b""]
    for i, block in enumerate(blocks):
        out += struct.pack("<I", (len(block) << 3) | (i == len(blocks) - 1))[:3] + block
    return out


def tokenizer():
    """A byte-level BPE of printable ASCII that fits the tiny vocabulary."""
    letters = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]
    vocab = {letter: i for i, letter in enumerate(letters)}
    vocab["th"] = 96
    vocab["the"] = 97
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": 98, "content": "<eos>", "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True}],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocab, "merges": [["t", "h"], ["th", "e"]]}}


def encode(text):
    """The ids of text under tokenizer(), for text whose merges do not depend on word boundaries."""
    ids, i = [], 0
    while i < len(text):
        for word, number in (("the", 97), ("th", 96)):
            if text.startswith(word, i):
                ids.append(number)
                i += len(word)
                break
        else:
            ids.append({" ": 94, "\n": 95}.get(text[i], ord(text[i]) - 33))
            i += 1
    return ids


def model(source=GLM, with_tokenizer=False):
    """A copy of a tiny checkpoint that may be damaged."""
    to = os.path.join(scratch(), os.path.basename(source))
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("expected*"))
    if with_tokenizer:
        write(json.dumps(tokenizer()), to, "tokenizer.json")
    return to


def load_tensors(path):
    data = read(path)
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def save_tensors(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    write(struct.pack("<Q", len(text)) + text + data, path)


def main(names):
    passed = failed = 0
    begun = time.time()
    only = sys.argv[1:]
    try:
        for name, test in list(names.items()):
            if not name.startswith("test_") or not callable(test) or (only and name not in only):
                continue
            started = time.time()
            try:
                test()
                passed += 1
                print(f"ok   {name} ({time.time() - started:.1f} s)", flush=True)
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
    finally:
        if _scratch:
            for directory, _, _ in os.walk(_scratch):
                os.chmod(directory, 0o700)
            shutil.rmtree(_scratch, ignore_errors=True)
    print(f"{time.time() - begun:.1f} s")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
