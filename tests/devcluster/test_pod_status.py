"""A pod's phase and conditions follow from its containers as kubelet has them follow."""

from __future__ import annotations

from typing import Any

import pytest

from hack.devcluster.pod_status import ContainerState, PodFacts, pod_phase, pod_status
from tests.devcluster.builders import bound_pod

SINCE = "2020-01-01T00:00:00Z"


def state(kind: str, code: int = 0, *, ready: bool = False, last: bool = False) -> ContainerState:
    details: dict[str, Any] = {
        "waiting": {"reason": "ContainerCreating"},
        "running": {"startedAt": SINCE},
        "terminated": {"exitCode": code, "reason": "Error", "startedAt": SINCE, "finishedAt": SINCE},
    }
    ended = {"terminated": details["terminated"]} if last else {}
    return ContainerState("main", "python", {kind: details[kind]}, ended, is_ready=ready, has_started=True)


def facts(*main: ContainerState, policy: str = "Never", **more: Any) -> PodFacts:
    return PodFacts(bound_pod(restartPolicy=policy), more.pop("init", ()), main, SINCE, **more)


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        (facts(state("waiting")), "Pending"),
        (facts(state("running")), "Running"),
        (facts(state("running"), state("waiting")), "Pending"),
        (facts(state("waiting", last=True), policy="Always"), "Running"),
        (facts(state("terminated", 0)), "Succeeded"),
        (facts(state("terminated", 1)), "Failed"),
        (facts(state("terminated", 0), state("running")), "Running"),
        (facts(state("terminated", 1), state("running")), "Running"),
        (facts(state("terminated", 1), policy="OnFailure"), "Running"),
        (facts(state("terminated", 0), policy="OnFailure"), "Succeeded"),
        (facts(state("terminated", 0), policy="Always"), "Running"),
        (facts(state("terminated", 0), policy="Always", is_terminal=True), "Succeeded"),
        (facts(state("terminated", 137), policy="Always", is_terminal=True), "Failed"),
        (facts(state("waiting"), is_terminal=True), "Failed"),
        (facts(state("waiting"), init=[state("running")]), "Pending"),
        (facts(state("waiting"), init=[state("terminated", 1)]), "Failed"),
        (facts(state("waiting"), init=[state("terminated", 1)], policy="OnFailure"), "Pending"),
        (facts(state("running"), init=[state("terminated", 0)]), "Running"),
    ],
)
def test_phase(given: PodFacts, phase: str) -> None:
    assert pod_phase(given) == phase


def conditions_of(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in status["conditions"]}


def test_ready_pod_has_all_conditions_true() -> None:
    status = pod_status(facts(state("running", ready=True), address="10.244.0.5"))
    assert {kind: each["status"] for kind, each in conditions_of(status).items()} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }
    assert status["podIP"] == "10.244.0.5"


def test_an_unready_container_is_named() -> None:
    ready = conditions_of(pod_status(facts(state("running"))))["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert "main" in ready["message"]


def test_transition_time_stays_while_the_status_does() -> None:
    given = facts(state("running"))
    given.pod["status"] = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": SINCE}]}
    assert conditions_of(pod_status(given))["Ready"]["lastTransitionTime"] == SINCE
    ready = facts(state("running", ready=True))
    ready.pod["status"] = given.pod["status"]
    assert conditions_of(pod_status(ready))["Ready"]["lastTransitionTime"] != SINCE


def test_a_pod_failed_by_the_node_says_why() -> None:
    status = pod_status(facts(state("waiting"), failure=("Refused", "hostPath is refused")))
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed",
        "Refused",
        "hostPath is refused",
    )
