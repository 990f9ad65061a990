"""Tokens as the real API server makes and judges them: only a pod's own, for its own job, is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hack.devcluster.cluster import DevCluster
from tunewright.cluster.client import Client
from tunewright.cluster.credentials import load_credentials
from tunewright.cluster.transport import Transport
from tunewright.core import names
from tunewright.server.progress import Identity, TokenChecker

pytestmark = pytest.mark.cluster


def identity(cluster: DevCluster, token: str, audience: str) -> Identity | None:
    async def main() -> Identity | None:
        async with Client(Transport(load_credentials({}, cluster.kubeconfig))) as client:
            return await TokenChecker(client).identity(token, audience)

    return asyncio.run(main())


def pod_of(cluster: DevCluster, namespace: str) -> dict[str, Any]:
    """A pod that is never scheduled: only its name and uid matter."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {
            "nodeSelector": {"no-such-label": "x"},
            "containers": [{"name": "c", "image": "python", "command": ["true"]}],
        },
    }
    cluster.apply(pod, namespace=namespace)
    return cluster.get("pod", "worker", namespace)


def token_of(cluster: DevCluster, namespace: str, *arguments: str) -> str:
    return cluster.kubectl("create", "token", "default", "--namespace", namespace, *arguments).stdout.strip()


def bound_to(pod: dict[str, Any]) -> tuple[str, ...]:
    metadata = pod["metadata"]
    return (
        "--bound-object-kind=Pod",
        f"--bound-object-name={metadata['name']}",
        f"--bound-object-uid={metadata['uid']}",
    )


def test_only_a_token_of_a_pod_for_this_job_is_believed(dev_cluster: DevCluster, namespace: str) -> None:
    pod = pod_of(dev_cluster, namespace)
    audience = names.progress_audience(namespace, "tune")
    good = token_of(dev_cluster, namespace, f"--audience={audience}", *bound_to(pod))
    assert identity(dev_cluster, good, audience) == Identity(namespace, pod["metadata"]["uid"])
    assert identity(dev_cluster, good, names.progress_audience(namespace, "other")) is None
    without_pod = token_of(dev_cluster, namespace, f"--audience={audience}")
    assert identity(dev_cluster, without_pod, audience) is None
    for_the_api = token_of(dev_cluster, namespace, *bound_to(pod))
    assert identity(dev_cluster, for_the_api, audience) is None
    assert identity(dev_cluster, good[:-4] + "AAAA", audience) is None
    assert identity(dev_cluster, "nonsense", audience) is None
