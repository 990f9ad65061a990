"""The life of a job as a table: its phases, what each says in the conditions, and who may follow whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

ConditionStatus = Literal["True", "False", "Unknown"]


class Phase(StrEnum):
    """For people. Derived from the conditions, see :func:`phase_of`."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    EXPORTING = "Exporting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TERMINATING = "Terminating"


TERMINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED})

ACCEPTED = "Accepted"
DATA_READY = "DataReady"
NODES_READY = "NodesReady"
RUNNING = "Running"
CHECKPOINTED = "Checkpointed"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"

LIFECYCLE_CONDITIONS = (ACCEPTED, DATA_READY, NODES_READY, RUNNING, CHECKPOINTED, SUCCEEDED, FAILED)
KSTATUS_CONDITIONS = (READY, RECONCILING, STALLED)


@dataclass(frozen=True)
class Row:
    """What a phase says in the conditions that tools read.

    ``ready`` is the status of Ready; Reconciling and Stalled are present (True) or absent, never False,
    as kstatus wants it. ``running`` is the status of the Running condition.
    """

    ready: ConditionStatus
    reconciling: bool
    stalled: bool
    running: ConditionStatus
    kstatus: Literal["Current", "InProgress", "Failed", "Terminating"]
    argo: Literal["Healthy", "Progressing", "Degraded", "Suspended"]
    followers: frozenset[Phase]
    holds_nodes: bool
    """Whether worker pods may hold nodes in this phase."""


def _row(
    ready: ConditionStatus,
    kstatus: Literal["Current", "InProgress", "Failed", "Terminating"],
    argo: Literal["Healthy", "Progressing", "Degraded", "Suspended"],
    followers: str,
    running: ConditionStatus = "False",
    holds_nodes: bool = False,
) -> Row:
    return Row(
        ready=ready,
        reconciling=kstatus in ("InProgress", "Terminating") and argo != "Suspended",
        stalled=kstatus == "Failed",
        running=running,
        kstatus=kstatus,
        argo=argo,
        followers=frozenset(Phase(name) for name in followers.split()),
        holds_nodes=holds_nodes,
    )


# What may follow. Phases are observed, not driven: a poll can miss the short ones, so a job may be seen to
# skip ahead; what it may never do is leave an end or go back before its data once that was ready.
_ENDS = "Suspended Succeeded Failed Terminating"
_TRAINING = "Provisioning Starting Running Restarting"
LIFECYCLE: Mapping[Phase, Row] = {
    Phase.PENDING: _row("False", "InProgress", "Progressing", f"Preparing {_TRAINING} Exporting {_ENDS}"),
    Phase.PREPARING: _row("False", "InProgress", "Progressing", f"Pending {_TRAINING} Exporting {_ENDS}"),
    Phase.PROVISIONING: _row(
        "False", "InProgress", "Progressing", f"{_TRAINING} Exporting {_ENDS}", holds_nodes=True
    ),
    Phase.STARTING: _row(
        "False", "InProgress", "Progressing", f"{_TRAINING} Exporting {_ENDS}", holds_nodes=True
    ),
    # Ready while steps advance: tools that wait for Ready time out in minutes, training takes hours.
    Phase.RUNNING: _row(
        "True", "Current", "Progressing", f"{_TRAINING} Exporting {_ENDS}", running="True", holds_nodes=True
    ),
    Phase.RESTARTING: _row(
        "False", "InProgress", "Progressing", f"{_TRAINING} Exporting {_ENDS}", holds_nodes=True
    ),
    Phase.EXPORTING: _row("True", "Current", "Progressing", _ENDS),
    Phase.SUSPENDED: _row(
        "False", "InProgress", "Suspended", f"Pending Preparing {_TRAINING} Exporting {_ENDS}"
    ),
    Phase.SUCCEEDED: _row("True", "Current", "Healthy", "Terminating"),
    Phase.FAILED: _row("False", "Failed", "Degraded", "Terminating"),
    Phase.TERMINATING: _row("False", "Terminating", "Progressing", "", holds_nodes=True),
}


def phase_of(conditions: Mapping[str, Mapping[str, Any]]) -> Phase:
    """The phase that ``conditions`` (by type) tell: ``Running`` when that condition is True, else its reason.

    Without a Running condition nothing was ever written: Pending. So is a phase that only a newer operator
    knows: this one looks at the children anew.
    """
    running = conditions.get(RUNNING)
    if running is None:
        return Phase.PENDING
    if running["status"] == "True":
        return Phase.RUNNING
    return Phase(running["reason"]) if running["reason"] in set(Phase) else Phase.PENDING
