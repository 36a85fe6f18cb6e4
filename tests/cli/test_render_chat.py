#!/usr/bin/env python3
"""scripts/render_chat.py: conversations to documents with a model's own template."""
import json
import os
import subprocess
import sys

from chats import CHATS, DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS, GLM_TEMPLATE
from harness import ROOT, equal, expect, main, scratch

SCRIPT = os.path.join(ROOT, "scripts", "render_chat.py")


def model(template, tokens=None, tokenizer=None, in_config=False):
    folder = scratch()
    config = dict(tokens or {})
    if in_config:
        config["chat_template"] = template
    else:
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as file:
            file.write(template)
    for name, content in (("tokenizer_config.json", config), ("tokenizer.json", tokenizer)):
        if content is not None:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                json.dump(content, file)
    return folder


def render(folder, chats, *args):
    text = "".join(chat if isinstance(chat, str) else json.dumps(chat) + "\n" for chat in chats)
    done = subprocess.run([sys.executable, SCRIPT, "--model", folder, *args, "-"], input=text.encode(),
                          capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def documents(*args):
    status, out, err = render(*args)
    equal((status, err), (0, ""), "status and errors")
    return [json.loads(line) for line in out.splitlines()]


def refused(*args, words):
    status, _, err = render(*args)
    equal(status, 1, "exit status")
    equal(err.count("\n"), 1, f"lines of {err!r}")
    for word in words:
        expect(word in err, f"{word!r} is not in {err!r}")


def test_a_template_of_tags_gives_the_text_it_says():
    found = documents(model(DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS), CHATS)
    bos, eos = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    equal(found[0], {"text": f"{bos}<｜User｜>What is 12345 + 678? <think><｜Assistant｜>13023{eos}"}, "the first")
    expect(found[1]["text"].startswith(f"{bos}Answer  in one line.\n<｜User｜>Wer zahlt die Miete?\r\n\n  §535 BGB <｜"),
           f"white space of contents stays: {found[1]}")
    expect('<｜tool▁call▁begin｜>find<｜tool▁sep｜>{"q": "é<&"}<｜tool▁call▁end｜>' in found[2]["text"],
           f"JSON is not escaped for HTML: {found[2]}")


def test_blocks_on_lines_of_their_own_leave_no_white_space():
    found = documents(model(GLM_TEMPLATE, {}), CHATS)
    equal(found[0]["text"], "[gMASK]<sop><|user|>\nWhat is 12345 + 678? <think><|assistant|>\n<think></think>\n13023", "the first")
    expect(found[2]["text"].startswith('[gMASK]<sop><|system|>\n# Tools\n{"name": "find", "description": "searches, '
                                       'größer"}\n'), f"tools: {found[2]}")


def test_a_template_in_tokenizer_config_is_the_same():
    for tokens in (DEEPSEEK_TOKENS, {**DEEPSEEK_TOKENS, "chat_template": None}):
        folder = model(DEEPSEEK_TEMPLATE, tokens, in_config=True)
        equal(documents(folder, CHATS), documents(model(DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS), CHATS), "documents")
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": DEEPSEEK_TEMPLATE}]
    equal(documents(model(several, DEEPSEEK_TOKENS, in_config=True), CHATS),
          documents(model(DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS), CHATS), "documents of the template called default")


def test_completion_is_the_last_turn_and_nothing_is_lost():
    for template, tokens, completion in ((DEEPSEEK_TEMPLATE, DEEPSEEK_TOKENS, "13023<｜end▁of▁sentence｜>"),
                                         (GLM_TEMPLATE, {}, "\n<think></think>\n13023")):
        folder = model(template, tokens)
        halves, whole = documents(folder, CHATS, "--completion"), documents(folder, CHATS)
        equal([half["prompt"] + half["completion"] for half in halves], [one["text"] for one in whole], "joined")
        equal(halves[0]["completion"], completion, "the scored part")


def test_a_prompt_that_a_finished_turn_does_not_begin_with_is_cut_before_the_turn():
    template = ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                "{% if add_generation_prompt %}[assistant]<think>{% endif %}")
    found = documents(model(template, {}), CHATS[:1], "--completion")
    equal(found, [{"prompt": "[user]What is 12345 + 678? <think>", "completion": "[assistant]13023"}], "documents")


def test_what_the_tokenizer_puts_in_front_is_not_there_twice():
    single = [{"SpecialToken": {"id": "a", "type_id": 0}}, {"SpecialToken": {"id": "b", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "a", "type_id": 0}}]
    stage = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {
        "a": {"id": "a", "ids": [1], "tokens": ["[gMASK]"]}, "b": {"id": "b", "ids": [2], "tokens": ["<sop>"]}}}
    for processor in (stage, {"type": "Sequence", "processors": [{"type": "ByteLevel"}, stage]}):
        folder = model(GLM_TEMPLATE, {}, {"post_processor": processor})
        expect(documents(folder, CHATS)[0]["text"].startswith("<|user|>\n"), "text")
        expect(documents(folder, CHATS, "--completion")[0]["prompt"].startswith("<|user|>\n"), "prompt")
    for processor in (None, {"type": "ByteLevel"}):
        folder = model(GLM_TEMPLATE, {}, {"post_processor": processor})
        expect(documents(folder, CHATS)[0]["text"].startswith("[gMASK]<sop><|user|>\n"), "text")


def test_template_arguments_reach_the_template():
    found = documents(model(GLM_TEMPLATE, {}), CHATS[:1], "--template-arg", "enable_thinking=false")
    expect("678? <think>/nothink<|assistant|>" in found[0]["text"], f"{found}")


def test_what_cannot_be_rendered_is_refused_by_line():
    folder = model(GLM_TEMPLATE, {})
    refused(folder, [CHATS[0], {"messages": [{"role": "judge", "content": "x"}]}], words=["line 2", "unknown role judge"])
    refused(folder, [CHATS[0], {"text": "x"}], words=["line 2", "messages"])
    refused(folder, ["[1]\n"], words=["line 1", "messages"])
    refused(folder, ["{\n"], words=["line 1"])
    refused(folder, [{"messages": CHATS[0]["messages"][:1]}], "--completion", words=["line 1", "last turn is the user's"])
    refused(model("{{ strftime_now('%Y') }}", {}), CHATS[:1], words=["line 1", "date"])
    refused(model("{{ messages.__class__.__mro__ }}", {}), CHATS[:1], words=["line 1", "unsafe"])
    refused(model("{% if %}", {}), CHATS[:1], words=["render_chat"])
    refused(model(None, {}, in_config=True), CHATS[:1], words=["chat_template"])


main(globals())
