#!/usr/bin/env python3
"""A run killed at any moment and resumed gives the files of the run that nobody disturbed, to the last byte but for
work.seconds and provenance."""
import os
import random
import signal
import time

from harness import GLM, RUN_FILES, SHARED, corpus, equal, expect, good, listing, main, results, same_run, scratch, start

# Long enough that kills meet every phase: reading documents, base, noise floor, baselines, steps, writing files.
DOCUMENTS = corpus(45, shortest=60, longest=200)
_whole = {}


def options(out, source, extra):
    return ["calibrate", "--model", source, "--corpus", DOCUMENTS, "--out", out, "--full-trace", "--max-shared", 2,
            "--batch-tokens", 700, *extra]


def whole(source, rules=()):
    """The undisturbed run under these rules; its directory."""
    if (source, rules) not in _whole:
        out = os.path.join(scratch(), "whole")
        good(*options(out, source, [*rules, "--threads", 2]))
        _whole[source, rules] = out
    return _whole[source, rules]


def seconds(source, extra):
    began = time.time()
    good(*options(os.path.join(scratch(), "timed"), source, extra))
    return time.time() - began


def start_and_kill(command, moment):
    """moment: seconds, or a function that says that it has come. False: the run ended first."""
    process = start(*command)
    began = time.time()
    while process.poll() is None:
        if moment() if callable(moment) else time.time() - began >= moment:
            break
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    err = process.communicate()[1].decode()
    expect(process.returncode in (0, -signal.SIGKILL), f"ended by itself with {process.returncode}: {err}")
    return process.returncode != 0


def kill_and_resume(moments, source=GLM, extra=(), rules=()):
    out = os.path.join(scratch(), "run")
    command = [*options(out, source, [*rules, *extra]), "--resume"]
    killed = sum(start_and_kill(command, moment) for moment in moments)
    good(*command)
    same_run(out, whole(source, rules), f"killed at {moments} with {extra}")
    equal(listing(out), RUN_FILES, "files of the resumed run")
    return killed


def kill_at_random(count, source=GLM, extra=(), seed=1, rules=()):
    rng = random.Random(seed)
    length = seconds(source, [*rules, *extra])
    killed = 0
    for number in range(count):
        # Every fourth run is killed three times before it may end.
        moments = [rng.uniform(0, 1.02 * length) for _ in range(3 if number % 4 == 3 else 1)]
        killed += kill_and_resume(moments, source, extra, rules)
    expect(killed >= count / 2, f"only {killed} of {count} runs were killed: they end in {length:.2f} s")


def test_killed_at_random_moments_and_resumed():
    kill_at_random(50, extra=["--threads", 2])


def test_the_same_with_one_thread_and_with_four():
    kill_at_random(8, extra=["--threads", 1], seed=2)
    kill_at_random(8, extra=["--threads", 4], seed=3)


def test_the_same_with_a_pool_that_holds_no_state():
    kill_at_random(8, extra=["--host-memory", 1, "--threads", 2], seed=4)


def test_the_same_with_native_shared_layers():
    kill_at_random(8, source=SHARED, extra=["--threads", 2], seed=5)


def test_the_same_in_a_race_that_losers_leave():
    """A wide epsilon ends every race at its first look."""
    rules = ("--search", "racing", "--budget-kl", 50, "--epsilon", "100%")
    found = results(whole(GLM, rules))
    seen = [candidate["documents"] for step in found["trace"] for candidate in step["candidates"]]
    expect(min(seen) < max(seen), f"nobody left a race: {seen}")
    kill_at_random(16, extra=["--threads", 2], seed=7, rules=rules)


def test_killed_as_each_file_appears():
    """The moments that last shortest: a file being written aside, a file just renamed."""
    for name in RUN_FILES:
        for aside in (False, True):
            out = os.path.join(scratch(), "run")
            command = [*options(out, GLM, ["--threads", 2]), "--resume"]

            def come(out=out, name=name, aside=aside):
                if not aside:
                    return os.path.exists(os.path.join(out, name))
                try:
                    return any(found.startswith(name + ".tmp-") for found in os.listdir(out))
                except FileNotFoundError:
                    return False

            start_and_kill(command, come)
            good(*command)
            same_run(out, whole(GLM), f"killed as {name} appeared")
            equal(listing(out), RUN_FILES, "files of the resumed run")


def test_resuming_repeats_no_finished_work():
    """Killed late, the resumed process has little left to run, and the work counted is that of the whole run."""
    out = os.path.join(scratch(), "run")
    command = [*options(out, GLM, ["--threads", 2]), "--resume"]
    size = os.path.getsize(os.path.join(whole(GLM), "journal"))
    journal = os.path.join(out, "journal")
    start_and_kill(command, lambda: os.path.exists(journal) and os.path.getsize(journal) > 0.7 * size)
    kept = os.path.getsize(journal)
    expect(kept > 0.6 * size, f"the journal kept {kept} of {size} bytes")
    good(*command)
    same_run(out, whole(GLM), "killed late")
    equal(os.path.getsize(journal), size, "bytes of the journal")
    executed = results(out)["provenance"]["executed"]
    once = results(whole(GLM))["provenance"]["executed"]
    expect(once <= executed < 1.5 * once, f"{executed} token-layers run in all, {once} by the whole run")


def test_a_torn_record_is_measured_again():
    """What a crash of the machine leaves: the journal cut at any byte behind its header."""
    rng = random.Random(6)
    with open(os.path.join(whole(GLM), "journal"), "rb") as file:
        data = file.read()
    header = int.from_bytes(data[12:16], "little")
    for cut in [header, header + 1, len(data) - 1] + [rng.randrange(header, len(data)) for _ in range(5)]:
        out = os.path.join(scratch(), "run")
        os.makedirs(out)
        for name in ("tokens", "journal"):
            with open(os.path.join(whole(GLM), name), "rb") as source, open(os.path.join(out, name), "wb") as copy:
                copy.write(source.read()[:cut if name == "journal" else None])
        good(*options(out, GLM, ["--threads", 2]), "--resume")
        same_run(out, whole(GLM), f"journal cut at byte {cut}")


main(globals())
