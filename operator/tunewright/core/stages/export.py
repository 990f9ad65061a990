"""Last stage: the finished adapter goes to its destination. Retried alone, without training again."""

from __future__ import annotations

from typing import Any

from tunewright.children.config import config_map
from tunewright.children.cpu_job import export_job
from tunewright.core import attempts, names
from tunewright.core.failures import judge
from tunewright.core.lifecycle import Phase
from tunewright.core.model import Manifest
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, delete_job, missing_children, outcome
from tunewright.core.stages import cpu_job
from tunewright.core.stages.changed import wait_for_the_planned_spec
from tunewright.core.translate import trainer_config
from tunewright_trainer.contract import ExportResult, TrainerConfig


def export(context: Context) -> Outcome:
    """Bring the adapter to its destination; the job has succeeded when it was read back there."""
    job = context.observed.export
    if not attempts.completed(context.stored_status):
        # Stored before anything else happens: what the workers measured is in their pods only.
        words = _words(context)
        return outcome(context, words.phase, words.reason, words.message, requeue_after_seconds=0.0)
    if job is None:
        return _start(context)
    if job.state == "Complete":
        return _done(context, job)
    if job.state == "Failed":
        return _failed(context, job)
    create: tuple[Manifest, ...] = ()
    if _config_name(context) not in context.world.config_maps:
        if (wait := wait_for_the_planned_spec(context, Phase.EXPORTING)) is not None:
            return wait
        create = (_config_map(context, _config(context)),)
    return cpu_job.in_flight(context, job, _words(context), create=create)


def _words(context: Context) -> cpu_job.Words:
    return cpu_job.Words(
        phase=Phase.EXPORTING,
        reason="Exporting",
        message=f"Training is done; the result goes to {context.spec.output.destination}.",
        retry_reason="UploadRetrying",
        retry_message="The export is tried again:",
    )


def _config_name(context: Context) -> str:
    return names.train_config(context.owner.name, context.status["attempts"][-1]["number"])


def _config(context: Context) -> TrainerConfig:
    plan = context.status["plan"]
    key = context.status["prepared"]["key"]
    return trainer_config(context.owner, context.spec, plan["specHash"], plan=plan, prepared_key=key)


def _config_map(context: Context, config: TrainerConfig) -> Manifest:
    """The last attempt's ConfigMap, should somebody have deleted it."""
    number = context.status["attempts"][-1]["number"]
    return config_map(context.owner, _config_name(context), names.COMPONENT_TRAIN, config, attempt=number)


def _start(context: Context) -> Outcome:
    if (wait := wait_for_the_planned_spec(context, Phase.EXPORTING)) is not None:
        return wait
    config, words = _config(context), _words(context)
    job = export_job(
        context.owner,
        context.spec,
        config,
        context.settings,
        context.status["plan"]["trainerImage"],
        _config_name(context),
    )
    return outcome(
        context,
        words.phase,
        words.reason,
        words.message,
        create=(*missing_children(context, _config_map(context, config)), job),
    )


def _failed(context: Context, job: ObservedJob) -> Outcome:
    verdict = judge(job, context.observed.lost_nodes)
    assert verdict is not None  # a Failed Job always has one
    if verdict.hearsay and (wait := cpu_job.awaited(context, job, _words(context))) is not None:
        return wait
    message = (
        f"{verdict.message} Nothing is lost: the finished result is in the workspace "
        f"({context.status['plan']['workspace']}). {verdict.advice}"
    )
    return outcome(context, Phase.FAILED, verdict.reason, message.strip(), warning=True)


def export_result(job: ObservedJob) -> ExportResult | None:
    """What the export Job's pod told of its success; None when no pod has."""
    answers = (pod.end.answer for pod in job.pods if pod.end)
    return next((answer for answer in answers if isinstance(answer, ExportResult)), None)


def _done(context: Context, job: ObservedJob) -> Outcome:
    result = export_result(job)
    if result is None:
        if (wait := cpu_job.awaited(context, job, _words(context))) is not None:
            return wait
        # The pod is gone with its message. Exporting again adopts what stands there already.
        return outcome(
            context,
            Phase.EXPORTING,
            "ResultLost",
            f"Job {job.name} is done but its pod is gone; asking once more.",
            delete=delete_job(context.owner.namespace, job),
        )
    where = ", ".join(output.uri for output in result.outputs)
    return outcome(
        context.learned(outputs=_outputs(result)),
        Phase.SUCCEEDED,
        "Succeeded",
        f"The result is at {where}, read back and verified.",
    )


def _outputs(result: ExportResult) -> list[dict[str, Any]]:
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
    return [{key: value for key, value in output.items() if value is not None} for output in outputs]
