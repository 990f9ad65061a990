"""Rows of test_plan.py: between attempts."""

from __future__ import annotations

from typing import Any

from tests.builders import (
    at,
    make_attempt,
    make_status,
)
from tests.unit.core.cases.ends import NODE_GONE
from tests.unit.core.cases.worlds import PREPARED, Case, closed, gang, running, world_of

SOFTWARE = {"software": 2, "infrastructure": 0}


def between(reason: str, **fields: Any) -> dict[str, Any]:
    return make_status(closed(reason), phase="Restarting", reason=reason, **fields)


BETWEEN = [
    Case(
        "pods of a lost node are forced",
        world_of(between("NodeLost"), *gang({}, NODE_GONE)),
        "Restarting",
        "NodeLost",
        "Waiting for the previous attempt's pods",
        requeue=5,
        delete=("jobs/support-bot-a1", "pods/support-bot-a1-1-abcde"),
    ),
    Case(
        "back-off",
        world_of(between("InternalError", restarts=SOFTWARE), *gang(state="Failed")),
        "Restarting",
        "InternalError",
        "InternalError it was. The next attempt starts at 12:00:20 UTC.",
        now=at(5),
        requeue=15,
    ),
    Case(
        "back-off over",
        world_of(between("InternalError", restarts=SOFTWARE), *gang(state="Failed")),
        "Starting",
        "Starting",
        "Attempt 2 starts and goes on from the newest valid checkpoint.",
        now=at(20),
        requeue=0,
        expect={".attempts.1": make_attempt(2, started=at(20))},
    ),
    Case(
        "longest back-off",
        world_of(
            between("InternalError", restarts={"software": 40, "infrastructure": 0}), *gang(state="Failed")
        ),
        "Restarting",
        "InternalError",
        "12:05:00 UTC",
        now=at(1),
        requeue=299,
    ),
    Case(
        "no back-off for the infrastructure",
        world_of(between("Preempted", restarts=SOFTWARE), *gang(state="Failed")),
        "Starting",
        "Starting",
        requeue=0,
    ),
    Case(
        "no longer back-off by a clock put back",
        world_of(between("InternalError", restarts=SOFTWARE), *gang(state="Failed")),
        "Starting",
        "Starting",
        now=at(-3600),
        requeue=0,
    ),
    Case(
        "next attempt is made",
        world_of(
            make_status(closed("Preempted"), closed("Preempted", 2), make_attempt(3), progress=PREPARED),
            *gang(state="Failed"),
            *gang(state="Failed", attempt=2),
        ),
        "Starting",
        "Starting",
        "Attempt 3 starts and goes on from the checkpoint at step 30.",
        create=("Service/support-bot-workers", "ConfigMap/support-bot-a3", "Job/support-bot-a3"),
        delete=("jobs/support-bot-a1",),
        expect={"confirm_over": ("support-bot-a2",)},
    ),
    Case(
        "next attempt waits for a forgotten gang",
        world_of(make_status(closed("Preempted"), make_attempt(2)), *running()),
        "Restarting",
        "WorkersStopping",
        delete=("jobs/support-bot-a1",),
        requeue=5,
    ),
]
