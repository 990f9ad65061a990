"""The chart renders to manifests that Kubernetes' own schemas accept, with the rights and settings meant."""

from __future__ import annotations

import json
import re
import tomllib
import warnings

import pytest
import yaml

import tunewright
import tunewright_trainer
from tests.unit.chart_rendering import (
    CHART,
    EVERYTHING_OFF,
    EVERYTHING_ON,
    ROOT,
    Manifest,
    environment,
    find,
    helm,
    operator_container,
    render,
)
from tunewright.core import names

VARIANTS = [
    pytest.param((), id="defaults"),
    pytest.param(EVERYTHING_ON, id="on"),
    pytest.param(EVERYTHING_OFF, id="off"),
]


def test_lint_is_clean() -> None:
    result = helm("lint", "--strict", "--quiet", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("values", VARIANTS)
def test_manifests_fit_the_kubernetes_schemas(values: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library itself uses what its dependencies deprecate
        import kubernetes_validate
    known = [m for m in render(values) if m["kind"] != "ServiceMonitor"]
    assert known
    for manifest in known:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("values", VARIANTS)
def test_every_namespaced_object_is_in_the_release_namespace(values: tuple[str, ...]) -> None:
    cluster_scoped = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for manifest in render(values):
        wanted = None if manifest["kind"] in cluster_scoped else "tunewright-system"
        assert manifest["metadata"].get("namespace") == wanted, manifest["kind"]


def test_off_switches_leave_only_what_is_needed() -> None:
    kinds = sorted(m["kind"] for m in render(EVERYTHING_OFF))
    assert kinds == ["Deployment", "Service"]
    assert (
        find(render(EVERYTHING_OFF), "Deployment", "tunewright")["spec"]["template"]["spec"][
            "serviceAccountName"
        ]
        == "mine"
    )
    assert "TUNEWRIGHT_PROGRESS_URL" not in environment(render(EVERYTHING_OFF))


def test_crd_is_the_generated_one_and_kept_on_uninstall() -> None:
    generated = yaml.safe_load((ROOT / "crds" / "finetunejobs.yaml").read_text())
    rendered = find(render(), "CustomResourceDefinition", f"{names.PLURAL}.{names.GROUP}")
    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_chart_copy_of_the_crd_is_fresh() -> None:
    assert (CHART / "files" / "finetunejobs.yaml").read_bytes() == (
        ROOT / "crds" / "finetunejobs.yaml"
    ).read_bytes()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]
    assert tunewright.__version__ == tunewright_trainer.__version__ == project["version"]


def test_pod_meets_the_restricted_pod_security_standard() -> None:
    pod = find(render(), "Deployment", "tunewright")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert operator_container(render())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {"emptyDir", "projected"}
    assert not pod["automountServiceAccountToken"]


def test_operator_reads_credentials_where_they_are_mounted() -> None:
    folder = environment(render())["TUNEWRIGHT_SERVICE_ACCOUNT_DIR"]
    mounts = {mount["mountPath"]: mount["name"] for mount in operator_container(render())["volumeMounts"]}
    assert folder is not None
    pod = find(render(), "Deployment", "tunewright")["spec"]["template"]["spec"]
    volume = next(v for v in pod["volumes"] if v["name"] == mounts[folder])
    paths = [source.get("serviceAccountToken", {}).get("path") for source in volume["projected"]["sources"]]
    assert "token" in paths


def test_images_default_to_the_chart_version_and_digests_win() -> None:
    assert operator_container(render())["image"] == "tunewright/operator:0.1.0"
    assert environment(render())["TUNEWRIGHT_TRAINER_IMAGE"] == "tunewright/trainer:0.1.0"
    assert operator_container(render(EVERYTHING_ON))["image"] == "tunewright/operator@sha256:" + "a" * 64


def test_progress_url_names_a_service_that_leads_to_the_bound_port() -> None:
    found = re.fullmatch(
        r"https://([^.]+)\.tunewright-system\.svc:(\d+)",
        environment(render())["TUNEWRIGHT_PROGRESS_URL"] or "",
    )
    assert found
    service = find(render(), "Service", found[1])
    port = next(p for p in service["spec"]["ports"] if p["port"] == int(found[2]))
    container_port = next(p for p in operator_container(render())["ports"] if p["name"] == port["targetPort"])
    assert environment(render())["TUNEWRIGHT_PROGRESS_BIND"] == f"$(POD_IP):{container_port['containerPort']}"
    labels = find(render(), "Deployment", "tunewright")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_probes_ask_the_port_that_is_bound() -> None:
    container = operator_container(render(("metrics.port=9090",)))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path
        assert ports[container[probe]["httpGet"]["port"]] == 9090
    assert environment(render(("metrics.port=9090",)))["TUNEWRIGHT_HTTP_BIND"] == "$(POD_IP):9090"


def test_two_releases_share_no_name() -> None:
    def identities(release: str) -> set[tuple[str, str]]:
        manifests = render(("crd.install=false",), release)
        return {(m["kind"], m["metadata"]["name"]) for m in manifests}

    assert not identities("first") & identities("second")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        pytest.param("replica=2", "'replica' not allowed", id="misspelt"),
        pytest.param("progress.prot=1", "'prot' not allowed", id="misspelt-inside"),
        pytest.param("replicas=many", "want integer", id="wrong-type"),
        pytest.param("log.format=xml", "value must be one of", id="not-in-enum"),
        pytest.param("metrics.port=80", "minimum", id="privileged-port"),
        pytest.param("image.digest=latest", "does not match pattern", id="digest"),
    ],
)
def test_wrong_values_are_refused_by_name(setting: str, complaint: str) -> None:
    result = helm("template", "tunewright", str(CHART), "--set", setting)
    assert result.returncode != 0
    assert complaint in result.stderr
    assert setting.split("=")[0].split(".")[0] in result.stderr


def test_schema_knows_every_value_and_no_other() -> None:
    """values.yaml documents each value once; the schema lists the same names."""

    def paths(schema: Manifest, prefix: str = "") -> set[str]:
        properties = schema.get("properties", {})
        return {f"{prefix}{key}" for key in properties} | {
            path for key, inner in properties.items() for path in paths(inner, f"{prefix}{key}.")
        }

    def keys(values: Manifest, prefix: str = "") -> set[str]:
        return {f"{prefix}{key}" for key in values} | {
            path
            for key, inner in values.items()
            if isinstance(inner, dict)
            for path in keys(inner, f"{prefix}{key}.")
        }

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = re.compile(r"global|resources\..*|extraEnv\..*")
    assert {p for p in paths(schema) if not free.fullmatch(p)} == {
        k for k in keys(values) if not free.fullmatch(k)
    }
