"""``tunewright validate`` and ``crd``, as a person runs them; and files are read as kubectl reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.api.cases import MINIMAL, manifest
from tunewright.__main__ import main
from tunewright.api.crd import crd_yaml
from tunewright.cli.manifests import LIMIT_BYTES, ManifestError, read_manifests

VALID = yaml.safe_dump(manifest(MINIMAL))


def _write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_valid_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, VALID)
    assert main(["validate", path]) == 0
    assert capsys.readouterr().out == f"{path}: support-bot: valid\n"


def test_problems_go_to_stderr_and_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, VALID.replace("source: hf", "sorce: hf"))
    assert main(["validate", path]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        f"{path}: support-bot: spec.model.source: is required. Where the model is:"
        " hf://organisation/name[@revision] or pvc://claim/folder.",
        f"{path}: support-bot: spec.model.sorce: no such field; did you mean source?",
    ]


def test_one_bad_job_of_several_fails_and_all_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq"}})
    bad = VALID.replace("name: support-bot", "name: Bad")
    path = _write(tmp_path, "---\n".join([other, bad, "", VALID]))
    assert main(["validate", path]) == 1
    output = capsys.readouterr()
    assert "Bad: metadata.name: the name must start" in output.err
    assert output.out == f"{path}: support-bot: valid\n"


def test_members_of_a_list_are_read(tmp_path: Path) -> None:
    jobs = [manifest(MINIMAL, "one"), manifest(MINIMAL, "two")]
    path = _write(tmp_path, yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": jobs}))
    assert [job["metadata"]["name"] for job in read_manifests(path)] == ["one", "two"]


def test_a_file_without_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, "apiVersion: v1\nkind: Service\n")
    assert main(["validate", path]) == 1
    assert capsys.readouterr().err == f"{path}: holds no FineTuneJob: write kind: FineTuneJob\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' stands there twice"),
        ("a: [1\n", "line 2: expected ',' or ']', but got '<stream end>'"),
        ("- a\n", "document 1 is no Kubernetes object: write apiVersion, kind and metadata"),
        ("a: !!python/object:os.system {}\n", "line 1: could not determine a constructor for the tag"),
        ("#" * (LIMIT_BYTES + 1), f"is larger than {LIMIT_BYTES} bytes, which no API server takes"),
    ],
    ids=["key twice", "bracket", "list", "tag", "size"],
)
def test_unreadable_files(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ManifestError) as error:
        read_manifests(_write(tmp_path, text))
    assert str(error.value).startswith(sentence)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    assert main(["validate", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: can't be read: No such file or directory\n"


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(ManifestError, match="is not UTF-8 at byte 3: save it as UTF-8"):
        read_manifests(str(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E5", 100_000),
        ("2.0", 2),
        (".5", 0.5),
        ("2026-01-01", "2026-01-01"),
        ("0123abc", "0123abc"),
        ("'3'", "3"),
        ("16", 16),
        ("v1.0", "v1.0"),
        ("~", None),
    ],
)
def test_scalars_are_what_kubectl_makes_of_them(tmp_path: Path, text: str, value: object) -> None:
    [document] = read_manifests(_write(tmp_path, f"kind: X\nvalue: {text}\n"))
    assert document["value"] == value
    assert type(document["value"]) is type(value)


def test_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", "validate", "-"],
        input=VALID,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-: support-bot: valid\n", "")


def test_crd_command_prints_the_crd(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    assert capsys.readouterr().out == crd_yaml()
