"""What training leaves for export: adapter or model, metrics and a manifest, whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tunewright_trainer.checkpoint.manifest import MANIFEST, record
from tunewright_trainer.contract import TrainerConfig, TrainResult
from tunewright_trainer.files import publish_folder, write_json
from tunewright_trainer.train.consensus import Gang
from tunewright_trainer.train.finished import FinalManifest
from tunewright_trainer.train.weights import check_adapter, check_finite, gathered, write_adapter
from tunewright_trainer.versions import versions

METRICS = "metrics.json"
CURVE_POINTS = 256


@dataclass(frozen=True)
class Curve:
    """Losses by step. Evaluations are few and kept whole; the training loss is thinned to CURVE_POINTS."""

    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    eval_loss: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> Curve:
        trained = [entry for entry in history if "loss" in entry and "learning_rate" in entry]
        evaluated = [entry for entry in history if "eval_loss" in entry]
        # Every n-th, but always the last: the end of a curve is what people look at.
        every = max(1, -(-len(trained) // CURVE_POINTS))
        kept = trained[::-1][::every][::-1]
        return cls(
            [int(entry["step"]) for entry in kept],
            [float(entry["loss"]) for entry in kept],
            [int(entry["step"]) for entry in evaluated],
            [float(entry["eval_loss"]) for entry in evaluated],
        )


def write(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    config: TrainerConfig,
    result: TrainResult,
    history: Sequence[Mapping[str, Any]],
    gang: Gang,
    attempt: int,
) -> None:
    """Write the finished weights. Collective under ZeRO-3; only rank 0 touches the disk.

    Raises DeadAdapter or NaNLoss, before anything has its final name, if the weights are not worth keeping.
    """
    draft = folder.with_name(f".{folder.name}-a{attempt}.tmp")
    if gang.rank == 0:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    try:
        _write_weights(model, draft, config, result.step, gang)
        if gang.rank == 0:
            _write_reports(draft, config, result, history)
            # A folder without a whole manifest is a leftover; one of another spec is replaced on purpose.
            shutil.rmtree(folder, ignore_errors=True)
            publish_folder(draft, folder)
    finally:
        if gang.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)


def _write_weights(
    model: PreTrainedModel | PeftModel, draft: Path, config: TrainerConfig, step: int, gang: Gang
) -> None:
    adapter = isinstance(model, PeftModel)
    state = gathered(model, gang, trainable_only=adapter)
    if gang.rank != 0:
        return
    check_finite(state, step)
    if isinstance(model, PeftModel):
        write_adapter(model, state, draft, base=config.model.source.uri)
        check_adapter(load_file(draft / "adapter_model.safetensors"), step)
    else:
        model.save_pretrained(draft, state_dict=state, max_shard_size="4GB")


def _write_reports(
    draft: Path, config: TrainerConfig, result: TrainResult, history: Sequence[Mapping[str, Any]]
) -> None:
    figures = result.model_dump(exclude={"kind", "rank"}, exclude_none=True)
    write_json(draft / METRICS, {**figures, "curve": asdict(Curve.of(history)), "versions": versions()})
    for path in draft.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them private, and export may run as another user
    files = [record(draft, path) for path in sorted(draft.rglob("*")) if path.is_file()]
    manifest = FinalManifest(
        job_uid=config.job_uid,
        spec_hash=config.spec_hash,
        method=config.method.type,
        base_model=config.model.source.uri,
        versions=versions(),
        result=result,
        files=files,
    )
    write_json(draft / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
