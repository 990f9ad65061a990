"""Records events about pods without ever holding one up."""

from __future__ import annotations

import asyncio
import logging
import secrets

from hack.devcluster.api import UNREACHABLE, Api, ApiError, Object
from hack.devcluster.pod_status import now_text

log = logging.getLogger(__name__)


class Recorder:
    """Posts events in the order of ``record``; one that can't be posted is only logged."""

    def __init__(self, api: Api, node_name: str) -> None:
        self._api = api
        self._node_name = node_name
        self._queue: asyncio.Queue[Object] = asyncio.Queue(maxsize=1000)

    def record(self, pod: Object, kind: str, reason: str, message: str) -> None:
        """``kind``: Normal or Warning."""
        metadata = pod["metadata"]
        now = now_text()
        event = {
            "metadata": {
                "name": f"{metadata['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "process-node", "host": self._node_name},
            "reportingComponent": "process-node",
            "reportingInstance": self._node_name,
        }
        log.info("%s/%s %s: %s", metadata["namespace"], metadata["name"], reason, message)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("Event dropped: too many wait")

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            event = await self._queue.get()
            namespace = event["metadata"]["namespace"]
            try:
                await self._api.create(f"/api/v1/namespaces/{namespace}/events", event)
            except (ApiError, *UNREACHABLE) as error:
                log.info("Event %s not posted: %s", event["reason"], error)
