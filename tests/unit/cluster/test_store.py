"""The cache never goes back in time, whoever feeds it."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.cluster.store import Store

Manifest = dict[str, Any]


def pod(name: str, version: int, uid: str = "", **labels: str) -> Manifest:
    metadata = {"namespace": "ns", "name": name, "uid": uid or f"uid-{name}"}
    return {"metadata": metadata | {"resourceVersion": str(version), "labels": labels}}


@pytest.fixture
def told() -> list[tuple[int | None, int | None]]:
    return []


@pytest.fixture
def store(told: list[tuple[int | None, int | None]]) -> Store:
    def version(manifest: Manifest | None) -> int | None:
        return int(manifest["metadata"]["resourceVersion"]) if manifest else None

    return Store(
        indexers={"team": lambda manifest: manifest["metadata"]["labels"].values()},
        on_change=lambda old, new: told.append((version(old), version(new))),
    )


def test_an_older_state_is_refused(store: Store, told: list[Any]) -> None:
    assert store.upsert(pod("a", 9))
    assert not store.upsert(pod("a", 9)), "the same state twice is no news"
    assert not store.upsert(pod("a", 8))
    assert store.upsert(pod("a", 10)), "versions are numbers, not strings"
    assert told == [(None, 9), (9, 10)]


def test_a_deleted_object_does_not_come_back(store: Store, told: list[Any]) -> None:
    store.upsert(pod("a", 1))
    store.remove(pod("a", 2))
    assert not store.upsert(pod("a", 3)), "an answer to a write that was late"
    assert store.upsert(pod("a", 4, uid="successor"))
    assert told == [(None, 1), (1, None), (None, 4)]


def test_a_late_deletion_spares_the_successor(store: Store) -> None:
    store.upsert(pod("a", 5, uid="successor"))
    assert not store.remove(pod("a", 4, uid="predecessor"))
    assert store.get("ns", "a") == pod("a", 5, uid="successor")


def test_a_successor_buries_its_predecessor(store: Store) -> None:
    store.upsert(pod("a", 1, uid="first"))
    store.upsert(pod("a", 3, uid="second"))
    assert not store.upsert(pod("a", 4, uid="first"))


def test_replace_tells_of_deletions_that_nobody_saw(store: Store, told: list[Any]) -> None:
    store.upsert(pod("a", 1))
    store.upsert(pod("b", 2))
    store.replace([pod("b", 2), pod("c", 4)], "5")
    assert told == [(None, 1), (None, 2), (1, None), (None, 4)]


def test_replace_spares_what_is_newer_than_the_list(store: Store) -> None:
    store.upsert(pod("a", 12))
    store.replace([], "11")
    assert store.get("ns", "a") == pod("a", 12)
    store.replace([], "12")
    assert store.get("ns", "a") is None


def test_indices_follow_changes_and_deletions(store: Store) -> None:
    store.upsert(pod("a", 1, x="red", y="blue"))
    store.upsert(pod("b", 2, x="red"))
    assert store.by_index("team", "red") == [pod("a", 1, x="red", y="blue"), pod("b", 2, x="red")]
    store.upsert(pod("a", 3, x="green"))
    assert store.by_index("team", "red") == [pod("b", 2, x="red")]
    assert store.by_index("team", "blue") == []
    store.remove(pod("b", 4))
    assert store.by_index("team", "red") == []


def test_cluster_scoped_objects_have_no_namespace() -> None:
    store = Store()
    store.upsert({"metadata": {"name": "node", "uid": "u", "resourceVersion": "1"}})
    assert store.get(None, "node") is store.get("", "node") is not None


def test_what_is_stored_is_stripped() -> None:
    store = Store(strip=lambda manifest: {"metadata": manifest["metadata"]})
    store.upsert(pod("a", 1) | {"spec": {"big": True}})
    assert store.get("ns", "a") == pod("a", 1)


def test_renotify_tells_of_every_object(store: Store, told: list[Any]) -> None:
    store.upsert(pod("a", 1))
    store.upsert(pod("b", 2))
    told.clear()
    store.renotify()
    assert told == [(1, 1), (2, 2)]
