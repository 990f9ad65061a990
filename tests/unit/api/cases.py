"""Specs and what is said of them: judged offline by the models and on a real API server by schema and CEL."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tunewright.api.deepspeed import OWNED_KEYS, OwnedKey

MINIMAL: dict[str, Any] = {
    "model": {"source": "hf://org/model"},
    "dataset": {"train": [{"source": "pvc://data/train.jsonl"}]},
    "output": {"destination": "pvc://adapters/bot"},
}


@dataclass(frozen=True)
class Case:
    """A spec, written as changes to MINIMAL (None removes a field), and the answer it gets."""

    id: str
    changes: dict[str, Any]
    field: str | None = None
    """Field that the answer names, such as ``spec.model.source``; None: the spec is accepted."""
    message: str | None = None
    """The answer's words; None where they are the server's own (types, bounds, required fields)."""

    @property
    def spec(self) -> dict[str, Any]:
        return merged(MINIMAL, self.changes)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with a JSON merge patch applied."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result[key] if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return result


def manifest(spec: dict[str, Any], name: str = "support-bot") -> dict[str, Any]:
    return {
        "apiVersion": "tunewright.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": spec,
    }


def _train(**entry: Any) -> dict[str, Any]:
    return {"dataset": {"train": [entry]}}


MODEL = "write the model as hf://organisation/name[@revision] or pvc://claim/folder"
DATA = (
    "write the source as hf://organisation/name/file, pvc://claim/path or https://host/path;"
    " a ConfigMap goes in configMapRef"
)
FOLDER = "write the place as pvc://claim or pvc://claim/folder"
PARENT = "remove the '..' from the path"
NAME = "write the name of an object: lower-case letters, digits, '-' and '.'"
REVISION = "revision is for hf:// sources without '@': remove model.revision, or the '@' part of the source"
KEYS = "write keys as Kubernetes does: name or prefix/name"
LABEL = "write a label value: letters, digits, '-', '_' and '.'"
BATCH = (
    "training.batch.global must be a multiple of the number of ranks (compute.nodes times gpusPerNode,"
    " or times processesPerNode on CPUs) times batch.micro: change one of them"
)
QUANTITY = "write a quantity such as 16, 500m or 128Gi"
RESERVED_ENV = (
    "names that start with TUNEWRIGHT_, PET_ or KUBEFLOW_TRAINER_ are set by the operator: remove it"
)
RESERVED_LABEL = "labels and annotations under tunewright.dev/ are set by the operator: remove them"

ACCEPTED = [
    Case("minimal", {}),
    Case("model on a claim", {"model": {"source": "pvc://models/smollm2-135m"}}),
    Case("model at a revision", {"model": {"source": "hf://a/b@v1.0"}}),
    Case("model's revision apart", {"model": {"revision": "refs/pr/1", "secretRef": {"name": "hf-token"}}}),
    Case("config map", _train(configMapRef={"name": "faq-8k2c", "key": "train.jsonl"})),
    Case("hub data with secret", _train(source="hf://datasets/a/b/x.jsonl", secretRef={"name": "hf-token"})),
    Case("web data", _train(source="https://example.com/a.jsonl?x=1", sha256="ab" * 32, maxRows=5)),
    Case("glob on a claim", _train(source="pvc://data/part-*/[ab]?.jsonl")),
    Case("two dots in a name", _train(source="pvc://data/a..b/c.jsonl")),
    Case("columns", _train(source="pvc://d/x", format="PromptCompletion", columns={"prompt": "question"})),
    Case("validation files", {"dataset": {"validation": [{"source": "pvc://data/val.jsonl"}]}}),
    Case("validation fraction", {"dataset": {"validationFraction": 0.5}}),
    Case("lora settings", {"method": {"lora": {"rank": 8, "alpha": 16.5, "targetModules": ["q_proj"]}}}),
    Case("full", {"method": {"type": "Full"}}),
    Case("epochs", {"training": {"epochs": 2}}),
    Case("a whole float is an integer", {"training": {"epochs": 2.0}}),
    Case("an integer is a number", {"training": {"maxGradNorm": 0, "learningRate": 1}}),
    Case("steps", {"training": {"maxSteps": 2, "evaluation": {"everySteps": 1}}}),
    Case("micro-batch as a number", {"training": {"batch": {"global": 8, "micro": 4}}}),
    Case("micro-batch as a string", {"training": {"batch": {"global": 8, "micro": "4"}}}),
    Case("ZeRO stage as a number", {"deepspeed": {"zeroStage": 0}}),
    Case("ZeRO stage as a string", {"deepspeed": {"zeroStage": "3"}}),
    Case(
        "raw config",
        {"deepspeed": {"config": {"zero_optimization": {"reduce_scatter": True}, "x": [1, "a"]}}},
    ),
    Case("fp16 scaling", {"deepspeed": {"config": {"fp16": {"initial_scale_power": 12}}}}),
    Case("CPU run", {"compute": {"gpusPerNode": 0, "nodes": 2, "processesPerNode": 2}}),
    Case("CPU run on one node", {"compute": {"gpusPerNode": 0}}),
    Case("processes as many as GPUs", {"compute": {"gpusPerNode": 2, "processesPerNode": 2}}),
    Case(
        "placement",
        {"compute": {"nodeSelector": {"a.b/c": "d", "e": ""}, "tolerations": [{"operator": "Exists"}]}},
    ),
    Case("quantities", {"compute": {"resources": {"cpu": 4, "memory": "1.5Gi"}, "sharedMemory": "512Mi"}}),
    Case("workspace", {"workspace": {"source": "pvc://scratch"}}),
    Case(
        "pod template",
        {
            "podTemplate": {
                "labels": {"team": "a"},
                "annotations": {"example.com/note": "any text: at all"},
                "serviceAccountName": "tuner",
                "imagePullSecrets": [{"name": "regcred"}],
                "env": [{"name": "HF_ENDPOINT", "value": "https://mirror.example.com"}],
                "securityContext": {"fsGroup": 1000},
                "image": "registry.example.com:5000/a/b@sha256:" + "0" * 64,
            }
        },
    ),
    Case("lifecycle", {"lifecycle": {"suspend": True, "ttlSecondsAfterFinished": 0, "maxRestarts": 0}}),
]

REFUSED = [
    # URIs
    Case("model elsewhere", {"model": {"source": "s3://bucket/model"}}, "spec.model.source", MODEL),
    Case("model without organisation", {"model": {"source": "hf://gpt2"}}, "spec.model.source", MODEL),
    Case("model from a file", {"model": {"source": "file:///models/x"}}, "spec.model.source", MODEL),
    Case("model outside its claim", {"model": {"source": "pvc://m/../x"}}, "spec.model.source", PARENT),
    Case("line break in a URI", _train(source="pvc://data/a\n"), "spec.dataset.train[0].source", DATA),
    Case("data by http", _train(source="http://example.com/x"), "spec.dataset.train[0].source", DATA),
    Case("data outside its claim", _train(source="pvc://d/a/.."), "spec.dataset.train[0].source", PARENT),
    Case("output in a bucket", {"output": {"destination": "s3://b/x"}}, "spec.output.destination", FOLDER),
    Case("output by glob", {"output": {"destination": "pvc://a/*"}}, "spec.output.destination", FOLDER),
    Case("output outside", {"output": {"destination": "pvc://a/../b"}}, "spec.output.destination", PARENT),
    Case("workspace on a path", {"workspace": {"source": "/tmp"}}, "spec.workspace.source", FOLDER),
    Case("workspace outside", {"workspace": {"source": "pvc://a/.."}}, "spec.workspace.source", PARENT),
    # model
    Case("revision twice", {"model": {"source": "hf://a/b@x", "revision": "y"}}, "spec.model", REVISION),
    Case("revision of a folder", {"model": {"source": "pvc://a/b", "revision": "y"}}, "spec.model", REVISION),
    Case(
        "odd revision",
        {"model": {"revision": "-x"}},
        "spec.model.revision",
        "write a branch, a tag or a commit",
    ),
    Case(
        "secret of a folder",
        {"model": {"source": "pvc://a/b", "secretRef": {"name": "x"}}},
        "spec.model",
        "secretRef is for hf:// sources: remove model.secretRef",
    ),
    Case("secret's name", {"model": {"secretRef": {"name": "HF_TOKEN"}}}, "spec.model.secretRef.name", NAME),
    # dataset
    Case(
        "source and config map",
        _train(source="pvc://d/x", configMapRef={"name": "a", "key": "b"}),
        "spec.dataset.train[0]",
        "write either source or configMapRef",
    ),
    Case("no source", _train(format="Text"), "spec.dataset.train[0]", "write either source or configMapRef"),
    Case(
        "secret of web data",
        _train(source="https://e.com/x", secretRef={"name": "x"}),
        "spec.dataset.train[0]",
        "secretRef is for hf:// sources: remove secretRef",
    ),
    Case(
        "config map's key",
        _train(configMapRef={"name": "faq", "key": "a/b"}),
        "spec.dataset.train[0].configMapRef.key",
        "write a key of the ConfigMap, such as train.jsonl",
    ),
    Case(
        "digest",
        _train(source="pvc://d/x", sha256="AB" * 32),
        "spec.dataset.train[0].sha256",
        "write 64 lower-case hex digits",
    ),
    Case(
        "validation twice",
        {"dataset": {"validation": [{"source": "pvc://d/v"}], "validationFraction": 0.1}},
        "spec.dataset",
        "write either dataset.validation or dataset.validationFraction",
    ),
    Case("no training data", {"dataset": {"train": []}}, "spec.dataset.train"),
    Case(
        "all rows for validation", {"dataset": {"validationFraction": 0.6}}, "spec.dataset.validationFraction"
    ),
    Case("format's case", _train(source="pvc://d/x", format="text"), "spec.dataset.train[0].format"),
    # method
    Case(
        "lora under Full",
        {"method": {"type": "Full", "lora": {"rank": 8}}},
        "spec.method",
        "method.lora is for type LoRA: remove the lora block, or write method.type: LoRA",
    ),
    Case("rank 0", {"method": {"lora": {"rank": 0}}}, "spec.method.lora.rank"),
    Case("dropout 1", {"method": {"lora": {"dropout": 1}}}, "spec.method.lora.dropout"),
    # training
    Case(
        "epochs and steps",
        {"training": {"epochs": 1, "maxSteps": 1}},
        "spec.training",
        "write either training.epochs or training.maxSteps",
    ),
    Case(
        "evaluation twice",
        {"training": {"evaluation": {"everyEpochs": 1, "everySteps": 1}}},
        "spec.training.evaluation",
        "write either evaluation.everyEpochs or evaluation.everySteps",
    ),
    Case("micro-batch too large", {"training": {"batch": {"global": 4, "micro": 8}}}, "spec", BATCH),
    Case("micro-batch as a string", {"training": {"batch": {"global": 4, "micro": "3"}}}, "spec", BATCH),
    Case("batch and ranks", {"training": {"batch": {"global": 4}}, "compute": {"nodes": 3}}, "spec", BATCH),
    Case(
        "batch and CPU ranks",
        {
            "training": {"batch": {"global": 4, "micro": 2}},
            "compute": {"nodes": 2, "gpusPerNode": 0, "processesPerNode": 2},
        },
        "spec",
        BATCH,
    ),
    Case(
        "micro-batch 0",
        {"training": {"batch": {"micro": 0}}},
        "spec.training.batch.micro",
        "write Auto or a number from 1 to 9999",
    ),
    Case("epochs in words", {"training": {"epochs": "three"}}, "spec.training.epochs"),
    Case("epochs in quotes", {"training": {"epochs": "3"}}, "spec.training.epochs"),
    Case("half an epoch", {"training": {"epochs": 1.5}}, "spec.training.epochs"),
    Case("learning rate 0", {"training": {"learningRate": 0}}, "spec.training.learningRate"),
    Case("seed -1", {"training": {"seed": -1}}, "spec.training.seed"),
    # deepspeed
    Case(
        "ZeRO stage 4",
        {"deepspeed": {"zeroStage": 4}},
        "spec.deepspeed.zeroStage",
        "write Auto, 0, 1, 2 or 3",
    ),
    # compute
    Case(
        "CPU nodes without processes",
        {"compute": {"gpusPerNode": 0, "nodes": 2}},
        "spec.compute",
        "several nodes without GPUs need compute.processesPerNode: write how many ranks each node runs",
    ),
    Case(
        "processes beside GPUs",
        {"compute": {"gpusPerNode": 2, "processesPerNode": 1}},
        "spec.compute",
        "each GPU runs one rank: remove compute.processesPerNode, or write gpusPerNode: 0 for a CPU run",
    ),
    Case(
        "resource's name",
        {"compute": {"acceleratorResource": "nvidia gpu"}},
        "spec.compute.acceleratorResource",
        "write a resource name such as nvidia.com/gpu",
    ),
    Case("selector's key", {"compute": {"nodeSelector": {"a b": "c"}}}, "spec.compute.nodeSelector", KEYS),
    Case("cpu in words", {"compute": {"resources": {"cpu": "four"}}}, "spec.compute.resources.cpu", QUANTITY),
    Case("negative memory", {"compute": {"sharedMemory": "-1Gi"}}, "spec.compute.sharedMemory", QUANTITY),
    Case("no nodes", {"compute": {"nodes": 0}}, "spec.compute.nodes"),
    # output, lifecycle
    Case("no output", {"output": None}, "spec.output"),
    Case("format to come", {"output": {"formats": ["GGUF"]}}, "spec.output.formats[0]"),
    Case("suspend in quotes", {"lifecycle": {"suspend": "true"}}, "spec.lifecycle.suspend"),
    # podTemplate
    Case(
        "our own variable",
        {"podTemplate": {"env": [{"name": "TUNEWRIGHT_CONFIG", "value": "x"}]}},
        "spec.podTemplate.env[0]",
        RESERVED_ENV,
    ),
    Case(
        "variable's name",
        {"podTemplate": {"env": [{"name": "A-B", "value": "x"}]}},
        "spec.podTemplate.env[0].name",
        "write the name with letters, digits and '_'",
    ),
    Case(
        "our own label",
        {"podTemplate": {"labels": {"tunewright.dev/job-uid": "x"}}},
        "spec.podTemplate",
        RESERVED_LABEL,
    ),
    Case(
        "our own annotation",
        {"podTemplate": {"annotations": {"tunewright.dev/x": "x"}}},
        "spec.podTemplate",
        RESERVED_LABEL,
    ),
    Case("label's key", {"podTemplate": {"labels": {"/x": "y"}}}, "spec.podTemplate.labels", KEYS),
    Case(
        "image with a space",
        {"podTemplate": {"image": "a b"}},
        "spec.podTemplate.image",
        "write an image reference, such as registry/name:tag",
    ),
    Case(
        "pods as root",
        {"podTemplate": {"securityContext": {"runAsUser": 0}}},
        "spec.podTemplate.securityContext.runAsUser",
    ),
]


def _owned(owned: OwnedKey) -> Case:
    examples = {"object": {"type": "X"}, "boolean": True, "number": 0.5}
    value: Any = examples.get(owned.schema.get("type", ""), "auto")
    for part in reversed(owned.key.split(".")):
        value = {part: value}
    return Case(
        f"raw {owned.key}",
        {"deepspeed": {"config": value}},
        "spec.deepspeed.config",
        f"{owned.key} is set by {owned.field}: remove it from deepspeed.config and write that field",
    )


REFUSED += [_owned(key) for key in OWNED_KEYS]
REFUSED += [
    Case("label's value", {"podTemplate": {"labels": {"a": "b c"}}}, "spec.podTemplate.labels[a]", LABEL),
    Case(
        "selector's value", {"compute": {"nodeSelector": {"a": "b c"}}}, "spec.compute.nodeSelector[a]", LABEL
    ),
]
