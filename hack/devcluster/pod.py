"""One pod on a process node, from its binding to its last status and removal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hack.devcluster.addresses import pod_address
from hack.devcluster.admission import not_enforced, refusal
from hack.devcluster.api import UNREACHABLE, Api, ApiError, Object
from hack.devcluster.container import Container, Place
from hack.devcluster.container_env import Prepared, Surroundings, mounts_of, prepare
from hack.devcluster.events import Recorder
from hack.devcluster.identity import Identity
from hack.devcluster.images import find_image
from hack.devcluster.pod_status import ContainerState, PodFacts, now_text, pod_status
from hack.devcluster.rewrite import Names
from hack.devcluster.volumes import MountError, PodVolumes

log = logging.getLogger(__name__)

REFRESH_SECONDS = 20.0
"""How often files of ConfigMaps, Secrets and tokens are brought up to date."""
FORCED_GRACE_SECONDS = 1.0
"""What a pod gets whose object is gone already, as on a kubelet."""


@dataclass(frozen=True)
class NodeContext:
    """What pods need of their node."""

    name: str
    api: Api
    identity: Identity
    mark: str
    storage: Path
    pods_folder: Path
    finished_logs: Path
    recorder: Recorder
    passed: dict[str, str]
    backoff_seconds: float
    services: set[tuple[str, str]] = field(default_factory=set)
    """(namespace, name) of every Service, kept up to date by the node."""


class PodWorker:
    """Runs one pod. The node calls ``update`` with each version of the object and ``forget`` at the end."""

    def __init__(self, node: NodeContext, pod: Object, allocate_address: Callable[[], str]) -> None:
        self.node = node
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.folder = node.pods_folder / self.uid
        self.address = pod_address(pod)
        self.containers: dict[str, Container] = {}
        self.task: asyncio.Task[None] | None = None
        self._allocate_address = allocate_address
        self.api_address: str | None = None
        self._start_time = now_text()
        self._stop = asyncio.Event()
        self._grace_seconds: float = pod["spec"].get("terminationGracePeriodSeconds", 30)
        self._is_gone = False
        self._stopping: list[asyncio.Task[None]] = []
        self._is_terminal = False
        self._failure: tuple[str, str] | None = None
        self._dirty = asyncio.Event()
        self._written: Object | None = None
        folders = self.folder / "volumes"
        self._volumes = PodVolumes(node.api, pod, folders, node.storage, node.identity)
        self._make_containers()

    # --- What the node calls --------------------------------------------------------------------------

    def start(self) -> None:
        self.task = asyncio.create_task(self._run(), name=f"pod {self.pod['metadata']['name']}")

    def update(self, pod: Object) -> None:
        """A newer version of the object; a deletion timestamp begins the stop."""
        self.pod = pod
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            self._begin_stop(metadata.get("deletionGracePeriodSeconds", self._grace_seconds))

    def forget(self) -> None:
        """The object is gone: stop what still runs, at once, and write no status any more."""
        self._is_gone = True
        self._begin_stop(FORCED_GRACE_SECONDS)

    def clean_up(self) -> None:
        """Remove the pod's folder; its logs stay with the node for whoever looks for what went wrong."""
        name = f"{self.pod['metadata']['namespace']}_{self.pod['metadata']['name']}_{self.uid[:8]}"
        with contextlib.suppress(FileNotFoundError):
            shutil.move(self.folder / "logs", self.node.finished_logs / name)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Host of the containers -----------------------------------------------------------------------

    async def prepare(self, spec: Object) -> Prepared:
        image = find_image(spec["image"])
        mounts = mounts_of(spec, self._volumes.folders, self._termination_file(spec))
        metadata = self.pod["metadata"]
        names = Names(metadata["namespace"], self.pod["spec"].get("subdomain"), frozenset(self.node.services))
        host, _, port = self.node.api.server.removeprefix("https://").partition(":")
        around = Surroundings(
            host, port, self.folder / "scratch", self.folder / "tmp", self.node.passed, names
        )
        return await prepare(self.node.api, self.pod, spec, image, mounts, around)

    def changed(self) -> None:
        self._dirty.set()

    def event(self, kind: str, reason: str, message: str) -> None:
        self.node.recorder.record(self.pod, kind, reason, message)

    async def pause(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    # --- The pod's life -------------------------------------------------------------------------------

    async def _run(self) -> None:
        writer = asyncio.create_task(self._write_changes())
        try:
            await self._live()
        except Exception as error:
            log.exception("Pod %s", self.pod["metadata"]["name"])
            self._failure = ("NodeError", f"The process node failed: {error!r}")
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await self._write_status()
        await self._stop.wait()
        await self._finish()

    async def _live(self) -> None:
        spec = self.pod["spec"]
        why_not = refusal(self.pod, self.node.identity)
        if why_not:
            self.event("Warning", "Refused", why_not)
            self._failure = ("Refused", why_not)
            return
        self._make_folders()
        self.changed()
        if not await self._mount():
            return
        missing = not_enforced(self.pod, self.node.identity)
        if missing:
            self.event("Normal", "NotEnforced", f"Not enforced by a process node: {'; '.join(missing)}")
        self.api_address = self._allocate_address()
        refresh = asyncio.create_task(self._refresh())
        try:
            policy = spec.get("restartPolicy", "Always")
            for each in spec.get("initContainers") or []:
                if await self.containers[each["name"]].run("OnFailure" if policy == "Always" else policy):
                    return
            for each in spec["containers"]:
                state = self.containers[each["name"]].state
                state.current = {"waiting": {"reason": "ContainerCreating"}}
            await asyncio.gather(*(self.containers[each["name"]].run(policy) for each in spec["containers"]))
        finally:
            refresh.cancel()
            await asyncio.gather(refresh, return_exceptions=True)

    def _make_containers(self) -> None:
        spec, node = self.pod["spec"], self.node
        waiting = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        for each in [*(spec.get("initContainers") or []), *spec["containers"]]:
            name = each["name"]
            place = Place(
                log_folder=self.folder / "logs" / name,
                termination_file=self._termination_file(each),
                mark=f"{node.mark}/{self.uid}/{name}",
                identity=node.identity,
                backoff_seconds=node.backoff_seconds,
            )
            self.containers[name] = Container(each, self, place, waiting, self._grace_seconds)

    def _termination_file(self, spec: Object) -> Path:
        return Path(self.folder, "termination", spec["name"])

    def _make_folders(self) -> None:
        for folder in (self.folder, self.folder / "scratch", self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
            self.node.identity.give(folder)

    async def _mount(self) -> bool:
        """Set up the volumes, for as long as it takes; False when the pod is stopped meanwhile."""
        delay, told = 0.3, ""
        while True:
            try:
                await self._volumes.mount()
                return True
            except MountError as error:
                if str(error) != told and delay > 1:  # the first tries race with the binding itself
                    told = str(error)
                    self.event("Warning", "FailedMount", told)
            if await self.pause(delay):
                for container in self.containers.values():
                    await container.stop(0)
                return False
            delay = min(delay * 1.6, 3.0)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._volumes.refresh()
            except MountError as error:
                log.warning("Pod %s keeps its old files: %s", self.pod["metadata"]["name"], error)

    # --- Stopping -------------------------------------------------------------------------------------

    def _begin_stop(self, grace_seconds: float) -> None:
        """Stop all containers; asked again, it can only shorten the grace."""
        if self._stop.is_set() and grace_seconds >= self._grace_seconds:
            return
        if not self._stop.is_set():
            for each in self.containers.values():
                if "running" in each.state.current:
                    self.event("Normal", "Killing", f"Stopping container {each.spec['name']}")
        self._stop.set()
        self._grace_seconds = grace_seconds
        self._stopping += [asyncio.create_task(each.stop(grace_seconds)) for each in self.containers.values()]

    async def _finish(self) -> None:
        """The last status, then the object itself."""
        await asyncio.gather(*self._stopping)
        if self._is_gone:
            return
        self._is_terminal = True
        await self._write_status()
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while not self._is_gone:
            try:
                await self.node.api.delete(path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                log.warning("Pod %s is not removed yet: %s", metadata["name"], error)
            except UNREACHABLE as error:
                log.info("Pod %s is not removed yet: %r", metadata["name"], error)
            await asyncio.sleep(1)

    # --- Status ---------------------------------------------------------------------------------------

    def _states(self, field_name: str) -> list[ContainerState]:
        return [self.containers[each["name"]].state for each in self.pod["spec"].get(field_name) or []]

    async def _write_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._write_status()

    async def _write_status(self) -> None:
        """Patch the status if it differs from the last one written; tries until the API server answers."""
        while not self._is_gone:
            facts = PodFacts(
                pod=self.pod,
                init=self._states("initContainers"),
                main=self._states("containers"),
                start_time=self._start_time,
                address=self.api_address,
                is_terminal=self._is_terminal,
                failure=self._failure,
            )
            status = pod_status(facts)
            if status == self._written:
                return
            metadata = self.pod["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
            try:
                answer = await self.node.api.patch(path, {"metadata": {"uid": self.uid}, "status": status})
                self._written = status
                self.pod["status"] = answer["status"]
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                log.warning("Status of pod %s is not written: %s", metadata["name"], error)
            except UNREACHABLE as error:
                log.info("Status of pod %s is not written yet: %r", metadata["name"], error)
            await asyncio.sleep(1)
