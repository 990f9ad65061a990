"""Files that are whole or not there: written beside their place, synced, renamed; and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically and synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def read_json(path: Path) -> Any | None:
    """The JSON value of a file; None if there is no such file or it isn't JSON (torn, foreign)."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


@contextmanager
def folder_made_whole(final: Path, unique: str) -> Iterator[Path]:
    """A temporary folder that becomes ``final`` at the end, or vanishes if the block raises.

    ``unique`` keeps two pods that make the same folder apart; if the other one was first, its folder
    stays and ours is dropped: whoever calls this makes the same content under the same name.
    """
    temporary = final.with_name(f".{final.name}.{unique}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, final: Path) -> bool:
    """Sync ``temporary`` and rename it to ``final``. False if a non-empty ``final`` was there first."""
    for path in sorted(temporary.rglob("*"), reverse=True):
        if not path.is_symlink():
            fsync(path)
    fsync(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(final)
    except OSError:
        if final.is_dir():
            return False
        raise
    fsync(final.parent)
    return True
