"""Cuts objects down to what is read, before they are cached: a Pod shrinks from 8-20 KB to about 1 KB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.core.model import Manifest

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "ownerReferences",
    "finalizers",
    "creationTimestamp",
    "deletionTimestamp",
)
_POD_STATUS = ("phase", "reason", "message", "conditions", "startTime", "podIP")
_JOB_STATUS = ("conditions",)
_CONTAINER_STATUS = ("name", "ready", "restartCount", "state", "imageID")
_NODE_STATUS = ("conditions", "capacity", "allocatable")


def whole(manifest: Manifest) -> Manifest:
    """All but ``managedFields``, which only server-side apply reads."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    return {**manifest, "metadata": metadata}


def job(manifest: Manifest) -> Manifest:
    """A batch Job without its pod template, and without the counts of pods that its controller keeps: the
    pods themselves are watched, and each count would be a change to look at."""
    spec = {key: value for key, value in (manifest.get("spec") or {}).items() if key != "template"}
    return _object(manifest, spec=spec, status=_pick(manifest.get("status") or {}, _JOB_STATUS))


def pod(manifest: Manifest) -> Manifest:
    """A Pod's identity, node, phase, conditions and container states. Not its finalizers: the Job
    controller's comes off each pod that has ended, which is no change to look at."""
    status = manifest.get("status") or {}
    kept = _pick(status, _POD_STATUS)
    for field in ("initContainerStatuses", "containerStatuses"):
        if status.get(field):
            kept[field] = [_pick(container, _CONTAINER_STATUS) for container in status[field]]
    stripped = _object(manifest, spec=_pick(manifest.get("spec") or {}, ("nodeName",)), status=kept)
    stripped["metadata"].pop("finalizers", None)
    return stripped


def node(manifest: Manifest) -> Manifest:
    """A Node's labels, taints, capacity and conditions, without the times of its heartbeats."""
    spec = _pick(manifest.get("spec") or {}, ("taints", "unschedulable", "providerID"))
    status = _pick(manifest.get("status") or {}, _NODE_STATUS)
    status["conditions"] = [
        {key: value for key, value in condition.items() if key != "lastHeartbeatTime"}
        for condition in status.get("conditions") or ()
    ]
    return _object(manifest, spec=spec, status=status)


def metadata(manifest: Manifest) -> Manifest:
    """Identity, labels and owner only."""
    return _object(manifest)


def unchanged(old: Manifest, new: Manifest) -> bool:
    """Do two stripped objects differ in nothing but their resource version?"""
    return _versionless(old) == _versionless(new)


def _versionless(manifest: Manifest) -> Manifest:
    kept = {key: value for key, value in manifest["metadata"].items() if key != "resourceVersion"}
    return {**manifest, "metadata": kept}


def _object(manifest: Manifest, **parts: Any) -> Manifest:
    stripped = {
        "apiVersion": manifest.get("apiVersion"),
        "kind": manifest.get("kind"),
        "metadata": _pick(manifest["metadata"], _METADATA),
    }
    return stripped | parts


def _pick(mapping: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: mapping[key] for key in keys if key in mapping}
