#!/usr/bin/env python3
"""`dsacal bench` on published shapes at 64K tokens against the floors that the GPU backend was built to.

Only the standard library is used. $DSACAL is the program. Every figure is a share of a ceiling measured in the same run,
or a rate; `--quick` leaves it out, since it is about speed alone.
"""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))
from harness import expect, good, main  # noqa: E402

DENSE = ("kv_a", "q_a", "q_b", "o", "gate_up", "down")
_benches = {}


def bench(shape):
    if shape not in _benches:
        _benches[shape] = json.loads(good("bench", "--shape", shape, "--context", 65536, "--device", "cuda", "--json",
                                          timeout=120).out)
    return _benches[shape]


def operator(shape, name):
    return next(o for o in bench(shape)["operators"] if o["name"] == name)


def rate(shape, name):
    found = operator(shape, name)
    return found["flops"] / found["seconds"] * 1e-12


def each_shape(check):
    for shape in ("glm5", "dsv32"):
        check(shape)


def test_dense_products_reach_85_percent_of_the_large_product():
    def check(shape):
        shares = {name: operator(shape, f"linear {name}")["share"] for name in DENSE}
        print(f"# {shape}: products, share of {bench(shape)['ceilings']['flops_per_second'] * 1e-12:.0f} TFLOP/s: "
              + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()), flush=True)
        expect(min(shares.values()) >= 0.85, f"{shape}: {shares}")
    each_shape(check)


def test_sparse_attention_reaches_250_tflops():
    def check(shape):
        print(f"# {shape}: attention {rate(shape, 'attention'):.0f} TFLOP/s", flush=True)
        expect(rate(shape, "attention") >= 250, f"{shape}: {rate(shape, 'attention')}")
    each_shape(check)


def test_selections_reach_300_tflops_with_their_top_k():
    def check(shape):
        print(f"# {shape}: select {rate(shape, 'select, last rows'):.0f} TFLOP/s", flush=True)
        expect(rate(shape, "select, last rows") >= 300, f"{shape}: {rate(shape, 'select, last rows')}")
    each_shape(check)


def test_layers_take_at_most_twice_their_floor():
    def check(shape):
        for layer in bench(shape)["layers"]:
            took, floor = layer["seconds_per_token"] * 1e6, layer["floor_seconds_per_token"] * 1e6
            print(f"# {shape}: {layer['kind']} layer as {layer['mode']}: {took:.2f} µs per token, floor {floor:.2f}", flush=True)
            expect(took <= 2 * floor, f"{shape}: {layer}")
    each_shape(check)


if __name__ == "__main__":
    main(globals())
