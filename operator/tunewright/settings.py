"""The operator's environment, read once at the start into frozen values; nothing else reads it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlsplit

from tunewright import __version__
from tunewright.core.settings import OperatorSettings

T = TypeVar("T")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


class SettingsError(ValueError):
    """An environment variable has a value that can't be used; the text names it and says what to write."""


@dataclass(frozen=True)
class Address:
    """Where to listen. Port 0 asks the kernel for a free one."""

    host: str
    port: int


@dataclass(frozen=True)
class Settings:
    """Everything that an installation can choose. Each field names its variable."""

    core: OperatorSettings
    namespace: str
    """TUNEWRIGHT_NAMESPACE: where the Lease and the certificate's Secret live."""
    watch_namespace: str | None = None
    """TUNEWRIGHT_WATCH_NAMESPACE: only FineTuneJobs of this namespace; empty: of all."""
    pod_name: str = ""
    """POD_NAME; the host's name when unset."""
    pod_ip: str | None = None
    """POD_IP: where the other replicas reach this one."""
    http: Address = Address("127.0.0.1", 8080)
    """TUNEWRIGHT_HTTP_BIND: metrics and probes."""
    progress: Address | None = None
    """TUNEWRIGHT_PROGRESS_BIND: the progress endpoint; empty: none."""
    progress_hosts: tuple[str, ...] = field(default=())
    """Names and addresses that clients use, from TUNEWRIGHT_PROGRESS_URL."""
    progress_secret: str = "tunewright-progress-tls"
    """TUNEWRIGHT_PROGRESS_SECRET: the Secret that holds CA and certificate."""
    leader_elect: bool = True
    """TUNEWRIGHT_LEADER_ELECT: false only where there is never a second replica."""
    lease_name: str = "tunewright"
    """TUNEWRIGHT_LEASE_NAME."""
    workers: int = 8
    """TUNEWRIGHT_WORKERS: jobs reconciled at the same time."""
    max_in_flight: int = 32
    """TUNEWRIGHT_MAX_IN_FLIGHT: requests to the API server at the same time; 16 on AKS's free tier."""
    check_secrets: bool = True
    """TUNEWRIGHT_CHECK_SECRETS: look whether secrets exist before pods are made."""
    log_format: str = "text"
    """TUNEWRIGHT_LOG_FORMAT: json or text."""
    log_level: str = "info"
    """TUNEWRIGHT_LOG_LEVEL."""


def load_settings(environ: Mapping[str, str] = os.environ, default_namespace: str = "default") -> Settings:
    """Settings from ``environ``. Raises SettingsError.

    ``default_namespace`` comes from the credentials: the pod's, or the kubeconfig context's.
    """
    read = _Reader(environ)
    progress = read.value("TUNEWRIGHT_PROGRESS_BIND", None, _address)
    url = read.value("TUNEWRIGHT_PROGRESS_URL", None, _url)
    if (progress is None) != (url is None):
        raise SettingsError(
            "TUNEWRIGHT_PROGRESS_BIND and TUNEWRIGHT_PROGRESS_URL belong together: set both, or none"
        )
    pod_ip = environ.get("POD_IP") or None
    core = OperatorSettings(
        trainer_image=environ.get("TUNEWRIGHT_TRAINER_IMAGE") or f"tunewright/trainer:{__version__}",
        image_pull_policy=read.value("TUNEWRIGHT_IMAGE_PULL_POLICY", "IfNotPresent", _one_of(PULL_POLICIES)),
        progress_url=url,
    )
    core = _with_seconds(core, read)
    return Settings(
        core=core,
        namespace=environ.get("TUNEWRIGHT_NAMESPACE") or default_namespace,
        watch_namespace=environ.get("TUNEWRIGHT_WATCH_NAMESPACE") or None,
        pod_name=environ.get("POD_NAME") or socket.gethostname(),
        pod_ip=pod_ip,
        http=read.value("TUNEWRIGHT_HTTP_BIND", Settings.http, _address),
        progress=progress,
        progress_hosts=_hosts(url),
        progress_secret=environ.get("TUNEWRIGHT_PROGRESS_SECRET") or Settings.progress_secret,
        leader_elect=read.value("TUNEWRIGHT_LEADER_ELECT", True, _boolean),
        lease_name=environ.get("TUNEWRIGHT_LEASE_NAME") or Settings.lease_name,
        workers=read.value("TUNEWRIGHT_WORKERS", Settings.workers, _whole(1, 256)),
        max_in_flight=read.value("TUNEWRIGHT_MAX_IN_FLIGHT", Settings.max_in_flight, _whole(1, 1024)),
        check_secrets=read.value("TUNEWRIGHT_CHECK_SECRETS", True, _boolean),
        log_format=read.value("TUNEWRIGHT_LOG_FORMAT", Settings.log_format, _one_of(LOG_FORMATS)),
        log_level=read.value("TUNEWRIGHT_LOG_LEVEL", Settings.log_level, _one_of(LOG_LEVELS)),
    )


def _with_seconds(core: OperatorSettings, read: _Reader) -> OperatorSettings:
    """Waits that an installation, or a test that can't wait, sets otherwise."""
    seconds = _number(0.0, 86400.0)
    return replace(
        core,
        progress_status_seconds=read.value(
            "TUNEWRIGHT_PROGRESS_STATUS_SECONDS", core.progress_status_seconds, seconds
        ),
        status_seconds=read.value("TUNEWRIGHT_STATUS_SECONDS", core.status_seconds, seconds),
        node_lost_seconds=read.value("TUNEWRIGHT_NODE_LOST_SECONDS", core.node_lost_seconds, seconds),
        reference_poll_seconds=read.value(
            "TUNEWRIGHT_REFERENCE_POLL_SECONDS", core.reference_poll_seconds, _number(0.1, 86400.0)
        ),
        restart_backoff_seconds=read.value(
            "TUNEWRIGHT_RESTART_BACKOFF_SECONDS", core.restart_backoff_seconds, seconds
        ),
        termination_grace_seconds=read.value(
            "TUNEWRIGHT_TERMINATION_GRACE_SECONDS", core.termination_grace_seconds, _whole(1, 86400)
        ),
    )


class _Reader:
    """Reads variables; an empty one counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def value(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{name}={text!r}: {error}") from None


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("write host:port, for example 0.0.0.0:8080 or [::]:8080")
    return Address(host.strip("[]") or "0.0.0.0", int(port))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("write https://host:port, as training pods reach the operator")
    return text.rstrip("/")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("write true or false")
    return text.lower() == "true"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return int(text)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise ValueError(f"write a number from {least:g} to {most:g}")
        return number

    return parse


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"write one of {', '.join(choices)}")
        return text

    return parse


def _hosts(url: str | None) -> tuple[str, ...]:
    """What the certificate must name: the URL's host, a Service's other names. The same for every replica,
    for they share the certificate."""
    if url is None:
        return ()
    host = str(urlsplit(url).hostname)
    hosts = [host, "localhost", "127.0.0.1"]
    labels = host.split(".")
    if len(labels) == 3 and labels[2] == "svc":
        hosts += [labels[0], f"{labels[0]}.{labels[1]}", f"{host}.cluster.local"]
    return tuple(dict.fromkeys(hosts))
