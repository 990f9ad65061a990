"""Child processes of a benchmark: started with their log in a file, stopped by pid, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.devcluster.images import IMPORT_ROOTS, REPOSITORY_ROOT
from hack.devcluster.state import ClusterError, tail_of

PASSED = ("PATH", "LANG", "HOME", "TUNEWRIGHT_CACHE", "KUBEBUILDER_ASSETS")


class Child:
    """``python -m …`` in the repository, with nothing of the caller's environment but what programs need."""

    def __init__(self, module: Sequence[str], log_file: Path, env: Mapping[str, str] | None = None) -> None:
        environment = {name: os.environ[name] for name in PASSED if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(map(str, (*IMPORT_ROOTS, REPOSITORY_ROOT)))}
        environment |= {"PYTHONUNBUFFERED": "1", **(env or {})}
        self.log_file = log_file
        self.name = module[0]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY_ROOT,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """ClusterError with the end of its log when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ClusterError(f"{self.name} ended with exit code {code}.{tail_of(self.log_file)}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and return at once."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, grace_seconds: float = 30) -> None:
        """SIGTERM, SIGKILL after the grace; returns when the process is gone."""
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
