#!/usr/bin/env bash
# Calibrates the shipped model on the shipped legal and RAG documents; leaves pattern.yaml and report.html in build/demo.
set -eu
cd "$(dirname "$0")/.."
run=build/demo
# The default search without its refinement, which may take as long again (docs/method.md has what it gains here).
# A finished run gives way to a new one; one that was interrupted goes on.
if [ -e "$run/report.html" ]; then rm -rf "$run"; fi
build/dsacal calibrate \
	--model calib_data/demo \
	--corpus legal=calib_data/demo/legal.jsonl.zst \
	--corpus rag=calib_data/demo/rag.jsonl.zst \
	--holdout 25% --host-memory 1GiB --no-refine \
	--out "$run" --resume "$@"
