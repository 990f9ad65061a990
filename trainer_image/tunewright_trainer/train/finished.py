"""Recognises a run that was finished before, so that running it again costs no training."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tunewright_trainer.checkpoint.manifest import MANIFEST, FileRecord, wrong_hashes, wrong_sizes
from tunewright_trainer.contract import TrainerConfig, TrainResult


class FinalManifest(BaseModel):
    """Content of ``final/manifest.json``: what was trained, from what, and each file with its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    job_uid: str
    spec_hash: str
    method: str
    base_model: str
    """URI of the model that was tuned, as the job names it."""
    versions: dict[str, str]
    result: TrainResult
    files: list[FileRecord]


def finished(folder: Path, config: TrainerConfig) -> TrainResult | None:
    """The result of a run that was finished before; None if ``folder`` is not whole or another spec's."""
    try:
        manifest = FinalManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    if manifest.spec_hash != config.spec_hash:
        return None
    if wrong_sizes(folder, manifest.files) or wrong_hashes(folder, manifest.files):
        return None
    return manifest.result
