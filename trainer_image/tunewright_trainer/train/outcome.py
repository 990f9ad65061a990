"""How a rank's end reaches the pod's entrypoint: a small file per rank, and the rule that weighs them.

torchrun tells only that some rank failed. The operator needs to know which, why, and whether that rank
was the culprit or a victim of another one.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tunewright_trainer.contract import Answer, ExitCode, Failure, Reason, TrainResult
from tunewright_trainer.files import write_json


class Outcome(BaseModel):
    """One rank: written when it starts, and again when it ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int
    local_rank: int
    pid: int
    exit_code: int | None = None
    """None while the rank runs, and for ever if it died without a word."""
    ended_at: float | None = None
    """Seconds since the epoch."""
    answer: Answer | None = None

    @classmethod
    def path(cls, folder: Path, local_rank: int) -> Path:
        return folder / f"local-rank-{local_rank}.json"

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path(folder, self.local_rank), self.model_dump(mode="json"))

    @classmethod
    def read_all(cls, folder: Path) -> list[Outcome]:
        """Of all ranks of this pod that have started, by local rank."""
        return [
            cls.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("local-rank-*.json"))
        ]


class Exit(BaseModel):
    """How a rank's process ended, as torchrun saw it: negative for a signal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    local_rank: int
    exit_code: int
    ended_at: float


class AgentReport(BaseModel):
    """What torchrun knew when it ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exits: list[Exit] = []
    error: str | None = None
    """Last line of an error of torchrun's own: a rendezvous that never came about."""

    def write(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> AgentReport:
        """The report; an empty one if torchrun was killed before it could write any."""
        return cls.model_validate_json(path.read_bytes()) if path.is_file() else cls()


@dataclass(frozen=True)
class Verdict:
    """What the pod exits with and says."""

    exit_code: int
    answer: TrainResult | Failure


@dataclass(frozen=True)
class Evidence:
    """All that the entrypoint knows when torchrun has ended."""

    outcomes: Sequence[Outcome]
    agent: AgentReport
    terminated: bool
    """The pod itself got SIGTERM."""
    agent_exit_code: int
    out_of_memory_kills: int
    """Processes of this pod that the kernel killed for memory."""
    given_up: frozenset[int] = frozenset()
    """Local ranks that the entrypoint killed because they outlived a failed one."""


AFTERMATH_AFTER_SECONDS = 5.0
"""torchrun looks twice a second and tells whole seconds: a death seen later than this has followed."""

_VICTIMS = (ExitCode.TERMINATED, ExitCode.STOPPED_FOR_PEER, ExitCode.RANK_LOST)
"""Ends that something else caused, the most telling first."""


def judge(evidence: Evidence) -> Verdict:
    """The one cause among what all ranks of the pod say: culprits before victims, the earliest first."""
    said = [outcome for outcome in evidence.outcomes if outcome.exit_code is not None]
    ended_well = [outcome for outcome in said if outcome.exit_code == ExitCode.OK]
    if evidence.terminated:
        return _terminated(said)
    if ended_well and len(ended_well) == len(evidence.outcomes) and evidence.agent_exit_code == 0:
        return Verdict(ExitCode.OK, _result(ended_well))
    failed = [outcome for outcome in said if outcome.exit_code != ExitCode.OK]
    culprits = [outcome for outcome in failed if outcome.exit_code not in _VICTIMS]
    if culprits:
        return _verdict(min(culprits, key=lambda outcome: outcome.ended_at or 0.0))
    if died := _died_silently(evidence):
        return died
    for code in _VICTIMS:
        for outcome in failed:
            if outcome.exit_code == code:
                return _verdict(outcome)
    return _never_ran(evidence)


def _verdict(outcome: Outcome) -> Verdict:
    if isinstance(outcome.answer, TrainResult | Failure) and outcome.exit_code is not None:
        return Verdict(outcome.exit_code, outcome.answer)
    raise ValueError(f"rank {outcome.rank} ended without an answer")


def _result(outcomes: Sequence[Outcome]) -> TrainResult:
    answers = [outcome.answer for outcome in sorted(outcomes, key=lambda outcome: outcome.rank)]
    return next(answer for answer in answers if isinstance(answer, TrainResult))


def _terminated(said: Sequence[Outcome]) -> Verdict:
    """After SIGTERM a pod never exits 0: its index would count as done and never be made again."""
    for outcome in said:
        if isinstance(outcome.answer, Failure) and outcome.answer.reason == Reason.PREEMPTED:
            return Verdict(ExitCode.TERMINATED, outcome.answer)
    for outcome in said:
        if isinstance(outcome.answer, TrainResult | Failure):
            return Verdict(ExitCode.TERMINATED, outcome.answer)
    return Verdict(
        ExitCode.TERMINATED,
        Failure(
            reason=Reason.PREEMPTED,
            message="The pod got SIGTERM before its ranks could save anything.",
            advice="Training goes on from the newest checkpoint.",
        ),
    )


def _died_silently(evidence: Evidence) -> Verdict | None:
    """A rank that ended without a word: by a signal, or before it could find its words; the earliest."""
    ranks: Mapping[int, Outcome] = {outcome.local_rank: outcome for outcome in evidence.outcomes}
    spoke = {outcome.local_rank for outcome in evidence.outcomes if outcome.exit_code is not None}
    silent = [
        end
        for end in evidence.agent.exits
        if end.exit_code != 0 and end.local_rank not in spoke and not _is_aftermath(end, evidence)
    ]
    if not silent:
        return None
    end = min(silent, key=lambda end: (end.exit_code == -signal.SIGTERM, end.ended_at))
    rank = ranks[end.local_rank].rank if end.local_rank in ranks else None
    name = f"rank {rank}" if rank is not None else f"the rank in place {end.local_rank} of this pod"
    if end.exit_code == -signal.SIGKILL and evidence.out_of_memory_kills:
        return Verdict(
            ExitCode.OUT_OF_MEMORY,
            Failure(
                reason=Reason.OUT_OF_MEMORY,
                message=f"The kernel killed {name} because the pod used more memory than its limit.",
                advice="Raise compute.resources.memory, or use a smaller micro-batch or a higher ZeRO stage.",
                rank=rank,
            ),
        )
    by_signal = end.exit_code < 0
    how = f"signal {-end.exit_code}" if by_signal else f"exit code {end.exit_code} before it could say why"
    return Verdict(
        128 - end.exit_code if by_signal else ExitCode.INTERNAL_ERROR,
        Failure(
            reason=Reason.PREEMPTED if end.exit_code == -signal.SIGTERM else Reason.RANK_FAILED,
            message=f"{name[0].upper()}{name[1:]} died with {how}.",
            advice="Training goes on from the newest checkpoint; the rank's log in the workspace has more.",
            rank=rank,
        ),
    )


def _is_aftermath(end: Exit, evidence: Evidence) -> bool:
    """Whether this death followed from another rank's failure: torchrun or the entrypoint ended it."""
    if end.local_rank in evidence.given_up:
        return True
    failures = [outcome.ended_at for outcome in evidence.outcomes if outcome.exit_code and outcome.ended_at]
    if not failures:
        return False
    return end.exit_code == -signal.SIGTERM or end.ended_at > min(failures) + AFTERMATH_AFTER_SECONDS


def _never_ran(evidence: Evidence) -> Verdict:
    return Verdict(
        ExitCode.RANK_LOST,
        Failure(
            reason=Reason.RANK_LOST,
            message="The ranks of the gang did not come together."
            if not evidence.outcomes
            else "torchrun ended before its ranks did.",
            advice="Look at the other pods of the attempt: are all scheduled, and can they reach index 0?",
            error=evidence.agent.error,
        ),
    )
