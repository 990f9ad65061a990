"""The manifests that we create: golden files, the API server's schema, Pod Security, and rules of our own."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate
import pytest

from tests.builders import SETTINGS, make_spec
from tests.unit.children.goldens import FOLDER, GPU, OWNER, all_children, children, rendered
from tunewright.api.spec import parse_spec
from tunewright.children import storage
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright_trainer import contract
from tunewright_trainer.contract import ExitCode, Source, TrainerConfig

CHILDREN = all_children()
JOBS = {name: manifest for name, manifest in CHILDREN.items() if manifest["kind"] == "Job"}


def pod_of(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def env_of(manifest: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in pod_of(manifest)["containers"][0]["env"]}


@pytest.mark.parametrize("name", CHILDREN)
def test_golden(name: str) -> None:
    """If the change is meant: ``python -m tests.unit.children.goldens``, and read the diff."""
    assert rendered(CHILDREN[name]) == (FOLDER / f"{name}.yaml").read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CHILDREN)


@pytest.mark.parametrize("name", CHILDREN)
def test_the_api_server_would_take_it(name: str) -> None:
    kubernetes_validate.validate(json.loads(json.dumps(CHILDREN[name])), "1.37", strict=True)


# --- Pod Security Standard "restricted", from its page in the Kubernetes documentation ----------------------

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


@pytest.mark.parametrize("name", JOBS)
def test_pods_are_restricted(name: str) -> None:
    pod = pod_of(JOBS[name])
    context = pod["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert context["runAsNonRoot"] is True
    assert context.get("runAsUser", 1) != 0
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= _VOLUMES
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in security
        assert security["readOnlyRootFilesystem"] is True
        assert not any("hostPort" in port for port in container["ports"])


@pytest.mark.parametrize("name", JOBS)
def test_pods_hold_no_api_token(name: str) -> None:
    pod = pod_of(JOBS[name])
    assert pod["automountServiceAccountToken"] is False
    tokens = [
        source["serviceAccountToken"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    ]
    assert all(token["audience"].startswith("trainer.kubeflow.org/") for token in tokens)
    assert bool(tokens) == ("workers" in name and not name.startswith("silent"))


@pytest.mark.parametrize("name", JOBS)
def test_every_writable_place_is_a_volume(name: str) -> None:
    """The root file system is read-only: each path in env lies in a mount."""
    container = pod_of(JOBS[name])["containers"][0]
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert len(mounted) == len(set(mounted))
    for variable, value in env_of(JOBS[name]).items():
        if value and value.startswith("/") and variable != contract.ENV_TERMINATION_LOG:
            assert any(value == path or value.startswith(f"{path}/") for path in mounted), variable


@pytest.mark.parametrize("name", JOBS)
def test_mounts_and_volumes_agree(name: str) -> None:
    pod = pod_of(JOBS[name])
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert sorted(volumes) == sorted({mount["name"] for mount in pod["containers"][0]["volumeMounts"]})
    index = json.loads(env_of(JOBS[name])[contract.ENV_MOUNTS])
    assert set(index.values()) <= {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("name", CHILDREN)
def test_children_belong_to_the_job(name: str) -> None:
    metadata = CHILDREN[name]["metadata"]
    assert [(owner["uid"], owner["controller"]) for owner in metadata["ownerReferences"]] == [
        (OWNER.uid, True)
    ]
    assert metadata["labels"][names.LABEL_JOB_UID] == OWNER.uid


def test_users_can_add_but_not_take_over() -> None:
    template = JOBS["gpu-workers"]["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "nlp"
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "tunewright"
    assert template["metadata"]["annotations"]["note"] == "x"
    assert env_of(JOBS["gpu-workers"])["NCCL_DEBUG"] == "INFO"
    assert env_of(JOBS["gpu-workers"])["HOME"] == "/scratch"
    assert template["spec"]["securityContext"]["runAsUser"] == 1000


# --- the gang -----------------------------------------------------------------------------------------------


def test_the_gang_dies_as_a_whole() -> None:
    spec = JOBS["cpu-workers"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_rendezvous_points_at_the_first_pod_through_the_service() -> None:
    env, pod = env_of(JOBS["cpu-workers"]), pod_of(JOBS["cpu-workers"])
    host, _, port = env["PET_RDZV_ENDPOINT"].partition(":")
    assert host == "support-bot-a2-0.support-bot-workers.team-a.svc"
    assert int(port) == names.rendezvous_port(OWNER.uid, 2)
    assert pod["subdomain"] == CHILDREN["cpu-service"]["metadata"]["name"]
    assert env["PET_LOCAL_ADDR"].startswith("support-bot-a2-$(POD_INDEX).")
    order = [entry["name"] for entry in pod["containers"][0]["env"]]
    assert order.index("POD_INDEX") < order.index("PET_LOCAL_ADDR")
    assert order.index("POD_IP") < order.index(contract.ENV_METRICS_ADDRESS)


def test_the_service_selects_the_workers_only() -> None:
    selector = CHILDREN["cpu-service"]["spec"]["selector"]
    for name, manifest in JOBS.items():
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert (selector.items() <= labels.items()) == ("workers" in name)


def test_ranks_and_grace() -> None:
    assert env_of(JOBS["gpu-workers"])["PET_NPROC_PER_NODE"] == "4"
    assert env_of(JOBS["cpu-workers"])["PET_NNODES"] == "2"
    for name in ("cpu-workers", "gpu-workers"):
        grace = pod_of(JOBS[name])["terminationGracePeriodSeconds"]
        assert env_of(JOBS[name])[contract.ENV_GRACE_SECONDS] == str(grace)


def test_gpus_are_asked_for_as_request_and_limit() -> None:
    resources = pod_of(JOBS["gpu-workers"])["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": "4"}
    assert resources["limits"] == {"memory": "128Gi", "nvidia.com/gpu": "4"}
    assert not any("gpu" in key for key in pod_of(JOBS["gpu-export"])["containers"][0]["resources"]["limits"])


def test_threads_share_the_cpus_of_the_pod() -> None:
    assert env_of(JOBS["gpu-workers"])["OMP_NUM_THREADS"] == "4"
    assert env_of(JOBS["cpu-workers"])["OMP_NUM_THREADS"] == "1"


# --- CPU Jobs and storage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu-prepare", "cpu-export"])
def test_a_user_s_error_is_not_tried_again_and_a_disruption_is_free(name: str) -> None:
    fail, ignore = JOBS[name]["spec"]["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    expected = "CONFIG_INVALID DATA_INVALID MODEL_INVALID AUTHENTICATION_FAILED"
    assert set(fail["onExitCodes"]["values"]) == {ExitCode[code] for code in expected.split()}
    assert ignore["action"] == "Ignore"
    assert JOBS[name]["spec"]["podReplacementPolicy"] == "Failed"


def test_the_config_is_what_the_trainer_reads() -> None:
    data = CHILDREN["cpu-train-config"]["data"]
    assert TrainerConfig.model_validate_json(data[names.CONFIG_KEY]).prepared_key == "k-1"
    assert data[names.CA_KEY] == SETTINGS.progress_ca_pem
    assert names.CA_KEY not in CHILDREN["silent-train-config"]["data"]
    assert CHILDREN["cpu-train-config"]["immutable"] is True


@pytest.mark.parametrize("name", ["cpu-prepare", "gpu-prepare"])
def test_prepare_reads_data_and_export_does_not(name: str) -> None:
    assert "configmap/faq" in json.loads(env_of(JOBS[name])[contract.ENV_MOUNTS])
    assert "configmap/faq" not in json.loads(env_of(JOBS["cpu-export"])[contract.ENV_MOUNTS])


def test_a_claim_that_is_only_read_is_mounted_read_only() -> None:
    found = storage.mounts([Source(uri="pvc://a/x"), Source(uri="pvc://b")], [Source(uri="pvc://b/y")])
    read_only = {mount["mountPath"]: mount.get("readOnly", False) for mount in found.volume_mounts}
    assert read_only == {"/mnt/pvc/a": True, "/mnt/pvc/b": False}


def test_each_source_is_mounted_once() -> None:
    source = Source(uri="hf://org/m", secret="token")
    found = storage.mounts([source, source, Source(uri="configmap://c/k"), Source(uri="configmap://c/l")])
    assert json.loads(found.index) == {"secret/token": "/mnt/secret/token", "configmap/c": "/mnt/configmap/c"}
    assert [volume["name"] for volume in found.volumes] == ["source-0", "source-1"]


@pytest.mark.parametrize(
    ("uri", "claim", "config_map"),
    [
        ("pvc://c/path/x", "c", None),
        ("pvc://c", "c", None),
        ("configmap://m/k", None, "m"),
        ("hf://a/b", None, None),
    ],
)
def test_names_in_uris(uri: str, claim: str | None, config_map: str | None) -> None:
    assert (storage.claim_of(uri), storage.config_map_of(uri)) == (claim, config_map)


def test_no_secret_s_value_can_be_in_a_manifest() -> None:
    """Secrets are mounted as files: no env variable refers to one."""
    for manifest in children(parse_spec(make_spec(**GPU)), SETTINGS).values():
        assert not re.search("secretKeyRef|envFrom", json.dumps(manifest))
