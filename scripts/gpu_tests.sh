#!/usr/bin/env bash
# Runs every test that needs a GPU, from binaries that `make gpu-tests` built here or elsewhere.
#
#   scripts/gpu_tests.sh [--quick] [--sanitizers] [--build DIR] [--logs DIR]
#
#   --quick        small shapes, few documents: to see whether anything is wrong at all
#   --sanitizers   compute-sanitizer's memcheck, racecheck and initcheck over the operators at small shapes, besides
#   --build DIR    the binaries, build/release-static by default; DIR-mpi/dsacal, of `make gpu-tests MPI=1`, runs over ranks
#   --logs DIR     where each test's output goes, build/gpu-logs by default
#
# Needs python3 and its standard library. What needs more is left out without it: one comparison PyTorch and transformers,
# runs over several ranks an MPI build and mpirun ($MPIRUN).
# Ends with a table and `N passed, N failed`; the exit status is 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.."
build=build/release-static logs=build/gpu-logs quick=() sanitizers=0
while [ $# -gt 0 ]; do
	case $1 in
	--quick) quick=(--quick) ;;
	--sanitizers) sanitizers=1 ;;
	--build) build=$2 && shift ;;
	--logs) logs=$2 && shift ;;
	*) echo "gpu_tests.sh: unknown option $1" >&2 && exit 2 ;;
	esac
	shift
done
for program in dsacal gpu_tests; do
	[ -x "$build/$program" ] || { echo "gpu_tests.sh: $build/$program is missing: run make gpu-tests where nvcc is" >&2 && exit 2; }
done
mkdir -p "$logs"
logs=$(cd "$logs" && pwd) build=$(cd "$build" && pwd)
export DSACAL=$build/dsacal DSA_GPU_TEST_DOCUMENTS=$logs/documents.jsonl
export DSA_GPU_TEST_SEED=${DSA_GPU_TEST_SEED:-$(date +%s)}
small=("${quick[@]/--quick/--small}")
passed=0 failed=0 rows=()

step() { # name, seconds allowed, command…
	local name=$1 limit=$2 log=$logs/$1.log begun ok bad status line result
	shift 2
	begun=$(date +%s.%N)
	timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1
	status=$?
	line=$(grep -oE '[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
	ok=${line%% *} bad=${line#*, }
	ok=${ok:-0} bad=${bad%% *}
	bad=${bad:-0}
	# What died, ran out of time or printed no count has failed, whatever passed before.
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
	if [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
	passed=$((passed + ok)) failed=$((failed + bad))
	result="$ok passed"
	[ "$bad" -eq 0 ] || result="$ok passed, $bad FAILED (status $status)"
	rows+=("$(printf '%-24s %-34s %7.1f s' "$name" "$result" "$(echo "$(date +%s.%N) $begun" | awk '{print $1 - $2}')")")
	echo "== ${rows[-1]}"
	grep -E '^(#|FAIL|not ok|[a-z]+: mean KL)' "$log" | head -n 60
	# Of a program that died the last words are all there is.
	if [ "$bad" -ne 0 ]; then tail -n 15 "$log"; fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
"$DSACAL" --version
echo "DSA_GPU_TEST_SEED=$DSA_GPU_TEST_SEED repeats these numbers"
operators=(rows products experts select attention figures)
for group in "${operators[@]}" invariance forward residency; do
	step "$group" 300 "$build/gpu_tests" "${small[@]}" "$group"
done
if python3 -c 'import torch, transformers' 2>/dev/null; then
	step torch-bf16 300 python3 scripts/torch_bf16_kl.py --documents "$DSA_GPU_TEST_DOCUMENTS"
else
	rows+=("$(printf '%-24s %-34s' torch-bf16 'left out: no PyTorch, transformers')")
fi
step runs 600 python3 tests/gpu/test_gpu_runs.py "${quick[@]}"
if [ ${#quick[@]} -eq 0 ]; then
	step speed 120 "$build/gpu_tests" speed
	step bench 240 python3 tests/gpu/test_gpu_bench.py
fi
if [ ! -x "$build-mpi/dsacal" ]; then
	rows+=("$(printf '%-24s %-34s' ranks 'left out: no MPI build')")
elif ! command -v "${MPIRUN:-mpirun}" >/dev/null; then
	rows+=("$(printf '%-24s %-34s' ranks 'left out: no mpirun')")
else
	DSACAL=$build-mpi/dsacal step ranks 400 python3 tests/gpu/test_gpu_ranks.py "${quick[@]}"
fi
DSA_TEST_DEVICE=${DSA_GPU_TEST_DEVICE:-cuda} step verify 600 python3 tests/cli/test_verify.py
if [ "$sanitizers" -eq 1 ]; then
	sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
	for tool in memcheck racecheck initcheck; do
		step "$tool" 600 "$sanitizer" --tool "$tool" --error-exitcode 9 "$build/gpu_tests" --small "${operators[@]}"
	done
fi
echo
printf '%s\n' "${rows[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
