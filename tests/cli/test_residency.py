#!/usr/bin/env python3
# sanitizers: yes
"""--residency: wherever layers lie, the run is the same to the last byte; what goes wrong with them is one line."""
import json
import os
import random
import re
import shutil
import signal
import struct
import time

from harness import (DSACAL, GLM, SHARED, TINY, corpus, equal, expect, good, listing, load_tensors, main, model, read,
                     refused, results, run, same_run, save_tensors, scratch, start, write)

PLACES = ("device", "stored", "host", "disk")
FP8 = os.path.join(TINY, "glm-fp8-ue8m0")  # packed experts in two shards, 3 layers
DOCUMENTS = corpus(10)
SANITIZED = b"__asan_init" in read(DSACAL)
_runs = {}


def options(out, *extra, source=GLM, documents=DOCUMENTS):
    return ("calibrate", "--model", source, "--corpus", documents, "--out", out, *extra)


def calibrate(*extra, **how):
    out = os.path.join(scratch(), "run")
    good(*options(out, *extra, **how))
    return out


def plain(*extra, **how):
    """The resident run under these options, made once."""
    key = (extra, *how.values())
    if key not in _runs:
        _runs[key] = calibrate(*extra, **how)
    return _runs[key]


def test_the_default_search_is_the_same_in_every_place():
    for place in PLACES:
        same_run(calibrate("--residency", place), plain(), place)


def test_the_exact_search_is_the_same_in_every_place():
    rules = ("--search", "exact", "--full-trace", "--max-shared", 2)
    for place in PLACES[1:]:
        same_run(calibrate(*rules, "--residency", place), plain(*rules), place)


def test_fp8_packed_experts_and_layers_without_indexers_are_the_same():
    rules = ("--max-shared", 1, "--threads", 1)
    for source in (FP8, SHARED):
        for place in PLACES[1:]:
            same_run(calibrate(*rules, "--residency", place, source=source), plain(*rules, source=source),
                     f"{source} on {place}")


def test_small_batches_and_a_pool_for_nothing_are_the_same():
    rules = ("--batch-tokens", 150, "--search", "exact", "--max-shared", 1)
    small = ("--host-memory", "3MiB")
    for place in ("host", "disk"):
        same_run(calibrate(*rules, *small, "--residency", place), plain(*rules), f"{place} with little memory")
    same_run(calibrate("--search", "naive", "--max-shared", 1, "--residency", "disk"),
             plain("--search", "naive", "--max-shared", 1), "naive search from disk")


def test_a_run_killed_in_one_place_is_resumed_in_another():
    long = corpus(30, shortest=60, longest=150)
    rules = ("--full-trace", "--max-shared", 1, "--batch-tokens", 600)
    whole = plain(*rules, documents=long)
    size = os.path.getsize(os.path.join(whole, "journal"))
    for first, second, share in (("disk", "device", 0.3), ("device", "disk", 0.5), ("host", "stored", 0.7)):
        out = os.path.join(scratch(), "run")
        journal = os.path.join(out, "journal")
        process = start(*options(out, *rules, "--resume", "--residency", first, documents=long))
        while process.poll() is None and not (os.path.exists(journal) and os.path.getsize(journal) > share * size):
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        err = process.communicate()[1].decode()
        equal(process.returncode, -signal.SIGKILL, f"status of the killed run: {err}")
        good(*options(out, *rules, "--resume", "--residency", second, documents=long))
        same_run(out, whole, f"killed on {first}, resumed on {second}")


def test_verbose_says_what_lies_where():
    said = {"stored": "4 lie on the device, 0 in pinned host memory, 0 on disk; a visit of all of them moves 0.0 MB",
            "host": "0 lie on the device, 4 in pinned host memory, 0 on disk; a visit of all of them moves ",
            "disk": "0 lie on the device, 0 in pinned host memory, 4 on disk; a visit of all of them moves "}
    for place, words in said.items():
        done = run(*options(os.path.join(scratch(), "run"), "--residency", place, "--verbose"))
        equal(done.status, 0, f"status: {done}")
        expect(words in done.err, f"{place}: {done}")
        expect(("visits brought" in done.err) == (place != "stored"), f"{place}: what crossed the bus: {done}")
        expect(("and 0.00 GB off the disk in 0.00 s" in done.err) == (place == "host"), f"{place}: {done}")
    done = run(*options(os.path.join(scratch(), "run"), "--verbose"))
    expect("as they are stored" not in done.err and "over the bus" not in done.err, f"resident: {done}")


def visits(*args):
    """Of layers that were not there, as --verbose tells."""
    return int(re.search(r"(\d+) visits brought", good(*args, "--verbose").err).group(1))


def test_batches_share_the_visits_of_a_layer():
    """Ten documents, each a batch: their references take one wave, and so do their patterns, which start behind the two
    layers that they have in common with the reference."""
    rules = ("--residency", "disk", "--batch-tokens", 1)
    equal(visits("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFSS", *rules), 4 + 2,
          "visits of evaluate")
    out = os.path.join(scratch(), "run")
    exact = ("--search", "exact", "--max-shared", 1, "--no-refine", *rules)
    few = visits(*options(out, *exact))
    same_run(out, plain(*exact[:-4], "--batch-tokens", 1), "batches that share visits")
    # Overlap takes 4 for each of 8 batches to calibrate on; the questions of all else share theirs.
    expect(32 < few < 60, f"{few} visits of calibrate")


def test_evaluate_overlap_and_verify_find_the_same():
    def measure(*extra):
        return good("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFSS", "--json", *extra).json()

    def overlap(*extra):
        out = os.path.join(scratch(), "overlap")
        good("overlap", "--model", GLM, "--corpus", DOCUMENTS, "--out", out, *extra)
        return read(out, "overlap.csv")

    def verify(*extra):
        found = run("verify", os.path.join(plain(), "pattern.yaml"), "--model", GLM, "--corpus", DOCUMENTS, "--json",
                    *extra)
        return found.status, found.json()["checks"]

    for place in PLACES[1:]:
        equal(measure("--residency", place)["quality"], measure()["quality"], f"evaluate on {place}")
        equal(overlap("--residency", place), overlap(), f"overlap on {place}")
        equal(verify("--residency", place), verify(), f"verify on {place}")


def test_a_place_that_is_none_is_a_usage_error():
    for word in ("nonsense", "", "Disk", "disk "):
        out = os.path.join(scratch(), "run")
        refused(run(*options(out, "--residency", word)), 2, "--residency", "device|stored|host|disk")
        expect(not os.path.exists(out), "a run directory was made")
    refused(run("inspect", GLM, "--residency", "nonsense"), 2, "--residency")
    refused(run("bench", "--model", GLM, "--residency", "disk"), 2, "--residency")


def test_a_file_may_set_it():
    def by_file(*lines, extra=()):
        out = os.path.join(scratch(), "run")
        path = write("\n".join((f"model: {GLM}", f"corpus: [{DOCUMENTS}]", *lines)) + "\n", scratch(), "run.yaml")
        return out, run("calibrate", "--config", path, "--out", out, "--verbose", *extra)

    out, done = by_file("residency: disk", "gpu-memory: 8GiB")
    equal(done.status, 0, f"status: {done}")
    expect("4 on disk" in done.err, f"where layers lie: {done}")
    same_run(out, plain(), "residency from a file")
    # Where it runs is no part of what it measures.
    equal(read(out, "config.yaml"), read(plain(), "config.yaml"), "config.yaml")
    out, done = by_file("residency: disk", extra=("--residency", "host"))
    expect("4 in pinned host memory" in done.err, f"the flag wins: {done}")
    for line, *words in (("residency: tape", "line 3", "residency", "'tape'", "device|stored|host|disk"),
                         ("residency: [disk]", "line 3", "residency", "a list"),
                         ("gpu-memory: much", "line 3", "gpu-memory", "'much'")):
        refused(by_file(line)[1], 2, "run.yaml", *words)


def test_too_little_host_memory_is_said_with_what_to_raise_and_the_directory_serves_again():
    out = os.path.join(scratch(), "run")
    refused(run(*options(out, "--residency", "disk", "--host-memory", "10KiB")), 3, "are read from disk through",
            "raise --host-memory to 1MiB")
    equal(listing(out), ["log.txt"], "files of the refused run")
    good(*options(out, "--residency", "disk", "--host-memory", "1MiB"))
    same_run(out, plain(), "in the same directory, with that")
    # Resident, the same is enough.
    same_run(calibrate("--host-memory", "10KiB"), plain(), "little memory for states")


def poison(directory, tensor, index, code=b"\0\0\xc0\x7f"):
    path = os.path.join(directory, "model.safetensors")
    header, data = load_tensors(path)
    at = header[tensor]["data_offsets"][0] + index * len(code)
    save_tensors(path, header, data[:at] + code + data[at + len(code):])


def test_a_nan_in_a_layer_is_one_line_and_leaves_nothing_but_the_log():
    name = "model.layers.2.self_attn.o_proj.weight"
    for place in PLACES:
        here, out = model(), os.path.join(scratch(), "run")
        poison(here, name, 45 * 3 + 7)
        refused(run(*options(out, "--residency", place, source=here)), 3, "model.safetensors", f"tensor {name}",
                "row 3, column 7", "NaN")
        equal(listing(out), ["log.txt"], f"left behind by {place}")
        refused(run("evaluate", "--model", here, "--corpus", DOCUMENTS, "--pattern", "FFSS", "--residency", place), 3,
                f"tensor {name}")
        # Mended, the same directory serves.
        shutil.copy(os.path.join(GLM, "model.safetensors"), here)
        good(*options(out, "--residency", place, source=here))
        same_run(out, plain(), f"mended, on {place}")


def test_a_truncated_shard_is_refused_before_the_run():
    for cut in (1, 5000, 200000):
        here, out = model(FP8), os.path.join(scratch(), "run")
        path = os.path.join(here, "model-00002-of-00002.safetensors")
        os.truncate(path, os.path.getsize(path) - cut)
        refused(run(*options(out, "--residency", "disk", source=here)), 3, "model-00002-of-00002.safetensors")
        expect(listing(out) in ([], ["log.txt"]) if os.path.isdir(out) else True, "left behind")


def shrink(path):
    os.truncate(path, 50000)


def write_over(path):
    """NaN in the middle of the last layer's weights."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) - 20000)
        file.write(b"\x00\x00\xc0\x7f" * 2000)


def touch(path):
    """The same size, and numbers that are as good as those before."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) - 20000)
        file.write(b"\x00" * 8000)


def test_a_shard_that_changes_under_the_run_is_one_line_and_resumes_once_it_is_back():
    for damage, words in ((shrink, "the file ends at byte 50000"), (write_over, "the file was written to since the run began"),
                          (touch, "the file was written to since the run began")):
        check_damage(damage, words)


def check_damage(damage, words):
    long = corpus(60, shortest=60, longest=200)
    rules = ("--full-trace", "--max-shared", 1, "--batch-tokens", 600, "--residency", "disk")
    here, out = model(), os.path.join(scratch(), "run")
    path, journal = os.path.join(here, "model.safetensors"), os.path.join(out, "journal")
    whole = plain(*rules[:-2], documents=long)
    size = os.path.getsize(os.path.join(whole, "journal"))
    process = start(*options(out, *rules, source=here, documents=long))
    while process.poll() is None and not (os.path.exists(journal) and os.path.getsize(journal) > 0.2 * size):
        time.sleep(0.0005)
    damage(path)
    err = process.communicate()[1].decode()
    equal(process.returncode, 3, f"status: {err}")
    lines = [line for line in err.splitlines() if line.startswith("dsacal: ")]
    equal(len(lines), 1, f"lines of error: {err}")
    expect(f"{path}: {words}" in lines[0], lines[0])
    shutil.copy(os.path.join(GLM, "model.safetensors"), path)
    good(*options(out, *rules, "--resume", source=here, documents=long))
    same_run(out, whole, "resumed with the file back")


def broad_model(layers, width):
    """GLM's first layer `layers` times over, its feed-forward `width` wide in BF16: some 240 · width bytes a layer.
    Written piece by piece: a process's peak counts what its parent held when it was made."""
    config = json.loads(read(GLM, "config.json"))
    header, data = load_tensors(os.path.join(GLM, "model.safetensors"))
    hidden, front = config["hidden_size"], "model.layers.0."
    config.update(num_hidden_layers=layers, first_k_dense_replace=layers, intermediate_size=width)
    tensors, at = {}, 0
    for name, tensor in header.items():
        if name == "__metadata__" or (name.startswith("model.layers.") and not name.startswith(front)):
            continue
        begin, end = tensor["data_offsets"]
        entry = {"dtype": tensor["dtype"], "shape": tensor["shape"]}
        if ".mlp." in name:
            entry = {"dtype": "BF16", "shape": [hidden, width] if "down" in name else [width, hidden]}
        size = 2 * hidden * width if ".mlp." in name else end - begin
        for layer in range(layers) if name.startswith(front) else ("",):
            tensors[name.replace(front, f"model.layers.{layer}.")] = {**entry, "data_offsets": [at, at + size]}
            at += size
    here = os.path.join(scratch(), "broad")
    os.makedirs(here)
    write(json.dumps(config), here, "config.json")
    save_tensors(os.path.join(here, "model.safetensors"), tensors, b"")
    rng = random.Random(7)
    # Of either sign, below 2^-6.
    numbers = b"".join(struct.pack("<H", rng.choice((0, 0x8000)) | rng.randrange(0x3b00, 0x3c80)) for _ in range(hidden * 100))
    with open(os.path.join(here, "model.safetensors"), "ab") as file:
        for name in tensors:
            if ".mlp." in name:
                for _ in range(width // 100):
                    file.write(numbers)
            else:
                source = header[re.sub(r"layers\.\d+\.", "layers.0.", name)]["data_offsets"]
                file.write(data[slice(*source)])
    return here


def test_layers_on_disk_take_the_memory_of_a_few_of_them():
    if SANITIZED:
        return  # whose own memory is most of what would be measured
    layers, width = 12, 40000
    here, few = broad_model(layers, width), corpus(2, shortest=20, longest=30)
    mb, peak, quality = 1e6, {}, {}
    for place in ("device", "disk"):
        process = start("evaluate", "--model", here, "--corpus", few, "--pattern", "FFSS" * 3, "--json", "--threads", 1,
                        "--residency", place)
        out, err = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        equal(process.returncode, 0, f"status: {err}")
        peak[place], quality[place] = usage.ru_maxrss * 1024, json.loads(out)["quality"]
    equal(quality["disk"], quality["device"], "quality")
    stored, products = 240 * width, 480 * width
    print(f"# peak memory: {peak['device'] / mb:.0f} MB resident, {peak['disk'] / mb:.0f} MB from disk, of layers of "
          f"{stored / mb:.1f} MB stored and {products / mb:.1f} MB for products")
    # From disk: one for products, four as stored. Resident: all for products.
    saved = peak["device"] - peak["disk"]
    least = (layers - 1) * products - 4 * stored
    expect(saved > 0.9 * least, f"{saved / mb:.0f} MB less, expected {least / mb:.0f} MB or more")


main(globals())
