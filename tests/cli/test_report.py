#!/usr/bin/env python3
"""report: the page, its tables and figures, made from a run directory alone."""
# sanitizers: yes
import csv
import glob
import html.parser
import io
import json
import math
import os
import shutil
import subprocess
import xml.etree.ElementTree

import made_up_run
from harness import (GLM, ROOT, contents, documents, equal, expect, good, jsonl, listing, main, near, read, refused,
                     results, run, scratch, strict_json, write)

GOLDEN = os.path.join(ROOT, "tests", "report", "golden")
TABLES = ["corpora.csv", "curve.csv", "gain.csv", "overlap.csv", "pattern.csv", "positions.csv", "sensitivity.csv",
          "trace.csv"]
# A quote, brackets, a newline, an override to right-to-left and back, letters that run that way, a formula.
HOSTILE = "=1+\"'><b onclick=alert(1)>&amp;\n\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd ]]> {{x}} %s \\"


def made_up(**how):
    out = scratch()
    made_up_run.write(os.path.join(out, "results.json"), **how)
    return out


def rows(*path):
    return list(csv.DictReader(io.StringIO(read(*path).decode(), newline="")))


def tidy(page):
    done = subprocess.run(["tidy", "-e", "-q", page], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False)
    expect(done.returncode == 0 and not done.stderr, f"tidy of {page}: {done.stderr.decode()[:800]}")


class Page(html.parser.HTMLParser):
    """What an HTML reader sees: elements by name, attributes, text."""

    def __init__(self, data):
        super().__init__()
        self.elements, self.attributes, self.text = [], set(), []
        self.feed(data)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data):
        self.text.append(data)


def test_a_fixed_run_gives_the_golden_bytes():
    out = scratch()
    shutil.copy(os.path.join(GOLDEN, "results.json"), out)
    figures = os.path.join(out, "figures")
    good("report", out, "--svg", figures)
    equal(listing(out), sorted(["figures", "report.html", "results.json", *TABLES]), "files")
    for name in ("report.html", *(t for t in TABLES if t != "overlap.csv")):
        expect(read(out, name) == read(GOLDEN, name), f"{name} is not the golden one")
    for name, golden in (("pattern.svg",) * 2, ("curve.svg",) * 2, ("sensitivity.svg",) * 2,
                         ("overlap-1.svg", "overlap.svg")):
        expect(read(figures, name) == read(GOLDEN, golden), f"{name} is not the golden one")
        xml.etree.ElementTree.fromstring(read(figures, name))


def test_seventy_eight_layers_and_three_corpora_stay_under_two_megabytes():
    out = made_up()
    good("report", out)
    before = contents(out, "results.json")
    size = len(before["report.html"])
    expect(500_000 < size < 2_000_000, f"the page has {size} bytes")
    for name in before:
        os.unlink(os.path.join(out, name))
    good("report", out, env={"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "OMP_NUM_THREADS": "3"})
    for name, data in before.items():
        expect(read(out, name) == data, f"{name} differs the second time")
    equal(len(rows(out, "trace.csv")), 77 * 78 // 2, "candidates")
    equal(len(rows(out, "overlap.csv")), 3 * 8 * 78 * 79 // 2, "rows of the overlap")
    equal(len(rows(out, "sensitivity.csv")), 77, "sensitivities")
    equal(len(rows(out, "pattern.csv")), 4 * 78, "letters")
    tidy(os.path.join(out, "report.html"))


def test_tidy_and_xml_find_nothing_wrong():
    pages = [os.path.join(GOLDEN, "report.html")]
    for how in ({"layers": 2, "steps": 1, "names": ("one",), "buckets": 1, "topk": 4},
                {"layers": 12, "topk": 64, "buckets": 3, "names": (HOSTILE, "<" * 4096), "model": HOSTILE,
                 "architecture": HOSTILE, "device": HOSTILE}):
        out = made_up(**how)
        good("report", out)
        pages.append(os.path.join(out, "report.html"))
    for page in pages:
        tidy(page)
        xml.etree.ElementTree.fromstring(read(page).split(b"\n", 1)[1])


def test_hostile_names_survive_every_output():
    here = scratch()
    model = os.path.join(here, HOSTILE.replace("/", ""))
    shutil.copytree(GLM, model, ignore=shutil.ignore_patterns("expected*"))
    # An = would end the name on the command line, a / would make it a path.
    name, long = HOSTILE.replace("=", "+").replace("/", ""), "<" * 4096
    first = write(jsonl(documents(6)), here, HOSTILE.replace("/", "") + ".jsonl")
    second = write(jsonl(documents(6, seed=2)), here, "second.jsonl")
    out = os.path.join(here, "run " + HOSTILE.replace("/", ""))
    done = good("calibrate", "--model", model, "--corpus", f"{name}={first}", "--corpus", f"{long}={second}", "--out",
                out, "--max-shared", 1, "--json")
    found = strict_json(done.out)
    equal((found["model"]["name"], sorted(found["corpora"])), (os.path.basename(model), sorted([name, long])), "names")
    figures = os.path.join(here, "figures")
    good("report", out, "--svg", figures)
    equal(results(out)["model"]["name"], os.path.basename(model), "the model in results.json")

    page = read(out, "report.html").decode()
    seen = Page(page)
    plain = Page(read(GOLDEN, "report.html").decode())
    expect(set(seen.elements) <= set(plain.elements), f"elements {set(seen.elements) - set(plain.elements)}")
    expect(set(seen.attributes) <= set(plain.attributes), f"attributes {set(seen.attributes) - set(plain.attributes)}")
    equal(seen.elements.count("script"), 2, "scripts")
    expect("onclick=alert(1)" in "".join(seen.text), "the name is not shown")
    xml.etree.ElementTree.fromstring(page.split("\n", 1)[1])
    tidy(os.path.join(out, "report.html"))
    equal(len(listing(figures)), 5, "figures")
    for figure in glob.glob(os.path.join(figures, "*.svg")):
        tree = xml.etree.ElementTree.parse(figure)
        expect(not [e for e in tree.iter() if e.tag.endswith(("}b", "}script"))], f"markup in {figure}")
    for table in TABLES:
        lines = rows(out, table)
        expect(all(None not in line and None not in line.values() for line in lines), f"{table} breaks")
        if lines and "corpus" in lines[0]:
            equal({l["corpus"] for l in lines} - {""}, {"'" + name, long}, f"corpora of {table}")
    # The pattern is read back from YAML, whatever stands around it.
    exported = good("export", os.path.join(out, "pattern.yaml"), "--engine", "vllm", "--json").json()
    equal(exported["pattern"], found["pattern"], "pattern.yaml")


def test_intervals_of_the_overlap_follow_from_the_documents():
    """Each document alone gives its mean and its queries; all together give the mean, its error and its interval."""
    here = scratch()
    ids = documents(4, shortest=25, longest=80, seed=5)

    def overlap(name, some):
        out = os.path.join(here, name)
        good("overlap", "--model", GLM, "--corpus", "c=" + write(jsonl(some), here, name + ".jsonl"), "--out", out)
        return {(r["from"], r["to"], r["i"], r["j"]): r for r in rows(out, "overlap.csv")}

    alone = [overlap(f"alone{d}", [one]) for d, one in enumerate(ids)]
    together = overlap("together", ids)
    t = {2: 12.706204736, 3: 4.302652730, 4: 3.182446305}
    checked = 0
    for place, row in together.items():
        some = [a[place] for a in alone if place in a]
        n = [int(s["queries"]) for s in some]
        m = [float(s["overlap"]) for s in some]
        equal((int(row["queries"]), int(row["documents"])), (sum(n), len(some)), f"{place}: queries and documents")
        mean = sum(a * b for a, b in zip(n, m)) / sum(n)
        near(float(row["overlap"]), mean, f"{place}: overlap", 1e-9)
        if len(some) < 2:
            equal((row["se"], row["low"], row["high"]), ("", "", ""), f"{place}: an error of one document")
            continue
        square = sum((a * (b - mean)) ** 2 for a, b in zip(n, m)) * len(some) / (len(some) - 1)
        se = math.sqrt(square) / sum(n)
        expect(abs(float(row["se"]) - se) < 1e-7, f"{place}: error {row['se']}, expected {se}")
        reach = t[len(some)] * se
        expect(abs(float(row["low"]) - max(0, mean - reach)) < 0.002 * reach + 1e-6, f"{place}: {row}")
        expect(abs(float(row["high"]) - min(1, mean + reach)) < 0.002 * reach + 1e-6, f"{place}: {row}")
        checked += row["i"] != row["j"]
    expect(checked >= 12, f"only {checked} cells with an interval")


def test_baselines_stand_beside_the_pattern():
    out = made_up(layers=12, topk=64, buckets=2)
    good("report", out)
    plain = read(out, "report.html")
    met = results(out)["trace"][1]
    file = write('pattern: "FFFFFFFFFFFS"\n', scratch(), "kept.yaml")
    done = good("report", out, "--baseline", met["pattern"], "--baseline", file, "--baseline", met["pattern"],
                "--baseline", results(out)["baselines"]["uniform-1/2"]["pattern"])
    equal(done.err.count("never measured the baseline"), 1, f"warnings of {done}")
    expect("FFFFFFFFFFFS" in done.err, f"{done}")
    points = [r for r in rows(out, "curve.csv") if r["kind"] == "baseline"]
    equal([(p["name"], p["kept"]) for p in points],
          [("uniform-1/2", "6"), ("uniform-1/4", "3"), (met["pattern"], "10"), ("kept.yaml", "11")], "baselines")
    equal([p["kl"] != "" for p in points], [True, True, True, False], "which have figures")
    near(float(points[2]["kl"]), met["kl"], "the figure of a pattern that the search met")
    near(float(points[2]["heldout_kl"]), met["heldout"]["kl"]["mean"], "the same, held out")
    page = read(out, "report.html").decode()
    # Label and tooltip of the strip, name and tooltip of the table.
    equal((page.count("kept.yaml"), page.count(os.path.dirname(file))), (4, 0), "places that name the file")
    tidy(os.path.join(out, "report.html"))
    good("report", out)
    expect(read(out, "report.html") == plain, "the next report keeps a baseline that it was not given")
    before = contents(out)
    refused(run("report", out, "--baseline", "FFS"), 2, "--baseline", "12")
    refused(run("report", out, "--baseline", "nothing.yaml"), 2, "nothing.yaml")
    equal(contents(out), before, "files of a refused report")


def test_the_page_says_what_results_say():
    out = made_up(layers=12, topk=64, buckets=3)
    good("report", out)
    seen = " ".join("".join(Page(read(out, "report.html").decode()).text).split())
    found = results(out)
    shared = found["pattern"].count("S")
    expect(f"{shared} of 12 layers can share the selection of a layer before them, so {12 - shared} of 12 indexers run: "
           f"on 8 held-out documents this moves the output by a mean KL of" in seen, "no verdict")
    expect(found["pattern"] in seen, "no pattern")
    for step in found["trace"]:
        expect(f"Step {step['step']}: layer {step['flip']} of {len(step['candidates'])} candidates" in seen,
               f"no candidates of step {step['step']}")
    for place in ("positions 64 to 127", "positions 128 to 255", "positions 256 to 511"):
        expect(place in seen, f"{place} cannot be chosen")


def test_results_without_sums_give_a_page_without_intervals():
    out = made_up(layers=5, topk=8, buckets=2)
    found = results(out)
    for slots in (found["overlap_by_position"].values(), [[d] for d in found["overlap_documents"].values()]):
        for slot in (s for some in slots for s in some):
            for name in ("weight2", "squared", "crossed"):
                slot.pop(name)
    write(json.dumps(found), out, "results.json")
    good("report", out)
    equal({(r["se"], r["low"], r["high"]) for r in rows(out, "overlap.csv")}, {("", "", "")}, "errors")
    expect(all(0 < float(r["overlap"]) <= 1 for r in rows(out, "overlap.csv")), "no overlap")


if __name__ == "__main__":
    main(globals())
