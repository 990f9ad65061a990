"""A spec in the trainer's terms, and the places that it names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import make_job, make_spec
from tunewright.api.spec import FineTuneJobSpec, parse_spec
from tunewright.children.owner import Owner
from tunewright.core.references import references
from tunewright.core.translate import sources, trainer_config, workspace_uri
from tunewright_trainer.contract import TrainerConfig

OWNER = Owner.of(make_job())
PLAN = {
    "zeroStage": 3,
    "microBatch": 1,
    "gradientAccumulation": 2,
    "precision": "BF16",
    "activationCheckpointing": True,
}
FULL: dict[str, Any] = {
    "task": "TextGeneration",
    "model": {"source": "hf://org/tiny", "revision": "abc", "secretRef": {"name": "hf-token"}},
    "dataset": {
        "train": [
            {"source": "pvc://data/train/*.jsonl", "maxRows": 9, "sha256": "0" * 64, "format": "Text"},
            {
                "source": "hf://org/data/a.jsonl",
                "secretRef": {"name": "data-token"},
                "columns": {"text": "body"},
            },
        ],
        "validation": [{"configMapRef": {"name": "held-out", "key": "v.jsonl"}}],
        "maxSequenceLength": 512,
        "packing": "Never",
        "lossOn": "All",
        "chatTemplate": "{{ messages }}",
    },
    "method": {"type": "LoRA", "lora": {"rank": 8, "alpha": 4, "dropout": 0.1, "targetModules": ["q_proj"]}},
    "training": {
        "maxSteps": None,
        "epochs": 2,
        "learningRate": 0.001,
        "schedule": {"type": "Linear", "warmupRatio": 0.5},
        "optimizer": {"weightDecay": 0.25, "beta1": 0.5, "beta2": 0.75, "epsilon": 0.001},
        "batch": {"global": 8},
        "maxGradNorm": 2.0,
        "seed": 7,
        "evaluation": {"everySteps": 10},
    },
    "deepspeed": {"config": {"zero_optimization": {"overlap_comm": True}}},
    "compute": {"nodes": 2, "gpusPerNode": 0, "processesPerNode": 2},
    "workspace": {"source": "pvc://scratch/ws"},
    "checkpoint": {"everySteps": 5, "everyMinutes": 6, "keep": 7},
}


def spec_of(**changes: Any) -> FineTuneJobSpec:
    return parse_spec(make_spec(**changes))


def config(**changes: Any) -> TrainerConfig:
    return trainer_config(OWNER, spec_of(**changes), "v1:hash", plan=PLAN, prepared_key="k-1")


def test_every_field_reaches_the_trainer() -> None:
    translated = config(**FULL)
    assert translated.model_dump(exclude_defaults=True) == {
        "job_name": "support-bot",
        "job_namespace": "team-a",
        "job_uid": OWNER.uid,
        "spec_hash": "v1:hash",
        "task": "TextGeneration",
        "model": {"source": {"uri": "hf://org/tiny", "secret": "hf-token"}, "revision": "abc"},
        "dataset": {
            "train": [
                {
                    "source": {"uri": "pvc://data/train/*.jsonl"},
                    "format": "Text",
                    "max_rows": 9,
                    "sha256": "0" * 64,
                },
                {
                    "source": {"uri": "hf://org/data/a.jsonl", "secret": "data-token"},
                    "columns": {"text": "body"},
                },
            ],
            "validation": [{"source": {"uri": "configmap://held-out/v.jsonl"}}],
            "split_seed": 7,
            "max_sequence_length": 512,
            "packing": "Never",
            "loss_on": "All",
            "chat_template": "{{ messages }}",
        },
        "method": {"lora": {"rank": 8, "alpha": 4.0, "dropout": 0.1, "target_modules": ["q_proj"]}},
        "training": {
            "epochs": 2,
            "learning_rate": 0.001,
            "schedule": {"type": "Linear", "warmup_ratio": 0.5},
            "optimizer": {"weight_decay": 0.25, "beta1": 0.5, "beta2": 0.75, "epsilon": 0.001},
            "global_batch": 8,
            "micro_batch": 1,
            "gradient_accumulation": 2,
            "precision": "BF16",
            "activation_checkpointing": True,
            "max_grad_norm": 2.0,
            "seed": 7,
            "evaluation": {"every_steps": 10, "every_epochs": None},
        },
        "deepspeed": {"zero_stage": 3, "raw": {"zero_optimization": {"overlap_comm": True}}},
        "compute": {"nodes": 2, "processes_per_node": 2, "device": "cpu"},
        "workspace": {"uri": "pvc://scratch/ws"},
        "checkpoint": {"every_steps": 5, "every_minutes": 6.0, "keep": 7},
        "output": {"destination": {"uri": "pvc://adapters/support-bot"}},
        "prepared_key": "k-1",
    }


def test_the_config_survives_json() -> None:
    assert TrainerConfig.model_validate_json(config(**FULL).model_dump_json()) == config(**FULL)


def test_no_path_of_a_container_is_in_the_config() -> None:
    """Contents of files aren't rewritten where pods run as processes: places are URIs."""
    assert '"/' not in json.dumps(config(**FULL).model_dump(mode="json"))


def test_prepare_knows_no_plan() -> None:
    prepared = trainer_config(OWNER, spec_of(), "v1:hash")
    assert (prepared.training, prepared.deepspeed, prepared.prepared_key) == (None, None, None)


@pytest.mark.parametrize(
    ("training", "epochs", "steps"),
    [({"maxSteps": None}, 3, None), ({"maxSteps": 5}, None, 5), ({"maxSteps": None, "epochs": 9}, 9, None)],
)
def test_exactly_one_length(training: dict[str, Any], epochs: int | None, steps: int | None) -> None:
    translated = config(training=training).training
    assert translated is not None
    assert (translated.epochs, translated.max_steps) == (epochs, steps)


@pytest.mark.parametrize(("method", "rate", "lora"), [("LoRA", 2e-4, True), ("Full", 2e-5, False)])
def test_defaults_follow_the_method(method: str, rate: float, lora: bool) -> None:
    translated = config(method={"type": method})
    assert translated.training is not None
    assert translated.training.learning_rate == rate
    assert (translated.method.lora is not None) is lora


@pytest.mark.parametrize(
    ("evaluation", "steps", "epochs"),
    [(None, None, 1), ({"everySteps": 5}, 5, None), ({"everyEpochs": 2}, None, 2), ({}, None, 1)],
)
def test_evaluation(evaluation: dict[str, Any] | None, steps: int | None, epochs: int | None) -> None:
    translated = config(training={"evaluation": evaluation}).training
    assert translated is not None
    assert (translated.evaluation.every_steps, translated.evaluation.every_epochs) == (steps, epochs)


@pytest.mark.parametrize(("gpus", "ranks", "device"), [(0, 1, "cpu"), (2, 2, "cuda")])
def test_compute(gpus: int, ranks: int, device: str) -> None:
    changes = {"gpusPerNode": gpus, "processesPerNode": None if gpus else 1}
    compute = config(compute=changes).compute
    assert (compute.processes_per_node, compute.device) == (ranks, device)


def test_the_workspace_lies_beside_the_output_by_default() -> None:
    assert workspace_uri(spec_of(output={"destination": "pvc://a/b/"})) == "pvc://a/b/.tunewright"
    assert workspace_uri(spec_of(workspace={"source": "pvc://w"})) == "pvc://w"


def test_references_are_all_that_pods_mount() -> None:
    assert references(spec_of(**FULL)) == (
        "configmap/held-out",
        "persistentvolumeclaim/adapters",
        "persistentvolumeclaim/data",
        "persistentvolumeclaim/scratch",
        "secret/data-token",
        "secret/hf-token",
    )


def test_references_stand_once() -> None:
    entry = {"configMapRef": {"name": "faq", "key": "a.jsonl"}}
    spec = spec_of(dataset={"train": [entry, entry]}, model={"secretRef": None})
    assert references(spec) == ("configmap/faq", "persistentvolumeclaim/adapters")


def test_sources_are_all_places() -> None:
    assert [source.uri for source in sources(spec_of(**FULL))] == [
        "hf://org/tiny",
        "pvc://data/train/*.jsonl",
        "hf://org/data/a.jsonl",
        "configmap://held-out/v.jsonl",
        "pvc://scratch/ws",
        "pvc://adapters/support-bot",
    ]
