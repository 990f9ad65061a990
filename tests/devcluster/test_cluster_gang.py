"""Two pods of an Indexed Job find each other by name and train together."""

from __future__ import annotations

import json

import pytest

from hack.devcluster.cluster import DevCluster
from tests.devcluster.builders import Object, container

pytestmark = pytest.mark.cluster

ALL_REDUCE = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("sum", total.item(), "of", dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""


def gang(port: int) -> tuple[Object, ...]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "workers"},
        "spec": {"clusterIP": "None", "selector": {"job": "gang"}, "publishNotReadyAddresses": True},
    }
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "script"},
        "data": {"sum.py": ALL_REDUCE},
    }
    command = ["torchrun", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=gang"]
    command += [f"--rdzv-endpoint=gang-0.workers:{port}", "--local-addr=$(POD_IP)", "/script/sum.py"]
    main = container(
        command=command,
        env=[
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "OMP_NUM_THREADS", "value": "1"},
            {"name": "GLOO_SOCKET_IFNAME", "value": "lo"},
        ],
        volumeMounts=[{"name": "script", "mountPath": "/script"}],
        resources={"limits": {"nvidia.com/gpu": "1"}},
    )
    template = {
        "metadata": {"labels": {"job": "gang"}},
        "spec": {
            "subdomain": "workers",
            "restartPolicy": "Never",
            "containers": [main],
            "volumes": [{"name": "script", "configMap": {"name": "script"}}],
        },
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gang"},
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 0,
            "template": template,
        },
    }
    return service, script, job


def test_an_indexed_job_all_reduces(dev_cluster: DevCluster, namespace: str, unused_tcp_port: int) -> None:
    dev_cluster.apply(*gang(unused_tcp_port), namespace=namespace)

    def ended() -> list[Object]:
        conditions: list[Object] = dev_cluster.get("job", "gang", namespace)["status"].get("conditions") or []
        return [
            each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"
        ]

    dev_cluster.wait_for(ended, 150, "the Job to end")
    logs = {
        each["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: dev_cluster.logs(
            each["metadata"]["name"], namespace
        )
        for each in dev_cluster.list("pods", "-n", namespace, "-l", "job=gang")
    }
    assert ended()[0]["type"] == "Complete", json.dumps(logs)
    assert sorted(logs) == ["0", "1"]
    for text in logs.values():
        assert "sum 3.0 of 2" in text
