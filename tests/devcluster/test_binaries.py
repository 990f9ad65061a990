"""The cluster's programs are ours, but for those that an envtest folder supplies."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.devcluster import binaries
from hack.devcluster.state import ClusterError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubernetes"
    path.write_text("")
    monkeypatch.setattr(binaries, "cluster_binary_path", lambda: path)
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return path


def test_all_programs_are_links_to_our_binary(own: Path, tmp_path: Path) -> None:
    binaries.link_programs(tmp_path / "bin")
    links = {path.name: path.resolve() for path in (tmp_path / "bin").iterdir()}
    assert links == dict.fromkeys(binaries.PROGRAMS, own)


def test_an_envtest_folder_supplies_what_it_has(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl", "kube-scheduler"):
        (assets / name).write_text("")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    binaries.link_programs(tmp_path / "bin")
    assert (tmp_path / "bin" / "etcd").resolve() == assets / "etcd"
    assert (tmp_path / "bin" / "kube-scheduler").resolve() == own
    assert (tmp_path / "bin" / "kube-controller-manager").resolve() == own


def test_a_missing_binary_says_how_to_build_it(own: Path, tmp_path: Path) -> None:
    own.unlink()
    with pytest.raises(ClusterError, match=r"hack/bootstrap\.py cluster-binary"):
        binaries.link_programs(tmp_path / "bin")
