#!/usr/bin/env bash
# Builds a corpus of real legal text from the licence and copyright files of the Debian machine it runs on, one
# {"text": ...} per line. It is other people's text: use it, do not commit it.
#
#   scripts/build_corpus.sh --out FILE.jsonl[.zst] [--max-documents N] [--min-bytes B]
#
# FILE.sources lists, per document, the file it came from and its bytes before and after. Paragraphs already met in an
# earlier file (spacing and case aside) are dropped, then documents under --min-bytes (default 4096; about 1,000 to
# 1,500 tokens). The order is that of the sorted paths: the same machine gives the same bytes.
set -euo pipefail

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }

out="" max_documents=0 min_bytes=4096
while [ $# -gt 0 ]; do
    case "$1" in
        --out|--max-documents|--min-bytes)
            [ $# -ge 2 ] || { echo "build_corpus.sh: $1 needs a value" >&2; exit 2; }
            case "$1" in
                --out) out=$2 ;;
                --max-documents) max_documents=$2 ;;
                --min-bytes) min_bytes=$2 ;;
            esac
            shift 2 ;;
        -h|--help) usage; exit 0 ;;
        *) echo "build_corpus.sh: unknown argument '$1' (see --help)" >&2; exit 2 ;;
    esac
done
[ -n "$out" ] || { echo "build_corpus.sh: --out FILE is required (see --help)" >&2; exit 2; }
for value in "$max_documents" "$min_bytes"; do
    case "$value" in ''|*[!0-9]*) echo "build_corpus.sh: '$value' is not a number" >&2; exit 2 ;; esac
done

# The sources go beside the corpus under its name, without the endings.
sources="${out%.zst}"
sources="${sources%.jsonl}.sources"
mkdir -p "$(dirname "$out")"
plain=$(mktemp)
trap 'rm -f "$plain"' EXIT

python3 - "$plain" "$sources" "$max_documents" "$min_bytes" <<'PYTHON'
import glob
import hashlib
import json
import os
import re
import sys

plain, sources, max_documents, min_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def paths():
    """Licences first, so that copyright files lose the licence texts they quote and not the other way round."""
    for pattern in ("/usr/share/common-licenses/*", "/usr/share/doc/*/copyright"):
        seen = set()
        for path in sorted(glob.glob(pattern)):
            real = os.path.realpath(path)       # GPL is a link to GPL-3, and many packages share one file
            if os.path.isfile(real) and real not in seen:
                seen.add(real)
                yield path


def fresh_paragraphs(text, seen):
    kept = []
    for paragraph in re.split(r"\n[ \t.]*\n", text):
        key = hashlib.sha256(" ".join(paragraph.lower().split()).encode()).digest()
        if paragraph.strip() and key not in seen:
            seen.add(key)
            kept.append(paragraph.rstrip())
    return "\n\n".join(kept)


seen, count = set(), 0
with open(plain, "w", encoding="utf-8") as out, open(sources, "w", encoding="utf-8") as listing:
    listing.write("# document\tpath\tbytes in the file\tbytes kept\n")
    for path in paths():
        if max_documents and count >= max_documents:
            break
        try:
            with open(path, encoding="utf-8") as f:
                text = f.read()
        except (OSError, UnicodeDecodeError):
            continue
        kept = fresh_paragraphs(text, seen)
        if len(kept.encode()) < min_bytes:
            continue
        out.write(json.dumps({"text": kept}, ensure_ascii=False) + "\n")
        listing.write(f"{count}\t{path}\t{len(text.encode())}\t{len(kept.encode())}\n")
        count += 1
if not count:
    sys.exit("build_corpus.sh: no document of that size found; lower --min-bytes")
print(f"{count} documents", file=sys.stderr)
PYTHON

case "$out" in
    *.zst) zstd -q -f -12 -o "$out" "$plain" ;;
    *) cp "$plain" "$out" ;;
esac
echo "$out"
