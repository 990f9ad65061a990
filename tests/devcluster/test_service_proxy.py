"""The Service proxy knows which ready pod is behind which port."""

from __future__ import annotations

from typing import Any

import pytest

from hack.devcluster.addresses import address_of
from hack.devcluster.service_proxy import SERVICE_LABEL, Tables, proxied_ports
from tests.devcluster.builders import Object, bound_pod

KEY = ("team", "web")


def service(**spec: Any) -> Object:
    ports = [{"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP"}, {"port": 9000}]
    return {
        "metadata": {"namespace": "team", "name": "web"},
        "spec": {"clusterIP": "10.96.0.7", "ports": ports} | spec,
    }


def tables(*endpoints: tuple[str, bool]) -> Tables:
    found = Tables()
    entries = [{"targetRef": {"name": name}, "conditions": {"ready": ready}} for name, ready in endpoints]
    found.slices["team", "web-x"] = {
        "metadata": {"namespace": "team", "labels": {SERVICE_LABEL: "web"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "", "port": 9001}],
        "endpoints": entries,
    }
    found.pods = {("team", name): bound_pod(name) for name, _ in endpoints}
    return found


def test_tcp_ports_with_a_cluster_address_are_served() -> None:
    assert proxied_ports(service()) == {80: "http", 9000: ""}


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName"}])
def test_services_without_a_cluster_address_are_not(spec: Object) -> None:
    assert proxied_ports(service(**spec)) == {}


def test_backends_are_ready_pods_at_the_target_port() -> None:
    found = tables(("a", True), ("b", False))
    assert found.backends(KEY, "http") == [(address_of("a", "team"), 8080)]
    assert found.backends(KEY, "") == [(address_of("a", "team"), 9001)]


def test_other_services_and_pods_that_are_gone_have_none() -> None:
    found = tables(("a", True))
    assert found.backends(("other", "web"), "http") == []
    found.pods.clear()
    assert found.backends(KEY, "http") == []
