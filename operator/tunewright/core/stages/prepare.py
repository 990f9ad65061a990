"""First stage: wait for what the job names, read data and model on CPU, keep the facts in status."""

from __future__ import annotations

from typing import Any

from tunewright.api.hashing import spec_hash
from tunewright.children.config import config_map
from tunewright.children.cpu_job import prepare_job
from tunewright.core import names
from tunewright.core.failures import judge
from tunewright.core.lifecycle import ACCEPTED, DATA_READY, Phase
from tunewright.core.model import Manifest
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, delete_job, outcome
from tunewright.core.references import KINDS, references
from tunewright.core.stages import cpu_job
from tunewright.core.stages.planning import ACCEPTED_NOTE
from tunewright.core.translate import trainer_config
from tunewright_trainer.contract import Facts, TrainerConfig

_WORDS = cpu_job.Words(
    phase=Phase.PREPARING,
    reason="Preparing",
    message="Reading the model and the data on CPU before any worker starts.",
    retry_reason="PrepareRetrying",
    retry_message="Preparing is tried again:",
)


def accept(context: Context) -> Context | Outcome:
    """Wait for secrets, claims and ConfigMaps that aren't there yet. They are looked at until pods exist."""
    if context.status.get("data") or context.observed.prepare is not None:
        return context
    missing = [ref for ref in references(context.spec) if not context.world.references.get(ref, True)]
    if not missing:
        return context
    kind, _, name = missing[0].partition("/")
    more = f" (and {len(missing) - 1} more: {', '.join(missing[1:])})" if len(missing) > 1 else ""
    message = (
        f"{KINDS[kind]} {name} is not in namespace {context.owner.namespace} yet{more}. "
        "Create it; the job goes on by itself."
    )
    reason = f"{KINDS[kind]}NotFound"
    return outcome(
        context,
        Phase.PENDING,
        reason,
        message,
        requeue_after_seconds=context.settings.reference_poll_seconds,
        notes={ACCEPTED: ("False", reason, message)},
        warning=True,
    )


def prepare(context: Context) -> Context | Outcome:
    """Have data and model read; done when status.data and status.model are known."""
    if context.status.get("data"):
        return context
    job = context.observed.prepare
    if job is None:
        return _start(context)
    if job.state == "Complete":
        return _take_facts(context, job)
    if job.state == "Failed":
        return _failed(context, job)
    create: tuple[Manifest, ...] = ()
    if names.prepare_config(context.owner.name) not in context.world.config_maps:
        create = (_config_map(context, _config(context)),)
    return cpu_job.in_flight(context, job, _WORDS, create=create, notes={ACCEPTED: ACCEPTED_NOTE})


def _image(context: Context) -> str:
    template = context.spec.pod_template
    return (template.image if template else None) or context.settings.trainer_image


def _config(context: Context) -> TrainerConfig:
    return trainer_config(context.owner, context.spec, spec_hash(context.spec))


def _config_map(context: Context, config: TrainerConfig) -> Manifest:
    name = names.prepare_config(context.owner.name)
    return config_map(context.owner, name, names.COMPONENT_PREPARE, config)


def _start(context: Context) -> Outcome:
    config = _config(context)
    return outcome(
        context,
        _WORDS.phase,
        _WORDS.reason,
        _WORDS.message,
        create=(
            _config_map(context, config),
            prepare_job(context.owner, context.spec, config, context.settings, _image(context)),
        ),
        notes={ACCEPTED: ACCEPTED_NOTE, DATA_READY: ("Unknown", "Preparing", "The data is being read.")},
    )


def _failed(context: Context, job: ObservedJob) -> Outcome:
    verdict = judge(job, context.observed.lost_nodes)
    assert verdict is not None  # a Failed Job always has one
    if verdict.hearsay and (wait := cpu_job.awaited(context, job, _WORDS)) is not None:
        return wait
    return outcome(
        context,
        Phase.FAILED,
        verdict.reason,
        verdict.sentence,
        notes={DATA_READY: ("False", verdict.reason, verdict.sentence)},
        warning=True,
    )


def _take_facts(context: Context, job: ObservedJob) -> Context | Outcome:
    facts = next((pod.end.answer for pod in job.pods if pod.end and isinstance(pod.end.answer, Facts)), None)
    if facts is not None:
        return context.learned(**_status_of(facts))
    if (wait := cpu_job.awaited(context, job, _WORDS)) is not None:
        return wait
    # The pod is gone with its message. What it prepared is in the workspace, so asking again is quick.
    return outcome(
        context,
        Phase.PREPARING,
        "FactsLost",
        f"Job {job.name} is done but its pod is gone; asking once more.",
        delete=delete_job(context.owner.namespace, job),
    )


def _status_of(facts: Facts) -> dict[str, Any]:
    def camel(values: dict[str, Any]) -> dict[str, Any]:
        return {_camel(key): value for key, value in values.items() if value is not None}

    return {
        "model": camel(facts.model.model_dump()),
        "data": camel(facts.data.model_dump()),
        "prepared": {"key": facts.prepared_key},
    }


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)
