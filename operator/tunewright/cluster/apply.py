"""The one writer: carries out a plan, in an order in which a crash after any step loses nothing.

    live reads ─► finalizer ─► creates ─► deletes ─► status ─► finalizer away ─► deletion of the job ─► events

Every step may be repeated: creates have deterministic names, deletes carry uids, status and finalizer
carry the resource version. The first step that fails ends the execution; the next reconcile sees what was
done and plans the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tunewright.cluster.children import is_controlled_by
from tunewright.cluster.client import Client
from tunewright.cluster.errors import AlreadyExists, Conflict, NotFound
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.patch import merge_patch
from tunewright.cluster.resources import BY_PLURAL, FINETUNEJOBS, JOBS, Resource, of
from tunewright.core import names
from tunewright.core.model import Deletion, Manifest, Plan

log = logging.getLogger(__name__)


class NameTaken(Conflict):
    """A child can't be created because somebody else's object has its name."""

    def __init__(self, kind: str, namespace: str, name: str, job: str) -> None:
        message = (
            f"{kind} {namespace}/{name} exists and does not belong to this job; "
            f"delete or rename it, or give the job another name than {job}"
        )
        super().__init__(409, "NameTaken", message, {"kind": kind, "name": name})


class Applier:
    """Executes plans.

    ``seen`` and ``gone`` are told of every object as a write left it, so that caches need not wait for
    the watch.
    """

    def __init__(
        self,
        client: Client,
        recorder: EventRecorder,
        *,
        seen: Callable[[Resource, Manifest], None] = lambda resource, manifest: None,
        gone: Callable[[Resource, Manifest], None] = lambda resource, manifest: None,
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._seen = seen
        self._gone = gone

    async def execute(self, job: Manifest, plan: Plan) -> None:
        """Carry out ``plan`` for ``job``, the object that it was made for. Raises ApiError; a NameTaken
        names the foreign object."""
        current = job
        if plan.confirm_over is not None:
            await self._confirm(job, plan.confirm_over)
        if plan.add_finalizer:
            current = await self._add_finalizer(current)
        for child in plan.create:
            await self._create(job, child)
        for deletion in plan.delete:
            await self._delete(deletion)
        if plan.status is not None:
            current = await self._write_status(current, plan.status)
        if plan.remove_finalizer:
            await self._remove_finalizer(current)
        if plan.delete_self:
            await self._delete_self(job)
        for event in plan.events:
            self._recorder.record(job, event)

    async def _confirm(self, job: Manifest, over: tuple[str, ...]) -> None:
        """Look past the caches: is ``job`` still what the plan was made for, are the Jobs named in ``over``
        gone or over? Raises Conflict if not; the caches then know."""
        metadata = job["metadata"]
        live = self._note(
            FINETUNEJOBS, await self._client.get(FINETUNEJOBS, metadata["namespace"], metadata["name"])
        )
        if live["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict(409, "Stale", f"{names.KIND} {metadata['name']} has changed since it was cached")
        for name in over:
            try:
                child = self._note(JOBS, await self._client.get(JOBS, metadata["namespace"], name))
            except NotFound:
                continue
            if is_controlled_by(child, metadata["uid"]) and not _is_over(child):
                raise Conflict(409, "JobRuns", f"Job {metadata['namespace']}/{name} still runs")

    async def _add_finalizer(self, job: Manifest) -> Manifest:
        finalizers = list(job["metadata"].get("finalizers") or [])
        if names.FINALIZER in finalizers:
            return job
        return await self._patch_finalizers(job, [*finalizers, names.FINALIZER])

    async def _remove_finalizer(self, job: Manifest) -> None:
        finalizers = list(job["metadata"].get("finalizers") or [])
        if names.FINALIZER not in finalizers:
            return
        try:
            await self._patch_finalizers(job, [name for name in finalizers if name != names.FINALIZER])
        except NotFound:
            self._gone(FINETUNEJOBS, job)

    async def _patch_finalizers(self, job: Manifest, finalizers: list[str]) -> Manifest:
        """The uid and resource version are preconditions: the list is ours to write only as we read it."""
        metadata = job["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"metadata": guard | {"finalizers": finalizers or None}}
        stored = await self._client.patch(FINETUNEJOBS, metadata["namespace"], metadata["name"], body)
        return self._note(FINETUNEJOBS, stored)

    async def _create(self, job: Manifest, child: Manifest) -> None:
        resource = of(child)
        try:
            stored = await self._client.create(resource, child)
        except AlreadyExists:
            await self._adopt(job, resource, child)
            return
        log.info("created %s %s/%s", resource.kind, child["metadata"]["namespace"], child["metadata"]["name"])
        self._note(resource, stored)

    async def _adopt(self, job: Manifest, resource: Resource, child: Manifest) -> None:
        """The name is taken. By our own child, created before an answer or a cache got lost: fine. By a
        child on its way out, or of an earlier job of our name: wait for it to go. Else say whose it is."""
        metadata = child["metadata"]
        try:
            stored = await self._client.get(resource, metadata["namespace"], metadata["name"])
        except NotFound as error:
            raise Conflict(409, "Deleted", f"{resource.kind} {metadata['name']} went just now") from error
        if stored["metadata"].get("deletionTimestamp") or _owned_by_predecessor(stored, job):
            message = f"{resource.kind} {metadata['namespace']}/{metadata['name']} is still being deleted"
            raise Conflict(
                409, "ChildTerminating", message, {"kind": resource.kind, "name": metadata["name"]}
            )
        if not is_controlled_by(stored, job["metadata"]["uid"]):
            raise NameTaken(resource.kind, metadata["namespace"], metadata["name"], job["metadata"]["name"])
        self._note(resource, stored)

    async def _delete(self, deletion: Deletion) -> None:
        resource = BY_PLURAL[deletion.resource]
        target: Manifest = {
            "metadata": {"namespace": deletion.namespace, "name": deletion.name, "uid": deletion.uid}
        }
        try:
            answer = await self._client.delete(
                resource,
                deletion.namespace,
                deletion.name,
                uid=deletion.uid,
                grace_seconds=deletion.grace_seconds,
                propagation=deletion.propagation,
            )
        except NotFound:
            self._gone(resource, target)
            return
        except Conflict as error:
            if _precondition_failed(error):  # a successor has the name: the one we meant is gone
                self._gone(resource, target)
                return
            raise
        log.info("deleted %s %s/%s", resource.kind, deletion.namespace, deletion.name)
        if answer.get("kind") == resource.kind and (answer["metadata"].get("deletionTimestamp")):
            self._note(resource, answer)
        else:
            self._gone(resource, target)

    async def _write_status(self, job: Manifest, status: Any) -> Manifest:
        patch = merge_patch(job.get("status") or {}, status)
        if not patch:
            return job
        metadata = job["metadata"]
        stored = await self._client.patch_status(
            FINETUNEJOBS, metadata["namespace"], metadata["name"], patch, metadata["resourceVersion"]
        )
        return self._note(FINETUNEJOBS, stored)

    async def _delete_self(self, job: Manifest) -> None:
        metadata = job["metadata"]
        try:
            await self._client.delete(
                FINETUNEJOBS, metadata["namespace"], metadata["name"], uid=metadata["uid"]
            )
        except NotFound:
            self._gone(FINETUNEJOBS, job)

    def _note(self, resource: Resource, stored: Manifest) -> Manifest:
        self._seen(resource, stored)
        return stored


def _is_over(job: Manifest) -> bool:
    """Whether a batch Job is Complete or Failed: every pod of it has stopped."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)


def _owned_by_predecessor(manifest: Manifest, job: Manifest) -> bool:
    """Does the child belong to an earlier job of the same name? Then the garbage collector has it next."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return any(
        owner.get("kind") == names.KIND
        and owner.get("name") == job["metadata"]["name"]
        and owner.get("uid") != job["metadata"]["uid"]
        for owner in owners
    )


def _precondition_failed(error: Conflict) -> bool:
    return "precondition" in error.message.lower()
