"""Sources to read from: one small interface, one module for each kind of place."""

from __future__ import annotations

from tunewright_trainer.contract import Reason, Source
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.locations import Locations, Uri, Workspace, parse_uri
from tunewright_trainer.storage.base import DataFile, ModelFolder, Store
from tunewright_trainer.storage.http import HttpStore
from tunewright_trainer.storage.hub import HubStore
from tunewright_trainer.storage.volume import VolumeStore

__all__ = ["DataFile", "ModelFolder", "Store", "open_store"]

_VOLUME_SCHEMES = ("pvc", "configmap", "file")


def open_store(source: Source, locations: Locations, workspace: Workspace, job_uid: str) -> Store:
    """The store that reads ``source``. Raises ConfigInvalid for a scheme that nothing here reads."""
    uri: Uri = parse_uri(source.uri)
    if uri.scheme in _VOLUME_SCHEMES:
        return VolumeStore(source.uri, locations)
    if uri.scheme == "hf":
        return HubStore(
            uri,
            token=locations.secret(source.secret, "HF_TOKEN"),
            models=workspace.models,
            downloads=workspace.job(job_uid) / "downloads",
            unique=job_uid,
        )
    if uri.scheme == "https":
        return HttpStore(
            source.uri,
            authorization=locations.secret(source.secret, "AUTHORIZATION"),
            downloads=workspace.job(job_uid) / "downloads",
        )
    raise TrainerError(
        Reason.CONFIG_INVALID,
        f"{source.uri} can't be read: there is no {uri.scheme}:// source.",
        "Use hf://, pvc://, https:// or a configMapRef.",
    )
