#!/usr/bin/env bash
# Draws the pictures of docs/images from a run directory: screenshots of its page, light and dark, at 1280 and 400
# pixels, and the overlap figure alone. Needs Chromium: scripts/bootstrap.sh check.
#
#   scripts/report_pictures.sh [RUN]     build/demo if none is given
set -eu
cd "$(dirname "$0")/.."
run=${1:-build/demo}
figures=$(mktemp -d)
trap 'rm -rf "$figures"' EXIT
build/dsacal report "$run" --svg "$figures"
cp "$figures/overlap-1.svg" docs/images/overlap-1.svg
python=build/venv/bin/python
[ -x "$python" ] || python=python3
"$python" tests/browser/test_report_page.py --screenshots docs/images "$run/report.html"
