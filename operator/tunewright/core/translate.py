"""Translates a job's spec into the trainer's terms: the TrainerConfig that pods read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.api.spec import (
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    DatasetSpec,
    DataSourceSpec,
    FineTuneJobSpec,
    SecretRef,
    TrainingSpec,
)
from tunewright.children.owner import Owner
from tunewright_trainer import contract

WORKSPACE_FOLDER = ".tunewright"
"""Folder beside an output that holds the workspace of a job that names none."""


def workspace_uri(spec: FineTuneJobSpec) -> str:
    """Where checkpoints and prepared data of this job are kept."""
    if spec.workspace is not None:
        return spec.workspace.source
    return f"{spec.output.destination.rstrip('/')}/{WORKSPACE_FOLDER}"


def sources(spec: FineTuneJobSpec) -> list[contract.Source]:
    """Every place that some pod of this job reads or writes."""
    entries = (*spec.dataset.train, *(spec.dataset.validation or ()))
    return [
        _model_source(spec),
        *(_data_source(entry) for entry in entries),
        contract.Source(uri=workspace_uri(spec)),
        contract.Source(uri=spec.output.destination),
    ]


def trainer_config(
    owner: Owner,
    spec: FineTuneJobSpec,
    spec_hash: str,
    *,
    plan: Mapping[str, Any] | None = None,
    prepared_key: str | None = None,
) -> contract.TrainerConfig:
    """The TrainerConfig of ``prepare`` (no ``plan`` yet) or of ``train`` and ``export``.

    ``plan`` is status.plan as frozen when it was first made.
    """
    return contract.TrainerConfig(
        job_name=owner.name,
        job_namespace=owner.namespace,
        job_uid=owner.uid,
        spec_hash=spec_hash,
        task=spec.task,
        model=contract.ModelConfig(source=_model_source(spec), revision=spec.model.revision),
        dataset=_dataset(spec.dataset, spec.training.seed),
        method=_method(spec),
        training=None if plan is None else _training(spec.training, spec.method.type, plan),
        deepspeed=None
        if plan is None
        else contract.DeepSpeedConfig(zero_stage=plan["zeroStage"], raw=spec.deepspeed.config or {}),
        compute=contract.ComputeConfig(
            nodes=spec.compute.nodes,
            processes_per_node=spec.compute.ranks_per_node(),
            device="cuda" if spec.compute.gpus_per_node else "cpu",
        ),
        workspace=contract.Source(uri=workspace_uri(spec)),
        checkpoint=contract.CheckpointConfig(
            every_steps=spec.checkpoint.every_steps,
            every_minutes=spec.checkpoint.every_minutes,
            keep=spec.checkpoint.keep,
        ),
        output=contract.OutputConfig(destination=contract.Source(uri=spec.output.destination)),
        prepared_key=prepared_key,
    )


def _secret(reference: SecretRef | None) -> str | None:
    return reference.name if reference else None


def _model_source(spec: FineTuneJobSpec) -> contract.Source:
    return contract.Source(uri=spec.model.source, secret=_secret(spec.model.secret_ref))


def _data_source(entry: DataSourceSpec) -> contract.Source:
    if entry.config_map_ref is not None:
        uri = f"configmap://{entry.config_map_ref.name}/{entry.config_map_ref.key}"
    else:
        uri = entry.source or ""
    return contract.Source(uri=uri, secret=_secret(entry.secret_ref))


def _dataset(dataset: DatasetSpec, seed: int) -> contract.DatasetConfig:
    return contract.DatasetConfig(
        train=[_entry(entry) for entry in dataset.train],
        validation=[_entry(entry) for entry in dataset.validation or ()],
        validation_fraction=dataset.validation_fraction,
        split_seed=seed,
        max_sequence_length=dataset.max_sequence_length,
        packing=dataset.packing,
        loss_on=dataset.loss_on,
        chat_template=dataset.chat_template,
    )


def _entry(entry: DataSourceSpec) -> contract.DatasetSource:
    return contract.DatasetSource(
        source=_data_source(entry),
        format=entry.format,
        columns=entry.columns.model_dump(exclude_none=True) if entry.columns else {},
        max_rows=entry.max_rows,
        sha256=entry.sha256,
    )


def _method(spec: FineTuneJobSpec) -> contract.MethodConfig:
    lora = spec.method.effective_lora()
    return contract.MethodConfig(
        type=spec.method.type,
        lora=None
        if lora is None
        else contract.LoraConfig(
            rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, target_modules=lora.target_modules
        ),
    )


def _training(training: TrainingSpec, method: str, plan: Mapping[str, Any]) -> contract.TrainingConfig:
    evaluation = training.evaluation
    every_steps = evaluation.every_steps if evaluation else None
    every_epochs = evaluation.every_epochs if evaluation else None
    no_length = training.epochs is None and training.max_steps is None
    return contract.TrainingConfig(
        epochs=DEFAULT_EPOCHS if no_length else training.epochs,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate or DEFAULT_LEARNING_RATE[method],
        schedule=contract.ScheduleConfig(**training.schedule.model_dump(by_alias=False)),
        optimizer=contract.OptimizerConfig(**training.optimizer.model_dump(by_alias=False)),
        global_batch=training.batch.global_size,
        micro_batch=plan["microBatch"],
        gradient_accumulation=plan["gradientAccumulation"],
        precision=plan["precision"],
        activation_checkpointing=plan["activationCheckpointing"],
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        evaluation=contract.EvaluationConfig(
            every_steps=every_steps,
            every_epochs=(every_epochs or 1) if every_steps is None else None,
        ),
    )
