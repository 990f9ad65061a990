"""Finds the characters of a rendered chat that the assistant wrote, to give loss to those alone.

Templates that mark them with ``{% generation %}`` are believed. Others are rendered turn by turn, and each
rendering is checked to be a part of the whole: no guess is ever made about where a turn begins or ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tunewright_trainer.data.formats import Conversation, RowError
from tunewright_trainer.data.template import ChatTemplate, Span

LossOn = Literal["Assistant", "Completion", "All"]

_CANNOT_TELL = (
    "the chat template renders turn {number} differently once others follow, so that the assistant's words "
    "can't be told apart: set dataset.lossOn to Completion or All, or dataset.chatTemplate to a template "
    "with {{% generation %}}"
)


def render_chat(
    template: ChatTemplate, chat: Conversation, loss_on: LossOn, special_tokens: Sequence[str]
) -> tuple[str, list[Span]]:
    """The chat as text and the spans that carry loss.

    Assistant: all turns of the assistant; Completion: the last one; All: everything.
    ``special_tokens`` are the texts of the tokenizer's special tokens. Raises :class:`RowError`.
    """
    if loss_on == "All":
        text = template.render(chat)
        return text, [(0, len(text))]
    if template.marks_generation:
        text, spans = template.render_with_generation(chat)
        spans = [span for span in spans if span[1] > span[0]]
        if not spans:
            raise RowError("the chat template marks nothing of it as the assistant's")
        return text, spans if loss_on == "Assistant" else spans[-1:]
    text = template.render(chat)
    turns = [number for number, turn in enumerate(chat.messages) if turn["role"] == "assistant"]
    if loss_on == "Completion":
        turns = turns[-1:]
    return text, [_span(template, chat, text, turn, special_tokens) for turn in turns]


def _span(
    template: ChatTemplate, chat: Conversation, text: str, turn: int, special_tokens: Sequence[str]
) -> Span:
    """Where turn ``turn`` (from 0, the assistant's) lies in ``text``, its end-of-turn token included."""
    start = _start(template, chat, text, turn)
    is_last = turn == len(chat.messages) - 1
    end = len(text) if is_last else _end(template, chat, text, turn, start)
    return start, _without_trailing_space(text, start, end, special_tokens)


def _start(template: ChatTemplate, chat: Conversation, text: str, turn: int) -> int:
    before = template.render(chat, turn, ask=True)
    if text.startswith(before):
        return len(before)
    # Some templates ask with more than they render afterwards (an opened <think>, say).
    before = template.render(chat, turn)
    if text.startswith(before):
        asked = template.render(chat, turn, ask=True)
        return _common_prefix(text, asked) if asked.startswith(before) else len(before)
    raise RowError(_CANNOT_TELL.format(number=turn + 1))


def _end(template: ChatTemplate, chat: Conversation, text: str, turn: int, start: int) -> int:
    upto = template.render(chat, turn + 1)
    if text.startswith(upto):
        return len(upto)
    # The turn is rendered otherwise while it is the last (an empty <think> block, say): what follows its
    # words there must follow them here.
    content = str(chat.messages[turn].get("content", "")).strip()
    place = upto.rfind(content)
    after_alone = upto[place + len(content) :]
    if content and place >= 0 and text.startswith(content + after_alone, start):
        return start + len(content) + len(after_alone)
    raise RowError(_CANNOT_TELL.format(number=turn + 1))


def _without_trailing_space(text: str, start: int, end: int, special_tokens: Sequence[str]) -> int:
    """Cut the newline that templates write after the end-of-turn token: the model stops before it."""
    stripped = text[start:end].rstrip()
    if any(stripped.endswith(token) for token in special_tokens if token):
        return start + len(stripped)
    return end


def _common_prefix(one: str, other: str) -> int:
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)
