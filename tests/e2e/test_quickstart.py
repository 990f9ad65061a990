"""`make quickstart` as a user runs it, and the README's kubectl commands against the cluster it leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.devcluster.cluster import DevCluster
from hack.devcluster.images import IMPORT_ROOTS, REPOSITORY_ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.trainer, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevCluster, str]]:
    """The kept cluster and what the run printed."""
    folder = tmp_path_factory.mktemp("quickstart") / "cluster"
    command = [sys.executable, "-m", "hack.quickstart", "--keep", "--dir", str(folder)]
    path = ":".join(map(str, (REPOSITORY_ROOT, *IMPORT_ROOTS)))
    cluster = DevCluster(folder, owned=False)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield cluster, done.stdout
    finally:
        cluster.down()


def readme_commands() -> list[str]:
    """The kubectl lines of the section "Using it"."""
    text = (REPOSITORY_ROOT / "README.md").read_text(encoding="utf-8").partition("## Using it")[2]
    block = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def test_it_shows_progress_and_a_better_model(quickstart: tuple[DevCluster, str]) -> None:
    printed = quickstart[1]
    for phase in ("Running", "Exporting", "Succeeded"):
        assert f"] {phase} " in printed
    assert re.search(r"Step \d+/20, loss \d\.\d+, done about ", printed)
    assert "Base: " in printed
    assert "Tuned: " in printed
    losses = re.search(r"Held-out loss ([\d.]+) -> ([\d.]+)", printed)
    assert losses is not None
    assert float(losses[2]) <= 0.95 * float(losses[1])


def test_the_adapter_is_where_it_says(quickstart: tuple[DevCluster, str]) -> None:
    said = re.search(r"The adapter is in (\S+)", quickstart[1])
    assert said is not None
    adapter = Path(said[1])
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "pvc://models/smollm2-135m"
    assert (adapter / "adapter_model.safetensors").stat().st_size > 1_000_000


@pytest.mark.parametrize("command", readme_commands())
def test_readme_command_works(quickstart: tuple[DevCluster, str], command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "kubectl"
    assert quickstart[0].kubectl(*arguments, "--namespace", "default").stdout.strip()
