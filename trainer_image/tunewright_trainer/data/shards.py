"""Token sequences in Arrow files: written batch by batch, read memory-mapped, so that neither fills memory.

A prepared folder holds ``train.arrow``, ``validation.arrow`` if there is a split, ``manifest.json`` and
``report.json``. Columns are lists of int32, all of one row equally long:

- ``input_ids``
- ``labels``: -100 where there is no loss, always so at a document's first token
- ``position_ids``: restart at 0 with each document. There is no attention mask: position ids that restart
  keep packed documents apart, and an all-ones mask beside them would mix the documents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ids = NDArray[np.int32]

COLUMNS = ("input_ids", "labels", "position_ids")
BATCH_ROWS = 1024
BATCH_TOKENS = 1 << 22


class ShardWriter:
    """Writes rows of equally named int32 arrays; closing syncs the file."""

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        self._columns = tuple(columns)
        self._schema = pa.schema([(name, pa.list_(pa.int32())) for name in self._columns])
        self._file = path.open("wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self._pending: dict[str, list[Ids]] = {name: [] for name in self._columns}
        self._pending_tokens = 0
        self.rows = 0

    def append(self, row: Mapping[str, Ids]) -> None:
        for name in self._columns:
            self._pending[name].append(row[name])
        self.rows += 1
        self._pending_tokens += len(row[self._columns[0]])
        if len(self._pending[self._columns[0]]) >= BATCH_ROWS or self._pending_tokens >= BATCH_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending[self._columns[0]]:
            return
        arrays = [_list_array(rows) for rows in self._pending.values()]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._pending = {name: [] for name in self._columns}
        self._pending_tokens = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


class ShardReader:
    """Rows of a file by number, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self._map = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._map)
        counts = [self._reader.get_batch(n).num_rows for n in range(self._reader.num_record_batches)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> dict[str, Ids]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch = self._reader.get_batch(number)
        inside = row - int(self._starts[number])
        return {
            name: batch.column(place)[inside].values.to_numpy()
            for place, name in enumerate(batch.schema.names)
        }

    def close(self) -> None:
        self._map.close()


def _list_array(rows: Sequence[Ids]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))
