"""Turns samples into documents: token ids with a label for each token that carries loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright_trainer.contract import Reason, TrainerConfig
from tunewright_trainer.data.formats import Conversation, Format, PromptCompletion, Sample
from tunewright_trainer.data.masking import LossOn, render_chat
from tunewright_trainer.data.template import Span
from tunewright_trainer.data.tokenizer import IGNORED, Ids, Tokenizer, labels_of
from tunewright_trainer.errors import TrainerError


@dataclass(frozen=True)
class Rendered:
    """A sample as text, ready for the tokenizer."""

    text: str
    spans: list[Span]
    """Characters that carry loss."""
    whole: bool
    """Plain text: the tokenizer adds its own special tokens and the end-of-text token is put behind.
    A chat has all of them from its template."""


@dataclass(frozen=True)
class Document:
    """Ids and labels, int32 of shape (tokens,)."""

    ids: Ids
    labels: Ids
    truncated_from: int | None = None
    """Tokens before the cut; None if nothing was cut."""

    @property
    def loss_tokens(self) -> int:
        return int((self.labels != IGNORED).sum())


class Renderer:
    """Samples to documents under one job's settings."""

    def __init__(self, tokenizer: Tokenizer, config: TrainerConfig, sequence_length: int) -> None:
        self._tokenizer = tokenizer
        self._task = config.task
        self._loss_on = config.dataset.loss_on
        self._sequence_length = sequence_length

    def check_format(self, format_: Format, uri: str) -> None:
        """Raises ConfigInvalid or ModelInvalid if this job can't train on data of ``format_``."""
        if self._tokenizer.template is None and (format_ == "Messages" or self._task == "ChatCompletion"):
            raise no_chat_template(f"{uri} holds {format_} data and ")
        if format_ == "Text" and self._loss_on in ("Assistant", "Completion"):
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"lossOn is {self._loss_on}, but {uri} holds plain text, which has no such part.",
                "Leave dataset.lossOn out, or set it to All.",
            )

    def render(self, sample: Sample) -> Rendered:
        """Raises RowError if the chat template refuses the sample."""
        template = self._tokenizer.template
        if isinstance(sample, PromptCompletion) and self._task == "ChatCompletion":
            # A chat model is asked through its template, so it has to learn the answer through it.
            sample = Conversation(
                [
                    {"role": "user", "content": sample.prompt},
                    {"role": "assistant", "content": sample.completion},
                ]
            )
        if isinstance(sample, Conversation):
            if template is None:
                raise no_chat_template("")
            loss_on: LossOn = "Assistant" if self._loss_on == "Auto" else self._loss_on
            text, spans = render_chat(template, sample, loss_on, self._tokenizer.special_token_texts)
            return Rendered(text, spans, whole=False)
        if isinstance(sample, PromptCompletion):
            text = sample.prompt + sample.completion
            start = 0 if self._loss_on == "All" else len(sample.prompt)
            return Rendered(text, [(start, len(text))], whole=True)
        return Rendered(sample.text, [(0, len(sample.text))], whole=True)

    def tokenise(self, rendered: Sequence[Rendered]) -> list[Document]:
        """Documents of at most ``sequence_length`` tokens, in the order of ``rendered``."""
        documents: dict[int, Document] = {}
        for whole in (False, True):
            places = [place for place, one in enumerate(rendered) if one.whole is whole]
            encodings = self._tokenizer.encode([rendered[p].text for p in places], special_tokens=whole)
            for place, encoding in zip(places, encodings, strict=True):
                one = rendered[place]
                ids, labels = labels_of(encoding, len(one.text), one.spans)
                if whole:
                    ids, labels = self._tokenizer.with_eos(ids, labels)
                documents[place] = self._cut(ids, labels)
        return [documents[place] for place in range(len(rendered))]

    def _cut(self, ids: Ids, labels: Ids) -> Document:
        limit = self._sequence_length
        if len(ids) <= limit:
            return Document(ids, labels)
        return Document(ids[:limit].copy(), labels[:limit].copy(), truncated_from=len(ids))


def no_chat_template(context: str) -> TrainerError:
    return TrainerError(
        Reason.MODEL_INVALID,
        f"{context or 'The job '}needs a chat template, but the model's tokenizer has none.",
        "Set dataset.chatTemplate, use the model's instruction-tuned variant, or set task to TextGeneration.",
    )
