"""dsacal verify as a CI job runs it: what holds, what got worse, what cannot be measured, and what is told to whom.

DSA_TEST_DEVICE (default cpu) is the device that verifies; baselines come from the CPU, so with cuda this is a pattern
recorded on one backend and verified on the other.
"""
# sanitizers: yes
import json
import os
import re
import shutil
import struct
import xml.etree.ElementTree as xml

from harness import (GLM, TINY, VOCAB, contents, corpus, documents, equal, expect, good, jsonl, main, read, refused, run,
                     sanitizers, scratch, strict_json, tokenizer, write)

DEVICE = os.environ.get("DSA_TEST_DEVICE", "cpu")
BUDGET = ("--budget-kl", 0.6)
_shared = {}


def place():
    """One calibration, of two corpora, that most tests verify: (its directory, pattern.yaml's text)."""
    if not _shared:
        directory = scratch()
        write(jsonl(documents(60, seed=3)), directory, "legal.jsonl")
        write(jsonl(documents(40, seed=4, longest=120)), directory, "rag.jsonl")
        good("calibrate", "--model", GLM, *corpora(directory), *BUDGET, "--no-refine", "--device", "cpu", "--out",
             os.path.join(directory, "run"))
        _shared.update(directory=directory, yaml=read(directory, "run", "pattern.yaml").decode())
    return _shared["directory"], _shared["yaml"]


def corpora(directory):
    return ("--corpus", f"legal={directory}/legal.jsonl", "--corpus", f"rag={directory}/rag.jsonl:weight=2")


def pattern(change=lambda text: text, name="pattern.yaml"):
    """A copy of pattern.yaml, changed."""
    return write(change(place()[1]), scratch(), name)


def emitted():
    return re.search(r'^pattern: "([FS]+)"', place()[1], re.M).group(1)


def flipped(text):
    """Another pattern of as many S layers: the sensitive layer 1 shares, an S layer runs its indexer."""
    letters = list(emitted())
    expect(letters[1] == "F" and "S" in letters[2:], f"nothing to flip in {emitted()}")
    letters[1] = "S"
    letters[letters.index("S", 2)] = "F"
    return text.replace(f'pattern: "{emitted()}"', f'pattern: "{"".join(letters)}"')


def verify(file, *options, model=GLM, **how):
    directory, _ = place()
    return run("verify", file, "--model", model, *corpora(directory), "--device", DEVICE, *options, **how)


def checks(result, **wanted):
    return [c for c in result.json()["checks"] if all(c[k] == v for k, v in wanted.items())]


def suite(path):
    """JUnit as a CI system reads it, its counts compared with what is in it."""
    root = xml.fromstring(read(path).decode("utf-8"))
    equal(root.tag, "testsuites", "root")
    for holder in [root, *root.findall("testsuite")]:
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            equal(int(holder.get(name)), len(list(holder.iter(tag))), f"{name} of {holder.get('name')!r:.80}")
    return root


def tags(root):
    return {t: len(list(root.iter(t))) for t in ("testcase", "failure", "error", "skipped")}


def model_with(change=None, weights=None, tokens=None):
    """A copy of the model: config.json changed, a tensor's floats changed, a tokenizer put in."""
    directory = os.path.join(scratch(), "model")
    shutil.copytree(GLM, directory)
    if change:
        config = json.loads(read(directory, "config.json"))
        change(config)
        write(json.dumps(config), directory, "config.json")
    if weights:
        name, factor = weights
        file = next(f for f in sorted(os.listdir(directory)) if f.endswith(".safetensors") and f != "expected.safetensors"
                    and name.encode() in read(directory, f)[:100000])
        data = bytearray(read(directory, file))
        size = struct.unpack("<Q", data[:8])[0]
        tensor = json.loads(data[8:8 + size])[name]
        kind, width = {"F32": ("f", 4), "F16": ("e", 2)}.get(tensor["dtype"], (None, 2))
        first, last = (8 + size + at for at in tensor["data_offsets"])
        if kind:
            values = struct.unpack(f"<{(last - first) // width}{kind}", data[first:last])
            data[first:last] = struct.pack(f"<{len(values)}{kind}", *(v * factor for v in values))
        else:  # BF16: the upper half of a float
            words = struct.unpack(f"<{(last - first) // 2}H", data[first:last])
            floats = [struct.unpack("<f", struct.pack("<I", w << 16))[0] * factor for w in words]
            data[first:last] = b"".join(struct.pack("<f", v)[2:] for v in floats)
        write(bytes(data), directory, file)
    if tokens:
        write(json.dumps(tokens), directory, "tokenizer.json")
    return directory


def test_unchanged_model_holds():
    file = pattern()
    junit = os.path.join(scratch(), "verify.xml")
    before = contents(os.path.dirname(file))
    result = verify(file, "--json", "--junit", junit)
    equal(result.status, 0, f"exit: {result}")
    said = result.json()
    equal((said["verdict"], said["model"]["changed"], said["accepted"]), ("holds", False, False), "verdict")
    equal([c["documents"] for c in said["corpora"]], ["same", "same"], "documents")
    equal((said["documents"], said["documents_all"], said["early"]), (100, 100, False), "documents")
    equal(len(said["checks"]), 2 * 9 + 2, "three figures of two corpora and of both, on each split, and a bound on each")
    for check in said["checks"]:
        equal(check["outcome"], "holds", f"{check}")
        if not check["bound"] and DEVICE == "cpu":
            expect(check["found"] == check["against"], f"the same device gives other figures: {check}")
    equal([c["bound"] for c in said["checks"] if c["bound"]], ["budget-kl"] * 2, "bounds")
    equal(tags(suite(junit)), {"testcase": 20, "failure": 0, "error": 0, "skipped": 0}, "JUnit")
    equal(contents(os.path.dirname(file)), before, "files beside the pattern")


def test_a_flipped_sensitive_layer_is_worse():
    junit = os.path.join(scratch(), "verify.xml")
    result = verify(pattern(flipped), "--json", "--junit", junit)
    equal(result.status, 1, f"exit: {result}")
    equal(result.json()["verdict"], "worse", "verdict")
    expect(checks(result, outcome="worse", bound="budget-kl"), "the bound holds")
    expect(checks(result, outcome="worse", bound=None, figure="kl", corpus="rag"), "the recorded figure is met")
    found = tags(suite(junit))
    expect(found["failure"] > 2 and found["error"] == 0, f"JUnit: {found}")
    result = verify(pattern(flipped))
    equal(result.status, 1, "exit without --json")
    expect("worse         legal, rag" in result.out and "budget-kl" in result.out.splitlines()[-1], result.out)


def test_only_the_corpus_that_moved_is_named():
    def lower(text):
        head, rag = text.rsplit('  - name: "rag"', 1)
        return head + '  - name: "rag"' + re.sub(r"kl: [0-9.]+", "kl: 0.01", rag, count=1)

    result = verify(pattern(lower))
    equal(result.status, 1, f"exit: {result}")
    expect("worse         rag\n" in result.out, result.out)
    equal(verify(pattern(lower), "--tolerance", 1000).status, 0, "exit with a great tolerance")
    result = verify(pattern(lambda text: re.sub(r"kl: [0-9.]+", "kl: 3.5", text, count=1)))
    equal(result.status, 0, f"a figure that got better fails: {result}")
    expect("better        all corpora, calibration: mean KL" in result.out and "--accept" in result.out, result.out)


def test_another_model_is_refused_and_judged_when_allowed():
    loud = model_with(weights=("lm_head.weight", 4))
    junit = os.path.join(scratch(), "verify.xml")
    recorded = re.search(r'fingerprint: "(\w+)"', place()[1]).group(1)
    refused(verify(pattern(), "--junit", junit, model=loud), 3, "fingerprint", recorded, "--allow-model-change")
    equal(tags(suite(junit)), {"testcase": 1, "failure": 0, "error": 1, "skipped": 0}, "JUnit of a refusal")
    result = verify(pattern(), "--json", "--allow-model-change", model=loud)
    equal(result.status, 1, f"exit: {result}")
    expect(result.json()["model"]["changed"] and checks(result, outcome="worse", bound="budget-kl"), f"{result}")
    expect("not the recorded one" in verify(pattern(), "--allow-model-change", model=loud).out, "which model")
    still = model_with(weights=("lm_head.weight", 1.0009765625))  # moves a last place or none
    result = verify(pattern(), "--allow-model-change", model=still)
    equal(result.status, 0, f"a fine-tune that moved nothing fails: {result}")
    expect("not the recorded one" in result.err or read(still, "model.safetensors") == read(GLM, "model.safetensors"),
           f"no warning: {result}")


def test_another_k_tokenizer_or_deployed_pattern_is_refused():
    smaller = model_with(change=lambda c: c.update(index_topk=6))
    refused(verify(pattern(), "--allow-model-change", model=smaller), 3, "index_topk", "K = 7", "has 6")
    deployed = model_with(change=lambda c: c.update(index_topk_pattern=emitted()))
    refused(verify(pattern(), "--allow-model-change", model=deployed), 3, "the checkpoint's own", emitted())
    layers = write('pattern: "FFFSS"\nbudget: {kl: 1}\n', scratch(), "five.yaml")
    refused(verify(layers), 3, "5 layers", "has 4")
    words = model_with(tokens=tokenizer())
    out = os.path.join(scratch(), "run")
    good("calibrate", "--model", words, *corpora(place()[0]), "--max-shared", 1, "--no-refine", "--search", "exact",
         "--out", out)
    other = tokenizer()
    other["model"]["merges"] = []
    write(json.dumps(other), words, "tokenizer.json")
    file = os.path.join(out, "pattern.yaml")
    refused(verify(file, model=words), 3, "tokenizer.json", "--allow-model-change")
    result = verify(file, "--allow-model-change", "--json", model=words)
    equal([c["documents"] for c in result.json()["corpora"]], ["changed", "changed"], "documents of other tokens")


def test_other_documents_are_compared_as_samples():
    directory = scratch()
    write(jsonl(documents(60, seed=5)), directory, "legal.jsonl")
    shutil.copy(os.path.join(place()[0], "rag.jsonl"), directory)
    options = ("--model", GLM, "--device", DEVICE, *corpora(directory))
    result = run("verify", pattern(), *options, "--json")
    equal(result.status, 0, f"exit: {result}")
    equal([c["documents"] for c in result.json()["corpora"]], ["changed", "same"], "documents")
    for check in checks(result, corpus="legal", split="calibration", figure="kl"):
        expect(check["allowed"] > 3 * (check["against_se"] ** 2 + check["found_se"] ** 2) ** 0.5, f"{check}")
    few = checks(result, corpus="legal", split="heldout")
    equal({c["outcome"] for c in few}, {"not judged"}, "12 other documents")
    expect(all("16" in c["reason"] for c in few), f"{few}")
    missing = ("verify", pattern(), "--model", GLM, "--device", DEVICE, *corpora(directory)[:2])
    refused(run(*missing), 2, "'rag'", "--corpus")
    extra = run("verify", pattern(), *options, "--corpus", "more=" + corpus(8), "--json")
    equal([c["documents"] for c in extra.json()["corpora"]], ["changed", "same", "new"], "documents")
    equal({c["outcome"] for c in checks(extra, corpus=None, bound=None)}, {"not judged"}, "a mean with a new corpus")
    cut = run("verify", pattern(), "--model", GLM, "--device", DEVICE, *corpora(place()[0]), "--context", 40, "--json")
    equal([c["documents"] for c in cut.json()["corpora"]], ["changed", "changed"], "documents cut elsewhere")


def test_names_and_weights_come_from_the_file():
    directory = place()[0]
    plain = run("verify", pattern(), "--model", GLM, "--device", DEVICE, "--json", "--corpus",
                f"{directory}/legal.jsonl", "--corpus", f"{directory}/rag.jsonl")
    equal(plain.status, 0, f"exit: {plain}")
    equal([(c["name"], c["weight"], c["documents"]) for c in plain.json()["corpora"]],
          [("legal", 1, "same"), ("rag", 2, "same")], "corpora by their files' names")
    renamed = run("verify", pattern(), "--model", GLM, "--device", DEVICE, "--json", "--corpus",
                  f"contracts={directory}/legal.jsonl", "--corpus", f"{directory}/rag.jsonl")
    equal([(c["recorded_name"], c["documents"]) for c in renamed.json()["corpora"]],
          [("legal", "same"), ("rag", "same")], "a corpus found by its digest")


def test_bounds_of_the_command_line_take_the_place_of_the_file_s():
    equal(verify(pattern(), "--budget-kl", 0.001).status, 1, "a stricter bound")
    result = verify(pattern(flipped), "--budget-kl", 50, "--tolerance", 1000, "--json")
    equal((result.status, result.json()["budget"]["kl"]), (0, 50), "a wider bound")
    result = verify(pattern(), "--budget-scope", "worst", "--json")
    equal(sorted((c["corpus"], c["split"]) for c in checks(result, bound="budget-kl")),
          [("legal", "calibration"), ("legal", "heldout"), ("rag", "calibration"), ("rag", "heldout")], "bounds")
    bare = write('pattern: "FFFS"\n', scratch(), "bare.yaml")
    refused(verify(bare), 3, "nothing to judge", "--budget-kl")
    equal(verify(bare, "--budget-kl", 5, "--holdout", "0%").status, 0, "a pattern and a bound alone")


def test_the_indexer_s_precision_is_the_file_s():
    fp8 = os.path.join(TINY, "v32-fp8")  # FFF, index heads of 16
    directory = place()[0]
    out = os.path.join(scratch(), "run")
    calibrate = ("calibrate", "--model", fp8, *corpora(directory), "--max-tokens", 1200, "--device", DEVICE)
    good(*calibrate, "--max-shared", 1, "--no-refine", "--indexer-precision", "fp8", "--out", out)
    file = os.path.join(out, "pattern.yaml")
    text = read(file).decode()
    expect('\nindexer_precision: "fp8"\n' in text, "the pattern file does not say it")
    equal(strict_json(read(out, "results.json").decode())["indexer_precision"], "fp8", "results.json")
    expect("<dt>indexer precision</dt><dd><bdi>fp8</bdi></dd>" in read(out, "report.html").decode(), "report.html")
    said = lambda result: [result.json()[k] for k in ("indexer_precision", "recorded_indexer_precision")]
    as_recorded = lambda result: all(c["found"] == c["against"] for c in checks(result, bound=None))
    result = verify(file, "--json", model=fp8)
    equal((result.status, said(result), as_recorded(result)), (0, ["fp8", "fp8"], True), f"as in the file: {result}")
    expect("indexers run in" not in result.err, f"{result}")
    other = verify(file, "--json", "--indexer-precision", "f32", "--tolerance", 1000, model=fp8)
    equal((other.status, said(other), as_recorded(other)), (0, ["f32", "fp8"], False), f"as given: {other}")
    expect("indexers run in f32 and the recorded figures are of fp8" in other.err, f"no warning: {other}")
    older = write(text.replace('indexer_precision: "fp8"\n', ""), scratch(), "pattern.yaml")
    result = verify(older, "--json", "--tolerance", 1000, model=fp8)
    equal(said(result), ["f32", "f32"], "a file that does not say it")
    equal([c["found"] for c in checks(result)], [c["found"] for c in checks(other)], "its figures")
    result = run("verify", file, "--from", out, "--json")
    equal((result.status, said(result), as_recorded(result)), (0, ["fp8", "fp8"], True), f"from the run: {result}")
    result = run("verify", older, "--from", out)
    expect("indexers run in fp8 and the recorded figures are of f32" in result.err, f"from the run: {result}")
    expect("\nindexer       fp8 > f32\n" in good("diff", file, older).out, "diff")
    # The run's configuration has it too, and a run goes on with no other.
    again = os.path.join(scratch(), "run")
    good("calibrate", "--config", os.path.join(out, "config.yaml"), "--device", DEVICE, "--out", again)
    equal(read(again, "pattern.yaml").split(b"\nprovenance:")[0], text.encode().split(b"\nprovenance:")[0], "again")
    refused(run(*calibrate, "--max-shared", 1, "--no-refine", "--out", out, "--resume"), 2, '"indexer-precision"', "fp8")
    equal(good("solve", out, "--max-shared", 0, "--json").json()["indexer_precision"], "fp8", "solve")
    refused(verify(file), 3, "3 layers", "has 4")  # whose indexers could not run in FP8
    broken = write(text.replace('precision: "fp8"', 'precision: "fp4"'), scratch(), "pattern.yaml")
    refused(verify(broken, model=fp8), 3, "indexer_precision", "fp4")


def test_quick_decides_early_or_goes_on():
    easy = pattern(lambda text: re.sub(r"budget: \{kl: [0-9.]+", "budget: {kl: 5", text))
    result = verify(easy, "--quick", 16, "--json")
    said = result.json()
    equal((result.status, said["early"], said["confidence"]), (0, True, 0.99), f"early pass: {result}")
    expect(said["documents"] < 100, f"{said['documents']} documents")
    hard = pattern(lambda text: re.sub(r"budget: \{kl: [0-9.]+", "budget: {kl: 0.05", text))
    result = verify(hard, "--quick", 16, "--json")
    equal((result.status, result.json()["early"]), (1, True), f"early failure: {result}")
    close = verify(pattern(lambda text: re.sub(r"budget: \{kl: [0-9.]+", "budget: {kl: 0.4445", text)), "--quick", 16,
                   "--json")
    expect(not close.json()["early"], f"decided too early: {close.json()['documents']} documents")
    refused(verify(pattern(), "--quick", 16, "--accept"), 2, "--quick")


def test_a_run_is_judged_without_its_model():
    directory = place()[0]
    moved = os.path.join(scratch(), "run")
    shutil.copytree(os.path.join(directory, "run"), moved)
    result = run("verify", pattern(), "--from", moved, "--json")
    equal((result.status, result.json()["verdict"]), (0, "holds"), f"{result}")
    for check in checks(result, bound=None):
        expect(check["found"] == check["against"], f"replayed figures differ: {check}")
    equal(run("verify", pattern(), "--from", moved, "--budget-kl", 0.001).status, 1, "a stricter bound")
    unknown = pattern(lambda text: text.replace(f'pattern: "{emitted()}"', 'pattern: "FSSF"'))
    refused(run("verify", unknown, "--from", moved), 3, "has not measured the pattern")
    refused(run("verify", pattern(), "--from", moved, "--model", GLM), 2, "--from")
    refused(run("verify", pattern(), "--from", scratch()), 3, "results.json")
    other = pattern(lambda text: re.sub(r'fingerprint: "\w', 'fingerprint: "x', text))
    refused(run("verify", other, "--from", moved), 3, "fingerprint")
    equal(run("verify", other, "--from", moved, "--allow-model-change").status, 0, "allowed")


def test_accept_writes_a_new_baseline_and_nothing_else_does():
    loud = model_with(weights=("lm_head.weight", 2))
    wide = pattern(lambda text: re.sub(r"budget: \{kl: [0-9.]+", "budget: {kl: 50", text))
    before = read(wide)
    result = verify(wide, "--allow-model-change", model=loud)
    equal((result.status, read(wide) == before), (1, True), f"without --accept: {result}")
    result = verify(wide, "--allow-model-change", "--accept", "--json", model=loud)
    equal((result.status, result.json()["accepted"]), (0, True), f"{result}")
    text = read(wide).decode()
    expect(f'pattern: "{emitted()}"' in text and "budget: {kl: 50," in text, "pattern or bounds changed")
    expect(text.count("uniform-1/") == 2 and "steps: []" in text and "refined" not in text, "what the old model had")
    equal(os.listdir(os.path.dirname(wide)), ["pattern.yaml"], "files")
    again = verify(wide, "--json", model=loud)
    equal(again.status, 0, f"the new baseline: {again}")
    expect(all(c["found"] == c["against"] for c in checks(again, bound=None)) or DEVICE != "cpu", "figures")
    refused(verify(wide), 3, "fingerprint")
    narrow = pattern()
    result = verify(narrow, "--accept", "--budget-kl", 0.01, "--allow-model-change", model=loud)
    equal((result.status, read(narrow).decode()), (1, place()[1]), f"a broken bound was accepted: {result}")
    expect("not accepted" in result.err, f"{result}")
    same = pattern()
    equal(verify(same, "--accept").status, 0, "accepting the same")
    if DEVICE == "cpu":
        head = lambda text: re.sub(r"\nrefined:\n(- .*\n)+", "\n", text.split("\nprovenance:")[0])
        equal(head(read(same).decode()), head(place()[1]), "the same figures written again")


def test_github_gets_a_summary_and_one_annotation():
    directory = scratch()
    summary = os.path.join(directory, "summary.md")
    write("before\n", summary)
    env = {"GITHUB_STEP_SUMMARY": summary, "GITHUB_ACTIONS": "true"}
    result = verify(pattern(), env=env)
    equal((result.status, "::error" in result.err or "::warning" in result.err), (0, False), f"{result}")
    text = read(summary).decode()
    expect(text.startswith("before\n### dsacal verify: holds\n"), text[:200])
    result = verify(pattern(flipped), "--json", env=env)
    lines = [line for line in result.err.splitlines() if line.startswith("::")]
    equal((result.status, len(lines)), (1, 1), f"annotations: {result}")
    expect(lines[0].startswith("::error file=") and "budget-kl" in lines[0], lines[0])
    result.json()
    expect("### dsacal verify: got worse" in read(summary).decode(), "no second summary")
    result = verify(pattern(), model=os.path.join(directory, "none"), env=env)
    refused(result, 3)
    equal(sum(line.startswith("::error") for line in result.err.splitlines()), 1, f"annotations: {result}")
    expect("could not measure" in read(summary).decode(), "no third summary")
    result = verify(pattern(), env={"GITHUB_STEP_SUMMARY": os.path.join(directory, "no", "where")})
    equal((result.status, "no step summary" in result.err), (0, True), f"{result}")


HOSTILE = "\"><b>'&amp;\n::error::x %0A|`_*[a](b) @all \u202eabc \u05e9\u05dc\u05d5\u05dd \x01\x7f"


def test_hostile_names_survive_every_output():
    names = [HOSTILE.replace("/", "\u2044"), "L" * 4096]
    directory = os.path.join(scratch(), HOSTILE.replace("/", "\u2044"))
    os.mkdir(directory)
    model = os.path.join(directory, HOSTILE.replace("/", "\u2044"))
    shutil.copytree(GLM, model)
    sources = [corpus(24, f"{i}.jsonl", directory, seed=8 + i) for i in range(2)]
    given = sum((("--corpus", f"{name}={path}") for name, path in zip(names, sources)), ())
    out = os.path.join(directory, "run")
    good("calibrate", "--model", model, *given, "--max-shared", 1, "--no-refine", "--search", "exact", "--out", out)
    file, junit, summary = (os.path.join(directory, n) for n in (HOSTILE.replace("/", "") + ".yaml", "v.xml", "s.md"))
    shutil.copy(os.path.join(out, "pattern.yaml"), file)
    env = {"GITHUB_STEP_SUMMARY": summary, "GITHUB_ACTIONS": "true"}
    for extra, status in (((), 0), (("--budget-kl", 1e-9), 1), (("--context", 2), 3)):
        result = run("verify", file, "--model", model, *given, "--device", DEVICE, "--junit", junit, "--json", *extra,
                     env=env)
        sanitizers(result)
        equal(result.status, status, f"exit: {result}")
        root = suite(junit)
        if status < 3:
            equal([c["name"] for c in result.json()["corpora"]], names, "names in JSON")
            suites = [s.get("name") for s in root.findall("testsuite")]
            equal(suites[2], names[1], "a long name in JUnit")
            equal(suites[1], names[0].replace("\x01", "\u2401").replace("\x7f", "\u2421"), "a hostile name in JUnit")
        notes = [line for line in result.err.splitlines() if "::error" in line and line.startswith("::")]
        equal(len(notes), 1 if status else 0, f"annotations: {result.err}")
        expect("\u202e" not in "".join(notes), "direction in an annotation")
    text = read(summary).decode()
    equal(len(re.findall(r"^### ", text, re.M)), 3, "headings")
    expect("<b>" not in text and "@all" not in text and "`" not in text and "\u202e" not in text, "the summary")
    for line in text.splitlines():
        expect(not line.startswith("|") or line.count("|") == 4, f"a broken row: {line:.200}")
    shown = run("verify", file, "--model", model, *given, "--device", DEVICE).out
    expect(not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", shown), "control characters on stdout")
    for line in run("diff", file, file).out, run("diff", file, file, "--json").out:
        expect(not re.search("[\x00-\x09\x0b-\x1f\x7f]", line), "control characters in diff")


def test_what_cannot_be_measured_is_an_error_not_a_failure():
    directory = scratch()
    junit = os.path.join(directory, "verify.xml")
    damaged = model_with()
    weights = next(f for f in os.listdir(damaged) if f.endswith(".safetensors") and f != "expected.safetensors")
    os.truncate(os.path.join(damaged, weights), 4096)
    cases = [((pattern(), "--model", damaged, *corpora(place()[0])), 3),
             ((os.path.join(directory, "none.yaml"), "--model", GLM, *corpora(place()[0])), 3),
             ((write("pattern: [", directory, "broken.yaml"), "--model", GLM, *corpora(place()[0])), 3),
             ((pattern(), "--model", GLM, "--corpus", os.path.join(directory, "none.jsonl")), 3),
             ((pattern(), "--model", GLM), 2), ((pattern(), "--tolerance", -1, "--from", directory), 2)]
    for options, status in cases:
        refused(run("verify", *options, "--junit", junit), status)
        equal(tags(suite(junit)), {"testcase": 1, "failure": 0, "error": 1, "skipped": 0}, f"JUnit of {options}")
        os.unlink(junit)
    refused(verify(pattern(), "--junit", os.path.join(directory, "no", "verify.xml")), 3, "verify.xml")
    refused(run("verify"), 2, "PATTERN.yaml")


def test_diff_shows_layers_and_figures():
    left, right = pattern(name="left.yaml"), pattern(flipped, name="right.yaml")
    said = good("diff", left, right).out
    expect("layers        1 F>S" in said and re.search(r"mean KL +0\.\d+ \+- 0\.\d+ +0\.\d+ \+- ", said), said)
    both = strict_json(good("diff", left, right, "--json").out)
    equal([(c["layer"], c["from"], c["to"]) for c in both["layers"]][0], (1, "F", "S"), "layers")
    equal([f["corpus"] for f in both["figures"]], [None, "legal", "rag"], "corpora")
    equal(both["figures"][1]["heldout"]["a"], both["figures"][1]["heldout"]["b"], "figures")
    expect("the same" in good("diff", left, left).out, "the same file")
    bare = write('pattern: "FFFSS"\n', scratch(), "bare.yaml")
    said = good("diff", left, bare).out
    expect("4 layers > 5 layers" in said and "rag: only left" in said, said)
    refused(run("diff", left), 2, "two")
    refused(run("diff", left, os.path.join(scratch(), "none")), 3)


main(globals())
