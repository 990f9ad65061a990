"""spec.compute and spec.podTemplate: where the ranks run, and what their pods carry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.base import KeysMatch, Matches, ObjectName, Quantity, Rule, SpecModel

_LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_QUALIFIED = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"

LabelKeys = KeysMatch(_QUALIFIED, 317, "write keys as Kubernetes does: name or prefix/name")
LabelValue = Annotated[
    str, Field(max_length=63), Matches(_LABEL_VALUE, "write a label value: letters, digits, '-', '_' and '.'")
]


class TolerationSpec(SpecModel):
    """A toleration, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; without one, with operator Exists, every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """Equal when absent, as in a pod."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; all effects when absent."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """For effect NoExecute: how long the taint is tolerated, in seconds."""


class ResourcesSpec(SpecModel):
    """What each worker pod asks for beside its GPUs."""

    cpu: Quantity | None = None
    """CPUs that each worker pod requests."""
    memory: Quantity | None = None
    """Memory of each worker pod, request and limit."""


class ComputeSpec(SpecModel):
    """Where the ranks run: one worker pod per node."""

    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Number of nodes, one worker pod each."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs of each worker pod, one rank each; 0 trains on CPUs."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Ranks of each worker pod when gpusPerNode is 0."""
    accelerator_resource: Annotated[
        str,
        Field(max_length=317),
        Matches(_QUALIFIED, "write a resource name such as nvidia.com/gpu"),
    ] = "nvidia.com/gpu"
    """Extended resource by which nodes offer their GPUs."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32), LabelKeys] | None = None
    """Labels that the workers' nodes must have."""
    tolerations: Annotated[list[TolerationSpec], Field(max_length=32)] | None = None
    """Taints that the worker pods tolerate."""
    resources: ResourcesSpec | None = None
    """CPU and memory of each worker pod. Pods that request none are the first to be evicted."""
    shared_memory: Quantity | None = None
    """Size limit of /dev/shm in each worker pod."""

    RULES = (
        Rule(
            "!(self.nodes > 1 && self.gpusPerNode == 0) || has(self.processesPerNode)",
            lambda c: not (c.nodes > 1 and c.gpus_per_node == 0) or c.processes_per_node is not None,
            "several nodes without GPUs need compute.processesPerNode: write how many ranks each node runs",
        ),
        Rule(
            "self.gpusPerNode == 0 || !has(self.processesPerNode)"
            " || self.processesPerNode == self.gpusPerNode",
            lambda c: c.gpus_per_node == 0 or c.processes_per_node in (None, c.gpus_per_node),
            "each GPU runs one rank: remove compute.processesPerNode, or write gpusPerNode: 0 for a CPU run",
        ),
    )

    def ranks_per_node(self) -> int:
        """Ranks of each worker pod: its GPUs, or its processes on CPUs."""
        return self.gpus_per_node or self.processes_per_node or 1

    def world_size(self) -> int:
        """Ranks of the whole job."""
        return self.nodes * self.ranks_per_node()


class LocalObjectRef(SpecModel):
    """Names an object in the job's namespace."""

    name: ObjectName
    """Name of the object."""


class EnvVarSpec(SpecModel):
    """An environment variable. Credentials do not belong here: use secretRef."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=253),
        Matches(r"[A-Za-z_][A-Za-z0-9_]*", "write the name with letters, digits and '_'"),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""

    RULES = (
        Rule(
            "!self.name.startsWith('TUNEWRIGHT_') && !self.name.startsWith('PET_')"
            " && !self.name.startsWith('KUBEFLOW_TRAINER_')",
            lambda e: not e.name.startswith(("TUNEWRIGHT_", "PET_", "KUBEFLOW_TRAINER_")),
            "names that start with TUNEWRIGHT_, PET_ or KUBEFLOW_TRAINER_ are set by the operator: remove it",
        ),
    )


class PodSecurityContextSpec(SpecModel):
    """Users and groups of the pods, for volumes that ask for particular ones. Root is refused."""

    run_as_user: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """Numeric user of the containers; the image's own when absent."""
    run_as_group: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """Numeric primary group of the containers."""
    fs_group: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """Numeric group that owns the volumes."""


class PodTemplateSpec(SpecModel):
    """What all pods of the job carry."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=32), LabelKeys] | None = None
    """Labels added to every pod."""
    annotations: (
        Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), LabelKeys] | None
    ) = None
    """Annotations added to every pod."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of every pod, for workload identity. Its token is not mounted."""
    image_pull_secrets: Annotated[list[LocalObjectRef], Field(max_length=16)] | None = None
    """Secrets for pulling the image."""
    env: (
        Annotated[
            list[EnvVarSpec],
            Field(
                max_length=64,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """Environment variables added to every container."""
    security_context: PodSecurityContextSpec | None = None
    """Users and groups of the pods."""
    image: (
        Annotated[
            str,
            Field(min_length=1, max_length=512),
            Matches(r"[A-Za-z0-9][-A-Za-z0-9._/:@]*", "write an image reference, such as registry/name:tag"),
        ]
        | None
    ) = None
    """Trainer image instead of the operator's default."""

    RULES = (
        Rule(
            "(!has(self.labels) || self.labels.all(k, !k.startsWith('tunewright.dev/')))"
            " && (!has(self.annotations) || self.annotations.all(k, !k.startsWith('tunewright.dev/')))",
            lambda p: (
                not any(k.startswith("tunewright.dev/") for k in [*(p.labels or ()), *(p.annotations or ())])
            ),
            "labels and annotations under tunewright.dev/ are set by the operator: remove them",
        ),
    )
