"""Every example is valid offline; the smallest is small. A cluster test gives them to a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.api.problems import manifest_problems
from tunewright.api.spec import parse_spec
from tunewright.children.storage import claim_of
from tunewright.cli.manifests import read_manifests

FOLDER = Path(__file__).parents[3] / "examples"
EXAMPLES = [
    *sorted(FOLDER.glob("*.yaml")),
    FOLDER / "kind" / "job.yaml",
    FOLDER / "gitops" / "jobs" / "job.yaml",
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(FOLDER)))
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


@pytest.mark.parametrize("folder", ["kind", "gitops/jobs"])
def test_the_data_of_an_example_makes_at_least_one_batch(folder: str) -> None:
    [job] = read_manifests(str(FOLDER / folder / "job.yaml"))
    spec = parse_spec(job["spec"])
    rows = (FOLDER / folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert spec.dataset.packing == "Never"
    assert len(rows) >= spec.training.batch.global_size


def test_the_kind_example_needs_no_gpu_and_brings_its_claim() -> None:
    [job] = read_manifests(str(FOLDER / "kind" / "job.yaml"))
    spec = parse_spec(job["spec"])
    [claim] = read_manifests(str(FOLDER / "kind" / "claim.yaml"))
    assert spec.compute.gpus_per_node == 0
    assert claim_of(spec.output.destination) == claim["metadata"]["name"]
