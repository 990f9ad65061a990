"""Builds the environment and command line of a container, rewritten for this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hack.devcluster.api import UNREACHABLE, Api, ApiError, Object
from hack.devcluster.fields import FieldError, pod_field, resource_field
from hack.devcluster.images import Image
from hack.devcluster.rewrite import Names, Rewriter, expand
from hack.devcluster.volumes import object_data


class ConfigError(Exception):
    """The container's environment can't be built yet (CreateContainerConfigError)."""


@dataclass(frozen=True)
class Surroundings:
    """What the node gives to every container of a pod."""

    api_host: str
    api_port: str
    scratch: Path
    """HOME and the working directory."""
    temporary: Path
    passed: Mapping[str, str]
    """Variables of this machine that the node was told to pass."""
    names: Names


@dataclass(frozen=True)
class Prepared:
    """A container ready to start."""

    command: list[str]
    environment: dict[str, str]
    working_dir: str
    rewriter: Rewriter


def mounts_of(container: Object, folders: Mapping[str, Path], termination_file: Path) -> dict[str, str]:
    """Container path to path here, for every volumeMount and the termination message file."""
    mounts = {container.get("terminationMessagePath") or "/dev/termination-log": str(termination_file)}
    for mount in container.get("volumeMounts") or []:
        target = folders[mount["name"]]
        if mount.get("subPath"):
            target = target / mount["subPath"]
            if not target.exists():
                target.mkdir(parents=True)
                target.chmod(0o777)
        mounts[mount["mountPath"]] = str(target)
    return mounts


async def prepare(
    api: Api, pod: Object, container: Object, image: Image, mounts: Mapping[str, str], around: Surroundings
) -> Prepared:
    """Command, environment and working directory; raises ConfigError."""
    try:
        own = await _own_variables(api, pod, container)
    except (ApiError, FieldError, *UNREACHABLE) as error:
        raise ConfigError(str(error)) from error
    rewriter = Rewriter(mounts, around.names)
    base = _base_environment(pod, container, image, mounts, around)
    words = [*(container.get("command") or image.entrypoint), *(container.get("args") or [])]
    # As on a kubelet, $(NAME) sees Kubernetes' variables and the container's, not those of the image.
    known = {name: value for name, value in base.items() if name.startswith("KUBERNETES_")} | own
    working_dir = container.get("workingDir")
    target = rewriter.path(working_dir) if working_dir else None
    return Prepared(
        command=[rewriter.text(expand(word, known)) for word in words],
        environment=base | {name: rewriter.text(value) for name, value in own.items()},
        working_dir=target or str(around.scratch),
        rewriter=rewriter,
    )


def _base_environment(
    pod: Object, container: Object, image: Image, mounts: Mapping[str, str], around: Surroundings
) -> dict[str, str]:
    environment = {
        "PATH": image.path,
        "PYTHONPATH": image.python_path,
        "LANG": "C.UTF-8",
        "HOME": str(around.scratch),
        # Images name their user in /etc/passwd; here this stands in for it (getpass looks at it first).
        "LOGNAME": "nonroot",
        "TMPDIR": mounts.get("/tmp", str(around.temporary)),
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "KUBERNETES_SERVICE_HOST": around.api_host,
        "KUBERNETES_SERVICE_PORT": around.api_port,
        "KUBERNETES_SERVICE_PORT_HTTPS": around.api_port,
        **around.passed,
    }
    limits = (container.get("resources") or {}).get("limits") or {}
    if not any(name.endswith("/gpu") for name in limits):
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


async def _own_variables(api: Api, pod: Object, container: Object) -> dict[str, str]:
    """``envFrom`` and ``env`` in order, with ``$(NAME)`` of earlier ones expanded."""
    namespace = pod["metadata"]["namespace"]
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        kind = "configmaps" if "configMapRef" in source else "secrets"
        reference = source.get("configMapRef") or source["secretRef"]
        content = await _content(api, namespace, kind, reference)
        prefix = source.get("prefix", "")
        variables |= {prefix + key: value.decode() for key, value in (content or {}).items()}
    for entry in container.get("env") or []:
        value = await _value(api, pod, container, entry)
        if value is not None:
            variables[entry["name"]] = expand(value, variables)
    return variables


async def _value(api: Api, pod: Object, container: Object, entry: Object) -> str | None:
    """Value of one ``env`` entry; None for an optional reference to nothing."""
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value") or "")
    if "fieldRef" in source:
        return pod_field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_field(pod, source["resourceFieldRef"], container["name"])
    kind = "configmaps" if "configMapKeyRef" in source else "secrets"
    reference = source.get("configMapKeyRef") or source.get("secretKeyRef")
    if reference is None:
        raise ConfigError(f"env {entry['name']}: sources of type {sorted(source)} are not played")
    content = await _content(api, pod["metadata"]["namespace"], kind, reference)
    if content is not None and reference["key"] in content:
        return content[reference["key"]].decode()
    if reference.get("optional"):
        return None
    raise ConfigError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")


async def _content(api: Api, namespace: str, plural: str, reference: Object) -> dict[str, bytes] | None:
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/{plural}/{reference['name']}")
    except ApiError as error:
        if error.status == 404 and reference.get("optional"):
            return None
        raise
    return object_data(found)
