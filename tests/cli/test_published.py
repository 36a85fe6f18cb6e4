#!/usr/bin/env python3
"""Published checkpoints without their weights (scripts/published_model.py): inspect and --dry-run."""
import json
import os
import subprocess
import sys
import time

from harness import ROOT, equal, expect, good, main, near, refused, run, scratch, write

SCRIPT = os.path.join(ROOT, "scripts", "published_model.py")
FULL_52 = [0, 1, 2, *range(6, 75, 4)]  # GLM-5.2's indexers
GIB = 1 << 30


def published(name, *args):
    folder = os.path.join(scratch(), name)
    subprocess.run([sys.executable, SCRIPT, name, "--out", folder, *args], check=True, stdout=subprocess.DEVNULL)
    return folder


def inspected(folder, *args):
    return good("inspect", folder, "--json", *args).json()


def on_disk(folder):
    return sum(os.stat(os.path.join(folder, name)).st_blocks * 512 for name in os.listdir(folder))


def test_a_checkpoint_of_689_gb_is_inspected_from_headers_alone():
    folder = published("deepseek-v3.2")
    expect(on_disk(folder) < 64 << 20, f"{on_disk(folder)} bytes of disk")
    begun = time.monotonic()
    found = inspected(folder)
    expect(time.monotonic() - begun < 90, f"{time.monotonic() - begun:.0f} s: read ahead of every sampled block?")
    equal((found["layers"], found["dense_layers"], found["native_pattern"], found["quantisation"]),
          (61, 3, "F" * 61, "fp8"), "architecture")
    weights = found["weights"]
    parts = [weights[part]["stored_bytes"] for part in ("outside", "dense", "moe")]
    equal(sum(parts) + weights["unused_stored_bytes"], found["stored_bytes"], "the parts together")
    # Embeddings and head in BF16, the final norm.
    equal(parts[0], (2 * 129280 * 7168 + 7168) * 2, "bytes outside the layers")
    # A dense layer's products in FP8, with a float per block of 128 x 128; kv_a's 576 rows are five blocks.
    products = [(1536, 7168), (128 * 192, 1536), (576, 7168), (128 * 256, 512), (7168, 128 * 128), (64 * 128, 1536),
                (128, 7168), (18432, 7168), (18432, 7168), (7168, 18432)]
    layer = sum(rows * columns + 4 * -(-rows // 128) * -(-columns // 128) for rows, columns in products)
    layer += 2 * (7168 + 7168 + 1536 + 512 + 64 * 7168) + 4 * (128 + 128)
    equal(parts[1], 3 * layer, "bytes of the dense layers")
    equal(found["fits_gpu_memory"], False, "fits")
    equal(found["layers_in_gpu_memory"], 6, "layers that one GPU holds")
    expect(found["gpu_weight_bytes"] > 1.9 * (found["stored_bytes"] - weights["unused_stored_bytes"]),
           "FP8 becomes BF16 on the GPU")


def test_glm_5_2_keeps_its_57_native_s_layers():
    folder = published("glm-5.2")
    found = inspected(folder)
    equal([layer for layer, letter in enumerate(found["native_pattern"]) if letter == "F"], FULL_52, "F layers")
    equal((found["native_pattern"].count("S"), found["weights"]["indexers"]), (57, 21), "S layers, indexers")
    corpus = os.path.join(scratch(), "ids.jsonl")
    with open(corpus, "w", encoding="utf-8") as file:
        for document in range(5):
            file.write(json.dumps({"input_ids": [(7 * t + document) % 1000 for t in range(2100)]}) + "\n")
    # On this machine's CPU, whose memory cannot hold 2.7 TiB: a plan without time.
    plan = good("calibrate", "--model", folder, "--corpus", f"ids={corpus}", "--dry-run", "--json", "--device", "cpu",
                "--out", os.path.join(scratch(), "run"))
    found = plan.json()
    equal((found["search"]["candidate_layers"], found["search"]["evaluations"]), (20, 210), "layers to be flipped")
    equal(found["seconds"], None, "no time")
    expect("streaming the layers takes" in plan.err, f"why there is no time: {plan.err}")


def test_few_layers_fit_and_the_plan_says_what_is_left():
    folder = published("glm-5-fp8", "--layers", "4")
    found = inspected(folder, "--gpu-memory", "40GiB")
    equal((found["layers"], found["fits_gpu_memory"], found["layers_in_gpu_memory"]), (4, True, 4), "fits")
    less = inspected(folder, "--gpu-memory", f"{found['gpu_weight_bytes'] - 1}")
    equal((less["fits_gpu_memory"], less["layers_in_gpu_memory"]), (False, 3), "one byte less")
    exact = inspected(folder, "--gpu-memory", f"{found['gpu_weight_bytes']}")
    equal((exact["fits_gpu_memory"], exact["layers_in_gpu_memory"]), (True, 4), "just enough")
    equal(found["weights"]["moe"]["layers"], 1, "MoE layers")
    expect("which leaves" in good("inspect", folder, "--gpu-memory", "40GiB").out, "text")
    expect("the others lie there as stored, in host memory or on disk" in good("inspect", folder, "--gpu-memory", "20GiB").out, "text, too little")


def test_bf16_and_fp8_take_the_same_on_a_gpu():
    bf16, fp8 = (inspected(published(name, "--layers", "4")) for name in ("glm-5", "glm-5-fp8"))
    equal(bf16["gpu_weight_bytes"], fp8["gpu_weight_bytes"], "bytes on a GPU")
    expect(fp8["stored_bytes"] < 0.6 * bf16["stored_bytes"], "FP8 files are about half")


def test_the_plan_on_paper_says_that_it_is_one():
    folder = published("glm-5.2-fp8", "--layers", "8")
    expect("streaming" not in inspected(folder), "nothing of it unless asked for")
    text = good("inspect", folder, "--plan").out
    expect("as measured on an H100: dense" in text and "1 H100: layers " in text, text)
    found = inspected(folder, "--plan", "--context", "8192", "--max-tokens", "90000", "--host-memory", "30GiB",
                      "--gpu-memory", "56GiB")
    found = found["streaming"]
    equal((found["implemented"], found["context"], found["documents"]), (True, 8192, 10), "what is planned for")
    equal([machine["gpus"] for machine in found["machines"]], [1, 8], "machines")
    for machine in found["machines"]:
        # F at 0, 1, 2, 6: the S layers of the checkpoint are never candidates.
        equal((machine["candidates"], machine["residency"]), (3, "disk"), "candidates, residency")
        expect(machine["layers"]["disk"] > 0 and sum(machine["layers"].values()) == 8, f"{machine['layers']}")
        cost = machine["all_steps"]
        equal(cost["bound_by"], "disk", "what binds")
        expect(cost["seconds"] >= machine["reference"]["seconds"] + machine["first_step"]["seconds"], f"{cost}")
    one, eight = found["machines"]
    expect(eight["all_steps"]["compute_seconds"] * 4 < one["all_steps"]["compute_seconds"], "GPUs share the documents")
    # Where layers may lie is asked for as of a run.
    stored = inspected(folder, "--plan", "--residency", "stored", "--gpu-memory", "120GiB")["streaming"]["machines"][0]
    equal((stored["residency"], stored["layers"]["stored"]), ("stored", 8), "as stored")
    more = inspected(folder, "--plan", "--batch-tokens", "131072")["streaming"]["machines"][0]
    equal(more["documents_a_visit"], 4, "documents of a batch")
    refused(run("inspect", folder, "--plan", "--context", "2048"), 2, "--context 2048", "index_topk")
    refused(run("inspect", folder, "--plan", "--context", "300000"), 2, "--context 300000")
    refused(run("inspect", folder, "--plan", "--max-tokens", "100"), 2, "--max-tokens 100")


def test_the_plan_on_paper_takes_what_bench_measured():
    folder = published("glm-5-fp8", "--layers", "4")
    plan = inspected(folder, "--plan", "--context", "16384", "--gpu-memory", "200GiB")["streaming"]
    expect(plan["seconds_per_token"]["measured_on"] is None, plan)
    # The file of the nearest context, here of 8192; an indexer scores twice as many keys in 16384.
    sizes = {"hidden": 6144, "heads": 64, "q_rank": 2048, "latent": 512, "rope": 64, "nope": 192, "value": 256, "index_heads": 32,
             "index_dim": 128, "index_topk": 2048, "dense_inner": 12288, "expert_inner": 2048, "experts_per_token": 9}
    files = []
    for context, seconds in ((8192, 2e-6), (131072, 9e-6)):
        layers = [{"layer": 0, "kind": kind, "mode": mode, "seconds_per_token": seconds + more}
                  for kind, more in (("dense", 0), ("moe", 1e-6)) for mode, more in (("F", more + 1e-7), ("S", more))]
        files.append(write(json.dumps({"schema": 1, "device": "cuda: some card", "context": context, "dimensions": sizes,
                                       "layers": layers}), scratch(), "bench.json"))
    words = [word for file in files for word in ("--bench", file)]
    found = inspected(folder, "--plan", "--context", "16384", "--gpu-memory", "200GiB", *words)["streaming"]
    rates = found["seconds_per_token"]
    equal(rates["measured_on"], "cuda: some card", "device")
    near(rates["dense_shared"], 2e-6, "as S")
    near(rates["moe_full"], 3.2e-6, "as F")
    # Three dense layers and one with experts, all F, and the products with the vocabulary of scored tokens, twice.
    scored = 64 * (16384 - 2048)
    near(found["machines"][0]["reference"]["compute_seconds"],
         64 * 16384 * (3 * 2.2e-6 + 3.2e-6) + 2 * scored * rates["head"], "the reference's seconds", 1e-9)
    refused(run("inspect", published("deepseek-v3.2", "--layers", "4"), "--plan", *words), 3, "hidden 6144", "7168")


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name():
    folder = published("glm-5", "--layers", "2")
    config = os.path.join(folder, "config.json")
    with open(config, encoding="utf-8") as file:
        content = json.load(file)
    content["num_hidden_layers"] = 4  # layer 2 is the multi-token-prediction layer's place, 3 is not there
    with open(config, "w", encoding="utf-8") as file:
        json.dump(content, file)
    refused(run("inspect", folder), 3, "model.layers.3.", "missing")


main(globals())
