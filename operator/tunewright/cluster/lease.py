"""Leader election by a Lease: one replica writes, another takes over within seconds of its end.

kopf has no Lease support and the electors of the official Python client give up on the first refused
connection, so this is our own. Times are client-go's: 15 s lease, 10 s to renew it, a try every 2 s.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunewright.cluster.client import Client
from tunewright.cluster.errors import ApiError, NotFound
from tunewright.cluster.resources import LEASES
from tunewright.core import names
from tunewright.core.model import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds; ``duration`` > ``renew_deadline`` > ``retry``."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class LeadershipLost(Exception):
    """The lease could not be renewed in time: another replica may be leading now."""


class Elector:
    """Acquire, then hold until lost, then release.

    Clocks of other machines are never compared: a foreign lease has expired when it did not change for its
    duration on our own monotonic clock. ``client`` should have a connection of its own and a short
    time-out, so that a busy client can't starve the renewal.

    ``progress_address`` (host:port, empty: none) is told to the other replicas by the Lease while this one
    leads; ``leader_address`` is what the leader told. Both may be empty.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        timing: LeaseTiming = LeaseTiming(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._timing = timing
        self._clock = clock
        self._renewed_at: float | None = None
        self._observed: tuple[str, str, str] | None = None
        self._observed_at = 0.0
        self._held: Manifest | None = None  # the Lease as our last write left it
        self.leader = ""
        self.leader_address = ""
        self.progress_address = ""

    def is_leader(self) -> bool:
        """May this replica write now? False as soon as the renewal deadline has passed, even if the event
        loop was blocked or the process stopped meanwhile."""
        if self._renewed_at is None:
            return False
        return self._clock() - self._renewed_at < self._timing.renew_deadline

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._try():
            await self._pause()
        log.info("%s leads (lease %s/%s)", self.identity, self._namespace, self._name)

    async def hold(self) -> None:
        """Renew until that fails for the renewal deadline; then raises LeadershipLost."""
        while True:
            await self._pause()
            if not await self._try() and not self.is_leader():
                self._renewed_at = None
                raise LeadershipLost(f"lease {self._namespace}/{self._name} {self._why_lost()}")

    def _why_lost(self) -> str:
        if self.leader == self.identity:
            return f"could not be renewed for {self._timing.renew_deadline:.0f} s"
        return f"is held by {self.leader or 'nobody'}"

    async def release(self) -> None:
        """Give the lease up, so that a standby need not wait for it to expire. Never raises ApiError."""
        if self._renewed_at is None:
            return
        self._renewed_at = self._held = None
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
            if lease.get("spec", {}).get("holderIdentity") == self.identity:
                spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                metadata = _with_address(lease["metadata"], "")
                await self._client.replace(LEASES, lease | {"spec": spec, "metadata": metadata})
                log.info("released the lease %s/%s", self._namespace, self._name)
        except ApiError as error:
            log.warning("could not release the lease, it will expire by itself: %s", error)

    async def _pause(self) -> None:
        await asyncio.sleep(self._timing.retry * random.uniform(0.8, 1.2))

    async def _try(self) -> bool:
        """One attempt to take or renew the lease. Any failure counts as not taken."""
        started = self._clock()
        try:
            async with asyncio.timeout(min(5.0, self._timing.renew_deadline / 2)):
                taken = await self._take_or_renew()
        except (ApiError, TimeoutError) as error:
            self._held = None
            log.warning("lease %s/%s: %s", self._namespace, self._name, error or "no answer in time")
            return False
        if taken:
            self._renewed_at = started
        return taken

    async def _take_or_renew(self) -> bool:
        lease = self._held
        if lease is None:
            try:
                lease = await self._client.get(LEASES, self._namespace, self._name)
            except NotFound:
                self._held = await self._client.create(LEASES, self._manifest())
                self.leader, self.leader_address = self.identity, self.progress_address
                return True
        spec: dict[str, Any] = lease.get("spec") or {}
        self.leader = spec.get("holderIdentity") or ""
        self.leader_address = _address(lease) if self.leader else ""
        if self.leader != self.identity and not self._expired(lease):
            return False
        changed = spec | {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._timing.duration),
            "renewTime": _now(),
        }
        if self.leader != self.identity:
            changed["acquireTime"] = changed["renewTime"]
            changed["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        metadata = _with_address(lease["metadata"], self.progress_address)
        self._held = await self._client.replace(LEASES, lease | {"spec": changed, "metadata": metadata})
        self.leader, self.leader_address = self.identity, self.progress_address
        return True

    def _expired(self, lease: Manifest) -> bool:
        spec = lease.get("spec") or {}
        if not spec.get("holderIdentity"):
            return True
        version = lease["metadata"].get("resourceVersion", "")
        state = (spec["holderIdentity"], str(spec.get("renewTime")), version)
        if state != self._observed:
            self._observed, self._observed_at = state, self._clock()
        return self._clock() - self._observed_at >= float(spec.get("leaseDurationSeconds") or 0)

    def _manifest(self) -> Manifest:
        now = _now()
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": _with_address(
                {"name": self._name, "namespace": self._namespace}, self.progress_address
            ),
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": round(self._timing.duration),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }


def _address(lease: Manifest) -> str:
    annotations = lease["metadata"].get("annotations") or {}
    return str(annotations.get(names.ANNOTATION_PROGRESS_ADDRESS) or "")


def _with_address(metadata: Mapping[str, Any], address: str) -> dict[str, Any]:
    """``metadata`` that tells ``address``, or none when that is empty; other annotations are kept."""
    kept = dict(metadata.get("annotations") or {})
    kept.pop(names.ANNOTATION_PROGRESS_ADDRESS, None)
    if address:
        kept[names.ANNOTATION_PROGRESS_ADDRESS] = address
    return {**metadata, "annotations": kept}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
