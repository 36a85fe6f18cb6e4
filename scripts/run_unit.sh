#!/usr/bin/env bash
# Runs unit test programs one after another and prints one line each; exits 1 if any failed.
# Counts in the last line come from the programs' own cmocka reports. UNIT_RUNNER: a command that runs each program.
set -u
passed=0 failed=0
read -ra runner <<<"${UNIT_RUNNER:-}"
# Waiting threads sleep: spinning ones would fight over the cores of a shared machine.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in "$@"; do
	start=$(date +%s.%N)
	CMOCKA_MESSAGE_OUTPUT=TAP "${runner[@]}" "$program" >"$log" 2>&1
	status=$?
	ok=$(grep -c '^ok ' "$log")
	bad=$(grep -c '^not ok ' "$log")
	# A program that died prints no report of the test it died in.
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
	# A program that ran nothing is a failure too: a test that cannot fail is no test.
	if [ "$status" -eq 0 ] && [ "$ok" -eq 0 ]; then bad=1; fi
	passed=$((passed + ok)) failed=$((failed + bad))
	printf '%-44s %3d ok %3d failed  %5.1f s\n' "${program#build/}" "$ok" "$bad" "$(echo "$(date +%s.%N) - $start" | bc -l)"
	if [ "$bad" -ne 0 ]; then cat "$log"; fi
done
echo "unit: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
