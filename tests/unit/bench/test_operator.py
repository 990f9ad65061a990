"""The whole benchmark, small: counts that must hold on any machine under any load. Never times."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench.targets import TARGETS
from hack.devcluster.images import IMPORT_ROOTS, REPOSITORY_ROOT

MOST_WRITES = 18
ONLY_IN_A_FULL_RUN = {"failover.crash_lease_s"}
"""A crash costs the 15 s of the Lease."""

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Figures by key of one quick run."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench.operator", "--quick", "--json", str(folder / "figures.json")]
    path = os.pathsep.join(map(str, (*IMPORT_ROOTS, REPOSITORY_ROOT)))
    done = subprocess.run(
        [*command, "--dir", str(folder / "cluster")],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((folder / "figures.json").read_text())
    return {each["key"]: each["value"] for each in document["figures"]}


def test_writes_per_job_are_few_whatever_the_number_of_pods(figures: dict[str, float]) -> None:
    assert 0 < figures["writes.pods_1"] <= MOST_WRITES
    assert figures["writes.pods_8"] == figures["writes.pods_1"]


@pytest.mark.parametrize("kind", ["create", "finalizer", "delete"])
def test_each_kind_of_write_is_the_same_for_more_pods(figures: dict[str, float], kind: str) -> None:
    assert figures[f"writes.pods_8_{kind}"] == figures[f"writes.pods_1_{kind}"]


@pytest.mark.parametrize("kind", ["waiting", "suspended", "finished"])
def test_steady_state_writes_nothing(figures: dict[str, float], kind: str) -> None:
    assert figures[f"steady.{kind}_jobs"] > 0, "the jobs were not in the state that is looked at"
    assert figures[f"steady.{kind}_writes"] == 0


def test_running_jobs_write_far_less_than_they_post(figures: dict[str, float]) -> None:
    assert figures["steady.running_jobs"] > 0
    assert 0 < figures["steady.running_writes"] < figures["steady.posts"]


def test_a_fresh_operator_among_finished_jobs_writes_nothing(figures: dict[str, float]) -> None:
    assert figures["cold.jobs"] > 0
    assert figures["cold.writes"] == 0


def test_every_target_is_held_against_a_figure_that_exists(figures: dict[str, float]) -> None:
    keys = {check.key for target in TARGETS for check in target.checks}
    assert keys - figures.keys() <= ONLY_IN_A_FULL_RUN
