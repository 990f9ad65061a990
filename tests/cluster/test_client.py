"""The client and the writer against the real API server: what the unit tests' server claims holds here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from hack.devcluster.cluster import DevCluster
from tunewright.cluster.apply import Applier
from tunewright.cluster.client import Client
from tunewright.cluster.credentials import load_credentials
from tunewright.cluster.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.informer import Informer
from tunewright.cluster.lease import Elector
from tunewright.cluster.resources import CONFIGMAPS, EVENTS, JOBS, LEASES, SECRETS, Resource
from tunewright.cluster.transport import Transport
from tunewright.core.model import Deletion, Event, Plan

pytestmark = pytest.mark.cluster


def with_client(cluster: DevCluster, scenario: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Client(Transport(load_credentials({}, cluster.kubeconfig))) as client:
            await asyncio.wait_for(scenario(client), 60)

    asyncio.run(main())


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "labels": {"test": "client"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_every_verb(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        stored = await client.create(CONFIGMAPS, config_map(namespace, x="1"))
        with pytest.raises(AlreadyExists):
            await client.create(CONFIGMAPS, config_map(namespace))
        replaced = await client.replace(CONFIGMAPS, stored | {"data": {"x": "2"}})
        with pytest.raises(Conflict):
            await client.replace(CONFIGMAPS, stored)
        merged = await client.patch(CONFIGMAPS, namespace, "a", {"data": {"y": "3"}})
        assert merged["data"] == {"x": "2", "y": "3"}
        step = [{"op": "remove", "path": "/data/y"}]
        assert (await client.patch(CONFIGMAPS, namespace, "a", step, patch_type="json"))["data"] == {"x": "2"}
        applied = await client.patch(
            CONFIGMAPS, namespace, "a", config_map(namespace, x="4"), patch_type="apply", force=True
        )
        assert applied["data"] == {"x": "4"}
        with pytest.raises(Invalid):
            await client.create(CONFIGMAPS, config_map(namespace, "Not A Name"))
        with pytest.raises(Conflict):
            await client.delete(CONFIGMAPS, namespace, "a", uid="another")
        old = replaced["metadata"]["resourceVersion"]
        with pytest.raises(Conflict):
            await client.delete(CONFIGMAPS, namespace, "a", resource_version=old)
        await client.delete(CONFIGMAPS, namespace, "a", uid=stored["metadata"]["uid"])
        with pytest.raises(NotFound):
            await client.get(CONFIGMAPS, namespace, "a")

    with_client(dev_cluster, scenario)


def test_metadata_only_leaves_secrets_where_they_are(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        secret = {"metadata": {"namespace": namespace, "name": "s"}, "stringData": {"token": "hunter2"}}
        await client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", **secret})
        answer = await client.get(SECRETS, namespace, "s", metadata_only=True)
        assert answer["kind"] == "PartialObjectMetadata"
        assert set(answer) == {"apiVersion", "kind", "metadata"}
        listed, _ = await client.list(SECRETS, namespace, metadata_only=True)
        assert all("data" not in item for item in listed)

    with_client(dev_cluster, scenario)


def test_lists_in_pages_and_watches_from_there(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        for index in range(5):
            await client.create(CONFIGMAPS, config_map(namespace, f"c{index}"))
        items, version = await client.list(CONFIGMAPS, namespace, label_selector="test=client", page_size=2)
        assert [item["metadata"]["name"] for item in items] == [f"c{index}" for index in range(5)]
        await client.patch(CONFIGMAPS, namespace, "c1", {"data": {"x": "1"}})
        await client.create(CONFIGMAPS, config_map(namespace, "new"))
        await client.delete(CONFIGMAPS, namespace, "c2")
        seen = []
        watch = client.watch(
            CONFIGMAPS, namespace, resource_version=version, label_selector="test=client"
        )  # fmt: skip
        async with aclosing(watch) as events:
            async for kind, manifest in events:
                seen.append((kind, manifest["metadata"]["name"]))
                if len(seen) == 3:
                    break
        assert seen == [("MODIFIED", "c1"), ("ADDED", "new"), ("DELETED", "c2")]

    with_client(dev_cluster, scenario)


def test_versions_of_different_states_are_numbers_that_grow(dev_cluster: DevCluster, namespace: str) -> None:
    """The store relies on it to tell which of two states is newer."""

    async def scenario(client: Client) -> None:
        first = await client.create(CONFIGMAPS, config_map(namespace, "one"))
        second = await client.create(CONFIGMAPS, config_map(namespace, "two"))
        third = await client.patch(CONFIGMAPS, namespace, "one", {"data": {"x": "1"}})
        versions = [int(manifest["metadata"]["resourceVersion"]) for manifest in (first, second, third)]
        _, listed = await client.list(CONFIGMAPS, namespace)
        assert versions == sorted(versions)
        assert versions[-1] <= int(listed)

    with_client(dev_cluster, scenario)


def test_a_namespace_that_goes_away_says_so(dev_cluster: DevCluster, namespace: str) -> None:
    blocker = config_map(namespace, "blocker") | {}
    blocker["metadata"]["finalizers"] = ["tunewright.dev/test"]

    async def scenario(client: Client) -> None:
        await client.create(CONFIGMAPS, blocker)
        await asyncio.to_thread(dev_cluster.kubectl, "delete", "namespace", namespace, "--wait=false")
        with pytest.raises(Forbidden) as caught:
            await client.create(CONFIGMAPS, config_map(namespace, "late"))
        assert caught.value.namespace_terminating
        await client.patch(CONFIGMAPS, namespace, "blocker", {"metadata": {"finalizers": None}})
        await asyncio.to_thread(dev_cluster.kubectl, "wait", "--for=delete", f"namespace/{namespace}")
        await asyncio.to_thread(dev_cluster.kubectl, "create", "namespace", namespace)

    with_client(dev_cluster, scenario)


def test_an_informer_follows_a_namespace(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        changed = asyncio.Event()
        informer = Informer(
            client, CONFIGMAPS, namespace=namespace, label_selector="test=client", metadata_only=True,
            on_change=lambda old, new: changed.set(),
        )  # fmt: skip
        task = asyncio.create_task(informer.run())
        await informer.synced.wait()

        async def names(wanted: set[str]) -> None:
            while {manifest["metadata"]["name"] for manifest in informer.store} != wanted:
                changed.clear()
                await changed.wait()

        await client.create(CONFIGMAPS, config_map(namespace, "a"))
        await client.create(CONFIGMAPS, config_map(namespace, "b"))
        await names({"a", "b"})
        await client.delete(CONFIGMAPS, namespace, "a")
        await names({"b"})
        assert all("data" not in manifest for manifest in informer.store)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with_client(dev_cluster, scenario)


def test_deletions_spare_a_successor(dev_cluster: DevCluster, namespace: str) -> None:
    """The words by which the writer tells a uid that does not match from other conflicts."""

    async def scenario(client: Client) -> None:
        gone: list[str] = []

        def note(resource: Resource, manifest: dict[str, Any]) -> None:
            gone.append(manifest["metadata"]["uid"])

        applier = Applier(client, EventRecorder(client, "test"), gone=note)
        await client.create(CONFIGMAPS, config_map(namespace))
        await applier._delete(Deletion("configmaps", namespace, "a", "00000000-0000-0000-0000-000000000001"))
        assert gone == ["00000000-0000-0000-0000-000000000001"]
        await client.get(CONFIGMAPS, namespace, "a")

    with_client(dev_cluster, scenario)


def test_a_job_with_pods_lingers_and_is_seen_so(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        seen: list[dict[str, Any]] = []
        applier = Applier(
            client, EventRecorder(client, "test"), seen=lambda _, manifest: seen.append(manifest)
        )
        container = {"name": "c", "image": "python", "command": ["sleep", "60"]}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"namespace": namespace, "name": "job", "finalizers": ["tunewright.dev/test"]},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
        stored = await client.create(JOBS, job)
        await applier._delete(Deletion("jobs", namespace, "job", stored["metadata"]["uid"]))
        assert seen[0]["metadata"]["deletionTimestamp"]
        await client.patch(JOBS, namespace, "job", {"metadata": {"finalizers": None}})

    with_client(dev_cluster, scenario)


def test_events_are_accepted_and_counted(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        regarding = await client.create(CONFIGMAPS, config_map(namespace))
        recorder = EventRecorder(client, "test-pod")
        writing = asyncio.create_task(recorder.run())
        applier = Applier(client, recorder)
        event = Event("Warning", "OutOfMemory", "Rank 1 ran out of memory. " + "ü" * 1000)
        for _ in range(3):
            await applier.execute(regarding, Plan(events=(event,)))
        await recorder.flush(20)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert recorder.dropped == 0
        (stored,), _ = await client.list(EVENTS, namespace)
        assert stored["series"]["count"] == 3
        assert stored["reason"] == "OutOfMemory"

    with_client(dev_cluster, scenario)
    shown = dev_cluster.kubectl("events", "--namespace", namespace, "--for", "configmap/a").stdout
    assert "OutOfMemory" in shown


def test_one_of_two_electors_leads_and_hands_over(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        one, two = (Elector(client, namespace, "lease", name) for name in ("one", "two"))
        await one.acquire()
        waiting = asyncio.create_task(two.acquire())
        await one._try()
        assert one.is_leader()
        assert not two.is_leader()
        await one.release()
        await asyncio.wait_for(waiting, 5)
        assert two.is_leader()
        lease = await client.get(LEASES, namespace, "lease")
        assert lease["spec"]["holderIdentity"] == "two"
        assert lease["spec"]["leaseTransitions"] == 1

    with_client(dev_cluster, scenario)


def test_writes_are_told_apart_in_the_audit_log(dev_cluster: DevCluster, namespace: str) -> None:
    async def scenario(client: Client) -> None:
        await client.create(CONFIGMAPS, config_map(namespace, "audited"))

    with_client(dev_cluster, scenario)

    def audited() -> bool:
        entries = map(json.loads, dev_cluster.audit_log.read_text().splitlines())
        return any(
            entry.get("objectRef", {}).get("name") == "audited"
            and entry["userAgent"].startswith("tunewright/")
            for entry in entries
        )

    dev_cluster.wait_for(audited, 10, "the audit log to name the client")
