"""The FineTuneJobs that benchmarks create, and the annotations by which they tell the nodes what to play."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

CLAIM = "bench"
"""The claim in each namespace that every job names. Nothing is ever read from it."""
TRAIN_SECONDS = "bench.tunewright.dev/train-seconds"
POST_EVERY_SECONDS = "bench.tunewright.dev/post-every-seconds"
FOREVER = 1e6


def fine_tune_job(
    namespace: str,
    name: str,
    *,
    pods: int = 1,
    train_seconds: float = 1.0,
    post_every_seconds: float = 1.0,
    suspend: bool = False,
    secret: str | None = None,
) -> Manifest:
    """A LoRA job of ``pods`` pods with a GPU each, whose training takes ``train_seconds``.

    ``post_every_seconds``: how often rank 0 posts its progress. ``secret``: one that the model's source
    needs; a job whose secret is not there waits for it.
    """
    model: Manifest = {"source": f"pvc://{CLAIM}/model"}
    if secret is not None:
        model = {"source": "hf://bench/model", "secretRef": {"name": secret}}
    spec: Manifest = {
        "model": model,
        "dataset": {"train": [{"source": f"pvc://{CLAIM}/chats.jsonl"}]},
        "training": {"batch": {"global": 32 * pods}},
        "compute": {"nodes": pods, "gpusPerNode": 1},
        "output": {"destination": f"pvc://{CLAIM}/out/{name}"},
        "podTemplate": {
            "annotations": {
                TRAIN_SECONDS: f"{train_seconds:g}",
                POST_EVERY_SECONDS: f"{post_every_seconds:g}",
            }
        },
    }
    if suspend:
        spec["lifecycle"] = {"suspend": True}
    return {
        "apiVersion": "tunewright.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def path(namespace: str, name: str = "") -> str:
    """URL path of a namespace's FineTuneJobs, or of one."""
    collection = f"/apis/tunewright.dev/v1alpha1/namespaces/{namespace}/finetunejobs"
    return f"{collection}/{name}" if name else collection
