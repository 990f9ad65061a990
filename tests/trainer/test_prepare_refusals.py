"""What prepare refuses of models and settings, before any worker: one sentence that says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.jobs import JobFolder, edit_json
from tunewright_trainer.contract import ExitCode, Failure, Reason
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.prepare import prepare


def no_template(job: JobFolder) -> None:
    (job.root / "models/tiny/chat_template.jinja").unlink()


def no_tokenizer(job: JobFolder) -> None:
    (job.root / "models/tiny/tokenizer.json").unlink()


def no_model(job: JobFolder) -> None:
    shutil.move(job.root / "models/tiny", job.root / "models/tinny")


def torn_weights(job: JobFolder) -> None:
    path = job.root / "models/tiny/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_weights(job: JobFolder) -> None:
    (job.root / "models/tiny/model.safetensors").rename(job.root / "models/tiny/pytorch_model.bin")


def quantised(job: JobFolder) -> None:
    edit_json(job.root / "models/tiny/config.json", quantization_config={"quant_method": "gptq"})


def encoder(job: JobFolder) -> None:
    edit_json(job.root / "models/tiny/config.json", architectures=["BertForMaskedLM"])


def unknown_type(job: JobFolder) -> None:
    edit_json(job.root / "models/tiny/config.json", model_type="frobnicator", auto_map={})


def broken_template(job: JobFolder) -> None:
    (job.root / "models/tiny/chat_template.jinja").write_text("{% for x in %}")


@pytest.mark.parametrize(
    ("spoil", "reason", "told"),
    [
        pytest.param(no_template, Reason.MODEL_INVALID, "needs a chat template", id="no chat template"),
        pytest.param(broken_template, Reason.MODEL_INVALID, "not valid Jinja", id="broken chat template"),
        pytest.param(no_tokenizer, Reason.MODEL_INVALID, "has no tokenizer.json", id="no tokenizer"),
        pytest.param(no_model, Reason.MODEL_NOT_FOUND, "there are: tinny", id="no model folder"),
        pytest.param(torn_weights, Reason.MODEL_INVALID, "is cut off", id="torn weights"),
        pytest.param(no_weights, Reason.MODEL_INVALID, "no safetensors weights", id="pickled weights"),
        pytest.param(quantised, Reason.MODEL_INVALID, "is quantised (gptq)", id="quantised"),
        pytest.param(encoder, Reason.MODEL_INVALID, "does not generate text", id="encoder"),
        pytest.param(unknown_type, Reason.MODEL_INVALID, "needs code of its own", id="unknown type"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(
    job: JobFolder, spoil: Any, reason: Reason, told: str
) -> None:
    spoil(job)
    with pytest.raises(TrainerError) as refused:
        prepare(job.config(), job.locations)
    assert refused.value.reason is reason
    assert told in refused.value.message
    assert refused.value.advice


def test_target_modules_that_match_nothing_are_refused_by_name_before_the_data_is_read(
    job: JobFolder,
) -> None:
    job.write_rows(["broken"])
    method = {"type": "LoRA", "lora": {"target_modules": ["q_proj", "query_key_value"]}}
    outcome = job.run("prepare", job.config(method=method))
    assert outcome.code == ExitCode.MODEL_INVALID
    assert isinstance(outcome.answer, Failure)
    assert outcome.answer.reason is Reason.MODEL_INVALID
    assert "'query_key_value' matches nothing" in outcome.answer.message
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in outcome.answer.message


def test_text_generation_needs_no_chat_template(job: JobFolder) -> None:
    no_template(job)
    job.write_rows([{"text": f"story {n}"} for n in range(5)])
    assert prepare(job.config(task="TextGeneration"), job.locations).data.format == "Text"


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        pytest.param(
            {"workspace": {"uri": "pvc://nowhere/x"}}, Reason.CONFIG_INVALID, "not mounted", id="workspace"
        ),
        pytest.param(
            {"dataset": {"train": [{"source": {"uri": "pvc://data/nothing.jsonl"}}]}},
            Reason.DATA_NOT_FOUND,
            "there are: held-out.jsonl, train.jsonl",
            id="data missing",
        ),
        pytest.param(
            {"dataset": {"train": [{"source": {"uri": "pvc://data/*.jsonl"}, "columns": {"msgs": "x"}}]}},
            Reason.CONFIG_INVALID,
            "'msgs'",
            id="column mapping",
        ),
        pytest.param(
            {"dataset": {"train": [{"source": {"uri": "pvc://data/train.jsonl"}, "sha256": "0" * 64}]}},
            Reason.DATA_INVALID,
            "has the sha256",
            id="hash differs",
        ),
        pytest.param(
            {"output": {"destination": {"uri": "s3://bucket/x"}}},
            Reason.CONFIG_INVALID,
            "can't be written to",
            id="destination",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(
    job: JobFolder, changes: dict[str, Any], reason: Reason, told: str
) -> None:
    with pytest.raises(TrainerError) as refused:
        prepare(job.config(**changes), job.locations)
    assert refused.value.reason is reason
    assert told in refused.value.message


def test_a_configuration_that_breaks_the_contract_is_told_by_its_place(job: JobFolder) -> None:
    environment = job.environment(job.config())
    edit_json(Path(environment["TUNEWRIGHT_CONFIG"]), method={"type": "Magic"})
    done = subprocess.run(
        [sys.executable, "-m", "tunewright_trainer", "prepare"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == ExitCode.CONFIG_INVALID
    assert "The configuration is wrong at method.type" in done.stderr
    answer = Failure.model_validate_json((job.root / "termination-log").read_text())
    assert answer.reason is Reason.CONFIG_INVALID
