"""dsacal export: every engine's text parsed as the engine parses it, warnings, and --config-json."""
# sanitizers: yes
import json
import os
import shlex
import stat

import harness
from harness import (GLM, SHARED, V32, contents, equal, expect, good, listing, model, read, refused, run, scratch, write)

PATTERN = "FFSS"
TYPES = ["full", "full", "shared", "shared"]
WORDS = {"full": "F", "shared": "S"}


def yaml_of(pattern=PATTERN, **more):
    lines = [f'pattern: "{pattern}"'] + [f"{k}: {json.dumps(v)}" for k, v in more.items()]
    return write("\n".join(lines) + "\n", scratch(), "p.yaml")


def flag_and_value(text):
    """As a shell would split it, and the engine parse it."""
    flag, value = shlex.split(text)
    return flag, json.loads(value)


def test_every_engine_reads_the_pattern_back():
    file = yaml_of(model={"architecture": "glm_moe_dsa", "name": "it's \"$(rm)\" a `name`"})
    out = {e: good("export", file, "--engine", e, "--strict").out for e in
           ("vllm", "sglang", "trtllm", "transformers", "lmdeploy", "llamacpp")}
    equal(flag_and_value(out["vllm"]), ("--hf-overrides", {"use_index_cache": True, "index_topk_pattern": PATTERN}),
          "vLLM")
    equal(flag_and_value(out["sglang"]), ("--json-model-override-args", {"index_topk_pattern": PATTERN}), "SGLang")
    equal(json.loads(out["trtllm"]), {"index_topk_pattern": PATTERN}, "TensorRT-LLM")
    equal(json.loads(out["transformers"]), {"index_topk_pattern": PATTERN, "indexer_types": TYPES}, "transformers")
    equal(json.loads(out["lmdeploy"]), {"indexer_types": TYPES}, "LMDeploy")
    equal(json.loads(out["llamacpp"]), {"glm-dsa.attention.indexer.types": [1, 1, 0, 0]}, "llama.cpp")


def test_a_pipeline_stage_that_would_start_on_s_is_refused():
    refused(run("export", yaml_of(), "--engine", "vllm", "--pp", 2), 2, "--pp 2", "layer 2", "buffer of its own")
    refused(run("export", yaml_of(), "--engine", "sglang", "--pp", 2), 2, "older versions")
    good("export", yaml_of("FSFS"), "--engine", "vllm", "--pp", 2)


def test_architectures_that_do_not_share_are_warned_about():
    file = yaml_of(model={"architecture": "deepseek_v32"})
    for engine in ("transformers", "lmdeploy", "llamacpp"):
        done = good("export", file, "--engine", engine)
        expect(done.out and done.err.startswith("warning: "), f"no warning: {done}")
        equal(refused(run("export", file, "--engine", engine, "--strict"), 2, "--strict").out, "", "stdout")
    refused(run("export", yaml_of(model={"architecture": "deepseek_v4"}), "--engine", "vllm"), 2, "C4")


def test_a_native_pattern_has_to_be_replaced():
    file = yaml_of("FFSSSS", reference="FFSFSS", model={"architecture": "glm_moe_dsa"})
    done = good("export", file, "--engine", "transformers")
    expect("must be replaced" in done.err, f"no warning: {done}")
    refused(run("export", file, "--engine", "transformers", "--strict"), 2, "must be replaced")
    config = os.path.join(model(SHARED), "config.json")
    done = good("export", file, "--engine", "transformers", "--strict", "--config-json", config)
    expect("warning" not in done.err, f"a warning all the same: {done}")
    equal([WORDS[t] for t in json.loads(read(config))["indexer_types"]], list("FFSSSS"), "the list")
    back = yaml_of("FFFFSS", reference="FFSFSS")
    refused(run("export", back, "--engine", "vllm", "--strict"), 2, "layer 2 is F")


def test_config_json_changes_nothing_but_the_list():
    here = model(GLM)
    config = os.path.join(here, "config.json")
    before = read(config)
    os.chmod(config, 0o640)
    done = good("export", yaml_of(), "--engine", "transformers", "--config-json", config, "--json").json()
    equal(done["config_json"], {"path": config, "original": config + ".orig", "layers": 4,
                                "changed": ["indexer_types"]}, "--json")
    equal(read(config + ".orig"), before, "the original")
    equal(stat.S_IMODE(os.stat(config).st_mode), 0o640, "permissions")
    after = read(config)
    at = next(i for i in range(len(before)) if before[i] != after[i])
    tail = before[at:]
    equal(after[-len(tail):], tail, "what is behind the list")
    added = after[at:len(after) - len(tail)].decode()
    equal(json.loads("{" + added.lstrip(",") + "}"), {"indexer_types": TYPES}, "what was added")
    equal(good("inspect", here, "--json").json()["native_pattern"], PATTERN, "what dsacal reads there")
    # Again, with another pattern: from the same original.
    good("export", yaml_of("FSFS"), "--engine", "trtllm", "--config-json", config)
    equal(read(config + ".orig"), before, "the original")
    equal(json.loads(read(config))["index_topk_pattern"], "FSFS", "letters, for TensorRT-LLM")
    equal(good("inspect", here, "--json").json()["native_pattern"], "FSFS", "what dsacal reads there")
    equal([n for n in listing(here) if "tmp" in n], [], "leftovers")


def test_config_json_of_something_else_is_left_alone():
    for source, pattern, words in ((V32, PATTERN, ("deepseek_v32", "glm_moe_dsa")), (GLM, "FFS", ("4", "3")),
                                   (SHARED, PATTERN, ("6", "4"))):
        here = model(source)
        before = contents(here)
        file = yaml_of(pattern, model={"architecture": "glm_moe_dsa"})
        refused(run("export", file, "--engine", "transformers", "--config-json", os.path.join(here, "config.json")), 2,
                *words)
        equal(contents(here), before, "the checkpoint")
    config = os.path.join(model(GLM), "config.json")
    text = json.loads(read(config))
    write(json.dumps({**text, "num_nextn_predict_layers": 1}), config)
    refused(run("export", yaml_of("FFSSF"), "--engine", "vllm", "--config-json", config), 2, "multi-token prediction")
    strict = yaml_of(model={"architecture": "deepseek_v32"})
    v32 = model(V32)
    refused(run("export", strict, "--engine", "transformers", "--strict", "--config-json",
                os.path.join(v32, "config.json")), 2, "--strict")
    equal("config.json.orig" in listing(v32), False, "a refused export wrote")
    for damage in (b"", b"[1]", b"{", b'{"model_type": "glm_moe_dsa"}', b'{"a": 1, "a": 2}', b"\xff\xfe"):
        refused(run("export", yaml_of(), "--engine", "vllm", "--config-json", write(damage, scratch(), "config.json")),
                3, "config.json")
    refused(run("export", yaml_of(), "--engine", "vllm", "--config-json", os.path.join(scratch(), "none.json")), 3,
            "none.json")
    refused(run("export", yaml_of(), "--engine", "vllm", "--config-json", scratch()), 3)
    write("{}", config + ".orig")
    refused(run("export", yaml_of(), "--engine", "vllm", "--config-json", config), (2, 3), ".orig")


harness.main(globals())
