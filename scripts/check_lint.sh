#!/usr/bin/env bash
# clang-tidy over the sources, warnings as errors (.clang-tidy names the checks).
set -u
cd "$(dirname "$0")/.."
multiarch=$(gcc -print-multiarch)
mapfile -t sources < <(git ls-files 'src/*/*.c')
if printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy --quiet --warnings-as-errors='*' 2>/tmp/dsacal-tidy.$$ \
	--extra-arg-before=-std=c11 --extra-arg=-D_GNU_SOURCE --extra-arg=-Iinclude --extra-arg=-fopenmp \
	--extra-arg="-isystem/usr/include/$multiarch/blis-openmp" --; then
	echo "lint: ok"
	rm -f /tmp/dsacal-tidy.$$
else
	cat /tmp/dsacal-tidy.$$
	rm -f /tmp/dsacal-tidy.$$
	exit 1
fi
