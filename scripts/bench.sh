#!/usr/bin/env bash
# Measures the demo's calibration (tokens per second, token-layers done against naive, peak memory) and the tokenizer.
set -eu
cd "$(dirname "$0")/.."
run=$(mktemp -d)/run
trap 'rm -rf "$(dirname "$run")"' EXIT
build/dsacal calibrate --model calib_data/demo --corpus legal=calib_data/demo/legal.jsonl.zst \
	--corpus rag=calib_data/demo/rag.jsonl.zst --holdout 25% --host-memory 1GiB --no-refine --quiet --json --out "$run" "$@" >"$run.json"
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
# The tokenizer over this machine's licence texts; what a short text takes (reading tokenizer.json) is taken off.
export LC_ALL=C
texts=$(dirname "$run")/licences.txt
find /usr/share/common-licenses /usr/share/doc -type f \( -path '*/common-licenses/*' -o -name copyright \) -print0 |
	sort -z | xargs -0 cat 2>/dev/null | head -c 8000000 | iconv -c -f UTF-8 -t UTF-8 >"$texts" || true
echo x >"$texts.short"
started=$EPOCHREALTIME
build/dsacal tokenize --model calib_data/demo "$texts.short" >/dev/null
between=$EPOCHREALTIME
build/dsacal tokenize --model calib_data/demo "$texts" >/dev/null
awk -v bytes="$(stat -c %s "$texts")" -v short="$started $between" -v long="$between $EPOCHREALTIME" 'BEGIN {
	split(short, s, " ")
	split(long, l, " ")
	printf "tokenizer         %.1f MB/s over %.1f MB of licence text\n", bytes / 1e6 / (l[2] - l[1] - s[2] + s[1]), bytes / 1e6
}'
