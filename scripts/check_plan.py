#!/usr/bin/env python3
"""Holds what --dry-run and `inspect --plan` say against runs: seconds, memory of the device and of the host.

    scripts/check_plan.py [--device cuda|cpu] [--quick] [--verbose] [--scratch DIR]

    --device       cuda by default: models of published layer widths made by scripts/random_model.py, which needs torch and
                   safetensors, under several --gpu-memory and --residency. cpu: the shipped demo and the tests' models
    --quick        of these the demo and one other
    --verbose      what memory of the host was made of at its peak, and where the time went
    --scratch DIR  where models and runs are made, and left; a temporary directory that goes otherwise

Needs Python's standard library and, for cuda, nvidia-smi. $DSACAL is the program, else build/release-static/dsacal, else
build/release/dsacal. Prints a line per case and `N passed, N failed`; exit status 0 if nothing failed, 2 wrong usage, 3
where something that is needed is missing.

What is compared, planned over taken:
  seconds  --dry-run's expected ones with those of the same command, from start to exit: 0.7 to 1.3. On the CPU
           they are processor seconds, the plan's by the share of them that the planning itself had, so that other work on
           the machine disturbs little. Compressing states is in no plan: there seconds are shown and do not count
  device   the plan's with the most that the GPU was used beyond what was in use before, asked of nvidia-smi every 50 ms:
           within 5%, or 128 MiB, as the driver hands out small blocks of 2 MiB. The CUDA context, the kernels' code and the
           libraries' own are no part of a plan; what they take is measured first, on a run of a few tokens of the demo, and
           counted with every plan
  host     the plan's with the most of RssAnon, RssShmem and what is resident of mapped files but the checkpoint's, whose
           pages the system takes back when it likes: within 5%, or 2 MiB. Pages that a driver locks and maps from
           /dev/nvidia* are such a file. What the driver takes later than the plan looks is measured on the same small run
  search   the seconds of `inspect --plan` on one GPU for its first step or all steps, with those between "search begins"
           and "search ends" of a run of the same documents: 0.7 to 1.3
Plans say what is taken at most: where a race may leave candidates early, less than planned is no fault.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEMO = os.path.join(ROOT, "calib_data", "demo")
TINY = os.path.join(ROOT, "tests", "golden", "tiny", "glm-all-full")
MIB, GIB = 1 << 20, 1 << 30
SECONDS, MEMORY, HOST_FLOOR, DEVICE_FLOOR = 0.3, 0.05, 2 * MIB, 128 * MIB
STATUS_PERIOD, MAPS_PERIOD, GPU_PERIOD_MS, SMALL_RUNS = 0.02, 0.25, 50, 8


class Missing(Exception):
    """What this needs and this machine has not."""


def program():
    places = [os.environ.get("DSACAL"), os.path.join(ROOT, "build", "release-static", "dsacal"),
              os.path.join(ROOT, "build", "release", "dsacal")]
    for place in places:
        if place and os.access(place, os.X_OK):
            return os.path.abspath(place)
    raise Missing("no dsacal: run make, or set DSACAL")


class Gpu:
    """nvidia-smi, asked all the time: bytes in use on the first GPU."""

    def __init__(self):
        words = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--loop-ms={GPU_PERIOD_MS}"]
        try:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Missing(f"nvidia-smi: {error}") from error
        self.now, self.most = None, 0
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        for _ in range(100):
            if self.now is not None:
                return
            time.sleep(0.1)
        raise Missing("nvidia-smi says nothing of the memory in use")

    def listen(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.now = int(line) * MIB
                self.most = max(self.most, self.now)

    def settle(self):
        """Bytes in use once the last process has gone."""
        last, since = self.now, time.monotonic()
        while time.monotonic() - since < 0.3:
            time.sleep(0.05)
            if self.now != last:
                last, since = self.now, time.monotonic()
        self.most = self.now
        return self.now

    def close(self):
        self.process.terminate()
        self.process.wait()


class Host(threading.Thread):
    """Memory of a process on the host, looked at until it ends."""

    def __init__(self, pid, checkpoint):
        super().__init__(daemon=True)
        self.pid, self.checkpoint = pid, os.path.realpath(checkpoint)
        self.most, self.made_of, self.files = 0, {}, {}
        self.start()

    def run(self):
        due = 0.0
        try:
            while True:
                if time.monotonic() >= due:
                    begun = time.monotonic()
                    self.files = self.mapped()
                    # Reading it holds the process up: a tenth of the time at most.
                    due = time.monotonic() + max(MAPS_PERIOD, 9 * (time.monotonic() - begun))
                with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
                    found = {k: int(v) * 1024 for k, v in re.findall(r"^(Rss\w+):\s+(\d+) kB", file.read(), re.M)}
                if not found:
                    return
                parts = {"anonymous": found["RssAnon"], "shared": found["RssShmem"], **self.files}
                total = sum(parts.values())
                if total > self.most:
                    self.most, self.made_of = total, parts
                time.sleep(STATUS_PERIOD)
        except OSError:
            return

    def mapped(self):
        """Resident bytes of mapped files but the checkpoint's: of devices, and others. Pages of a private mapping that
        were written to are anonymous, and those of memory files shared: they are in the status."""
        sizes = {"devices": 0, "files": 0}
        with open(f"/proc/{self.pid}/smaps", encoding="utf-8", errors="replace") as file:
            name, rss = "", 0
            for line in [*file, "0-0 end"]:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    words = line.split(None, 5)
                    name = words[5].strip() if len(words) > 5 else ""
                elif line.startswith("Rss:"):
                    rss = int(line.split()[1]) * 1024
                elif line.startswith("Anonymous:") and name.startswith("/"):
                    size = rss - int(line.split()[1]) * 1024
                    if name.startswith(("/dev/zero", "/dev/shm", "/memfd:", "/SYSV")) or self.is_checkpoint(name):
                        continue
                    sizes["devices" if name.startswith("/dev/") else "files"] += size
        return sizes

    def is_checkpoint(self, name):
        return name.startswith(self.checkpoint + os.sep)


class Run:
    """A command, watched."""

    def __init__(self, bench, words, checkpoint):
        gpu = bench.gpu
        before = gpu.settle() if gpu else 0
        begun = time.monotonic()
        process = subprocess.Popen([bench.dsacal, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        host, lines = Host(process.pid, checkpoint), []
        reader = threading.Thread(target=lambda: lines.extend((time.monotonic() - begun, line) for line in process.stderr), daemon=True)
        reader.start()
        self.out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.status = process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = time.monotonic() - begun
        self.processor = usage.ru_utime + usage.ru_stime
        reader.join()
        host.join()
        self.said = lines
        self.host, self.made_of = host.most, host.made_of
        self.device = gpu.most - before if gpu else None
        if self.status:
            raise RuntimeError(f"dsacal {' '.join(map(str, words))}: exit {self.status}\n{''.join(l for _, l in lines)[-2000:]}")

    def at(self, text):
        return next((when for when, line in self.said if text in line), None)


class Bench:
    def __init__(self, args):
        self.args, self.dsacal = args, program()
        self.gpu = Gpu() if args.device == "cuda" else None
        self.passed = self.failed = self.runs = 0
        self.context = self.driver = 0

    def note(self, text):
        print(text, flush=True)

    def judge(self, good, text):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        return text + ("" if good else " FAILED")

    def seconds(self, planned, taken, counts=True):
        text = f"{planned:7.1f} {taken:7.1f} {planned / taken:5.2f}"
        return self.judge(abs(planned / taken - 1) <= SECONDS, text) if counts else text

    def memory(self, planned, taken, floor, at_most):
        near = abs(planned - taken) <= max(MEMORY * taken, floor)
        return self.judge(near or (at_most and planned > taken), f"{planned / MIB:9.1f} {taken / MIB:9.1f} {planned / taken:5.2f}")

    def measure_driver(self):
        """What a context takes of both sides that no plan speaks of."""
        document = os.path.join(self.args.scratch, "few.jsonl")
        with open(document, "w", encoding="utf-8") as file:
            file.write(json.dumps({"input_ids": [t % 500 for t in range(200)]}) + "\n")
        words = ["evaluate", "--model", DEMO, "--corpus", document, "--pattern", "FS" * 8, "--device", self.args.device, "--json"]
        plan = json.loads(Run(self, [*words, "--dry-run"], DEMO).out)["memory"]
        # So short a run may end between two looks at its mappings: the most of several.
        run = max((Run(self, words, DEMO) for _ in range(SMALL_RUNS)), key=lambda run: run.host)
        self.context = run.device - plan["device"]
        self.driver = max(0, run.host - plan["host"])
        self.note(f"A context takes {self.context / MIB:.0f} MiB of the device. On the host a small run takes {run.host / MIB:.0f} MiB, "
                  f"{plan['host'] / MIB:.0f} planned: {self.driver / MIB:.0f} are the driver's. Both are counted with the plans below.")

    def out(self):
        self.runs += 1
        return os.path.join(self.args.scratch, f"run-{self.runs}")

    def case(self, name, model, corpus, *words, command="calibrate", at_most=False, timed=True, inspect=None):
        words = [command, "--model", model, "--corpus", corpus, "--device", self.args.device, *words]
        try:
            planning = Run(self, [*words, "--dry-run", "--json"], model)
            plan = json.loads(planning.out)
            out = self.out()
            run = Run(self, [*words, *(["--out", out] if command == "calibrate" else []), "--verbose", "--no-progress"], model)
        except RuntimeError as error:
            self.note(self.judge(False, f"{name:<34}") + f"\n{error}")
            return
        planned, taken = plan["seconds"]["expected"], run.seconds
        if not self.gpu:
            planned, taken = planned * planning.processor / planning.seconds, run.processor
        line = f"{name:<34} {self.seconds(planned, taken, timed)}"
        if self.gpu:
            line += "  " + self.memory(plan["memory"]["device"] + self.context, run.device, DEVICE_FLOOR, at_most)
        host = max(plan["memory"]["host_opening"], plan["memory"]["host_running"] + self.driver)
        line += "  " + self.memory(host, run.host, HOST_FLOOR, at_most)
        self.note(line)
        if self.args.verbose:
            parts = ", ".join(f"{k} {v / MIB:.1f}" for k, v in run.made_of.items())
            self.note(f"    host at its peak: {parts} MiB; planned: program {plan['memory']['program'] / MIB:.1f}; planning took "
                      f"{planning.seconds:.1f} s, {plan['seconds']['start']:.1f} of it the start")
            self.note("    " + json.dumps(plan["memory"]))
            self.note("    " + json.dumps(plan["seconds"]))
            self.note("".join(f"    {when:8.2f} {text}" for when, text in run.said if re.search(
                r"device memory|search|noise|budget|layers lie|states:|visits", text)).rstrip("\n"))
        if inspect and self.gpu:
            try:
                self.search(model, run, plan, *inspect)
            except RuntimeError as error:
                self.note(self.judge(False, "  inspect --plan") + f"\n{error}")
        shutil.rmtree(out, ignore_errors=True)

    def search(self, model, run, plan, which, *words):
        documents = sum(c["documents_calibration"] for c in plan["corpora"])
        tokens = sum(c["tokens"] for c in plan["corpora"])
        found = json.loads(Run(self, ["inspect", model, "--plan", "--json", "--context", tokens // documents, "--max-tokens", tokens, *words], model).out)
        cost = found["streaming"]["machines"][0]
        planned = cost[which]["seconds"] - (cost["reference"]["seconds"] if which == "all_steps" else 0)
        text = f"  inspect --plan, {which.replace('_', ' ')}"
        self.note(f"{text:<34} {self.seconds(planned, run.at('search ends') - run.at('search begins'))}  residency {cost['residency']}, "
                  f"{cost['wave']} together, {cost[which]['bound_by']} binds")


def ids(path, count, shortest, longest, vocabulary):
    """Documents of ids that a small generator makes, so that they are the same anywhere."""
    state = 1
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            state = (state * 1103515245 + 12345) % (1 << 31)
            length, numbers = shortest + (state >> 8) % (longest - shortest + 1), []
            for _ in range(length):
                state = (state * 1103515245 + 12345) % (1 << 31)
                numbers.append((state >> 8) % vocabulary)
            file.write(json.dumps({"input_ids": numbers}) + "\n")
    return path


def random_model(bench, name, *words):
    folder = os.path.join(bench.args.scratch, name)
    if not os.path.exists(os.path.join(folder, "documents.jsonl")):
        begun = time.monotonic()
        made = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "random_model.py"), "--out", folder, *map(str, words)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if made.returncode:
            raise Missing(f"scripts/random_model.py: {made.stderr[-500:]}")
        bench.note(f"# {name}: random_model.py {' '.join(map(str, words))}: {time.monotonic() - begun:.0f} s")
    return folder, os.path.join(folder, "documents.jsonl")


def on_gpu(bench):
    bench.measure_driver()
    table(bench)
    legal = f"legal={DEMO}/legal.jsonl.zst"
    exact = ("--search", "exact", "--no-refine")
    bench.case("demo, raced", DEMO, legal, "--search", "racing", "--no-refine", "--host-memory", "1GiB", at_most=True)
    model, corpus = random_model(bench, "glm5", "--shape", "glm5", "--layers", 6, "--experts", 16, "--fp8", "--documents", 3,
                                 "--tokens", 32768)
    bench.case("glm5, resident, full trace", model, corpus, *exact, "--full-trace", inspect=("all_steps", "--host-memory", "64GiB"))
    if bench.args.quick:
        return
    bench.case("glm5, as stored", model, corpus, *exact, "--max-shared", 1, "--residency", "stored", "--host-memory", "64GiB",
               inspect=("first_step", "--residency", "stored", "--host-memory", "64GiB"))
    bench.case("glm5, 24 GiB, from host memory", model, corpus, *exact, "--max-shared", 1, "--residency", "host", "--gpu-memory",
               "24GiB", "--host-memory", "48GiB",
               inspect=("first_step", "--gpu-memory", "24GiB", "--host-memory", "48GiB", "--residency", "host"))
    bench.case("glm5, 12 GiB, little host memory", model, corpus, *exact, "--max-shared", 2, "--gpu-memory", "12GiB", "--host-memory",
               "12GiB")
    bench.case("glm5, from disk", model, corpus, *exact, "--max-shared", 1, "--residency", "disk", "--host-memory", "32GiB",
               "--max-tokens", 32768)
    # Many documents, each a batch: while a layer is there it serves sixteen of them.
    model, corpus = random_model(bench, "glm5-many", "--shape", "glm5", "--layers", 6, "--experts", 16, "--fp8", "--documents", 64,
                                 "--tokens", 4096)
    bench.case("glm5, evaluate, from host memory", model, corpus, "--pattern", "FSFSSS", "--residency", "host", "--gpu-memory", "12GiB",
               "--host-memory", "48GiB", "--batch-tokens", 4096, command="evaluate", at_most=True)
    bench.case("glm5, evaluate, from disk", model, corpus, "--pattern", "FSFSSS", "--residency", "disk", "--batch-tokens", 4096,
               command="evaluate", at_most=True)
    # Of four layers the uniform baselines are most of the patterns that a search asks for, and measured before it.
    model, corpus = random_model(bench, "dsv32", "--shape", "dsv32", "--layers", 6, "--experts", 8, "--documents", 1, "--tokens", 65536)
    bench.case("dsv32, resident, full trace", model, corpus, *exact, "--full-trace", inspect=("all_steps", "--host-memory", "64GiB"))


def on_cpu(bench):
    table(bench)
    legal = f"legal={DEMO}/legal.jsonl.zst"
    exact = ("--search", "exact", "--no-refine")
    many = ids(os.path.join(bench.args.scratch, "many.jsonl"), 200, 350, 450, 101)
    tiny = (*exact, "--max-shared", 1, "--batch-tokens", 1000, "--threads", 1)
    bench.case("tiny, states on disk", TINY, many, *tiny, "--host-memory", "48MiB", "--spill", "256MiB")
    bench.case("demo, two steps", DEMO, legal, *exact, "--max-tokens", 4000, "--max-shared", 2, "--host-memory", "1GiB")
    if bench.args.quick:
        return
    bench.case("tiny, all states in memory", TINY, many, *tiny, "--host-memory", "1GiB", "--holdout", "0%")
    bench.case("tiny, compressed states on disk", TINY, many, *tiny, "--host-memory", "48MiB", "--spill", "256MiB", "--spill-zstd",
               timed=False)
    bench.case("demo, full trace", DEMO, legal, *exact, "--max-tokens", 2000, "--full-trace", "--host-memory", "1GiB")
    bench.case("demo, as stored", DEMO, legal, *exact, "--max-tokens", 2000, "--max-shared", 1, "--residency", "stored", "--host-memory", "1GiB")
    bench.case("demo, from disk", DEMO, legal, *exact, "--max-tokens", 2000, "--max-shared", 1, "--residency", "disk", "--host-memory", "256MiB")
    bench.case("demo, raced", DEMO, legal, "--search", "racing", "--no-refine", "--max-tokens", 4000, "--max-shared", 4, "--host-memory", "1GiB", at_most=True)
    bench.case("demo, evaluate, from disk", DEMO, legal, "--pattern", "FS" * 8, "--max-tokens", 8000, "--residency", "disk", "--batch-tokens",
               512, "--host-memory", "256MiB", command="evaluate")


def table(bench):
    device = "  device: MiB planned, most" if bench.gpu else ""
    bench.note(f"{'case':<34} seconds planned, taken{device:<26}  host: MiB planned, most")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--scratch")
    args = parser.parse_args()
    given = args.scratch
    args.scratch = given or tempfile.mkdtemp(prefix="dsacal-plan-")
    os.makedirs(args.scratch, exist_ok=True)
    bench = None
    try:
        bench = Bench(args)
        (on_gpu if args.device == "cuda" else on_cpu)(bench)
    except Missing as missing:
        print(f"check_plan.py: {missing}", file=sys.stderr)
        return 3
    finally:
        if bench and bench.gpu:
            bench.gpu.close()
        if not given:
            shutil.rmtree(args.scratch, ignore_errors=True)
    print(f"{bench.passed} passed, {bench.failed} failed")
    return bench.failed > 0


sys.exit(main())
