"""First stage: wait for what the job names, read data and model on CPU, keep the facts in status."""

from __future__ import annotations

from typing import Any

from tunewright.api.hashing import spec_hash
from tunewright.children.config import config_map
from tunewright.children.cpu_job import prepare_job
from tunewright.core import names, pods
from tunewright.core.failures import judge
from tunewright.core.lifecycle import ACCEPTED, DATA_READY, Phase
from tunewright.core.observe import ObservedJob
from tunewright.core.outcome import Context, Outcome, delete_job, outcome
from tunewright.core.references import KINDS, references
from tunewright.core.translate import trainer_config
from tunewright_trainer.contract import Facts


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
        verdict = judge(job, context.observed.lost_nodes)
        assert verdict is not None  # a Failed Job always has one
        return outcome(
            context,
            Phase.FAILED,
            verdict.reason,
            verdict.sentence,
            notes={DATA_READY: ("False", verdict.reason, verdict.sentence)},
            warning=True,
        )
    return _in_flight(context, job)


def _image(context: Context) -> str:
    template = context.spec.pod_template
    return (template.image if template else None) or context.settings.trainer_image


def _start(context: Context) -> Outcome:
    config = trainer_config(context.owner, context.spec, spec_hash(context.spec))
    name = names.prepare_config(context.owner.name)
    return outcome(
        context,
        Phase.PREPARING,
        "Preparing",
        "Reading the model and the data on CPU before any worker starts.",
        create=(
            config_map(context.owner, name, names.COMPONENT_PREPARE, config),
            prepare_job(context.owner, context.spec, config, context.settings, _image(context)),
        ),
        notes={
            ACCEPTED: ("True", "Accepted", "The spec is valid and everything it names is there."),
            DATA_READY: ("Unknown", "Preparing", "The data is being read."),
        },
    )


def _in_flight(context: Context, job: ObservedJob) -> Outcome:
    wait = pods.waiting(job, 1)
    notes = {ACCEPTED: ("True", "Accepted", "The spec is valid and everything it names is there.")}
    if wait is not None and wait.reason:
        return outcome(context, Phase.PREPARING, wait.reason, wait.message, notes=notes, warning=True)
    retried = [pod for pod in job.pods if pod.phase == "Failed"]
    if retried:
        verdict = judge(job, context.observed.lost_nodes)
        said = verdict.message if verdict else "its pod failed."
        return outcome(
            context,
            Phase.PREPARING,
            "PrepareRetrying",
            f"Preparing is tried again: {said}",
            notes=notes,
            warning=True,
        )
    message = "Reading the model and the data on CPU before any worker starts."
    return outcome(context, Phase.PREPARING, "Preparing", message, notes=notes)


def _take_facts(context: Context, job: ObservedJob) -> Context | Outcome:
    facts = next((pod.end.answer for pod in job.pods if pod.end and isinstance(pod.end.answer, Facts)), None)
    if facts is None:
        # The pod is gone with its message. What it prepared is in the workspace, so asking again is quick.
        return outcome(
            context,
            Phase.PREPARING,
            "FactsLost",
            f"Job {job.name} is done but its pod is gone; asking once more.",
            delete=delete_job(context.owner.namespace, job),
        )
    return context.learned(**_status_of(facts))


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
