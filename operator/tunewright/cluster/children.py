"""Which objects belong to a FineTuneJob. Labels alone prove nothing: anybody can write one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tunewright.core import names
from tunewright.core.model import Manifest


def job_key(namespace: str, uid: str) -> str:
    """Where indices keep the children of a job: none of another namespace can get there."""
    return f"{namespace}/{uid}"


def uid_in(key: str) -> str:
    """The job's uid in a :func:`job_key`."""
    return key.partition("/")[2]


def by_controller(manifest: Manifest) -> Iterable[str]:
    """Index of Jobs, Services and ConfigMaps: the FineTuneJob that controls them, in their own namespace."""
    owner = _controller(manifest)
    if owner.get("kind") != names.KIND or not owner.get("uid"):
        return ()
    return (job_key(manifest["metadata"].get("namespace") or "", owner["uid"]),)


def by_label(pod: Manifest) -> Iterable[str]:
    """Index of Pods, whose controller is a batch Job: a first choice, see :func:`is_pod_of`."""
    metadata = pod["metadata"]
    uid = (metadata.get("labels") or {}).get(names.LABEL_JOB_UID)
    return (job_key(metadata.get("namespace") or "", uid),) if uid else ()


def is_controlled_by(manifest: Manifest, uid: str) -> bool:
    """Is the FineTuneJob ``uid`` the controller of this object?"""
    owner = _controller(manifest)
    return owner.get("kind") == names.KIND and owner.get("uid") == uid


def is_pod_of(pod: Manifest, job_name: str, child_uids: Collection[str]) -> bool:
    """Does a pod that carries the job's label come from one of its batch Jobs?

    ``child_uids`` are the uids of those that are there. The Job of a pod that was left over is gone and is
    known by its name; where it was deleted with ``--cascade=orphan``, the pod has no controller at all.
    """
    owner = _controller(pod)
    if not owner:
        return True
    if owner.get("kind") != "Job":
        return False
    return owner.get("uid") in child_uids or names.is_batch_job(job_name, owner.get("name") or "")


def _controller(manifest: Manifest) -> Manifest:
    """The owner reference of the controller; empty when there is none."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})
