"""Runs ``python -m tunewright run`` as a process beside a development cluster, and reads what it serves."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from hack.devcluster.cluster import DevCluster
from hack.devcluster.images import REPOSITORY_ROOT
from hack.devcluster.state import wait_until

READY_SECONDS = 60


class OperatorProcess:
    """One replica. As a context manager it is killed at the end unless it has stopped."""

    def __init__(self, cluster: DevCluster, namespace: str, log_file: Path, **environ: str) -> None:
        self._cluster = cluster
        self._log_file = log_file
        roots = f"{REPOSITORY_ROOT / 'operator'}:{REPOSITORY_ROOT / 'trainer_image'}"
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": roots,
            "KUBECONFIG": str(cluster.kubeconfig),
            "TUNEWRIGHT_NAMESPACE": namespace,
            "TUNEWRIGHT_HTTP_BIND": "127.0.0.1:0",
            "TUNEWRIGHT_PROGRESS_BIND": "127.0.0.1:0",
            "TUNEWRIGHT_PROGRESS_URL": "https://localhost:1",
            **environ,
        }

    def __enter__(self) -> Self:
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "tunewright", "run"],
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)

    def log(self) -> str:
        """What it has logged so far."""
        return self._log_file.read_text()

    def fetch(self, path: str, server: str = "http") -> tuple[int, str]:
        """Status and text of a GET; status 0 while nothing listens."""
        found = re.search(rf"{server} listens on (\S+) port (\d+)", self.log())
        if found is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://{found[1]}:{found[2]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""

    def post_progress(self, token: str, ca_pem: str) -> tuple[int, str]:
        """Status and text of the answer to a progress post of some job."""
        found = re.search(r"progress listens on \S+ port (\d+)", self.log())
        assert found is not None, self.log()
        path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/default/trainjobs/tune/status"
        request = urllib.request.Request(
            f"https://localhost:{found[1]}{path}",
            data=b'{"trainerStatus": {"progressPercentage": 40}}',
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        trusted = ssl.create_default_context(cadata=ca_pem)
        try:
            with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Sum of all series of a metric."""
        _, text = self.fetch("/metrics")
        lines = [line for line in text.splitlines() if re.match(rf"{name}(\{{| )", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait_leading(self) -> None:
        """Wait until it is ready and leads."""
        self.wait(
            lambda: self.fetch("/readyz")[0] == 200 and self.metric("tunewright_leader") == 1, "leading"
        )

    def wait(self, condition: Callable[[], object], what: str, seconds: float = READY_SECONDS) -> None:
        """Wait for ``condition``; fails with the log when it never holds or the process has ended."""

        def holds() -> bool:
            assert self.process.poll() is None, f"the operator ended:\n{self.log()}"
            return bool(condition())

        wait_until(holds, seconds, what, self._log_file)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)
