"""Keeps what a pod told of its attempt's end when the pod itself is gone before the Job has ended. Pure.

A deleted or evicted pod is removed as soon as its process has ended; its peers, and the Job, then know less
than the status that was stored meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

from tunewright.core.failures import Blame, Verdict
from tunewright.core.lifecycle import READY, Phase, phase_of
from tunewright.core.outcome import Context
from tunewright_trainer.contract import Reason

STILL_STOPPING = " Waiting for the other pods to stop."
_OF_REMOVED_PODS = frozenset({"PodDeleted", str(Reason.PREEMPTED)})


def told_before(context: Context) -> Verdict | None:
    """What the stored status says of the end of the attempt that is open, if a removed pod had told it.

    Restarting with an open attempt is this attempt's own end: the next one is stored as Starting before
    anything of it exists.
    """
    conditions = {each["type"]: each for each in context.stored_status.get("conditions") or ()}
    ready = conditions.get(READY)
    if (
        ready is None
        or phase_of(conditions) is not Phase.RESTARTING
        or ready["reason"] not in _OF_REMOVED_PODS
    ):
        return None
    message = ready["message"].removesuffix(STILL_STOPPING)
    return Verdict(ready["reason"], Blame.INFRASTRUCTURE, message)


def best_told(context: Context, verdict: Verdict) -> Verdict:
    """``verdict``, or what was told before when this one is hearsay; still hearsay: better news may come."""
    if not verdict.hearsay or (told := told_before(context)) is None:
        return verdict
    return replace(told, hearsay=True, step=verdict.step, last_checkpoint_step=verdict.last_checkpoint_step)
