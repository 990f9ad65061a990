"""Kubernetes events that add up instead of piling up, and never get in the way of a reconcile."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tunewright.cluster.client import Client
from tunewright.cluster.errors import AlreadyExists, ApiError, NotFound
from tunewright.cluster.resources import EVENTS
from tunewright.core import names
from tunewright.core.model import Event, Manifest

log = logging.getLogger(__name__)

LONGEST_NOTE = 1024
"""The API server refuses longer notes (counted in bytes)."""
BURST = 25
REFILL_SECONDS = 300.0
"""client-go's spam filter: 25 events of one object at once, then one per 5 minutes."""
LONGEST_QUEUE = 1000
REMEMBERED_OBJECTS = 4096


class EventRecorder:
    """Writes events in a task of its own (:meth:`run`). :meth:`record` never blocks and never raises; what
    is too much is dropped."""

    def __init__(
        self,
        client: Client,
        reporting_instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._reporting_instance = reporting_instance[:128]
        self._clock = clock
        self._now = now
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(LONGEST_QUEUE)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self.dropped = 0

    def record(self, regarding: Manifest, event: Event) -> None:
        """Queue an event on the object ``regarding``."""
        if not self._take_token(regarding["metadata"]["uid"]) or self._queue.full():
            self.dropped += 1
            return
        self._queue.put_nowait(self._manifest(regarding, event))

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
        while True:
            manifest = await self._queue.get()
            try:
                await self._write(manifest)
            except ApiError as error:
                self.dropped += 1
                log.debug("event %s dropped: %s", manifest["metadata"]["name"], error)
            finally:
                self._queue.task_done()

    async def flush(self, timeout_seconds: float) -> None:
        """Wait until all is written, at most ``timeout_seconds``."""
        try:
            await asyncio.wait_for(self._queue.join(), timeout_seconds)
        except TimeoutError:
            log.info("%d events were not written in time", self._queue.qsize())

    async def _write(self, manifest: Manifest) -> None:
        """Create the event; one that is there already is counted up. Needs no right to read events: counts
        are kept in memory, and one that was written by an earlier process goes on from 2."""
        name = manifest["metadata"]["name"]
        count = self._counts.pop(name, 0)
        if count == 0 or not await self._count_up(manifest, count + 1):
            try:
                await self._client.create(EVENTS, manifest)
                count = 0
            except AlreadyExists:
                count = 1
                await self._count_up(manifest, 2)
        self._counts[name] = count + 1
        while len(self._counts) > REMEMBERED_OBJECTS:
            self._counts.popitem(last=False)

    async def _count_up(self, manifest: Manifest, count: int) -> bool:
        """False when the event has expired meanwhile."""
        series = {"count": count, "lastObservedTime": manifest["eventTime"]}
        metadata = manifest["metadata"]
        try:
            await self._client.patch(EVENTS, metadata["namespace"], metadata["name"], {"series": series})
        except NotFound:
            return False
        return True

    def _manifest(self, regarding: Manifest, event: Event) -> Manifest:
        metadata = regarding["metadata"]
        digest = hashlib.sha256(f"{metadata['uid']}/{event.reason}/{event.message}".encode()).hexdigest()
        note = event.message.encode()[:LONGEST_NOTE].decode("utf-8", "ignore")
        reference: dict[str, Any] = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{metadata['name']}.{digest[:16]}", "namespace": metadata["namespace"]},
            "eventTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": names.REPORTING_CONTROLLER,
            "reportingInstance": self._reporting_instance,
            "action": event.action,
            "reason": event.reason,
            "regarding": reference,
            "note": note,
            "type": event.type,
        }

    def _take_token(self, uid: str) -> bool:
        now = self._clock()
        tokens, since = self._buckets.pop(uid, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_SECONDS)
        allowed = tokens >= 1
        self._buckets[uid] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > REMEMBERED_OBJECTS:
            self._buckets.popitem(last=False)
        return allowed
