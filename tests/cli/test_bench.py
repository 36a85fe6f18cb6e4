"""dsacal bench: figures of a small model on the CPU, what it refuses."""
import json
import math
import os
import re
import resource

import harness
from harness import (GLM, ROOT, contents, corpus, equal, expect, good, near, read, refused, results, run, scratch,
                     strict_json, write)

DEMO = os.path.join(ROOT, "calib_data", "demo")
CPU = ("--device", "cpu", "--threads", 1, "--quiet")
_bench = []


def measured(**more):
    """What bench prints of the tiny model, in a file; more: what to change. Also the figures."""
    if not _bench:
        _bench.append(good("bench", "--model", GLM, "--context", 24, "--json", *CPU).json())
    found = {**_bench[0], **more}
    return write(json.dumps(found), scratch(), "bench.json"), found


def costlier(layers):
    """As at a longer context: indexers take three times as long."""
    shared = {l["kind"]: l["seconds_per_token"] for l in layers if l["mode"] == "S"}
    return [{**l, "seconds_per_token": l["seconds_per_token"] * (3 if l["mode"] == "F" else 1) + shared[l["kind"]] *
             (l["mode"] == "F")} for l in layers]


def test_text_and_json_have_every_figure():
    text = good("bench", "--model", DEMO, "--context", 128, *CPU).out
    for word in ("linear q_a", "select, middle", "experts", "compare, 1 candidate", "TFLOP/s", "GB/s", "ceilings"):
        expect(word in text, f"the table has no {word!r}:\n{text}")
    expect(re.search(r"^  \d+ MoE +as F +\d", text, re.M) and re.search(r"^  \d+ dense as S +\d", text, re.M),
           f"no layers in\n{text}")
    found = good("bench", "--model", DEMO, "--context", 128, "--json", *CPU).json()
    equal(found["schema"], 1)
    equal(found["context"], 128)
    equal(found["shape"], None)
    equal(set(found["dimensions"]), {"hidden", "heads", "q_rank", "latent", "rope", "nope", "value", "index_heads",
                                     "index_dim", "index_topk", "dense_inner", "expert_inner", "experts_per_token"},
          "dimensions")
    equal(len(found["operators"]), 37, "operators")
    equal([(l["kind"], l["mode"]) for l in found["layers"]],
          [("dense", "F"), ("dense", "S"), ("moe", "F"), ("moe", "S")], "layers")
    figures = [o[k] for o in found["operators"] for k in ("seconds", "bytes", "share")]
    figures += [l[k] for l in found["layers"] for k in ("seconds_per_token", "operators_seconds_per_token")]
    figures += [found["ceilings"][k] for k in ("product", "flops_per_second", "bytes_per_second")]
    expect(all(math.isfinite(f) and f > 0 for f in figures), "figures are positive")
    expect(all(l["floor_seconds_per_token"] is None for l in found["layers"]), "a floor for the CPU")


def test_what_cannot_be_measured_is_refused():
    refused(run("bench", "--shape", "gpt2"), 2, "--shape", "gpt2")
    refused(run("bench"), 2, "--model", "--shape")
    refused(run("bench", "--shape", "glm5", "--model", GLM), 2, "--model", "--shape")
    refused(run("bench", "--shape", "glm5", "stray"), 2, "stray")
    refused(run("bench", "--shape", "glm5", "--device", "abacus"), 2, "abacus")
    refused(run("bench", "--model", os.path.join(ROOT, "absent"), *CPU), 3, "absent")


def test_too_little_memory_is_one_line():
    refused(run("bench", "--shape", "glm5", "--context", 2000000000, *CPU), 3, "GiB", "free")
    limits = [(resource.RLIMIT_AS, 1 << 30)]
    refused(run("bench", "--shape", "glm5", "--context", 16, *CPU, limits=limits), 3, "memory")


def test_a_report_takes_its_gain_from_measured_costs():
    here, costs = os.path.join(scratch(), "run"), {}
    good("calibrate", "--model", GLM, "--corpus", corpus(6), "--max-shared", 2, "--out", here, *CPU)
    near_file, found = measured()
    far_file, far = measured(context=48, layers=costlier(found["layers"]))
    files = ["--bench", far_file, "--bench", near_file]
    for file in (found, far):
        costs[file["context"]] = {(l["kind"], l["mode"]): l["seconds_per_token"] for l in file["layers"]}
    before, yaml = results(here), read(here, "pattern.yaml").decode()
    equal((before["gain"]["basis"], before["gain"]["device"], before["gain"]["costs"]), ("flops", None, []), "before")
    equal({r["basis"] for r in before["gain"]["rows"]}, {"flops"}, "rows before")
    good("report", here, *files)
    after = results(here)
    equal({k: v for k, v in after.items() if k != "gain"}, {k: v for k, v in before.items() if k != "gain"}, "the rest")
    gain = after["gain"]
    equal((gain["basis"], gain["device"], [c["context"] for c in gain["costs"]]), ("measured", found["device"], [24, 48]),
          "the gain")
    # One dense layer and three with experts; of the four indexers two are left.
    rows = {r["context"]: r for r in gain["rows"]}
    for context, c in costs.items():
        rest = c["dense", "S"] + 3 * c["moe", "S"]
        index = (c["dense", "F"] - c["dense", "S"] + 3 * (c["moe", "F"] - c["moe", "S"])) / 4
        near(rows[context]["prefill"], (rest + 4 * index) / (rest + 2 * index), f"gain at {context}", 1e-9)
        equal(rows[context]["basis"], "measured", "basis")
    equal((rows[28]["basis"], rows[56]["basis"]), ("interpolated", "flops"), "rows between and beyond")
    without = lambda text: re.sub(r"(?ms)^expected_gain:.*?^engines:", "", text)  # noqa: E731
    now = read(here, "pattern.yaml").decode()
    equal(without(now), without(yaml), "the rest of pattern.yaml")
    expect(f"prefill measured on {found['device']}" in now and "basis: \"measured\"" in now, f"no basis in {now}")
    expect("measured layer by layer" in read(here, "report.html").decode(), "the page does not say what was measured")
    # What is in the run stays there: another report, and another budget, show it too.
    page = read(here, "report.html")
    good("report", here)
    equal(read(here, "report.html"), page, "the page again")
    equal(strict_json(good("solve", here, "--max-shared", 1, "--json", "--quiet").out)["gain"]["costs"], gain["costs"],
          "costs after solve")
    good("calibrate", "--model", GLM, "--corpus", corpus(6), "--max-shared", 2, "--out", here, "--resume", *files, *CPU)
    equal(results(here)["gain"], gain, "from calibrate")
    good("report", here, *files[:2])
    equal([c["context"] for c in results(here)["gain"]["costs"]], [48], "new files take the place of the old ones")


def test_costs_of_something_else_are_refused():
    here = os.path.join(scratch(), "run")
    good("calibrate", "--model", GLM, "--corpus", corpus(6), "--max-shared", 1, "--out", here, *CPU)
    own, found = measured()
    before = contents(here)

    def change(**more):
        return measured(**more)[0]

    for name, value in found["dimensions"].items():
        other = change(dimensions={**found["dimensions"], name: value + 1})
        refused(run("report", here, "--bench", other), 3, "bench.json", name)
    refused(run("report", here, "--bench", own, "--bench", change(context=30, device="another")), 3, "another")
    refused(run("report", here, "--bench", own, "--bench", own), 3, "24 tokens")
    refused(run("report", here, "--bench", change(layers=found["layers"][:2])), 3, "with experts")
    refused(run("report", here, "--bench", change(dimensions=None)), 3, "dimensions")
    refused(run("report", here, "--bench", change(schema=2)), 3, "schema")
    refused(run("report", here, "--bench", change(layers=[{"kind": "x", "mode": "F"}])), 3, "kind")
    for text in ("", "[]", "{", '{"schema": 1}'):
        refused(run("report", here, "--bench", write(text, scratch(), "bad.json")), 3, "bad.json")
    refused(run("report", here, "--bench", os.path.join(scratch(), "none.json")), 3, "none.json")
    equal(contents(here), before, "the run")
    other = os.path.join(scratch(), "other")
    refused(run("calibrate", "--model", GLM, "--corpus", corpus(6), "--out", other, "--bench", change(schema=2), *CPU),
            3, "schema")
    equal(os.listdir(other), ["log.txt"], "a run that was refused")


harness.main(globals())
