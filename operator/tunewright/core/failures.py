"""What a failed attempt means: which reason, whose fault, may it be tried again, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewright.core.observe import ObservedJob, ObservedPod
from tunewright_trainer.contract import ExitCode, Failure, Reason


class Blame(StrEnum):
    """Who has to do something."""

    USER = "User"
    """The same input would fail again: no restart."""
    SOFTWARE = "Software"
    """Counted against lifecycle.maxRestarts."""
    INFRASTRUCTURE = "Infrastructure"
    """Counted against lifecycle.maxPreemptions."""


@dataclass(frozen=True)
class Verdict:
    """Why an attempt (or prepare, or export) ended."""

    reason: str
    blame: Blame
    message: str
    """One sentence: what happened, to which object, the figure that shows it."""
    advice: str = ""
    rank: int | None = None
    step: int | None = None
    last_checkpoint_step: int | None = None
    hearsay: bool = False
    """Told by victims or by the Job alone: whoever knows better may still be on the way to the cache."""

    @property
    def sentence(self) -> str:
        """Message and advice as one text for people."""
        return f"{self.message} {self.advice}".strip()


ADVICE = {
    "OutOfMemory": "Lower training.batch.micro or dataset.maxSequenceLength, set "
    "training.activationCheckpointing: Always, or raise deepspeed.zeroStage; for host memory raise "
    "compute.resources.memory.",
    "NaNLoss": "Lower training.learningRate, use training.precision: BF16, or look for broken rows in the "
    "data.",
    "DeadAdapter": "Raise training.learningRate or train for more steps: the adapter did not change at all.",
    "DiskFull": "Free space on the workspace's claim or make it larger; checkpoints that are there are kept.",
    "ProgressStalled": "Look at the ranks' logs in the workspace; raise lifecycle.progressDeadlineSeconds if "
    "steps really take that long.",
}

# Exit codes tell the blame even where a termination message is missing.
_BY_EXIT_CODE: dict[int, tuple[str, Blame]] = {
    ExitCode.CONFIG_INVALID: (Reason.CONFIG_INVALID, Blame.USER),
    ExitCode.DATA_INVALID: (Reason.DATA_INVALID, Blame.USER),
    ExitCode.MODEL_INVALID: (Reason.MODEL_INVALID, Blame.USER),
    ExitCode.AUTHENTICATION_FAILED: (Reason.AUTHENTICATION_FAILED, Blame.USER),
    ExitCode.STORAGE_ERROR: (Reason.STORAGE_FAILED, Blame.SOFTWARE),
    ExitCode.INTERNAL_ERROR: (Reason.INTERNAL_ERROR, Blame.SOFTWARE),
    ExitCode.NAN_LOSS: (Reason.NAN_LOSS, Blame.USER),
    ExitCode.DEAD_ADAPTER: (Reason.DEAD_ADAPTER, Blame.USER),
    ExitCode.STALLED: (Reason.STALLED, Blame.SOFTWARE),
    ExitCode.RANK_LOST: (Reason.RANK_LOST, Blame.SOFTWARE),
    ExitCode.OUT_OF_MEMORY: (Reason.OUT_OF_MEMORY, Blame.USER),
    ExitCode.STOPPED_FOR_PEER: (Reason.PREEMPTED, Blame.INFRASTRUCTURE),
    ExitCode.TERMINATED: (Reason.PREEMPTED, Blame.INFRASTRUCTURE),
    ExitCode.KILLED: ("RankKilled", Blame.SOFTWARE),
}

INFRASTRUCTURE_REASONS = frozenset(
    {"NodeLost", "PodDeleted", "PodFailed", str(Reason.PREEMPTED), str(Reason.STOPPED_FOR_PEER)}
)
"""Every reason that is counted as the infrastructure's."""

# Culprits before victims: of several failed pods the one that comes first here tells the story.
# Of victims those that saw a peer's SIGTERM know more than those that only lost it.
_VICTIMS = (ExitCode.STOPPED_FOR_PEER, ExitCode.RANK_LOST)


def judge(job: ObservedJob, lost_nodes: frozenset[str]) -> Verdict | None:
    """Why ``job`` ended, or None while nothing of it has failed.

    Pods come first, since they know more than the Job's own condition. A node that is gone explains what
    its peers said, but not a failure that the same input would bring about anywhere.
    """
    failed = [pod for pod in job.pods if _has_failed(pod)]
    told = _judge_pod(min(failed, key=_telling)) if failed else None
    if told is not None and told.blame is Blame.USER:
        return told
    for pod in job.pods:
        if pod.node in lost_nodes and (not pod.terminal or (pod.phase == "Failed" and pod.end is None)):
            return Verdict(
                "NodeLost", Blame.INFRASTRUCTURE, f"Node {pod.node} of pod {pod.name} is gone or not ready."
            )
    if told is None and job.state == "Failed":
        return _judge_job(job)
    return told


def _has_failed(pod: ObservedPod) -> bool:
    return pod.phase == "Failed" or (pod.end is not None and pod.end.exit_code != 0)


def _telling(pod: ObservedPod) -> tuple[int, str]:
    """Sort key: the smaller, the more a pod's end explains."""
    code = pod.end.exit_code if pod.end else None
    if pod.disruption is not None:
        return (0, pod.name)
    if code in _VICTIMS:
        return (4 + _VICTIMS.index(ExitCode(code)), pod.name)
    if code is None:
        return (3, pod.name)
    # A pod that was told to go because the Job had failed ends with 143 and explains nothing.
    return (2, pod.name) if code == ExitCode.TERMINATED and pod.deleting else (1, pod.name)


def _judge_pod(pod: ObservedPod) -> Verdict:
    if pod.disruption is not None:
        return Verdict(
            str(Reason.PREEMPTED),
            Blame.INFRASTRUCTURE,
            f"Pod {pod.name} was disrupted: {pod.disruption.rstrip('.')}.",
        )
    if pod.end is None:
        return Verdict("PodFailed", Blame.INFRASTRUCTURE, f"Pod {pod.name} failed before its trainer ended.")
    if pod.end.kubelet_reason == "OOMKilled":
        return Verdict(
            str(Reason.OUT_OF_MEMORY),
            Blame.USER,
            f"Pod {pod.name} was killed for using more host memory than its limit.",
            ADVICE["OutOfMemory"],
        )
    if pod.end.exit_code == ExitCode.TERMINATED and pod.deleting:
        return Verdict("PodDeleted", Blame.INFRASTRUCTURE, f"Pod {pod.name} was deleted.", hearsay=True)
    reason, blame = _BY_EXIT_CODE.get(pod.end.exit_code, ("RankFailed", Blame.SOFTWARE))
    if isinstance(pod.end.answer, Failure):
        return _from_failure(pod, pod.end.answer, blame)
    lines = pod.end.text.splitlines()
    said = f": {lines[-1]}" if lines else ""
    return Verdict(
        str(reason),
        blame,
        f"Pod {pod.name} ended with exit code {pod.end.exit_code}{said.rstrip('.')}.",
        ADVICE.get(reason, ""),
        hearsay=pod.end.exit_code in _VICTIMS,
    )


def _from_failure(pod: ObservedPod, failure: Failure, blame: Blame) -> Verdict:
    where = "" if failure.rank is None else f"Rank {failure.rank} (pod {pod.name})"
    where += "" if failure.step is None or not where else f" at step {failure.step}"
    error = f" Last error line: {failure.error.rstrip('.')}." if failure.error else ""
    message = f"{where}: {failure.message}" if where else failure.message
    return Verdict(
        str(failure.reason),
        blame,
        message.rstrip(".") + "." + error,
        failure.advice or ADVICE.get(failure.reason, ""),
        failure.rank,
        failure.step,
        failure.last_checkpoint_step,
        hearsay=pod.end is not None and pod.end.exit_code in _VICTIMS,
    )


def _judge_job(job: ObservedJob) -> Verdict:
    """The Job failed and none of its pods is left to say why."""
    if job.reason == "DeadlineExceeded":
        return Verdict("DeadlineExceeded", Blame.USER, f"Job {job.name} ran past its deadline.")
    return Verdict(
        "PodDeleted",
        Blame.INFRASTRUCTURE,
        f"A pod of Job {job.name} went away before it could say why ({job.reason}: "
        f"{job.message.rstrip('.')}).",
        hearsay=True,
    )


def same_failure(ends: Sequence[tuple[str, int | None, int | None]]) -> bool:
    """Whether the last two of ``ends`` (reason, step, step of the newest checkpoint) are one and the same.

    The same failure at the same step without a new checkpoint will come a third time.
    """
    return len(ends) >= 2 and ends[-1] == ends[-2] and ends[-1][1] is not None
