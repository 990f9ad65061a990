"""Second stage: the planner's choices, made once and frozen in status.plan."""

from __future__ import annotations

from typing import Any

from tunewright.api.hashing import spec_hash
from tunewright.api.status import DataStatus, ModelStatus
from tunewright.core.lifecycle import ACCEPTED, DATA_READY, Phase
from tunewright.core.outcome import Context, Outcome, outcome
from tunewright.core.translate import workspace_uri
from tunewright.planner.choose import Choice, DoesNotFit, choose
from tunewright.planner.devices import device_memory_bytes
from tunewright_trainer.contract import DataFacts, ModelFacts


def make_plan(context: Context) -> Context | Outcome:
    """Choose what the spec leaves open, or say that nothing fits and what would help."""
    if context.status.get("plan"):
        return context
    model = ModelFacts(**ModelStatus.model_validate(context.status["model"]).model_dump(by_alias=False))
    data = DataFacts(**DataStatus.model_validate(context.status["data"]).model_dump(by_alias=False))
    memory = device_memory_bytes(context.spec.compute, context.world.nodes)
    try:
        choice = choose(context.spec, model, data, memory)
    except DoesNotFit as refusal:
        return outcome(context, Phase.FAILED, "PlanDoesNotFit", str(refusal), warning=True)
    return context.learned(plan=_status_of(context, choice))


ACCEPTED_NOTE = ("True", "Accepted", "The spec is valid and everything it names is there.")


def data_ready_note(context: Context) -> dict[str, tuple[str, str, str]]:
    """The conditions Accepted and DataReady once facts are known.

    An operator that finds prepare already done never saw it begin, so both are said here.
    """
    data = context.status["data"]
    message = (
        f"{data['rows']} rows, {data['tokens']} tokens in {data['sequences']} sequences of at most "
        f"{data['sequenceLength']}; {data['truncatedRows']} rows cut."
    )
    return {ACCEPTED: ACCEPTED_NOTE, DATA_READY: ("True", "DataReady", message)}


def _status_of(context: Context, choice: Choice) -> dict[str, Any]:
    spec, template = context.spec, context.spec.pod_template
    chosen = {
        "specHash": spec_hash(spec),
        "trainerImage": (template.image if template else None) or context.settings.trainer_image,
        "zeroStage": choice.zero_stage,
        "microBatch": choice.micro_batch,
        "gradientAccumulation": choice.gradient_accumulation,
        "globalBatch": spec.training.batch.global_size,
        "worldSize": choice.world_size,
        "nodes": spec.compute.nodes,
        "processesPerNode": spec.compute.ranks_per_node(),
        "gpus": spec.compute.nodes * spec.compute.gpus_per_node,
        "device": "cuda" if spec.compute.gpus_per_node else "cpu",
        "precision": choice.precision,
        "activationCheckpointing": choice.activation_checkpointing,
        "workspace": workspace_uri(spec),
        "estimated": {"gpuMemoryBytes": choice.memory.total} if spec.compute.gpus_per_node else None,
        "reasons": list(choice.reasons),
    }
    return {key: value for key, value in chosen.items() if value is not None}
