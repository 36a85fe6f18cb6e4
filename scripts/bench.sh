#!/usr/bin/env bash
# Measures the demo's calibration: tokens per second, token-layers done against naive, peak memory.
set -eu
cd "$(dirname "$0")/.."
run=$(mktemp -d)/run
trap 'rm -rf "$(dirname "$run")"' EXIT
build/dsacal calibrate --model calib_data/demo --corpus legal=calib_data/demo/legal.jsonl.zst \
	--corpus rag=calib_data/demo/rag.jsonl.zst --holdout 25% --host-memory 1GiB --quiet --json --out "$run" "$@" >"$run.json"
# Only figures that the program itself measured.
awk -F'[:,]' '
	/"layers":/ && !layers {layers = $2}
	/"token_layers":/ {done = $2}
	/"token_layers_naive":/ {naive = $2}
	/"head_tokens":/ {head = $2}
	/"seconds":/ {seconds = $2}
	/"executed":/ {executed = $2}
	/"peak_memory":/ {peak = $2}
	/"device":/ {sub(/^[^:]*: */, ""); device = $0}
	END {
		printf "device            %s\n", device
		printf "seconds           %.1f\n", seconds
		printf "token-layers      %.4g first-time, %.4g naive, ratio %.3f; %.4g run in all\n", done, naive, done / naive, executed
		printf "tokens per second %.0f through all %d layers\n", executed / layers / seconds, layers
		printf "head tokens       %.4g\n", head
		printf "peak memory       %.0f MiB\n", peak / 1048576
	}' "$run.json"
