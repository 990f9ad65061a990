"""Every command explains itself, and what is wrong is one sentence and an exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from tests.unit.chart_rendering import ROOT
from tunewright import __version__
from tunewright.__main__ import COMMANDS, build_parser, main


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        name = command.__name__.rsplit(".", 1)[1]
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert f"tunewright {name}" in text
        assert len(text.splitlines()) > 4
    assert all(command.__name__.rsplit(".", 1)[1] in build_parser().format_help() for command in COMMANDS)


def test_every_variable_that_is_read_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    sources = [ROOT / "operator" / "tunewright" / name for name in ("settings.py", "cluster/credentials.py")]
    read = {
        name
        for source in sources
        for name in re.findall(r'"(TUNEWRIGHT_[A-Z_]+|POD_[A-Z]+)"', source.read_text())
    }
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = set(re.findall(r"^  ([A-Z_]+)  +\S", capsys.readouterr().out, re.MULTILINE))
    assert told == read


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tunewright {__version__}\n"


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_crd_is_what_the_repository_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == yaml.safe_load((ROOT / "crds/finetunejobs.yaml").read_text())


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-m", "tunewright", "crd"]
    roots = f"{ROOT / 'operator'}:{ROOT / 'trainer_image'}"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": roots, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 128 + signal.SIGPIPE


def test_the_offline_commands_start_without_kopf_and_aiohttp() -> None:
    code = (
        "import sys; sys.argv = ['tunewright', 'validate', '/nowhere'];"
        "from tunewright.__main__ import main; main();"
        "print(sorted({'kopf', 'aiohttp', 'kubernetes'} & set(sys.modules)))"
    )
    roots = f"{ROOT / 'operator'}:{ROOT / 'trainer_image'}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": roots},
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_run_without_credentials(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["run", "--kubeconfig", "/nowhere/config"]) == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tunewright run: cannot use the kubeconfig /nowhere/config")
