#!/usr/bin/env python3
"""Packs the real half of the demo model's training text from what a Debian machine already has installed.

Licences and copyright files, manual pages (roff requests stripped, which is good enough for a language model) and
plain-text package documentation; paragraphs seen before are dropped, so that boilerplate does not dominate. The
output is training input only and is never committed: it is other people's text under many licences.

    pack_training_text.py --out DIR [--max-megabytes 24]      writes DIR/{legal,manual,docs}.jsonl.gz
"""
import argparse
import glob
import gzip
import hashlib
import json
import os
import re

SOURCES = {
    "legal": ["/usr/share/common-licenses/*", "/usr/share/doc/*/copyright"],
    "manual": ["/usr/share/man/man[1-8]/*.gz"],
    "docs": ["/usr/share/doc/**/*.txt", "/usr/share/doc/**/*.txt.gz", "/usr/share/doc/**/README*",
             "/usr/share/doc/**/NEWS*", "/usr/share/doc/**/*.md", "/usr/share/doc/**/*.md.gz",
             "/usr/share/doc/**/*.rst", "/usr/share/doc/**/FAQ*"],
}
FAMILY_LIMIT = 40
ROFF_FONT = re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[-+]?\d|\\[&|^/,%]")
ROFF_CHAR = {"\\-": "-", "\\e": "\\", "\\(aq": "'", "\\(bu": "*", "\\(lq": '"', "\\(rq": '"', "\\(em": "-",
             "\\(en": "-", "\\(oq": "'", "\\(cq": "'", "\\*(Aq": "'", "\\ ": " ", "\\~": " "}


def read_text(path):
    """The file's text, or an empty string where it is not readable UTF-8."""
    try:
        with (gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")) as f:
            return f.read(400_000).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def strip_roff(text):
    """Words of a manual page: requests become paragraph breaks, font and size escapes go."""
    out = []
    for line in text.split("\n"):
        if line.startswith((".\\\"", "'\\\"")):
            continue
        if line.startswith((".", "'")):
            request, _, rest = line[1:].strip().partition(" ")
            if request in ("SH", "SS", "Sh", "Ss", "PP", "P", "LP", "TP", "IP", "Pp", "It"):
                out.append("")
            if request in ("TH", "Dd", "Dt", "Os", "de", "if", "ie", "el", "ds", "nr", "so", "tr", "ad", "hy"):
                continue
            line = rest.replace('"', "")
        line = ROFF_FONT.sub("", line)
        for escape, char in ROFF_CHAR.items():
            line = line.replace(escape, char)
        if line and "\\" not in line:
            out.append(line)
        elif not line:
            out.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def fresh_paragraphs(text, seen):
    """The paragraphs not met in any earlier file, compared without regard to spacing and case."""
    kept = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        key = hashlib.sha1(" ".join(paragraph.lower().split()).encode()).digest()[:8]
        if paragraph.strip() and key not in seen:
            seen.add(key)
            kept.append(paragraph.rstrip())
    return "\n\n".join(kept)


def pack(kind, seen, limit):
    """jsonl lines of one kind, files taken in an order that does not favour any package, up to `limit` bytes."""
    paths = sorted({p for pattern in SOURCES[kind] for p in glob.glob(pattern, recursive=True)},
                   key=lambda p: hashlib.sha1(p.encode()).digest())
    lines, size, family = [], 0, {}
    for path in paths:
        if size > limit:
            break
        if not os.path.isfile(path):
            continue
        # One program's hundreds of generated pages would otherwise be most of the manual.
        name = re.split(r"[-_.:]", os.path.basename(path) if kind == "manual" else path)[0]
        family[name] = family.get(name, 0) + 1
        if family[name] > FAMILY_LIMIT:
            continue
        text = read_text(path)
        text = fresh_paragraphs(strip_roff(text) if kind == "manual" else text, seen)
        if len(text) > 300:
            lines.append(json.dumps({"text": text}, ensure_ascii=False))
            size += len(text)
    return lines, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--max-megabytes", type=float, default=24, help="of all text together")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    seen = set()
    for kind in SOURCES:
        lines, size = pack(kind, seen, args.max_megabytes * 1e6 / len(SOURCES))
        with gzip.open(os.path.join(args.out, f"{kind}.jsonl.gz"), "wt", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        print(f"{kind}: {len(lines)} documents, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
