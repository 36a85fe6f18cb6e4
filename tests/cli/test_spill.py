#!/usr/bin/env python3
# sanitizers: yes
"""States on disk: --spill gives the run of a larger --host-memory, to the bit and nearly for its work, and leaves nothing
behind."""
import os
import re
import resource
import signal
import tempfile
import time

from harness import (GLM, RUN_FILES, corpus, documents, equal, expect, good, jsonl, listing, main, read, refused, results,
                     run, same_run, scratch, start, write)

MIB = 1 << 20
DOCUMENTS = corpus(24, shortest=60, longest=120)
WORDS = ("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--full-trace", "--max-shared", 2, "--search", "exact",
         "--batch-tokens", 400, "--threads", 1)
_shared = {}


def calibrate(*words, **how):
    """A finished run: its directory and what it said."""
    out = os.path.join(scratch(), "run")
    said = good(*WORDS, "--verbose", "--no-progress", "--out", out, *words, **how)
    equal(listing(out), RUN_FILES, "files of the run")
    return out, said.err


def shared(name, *words):
    if name not in _shared:
        _shared[name] = calibrate(*words)
    return _shared[name]


def plan(*words):
    return good(*WORDS, "--dry-run", "--json", *words).json()


def tight():
    """Memory for what every pattern needs, the buffer, and a few states."""
    memory = plan("--host-memory", "1GiB")["memory"]
    expect(memory["batches"] > 4, memory)
    return ("--host-memory", memory["keys_and_references"] + memory["state_of_one_layer"] // 2)


def large():
    return shared("large", "--host-memory", "1GiB")


def usage(said):
    """MiB in memory and on disk at most, written, read; states read."""
    found = re.findall(r"states: at most ([\d.]+) MiB in memory and ([\d.]+) MiB on disk, ([\d.]+) MiB written to it, "
                       r"([\d.]+) MiB of (\d+) states read back", said)
    equal(len(found), 1, "lines of the states' usage")
    return [float(x) for x in found[0]]


def executed(out):
    return results(out)["provenance"]["executed"]


def test_disk_stands_in_for_memory_to_the_bit_and_saves_the_same_work():
    out, said = large()
    equal(usage(said)[1:], [0, 0, 0, 0], "disk of a run that memory holds")
    without, said = shared("without", *tight(), "--spill", 0)
    equal(usage(said)[1:], [0, 0, 0, 0], "disk of a run without")
    for words in (("--spill", "64MiB"), ()):
        spilled, said = calibrate(*tight(), *words)
        same_run(spilled, out, f"states on disk, {words}")
        same_run(without, out, "states run again")
        equal(executed(spilled), executed(out), "token-layers run with the disk")
        expect(executed(without) > 1.1 * executed(out), "without it no work is repeated: the test shows nothing")
        _, disk, written, taken, count = usage(said)
        expect(disk > 0 and written > 0 and taken > 0 and count > 0, said)
        expect(f"{tight()[1]} " not in said and "warning" not in said, said)


def test_compressed_states_give_the_same_run():
    memory = ("--host-memory", tight()[1] + 3 * MIB // 4)
    spilled, said = calibrate(*memory, "--spill", "64MiB", "--spill-zstd")
    same_run(spilled, large()[0], "compressed states")
    equal(executed(spilled), executed(large()[0]), "token-layers run")
    plain = shared("plain", *tight(), "--spill", "64MiB")
    expect(0 < usage(said)[2] < usage(plain[1])[2], f"nothing is smaller: {usage(said)} {usage(plain[1])}")


def test_a_full_disk_costs_a_warning_and_work():
    journal = os.path.getsize(os.path.join(large()[0], "journal"))
    most = max(journal, os.path.getsize(os.path.join(large()[0], "report.html"))) + 65536
    expect(usage(shared("plain", *tight(), "--spill", "64MiB")[1])[1] * MIB > most, "the disk is not full: nothing is shown")
    out, said = calibrate(*tight(), "--spill", "64MiB", limits=[(resource.RLIMIT_FSIZE, most)])
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    equal(len(warnings), 1, "warnings")
    expect("spilled states: File too large" in warnings[0] and "run again" in warnings[0], warnings)
    same_run(out, large()[0], "a full disk")


def test_killed_runs_leave_nothing_and_resume_with_another_disk():
    out = os.path.join(scratch(), "run")
    words = [*WORDS, *tight(), "--out", out, "--resume"]
    moments = (0.3, 0.6, 0.5)
    for moment, more in zip(moments, (("--spill", "64MiB"), ("--spill", 0), ("--spill", "64MiB", "--spill-zstd"))):
        process = start(*words, *more)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        expect(set(listing(out)) <= {*RUN_FILES, *(n for n in listing(out) if ".tmp-" in n and "states" not in n)},
               f"left behind: {listing(out)}")
    good(*words, "--spill", "64MiB")
    equal(listing(out), RUN_FILES, "files of the resumed run")
    same_run(out, large()[0], "killed and resumed with other disks")
    expect("\nspill" not in read(out, "config.yaml").decode(), "config.yaml says what changes no figure")


def test_the_plan_says_what_of_disk_and_memory_is_taken():
    found = plan(*tight(), "--spill", "64MiB")
    disk, memory = found["disk"]["spilled_states_most"], found["memory"]
    equal(memory["base_layers_kept"], 3, "layers of the base with a disk")
    expect(plan(*tight(), "--spill", 0)["memory"]["base_layers_kept"] < 3, "layers of the base without")
    taken = usage(shared("plain", *tight(), "--spill", "64MiB")[1])[1]
    expect(taken * MIB <= disk + MIB / 20 and disk < 64 * MIB, f"{taken} MiB taken, {disk} bytes planned")
    equal(plan(*tight(), "--spill", 0)["disk"]["spilled_states_most"], 0, "no disk")
    equal(plan("--host-memory", "1GiB")["disk"]["spilled_states_most"], 0, "more memory than states")
    # Unasked: four times the memory, and none in a directory that is memory itself.
    little = plan("--host-memory", tight()[1])["disk"]["spilled_states_most"]
    expect(0 < little <= 4 * tight()[1], little)
    equal(plan("--host-memory", 1)["disk"]["spilled_states_most"], 0, "no room for a buffer")
    if os.path.ismount("/dev/shm"):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as here:
            equal(plan(*tight(), "--out", os.path.join(here, "a", "run"))["disk"]["spilled_states_most"], 0, "tmpfs")
    text = good(*WORDS, *tight(), "--dry-run").out
    expect(re.search(r"\ndisk +.* MiB journal, at most [\d.]+ MiB of states\n", text), text)


def test_options_are_checked_and_read_from_files():
    for words in (("--spill", "4Q"), ("--spill", "-1")):
        refused(run(*WORDS, *words, "--out", os.path.join(scratch(), "run")), 2, "--spill", "4GiB")
    refused(run("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFSS", "--spill", "1MiB"), 2,
            "--spill is no option of 'evaluate'")
    lines = (f"model: {GLM}", f"corpus: [{DOCUMENTS}]", f"host-memory: {tight()[1]}", "spill: 64MiB", "spill-zstd: false",
             "search: exact", "batch-tokens: 400", "full-trace: true", 'max-shared: "2"', "threads: 1")
    path = write("".join(line + "\n" for line in lines), scratch(), "run.yaml")
    out = os.path.join(scratch(), "run")
    said = good("calibrate", "--config", path, "--out", out, "--verbose").err
    expect(usage(said)[2] > 0, said)
    same_run(out, large()[0], "options from a file")


def test_the_process_takes_the_memory_that_was_planned():
    """A case where what is kept is most of it."""
    if "asan" in os.environ.get("DSACAL", ""):
        return  # whose memory is another
    many = write(jsonl(documents(200, shortest=350, longest=450)), scratch(), "many.jsonl")
    words = ("calibrate", "--model", GLM, "--corpus", many, "--max-shared", 1, "--no-refine", "--search", "exact",
             "--batch-tokens", 1000, "--threads", 1, "--host-memory", "48MiB", "--spill", "256MiB")
    planned = good(*words, "--dry-run", "--json").json()["memory"]["host"]
    out = os.path.join(scratch(), "run")
    said = good(*words, "--out", out, "--verbose", timeout=300).err
    expect(usage(said)[1] > 0, "the memory was not full")
    found = results(out)["provenance"]["peak_memory"]
    expect(0.95 * found <= planned <= 1.05 * found,
           f"{found / MIB:.1f} MiB taken, {planned / MIB:.1f} planned; {usage(said)}")


main(globals())
