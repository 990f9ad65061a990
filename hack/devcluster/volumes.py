"""Backs a pod's volumes with folders: emptyDir, ConfigMap, Secret, projected, downward API and claims."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.devcluster.api import UNREACHABLE, Api, ApiError, Object
from hack.devcluster.fields import FieldError, pod_field, resource_field
from hack.devcluster.identity import Identity
from hack.devcluster.state import write_file

Files = dict[str, tuple[bytes, int]]
"""Relative path to content and mode."""

DEFAULT_TOKEN_SECONDS = 3600
TOKEN_REFRESH_FRACTION = 0.8
PLAYED = ("emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim")


class MountError(Exception):
    """A volume can't be set up yet; what is missing may still come."""


@dataclass
class PodVolumes:
    """The volumes of one pod. ``storage``: where persistent volumes lie."""

    api: Api
    pod: Object
    folder: Path
    storage: Path
    identity: Identity
    clock: Callable[[], float] = time.monotonic
    _token_due: dict[str, float] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    """Volume name to the folder that backs it, once mounted."""

    async def mount(self) -> None:
        """Set up every volume; raises MountError, and may be called again."""
        for volume in self.pod["spec"].get("volumes") or []:
            if volume["name"] not in self.folders:
                self.folders[volume["name"]] = await self._set_up(volume)

    async def refresh(self) -> None:
        """Bring files of ConfigMaps, Secrets and tokens up to date; raises MountError."""
        for volume in self.pod["spec"].get("volumes") or []:
            if volume["name"] in self.folders and not {"emptyDir", "persistentVolumeClaim"} & set(volume):
                await self._set_up(volume)

    async def _set_up(self, volume: Object) -> Path:
        name: str = volume["name"]
        try:
            if "persistentVolumeClaim" in volume:
                return await self._claim_folder(volume["persistentVolumeClaim"]["claimName"])
            folder = self.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                folder.chmod(0o777)
                self.identity.give(folder)
            else:
                replace_files(folder, await self._files(volume), self.identity)
            return folder
        except (ApiError, FieldError, *UNREACHABLE) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error

    async def _claim_folder(self, claim_name: str) -> Path:
        namespace = self.pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim_name}"
        claim = await self.api.get(path)
        volume_name = claim["spec"].get("volumeName")
        if not volume_name or claim["status"].get("phase") != "Bound":
            raise MountError(f'persistentvolumeclaim "{claim_name}" is not bound')
        volume = await self.api.get(f"/api/v1/persistentvolumes/{volume_name}")
        folder = Path((volume["spec"].get("hostPath") or {}).get("path", "/"))
        if folder.parent != self.storage:
            raise MountError(f'persistentvolume "{volume_name}" is not one of the local-folder class')
        return folder

    async def _files(self, volume: Object) -> Files:
        for kind in ("configMap", "secret", "projected", "downwardAPI"):
            if kind in volume:
                source = volume[kind]
                mode = source.get("defaultMode", 0o644)
                if kind != "projected":
                    return await self._source(kind, source, mode, source.get("secretName"))
                files: Files = {}
                for entry in source.get("sources") or []:
                    for part, details in entry.items():
                        files |= await self._source(part, details, mode, details.get("name"))
                return files
        raise MountError(f"volumes of type {set(volume) - {'name'}} are not played; {', '.join(PLAYED)} are")

    async def _source(self, kind: str, source: Object, mode: int, secret_name: str | None) -> Files:
        match kind:
            case "configMap":
                return await self._object_files("configmaps", source["name"], source, mode)
            case "secret":
                return await self._object_files("secrets", secret_name or source["name"], source, mode)
            case "downwardAPI":
                return {
                    item["path"]: (self._downward(item).encode(), item.get("mode", mode))
                    for item in source.get("items") or []
                }
            case "serviceAccountToken":
                return {source["path"]: ((await self._token(source)).encode(), 0o600)}
        raise MountError(f"projected sources of type {kind} are not played")

    def _downward(self, item: Object) -> str:
        if "fieldRef" in item:
            return pod_field(self.pod, item["fieldRef"]["fieldPath"])
        return resource_field(self.pod, item["resourceFieldRef"])

    async def _object_files(self, plural: str, name: str, source: Object, mode: int) -> Files:
        namespace = self.pod["metadata"]["namespace"]
        optional = bool(source.get("optional"))
        try:
            found = await self.api.get(f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except ApiError as error:
            if error.status == 404 and optional:
                return {}
            raise
        content = object_data(found)
        items = source.get("items")
        if items is None:
            return {key: (value, mode) for key, value in content.items()}
        missing = [item["key"] for item in items if item["key"] not in content]
        if missing and not optional:
            raise MountError(f"references non-existent config key: {missing[0]} of {plural} {name}")
        return {
            item["path"]: (content[item["key"]], item.get("mode", mode))
            for item in items
            if item["key"] in content
        }

    async def _token(self, source: Object) -> str:
        """A token bound to the pod, asked again once 80% of its life is over."""
        slot = f"{source.get('audience', '')}/{source['path']}"
        if self.clock() >= self._token_due.get(slot, 0):
            seconds = source.get("expirationSeconds", DEFAULT_TOKEN_SECONDS)
            metadata = self.pod["metadata"]
            account = self.pod["spec"].get("serviceAccountName") or "default"
            path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
            bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            spec: dict[str, Any] = {"expirationSeconds": seconds, "boundObjectRef": bound}
            spec["audiences"] = [source["audience"]] if source.get("audience") else []
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            answer = await self.api.create(path, body)
            self._tokens[slot] = answer["status"]["token"]
            self._token_due[slot] = self.clock() + seconds * TOKEN_REFRESH_FRACTION
        return self._tokens[slot]


def object_data(found: Object) -> dict[str, bytes]:
    """The keys of a ConfigMap or Secret with their content."""
    data = found.get("data") or {}
    if found.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    binary = found.get("binaryData") or {}
    return {key: value.encode() for key, value in data.items()} | {
        key: base64.b64decode(value) for key, value in binary.items()
    }


def replace_files(folder: Path, files: Files, identity: Identity) -> None:
    """Put ``files`` into ``folder`` all at once, kubelet's way: names are links through ``..data``.

    A reader sees the old files or the new ones, never some of both.
    """
    current = folder / "..data"
    if current.is_symlink() and _read_files(current) == {name: data for name, (data, _) in files.items()}:
        return
    fresh = folder / f"..{time.time_ns()}"
    fresh.mkdir()
    identity.give(fresh)
    for name, (data, mode) in files.items():
        path = fresh / name
        if not path.resolve().is_relative_to(fresh.resolve()):
            raise MountError(f"path {name!r} leads out of its volume")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data, mode)
        identity.give(path)
    old = folder / os.readlink(current) if current.is_symlink() else None
    link = folder / "..data_tmp"
    link.symlink_to(fresh.name)
    link.replace(current)
    _update_links(folder, {name.split("/")[0] for name in files})
    if old is not None:
        _remove_tree(old)


def _update_links(folder: Path, names: set[str]) -> None:
    for path in folder.iterdir():
        if not path.name.startswith("..") and path.name not in names:
            path.unlink()
    for name in names:
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(Path("..data", name))


def _read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _remove_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
