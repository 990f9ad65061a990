"""Builds prepared data: streams rows into documents on disk, splits and packs them by length, writes shards.

Neither rows nor tokens are held in memory, only each document's length: the first pass writes documents to
a file, the second reads them from there in packing order.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from tunewright_trainer.console import Ticker
from tunewright_trainer.contract import Reason
from tunewright_trainer.data.documents import Document, Renderer
from tunewright_trainer.data.formats import Format, RowError, detect, parse, undetected
from tunewright_trainer.data.key import LocatedSource
from tunewright_trainer.data.lint import ROWS_SHOWN, Lint, data_invalid
from tunewright_trainer.data.pack import best_fit_decreasing
from tunewright_trainer.data.rows import BadRow, Row, read_rows
from tunewright_trainer.data.shards import ShardReader, ShardWriter
from tunewright_trainer.errors import TrainerError

CHUNK_ROWS = 512
"""Rows that are tokenised together."""
DUPLICATES_SOUGHT_ROWS = 5_000_000
"""Rows among which duplicates are looked for: about 0.5 GB of hashes."""


@dataclass
class Split:
    """Documents of one split: their places in the documents file and their lengths in tokens."""

    places: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("i"))
    loss_tokens: array[int] = field(default_factory=lambda: array("i"))
    rows: int = 0
    truncated: int = 0
    dropped: int = 0
    """Rows without a token that carries loss once they were cut."""

    def add(self, place: int, document: Document) -> None:
        self.places.append(place)
        self.lengths.append(len(document.ids))
        self.loss_tokens.append(document.loss_tokens)

    def take(self, indices: Sequence[int]) -> Split:
        """These documents as a split of their own."""
        taken = Split(rows=len(indices))
        for index in indices:
            taken.places.append(self.places[index])
            taken.lengths.append(self.lengths[index])
            taken.loss_tokens.append(self.loss_tokens[index])
        return taken


ALL_TOO_LONG = "Every row is cut: raise dataset.maxSequenceLength, or split the rows into shorter ones."


class DocumentCollector:
    """First pass: rows of all sources to documents, in a file, with everything lint finds on the way."""

    def __init__(self, renderer: Renderer, writer: ShardWriter, lint: Lint) -> None:
        self._renderer, self._writer, self._lint = renderer, writer, lint
        self._truncated_rows: list[BadRow] = []
        self._seen: set[int] = set()
        self.formats: list[Format] = []
        self.duplicates = self.leaked = self.rows_read = 0

    def collect(self, sources: Sequence[LocatedSource], *, training: bool) -> Split:
        """Add all rows of ``sources``; call it for training data first.

        Raises DataInvalid for bad rows, for files without rows, and if every row was too long.
        """
        split = Split()
        for source in sources:
            self._collect_source(source, split, training)
        self._lint.raise_if_bad(self.rows_read)
        if split.rows and split.truncated == split.rows:
            raise data_invalid(self._truncated_rows, split.rows, split.rows, ALL_TOO_LONG)
        if sources and not split.places:
            raise TrainerError(
                Reason.DATA_INVALID,
                f"None of {split.rows:,} rows has a token to learn within the sequence length.",
                "Raise dataset.maxSequenceLength, or shorten the prompts.",
            )
        return split

    def _collect_source(self, source: LocatedSource, split: Split, training: bool) -> None:
        rows = self._sound_rows(source)
        if source.source.max_rows is not None:
            rows = islice(rows, source.source.max_rows)
        first = next(rows, None)
        if first is None:
            return
        format_ = source.source.format
        known: Format | None = detect(first.value, source.source.columns) if format_ == "Auto" else format_
        if known is None:
            self._lint.add(BadRow(first.file, first.number, undetected(first.value), first.unit))
            return
        self._renderer.check_format(known, source.source.source.uri)
        self.formats.append(known)
        ticker = Ticker(f"reading {source.source.source.uri}")
        chunk = [first, *islice(rows, CHUNK_ROWS - 1)]
        while chunk:
            self._add_chunk(chunk, known, source, split, training)
            ticker.at(split.rows)
            chunk = list(islice(rows, CHUNK_ROWS))

    def _sound_rows(self, source: LocatedSource) -> Iterator[Row]:
        """Rows that could be read; the others go to lint, as does a file without any."""
        for file in source.files:
            found = 0
            for row in read_rows(file):
                found += 1
                self.rows_read += 1
                if isinstance(row, Row):
                    yield row
                else:
                    self._lint.add(row)
            if not found:
                self._lint.add(BadRow(file, 0, "the file is empty"))

    def _add_chunk(
        self, chunk: list[Row], format_: Format, source: LocatedSource, split: Split, training: bool
    ) -> None:
        rendered, rows = [], []
        for row in chunk:
            try:
                rendered.append(self._renderer.render(parse(row.value, format_, source.source.columns)))
                rows.append(row)
            except RowError as error:
                self._lint.add(BadRow(row.file, row.number, str(error), row.unit))
        if self._lint.bad_count:
            return  # the data will be refused: only look on for more bad rows
        for row, document in zip(rows, self._renderer.tokenise(rendered), strict=True):
            split.rows += 1
            self._add_document(row, document, split, training)

    def _add_document(self, row: Row, document: Document, split: Split, training: bool) -> None:
        if document.truncated_from is not None:
            split.truncated += 1
            if len(self._truncated_rows) < ROWS_SHOWN:
                reason = f"{document.truncated_from:,} tokens, longer than {len(document.ids):,}"
                self._truncated_rows.append(BadRow(row.file, row.number, reason, row.unit))
        if document.loss_tokens == 0:
            split.dropped += 1
            return
        self._count_duplicate(document, training)
        split.add(self._writer.rows, document)
        self._writer.append({"input_ids": document.ids, "labels": document.labels})

    def _count_duplicate(self, document: Document, training: bool) -> None:
        digest = int.from_bytes(hashlib.blake2b(document.ids.tobytes(), digest_size=8).digest(), "little")
        if digest in self._seen:
            if training:
                self.duplicates += 1
            else:
                self.leaked += 1
        elif training and len(self._seen) < DUPLICATES_SOUGHT_ROWS:
            self._seen.add(digest)


def split_off(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Training and validation documents: the same choice for the same seed and number of rows.

    Raises DataInvalid if there are fewer than two documents.
    """
    count = len(split.places)
    if count < 2:
        raise TrainerError(
            Reason.DATA_INVALID,
            f"validationFraction needs at least 2 usable rows to split, there is {count}.",
            "Add data, or leave dataset.validationFraction out.",
        )
    held_out = min(count - 1, max(1, round(count * fraction)))
    chosen = set(random.Random(seed).sample(range(count), held_out))
    training = split.take([index for index in range(count) if index not in chosen])
    training.rows = split.rows - held_out
    training.truncated, training.dropped = split.truncated, split.dropped
    return training, split.take(sorted(chosen))


def write_sequences(
    documents: ShardReader, split: Split, path: Path, *, sequence_length: int, packed: bool
) -> tuple[int, int]:
    """Second pass: write a split's sequences to ``path``; returns their number and the longest's tokens."""
    if packed:
        sequences = best_fit_decreasing(split.lengths, sequence_length)
    else:
        sequences = [[index] for index in range(len(split.lengths))]
    longest = 0
    ticker = Ticker(f"writing {path.name}", len(sequences), unit="sequences")
    with ShardWriter(path) as writer:
        for number, members in enumerate(sequences):
            rows = [documents[split.places[index]] for index in members]
            row = {name: np.concatenate([one[name] for one in rows]) for name in ("input_ids", "labels")}
            positions = [np.arange(split.lengths[index], dtype=np.int32) for index in members]
            writer.append(row | {"position_ids": np.concatenate(positions)})
            longest = max(longest, len(row["input_ids"]))
            ticker.at(number + 1)
    return len(sequences), longest
