"""A CPU Job under way, prepare or export: what its pod waits for, and whether it is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.core import pods
from tunewright.core.failures import judge
from tunewright.core.lifecycle import Phase
from tunewright.core.model import Manifest
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, outcome, release_stuck_pods


@dataclass(frozen=True)
class Words:
    """What is said of the Job while all goes well (``reason``, ``message``) and after a failed pod."""

    phase: Phase
    reason: str
    message: str
    retry_reason: str
    retry_message: str


def in_flight(
    context: Context,
    job: ObservedJob,
    words: Words,
    *,
    create: tuple[Manifest, ...] = (),
    notes: dict[str, tuple[str, str, str]] | None = None,
) -> Outcome:
    """Where a running CPU Job is. Pods of nodes that are gone are removed, or no other would follow."""
    wait = pods.waiting(job, 1)
    verdict = judge(job, context.observed.lost_nodes)
    reason, message, warning = words.reason, words.message, False
    if wait is not None and wait.reason:
        reason, message, warning = wait.reason, wait.message, True
    elif verdict is not None:
        reason, message, warning = words.retry_reason, f"{words.retry_message} {verdict.message}", True
    return outcome(
        context,
        words.phase,
        reason,
        message,
        create=create,
        delete=release_stuck_pods(context),
        notes=notes or {},
        warning=warning,
    )


def awaited(context: Context, job: ObservedJob, words: Words) -> Outcome | None:
    """Job and pods come by different watches: after the Job's end its pods may still tell more."""
    seconds = pods.settling_seconds(job, context.now)
    if seconds <= 0:
        return None
    return outcome(context, words.phase, words.reason, words.message, requeue_after_seconds=seconds)
