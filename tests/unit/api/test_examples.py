"""Every example is valid offline; the smallest is small. A cluster test gives them to a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.api.problems import manifest_problems
from tunewright.api.spec import parse_spec
from tunewright.cli.manifests import read_manifests

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_valid(path: Path) -> None:
    jobs = [each for each in read_manifests(str(path)) if each["kind"] == "FineTuneJob"]
    assert jobs
    assert [manifest_problems(job) for job in jobs] == [[] for _ in jobs]


def test_the_smallest_useful_manifest_fits_a_screen_corner() -> None:
    [minimal] = [path for path in EXAMPLES if path.stem == "minimal"]
    assert len(minimal.read_text(encoding="utf-8").splitlines()) <= 12


def test_the_quickstart_runs_two_pods_on_cpus_under_zero_2() -> None:
    [quickstart] = [path for path in EXAMPLES if path.stem == "quickstart"]
    [job] = read_manifests(str(quickstart))
    spec = parse_spec(job["spec"])
    assert (spec.compute.nodes, spec.compute.gpus_per_node, spec.compute.world_size()) == (2, 0, 2)
    assert spec.deepspeed.zero_stage == 2
    assert spec.method.effective_lora() is not None
