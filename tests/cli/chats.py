"""Conversations, and chat templates written for these tests in the manner of the published models'."""

# Tags in the text, turns without white space between them, reasoning left out of earlier turns.
DEEPSEEK_TEMPLATE = """\
{%- set ns = namespace(system='') -%}
{%- for m in messages if m.role == 'system' -%}
{%- set ns.system = ns.system ~ m.content -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for m in messages -%}
  {%- if m.role == 'user' -%}<｜User｜>{{ m.content }}{%- endif -%}
  {%- if m.role == 'assistant' -%}<｜Assistant｜>
    {%- if m.tool_calls is defined and m.tool_calls -%}
      {%- for call in m.tool_calls -%}<｜tool▁call▁begin｜>{{ call.name }}<｜tool▁sep｜>{{ call.arguments | tojson }}<｜tool▁call▁end｜>{%- endfor -%}
    {%- else -%}{{ m.content.split('</think>')[-1] }}{%- endif -%}
    {{ eos_token }}{%- endif -%}
  {%- if m.role == 'tool' -%}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<｜Assistant｜>{%- endif -%}
"""
# A prefix of two tokens, a line break behind each tag, blocks on lines of their own.
GLM_TEMPLATE = """\
[gMASK]<sop>
{%- if tools %}
<|system|>
# Tools
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'system' %}
<|system|>
{{ m.content }}
{%- elif m.role == 'user' %}
<|user|>
{{ m.content }}{{ '/nothink' if enable_thinking is defined and not enable_thinking }}
{%- elif m.role == 'assistant' %}
<|assistant|>
{% generation %}
<think>{{ m.reasoning_content or '' }}</think>
{{ m.content }}
{%- endgeneration %}
{%- elif m.role == 'tool' %}
<|observation|>
<tool_response>{{ m.content }}</tool_response>
{%- else %}
{{ raise_exception('unknown role ' ~ m.role) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|assistant|>
{%- endif %}
"""
DEEPSEEK_TOKENS = {"bos_token": {"content": "<｜begin▁of▁sentence｜>", "special": True}, "add_bos_token": False,
                   "eos_token": "<｜end▁of▁sentence｜>"}

CHATS = [
    {"messages": [{"role": "user", "content": "What is 12345 + 678? <think>"},
                  {"role": "assistant", "content": "13023"}]},
    {"messages": [{"role": "system", "content": "Answer  in one line.\n"},
                  {"role": "user", "content": "Wer zahlt die Miete?\r\n\n  §535 BGB "},
                  {"role": "assistant", "content": "Der Mieter, it's due on the 3rd.", "reasoning_content": "hm"},
                  {"role": "user", "content": "日本語で、お願いします。"},
                  {"role": "assistant", "content": "借主です。🏠\n"}]},
    {"messages": [{"role": "user", "content": "Look it up: <|user|> [gMASK] <｜User｜>"},
                  {"role": "assistant", "content": "", "tool_calls": [{"name": "find", "arguments": {"q": "é<&"}}]},
                  {"role": "tool", "content": "{\"rows\": [1, 22, 333, 4444]}"},
                  {"role": "assistant", "content": "1, 22, 333 and 4444."}],
     "tools": [{"name": "find", "description": "searches, größer"}]},
]
