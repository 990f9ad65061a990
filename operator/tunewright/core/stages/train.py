"""Third stage: attempts. Each is one Job that lives and dies as a whole; the next resumes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from tunewright.children.config import config_map
from tunewright.children.service import worker_service
from tunewright.children.workers import worker_job
from tunewright.core import attempts, names, pods
from tunewright.core.failures import INFRASTRUCTURE_REASONS, Blame, Verdict, judge, same_failure
from tunewright.core.lifecycle import Phase
from tunewright.core.model import Deletion, Manifest
from tunewright.core.observe import ObservedJob, parse_time
from tunewright.core.outcome import (
    Context,
    Outcome,
    clock,
    delete_job,
    live_pods,
    outcome,
    release_stuck_pods,
)
from tunewright.core.stages.changed import wait_for_the_planned_spec
from tunewright.core.stages.ends import stored_phase
from tunewright.core.stages.planning import data_ready_note
from tunewright.core.stages.told import STILL_STOPPING, best_told
from tunewright.core.stages.training import completed, in_flight, stalled, with_newest_report
from tunewright.core.translate import trainer_config

LONGEST_BACKOFF_SECONDS = 300.0


def train(context: Context) -> Context | Outcome:
    """See the current attempt through, or begin the next; done when one has completed."""
    if attempts.completed(context.status):
        return context
    context = _caught_up(context)
    attempt = attempts.last(context.status)
    if attempt is None or not attempts.is_open(attempt):
        return _begin(context, attempt)
    number = attempt["number"]
    job = context.observed.workers.get(number)
    if job is None:
        return _create(context, number)
    if job.state == "Complete":
        return completed(context, job, number)
    if job.deleting:
        return _wait_for_pods(context, attempt)
    if (verdict := _ended(context, job)) is None:
        return in_flight(context, job, number)
    verdict = best_told(context, verdict)
    if verdict.hearsay and (wait := _awaited(context, job, verdict)) is not None:
        return wait
    return _close(with_newest_report(context, job, number), verdict)


def _caught_up(context: Context) -> Context:
    """Status is written before a worker Job is made, so a Job that status doesn't know of means that this
    status is an old one (writing it will conflict) or was wiped. Either way that attempt is the current one.
    """
    newest = max(context.observed.workers, default=0)
    known = attempts.last(context.status)
    if newest <= (known["number"] if known else 0):
        return context
    return context.learned(attempts=attempts.opened(context.status, context.now, newest))


def _ended(context: Context, job: ObservedJob) -> Verdict | None:
    """Why the attempt is over, if it is.

    A failed pod alone is not yet the end: only the Job's own Failed condition says that every pod has
    stopped and had its say. A node that is gone never says so.
    """
    verdict = judge(job, context.observed.lost_nodes)
    if job.state == "Failed" or (verdict is not None and verdict.reason == "NodeLost"):
        return verdict
    return stalled(context, job) if verdict is None else None


def _awaited(context: Context, job: ObservedJob, verdict: Verdict) -> Outcome | None:
    """Job and pods come by different watches: the pod that knows the cause may not be shown as ended yet."""
    if job.state != "Failed" or (seconds := pods.settling_seconds(job, context.now)) <= 0:
        return None
    return outcome(
        context,
        Phase.RESTARTING,
        verdict.reason,
        f"{verdict.message}{STILL_STOPPING}",
        requeue_after_seconds=seconds,
        warning=True,
    )


def _close(context: Context, verdict: Verdict) -> Outcome:
    closed = attempts.closed(context.status, context.now, verdict)
    context = context.learned(attempts=closed, workers=None, nodes=None)
    if verdict.blame is Blame.USER:
        return outcome(context, Phase.FAILED, verdict.reason, verdict.sentence, warning=True)
    lifecycle = context.spec.lifecycle
    restarts = attempts.counted(context.status, verdict.blame)
    if verdict.blame is Blame.INFRASTRUCTURE:
        count, limit, field = restarts["infrastructure"], lifecycle.max_preemptions, "maxPreemptions"
    else:
        count, limit, field = restarts["software"], lifecycle.max_restarts, "maxRestarts"
        ends = [
            (a.get("reason", ""), a.get("step"), a.get("lastCheckpointStep"))
            for a in context.status["attempts"]
        ]
        if same_failure(ends):
            again = f"The same failure came twice at step {ends[-1][1]}, so it is not tried again."
            message = f"{verdict.message} {again}"
            return outcome(
                context, Phase.FAILED, verdict.reason, f"{message} {verdict.advice}".strip(), warning=True
            )
    if count > limit:
        message = f"{verdict.message} Given up after {limit} restarts (lifecycle.{field})."
        return outcome(
            context, Phase.FAILED, verdict.reason, f"{message} {verdict.advice}".strip(), warning=True
        )
    context = context.learned(restarts=restarts)
    return outcome(
        context,
        Phase.RESTARTING,
        verdict.reason,
        f"{verdict.message} The gang restarts from its last checkpoint ({count} of {limit} restarts).",
        warning=True,
    )


def _begin(context: Context, previous: attempts.Attempt | None) -> Outcome:
    """Begin the next attempt, once nothing of the previous one runs any more and its back-off is over.

    It is only noted here: its children are made when it stands in the stored status, with the facts and
    the plan that they are made from.
    """
    if (wait := _previous_runs(context, previous)) is not None:
        return wait
    if previous is not None and (until := _backoff_until(context, previous)) is not None:
        return outcome(
            context,
            Phase.RESTARTING,
            previous["reason"],
            f"{previous.get('message', '')} The next attempt starts at {clock(until)}.".strip(),
            requeue_after_seconds=(until - context.now).total_seconds(),
        )
    if (wait := wait_for_the_planned_spec(context, stored_phase(context))) is not None:
        return wait
    context = context.learned(attempts=attempts.opened(context.status, context.now))
    number = context.status["attempts"][-1]["number"]
    return replace(_starting(context, number), requeue_after_seconds=0.0)


def _create(context: Context, number: int) -> Outcome:
    if (wait := _previous_runs(context, attempts.last(context.status))) is not None:
        return wait
    if (wait := wait_for_the_planned_spec(context, Phase.STARTING)) is not None:
        return wait
    # The last failed Job is kept for its logs, older ones are not.
    old = [job for n, job in context.observed.workers.items() if n < number - 1]
    previous = (names.worker_job(context.owner.name, number - 1),) if number > 1 else ()
    return replace(
        _starting(context, number),
        create=_children(context, number),
        delete=tuple(deletion for job in old for deletion in delete_job(context.owner.namespace, job)),
        confirm_over=previous,
    )


def _starting(context: Context, number: int) -> Outcome:
    message = f"Starting {context.spec.compute.nodes} worker pods."
    if number > 1:
        step = (context.status.get("progress") or {}).get("lastCheckpointStep")
        checkpoint = f"the checkpoint at step {step}" if step is not None else "the newest valid checkpoint"
        message = f"Attempt {number} starts and goes on from {checkpoint}."
    return outcome(context, Phase.STARTING, "Starting", message, notes=data_ready_note(context))


def _children(context: Context, number: int) -> tuple[Manifest, ...]:
    plan, owner, spec = context.status["plan"], context.owner, context.spec
    config = trainer_config(
        owner, spec, plan["specHash"], plan=plan, prepared_key=context.status["prepared"]["key"]
    )
    name = names.train_config(owner.name, number)
    ca_pem = context.settings.progress_ca_pem
    return (
        worker_service(owner),
        config_map(owner, name, names.COMPONENT_TRAIN, config, ca_pem=ca_pem, attempt=number),
        worker_job(owner, spec, config, context.settings, plan["trainerImage"], number),
    )


def _previous_runs(context: Context, previous: attempts.Attempt | None) -> Outcome | None:
    """Stops what still runs of earlier attempts; None when nothing does."""
    running = [job for job in context.observed.workers.values() if job.state == "Active"]
    if not running and not live_pods(context.observed):
        return None
    deletions = [deletion for job in running for deletion in delete_job(context.owner.namespace, job)]
    return _wait_for_pods(context, previous, tuple(deletions))


def _wait_for_pods(
    context: Context, previous: attempts.Attempt | None, deletions: tuple[Deletion, ...] = ()
) -> Outcome:
    return outcome(
        context,
        Phase.RESTARTING,
        (previous or {}).get("reason") or "WorkersStopping",
        "Waiting for the previous attempt's pods to stop before the next one starts.",
        delete=(*deletions, *release_stuck_pods(context)),
        requeue_after_seconds=5.0,
    )


def _backoff_until(context: Context, previous: attempts.Attempt) -> datetime | None:
    """Until when to wait, if at all: longer with each failure of the software, not for the infrastructure's.

    A clock that was put back doesn't make the wait longer.
    """
    software = (context.status.get("restarts") or {}).get("software", 0)
    ended = parse_time(previous.get("endedAt"))
    reason = previous.get("reason")
    if software == 0 or ended is None or reason == attempts.SUSPENDED or reason in INFRASTRUCTURE_REASONS:
        return None
    longest = min(
        context.settings.restart_backoff_seconds * 2.0 ** min(software - 1, 32), LONGEST_BACKOFF_SECONDS
    )
    until = ended + timedelta(seconds=longest)
    return until if ended <= context.now < until else None
