"""The few calls to the API server that the cluster's own parts make, on raw dicts."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

Object = dict[str, Any]
log = logging.getLogger(__name__)

WATCH_SECONDS = 300
"""The API server ends a watch after so long; the next one goes on from there."""
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server's refusal: HTTP ``status`` and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)
"""What a call raises while the API server can't be reached."""


def client_tls(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(certificate, key)
    return context


class Api:
    """One identity's connection to the API server. Use as an async context manager."""

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        self.server = server
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=64)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "Api is an async context manager"
        return self._session

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Object:
        """One request; raises ApiError for a refusal, one of UNREACHABLE without an answer."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        url = self.server + path
        async with self.session.request(method, url, data=data, headers=headers, params=query) as response:
            return await _answer(response)

    async def get(self, path: str, query: dict[str, str] | None = None) -> Object:
        return await self.call("GET", path, query=query)

    async def create(self, path: str, body: Object) -> Object:
        return await self.call("POST", path, body)

    async def patch(self, path: str, body: Object, content_type: str = STRATEGIC) -> Object:
        return await self.call("PATCH", path, body, content_type)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        return await self.call("DELETE", path, body)

    async def follow(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Any]]:
        """List, then watch, for ever: ``("SYNC", [objects])`` after each list, then ``(type, object)``.

        A new list is made after any gap, so a consumer that treats SYNC as the whole truth misses nothing.
        """
        delay = 0.2
        while True:
            try:
                query = {"fieldSelector": selector} if selector else {}
                listed = await self.get(path, query)
                yield "SYNC", listed.get("items") or []
                version = listed["metadata"]["resourceVersion"]
                delay = 0.2
                async for kind, item in self._watch_on(path, query, version):
                    yield kind, item
            except (ApiError, *UNREACHABLE) as error:
                log.info("Watch of %s is started again: %s", path, error or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 3.0)

    async def _watch_on(
        self, path: str, query: dict[str, str], version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Events from ``version`` on, over as many watches as it takes; returns when a list is needed."""
        while True:
            more = {
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
            }
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 30)
            request = self.session.get(self.server + path, params=query | more, timeout=timeout)
            async with request as response:
                if response.status != 200:
                    await _answer(response)
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; an object may be longer than aiohttp's own limit on a line."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _answer(response: aiohttp.ClientResponse) -> Object:
    text = await response.text()
    try:
        answer: Object = json.loads(text)
    except ValueError:
        answer = {"message": text.strip()}
    if response.status >= 400:
        raise ApiError(response.status, str(answer.get("message") or response.reason))
    return answer
