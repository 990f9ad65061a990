"""hf:// sources against a server that speaks the hub's API: one commit, needed files only, fetched once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.jobs import JobFolder
from tests.trainer.servers import Hub, Server, serving
from tunewright_trainer.contract import Reason, Source
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.model.folder import job_model
from tunewright_trainer.prepare import prepare
from tunewright_trainer.storage import Store, open_store

MODEL = {"source": {"uri": "hf://acme/tiny"}}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "onnx/model.safetensors": b"another form",
    "model-parts/a.safetensors": b"a part of it",
    "consolidated.safetensors": b"the same weights once more",
    "train.py": b"import os",
}


@pytest.fixture
def hub(tiny_model: Path) -> Hub:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    card = {"README.md": b"---\nlicense: apache-2.0\n---\n"}
    rows = b'{"text": "x"}\n'
    return Hub(
        {
            "models/acme/tiny": files | card | UNWANTED,
            "datasets/acme/faq": {
                "data/a.jsonl": rows,
                "data/b.jsonl": rows,
                "README.md": b"",
                "x/c.jsonl": rows,
            },
        }
    )


@pytest.fixture
def server(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    with serving(hub.answer) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def store(job: JobFolder, uri: str, secret: str | None = None) -> Store:
    config = job.config()
    return open_store(Source(uri=uri, secret=secret), job.locations, job.workspace(config), config.job_uid)


def test_a_job_prepares_from_a_hub_and_later_pods_need_no_network(
    job: JobFolder, hub: Hub, server: Server
) -> None:
    config = job.config(model=MODEL)
    facts = prepare(config, job.locations)
    assert facts.model.revision == hub.commit
    assert facts.model.licence == "apache-2.0"
    model = job_model(config, job.locations)
    assert (model.name, model.revision) == ("acme/tiny", hub.commit)
    fetched = {path.name for path in model.path.rglob("*") if path.is_file()}
    assert fetched == set(hub.repositories["models/acme/tiny"]) - set(UNWANTED)
    assert [path.name for path in model.path.parent.iterdir()] == [hub.commit]
    before = len(server.requests)
    hub.broken = True
    assert job_model(config, job.locations) == model
    pinned = job.config(model=MODEL | {"revision": hub.commit}, job_uid="later")
    assert prepare(pinned, job.locations).model == facts.model
    assert len(server.requests) == before


@pytest.mark.usefixtures("server")
def test_weights_are_fetched_after_the_rest(job: JobFolder) -> None:
    description = store(job, "hf://acme/tiny").model(None, weights=False)
    assert not description.complete
    assert (description.path / "tokenizer.json").is_file()
    assert not list(description.path.glob("*.safetensors"))
    whole = store(job, "hf://acme/tiny").model(None, weights=True)
    assert whole.complete
    assert (whole.path / "model.safetensors").is_file()
    assert not description.path.exists()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://acme/faq", ["data/a.jsonl", "data/b.jsonl", "x/c.jsonl"]),
        ("hf://datasets/acme/faq@v1/data", ["data/a.jsonl", "data/b.jsonl"]),
        ("hf://acme/faq/data/b.jsonl", ["data/b.jsonl"]),
        ("hf://acme/faq/*/*c.jsonl", ["x/c.jsonl"]),
    ],
)
def test_data_files_of_a_repository(job: JobFolder, uri: str, expected: list[str]) -> None:
    files = store(job, uri).data_files()
    assert [file.uri.split("/faq/")[1] for file in files] == expected
    assert all(file.path.read_bytes() == b'{"text": "x"}\n' for file in files)


@pytest.mark.parametrize(
    ("uri", "changes", "secret", "reason", "told"),
    [
        ("hf://acme/other", {}, None, Reason.MODEL_NOT_FOUND, "knows no model acme/other without a token"),
        ("hf://acme/tiny@v9", {}, None, Reason.MODEL_NOT_FOUND, "has no such revision"),
        ("hf://acme/tiny", {"token": "right"}, None, Reason.MODEL_NOT_FOUND, "without a token"),
        ("hf://acme/tiny", {"token": "right"}, "token", Reason.MODEL_NOT_FOUND, "with this token"),
        ("hf://acme/tiny", {"gated": True}, "token", Reason.AUTHENTICATION_FAILED, "is gated"),
        ("hf://acme/tiny", {"broken": True}, None, Reason.STORAGE_FAILED, "could not be read from"),
        ("hf://acme", {}, None, Reason.CONFIG_INVALID, "names no repository"),
    ],
)
def test_failures_have_names(
    job: JobFolder, hub: Hub, server: Server, uri: str, changes: dict[str, object], secret: str | None,
    reason: Reason, told: str,
) -> None:  # fmt: skip
    (job.root / "secret" / "HF_TOKEN").write_text("wrong\n")
    for name, value in changes.items():
        setattr(hub, name, value)
    with pytest.raises(TrainerError) as failed:
        store(job, uri, secret).model(None, weights=True)
    assert failed.value.reason is reason
    assert told in failed.value.message


def test_the_token_of_the_secret_opens_a_private_repository(job: JobFolder, hub: Hub, server: Server) -> None:
    hub.token = "right"
    (job.root / "secret" / "HF_TOKEN").write_text("right\n")
    assert store(job, "hf://acme/tiny", "token").model(None, weights=True).complete


def test_no_token_that_lies_around_is_ever_sent(
    job: JobFolder, hub: Hub, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-someone-else")
    store(job, "hf://acme/tiny").model(None, weights=True)
    assert all("authorization" not in request.headers for request in server.requests)
    assert server.requests


@pytest.mark.usefixtures("server")
def test_a_pattern_that_matches_nothing_names_what_is_there(job: JobFolder) -> None:
    with pytest.raises(TrainerError, match=r"holds README\.md, data/a\.jsonl") as failed:
        store(job, "hf://acme/faq/*.parquet").data_files()
    assert failed.value.reason is Reason.DATA_NOT_FOUND
