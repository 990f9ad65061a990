"""The environment is read whole, and what is wrong in it is said in one sentence."""

from __future__ import annotations

import pytest

from tests.unit.chart_rendering import ROOT
from tunewright import __version__
from tunewright.settings import Address, SettingsError, load_settings


def test_nothing_set_is_a_working_default() -> None:
    settings = load_settings({}, "kube-system")
    assert settings.namespace == "kube-system"
    assert settings.core.trainer_image == f"tunewright/trainer:{__version__}"
    assert settings.core.progress_url is None
    assert settings.progress is None
    assert settings.leader_elect
    assert settings.check_secrets


def test_everything_set() -> None:
    settings = load_settings(
        {
            "TUNEWRIGHT_NAMESPACE": "tuning",
            "TUNEWRIGHT_WATCH_NAMESPACE": "team-a",
            "POD_NAME": "tunewright-0",
            "POD_IP": "10.1.2.3",
            "TUNEWRIGHT_HTTP_BIND": "[::]:9000",
            "TUNEWRIGHT_PROGRESS_BIND": ":8443",
            "TUNEWRIGHT_PROGRESS_URL": "https://progress.tuning.svc:8443/",
            "TUNEWRIGHT_PROGRESS_SECRET": "tls",
            "TUNEWRIGHT_LEADER_ELECT": "False",
            "TUNEWRIGHT_LEASE_NAME": "lease",
            "TUNEWRIGHT_WORKERS": "3",
            "TUNEWRIGHT_MAX_IN_FLIGHT": "16",
            "TUNEWRIGHT_CHECK_SECRETS": "false",
            "TUNEWRIGHT_LOG_FORMAT": "json",
            "TUNEWRIGHT_LOG_LEVEL": "debug",
            "TUNEWRIGHT_TRAINER_IMAGE": "registry/trainer@sha256:0",
            "TUNEWRIGHT_IMAGE_PULL_POLICY": "Always",
            "TUNEWRIGHT_STATUS_SECONDS": "1.5",
        }
    )
    assert settings.http == Address("::", 9000)
    assert settings.progress == Address("0.0.0.0", 8443)
    assert settings.core.progress_url == "https://progress.tuning.svc:8443"
    assert settings.progress_hosts == (
        "progress.tuning.svc",
        "localhost",
        "127.0.0.1",
        "progress",
        "progress.tuning",
        "progress.tuning.svc.cluster.local",
    )
    assert settings.pod_ip == "10.1.2.3", "no name in the certificate, which all replicas share"
    assert (settings.namespace, settings.watch_namespace) == ("tuning", "team-a")
    assert (settings.workers, settings.max_in_flight) == (3, 16)
    assert not settings.leader_elect
    assert not settings.check_secrets
    assert (settings.log_format, settings.log_level) == ("json", "debug")
    assert (settings.pod_name, settings.lease_name, settings.progress_secret) == (
        "tunewright-0",
        "lease",
        "tls",
    )
    assert settings.core.trainer_image == "registry/trainer@sha256:0"
    assert settings.core.image_pull_policy == "Always"
    assert settings.core.status_seconds == 1.5


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load_settings({"TUNEWRIGHT_WORKERS": "", "TUNEWRIGHT_LOG_LEVEL": " "}) == load_settings({})


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("TUNEWRIGHT_WORKERS", "0", "write a whole number from 1 to 256"),
        ("TUNEWRIGHT_WORKERS", "1.5", "write a whole number from 1 to 256"),
        ("TUNEWRIGHT_HTTP_BIND", "8080", "write host:port"),
        ("TUNEWRIGHT_HTTP_BIND", "host:99999", "write host:port"),
        ("TUNEWRIGHT_LEADER_ELECT", "yes", "write true or false"),
        ("TUNEWRIGHT_LOG_FORMAT", "xml", "write one of json, text"),
        ("TUNEWRIGHT_IMAGE_PULL_POLICY", "always", "write one of Always, IfNotPresent, Never"),
        ("TUNEWRIGHT_PROGRESS_URL", "http://x", "write https://host:port"),
        ("TUNEWRIGHT_STATUS_SECONDS", "soon", "write a number from 0 to 86400"),
        ("TUNEWRIGHT_STATUS_SECONDS", "nan", "write a number from 0 to 86400"),
        ("TUNEWRIGHT_REFERENCE_POLL_SECONDS", "0", "write a number from 0.1"),
    ],
)
def test_a_bad_value_is_named_with_what_to_write(name: str, value: str, advice: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{value}': {advice}"):
        load_settings({name: value})


def test_progress_needs_both_address_and_url() -> None:
    with pytest.raises(SettingsError, match="belong together"):
        load_settings({"TUNEWRIGHT_PROGRESS_BIND": ":8443"})


def test_every_variable_that_the_chart_sets_is_read() -> None:
    chart = (ROOT / "charts/tunewright/templates/deployment.yaml").read_text()
    code = "".join(path.read_text() for path in (ROOT / "operator/tunewright").rglob("*.py"))
    names = {word.strip("{},:") for word in chart.split() if word.startswith("TUNEWRIGHT_")}
    assert len(names) > 10
    assert {name for name in names if f'"{name}"' not in code} == set()
