"""What cuts a life short or comes after it: deletion, suspension, deadlines, the time to live."""

from __future__ import annotations

from tunewright.core import attempts
from tunewright.core.lifecycle import ACCEPTED, READY, TERMINAL, Phase, phase_of
from tunewright.core.model import Deletion
from tunewright.core.observe import parse_time
from tunewright.core.outcome import (
    Context,
    Outcome,
    all_jobs,
    delete_job,
    live_pods,
    outcome,
    release_stuck_pods,
    still_runs,
)
from tunewright.core.stages.export import export_result

_LOOK_AGAIN_SECONDS = 5.0
"""While pods stop: the events that tell of it may have been missed."""


def stored_phase(context: Context) -> Phase:
    """The phase that the stored conditions tell."""
    conditions = context.stored_status.get("conditions") or ()
    return phase_of({condition["type"]: condition for condition in conditions})


def stop_everything(context: Context) -> tuple[Deletion, ...]:
    """Deletions that end whatever still runs; finished Jobs stay for their logs."""
    running = [job for job in all_jobs(context.observed) if job.state == "Active"]
    deletions = [deletion for job in running for deletion in delete_job(context.owner.namespace, job)]
    return (*deletions, *release_stuck_pods(context))


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
        requeue_after_seconds=_LOOK_AGAIN_SECONDS if still_runs(context.observed) else None,
    )


def finished(context: Context) -> Outcome | None:
    """A job that has ended stays as it is; its pods don't."""
    phase = stored_phase(context)
    if phase not in TERMINAL:
        return None
    ready = next(c for c in context.stored_status["conditions"] if c["type"] == READY)
    requeue = _seconds_to_live(context)
    if still_runs(context.observed):
        requeue = min(_LOOK_AGAIN_SECONDS, requeue) if requeue else _LOOK_AGAIN_SECONDS
    return outcome(
        context,
        phase,
        ready["reason"],
        ready["message"],
        delete=stop_everything(context),
        requeue_after_seconds=requeue,
    )


def refused(context: Context) -> Outcome | None:
    """A spec that the schema let through and the models don't: an older CRD, or a newer operator."""
    if context.parsed is not None:
        return None
    message = f"{context.refusal}. Create the job anew with this mended.".replace("..", ".")
    return outcome(
        _closed(context, "SpecInvalid"),
        Phase.FAILED,
        "SpecInvalid",
        message,
        warning=True,
        notes={ACCEPTED: ("False", "SpecInvalid", message)},
    )


def _seconds_to_live(context: Context) -> float | None:
    ttl = context.parsed.lifecycle.ttl_seconds_after_finished if context.parsed else None
    ended = parse_time(context.stored_status.get("completedAt"))
    if ttl is None or ended is None:
        return None
    return max(0.0, ttl - (context.now - ended).total_seconds())


def time_to_live_is_over(context: Context) -> bool:
    """Whether ttlSecondsAfterFinished has passed since the job ended."""
    return _seconds_to_live(context) == 0.0


def seconds_to_deadline(context: Context) -> float | None:
    """Seconds until activeDeadlineSeconds is over, below zero afterwards; None without one."""
    limit = context.parsed.lifecycle.active_deadline_seconds if context.parsed else None
    started = parse_time(context.stored_status.get("startedAt"))
    if limit is None or started is None:
        return None
    return limit - (context.now - started).total_seconds()


def deadline(context: Context) -> Outcome | None:
    """activeDeadlineSeconds counts from the start, suspended time included.

    What runs is stopped once this end is stored (see finished): a job read a moment too late may have got
    more time meanwhile.
    """
    left = seconds_to_deadline(context)
    if left is None or left > 0:
        return None
    export = context.observed.export
    if export is not None and export.state == "Complete" and export_result(export) is not None:
        return None  # The export ended first: its result is taken in.
    limit = context.spec.lifecycle.active_deadline_seconds
    return outcome(
        _closed(context, "DeadlineExceeded"),
        Phase.FAILED,
        "DeadlineExceeded",
        f"Not done {limit} s after its start at {context.stored_status['startedAt']} "
        "(lifecycle.activeDeadlineSeconds). Checkpoints are kept; raise the deadline in a new job to go on.",
        warning=True,
    )


def suspend(context: Context) -> Outcome | None:
    """lifecycle.suspend stops the pods; their last checkpoint is where the job goes on.

    A trained job that only exports holds no GPU and is let through to its end.
    """
    if not context.spec.lifecycle.suspend or attempts.completed(context.status):
        return None
    attempt = attempts.last(context.status)
    worker = context.observed.workers.get(attempt["number"]) if attempt is not None else None
    if attempts.is_open(attempt) and worker is not None:
        if worker.state == "Complete":
            return None  # Training ended first: the result is taken in.
        if worker.state == "Failed" and not worker.deleting:
            return None  # So did the attempt: its reason is taken in, then the job is suspended.
    stopping = still_runs(context.observed)
    if not stopping and worker is None:
        context = _closed(context, attempts.SUSPENDED)
    deletions = stop_everything(context)
    return outcome(
        context,
        Phase.SUSPENDED,
        "Suspended",
        _suspended_message(context, stopping),
        delete=deletions,
        # Nothing is stopped because of a wish that may have been taken back.
        confirm_over=() if deletions else None,
        requeue_after_seconds=_LOOK_AGAIN_SECONDS if stopping else None,
        notes={ACCEPTED: ("True", "Accepted", "The spec is valid.")},
    )


def _suspended_message(context: Context, stopping: bool) -> str:
    if stopping:
        return "Suspended: the pods save and stop."
    step = (context.status.get("progress") or {}).get("lastCheckpointStep")
    resume = f" It goes on from step {step}." if step is not None else ""
    return f"Suspended: no pod runs. Set lifecycle.suspend to false to go on.{resume}"


def _closed(context: Context, reason: str) -> Context:
    """The context with its open attempt, if there is one, closed for ``reason``."""
    if not attempts.is_open(attempts.last(context.status)):
        return context
    closed = attempts.closed(context.status, context.now, None, reason)
    return context.learned(attempts=closed, workers=None, nodes=None)
