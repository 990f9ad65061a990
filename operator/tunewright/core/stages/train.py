"""Third stage: attempts. Each is one Job that lives and dies as a whole; the next resumes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tunewright.children.config import config_map
from tunewright.children.service import worker_service
from tunewright.children.workers import worker_job
from tunewright.core import attempts, names
from tunewright.core.failures import Blame, Verdict, judge, same_failure
from tunewright.core.lifecycle import Phase
from tunewright.core.model import Deletion, Manifest
from tunewright.core.observe import ObservedJob, parse_time
from tunewright.core.outcome import (
    Context,
    Outcome,
    clock,
    delete_job,
    force_lost_pods,
    live_pods,
    outcome,
)
from tunewright.core.stages.planning import data_ready_note
from tunewright.core.stages.training import completed, in_flight, stalled
from tunewright.core.translate import trainer_config

LONGEST_BACKOFF_SECONDS = 300.0


def train(context: Context) -> Context | Outcome:
    """See the current attempt through, or begin the next; done when one has completed."""
    if attempts.completed(context.status):
        return context
    attempt = attempts.last(context.status)
    if attempt is None or not attempts.is_open(attempt):
        return _begin(context, attempt)
    number = attempt["number"]
    job = context.observed.workers.get(number)
    if job is None:
        return _create(context, number)
    if job.state == "Complete":
        return completed(context, job)
    verdict = _ended(context, job)
    if verdict is not None:
        return _close(context, verdict)
    return in_flight(context, job, number)


def _ended(context: Context, job: ObservedJob) -> Verdict | None:
    """Why the attempt is over, if it is.

    A failed pod alone is not yet the end: only the Job's own Failed condition says that every pod has
    stopped and had its say. A node that is gone never says so.
    """
    verdict = judge(job, context.observed.lost_nodes)
    if job.state == "Failed" or (verdict is not None and verdict.reason == "NodeLost"):
        return verdict
    return stalled(context, job) if verdict is None else None


def _close(context: Context, verdict: Verdict) -> Outcome:
    context = context.learned(attempts=attempts.closed(context.status, context.now, verdict))
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

    The previous end is in the stored status by now, so its Jobs hold no facts that could be lost.
    """
    running = [job for job in context.observed.workers.values() if job.state == "Active"]
    deletions = [deletion for job in running for deletion in delete_job(context.owner.namespace, job)]
    if running or live_pods(context.observed):
        return _wait_for_pods(context, previous, (*deletions, *force_lost_pods(context)))
    if previous is not None and (wait := _backoff_seconds(context, previous)) > 0:
        until = context.now + timedelta(seconds=wait)
        return outcome(
            context,
            Phase.RESTARTING,
            previous["reason"],
            f"{previous.get('message', '')} The next attempt starts at {clock(until)}.".strip(),
            requeue_after_seconds=wait,
        )
    context = context.learned(attempts=attempts.opened(context.status, context.now))
    number = context.status["attempts"][-1]["number"]
    # The last failed Job is kept for its logs, older ones are not.
    old = [job for n, job in context.observed.workers.items() if n < number - 1]
    return replace(
        _create(context, number),
        delete=tuple(deletion for job in old for deletion in delete_job(context.owner.namespace, job)),
    )


def _create(context: Context, number: int) -> Outcome:
    if context.observed.leftover_pods:
        return _wait_for_pods(context, attempts.last(context.status), force_lost_pods(context))
    message = f"Starting {context.spec.compute.nodes} worker pods."
    if number > 1:
        step = (context.status.get("progress") or {}).get("lastCheckpointStep")
        checkpoint = f"the checkpoint at step {step}" if step is not None else "the newest valid checkpoint"
        message = f"Attempt {number} starts and goes on from {checkpoint}."
    return outcome(
        context,
        Phase.STARTING,
        "Starting",
        message,
        create=_children(context, number),
        notes=data_ready_note(context),
    )


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


def _wait_for_pods(
    context: Context, previous: attempts.Attempt | None, deletions: tuple[Deletion, ...]
) -> Outcome:
    reason = (previous or {}).get("reason") or "WorkersStopping"
    return outcome(
        context,
        Phase.RESTARTING,
        reason,
        "Waiting for the previous attempt's pods to stop before the next one starts.",
        delete=deletions,
        requeue_after_seconds=5.0,
    )


def _backoff_seconds(context: Context, previous: attempts.Attempt) -> float:
    """Seconds still to wait: doubling with each restart of the software, none for the infrastructure's."""
    software = (context.status.get("restarts") or {}).get("software", 0)
    if software == 0 or previous.get("reason") == attempts.SUSPENDED:
        return 0.0
    ended = parse_time(previous.get("endedAt"))
    pause = min(context.settings.restart_backoff_seconds * 2 ** (software - 1), LONGEST_BACKOFF_SECONDS)
    return 0.0 if ended is None else max(0.0, pause - (context.now - ended).total_seconds())
