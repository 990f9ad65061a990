"""Rows of test_plan.py: how attempts end."""

from __future__ import annotations

from typing import Any

from tests.builders import (
    NOW,
    at,
    make_attempt,
    make_failure,
    make_node,
    make_report,
    make_status,
)
from tests.unit.core.cases.worlds import (
    JUST_NOW,
    NO_PROGRESS,
    PREPARED,
    Case,
    closed,
    exit_of,
    gang,
    lifecycle,
    running,
    training,
    world_of,
)
from tunewright.core.outcome import timestamp
from tunewright_trainer.contract import ExitCode, Reason


def failed(
    name: str, pod: dict[str, Any], reason: str, message: str, *, phase: str = "Restarting", **rest: Any
) -> Case:
    """A gang whose pod 1 ended like this and whose pod 0 fell victim to it."""
    victim = exit_of(ExitCode.RANK_LOST, answer="Peer lost")
    return Case(
        name, world_of(training(), *gang(victim, pod, state="Failed")), phase, reason, message, **rest
    )


def with_code(code: ExitCode, reason: str, phase: str) -> Case:
    return failed(
        f"exit {int(code)} {code.name} without a message",
        exit_of(code),
        reason,
        f"ended with exit code {int(code)}",
        phase=phase,
        expect={".attempts.0.reason": reason},
    )


NODE_GONE = {"node": "node-gone"}
UNREACHABLE = (make_node("node-a"), make_node("node-b", ready="Unknown", since=at(-60)))
NOT_YET = (make_node("node-a"), make_node("node-b", ready="Unknown", since=at(-20)))
TOLD = make_status(phase="Restarting", reason="PodDeleted")
next(each for each in TOLD["conditions"] if each["type"] == "Ready")["message"] = (
    "Pod support-bot-a1-0-abcde was deleted. Waiting for the other pods to stop."
)

ENDS = [
    with_code(ExitCode.CONFIG_INVALID, "ConfigInvalid", "Failed"),
    with_code(ExitCode.DATA_INVALID, "DataInvalid", "Failed"),
    with_code(ExitCode.MODEL_INVALID, "ModelInvalid", "Failed"),
    with_code(ExitCode.AUTHENTICATION_FAILED, "AuthenticationFailed", "Failed"),
    with_code(ExitCode.STORAGE_ERROR, "StorageFailed", "Restarting"),
    with_code(ExitCode.INTERNAL_ERROR, "InternalError", "Restarting"),
    with_code(ExitCode.NAN_LOSS, "NaNLoss", "Failed"),
    with_code(ExitCode.DEAD_ADAPTER, "DeadAdapter", "Failed"),
    with_code(ExitCode.STALLED, "ProgressStalled", "Restarting"),
    with_code(ExitCode.OUT_OF_MEMORY, "OutOfMemory", "Failed"),
    with_code(ExitCode.TERMINATED, "Preempted", "Restarting"),
    with_code(ExitCode.KILLED, "RankKilled", "Restarting"),
    failed("only victims", exit_of(ExitCode.RANK_LOST), "RankLost", "(1 of 3 restarts)"),
    failed(
        "stopped for a peer that is gone",
        exit_of(ExitCode.STOPPED_FOR_PEER),
        "Preempted",
        "(1 of 20 restarts)",
    ),
    failed(
        "unknown exit code",
        exit_of(139, answer="line 1\nSegmentation fault\n"),
        "RankFailed",
        "ended with exit code 139: Segmentation fault.",
        expect={".restarts.software": 1},
    ),
    failed(
        "failure with rank, step and error",
        exit_of(
            ExitCode.NAN_LOSS,
            answer=make_failure(
                Reason.NAN_LOSS,
                message="The loss is NaN",
                error="FloatingPointError: nan.",
                last_checkpoint_step=30,
            ),
        ),
        "NaNLoss",
        "Rank 1 (pod support-bot-a1-1-abcde) at step 40: The loss is NaN. Last error line: "
        "FloatingPointError: nan. Lower training.learningRate",
        phase="Failed",
        expect={
            ".attempts.0.rank": 1,
            ".attempts.0.step": 40,
            ".attempts.0.lastCheckpointStep": 30,
            ".workers": None,
            ".completedAt": timestamp(NOW),
        },
    ),
    failed(
        "model not found",
        exit_of(66, answer=make_failure(Reason.MODEL_NOT_FOUND)),
        "ModelNotFound",
        "",
        phase="Failed",
    ),
    failed(
        "data not found",
        exit_of(65, answer=make_failure(Reason.DATA_NOT_FOUND)),
        "DataNotFound",
        "",
        phase="Failed",
    ),
    failed(
        "destination occupied",
        exit_of(64, answer=make_failure(Reason.DESTINATION_OCCUPIED)),
        "DestinationOccupied",
        "",
        phase="Failed",
    ),
    failed("disk full", exit_of(74, answer=make_failure(Reason.DISK_FULL)), "DiskFull", "restarts from its"),
    failed("rank failed", exit_of(1, answer=make_failure(Reason.RANK_FAILED)), "RankFailed", ""),
    failed(
        "stopped for a peer",
        exit_of(75, answer=make_failure(Reason.STOPPED_FOR_PEER)),
        "StoppedForPeer",
        "(1 of 20 restarts)",
    ),
    failed(
        "out of host memory",
        exit_of(137, kubelet_reason="OOMKilled"),
        "OutOfMemory",
        "killed for using more host memory than its limit. Lower training.batch.micro",
        phase="Failed",
    ),
    failed(
        "pod evicted",
        exit_of(143, disruption="Taint manager: deleting."),
        "Preempted",
        "was disrupted: Taint manager: deleting. The gang",
        expect={".restarts.infrastructure": 1},
    ),
    failed(
        "pod failed before its trainer",
        {"phase": "Failed"},
        "PodFailed",
        "before its trainer ended",
        expect={".restarts": {"software": 0, "infrastructure": 1}},
    ),
    failed(
        "pod deleted",
        exit_of(143, deleting=True),
        "PodDeleted",
        "was deleted",
        expect={".restarts.infrastructure": 1},
    ),
    Case(
        "pods deleted and gone",
        world_of(training(), *gang(state="Failed")),
        "Restarting",
        "PodDeleted",
        "went away before it could say why",
        expect={".restarts.infrastructure": 1},
    ),
    Case(
        "pod deleted and gone, its name was told before",
        world_of(TOLD, *gang(state="Failed")),
        "Restarting",
        "PodDeleted",
        "Pod support-bot-a1-0-abcde was deleted. The gang restarts",
        expect={".restarts.infrastructure": 1, ".attempts.0.reason": "PodDeleted"},
    ),
    Case(
        "pod deleted and gone, its Job doesn't know yet",
        world_of(TOLD, *gang({"phase": "Pending", "node": None})),
        "Restarting",
        "PodDeleted",
        "Pod support-bot-a1-0-abcde was deleted. Waiting for the other pods to stop.",
    ),
    Case(
        "evicted pod gone, its peer knows less",
        world_of(
            make_status(phase="Restarting", reason="Preempted"),
            *gang(exit_of(75, answer=make_failure(Reason.STOPPED_FOR_PEER)), state="Failed"),
        ),
        "Restarting",
        "Preempted",
        expect={".restarts.infrastructure": 1, ".attempts.0.reason": "Preempted"},
    ),
    Case(
        "what a rank's peer told before is no pod's removal",
        world_of(
            make_status(phase="Restarting", reason="RankLost", message="Rank 1 lost its peers."),
            *gang(state="Failed"),
        ),
        "Restarting",
        "PodDeleted",
        "went away before it could say why",
        expect={".restarts.infrastructure": 1},
    ),
    Case(
        "a pod that was deleted before, but a culprit is found",
        world_of(TOLD, *gang(exit_of(80), state="Failed")),
        "Failed",
        "NaNLoss",
    ),
    Case(
        "a pod that was deleted before it ran, and its successor runs",
        world_of(TOLD, *gang({}, {})),
        "Starting",
        "LoadingModel",
    ),
    Case(
        "only a victim so far, culprit on its way",
        world_of(training(), *gang(exit_of(83), state="Failed", ended=JUST_NOW)),
        "Restarting",
        "RankLost",
        "Waiting for the other pods",
        requeue=4,
    ),
    Case(
        "culprit known, no wait",
        world_of(training(), *gang(exit_of(70), state="Failed", ended=JUST_NOW)),
        "Restarting",
        "InternalError",
        "(1 of 3 restarts)",
    ),
    Case(
        "node gone",
        world_of(training(), *gang({}, NODE_GONE)),
        "Restarting",
        "NodeLost",
        "Node node-gone of pod support-bot-a1-1-abcde is gone or not ready. The gang restarts from its last "
        "checkpoint (1 of 20 restarts).",
        expect={".restarts.infrastructure": 1},
    ),
    Case(
        "node not in the cache yet",
        world_of(training(), *gang({}, NODE_GONE | {"bound": at(-5)})),
        "Starting",
        "LoadingModel",
        requeue=55,
    ),
    Case("node unreachable", world_of(training(), *running(), nodes=UNREACHABLE), "Restarting", "NodeLost"),
    Case(
        "node unreachable for a moment",
        world_of(training(), *running(), nodes=NOT_YET),
        "Starting",
        "LoadingModel",
        requeue=40,
    ),
    Case(
        "bad data, then the node went",
        world_of(training(), *gang({}, exit_of(65, node="node-gone"), state="Failed")),
        "Failed",
        "DataInvalid",
    ),
    Case(
        "node went with its pod's last words",
        world_of(training(), *gang(exit_of(83), {"phase": "Failed", "node": "node-gone"}, state="Failed")),
        "Restarting",
        "NodeLost",
    ),
    Case(
        "stalled",
        world_of(
            training(make_attempt(started=at(-4000)), progress=PREPARED),
            *running(),
            progress=make_report("uid-support-bot-a1-0-abcde", 40, received=at(1799)),
        ),
        "Restarting",
        "ProgressStalled",
        "No rank advanced after step 40 for 1800 s (since 12:00:00 UTC).",
        now=at(1800),
        expect={".attempts.0.step": 40},
    ),
    Case(
        "stalled before the first step",
        world_of(make_status(), *running()),
        "Restarting",
        "ProgressStalled",
        "before the first step",
        now=at(1800),
    ),
    Case(
        "a new step in memory is no stall",
        world_of(
            training(progress=PREPARED),
            *running(),
            progress=make_report("uid-support-bot-a1-0-abcde", 41, received=at(1000)),
        ),
        "Running",
        "Training",
        now=at(1800),
        requeue=1000,
    ),
    Case(
        "no stall while a pod waits for a node",
        world_of(make_status(), *gang({}, {"unschedulable": "0/2."})),
        "Provisioning",
        "Unschedulable",
        now=at(90_000),
    ),
    Case(
        "no stall without a progress endpoint",
        world_of(make_status(), *running()),
        "Running",
        "Training",
        now=at(90_000),
        settings=NO_PROGRESS,
    ),
    Case(
        "restarts used up",
        world_of(training(restarts={"software": 3, "infrastructure": 5}), *gang(exit_of(70), state="Failed")),
        "Failed",
        "InternalError",
        "Given up after 3 restarts (lifecycle.maxRestarts).",
    ),
    Case(
        "no restarts wanted",
        world_of(training(), *gang(exit_of(70), state="Failed"), spec=lifecycle(maxRestarts=0)),
        "Failed",
        "InternalError",
        "Given up after 0 restarts",
    ),
    Case(
        "preemptions used up",
        world_of(
            training(restarts={"software": 0, "infrastructure": 20}),
            *gang(exit_of(143, disruption="x"), state="Failed"),
        ),
        "Failed",
        "Preempted",
        "Given up after 20 restarts (lifecycle.maxPreemptions).",
    ),
    Case(
        "preemptions don't use up restarts",
        world_of(
            training(restarts={"software": 3, "infrastructure": 0}),
            *gang(exit_of(143, disruption="x"), state="Failed"),
        ),
        "Restarting",
        "Preempted",
        "(1 of 20 restarts)",
    ),
    Case(
        "same failure twice",
        world_of(
            training(closed("InternalError", step=40, lastCheckpointStep=30), make_attempt(2)),
            *gang(exit_of(70, answer=make_failure(last_checkpoint_step=30)), attempt=2, state="Failed"),
        ),
        "Failed",
        "InternalError",
        "The same failure came twice at step 40, so it is not tried again.",
    ),
    Case(
        "same failure, new checkpoint",
        world_of(
            training(closed("InternalError", step=40, lastCheckpointStep=20), make_attempt(2)),
            *gang(exit_of(70, answer=make_failure(last_checkpoint_step=30)), attempt=2, state="Failed"),
        ),
        "Restarting",
        "InternalError",
        "1 of 3",
    ),
    Case(
        "a newer report is kept when an attempt ends",
        world_of(
            training(progress=PREPARED),
            *gang(exit_of(83), exit_of(70), state="Failed"),
            progress=make_report("uid-support-bot-a1-0-abcde", 55, received=at(5), last_checkpoint_step=50),
        ),
        "Restarting",
        "InternalError",
        expect={".attempts.0.step": 55, ".attempts.0.lastCheckpointStep": 50},
    ),
]
