#!/usr/bin/env python3
"""--dry-run's expected time and work against a run of the demo.

Processor seconds are compared, with one thread, so that other work on the machine disturbs little: the plan's wall
seconds times the share of them that the plan itself ran. The quick test allows a wide factor; --long asks for 30% on
runs of some minutes.
"""
import os
import resource
import sys
import time

from harness import ROOT, expect, good, main, results, scratch

DEMO = os.path.join(ROOT, "calib_data", "demo")
LONG = "--long" in sys.argv
if LONG:
    sys.argv.remove("--long")


def timed(*args):
    """Result, wall and processor seconds."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = good(*args, timeout=7200)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(least, most, *args):
    command = ("calibrate", "--quiet", "--threads", 1, "--model", DEMO, "--corpus",
               f"legal={DEMO}/legal.jsonl.zst", *args)
    result, wall, processor = timed(*command, "--dry-run", "--json")
    plan = result.json()
    out = os.path.join(scratch(), "run")
    _, _, taken = timed(*command, "--out", out)
    data = results(out)
    expected = plan["seconds"]["expected"] * processor / wall
    print(f"       {' '.join(map(str, args))}: expected {expected:.1f} processor seconds, taken {taken:.1f}; "
          f"steps {plan['search']['steps_expected']} and {len(data['trace'])}; token-layers "
          f"{plan['search']['token_layers_expected']:.0f} and {data['work']['token_layers']}, of refinement "
          f"{plan['search']['refine_token_layers_expected']:.0f} and {data['work']['refine_token_layers']}", flush=True)
    expect(least * taken <= expected <= most * taken, f"expected {expected} s, taken {taken} s")
    return plan, data


def test_the_expected_time_is_near_what_a_small_run_takes():
    plan, data = compare(1 / 3, 3, "--context", 80, "--max-tokens", 640, "--max-shared", 3, "--search", "exact", "--no-refine")
    expect(plan["search"]["steps_expected"] == len(data["trace"]) == 3, "steps")
    expect(0 < plan["seconds"]["start"] < plan["seconds"]["expected"], plan["seconds"])


if LONG:
    def test_the_expected_time_of_an_exact_search_is_within_30_percent():
        compare(0.7, 1.3, "--context", 160, "--max-tokens", 3200, "--search", "exact", "--no-refine")

    def test_the_expected_time_of_the_default_search_is_within_30_percent():
        compare(0.7, 1.3, "--context", 200, "--max-tokens", 2000)


main(globals())
