"""Chat templates render as transformers renders them: text, token ids, and what {% generation %} marks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hack.test_materials import CHATML
from tunewright_trainer.contract import Reason
from tunewright_trainer.data.formats import Conversation, RowError
from tunewright_trainer.data.template import ChatTemplate
from tunewright_trainer.data.tokenizer import Tokenizer, labels_of
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.storage import ModelFolder

LLAMA_3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- message.tool_calls[0].function | tojson }}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {{- message.content | tojson }}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

GENERATION = """{% set ns = namespace(turns=0) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- continue %}
    {%- endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- generation %}{{ message.content }}{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if ns.turns > 99 %}{{ raise_exception('too many turns') }}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CALL = {"function": {"name": "permit", "arguments": {"area_m2": 15, "quotes": "<&'\">", "ort": "Malmö"}}}
CHATS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    "several turns with system and emoji": {
        "messages": [
            {"role": "system", "content": "  Be brief. "},
            {"role": "user", "content": "Får jag bygga?"},
            {"role": "assistant", "content": "Ja 🏠"},
            {"role": "user", "content": "And\nhere?"},
            {"role": "assistant", "content": " No. \n"},
        ]
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Do I need one?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": '{"needed": true}'},
            {"role": "assistant", "content": "Yes."},
        ],
        "tools": [{"type": "function", "function": {"name": "permit", "parameters": {"type": "object"}}}],
    },
}
BLOCK_LINES = """{% for message in messages %}
    {% if message.role == 'assistant' %}
<|im_start|>assistant
{{ message.content }}<|im_end|>
    {% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
TEMPLATES = {
    "blocks on lines of their own": BLOCK_LINES,
    "ChatML": CHATML,
    "Llama 3": LLAMA_3,
    "with generation": GENERATION,
}


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer and transformers' on the same folder."""
    from transformers import AutoTokenizer

    ours = Tokenizer(ModelFolder(tiny_model, "pvc://models/tiny", "pvc://models/tiny"))
    return ours, AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("ask", [False, True], ids=["whole", "with generation prompt"])
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_text_and_ids_equal_transformers(
    pair: tuple[Tokenizer, Any], template: str, chat: dict[str, Any], ask: bool
) -> None:
    ours, theirs = pair
    text = ChatTemplate(template, ours.special_tokens).render(
        Conversation(chat["messages"], chat.get("tools")), ask=ask
    )
    given = {"tools": chat.get("tools"), "chat_template": template, "add_generation_prompt": ask}
    assert text == theirs.apply_chat_template(chat["messages"], tokenize=False, **given)
    [encoding] = ours.encode([text], special_tokens=False)
    assert encoding.ids == theirs.apply_chat_template(chat["messages"], tokenize=True, **given)["input_ids"]


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
def test_the_generation_mask_equals_transformers(pair: tuple[Tokenizer, Any], chat: dict[str, Any]) -> None:
    ours, theirs = pair
    template = ChatTemplate(GENERATION, ours.special_tokens)
    text, spans = template.render_with_generation(Conversation(chat["messages"], chat.get("tools")))
    [encoding] = ours.encode([text], special_tokens=False)
    _, labels = labels_of(encoding, len(text), spans)
    expected = theirs.apply_chat_template(
        chat["messages"], chat_template=GENERATION, tokenize=True, return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    assert [int(label != -100) for label in labels] == expected["assistant_masks"]
    assert sum(expected["assistant_masks"]) > 0


def test_the_date_comes_from_the_clock_that_is_given() -> None:
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", {}, now=lambda: datetime(2031, 5, 6))  # noqa: DTZ001
    assert template.render(Conversation([])) == "2031-05-06"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="classes of a string"),
        pytest.param("{{ dict.__class__() }}", id="class of dict"),
        pytest.param("{{ raise_exception.__globals__['json'] }}", id="globals of a function"),
        pytest.param("{{ namespace.__init__.__globals__.x }}", id="globals of a class"),
        pytest.param("{% set ns = namespace(__class__=1) %}", id="underscore in a namespace"),
        pytest.param("{% set x = messages.append(1) %}", id="changing the messages"),
        pytest.param("{{ range(999999999) | list }}", id="a range without end"),
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    template = ChatTemplate(source, {})
    with pytest.raises(RowError):
        template.render(Conversation(messages))
    assert messages == [{"role": "user", "content": "x"}]


def test_a_template_that_refuses_a_chat_says_why() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(RowError, match="the chat template refuses it: roles must alternate"):
        template.render(Conversation([{"role": "user", "content": "x"}]))


def test_a_template_that_trips_over_a_chat_is_a_fault_of_the_row() -> None:
    template = ChatTemplate("{{ messages[0].content + 1 }}", {})
    with pytest.raises(RowError, match="the chat template fails on it: TypeError"):
        template.render(Conversation([{"role": "user", "content": "x"}]))


def test_a_template_that_is_no_jinja_is_refused_with_its_line() -> None:
    with pytest.raises(TrainerError, match=r"not valid Jinja: .*\(line 2\)") as refused:
        ChatTemplate("fine\n{% nonsense %}", {})
    assert refused.value.reason is Reason.MODEL_INVALID
