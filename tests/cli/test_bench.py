"""dsacal bench: figures of a small model on the CPU, what it refuses."""
import math
import os
import re
import resource

import harness
from harness import GLM, ROOT, equal, expect, good, refused, run

DEMO = os.path.join(ROOT, "calib_data", "demo")
CPU = ("--device", "cpu", "--threads", 1, "--quiet")


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


harness.main(globals())
