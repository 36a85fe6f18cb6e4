#!/usr/bin/env bash
# Format, length and words: what a reviewer should not have to look for.
set -u
cd "$(dirname "$0")/.."
bad=0
fail() {
	echo "style: $*"
	bad=$((bad + 1))
}
mapfile -t sources < <(git ls-files '*.c' '*.h' '*.cu' '*.cuh')
if ! clang-format --dry-run -Werror "${sources[@]}" >/tmp/dsacal-format.$$ 2>&1; then
	fail "clang-format disagrees: $(grep -oE '^[^:]+' /tmp/dsacal-format.$$ | sort -u | head -5 | tr '\n' ' ')"
fi
rm -f /tmp/dsacal-format.$$
while read -r lines file; do
	[ "$file" = total ] || [ "$lines" -le 600 ] || fail "$file has $lines lines: look for the second noun in it"
done < <(wc -l "${sources[@]}")
marks=$(git grep -nwE 'TODO|FIXME|XXX' -- src include kernels tests ':!tests/golden')
[ -z "$marks" ] || fail "marks left: $marks"
for header in include/dsa/*.h; do
	head -n 1 "$header" | grep -q "^/\* $(basename "$header"): " || fail "$header does not say what it is in its first line"
done
for test in $(git ls-files 'tests/*/test_*.c'); do
	grep -q 'assert_' "$test" || fail "$test asserts nothing"
done
[ "$bad" -eq 0 ] && echo "style: ok"
[ "$bad" -eq 0 ]
