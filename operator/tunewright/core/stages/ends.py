"""What cuts a life short or comes after it: deletion, suspension, deadlines, the time to live."""

from __future__ import annotations

from datetime import timedelta

from tunewright.core import attempts
from tunewright.core.lifecycle import ACCEPTED, TERMINAL, Phase, phase_of
from tunewright.core.model import Deletion
from tunewright.core.observe import parse_time
from tunewright.core.outcome import (
    Context,
    Outcome,
    all_jobs,
    clock,
    delete_job,
    force_lost_pods,
    live_pods,
    outcome,
)


def stored_phase(context: Context) -> Phase:
    """The phase that the stored conditions tell."""
    conditions = context.stored_status.get("conditions") or ()
    return phase_of({condition["type"]: condition for condition in conditions})


def stop_everything(context: Context) -> tuple[Deletion, ...]:
    """Deletions that end whatever still runs; finished Jobs stay for their logs."""
    running = [job for job in all_jobs(context.observed) if job.state == "Active"]
    deletions = [deletion for job in running for deletion in delete_job(context.owner.namespace, job)]
    return (*deletions, *force_lost_pods(context))


def terminate(context: Context) -> Outcome:
    """The job is being deleted: stop its pods, then let it go (see plan.py for the finalizer)."""
    pods = live_pods(context.observed)
    message = f"Deleting: waiting for {pods} pods to stop." if pods else "Deleting: everything has stopped."
    return outcome(
        context,
        Phase.TERMINATING,
        "Deleting",
        message,
        delete=stop_everything(context),
        requeue_after_seconds=5.0 if pods else None,
    )


def finished(context: Context) -> Outcome | None:
    """A job that has ended stays as it is; its pods don't."""
    phase = stored_phase(context)
    if phase not in TERMINAL:
        return None
    ready = next(c for c in context.stored_status["conditions"] if c["type"] == "Ready")
    requeue = _seconds_to_live(context)
    if live_pods(context.observed):
        requeue = min(5.0, requeue) if requeue is not None else 5.0
    return outcome(
        context,
        phase,
        ready["reason"],
        ready["message"],
        delete=stop_everything(context),
        requeue_after_seconds=requeue,
    )


def _seconds_to_live(context: Context) -> float | None:
    ttl = context.spec.lifecycle.ttl_seconds_after_finished
    ended = parse_time(context.stored_status.get("completedAt"))
    if ttl is None or ended is None:
        return None
    return max(0.0, ttl - (context.now - ended).total_seconds())


def time_to_live_is_over(context: Context) -> bool:
    """Whether ttlSecondsAfterFinished has passed since the job ended."""
    return _seconds_to_live(context) == 0.0


def deadline(context: Context) -> Outcome | None:
    """activeDeadlineSeconds counts from the start, suspended time included."""
    limit = context.spec.lifecycle.active_deadline_seconds
    started = parse_time(context.stored_status.get("startedAt"))
    if limit is None or started is None or context.now < started + timedelta(seconds=limit):
        return None
    return outcome(
        context,
        Phase.FAILED,
        "DeadlineExceeded",
        f"Not done {limit} s after its start at {clock(started)} (lifecycle.activeDeadlineSeconds). "
        "Checkpoints are kept; raise the deadline in a new job to go on.",
        delete=stop_everything(context),
        warning=True,
    )


def suspend(context: Context) -> Outcome | None:
    """lifecycle.suspend stops the pods; their last checkpoint is where the job goes on.

    A trained job that only exports holds no GPU and is let through to its end.
    """
    if not context.spec.lifecycle.suspend or attempts.completed(context.status):
        return None
    deletions = stop_everything(context)
    pods = live_pods(context.observed)
    stopping = pods > 0 or any(job.state == "Active" for job in all_jobs(context.observed))
    attempt = attempts.last(context.status)
    if attempt is not None and attempts.is_open(attempt):
        worker = context.observed.workers.get(attempt["number"])
        if worker is not None and worker.state == "Complete":
            return None  # Training ended first: the result is taken in.
        if not stopping and worker is None:
            context = context.learned(
                attempts=attempts.closed(context.status, context.now, None, attempts.SUSPENDED),
                workers=None,
                nodes=None,
            )
    step = (context.status.get("progress") or {}).get("lastCheckpointStep")
    resume = f" It goes on from step {step}." if step is not None else ""
    message = (
        "Suspended: the pods save and stop."
        if stopping
        else f"Suspended: no pod runs. Set lifecycle.suspend to false to go on.{resume}"
    )
    return outcome(
        context,
        Phase.SUSPENDED,
        "Suspended",
        message,
        delete=deletions,
        requeue_after_seconds=5.0 if stopping else None,
        notes={ACCEPTED: ("True", "Accepted", "The spec is valid.")},
    )
