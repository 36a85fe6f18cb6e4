#!/usr/bin/env bash
# Token-layers of the search against the published one's, on fresh documents of the demo's two domains, to the last layer:
# exact with every state kept, and racing. Prints a table; ends with `N passed, N failed`.
#
#   scripts/check_work.sh                    64 documents exact and racing, 256 racing
#   scripts/check_work.sh --device cuda      whatever follows goes to calibrate
#   scripts/check_work.sh --make-documents DIR     only makes the documents; DSA_WORK_DOCUMENTS=DIR takes them from there,
#                                            where the Python packages of build/venv are missing
set -u
cd "$(dirname "$0")/.."
dsacal=${DSACAL:-build/dsacal} python=build/venv/bin/python
[ -x "$python" ] || python=python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_documents() { # folder, calibration documents
	"$python" scripts/demo_corpus.py --out "$1/$2" --documents $(($2 * 5 / 8)) --seed 7
}
if [ "${1:-}" = --make-documents ]; then
	make_documents "$2" 64 && make_documents "$2" 256
	exit
fi
passed=0 failed=0
# name, calibration documents (half of each domain; a fifth more are held out), search, most of naive
row() {
	local documents=$2 search=$3 most=$4 docs=${DSA_WORK_DOCUMENTS:-$work}/$2 run=$work/$1
	shift 4
	[ -e "$docs" ] || make_documents "$work" "$documents" >/dev/null
	if "$dsacal" calibrate --model calib_data/demo --corpus "legal=$docs/legal.jsonl.zst" \
		--corpus "rag=$docs/rag.jsonl.zst" --holdout 20% --host-memory 16GiB --full-trace --no-refine --quiet --json \
		--search "$search" --out "$run" "$@" >"$work/json" && "$python" - "$work/json" "$documents" "$search" "$most" <<-'EOF'
		import json, sys
		path, documents, search, most = sys.argv[1:]
		found = json.load(open(path))
		work = found["work"]
		asked = [c["documents"] for step in found["trace"] for c in step["candidates"]]
		share = work["token_layers"] / work["token_layers_naive"]
		seen = sum(asked) / (max(asked) * len(asked))
		print(f"{search:<7} {documents:>4} documents: {work['token_layers']:>11} of {work['token_layers_naive']:>11} token-layers,"
		      f" {share:.3f} (at most {most}); candidate-documents {seen:.3f}; {found['provenance']['executed']} run in all,"
		      f" {work['seconds']:.0f} s on {found['provenance']['device']}")
		sys.exit(not (max(asked) == int(documents) and share <= float(most)))
	EOF
	then passed=$((passed + 1)); else
		failed=$((failed + 1))
		echo "FAILED $search, $documents documents"
	fi
}
row exact64 64 exact 0.40 "$@"
row racing64 64 racing 0.20 "$@"
row racing256 256 racing 0.10 "$@"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
