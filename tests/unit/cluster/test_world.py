"""What a reconcile sees: caches, own writes at once, references that are asked for, pods that may not lag."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cluster.api_server import Fault, until
from tests.unit.cluster.world_scene import Scene, on
from tunewright.cluster.resources import FINETUNEJOBS
from tunewright.core import names
from tunewright.core.model import Plan


def test_children_are_found_by_owner_and_changes_ask_for_a_reconcile() -> None:
    async def scenario(s: Scene) -> None:
        assert s.enqueued == [("ns", "tune")]
        worker = await s.server.put("jobs", s.child("Job", "tune-a1", 1))
        await s.server.put("configmaps", s.child("ConfigMap", "tune-a1", data={"config.json": "{}"}))
        await s.server.put("services", s.child("Service", "tune-workers"))
        await s.server.put("pods", s.child("Pod", "tune-a1-0", 1, worker["metadata"]["uid"]))
        await s.server.put("jobs", {"kind": "Job", "metadata": {"namespace": "ns", "name": "foreign"}})
        for plural, name in [("jobs", "foreign"), ("configmaps", "tune-a1"), ("services", "tune-workers")]:
            await s.cached(plural, name)
        await s.cached("pods", "tune-a1-0")
        world = await s.view.world(s.job)
        assert [job["metadata"]["name"] for job in world.jobs] == ["tune-a1"]
        assert [pod["metadata"]["name"] for pod in world.pods] == ["tune-a1-0"]
        assert (world.config_maps, world.services) == (("tune-a1",), ("tune-workers",))
        assert s.enqueued == [("ns", "tune")] * 5

    on(scenario)


FOREIGN_CHILDREN = [
    pytest.param("Job", {"namespace": "other"}, id="Job of another namespace"),
    pytest.param("Job", {"ownerReferences": []}, id="Job with the label alone"),
    pytest.param("Job", {"controller": False}, id="Job that has another controller"),
    pytest.param("Job", {"kind": "Workflow"}, id="Job of another kind of owner"),
    pytest.param("Service", {"ownerReferences": []}, id="Service with the label alone"),
    pytest.param("Service", {"namespace": "other"}, id="Service of another namespace"),
    pytest.param("ConfigMap", {"ownerReferences": []}, id="ConfigMap with the label alone"),
    pytest.param("Pod", {"namespace": "other"}, id="Pod of another namespace"),
    pytest.param("Pod", {"namespace": "other", "ownerReferences": []}, id="bare Pod of another namespace"),
    pytest.param("Pod", {"name": "neighbour-a1"}, id="Pod of another Job"),
    pytest.param("Pod", {"kind": "ReplicaSet"}, id="Pod of another kind of owner"),
    pytest.param("Pod", {"kind": names.KIND}, id="Pod that claims to be a Job"),
]


@pytest.mark.parametrize(("kind", "difference"), FOREIGN_CHILDREN)
def test_a_label_makes_nothing_a_child(kind: str, difference: dict[str, Any]) -> None:
    """A forged child could end a job with a result of its own, or hold up its deletion for ever."""

    async def scenario(s: Scene) -> None:
        foreign = s.child(kind, "foreign", 1)
        whole = {
            key: value for key, value in difference.items() if key in foreign["metadata"] and key != "name"
        }
        foreign["metadata"] |= whole
        for reference in foreign["metadata"]["ownerReferences"]:
            reference.update({key: value for key, value in difference.items() if key not in whole})
        namespace, plural = foreign["metadata"]["namespace"], kind.lower() + "s"
        s.enqueued.clear()
        stored = await s.server.put(plural, foreign)
        await s.cached(plural, "foreign", namespace)
        world = await s.view.world(s.job)
        assert (world.jobs, world.pods, world.services, world.config_maps) == ((), (), (), ())
        assert not s.view.is_current_worker(namespace, "tune", stored["metadata"]["uid"])
        if kind != "Pod" or namespace == "other":
            assert s.enqueued == []

    on(scenario)


@pytest.mark.parametrize("owners", ["the Job that is there", "a Job of ours that is gone", "nobody"])
def test_pods_of_the_job_s_own_jobs_are_children_even_when_these_are_gone(owners: str) -> None:
    async def scenario(s: Scene) -> None:
        worker = await s.server.put("jobs", s.child("Job", "tune-a1", 1))
        await s.cached("jobs", "tune-a1")
        there = owners == "the Job that is there"
        pod = s.child("Pod", "p", 1 if there else 7, worker["metadata"]["uid"] if there else "")
        if owners == "nobody":  # its Job was deleted with --cascade=orphan
            pod["metadata"]["ownerReferences"] = []
        await s.server.put("pods", pod)
        await s.cached("pods", "p")
        assert [pod["metadata"]["name"] for pod in (await s.view.world(s.job)).pods] == ["p"]

    on(scenario)


def test_pods_that_are_read_past_the_cache_are_sorted_by_owner_too() -> None:
    async def scenario(s: Scene) -> None:
        done = {"conditions": [{"type": "Complete", "status": "True"}]}
        worker = await s.server.put("jobs", s.child("Job", "tune-a1", 1, status=done))
        await s.cached("jobs", "tune-a1")
        foreign = s.child("Pod", "foreign", 1, status={"phase": "Succeeded"})
        foreign["metadata"]["ownerReferences"][0]["name"] = "neighbour"
        await s.server.put("pods", foreign)
        await s.server.put("pods", s.child("Pod", "p", 1, worker["metadata"]["uid"]))
        assert [pod["metadata"]["name"] for pod in (await s.view.world(s.job)).pods] == ["p"]
        assert s.server.count("GET", "/namespaces/ns/pods?") == 1

    on(scenario)


def test_what_reconciles_do_not_read_asks_for_none() -> None:
    async def scenario(s: Scene) -> None:
        pod = await s.server.put("pods", s.child("Pod", "p", status={"phase": "Running"}))
        before = (await s.cached("pods", "p"))["metadata"]["resourceVersion"]
        s.enqueued.clear()
        pod["metadata"]["annotations"] = {"some": "controller"}
        await s.server.put("pods", pod)
        await until(lambda: s.caches.pods.store.get("ns", "p")["metadata"]["resourceVersion"] != before)  # type: ignore[index]
        assert s.enqueued == []
        pod["status"]["phase"] = "Failed"
        await s.server.put("pods", pod)
        await until(lambda: s.enqueued == [("ns", "tune")])

    on(scenario)


def test_the_counts_of_a_batch_job_ask_for_no_reconcile_but_its_end_does() -> None:
    async def scenario(s: Scene) -> None:
        template: dict[str, Any] = {"spec": {"containers": []}}
        worker = await s.server.put(
            "jobs", s.child("Job", "a1", 1, spec={"template": template, "parallelism": 2})
        )
        before = (await s.cached("jobs", "a1"))["metadata"]["resourceVersion"]
        s.enqueued.clear()
        worker["status"] = {"active": 2, "ready": 1, "startTime": "2030-01-01T00:00:00Z"}
        await s.server.put("jobs", worker)

        def cached() -> Any:
            return s.caches.child_jobs.store.get("ns", "a1")

        await until(lambda: cached()["metadata"]["resourceVersion"] != before)
        assert (cached()["spec"], cached()["status"]) == ({"parallelism": 2}, {})
        assert s.enqueued == []
        worker["status"] |= {"conditions": [{"type": "Failed", "status": "True"}], "failed": 2}
        await s.server.put("jobs", worker)
        await until(lambda: s.enqueued == [("ns", "tune")], "its end is looked at")
        assert cached()["status"] == {"conditions": [{"type": "Failed", "status": "True"}]}

    on(scenario)


def test_a_node_asks_for_the_jobs_that_have_pods_on_it() -> None:
    async def scenario(s: Scene) -> None:
        await s.server.put("pods", s.child("Pod", "p", spec={"nodeName": "node-1"}))
        await s.cached("pods", "p")
        s.enqueued.clear()
        ready = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}]
        for name in ("node-1", "node-2"):
            await s.server.put(
                "nodes", {"kind": "Node", "metadata": {"name": name}, "status": {"conditions": ready}}
            )
        await s.cached("nodes", "node-2", "")
        assert s.enqueued == [("ns", "tune")]
        assert set((await s.view.world(s.job)).nodes) == {"node-1", "node-2"}
        ready[0]["lastHeartbeatTime"] = "2"
        await s.server.put(
            "nodes", {"metadata": {"name": "node-1"}, "kind": "Node", "status": {"conditions": ready}}
        )
        await s.server.drop("nodes", "", "node-2")
        await until(lambda: len(s.caches.nodes.store) == 1)
        assert s.enqueued == [("ns", "tune")], "a heartbeat is no news"
        await s.server.drop("nodes", "", "node-1")
        await until(lambda: len(s.enqueued) == 2)

    on(scenario)


def test_a_write_of_ours_is_seen_before_the_watch_tells_of_it() -> None:
    async def scenario(s: Scene) -> None:
        for _ in s.caches.all:
            s.server.faults.append(Fault("GET", watch=True, hang=True))
        s.server.cut_watches()
        await until(lambda: not s.server.faults, "no watch tells anything any more")
        await s.view.execute(s.job, Plan(add_finalizer=True, status={"phase": "Pending"}))
        assert s.job["metadata"]["finalizers"] == [names.FINALIZER]
        assert s.job["status"] == {"phase": "Pending"}
        await s.view.execute(s.job, Plan(create=(s.child("Job", "tune-a1", 1) | {"apiVersion": "batch/v1"},)))
        assert len((await s.view.world(s.job)).jobs) == 1

    on(scenario)


def test_the_age_of_the_last_status_write_is_told() -> None:
    async def scenario(s: Scene) -> None:
        assert (await s.view.world(s.job)).seconds_since_status_write is None
        await s.view.execute(s.job, Plan(status={"phase": "Pending"}))
        s.clock = 12.0
        assert (await s.view.world(s.job)).seconds_since_status_write == 12.0

    on(scenario)


def test_references_are_asked_for_until_they_are_there_and_then_for_minutes_no_more() -> None:
    async def scenario(s: Scene) -> None:
        missing = {
            "configmap/faq": False,
            "persistentvolumeclaim/out": False,
            "secret/hub": False,
        }
        assert (await s.view.world(s.job)).references == missing
        await s.server.put("secrets", {"kind": "Secret", "metadata": {"namespace": "ns", "name": "hub"}})
        assert (await s.view.world(s.job)).references == missing | {"secret/hub": True}
        asked = s.server.count("GET", "/secrets/hub")
        await s.view.world(s.job)
        assert s.server.count("GET", "/secrets/hub") == asked
        s.clock = 301.0
        await s.view.world(s.job)
        assert s.server.count("GET", "/secrets/hub") == asked + 1

    on(scenario)


def test_without_the_right_to_look_a_reference_is_taken_to_exist() -> None:
    async def scenario(s: Scene) -> None:
        s.server.faults.append(Fault("GET", "/secrets/", status=403))
        assert (await s.view.world(s.job)).references["secret/hub"]

    on(scenario)


def test_secrets_are_not_looked_for_where_that_is_switched_off() -> None:
    async def scenario(s: Scene) -> None:
        assert (await s.view.world(s.job)).references["secret/hub"]
        assert s.server.count("GET", "/secrets/") == 0

    on(scenario, check_secrets=False)


def test_a_job_that_has_children_asks_for_no_references() -> None:
    async def scenario(s: Scene) -> None:
        await s.server.put("jobs", s.child("Job", "tune-prepare"))
        await s.cached("jobs", "tune-prepare")
        assert (await s.view.world(s.job)).references == {}
        assert s.server.count("GET", "/secrets/") == 0

    on(scenario)


def test_a_spec_that_cannot_be_read_names_no_references() -> None:
    async def scenario(s: Scene) -> None:
        s.caches.seen(FINETUNEJOBS, await s.server.put("finetunejobs", s.job | {"spec": {"model": 7}}))
        assert (await s.view.world(s.job)).references == {}

    on(scenario)


def test_pods_of_a_finished_job_are_read_where_their_watch_lags() -> None:
    async def scenario(s: Scene) -> None:
        done = {"conditions": [{"type": "Complete", "status": "True"}]}
        worker = await s.server.put("jobs", s.child("Job", "tune-a1", 1))
        pod = await s.server.put(
            "pods", s.child("Pod", "p", 1, worker["metadata"]["uid"], status={"phase": "Running"})
        )
        await s.cached("pods", "p")
        await s.cached("jobs", "tune-a1")
        s.server.faults.append(Fault("GET", "/pods", watch=True, hang=True))
        for task in list(s.server.open_watches):
            task.cancel()
        await until(lambda: not s.server.faults, "the watch of pods is silent")
        await s.server.put("pods", pod | {"status": {"phase": "Succeeded"}})
        await s.server.put("jobs", worker | {"status": done})
        await until(lambda: bool(s.caches.child_jobs.store.get("ns", "tune-a1")["status"]))  # type: ignore[index]
        assert s.caches.pods.store.get("ns", "p")["status"]["phase"] == "Running"  # type: ignore[index]
        lists = s.server.count("GET", "/namespaces/ns/pods?")
        assert (await s.view.world(s.job)).pods[0]["status"]["phase"] == "Succeeded"
        await s.view.world(s.job)
        assert s.server.count("GET", "/namespaces/ns/pods?") == lists + 1, "once is enough"

    on(scenario)


def test_pods_that_are_gone_are_looked_for_once() -> None:
    async def scenario(s: Scene) -> None:
        done = {"conditions": [{"type": "Failed", "status": "True"}]}
        await s.server.put("jobs", s.child("Job", "tune-a1", 1, status=done))
        await s.cached("jobs", "tune-a1")
        for _ in range(3):
            assert (await s.view.world(s.job)).pods == ()
        assert s.server.count("GET", "/namespaces/ns/pods?") == 1

    on(scenario)


def test_only_a_running_pod_of_the_newest_attempt_may_report() -> None:
    async def scenario(s: Scene) -> None:
        pods = {}
        for attempt in (1, 2):
            worker = await s.server.put("jobs", s.child("Job", f"tune-a{attempt}", attempt))
            pods[attempt] = await s.server.put(
                "pods", s.child("Pod", f"p{attempt}", attempt, worker["metadata"]["uid"])
            )
        prepare = s.child("Pod", "prepare")
        prepare["metadata"]["labels"][names.LABEL_COMPONENT] = names.COMPONENT_PREPARE
        pods[0] = await s.server.put("pods", prepare)
        await s.cached("pods", "prepare")
        await s.cached("jobs", "tune-a2")

        def may_report(attempt: int, namespace: str = "ns", name: str = "tune") -> bool:
            return s.view.is_current_worker(namespace, name, pods[attempt]["metadata"]["uid"])

        assert [may_report(attempt) for attempt in (0, 1, 2)] == [False, False, True]
        assert not may_report(2, "other")
        assert not may_report(2, name="other")
        assert not s.view.is_current_worker("ns", "tune", "no such pod")
        await s.server.put("pods", pods[2] | {"status": {"phase": "Failed"}})
        await until(lambda: s.caches.pods.store.get("ns", "p2")["status"] != {})  # type: ignore[index]
        assert not may_report(2)

    on(scenario)


def test_a_job_that_is_gone_or_made_anew_is_told() -> None:
    async def scenario(s: Scene) -> None:
        first = s.job["metadata"]["uid"]
        await s.server.put("finetunejobs", s.job | {"metadata": {**s.job["metadata"], "uid": "second"}})
        await until(lambda: s.gone == [first])
        await s.server.drop("finetunejobs", "ns", "tune")
        await until(lambda: s.gone == [first, "second"])
        assert s.view.job("ns", "tune") is None

    on(scenario)
