#!/usr/bin/env python3
"""report.html in Chromium: silent, self-contained, read by pointer, keyboard and screen reader, dark, narrow, printed.

    tests/browser/test_report_page.py [test …]
    tests/browser/test_report_page.py --screenshots DIR PAGE.html     pictures of a page at 1280 and 400 pixels
"""
import csv
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "cli"), os.path.join(ROOT, "tests", "browser")]
# pylint: disable=wrong-import-position
import made_up_run
from browser import Browser
from harness import equal, expect, good, main, read, scratch

HOSTILE = "\"><script>alert(1)</script>'&amp;\n\u202eabc \u05e9\u05dc\u05d5\u05dd ]]> {{x}}"
_kept = {}


def browser():
    if "browser" not in _kept:
        _kept["browser"] = Browser()
    return _kept["browser"]


def page(name="large"):
    """report.html of a made-up run: 78 layers and three corpora, 12 layers, or 12 with hostile names."""
    if name not in _kept:
        run = os.path.join(scratch(), name)
        os.mkdir(run)
        how = {"large": {}, "small": {"layers": 12, "topk": 64, "buckets": 3},
               "hostile": {"layers": 12, "topk": 64, "buckets": 3, "names": (HOSTILE, "<" * 4096), "model": HOSTILE,
                           "architecture": HOSTILE, "device": HOSTILE}}[name]
        made_up_run.write(os.path.join(run, "results.json"), **how)
        good("report", run)
        _kept[name] = os.path.join(run, "report.html")
    return _kept[name]


def overlaps(name):
    """overlap.csv as {(corpus, from or all, i, j): (value, low, high, documents)}."""
    rows = csv.DictReader(read(os.path.dirname(page(name)), "overlap.csv").decode().splitlines())
    return {(r["corpus"], r["from"] if r["to"] else "all", int(r["i"]), int(r["j"])):
            (float(r["overlap"]), float(r["low"]), float(r["high"]), int(r["documents"])) for r in rows}


def expected_readout(figures, i, j, place):
    value, low, high, documents = figures
    interval = f", 95% interval {low:.3f} to {high:.3f}" if i != j else ""
    return f"Layers {i} and {j}: {value:.3f}{interval} ({place}, {documents} documents)"


def readout():
    return browser().value("document.getElementById('overlap-readout').textContent")


def middle_of(element):
    """Of a JavaScript expression's element, scrolled into view."""
    box = browser().value(f"(function(e){{e.scrollIntoView({{block:'center',inline:'center'}});"
                          f"var b=e.getBoundingClientRect();return [b.x+b.width/2,b.y+b.height/2]}})({element})")
    return box[0], box[1]


def cell(i, j, layers):
    return f"document.querySelectorAll('.cells path')[{i * layers + j}]"


def silent(what):
    said, asked = browser().noise()
    equal(said, [], f"{what}: what the console got")
    equal(len(asked), 1, f"{what}: requests {asked}")
    expect(asked[0].startswith("file://") and asked[0].endswith("report.html"), f"{what}: asked for {asked[0]}")


def test_pages_load_without_a_word_and_without_a_request():
    for name in ("large", "small", "hostile"):
        for dark in (False, True):
            browser().open(page(name), dark=dark)
            browser().key("Tab")
            silent(f"{name}, {'dark' if dark else 'light'}")
            expect(browser().value("document.getElementById('overlap-switch').hidden") is False,
                   f"{name}: the script did not run")
    equal(browser().value("document.querySelectorAll('script').length"), 2, "scripts of the hostile page")
    equal(browser().value("document.querySelector('h1').textContent").replace("\u240a", "\n"), HOSTILE[:80],
          "the hostile model's name")


def test_pointer_reads_any_cell():
    known = overlaps("large")
    browser().open(page("large"))
    for i, j in ((0, 1), (3, 40), (77, 12), (50, 50), (77, 77)):
        browser().move(*middle_of(cell(i, j, 78)))
        equal(readout(), expected_readout(known["legal", "all", min(i, j), max(i, j)], i, j, "legal, all positions"),
              "readout")
    silent("pointing")


def test_keyboard_reaches_any_cell_of_any_corpus_and_bucket():
    known = overlaps("large")
    browser().open(page("large"))
    for _ in range(200):  # the way there is Tab alone
        browser().key("Tab")
        if browser().value("document.activeElement.id") == "overlap-corpus":
            break
    equal(browser().value("document.activeElement.id"), "overlap-corpus", "where Tab went")
    browser().key("ArrowDown")
    browser().key("Tab")
    equal(browser().value("document.activeElement.id"), "overlap-positions", "where Tab went next")
    browser().key("ArrowDown")
    browser().key("ArrowDown")
    browser().key("Tab")
    equal(browser().value("document.activeElement.id"), "overlap-map", "where Tab went then")
    place = "rag, positions 4,096 to 8,191"
    for key, i, j in (("ArrowDown", 1, 1), ("ArrowRight", 1, 2), ("End", 1, 77), ("PageDown", 77, 77),
                      ("ArrowLeft", 77, 76), ("Home", 77, 0), ("ArrowLeft", 77, 0), ("ArrowUp", 76, 0),
                      ("PageUp", 0, 0), ("ArrowUp", 0, 0), ("ArrowRight", 0, 1)):
        browser().key(key)
        equal(readout(), expected_readout(known["rag", "4096", min(i, j), max(i, j)], i, j, place), f"after {key}")
    expect(browser().value("getComputedStyle(document.getElementById('overlap-map')).outlineStyle") != "none",
           "focus does not show")
    cursor = browser().value("(function(c){return [+c.getAttribute('x'),+c.getAttribute('y')]})"
                             "(document.querySelector('.cursor'))")
    equal(cursor, [66 + 7, 40], "the cursor")
    silent("keys")


def test_switches_redraw_the_map_and_its_table():
    known = overlaps("small")
    browser().open(page("small"))
    for corpus, name in enumerate(("legal", "rag", "code")):
        for bucket, start in enumerate(("all", "64", "128", "256")):
            browser().value(f"(function(c,b){{c.selectedIndex={corpus};b.selectedIndex={bucket};"
                            "b.dispatchEvent(new Event('change'))})(document.getElementById('overlap-corpus'),"
                            "document.getElementById('overlap-positions'))")
            fills = browser().value("Array.from(document.querySelectorAll('.cells path'),p=>p.getAttribute('fill'))")
            texts = browser().value("Array.from(document.querySelectorAll('.matrix td'),t=>t.textContent)")
            equal(len(texts), 144, "entries of the table")
            for at in range(144):
                i, j = sorted((at // 12, at % 12))
                value = known[name, start, i, j][0]
                equal(texts[at], f"{value:.3f}", f"{name}, {start}: entry {i}, {j}")
                near = viridis(value)
                red, green, blue = map(int, re.findall(r"\d+", fills[at]))
                # A value of the page is a thousandth fine.
                expect(max(abs(a - b) for a, b in zip(near, (red, green, blue))) <= 1, f"{fills[at]} for {value}")
    silent("switching")


def viridis(value):
    stops = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
    at = value * 4
    low = min(int(at), 3)
    return [a + (at - low) * (b - a) for a, b in zip(stops[low], stops[low + 1])]


def test_without_scripts_every_figure_and_table_is_there():
    browser().open(page("large"), scripts=False)
    browser().call("Emulation.setScriptExecutionDisabled", value=False)
    equal(browser().value("document.querySelectorAll('.cells path').length"), 78 * 78, "cells")
    equal(browser().value("document.querySelectorAll('details.matrix').length"), 3, "overlap tables")
    equal(browser().value("document.querySelectorAll('svg').length"), 4, "figures")
    equal(browser().value("document.querySelectorAll('button').length"), 0, "buttons that would do nothing")
    equal(browser().value("document.getElementById('overlap-switch').hidden"), True, "switches that would do nothing")
    # 77 + 76 + … + 1 candidates
    rows = browser().value("document.querySelectorAll('[aria-label^=\"Candidates of step\"] tbody tr').length")
    equal(rows, 77 * 78 // 2, "rows of candidates")


def test_copy_buttons_copy():
    b = browser()
    b.open(page("small"))
    b.call("Browser.grantPermissions", session=None, permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    count = b.value("document.querySelectorAll('button.copy').length")
    equal(count, b.value("document.querySelectorAll('pre').length"), "copy buttons")
    expect(count >= 5, f"only {count} copy buttons")
    for at in (0, count - 1):
        b.click(*middle_of(f"document.querySelectorAll('button.copy')[{at}]"))
        text = b.value("navigator.clipboard.readText()")
        equal(text, b.value(f"document.querySelectorAll('pre')[{at}].textContent"), "the clipboard")
        expect(b.value("document.querySelector('.unseen').textContent").startswith("Copied"), "nothing is announced")
    b.value("document.querySelectorAll('button.copy')[1].focus()")
    b.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    equal(b.value("navigator.clipboard.readText()"), b.value("document.querySelectorAll('pre')[1].textContent"), "Enter")
    silent("copying")


def axe():
    found = glob.glob(os.path.join(ROOT, "build", "axe", "*", "axe.min.js"))
    expect(found, "there is no build/axe: scripts/bootstrap.sh check installs it")
    return read(found[0]).decode()


def test_axe_finds_nothing():
    source = axe()
    for name, width, dark in (("small", 1280, False), ("small", 400, True), ("hostile", 1280, True)):
        browser().open(page(name), width=width, dark=dark)
        if name == "small":  # what is folded is looked at too
            browser().value("document.querySelectorAll('details').forEach(d=>d.open=true)")
        browser().value(source + ";0")
        found = browser().value("axe.run(document,{resultTypes:['violations','incomplete']}).then(r=>"
                                "[r.violations.map(v=>v.id+': '+v.nodes[0].html.slice(0,200)+' '"
                                "+v.nodes[0].failureSummary),r.passes.length])")
        equal(found[0], [], f"{name} at {width}: axe")
        expect(found[1] > 20, f"axe ran {found[1]} rules")


LUMINANCE = """
function luminance(c){return [0,1,2].map(i=>c[i]/255).map(v=>v<=0.03928?v/12.92:Math.pow((v+0.055)/1.055,2.4))
  .reduce((s,v,i)=>s+v*[0.2126,0.7152,0.0722][i],0)}
function rgb(s){return s.match(/[\\d.]+/g).map(Number)}
function ratio(a,b){var x=luminance(rgb(a)),y=luminance(rgb(b));return (Math.max(x,y)+0.05)/(Math.min(x,y)+0.05)}
function style(q){return getComputedStyle(document.querySelector(q))}
"""


def test_colours_of_the_figures_have_contrast_in_the_light_and_in_the_dark():
    for dark in (False, True):
        browser().open(page("small"), dark=dark)
        pairs = browser().value(f"""(function(){{{LUMINANCE}
            var paper=style('body').backgroundColor;
            return {{text:[ratio(style('.dsa .soft').fill,paper),ratio(style('.dsa text').fill,paper),
                           ratio(style('.dsa .on-full').fill,style('.dsa .full').fill),
                           ratio(style('.dsa .on-shared').fill,style('.dsa .shared').fill),
                           ratio(style('.dsa .on-budget').fill,paper),ratio(style('p.soft').color,paper),
                           ratio(style('p.soft').color,style('.verdict').backgroundColor)],
                     marks:[ratio(style('.dsa .full').fill,paper),ratio(style('.dsa .shared').stroke,paper),
                            ratio(style('.dsa .point').fill,paper),ratio(style('.dsa .held').stroke,paper),
                            ratio(style('.dsa .budget').stroke,paper),ratio(style('.dsa .other').fill,paper),
                            ratio(style('button').borderTopColor,paper)]}}}})()""")
        for value in pairs["text"]:
            expect(value >= 4.5, f"text contrast {value:.2f} (dark: {dark}): {pairs['text']}")
        for value in pairs["marks"]:
            expect(value >= 3, f"contrast of a mark {value:.2f} (dark: {dark}): {pairs['marks']}")
        paper = browser().value(f"(function(){{{LUMINANCE}return luminance(rgb(style('body').backgroundColor))}})()")
        expect(paper < 0.05 if dark else paper > 0.9, f"paper has luminance {paper} (dark: {dark})")


def test_narrow_pages_scroll_down_only():
    for name in ("small", "large", "hostile"):
        for width in (400, 1280):
            browser().open(page(name), width=width)
            equal(browser().value("document.documentElement.scrollWidth"), width, f"{name} at {width}: its width")


def test_prints_whole_and_within_the_paper():
    b = browser()
    b.open(page("small"), width=700, dark=True)
    b.media("print")
    equal(b.value("document.documentElement.scrollWidth"), 700, "width on paper")
    equal(b.value("Array.from(document.querySelectorAll('nav,button,.switch'),e=>getComputedStyle(e).display)"
                  ".every(d=>d==='none')"), True, "what paper cannot use is gone")
    wide = b.value("Array.from(document.querySelectorAll('svg'),e=>e.getBoundingClientRect().right).every(r=>r<=700)")
    equal(wide, True, "figures fit the paper")
    b.media("")
    data = b.pdf()
    expect(data.startswith(b"%PDF-"), "no PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    expect(3 <= pages <= 12, f"{pages} pages")
    equal(b.value("Array.from(document.querySelectorAll('details')).filter(d=>d.open).length"), 0,
          "details left open behind printing")
    silent("printing")


def screenshots(directory, path):
    os.makedirs(directory, exist_ok=True)
    for width, height, dark, name in ((1280, 1560, False, "report.png"), (1280, 2400, True, "report-1280-dark.png"),
                                      (400, 2800, False, "report-400.png"),
                                      (400, 2800, True, "report-400-dark.png")):
        browser().open(path, width=width, dark=dark)
        browser().screenshot(os.path.join(directory, name), width, height)
        print(os.path.join(directory, name))


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--screenshots"] and len(sys.argv) == 4:
            screenshots(*sys.argv[2:])
        else:
            main(globals())
    finally:
        if "browser" in _kept:
            _kept["browser"].close()
