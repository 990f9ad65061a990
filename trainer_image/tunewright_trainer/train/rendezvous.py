"""How the pods of a gang find each other: torchrun's c10d rendezvous, and waiting for index 0."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunewright_trainer.console import Ticker
from tunewright_trainer.contract import ComputeConfig, Reason
from tunewright_trainer.errors import TrainerError

READ_TIMEOUT_SECONDS = 120
"""How long torchrun waits for one answer of the rendezvous store."""
_RETRY_SECONDS = 0.5
_CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Rendezvous:
    """Where this pod stands in the gang."""

    nodes: int
    processes: int
    """Ranks of this pod."""
    index: int
    """The pod's completion index; index 0 holds the store."""
    run_id: str
    host: str
    port: int
    local_address: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], compute: ComputeConfig) -> Rendezvous:
        """Read the PET_ variables of the pod. Raises ConfigInvalid, naming the variable, if one is wrong."""
        endpoint = environment.get("PET_RDZV_ENDPOINT") or "127.0.0.1:0"
        host, _, port = endpoint.rpartition(":")
        try:
            return cls(
                nodes=int(environment.get("PET_NNODES") or compute.nodes),
                processes=int(environment.get("PET_NPROC_PER_NODE") or compute.processes_per_node),
                index=int(environment.get("JOB_COMPLETION_INDEX") or 0),
                run_id=environment.get("PET_RDZV_ID") or "tunewright",
                host=host,
                port=int(port),
                local_address=environment.get("PET_LOCAL_ADDR") or None,
            )
        except ValueError as error:
            raise TrainerError(
                Reason.CONFIG_INVALID,
                f"One of PET_NNODES, PET_NPROC_PER_NODE, PET_RDZV_ENDPOINT and JOB_COMPLETION_INDEX "
                f"is wrong: {error}.",
            ) from error

    @property
    def is_host(self) -> bool:
        return self.index == 0

    def torchrun_arguments(
        self, *, join_timeout_seconds: float, shutdown_timeout_seconds: int, log_folder: Path
    ) -> list[str]:
        """Arguments of torchrun for this pod. Nothing restarts here: the operator restarts whole gangs."""
        # is_host is said outright: torchrun's guess by host name fails for short service names.
        settings = {
            "is_host": str(self.is_host).lower(),
            "join_timeout": str(round(join_timeout_seconds)),
            "read_timeout": str(READ_TIMEOUT_SECONDS),
        }
        arguments = [
            f"--nnodes={self.nodes}",
            f"--nproc-per-node={self.processes}",
            "--rdzv-backend=c10d",
            f"--rdzv-id={self.run_id}",
            f"--rdzv-endpoint={self.host}:{self.port}",
            f"--rdzv-conf={','.join(f'{name}={value}' for name, value in settings.items())}",
            "--max-restarts=0",
            f"--shutdown-timeout={shutdown_timeout_seconds}",
            "--monitor-interval=0.5",
            f"--log-dir={log_folder}",
            "--tee=3",
        ]
        if self.local_address:
            arguments.append(f"--local-addr={self.local_address}")
        return [*arguments, "--module", "tunewright_trainer.train.rank"]


def wait_for_host(rendezvous: Rendezvous, timeout_seconds: float, stop: Callable[[], bool]) -> None:
    """Wait until index 0 has a name and answers on its port; at once if this is index 0 or ``stop()``.

    torchrun asks once and gives up: a pod that comes up first would burn an attempt.
    Raises RankLost after ``timeout_seconds``.
    """
    if rendezvous.is_host:
        return
    started = time.monotonic()
    ticker = Ticker(f"waiting for index 0 at {rendezvous.host}:{rendezvous.port}", unit="tries")
    tries, error = 0, ""
    while not stop():
        try:
            address = (rendezvous.host, rendezvous.port)
            socket.create_connection(address, timeout=_CONNECT_TIMEOUT_SECONDS).close()
            return
        except OSError as reason:
            error = str(reason)
        if time.monotonic() - started > timeout_seconds:
            raise TrainerError(
                Reason.RANK_LOST,
                f"Index 0 of the gang did not answer at {rendezvous.host}:{rendezvous.port} "
                f"within {timeout_seconds:.0f} s.",
                "Is the pod with index 0 scheduled, and may pods of the job connect to each other?",
                error=error,
            )
        tries += 1
        ticker.at(tries)
        time.sleep(_RETRY_SECONDS)
