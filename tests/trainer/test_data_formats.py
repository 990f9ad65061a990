"""What counts as a usable row, and the reason that a person reads for one that isn't."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainer.jobs import chat
from tunewright_trainer.data.formats import (
    Conversation,
    Format,
    PromptCompletion,
    RowError,
    Text,
    detect,
    parse,
)


def turn(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CALLS = {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("row", "columns", "format_"),
    [
        ({"messages": [], "text": "x"}, {}, "Messages"),
        ({"prompt": "a", "completion": "b", "text": "x"}, {}, "PromptCompletion"),
        ({"text": "x"}, {}, "Text"),
        ({"conversation": []}, {"messages": "conversation"}, "Messages"),
        ({"prompt": "a"}, {}, None),
        ({"messages": []}, {"messages": "conversation"}, None),
    ],
)
def test_auto_looks_for_the_columns_of_each_format(
    row: dict[str, Any], columns: dict[str, str], format_: Format | None
) -> None:
    assert detect(row, columns) == format_


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(chat("a", "b", "c", "d", system="s")["messages"], id="system and two questions"),
        pytest.param([turn("developer"), turn("user"), turn("assistant")], id="developer"),
        pytest.param(
            [
                turn("user"), turn("assistant", None, **CALLS), turn("tool"), turn("tool"), turn("assistant"),
                turn("user"), turn("assistant"),
            ],
            id="tools",
        ),
    ],
)  # fmt: skip
def test_sound_conversations(messages: list[dict[str, Any]]) -> None:
    sample = parse({"messages": messages}, "Messages", {})
    assert isinstance(sample, Conversation)
    assert [turn["role"] for turn in sample.messages] == [turn["role"] for turn in messages]


def test_parts_of_text_are_joined_and_nulls_dropped() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sample = parse({"messages": [turn("user", parts, name=None), turn("assistant")]}, "Messages", {})
    assert isinstance(sample, Conversation)
    assert sample.messages[0] == {"role": "user", "content": "ab"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "messages is empty"),
        ("hello", "messages is not a list of turns"),
        (["hello"], "turn 1 is not an object with role and content"),
        ([{"from": "human", "value": "x"}], "turn 1 has no role (from/value is ShareGPT: rename them)"),
        ([turn("narrator")], "turn 1 has the unknown role 'narrator'"),
        ([turn("assistant")], "the first turn is assistant; expected user or system or developer"),
        ([turn("user"), turn("system")], "turn 2, after user, is system; expected assistant"),
        ([turn("user"), turn("assistant"), turn("assistant")],
         "turn 3, after assistant, is assistant; expected user"),
        ([turn("user"), turn("assistant", **CALLS), turn("user")],
         "turn 3, after assistant with tool calls, is user; expected tool"),
        ([turn("user")], "the last turn is user, so there is no answer to learn"),
        ([turn("user", "")], "turn 1 (user) is empty"),
        ([turn("user"), turn("assistant", None)], "turn 2 (assistant) is empty"),
        ([turn("user", 3)], "turn 1 (user) has content that is not text"),
        ([turn("user", [{"type": "image"}])], "turn 1 (user) has parts that are not text"),
    ],
)  # fmt: skip
def test_reasons_of_unusable_conversations(messages: Any, reason: str) -> None:
    with pytest.raises(RowError) as refused:
        parse({"messages": messages}, "Messages", {})
    assert str(refused.value) == reason


def test_prompt_completion_and_text() -> None:
    assert parse({"p": "a", "completion": "b"}, "PromptCompletion", {"prompt": "p"}) == PromptCompletion(
        "a", "b"
    )
    assert parse({"text": " a "}, "Text", {}) == Text(" a ")


@pytest.mark.parametrize(
    ("row", "format_", "reason"),
    [
        ({"prompt": "a"}, "PromptCompletion", "no column 'completion' (columns: prompt)"),
        ({"prompt": "a", "completion": None}, "PromptCompletion", "'completion' is null"),
        ({"prompt": "a", "completion": "  "}, "PromptCompletion", "completion is empty"),
        ({"text": ["a"]}, "Text", "text is not text"),
        ({"messages": [turn("user"), turn("assistant")], "tools": "f"}, "Messages", "tools is not a list"),
    ],
)
def test_reasons_of_other_unusable_rows(row: dict[str, Any], format_: Format, reason: str) -> None:
    with pytest.raises(RowError) as refused:
        parse(row, format_, {})
    assert str(refused.value) == reason
