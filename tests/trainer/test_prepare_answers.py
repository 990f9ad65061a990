"""Answers fit the termination message, errors keep their names, and files are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.jobs import REPOSITORY, JobFolder
from tunewright_trainer.answers import render, write_answer
from tunewright_trainer.console import Ticker, human_bytes
from tunewright_trainer.contract import (
    ANSWER,
    FACTS_LIMIT_BYTES,
    TERMINATION_MESSAGE_LIMIT_BYTES,
    DataFacts,
    ExitCode,
    Facts,
    Failure,
    ModelFacts,
    Reason,
)
from tunewright_trainer.errors import EXIT_CODES, TrainerError, from_os_error
from tunewright_trainer.files import folder_made_whole, read_json, write_json
from tunewright_trainer.prepare import prepare

NASTY = st.text(alphabet=st.sampled_from('a"\\\né🏠\x00'), max_size=9000)


@given(NASTY, NASTY, NASTY)
def test_a_failure_fits_whatever_it_says(message: str, advice: str, error: str) -> None:
    text = render(Failure(reason=Reason.DATA_INVALID, message=message, advice=advice, error=error))
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT_BYTES
    answer = ANSWER.validate_json(text)
    assert isinstance(answer, Failure)
    assert answer.reason is Reason.DATA_INVALID
    assert message.startswith(answer.message.removesuffix("…"))


def facts(warnings: list[str]) -> Facts:
    model = ModelFacts(
        architecture="LlamaForCausalLM", parameters=1, trainable_parameters=1, hidden_size=1, layers=1,
        attention_heads=1, key_value_heads=1, intermediate_size=1, vocabulary_size=1,
        max_position_embeddings=1, tied_embeddings=True, dtype="bfloat16", size_bytes=1,
    )  # fmt: skip
    data = DataFacts(
        rows=1, validation_rows=0, tokens=7, loss_tokens=5, truncated_rows=0, sequences=1, sequence_length=7,
        packed=True, format="Text", fingerprint="f" * 64, warnings=warnings,
    )  # fmt: skip
    return Facts(prepared_key="k", model=model, data=data)


@given(st.lists(NASTY, max_size=30))
def test_facts_fit_and_lose_warnings_before_figures(warnings: list[str]) -> None:
    text = render(facts(warnings))
    assert len(text.encode()) <= FACTS_LIMIT_BYTES
    answer = ANSWER.validate_json(text)
    assert answer.model_copy(update={"data": None}) == facts([]).model_copy(update={"data": None})
    assert isinstance(answer, Facts)
    assert answer.data.tokens == 7
    assert len(answer.data.warnings) <= len(warnings)


def test_short_warnings_are_all_told() -> None:
    answer = ANSWER.validate_json(render(facts(["one", "two"])))
    assert isinstance(answer, Facts)
    assert answer.data.warnings == ["one", "two"]


def test_without_a_termination_log_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_answer(facts([]), {})
    assert list(tmp_path.iterdir()) == []


def test_every_reason_has_an_exit_code_that_is_no_success() -> None:
    assert set(EXIT_CODES) == set(Reason)
    assert ExitCode.OK not in EXIT_CODES.values()


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (errno.ENOSPC, Reason.DISK_FULL, "The disk was full while writing x."),
        (errno.EDQUOT, Reason.DISK_FULL, "The disk was full while writing x."),
        (errno.EROFS, Reason.STORAGE_FAILED, "Access was refused while writing x"),
        (errno.EIO, Reason.STORAGE_FAILED, "Storage failed while writing x: Input/output error."),
    ],
)
def test_errors_of_the_system_get_names(number: int, reason: Reason, told: str) -> None:
    error = from_os_error(OSError(number, os.strerror(number)), "writing x")
    assert error.reason is reason
    assert told in error.message
    assert error.exit_code == ExitCode.STORAGE_ERROR


def test_a_full_disk_is_told_by_its_name_and_leaves_nothing(job: JobFolder) -> None:
    """On a real file system that is full: a small tmpfs in a mount namespace of its own."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel gives no user namespaces, so nothing can be mounted")
    config = job.config(workspace={"uri": "pvc://work"})
    work = job.root / "work"
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {work} && {sys.executable} -m tunewright_trainer prepare; "
        f"code=$?; ls -A {work}/prepared; exit $code"
    )
    done = subprocess.run(
        [*namespace, "sh", "-c", script],
        env=job.environment(config), cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == ExitCode.STORAGE_ERROR, done.stderr
    answer = Failure.model_validate_json((job.root / "termination-log").read_text())
    assert answer.reason is Reason.DISK_FULL
    assert answer.message == "The disk was full while writing the prepared data."
    assert done.stdout == ""


def test_an_unexpected_error_is_an_internal_error_with_its_last_line(job: JobFolder) -> None:
    path = job.root / "models/tiny/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_key_value_heads": "many"}))
    outcome = job.run("prepare", job.config())
    assert outcome.code == ExitCode.INTERNAL_ERROR
    assert isinstance(outcome.answer, Failure)
    assert outcome.answer.reason is Reason.INTERNAL_ERROR
    assert outcome.answer.error == "ValueError: invalid literal for int() with base 10: 'many'"
    assert "Traceback" in outcome.stderr


def test_help_names_the_three_commands(job: JobFolder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunewright_trainer", "--help"],
        env=job.environment(job.config()), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert all(f"\n    {command} " in done.stdout for command in ("prepare", "train", "export"))


def test_a_folder_appears_whole_and_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    final = tmp_path / "prepared" / "key"
    with folder_made_whole(final, "a") as mine, folder_made_whole(final, "b") as theirs:
        (mine / "x").write_text("a")
        (theirs / "x").write_text("b")
        assert not final.exists()
    assert (final / "x").read_text() == "b"  # the inner block ended first
    assert list(final.parent.iterdir()) == [final]


def test_a_folder_whose_making_failed_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with folder_made_whole(tmp_path / "key", "a") as folder:
            (folder / "x").write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_progress_is_told_after_two_seconds_and_then_every_five() -> None:
    now, lines = [0.0], list[str]()
    ticker = Ticker("reading", 100, clock=lambda: now[0], say=lines.append)
    for second, done in ((1, 10), (2, 20), (3, 30), (7, 60), (8, 70), (13, 100)):
        now[0] = float(second)
        ticker.at(done)
    assert lines == [
        "reading: 20 of 100 rows after 2 s",
        "reading: 60 of 100 rows after 7 s",
        "reading: 100 of 100 rows after 13 s",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 52, "4096.0 TiB")],
)
def test_bytes_for_people(size: int, text: str) -> None:
    assert human_bytes(size) == text


def test_a_workspace_that_is_a_file_is_told_by_its_uri(job: JobFolder) -> None:
    (job.root / "work/tuning").write_text("a file where the workspace should be")
    with pytest.raises(TrainerError, match="writing to the workspace pvc://work/tuning") as failed:
        prepare(job.config(), job.locations)
    assert failed.value.reason is Reason.STORAGE_FAILED
