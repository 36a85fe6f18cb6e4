#!/usr/bin/env bash
# Calibrates the shipped model on the shipped legal and RAG documents; leaves pattern.yaml and report.html in build/demo.
set -eu
cd "$(dirname "$0")/.."
run=build/demo
rm -rf "$run"
build/dsacal calibrate \
	--model calib_data/demo \
	--corpus legal=calib_data/demo/legal.jsonl.zst \
	--corpus rag=calib_data/demo/rag.jsonl.zst \
	--holdout 25% --host-memory 1GiB \
	--out "$run" "$@"
