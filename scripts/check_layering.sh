#!/usr/bin/env bash
# The folders' include order: base < data < backend < model < calib < report < cli. A file may include headers of its own
# folder and of folders to the left. Also: nothing outside src/cli prints or exits, no toolkit type outside src/backend.
set -u
cd "$(dirname "$0")/.."
order=(base data backend model calib report cli)
bad=0

# The folder of a public header is the folder of the source that includes it as its own: src/<stage>/<noun>.c.
stage_of() {
	local noun=$1
	case $noun in
	evaluator) noun=evaluator_shape ;;
	backend) noun=registry ;;
	esac
	for stage in "${order[@]}"; do
		[ -e "src/$stage/$noun.c" ] && { echo "$stage"; return; }
	done
	# A header without a source of its name says its folder in scripts/header_stages.
	awk -v n="$noun" '$1 == n {print $2}' scripts/header_stages
}
rank() {
	local i
	for i in "${!order[@]}"; do [ "${order[$i]}" = "$1" ] && { echo "$i"; return; }; done
	echo 99
}

declare -A rank_of_header
for header in include/dsa/*.h; do
	noun=$(basename "$header" .h)
	stage=$(stage_of "$noun")
	if [ -z "$stage" ]; then
		echo "layering: include/dsa/$noun.h belongs to no folder: add it to scripts/header_stages"
		bad=$((bad + 1))
		continue
	fi
	rank_of_header[$noun]=$(rank "$stage")
done
check() { # file rank
	local file=$1 own=$2 noun
	while read -r noun; do
		[ -n "${rank_of_header[$noun]:-}" ] || { echo "layering: $file includes unknown dsa/$noun.h"; bad=$((bad + 1)); continue; }
		if [ "${rank_of_header[$noun]}" -gt "$own" ]; then
			echo "layering: $file includes dsa/$noun.h, which lies above it"
			bad=$((bad + 1))
		fi
	done < <(sed -n 's/^#include "dsa\/\([a-z0-9_]*\)\.h".*/\1/p' "$file")
}
for header in include/dsa/*.h; do
	noun=$(basename "$header" .h)
	[ -n "${rank_of_header[$noun]:-}" ] && check "$header" "${rank_of_header[$noun]}"
done
for stage in "${order[@]}"; do
	for file in src/"$stage"/*.[ch]; do
		[ -e "$file" ] && check "$file" "$(rank "$stage")"
	done
done

prints=$(grep -nE '(^|[^a-z_])(printf|puts|putchar|exit|abort|perror)\(' $(ls src/*/*.c | grep -v '^src/cli/') /dev/null)
if [ -n "$prints" ]; then
	echo "layering: prints or exits outside src/cli:"
	echo "$prints"
	bad=$((bad + 1))
fi
toolkit=$(grep -lE 'cuda_runtime|cublas' -r include src | grep -v '^src/backend/cuda')
if [ -n "$toolkit" ]; then
	echo "layering: the CUDA toolkit outside src/backend/cuda*: $toolkit"
	bad=$((bad + 1))
fi
mpi=$(grep -lE '<mpi\.h>|\bMPI_[A-Z][a-z]' -r include src | grep -v '^src/calib/ranks_mpi\.c$')
if [ -n "$mpi" ]; then
	echo "layering: MPI outside src/calib/ranks_mpi.c: $mpi"
	bad=$((bad + 1))
fi
search=$(grep -nE 'dsa/(model|forward|backend|spool|safetensors)' src/calib/search.c src/calib/budget.c src/calib/calibration.c)
if [ -n "$search" ]; then
	echo "layering: the search knows a model:"
	echo "$search"
	bad=$((bad + 1))
fi
[ "$bad" -eq 0 ] && echo "layering: ok"
[ "$bad" -eq 0 ]
