#!/usr/bin/env bash
# clang-tidy over the sources, warnings as errors (.clang-tidy names the checks).
set -u
cd "$(dirname "$0")/.."
multiarch=$(gcc -print-multiarch)
export flags="-std=c11 -D_GNU_SOURCE -Iinclude -fopenmp -isystem /usr/include/$multiarch/blis-openmp"
# The GPU backend's host side is looked at where the toolkit's headers are.
toolkit=$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/../include
skip='^$'
if [ -e "$toolkit/cublasLt.h" ]; then flags="$flags -Ikernels -isystem $toolkit"; else skip='^src/backend/cuda'; fi
# So is what speaks MPI.
if command -v mpicc >/dev/null; then flags="$flags $(mpicc --showme:compile)"; else skip="$skip|^src/calib/ranks_mpi"; fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2016
if git ls-files 'src/*/*.c' | grep -vE "$skip" | xargs -P "$(nproc)" -n 4 sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$@" -- $flags' lint >"$log" 2>&1; then
	echo "lint: ok"
else
	grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -header-filter' "$log"
	exit 1
fi
