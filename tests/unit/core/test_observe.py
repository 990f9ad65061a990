"""Raw Jobs, Pods and Nodes become facts; odd input never raises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from tests.answers import make_export, make_failure, make_result
from tests.builders import NOW, at, make_batch_job, make_facts, make_job, make_node, make_pod, make_world
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright.core.observe import Observed, observe, parse_time


def seen(*children: Manifest, seconds: float = 0, **world: Any) -> Observed:
    return observe(make_world(make_job(), *children, **world), at(seconds), node_lost_seconds=60)


def test_children_are_sorted_into_places() -> None:
    prepare, export = make_batch_job("prepare"), make_batch_job("export")
    first, second = make_batch_job(attempt=1, state="Failed"), make_batch_job(attempt=2)
    pod = make_pod(second)
    found = seen(prepare, export, first, second, pod)
    assert found.prepare is not None
    assert found.export is not None
    assert {number: job.state for number, job in found.workers.items()} == {1: "Failed", 2: "Active"}
    assert [pod.name for pod in found.workers[2].pods] == ["support-bot-a2-0-abcde"]
    assert found.leftover_pods == ()


def test_a_pod_whose_job_is_gone_is_left_over_until_it_ends() -> None:
    gone = make_batch_job()
    assert len(seen(make_pod(gone)).leftover_pods) == 1
    assert seen(make_pod(gone, exit_code=143)).leftover_pods == ()


@pytest.mark.parametrize("kind", ["FailureTarget", "SuccessCriteriaMet", "Suspended"])
def test_only_final_conditions_end_a_job(kind: str) -> None:
    job = make_batch_job()
    job["status"] = {"conditions": [{"type": kind, "status": "True"}]}
    assert seen(job).workers[1].state == "Active"


def test_the_end_of_a_job_has_reason_and_time() -> None:
    job = seen(make_batch_job(state="Failed", reason="PodFailurePolicy", ended=at(-7))).workers[1]
    assert (job.state, job.reason, job.ended_at) == ("Failed", "PodFailurePolicy", at(-7))
    assert seen(make_batch_job()).workers[1].ended_at is None


def test_an_answer_is_read_from_the_termination_message() -> None:
    end = (
        seen(job := make_batch_job(), make_pod(job, exit_code=0, answer=make_facts())).workers[1].pods[0].end
    )
    assert end is not None
    assert (end.exit_code, end.answer, end.text) == (0, make_facts(), "")


@pytest.mark.parametrize(
    "message", ["", "Traceback", '{"kind": "facts"}', "{", "[]", "\x00", '{"kind": "other"}']
)
def test_a_message_that_is_no_answer_is_text(message: str) -> None:
    end = seen(job := make_batch_job(), make_pod(job, exit_code=1, answer=message)).workers[1].pods[0].end
    assert end is not None
    assert end.answer is None
    assert end.text == message.strip()


ANSWERS = [make_facts(), make_result(), make_export(), make_failure()]


@pytest.mark.parametrize("figure", [-1, 2**53 + 1, 10**300], ids=["negative", "too large", "huge"])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.kind)
def test_a_figure_that_no_status_may_hold_makes_it_no_answer(answer: BaseModel, figure: int) -> None:
    """Pods run code of users: every integer of every answer is bounded, and zero is in order."""
    plain = answer.model_dump(mode="json")
    places = list(integers(plain)) + [
        (name,) for name, field in type(answer).model_fields.items() if "int" in str(field.annotation)
    ]
    assert places
    for place in places:
        for told, taken in ((figure, False), (0, True)):
            document = json.loads(json.dumps(plain))
            holder = document
            for step in place[:-1]:
                holder = holder[step]
            holder[place[-1]] = told
            pod = make_pod(job := make_batch_job(), exit_code=1, answer=json.dumps(document))
            end = seen(job, pod).workers[1].pods[0].end
            assert end is not None
            assert (end.answer is not None) is taken, (place, told)


def integers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all integers below a JSON value."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from integers(part, (*place, key))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield place


def test_a_long_message_keeps_its_end() -> None:
    pod = make_pod(job := make_batch_job(), exit_code=1, answer="x" * 4000 + "the end")
    end = seen(job, pod).workers[1].pods[0].end
    assert end is not None
    assert len(end.text) == 512
    assert end.text.endswith("the end")


def test_another_container_s_end_is_not_the_trainer_s() -> None:
    job = make_batch_job()
    pod = make_pod(job, exit_code=1)
    pod["status"]["containerStatuses"][0]["name"] = "istio-proxy"
    assert seen(job, pod).workers[1].pods[0].end is None


def test_bare_objects_are_read_as_just_made() -> None:
    job, pod = make_batch_job(), make_pod(None)
    job["status"], job["metadata"]["labels"] = {}, {names.LABEL_COMPONENT: "train", names.LABEL_ATTEMPT: "x"}
    pod |= {"status": {}, "spec": {}}
    pod["metadata"].pop("labels")
    found = seen(job, pod)
    assert found.workers[0].state == "Active"
    assert found.leftover_pods[0].phase == "Pending"


@pytest.mark.parametrize(
    ("node", "lost", "after"),
    [
        (make_node("node-a"), False, None),
        (make_node("node-a", ready="False", since=at(-60)), True, None),
        (make_node("node-a", ready="Unknown", since=at(-59)), False, 1),
        (make_node("node-a", ready="Unknown", since=at(+30)), False, 90),
    ],
    ids=["ready", "not ready for long", "unknown for less", "clock put back"],
)
def test_lost_nodes(node: Manifest, lost: bool, after: float | None) -> None:
    found = seen(job := make_batch_job(), make_pod(job), nodes=(node,))
    assert (found.lost_nodes, found.next_node_loss_seconds) == (frozenset({"node-a"} if lost else ()), after)


@pytest.mark.parametrize(("bound", "lost", "after"), [(-60, True, None), (-10, False, 50)])
def test_a_node_that_is_not_known_is_given_time(bound: float, lost: bool, after: float | None) -> None:
    found = seen(job := make_batch_job(), make_pod(job, bound=at(bound)), nodes=())
    assert (found.lost_nodes, found.next_node_loss_seconds) == (frozenset({"node-a"} if lost else ()), after)


def test_a_node_that_never_said_whether_it_is_ready_is_not_lost() -> None:
    node = make_node("node-a")
    node["status"]["conditions"] = []
    found = seen(job := make_batch_job(), make_pod(job), nodes=(node,))
    assert found.lost_nodes == set()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-01T12:00:00Z", NOW),
        ("2030-01-01T12:00:00.5Z", datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2030-01-01T14:00:00+02:00", NOW),
        ("2030-01-01T12:00:00", NOW),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_parse_time(text: str | None, moment: datetime | None) -> None:
    assert parse_time(text) == moment
