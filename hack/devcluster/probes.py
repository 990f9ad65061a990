"""Plays startup, readiness and liveness probes: HTTP, TCP and commands."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from hack.devcluster.api import Object

RunCommand = Callable[[list[str]], Awaitable[int]]
"""Runs a command as in the container; its exit code."""


@dataclass(frozen=True)
class Target:
    """What is probed."""

    container: Object
    address: str
    """The pod's own address."""
    run: RunCommand


class Probe:
    """One probe with its thresholds. ``check`` gives an answer once enough of the same have come in a row."""

    def __init__(self, spec: Object, target: Target) -> None:
        self.initial_delay_seconds: float = spec.get("initialDelaySeconds", 0)
        self.period_seconds: float = spec.get("periodSeconds", 10)
        self._spec = spec
        self._target = target
        self._timeout_seconds: float = spec.get("timeoutSeconds", 1)
        self._needed = {True: spec.get("successThreshold", 1), False: spec.get("failureThreshold", 3)}
        self._last: bool | None = None
        self._in_a_row = 0
        self.failure = ""
        """What the last failed try said."""

    async def check(self) -> bool | None:
        """Try once: True or False when the threshold is reached, None before."""
        try:
            message = await asyncio.wait_for(self._try(), self._timeout_seconds)
        except TimeoutError:
            message = f"no answer in {self._timeout_seconds:g} s"
        except (aiohttp.ClientError, OSError) as error:
            message = str(error) or type(error).__name__
        self.failure = message
        succeeded = not message
        self._in_a_row = self._in_a_row + 1 if succeeded == self._last else 1
        self._last = succeeded
        return succeeded if self._in_a_row >= self._needed[succeeded] else None

    async def _try(self) -> str:
        """Empty for success, else what was wrong."""
        if "httpGet" in self._spec:
            return await self._http(self._spec["httpGet"])
        if "tcpSocket" in self._spec:
            host = self._spec["tcpSocket"].get("host") or self._target.address
            _, writer = await asyncio.open_connection(host, self._port(self._spec["tcpSocket"]["port"]))
            writer.close()
            return ""
        if "exec" in self._spec:
            code = await self._target.run(self._spec["exec"]["command"])
            return "" if code == 0 else f"command ended with exit code {code}"
        return f"probes of type {sorted(self._spec)} are not played"

    async def _http(self, action: Object) -> str:
        scheme = action.get("scheme", "HTTP").lower()
        host = action.get("host") or self._target.address
        url = f"{scheme}://{host}:{self._port(action['port'])}{action.get('path', '/')}"
        headers = {each["name"]: each["value"] for each in action.get("httpHeaders") or []}
        tls = ssl.create_default_context()
        tls.check_hostname = False  # kubelet doesn't verify a probe's certificate either
        tls.verify_mode = ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if 200 <= response.status < 400:
                return ""
            return f"HTTP probe failed with statuscode: {response.status}"

    def _port(self, port: int | str) -> int:
        if isinstance(port, int):
            return port
        for each in self._target.container.get("ports") or []:
            if each.get("name") == port:
                return int(each["containerPort"])
        raise OSError(f"the container names no port {port!r}")
