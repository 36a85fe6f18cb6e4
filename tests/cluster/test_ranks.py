#!/usr/bin/env python3
"""Runs over several processes: any number of them gives the files of one process to the last byte but for work.seconds and
provenance, and a process that dies, hangs or fails ends the run in time with a journal that resumes.

The program must be built with make MPI=1; without mpirun nothing is tested."""
import contextlib
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from harness import DSACAL, GLM, SHARED, V32, Result, corpus, equal, expect, good, listing, main, model, read, refused
from harness import same_run, scratch, write
from launcher import command, journal_bytes, launch, result_of, skip_without_mpirun, strike, together

MESSAGES = os.path.join(os.path.dirname(os.path.realpath(DSACAL)), "tests", "cluster", "messages")  # make cluster-programs
DOCUMENTS = corpus(45, shortest=60, longest=200)
# Long enough for kills to meet every phase.
MANY = corpus(220, shortest=80, longest=260, seed=2)
_alone = {}


def options(out, source=GLM, documents=DOCUMENTS, extra=()):
    return ["calibrate", "--model", source, "--corpus", documents, "--out", out, "--full-trace", "--max-shared", 2,
            "--batch-tokens", 700, "--threads", 1, *extra]


def alone(source=GLM, documents=DOCUMENTS, extra=()):
    """The run of one process; its directory."""
    key = source, documents, tuple(extra)
    if key not in _alone:
        out = os.path.join(scratch(), "alone")
        good(*options(out, source, documents, extra))
        _alone[key] = out
    return _alone[key]


def check_any_number(source=GLM, extra=()):
    for ranks in (1, 2, 3, 4):
        out = os.path.join(scratch(), "run")
        result = together(ranks, *options(out, source, extra=extra))
        equal(result.status, 0, f"exit of {result}")
        same_run(out, alone(source, extra=extra), f"{ranks} ranks with {extra}")
        equal(listing(out), listing(alone(source, extra=extra)), "files of the run")
        expect(ranks == 1 or f"{ranks} ranks, {ranks} of them on" in result.err, f"ranks are not named: {result}")


def test_any_number_of_ranks_gives_the_same_files():
    check_any_number()


def test_the_same_in_a_race_that_losers_leave():
    check_any_number(extra=["--search", "racing", "--budget-kl", 50, "--epsilon", "100%"])


def test_the_same_in_an_exact_search_and_with_no_state_kept():
    check_any_number(extra=["--search", "exact", "--host-memory", 1])


def test_the_same_where_batches_share_the_visits_of_layers():
    check_any_number(extra=["--search", "exact", "--max-shared", 1, "--residency", "disk", "--batch-tokens", 100])


def test_the_same_with_native_shared_layers_and_two_corpora():
    other = corpus(12, "other.jsonl", shortest=30, longest=300, seed=7)
    check_any_number(source=SHARED, extra=["--corpus", f"other={other}"])


def test_overlap_too():
    def words(out):
        return ["overlap", "--model", V32, "--corpus", DOCUMENTS, "--out", out, "--batch-tokens", 700]

    expected = os.path.join(scratch(), "alone")
    good(*words(expected))
    found = os.path.join(scratch(), "run")
    equal(together(3, *words(found)).status, 0, "exit of overlap")
    equal(read(found, "overlap.csv"), read(expected, "overlap.csv"), "overlap.csv of three ranks")


def strike_at(out, ranks, victim, at_bytes, number):
    return strike(options(out, documents=MANY, extra=["--resume"]), out, ranks, victim, at_bytes, number)


def test_a_killed_rank_loses_nothing():
    """Three ranks, one killed early or late; two go on, or one without a launcher, and the files are the same."""
    whole = journal_bytes(alone(documents=MANY))
    for victim, share in ((1, 0.1), (2, 0.6), (0, 0.4)):
        out = os.path.join(scratch(), "run")
        result, seconds = strike_at(out, 3, victim, int(whole * share), signal.SIGKILL)
        expect(result.status != 0, f"a run whose rank {victim} was killed ends well: {result}")
        expect(seconds < 30, f"it took {seconds:.1f} s to end")
        kept = read(out, "journal")
        words = options(out, documents=MANY, extra=["--resume"])
        ended = together(2, *words) if victim else good(*words)
        equal(ended.status, 0, f"exit of {ended}")
        expect(read(out, "journal").startswith(kept[:int(whole * share)]), "resuming did not go on from what was kept")
        same_run(out, alone(documents=MANY), f"resumed after rank {victim} was killed")


def test_a_rank_that_hangs_ends_the_run():
    out = os.path.join(scratch(), "run")
    result, seconds = strike_at(out, 3, 2, journal_bytes(alone(documents=MANY)) // 4, signal.SIGSTOP)
    expect(result.status != 0, f"a run whose rank hangs ends well: {result}")
    expect(10 < seconds < 30, f"it took {seconds:.1f} s to end")
    expect("rank 2 has given no sign of life" in result.err, f"nobody says so: {result}")
    equal(together(4, *options(out, documents=MANY, extra=["--resume"])).status, 0, "exit of the resumed run")
    same_run(out, alone(documents=MANY), "resumed after a rank hung")


def test_an_interrupted_run_can_be_resumed():
    """One rank alone gets the signal: it tells the first."""
    for victim in (0, 1):
        out = os.path.join(scratch(), "run")
        result, _ = strike_at(out, 2, victim, journal_bytes(alone(documents=MANY)) // 3, signal.SIGTERM)
        equal(result.status, 75, f"exit of {result}")
        expect("to go on:" in result.err, f"nobody says how to go on: {result}")
        equal(together(3, *options(out, documents=MANY, extra=["--resume"])).status, 0, "exit of the resumed run")
        same_run(out, alone(documents=MANY), f"resumed after rank {victim} was interrupted")


@contextlib.contextmanager
def slow_messages():
    """Between processes of one machine Open MPI moves a message at once where it is short or the system lets one process
    read another's memory. In many containers it does not; without both, messages move while both sides call MPI."""
    settings = {f"OMPI_MCA_btl_{name}_{key}": value for name in ("vader", "sm")
                for key, value in (("single_copy_mechanism", "none"), ("eager_limit", "256"))}
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for key in settings:
            os.environ.pop(key)
        os.environ.update(before)


def test_nobody_waits_for_the_arithmetic_of_another_rank():
    for how in (contextlib.nullcontext, slow_messages):
        with how():
            line = command(2, [], MESSAGES)
            result = result_of(launch(line), line)
        print(f"# {result.out.strip()}", flush=True)
        equal(result.status, 0, f"exit of {result}")


def test_messages_that_move_while_both_sides_call_mpi():
    with slow_messages():
        check_any_number(extra=["--search", "exact", "--max-shared", 1])
        test_an_interrupted_run_can_be_resumed()
        out = os.path.join(scratch(), "run")
        result, seconds = strike_at(out, 3, 1, journal_bytes(alone(documents=MANY)) // 2, signal.SIGKILL)
        expect(result.status != 0 and seconds < 30, f"a killed rank: {seconds:.1f} s, {result}")
        equal(together(2, *options(out, documents=MANY, extra=["--resume"])).status, 0, "exit of the resumed run")
        same_run(out, alone(documents=MANY), "resumed after rank 1 was killed")


def differing(first, second, out):
    """Rank 0 is given one model, rank 1 another."""
    line = [*command(1, options(out, first)), ":", "-n", "1", DSACAL, *map(str, options(out, second))]
    return result_of(launch(line), line)


def words_of(result, status, *words):
    """As refused(), with the launcher's lines around it."""
    lines = [line for line in result.err.splitlines() if line.startswith("dsacal: ")]
    return refused(Result(result.args, result.status, result.out, "\n".join(lines)), status, *words)


def test_what_a_rank_cannot_do_is_said_once():
    out = os.path.join(scratch(), "run")
    words_of(differing(GLM, os.path.join(scratch(), "none"), out), 3, "rank 1 on ", "config.json")
    other = model(GLM)
    write(read(other, "config.json") + b"\n", other, "config.json")
    words_of(differing(GLM, other, out), 3, "rank 1 on ", "fingerprint")
    equal(listing(out), ["log.txt"], "a refused start leaves")
    equal(together(2, *options(out)).status, 0, "exit of a run in the same directory")


def test_what_rank_0_refuses_is_said_once():
    out = os.path.join(scratch(), "run")
    words_of(together(3, *options(out, documents=os.path.join(scratch(), "none"))), 3, "none")
    words_of(together(3, *options(out, extra=["--budget-kl", 1e-9])), 2, "noise floor")
    words_of(together(3, *options(out, extra=["--bogus"])), 2, "--bogus")


def test_commands_that_one_process_does_run_once():
    result = together(2, "inspect", GLM)
    equal(result.status, 0, f"exit of {result}")
    equal(result.out, good("inspect", GLM).out, "what two processes print")
    expect("runs as one process" in result.err, f"nobody says that the other has nothing to do: {result}")


if __name__ == "__main__":
    skip_without_mpirun()
    main(globals())
