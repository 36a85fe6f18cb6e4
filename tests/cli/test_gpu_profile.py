#!/usr/bin/env python3
"""scripts/gpu_profile.py without a GPU: its table from ncu's raw page as ncu prints it, and every way it may go wrong.

A program called ncu stands in for Nsight Compute; it runs what it is given, and prints the page below. Two cases: one
of index scores and top K, one that launches the same kernel twice; one range for all experts."""
import os
import stat
import subprocess
import sys

from harness import ROOT, equal, expect, main, scratch, write

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import gpu_profile  # noqa: E402  pylint: disable=wrong-import-position

ELAPSED = ".avg.pct_of_peak_sustained_elapsed"
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
FIXED = ["ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size",
         "Device", "CC"]
NAMES = FIXED + ["dram__throughput" + ELAPSED, "gpu__time_duration.sum", "lts__throughput" + ELAPSED,
                 "sm__pipe_tensor_cycles_active" + ELAPSED, "sm__throughput" + ELAPSED,
                 "sm__warps_active.avg.pct_of_peak_sustained_active", STALL.format("barrier"),
                 STALL.format("long_scoreboard"), STALL.format("selected")]
UNITS = [""] * len(FIXED) + ["%", "ns", "%", "%", "%", "%", "inst", "inst", "inst"]
SCORES = "void <unnamed>::fast_scores<64, 1>(CUtensorMap, CUtensorMap, <unnamed>::fast_args)"
TOPK = "void (anonymous namespace)::select_rows<(int)256, (int)16>(int *, int, const float *, long, bool)"
PRODUCT = "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT"
LAUNCHES = [  # kernel, grid, DRAM, ns, L2, tensor, SM, occupancy, barrier, long scoreboard, selected
    ("void add_bias<float>(T1 *, long, int, const float *)", 1, 1, "2,080", 1, 0, 1, 1, 0, 5, 1),
    (SCORES, 132, 20, "1,700,000", 30, 80, 82, 18.5, 3.5, 1.25, 9),
    (TOPK, 2048, 55.5, "370,000", 41, 0, 48.2, 45, "2.5", "n/a", 9),
    ("void add_bias<float>(T1 *, long, int, const float *)", 2, 1, "2,080", 1, 0, 1, 1, 0, 5, 1),
    (PRODUCT, 132, 70, "1,000,000", 50, 50, 52, 12, 2, 1, 9),
    (PRODUCT, 132, 80, "3,000,000", 60, 60, 62, 14, 1, 4, 9),
]
RANGE = [("range", 1, 71.4, "8,600,000", 40, 33, 35, 20, 0, 0, 0)]


def line(cells):
    return ",".join('"' + str(cell).replace('"', '""') + '"' for cell in cells)


def page(launches, names=None):
    rows = [line(names or NAMES), line(UNITS)]
    for i, (kernel, grid, *figures) in enumerate(launches):
        rows.append(line([i, 4711, "gpu_tests", "127.0.0.1", kernel, 1, 7, "(128, 1, 1)", f"({grid}, 1, 1)", 0, "9.0",
                          *figures]))
    return "\n".join(["==PROF== Disconnected from process 4711", *rows]) + "\n"


def test_figures_are_read_and_launches_of_a_case_averaged():
    entries = gpu_profile.gather(*gpu_profile.read_rows(page(LAUNCHES).splitlines()))
    equal([entry[:3] for entry in entries], [(1, "fast_scores", 1), (1, "select_rows", 1), (2, PRODUCT, 2)])
    scores, topk, product = (entry[3] for entry in entries)
    equal(scores, {"time": 1.7, "tensor": 80, "SM": 82, "DRAM": 20, "L2": 30, "occupancy": 18.5,
                   "stalls": {"barrier": 3.5, "long_scoreboard": 1.25}}, "index scores")
    equal(topk["stalls"], {"barrier": 2.5}, "stalls of top K")
    equal((product["time"], product["DRAM"]), (2.0, 75), "means")
    equal(gpu_profile.longest_stall(product["stalls"]), "long scoreboard")


def test_limits_follow_the_rule():
    def limit(tensor, dram, l2, sm):
        return gpu_profile.limit({"tensor": tensor, "DRAM": dram, "L2": l2, "SM": sm})
    equal(limit(80, 20, 30, 82), "tensor")
    equal(limit(59, 75, 50, 62), "DRAM")
    equal(limit(0, 40, 60, 90), "L2")
    equal(limit(59, 59, 59, 61), "SM")
    equal(limit(32, 40, 30, 59), "latency")
    equal(limit(None, 40, 30, 59), "?")


def test_names_that_ncu_knows_are_asked_for_and_sections_where_one_is_missing():
    known = {"gpu__time_duration", "sm__pipe_tensor_op_hmma_cycles_active", "sm__throughput", "dram__bytes_read",
             "dram__bytes_write", "lts__throughput", "sm__warps_active"}
    asked = gpu_profile.wanted(known)
    equal(asked[0], "--metrics")
    equal(asked[1].split(","), ["gpu__time_duration.sum", "sm__pipe_tensor_op_hmma_cycles_active" + ELAPSED,
                                "sm__throughput" + ELAPSED, *gpu_profile.DRAM_HALVES, "lts__throughput" + ELAPSED,
                                "sm__warps_active.avg.pct_of_peak_sustained_active"])
    equal(gpu_profile.wanted(known - {"lts__throughput"})[:2], ["--section", "SpeedOfLight"])
    equal(gpu_profile.wanted(set())[:2], ["--section", "SpeedOfLight"])


def test_dram_is_the_sum_of_both_directions_where_it_has_no_name_of_its_own():
    names = [gpu_profile.DRAM_HALVES[0] if n.startswith("dram__") else gpu_profile.DRAM_HALVES[1]
             if n.startswith("lts__") else n for n in NAMES]
    rows, units = gpu_profile.read_rows(page(LAUNCHES, names).splitlines())
    found = gpu_profile.measure(rows[1], units)
    equal((found["DRAM"], found["L2"]), (50, None))


def stand_in(body):
    """Folders for build and logs, and an environment whose ncu is `body`, with $report and $group at hand."""
    folder = scratch()
    write(page(LAUNCHES), folder, "profile.page")
    write(page(RANGE), folder, "profile-experts.page")
    ncu = f"""#!/bin/sh
here={folder}
report= group=
for word; do
	[ "$last" = --export ] && report=$word
	[ "$last" = --import ] && report=${{word%.ncu-rep}}
	last=$word group=$word
done
case $1 in
--version) echo "Version 2025.3.1.0 (build 36398880) (public-release)"; exit 0 ;;
--query-metrics) cat $here/metrics; exit 0 ;;
--import) cat $here/$(basename $report).page; exit 0 ;;
esac
echo "$*" >>$here/commands
{body}
"""
    program = f"""#!/bin/sh
echo "# DSA_GPU_TEST_SEED=$DSA_GPU_TEST_SEED"
if [ $1 = profile ]; then
	printf '# profile 1: GLM-5, top 2048\\n# profile 2: GLM-5, compare\\n'
else
	echo '# profile 1: GLM-5, all 256 experts'
fi
echo '1 passed, 0 failed'
"""
    write("".join(f"{name.split('.')[0]:60} of something\n" for name in NAMES[len(FIXED):]), folder, "metrics")
    for name, text in (("ncu", ncu), ("gpu_tests", program)):
        os.chmod(write(text, folder, name), stat.S_IRWXU)
    return folder, {**os.environ, "PATH": folder + ":" + os.environ["PATH"]}


def profile(body):
    folder, env = stand_in(body)
    done = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "gpu_profile.py"), "--build", folder, "--logs",
                           os.path.join(folder, "logs")], env=env, capture_output=True, encoding="utf-8", check=False)
    return folder, done


GOOD = 'echo "==PROF== Connected"; $here/gpu_tests $group; touch $report.ncu-rep'


def test_a_table_is_printed():
    folder, done = profile(GOOD)
    equal((done.returncode, done.stderr), (0, ""))
    lines = [[cell.strip() for cell in text.split("|")[1:-1]] for text in done.stdout.splitlines() if text.startswith("|")]
    equal(lines[2], ["GLM-5, top 2048", "fast_scores", "1", "1.700", "80%", "82%", "20%", "30%", "18%", "barrier", "tensor"])
    equal(lines[3], ["GLM-5, top 2048", "select_rows", "1", "0.370", "0%", "48%", "56%", "41%", "45%", "barrier", "latency"])
    equal(lines[4][:4] + lines[4][9:], ["GLM-5, compare", PRODUCT[:31] + "…", "2", "2.000", "long scoreboard", "DRAM"])
    equal(lines[-1][:4] + lines[-1][-1:], ["GLM-5, all 256 experts", "all launches", "1", "8.600", "DRAM"])
    with open(os.path.join(folder, "commands"), encoding="utf-8") as file:
        first, second = file.read().splitlines()
    for words in ("--clock-control none", "--profile-from-start off", "--section WarpStateStats",
                  "--metrics gpu__time_duration.sum,sm__pipe_tensor_cycles_active" + ELAPSED):
        expect(words in first, f"{words} is not in {first}")
    expect("--replay-mode app-range" in second and "profile-from-start" not in second, second)


def test_unknown_metrics_are_asked_for_again_by_section():
    folder, done = profile("""case "$*" in
*--metrics*) echo "==ERROR== Failed to find metric regex:^sm__pipe_tensor_cycles_active"; exit 1 ;;
esac
""" + GOOD)
    equal((done.returncode, done.stderr), (0, ""))
    with open(os.path.join(folder, "commands"), encoding="utf-8") as file:
        equal(["ComputeWorkloadAnalysis" in command for command in file], [False, True, False, True])


def refused(body, status, *words):
    _, done = profile(body)
    equal(done.returncode, status, f"status of {done}")
    equal(len(done.stderr.splitlines()), 1, f"lines of {done.stderr}")
    for word in words:
        expect(word in done.stderr, f"{word} is not in {done.stderr}")
    return done


def test_refused_counters_are_one_line_and_status_3():
    refused('''$here/gpu_tests $group
echo "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
echo "==ERROR== The application returned an error code (1)."; exit 1''', 3, "ERR_NVGPUCTRPERM")
    refused('''echo "==ERROR== An error was reported by the counter measurement library:"
echo "==ERROR== Failed to initialize the profiler: LibraryNotLoaded."
echo "==ERROR== The application returned an error code (9)."; exit 9''', 3, "LibraryNotLoaded")


def test_a_missing_gpu_is_no_refusal():
    refused('''echo "# device cuda: no GPU is to be seen here"; echo "0 passed, 1 failed"
echo "==ERROR== The application returned an error code (1)."; exit 1''', 1, "no GPU is to be seen")


def test_a_case_without_launches_is_a_failure_that_names_it():
    refused("""sed -i '/add_bias.*(2, 1/,$d' $here/profile.page
""" + GOOD, 1, "GLM-5, compare")


def test_experts_that_cannot_be_a_range_leave_the_rest():
    _, done = profile("""case $group in
*-experts) echo "==ERROR== Range replay is not supported"; exit 1 ;;
esac
""" + GOOD)
    equal((done.returncode, done.stderr), (0, ""))
    expect("all experts together: not measured: Range replay is not supported" in done.stdout, done.stdout)
    expect("fast_scores" in done.stdout, done.stdout)


def test_a_missing_program_is_wrong_usage():
    done = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "gpu_profile.py"), "--build", scratch()],
                          capture_output=True, encoding="utf-8", check=False)
    equal(done.returncode, 2)
    expect("make gpu-tests" in done.stderr, done.stderr)


def test_a_missing_ncu_is_one_line_and_status_3():
    folder, _ = stand_in(GOOD)
    os.remove(os.path.join(folder, "ncu"))
    alone = f"import sys, gpu_profile; gpu_profile.PLACES = []; sys.argv = ['', '--build', {folder!r}, '--logs', {folder!r}]"
    done = subprocess.run([sys.executable, "-c", alone + "; sys.exit(gpu_profile.main())"], capture_output=True,
                          cwd=os.path.join(ROOT, "scripts"), env={**os.environ, "PATH": folder}, encoding="utf-8", check=False)
    equal((done.returncode, len(done.stderr.splitlines())), (3, 1), "status and lines of error")
    expect("neither on the PATH" in done.stderr, done.stderr)


if __name__ == "__main__":
    main(globals())
