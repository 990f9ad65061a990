"""The downward API says what Kubernetes says, but for the pod's address."""

from __future__ import annotations

from decimal import Decimal

import pytest

from hack.devcluster.addresses import address_of
from hack.devcluster.fields import FieldError, pod_field, quantity, resource_field
from tests.devcluster.builders import bound_pod, container


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "one"),
        ("metadata.uid", "12345678-aaaa"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="x"'),
        ("status.podIP", address_of("one", "team")),
    ],
)
def test_pod_field(path: str, expected: str) -> None:
    assert pod_field(bound_pod(), path) == expected


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(FieldError, match=r"spec\.secret"):
        pod_field(bound_pod(), "spec.secret")


@pytest.mark.parametrize(
    ("text", "value"), [("500m", "0.5"), ("16Gi", str(16 * 2**30)), ("2", "2"), ("1k", "1000")]
)
def test_quantity(text: str, value: str) -> None:
    assert quantity(text) == Decimal(value)


def test_a_resource_is_rounded_up_to_its_divisor() -> None:
    main = container(resources={"limits": {"cpu": "1500m", "memory": "1Gi"}})
    pod = bound_pod(main=main)
    assert resource_field(pod, {"resource": "limits.cpu"}, "main") == "2"
    assert resource_field(pod, {"resource": "limits.memory", "divisor": "1Mi"}, "main") == "1024"
    assert resource_field(pod, {"resource": "limits.cpu", "divisor": "1m"}, "main") == "1500"
