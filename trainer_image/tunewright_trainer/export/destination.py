"""The folder that a job's output goes to: whose it is, and how files get there all or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright_trainer.checkpoint.manifest import FileRecord, wrong_hashes, wrong_sizes
from tunewright_trainer.contract import Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.files import fsync, publish_folder, read_json
from tunewright_trainer.locations import Locations

MANIFEST = "tunewright.json"
"""Written last: with it the output is whole, and it says whose it is."""


class OutputJob(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    namespace: str
    uid: str


class BaseModelName(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str | None = None
    uri: str


@dataclass(frozen=True)
class MadeFrom:
    """What a spec's text does not settle: the content behind its addresses. None where it isn't known."""

    data_fingerprint: str | None
    revision: str | None
    """Resolved revision of the base model; models on volumes have none."""


class OutputManifest(BaseModel):
    """Content of tunewright.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    spec_hash: str
    job: OutputJob
    base_model: BaseModelName
    format: str
    digest: str
    data_fingerprint: str | None = None
    written_at: str
    files: list[FileRecord]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def read_manifest(folder: Path) -> OutputManifest | None:
    """The manifest at a destination; None if there is none that can be read."""
    try:
        return OutputManifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError:
        return None


def damage(folder: Path, manifest: OutputManifest) -> str | None:
    """What is wrong with the output that stands in ``folder``, in words; None if it is whole."""
    return wrong_sizes(folder, manifest.files) or wrong_hashes(folder, manifest.files)


def standing_output(config: TrainerConfig, locations: Locations) -> OutputManifest | None:
    """The manifest of this spec's output at the destination; None if there is none.

    Raises DestinationOccupied if something else is there, ConfigInvalid if nothing can be written there.
    """
    uri = config.output.destination.uri
    if not uri.startswith(("pvc://", "file://")):
        raise TrainerError(
            Reason.CONFIG_INVALID,
            f"{uri} can't be written to.",
            "Set output.destination to pvc://claim/folder.",
        )
    folder = locations.path(uri)
    if folder.exists() and not folder.is_dir():
        raise _occupied(uri, "it is a file")
    manifest = read_manifest(folder)
    if manifest is None:
        _refuse_foreign_files(config, uri, folder)
        return None
    if manifest.spec_hash != config.spec_hash:
        raise _occupied(uri, f"{_whose(manifest)} with another spec ({manifest.spec_hash})")
    return manifest


def can_adopt(config: TrainerConfig, locations: Locations, made_from: MadeFrom) -> bool:
    """Whether this spec's output, made from the same data and base model, stands at the destination, whole.

    False if there is none, or one that is damaged and may be made anew. Raises as standing_output does, and
    DestinationOccupied if the output there was made from something else.
    """
    manifest = standing_output(config, locations)
    if manifest is None:
        return False
    uri = config.output.destination.uri
    if other := _other_origin(manifest, made_from, own=manifest.job.uid == config.job_uid):
        raise _occupied(uri, f"{_whose(manifest)} with the same spec, but {other}")
    return damage(locations.path(uri), manifest) is None


def _other_origin(manifest: OutputManifest, made_from: MadeFrom, *, own: bool) -> str | None:
    """What an output was made from that this job's would not be, in words; None if it is all the same.

    Data that isn't known any more (a cleaned workspace) counts as the same for the job's own output only.
    """
    theirs, ours = manifest.data_fingerprint, made_from.data_fingerprint
    if theirs != ours and not (own and None in (theirs, ours)):
        return f"made from other data (fingerprint {_short(theirs)}; this job's is {_short(ours)})"
    then, now = manifest.base_model.revision, made_from.revision
    if then is not None and now is not None and then != now:
        return f"tuned from revision {then} of {manifest.base_model.name} (this job's is {now})"
    return None


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "not known"


def _whose(manifest: OutputManifest) -> str:
    return f"it holds the output of job {manifest.job.namespace}/{manifest.job.name}"


@contextmanager
def staging(folder: Path, job_uid: str) -> Iterator[Path]:
    """An empty folder on the destination's volume to put the output into; :func:`publish` brings it in place.

    It lies beside the destination if that can be made in one rename, else hidden inside it.
    """
    replaceable = not folder.exists() or (not os.path.ismount(folder) and not any(folder.iterdir()))
    stage = _beside(folder, job_uid) if replaceable else None
    if stage is None or not _made_anew(stage):
        stage = _inside(folder, job_uid)
        stage.mkdir(parents=True, exist_ok=True)
        _empty(stage)
    try:
        yield stage
    except BaseException:
        # Emptied but not removed: it still says whose the files of a half-made output are.
        _empty(stage)
        raise
    shutil.rmtree(stage, ignore_errors=True)


def clear_leftovers(folder: Path, job_uid: str) -> None:
    """Remove what this job's earlier exports left beside a whole output, when they died at the very end."""
    shutil.rmtree(_inside(folder, job_uid), ignore_errors=True)
    shutil.rmtree(_beside(folder, job_uid), ignore_errors=True)


def publish(stage: Path, folder: Path) -> None:
    """Bring all files of ``stage`` (from :func:`staging`) to ``folder``, MANIFEST last.

    A destination that isn't there yet, or is empty, appears in one rename. In one that holds other things
    (the root of a claim, say) the files are renamed one by one: who waits for MANIFEST sees all or nothing.
    """
    if stage.parent != folder:
        if publish_folder(stage, folder):
            return
        raise FileExistsError(errno.EEXIST, f"{folder.name} was filled by someone else meanwhile")
    paths = [path for path in sorted(stage.rglob("*")) if path.is_file()]
    for path in paths:
        fsync(path)
    (folder / MANIFEST).unlink(missing_ok=True)  # an old one must not vouch for half of the new files
    for path in sorted(paths, key=lambda path: path.name == MANIFEST):
        target = folder / path.relative_to(stage)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    fsync(folder)


def _beside(folder: Path, job_uid: str) -> Path:
    return folder.with_name(f".{folder.name}.tunewright-{job_uid}")


def _inside(folder: Path, job_uid: str) -> Path:
    """The stage inside a destination. While it is there, files without a manifest are this job's own,
    left by an export that was cut short."""
    return folder / f".tunewright-{job_uid}"


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _made_anew(stage: Path) -> bool:
    """Whether ``stage`` could be made: the folder above a destination may not be ours to write to."""
    shutil.rmtree(stage, ignore_errors=True)
    try:
        stage.mkdir(parents=True)
    except PermissionError:
        return False
    return True


def _refuse_foreign_files(config: TrainerConfig, uri: str, folder: Path) -> None:
    if _inside(folder, config.job_uid).is_dir():
        return
    names = ("adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors", MANIFEST)
    for name in names:
        if (folder / name).exists():
            raise _occupied(uri, f"it holds a {name} that no manifest of ours describes")


def _occupied(uri: str, why: str) -> TrainerError:
    return TrainerError(
        Reason.DESTINATION_OCCUPIED,
        f"The destination {uri} is taken: {why}.",
        "Choose another output.destination, or move away what is there.",
    )
