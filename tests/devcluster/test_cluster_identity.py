"""Tokens and rights: a pod is who its ServiceAccount says, a node may do what a node may."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hack.devcluster.cluster import DevCluster
from tests.devcluster.builders import container, pod
from tests.devcluster.watching import wait_phase

pytestmark = pytest.mark.cluster

IN_CLUSTER = """
import os, ssl, urllib.request, json
folder = os.environ["ACCOUNT_DIR"]
tls = ssl.create_default_context(cafile=folder + "/ca.crt")
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
token = open(folder + "/token").read()
request = urllib.request.Request(f"https://{host}:{port}/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"}, method="POST")
print(json.load(urllib.request.urlopen(request, context=tls))["status"]["userInfo"]["username"])
print(open(folder + "/namespace").read())
print(open("/var/run/progress/token").read())
"""


def test_in_cluster_credentials_and_a_token_for_an_audience(dev_cluster: DevCluster, namespace: str) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = {"serviceAccountToken": {"audience": "progress", "path": "token", "expirationSeconds": 600}}
    main = container(
        IN_CLUSTER,
        env=[{"name": "ACCOUNT_DIR", "value": folder}],
        volumeMounts=[{"name": "progress", "mountPath": "/var/run/progress"}],
    )
    volumes = [{"name": "progress", "projected": {"sources": [token]}}]
    dev_cluster.apply(pod(main=main, volumes=volumes), namespace=namespace)
    found = wait_phase(dev_cluster, namespace, "one", "Succeeded")
    user, own_namespace, raw = dev_cluster.logs("one", namespace).split()
    assert user == f"system:serviceaccount:{namespace}:default"
    assert own_namespace == namespace
    claims = decode(raw)
    assert claims["aud"] == ["progress"]
    assert claims["kubernetes.io"]["pod"]["uid"] == found["metadata"]["uid"]


def test_a_node_may_not_read_secrets_of_others(dev_cluster: DevCluster, namespace: str) -> None:
    dev_cluster.kubectl("create", "secret", "generic", "private", "--from-literal=a=b", "-n", namespace)
    kubeconfig = str(dev_cluster.state.node("node-0") / "kubeconfig")
    arguments = ("get", "secret", "private", "-n", namespace, "--kubeconfig", kubeconfig)
    refused = dev_cluster.kubectl(*arguments, check=False)
    assert refused.returncode != 0
    assert 'User "system:node:node-0" cannot get resource "secrets"' in refused.stderr


def test_requests_are_in_the_audit_log(dev_cluster: DevCluster, namespace: str) -> None:
    dev_cluster.kubectl("create", "configmap", "counted", "-n", namespace)

    def creations() -> list[dict[str, Any]]:
        events = [json.loads(line) for line in dev_cluster.audit_log.read_text().splitlines()]
        return [
            event
            for event in events
            if event["verb"] == "create" and event.get("objectRef", {}).get("name") == "counted"
        ]

    dev_cluster.wait_for(creations, 20, "the creation in the audit log")
    assert [event["user"]["username"] for event in creations()] == ["admin"]


def decode(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
