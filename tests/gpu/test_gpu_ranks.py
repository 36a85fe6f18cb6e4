#!/usr/bin/env python3
"""Whole runs over several ranks on GPUs: the bits of one process, each rank its own GPU where there are enough, and a rank
that is killed loses nothing.

Only the standard library is used. $DSACAL is the program, built with MPI=1; $MPIRUN the launcher, mpirun by default, without
which nothing is tested. DSA_GPU_TEST_DEVICE=cpu runs it on the CPU with few documents, which tests this file. Seconds are
printed and not judged: ranks that share one GPU gain little.

  test_gpu_ranks.py            everything
  test_gpu_ranks.py --quick    few documents, nothing timed
"""
import json
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for place in ("tests/cli", "tests/cluster", "scripts"):
    sys.path.insert(0, os.path.join(ROOT, place))
import demo_corpus  # noqa: E402
from harness import equal, expect, good, main, read, results, same_run, scratch, write  # noqa: E402
from launcher import command, journal_bytes, launch, ranks_of, result_of, skip_without_mpirun, strike, together  # noqa: E402

DEVICE = os.environ.get("DSA_GPU_TEST_DEVICE", "cuda")
QUICK = "--quick" in sys.argv
SMALL = QUICK or DEVICE == "cpu"
DEMO = os.path.join(ROOT, "calib_data", "demo")
# Batches for several ranks: a GPU would take all that the demo has in two.
EXACT = ["--search", "exact", "--no-refine", *(["--max-shared", 2, "--max-tokens", 1500, "--batch-tokens", 700] if SMALL else
                                               ["--full-trace", "--batch-tokens", 2048])]
RACING = ["--search", "racing", *(["--max-shared", 3, "--max-tokens", 3000] if SMALL else [])]
# Documents of each kind for a search that takes a while, and for one that only shows that they can be made.
TIMED = 4 if DEVICE == "cpu" else 256
_alone = {}


def corpora(directory=DEMO, extension="jsonl.zst"):
    return [word for name in ("legal", "rag") for word in ("--corpus", f"{name}={directory}/{name}.{extension}")]


def options(out, search, documents=None):
    words = ["calibrate", "--device", DEVICE, "--model", DEMO, "--holdout", "25%", "--host-memory", "1GiB", "--out", out]
    if DEVICE == "cpu":
        words += ["--threads", 1]
    return [*words, *(documents or corpora()), *search]


def alone(search, documents=None):
    """The run of one process, made once for each search."""
    key = json.dumps([search, documents])
    if key not in _alone:
        _alone[key] = os.path.join(scratch(), "run")
        good(*options(_alone[key], search, documents), timeout=300)
    return _alone[key]


def ranked(ranks, search, documents=None):
    out = os.path.join(scratch(), "run")
    result = together(ranks, *options(out, search, documents), timeout=300)
    equal(result.status, 0, f"exit of {result}")
    expect(f"{ranks} ranks, " in result.err, f"the ranks are not named: {result}")
    return out


def check_ranks(search):
    for ranks in (2, 3):
        same_run(ranked(ranks, search), alone(search), f"{ranks} ranks with {search}")
    work = results(alone(search))["work"]
    print(f"# {search[1]}: 1, 2 and 3 ranks give the same bytes; pattern {results(alone(search))['pattern']}, token-layers "
          f"{work['token_layers'] / work['token_layers_naive']:.3f} of naive", flush=True)


def test_ranks_of_a_racing_search_have_the_bits_of_one_process():
    check_ranks(RACING)


def test_ranks_of_an_exact_search_have_the_bits_of_one_process():
    check_ranks(EXACT)


# Which GPU is whose ------------------------------------------------------------------------------------------------

def ask_driver(*query):
    """Rows of what nvidia-smi answers, each a list of fields; none where there is no nvidia-smi."""
    try:
        done = subprocess.run(["nvidia-smi", *query, "--format=csv,noheader"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    return [[field.strip() for field in row.split(",")] for row in done.stdout.decode().splitlines() if row.strip()]


def address(text):
    """One spelling of an address on the bus: the driver gives domains 8 digits, the runtime 4."""
    return text.lower()[-len("0000:00:00.0"):]


def processes_by_gpu():
    """(process id, address of a GPU that it is on) as far as the driver tells: in a container it may see none."""
    rows = ask_driver("--query-compute-apps=pid,gpu_bus_id")
    return [(int(row[0]), address(row[1])) for row in rows if len(row) == 2 and row[0].isdigit()]


def count_gpus():
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len([word for word in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if word])
    return len(ask_driver("--query-gpu=pci.bus_id"))


def devices_in_log(out):
    """What each rank measures on, by what log.txt says."""
    found = re.findall(r" debug rank (\d+) on [^ ]+: (.*)", read(out, "log.txt").decode())
    return {int(rank): device for rank, device in found}


def watch(ranks, search):
    """A run, and while it goes on the GPUs on which the driver sees each rank: (run directory, {rank: addresses})."""
    out, seen = os.path.join(scratch(), "run"), {}
    line = command(ranks, options(out, search))
    process = launch(line)
    while process.poll() is None:
        rank_of = {pid: rank for rank, pid in ranks_of(process).items()}
        for pid, bus in processes_by_gpu():
            if pid in rank_of:
                seen.setdefault(rank_of[pid], set()).add(bus)
        time.sleep(0.05)
    result = result_of(process, line)
    equal(result.status, 0, f"exit of {result}")
    return out, seen


def check_places(ranks):
    out, seen = watch(ranks, EXACT)
    devices = devices_in_log(out)
    equal(sorted(devices), list(range(ranks)), f"ranks that log.txt names a device of, {devices}")
    if DEVICE == "cpu":
        expect(all(device.startswith("cpu: 1 thread") for device in devices.values()), f"not the CPU: {devices}")
        return
    gpus = count_gpus()
    expect(gpus > 0, "nvidia-smi lists no GPU")
    places = [address(devices[rank].rsplit(" at ", 1)[1]) for rank in range(ranks)]
    witnessed = ", ".join(f"rank {rank} on {' and '.join(sorted(seen[rank]))}" for rank in sorted(seen))
    print(f"# {ranks} ranks, {gpus} GPU{'s' * (gpus > 1)}: {', '.join(places)}; the driver saw {witnessed or 'none of them'}",
          flush=True)
    equal(len(set(places)), min(ranks, gpus), f"different GPUs among {places}")
    equal(places, [places[rank % gpus] for rank in range(ranks)], "GPUs, counted round")
    # Whom the driver sees is where the log says, and nowhere else.
    for rank, buses in seen.items():
        equal(buses, {places[rank]}, f"GPUs on which the driver saw rank {rank}")


def test_each_rank_has_its_own_gpu_or_shares_the_only_one():
    for ranks in sorted({2, 3, min(8, count_gpus())} - {0, 1}):
        check_places(ranks)


# Layers that come in from elsewhere ----------------------------------------------------------------------------------

def test_ranks_whose_layers_stream_have_the_bits_of_one_process():
    limit = [] if DEVICE == "cpu" else ["--gpu-memory", "4GiB"]
    for ranks, place in ((2, "host"), (3, "disk"), (2, "stored")):
        out = ranked(ranks, [*EXACT, "--residency", place, *limit])
        layers = re.findall(r"of the layers as they are stored (\d+) lie on the device, (\d+) in pinned host memory, (\d+) on disk",
                            read(out, "log.txt").decode())
        expect(layers, f"{place}: log.txt does not say where the layers lie")
        print(f"# {ranks} ranks, layers {place}: {' + '.join(layers[0])} on the device, in host memory, on disk", flush=True)
        expect(int(layers[0][("stored", "host", "disk").index(place)]) > 0, f"no layer lies where it should: {place}, {layers}")
        same_run(out, alone(EXACT), f"{ranks} ranks, layers {place}")


# A rank that dies ----------------------------------------------------------------------------------------------------

def kill_and_resume(ranks, then, share):
    """Kills rank 1 when that share of the journal is written and goes on with `then` ranks, 1: without a launcher."""
    out = os.path.join(scratch(), "run")
    words = [*options(out, EXACT), "--resume"]
    at_bytes = int(share * journal_bytes(alone(EXACT)))
    result, seconds = strike(words, out, ranks, 1, at_bytes, signal.SIGKILL)
    expect(result.status != 0, f"a run whose rank 1 was killed ends well: {result}")
    expect(seconds < 30, f"it took {seconds:.1f} s to end")
    kept = read(out, "journal")
    expect(not os.path.exists(os.path.join(out, "results.json")), "rank 1 was killed when all was done")
    ended = together(then, *words, timeout=300) if then > 1 else good(*words, timeout=300)
    equal(ended.status, 0, f"exit of {ended}")
    # A record that was cut short may be missing; what was there when rank 1 was killed may not.
    again = len(os.path.commonprefix([kept, read(out, "journal")]))
    print(f"# {ranks} ranks, rank 1 killed: ended {seconds:.1f} s later with status {result.status} and {len(kept)} bytes of "
          f"journal; {then} rank{'s' * (then > 1)} went on from {again} of them", flush=True)
    expect(again >= at_bytes, f"of {at_bytes} bytes of journal only {again} were used again")
    same_run(out, alone(EXACT), f"rank 1 of {ranks} killed, resumed with {then}")


def test_a_killed_rank_loses_nothing():
    for ranks, then, share in ((2, 1, 0.15), (2, 3, 0.5), (3, 2, 0.3)):
        kill_and_resume(ranks, then, share)


# Seconds -------------------------------------------------------------------------------------------------------------

def timed(ranks, search, documents):
    out = os.path.join(scratch(), "run")
    words = options(out, search, documents)
    began = time.time()
    ended = together(ranks, *words, timeout=300) if ranks > 1 else good(*words, timeout=300)
    seconds = time.time() - began
    equal(ended.status, 0, f"exit of {ended}")
    return out, seconds


def test_seconds_of_one_process_and_of_several_ranks():
    """An exact search of many documents; nothing is asserted of its seconds."""
    if QUICK:
        return
    directory = scratch()
    for name in ("legal", "rag"):
        lines = "".join(json.dumps(document) + "\n" for document in demo_corpus.documents(name, TIMED, 7))
        write(lines, directory, f"{name}.jsonl")
    documents = corpora(directory, "jsonl")
    search = ["--search", "exact", "--no-refine", *(["--max-shared", 2] if DEVICE == "cpu" else ["--full-trace"]),
              "--batch-tokens", 1024 if DEVICE == "cpu" else 8192]
    one, seconds = timed(1, search, documents)
    print(f"# {2 * TIMED} documents: one process {seconds:.1f} s, as the shell sees it", flush=True)
    for ranks in sorted({2, min(8, count_gpus())} - {0, 1}):
        out, others = timed(ranks, search, documents)
        print(f"# {2 * TIMED} documents: {ranks} ranks {others:.1f} s, {seconds / others:.2f} times as fast; "
              f"{count_gpus()} GPUs", flush=True)
        same_run(out, one, f"{ranks} ranks and {2 * TIMED} documents")


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word != "--quick"]
    skip_without_mpirun()
    main(globals())
