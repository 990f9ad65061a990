"""Makes DeepSpeed's own shard files durable: synced, hashed while they are written, errors not lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from tunewright_trainer.checkpoint.manifest import FileRecord


class _HashingFile:
    """A sequential writer that hashes, and keeps the operating system's error that torch would hide."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.size_bytes = 0
        self.error: OSError | None = None

    def write(self, block: bytes) -> int:
        try:
            self._file.write(block)
        except OSError as error:
            self.error = error
            raise
        self._digest.update(block)
        self.size_bytes += len(block)
        return len(block)

    def flush(self) -> None:
        self._file.flush()

    def sha256(self) -> str:
        return self._digest.hexdigest()


def save_durably(value: Any, path: Path) -> tuple[int, str]:
    """``torch.save`` that is on disk when it returns. Returns size in bytes and sha256.

    Raises the OSError that stopped it (a full disk), which plain ``torch.save`` turns into a
    RuntimeError about its own stream.
    """
    with path.open("wb") as file:
        hashing = _HashingFile(file)
        try:
            torch.save(value, cast(IO[bytes], hashing))
        except Exception:
            if hashing.error is not None:
                raise hashing.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
    return hashing.size_bytes, hashing.sha256()


class DurableShards(CheckpointEngine):  # type: ignore[misc]  # DeepSpeed ships no types
    """DeepSpeed's seam for writing shards.

    A rank whose disk is full must not raise in the middle of DeepSpeed's save: its peers would wait in
    the barrier that ends it. The error is kept, and the gang looks at it afterwards. ``frozen`` names
    weights that are never written, under all the names they have in the model.
    """

    def __init__(self, folder: Path, frozen: Collection[str] = ()) -> None:
        super().__init__()
        self.name = "tunewright"
        self._folder, self._frozen = folder, frozenset(frozen)
        self.records: list[FileRecord] = []
        self.error: OSError | None = None

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to announce: the draft is there."""

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        if self.error is not None:
            return
        try:
            size_bytes, sha256 = save_durably(self._without_frozen(state_dict), Path(path))
        except OSError as error:
            self.error = error
            return
        relative = Path(path).relative_to(self._folder).as_posix()
        self.records.append(FileRecord(path=relative, size_bytes=size_bytes, sha256=sha256))

    def _without_frozen(self, state: dict[str, Any]) -> dict[str, Any]:
        """DeepSpeed leaves frozen weights out by their first name; tied ones are there by the second."""
        module = state.get("module")
        if not isinstance(module, dict):
            return state
        kept = {name: value for name, value in module.items() if name not in self._frozen}
        return {**state, "module": kept}

    def load(self, path: str, map_location: Any = None) -> Any:
        # DeepSpeed's shards hold its own objects. Their hashes were compared with the manifest before.
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True
