"""Keeps a store equal to the API server's state through every fault that a watch is known to have."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing

from tunewright.cluster.client import Client
from tunewright.cluster.errors import ApiError, Gone
from tunewright.cluster.resources import Resource
from tunewright.cluster.store import Indexer, OnChange, Store
from tunewright.core.model import Manifest

log = logging.getLogger(__name__)

RESYNC_SECONDS = 600.0
STALL_SECONDS = 70.0
"""The API server sends a bookmark each minute: longer silence means that the connection is dead."""
PAGE_SIZE = 100
"""A page is held whole until it is cut down, and a whole pod takes 60 KB as dicts, which the process keeps
afterwards: with pages of 500, a start among 3,500 pods left twice the memory; smaller ones save little."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 8.0
SERVER_TIMEOUT_SECONDS = (290, 580)
"""Watches end at random times in between, so that replicas and resources don't reconnect in step."""


class Informer:
    """List, then watch from there, forever; list again when the watch can't go on, and every 10 minutes.

    ``run`` is a task of its own and never raises but for cancellation. ``synced`` is set after the first
    list. ``on_change`` must only note what to do (add a key to a queue); what it raises is logged.
    With ``notify_on_resync`` every object is told anew at each resync, which repairs a lost key.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        metadata_only: bool = False,
        indexers: Mapping[str, Indexer] | None = None,
        strip: Callable[[Manifest], Manifest] = lambda manifest: manifest,
        on_change: OnChange | None = None,
        notify_on_resync: bool = False,
        resync_seconds: float = RESYNC_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        page_size: int = PAGE_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.store = Store(indexers=indexers, strip=strip, on_change=self._guarded(on_change))
        self._client = client
        self._strip = strip
        self._namespace = namespace
        self._label_selector = label_selector
        self._metadata_only = metadata_only
        self._notify_on_resync = notify_on_resync
        self._resync_seconds = resync_seconds
        self._stall_seconds = stall_seconds
        self._page_size = page_size
        self._clock = clock
        self._version = ""
        self._resync_at = 0.0
        self._last_contact: float | None = None
        self._last_sign_of_life = clock()
        self._complaint = ""

    def last_contact_seconds(self) -> float | None:
        """Seconds since the API server last told us something; None if it never did."""
        return None if self._last_contact is None else self._clock() - self._last_contact

    def idle_seconds(self) -> float:
        """Seconds since this informer last did anything, a failed try included. More than some minutes
        means that its task hangs or is dead, which an API server that is away does not cause."""
        return self._clock() - self._last_sign_of_life

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            started = self._clock()
            self._last_sign_of_life = started
            at_least = 0.0
            try:
                if not self._version or started >= self._resync_at:
                    await self._relist()
                await self._watch()
            except Gone as error:
                log.info("%s: the watch is too far behind, listing again: %s", self.resource.plural, error)
                self._version = ""
            except ApiError as error:
                self._complain(error)
                if 400 <= error.status < 500 and error.status != 429:
                    self._version = ""  # it may be what the server refuses; a busy one is spared the list
                at_least = error.retry_after_seconds or 0.0
            except Exception:
                log.exception("%s: unexpected error, listing again", self.resource.plural)
                self._version = ""
            lasted = self._clock() - started
            failures = 0 if lasted > LONGEST_PAUSE_SECONDS else failures + 1
            ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**failures)
            await asyncio.sleep(max(at_least, random.uniform(ceiling / 2, ceiling)))

    async def _relist(self) -> None:
        resync = self.synced.is_set()
        manifests, version = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            page_size=self._page_size,
            metadata_only=self._metadata_only,
            strip=self._strip,
        )
        self._touch()
        self.store.replace(manifests, version)
        self._version = version
        self._resync_at = self._clock() + self._resync_seconds * random.uniform(0.9, 1.1)
        if self._complaint:
            log.info("%s: the API server answers again", self.resource.plural)
            self._complaint = ""
        self.synced.set()
        if resync and self._notify_on_resync:
            self.store.renotify()

    async def _watch(self) -> None:
        """One watch, until the server ends it or a resync is due."""
        remaining = max(1.0, self._resync_at - self._clock())
        timeout = min(random.uniform(*SERVER_TIMEOUT_SECONDS), remaining)
        events = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            server_timeout_seconds=max(1, round(timeout)),
            stall_seconds=self._stall_seconds,
            metadata_only=self._metadata_only,
        )
        async with aclosing(events) as stream:
            async for kind, manifest in stream:
                self._touch()
                if kind in ("ADDED", "MODIFIED"):
                    self.store.upsert(manifest)
                elif kind == "DELETED":
                    self.store.remove(manifest)
                self._version = manifest["metadata"]["resourceVersion"]

    def _touch(self) -> None:
        self._last_contact = self._last_sign_of_life = self._clock()

    def _complain(self, error: ApiError) -> None:
        """Log a trouble once, not at each try."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("%s: %s; trying again", self.resource.plural, error)

    def _guarded(self, on_change: OnChange | None) -> OnChange:
        def call(old: Manifest | None, new: Manifest | None) -> None:
            if on_change is None:
                return
            try:
                on_change(old, new)
            except Exception:  # one object that trips the callback must not stop the cache
                log.exception("%s: a change could not be handled", self.resource.plural)

        return call
