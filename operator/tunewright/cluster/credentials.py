"""Where the API server is and how to prove who we are, from a kubeconfig or from inside a pod."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ENV_SERVICE_ACCOUNT_DIR = "TUNEWRIGHT_SERVICE_ACCOUNT_DIR"
DEFAULT_SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_REREAD_SECONDS = 60.0
"""kubelet replaces a projected token well before it expires; client-go re-reads it as often."""


class CredentialsError(Exception):
    """There is no usable way to log in. The message says what to set."""


@dataclass(frozen=True)
class Credentials:
    """A way into one API server."""

    server: str
    """``https://host:port``, no trailing slash."""
    ssl_context: ssl.SSLContext | None
    """None for a plain-HTTP server (``kubectl proxy``)."""
    authorization: AuthorizationSource
    proxy: str | None = None
    tls_server_name: str | None = None
    """Name in the server's certificate, when it is not the host of ``server``."""
    namespace: str | None = None
    """Of the kubeconfig's context or of the pod; None when neither names one."""


class AuthorizationSource:
    """Gives the ``Authorization`` header, read anew once it is older than ``max_age_seconds``.

    ``read`` may block (a file, an exec plugin), so it runs in a thread.
    """

    def __init__(
        self,
        read: Callable[[], str | None],
        max_age_seconds: float = TOKEN_REREAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._value: str | None = None
        self._read_at: float | None = None

    async def header(self) -> str | None:
        """The header's value, or None when the connection itself authenticates (client certificate).

        When reading fails, the value before is used: its token is usually valid for long yet. Raises
        CredentialsError when there has never been one.
        """
        if self._read_at is not None and self._clock() - self._read_at < self._max_age_seconds:
            return self._value
        try:
            self._value = await asyncio.to_thread(self._read)
        except Exception as error:  # exec plugins and file systems raise what they like
            if self._read_at is None:
                raise CredentialsError(f"no token for the API server: {error}") from error
        self._read_at = self._clock()
        return self._value

    def expire(self) -> None:
        """Read again before the next request: the server answered 401."""
        if self._read_at is not None:
            self._read_at = self._clock() - self._max_age_seconds


def load_credentials(
    environ: Mapping[str, str] = os.environ,
    kubeconfig: Path | None = None,
    context: str | None = None,
) -> Credentials:
    """In-cluster credentials inside a pod, else a kubeconfig (the argument, $KUBECONFIG, or the default).

    An explicit ``kubeconfig`` always wins. Raises CredentialsError.
    """
    if kubeconfig is None and environ.get("KUBERNETES_SERVICE_HOST") and not environ.get("KUBECONFIG"):
        return _from_service_account(environ)
    return _from_kubeconfig(environ, kubeconfig, context)


def _from_service_account(environ: Mapping[str, str]) -> Credentials:
    from kubernetes.config import ConfigException, incluster_config

    loader: Any = incluster_config.InClusterConfigLoader  # untyped
    folder = Path(environ.get(ENV_SERVICE_ACCOUNT_DIR) or DEFAULT_SERVICE_ACCOUNT_DIR)
    token_file = folder / "token"
    configuration = _blank_configuration()
    try:
        loader(
            token_filename=str(token_file),
            cert_filename=str(folder / "ca.crt"),
            environ=environ,
        ).load_and_set(configuration)
    except (ConfigException, OSError) as error:
        raise CredentialsError(
            f"cannot log in as the pod's service account: {error} (looked in {folder}; "
            f"{ENV_SERVICE_ACCOUNT_DIR} names another folder)"
        ) from error

    def read() -> str:
        token = token_file.read_text().strip()
        if not token:
            raise CredentialsError(f"{token_file} is empty")
        return f"Bearer {token}"

    namespace_file = folder / "namespace"
    namespace = namespace_file.read_text().strip() if namespace_file.is_file() else None
    return Credentials(
        server=configuration.host.rstrip("/"),
        ssl_context=_ssl_context(configuration),
        authorization=AuthorizationSource(read),
        namespace=namespace or None,
    )


def _from_kubeconfig(environ: Mapping[str, str], kubeconfig: Path | None, context: str | None) -> Credentials:
    from kubernetes.config import ConfigException, kube_config

    library: Any = kube_config  # untyped
    location = str(kubeconfig or environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser())
    configuration = _blank_configuration()
    try:
        library.load_kube_config(location, context, configuration, persist_config=False)
        contexts, active = library.list_kube_config_contexts(location)
    except (ConfigException, OSError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CredentialsError(
            f"cannot use the kubeconfig {location}: {reason}. Set KUBECONFIG to a file that kubectl accepts."
        ) from error

    def read() -> str | None:
        if configuration.refresh_api_key_hook is not None:
            configuration.refresh_api_key_hook(configuration)
        token = configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization")
        return str(token) if token else None

    chosen = next((entry for entry in contexts if entry["name"] == context), active) or {}
    return Credentials(
        server=configuration.host.rstrip("/"),
        ssl_context=_ssl_context(configuration),
        authorization=AuthorizationSource(read),
        proxy=configuration.proxy,
        tls_server_name=configuration.tls_server_name,
        namespace=(chosen.get("context") or {}).get("namespace"),
    )


def _blank_configuration() -> Any:
    from kubernetes.client import Configuration

    return Configuration(host="http://unset.invalid")


def _ssl_context(configuration: Any) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https:"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
