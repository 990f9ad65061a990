"""Jobs from creation to their end, at a steady rate, in a burst, and one with very many pods."""

from __future__ import annotations

from bench.audit import job_writes
from bench.figures import Figures
from bench.jobs import fine_tune_job
from bench.load import Timeline, create_open_loop
from bench.scenarios.context import Bench, released

TRAIN_SECONDS = 2.0
RECONCILES = "tunewright_reconcile_seconds_count"


async def run_rate(bench: Bench) -> None:
    """One job a second."""
    scale = bench.scale
    await _run(bench, Figures("rate"), scale.rate_jobs, scale.rate_pods, every_seconds=1.0)


async def run_burst(bench: Bench) -> None:
    """All jobs at once."""
    scale = bench.scale
    await _run(bench, Figures("burst"), scale.burst_jobs, scale.burst_pods, every_seconds=0.0)


async def run_wide(bench: Bench) -> None:
    """One job with as many pods as a large one has."""
    figures, pods = Figures("wide"), bench.scale.wide_pods
    timeline = await _play(bench, "bench-wide", 1, pods, 0.0, figures)
    figures.add(
        "pods_ms",
        f"Job → all {pods} pods (Job controller)",
        timeline.between("train_job", "train_pods")[0],
        "ms",
    )
    bench.take(figures)


async def _run(bench: Bench, figures: Figures, count: int, pods: int, *, every_seconds: float) -> None:
    scenario = figures.scenario
    timeline = await _play(bench, f"bench-{scenario}", count, pods, every_seconds, figures)
    for name, start, end, what in (
        ("prepare_job", "created", "prepare_job", "create → prepare Job (operator)"),
        ("facts_worker_job", "facts", "train_job", "facts → worker Job (both)"),
        ("facts_complete", "facts", "prepare_complete", "… facts → prepare Job complete (Job controller)"),
        ("complete_worker_job", "prepare_complete", "train_job", "… complete → worker Job (operator)"),
        ("worker_pods", "train_job", "train_pods", f"worker Job → its {pods} pods (Job controller)"),
    ):
        figures.add_latency(name, what, timeline.between(start, end))
    created = count * pods / timeline.span_seconds("train_pods", "train_job")
    figures.add(
        "all_prepare_jobs_s", "first create → last prepare Job", timeline.span_seconds("prepare_job"), "s"
    )
    figures.add(
        "all_pods_s", "first create → last worker pod created", timeline.span_seconds("train_pods"), "s"
    )
    figures.add("pods_per_second", "worker pods created, first worker Job → last pod", created, "/s")
    figures.add("all_ended_s", "first create → last job Succeeded", timeline.span_seconds("ended"), "s")
    bench.take(figures)


async def _play(
    bench: Bench, namespace: str, count: int, pods: int, every_seconds: float, figures: Figures
) -> Timeline:
    """Run ``count`` jobs to their end, and note what they cost the operator."""
    await bench.cluster.namespace(namespace)
    timeline = Timeline(bench.cluster.api, namespace)
    manifests = [
        fine_tune_job(namespace, f"job-{number:03d}", pods=pods, train_seconds=TRAIN_SECONDS)
        for number in range(count)
    ]
    reconciles = await bench.operator.metric(RECONCILES)
    position, before = bench.cluster.audit.position(), bench.operator.cost()
    async with timeline.watching():
        await create_open_loop(bench.cluster.api, manifests, every_seconds)
        await released(timeline, count)
    reconciles = await bench.operator.metric(RECONCILES) - reconciles
    after, requests = bench.operator.cost(), bench.cluster.audit.requests(position)
    writes = job_writes(requests, namespace)
    refused = sum(request.code >= 400 for request in writes)
    figures.add("cpu_ms_per_job", "operator's CPU per job", after.cpu_ms_since(before) / count, "ms")
    figures.add("reconciles_per_job", "reconciles per job", reconciles / count)
    figures.add("writes_per_job", "operator's writes per job", len(writes) / count)
    figures.add("refused", "of all these writes, refused (conflicts)", refused)
    figures.add("rss_before_mb", "memory (RSS) before", before.rss_bytes / 1e6, "MB")
    figures.add("rss_after_mb", "memory (RSS) after", after.rss_bytes / 1e6, "MB")
    return timeline
