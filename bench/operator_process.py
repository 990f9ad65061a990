"""The operator as its own process under the chart's ServiceAccount, and what that process costs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from bench.process import Child
from hack.devcluster.control_plane import free_ports
from hack.devcluster.state import ClusterError, tail_of

READY_DEADLINE_SECONDS = 60
_PODS_FIELD = re.compile(r"\$\((POD_\w+)\)")


@dataclass(frozen=True)
class Cost:
    """Of one process, at one moment."""

    cpu_seconds: float
    """User and system time since its start, all threads."""
    rss_bytes: int
    monotonic_seconds: float

    def cpu_ms_since(self, before: Cost) -> float:
        return (self.cpu_seconds - before.cpu_seconds) * 1000

    def cpu_percent_since(self, before: Cost) -> float:
        """Of one core."""
        elapsed = self.monotonic_seconds - before.monotonic_seconds
        return 100 * (self.cpu_seconds - before.cpu_seconds) / elapsed


class OperatorProcess:
    """One replica. ``chart_env`` is the environment that the chart's Deployment gives its pods; addresses
    are this machine's, since no pod surrounds the process."""

    def __init__(
        self,
        name: str,
        chart_env: Mapping[str, str],
        overrides: Mapping[str, str],
        log_file: Path,
    ) -> None:
        http, progress = free_ports(2)
        self.name = name
        self.log_file = log_file
        self._http = f"127.0.0.1:{http}"
        pod = {"POD_NAME": name, "POD_IP": "127.0.0.1", **overrides}
        env = {key: _PODS_FIELD.sub(lambda m: pod[m[1]], value) for key, value in chart_env.items()}
        env |= pod | {
            "TUNEWRIGHT_HTTP_BIND": self._http,
            "TUNEWRIGHT_PROGRESS_BIND": f"127.0.0.1:{progress}",
            "TUNEWRIGHT_PROGRESS_URL": f"https://127.0.0.1:{progress}",
        }
        self.started_at = time.monotonic()
        self._child = Child(["tunewright", "run"], log_file, env)
        self._process = psutil.Process(self._child.pid)

    def cost(self) -> Cost:
        """What the process has cost so far; raises ClusterError when it has ended."""
        self._child.check()
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
        return Cost(times.user + times.system, memory.rss, time.monotonic())

    async def ready(self) -> float:
        """Wait for ``/readyz``; seconds since the start. Raises ClusterError past the deadline."""
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._child.check()
                if await _answers_ok(session, f"http://{self._http}/readyz"):
                    return time.monotonic() - self.started_at
                if time.monotonic() - self.started_at > READY_DEADLINE_SECONDS:
                    waited = f"{self.name} was not ready in {READY_DEADLINE_SECONDS} s."
                    raise ClusterError(waited + tail_of(self.log_file))
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """Sum of a metric's samples, over all labels."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self._http}/metrics") as answer:
            text = await answer.text()
        sample = re.compile(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", re.MULTILINE)
        return sum(float(value) for value in sample.findall(text))

    @property
    def child(self) -> Child:
        return self._child


async def _answers_ok(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
