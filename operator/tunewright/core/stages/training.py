"""A worker Job under way or done: what its pods wait for, how far it is, whether it still moves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tunewright.children.config import config_map
from tunewright.children.service import worker_service
from tunewright.core import attempts, curve, names, pods
from tunewright.core.failures import ADVICE, Blame, Verdict, judge
from tunewright.core.lifecycle import CHECKPOINTED, NODES_READY, Phase
from tunewright.core.model import Manifest, ProgressReport
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, clock, missing_children, outcome
from tunewright.core.stages.changed import spec_changed
from tunewright.core.stages.planning import data_ready_note
from tunewright.core.stages.told import STILL_STOPPING, best_told, told_before
from tunewright.core.translate import trainer_config
from tunewright_trainer.contract import TrainResult

_NEVER_STARTS = ("ImagePullFailed", "ContainerConfigInvalid")

Notes = dict[str, tuple[str, str, str]]


def in_flight(context: Context, job: ObservedJob, number: int) -> Outcome:
    """Where a running attempt is."""
    context = _counted(context, job)
    create = _missing(context, number)
    wait = pods.waiting(job, context.spec.compute.nodes)
    ending = judge(job, frozenset())
    if ending is not None:
        ending = best_told(context, ending)
    elif wait is not None:
        # The pod that told of the end is gone, and the Job hasn't said so yet.
        ending = told_before(context)
    if ending is not None:
        return outcome(
            context,
            Phase.RESTARTING,
            ending.reason,
            f"{ending.message}{STILL_STOPPING}",
            create=create,
            warning=True,
        )
    context, requeue = _with_progress(context, job, number)
    if _may_stall(context, wait):
        requeue = _sooner(requeue, _seconds_to_deadline(context, job))
    notes: Notes = data_ready_note(context) | _notes(context, wait)
    phase, reason, message = _waiting(wait) if wait is not None else _training(context, number)
    return outcome(
        context,
        phase,
        reason,
        message,
        create=create,
        requeue_after_seconds=requeue,
        warning=wait is not None and bool(wait.reason),
        notes=notes,
    )


def completed(context: Context, job: ObservedJob, number: int) -> Context | Outcome:
    """Training is done: keep what rank 0 measured."""
    result = next(
        (
            pod.end.answer
            for pod in job.pods
            if pod.end and isinstance(pod.end.answer, TrainResult) and pod.end.answer.rank == 0
        ),
        None,
    )
    if result is None and (seconds := pods.settling_seconds(job, context.now)) > 0:
        message = "All ranks are done; what they measured is awaited."
        return outcome(context, Phase.RUNNING, "Training", message, requeue_after_seconds=seconds)
    context = with_newest_report(context, job, number)
    if result is not None:
        context = _resumed(context, result.resumed_from_step).learned(
            measured=_measured(context, result),
            progress=_final_progress(context.status.get("progress") or {}, result, number),
            curve=curve.merged_curve(
                context.status.get("curve") or {}, [(result.step, result.loss, result.eval_loss)]
            ),
        )
    return context.learned(
        attempts=attempts.closed(context.status, context.now, None, attempts.COMPLETED),
        workers=None,
        nodes=None,
    )


def with_newest_report(context: Context, job: ObservedJob, number: int) -> Context:
    """The context with the attempt's newest report taken in, due or not: the attempt is over."""
    if (report := _own_report(context, job)) is None:
        return context
    stored: Mapping[str, Any] = context.status.get("progress") or {}
    ranks = context.spec.compute.world_size()
    context = context.learned(
        progress=curve.progress_status(stored, report, number, ranks),
        curve=curve.merged_curve(context.status.get("curve") or {}, context.world.history),
    )
    return _resumed(context, report.values.get("resumed_from_step"))


def _own_report(context: Context, job: ObservedJob) -> ProgressReport | None:
    """The newest report, if it comes from a pod of ``job``."""
    report = context.world.progress
    return report if report is not None and report.pod_uid in {pod.uid for pod in job.pods} else None


def _resumed(context: Context, step: int | None) -> Context:
    """The context with the step of the checkpoint that the attempt began with."""
    if step is None or step < 0:
        return context
    newest = {**context.status["attempts"][-1], "resumedFromStep": step}
    return context.learned(attempts=[*context.status["attempts"][:-1], newest])


def stalled(context: Context, job: ObservedJob) -> Verdict | None:
    """Whether the attempt makes no step any more, or never will."""
    deadline = context.spec.lifecycle.progress_deadline_seconds
    attempt = attempts.last(context.status)
    assert attempt is not None
    wait = pods.waiting(job, context.spec.compute.nodes)
    if not _may_stall(context, wait):
        return None
    advanced = curve.last_advance(context.status, attempt, _own_report(context, job))
    if advanced is None or context.now - advanced < timedelta(seconds=deadline):
        return None
    if wait is not None:
        return Verdict(wait.reason, Blame.USER, wait.message)
    step = (context.status.get("progress") or {}).get("step")
    where = f"after step {step}" if step is not None else "before the first step"
    return Verdict(
        "ProgressStalled",
        Blame.SOFTWARE,
        f"No rank advanced {where} for {deadline} s (since {clock(advanced)}).",
        ADVICE["ProgressStalled"],
        step=step,
    )


def _may_stall(context: Context, wait: pods.Wait | None) -> bool:
    """Whether the time without a step counts: not while pods wait for nodes or just need time to start, nor
    in an installation to which trainers can't report."""
    if wait is not None:
        return wait.reason in _NEVER_STARTS
    return context.settings.progress_url is not None


def _missing(context: Context, number: int) -> tuple[Manifest, ...]:
    """The Service and the ConfigMap of an attempt that runs, should somebody have deleted them."""
    plan, owner = context.status["plan"], context.owner
    name = names.train_config(owner.name, number)
    if name in context.world.config_maps or spec_changed(context):
        return missing_children(context, worker_service(owner))
    key = context.status["prepared"]["key"]
    config = trainer_config(owner, context.spec, plan["specHash"], plan=plan, prepared_key=key)
    ca_pem = context.settings.progress_ca_pem
    return missing_children(
        context,
        worker_service(owner),
        config_map(owner, name, names.COMPONENT_TRAIN, config, ca_pem=ca_pem, attempt=number),
    )


def _counted(context: Context, job: ObservedJob) -> Context:
    desired = context.spec.compute.nodes
    return context.learned(
        workers={
            "desired": desired,
            "ready": sum(pod.phase == "Running" and pod.ready for pod in job.pods),
            "failed": sum(pod.phase == "Failed" for pod in job.pods),
        },
        nodes={"desired": desired, "ready": sum(pod.node is not None for pod in job.pods)},
    )


def _waiting(wait: pods.Wait) -> tuple[Phase, str, str]:
    phase = Phase.PROVISIONING if wait.nodes and wait.reason else Phase.STARTING
    return phase, wait.reason or "Starting", wait.message


def _training(context: Context, number: int) -> tuple[Phase, str, str]:
    progress = context.status.get("progress") or {}
    if context.settings.progress_url and progress.get("attempt") != number:
        message = f"All {context.spec.compute.nodes} worker pods run; the ranks load the model and the data."
        return Phase.STARTING, "LoadingModel", message
    return Phase.RUNNING, "Training", _how_far(progress)


def _with_progress(context: Context, job: ObservedJob, number: int) -> tuple[Context, float | None]:
    """The context with the newest report taken in, if it is due; and when the next look is."""
    if (report := _own_report(context, job)) is None:
        return context, None
    stored: Mapping[str, Any] = context.status.get("progress") or {}
    due = curve.seconds_until_due(stored, report, number, context.settings.progress_status_seconds)
    if due is None or due > 0:
        return context, due
    return with_newest_report(context, job, number), None


def _notes(context: Context, wait: pods.Wait | None) -> Notes:
    notes: Notes = {}
    nodes = context.spec.compute.nodes
    if wait is None or not wait.nodes:
        notes[NODES_READY] = ("True", "NodesReady", f"All {nodes} worker pods have a node.")
    elif wait.reason:
        notes[NODES_READY] = ("False", wait.reason, wait.message)
    step = (context.status.get("progress") or {}).get("lastCheckpointStep")
    if step is not None:
        notes[CHECKPOINTED] = ("True", "CheckpointSaved", f"The newest checkpoint is of step {step}.")
    return notes


def _how_far(progress: Mapping[str, Any]) -> str:
    if "steps" not in progress:
        return "The ranks train."
    loss = f", loss {progress['loss']:.4g}" if "loss" in progress else ""
    end = (
        f", done about {progress['estimatedCompletionTime']}" if "estimatedCompletionTime" in progress else ""
    )
    return f"Step {progress['steps']}{loss}{end}."


def _measured(context: Context, result: TrainResult) -> dict[str, Any]:
    on_gpu = context.spec.compute.gpus_per_node > 0
    gpus = context.spec.compute.nodes * context.spec.compute.gpus_per_node
    seconds = result.train_seconds
    measured = {
        "peakGpuMemoryBytes" if on_gpu else "peakMemoryBytes": result.peak_memory_bytes,
        "gpuSeconds": gpus * seconds if on_gpu and seconds is not None else None,
        "trainSeconds": seconds,
        "tokens": result.tokens,
        "trainableParameters": result.trainable_parameters,
        "totalParameters": result.total_parameters,
        "finalLoss": result.loss,
        "finalEvalLoss": result.eval_loss,
    }
    return curve.sound(measured)


def _final_progress(stored: Mapping[str, Any], result: TrainResult, number: int) -> dict[str, Any]:
    fresh = {
        "step": result.step,
        "totalSteps": result.total_steps,
        "steps": f"{result.step}/{result.total_steps}",
        "percent": 100,
        "loss": result.loss,
        "evalLoss": result.eval_loss,
        "epoch": result.epoch,
        "tokensPerSecond": result.tokens_per_second,
        "attempt": number,
    }
    kept = {key: value for key, value in stored.items() if key != "estimatedCompletionTime"}
    return {**kept, **curve.sound(fresh)}


def _seconds_to_deadline(context: Context, job: ObservedJob) -> float:
    """When to look again though nothing happens: progressDeadlineSeconds after the last step."""
    attempt = attempts.last(context.status) or {}
    advanced = curve.last_advance(context.status, attempt, _own_report(context, job))
    deadline = context.spec.lifecycle.progress_deadline_seconds
    passed = (context.now - advanced).total_seconds() if advanced else 0.0
    return max(1.0, deadline - passed)


def _sooner(first: float | None, second: float | None) -> float | None:
    given = [seconds for seconds in (first, second) if seconds is not None]
    return min(given) if given else None
