"""Rows of test_plan.py: suspend and delete, in every phase."""

from __future__ import annotations

from typing import Any

from tests.builders import (
    make_attempt,
    make_result,
    make_status,
)
from tests.unit.core.cases.between import SOFTWARE, between
from tests.unit.core.cases.ends import NODE_GONE
from tests.unit.core.cases.worlds import (
    EXPORT,
    PREPARE,
    PREPARED,
    Case,
    closed,
    cpu,
    ended,
    exit_of,
    exporting,
    gang,
    lifecycle,
    running,
    training,
    world_of,
)
from tunewright.core.model import Manifest, World

SUSPENDED = lifecycle(suspend=True)


def suspended(name: str, world: World, message: str, **rest: Any) -> Case:
    return Case(f"suspended {name}", world, "Suspended", "Suspended", message, **rest)


SUSPENDS = [
    suspended("before anything", world_of(None, spec=SUSPENDED, finalizers=()), "no pod runs"),
    suspended(
        "with a secret missing",
        world_of(None, spec=SUSPENDED, references={"secret/hf-token": False}),
        "no pod runs",
    ),
    suspended(
        "while preparing",
        world_of(None, *cpu(PREPARE, "Active", {}), spec=SUSPENDED),
        "save and stop",
        delete=("jobs/support-bot-prepare",),
        requeue=5,
        expect={"confirm_over": ()},
    ),
    suspended(
        "while starting",
        world_of(make_status(), spec=SUSPENDED),
        "no pod runs",
        expect={".attempts.0.reason": "Suspended"},
    ),
    suspended(
        "while provisioning",
        world_of(make_status(), *gang({"unschedulable": "0/2."}), spec=SUSPENDED),
        "save and stop",
        delete=("jobs/support-bot-a1",),
        requeue=5,
    ),
    suspended(
        "while running",
        world_of(training(progress=PREPARED), *running(), spec=SUSPENDED),
        "the pods save and stop.",
        delete=("jobs/support-bot-a1",),
        requeue=5,
        expect={"confirm_over": (), ".attempts.0": make_attempt()},
    ),
    suspended(
        "while pods stop",
        world_of(training(), *gang({"deleting": True}, deleting=True), spec=SUSPENDED),
        "save and stop",
        requeue=5,
        expect={"confirm_over": None},
    ),
    suspended(
        "when pods have stopped",
        world_of(training(progress=PREPARED), spec=SUSPENDED),
        "Set lifecycle.suspend to false to go on. It goes on from step 30.",
        expect={".attempts.0.reason": "Suspended", ".attempts.0.step": 40},
    ),
    suspended(
        "while restarting",
        world_of(between("NodeLost"), *gang({}, NODE_GONE), spec=SUSPENDED),
        "save and stop",
        delete=("jobs/support-bot-a1", "pods/support-bot-a1-1-abcde"),
        requeue=5,
    ),
    Case(
        "a failed attempt is closed before it is suspended",
        world_of(training(), *gang(exit_of(70), state="Failed"), spec=SUSPENDED),
        "Restarting",
        "InternalError",
    ),
    Case(
        "trained while being suspended",
        world_of(training(), *gang(exit_of(0, answer=make_result()), state="Complete"), spec=SUSPENDED),
        "Exporting",
        "Exporting",
        requeue=0,
    ),
    Case(
        "export is not suspended",
        world_of(exporting(), *cpu(EXPORT, "Active", {}), spec=SUSPENDED),
        "Exporting",
        "Exporting",
    ),
    Case(
        "resumed",
        world_of(
            make_status(
                closed("Suspended"),
                phase="Suspended",
                reason="Suspended",
                progress=PREPARED,
                restarts=SOFTWARE,
            )
        ),
        "Starting",
        "Starting",
        "Attempt 2 starts and goes on from the checkpoint at step 30.",
        requeue=0,
    ),
    Case(
        "resumed before it was prepared",
        world_of(make_status(phase="Suspended", reason="Suspended", data=None, plan=None, attempts=None)),
        "Preparing",
        "Preparing",
        create=("ConfigMap/support-bot-prepare", "Job/support-bot-prepare"),
    ),
    Case(
        "resumed before its pods had stopped",
        world_of(training(), *gang({"deleting": True}, deleting=True)),
        "Restarting",
        "WorkersStopping",
        requeue=5,
    ),
]


def deleted(name: str, status: dict[str, Any] | None, *children: Manifest, **rest: Any) -> Case:
    """Nothing of the job runs any more: its finalizer goes at once."""
    rest.setdefault("message", "everything has stopped")
    rest.setdefault("expect", {"remove_finalizer": True, "add_finalizer": False})
    spec = rest.pop("spec", None)
    world = world_of(status, *children, deleting=True, spec=spec)
    return Case(f"deleted {name}", world, "Terminating", "Deleting", **rest)


STOPS = {"message": "waiting for", "requeue": 5, "expect": {"remove_finalizer": False}}
DELETES = [
    deleted("when new", None),
    deleted(
        "while preparing", None, *cpu(PREPARE, "Active", {}), delete=("jobs/support-bot-prepare",), **STOPS
    ),
    deleted("while starting", make_status()),
    deleted("while running", training(), *running(), delete=("jobs/support-bot-a1",), **STOPS),
    deleted("while its pods stop", training(), *gang({"deleting": True}, deleting=True), **STOPS),
    deleted(
        "while restarting",
        between("NodeLost"),
        *gang({}, NODE_GONE, deleting=True),
        delete=("pods/support-bot-a1-1-abcde",),
        **STOPS,
    ),
    deleted(
        "while exporting",
        exporting(),
        *cpu(EXPORT, "Active", {}),
        delete=("jobs/support-bot-export",),
        **STOPS,
    ),
    deleted(
        "while suspended",
        make_status(closed("Suspended"), phase="Suspended", reason="Suspended"),
        spec=SUSPENDED,
    ),
    deleted("after success", ended("Succeeded"), *gang(state="Complete")),
    deleted("after failure", ended("Failed"), *gang(state="Failed")),
    deleted("with a spec that models refuse", None, spec={"compute": {"nodes": -1}}),
]
