"""What prepare found, in words and figures: warnings, the report file, and one rendered example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tunewright_trainer.answers import shorten
from tunewright_trainer.contract import DataFacts
from tunewright_trainer.data.build import DocumentCollector, Split
from tunewright_trainer.data.lint import Lint
from tunewright_trainer.data.tokenizer import IGNORED, Ids, Tokenizer

LOSS_BEGIN, LOSS_END = "«", "»"
"""Stand around the text that carries loss in the rendered example."""
EXAMPLE_TOKENS = 1_000
EXAMPLE_CHARACTERS = 4_000
PERCENTILES = (1, 25, 50, 75, 99, 100)
MUCH_TRUNCATED, LITTLE_LOSS = 0.05, 0.02
"""Shares of rows cut, and of tokens with loss, from which a warning is due."""


def add_warnings(lint: Lint, collector: DocumentCollector, training: Split, sequence_length: int) -> None:
    """Turn what was counted into warnings, the weightiest first."""
    tokens, loss_tokens = sum(training.lengths), sum(training.loss_tokens)
    lint.warn_if(training.dropped, lambda n: f"{n} dropped: no token to learn was left after the cut.")
    if training.truncated >= MUCH_TRUNCATED * training.rows:
        lint.warn_if(
            training.truncated,
            lambda n: f"{n} of {training.rows:,} cut to {sequence_length:,} tokens: raise maxSequenceLength.",
        )
    if loss_tokens < LITTLE_LOSS * tokens:
        lint.warn(f"Only {loss_tokens / tokens:.1%} of the tokens carry loss.")
    lint.warn_if(collector.leaked, lambda n: f"{n} of the validation data also in the training data.")
    lint.warn_if(collector.duplicates, lambda n: f"{n} of the training data repeated.")


def build_report(
    facts: DataFacts, training: Split, validation: Split, collector: DocumentCollector, example: str
) -> dict[str, Any]:
    """Content of report.json."""
    return {
        "data": facts.model_dump(),
        "formats": sorted(set(collector.formats)),
        "dropped_rows": training.dropped,
        "duplicate_rows": collector.duplicates,
        "validation_rows_also_in_training": collector.leaked,
        "masked_share": round(1 - facts.loss_tokens / facts.tokens, 4),
        "fill": round(facts.tokens / (facts.sequences * facts.sequence_length), 4),
        "document_tokens": _percentiles(training.lengths),
        "validation_document_tokens": _percentiles(validation.lengths),
        "example": example,
    }


def summary(facts: DataFacts) -> str:
    """The facts as lines for the pod's log."""
    masked = 1 - facts.loss_tokens / facts.tokens
    how = "packed into" if facts.packed else "in"
    lines = [
        f"{facts.rows:,} training rows and {facts.validation_rows:,} validation rows ({facts.format})",
        f"{facts.tokens:,} training tokens, {masked:.1%} of them masked, "
        f"{how} {facts.sequences:,} sequences of at most {facts.sequence_length:,} tokens",
        f"{facts.truncated_rows:,} rows truncated",
    ]
    return "\n".join(lines + [f"warning: {warning}" for warning in facts.warnings])


def render_example(tokenizer: Tokenizer, ids: Ids, labels: Ids) -> str:
    """A document's text with the parts that carry loss between « and »."""
    ids, labels = ids[:EXAMPLE_TOKENS], labels[:EXAMPLE_TOKENS]
    with_loss = labels != IGNORED
    borders = [0, *(np.flatnonzero(np.diff(with_loss)) + 1).tolist(), len(ids)]
    parts = []
    for begin, end in pairwise(borders):
        text = tokenizer.decode(ids[begin:end].tolist())
        parts.append(f"{LOSS_BEGIN}{text}{LOSS_END}" if with_loss[begin] else text)
    return shorten("".join(parts), EXAMPLE_CHARACTERS)


def _percentiles(lengths: Sequence[int]) -> dict[str, int]:
    if not lengths:
        return {}
    values = np.percentile(np.asarray(lengths), PERCENTILES, method="higher")
    return {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, values, strict=True)}
