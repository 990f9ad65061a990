"""The API server's verdicts on the shared table: the same as the models', in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api_rig import GROUP, Api, definition_for_tests, install
from tests.cluster_fixtures import DevCluster
from tests.unit.api.cases import ACCEPTED, REFUSED, Case
from tunewright.api.crd import NAME_MESSAGE
from tunewright.cli.manifests import read_manifests
from tunewright.core import names

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def api(dev_cluster: DevCluster) -> Iterator[Api]:
    definition = definition_for_tests()
    install(dev_cluster, definition)
    yield Api(dev_cluster, "default")
    dev_cluster.kubectl("delete", "crd", definition["metadata"]["name"])


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_accepted(api: Api, case: Case) -> None:
    assert api.create(api.job(case.spec), "--dry-run=server") == ""


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused(api: Api, case: Case) -> None:
    answer = api.create(api.job(case.spec), "--dry-run=server")
    head = f'The FineTuneJob "support-bot" is invalid: {case.field}: '
    if case.message is None:
        assert f" {case.field}: " in answer
    else:
        # One sentence, the field in front, the value between when it is a plain one.
        assert answer.startswith(head)
        assert re.fullmatch(
            r'Invalid value: (("[^"]*"|\d+): )?' + re.escape(case.message), answer[len(head) :]
        )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(api: Api, path: Path) -> None:
    jobs = [each for each in read_manifests(str(path)) if each["kind"] == "FineTuneJob"]
    assert [api.create(job | {"apiVersion": f"{GROUP}/v1alpha1"}, "--dry-run=server") for job in jobs] == [
        "" for _ in jobs
    ]


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.epochs", {"epochs": 3}),
        ("spec.model.revsion", {"model": {"source": "hf://a/b", "revsion": "x"}}),
        ("spec.dataset.train[0].colums", {"dataset": {"train": [{"source": "pvc://a/b", "colums": {}}]}}),
    ],
    ids=["spec", "block", "list"],
)
def test_misspelt_field_is_refused_by_name(api: Api, field: str, spec: dict[str, object]) -> None:
    job = api.job()
    job["spec"] = job["spec"] | spec
    assert f'unknown field "{field}"' in api.create(job, "--dry-run=server")


@pytest.mark.parametrize("name", ["a" * (names.MAX_JOB_NAME_LENGTH + 1), "1a", "a.b"])
def test_name_that_children_could_not_carry(api: Api, name: str) -> None:
    answer = api.create(api.job(name=name), "--dry-run=server")
    assert answer.startswith(f'The FineTuneJob "{name}" is invalid: metadata.name: Invalid value: ')
    assert answer.endswith(NAME_MESSAGE)


def test_longest_name(api: Api) -> None:
    assert api.create(api.job(name="a" * names.MAX_JOB_NAME_LENGTH), "--dry-run=server") == ""
