"""Feeds prepared shards to the ranks: which rows each step reads, and how rows become a micro-batch.

The order of rows depends on seed and epoch alone, never on the number of ranks or on the micro-batch:
a global batch holds the same rows however it is cut, so losses are comparable and a resumed run reads
what the interrupted one would have read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError

IGNORED = -100
"""Label of a token that carries no loss; the value every Hugging Face loss ignores."""
FILLER = -1
"""Row index that stands for no row: it fills up a last, smaller global batch and carries no loss."""
COLUMNS = ("input_ids", "labels", "position_ids")

Row = dict[str, "np.ndarray[Any, np.dtype[np.int64]]"]


def open_split(folder: Path, split: str) -> pa.Table | None:
    """The rows of ``train`` or ``validation``, memory-mapped: nothing is read before it is used.

    Returns None if there is no such split. Raises DataInvalid if the file is torn or lacks a column.
    """
    file = folder / f"{split}.arrow"
    if not file.is_file():
        return None
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all().select(list(COLUMNS))
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise TrainerError(
            Reason.DATA_INVALID,
            f"The prepared {split} data can't be read: {error}.",
            "Delete the job's prepared data from the workspace and start again: it will be prepared anew.",
        ) from error


class PackedRows(Dataset[Row]):
    """Rows of an Arrow table as int64 arrays of shape (tokens,); FILLER gives a row without loss."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Row:
        if index == FILLER:
            zero = np.zeros(1, np.int64)
            return {"input_ids": zero, "labels": np.full(1, IGNORED, np.int64), "position_ids": zero}
        return {
            name: self.table.column(name)[index].values.to_numpy(zero_copy_only=False).astype(np.int64)
            for name in COLUMNS
        }


class GlobalBatches(Sampler[list[int]]):
    """Row indices of one rank's micro-batches, accumulation step by accumulation step.

    An epoch is a permutation of the rows cut into global batches; the last one is filled up with FILLER.
    ``len`` is the number of micro-batches per rank and epoch: always a multiple of the accumulation.
    """

    def __init__(
        self, rows: int, *, global_batch: int, micro_batch: int, rank: int, world_size: int, seed: int
    ) -> None:
        self.rows, self.global_batch, self.micro_batch = rows, global_batch, micro_batch
        self.rank, self.world_size, self.seed, self.epoch = rank, world_size, seed, 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.global_batch)

    def __len__(self) -> int:
        return self.steps_per_epoch * (self.global_batch // (self.micro_batch * self.world_size))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        filler = self.steps_per_epoch * self.global_batch - self.rows
        order = np.concatenate([order, np.full(filler, FILLER, order.dtype)])
        per_pass = self.micro_batch * self.world_size
        for start in range(self.rank * self.micro_batch, len(order), per_pass):
            yield [int(row) for row in order[start : start + self.micro_batch]]


def collate(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Micro-batch tensors of shape (rows, longest row), int64.

    No attention mask: documents of a packed row are told apart by positions that restart, and an
    all-ones mask would let them see each other. Padding is a document of its own, without loss. The
    first token of each document carries no loss: it would be predicted from the document before it.
    """
    width = max(len(row["input_ids"]) for row in rows)
    batch = {name: np.zeros((len(rows), width), np.int64) for name in COLUMNS}
    batch["labels"].fill(IGNORED)
    for line, row in enumerate(rows):
        length = len(row["input_ids"])
        batch["input_ids"][line, :length] = row["input_ids"]
        batch["labels"][line, :length] = row["labels"]
        batch["position_ids"][line, :length] = row["position_ids"]
        batch["position_ids"][line, length:] = np.arange(width - length)
    batch["labels"][batch["position_ids"] == 0] = IGNORED
    return {name: torch.from_numpy(values) for name, values in batch.items()}


class EpochLoader(DataLoader[Row]):
    """A loader that passes the epoch on to its batches: the Trainer looks for ``set_epoch`` here only."""

    def set_epoch(self, epoch: int) -> None:
        if not isinstance(self.batch_sampler, GlobalBatches):
            raise TypeError(f"these batches have no epochs: {self.batch_sampler!r}")
        self.batch_sampler.set_epoch(epoch)


def loader(rows: PackedRows, batches: GlobalBatches, *, pin_memory: bool) -> EpochLoader:
    """The training loader. Rows come from mapped memory, so worker processes would only add copies."""
    return EpochLoader(rows, batch_sampler=batches, collate_fn=collate, pin_memory=pin_memory)


def validation_batches(rows: int, micro_batch: int, rank: int, world_size: int) -> Iterator[list[int]]:
    """Row indices of this rank's validation micro-batches.

    Every rank gets the same number of them, filled up with FILLER: a rank short of a forward pass
    would leave the others waiting in a collective.
    """
    per_pass = micro_batch * world_size
    for start in range(0, rows, per_pass):
        first = start + rank * micro_batch
        yield [row if row < rows else FILLER for row in range(first, first + micro_batch)]
