#!/usr/bin/env python3
"""Turns conversations into documents with the model's own chat template.

    scripts/render_chat.py --model DIR chats.jsonl > corpus.jsonl
    scripts/render_chat.py --model DIR --completion chats.jsonl > corpus.jsonl

A line of the input is a JSON object with `messages`, a list of {"role", "content", ...}, and if wanted `tools`; `-` is
stdin. A line of the output has `text`, or with --completion `prompt` and `completion`: the last turn, which must be the
assistant's, is then all that is scored. The template is chat_template.jinja of DIR or else `chat_template` of its
tokenizer_config.json, run by Jinja in its sandbox as transformers does: white space of blocks trimmed, the special
tokens by their names, `tools`, `raise_exception`, `strftime_now` refused (documents must not depend on the day).
--template-arg NAME=JSON hands it more (enable_thinking=false).

Tokens that tokenizer.json itself puts in front of a text are taken off the rendered one, so that they are not there
twice. Needs jinja2. Ends with exit status 1, naming the line, at the first conversation that cannot be rendered.
"""
import argparse
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox


class Refused(Exception):
    pass


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what an assistant wrote, for training; here its body alone matters."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise Refused(f"the template refuses it: {message}")


def strftime_now(_format):
    raise Refused("the template asks for the date; documents that change by the day are no corpus: set it with "
                  "--template-arg if the template lets you")


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def read_json(path):
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(f"{path}: {error}") from error


def template_text(model, config):
    path = model / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    if not isinstance(found, str):
        raise Refused(f"{model}: neither chat_template.jinja nor a chat_template in tokenizer_config.json; a model "
                      "without a template takes documents of text, not messages")
    return found


def special_tokens(config):
    """bos_token and the like, which templates use by name."""
    tokens = {}
    for name, value in config.items():
        if name.endswith("_token") and value:
            tokens[name] = value["content"] if isinstance(value, dict) else value
    return {name: value for name, value in tokens.items() if isinstance(value, str)}


def put_in_front(tokenizer):
    """What tokenizer.json puts in front of every text: the special tokens before $A."""
    stages = tokenizer.get("post_processor") or {}
    stages = stages.get("processors", [stages])
    front = ""
    for stage in stages:
        if stage.get("type") != "TemplateProcessing":
            continue
        ids = stage["special_tokens"]
        for part in stage["single"]:
            if "SpecialToken" not in part:
                break
            front += "".join(ids[part["SpecialToken"]["id"]]["tokens"])
    return front


class Renderer:
    def __init__(self, model, arguments):
        config = read_json(model / "tokenizer_config.json")
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation])
        environment.filters["tojson"] = to_json
        environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
        self.template = environment.from_string(template_text(model, config))
        self.arguments = {**special_tokens(config), **arguments}
        self.front = put_in_front(read_json(model / "tokenizer.json"))

    def render(self, chat, messages, open_turn):
        return self.template.render(**{"tools": chat.get("tools"), "documents": None, **self.arguments},
                                    messages=messages, add_generation_prompt=open_turn)

    def without_front(self, text):
        return text[len(self.front):] if self.front and text.startswith(self.front) else text

    def document(self, chat, completion):
        messages = chat.get("messages") if isinstance(chat, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise Refused("expected an object with messages, a list of objects with role and content")
        whole = self.render(chat, messages, False)
        if not completion:
            return {"text": self.without_front(whole)}
        if messages[-1].get("role") != "assistant":
            raise Refused(f"the last turn is the {messages[-1].get('role')}'s, --completion scores the assistant's")
        prompt = self.render(chat, messages[:-1], True)
        if not whole.startswith(prompt):
            # Reasoning models: the open turn begins what a finished turn leaves out, or the other way round.
            prompt = self.render(chat, messages[:-1], False)
        if not whole.startswith(prompt) or len(whole) == len(prompt):
            raise Refused("the conversation up to the last turn does not begin the whole one as this template renders "
                          "them; without --completion it can be rendered as text")
        return {"prompt": self.without_front(prompt), "completion": whole[len(prompt):]}


def argument(text):
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def lines_of(path):
    if path == "-":
        yield from enumerate(sys.stdin, 1)
    else:
        with open(path, encoding="utf-8") as file:
            yield from enumerate(file, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--completion", action="store_true")
    parser.add_argument("--template-arg", type=argument, action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("chats", nargs="+")
    args = parser.parse_args()
    place = str(args.model)
    try:
        renderer = Renderer(args.model, dict(args.template_arg))
        for path in args.chats:
            for number, line in lines_of(path):
                place = f"{path}: line {number}"
                if line.strip():
                    document = renderer.document(json.loads(line), args.completion)
                    print(json.dumps(document, ensure_ascii=False))
    except (Refused, jinja2.TemplateError, ValueError, OSError, TypeError, KeyError) as error:
        sys.exit(f"render_chat: {place}: {error}")


sys.stdout.reconfigure(encoding="utf-8")
main()
