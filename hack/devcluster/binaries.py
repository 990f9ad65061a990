"""Finds the programs of the cluster; building them is hack/bootstrap.py's work."""

from __future__ import annotations

import os
from pathlib import Path

from hack.bootstrap import cluster_binary_path
from hack.devcluster.state import ClusterError

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
ENVTEST_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
"""What a KUBEBUILDER_ASSETS folder holds; the other two always come from our own binary."""


def link_programs(folder: Path) -> None:
    """Fill ``folder`` with one link per program, named as the program.

    Raises ClusterError when our own binary has not been built.
    """
    own = cluster_binary_path()
    if not own.is_file():
        raise ClusterError(
            "The cluster's programs are not built; run: python3 hack/bootstrap.py cluster-binary"
        )
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    folder.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        target = own
        if assets and program in ENVTEST_PROGRAMS and (Path(assets) / program).is_file():
            target = (Path(assets) / program).resolve()
        link = folder / program
        link.unlink(missing_ok=True)
        link.symlink_to(target)
