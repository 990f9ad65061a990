"""Shards give back what was written, over many record batches, and are whole only when closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tunewright_trainer.data.shards import BATCH_ROWS, ShardReader, ShardWriter


def test_rows_come_back_across_record_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    random = np.random.default_rng(0)
    rows = [
        random.integers(0, 50_000, random.integers(1, 20), dtype=np.int32) for _ in range(BATCH_ROWS * 2 + 7)
    ]
    with ShardWriter(path, ("input_ids", "labels")) as writer:
        for row in rows:
            writer.append({"input_ids": row, "labels": -row})
    shard = ShardReader(path)
    assert len(shard) == len(rows)
    for number in (0, BATCH_ROWS - 1, BATCH_ROWS, len(rows) - 1):
        assert (shard[number]["input_ids"] == rows[number]).all()
        assert (shard[number]["labels"] == -rows[number]).all()
    for outside in (-1, len(rows)):
        with pytest.raises(IndexError):
            shard[outside]
    shard.close()


def test_a_writer_that_failed_leaves_no_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    ids = np.arange(5, dtype=np.int32)
    with pytest.raises(KeyError, match="labels"), ShardWriter(path, ("input_ids", "labels")) as writer:
        writer.append({"input_ids": ids})
    with pytest.raises(pa.ArrowInvalid):
        ShardReader(path)
