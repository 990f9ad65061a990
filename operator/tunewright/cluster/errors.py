"""Errors of the API server, named after the decision that they lead to.

ApiError                  anything the server or the way to it refused
├── Unreachable           no answer at all: try later
├── BadRequest, Invalid   the same object will never be accepted: say so, do not hurry
├── Unauthorized          credentials are stale or wrong
├── Forbidden             RBAC, quota, admission, or a namespace that is going away
├── NotFound              already gone, or not there yet
├── Conflict              somebody wrote first: read again
│   └── AlreadyExists     the name is taken: find out by whom
├── Gone                  the resource version is too old: list again
└── Overloaded            429 and 5xx that outlived the retries: back off
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that failed.

    ``status`` is the HTTP code (0: no answer), ``reason`` the server's CamelCase word, ``details`` the
    ``details`` object of its Status, ``retry_after_seconds`` what it asked for.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_seconds = retry_after_seconds

    @property
    def namespace_terminating(self) -> bool:
        """The object was refused because its namespace is being deleted: creating again is of no use."""
        causes = self.details.get("causes") or []
        return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


class Unreachable(ApiError):
    """No answer: refused, reset, timed out."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


class BadRequest(ApiError):
    """400."""


class Unauthorized(ApiError):
    """401."""


class Forbidden(ApiError):
    """403."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409 that is not AlreadyExists: a resource version or uid precondition did not hold."""


class AlreadyExists(Conflict):
    """409 AlreadyExists."""


class Gone(ApiError):
    """410: the watch or the continue token is too old."""


class Invalid(ApiError):
    """422: the object breaks the schema or a rule."""


class Overloaded(ApiError):
    """429 and 5xx."""


class NotLeader(ApiError):
    """A write was stopped on this side because leadership may have passed to another replica."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeader", "this replica does not hold the lease; the write was not sent")


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Overloaded,
}


def error_from(status: int, body: bytes | Mapping[str, Any], retry_after: str | None = None) -> ApiError:
    """The typed error for an answer: ``body`` is a Kubernetes Status, as bytes or decoded, or any text."""
    document = body if isinstance(body, Mapping) else _decode(body)
    reason = str(document.get("reason") or "")
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(status, ApiError)
    if status >= 500:
        kind = Overloaded
    details = document.get("details")
    details = details if isinstance(details, Mapping) else {}
    return kind(
        status,
        reason or f"HTTP{status}",
        str(document.get("message") or "the API server gave no reason"),
        details,
        _seconds(retry_after) or _seconds(details.get("retryAfterSeconds")),
    )


def _decode(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {"message": body[:500].decode("utf-8", "replace").strip()}
    return document if isinstance(document, Mapping) else {"message": str(document)[:500]}


def _seconds(value: object) -> float | None:
    """``Retry-After`` in seconds; its date form is not used by the API server and is ignored."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 < seconds < 3600 else None
