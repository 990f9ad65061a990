"""Reads the API server's audit log: which requests one user made, and what kind of write each was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})
JOB_WRITES = ("create", "delete", "status", "finalizer")
"""What counts as a write of a job; everything else is listed apart."""
_APART = {"events": "event", "leases": "lease", "tokenreviews": "token review", "secrets": "certificate"}


@dataclass(frozen=True)
class Request:
    """One request as the audit log has it."""

    kind: str
    """``read``, one of JOB_WRITES, or one of the writes apart: ``event``, ``lease`` …"""
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    at: datetime
    """When the API server received it."""


class AuditLog:
    """The requests of ``user``. Positions in the file stand for moments: take one before, one after."""

    def __init__(self, path: Path, user: str) -> None:
        self._path = path
        self._user = user
        self._needle = json.dumps(user).encode()

    def position(self) -> int:
        """The present end of the log. The API server writes a line before it answers the request."""
        return self._path.stat().st_size

    def requests(self, start: int = 0, end: int | None = None) -> list[Request]:
        """Requests whose end, or for watches whose start, was logged between the positions."""
        with self._path.open("rb") as file:
            file.seek(start)
            data = file.read() if end is None else file.read(end - start)
        lines = (line for line in data.splitlines() if self._needle in line)
        parsed = (self._parse(line) for line in lines)
        return [request for request in parsed if request is not None]

    def _parse(self, line: bytes) -> Request | None:
        event = json.loads(line)
        if event["user"]["username"] != self._user:
            return None
        # A watch is logged when it starts and when it ends: the start is the request.
        stage = "ResponseStarted" if event["verb"] == "watch" else "ResponseComplete"
        if event["stage"] not in (stage, "Panic"):
            return None
        subject = event.get("objectRef") or {}
        resource = subject.get("resource", "")
        return Request(
            kind=kind_of(event["verb"], resource, subject.get("subresource", "")),
            verb=event["verb"],
            resource=resource,
            namespace=subject.get("namespace", ""),
            name=subject.get("name", ""),
            code=(event.get("responseStatus") or {}).get("code", 0),
            at=datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00")),
        )


def kind_of(verb: str, resource: str, subresource: str) -> str:
    """Sorts a request into :attr:`Request.kind`."""
    if verb not in WRITE_VERBS:
        return "read"
    if resource in _APART:
        return _APART[resource]
    if resource == "finetunejobs" and verb == "patch":
        return "status" if subresource == "status" else "finalizer"
    return "create" if verb == "create" else "delete" if verb.startswith("delete") else "other"


def job_writes(requests: Iterable[Request], *namespaces: str) -> list[Request]:
    """Writes for jobs in ``namespaces`` (none given: in all), refused ones too."""
    return [
        request
        for request in requests
        if request.kind in (*JOB_WRITES, "other") and (not namespaces or request.namespace in namespaces)
    ]


def count_by_kind(requests: Iterable[Request]) -> dict[str, int]:
    """How many requests of each kind, most first."""
    return dict(Counter(request.kind for request in requests).most_common())


def smallest_gaps_seconds(requests: Iterable[Request]) -> dict[Any, float]:
    """Per object (namespace, name) with two requests or more: the shortest time between two of them."""
    moments: dict[tuple[str, str], list[datetime]] = {}
    for request in requests:
        moments.setdefault((request.namespace, request.name), []).append(request.at)
    return {
        key: min((b - a).total_seconds() for a, b in zip(sorted(at), sorted(at)[1:], strict=False))
        for key, at in moments.items()
        if len(at) > 1
    }
