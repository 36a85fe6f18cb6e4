#!/usr/bin/env python3
# sanitizers: yes
"""Bad input of each kind: one clear line, exit 2 or 3, nothing half-written, nothing earlier lost."""
import json
import os
import random
import resource
import shutil
import struct

from harness import (DSACAL, GLM, RUN_FILES, SHARED, TOPK, V32, contents, corpus, documents, equal, expect, good, jsonl,
                     listing, load_tensors, main, model, read, refused, run, same_run, sanitizers, save_tensors, scratch,
                     settled, tokenizer, write, zst)

DOCUMENTS = corpus(6)
FP8 = os.path.join(os.path.dirname(GLM), "glm-fp8-blocks")
SANITIZED = b"__asan_init" in read(DSACAL)
_shared = {}


def finished():
    """A finished run; tests damage copies of it."""
    if "run" not in _shared:
        _shared["run"] = os.path.join(scratch(), "run")
        good("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", _shared["run"], "--max-shared", 1,
             "--full-trace")
    return _shared["run"]


def copy_of_finished():
    out = os.path.join(scratch(), "run")
    shutil.copytree(finished(), out)
    return out


CALIBRATE = ("--max-shared", 1, "--full-trace")


def refuse_model(directory, *words, status=3, documents_from=None):
    """calibrate refuses and leaves nothing but its log, so that the same --out serves again."""
    out = os.path.join(scratch(), "run")
    done = run("calibrate", "--model", directory, "--corpus", documents_from or DOCUMENTS, "--out", out, *CALIBRATE)
    refused(done, status, *words)
    equal(done.out, "", "stdout")
    left = listing(out) if os.path.isdir(out) else []
    expect(left in ([], ["log.txt"]), f"left behind: {left}")
    return done


def refuse_corpus(data, *words, name="bad.jsonl", directory=GLM, status=3):
    return refuse_model(directory, *words, documents_from=write(data, scratch(), name), status=status)


def refuse_config(change, *words, source=GLM):
    here = model(source)
    config = json.loads(read(here, "config.json"))
    write(change(config) if callable(change) else change, here, "config.json")
    refuse_model(here, "config.json", *words)


def changed(**keys):
    def change(config):
        config.update(keys)
        return json.dumps(config)
    return change


def refuse_tensors(change, *words, source=GLM):
    """change(header, data) → (header or its bytes, data)"""
    here = model(source)
    path = os.path.join(here, "model.safetensors")
    save_tensors(path, *change(*load_tensors(path)))
    refuse_model(here, *words)


# ---- safetensors


def test_truncated_safetensors():
    whole = read(GLM, "model.safetensors")
    header = struct.unpack("<Q", whole[:8])[0]
    for size in (0, 1, 7, 8, 9, 8 + header // 2, 8 + header, 8 + header + 1, len(whole) // 2, len(whole) - 1):
        here = model()
        write(whole[:size], here, "model.safetensors")
        refuse_model(here, "model.safetensors")


def test_hostile_safetensors_header():
    def length(value):
        return lambda: struct.pack("<Q", value) + read(GLM, "model.safetensors")[8:]

    for make in (length(0), length(1), length(2 ** 63), length(2 ** 64 - 1), length(2 ** 31), length(10 ** 9)):
        here = model()
        write(make(), here, "model.safetensors")
        refuse_model(here, "model.safetensors")
    for text in (b"", b"{", b"[]", b"null", b"{\"a\": 1}", b"\xff\xfe", b"{\"a\":{}}" + b" " * 8, b"[" * 100000,
                 b"{\"a\":" * 50000, b"\0" * 16):
        refuse_tensors(lambda header, data, text=text: (text, data), "model.safetensors")


def altered(name, **fields):
    def change(header, data):
        header[name] = dict(header[name], **fields)
        return header, data
    return change


NORM = "model.layers.1.input_layernorm.weight"


def test_tensors_that_do_not_fit():
    header, data = load_tensors(os.path.join(GLM, "model.safetensors"))
    begin, end = header[NORM]["data_offsets"]
    size = header[NORM]["shape"][0]
    name = NORM
    refuse_tensors(altered(name, shape=[size + 1]), name)
    refuse_tensors(altered(name, shape=[size, 1]), name)
    refuse_tensors(altered(name, shape=[-1]), name)
    refuse_tensors(altered(name, shape=[2 ** 62, 16]), name)
    refuse_tensors(altered(name, shape=["40"]), name)
    refuse_tensors(altered(name, shape=[1] * 9 + [size]), name)
    refuse_tensors(altered(name, dtype="F64"), name)
    refuse_tensors(altered(name, dtype="Q3"), name)
    refuse_tensors(altered(name, dtype=7), name)
    refuse_tensors(altered(name, dtype="BF16"), name)
    refuse_tensors(altered(name, dtype="I32"), name)
    refuse_tensors(altered(name, data_offsets=[begin + 1, end + 1]), "model.safetensors")
    refuse_tensors(altered(name, data_offsets=[end, begin]), name)
    refuse_tensors(altered(name, data_offsets=[-4, end]), name)
    refuse_tensors(altered(name, data_offsets=[begin, 2 ** 62]), name)
    refuse_tensors(altered(name, data_offsets=[begin]), name)
    refuse_tensors(altered(name, data_offsets=[0.5, end]), name)
    other = "model.norm.weight"
    refuse_tensors(altered(name, data_offsets=header[other]["data_offsets"]), "overlap")
    refuse_tensors(lambda h, d: ({k: v for k, v in h.items() if k != name}, d), "model.safetensors")
    refuse_tensors(lambda h, d: (dict(h, **{"model.norm.weight2": h[name]}), d), "overlap")
    refuse_tensors(lambda h, d: (h, d + b"\0" * 100), "model.safetensors")
    doubled = json.dumps(header)[:-1] + ", " + json.dumps({name: header[name]})[1:]
    refuse_tensors(lambda h, d: (doubled.encode(), d), "model.safetensors")
    expect(len(data) >= end, "the fixture")


def test_missing_tensor_is_named():
    for name in (NORM, "model.embed_tokens.weight", "model.norm.weight"):
        here = model()
        path = os.path.join(here, "model.safetensors")
        header, data = load_tensors(path)
        kept, out = {}, b""
        for tensor, entry in header.items():
            if tensor in (name, "__metadata__"):
                continue
            begin, end = entry["data_offsets"]
            kept[tensor] = dict(entry, data_offsets=[len(out), len(out) + end - begin])
            out += data[begin:end]
        save_tensors(path, kept, out)
        refuse_model(here, name)


def test_wrong_shards():
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    here = model(SHARED)
    os.unlink(os.path.join(here, second))
    refuse_model(here, second)
    here = model(SHARED)
    shutil.copy(os.path.join(here, first), os.path.join(here, second))
    refuse_model(here)
    index = json.loads(read(SHARED, "model.safetensors.index.json"))
    tensor = sorted(index["weight_map"])[0]

    def refuse_index(text, *words):
        here = model(SHARED)
        write(text, here, "model.safetensors.index.json")
        refuse_model(here, *words)

    for value in (second if index["weight_map"][tensor] == first else first, "../x.safetensors", "/etc/passwd", "",
                  "config.json", 7, "no.safetensors", ".hidden"):
        refuse_index(json.dumps(dict(index, weight_map=dict(index["weight_map"], **{tensor: value}))))
    for text in ("", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": "b", "a": "c"}}'):
        refuse_index(text, "model.safetensors.index.json")


def test_weights_that_are_no_numbers():
    for value in (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff"):
        for name in ("model.layers.2.self_attn.o_proj.weight", "model.embed_tokens.weight", "lm_head.weight",
                     "model.layers.1.self_attn.indexer.wk.weight", "model.norm.weight"):
            here = model()
            path = os.path.join(here, "model.safetensors")
            header, data = load_tensors(path)
            begin, end = header[name]["data_offsets"]
            # Every fourth row of it, so that any document meets one.
            damaged = bytearray(data)
            for at in range(begin, end, 64):
                damaged[at:at + 4] = value
            save_tensors(path, header, bytes(damaged))
            done = refuse_model(here)
            expect(any(word in done.err.lower() for word in ("nan", "infinit", "finite")), f"what is wrong? {done}")


def test_missing_and_unreadable_files():
    for name in ("config.json", "model.safetensors"):
        here = model()
        os.unlink(os.path.join(here, name))
        refuse_model(here, name)
        os.mkdir(os.path.join(here, name))
        refuse_model(here, name)
    refuse_model(os.path.join(scratch(), "none"), "none")
    refuse_model(write("x", scratch(), "file"), "file")
    refuse_model(GLM, "none.jsonl", documents_from=os.path.join(scratch(), "none.jsonl"))
    refuse_model(GLM, "no file", documents_from=scratch())
    looped = scratch()
    os.symlink(looped, os.path.join(looped, "again"))
    refuse_model(GLM, "again", documents_from=looped)
    refused(run("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", "/proc/none/run"), 3, "/proc/none")
    if os.geteuid() == 0:
        return  # root reads everything
    for path in (os.path.join(model(), "model.safetensors"), os.path.join(model(), "config.json")):
        os.chmod(path, 0)
        refuse_model(os.path.dirname(path), os.path.basename(path))
    locked = scratch()
    os.chmod(locked, 0)
    refuse_model(GLM, locked, documents_from=locked)
    refused(run("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", os.path.join(locked, "run")), 3, locked)


def test_damaged_fp8():
    """Weights with scales of blocks of 16 x 24."""
    scales = "model.layers.1.self_attn.q_a_proj.weight_scale_inv"

    def without(header, data):
        entry = header.pop(scales)
        begin, end = entry["data_offsets"]
        for other in header.values():
            if "data_offsets" in other and other["data_offsets"][0] >= end:
                other["data_offsets"] = [at - (end - begin) for at in other["data_offsets"]]
        return header, data[:begin] + data[end:]

    refuse_tensors(without, scales, "missing", source=FP8)
    refuse_tensors(altered(scales, shape=[4]), scales, source=FP8)
    refuse_tensors(altered(scales, shape=[4, 1]), scales, source=FP8)
    refuse_tensors(altered(scales, shape=[2, 4], dtype="BF16"), scales, source=FP8)
    refuse_tensors(altered(scales, dtype="I32"), scales, "I32", source=FP8)

    def patched(name, at, with_bytes):
        def change(header, data):
            begin = header[name]["data_offsets"][0] + at
            return header, data[:begin] + with_bytes + data[begin + len(with_bytes):]
        return change

    refuse_tensors(patched(scales[:-len("_scale_inv")], 41, b"\xff"), "row 1, column 1", source=FP8)
    refuse_tensors(patched(scales, 8, struct.pack("<f", -1)), "block row 1, block column 0", source=FP8)
    refuse_config(changed(quantization_config=None), "F8_E4M3", source=FP8)


# ---- config.json


def test_config_of_another_model():
    refuse_config(changed(model_type="llama", architectures=["LlamaForCausalLM"]), "llama")
    refuse_config(changed(model_type=None, architectures=None))
    refuse_config(changed(model_type=7))
    refuse_config(changed(hidden_act="gelu"), "hidden_act")
    refuse_config(changed(scoring_func="softmax"), "scoring_func")
    refuse_config(changed(topk_method="greedy"), "topk_method")
    for quantised in (8, {"quant_method": "fp8"}, {"quant_method": "awq", "weight_block_size": [128, 128]},
                      {"quant_method": "fp8", "weight_block_size": [128, -128]},
                      {"quant_method": "fp8", "weight_block_size": [2 ** 31, 2 ** 31]}):
        refuse_config(changed(quantization_config=quantised), "quantization_config")
    refuse_config(changed(q_lora_rank=None), "q_lora_rank")
    refuse_config(changed(num_key_value_heads=1), "num_key_value_heads")
    refuse_config(changed(moe_layer_freq=2), "moe_layer_freq")
    refuse_config(changed(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4}), "dynamic")
    refuse_config(changed(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}))
    refuse_config(changed(rope_scaling={"type": "yarn", "factor": -4}), source=V32)


def test_config_of_wrong_types_and_sizes():
    for key in ("num_hidden_layers", "hidden_size", "vocab_size", "index_topk", "num_attention_heads",
                "n_routed_experts", "num_experts_per_tok", "kv_lora_rank", "qk_rope_head_dim", "index_head_dim",
                "max_position_embeddings"):
        for value in ("40", 1.5, -1, 0, 2 ** 31, 2 ** 63 - 1, [], {}, True):
            if (key, value) == ("index_head_dim", 0):
                continue
            refuse_config(changed(**{key: value}), key)
    for key, value in (("rms_norm_eps", 0), ("rms_norm_eps", "x"), ("rms_norm_eps", 2), ("routed_scaling_factor", -1),
                       ("attention_bias", 1), ("tie_word_embeddings", "yes"), ("qk_rope_head_dim", 7),
                       ("num_experts_per_tok", 7), ("n_group", 4), ("topk_group", 2), ("n_group", 6),
                       ("indexer_types", ["full"]), ("indexer_types", ["shared", "full", "full", "full"]),
                       ("indexer_types", ["full", "half", "full", "full"]), ("indexer_types", "full"),
                       ("index_topk_pattern", "SFFF"), ("index_topk_pattern", "FFF"), ("index_topk_pattern", "FXFF"),
                       ("index_topk_pattern", 4), ("mlp_layer_types", ["dense"]), ("mlp_layer_types", [1, 2, 3, 4]),
                       ("index_topk_freq", -1), ("rope_parameters", 3),
                       ("rope_parameters", {"rope_type": "default", "rope_theta": -1.0}),
                       ("rope_parameters", {"rope_type": "default", "rope_theta": "x"})):
        refuse_config(changed(**{key: value}))
    # Sizes that the tensors do not have.
    for key, value, name in (("hidden_size", 48, "embed_tokens"), ("vocab_size", 102, "embed_tokens"),
                             ("num_hidden_layers", 5, "model.layers.4"), ("n_routed_experts", 8, "mlp.")):
        here = model()
        config = json.loads(read(here, "config.json"))
        config[key] = value
        write(json.dumps(config), here, "config.json")
        refuse_model(here, "tensor", name)


def test_config_that_is_no_json():
    whole = read(GLM, "config.json")
    for text in (b"", b"{", whole[:len(whole) // 2], whole + b"x", b"[" * 100000, b'{"a":' * 100000, b"\xff\xfe{}",
                 b"\0", b"[]", b"3", b'"glm"', whole.replace(b"{", b'{"hidden_size": 40, ', 1),
                 whole.replace(b"40", b"NaN", 1), whole.replace(b'"silu"', b'"\\ud800"', 1),
                 whole.replace(b"101", b"1e400", 1), b" " * (1 << 26)):
        refuse_config(text)


# ---- pattern files


def test_pattern_files():
    deep = "x: " + "[" * 5000 + "]" * 5000 + "\n"
    bad = {
        "empty": "", "no pattern": "schema: 1\n", "alias": 'a: &a "FFFF"\npattern: *a\n',
        "bomb": "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\npattern: \"FFFF\"\n", "deep": deep + 'pattern: "FFFF"\n',
        "duplicate": 'pattern: "FFFF"\npattern: "FFFS"\n', "short": 'pattern: "FFF"\n', "long": 'pattern: "FFFFF"\n',
        "lower case": 'pattern: "fffs"\n', "first S": 'pattern: "SFFF"\n', "list": "pattern: [F, F, F, F]\n",
        "map": "pattern: {a: b}\n", "letters": 'pattern: "FFXS"\n', "blank": 'pattern: ""\n', "tab": "\tpattern: x\n",
        "unclosed": 'pattern: "FFFF\n', "binary": b"\x00\x01\x02", "latin": b'pattern: "FF\xe9F"\n',
        "two": '---\npattern: "FFFF"\n---\npattern: "FFFS"\n', "tag": 'pattern: !!python/object "FFFF"\n',
        "null": "pattern: null\n", "long line": 'pattern: "' + "F" * 100000 + '"\n', "root": "FFFF\n",
        "big": "# " + "x" * (5 << 20) + '\npattern: "FFFF"\n', "key": '? [a]\n: b\npattern: "FFFF"\n',
    }
    for name, text in bad.items():
        path = write(text, scratch(), "pattern.yaml")
        done = run("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", path)
        refused(done, (2, 3))
        expect("pattern" in done.err, f"{name}: {done}")
        equal(done.out, "", f"stdout of {name}")
        if name not in ("short", "long", "long line", "big"):
            refused(run("export", path, "--engine", "vllm"), (2, 3))
    refused(run("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", scratch()), (2, 3))
    refused(run("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "./none.yaml"), (2, 3), "none.yaml")
    # A hand edit: the pattern is what counts, with a warning for the rest.
    text = read(finished(), "pattern.yaml").decode()
    pattern = text.split('\npattern: "')[1][:4]
    path = write(text.replace(f'pattern: "{pattern}"', 'pattern: "FSSF"', 1), scratch(), "edited.yaml")
    done = good("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", path, "--json")
    equal(done.json()["pattern"], "FSSF", "the edited pattern")
    expect("warning" in done.err, f"no warning: {done}")


def test_random_damage_to_a_pattern_file_never_crashes():
    text = read(finished(), "pattern.yaml")
    rng = random.Random(1)
    for _ in range(10 if SANITIZED else 40):
        damaged = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        done = run("export", write(bytes(damaged), scratch(), "p.yaml"), "--engine", "vllm")
        sanitizers(done)
        if done.status:
            refused(done, (2, 3))


# ---- corpora


def test_damaged_zst():
    whole = zst(jsonl(documents(6)))
    for name, data in {"cut": whole[:len(whole) // 2], "one short": whole[:-1], "header only": whole[:9],
                       "garbage": b"not zstd at all, whatever its name says", "magic": whole[:4], "empty": b"",
                       "trailing": whole + b"garbage", "reserved block": whole[:9] + b"\x07\0\0",
                       "window": b"\x28\xb5\x2f\xfd\x00\xff" + whole[9:]}.items():
        refuse_corpus(data, "bad.jsonl.zst", name="bad.jsonl.zst")
        del name


def test_corpora_without_signal():
    refuse_corpus(b"", "no documents")
    refuse_corpus(b"\n\n  \n", "no documents")
    short = [list(range(n)) for n in (0, 1, TOPK, TOPK + 1)]
    refuse_corpus(jsonl(short), "scored token", f"K = {TOPK}")
    refuse_corpus(json.dumps({"input_ids": list(range(30)), "loss_mask": [0] * 30}), "loss_mask")
    refuse_corpus(jsonl([[]]), "scored token")


def test_bad_lines_are_named_by_number():
    fine = jsonl(documents(2)).decode()
    for line in ('{"input_ids": [1, 2', "x", "[]", "3", "{}", '{"text": 4}', '{"input_ids": "1 2 3"}',
                 '{"input_ids": [1, "2"]}', '{"input_ids": [1, 2.5]}', '{"input_ids": [1, null]}', '{"input_ids": [-1]}',
                 '{"input_ids": [101]}', '{"input_ids": [99999999999999999999]}', '{"input_ids": [4294967297]}',
                 '{"input_ids": [1], "text": "a"}', '{"input_ids": [1], "loss_mask": [1, 1]}',
                 '{"input_ids": [1], "loss_mask": [2]}', '{"input_ids": [1], "input_ids": [2]}',
                 '{"prompt": "a"}', '{"completion": "a"}', '{"text": "a", "loss_mask": [1]}', '{"text": "a"}',
                 '{"text": "\\ud800 a"}', "{" * 100000, '{"input_ids": ' + "[" * 100000, "\x00", '{"a": NaN}'):
        refuse_corpus(fine + "\n" + line + "\n" + fine, "bad.jsonl line 4")
    refuse_corpus(fine.encode() + b'{"input_ids": [1]}\xff\xfe\n', "bad.jsonl line 3")
    refuse_corpus(fine.encode() + b'{"text": "\xff\xfe"}\n', "bad.jsonl line 3")


def test_ids_beyond_the_vocabulary_name_their_place():
    ids = documents(3)
    ids[1][17] = 101
    refuse_corpus(jsonl(ids), "bad.jsonl line 2", "input_ids[17]", "101")


def test_text_needs_a_tokenizer():
    refuse_corpus("some plain text", "tokenizer.json", name="a.txt")
    here = model(with_tokenizer=True)
    refuse_corpus(b"not \xff UTF-8, with a good deal of text behind it", "a.txt", name="a.txt", directory=here)


def test_damaged_tokenizer():
    text = corpus_text = write("the cat sat there and then the bath was had by them all", scratch(), "a.txt")
    whole = json.dumps(tokenizer())

    def refuse(data, *words):
        here = model()
        write(data, here, "tokenizer.json")
        refuse_model(here, "tokenizer.json", *words, documents_from=corpus_text)
        refused(run("tokenize", "--model", here, text), 3, "tokenizer.json")

    for data in ("", "{", whole[:len(whole) // 2], whole + "}", "[]", "null", "[" * 100000, b"\xff", b"\0" * 10):
        refuse(data)

    def with_model(**fields):
        return json.dumps(dict(tokenizer(), model=dict(tokenizer()["model"], **fields)))

    vocab = tokenizer()["model"]["vocab"]
    for data in (with_model(type="WordPiece"), with_model(vocab=[]), with_model(vocab={}), with_model(vocab=None),
                 with_model(vocab=dict(vocab, a=-1)), with_model(vocab=dict(vocab, a="1")),
                 with_model(vocab=dict(vocab, a=2 ** 40)), with_model(vocab=dict(vocab, a=1.5)),
                 with_model(vocab=dict(vocab, a=vocab["b"])), with_model(merges=[["x", "y"]]), with_model(merges=[["x"]]),
                 with_model(merges=[1]), with_model(merges={"t": "h"}), with_model(merges=["t h e"]),
                 with_model(dropout=0.5), with_model(byte_fallback=True),
                 json.dumps(dict(tokenizer(), pre_tokenizer={"type": "Whitespace"})),
                 json.dumps(dict(tokenizer(), pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("},
                                                             "behavior": "Isolated", "invert": False})),
                 json.dumps(dict(tokenizer(), pre_tokenizer=None)),
                 json.dumps(dict(tokenizer(), normalizer={"type": "Lowercase"})),
                 json.dumps(dict(tokenizer(), post_processor={"type": "BertProcessing"})),
                 json.dumps(dict(tokenizer(), added_tokens=[{"id": 98}])),
                 json.dumps(dict(tokenizer(), added_tokens=3)),
                 json.dumps(dict(tokenizer(), truncation={"max_length": 4})),
                 json.dumps(dict(tokenizer(), version="9.0"))):
        refuse(data)
    nested = {"type": "Sequence", "processors": [{"type": "ByteLevel"}]}
    for _ in range(400):
        nested = {"type": "Sequence", "processors": [nested]}
    refuse(json.dumps(dict(tokenizer(), post_processor=nested)))
    # Ids that the model does not have are the tokenizer's fault, too.
    here = model()
    write(with_model(vocab=dict(vocab, the=5000)), here, "tokenizer.json")
    refuse_model(here, "tokenizer.json", documents_from=corpus_text)


# ---- a damaged run directory


def test_damaged_results():
    whole = read(finished(), "results.json")
    data = json.loads(whole)

    def refuse(text):
        out = copy_of_finished()
        write(text, out, "results.json")
        before = contents(out)
        refused(run("report", out), 3, "results.json")
        refused(run("solve", out, "--max-shared", 2), 3, "results.json")
        equal(contents(out), before, "the run")

    for text in (b"", b"{", whole[:len(whole) // 2], whole + b"x", b"[]", b"[" * 100000, b"\0" * 100):
        refuse(text)
    for key, value in (("layers", -1), ("layers", 10 ** 9), ("layers", "4"), ("layers", 5), ("pattern", "FFF"),
                       ("pattern", "SFFF"), ("pattern", 4), ("index_topk", 0), ("trace", {}), ("base", 3),
                       ("schema", 99), ("corpora", []), ("overlap_documents", {"docs": [[1]]})):
        refuse(json.dumps(dict(data, **{key: value})))
    refused(run("report", os.path.join(scratch(), "none")), 3, "none")


def test_random_damage_to_results_never_crashes():
    whole = read(finished(), "results.json")
    rng = random.Random(2)
    out = copy_of_finished()
    for _ in range(10 if SANITIZED else 40):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'0123456789-{}[]",:.eE x\0\xff')
        write(bytes(damaged), out, "results.json")
        done = run("report", out)
        sanitizers(done)
        if done.status:
            refused(done, 3, "results.json")


def test_damaged_journal_and_tokens():
    for name in ("journal", "tokens"):
        whole = read(finished(), name)
        damages = {"empty header": whole[:10], "half": whole[:len(whole) // 2], "noise": b"x" * 500}
        for at in (0, 9, 13, 20, len(whole) // 3):
            flipped = bytearray(whole)
            flipped[at] ^= 0x41
            damages[f"byte {at}"] = bytes(flipped)
        for what, data in damages.items():
            out = copy_of_finished()
            write(data, out, name)
            before = contents(out, "log.txt")
            resumed = run("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", out, "--resume", *CALIBRATE)
            solved = run("solve", out, "--max-shared", 2)
            if name == "journal" and what == "half":
                # As after a kill: what is lost is measured again, by solve not known.
                equal(resumed.status, 0, f"resume of half a journal: {resumed}")
                same_run(out, finished(), "half a journal")
                continue
            refused(resumed, (2, 3), name)
            refused(solved, (2, 3), name)
            equal(contents(out, "log.txt"), before, f"the run after {name}: {what}")
    out = copy_of_finished()
    os.unlink(os.path.join(out, "journal"))
    refused(run("solve", out, "--max-shared", 2), 3, "journal")
    expect(not os.path.exists(os.path.join(out, "journal")), "solve made a journal")
    out = copy_of_finished()
    os.unlink(os.path.join(out, "tokens"))
    refused(run("solve", out, "--max-shared", 2), 3, "tokens")
    good("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", out, "--resume", *CALIBRATE)
    same_run(out, finished(), "tokens made anew")


def test_model_damaged_after_the_run_is_not_needed_to_repeat_it():
    """Another model under the same path is refused; the results stay."""
    here = model()
    out = os.path.join(scratch(), "run")
    command = ("calibrate", "--model", here, "--corpus", DOCUMENTS, "--out", out, "--resume", *CALIBRATE)
    good(*command)
    before = settled(out)
    path = os.path.join(here, "model.safetensors")
    whole = read(path)
    write(whole[:-50] + b"\1" + whole[-49:], path)
    refused(run(*command), 2, "fingerprint")
    equal(settled(out), before, "the run")
    write(whole[:100], path)
    refused(run(*command), 3, "model.safetensors")
    equal(settled(out), before, "the run")


# ---- a machine that gives out


def test_full_disk_names_the_file_and_loses_nothing():
    out = finished()
    sizes = {os.path.getsize(os.path.join(out, name)) for name in RUN_FILES}
    limits = sorted({0, 1, 100, 1000, 3000} | {size - 1 for size in sizes} | {size + 1 for size in sizes})
    failed = 0
    for limit in limits:
        here = os.path.join(scratch(), "run")
        command = ("calibrate", "--model", GLM, "--corpus", DOCUMENTS, "--out", here, *CALIBRATE, "--resume")
        done = run(*command, limits=[(resource.RLIMIT_FSIZE, limit)])
        sanitizers(done)
        if done.status:
            failed += 1
            refused(done, 3, here)
            expect(any(os.path.join(here, name) in done.err.splitlines()[-1] for name in RUN_FILES),
                   f"the error names no file: {done}")
            expect(not any(".tmp-" in name for name in listing(here)), f"left aside: {listing(here)}")
        else:
            expect(limit > max(os.path.getsize(os.path.join(out, n)) for n in RUN_FILES if n != "log.txt") - 1000,
                   f"no error with files of at most {limit} bytes")
        good(*command)
        same_run(here, out, f"after a full disk at {limit} bytes")
    expect(failed > len(limits) / 2, f"only {failed} of {len(limits)} met the limit")


def test_full_disk_behind_stdout():
    for command in (("inspect", GLM), ("help",), ("report", "--help"), ("--version",), ("inspect", GLM, "--json"),
                    ("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFFS"),
                    ("evaluate", "--model", GLM, "--corpus", DOCUMENTS, "--pattern", "FFFS", "--json"),
                    ("solve", finished(), "--json", "--max-shared", 1),
                    ("export", os.path.join(finished(), "pattern.yaml"), "--engine", "vllm")):
        with open("/dev/full", "wb") as full:
            refused(run(*command, stdout=full), 3, "stdout")


def test_not_enough_memory_is_an_error_and_no_crash():
    if SANITIZED:
        return  # the sanitizer itself needs terabytes of address space
    text = model(with_tokenizer=True)
    words = write("the cat sat there and then the bath " * 200, scratch(), "a.txt")
    seen = set()
    for threads in (1, 2):
        for mebibytes in (12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 1024):
            done = run("evaluate", "--model", text, "--corpus", words, "--pattern", "FFFS", "--threads", threads,
                       limits=[(resource.RLIMIT_AS, mebibytes << 20)])
            if done.status == 127 or "error while loading shared libraries" in done.err:
                continue  # the loader, before the program
            seen.add(done.status)
            if done.status:
                refused(done, 3)
    equal(seen, {0, 3}, "exit statuses")


def test_memory_for_a_huge_document_is_refused_cleanly():
    if SANITIZED:
        return
    long = write(jsonl([[i % 101 for i in range(2000)]] * 2), scratch(), "long.jsonl")
    out = os.path.join(scratch(), "run")
    command = ("calibrate", "--model", GLM, "--corpus", long, "--out", out, *CALIBRATE, "--resume", "--threads", 1)
    statuses = []
    for mebibytes in (60, 80, 100, 120, 140, 160, 200, 300):
        done = run(*command, limits=[(resource.RLIMIT_AS, mebibytes << 20)])
        statuses.append(done.status)
        if done.status and done.status != 127:
            refused(done, 3)
    done = good(*command)
    expect(os.path.exists(os.path.join(out, "results.json")), f"{statuses}: {done}")


main(globals())
