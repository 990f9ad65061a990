"""Where a development cluster keeps its things, and which of its processes live: one folder, no globals."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ClusterError(Exception):
    """Something about the cluster that a person has to know, in one sentence."""


@dataclass(frozen=True)
class StateDir:
    """The folder of one cluster. Every path of it is spelled here."""

    root: Path

    @property
    def cluster_id(self) -> str:
        """Marks this cluster's processes; differs between clusters on one machine."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:12]

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def storage(self) -> Path:
        """One folder per persistent volume."""
        return self.root / "storage"

    @property
    def binaries(self) -> Path:
        return self.root / "bin"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.root / "audit.log"

    @property
    def info_file(self) -> Path:
        return self.root / "cluster.json"

    @property
    def ready_file(self) -> Path:
        return self.root / "ready"

    def node(self, name: str) -> Path:
        return self.root / "nodes" / name

    def node_names(self) -> list[str]:
        folder = self.root / "nodes"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def info(self) -> dict[str, Any]:
        """What the supervisor wrote at start, such as ``server``; raises ClusterError if there's none."""
        try:
            loaded: dict[str, Any] = json.loads(self.info_file.read_text())
        except FileNotFoundError:
            raise ClusterError(
                f"No cluster in {self.root}; start one: python -m hack.devcluster up"
            ) from None
        return loaded


def process_start_ticks(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class PidFile:
    """Remembers a process by pid and start time, so that a reused pid is never taken for it."""

    def __init__(self, state: StateDir, name: str) -> None:
        self.path = state.pids / f"{name}.json"

    def write(self, pid: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, json.dumps({"pid": pid, "start": process_start_ticks(pid)}))

    def pid(self) -> int | None:
        """The process's id while it lives."""
        try:
            saved = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        if saved["start"] is None or process_start_ticks(saved["pid"]) != saved["start"]:
            return None
        return int(saved["pid"])

    def stop(self, grace_seconds: float, first: signal.Signals = signal.SIGTERM) -> None:
        """End the process: ``first``, then SIGKILL after the grace; returns when it is gone."""
        pid = self.pid()
        if pid is not None:
            _signal(pid, first)
            deadline = time.monotonic() + grace_seconds
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.pid() is not None:
                _signal(pid, signal.SIGKILL)
            wait_until(lambda: self.pid() is None, 10, f"process {pid} ({self.path.stem}) to end")
        self.path.unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition: Any, deadline_seconds: float, what: str, explain: Path | None = None) -> None:
    """Poll ``condition`` until it is true; ClusterError with the tail of ``explain`` past the deadline."""
    end = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(f"Waited {deadline_seconds:g} s for {what}.{tail_of(explain)}")
        time.sleep(0.05)


def tail_of(path: Path | None, lines: int = 15) -> str:
    """The last lines of a log as the end of an error message; empty without a log."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16384))
        text = file.read().decode(errors="replace")
    return f"\nThe end of {path}:\n" + "\n".join(text.splitlines()[-lines:])


def write_file(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.chmod(mode)
    temporary.replace(path)
