"""What would need privileges is refused; what a process can't be held to is said."""

from __future__ import annotations

from typing import Any

import pytest

from hack.devcluster.admission import not_enforced, refusal
from hack.devcluster.identity import Identity
from hack.devcluster.images import UnknownImage, find_image
from tests.devcluster.builders import bound_pod, container

DROPPED = Identity(65532, (), "")
CALLER = Identity(None, (), "pods run as the caller")


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/etc"}}]}, "hostPath"),
        ({"main": container(securityContext={"privileged": True})}, "privileged"),
        ({"main": container(securityContext={"runAsUser": 0})}, "runAsUser 0"),
        ({"securityContext": {"runAsUser": 1000}}, "runAsUser 1000"),
        ({"initContainers": [container(name="side", restartPolicy="Always")]}, "sidecar"),
        ({"main": container(volumeMounts=[{"name": "v", "mountPath": "/"}])}, "mountPath /"),
    ],
)
def test_refusal(spec: dict[str, Any], word: str) -> None:
    reason = refusal(bound_pod(**spec), DROPPED)
    assert reason is not None
    assert word in reason


def test_a_plain_pod_is_admitted() -> None:
    pod = bound_pod(securityContext={"runAsUser": 65532, "runAsNonRoot": True, "fsGroup": 1})
    assert refusal(pod, DROPPED) is None


def test_not_enforced_names_each_wish() -> None:
    main = container(
        securityContext={"readOnlyRootFilesystem": True},
        volumeMounts=[{"name": "shm", "mountPath": "/dev/shm"}],
    )
    pod = bound_pod(main=main, securityContext={"fsGroup": 1})
    expected = ["readOnlyRootFilesystem", "fsGroup", "the size of /dev/shm", "pods run as the caller"]
    assert not_enforced(pod, CALLER) == expected
    assert not_enforced(bound_pod(), DROPPED) == []


@pytest.mark.parametrize(
    ("reference", "entrypoint"),
    [
        ("tunewright/trainer:0.1.0", ("python", "-m", "tunewright_trainer")),
        ("docker.io/tunewright/operator@sha256:00", ("python", "-m", "tunewright", "run")),
        ("python:3.12-slim", ("python",)),
        ("docker.io/library/python", ("python",)),
    ],
)
def test_known_images(reference: str, entrypoint: tuple[str, ...]) -> None:
    assert find_image(reference).entrypoint == entrypoint


@pytest.mark.parametrize(
    "reference", ["nginx:1", "localhost:5000/python", "evil/tunewright/trainer", "pythonx"]
)
def test_unknown_images(reference: str) -> None:
    with pytest.raises(UnknownImage, match="not one of those played here"):
        find_image(reference)
