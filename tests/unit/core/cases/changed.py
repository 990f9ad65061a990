"""Rows of test_plan.py: spec.deepspeed.config is not the planned one."""

from __future__ import annotations

from typing import Any

from tests.builders import make_attempt, make_status
from tests.unit.core.cases.between import between
from tests.unit.core.cases.worlds import (
    EXPORT,
    PREPARED,
    Case,
    cpu,
    exporting,
    gang,
    running,
    training,
    world_of,
)

EDITED: dict[str, Any] = {"deepspeed": {"config": {"wall_clock_breakdown": True}}}


def of_another_version() -> dict[str, Any]:
    """A status whose plan was hashed by other rules than today's."""
    status = make_status(make_attempt(), phase="Starting", reason="Starting")
    return {**status, "plan": {**status["plan"], "specHash": "v0:1234"}}


CHANGED = [
    Case(
        "spec changed before the first attempt is made",
        world_of(make_status(make_attempt(), phase="Starting", reason="Starting"), spec=EDITED),
        "Starting",
        "SpecChanged",
        "Put it back as it was and the job goes on by itself; for other settings create a new job.",
        warning=True,
    ),
    Case(
        "spec changed between attempts",
        world_of(between("Preempted"), *gang(state="Failed"), spec=EDITED),
        "Restarting",
        "SpecChanged",
        expect={".attempts.1": None},
    ),
    Case(
        "spec changed while suspended",
        world_of(
            make_status(make_attempt(reason="Suspended"), phase="Suspended", reason="Suspended"), spec=EDITED
        ),
        "Suspended",
        "SpecChanged",
    ),
    Case(
        "spec changed while an attempt runs",
        world_of(training(progress=PREPARED), *running(), spec=EDITED),
        "Running",
        "Training",
    ),
    Case(
        "spec changed and a running attempt's config map deleted",
        world_of(training(progress=PREPARED), *running(), spec=EDITED, config_maps=(), services=()),
        "Running",
        "Training",
        create=("Service/support-bot-workers",),
    ),
    Case("spec changed before export", world_of(exporting(), spec=EDITED), "Exporting", "SpecChanged"),
    Case(
        "spec changed while the export runs",
        world_of(exporting(), *cpu(EXPORT, "Active", {}), spec=EDITED),
        "Exporting",
        "Exporting",
    ),
    Case(
        "spec changed and the export's config map deleted",
        world_of(exporting(), *cpu(EXPORT, "Active", {}), spec=EDITED, config_maps=()),
        "Exporting",
        "SpecChanged",
    ),
    Case(
        "spec put back",
        world_of(make_status(make_attempt(), phase="Starting", reason="SpecChanged")),
        "Starting",
        "Starting",
        create=("Service/support-bot-workers", "ConfigMap/support-bot-a1", "Job/support-bot-a1"),
    ),
    Case(
        "plan of an operator that hashed otherwise",
        world_of(of_another_version(), spec=EDITED),
        "Starting",
        "Starting",
        create=("Service/support-bot-workers", "ConfigMap/support-bot-a1", "Job/support-bot-a1"),
    ),
]
