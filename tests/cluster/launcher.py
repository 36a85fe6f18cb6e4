"""What tests of several processes share: starting the program under mpirun ($MPIRUN, or the one in PATH), and finding and
striking one of its ranks."""
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from harness import DSACAL, Result, environment, expect, read, sanitizers

PROGRAM = shutil.which(os.environ.get("MPIRUN") or "mpirun")
MPIRUN = [PROGRAM, "--oversubscribe", "--bind-to", "none", *(["--allow-run-as-root"] if os.getuid() == 0 else [])]


def skip_without_mpirun():
    if not PROGRAM:
        print("skipped: there is no mpirun (openmpi-bin)")
        sys.exit(0)


def command(ranks, words, program=DSACAL):
    return [*MPIRUN, "-n", str(ranks), program, *map(str, words)]


def launch(words):
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())


def result_of(process, words, timeout=120):
    out, err = process.communicate(timeout=timeout)
    result = Result(words, process.returncode, out.decode(), err.decode("utf-8", "replace"))
    sanitizers(result)
    return result


def together(ranks, *words, timeout=120):
    line = command(ranks, words)
    return result_of(launch(line), line, timeout)


def ranks_of(process):
    """Process ids by rank, of those that have started the program."""
    found = {}
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or f"\nPPid:\t{process.pid}\n".encode() not in read("/proc", name, "status"):
                continue
            if os.path.realpath(f"/proc/{name}/exe") != os.path.realpath(DSACAL):
                continue
            for setting in read("/proc", name, "environ").split(b"\0"):
                if setting.startswith(b"OMPI_COMM_WORLD_RANK="):
                    found[int(setting.split(b"=")[1])] = int(name)
        except OSError:
            continue
    return found


def journal_bytes(out):
    try:
        return os.path.getsize(os.path.join(out, "journal"))
    except OSError:
        return 0


def strike(words, out, ranks, victim, at_bytes, number):
    """Sends a signal to one rank once the journal in `out` is that long; (result, seconds until the run had ended)."""
    line = command(ranks, words)
    process = launch(line)
    began = time.time()
    while journal_bytes(out) < at_bytes and process.poll() is None:
        time.sleep(0.001)
        expect(time.time() - began < 100, f"the journal of {line} does not grow")
    pids = ranks_of(process)
    expect(victim in pids, f"rank {victim} is not there any more: the run is too short")
    struck = time.time()
    os.kill(pids[victim], number)
    result = result_of(process, line)
    return result, time.time() - struck
