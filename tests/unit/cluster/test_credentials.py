"""Logging in: from a kubeconfig, from a pod's folder, and with tokens that are replaced meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.cluster.credentials import (
    ENV_SERVICE_ACCOUNT_DIR,
    AuthorizationSource,
    CredentialsError,
    load_credentials,
)
from tunewright.server.certificates import renewed

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    """The folder that a pod has, with a real CA in it."""
    from datetime import UTC, datetime

    (tmp_path / "token").write_text("first")
    (tmp_path / "namespace").write_text("tuning")
    (tmp_path / "ca.crt").write_bytes(renewed(None, ["x"], datetime.now(UTC)).ca)
    return tmp_path


def kubeconfig(tmp_path: Path, **user: Any) -> Path:
    path = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "ns-a"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": "a",
    }
    path.write_text(json.dumps(document))
    return path


def header(source: AuthorizationSource) -> str | None:
    return asyncio.run(source.header())


def test_in_a_pod(service_account: Path) -> None:
    credentials = load_credentials(IN_CLUSTER | {ENV_SERVICE_ACCOUNT_DIR: str(service_account)})
    assert credentials.server == "https://10.0.0.1:443"
    assert credentials.namespace == "tuning"
    assert header(credentials.authorization) == "Bearer first"
    assert credentials.ssl_context is not None
    assert len(credentials.ssl_context.get_ca_certs()) == 1


def test_in_a_pod_that_has_no_token(tmp_path: Path) -> None:
    with pytest.raises(
        CredentialsError, match=f"looked in {tmp_path}; {ENV_SERVICE_ACCOUNT_DIR} names another"
    ):
        load_credentials(IN_CLUSTER | {ENV_SERVICE_ACCOUNT_DIR: str(tmp_path)})


def test_an_explicit_kubeconfig_wins_over_the_pod(tmp_path: Path) -> None:
    credentials = load_credentials(IN_CLUSTER, kubeconfig(tmp_path, token="secret"))
    assert credentials.server == "http://127.0.0.1:1"
    assert credentials.ssl_context is None
    assert credentials.namespace == "ns-a"
    assert header(credentials.authorization) == "Bearer secret"


def test_a_context_can_be_chosen(tmp_path: Path) -> None:
    assert load_credentials({}, kubeconfig(tmp_path), context="b").namespace is None
    with pytest.raises(CredentialsError, match="KUBECONFIG"):
        load_credentials({}, kubeconfig(tmp_path), context="absent")


def test_a_client_certificate_needs_no_header(tmp_path: Path) -> None:
    assert header(load_credentials({}, kubeconfig(tmp_path)).authorization) is None


def test_an_exec_plugin_is_run(tmp_path: Path) -> None:
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "echo",
        "args": [json.dumps(answer)],
        "interactiveMode": "Never",
    }
    credentials = load_credentials({}, kubeconfig(tmp_path, exec=plugin))
    assert header(credentials.authorization) == "Bearer from-plugin"


@pytest.mark.parametrize("content", [None, "", "clusters: []", ": : :"])
def test_an_unusable_kubeconfig_is_said_to_be(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CredentialsError, match=f"cannot use the kubeconfig {path}"):
        load_credentials({"KUBECONFIG": str(path)})


def test_a_token_is_read_anew_each_minute_or_when_it_was_refused() -> None:
    clock = [0.0]
    tokens = iter(["one", "two", "three"])
    source = AuthorizationSource(lambda: next(tokens), clock=lambda: clock[0])
    assert header(source) == "one"
    clock[0] = 59.0
    assert header(source) == "one"
    clock[0] = 60.0
    assert header(source) == "two"
    source.expire()
    assert header(source) == "three"


def test_a_token_that_cannot_be_read_now_is_used_as_it_was() -> None:
    clock = [0.0]
    fails = False

    def read() -> str:
        if fails:
            raise OSError("the volume is being replaced")
        return "token"

    source = AuthorizationSource(read, clock=lambda: clock[0])
    assert header(source) == "token"
    fails, clock[0] = True, 100.0
    assert header(source) == "token"
    with pytest.raises(CredentialsError, match="being replaced"):
        header(AuthorizationSource(read))
