"""What a checkpoint says of itself, and the reasons not to resume from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright_trainer.files import sha256_of

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Identity:
    """What has to be the same for a checkpoint to be resumed bit for bit."""

    job_uid: str
    spec_hash: str
    world_size: int
    zero_stage: int


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    """Relative to the checkpoint's folder."""
    size_bytes: int
    sha256: str


class CheckpointManifest(BaseModel):
    """Content of manifest.json, the file that makes a folder a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_uid: str
    spec_hash: str
    world_size: int
    zero_stage: int
    attempt: int
    step: int
    epoch: float
    data_position: int
    """Rows read by the gang since the start, fillers counted: step x global batch."""
    written_at: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    files: list[FileRecord]


def record(folder: Path, path: Path) -> FileRecord:
    """The record of a file that is complete on disk."""
    return FileRecord(
        path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=sha256_of(path)
    )


def read(folder: Path) -> CheckpointManifest | str:
    """The manifest of ``folder``, or why there is none."""
    try:
        return CheckpointManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return "it has no manifest, so it was never finished"
    except (OSError, ValidationError) as error:
        return f"its manifest can't be read ({str(error).splitlines()[0]})"


def differs(manifest: CheckpointManifest, identity: Identity) -> str | None:
    """Why ``identity`` can't resume from this checkpoint; None if it can."""
    if manifest.job_uid != identity.job_uid or manifest.spec_hash != identity.spec_hash:
        return f"it belongs to another job (uid {manifest.job_uid}, spec {manifest.spec_hash})"
    if manifest.world_size != identity.world_size:
        return f"it was saved by {manifest.world_size} ranks and there are {identity.world_size} now"
    if manifest.zero_stage != identity.zero_stage:
        return f"it was saved under ZeRO {manifest.zero_stage}, the job runs ZeRO {identity.zero_stage}"
    return None


def wrong_sizes(folder: Path, files: Iterable[FileRecord]) -> str | None:
    """The first file that is missing or has another size, in words; None if all fit."""
    for file in files:
        path = folder / file.path
        if not path.is_file():
            return f"{file.path} is missing"
        if (size := path.stat().st_size) != file.size_bytes:
            return f"{file.path} has {size} bytes instead of {file.size_bytes}"
    return None


def wrong_hashes(folder: Path, files: Iterable[FileRecord]) -> str | None:
    """The first file whose content is not what was written, in words; None if all fit."""
    for file in files:
        try:
            if sha256_of(folder / file.path) != file.sha256:
                return f"the content of {file.path} has changed"
        except OSError as error:
            return f"{file.path} can't be read ({error.strerror})"
    return None
