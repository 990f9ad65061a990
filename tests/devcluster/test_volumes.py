"""Files of a volume change all at once and never leave their volume."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hack.devcluster.identity import Identity
from hack.devcluster.storage import (
    ASKED_PROVISIONER,
    PROVISIONER,
    SELECTED_NODE,
    is_released,
    volume_for,
    wants_volume,
)
from hack.devcluster.volumes import Files, MountError, object_data, replace_files
from tests.devcluster.builders import Object

CALLER = Identity(None, (), "")


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith("..")}


def test_files_are_replaced_together(tmp_path: Path) -> None:
    replace_files(tmp_path, {"a": (b"1", 0o644), "b": (b"2", 0o400)}, CALLER)
    assert read(tmp_path) == {"a": "1", "b": "2"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o400
    held = (tmp_path / "..data").resolve()
    replace_files(tmp_path, {"a": (b"3", 0o644)}, CALLER)
    assert read(tmp_path) == {"a": "3"}
    assert not held.exists()


def test_unchanged_files_are_left_alone(tmp_path: Path) -> None:
    files: Files = {"a": (b"1", 0o644), "deep/b": (b"2", 0o644)}
    replace_files(tmp_path, files, CALLER)
    before = (tmp_path / "..data").readlink()
    replace_files(tmp_path, files, CALLER)
    assert (tmp_path / "..data").readlink() == before
    assert (tmp_path / "deep" / "b").read_text() == "2"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_a_path_out_of_the_volume_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MountError, match="out of its volume"):
        replace_files(tmp_path, {name: (b"", 0o644)}, CALLER)


def test_object_data_decodes_what_the_api_encodes() -> None:
    encoded = base64.b64encode(b"\x00x").decode()
    assert object_data({"kind": "Secret", "data": {"k": encoded}}) == {"k": b"\x00x"}
    config = {"kind": "ConfigMap", "data": {"t": "é"}, "binaryData": {"b": encoded}}
    assert object_data(config) == {"t": "é".encode(), "b": b"\x00x"}


def claim(**changes: object) -> Object:
    annotations = {ASKED_PROVISIONER: PROVISIONER, SELECTED_NODE: "node-0"}
    built: Object = {
        "metadata": {"name": "data", "namespace": "team", "uid": "u", "annotations": annotations},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "local-folder",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Pending"},
    }
    for path, value in changes.items():
        built[path] |= value
    return built


def test_only_a_claim_with_a_consumer_gets_a_volume() -> None:
    assert wants_volume(claim())
    assert not wants_volume(claim(metadata={"annotations": {ASKED_PROVISIONER: PROVISIONER}}))
    other = {ASKED_PROVISIONER: "another", SELECTED_NODE: "node-0"}
    assert not wants_volume(claim(metadata={"annotations": other}))
    assert not wants_volume(claim(status={"phase": "Bound"}))


def test_a_volume_is_for_its_claim_alone_and_goes_with_it(tmp_path: Path) -> None:
    volume = volume_for(claim(), tmp_path)
    assert volume["spec"]["claimRef"]["uid"] == "u"
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert is_released(volume | {"status": {"phase": "Released"}})
    assert not is_released(volume | {"status": {"phase": "Bound"}})
