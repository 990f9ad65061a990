"""The verbs of the API server over plain dicts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp

from tunewright.cluster.errors import Gone, Unreachable, error_from
from tunewright.cluster.resources import Resource
from tunewright.cluster.transport import Request, Transport
from tunewright.core import names
from tunewright.core.model import Manifest

Manifests = list[Manifest]
"""Spelled outside the class: inside it, ``list`` is the verb."""
PatchType = Literal["merge", "json", "apply"]
_PATCH_CONTENT_TYPE: dict[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_ONLY_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
LONGEST_EVENT_BYTES = 8 * 1024 * 1024
"""More than etcd lets an object be; a longer line means that the stream is not what we think it is."""


class Client:
    """CRUD, patch and watch. Every method raises :class:`~tunewright.cluster.errors.ApiError`.

    Manifests that are returned belong to the caller; lists have ``apiVersion`` and ``kind`` filled into
    their items, which the API server leaves out.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.close()

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
    ) -> Manifest:
        """One object; with ``metadata_only`` neither spec nor data leave the server."""
        accept = METADATA_ONLY if metadata_only else "application/json"
        path = resource.path(namespace, name)
        answer: Manifest = await self._send("GET", path, "get", resource, accept=accept)
        return answer

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int | None = None,
        metadata_only: bool = False,
        strip: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    ) -> tuple[Manifests, str]:
        """All objects and the list's resource version, consistent as of that version.

        ``page_size`` bounds one answer, not the whole; ``strip`` is applied to each object before the next
        page is asked for, so that no more than a page is ever held whole. Raises Gone when a continue token
        expired.
        """
        params = _selectors(label_selector, field_selector)
        if page_size:
            params["limit"] = str(page_size)
        accept = METADATA_ONLY_LIST if metadata_only else "application/json"
        items: list[Manifest] = []
        while True:
            page = await self._send(
                "GET", resource.path(namespace), "list", resource, params=params, accept=accept
            )
            items += [strip(_with_type(item, resource)) for item in page.get("items") or []]
            metadata = page["metadata"]
            del page
            if not metadata.get("continue"):
                return items, metadata.get("resourceVersion", "")
            params["continue"] = metadata["continue"]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        server_timeout_seconds: int = 300,
        stall_seconds: float = 70.0,
        metadata_only: bool = False,
    ) -> AsyncGenerator[tuple[str, Manifest], None]:
        """Events after ``resource_version``: ADDED, MODIFIED, DELETED, BOOKMARK with their object.

        Ends when the server ends it. Raises Gone for a version that is too old, ApiError for any other
        ERROR event, Unreachable when the connection breaks or is silent for ``stall_seconds``.
        """
        params = _selectors(label_selector, None) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(server_timeout_seconds),
        }
        accept = METADATA_ONLY if metadata_only else "application/json"
        path = resource.path(namespace)
        request = Request("GET", path, "watch", resource.plural, params=params, accept=accept)
        response = await self.transport.stream(request, stall_seconds)
        try:
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    yield _event(line)
        except TimeoutError as error:
            raise Unreachable(f"watch of {resource.plural}: nothing for {stall_seconds:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"watch of {resource.plural} broke: {error or type(error).__name__}") from error
        finally:
            response.close()

    async def create(
        self, resource: Resource, manifest: Manifest, *, namespace: str | None = None
    ) -> Manifest:
        """The object as stored. A name that the caller chose makes it safe to send again: after an answer
        that was lost the second try raises AlreadyExists, and the caller finds out whose it is."""
        metadata = manifest.get("metadata") or {}
        path = resource.path(namespace or metadata.get("namespace"))
        named = bool(metadata.get("name"))
        answer: Manifest = await self._send("POST", path, "create", resource, body=manifest, retriable=named)
        return answer

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """PUT; raises Conflict if ``metadata.resourceVersion`` is not the stored one."""
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        answer: Manifest = await self._send("PUT", path, "update", resource, body=manifest)
        return answer

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any] | Sequence[Any],
        *,
        patch_type: PatchType = "merge",
        subresource: str | None = None,
        force: bool = False,
    ) -> Manifest:
        """Merge patch, JSON patch or server-side apply (``force`` takes fields from other managers)."""
        path = resource.path(namespace, name, subresource)
        params = {"fieldManager": names.FIELD_MANAGER}
        if patch_type == "apply" and force:
            params["force"] = "true"
        content_type = _PATCH_CONTENT_TYPE[patch_type]
        verb = "apply" if patch_type == "apply" else "patch"
        answer: Manifest = await self._send(
            "PATCH", path, verb, resource, params=params, body=body, content_type=content_type
        )
        return answer

    async def patch_status(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        status_patch: Mapping[str, Any],
        resource_version: str | None = None,
    ) -> Manifest:
        """Merge-patch the status subresource; with a ``resource_version``, raises Conflict if it is old."""
        body: dict[str, Any] = {"status": status_patch}
        if resource_version:
            body["metadata"] = {"resourceVersion": resource_version}
        return await self.patch(resource, namespace, name, body, subresource="status")

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> Manifest:
        """The object on its way out, or a Status when it is gone at once.

        Raises NotFound, and Conflict when the object of that name has another uid or resource version.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {key: value for key, value in preconditions.items() if value},
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        path = resource.path(namespace, name)
        answer: Manifest = await self._send("DELETE", path, "delete", resource, body=body)
        return answer

    async def _send(self, method: str, path: str, verb: str, resource: Resource, **fields: Any) -> Any:
        return await self.transport.send(Request(method, path, verb, resource.plural, **fields))


def _with_type(item: Manifest, resource: Resource) -> Manifest:
    item.setdefault("apiVersion", resource.api_version)
    item.setdefault("kind", resource.kind)
    return item


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in given.items() if value}


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Whole lines of the body. A last line without its newline was cut and is dropped.

    aiohttp's own readline refuses lines over 128 KiB, which a large object exceeds.
    """
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        *whole, rest = pending.split(b"\n")
        pending = rest
        for line in whole:
            if line.strip():
                yield bytes(line)
        if len(pending) > LONGEST_EVENT_BYTES:
            raise Unreachable(f"a watch event is longer than {LONGEST_EVENT_BYTES} bytes")


def _event(line: bytes) -> tuple[str, Manifest]:
    try:
        event = json.loads(line)
        kind, subject = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable("a watch event is not JSON: the stream is broken") from error
    if kind == "ERROR":
        failure = error_from(int(subject.get("code") or 500), subject)
        raise Gone(410, "Expired", failure.message) if subject.get("reason") == "Expired" else failure
    return kind, subject
