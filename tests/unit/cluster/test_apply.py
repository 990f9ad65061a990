"""A plan is carried out in order, every step may be repeated, and nobody else's object is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.cluster.api_server import ApiServer, Fault, client_of, serving
from tunewright.cluster.apply import Applier, NameTaken
from tunewright.cluster.errors import Conflict, NotFound, Overloaded
from tunewright.cluster.events import EventRecorder
from tunewright.core import names
from tunewright.core.model import Deletion, Event, Plan


class Bench:
    """A server with one FineTuneJob, an applier, and what the applier told the caches."""

    def __init__(self, server: ApiServer, applier: Applier, recorder: EventRecorder, job: Any) -> None:
        self.server = server
        self.applier = applier
        self.recorder = recorder
        self.job = job
        self.seen: list[tuple[str, str]] = []
        self.gone: list[tuple[str, str]] = []

    def stored_job(self) -> Any:
        return self.server.objects[("finetunejobs", "ns", "tune")]

    def writes(self) -> list[str]:
        """``METHOD plural[/name[/subresource]]`` of every write, in order."""
        paths = [entry.split("?")[0].split(" ") for entry in self.server.requests]
        return [f"{verb} {path.split('/ns/')[1]}" for verb, path in paths if verb != "GET"]


def bench(scenario: Callable[[Bench], Awaitable[None]], **metadata: Any) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            job = await server.put("finetunejobs", _manifest("FineTuneJob", "tune", **metadata))
            recorder = EventRecorder(client, "operator-0")
            applier = Applier(
                client,
                recorder,
                seen=lambda resource, m: b.seen.append((resource.plural, m["metadata"]["name"])),
                gone=lambda resource, m: b.gone.append((resource.plural, m["metadata"]["name"])),
            )
            b = Bench(server, applier, recorder, job)
            await scenario(b)

    asyncio.run(main())


def _manifest(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    api = {"FineTuneJob": names.API_VERSION, "Job": "batch/v1"}.get(kind, "v1")
    return {"apiVersion": api, "kind": kind, "metadata": {"namespace": "ns", "name": name} | metadata}


def _child(b: Bench, kind: str, name: str, uid: str = "", owner: str = "tune") -> dict[str, Any]:
    reference = {
        "kind": names.KIND,
        "name": owner,
        "uid": uid or b.job["metadata"]["uid"],
        "controller": True,
    }
    return _manifest(kind, name, ownerReferences=[reference])


def test_the_order_is_finalizer_creates_deletes_status() -> None:
    async def scenario(b: Bench) -> None:
        old = await b.server.put("jobs", _child(b, "Job", "old"))
        plan = Plan(
            add_finalizer=True,
            create=(_child(b, "ConfigMap", "config"), _child(b, "Job", "new")),
            delete=(Deletion("jobs", "ns", "old", old["metadata"]["uid"], grace_seconds=0),),
            status={"phase": "Running"},
        )
        await b.applier.execute(b.job, plan)
        assert b.writes() == [
            "PATCH finetunejobs/tune",
            "POST configmaps",
            "POST jobs",
            "DELETE jobs/old",
            "PATCH finetunejobs/tune/status",
        ]
        assert b.stored_job()["metadata"]["finalizers"] == [names.FINALIZER]
        assert b.stored_job()["status"] == {"phase": "Running"}
        assert b.seen == [
            ("finetunejobs", "tune"),
            ("configmaps", "config"),
            ("jobs", "new"),
            ("finetunejobs", "tune"),
        ]
        assert b.gone == [("jobs", "old")]

    bench(scenario)


def test_finalizers_of_others_are_kept() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(add_finalizer=True))
        assert b.stored_job()["metadata"]["finalizers"] == ["other/one", names.FINALIZER]
        await b.applier.execute(b.stored_job(), Plan(remove_finalizer=True))
        assert b.stored_job()["metadata"]["finalizers"] == ["other/one"]

    bench(scenario, finalizers=["other/one"])


def test_a_finalizer_that_is_there_or_not_there_costs_no_write() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(remove_finalizer=True))
        await b.applier.execute(b.job, Plan(add_finalizer=True))
        await b.applier.execute(b.stored_job(), Plan(add_finalizer=True))
        assert b.writes() == ["PATCH finetunejobs/tune"]

    bench(scenario)


def test_the_finalizer_list_is_only_written_as_it_was_read() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.put("finetunejobs", b.stored_job() | {"spec": {}})
        with pytest.raises(Conflict):
            await b.applier.execute(b.job, Plan(add_finalizer=True, create=(_child(b, "Job", "new"),)))
        assert ("jobs", "ns", "new") not in b.server.objects, "nothing that costs money before the finalizer"

    bench(scenario)


def test_a_job_that_went_meanwhile_needs_no_finalizer_removed() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.drop("finetunejobs", "ns", "tune")
        await b.applier.execute(b.job, Plan(remove_finalizer=True))
        assert b.gone == [("finetunejobs", "tune")]

    bench(scenario, finalizers=[names.FINALIZER])


def test_creating_again_what_is_ours_is_success() -> None:
    async def scenario(b: Bench) -> None:
        plan = Plan(create=(_child(b, "Job", "new"),))
        await b.applier.execute(b.job, plan)
        await b.applier.execute(b.job, plan)
        assert b.seen == [("jobs", "new"), ("jobs", "new")]

    bench(scenario)


def test_a_create_whose_answer_was_lost_is_success() -> None:
    async def scenario(b: Bench) -> None:
        b.server.faults.append(Fault("POST", cut="after"))
        await b.applier.execute(b.job, Plan(create=(_child(b, "Job", "new"),)))
        assert b.seen == [("jobs", "new")]

    bench(scenario)


def test_a_foreign_object_of_that_name_is_left_alone_and_named() -> None:
    async def scenario(b: Bench) -> None:
        # Owned, but controlled by somebody else: no cache would show it as a child.
        owner = {"kind": names.KIND, "name": "tune", "uid": b.job["metadata"]["uid"]}
        foreign = await b.server.put("jobs", _manifest("Job", "new", ownerReferences=[owner]))
        with pytest.raises(NameTaken, match="Job ns/new exists and does not belong to this job"):
            await b.applier.execute(b.job, Plan(create=(_child(b, "Job", "new"),), status={"phase": "x"}))
        assert b.server.objects[("jobs", "ns", "new")] == foreign
        assert "status" not in b.stored_job()

    bench(scenario)


@pytest.mark.parametrize("case", ["terminating", "of a predecessor"])
def test_a_child_on_its_way_out_is_waited_for(case: str) -> None:
    async def scenario(b: Bench) -> None:
        child = _child(b, "Job", "new", uid="earlier job" if case == "of a predecessor" else "")
        if case == "terminating":
            child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await b.server.put("jobs", child)
        with pytest.raises(Conflict, match="still being deleted") as caught:
            await b.applier.execute(b.job, Plan(create=(_child(b, "Job", "new"),)))
        assert not isinstance(caught.value, NameTaken)

    bench(scenario)


def test_a_successor_of_the_same_name_is_not_deleted() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.put("pods", _manifest("Pod", "worker", uid="successor"))
        await b.applier.execute(b.job, Plan(delete=(Deletion("pods", "ns", "worker", "predecessor"),)))
        assert ("pods", "ns", "worker") in b.server.objects
        assert b.gone == [("pods", "worker")]

    bench(scenario)


def test_what_is_gone_already_is_deleted() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(delete=(Deletion("pods", "ns", "worker", "uid"),)))
        assert b.gone == [("pods", "worker")]

    bench(scenario)


def test_an_object_that_lingers_is_seen_with_its_deletion_mark() -> None:
    async def scenario(b: Bench) -> None:
        pod = await b.server.put("pods", _manifest("Pod", "worker", finalizers=["batch/tracking"]))
        await b.applier.execute(
            b.job, Plan(delete=(Deletion("pods", "ns", "worker", pod["metadata"]["uid"]),))
        )
        assert b.seen == [("pods", "worker")]
        assert b.gone == []

    bench(scenario)


def test_status_that_is_stored_already_is_not_written() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(status={"phase": "Running"}))
        await b.applier.execute(b.stored_job(), Plan(status={"phase": "Running"}))
        assert b.writes() == ["PATCH finetunejobs/tune/status"]

    bench(scenario)


def test_status_for_an_older_state_of_the_job_is_refused() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.put("finetunejobs", b.stored_job() | {"spec": {}})
        with pytest.raises(Conflict):
            await b.applier.execute(b.job, Plan(status={"phase": "Running"}))

    bench(scenario)


def test_the_first_failing_step_ends_it() -> None:
    async def scenario(b: Bench) -> None:
        b.server.faults.append(Fault("POST", "configmaps", status=503, times=99))
        with pytest.raises(Overloaded):
            await b.applier.execute(
                b.job,
                Plan(
                    create=(_child(b, "ConfigMap", "config"), _child(b, "Job", "new")),
                    status={"phase": "Running"},
                ),
            )
        assert not any("jobs" in write.split("/")[0].split(" ")[1:] for write in b.writes())
        assert "status" not in b.stored_job()

    bench(scenario)


def test_a_job_deletes_itself_by_uid_after_its_finalizer() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(delete_self=True, remove_finalizer=True))
        assert b.writes() == ["PATCH finetunejobs/tune", "DELETE finetunejobs/tune"]
        assert b.server.bodies[-1]["preconditions"] == {"uid": b.job["metadata"]["uid"]}
        assert not b.server.objects

    bench(scenario, finalizers=[names.FINALIZER])


def test_an_event_that_fails_does_not_fail_the_plan() -> None:
    async def scenario(b: Bench) -> None:
        writing = asyncio.create_task(b.recorder.run())
        b.server.faults.append(Fault("POST", "events", status=403))
        await b.applier.execute(b.job, Plan(events=(Event("Normal", "Started", "It began."),)))
        await b.recorder.flush(10)
        assert b.recorder.dropped == 1
        assert not writing.done()
        writing.cancel()

    bench(scenario)


ENDED = {"conditions": [{"type": "Failed", "status": "True"}]}


@pytest.mark.parametrize("status", [None, ENDED], ids=["gone", "over"])
def test_a_plan_that_is_confirmed_is_carried_out(status: Any) -> None:
    async def scenario(b: Bench) -> None:
        if status is not None:
            await b.server.put("jobs", _child(b, "Job", "tune-a1") | {"status": status})
        await b.applier.execute(b.job, Plan(confirm_over=("tune-a1",), create=(_child(b, "Job", "tune-a2"),)))
        assert b.writes() == ["POST jobs"]

    bench(scenario)


def test_nothing_is_written_while_an_earlier_job_runs() -> None:
    async def scenario(b: Bench) -> None:
        status = {
            "conditions": [{"type": "Failed", "status": "False"}, {"type": "Suspended", "status": "True"}]
        }
        await b.server.put("jobs", _child(b, "Job", "tune-a1") | {"status": status})
        plan = Plan(confirm_over=("tune-a1",), create=(_child(b, "Job", "tune-a2"),))
        with pytest.raises(Conflict, match="Job ns/tune-a1 still runs"):
            await b.applier.execute(b.job, plan)
        assert b.writes() == []
        assert ("jobs", "tune-a1") in b.seen

    bench(scenario)


def test_nothing_is_written_for_a_job_that_has_changed_since_it_was_cached() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.put("finetunejobs", b.job | {"spec": {"lifecycle": {"suspend": False}}})
        with pytest.raises(Conflict, match="has changed since it was cached"):
            await b.applier.execute(b.job, Plan(confirm_over=(), create=(_child(b, "Job", "tune-a1"),)))
        assert b.writes() == []
        assert ("finetunejobs", "tune") in b.seen

    bench(scenario)


def test_a_running_job_of_somebody_else_is_no_predecessor() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.put("jobs", _child(b, "Job", "tune-a1", uid="somebody else"))
        await b.applier.execute(b.job, Plan(confirm_over=("tune-a1",), create=(_child(b, "Job", "tune-a2"),)))
        assert ("jobs", "ns", "tune-a2") in b.server.objects

    bench(scenario)


def test_nothing_is_written_for_a_job_that_is_gone() -> None:
    async def scenario(b: Bench) -> None:
        await b.server.drop("finetunejobs", "ns", "tune")
        with pytest.raises(NotFound):
            await b.applier.execute(b.job, Plan(confirm_over=(), create=(_child(b, "Job", "tune-a1"),)))
        assert b.writes() == []

    bench(scenario)


def test_without_a_wish_to_confirm_nothing_is_read() -> None:
    async def scenario(b: Bench) -> None:
        await b.applier.execute(b.job, Plan(create=(_child(b, "Job", "tune-a1"),)))
        assert [entry.split(" ")[0] for entry in b.server.requests] == ["POST"]

    bench(scenario)
