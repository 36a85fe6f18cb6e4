#!/usr/bin/env python3
# sanitizers: yes
"""A checkpoint that is cut short while it is read: one line that names the file, exit 3, and the run goes on later."""
import json
import os
import shutil
import signal
import struct
import time

from harness import GLM, Result, corpus, expect, good, main, refused, results, scratch, start

VOCABULARY = 600_000
PAGE = os.sysconf("SC_PAGE_SIZE")


def large_checkpoint():
    """The tiny one with a vocabulary whose rows are zeros that lie in no block of the disk."""
    with open(os.path.join(GLM, "model.safetensors"), "rb") as file:
        length, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    target = os.path.join(scratch(), "checkpoint")
    os.makedirs(target)
    with open(os.path.join(GLM, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**config, "vocab_size": VOCABULARY}, file)
    header.pop("__metadata__", None)
    pieces, at, new = [], 0, {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            size, piece = VOCABULARY * config["hidden_size"] * 4, None
            tensor["shape"][0] = VOCABULARY
        else:
            size, piece = end - begin, data[begin:end]
        new[name] = {**tensor, "data_offsets": [at, at + size]}
        pieces.append((at, piece))
        at += size
    text = json.dumps(new).encode()
    path = os.path.join(target, "model.safetensors")
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        base = file.tell()
        for begin, piece in pieces:
            if piece:
                file.seek(base + begin)
                file.write(piece)
        file.truncate(base + at)
    return target, path, base


def resident(process, path):
    """Bytes of the file that the process has seen through its mapping."""
    size, inside = 0, False
    try:
        with open(f"/proc/{process.pid}/smaps", encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if "-" in words[0]:
                    inside = words[-1] == path
                elif inside and words[0] == "Rss:":
                    size += int(words[1]) * 1024
    except OSError:
        pass
    return size


def cut_short(words, path, length):
    """Runs, and cuts the file once a part of its rows has come in."""
    process = start(*words)
    rows = os.path.getsize(path) // 2
    while process.poll() is None and resident(process, path) < rows // 4:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGSTOP)
    os.truncate(path, length)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    return Result(words, process.returncode, out.decode(), err.decode())


def test_a_checkpoint_cut_short_while_it_is_read_is_named_and_the_run_goes_on():
    model, path, base = large_checkpoint()
    kept = path + ".kept"
    shutil.copyfile(path, kept)
    out = os.path.join(scratch(), "run")
    words = ("calibrate", "--model", model, "--corpus", corpus(2, shortest=12, longest=16), "--max-shared", 1, "--search", "exact", "--no-refine",
             "--threads", 1, "--out", out)
    refused(cut_short(words, path, base + PAGE), 3, path, "cut short")
    os.replace(kept, path)
    good(*words, "--resume")
    expect(results(out)["pattern"], "a pattern")


main(globals())
