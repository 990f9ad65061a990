"""Rows are read from every kind of file, and a bad one is told by its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunewright_trainer.contract import Reason
from tunewright_trainer.data.rows import BadRow, Row, read_rows
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.storage import DataFile

ROWS = [{"text": "ett"}, {"text": "två"}, {"text": "🏠"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(tmp_path: Path, name: str, content: bytes) -> list[Row | BadRow]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(read_rows(DataFile(path, f"pvc://data/{name}")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.jsonl", JSONL, id="JSON Lines"),
        pytest.param("a.jsonl.gz", gzip.compress(JSONL), id="gzip"),
        pytest.param("a.jsonl", gzip.compress(JSONL), id="gzip under another name"),
        pytest.param("a.json", json.dumps(ROWS, indent=2).encode(), id="array"),
        pytest.param("a.json", JSONL, id="lines under the name of an array"),
        pytest.param("a.json.gz", gzip.compress(json.dumps(ROWS).encode()), id="array in gzip"),
        pytest.param("a.jsonl", b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n"), id="byte order mark, CRLF"),
        pytest.param("a.jsonl", JSONL.rstrip(b"\n"), id="no newline at the end"),
    ],
)
def test_all_kinds_of_files_give_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    rows = read(tmp_path, name, content)
    assert [(row.number, row.value) for row in rows if isinstance(row, Row)] == list(enumerate(ROWS, start=1))


def test_parquet_gives_rows_too(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    rows = list(read_rows(DataFile(tmp_path / "a.parquet", "x")))
    assert [row.value for row in rows if isinstance(row, Row)] == ROWS


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.jsonl", b'{"text": "a"}\n\n  \n{"text": \n{"text": "b"}\n')
    assert [(row.number, type(row)) for row in rows] == [(1, Row), (4, BadRow), (5, Row)]


@pytest.mark.parametrize(
    ("name", "content", "number", "told"),
    [
        pytest.param("a.jsonl", b'{"a": 1,}', 1, "not valid JSON (", id="broken"),
        pytest.param("a.jsonl", b'{"a": "\xff"}', 1, "not valid UTF-8 (byte 8 of the line)", id="not UTF-8"),
        pytest.param("a.jsonl", b"3", 1, "this is a number", id="number"),
        pytest.param("a.jsonl", b"[" * 100_000, 1, "not valid JSON", id="nested without end"),
        pytest.param("a.json", b'[{"a": 1},\n{"a": }]', 2, "not valid JSON", id="broken array"),
        pytest.param("a.json", b'["x"]', 1, "this is a string", id="array of strings"),
        pytest.param(
            "a.jsonl.gz", gzip.compress(JSONL)[:-9], 0, "the gzip stream is damaged", id="torn gzip"
        ),
    ],
)
def test_a_bad_row_is_told_by_its_place(
    tmp_path: Path, name: str, content: bytes, number: int, told: str
) -> None:
    bad = [row for row in read(tmp_path, name, content) if isinstance(row, BadRow)]
    assert [row.number for row in bad] == [number]
    assert told in bad[0].reason


def test_a_file_that_only_claims_to_be_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="not a readable Parquet file") as refused:
        read(tmp_path, "a.parquet", b"not parquet at all")
    assert refused.value.reason is Reason.DATA_INVALID
