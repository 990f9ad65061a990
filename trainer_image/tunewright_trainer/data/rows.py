"""Reads rows from JSON Lines, JSON, gzip and Parquet; a bad row is told by its line and stops nothing."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from tunewright_trainer.contract import Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.storage.base import DataFile

LINE_LIMIT_BYTES = 32 << 20
ARRAY_LIMIT_BYTES = 1 << 30
"""A JSON array is read whole; a larger file has to be JSON Lines."""


@dataclass(frozen=True)
class Row:
    """One row: ``number`` is its line in JSON Lines, its place from 1 in an array or Parquet file."""

    file: DataFile
    number: int
    value: dict[str, Any]
    unit: str = "line"


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used, and why. ``number`` is 0 if the whole file is meant."""

    file: DataFile
    number: int
    reason: str
    unit: str = "line"


def read_rows(file: DataFile) -> Iterator[Row | BadRow]:
    """All rows of a file in order; blank lines are no rows."""
    if file.path.name.endswith(".parquet"):
        yield from _read_parquet(file)
        return
    try:
        with _open(file.path) as stream:
            if _is_array(stream, file.path):
                yield from _read_array(stream, file)
            else:
                yield from _read_lines(stream, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield BadRow(file, 0, f"the gzip stream is damaged ({error})")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if compressed else path.open("rb")


def _is_array(stream: IO[bytes], path: Path) -> bool:
    """Whether the file is one JSON array; leaves the stream at the begin."""
    head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    stream.seek(0)
    return head.startswith(b"[") and ".jsonl" not in path.name


def _read_lines(stream: IO[bytes], file: DataFile) -> Iterator[Row | BadRow]:
    number = 0
    while line := stream.readline(LINE_LIMIT_BYTES + 1):
        number += 1
        if len(line) > LINE_LIMIT_BYTES:
            yield BadRow(file, number, f"longer than {LINE_LIMIT_BYTES >> 20} MiB; is this a binary file?")
            return
        if line.strip():
            yield _parse(line, file, number)


def _parse(line: bytes, file: DataFile, number: int) -> Row | BadRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(file, number, f"not valid JSON ({error.msg} at column {error.colno})")
    except UnicodeDecodeError as error:
        return BadRow(file, number, f"not valid UTF-8 (byte {error.start + 1} of the line)")
    except (RecursionError, ValueError) as error:
        return BadRow(file, number, f"not valid JSON ({error})")
    return _checked(value, file, number, "line")


def _checked(value: Any, file: DataFile, number: int, unit: str) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(file, number, f"a JSON object is expected, this is a {_json_type(value)}", unit)
    return Row(file, number, value, unit)


def _read_array(stream: IO[bytes], file: DataFile) -> Iterator[Row | BadRow]:
    content = stream.read(ARRAY_LIMIT_BYTES + 1)
    if len(content) > ARRAY_LIMIT_BYTES:
        yield BadRow(file, 0, "a JSON array of more than 1 GiB; write it as JSON Lines, one row a line")
        return
    try:
        values = json.loads(content)
    except json.JSONDecodeError as error:
        yield BadRow(file, error.lineno, f"not valid JSON ({error.msg} at column {error.colno})")
        return
    except (RecursionError, ValueError) as error:
        yield BadRow(file, 0, f"not valid JSON ({error})")
        return
    for number, value in enumerate(values, start=1):
        yield _checked(value, file, number, "row")


def _read_parquet(file: DataFile) -> Iterator[Row | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            number = 0
            for batch in parquet.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(file, number, value, "row")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TrainerError(
            Reason.DATA_INVALID,
            f"{file.uri} is not a readable Parquet file: {str(error).splitlines()[0]}.",
            "Write it anew, or use JSON Lines.",
        ) from error


def _json_type(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)
