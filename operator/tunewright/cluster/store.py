"""The cache of one resource type: never goes back in time, and finds objects by label or owner."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

from tunewright.core.model import Manifest

Key = tuple[str, str]
"""Namespace ("" for cluster-scoped resources) and name."""
Indexer = Callable[[Manifest], Iterable[str]]
OnChange = Callable[[Manifest | None, Manifest | None], None]
"""Called with the object before and after; one of them is None for a creation or a deletion."""

REMEMBERED_DELETIONS = 4096


def key_of(manifest: Manifest) -> Key:
    """Namespace and name of a manifest."""
    metadata = manifest["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class Store:
    """Objects by key, fed by several sources that race: lists, watches, answers to our own writes.

    An object replaces another of the same uid only if its resource version is higher, and one whose
    deletion was seen never comes back: so a source that lags can't undo what another one told.
    """

    def __init__(
        self,
        *,
        indexers: Mapping[str, Indexer] | None = None,
        strip: Callable[[Manifest], Manifest] = lambda manifest: manifest,
        on_change: OnChange | None = None,
    ) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._indexers = dict(indexers or {})
        self._indices: dict[str, dict[str, dict[Key, None]]] = {name: {} for name in self._indexers}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._strip = strip
        self._on_change = on_change or (lambda old, new: None)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Manifest]:
        return iter(list(self._objects.values()))

    def get(self, namespace: str | None, name: str) -> Manifest | None:
        """The cached object: to be read, never to be changed."""
        return self._objects.get((namespace or "", name))

    def by_index(self, index: str, value: str) -> list[Manifest]:
        """All objects for which indexer ``index`` gave ``value``."""
        return [self._objects[key] for key in self._indices[index].get(value, ())]

    def upsert(self, manifest: Manifest) -> bool:
        """Take in an object as it was seen. False if what we hold is as new, or its deletion was seen."""
        key, metadata = key_of(manifest), manifest["metadata"]
        if metadata.get("uid") in self._deleted:
            return False
        old = self._objects.get(key)
        if old is not None and not _newer(metadata, old["metadata"]):
            return False
        new = self._strip(manifest)
        if old is not None:
            self._unindex(key, old)
            if old["metadata"].get("uid") != metadata.get("uid"):
                self._bury(old["metadata"].get("uid"))
        self._objects[key] = new
        self._index(key, new)
        self._on_change(old, new)
        return True

    def remove(self, manifest: Manifest) -> bool:
        """Take out a deleted object. False if it was not held; a successor of the same name stays."""
        key, uid = key_of(manifest), manifest["metadata"].get("uid")
        self._bury(uid)
        old = self._objects.get(key)
        if old is None or (uid and old["metadata"].get("uid") != uid):
            return False
        self._drop(key, old)
        return True

    def replace(self, manifests: Iterable[Manifest], resource_version: str) -> None:
        """Become a list as of ``resource_version``: what it lacks was deleted while nobody watched, except
        for objects that are newer than the list (an answer to a write of ours that overtook it)."""
        listed = {key_of(manifest): manifest for manifest in manifests}
        for key, old in list(self._objects.items()):
            if key not in listed and not _is_after(old["metadata"].get("resourceVersion"), resource_version):
                self._bury(old["metadata"].get("uid"))
                self._drop(key, old)
        for manifest in listed.values():
            self.upsert(manifest)

    def renotify(self) -> None:
        """Tell of every object as if it had changed."""
        for manifest in self:
            self._on_change(manifest, manifest)

    def _drop(self, key: Key, old: Manifest) -> None:
        del self._objects[key]
        self._unindex(key, old)
        self._on_change(old, None)

    def _bury(self, uid: str | None) -> None:
        if uid:
            self._deleted[uid] = None
            while len(self._deleted) > REMEMBERED_DELETIONS:
                self._deleted.popitem(last=False)

    def _index(self, key: Key, manifest: Manifest) -> None:
        for name, indexer in self._indexers.items():
            for value in indexer(manifest):
                self._indices[name].setdefault(value, {})[key] = None

    def _unindex(self, key: Key, manifest: Manifest) -> None:
        for name, indexer in self._indexers.items():
            index = self._indices[name]
            for value in indexer(manifest):
                keys = index.get(value, {})
                keys.pop(key, None)
                if not keys:
                    index.pop(value, None)


def _newer(candidate: Mapping[str, str], held: Mapping[str, str]) -> bool:
    """Is ``candidate`` a later state than ``held``? A successor (another uid) is judged by version too: the
    API server counts versions of one resource type up, whoever the object is."""
    if candidate.get("resourceVersion") == held.get("resourceVersion"):
        return candidate.get("uid") != held.get("uid")
    return not _is_after(held.get("resourceVersion"), candidate.get("resourceVersion"))


def _is_after(one: str | None, other: str | None) -> bool:
    """Is version ``one`` later than ``other``? False when a server uses versions that are not numbers."""
    try:
        return int(one or "") > int(other or "")
    except ValueError:
        return False
