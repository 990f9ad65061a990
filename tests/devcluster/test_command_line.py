"""The command line answers bad input with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.devcluster.__main__ import main


@pytest.mark.parametrize("command", ["up", "down", "status", "env"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "--dir" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "env"])
def test_without_a_cluster(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--dir", str(tmp_path)]) == 1
    assert f"in {tmp_path}" in capsys.readouterr().err


def test_down_without_a_cluster_is_no_error(tmp_path: Path) -> None:
    assert main(["down", "--dir", str(tmp_path / "none")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--nodes", "-1"], "'-1' is not a number from 0 to 100"), (["--gpus", "x"], "'x' is not a number")],
)
def test_bad_numbers(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", *arguments])
    assert message in capsys.readouterr().err


def test_a_passed_variable_must_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--dir", str(tmp_path / "c"), "--pass-env", "NO_SUCH_VARIABLE"]) == 1
    assert "--pass-env NO_SUCH_VARIABLE: it is not set" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
