"""What a row means: detects a file's format, maps its columns, and says what is wrong with a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright_trainer.contract import DatasetSource, Reason
from tunewright_trainer.errors import TrainerError

Format = Literal["Messages", "PromptCompletion", "Text"]

COLUMNS: dict[Format, tuple[str, ...]] = {
    "Messages": ("messages",),
    "PromptCompletion": ("prompt", "completion"),
    "Text": ("text",),
}
"""The columns that a row of each format must have; also the order in which Auto looks for them."""
OPTIONAL_COLUMNS = ("tools",)

FIRST_ROLES = ("system", "developer")
_KEYS_SHOWN = 8


@dataclass(frozen=True)
class Conversation:
    """Turns as chat templates take them, the last one by the assistant."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None


@dataclass(frozen=True)
class PromptCompletion:
    prompt: str
    completion: str


@dataclass(frozen=True)
class Text:
    text: str


Sample = Conversation | PromptCompletion | Text


class RowError(Exception):
    """A row can't be used; the text is the reason, for a person."""


def check_columns(source: DatasetSource) -> None:
    """Raises ConfigInvalid if the column mapping names columns that no format has."""
    known = [column for columns in COLUMNS.values() for column in columns] + list(OPTIONAL_COLUMNS)
    for ours in source.columns:
        if ours not in known:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"columns of {source.source.uri} maps {ours!r}, which is not a column of any format.",
                f"The left side is one of {', '.join(known)}; the right side is the name in your file.",
            )


def detect(row: Mapping[str, Any], columns: Mapping[str, str]) -> Format | None:
    """The format whose columns ``row`` has, after mapping; None if it has none's."""
    for name, needed in COLUMNS.items():
        if all(columns.get(column, column) in row for column in needed):
            return name
    return None


def undetected(row: Mapping[str, Any]) -> str:
    """The reason for a row whose format Auto can't tell."""
    keys = ", ".join(sorted(map(str, row))[:_KEYS_SHOWN]) or "none"
    return (
        f"no known format: its columns are {keys}; expected are messages, or prompt and completion, or text "
        "(dataset columns maps other names)"
    )


def parse(row: Mapping[str, Any], format_: Format, columns: Mapping[str, str]) -> Sample:
    """The sample in a row. Raises :class:`RowError`."""
    values = [_column(row, columns.get(column, column)) for column in COLUMNS[format_]]
    if format_ == "Messages":
        tools = row.get(columns.get("tools", "tools"))
        if tools is not None and not isinstance(tools, list):
            raise RowError("tools is not a list")
        return Conversation(_conversation(values[0]), tools)
    texts = [_text(value, column) for value, column in zip(values, COLUMNS[format_], strict=True)]
    if format_ == "Text":
        return Text(texts[0])
    return PromptCompletion(texts[0], texts[1])


def _column(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        keys = ", ".join(sorted(map(str, row))[:_KEYS_SHOWN]) or "none"
        raise RowError(f"no column {name!r} (columns: {keys})" if name not in row else f"{name!r} is null")
    return row[name]


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{column} is not text")
    if not value.strip():
        raise RowError(f"{column} is empty")
    return value


def _conversation(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise RowError(
            "messages is not a list of turns" if not isinstance(value, list) else "messages is empty"
        )
    turns = [_turn(turn, number) for number, turn in enumerate(value, start=1)]
    _check_order(turns)
    return turns


def _turn(turn: Any, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is not an object with role and content")
    role = turn.get("role")
    if not isinstance(role, str):
        hint = " (from/value is ShareGPT: rename them)" if "from" in turn else ""
        raise RowError(f"turn {number} has no role{hint}")
    content = _content(turn.get("content"), role, number)
    if not content.strip() and role not in FIRST_ROLES and not turn.get("tool_calls"):
        raise RowError(f"turn {number} ({role}) is empty")
    # Keys without a value go: templates handle a missing key better than a null.
    kept = {key: value for key, value in turn.items() if value is not None}
    return kept | {"content": content} if content or not turn.get("tool_calls") else kept


def _content(content: Any, role: str, number: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
        raise RowError(f"turn {number} ({role}) has parts that are not text")
    raise RowError(f"turn {number} ({role}) has content that is not text")


def _check_order(turns: list[dict[str, Any]]) -> None:
    """System first if at all; then user and assistant in turn, tools after calls; assistant last."""
    before = "start"
    allowed = {
        "start": ("user", *FIRST_ROLES),
        "system": ("user",),
        "developer": ("user",),
        "user": ("assistant",),
        "assistant": ("user",),
        "assistant with tool calls": ("tool",),
        "tool": ("tool", "assistant"),
    }
    for number, turn in enumerate(turns, start=1):
        role = turn["role"]
        if role not in ("user", "assistant", "tool", *FIRST_ROLES):
            raise RowError(f"turn {number} has the unknown role {role!r}")
        if role not in allowed[before]:
            where = "the first turn" if before == "start" else f"turn {number}, after {before},"
            raise RowError(f"{where} is {role}; expected {' or '.join(allowed[before])}")
        before = "assistant with tool calls" if role == "assistant" and turn.get("tool_calls") else role
    if turns[-1]["role"] != "assistant":
        raise RowError(f"the last turn is {turns[-1]['role']}, so there is no answer to learn")
