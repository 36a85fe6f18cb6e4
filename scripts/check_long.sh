#!/usr/bin/env bash
# What is too long for every change: the tests that have a --long, the search's work on more documents, transformers with
# an exported configuration, then the sanitizers' and valgrind's tests.
# Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/.."
python=build/venv/bin/python
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
step() { # runs a command and adds up the last line of it that counts
	echo "== $*"
	"$@" 2>&1 | tee "$log"
	local status=${PIPESTATUS[0]} line
	line=$(grep -oE '[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
	# One that counts nothing, or fails without saying so, is a failure too.
	line=${line:-0 passed, 1 failed}
	if [ "$status" -ne 0 ]; then line=${line/, 0 failed/, 1 failed}; fi
	passed=$((passed + ${line%% *}))
	line=${line#*, }
	failed=$((failed + ${line%% *}))
}
step "$python" tests/cli/test_demo.py --long
step "$python" tests/cli/test_tokenizer.py --long
step "$python" tests/browser/test_report_page.py
make --no-print-directory CUDA=0 MPI=1 all cluster-programs && DSACAL=build/release-mpi/dsacal step "$python" tests/cluster/test_ranks.py
make --no-print-directory all # build/dsacal is the ordinary one again
step "$python" tests/cli/test_dry_run_time.py --long
step scripts/check_work.sh
step build/venv-transformers/bin/python tests/long/transformers_export.py
step make --no-print-directory test-san
step make --no-print-directory test-valgrind
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
