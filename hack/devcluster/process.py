"""One container as a process of this machine: start, signals, exit code, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster.identity import Identity
from hack.devcluster.state import ClusterError, wait_until

MARK = "DEVCLUSTER_CONTAINER"
"""Environment variable by which a container's processes are known, those that left its session too.

Its value is ``<cluster>/<node>/<pod uid>/<container>``.
"""
TERMINATION_MESSAGE_LIMIT_BYTES = 4096
LOG_FALLBACK_LIMIT_BYTES = 2048
LOG_FALLBACK_LINES = 80
KILL_DEADLINE_SECONDS = 10.0


class StartError(Exception):
    """The command can't be run: no such program, or not executable."""


@dataclass(frozen=True)
class Launch:
    """All that starting a container's process takes."""

    command: Sequence[str]
    environment: Mapping[str, str]
    working_dir: str
    log_file: Path
    identity: Identity
    mark: str


class ContainerProcess:
    """A running main process and those it started."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self._process = process
        self._mark = mark

    @classmethod
    async def start(cls, launch: Launch) -> ContainerProcess:
        """Start the main process in a session of its own; raises StartError."""
        program = shutil.which(launch.command[0], path=launch.environment.get("PATH", ""))
        if program is None:
            raise StartError(f'exec: "{launch.command[0]}": executable file not found in $PATH')
        # The program keeps the name it was called by: Python finds its environment that way.
        command = [*launch.identity.prefix, program, *launch.command[1:]]
        log_descriptor = _open_log(launch.log_file)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_descriptor,
                stderr=log_descriptor,
                cwd=launch.working_dir,
                env={**launch.environment, MARK: launch.mark},
                start_new_session=True,
                umask=0o022,
            )
        except OSError as error:
            raise StartError(f"{program}: {error.strerror}") from error
        finally:
            os.close(log_descriptor)
        return cls(process, launch.mark)

    async def wait(self) -> int:
        """The exit code, 128 + n for death by signal n; whatever the process left running is killed."""
        code = await self._process.wait()
        await kill_marked(self._mark)
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        """SIGTERM to the main process alone, as container runtimes do."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL to the main process and all that it started."""
        await kill_marked(self._mark)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def marked_processes(mark: str) -> list[int]:
    """Live processes whose mark is ``mark`` or lies below it (``mark`` + ``/…``)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            content = Path(entry.path, "environ").read_bytes()
        except (OSError, PermissionError):  # gone meanwhile, or another user's
            continue
        marks = [each for each in content.split(b"\0") if each.startswith(wanted)]
        if any(each == wanted or each[len(wanted) :].startswith(b"/") for each in marks):
            found.append(int(entry.name))
    return found


def kill_now(mark: str) -> int:
    """SIGKILL to every process with the mark; returns how many there were."""
    pids = marked_processes(mark)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


async def kill_marked(mark: str) -> None:
    """Kill until none is left (one may be forking while we look); ClusterError if that takes 10 s."""
    end = time.monotonic() + KILL_DEADLINE_SECONDS
    while kill_now(mark):
        if time.monotonic() > end:
            raise ClusterError(f"Processes {marked_processes(mark)} outlive SIGKILL")
        await asyncio.sleep(0.02)


def kill_marked_and_wait(mark: str) -> None:
    """``kill_marked`` for callers without an event loop."""
    wait_until(lambda: kill_now(mark) == 0, KILL_DEADLINE_SECONDS, f"the processes of {mark} to end")


def termination_message(file: Path, log_file: Path, policy: str, exit_code: int) -> str:
    """What a container left in its termination file, or the end of its log if the policy says so.

    The last 4,096 bytes, as kubelet takes them.
    """
    message = _end_of(file, TERMINATION_MESSAGE_LIMIT_BYTES)
    if not message and exit_code != 0 and policy == "FallbackToLogsOnError":
        lines = _end_of(log_file, LOG_FALLBACK_LIMIT_BYTES).splitlines(keepends=True)
        message = "".join(lines[-LOG_FALLBACK_LINES:])
    return message


def _open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _end_of(path: Path, limit_bytes: int) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit_bytes))
        return file.read(limit_bytes).decode(errors="replace")
