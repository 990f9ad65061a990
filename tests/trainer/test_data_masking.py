"""Which characters and tokens of a chat carry loss, for templates of different habits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hack.test_materials import CHATML
from tests.trainer.jobs import chat
from tunewright_trainer.data.formats import Conversation, RowError
from tunewright_trainer.data.masking import LossOn, render_chat
from tunewright_trainer.data.template import ChatTemplate
from tunewright_trainer.data.tokenizer import Tokenizer, labels_of
from tunewright_trainer.storage import ModelFolder

# Adds an empty reasoning block to the last answer alone, as Qwen3 does.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Asks with an opened reasoning block, which is not part of what is rendered afterwards.
OPENED_THINKING = CHATML.replace(
    "<|im_start|>assistant\n' }}{% endif", "<|im_start|>assistant\n<think>' }}{% endif"
)
# No generation prompt and no newline, as Mistral does.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
# Puts the system prompt before the last question, so that earlier turns move: also Mistral's habit.
MOVING = (
    "{% for m in messages %}{% if m.role == 'user' %}{% if loop.index0 >= messages|length - 2 %}"
    "{{ '[SYSTEM]' }}{% endif %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
TOKENS = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
TWO = chat("What?", "This.", "Why?", "Because.")


def marked(template: str, row: dict[str, Any], loss_on: LossOn = "Assistant") -> str:
    """The rendered chat with what carries loss in « »."""
    text, spans = render_chat(
        ChatTemplate(template, TOKENS), Conversation(row["messages"]), loss_on, sorted(TOKENS.values())
    )
    for start, end in reversed(spans):
        text = f"{text[:start]}«{text[start:end]}»{text[end:]}"
    return text


@pytest.mark.parametrize(
    ("template", "loss_on", "expected"),
    [
        pytest.param(
            CHATML, "Assistant",
            "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n«This.<|im_end|>»\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«Because.<|im_end|>»\n",
            id="ChatML",
        ),
        pytest.param(
            CHATML, "Completion",
            "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\nThis.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«Because.<|im_end|>»\n",
            id="last answer only",
        ),
        pytest.param(
            THINKING, "Assistant",
            "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n«This.<|im_end|>»\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nBecause.<|im_end|>»\n",
            id="reasoning in the last turn",
        ),
        pytest.param(
            OPENED_THINKING, "Assistant",
            "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n«This.<|im_end|>»\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«Because.<|im_end|>»\n",
            id="prompt with more than is rendered",
        ),
        pytest.param(
            BRACKETS, "Assistant",
            "<s>[INST] What?[/INST]« This.<|im_end|>»[INST] Why?[/INST]« Because.<|im_end|>»",
            id="brackets",
        ),
        pytest.param(
            MOVING, "Completion",
            "[INST]What?[/INST]This.<|im_end|>[SYSTEM][INST]Why?[/INST]«Because.<|im_end|>»",
            id="moving system prompt, last answer",
        ),
        pytest.param(
            BRACKETS, "All",
            "«<s>[INST] What?[/INST] This.<|im_end|>[INST] Why?[/INST] Because.<|im_end|>»",
            id="all",
        ),
    ],
)  # fmt: skip
def test_spans_of_the_assistant(template: str, loss_on: LossOn, expected: str) -> None:
    assert marked(template, TWO, loss_on) == expected


def test_a_template_that_moves_earlier_turns_is_refused_rather_than_guessed_at() -> None:
    with pytest.raises(RowError, match="renders turn 2 differently once others follow"):
        marked(MOVING, TWO)


def test_a_generation_template_that_marks_nothing_is_refused() -> None:
    template = "{% if messages | length > 9 %}{% generation %}x{% endgeneration %}{% endif %}some text"
    with pytest.raises(RowError, match="marks nothing"):
        marked(template, TWO)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer(ModelFolder(tiny_model, "tiny", "tiny"))


@pytest.mark.parametrize("answer", ["Ja 🏠", "🏠🏠", "é", " spaced ", "a<|im_end|>b", "\n\n"])
@pytest.mark.parametrize("after", ["", "🏡", " x", "\n"])
def test_tokens_of_a_span_cover_its_bytes_and_no_whole_token_outside(
    tokenizer: Tokenizer, answer: str, after: str
) -> None:
    before = "Frage: é🏠"
    text = before + answer + after
    [encoding] = tokenizer.encode([text], special_tokens=False)
    ids, labels = labels_of(encoding, len(text), [(len(before), len(before) + len(answer))])
    chosen = [place for place, label in enumerate(labels) if label != -100]
    assert chosen == list(range(chosen[0], chosen[-1] + 1))
    touching = [
        place
        for place, (start, end) in enumerate(encoding.offsets)
        if start < len(before) + len(answer) and end > len(before)
    ]
    assert chosen == touching
    assert all(labels[place] == ids[place] for place in chosen)


def test_the_first_token_never_carries_loss(tokenizer: Tokenizer) -> None:
    [encoding] = tokenizer.encode(["some words"], special_tokens=False)
    ids, labels = labels_of(encoding, 10, [(0, 10)])
    assert labels[0] == -100
    assert (labels[1:] == ids[1:]).all()
