"""What `tunewright render` shows is what the operator would create."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart_rendering import ROOT
from tunewright.__main__ import main
from tunewright_trainer.contract import DataFacts, Facts, ModelFacts

EXAMPLE = str(ROOT / "examples/quickstart.yaml")


@pytest.fixture
def facts(tmp_path: Path) -> str:
    """What prepare says of a small model and a few rows."""
    numbers = {name for name, field in ModelFacts.model_fields.items() if field.annotation is int}
    model: dict[str, Any] = dict.fromkeys(numbers, 1024)
    numbers = {name for name, field in DataFacts.model_fields.items() if field.annotation is int}
    data: dict[str, Any] = dict.fromkeys(numbers, 64)
    document = Facts(
        prepared_key="key",
        model=ModelFacts(architecture="LlamaForCausalLM", tied_embeddings=True, dtype="bfloat16", **model),
        data=DataFacts(packed=True, format="Messages", fingerprint="sha256:0", **data),
    )
    path = tmp_path / "facts.json"
    path.write_text(document.model_dump_json())
    return str(path)


def rendered(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["render", *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def kinds(children: list[dict[str, Any]]) -> list[str]:
    return [f"{child['kind']}/{child['metadata']['name']}" for child in children]


def test_without_facts_only_prepare_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    children = rendered(capsys, EXAMPLE, "--namespace", "team-a")
    assert kinds(children) == ["ConfigMap/support-bot-prepare", "Job/support-bot-prepare"]
    assert {child["metadata"]["namespace"] for child in children} == {"team-a"}


def test_with_facts_training_is_known_too(capsys: pytest.CaptureFixture[str], facts: str) -> None:
    children = rendered(capsys, EXAMPLE, "--facts", facts)
    assert kinds(children)[2:] == [
        "Service/support-bot-workers",
        "ConfigMap/support-bot-a1",
        "Job/support-bot-a1",
    ]
    config = json.loads(children[3]["data"]["config.json"])
    assert config["prepared_key"] == "key"
    assert config["training"]["global_batch"] == 4


def test_what_validate_refuses_is_not_rendered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    job = yaml.safe_load(Path(EXAMPLE).read_text())
    job["spec"]["trianing"] = {}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    assert main(["render", str(path)]) == 1
    captured = capsys.readouterr()
    assert "trianing" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["/nowhere.yaml"], "can't be read", id="no file"),
        pytest.param([EXAMPLE, "--facts", "/nowhere.json"], "does not hold what prepare", id="no facts"),
        pytest.param([str(ROOT / "crds/finetunejobs.yaml")], "holds no FineTuneJob", id="another kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_rendered_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["render", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
