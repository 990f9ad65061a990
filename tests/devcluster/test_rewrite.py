"""Paths and names are rewritten exactly where they stand for themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hack.devcluster.addresses import SEED, address_of, pod_address
from hack.devcluster.rewrite import Names, Rewriter, expand
from tests.devcluster.builders import bound_pod

MOUNTS = {
    "/mnt/pvc": "/host/a",
    "/mnt/pvc/data": "/host/b",
    "/dev/termination-log": "/host/term",
    "/tmp/": "/host/t",
}
NAMES = Names("team", "workers", frozenset({("team", "store"), ("infra", "minio")}))


@pytest.fixture
def rewriter() -> Rewriter:
    return Rewriter(MOUNTS, NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/pvc", "/host/a"),
        ("/mnt/pvc/x/y.json", "/host/a/x/y.json"),
        ("/mnt/pvc/data/x", "/host/b/x"),
        ("/mnt/pvc/database", "/host/a/database"),
        ("--out=/mnt/pvc/data", "--out=/host/b"),
        ("/usr/bin:/mnt/pvc/bin:/tmp", "/usr/bin:/host/a/bin:/host/t"),
        (
            json.dumps({"pvc/data": "/mnt/pvc/data", "b": "/mnt/pvc"}),
            json.dumps({"pvc/data": "/host/b", "b": "/host/a"}),
        ),
        ("file:///mnt/pvc/data/x", "file:///host/b/x"),
        ("/dev/termination-log", "/host/term"),
        ("cat /mnt/pvc/a; cat /mnt/pvc/b", "cat /host/a/a; cat /host/a/b"),
    ],
)
def test_rewrites_mount_paths(rewriter: Rewriter, text: str, expected: str) -> None:
    assert rewriter.text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "/mnt/pvcs",
        "/mnt/pvc.old",
        "/other/mnt/pvc",
        "s3://bucket/mnt/pvc",
        "pvc://data/mnt/pvc",
        "https://host:8080/mnt/pvc",
        "./mnt/pvc",
        "/var/tmp/x",
        "mnt/pvc",
    ],
)
def test_leaves_other_paths_alone(rewriter: Rewriter, text: str) -> None:
    assert rewriter.text(text) == text


def test_a_folder_that_holds_a_mount_path_is_not_rewritten_again() -> None:
    rewriter = Rewriter({"/tmp": "/tmp/pods/x/tmp", "/tmp/pods": "/y"}, NAMES)
    assert rewriter.text("/tmp/a") == "/tmp/pods/x/tmp/a"


def test_path_maps_only_mounts(rewriter: Rewriter) -> None:
    assert rewriter.path("/mnt/pvc/data/run/") == "/host/b/run"
    assert rewriter.path("/mnt/pvcs") is None


@pytest.mark.parametrize(
    ("text", "name", "namespace"),
    [
        ("job-0.workers", "job-0.workers", "team"),
        ("job-0.workers.team", "job-0.workers", "team"),
        ("job-0.workers.team.svc", "job-0.workers", "team"),
        ("job-0.workers.other.svc.cluster.local", "job-0.workers", "other"),
        ("store.team.svc", "store", "team"),
        ("unknown.team.svc.cluster.local", "unknown", "team"),
        ("minio.infra", "minio", "infra"),
    ],
)
def test_rewrites_names_to_derived_addresses(
    rewriter: Rewriter, text: str, name: str, namespace: str
) -> None:
    address = address_of(name, namespace)
    assert rewriter.text(f"https://{text}:8443/x") == f"https://{address}:8443/x"
    assert rewriter.text(f"--endpoint={text}:29400") == f"--endpoint={address}:29400"
    assert rewriter.text(json.dumps([text])) == json.dumps([address])


@pytest.mark.parametrize(
    "text",
    [
        "model.safetensors",
        "job-0.other",
        "job-0.workers.elsewhere",
        "minio.team",
        "a.job-0.workers",
        "kubernetes.default.svc",
        "https://kubernetes.default.svc",
        "user@store.team",
        "store.team.svc.example.com",
        "torch.distributed.run",
        "s3://store/key",
        "trainer.kubeflow.org/v1alpha1/namespaces/team",
    ],
)
def test_leaves_other_names_alone(rewriter: Rewriter, text: str) -> None:
    assert rewriter.text(text) == text


def test_a_bare_service_is_known_in_a_url_only(rewriter: Rewriter) -> None:
    assert rewriter.text("http://store:9000/x") == f"http://{address_of('store', 'team')}:9000/x"
    assert rewriter.text("http://minio:9000/x") == "http://minio:9000/x"
    assert rewriter.text("store") == "store"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$A $(A", "$A $(A"),
        ("$(A)$(A)", "11"),
        ("$$$(A)", "$1"),
    ],
)
def test_expand_follows_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_a_pod_listens_where_its_peers_look_for_it(rewriter: Rewriter) -> None:
    named = bound_pod("job-0-x7k2p", hostname="job-0", subdomain="workers")
    assert pod_address(named) == rewriter.text("job-0.workers")
    assert pod_address(bound_pod("lone")) == address_of("lone", "team")


@given(st.text(), st.text())
def test_addresses_are_loopback_and_no_ones_own(name: str, namespace: str) -> None:
    parts = [int(part) for part in address_of(name, namespace).split(".")]
    assert parts[0] == 127
    assert 16 <= parts[1] <= 254
    assert 1 <= parts[3] <= 254


@given(st.text())
def test_text_without_paths_and_dots_is_untouched(text: str) -> None:
    if "." not in text and "/" not in text:
        assert Rewriter(MOUNTS, NAMES).text(text) == text


def test_two_clusters_give_one_name_different_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for seed in ("one", "two"):
        monkeypatch.setenv(SEED, seed)
        found.add(address_of("progress", "system"))
    assert len(found) == 2
