"""A worker pod is deleted: how soon the next attempt's pods exist, and whose the time in between was."""

from __future__ import annotations

import asyncio

from bench import jobs
from bench.figures import Figures
from bench.load import Timeline, create
from bench.scenarios.context import Bench
from tunewright.core import names

NAMESPACE = "bench-restart"


async def run(bench: Bench) -> None:
    """Several gangs at once, each of which loses one pod."""
    figures, scale, api = Figures("restart"), bench.scale, bench.cluster.api
    await bench.cluster.namespace(NAMESPACE)
    timeline = Timeline(api, NAMESPACE)
    manifests = [
        jobs.fine_tune_job(NAMESPACE, f"job-{number}", pods=scale.restart_pods, train_seconds=jobs.FOREVER)
        for number in range(scale.restart_jobs)
    ]
    async with timeline.watching():
        await asyncio.gather(*(create(api, manifest) for manifest in manifests))
        await timeline.wait("phase:Running", scale.restart_jobs)
        await asyncio.gather(*(_delete_a_worker(bench, each["metadata"]["name"]) for each in manifests))
        await timeline.wait("train2_pods", scale.restart_jobs)
    for name, start, end, what in (
        ("pods", "train_gone", "train2_pods", "old pods gone → all new ones created"),
        ("failed", "train_gone", "train_failed", "… old pods gone → Job failed (Job controller)"),
        ("worker_job", "train_failed", "train2_job", "… Job failed → next worker Job (operator)"),
        ("new_pods", "train2_job", "train2_pods", "… worker Job → all its pods (Job controller)"),
    ):
        figures.add_latency(name, what, timeline.between(start, end))
    bench.take(figures)
    await api.delete(jobs.path(NAMESPACE))


async def _delete_a_worker(bench: Bench, job: str) -> None:
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    selector = f"{names.LABEL_JOB_NAME}={job},{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}"
    listed = await bench.cluster.api.get(pods, {"labelSelector": selector})
    await bench.cluster.api.delete(f"{pods}/{listed['items'][0]['metadata']['name']}")
