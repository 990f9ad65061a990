"""What both Dockerfiles promise, read from the files: no root, no unlocked wheel, nothing left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.images.dockerfile import Copy, Run, parse

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = [ROOT / "operator" / "Dockerfile", ROOT / "trainer_image" / "Dockerfile"]
each = pytest.mark.parametrize("path", DOCKERFILES, ids=["operator", "trainer"])


@each
def test_user_is_numeric_and_not_root(path: Path) -> None:
    """runAsNonRoot can only be checked for a numeric user."""
    user, group = parse(path)[-1].user.split(":")
    assert int(user) > 0
    assert int(group) > 0


@each
def test_base_can_be_given_by_digest(path: Path) -> None:
    pinned = f"debian:bookworm-slim@sha256:{'a' * 64}"
    names = {stage.name for stage in parse(path)}
    outside = {stage.base for stage in parse(path, {"BASE": pinned}) if stage.base not in names}
    assert outside == {pinned}


@each
def test_every_install_checks_hashes(path: Path) -> None:
    commands = [step.command for stage in parse(path) for step in stage.steps if isinstance(step, Run)]
    installs = [command for command in commands if re.search(r"pip install", command)]
    assert installs
    assert all("--require-hashes" in command and "--no-deps" in command for command in installs)


@each
def test_copied_files_exist_and_reach_the_build_context(path: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [
        step for stage in parse(path) for step in stage.steps if isinstance(step, Copy) and not step.stage
    ]
    assert copies
    for source in (source for step in copies for source in step.sources):
        assert (ROOT / source).exists(), source
        assert any(Path(source).is_relative_to(name) for name in allowed), f"{source} is in .dockerignore"


@each
def test_last_stage_compiles_nothing(path: Path) -> None:
    last = parse(path)[-1]
    commands = " ".join(step.command for step in last.steps if isinstance(step, Run))
    assert not re.search(r"g\+\+|pip|python3-dev|build-essential", commands)


def test_trainer_compiles_the_operators_that_cpu_ranks_load() -> None:
    stages = parse(DOCKERFILES[1])
    assert set(stages[0].arguments["OPERATORS"].split()) == {"SHM_COMM", "CPU_ADAM"}


def test_an_unknown_instruction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\nONBUILD RUN true\n")
    with pytest.raises(ValueError, match="ONBUILD is not understood"):
        parse(tmp_path / "Dockerfile")
