#!/usr/bin/env bash
# Runs the tests of a build folder: unit test programs, then the tests of the program as a user sees it.
#
#   scripts/run_tests.sh build/release               everything
#   scripts/run_tests.sh build/asan sanitizers       what is worth running under sanitizers
#
# Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/.."
folder=$1
scope=${2:-all}
export DSACAL=${DSACAL:-$PWD/$folder/dsacal}
# These tests are of the CPU path, on every machine alike; scripts/gpu_tests.sh has those of the GPU.
export CUDA_VISIBLE_DEVICES=
python=build/venv/bin/python
[ -x "$python" ] || python=python3
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

count() { # counts from a line "... N passed, N failed"
	local line
	line=$(grep -oE '[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
	if [ -z "$line" ]; then
		failed=$((failed + 1))
		return
	fi
	passed=$((passed + ${line%% *}))
	line=${line#*, }
	failed=$((failed + ${line%% *}))
}

mapfile -t units < <(find "$folder/tests" -type f -name 'test_*' ! -name '*.*' | sort)
scripts/run_unit.sh "${units[@]}" 2>&1 | tee "$log"
count
for test in tests/cli/test_*.py; do
	if [ "$scope" = sanitizers ] && ! grep -q '^# sanitizers: yes' "$test"; then continue; fi
	echo "== $test"
	start=$(date +%s)
	"$python" "$test" 2>&1 | tee "$log"
	count
	echo "   $(($(date +%s) - start)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
