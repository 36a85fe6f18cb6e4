#!/usr/bin/env python3
"""calibrate and the commands that read its run directory, as a user sees them."""
import json
import math
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import time

from harness import (DEEP, DSACAL, GLM, RUN_FILES, SHARED, TINY, TOPK, V32, contents, corpus, documents, encode,
                     environment, equal, expect, figures, good, jsonl, listing, main, model, near, read, refused, results, run,
                     same_run, scratch, settled, start, strict_json, write, zst)

_shared = {}


def docs():
    if "docs" not in _shared:
        _shared["docs"] = corpus(10)
    return _shared["docs"]


def calibrate(*options, source=GLM, out=None, documents_from=None, **how):
    out = out or os.path.join(scratch(), "run")
    good("calibrate", "--model", source, "--corpus", documents_from or docs(), "--out", out, *options, **how)
    return out


def full():
    """One exact run to the last layer that several tests read; nobody writes into it."""
    if "full" not in _shared:
        _shared["full"] = calibrate("--search", "exact", "--full-trace", "--max-shared", "1")
    return _shared["full"]


def measure(pattern, *options, source=GLM, documents_from=None):
    return good("evaluate", "--model", source, "--corpus", documents_from or docs(), "--pattern", pattern, "--json",
                *options).json()


QUALITY = {"kl": dict, "nll": float, "nll_base": float, "nll_delta": float, "nll_delta_se": float, "top1": float,
           "by_position": list}


def check_quality(quality, where):
    for name, kind in QUALITY.items():
        expect(name in quality, f"{where} has no {name}")
        value = quality[name]
        expect(isinstance(value, kind) or (kind is float and isinstance(value, int)), f"{where}.{name} is {value!r}")
    equal(sorted(quality["kl"]), ["ci95", "max", "mean", "p50", "p90", "p99", "se"], f"{where}.kl")
    for low, high, mean in ((*quality["kl"]["ci95"], quality["kl"]["mean"]),
                            (*quality["nll_delta_ci95"], quality["nll_delta"]), (*quality["top1_ci95"], quality["top1"])):
        expect(low <= mean <= high, f"{where}: {mean} is not in [{low}, {high}]")
    for name, value in quality["kl"].items():
        if name == "ci95":
            continue
        expect(value is not None and value >= 0, f"{where}.kl.{name} is {value!r}")
    # A KL in a bucket is known to 0.9%; the largest is exact.
    kl = quality["kl"]
    expect(kl["p50"] <= kl["p90"] <= kl["p99"] <= 1.01 * kl["max"], f"{where}: quantiles out of order: {kl}")
    near(quality["nll_delta"], quality["nll"] - quality["nll_base"], f"{where}.nll_delta", 1e-9)
    scored = sum(p["scored_tokens"] for p in quality["by_position"])
    equal(scored, quality["scored_tokens"], f"{where}.by_position's tokens")


def test_run_directory_is_complete_and_results_follow_the_contract():
    out = full()
    equal(listing(out), RUN_FILES, "files of the run")
    found = results(out)
    for name, kind in {"schema": int, "layers": int, "index_topk": int, "pattern": str, "base": dict, "trace": list,
                       "best": list, "quality": dict, "heldout": dict, "corpora": dict, "baselines": dict,
                       "noise_floor": dict, "overlap": dict, "stopped_by": str, "work": dict,
                       "provenance": dict}.items():
        expect(isinstance(found.get(name), kind), f"results.{name} is {found.get(name)!r:.80}")
    equal(list(found)[-2:], ["work", "provenance"], "the last names")
    equal((found["schema"], found["layers"], found["index_topk"]), (1, 4, TOPK), "schema, layers, K")
    equal(found["base"]["pattern"], "FFFF", "base")
    equal(sorted(set(found["base"]) & {"nll", "scored_tokens", "documents"}), ["documents", "nll", "scored_tokens"])
    check_quality(found["quality"], "quality")
    check_quality(found["heldout"], "heldout")
    for name, quality in {**found["corpora"], **found["baselines"]}.items():
        check_quality(quality, name)
    equal(sorted(found["corpora"]), ["docs"], "corpora")
    expect({"uniform-1/2", "uniform-1/4"} <= set(found["baselines"]), "uniform baselines are missing")
    equal(found["baselines"]["uniform-1/2"]["pattern"], "FSFS", "uniform-1/2")
    equal(sorted(found["noise_floor"]), ["corpora", "documents", "kl", "kl_se"], "noise floor")
    expect(found["noise_floor"]["kl"] > 0, "noise floor is 0")
    matrix = found["overlap"]["docs"]
    for i in range(4):
        equal(matrix[i][i], 1, "overlap of a layer with itself")
        for j in range(4):
            equal(matrix[i][j], matrix[j][i], "overlap is symmetric")
            expect(0 < matrix[i][j] <= 1, f"overlap {matrix[i][j]}")
    work = found["work"]
    for name in ("token_layers", "refine_token_layers", "head_tokens", "token_layers_naive"):
        expect(isinstance(work[name], int), f"work.{name}")
    expect(0 < work["token_layers"] < work["token_layers_naive"], f"work {work}")
    # Everything read is spent: tokens of calibration documents × layers × (the base and every candidate).
    tokens = sum(d["scored_calibration"] + d["documents_calibration"] * (TOPK + 1)
                 for d in (c["corpus"] for c in found["corpora"].values()))
    asked = 1 + sum(len(step["candidates"]) for step in found["trace"])
    equal(work["token_layers_naive"], tokens * 4 * asked, "naive work")
    split = found["corpora"]["docs"]["corpus"]
    equal((split["documents"], split["documents_calibration"], split["documents_heldout"]), (10, 8, 2), "split")
    equal(split["tokens"], sum(map(len, documents(10))), "tokens")
    equal(split["scored"], sum(len(d) - TOPK - 1 for d in documents(10)), "scored tokens")


def test_trace_is_greedy_and_nested():
    found = results(full())
    pattern = found["base"]["pattern"]
    equal([len(step["candidates"]) for step in found["trace"]], [3, 2, 1], "candidates")
    for number, step in enumerate(found["trace"], 1):
        equal(step["step"], number, "step")
        layers = [c["layer"] for c in step["candidates"]]
        equal(layers, [l for l in range(1, 4) if pattern[l] == "F"], "candidates' layers")
        best = min(step["candidates"], key=lambda c: (c["kl"], c["layer"]))
        equal(step["flip"], best["layer"], "the committed flip")
        equal((step["kl"], step["kl_se"], step["nll"]), (best["kl"], best["kl_se"], best["nll"]), "its figures")
        pattern = pattern[:step["flip"]] + "S" + pattern[step["flip"] + 1:]
        equal(step["pattern"], pattern, "the pattern after it")
        equal({c["documents"] for c in step["candidates"]}, {8}, "documents of candidates")
    equal(found["trace"][-1]["pattern"], "FSSS", "the last pattern")
    shared = [b["shared"] for b in found["best"]]
    equal(shared, sorted(set(shared)), "best per count")
    chain = {step["pattern"].count("S"): step["kl"] for step in found["trace"]}
    for best in found["best"]:
        equal(best["pattern"].count("S"), best["shared"], "best's count")
        expect(best["shared"] == 0 or best["kl"] <= chain[best["shared"]], f"best {best} is worse than the chain")
    rows = read(full(), "trace.csv").decode().splitlines()
    equal(len(rows), 1 + 6, "rows of trace.csv")
    for row, (step, candidate) in zip(rows[1:], ((s, c) for s in found["trace"] for c in s["candidates"])):
        cells = row.split(",")
        equal([int(cells[0]), int(cells[1]), bool(int(cells[2])), float(cells[4])],
              [step["step"], candidate["layer"], candidate["layer"] == step["flip"], candidate["kl"]], "trace.csv")


def test_json_on_stdout_is_results_json():
    out = os.path.join(scratch(), "run")
    done = good("calibrate", "--model", GLM, "--corpus", docs(), "--out", out, "--json", "--max-shared", 1)
    equal(done.json(), results(out), "--json")


def test_pattern_yaml_can_be_measured_and_exported():
    file = os.path.join(full(), "pattern.yaml")
    found = results(full())
    text = read(file).decode()
    equal(len(re.findall(r"^pattern: ", text, re.M)), 1, "pattern lines")
    equal(re.search(r'^pattern: "([FS]+)"$', text, re.M).group(1), found["pattern"], "pattern.yaml")
    equal(re.findall(r"^([a-z_]+):", text, re.M)[-1], "provenance", "the last section")
    for name in ("schema", "model", "corpora", "full_layers", "source_of", "quality", "noise_floor", "baselines",
                 "budget", "stopped_by", "steps", "expected_gain", "engines"):
        expect(re.search(rf"^{name}:", text, re.M), f"pattern.yaml has no {name}")
    pattern = found["pattern"]
    full_layers = [l for l in range(4) if pattern[l] == "F"]
    expect(f"full_layers: {json.dumps(full_layers)}" in text, "full_layers")
    source = [max(f for f in full_layers if f <= l) for l in range(4)]
    expect(f"source_of: {json.dumps(source)}" in text, "source_of")
    equal(measure(file)["pattern"], pattern, "evaluate --pattern FILE")
    try:
        import yaml  # pylint: disable=import-outside-toplevel
    except ImportError:
        return
    data = yaml.safe_load(text)
    equal(data["pattern"], pattern, "pattern")
    equal(data["quality"]["calibration"]["kl"], found["quality"]["kl"]["mean"], "quality")


def test_evaluation_of_the_emitted_pattern_repeats_its_figures():
    out = calibrate("--max-shared", 2, "--holdout", "0")
    found = results(out)
    equal(found["pattern"].count("S"), 2, "shared")
    equal(found["heldout"], None, "heldout")
    again = measure(os.path.join(out, "pattern.yaml"))
    equal(again["quality"], found["quality"], "quality")
    equal(again["base"]["nll"], found["base"]["nll"], "base")
    equal({n: c["kl"] for n, c in again["corpora"].items()}, {n: c["kl"] for n, c in found["corpora"].items()})


def test_out_that_is_not_empty_needs_resume():
    out = calibrate("--max-shared", 1)
    before = contents(out)
    refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", out, "--max-shared", 1), 2, "--resume", out)
    equal(contents(out), before, "the run")
    other = scratch()
    write("mine", other, "thesis.txt")
    for options in ((), ("--resume",)):
        refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", other, *options), 2, other)
        equal(contents(other), {"thesis.txt": b"mine"}, "a directory of other files")
    empty = scratch()
    calibrate("--max-shared", 1, out=empty)
    refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", write("", scratch(), "file")), (2, 3))


def test_resume_starts_where_nothing_is_and_repeats_what_is_finished():
    fresh = calibrate("--max-shared", 1)
    missing = os.path.join(scratch(), "a", "b")
    calibrate("--max-shared", 1, "--resume", out=missing)
    same_run(missing, fresh, "--resume on a missing directory")
    empty = scratch()
    calibrate("--max-shared", 1, "--resume", out=empty)
    same_run(empty, fresh, "--resume on an empty directory")
    journal = read(fresh, "journal")
    first = settled(fresh)
    for name in ("results.json", "pattern.yaml", "report.html", "trace.csv", "overlap.csv"):
        os.unlink(os.path.join(fresh, name))
    date = results(empty)["provenance"]["date"]
    calibrate("--max-shared", 1, "--resume", out=empty)
    equal(results(empty)["provenance"]["date"], date, "date of the journal")
    calibrate("--max-shared", 1, "--resume", out=fresh)
    equal(settled(fresh), first, "--resume on a finished run")
    equal(read(fresh, "journal"), journal, "its journal")
    equal(listing(fresh), RUN_FILES, "files")


def test_resume_with_other_settings_is_refused_by_name():
    out = calibrate("--budget-kl", 2, "--context", 64)
    before = contents(out, "log.txt")
    other_model = model(V32)
    changed = {
        "budget-kl": ("--budget-kl", 3, "--context", 64),
        "context": ("--budget-kl", 2, "--context", 60),
        "seed": ("--budget-kl", 2, "--context", 64, "--seed", 5),
        "batch-tokens": ("--budget-kl", 2, "--context", 64, "--batch-tokens", 99),
        "max-shared": ("--budget-kl", 2, "--context", 64, "--max-shared", 1),
        "holdout": ("--budget-kl", 2, "--context", 64, "--holdout", "0.5"),
        "objective": ("--budget-kl", 2, "--context", 64, "--objective", "nll"),
        "search": ("--budget-kl", 2, "--context", 64, "--search", "naive"),
        "delta": ("--budget-kl", 2, "--context", 64, "--delta", "0.05"),
        "epsilon": ("--budget-kl", 2, "--context", 64, "--epsilon", "5%"),
        "force-full": ("--budget-kl", 2, "--context", 64, "--force-full", "2"),
        "full-trace": ("--budget-kl", 2, "--context", 64, "--full-trace"),
    }
    for field, options in changed.items():
        refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", out, "--resume", *options), 2,
                f'"{field}" was')
        equal(contents(out, "log.txt"), before, f"the run after another {field}")
    same = ("--budget-kl", 2, "--context", 64, "--resume", "--out", out)
    refused(run("calibrate", "--model", GLM, "--corpus", corpus(11), *same), 2, "--corpus")
    renamed = write(read(docs()), scratch(), "other.jsonl")
    refused(run("calibrate", "--model", GLM, "--corpus", renamed, *same), 2, "--corpus")
    refused(run("calibrate", "--model", GLM, "--corpus", docs() + ":weight=2", *same), 2, "--corpus")
    refused(run("calibrate", "--model", other_model, "--corpus", docs(), *same), 2, "model")
    config = json.loads(read(GLM, "config.json"))
    config["routed_scaling_factor"] = 2.25
    altered = model()
    write(json.dumps(config), altered, "config.json")
    refused(run("calibrate", "--model", altered, "--corpus", docs(), *same), 2, "model fingerprint")
    refused(run("overlap", "--model", GLM, "--corpus", docs(), "--context", 64, "--resume", "--out", out), 2)
    equal(contents(out, "log.txt"), before, "the run after all")
    moved = os.path.join(scratch(), "moved")
    shutil.copytree(GLM, moved)
    good("calibrate", "--model", moved, "--corpus", docs(), *same)


def test_held_out_documents_refuse_a_deeper_pattern_that_few_calibration_documents_let_pass():
    """Two documents to calibrate on, six held out: some budget lies between what the two say of a step."""
    few = corpus(8)
    out = calibrate("--full-trace", "--holdout", "75%", "--budget-kl", 1000, "--search", "exact", documents_from=few)
    trace = results(out)["trace"]
    equal((trace[0]["calibration"]["documents"], trace[0]["heldout"]["documents"]), (2, 6), "documents")
    both = [max(step["calibration"]["kl"]["mean"], step["heldout"]["kl"]["mean"]) for step in trace]
    refused_steps = [i for i in range(1, len(trace)) if max(both[:i]) < trace[i]["heldout"]["kl"]["mean"]
                     and trace[i]["calibration"]["kl"]["mean"] < trace[i]["heldout"]["kl"]["mean"]]
    expect(refused_steps, f"no step is worse on held-out documents: {[(s['kl'], b) for s, b in zip(trace, both)]}")
    for i in refused_steps:
        budget = (max(*both[:i], trace[i]["calibration"]["kl"]["mean"]) + both[i]) / 2
        found = results(calibrate("--holdout", "75%", "--budget-kl", repr(budget), "--search", "exact", documents_from=few))
        equal(found["trace"][i]["pattern"], trace[i]["pattern"], "the deeper pattern was committed")
        expect(found["trace"][i]["calibration"]["kl"]["mean"] < budget < found["trace"][i]["heldout"]["kl"]["mean"], budget)
        equal(found["trace"][i]["broken"], "heldout", "what it breaks")
        expect(found["pattern"] != trace[i]["pattern"] and found["heldout"]["kl"]["mean"] < budget, found["pattern"])
        if i == len(trace) - 1:
            equal((found["pattern"], found["stopped_by"]), (trace[i - 1]["pattern"], "heldout"), "emitted, stopped by")


def test_naive_search_gives_the_same_figures():
    options = ("--budget-kl-p99", 2.2, "--full-trace", "--search", "exact", "--no-refine")  # naive does not refine
    for source in (GLM, SHARED):
        exact = results(calibrate(*options, source=source))
        naive = results(calibrate(*options, "--search", "naive", source=source))
        equal((exact["search"], naive["search"]), ("exact", "naive"), "search")
        equal(figures(naive, "search", "work"), figures(exact, "search", "work"), "naive against exact")
        equal(naive["work"]["token_layers"], naive["work"]["token_layers_naive"], "naive work")
        equal(naive["work"]["token_layers_naive"], exact["work"]["token_layers_naive"], "naive work of exact")


def test_racing_measures_its_winners_on_every_document_and_resumes():
    """A wide epsilon ends every race once each has seen a document, so that losers see a part of them."""
    many = corpus(40)
    options = ("--search", "racing", "--budget-kl", 50, "--epsilon", "100%", "--batch-tokens", 100, "--full-trace")
    out = calibrate(*options, documents_from=many)
    found = results(out)
    exact = results(calibrate(*options, "--search", "exact", documents_from=many))
    equal((found["search"], found["delta"], found["epsilon"]), ("racing", 0.01, 50), "search, delta, epsilon")
    equal((exact["search"], exact["delta"], exact["epsilon"]), ("exact", None, None), "an exact search's")
    equal(len(found["trace"]), len(exact["trace"]), "steps")
    calibration, early = exact["trace"][0]["candidates"][0]["documents"], 0
    for step in found["trace"]:
        equal(step["calibration"]["documents"], calibration, "documents of the flip")
        for candidate in step["candidates"]:
            equal(candidate["bound"] is None, candidate["documents"] == calibration, f"bound of {candidate}")
            expect(1 <= candidate["documents"] <= calibration, f"documents of {candidate}")
            early += candidate["documents"] < calibration
    expect(early > 0, "nobody left a race early")
    expect(found["work"]["token_layers"] < exact["work"]["token_layers"], "racing saves no work")
    equal(found["work"]["token_layers_naive"], exact["work"]["token_layers_naive"], "what the published search would run")
    same = [e["pattern"] == f["pattern"] for e, f in zip(exact["trace"], found["trace"])]
    for e, f in [pair for pair, alike in zip(zip(exact["trace"], found["trace"]), same) if alike]:
        equal(f["calibration"], e["calibration"], "figures of a flip that exact search makes too")
    rows = read(out, "trace.csv").decode().splitlines()
    equal(rows[0], "step,layer,committed,objective,kl,kl_se,nll,documents,bound", "columns")
    for row in (line.split(",") for line in rows[1:]):
        equal(row[8] == "", int(row[7]) == calibration, f"bound in {row}")

    # The journal cut at some records: the rest of the race goes as it went.
    journal = read(out, "journal")
    for share in (0.4, 0.7, 0.95):
        cut = os.path.join(scratch(), "cut")
        shutil.copytree(out, cut)
        write(journal[:int(len(journal) * share)], cut, "journal")
        calibrate(*options, "--resume", documents_from=many, out=cut)
        same_run(cut, out, f"resumed from {share} of the journal")
    for threads in (1, 2):
        same_run(calibrate(*options, "--threads", threads, "--host-memory", "1", documents_from=many),
                 out, f"{threads} threads")

    solved = good("solve", out, "--max-shared", 2, "--json").json()
    equal(solved["pattern"], found["trace"][1]["pattern"], "solve")
    equal((solved["search"], solved["epsilon"]), ("racing", 50), "solve's search")
    whole = good("solve", out, "--budget-kl", 40, "--full-trace", "--json")
    equal(whole.json()["trace"], found["trace"], "solve over the raced journal")
    expect("warning" not in whole.err, f"warns: {whole}")
    broken = json.loads(read(out, "results.json"))
    for name, value in (("delta", 0), ("delta", None), ("epsilon", -1)):
        hostile = os.path.join(scratch(), "hostile")
        shutil.copytree(out, hostile)
        write(json.dumps({**broken, name: value}), hostile, "results.json")
        refused(run("solve", hostile), 3, "results.json", name)


def test_epsilon_is_a_share_of_the_budget():
    few = ("--search", "racing", "--max-shared", 1)
    found = results(calibrate(*few, "--budget-kl", 2))
    equal(found["epsilon"], 0.04, "2% of the budget")
    found = results(calibrate(*few, "--budget-nll", 3, "--objective", "nll", "--epsilon", "10%"))
    near(found["epsilon"], 0.3, "10% of the NLL budget")
    found = results(calibrate(*few))
    near(found["epsilon"], 0.02 * max(0.01, 3 * found["noise_floor"]["kl"]), "2% of the default budget")


def test_memory_threads_and_batches_change_no_figure():
    options = ("--budget-kl", 2, "--full-trace")
    for source in (GLM, DEEP, SHARED):
        expected = calibrate(*options, source=source)
        for other in (("--host-memory", "1"), ("--host-memory", "200k"), ("--host-memory", "4GiB"), ("--threads", 1),
                      ("--threads", 2), ("--threads", 4)):
            same_run(calibrate(*options, *other, source=source), expected, f"{other}")
        # When a race looks depends on batches.
        exact = results(calibrate(*options, "--search", "exact", source=source))
        for size in (1, 100, 100000):
            found = results(calibrate(*options, "--search", "exact", "--batch-tokens", size, source=source))
            equal(figures(found, "work"), figures(exact, "work"), f"--batch-tokens {size}")
    one = results(calibrate(*options, "--host-memory", "1"))["provenance"]["executed"]
    expect(one > results(calibrate(*options))["provenance"]["executed"], "a pool for nothing repeats no work")


def holds(quality, bound, value):
    return {"budget-kl": quality["kl"]["mean"] <= value, "budget-nll": quality["nll_delta"] <= value,
            "min-top1": quality["top1"] >= value, "budget-kl-p99": quality["kl"]["p99"] <= value}[bound]


def test_each_bound_stops_the_search_and_holds():
    """The expected emission is worked out from the full trace alone."""
    trace = results(full())["trace"]
    sides = [[step["calibration"], step["heldout"]] for step in trace]
    floor = results(full())["noise_floor"]["kl"]
    # Between the first two steps on both sides, so that the first flip holds and the second does not.
    middle = {
        "budget-kl": lambda q: q["kl"]["mean"], "budget-kl-p99": lambda q: q["kl"]["p99"],
        "min-top1": lambda q: q["top1"], "budget-nll": lambda q: q["nll_delta"]}
    stops = set()
    for bound, figure in middle.items():
        for step in range(len(trace)):
            value = figure(sides[step][0])
            value += 1e-9 if bound != "min-top1" else -1e-9
            if bound == "budget-kl" and value < floor:
                continue
            if bound == "budget-nll" and value < 0:
                value = 0.001
            emitted, stop = -1, None
            for i, (calibration, heldout) in enumerate(sides):
                if not holds(calibration, bound, value):
                    stop = stop or (bound, i)
                    break
                if holds(heldout, bound, value):
                    emitted = i
            last = stop[1] if stop else len(trace)
            if emitted + 1 < last:
                why = "heldout"
            else:
                why = bound if stop else "all-shared"
            found = results(calibrate("--search", "exact", f"--{bound}", repr(value)))
            equal(found["pattern"], trace[emitted]["pattern"] if emitted >= 0 else "FFFF", f"{bound} {value}")
            equal(found["stopped_by"], why, f"stopped_by of {bound} {value}")
            equal(found["trace"], [dict(t, broken=n["broken"]) for t, n in zip(trace, found["trace"])], "trace")
            if emitted >= 0:
                expect(holds(found["quality"], bound, value) and holds(found["heldout"], bound, value), "bound broken")
            stops.add(why)
    expect({"budget-kl", "budget-kl-p99", "min-top1", "all-shared"} <= stops, f"only these stops came up: {stops}")


def test_most_shared_layers_by_count_and_share():
    for value, count in (("0", 0), ("1", 1), ("2", 2), ("50%", 2), ("74%", 2), ("75%", 3), ("0%", 0)):
        found = results(calibrate("--max-shared", value))
        equal(found["pattern"].count("S"), count, f"--max-shared {value}")
        equal(found["stopped_by"], "all-shared" if count == 3 else "max-shared", f"stopped_by of {value}")
    for value, count in (("3", 3), ("4", 4), ("50%", 3), ("5", 5)):
        found = results(calibrate("--max-shared", value, source=SHARED))
        equal(found["pattern"].count("S"), count, f"--max-shared {value} with native ones")
    for value in ("5", "-1", "101%", "x", "1.5", "", "%"):
        refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"),
                    "--max-shared", value), 2, "--max-shared")


def test_full_trace_goes_past_the_budget():
    found = results(full())
    equal(len(found["trace"]), 3, "steps")
    equal(found["pattern"].count("S"), 1, "emitted")
    equal(found["stopped_by"], "max-shared", "stopped_by")
    found = results(calibrate("--full-trace", "--budget-kl", 50))
    equal((found["pattern"], found["stopped_by"]), ("FSSS", "all-shared"), "a budget for everything")


def test_native_shared_layers_stay_shared():
    found = results(calibrate("--full-trace", "--budget-kl", 50, source=SHARED))
    equal(found["base"]["pattern"], "FFSFSS", "base")
    equal([len(s["candidates"]) for s in found["trace"]], [2, 1], "candidates")
    for step in found["trace"]:
        expect(all(step["pattern"][l] == "S" for l in (2, 4, 5)), f"{step['pattern']} puts a native S layer back")
    for name, baseline in found["baselines"].items():
        expect(all(baseline["pattern"][l] == "S" for l in (2, 4, 5)), f"{name} puts a native S layer back")
    refused(run("evaluate", "--model", SHARED, "--corpus", docs(), "--pattern", "FFFFSS"), 2, "--pattern")


def test_constraints_keep_layers_full():
    for options, kept in ((("--force-full", "1"), [1]), (("--force-full", "1-2"), [1, 2]),
                          (("--pp-starts", "0,2"), [2]), (("--pp", 2), [2]), (("--pp", 4), [1, 2, 3]),
                          (("--force-full", "3", "--pp-starts", "1"), [1, 3])):
        found = results(calibrate("--full-trace", "--budget-kl", 50, *options))
        for step in found["trace"]:
            expect(not set(kept) & {c["layer"] for c in step["candidates"]}, f"{options}: a kept layer was tried")
        expected = "".join("F" if l in [0] + kept else "S" for l in range(4))
        equal((found["pattern"], found["stopped_by"]), (expected, "all-shared"), f"{options}")
    for options in (("--force-full", "4"), ("--force-full", "a"), ("--force-full", "2-1"), ("--pp-starts", "1,,2"),
                    ("--pp", 5), ("--force-full", "-1"), ("--force-full", "1,")):
        out = os.path.join(scratch(), "run")
        refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", out, *options), 2, options[0])
        # A slip of the pen must not cost the directory's name.
        calibrate("--max-shared", 1, out=out)


def test_budget_under_the_noise_floor_is_refused_with_both_numbers():
    floor = results(full())["noise_floor"]["kl"]
    done = run("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "run"),
               "--budget-kl", "0.0125")
    refused(done, 2, "0.0125", f"{floor:.6g}", "noise floor")
    equal(done.out, "", "stdout")


def test_default_budget_is_three_noise_floors():
    found = results(calibrate())
    equal(found["budget"]["default"], True, "default")
    near(found["budget"]["kl"], max(0.01, 3 * found["noise_floor"]["kl"]), "budget")


def test_few_documents_are_not_held_out():
    four = corpus(4)
    out = os.path.join(scratch(), "run")
    done = good("calibrate", "--model", GLM, "--corpus", four, "--out", out, "--max-shared", 1)
    expect(re.search(r"^warning: .*nothing held out", done.err, re.M), f"no warning: {done}")
    found = results(out)
    equal(found["heldout"], None, "heldout")
    equal(found["corpora"]["docs"]["corpus"]["documents_calibration"], 4, "documents")
    equal([b["heldout_kl"] for b in found["best"]], [None] * len(found["best"]), "best's held-out figures")
    for share, expected in (("50%", 3), ("20%", 1), ("0.1", 1), ("90%", 4)):
        found = results(calibrate("--max-shared", 0, "--holdout", share, documents_from=corpus(5)))
        equal(found["corpora"]["docs"]["corpus"]["documents_heldout"], expected, f"--holdout {share}")


def test_corpora_are_averaged_by_weight():
    where = scratch()
    first, second = corpus(9, "a.jsonl", where, seed=3), corpus(8, "b.jsonl", where, seed=4, shortest=60, longest=150)
    out = os.path.join(scratch(), "run")
    good("calibrate", "--model", GLM, "--corpus", f"law={first}:weight=3", "--corpus", second, "--out", out,
         "--max-shared", 1)
    found = results(out)
    equal(list(found["corpora"]), ["law", "b"], "names")
    weights = [c["corpus"]["weight"] for c in found["corpora"].values()]
    equal(weights, [3, 1], "weights")

    def check(whole, parts, where_from):
        for name in ("nll", "nll_base", "nll_delta", "top1"):
            near(whole[name], sum(w * p[name] for w, p in zip(weights, parts)) / 4, f"{where_from} {name}", 1e-9)
        near(whole["kl"]["mean"], sum(w * p["kl"]["mean"] for w, p in zip(weights, parts)) / 4, f"{where_from} KL")
        error = math.sqrt(sum((w * p["kl"]["se"]) ** 2 for w, p in zip(weights, parts))) / 4
        near(whole["kl"]["se"], error, f"{where_from} SE of the KL")
        equal(whole["kl"]["max"], max(p["kl"]["max"] for p in parts), f"{where_from} largest KL")

    parts = list(found["corpora"].values())
    check(found["quality"], parts, "calibration")
    check(found["heldout"], [p["heldout"] for p in parts], "held out")
    floors = found["noise_floor"]["corpora"]
    near(found["noise_floor"]["kl"], (3 * floors["law"] + floors["b"]) / 4, "noise floor")
    refused(run("evaluate", "--model", GLM, "--corpus", first, "--corpus", first, "--pattern", "FFFS"), 2, "NAME=")


def test_standard_error_is_the_ratio_estimator_over_documents():
    """Each document alone gives y and n; mean and SE of all are worked out from them."""
    ids = documents(6, seed=8)
    where = scratch()
    alone = []
    for i, document in enumerate(ids):
        alone += ["--corpus", f"d{i}=" + write(jsonl([document]), where, f"{i}.jsonl")]
    parts = good("evaluate", "--model", GLM, "--pattern", "FSFS", "--json", *alone).json()["corpora"]
    n = [len(d) - TOPK - 1 for d in ids]
    equal([p["scored_tokens"] for p in parts.values()], n, "scored tokens")
    y = [p["kl"]["mean"] * count for p, count in zip(parts.values(), n)]
    mean = sum(y) / sum(n)
    error = math.sqrt(6 / 5 * sum((a - mean * b) ** 2 for a, b in zip(y, n))) / sum(n)
    found = measure("FSFS", documents_from=write(jsonl(ids), where, "all.jsonl"))["quality"]
    near(found["kl"]["mean"], mean, "mean KL")
    near(found["kl"]["se"], error, "SE")
    equal(found["kl"]["max"], max(p["kl"]["max"] for p in parts.values()), "largest KL")
    equal(parts["d0"]["kl"]["se"], None, "SE of one document")


def test_worst_scope_binds_the_worst_corpus():
    where = scratch()
    first, second = corpus(6, "a.jsonl", where, seed=3), corpus(6, "b.jsonl", where, seed=4)
    two = ("--model", GLM, "--corpus", first, "--corpus", second, "--pattern", "FFFS")
    found = good("evaluate", *two, "--json").json()
    kl = sorted(c["kl"]["mean"] for c in found["corpora"].values())
    between = (kl[1] + found["quality"]["kl"]["mean"]) / 2
    equal(run("evaluate", *two, "--budget-kl", between).status, 0, "mean")
    equal(run("evaluate", *two, "--budget-kl", between, "--budget-scope", "worst").status, 1, "worst")


def test_evaluate_follows_the_contract_and_gates():
    found = measure("FFSS")
    for name in ("layers", "index_topk", "pattern", "base", "quality", "corpora", "work"):
        expect(name in found, f"evaluate --json has no {name}")
    equal(found["pattern"], "FFSS", "pattern")
    equal(found["quality"]["documents"], 10, "documents: both splits")
    check_quality(found["quality"], "quality")
    kl, p99 = found["quality"]["kl"]["mean"], found["quality"]["kl"]["p99"]
    top1, rise = found["quality"]["top1"], found["quality"]["nll_delta"]
    gates = [(("--budget-kl", kl * 1.01), 0), (("--budget-kl", kl * 0.99), 1), (("--budget-kl-p99", p99 * 1.01), 0),
             (("--budget-kl-p99", p99 * 0.99), 1), (("--min-top1", top1 * 0.99), 0), (("--min-top1", top1 * 1.01), 1),
             (("--budget-nll", max(rise, 0) + 1e-9), 0), (("--budget-nll", 0), int(rise > 0)), (("--max-shared", 2), 0),
             (("--max-shared", 1), 1), (("--max-shared", "25%"), 1), (("--max-shared", 2, "--min-top1", 1), 1)]
    for options, status in gates:
        done = run("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFSS", *options)
        equal(done.status, status, f"{options}")
        equal("broken" in done.out, status == 1, f"stdout of {options}")
    base = measure("FFFF")["quality"]
    equal((base["kl"]["mean"], base["kl"]["max"], base["nll_delta"], base["top1"]), (0, 0, 0, 1), "the base itself")


def test_impossible_patterns_are_refused():
    for pattern, word in (("SFFF", "first"), ("FFF", "4"), ("FFFFF", "4"), ("FFFs", "--pattern"), ("ffff", "--pattern"),
                          ("", "--pattern"), ("FFXS", "FFXS")):
        done = run("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", pattern)
        refused(done, (2, 3))
        expect(word.lower() in done.err.lower(), f"{pattern}: {done}")
    refused(run("evaluate", "--model", GLM, "--corpus", docs()), 2, "--pattern")
    refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), "--baseline",
                "FFS"), 2, "--baseline")


def test_baselines_are_measured_beside():
    out = calibrate("--max-shared", 0, "--holdout", 0, "--baseline", "FFSF", "--baseline",
                    os.path.join(full(), "pattern.yaml"))
    found = results(out)
    equal(len(found["baselines"]), 4 if results(full())["pattern"] != "FFSF" else 3, "baselines")
    equal(found["baselines"]["FFSF"]["kl"], measure("FFSF")["quality"]["kl"], "FFSF")
    equal(good("solve", out, "--max-shared", 0, "--json").json()["baselines"], found["baselines"], "solve's baselines")


def test_overlap_tells_what_a_precision_changes():
    fp8 = os.path.join(TINY, "glm-fp8-ue8m0")  # FSF, index heads of 32
    words = ("overlap", "--model", fp8, "--corpus", docs(), "--indexer-precision")
    runs = {p: os.path.join(scratch(), p) for p in ("f32", "bf16", "fp8")}
    for precision, out in runs.items():
        done = good(*words, precision, "--out", out, "--json")
        share = done.json().get("overlap_with_f32", {}).get("docs")
        if precision == "f32":
            equal(share, None, "shares")
            continue
        equal([x is None for x in share], [False, True, False], "which layers have a share")
        least, most = (0.9, 1) if precision == "bf16" else (0.5, 0.999)
        expect(all(least < x <= most for x in share if x is not None), f"{precision}: {share}")
        # What the journal keeps is all of it.
        equal(figures(good(*words, precision, "--out", out, "--json", "--resume").json()), figures(done.json()), "--resume")
        text = good(*words, precision, "--out", out, "--resume").out
        expect(f"docs: in {precision}, indexers select 0." in text, text)
    refused(run(*words, "f32", "--out", runs["fp8"], "--resume"), 2, "indexer-precision")
    refused(run("overlap", "--model", GLM, "--corpus", docs(), "--indexer-precision", "fp8", "--out",
                os.path.join(scratch(), "run")), 2, "index_head_dim", "14", "power of two")
    # The precision is the run's: its figures are others.
    kl = [good("evaluate", "--model", fp8, "--corpus", docs(), "--pattern", "FSS", "--indexer-precision", p,
               "--json").json()["quality"]["kl"]["mean"] for p in runs]
    expect(len(set(kl)) == 3, f"KL {kl}")


def test_overlap_writes_its_files():
    out = os.path.join(scratch(), "run")
    done = good("overlap", "--model", GLM, "--corpus", docs(), "--out", out, "--json")
    equal(listing(out), ["config.yaml", "journal", "log.txt", "overlap.csv", "overlap.json", "tokens"], "files")
    equal(figures(done.json()), figures(strict_json(read(out, "overlap.json").decode())), "--json")
    # All documents count here; with nothing held out calibrate sees the same ones.
    whole = results(calibrate("--max-shared", 0, "--holdout", 0))
    equal(done.json()["overlap"], whole["overlap"], "overlap")
    csv = read(out, "overlap.csv")
    good("overlap", "--model", GLM, "--corpus", docs(), "--out", out, "--resume")
    equal(read(out, "overlap.csv"), csv, "--resume")
    refused(run("overlap", "--model", GLM, "--corpus", docs(), "--out", out), 2, "--resume")
    refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", out, "--resume"), 2)


def test_solve_equals_a_fresh_run_with_that_budget():
    before = contents(full())
    kl = [step["kl"] for step in results(full())["trace"]]
    for options in (("--budget-kl", kl[1] * 0.999), ("--budget-kl", kl[1] * 1.001), ("--budget-kl", 50),
                    ("--max-shared", 2), ("--min-top1", 0.2), ()):
        solved = good("solve", full(), *options, "--json").json()
        fresh = results(calibrate("--search", "exact", *options))
        for name in ("pattern", "stopped_by", "quality", "heldout", "corpora", "budget", "base", "noise_floor",
                     "baselines", "model", "layers"):
            equal(solved[name], fresh[name], f"{options} {name}")
        equal(solved["trace"], fresh["trace"], f"{options} trace")
    file = os.path.join(scratch(), "strict.yaml")
    done = good("solve", full(), "--max-shared", 3, "--out", file)
    expect("pattern       FSSS" in done.out, f"stdout: {done.out}")
    equal(measure(file)["pattern"], "FSSS", "solve --out")
    equal(contents(full()), before, "the run")
    refused(run("solve", full(), "--budget-kl", "0.001"), 2, "noise floor")
    refused(run("solve"), 2, "RUN")
    refused(run("solve", scratch()), 3, "results.json")


def test_solve_warns_where_the_trace_ends():
    out = calibrate("--max-shared", 1)
    done = good("solve", out, "--max-shared", 3, "--json")
    expect("--full-trace" in done.err, f"no warning: {done}")
    equal(done.json()["pattern"].count("S"), 1, "as far as the trace goes")


def test_solve_reads_what_refinement_found():
    """A run that ends after one step knows one pattern of two shared, a baseline, which is passed off as refined."""
    out = calibrate("--max-shared", 1, "--holdout", 0, "--no-refine")
    found = results(out)
    bounds = ("--budget-kl", 5, "--json")
    alone = good("solve", out, *bounds).json()
    equal(alone["pattern"], found["trace"][0]["pattern"], "the journal knows one step")
    write(json.dumps({**found, "refined": [{"shared": 2, "pattern": "FSFS"}]}), out, "results.json")
    solved = good("solve", out, *bounds).json()
    equal(solved["pattern"], "FSFS", "the deepest that holds")
    equal(solved["quality"]["kl"], found["baselines"]["uniform-1/2"]["kl"], "its figures, from the journal")
    equal(solved["trace"], alone["trace"], "greedy's chain")
    equal([r["shared"] for r in solved["refined"]], [2], "refined")
    equal(good("solve", out, "--max-shared", 1, "--json").json()["pattern"], alone["pattern"], "what shares too much")
    # Of equal count, only what is better than greedy's.
    flip = found["trace"][0]["flip"]
    worse = "F" + "".join("S" if layer == flip % 3 + 1 else "F" for layer in (1, 2, 3))
    write(json.dumps({**found, "refined": [{"shared": 1, "pattern": worse}]}), out, "results.json")
    solved = good("solve", out, *bounds).json()
    equal((solved["pattern"], solved["refined"]), (alone["pattern"], []), "not better than greedy's")
    for wrong in ({"shared": 2}, {"pattern": "FSS"}, {"pattern": "FXSS"}, 7):
        write(json.dumps({**found, "refined": [wrong]}), out, "results.json")
        refused(run("solve", out), 3, "results.json", "refined")


def test_refinement_can_be_turned_off_and_changes_no_greedy_step():
    off, on = results(calibrate("--full-trace", "--no-refine")), results(calibrate("--full-trace"))
    equal((off["refine_work"], off["refined"], off["work"]["refine_token_layers"]), (None, [], 0), "off")
    equal(off["trace"], on["trace"], "greedy's chain")
    equal(off["work"]["token_layers"], on["work"]["token_layers"], "greedy's work")
    expect(0 < on["work"]["refine_token_layers"] <= on["work"]["token_layers"], f"refinement's work: {on['work']}")
    small = results(calibrate("--full-trace", "--refine-work", 0.01))["work"]
    expect(small["refine_token_layers"] <= 0.01 * small["token_layers"], f"--refine-work 0.01: {small}")


def test_solve_keeps_the_runs_objective_and_constraints():
    out = calibrate("--objective", "nll", "--full-trace", "--budget-kl", 50, "--force-full", "2")
    done = good("solve", out, "--max-shared", 1, "--json")
    expect("warning" not in done.err, f"warns: {done}")
    equal(done.json()["pattern"], results(out)["trace"][0]["pattern"], "pattern")
    equal(done.json()["objective"], "nll", "objective")
    found = results(out)["trace"][0]
    equal(found["flip"], min(found["candidates"], key=lambda c: (c["nll"], c["layer"]))["layer"], "flip by NLL")


def test_report_repeats_itself():
    out = calibrate("--max-shared", 1)
    page = read(out, "report.html")
    expect(b"<html" in page and b"<svg" in page, "no page")
    expect(b"http://" not in page.replace(b"http://www.w3.org/", b"") and b"https://" not in page, "loads from outside")
    os.unlink(os.path.join(out, "report.html"))
    before = contents(out)
    figures_in = os.path.join(scratch(), "figures")
    done = good("report", out, "--svg", figures_in)
    equal(done.out, "", "stdout")
    equal(read(out, "report.html"), page, "report.html")
    equal(contents(out, "report.html"), before, "the other files")
    equal(listing(figures_in), ["curve.svg", "overlap-1.svg", "pattern.svg", "sensitivity.svg"], "figures")
    for name in listing(figures_in):
        expect(read(figures_in, name).startswith((b"<svg", b"<?xml")), name)
    refused(run("report", scratch()), 3, "results.json")
    refused(run("report"), 2, "RUN")


def test_exports_read_back_to_the_pattern():
    file = os.path.join(full(), "pattern.yaml")
    pattern = results(full())["pattern"]
    types = ["full" if letter == "F" else "shared" for letter in pattern]
    vllm = good("export", file, "--engine", "vllm").out
    flag, value = re.fullmatch(r"(--[a-z-]+) '(.*)'\n", vllm).groups()
    equal(flag, "--hf-overrides", "vLLM's flag")
    equal(json.loads(value), {"use_index_cache": True, "index_topk_pattern": pattern}, "vLLM")
    sglang = good("export", file, "--engine", "sglang").out
    flag, value = re.fullmatch(r"(--[a-z-]+) '(.*)'\n", sglang).groups()
    equal((flag, json.loads(value)), ("--json-model-override-args", {"index_topk_pattern": pattern}), "SGLang")
    equal(json.loads(good("export", file, "--engine", "transformers").out),
          {"index_topk_pattern": pattern, "indexer_types": types}, "transformers")
    data = good("export", file, "--engine", "vllm", "--json").json()
    equal((data["pattern"], data["warnings"], data["text"]), (pattern, [], vllm.rstrip("\n")), "--json")
    good("export", file, "--engine", "vllm", "--strict")
    # deepseek_v32 in transformers ignores S layers: a warning, an error under --strict.
    other = os.path.join(calibrate("--max-shared", 1, source=V32), "pattern.yaml")
    done = good("export", other, "--engine", "transformers")
    expect(done.err.startswith("warning: "), f"no warning: {done}")
    equal(len(good("export", other, "--engine", "transformers", "--json").json()["warnings"]), 1, "warnings")
    strict = refused(run("export", other, "--engine", "transformers", "--strict"), 2, "--strict")
    equal(strict.out, "", "stdout of --strict")
    refused(run("export", file), 2, "--engine")
    refused(run("export", file, "--engine", "unheard"), 2, "--engine")
    refused(run("export", "--engine", "vllm"), 2)
    refused(run("export", os.path.join(scratch(), "none.yaml"), "--engine", "vllm"), 3, "none.yaml")
    shared = write('pattern: "FFSS"\n', scratch(), "p.yaml")
    refused(run("export", shared, "--engine", "vllm", "--pp", 2), 2, "--pp")
    equal(json.loads(good("export", shared, "--engine", "trtllm").out), {"index_topk_pattern": "FFSS"}, "one line")
    refused(run("export", file, "--engine", "vllm", "--pp", 9), 2, "--pp")


def test_inspect_and_tokenize():
    found = good("inspect", SHARED, "--json").json()
    equal((found["architecture"], found["layers"], found["index_topk"], found["native_pattern"],
           found["native_pattern_is_explicit"], found["files"], found["vocabulary"]),
          ("glm_moe_dsa", 6, 7, "FFSFSS", True, 2, 101), "inspect")
    expect("FFSFSS" in good("inspect", SHARED).out, "inspect's text")
    fp8 = os.path.join(TINY, "glm-fp8-ue8m0")
    found = good("inspect", fp8, "--json").json()
    equal((found["quantisation"], found["scale_format"], found["scale_block_rows"], found["scale_block_columns"]),
          ("fp8", "ue8m0", 128, 128), "quantisation")
    equal(sum(found["stored_bytes_as"].values()), found["stored_bytes"], "bytes as stored")
    expect(found["stored_bytes_as"]["F8_E4M3"] > found["stored_bytes"] / 2, f"{found['stored_bytes_as']}")
    expect("FP8 e4m3" in good("inspect", fp8).out, "inspect's text")
    equal(good("inspect", GLM, "--json").json()["quantisation"], None, "quantisation")
    refused(run("inspect", os.path.join(scratch(), "none")), 3, "none")
    refused(run("inspect"), 2)
    refused(run("inspect", GLM, V32), 2)
    here = model(with_tokenizer=True)
    words = "the cat then sat\nthere: th, t h"
    text = write(words, scratch(), "a.txt")
    lines = write(json.dumps({"text": "bath the"}) + "\n" + json.dumps({"prompt": "a b", "completion": "the"}) + "\n",
                  scratch(), "b.jsonl")
    done = good("tokenize", "--model", here, text, lines)
    equal([list(map(int, line.split())) for line in done.out.splitlines()],
          [encode(words), encode("bath the"), encode("a b") + encode("the")], "ids")
    refused(run("tokenize", "--model", here), 2)
    refused(run("tokenize", "--model", GLM, text), 3, "tokenizer.json")
    refused(run("tokenize", "--model", here, os.path.join(scratch(), "none.txt")), 3, "none.txt")


def test_help_and_wrong_usage():
    listed = good("help").out
    commands = ["calibrate", "evaluate", "overlap", "solve", "report", "export", "inspect", "tokenize", "bench",
                "completion", "help"]
    for command in commands:
        expect(re.search(rf"^  {command} ", listed, re.M), f"help does not list {command}")
        about = good("help", command).out
        equal(good(command, "--help").out, about, f"{command} --help") if command != "help" else None
    equal(good("--help").out, listed, "--help")
    expect(re.match(r"dsacal \d+\.\d+\.\d+ ", good("--version").out), "--version")
    equal(run().status, 2, "no command")
    refused(run("calibrat"), 2, "calibrat")
    refused(run("help", "calibrat"), 2, "calibrat")
    refused(run("calibrate", "--model", GLM, "--bogus"), 2, "--bogus")
    refused(run("calibrate", "-q"), 2, "-q")
    refused(run("calibrate", "--model"), 2, "--model")
    refused(run("solve", "x", "--model", "y"), 2, "--model", "solve")
    refused(run("calibrate", "--model=" + GLM, "--quiet=yes"), 2, "--quiet")
    refused(run("calibrate"), 2, "--model")
    refused(run("calibrate", "--model", GLM), 2, "--corpus")
    refused(run("calibrate", "--model", GLM, "--corpus", docs()), 2, "--out")
    refused(run("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFFF", "stray"), 2, "stray")
    refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), "--device",
                "abacus"), (2, 3), "abacus")
    for option, value in (("--context", "-3"), ("--context", "1e3"), ("--context", "1"), ("--threads", "x"),
                          ("--threads", "99999999999999999999"), ("--host-memory", "4Q"), ("--holdout", "120%"),
                          ("--budget-kl", "nan"), ("--budget-kl", "x"), ("--budget-kl", "-1"), ("--budget-nll", "-0.1"), ("--min-top1", "1.5"),
                          ("--search", "racy"), ("--search", ""), ("--delta", 0), ("--delta", 1), ("--delta", "x"),
                          ("--epsilon", "200%"), ("--epsilon", "-1%"), ("--objective", "k"),
                          ("--batch-tokens", "-1"), ("--threads", "5000"), ("--holdout", "95%"),
                          ("--indexer-precision", "fp4")):
        refused(run("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), option,
                    value), 2, option)
    for value in ("=" + docs(), docs() + ":weight=0", docs() + ":weight=x", "x=", ":weight=1"):
        refused(run("evaluate", "--model", GLM, "--pattern", "FFFF", "--corpus", value), 2, "--corpus")


def test_of_an_option_given_twice_the_last_counts():
    equal(results(calibrate("--max-shared", 3, "--max-shared", 1))["pattern"].count("S"), 1, "S layers")


def test_corpora_come_in_every_form():
    """Text, prompt + completion, ids, a directory, zstd and stdin: the same tokens give the same figures."""
    here = model(with_tokenizer=True)
    texts = ["the first of these documents says this and that " * 2, "another thing there, and then some more text",
             "a third one that tells of other things\nin two lines"]
    ids = [encode(t) for t in texts]
    where = scratch()
    as_ids = write(jsonl(ids), where, "ids.jsonl")
    expected = measure("FSFS", source=here, documents_from="x=" + as_ids)
    folder = os.path.join(where, "folder")
    os.makedirs(os.path.join(folder, "sub"))
    write(texts[0], folder, "a.txt")
    write(zst(texts[1].encode()), folder, "b.txt.zst")
    write(texts[2], folder, "sub", "c.md")
    write("not read", folder, ".hidden")
    as_text = "".join(json.dumps({"text": t, "other": 1}) + "\n\n" for t in texts).encode()
    forms = {"folder": folder, "text": write(as_text, where, "t.jsonl"), "zst": write(zst(as_text), where, "z.jsonl.zst"),
             "ids.zst": write(zst(jsonl(ids)), where, "i.jsonl.zst")}
    for name, path in forms.items():
        found = measure("FSFS", source=here, documents_from="x=" + path)
        equal(found["quality"], expected["quality"], name)
    for name, data in {"stdin": jsonl(ids), "stdin zst": zst(as_text)}.items():
        found = good("evaluate", "--model", here, "--corpus", "x=-", "--pattern", "FSFS", "--json", stdin=data).json()
        equal(found["quality"], expected["quality"], name)
    masked = measure("FSFS", source=here, documents_from="x=" + write("".join(
        json.dumps({"input_ids": i, "loss_mask": [0] * 20 + [1] * (len(i) - 20)}) + "\n" for i in ids), where,
        "mask.jsonl"))
    equal(masked["quality"]["scored_tokens"], sum(len(i) - 20 for i in ids), "masked tokens")
    halves = measure("FSFS", source=here, documents_from="x=" + write("".join(
        json.dumps({"prompt": t[:20], "completion": t[20:]}) + "\n" for t in texts), where, "p.jsonl"))
    cut = [encode(t[:20]) + encode(t[20:]) for t in texts]
    equal(halves["quality"]["scored_tokens"], sum(len(encode(t[20:])) for t in texts), "tokens of completions")
    again = measure("FSFS", source=here, documents_from="x=" + write("".join(json.dumps(
        {"input_ids": i, "loss_mask": [t >= len(encode(texts[n][:20])) for t in range(len(i))]}) + "\n"
        for n, i in enumerate(cut)), where, "m.jsonl"))
    equal(again["quality"], halves["quality"], "prompt + completion against ids + mask")


def test_context_and_token_limits_are_reported():
    done = good("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFFS", "--context", 30, "--json")
    expect(re.search(r"^warning: .*cut to --context 30", done.err, re.M), f"no warning: {done}")
    found = done.json()["corpora"]["docs"]
    equal(found["scored_tokens"], sum(min(len(d), 30) - TOPK - 1 for d in documents(10)), "scored tokens")
    equal(found["corpus"]["cut"], sum(len(d) > 30 for d in documents(10)), "documents cut")
    found = measure("FFFS", "--max-tokens", 100)["corpora"]["docs"]["corpus"]
    total = count = 0
    for document in documents(10):
        if total >= 100:
            break
        total, count = total + len(document), count + 1
    equal((found["documents"], found["tokens"]), (count, total), "--max-tokens")
    refused(run("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFFS", "--context", TOPK + 1), 3,
            "--context")


def test_stdin_corpus_is_kept_for_resume():
    out = os.path.join(scratch(), "run")
    options = ("calibrate", "--model", GLM, "--corpus", "docs=-", "--out", out, "--max-shared", 1)
    good(*options, stdin=read(docs()))
    same_run(out, calibrate("--max-shared", 1), "stdin")
    first = settled(out)
    good(*options, "--resume")
    equal(settled(out), first, "--resume without stdin")
    refused(run("evaluate", "--model", GLM, "--corpus", "a=-", "--corpus", "b=-", "--pattern", "FFFF"), 2, "standard")


def test_stdout_has_results_only():
    done = good("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), "--max-shared", 1)
    expect("\x1b" not in done.out + done.err and "\r" not in done.out + done.err, "escapes without a terminal")
    expect(done.out.startswith("pattern"), f"stdout: {done.out}")
    expect("corpus docs:" in done.err and "corpus docs:" not in done.out, "notes")
    expect(re.search(r"^\[0:0\d\] step 1: \d candidates", done.err, re.M), f"no timed lines: {done}")
    quiet = good("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), "--max-shared",
                 1, "--quiet")
    equal(quiet.err, "", "--quiet")
    still = good("calibrate", "--model", GLM, "--corpus", docs(), "--out", os.path.join(scratch(), "r"), "--max-shared",
                 1, "--no-progress")
    expect("step 1" not in still.err and "corpus docs:" in still.err, f"--no-progress: {still}")
    expect(len(quiet.out) > 100, "--quiet hides results")


def on_terminal(*args, env=None):
    """Standard error is a terminal; returns what it was sent."""
    parent, child = pty.openpty()
    process = start(*args, stderr=child, env=environment(dict(env or {}, TERM="xterm")), stdin=subprocess.DEVNULL)
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(parent)
    out = process.communicate()[0]
    return process.returncode, out.decode(), seen.decode()


def test_terminal_gets_a_bar_and_colour_unless_refused():
    options = ("calibrate", "--model", GLM, "--corpus", corpus(4), "--max-shared", 1, "--out")
    status, out, seen = on_terminal(*options, os.path.join(scratch(), "r"))
    equal(status, 0, f"exit on a terminal: {seen}")
    expect("\r" in seen and "[" in seen and "batches" in seen, f"no bar: {seen!r}")
    expect("\x1b[33mwarning:" in seen, f"no colour: {seen!r}")
    expect("\x1b" not in out, "escapes on stdout")
    expect(seen.replace("\r\n", "\n").rstrip().endswith("\x1b[K") or "batches" not in seen.split("\r\x1b[K")[-1],
           "the bar is left standing")
    status, out, seen = on_terminal(*options, os.path.join(scratch(), "r"), env={"NO_COLOR": "1"})
    expect("\x1b[33m" not in seen, f"colour in spite of NO_COLOR: {seen!r}")
    status, out, seen = on_terminal(*options, os.path.join(scratch(), "r"), "--no-progress", env={"NO_COLOR": "1"})
    expect("\x1b" not in seen and "batches" not in seen, f"--no-progress with NO_COLOR: {seen!r}")


def wait_for(path, process, seconds=60):
    until = time.time() + seconds
    while not os.path.exists(path):
        expect(process.poll() is None, f"ended before {path} was there")
        expect(time.time() < until, f"{path} never came")
        time.sleep(0.002)


def slow():
    if "slow" not in _shared:
        _shared["slow"] = corpus(120, shortest=80, longest=160)
    return _shared["slow"]


def test_signal_interrupts_resumably():
    whole = calibrate("--max-shared", 2, "--threads", 1, documents_from=slow())
    for number in (signal.SIGTERM, signal.SIGINT):
        out = os.path.join(scratch(), "a user's run")
        options = ("calibrate", "--model", GLM, "--corpus", slow(), "--max-shared", 2, "--threads", 1, "--out", out)
        process = start(*options)
        wait_for(os.path.join(out, "journal"), process)
        process.send_signal(number)
        _, err = process.communicate()
        equal(process.returncode, 75, f"exit after signal {number}: {err.decode()}")
        lines = err.decode().splitlines()
        expect(lines[-1].startswith("dsacal: to go on: ") and lines[-1].endswith(" --resume"), f"no advice: {lines}")
        expect(not os.path.exists(os.path.join(out, "results.json")), "results of an interrupted run")
        subprocess.run(lines[-1].split(": ", 2)[2], shell=True, check=True, capture_output=True)
        same_run(out, whole, f"resumed after signal {number}")


def test_documents_without_a_journal_are_read_again():
    """A process that died between the two must not tie the directory to its settings."""
    out = calibrate("--max-shared", 1, "--context", 40)
    for name in listing(out):
        if name not in ("tokens", "log.txt"):
            os.unlink(os.path.join(out, name))
    write(b"", out, "journal")
    calibrate("--max-shared", 1, "--context", 50, "--resume", out=out)
    same_run(out, calibrate("--max-shared", 1, "--context", 50), "another context")


def test_second_signal_ends_at_once():
    fifo = os.path.join(scratch(), "never.jsonl")
    os.mkfifo(fifo)
    out = os.path.join(scratch(), "run")
    process = start("calibrate", "--model", GLM, "--corpus", fifo, "--out", out)
    wait_for(os.path.join(out, "log.txt"), process)
    time.sleep(0.3)  # it waits for a writer of the pipe
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    expect(process.poll() is None, "the first signal ended it")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    equal(process.returncode, 128 + signal.SIGTERM, "exit")


def test_signal_while_documents_are_read_interrupts_too():
    fifo = os.path.join(scratch(), "slow.jsonl")
    os.mkfifo(fifo)
    out = os.path.join(scratch(), "run")
    process = start("calibrate", "--model", GLM, "--corpus", "docs=" + fifo, "--out", out, "--max-shared", 1)
    with open(fifo, "wb") as pipe:
        pipe.write(jsonl(documents(1)))
        pipe.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        pipe.write(jsonl(documents(400)))
    _, err = process.communicate(timeout=20)
    equal(process.returncode, 75, f"exit: {err.decode()}")
    equal(listing(out), ["log.txt"], "files")
    calibrate("--max-shared", 1, out=out)


def test_two_processes_do_not_share_a_run():
    out = os.path.join(scratch(), "run")
    options = ("calibrate", "--model", GLM, "--corpus", slow(), "--max-shared", 2, "--threads", 1, "--out", out)
    process = start(*options)
    wait_for(os.path.join(out, "config.yaml"), process)
    refused(run(*options, "--resume"), 2, "another dsacal")
    _, err = process.communicate()
    equal(process.returncode, 0, err.decode())


def test_evaluate_leaves_no_temporary_files():
    temporary = scratch()
    env = {"TMPDIR": temporary}
    good("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFFS", env=env)
    equal(listing(temporary), [], "after success")
    refused(run("evaluate", "--model", GLM, "--corpus", write("{", scratch(), "x.jsonl"), "--pattern", "FFFS", env=env), 3)
    equal(listing(temporary), [], "after an error")
    process = start("evaluate", "--model", GLM, "--corpus", slow(), "--pattern", "FFFS", "--threads", 1,
                    env=environment(env))
    until = time.time() + 30
    while not listing(temporary) and time.time() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    equal((process.returncode, listing(temporary)), (75, []), "after a signal")
    refused(run("evaluate", "--model", GLM, "--corpus", docs(), "--pattern", "FFFS",
                env={"TMPDIR": os.path.join(temporary, "none")}), 3, "TMPDIR")


def test_figures_do_not_hang_on_the_working_directory_or_locale():
    found = good("evaluate", "--model", os.path.relpath(GLM, os.path.dirname(docs())), "--corpus",
                 os.path.basename(docs()), "--pattern", "FFFS", "--json", cwd=os.path.dirname(docs()),
                 env={"LC_ALL": "de_DE.UTF-8"}).json()
    equal(figures(found), figures(measure("FFFS")), "figures")


def test_program_is_executable():
    expect(os.stat(DSACAL).st_mode & stat.S_IXUSR, f"{DSACAL}: build it with make")


main(globals())
