"""The folder that a job's output goes to: whose it is, and how files get there all or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright_trainer.checkpoint.manifest import FileRecord, wrong_hashes, wrong_sizes
from tunewright_trainer.contract import Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError, from_os_error
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


def check_destination(config: TrainerConfig, locations: Locations) -> bool:
    """Whether this spec's finished output stands at the destination already, whole.

    Raises DestinationOccupied if something else does, ConfigInvalid if nothing can be written there.
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
        return False
    if manifest.spec_hash != config.spec_hash:
        job = f"{manifest.job.namespace}/{manifest.job.name}"
        raise _occupied(uri, f"it holds the output of job {job} with another spec ({manifest.spec_hash})")
    return damage(folder, manifest) is None


def staging_folder(folder: Path, job_uid: str) -> Path:
    """Where files wait inside a destination that can't be replaced as a whole.

    Its presence also tells that files without a manifest are this job's own, from an export cut short.
    """
    return folder / f".tunewright-{job_uid}"


def publish(staged: Path, folder: Path, job_uid: str) -> None:
    """Bring all files of ``staged`` to ``folder``, MANIFEST last.

    A destination that isn't there yet, or is empty, appears in one rename. Into one that holds other
    things (the root of a claim, say) files are copied under a hidden name first, then renamed one by one:
    a reader that waits for MANIFEST sees all or nothing. Raises DiskFull, StorageFailed.
    """
    try:
        if not folder.exists() or not any(folder.iterdir()):
            beside = folder.with_name(f".{folder.name}.tunewright-{job_uid}")
            if not os.path.ismount(folder) and _copied(staged, beside):
                try:
                    if publish_folder(beside, folder):
                        return
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
        _publish_files(staged, folder, job_uid)
    except OSError as error:
        raise from_os_error(error, f"writing to {folder.name}") from error


def _copied(staged: Path, beside: Path) -> bool:
    """Whether ``staged`` could be copied to ``beside``: the folder above may not be ours to write to."""
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
    except PermissionError:
        return False
    shutil.copytree(staged, beside, dirs_exist_ok=True)
    return True


def _publish_files(staged: Path, folder: Path, job_uid: str) -> None:
    waiting = staging_folder(folder, job_uid)
    shutil.rmtree(waiting, ignore_errors=True)
    shutil.copytree(staged, waiting)
    paths = [path for path in sorted(waiting.rglob("*")) if path.is_file()]
    for path in paths:
        fsync(path)
    (folder / MANIFEST).unlink(missing_ok=True)  # an old one must not vouch for half of the new files
    for path in sorted(paths, key=lambda path: path.name == MANIFEST):
        target = folder / path.relative_to(waiting)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    fsync(folder)
    shutil.rmtree(waiting, ignore_errors=True)


def _refuse_foreign_files(config: TrainerConfig, uri: str, folder: Path) -> None:
    if staging_folder(folder, config.job_uid).is_dir():
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
