"""Nodes for benchmarks only: they answer a pod's status and termination message without any process.

A pod that is bound to one of them is Running at once, stays so for as long as its annotations say, posts
progress if it is rank 0, and ends with the document that the real trainer would leave. One process plays all
nodes, so that its CPU time is nobody else's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.answers import rank_of, termination_message
from bench.jobs import POST_EVERY_SECONDS, TRAIN_SECONDS
from bench.posts import Poster
from hack.devcluster.api import STRATEGIC, UNREACHABLE, Api, ApiError, client_tls
from hack.devcluster.node_spec import NodeSpec
from hack.devcluster.pki import Authority
from hack.devcluster.pod_status import ContainerState, PodFacts, now_text, pod_status
from hack.devcluster.registration import Registration
from hack.devcluster.state import ClusterError, PidFile, StateDir, write_file
from tunewright.core import names
from tunewright.planner.devices import GPU_MEMORY_LABEL

Object = dict[str, Any]
log = logging.getLogger(__name__)

USER = "bench-nodes"
READY_FILE = "bench-nodes-ready"
GPU_MEMORY_MIB = 81_559
"""Of an 80 GB card, as GPU feature discovery reports it."""
RUN_SECONDS = 0.2
"""Of prepare and export, and of training that says nothing else."""
MOST_TRIES = 5
TERMINATED_EXIT_CODE = 143


class BenchNodes:
    """All the nodes. :meth:`run` plays until cancelled."""

    def __init__(self, api: Api, poster: Poster, specs: Sequence[NodeSpec], heartbeat_seconds: float) -> None:
        self._api = api
        self._poster = poster
        self._specs = list(specs)
        self._names = {spec.name for spec in specs}
        self._registrations = [Registration(api, spec, 0, heartbeat_seconds) for spec in specs]
        self._pods: dict[str, asyncio.Event] = {}
        """By uid of a pod that is being played: its end has come."""
        self._ended: set[str] = set()
        self._addresses = itertools.count(1)

    async def register(self) -> None:
        """Create the Node objects; returns when each has its pod range."""
        await asyncio.gather(*(each.register() for each in self._registrations))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in self._registrations:
                group.create_task(each.keep_alive())
            group.create_task(self._follow(group))

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        async for kind, item in self._api.follow("/api/v1/pods", "spec.nodeName!="):
            if kind == "SYNC":
                for pod in item:
                    self._seen(pod, group)
            elif kind == "DELETED":
                self._end(item["metadata"]["uid"])
                self._ended.discard(item["metadata"]["uid"])
            else:
                self._seen(item, group)

    def _seen(self, pod: Object, group: asyncio.TaskGroup) -> None:
        if pod["spec"].get("nodeName") not in self._names:
            return
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            self._end(uid)
        # The watch may still tell of a pod as it was before its end was written.
        if (
            uid in self._pods
            or uid in self._ended
            or pod["status"].get("phase") not in ("Pending", "Running")
        ):
            return
        stop = self._pods[uid] = asyncio.Event()
        if pod["metadata"].get("deletionTimestamp"):
            stop.set()
        group.create_task(self._play(pod, stop)).add_done_callback(lambda _task: self._played(uid))

    def _end(self, uid: str) -> None:
        if uid in self._pods:
            self._pods[uid].set()

    def _played(self, uid: str) -> None:
        del self._pods[uid]
        self._ended.add(uid)

    async def _play(self, pod: Object, stop: asyncio.Event) -> None:
        """A pod's life: Running, then its answer; or, when it is deleted first, gone."""
        state = ContainerState(name=names.CONTAINER, image=pod["spec"]["containers"][0]["image"])
        facts = PodFacts(pod, (), (state,), now_text(), self._address())
        state.current = {"running": {"startedAt": facts.start_time}}
        state.is_ready = state.has_started = True
        running = None if stop.is_set() else await self._write(pod, pod_status(facts))
        if running is not None:
            await self._train(running, stop)
        was_stopped = stop.is_set()
        state.current = {"terminated": _ending(pod, facts.start_time, was_stopped)}
        state.is_ready = False
        last = PodFacts(running or pod, (), (state,), facts.start_time, facts.address)
        await self._write(pod, pod_status(last))
        if was_stopped:
            await self._remove(pod)

    async def _train(self, pod: Object, stop: asyncio.Event) -> None:
        """Stay as long as the pod's work takes, or until ``stop``."""
        seconds, every = _durations(pod)
        posting = None
        if every is not None:
            posting = asyncio.create_task(self._poster.post_for(pod, every))
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            return
        finally:
            if posting is not None:
                posting.cancel()
                await asyncio.gather(posting, return_exceptions=True)

    async def _write(self, pod: Object, status: Object) -> Object | None:
        """Patch the pod's status; None when the pod is gone."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        body = {"metadata": {"uid": metadata["uid"]}, "status": status}
        return await self._call("PATCH", path, body, STRATEGIC)

    async def _remove(self, pod: Object) -> None:
        """What kubelet does last: say that nothing of the pod runs any more."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        await self._call("DELETE", path, body, "application/json")

    async def _call(self, method: str, path: str, body: Object, content_type: str) -> Object | None:
        for left in reversed(range(MOST_TRIES)):
            try:
                return await self._api.call(method, path, body, content_type)
            except (ApiError, *UNREACHABLE) as error:
                if isinstance(error, ApiError) and error.status in (404, 409):
                    return None
                if left == 0:
                    raise
                log.warning("%s %s, again in 0.5 s: %s", method, path, error or type(error).__name__)
            await asyncio.sleep(0.5)
        return None

    def _address(self) -> str:
        """A fresh pod address; never used for traffic."""
        number = next(self._addresses)
        return f"10.{64 + (number >> 16 & 63)}.{number >> 8 & 255}.{number & 255}"


def _ending(pod: Object, started: str, was_stopped: bool) -> Object:
    ended = {"startedAt": started, "finishedAt": now_text()}
    if was_stopped:
        return {"exitCode": TERMINATED_EXIT_CODE, "reason": "Error", **ended}
    return {"exitCode": 0, "reason": "Completed", "message": termination_message(pod), **ended}


def _durations(pod: Object) -> tuple[float, float | None]:
    """Seconds that the pod works, and between its progress posts (None: it posts none)."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    if metadata["labels"].get(names.LABEL_COMPONENT) != names.COMPONENT_TRAIN:
        return RUN_SECONDS, None
    seconds = float(annotations.get(TRAIN_SECONDS, RUN_SECONDS))
    every = annotations.get(POST_EVERY_SECONDS)
    return seconds, float(every) if every is not None and rank_of(pod) == 0 else None


def node_specs(count: int) -> list[NodeSpec]:
    """``bench-0`` and so on, large enough that pods never wait for room."""
    labels = {GPU_MEMORY_LABEL: str(GPU_MEMORY_MIB)}
    return [NodeSpec(f"bench-{i}", gpus=1024, labels=labels, cpus=1024, memory="8Ti") for i in range(count)]


async def play(state: StateDir, count: int) -> None:
    """Play ``count`` nodes of the cluster in ``state`` until SIGTERM, or until the cluster is gone."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    info = state.info()
    certificate, key = Authority(state.pki).issue(USER, USER, ["system:masters"])
    async with (
        Api(info["server"], client_tls(state.pki / "ca.crt", certificate, key)) as api,
        Poster(api) as poster,
    ):
        nodes = BenchNodes(api, poster, node_specs(count), heartbeat_seconds=info["node_grace_seconds"] / 4)
        await nodes.register()
        write_file(state.root / READY_FILE, f"{count}\n")
        playing = asyncio.create_task(nodes.run())
        try:
            while not playing.done() and PidFile(state, "supervisor").pid() is not None:
                await asyncio.wait([playing], timeout=1)
            if playing.done():
                playing.result()
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            log.info("%d progress posts accepted, %d not", poster.accepted, poster.refused)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.nodes", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder of a running development cluster")
    parser.add_argument("--count", type=int, default=25, help="nodes to play (default %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        asyncio.run(play(StateDir(options.dir.resolve()), options.count))
    except asyncio.CancelledError:
        return 0
    except ClusterError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
