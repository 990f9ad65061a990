"""One container of a pod through its starts, probes, exits and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.devcluster.api import Object
from hack.devcluster.container_env import ConfigError, Prepared
from hack.devcluster.identity import Identity
from hack.devcluster.images import UnknownImage
from hack.devcluster.pod_status import ContainerState, now_text
from hack.devcluster.probes import Probe, Target
from hack.devcluster.process import ContainerProcess, Launch, StartError, termination_message
from hack.devcluster.volumes import MountError

LONGEST_BACKOFF_SECONDS = 300.0
RESET_BACKOFF_SECONDS = 600.0
"""A container that ran so long starts again with a short back-off."""


class Host(Protocol):
    """What a container needs of its pod."""

    address: str

    async def prepare(self, container: Object) -> Prepared:
        """Raises UnknownImage, ConfigError or MountError."""

    def changed(self) -> None:
        """The container's state has changed."""

    def event(self, kind: str, reason: str, message: str) -> None: ...

    async def pause(self, seconds: float) -> bool:
        """Wait; True when the pod is being stopped (at once, then)."""


@dataclass(frozen=True)
class Place:
    """Where a container's files are, and how its processes are known."""

    log_folder: Path
    termination_file: Path
    mark: str
    identity: Identity
    backoff_seconds: float
    """The first wait between restarts; doubled each time."""

    def log_file(self, restart: int) -> Path:
        return self.log_folder / f"{restart}.log"


class Container:
    """Runs one container. ``state`` is always what the API should show."""

    def __init__(self, spec: Object, host: Host, place: Place, waiting: str, grace_seconds: float) -> None:
        self.spec = spec
        self.host = host
        self.place = place
        self.state = ContainerState(spec["name"], spec["image"], {"waiting": {"reason": waiting}})
        self._process: ContainerProcess | None = None
        self._prepared: Prepared | None = None
        self._stopping = False
        self._process_over = asyncio.Event()
        self._late_stop: asyncio.Task[None] | None = None
        self._grace_seconds = grace_seconds

    async def run(self, restart_policy: str) -> int:
        """Run until the container has ended for good, with restarts as the policy says; its last exit code.

        A stopped pod ends it too: with 137 if it never ran.
        """
        backoff = self.place.backoff_seconds
        while True:
            started = time.monotonic()
            if not await self._start():
                message = "The pod was deleted before the container started"
                self._ended(137, "ContainerStatusUnknown", message, now_text())
                return 137
            code = await self._until_end()
            if self._stopping or restart_policy == "Never" or (restart_policy == "OnFailure" and code == 0):
                return code
            if time.monotonic() - started > RESET_BACKOFF_SECONDS:
                backoff = self.place.backoff_seconds
            if self.state.restarts > 0 and await self._back_off(backoff):
                return code
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS) if self.state.restarts > 0 else backoff
            self.state.restarts += 1

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, the grace period, SIGKILL; returns when the process is gone."""
        is_first, self._stopping = not self._stopping, True
        process = self._process
        if process is None:
            self._grace_seconds = grace_seconds  # for a process that is just being made
            return
        if is_first:
            process.terminate()
        try:
            await asyncio.wait_for(self._process_over.wait(), grace_seconds)
        except TimeoutError:
            await process.kill()
            await self._process_over.wait()

    async def _start(self) -> bool:
        """Start the process; tries again while image, volumes or environment are missing. False: stopped."""
        delay, pulls = 0.5, 0
        while not self._stopping:
            try:
                self._prepared = await self.host.prepare(self.spec)
                if not self._stopping:
                    await self._launch(self._prepared)
                    return True
            except UnknownImage as error:
                pulls += 1
                self._wait_state("ErrImagePull" if pulls == 1 else "ImagePullBackOff", str(error))
                delay = 2.0 if pulls == 1 else 30.0
                if pulls == 1:
                    self.host.event("Warning", "Failed", str(error))
            except (ConfigError, MountError) as error:
                self._wait_state("CreateContainerConfigError", str(error))
                self.host.event("Warning", "Failed", f"Error: {error}")
                delay = min(delay * 2, 10)
            if await self.host.pause(delay):
                return False
        return False

    async def _launch(self, prepared: Prepared) -> None:
        place = self.place
        place.termination_file.parent.mkdir(parents=True, exist_ok=True)
        place.termination_file.write_bytes(b"")
        place.identity.give(place.termination_file)
        log_file = place.log_file(self.state.restarts)
        launch = Launch(
            prepared.command, prepared.environment, prepared.working_dir, log_file, place.identity, place.mark
        )
        started_at = now_text()
        try:
            self._process = await ContainerProcess.start(launch)
        except StartError as error:
            self.host.event("Warning", "Failed", f"Error: {error}")
            self._ended(128, "StartError", str(error), started_at)
            return
        self._process_over.clear()
        if "terminated" in self.state.current:
            self.state.last = self.state.current
        self.state.current = {"running": {"startedAt": started_at}}
        self.host.event("Normal", "Started", f"Started container {self.spec['name']}")
        self.host.changed()
        if self._stopping:  # the stop came while the process was being made
            self._process.terminate()
            self._late_stop = asyncio.create_task(self.stop(self._grace_seconds))

    async def _until_end(self) -> int:
        """Probe the running process until it exits; its exit code."""
        process, prepared = self._process, self._prepared
        if process is None or prepared is None:  # never started: already in its end state
            return self.state.exit_code or 128
        probes = asyncio.create_task(self._probe(prepared))
        try:
            code = await process.wait()
        finally:
            probes.cancel()
            await asyncio.gather(probes, return_exceptions=True)
        self._process = None
        self._process_over.set()
        policy = self.spec.get("terminationMessagePolicy", "File")
        log_file = self.place.log_file(self.state.restarts)
        message = termination_message(self.place.termination_file, log_file, policy, code)
        started_at = self.state.current["running"]["startedAt"]
        self._ended(code, "Completed" if code == 0 else "Error", message, started_at)
        return code

    def _ended(self, code: int, reason: str, message: str, started_at: str) -> None:
        uid, name = self.place.mark.split("/")[-2:]
        terminated = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started_at,
            "finishedAt": now_text(),
            "containerID": f"process://{uid}/{name}/{self.state.restarts}",
        }
        if message:
            terminated["message"] = message
        self.state.current = {"terminated": terminated}
        self.state.is_ready = self.state.has_started = False
        self.host.changed()

    async def _back_off(self, seconds: float) -> bool:
        """Wait before a restart; True when the pod is being stopped."""
        name = self.spec["name"]
        message = f"back-off {seconds:g}s restarting failed container={name}"
        self.state.last = self.state.current
        self._wait_state("CrashLoopBackOff", message)
        self.host.event("Warning", "BackOff", f"Back-off restarting failed container {name}")
        if await self.host.pause(seconds):
            self.state.current, self.state.last = self.state.last, {}
            return True
        return False

    def _wait_state(self, reason: str, message: str) -> None:
        if "terminated" in self.state.current:
            self.state.last = self.state.current
        self.state.current = {"waiting": {"reason": reason, "message": message}}
        self.state.is_ready = self.state.has_started = False
        self.host.changed()

    # --- Probes ---------------------------------------------------------------------------------------

    async def _probe(self, prepared: Prepared) -> None:
        """Startup first, then readiness and liveness side by side; ends when the process is killed."""
        probes = {
            kind: Probe(self.spec[f"{kind}Probe"], self._target(prepared))
            for kind in ("startup", "readiness", "liveness")
            if self.spec.get(f"{kind}Probe")
        }
        if "startup" in probes:
            await asyncio.sleep(probes["startup"].initial_delay_seconds)
            while (answer := await probes["startup"].check()) is not True:
                if answer is False:
                    await self._kill_unhealthy("startup", probes["startup"])
                    return
                await asyncio.sleep(probes["startup"].period_seconds)
        self.state.has_started = True
        self._set_ready("readiness" not in probes)
        running = [self._follow(kind, probe) for kind, probe in probes.items() if kind != "startup"]
        await asyncio.gather(*running)

    async def _follow(self, kind: str, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        while True:
            answer = await probe.check()
            if kind == "readiness" and answer is not None:
                if not answer and self.state.is_ready:
                    self.host.event("Warning", "Unhealthy", f"Readiness probe failed: {probe.failure}")
                self._set_ready(answer)
            elif kind == "liveness" and answer is False:
                await self._kill_unhealthy(kind, probe)
                return
            await asyncio.sleep(probe.period_seconds)

    def _set_ready(self, is_ready: bool) -> None:
        if self.state.is_ready != is_ready or not is_ready:
            self.state.is_ready = is_ready
            self.host.changed()

    async def _kill_unhealthy(self, kind: str, probe: Probe) -> None:
        name, process = self.spec["name"], self._process
        self.host.event("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {probe.failure}")
        self.host.event("Normal", "Killing", f"Container {name} failed {kind} probe, will be restarted")
        if process is not None:
            process.terminate()
            await asyncio.sleep(self._grace_seconds)
            await process.kill()

    def _target(self, prepared: Prepared) -> Target:
        async def run(command: list[str]) -> int:
            words = [prepared.rewriter.text(word) for word in command]
            place = self.place
            launch = Launch(
                words,
                prepared.environment,
                prepared.working_dir,
                place.log_folder / "probes.log",
                place.identity,
                f"{place.mark}-probe",
            )
            try:
                process = await ContainerProcess.start(launch)
            except StartError:
                return 126
            try:
                return await process.wait()
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    await process.kill()
                raise

        return Target(self.spec, self.host.address, run)
