"""The model card: what was tuned, on what, how, and how well; hubs read its front matter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunewright_trainer.contract import DataFacts, TrainerConfig
from tunewright_trainer.export.destination import BaseModelName

_METRICS = {
    "loss": "training loss (last step)",
    "eval_loss": "validation loss",
    "step": "steps",
    "epoch": "epochs",
    "tokens": "tokens seen",
    "trainable_parameters": "trainable parameters",
    "total_parameters": "total parameters",
    "train_seconds": "seconds of training",
    "tokens_per_second": "tokens per second",
    "peak_memory_bytes": "peak memory in bytes",
    "world_size": "ranks",
}


def model_card(
    config: TrainerConfig,
    base: BaseModelName,
    licence: str | None,
    metrics: Mapping[str, Any],
    data: DataFacts | None,
) -> str:
    """README.md of an output, with the front matter that hubs read."""
    sections = [
        _front_matter(config, base, licence),
        f"# {config.job_name}\n\n{_what(config, base)}",
        "## Recipe\n\n" + _table(("setting", "value"), _recipe(config)),
    ]
    if data is not None:
        sections.append("## Data\n\n" + _table(("figure", "value"), _data(data)))
    figures = {label: metrics[name] for name, label in _METRICS.items() if metrics.get(name) is not None}
    if figures:
        sections.append("## Metrics\n\n" + _table(("metric", "value"), figures))
    sections.append("## Licence\n\n" + _licence(base, licence))
    if versions := metrics.get("versions"):
        sections.append("## Versions\n\n" + _table(("package", "version"), versions))
    return "\n\n".join(sections) + "\n"


def _front_matter(config: TrainerConfig, base: BaseModelName, licence: str | None) -> str:
    entries: dict[str, Any] = {}
    if base.revision is not None:  # hubs take base_model for one of their own names only
        entries["base_model"] = base.name
    entries["library_name"] = "peft" if config.method.type == "LoRA" else "transformers"
    entries["pipeline_tag"] = "text-generation"
    if licence is not None:
        entries["license"] = licence
    entries["tags"] = ["tunewright", config.method.type.lower(), "deepspeed"]
    # JSON scalars and lists are YAML too, so that no name can break out of its line.
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in entries.items()), "---"])


def _what(config: TrainerConfig, base: BaseModelName) -> str:
    kind = "A LoRA adapter for" if config.method.type == "LoRA" else "A fully fine-tuned"
    at = f" at revision `{base.revision}`" if base.revision else ""
    return f"{kind} `{base.name}`{at}, tuned for the task {config.task}."


def _recipe(config: TrainerConfig) -> dict[str, Any]:
    rows: dict[str, Any] = {"method": config.method.type}
    if config.method.lora is not None:
        lora = config.method.lora
        rows |= {
            "rank": lora.rank,
            "alpha": lora.alpha,
            "dropout": lora.dropout,
            "target modules": ", ".join(lora.target_modules),
        }
    if (training := config.training) is not None:
        rows |= {
            "epochs" if training.epochs is not None else "steps": training.epochs or training.max_steps,
            "learning rate": training.learning_rate,
            "schedule": f"{training.schedule.type}, warm-up {training.schedule.warmup_ratio}",
            "optimizer": f"{training.optimizer.type}, weight decay {training.optimizer.weight_decay}",
            "global batch": training.global_batch,
            "precision": training.precision,
            "seed": training.seed,
        }
    if config.deepspeed is not None:
        rows["ZeRO stage"] = config.deepspeed.zero_stage
    return rows


def _data(data: DataFacts) -> dict[str, Any]:
    return {
        "rows": data.rows,
        "validation rows": data.validation_rows,
        "tokens": data.tokens,
        "tokens that carry loss": data.loss_tokens,
        "truncated rows": data.truncated_rows,
        "sequence length": data.sequence_length,
        "packed": data.packed,
        "format": data.format,
        "fingerprint": f"sha256:{data.fingerprint}",
    }


def _licence(base: BaseModelName, licence: str | None) -> str:
    if licence is None:
        return f"The licence of `{base.name}` is not stated in its files; its terms apply to this output too."
    return f"Inherited from `{base.name}`: {licence}."


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {_cell(value)} |" for name, value in rows.items()])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
