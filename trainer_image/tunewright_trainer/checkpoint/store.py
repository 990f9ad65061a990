"""The folder of a job's checkpoints: drafts, names, what is resumed from, what is deleted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewright_trainer.checkpoint.manifest import (
    MANIFEST,
    CheckpointManifest,
    Identity,
    differs,
    read,
    wrong_sizes,
)
from tunewright_trainer.files import fsync, publish_folder, write_json

_NAME = re.compile(r"^step-(?P<step>\d{8,})-a(?P<attempt>\d+)$")
_DRAFT = re.compile(r"^\.step-\d{8,}-a(?P<attempt>\d+)\.tmp$")

PassOver = Callable[[Path, str], None]
"""Called with a checkpoint that is not resumed from, and why."""


@dataclass(frozen=True)
class CheckpointStore:
    """Checkpoints of one job as one attempt sees them; only rank 0 changes the folder.

    The attempt is in every name: a pod of an earlier attempt that still lives somewhere can neither
    overwrite nor delete what this one writes.
    """

    folder: Path
    identity: Identity
    attempt: int
    keep: int

    def draft(self, step: int) -> Path:
        """Where the ranks write the checkpoint of ``step`` before it has its name."""
        return self.folder / f".{self._name(step)}.tmp"

    def begin(self, step: int) -> None:
        """Make an empty draft."""
        shutil.rmtree(self.draft(step), ignore_errors=True)
        self.draft(step).mkdir(parents=True)

    def abandon(self, step: int) -> None:
        """Remove a draft that could not be finished, so that it holds no space."""
        shutil.rmtree(self.draft(step), ignore_errors=True)

    def publish(self, manifest: CheckpointManifest) -> Path:
        """Give the finished draft of ``manifest.step`` its manifest and name, then drop what is too old."""
        draft, final = self.draft(manifest.step), self.folder / self._name(manifest.step)
        write_json(draft / MANIFEST, manifest.model_dump())
        # This attempt may have saved the same step before: once for its schedule, once for a SIGTERM.
        shutil.rmtree(final, ignore_errors=True)
        publish_folder(draft, final)
        self._drop_old()
        return final

    def newest_first(self) -> list[Path]:
        """All folders that are named like checkpoints, whether they are whole or not."""
        if not self.folder.is_dir():
            return []
        named = [(match, path) for path in self.folder.iterdir() if (match := _NAME.match(path.name))]
        named.sort(key=lambda pair: (int(pair[0]["step"]), int(pair[0]["attempt"])), reverse=True)
        return [path for _, path in named]

    def candidates(self, pass_over: PassOver) -> Iterator[tuple[Path, CheckpointManifest]]:
        """Checkpoints that look resumable by manifest and file sizes, newest first; hashes not read yet."""
        for path in self.newest_first():
            manifest = read(path)
            if isinstance(manifest, str):
                pass_over(path, manifest)
            elif reason := differs(manifest, self.identity) or wrong_sizes(path, manifest.files):
                pass_over(path, reason)
            else:
                yield path, manifest

    def sweep(self) -> None:
        """Remove drafts that earlier attempts, or an earlier run of this one, left behind."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _DRAFT.match(path.name)
            if match and int(match["attempt"]) <= self.attempt:
                shutil.rmtree(path, ignore_errors=True)

    def _drop_old(self) -> None:
        whole = [path for path in self.newest_first() if (path / MANIFEST).is_file()]
        for path in whole[self.keep :]:
            match = _NAME.match(path.name)
            if match and int(match["attempt"]) <= self.attempt:
                # First the manifest: a reader never takes a half-deleted folder for a checkpoint.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
        fsync(self.folder)

    def _name(self, step: int) -> str:
        return f"step-{step:08d}-a{self.attempt}"
