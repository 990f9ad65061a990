"""The bootstrap: one message for all that is missing, and nothing half-made is ever taken for whole."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from pathlib import Path

import pytest

from hack import bootstrap


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))
    return tmp_path


def test_check_names_everything_missing_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "git").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap.check()
    message = str(caught.value)
    assert "missing: Python's venv module, make, g++." in message
    assert message.endswith("apt-get install python3-venv make g++")


def test_check_refuses_an_old_python_and_says_how_to_name_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "OLDEST_PYTHON", (sys.version_info.major, sys.version_info.minor + 1))
    with pytest.raises(bootstrap.BootstrapError, match=r"is needed; .* Name a newer one: make PYTHON="):
        bootstrap.check()


def test_paths_change_with_what_they_are_made_from(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("binary")
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(bootstrap.BINARY_SOURCE / name, source)
    before = bootstrap.cluster_binary_path()
    monkeypatch.setattr(bootstrap, "BINARY_SOURCE", source)
    assert bootstrap.cluster_binary_path() == before
    with (source / "go.sum").open("a") as file:
        file.write("\n")
    assert bootstrap.cluster_binary_path() != before
    assert before.is_relative_to(cache)


def test_version_flags_follow_go_mod() -> None:
    flags = bootstrap._version_flags()
    version = next(
        line.split()[1] for line in (bootstrap.BINARY_SOURCE / "go.mod").read_text().splitlines()
        if line.strip().startswith("k8s.io/kubernetes ")
    )  # fmt: skip
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"-X k8s.io/client-go/pkg/version.gitMinor={version.split('.')[1]}" in flags


def test_a_failed_step_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with bootstrap._temporary_beside(tmp_path / "thing") as folder:
            (folder / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_command_is_told_with_the_end_of_its_output(cache: Path) -> None:
    with (
        bootstrap._step("thing", cache / "thing") as step,
        pytest.raises(bootstrap.BootstrapError) as caught,
    ):
        step.run([sys.executable, "-c", "print('no space'); raise SystemExit(3)"])
    assert "thing failed" in str(caught.value)
    assert str(caught.value).endswith("no space")


def test_only_one_at_a_time_makes_a_thing(cache: Path) -> None:
    entered = threading.Event()

    def other() -> None:
        with bootstrap._step("thing", cache / "thing"):
            entered.set()

    thread = threading.Thread(target=other)
    with bootstrap._step("thing", cache / "thing"):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set()


def test_an_environment_without_its_marker_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert not bootstrap._venv_complete(tmp_path)
    (tmp_path / ".complete").touch()
    assert bootstrap._venv_complete(tmp_path)
    (tmp_path / "bin" / "python").unlink()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "gone")
    assert not bootstrap._venv_complete(tmp_path)


def test_env_prints_paths_that_a_shell_can_read(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert bootstrap.main(["env"]) == 0
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["TUNEWRIGHT_VENV"] == str(bootstrap.venv_path())
    assert lines["TUNEWRIGHT_CLUSTER_BINARY"].startswith(str(cache))
