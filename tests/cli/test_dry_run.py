#!/usr/bin/env python3
# sanitizers: yes
"""--dry-run: the plan of a run, without the run."""
import os

from harness import (GLM, SHARED, contents, corpus, documents, equal, expect, good, jsonl, listing, main, model,
                     near, read, refused, results, run, scratch, write)

SHORT = [[1, 2, 3]] * 2  # no scored token at K = 7
DOCUMENTS = write(jsonl(documents(10) + SHORT), scratch(), "docs.jsonl")
OTHERS = corpus(6, name="others.jsonl", seed=2)
CORPORA = ("--corpus", DOCUMENTS, "--corpus", f"{OTHERS}:weight=2", "--batch-tokens", 150, "--context", 60, "--threads",
           1)


def plan(command, checkpoint, *args, **how):
    """The plan as JSON; nothing is left in the temporary directory."""
    temporary = scratch()
    found = good(command, "--dry-run", "--json", "--model", checkpoint, *CORPORA, *args, env={"TMPDIR": temporary},
                 **how).json()
    equal(listing(temporary), [], "temporary files")
    return found


def calibrate(checkpoint, *args):
    out = os.path.join(scratch(), "run")
    good("calibrate", "--model", checkpoint, *CORPORA, "--budget-kl", 1000, "--full-trace", "--out", out, *args)
    return out


def test_planned_work_is_what_a_full_trace_counts():
    for checkpoint, args in ((GLM, ()), (SHARED, ()), (GLM, ("--force-full", "2")), (GLM, ("--search", "naive")),
                             (GLM, ("--holdout", "0"))):
        exact = ("--search", "exact", *args)
        found = plan("calibrate", checkpoint, *exact)["search"]
        out = calibrate(checkpoint, *exact)
        data = results(out)
        equal(found["token_layers_least"], data["work"]["token_layers"], "token-layers")
        equal(found["token_layers_naive"], data["work"]["token_layers_naive"], "naive token-layers")
        asked = sum(len(step["candidates"]) for step in data["trace"])
        equal(found["evaluations"], asked, "evaluations")
        expect(found["token_layers_most"] >= found["token_layers_least"], found)


def test_expected_work_is_what_is_counted_where_nothing_has_to_be_supposed():
    found = plan("calibrate", GLM, "--full-trace", "--search", "exact")["search"]
    equal((found["steps_expected"], found["raced_expected"], found["evaluations_expected"]), (3, 1, 6), "a full trace")
    equal(found["token_layers_expected"], found["token_layers_least"], "token-layers of a full trace")
    expect(0 < found["refine_token_layers_expected"] <= found["refine_token_layers_most"], found)
    # Which layer the first step takes is all the same.
    one = ("--max-shared", 1, "--search", "exact", "--no-refine")
    found = plan("calibrate", GLM, *one)["search"]
    out = os.path.join(scratch(), "run")
    good("calibrate", "--model", GLM, *CORPORA, "--out", out, *one)
    equal(found["token_layers_expected"], results(out)["work"]["token_layers"], "token-layers of one step")
    equal((found["steps_expected"], found["refine_token_layers_expected"]), (1, 0), "one step")
    expect("steps_expected" not in plan("calibrate", GLM, "--search", "naive")["search"], "naive")


def test_the_memory_of_candidates_that_advance_together_is_planned():
    memory = plan("calibrate", GLM)["memory"]
    # Three layers can be flipped: no question has more patterns, an exchange of refinement included.
    equal(memory["candidates_together"], 3, "candidates together")
    tight = plan("calibrate", GLM, "--host-memory", 1)["memory"]
    equal((tight["candidates_together"], 3 * tight["candidates"]), (1, memory["candidates"]), "with one byte")
    equal(plan("calibrate", GLM, "--search", "naive")["memory"]["candidates_together"], 1, "naive")


def test_states_are_planned_in_front_of_layers_that_can_be_flipped():
    def kept(command, *args):
        memory = plan(command, GLM, *args)["memory"]
        return memory["base_layers_kept"], memory["candidate_layers_kept"]

    equal(kept("calibrate"), (3, 3), "of four layers")
    equal(kept("calibrate", "--force-full", "2"), (2, 2), "one of them to stay as it is")
    # Where the pattern leaves the reference, and nowhere else.
    equal(kept("evaluate", "--pattern", "FFSS"), (1, 1), "of evaluate")


def test_planned_documents_are_those_of_the_run():
    found = plan("calibrate", GLM)
    data = results(calibrate(GLM))
    equal([c["name"] for c in found["corpora"]], list(data["corpora"]), "corpora")
    for planned in found["corpora"]:
        measured = data["corpora"][planned["name"]]["corpus"]
        equal({k: planned[k] for k in measured if k != "sha256"}, {k: v for k, v in measured.items() if k != "sha256"},
              planned["name"])
    docs, others = found["corpora"]
    equal((docs["documents"], docs["unscored"], others["weight"]), (12, 2, 2), "documents, unscored, weight")
    expect(docs["cut"] > 0 and docs["cut_tokens"] > 0 and docs["batches_heldout"] > 0, docs)


def test_planned_disk_is_near_what_the_run_takes():
    found = plan("calibrate", GLM)["disk"]
    out = calibrate(GLM)
    equal(found["tokens"], len(read(out, "tokens")), "bytes of tokens")
    near(found["journal"], len(read(out, "journal")), "bytes of the journal", relative=0.3)


def test_the_time_comes_from_a_probe_and_is_stated_for_both_ends_of_the_pool():
    found = plan("calibrate", GLM)
    seconds = found["seconds"]
    expect(0 < seconds["load"] < seconds["least"] < seconds["most"] < 60, seconds)
    expect(seconds["per_token_layer_whole"] > 0, seconds)
    equal(found["memory"]["batches_kept"], found["memory"]["batches"], "batches that keep their reference")
    equal(found["memory"]["base_layers_kept"], 3, "layers of the base")
    tight = plan("calibrate", GLM, "--host-memory", 1)["memory"]
    equal((tight["limit"], tight["batches_kept"], tight["base_layers_kept"], tight["keys_and_references"]),
          (1, 0, 0, 0), "memory of a pool of one byte")


def test_the_run_directory_is_not_touched():
    out = os.path.join(scratch(), "run")
    plan("calibrate", GLM, "--out", out)
    expect(not os.path.exists(out), "the run directory was made")
    finished = calibrate(GLM)
    before = contents(finished)
    plan("calibrate", GLM, "--out", finished)
    plan("calibrate", GLM, "--out", finished, "--resume")
    equal(contents(finished), before, "the run directory")


def test_people_read_the_plan_as_text():
    text = good("calibrate", "--dry-run", "--model", GLM, *CORPORA).out
    for line in ("documents", "search", "work", "memory", "disk", "time"):
        expect(f"\n{line:<13} " in "\n" + text, f"no line {line}: {text}")
    expect("2 without a scored token" in text and "3 of 4 layers can be flipped" in text, text)


def test_evaluate_and_overlap_have_plans_too():
    for command, args in (("evaluate", ("--pattern", "FFSS")), ("overlap", ())):
        found = plan(command, GLM, *args)
        equal(found["command"], command, "command")
        expect("search" not in found and found["seconds"]["least"] > 0, found)
        equal(found["corpora"][0]["documents_heldout"], 0, "held-out documents")


def test_a_request_that_the_run_would_refuse_is_refused():
    base = ("calibrate", "--dry-run", "--model", GLM)
    refused(run(*base), 2, "--corpus")
    refused(run(*base, "--corpus", DOCUMENTS, "--force-full", "9"), 2, "--force-full")
    refused(run(*base, "--corpus", os.path.join(scratch(), "none")), 3, "none")
    damaged = model()
    write(read(damaged, "model.safetensors")[:-100], damaged, "model.safetensors")
    refused(run("calibrate", "--dry-run", "--model", damaged, *CORPORA), 3, "model.safetensors")
    refused(run("solve", "--dry-run"), 2, "--dry-run")


main(globals())
