"""Plays the storage provisioner: a folder per PersistentVolumeClaim, gone when the claim is."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from hack.devcluster.api import UNREACHABLE, Api, ApiError, Object
from hack.devcluster.state import StateDir

log = logging.getLogger(__name__)

PROVISIONER = "devcluster/local-folder"
STORAGE_CLASS = "local-folder"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
ASKED_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = "/api/v1/persistentvolumeclaims"


def storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }


def wants_volume(claim: Object) -> bool:
    """True for a claim that waits for us: pending, ours by class, and its first consumer has a node."""
    annotations = claim["metadata"].get("annotations") or {}
    return (
        claim["status"].get("phase") == "Pending"
        and not claim["spec"].get("volumeName")
        and annotations.get(ASKED_PROVISIONER) == PROVISIONER
        and SELECTED_NODE in annotations
        and not claim["metadata"].get("deletionTimestamp")
    )


def volume_for(claim: Object, folder: Path) -> Object:
    """A PersistentVolume bound to ``claim`` alone."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}", "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        },
    }


def is_released(volume: Object) -> bool:
    annotations = volume["metadata"].get("annotations") or {}
    return (
        volume["status"].get("phase") == "Released"
        and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        and annotations.get(PROVISIONED_BY) == PROVISIONER
    )


async def run_storage(api: Api, state: StateDir) -> None:
    """Serve claims until cancelled."""
    await asyncio.gather(_serve_claims(api, state), _clean_volumes(api, state))


async def _serve_claims(api: Api, state: StateDir) -> None:
    async for kind, item in api.follow(CLAIMS):
        for claim in item if kind == "SYNC" else [item]:
            if kind != "DELETED" and wants_volume(claim):
                await _provision(api, state, claim)


async def _provision(api: Api, state: StateDir, claim: Object) -> None:
    folder = state.storage / f"pvc-{claim['metadata']['uid']}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    try:
        await api.create(VOLUMES, volume_for(claim, folder))
    except ApiError as error:
        if error.status != 409:
            log.error("No volume for claim %s: %s", claim["metadata"]["name"], error)
    except UNREACHABLE as error:
        # The watch breaks with the API server and lists the claim again.
        log.warning("No volume yet for claim %s: %s", claim["metadata"]["name"], error)


async def _clean_volumes(api: Api, state: StateDir) -> None:
    async for kind, item in api.follow(VOLUMES):
        for volume in item if kind == "SYNC" else [item]:
            if kind != "DELETED" and is_released(volume):
                await _clean(api, state, volume)


async def _clean(api: Api, state: StateDir, volume: Object) -> None:
    name = volume["metadata"]["name"]
    folder = Path(volume["spec"]["hostPath"]["path"])
    if folder.parent == state.storage:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    try:
        await api.delete(f"{VOLUMES}/{name}")
    except (ApiError, *UNREACHABLE) as error:
        log.warning("Volume %s is not deleted yet: %s", name, error)
