#!/usr/bin/env python3
"""What limits each kernel that takes a layer's time: Nsight Compute over `gpu_tests profile`, as one table.

    scripts/gpu_profile.py [--build DIR] [--logs DIR]

    --build DIR    the binaries of `make gpu-tests`, built here or elsewhere; build/release-static by default
    --logs DIR     the profiler's reports, which its GUI opens, and their figures as CSV; build/gpu-profile by default

Needs a Hopper GPU whose counters may be read, `ncu` on the PATH or beside the CUDA toolkit, and Python's standard library.
Clocks are left as they are (`--clock-control none`); caches are emptied before every pass. Exit status: 0 with a table,
1 where gpu_tests failed or what was profiled makes no table, 2 wrong usage, 3 where ncu is missing or refused.

Kernels are profiled one at a time, so of the experts, whose products run on four streams, there is one product alone
in the table, and all of them as one range of launches, which takes a run of the program per pass.
"""
import argparse
import csv
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACES = ["/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu"]  # besides the PATH
MARK = "add_bias"  # launched before each case, over as many rows as its number: tests/gpu/test_gpu_profile.c
ELAPSED, ACTIVE = ".avg.pct_of_peak_sustained_elapsed", ".avg.pct_of_peak_sustained_active"
# Of each figure the first that there is. Versions and chips differ in names; the last ones are those of the sections.
METRICS = {
    "time": ["gpu__time_duration.sum"],
    "tensor": ["sm__pipe_tensor_cycles_active" + ELAPSED, "sm__pipe_tensor_op_hmma_cycles_active" + ELAPSED,
               "sm__pipe_tensor_subpipe_hmma_cycles_active" + ELAPSED, "sm__pipe_tensor_cycles_active" + ACTIVE,
               "sm__pipe_tensor_op_hmma_cycles_active" + ACTIVE],
    "SM": ["sm__throughput" + ELAPSED],
    "DRAM": ["dram__throughput" + ELAPSED, "gpu__dram_throughput" + ELAPSED],
    "L2": ["lts__throughput" + ELAPSED],
    "occupancy": ["sm__warps_active" + ACTIVE],
}
# Where dram__throughput is not to be had: both directions share the bus.
DRAM_HALVES = ["dram__bytes_read.sum.pct_of_peak_sustained_elapsed", "dram__bytes_write.sum.pct_of_peak_sustained_elapsed"]
SECTIONS = ["SpeedOfLight", "ComputeWorkloadAnalysis", "Occupancy"]  # hold all of it, in more passes
STALLS = "WarpStateStats"
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
MILLISECONDS = {"ns": 1e-6, "nsecond": 1e-6, "us": 1e-3, "usecond": 1e-3, "ms": 1, "msecond": 1, "s": 1e3, "second": 1e3}
BUSY = 60  # percent of its peak from which a unit is what limits
RULE = f"""limit: the busiest of tensor cores, DRAM and L2 where it reaches {BUSY}% of its peak; else "SM" where the
busiest pipe or port of the SMs does; else "latency": nothing is busy, so launches, waits or too few blocks are what is
paid for. Percentages are of peaks at the clocks of the run, over the whole launch; occupancy of the warps that an SM
holds. "waits for": what warps, those that wait by design among them, stood still for longest."""


class Refused(Exception):
    """The profiler cannot do it here."""


class Failed(Exception):
    pass


def number(text):
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None  # "n/a", "nan" or nothing


def read_rows(lines):
    """The raw page: names, units, then a launch a row, in order. Whatever ncu says before it is skipped."""
    rows = list(csv.reader(line for line in lines if line.startswith('"')))
    if len(rows) < 2 or "Kernel Name" not in rows[0]:
        raise Failed("ncu printed no table of launches")
    names, units = rows[0], dict(zip(rows[0], rows[1]))
    return [dict(zip(names, row)) for row in rows[2:] if len(row) == len(names)], units


def short(kernel):
    """attend of `void attention_512::attend<2>(attention_job)`; a library's name as it is."""
    kernel = re.sub(r"\(anonymous namespace\)::|<unnamed>::|unnamed>::", "", kernel)
    words = re.split(r"[<(]", kernel, maxsplit=1)[0].split()
    return words[-1].split("::")[-1] if words else kernel


def first(row, names):
    return next((value for value in (number(row.get(name, "")) for name in names) if value is not None), None)


def measure(row, units):
    """The figures of one launch: milliseconds, percentages, and by reason how many warps wait as one issues."""
    found = {what: first(row, names) for what, names in METRICS.items()}
    if found["time"] is not None:
        found["time"] *= MILLISECONDS.get(units[METRICS["time"][0]], 1e-6)
    if found["DRAM"] is None:
        halves = [number(row.get(name, "")) for name in DRAM_HALVES]
        found["DRAM"] = None if None in halves else sum(halves)
    stalls = {match[1]: number(row[name]) for name in row if (match := STALL.fullmatch(name))}
    found["stalls"] = {why: value for why, value in stalls.items() if value is not None and why != "selected"}
    return found


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def gather(rows, units):
    """[(case, kernel, launches, figures)] in order; launches of one kernel in a case are one entry, their means."""
    entries, case = {}, None
    for row in rows:
        kernel = short(row["Kernel Name"])
        if kernel == MARK:
            case = int(re.findall(r"\d+", row["Grid Size"])[0])
        elif case is None:
            raise Failed(f"{kernel} was launched before any mark")
        else:
            entries.setdefault((case, kernel), []).append(measure(row, units))
    result = []
    for (case, kernel), launches in entries.items():
        figures = {what: mean(launch[what] for launch in launches) for what in METRICS}
        reasons = {why for launch in launches for why in launch["stalls"]}
        figures["stalls"] = {why: mean(launch["stalls"].get(why) for launch in launches) for why in reasons}
        result.append((case, kernel, len(launches), figures))
    return result


def limit(figures):
    units = {"tensor": figures["tensor"], "DRAM": figures["DRAM"], "L2": figures["L2"]}
    if None in units.values():
        return "?"
    busiest = max(units, key=units.get)
    if units[busiest] >= BUSY:
        return busiest
    return "SM" if (figures["SM"] or 0) >= BUSY else "latency"


def longest_stall(stalls):
    return max(sorted(stalls), key=stalls.get).replace("_", " ") if stalls else "-"


def cells(name, kernel, launches, figures):
    def percent(value):
        return "-" if value is None else f"{value:.0f}%"
    time_taken = "-" if figures["time"] is None else f"{figures['time']:.3f}"
    return [name, kernel if len(kernel) <= 32 else kernel[:31] + "…", str(launches), time_taken,
            *(percent(figures[what]) for what in ("tensor", "SM", "DRAM", "L2", "occupancy")),
            longest_stall(figures["stalls"]), limit(figures)]


def table(entries, names):
    """Markdown, padded so that a terminal shows it too."""
    head = ["what", "kernel", "launches", "ms", "tensor", "SM", "DRAM", "L2", "occupancy", "waits for", "limit"]
    lines = [head] + [cells(names.get(case, f"case {case}"), *rest) for case, *rest in entries]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def find_ncu():
    found = [shutil.which("ncu"), *(path for place in PLACES for path in sorted(glob.glob(place), reverse=True))]
    ncu = next((path for path in found if path), None)
    if not ncu:
        raise Refused(f"ncu (Nsight Compute) is neither on the PATH nor one of {', '.join(PLACES)}")
    return ncu


def call(*command, env=None, log=None, timeout=240):
    """What a command prints. Its session ends with it, so that nothing profiled outlives a profiler that hangs."""
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                          errors="replace", start_new_session=True) as process:
        try:
            output, late = process.communicate(timeout=timeout)[0], False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, late = process.communicate()[0], True
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if log:
        with open(log, "w", encoding="utf-8") as file:
            file.write(output)
    if late:
        raise Failed(f"{command[0]} took longer than {timeout} s; it said: {output[-300:]}")
    return output


def known_metrics(ncu):
    """Names without their suffixes; empty where they cannot be had."""
    try:
        listed = call(ncu, "--query-metrics", timeout=60)
    except Failed:
        return set()
    return set(re.findall(r"^([a-z0-9]+__\w+)", listed, re.MULTILINE))


def wanted(known):
    """Arguments that ask for the figures: by name where every figure has one that ncu knows, else whole sections."""
    chosen = {what: [name for name in names if name.split(".")[0] in known][:1] for what, names in METRICS.items()}
    chosen["DRAM"] += [half for half in DRAM_HALVES if half.split(".")[0] in known]
    if not all(chosen.values()):
        return by_section()
    return ["--metrics", ",".join(name for names in chosen.values() for name in names)]


def by_section():
    return [argument for section in SECTIONS for argument in ("--section", section)]


def complaints(output):
    """What ncu itself reports, less that the program ended badly."""
    lines = re.findall(r"^==ERROR== (.*)$", output, re.MULTILINE)
    return " ".join(line for line in lines if "returned an error code" not in line)


def profile(ncu, build, logs, group, asked, *options):
    """Runs a group of gpu_tests under ncu; the rows of its report, their units, the names of cases."""
    report = os.path.join(logs, group)
    env = {**os.environ, "DSA_GPU_TEST_SEED": os.environ.get("DSA_GPU_TEST_SEED", "1")}  # every pass the same numbers
    for arguments in (asked, by_section()):
        if os.path.exists(report + ".ncu-rep"):
            os.remove(report + ".ncu-rep")
        output = call(ncu, "--clock-control", "none", "--apply-rules", "no", *options, *arguments, "--force-overwrite",
                      "--export", report, os.path.join(build, "gpu_tests"), group, env=env, log=report + ".log")
        if "Failed to find metric" not in output:
            break
    errors, names = complaints(output), re.findall(r"^# profile (\d+): (.+)$", output, re.MULTILINE)
    rows = units = None
    if os.path.exists(report + ".ncu-rep"):
        page = call(ncu, "--import", report + ".ncu-rep", "--csv", "--page", "raw", "--print-units", "base",
                    log=report + ".csv")
        rows, units = read_rows(page.splitlines())
    if errors and not rows:
        raise Refused(f"{errors} (all of it: {report}.log)")
    if not rows or re.search(r"^not ok ", output, re.MULTILINE):
        said = [line[2:] for line in output.splitlines() if re.match(r"# (?!profile |DSA_)", line)]
        raise Failed(f"gpu_tests {group}: {said[-1] if said else output[-300:]} (all of it: {report}.log)")
    if errors:
        print(f"ncu says: {errors}", flush=True)
    return rows, units, {int(case): name for case, name in names}


def profile_kernels(ncu, build, logs, asked):
    rows, units, names = profile(ncu, build, logs, "profile", asked, "--profile-from-start", "off", "--section", STALLS)
    return gather(rows, units), names


def profile_experts(ncu, build, logs, asked):
    """The n-th range is the n-th case."""
    rows, units, names = profile(ncu, build, logs, "profile-experts", asked, "--replay-mode", "app-range")
    return [(n, "all launches", 1, measure(row, units)) for n, row in enumerate(rows, 1)], names


def run(build, logs):
    program = os.path.join(build, "gpu_tests")
    if not os.access(program, os.X_OK):
        print(f"gpu_profile.py: {program} is missing: run make gpu-tests where nvcc is", file=sys.stderr)
        return 2
    begun = time.time()
    os.makedirs(logs, exist_ok=True)
    ncu = find_ncu()
    print("\n".join(re.findall(r"^Version .*", call(ncu, "--version"), re.MULTILINE)) or ncu, flush=True)
    asked = wanted(known_metrics(ncu))
    print("figures: " + " ".join(asked), flush=True)
    entries, names = profile_kernels(ncu, build, logs, asked)
    print(table(entries, names), flush=True)
    missing = [name for case, name in names.items() if case not in {entry[0] for entry in entries}]
    if not entries or missing:
        raise Failed(f"no launch was seen of: {'; '.join(missing) or 'anything'}")
    try:
        print("\n" + table(*profile_experts(ncu, build, logs, asked)), flush=True)
    except (Refused, Failed) as reason:
        print(f"\nall experts together: not measured: {reason}")
    print(f"\n{RULE}\n{time.time() - begun:.0f} s; reports in {logs}")
    return 0


def main():
    parser = argparse.ArgumentParser(prog="gpu_profile.py", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release-static"))
    parser.add_argument("--logs", default=os.path.join(ROOT, "build", "gpu-profile"))
    options = parser.parse_args()
    try:
        return run(os.path.abspath(options.build), os.path.abspath(options.logs))
    except Refused as reason:
        print(f"gpu_profile.py: no profile: {reason}", file=sys.stderr)
        return 3
    except Failed as reason:
        print(f"gpu_profile.py: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
