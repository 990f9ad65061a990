"""Every way in which pods end, judged: whose fault, and which pod tells the story."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW, make_batch_job, make_failure, make_job, make_pod, make_world
from tunewright.core.failures import ADVICE, INFRASTRUCTURE_REASONS, Blame, Verdict, judge, same_failure
from tunewright.core.observe import observe
from tunewright_trainer.contract import ExitCode, Reason

END = {
    ExitCode.CONFIG_INVALID: ("ConfigInvalid", Blame.USER),
    ExitCode.DATA_INVALID: ("DataInvalid", Blame.USER),
    ExitCode.MODEL_INVALID: ("ModelInvalid", Blame.USER),
    ExitCode.INTERNAL_ERROR: ("InternalError", Blame.SOFTWARE),
    ExitCode.STORAGE_ERROR: ("StorageFailed", Blame.SOFTWARE),
    ExitCode.STOPPED_FOR_PEER: ("Preempted", Blame.INFRASTRUCTURE),
    ExitCode.AUTHENTICATION_FAILED: ("AuthenticationFailed", Blame.USER),
    ExitCode.NAN_LOSS: ("NaNLoss", Blame.USER),
    ExitCode.DEAD_ADAPTER: ("DeadAdapter", Blame.USER),
    ExitCode.STALLED: ("ProgressStalled", Blame.SOFTWARE),
    ExitCode.RANK_LOST: ("RankLost", Blame.SOFTWARE),
    ExitCode.OUT_OF_MEMORY: ("OutOfMemory", Blame.USER),
    ExitCode.KILLED: ("RankKilled", Blame.SOFTWARE),
    ExitCode.TERMINATED: ("Preempted", Blame.INFRASTRUCTURE),
}


def verdict(
    *pods: dict[str, Any], state: str = "Failed", lost: frozenset[str] = frozenset()
) -> Verdict | None:
    job = make_batch_job(state=state)
    children = [make_pod(job, index, **pod) for index, pod in enumerate(pods)]
    return judge(observe(make_world(make_job(), job, *children), NOW, 60).workers[1], lost)


def told(*pods: dict[str, Any], **rest: Any) -> Verdict:
    found = verdict(*pods, **rest)
    assert found is not None
    return found


def test_every_exit_code_is_judged() -> None:
    assert set(END) == set(ExitCode) - {ExitCode.OK}


@pytest.mark.parametrize("code", END)
def test_exit_code_without_a_message(code: ExitCode) -> None:
    found = told({"exit_code": int(code), "answer": "line 1\nlast line."})
    assert (found.reason, found.blame) == END[code]
    assert f"ended with exit code {int(code)}: last line." in found.message
    assert found.advice == ADVICE.get(found.reason, "")
    assert type(found.reason) is str


@pytest.mark.parametrize("code", END)
def test_exit_code_with_a_message_keeps_its_blame(code: ExitCode) -> None:
    failure = make_failure(Reason.DISK_FULL, message="No space.", advice="Tidy up.", error="OSError: 28")
    found = told({"exit_code": int(code), "answer": failure})
    assert (found.reason, found.blame) == ("DiskFull", END[code][1])
    assert found.sentence == (
        "Rank 1 (pod support-bot-a1-0-abcde) at step 40: No space. Last error line: OSError: 28. Tidy up."
    )


def code(exit_code: int, **rest: Any) -> dict[str, Any]:
    return {"exit_code": exit_code, **rest}


GONE = {"phase": "Failed", "node": "node-x"}
STOPPED = code(143, deleting=True)
CULPRITS = [
    ("a crash over its victims", [code(83), code(70), code(75)], "InternalError"),
    ("a disruption over a crash", [code(70), code(143, disruption="Drain.")], "Preempted"),
    ("a user's failure over a lost node", [code(65), {"node": "node-x"}], "DataInvalid"),
    ("a lost node over a crash", [code(70), {"node": "node-x"}], "NodeLost"),
    ("a crash over pods that the Job stopped", [STOPPED, code(1)], "RankFailed"),
    ("a pod that was stopped over its victims", [code(83), STOPPED], "PodDeleted"),
    ("a pod without a word over victims", [code(83), {"phase": "Failed"}], "PodFailed"),
    ("peers of a stopped pod over those of a lost one", [code(83), code(75)], "Preempted"),
    ("a lost node that took the last words", [code(83), GONE], "NodeLost"),
    ("not a node that went after its pod's end", [code(70, node="node-x")], "InternalError"),
]


@pytest.mark.parametrize(("pods", "reason"), [row[1:] for row in CULPRITS], ids=[row[0] for row in CULPRITS])
def test_who_tells_the_story(pods: list[dict[str, Any]], reason: str) -> None:
    found = told(*pods, lost=frozenset({"node-x"}))
    assert found.reason == reason
    assert (found.blame is Blame.INFRASTRUCTURE) == (reason in INFRASTRUCTURE_REASONS)


@pytest.mark.parametrize(
    ("pods", "hearsay"),
    [
        ([{"exit_code": 70}], False),
        ([{"exit_code": 83}], True),
        ([{"exit_code": 75, "answer": make_failure(Reason.STOPPED_FOR_PEER)}], True),
        ([{"exit_code": 143, "deleting": True}], True),
        ([], True),
    ],
    ids=["culprit", "victim", "victim with a message", "stopped", "no pod"],
)
def test_hearsay(pods: list[dict[str, Any]], hearsay: bool) -> None:
    assert told(*pods).hearsay is hearsay


def test_nothing_has_failed_while_all_run() -> None:
    assert verdict({}, {}, state="Active") is None


def test_a_failed_job_always_has_a_verdict() -> None:
    assert told().reason == "PodDeleted"
    assert told({}).reason == "PodDeleted"


def test_host_memory_is_told_from_the_kubelet() -> None:
    found = told({"exit_code": 137, "kubelet_reason": "OOMKilled"})
    assert (found.reason, found.blame) == ("OutOfMemory", Blame.USER)


@pytest.mark.parametrize(
    ("ends", "same"),
    [
        ([], False),
        ([("A", 40, 30)], False),
        ([("A", 40, 30), ("A", 40, 30)], True),
        ([("A", 40, 20), ("A", 40, 30)], False),
        ([("A", 40, 30), ("B", 40, 30)], False),
        ([("A", None, None), ("A", None, None)], False),
        ([("A", 40, 30), ("B", 1, 0), ("A", 40, 30)], False),
    ],
)
def test_same_failure(ends: list[tuple[str, int | None, int | None]], same: bool) -> None:
    assert same_failure(ends) is same
