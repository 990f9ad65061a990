"""One installed operator per session for tests of whole lives, and a namespace with a tiny model for each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.cluster_support.installation import Installation
from tests.cluster_support.long_job import LongJob
from tests.cluster_support.tuning import Tuning

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart, installed on a cluster of its own."""
    with Installation(tmp_path_factory.mktemp("installation")) as installed:
        yield installed


def new_namespace(installation: Installation, title: str) -> str:
    """A namespace that admits restricted pods only, with its default ServiceAccount."""
    readable = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
    name = f"{readable}-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": name, "labels": labels}}
    installation.api.call("POST", "/api/v1/namespaces", body)
    installation.wait(
        lambda: installation.api.find("serviceaccounts", name, "default"), 30, f"the account of {name}"
    )
    return name


@pytest.fixture
def tuning(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Tuning]:
    """A namespace of the test's own. Afterwards its jobs are deleted: none takes the next one's time."""
    made = Tuning.make(installation, new_namespace(installation, request.node.name))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_tuning(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Tuning]:
    """A namespace that the tests of a module share."""
    made = Tuning.make(installation, new_namespace(installation, request.module.__name__.rpartition(".")[2]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def long_job(installation: Installation) -> Iterator[LongJob]:
    """A training without end, for tests that disturb it; gone with the module, since it takes both cores."""
    made = Tuning.make(installation, new_namespace(installation, "long-job"))
    yield LongJob(made)
    made.close()
