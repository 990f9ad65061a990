"""The training pod's entrypoint: starts torchrun, looks after it, and says how it ended.

It holds no torch: it waits for the gang to be reachable, passes SIGTERM on, ends ranks that outlive a
failed one, and turns what the ranks left behind into one exit code and one termination message.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tunewright_trainer.answers import write_answer
from tunewright_trainer.console import say
from tunewright_trainer.contract import ENV_ATTEMPT, ENV_GRACE_SECONDS, ExitCode, Reason, TrainerConfig
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.locations import Locations, Workspace
from tunewright_trainer.train import logs, memory
from tunewright_trainer.train.finished import finished
from tunewright_trainer.train.outcome import AgentReport, Evidence, Outcome, Verdict, judge
from tunewright_trainer.train.rank import OUTCOMES
from tunewright_trainer.train.rendezvous import Rendezvous, wait_for_host

ENV_JOIN_TIMEOUT_SECONDS = "TUNEWRIGHT_JOIN_TIMEOUT_SECONDS"
"""How long a pod waits for the others to come up; longer than nodes take to be provisioned."""
DEFAULT_JOIN_TIMEOUT_SECONDS = 1800.0
ENV_AFTERMATH_SECONDS = "TUNEWRIGHT_AFTERMATH_SECONDS"
"""How long the other ranks of this pod may live after one has failed by itself."""
DEFAULT_AFTERMATH_SECONDS = 30.0
DEFAULT_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Settings:
    """What the pod's environment says, as values."""

    attempt: int
    grace_seconds: float
    join_timeout_seconds: float
    aftermath_seconds: float

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        def number(name: str, default: float) -> float:
            try:
                return float(environment.get(name) or default)
            except ValueError as error:
                raise TrainerError(Reason.CONFIG_INVALID, f"{name} is not a number of seconds.") from error

        return cls(
            attempt=int(number(ENV_ATTEMPT, 1)),
            grace_seconds=number(ENV_GRACE_SECONDS, DEFAULT_GRACE_SECONDS),
            join_timeout_seconds=number(ENV_JOIN_TIMEOUT_SECONDS, DEFAULT_JOIN_TIMEOUT_SECONDS),
            aftermath_seconds=number(ENV_AFTERMATH_SECONDS, DEFAULT_AFTERMATH_SECONDS),
        )

    @property
    def shutdown_timeout_seconds(self) -> int:
        """How long torchrun lets ranks save after SIGTERM: the grace period less time to end in order."""
        return max(1, int(self.grace_seconds - min(20.0, self.grace_seconds / 4)))


def main(config: TrainerConfig) -> int:
    """Run this pod's ranks to their end. Returns the pod's exit code; the answer is written by then."""
    locations = Locations.from_environment()
    settings = Settings.from_environment(os.environ)
    pod = Pod(config, locations, settings, Rendezvous.from_environment(os.environ, config.compute))
    pod.listen()
    workspace = Workspace.of(config, locations)
    if done := finished(workspace.final(config.job_uid), config):
        say("training was finished before; nothing to do")
        write_answer(done)
        return ExitCode.OK
    verdict = pod.run()
    logs.keep(locations.scratch, workspace.logs(config.job_uid, settings.attempt))
    write_answer(verdict.answer)
    return verdict.exit_code


class Pod:
    """The ranks of this pod, through their torchrun."""

    def __init__(
        self, config: TrainerConfig, locations: Locations, settings: Settings, rendezvous: Rendezvous
    ) -> None:
        self._config, self._settings, self._rendezvous = config, settings, rendezvous
        self._scratch = locations.scratch
        self._report = locations.scratch / "agent.json"
        self._agent: subprocess.Popen[bytes] | None = None
        self._terminated = False
        self._given_up: set[int] = set()

    def listen(self) -> None:
        """Take SIGTERM from here on: the first process of a container has no default for it."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> Verdict:
        """Start the ranks, wait for their end, judge it."""
        (self._scratch / "logs").mkdir(parents=True, exist_ok=True)
        wait_for_host(self._rendezvous, self._settings.join_timeout_seconds, lambda: self._terminated)
        kills_before = memory.out_of_memory_kills()
        if not self._terminated:
            self._start()
            self._watch()
        return judge(
            Evidence(
                outcomes=Outcome.read_all(self._scratch / OUTCOMES),
                agent=AgentReport.read(self._report),
                terminated=self._terminated,
                agent_exit_code=self._agent.returncode if self._agent else 0,
                out_of_memory_kills=memory.out_of_memory_kills() - kills_before,
                given_up=frozenset(self._given_up),
            )
        )

    def _start(self) -> None:
        arguments = self._rendezvous.torchrun_arguments(
            join_timeout_seconds=self._settings.join_timeout_seconds,
            shutdown_timeout_seconds=self._settings.shutdown_timeout_seconds,
            log_folder=self._scratch / "logs",
        )
        command = [sys.executable, "-m", "tunewright_trainer.train.agent", str(self._report), *arguments]
        say(f"starting {self._rendezvous.processes} rank(s): torchrun {' '.join(arguments)}")
        self._agent = subprocess.Popen(
            command, env=rank_environment(os.environ, self._scratch), preexec_fn=_die_with_parent
        )
        if self._terminated:  # the signal came between the check and the start
            self._agent.terminate()

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._terminated = True
        if self._agent is not None and self._agent.poll() is None:
            # torchrun passes it on to the ranks and waits for them to save.
            self._agent.terminate()

    def _watch(self) -> None:
        """Wait for torchrun. Ranks that hang on after one of them failed are ended: they wait for nobody."""
        if self._agent is None:
            raise RuntimeError("torchrun was not started")
        give_up_at: float | None = None
        while True:
            try:
                self._agent.wait(_POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                if self._terminated:
                    continue
            outcomes = Outcome.read_all(self._scratch / OUTCOMES)
            if give_up_at is None and any(outcome.exit_code for outcome in outcomes):
                give_up_at = time.monotonic() + self._settings.aftermath_seconds
            if give_up_at is not None and time.monotonic() > give_up_at:
                self._give_up([outcome for outcome in outcomes if outcome.exit_code is None])
                give_up_at = None

    def _give_up(self, running: list[Outcome]) -> None:
        for outcome in running:
            say(f"rank {outcome.rank} has not ended by itself after another one failed: it is killed")
            self._given_up.add(outcome.local_rank)
            try:
                os.kill(outcome.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def rank_environment(environment: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """The environment of torchrun and its ranks."""
    private = {
        # With the shared store, ranks of a second round read the first one's addresses (pytorch #135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # A read-only home must not matter, and no two pods may share a lock file.
        "TORCH_EXTENSIONS_DIR": str(scratch / "torch-extensions"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "HF_HUB_OFFLINE": environment.get("HF_HUB_OFFLINE", "0"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    defaults = {"OMP_NUM_THREADS": "1"}
    return {**defaults, **environment, **private}


def _die_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
