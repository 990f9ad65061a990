"""Claims and ConfigMaps: globs, names of what is there, and no way out of the volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.jobs import JobFolder
from tunewright_trainer.contract import Reason, Source
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.locations import Locations, parse_uri
from tunewright_trainer.storage import Store, open_store


def store(job: JobFolder, uri: str) -> Store:
    config = job.config()
    return open_store(Source(uri=uri), job.locations, job.workspace(config), config.job_uid)


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "job").make()
    for name in ("a.jsonl", "b.jsonl", "notes.txt", "2025/x.jsonl", "2026/x.jsonl", "2026/y.jsonl.gz"):
        path = folder.data / "sets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("pvc://data/sets/a.jsonl", ["sets/a.jsonl"]),
        ("pvc://data/sets", ["sets/a.jsonl", "sets/b.jsonl"]),
        ("pvc://data/sets/", ["sets/a.jsonl", "sets/b.jsonl"]),
        ("pvc://data/sets/*.jsonl", ["sets/a.jsonl", "sets/b.jsonl"]),
        ("pvc://data/sets/20*/x.jsonl", ["sets/2025/x.jsonl", "sets/2026/x.jsonl"]),
        ("pvc://data/**/*.jsonl.gz", ["sets/2026/y.jsonl.gz"]),
        ("pvc://data/sets/[ab].jsonl", ["sets/a.jsonl", "sets/b.jsonl"]),
    ],
)
def test_data_files_of_a_claim(job: JobFolder, uri: str, expected: list[str]) -> None:
    files = store(job, uri).data_files()
    assert [file.uri for file in files] == [f"pvc://data/{name}" for name in expected]
    assert [file.path for file in files] == [job.data / name for name in expected]


def test_a_config_map_key_is_read_through_the_links_that_kubelet_makes(job: JobFolder) -> None:
    folder = job.root / "configmap"
    (folder / "..2026_11_24").mkdir()
    (folder / "..2026_11_24" / "train.jsonl").write_text("{}")
    (folder / "..data").symlink_to("..2026_11_24")
    (folder / "train.jsonl").symlink_to("..data/train.jsonl")
    [file] = store(job, "configmap://faq/train.jsonl").data_files()
    assert (file.path, file.uri) == (folder / "train.jsonl", "configmap://faq/train.jsonl")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        (
            "pvc://data/sets/c.jsonl",
            "does not exist; next to it there are: 2025, 2026, a.jsonl, b.jsonl, notes.txt",
        ),
        ("pvc://data/set/c.jsonl", "next to it there are: sets"),
        ("pvc://data/sets/*.csv", "matches no file; next to it there are: 2025, 2026"),
        ("configmap://faq/train.jsonl", "the folder it should be in is empty"),
    ],
)
def test_what_is_missing_is_told_with_what_is_there(job: JobFolder, uri: str, told: str) -> None:
    with pytest.raises(TrainerError) as failed:
        store(job, uri).data_files()
    assert failed.value.reason is Reason.DATA_NOT_FOUND
    assert told in failed.value.message


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("pvc://data/../work/x.jsonl", "climbs out of its volume"),
        ("pvc://data/sets/../../x/*.jsonl", "climbs out of its volume"),
        ("pvc://data/link/x.jsonl", "leaves its volume through a symbolic link"),
        ("pvc://data/l*/x.jsonl", "leaves its volume through a symbolic link"),
        ("pvc://other/x.jsonl", "pvc/other is not mounted into this pod (mounted: configmap/faq, pvc/data"),
        ("file:///etc/passwd", "is a local file, which is refused"),
        ("ftp://host/x", "there is no ftp:// source"),
        ("train.jsonl", "is not a URI"),
    ],
)
def test_no_way_leads_out_of_a_volume(job: JobFolder, uri: str, told: str) -> None:
    (job.root / "outside").mkdir()
    (job.root / "outside" / "x.jsonl").write_text("{}")
    (job.data / "link").symlink_to(job.root / "outside")
    with pytest.raises(TrainerError) as failed:
        store(job, uri).data_files()
    assert failed.value.reason is Reason.CONFIG_INVALID
    assert told in failed.value.message


@pytest.mark.parametrize("kind", ["data", "model"])
def test_a_link_in_a_folder_leads_to_no_secret(job: JobFolder, kind: str) -> None:
    """Secrets are mounted into the pod that reads the folder."""
    (job.root / "secret" / "token").write_text("{}")
    name = "c.jsonl" if kind == "data" else "chat_template.jinja"
    link = job.data / "sets" / name
    link.symlink_to(job.root / "secret" / "token")
    folder = store(job, "pvc://data/sets")
    told = rf"pvc://data/sets/{name} leaves its volume through a symbolic link"
    with pytest.raises(TrainerError, match=told) as failed:
        folder.data_files() if kind == "data" else folder.model(None, weights=True)
    assert failed.value.reason is Reason.CONFIG_INVALID
    link.unlink()
    link.symlink_to("a.jsonl")
    if kind == "data":
        assert f"pvc://data/sets/{name}" in [file.uri for file in folder.data_files()]
    else:
        assert folder.model(None, weights=True).path == job.data / "sets"


def test_local_files_where_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("{}")
    environment = {"TUNEWRIGHT_ALLOW_LOCAL_FILES": "1", "TUNEWRIGHT_SCRATCH": str(tmp_path)}
    assert Locations.from_environment(environment).path(f"file://{path}") == path


def test_mounts_that_are_no_json_are_told() -> None:
    with pytest.raises(TrainerError, match="TUNEWRIGHT_MOUNTS is not a JSON object"):
        Locations.from_environment({"TUNEWRIGHT_MOUNTS": "[1]"})


@pytest.mark.parametrize("text", ["pvc://claim", "pvc://claim/a/b", "hf://org/name@v1/x", "https://h/a?b=c"])
def test_a_uri_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_uri(text)) == text


def test_a_revision_is_refused_where_there_are_none(job: JobFolder) -> None:
    with pytest.raises(TrainerError, match="only hf:// models have revisions"):
        store(job, "pvc://data/sets").model("main", weights=True)
