"""Last stage: the finished adapter goes to its destination. Retried alone, without training again."""

from __future__ import annotations

from tunewright.children.cpu_job import export_job
from tunewright.core import attempts, names, pods
from tunewright.core.failures import judge
from tunewright.core.lifecycle import Phase
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, delete_job, outcome
from tunewright.core.translate import trainer_config
from tunewright_trainer.contract import ExportResult


def export(context: Context) -> Outcome:
    """Bring the adapter to its destination; the job has succeeded when it was read back there."""
    job = context.observed.export
    if job is None:
        return _start(context)
    if job.state == "Complete":
        return _done(context, job)
    if job.state == "Failed":
        verdict = judge(job, context.observed.lost_nodes)
        assert verdict is not None  # a Failed Job always has one
        message = (
            f"{verdict.message} Nothing is lost: the finished result is in the workspace "
            f"({context.status['plan']['workspace']}). {verdict.advice}"
        )
        return outcome(context, Phase.FAILED, verdict.reason, message.strip(), warning=True)
    return _in_flight(context, job)


def _start(context: Context) -> Outcome:
    plan = context.status["plan"]
    number = context.status["attempts"][-1]["number"]
    config = trainer_config(
        context.owner,
        context.spec,
        plan["specHash"],
        plan=plan,
        prepared_key=context.status["prepared"]["key"],
    )
    manifest = export_job(
        context.owner,
        context.spec,
        config,
        context.settings,
        plan["trainerImage"],
        names.train_config(context.owner.name, number),
    )
    return outcome(
        context,
        Phase.EXPORTING,
        "Exporting",
        f"Training is done; the result goes to {context.spec.output.destination}.",
        create=(manifest,),
    )


def _in_flight(context: Context, job: ObservedJob) -> Outcome:
    wait = pods.waiting(job, 1)
    if wait is not None and wait.reason:
        return outcome(context, Phase.EXPORTING, wait.reason, wait.message, warning=True)
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    if failed:
        verdict = judge(job, context.observed.lost_nodes)
        said = verdict.message if verdict else "its pod failed."
        return outcome(
            context, Phase.EXPORTING, "UploadRetrying", f"The export is tried again: {said}", warning=True
        )
    message = f"Training is done; the result goes to {context.spec.output.destination}."
    return outcome(context, Phase.EXPORTING, "Exporting", message)


def _done(context: Context, job: ObservedJob) -> Outcome:
    result = next(
        (pod.end.answer for pod in job.pods if pod.end and isinstance(pod.end.answer, ExportResult)), None
    )
    if result is None:
        # The pod is gone with its message. Exporting again adopts what stands there already.
        return outcome(
            context,
            Phase.EXPORTING,
            "ResultLost",
            f"Job {job.name} is done but its pod is gone; asking once more.",
            delete=delete_job(context.owner.namespace, job),
        )
    outputs = [
        {
            "destination": output.destination,
            "format": output.format,
            "digest": output.digest,
            "sizeBytes": output.size_bytes,
            "uri": output.uri,
            "adopted": True if result.adopted else None,
        }
        for output in result.outputs
    ]
    context = context.learned(
        outputs=[{key: value for key, value in output.items() if value is not None} for output in outputs]
    )
    where = ", ".join(output.uri for output in result.outputs)
    assert attempts.completed(context.status)
    return outcome(
        context, Phase.SUCCEEDED, "Succeeded", f"The result is at {where}, read back and verified."
    )
