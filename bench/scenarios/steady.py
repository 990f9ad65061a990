"""Jobs that wait, are suspended or have finished must cost no write; running ones few."""

from __future__ import annotations

import asyncio

from bench import jobs
from bench.audit import job_writes, smallest_gaps_seconds
from bench.figures import Figures
from bench.load import Timeline, create
from bench.scenarios.context import Bench, released
from hack.devcluster.api import Api

POST_EVERY_SECONDS = 2.0
WAITING, SUSPENDED = "bench-waiting", "bench-suspended"
FINISHED, RUNNING = "bench-finished", "bench-running"
QUIET = (WAITING, SUSPENDED, FINISHED)


async def run(bench: Bench) -> None:
    """All four kinds beside each other."""
    figures, scale, api = Figures("steady"), bench.scale, bench.cluster.api
    await _set_up(bench)
    bench.say(f"  all jobs are in place; {scale.settle_seconds:.0f} s to settle")
    await asyncio.sleep(scale.settle_seconds)
    position, before = bench.cluster.audit.position(), bench.operator.cost()
    posts = await bench.operator.metric("tunewright_progress_posts_total")
    await asyncio.sleep(scale.steady_seconds)
    after, requests = bench.operator.cost(), bench.cluster.audit.requests(position)
    posts = await bench.operator.metric("tunewright_progress_posts_total") - posts
    phases = await _phases(bench)

    quiet = [each for each in requests if each.namespace in QUIET and each.kind != "read"]
    running = job_writes(requests, RUNNING)
    gaps = smallest_gaps_seconds(running)
    figures.add("seconds", "length of the window", scale.steady_seconds, "s")
    for namespace, expected in ((WAITING, "Pending"), (SUSPENDED, "Suspended"), (FINISHED, "Succeeded")):
        there = phases[namespace].count(expected)
        name = namespace.removeprefix("bench-")
        figures.add(f"{name}_jobs", f"{name} jobs", there)
        written = sum(each.namespace == namespace for each in quiet)
        figures.add(f"{name}_writes", f"writes for {name} jobs, events included", written)
    figures.add("running_jobs", "running jobs", phases[RUNNING].count("Running"))
    figures.add("posts", "progress posts of these", posts)
    figures.add("running_writes", "writes for running jobs", len(running))
    figures.add(
        "running_gap_s",
        "shortest time between two writes for one job",
        min(gaps.values(), default=scale.steady_seconds),
        "s",
    )
    figures.add("cpu_percent", "CPU of one core", after.cpu_percent_since(before), "%")
    bench.take(figures)
    await _clear_up(api)


async def _set_up(bench: Bench) -> None:
    scale, api = bench.scale, bench.cluster.api
    for namespace in (*QUIET, RUNNING):
        await bench.cluster.namespace(namespace)
    timelines = {namespace: Timeline(api, namespace) for namespace in (*QUIET, RUNNING)}
    manifests = [
        *(
            jobs.fine_tune_job(WAITING, f"job-{number}", secret="not-there-yet")
            for number in range(scale.waiting_jobs)
        ),
        *(
            jobs.fine_tune_job(SUSPENDED, f"job-{number}", suspend=True)
            for number in range(scale.suspended_jobs)
        ),
        *(jobs.fine_tune_job(FINISHED, f"job-{number}") for number in range(scale.finished_jobs)),
        *(
            jobs.fine_tune_job(
                RUNNING,
                f"job-{number}",
                pods=2,
                train_seconds=jobs.FOREVER,
                post_every_seconds=POST_EVERY_SECONDS,
            )
            for number in range(scale.running_jobs)
        ),
    ]
    async with (
        timelines[WAITING].watching(),
        timelines[SUSPENDED].watching(),
        timelines[FINISHED].watching(),
        timelines[RUNNING].watching(),
    ):
        await asyncio.gather(*(create(api, manifest) for manifest in manifests))
        await timelines[WAITING].wait("phase:Pending", scale.waiting_jobs)
        await timelines[SUSPENDED].wait("phase:Suspended", scale.suspended_jobs)
        await timelines[RUNNING].wait("phase:Running", scale.running_jobs)
        await released(timelines[FINISHED], scale.finished_jobs)


async def _phases(bench: Bench) -> dict[str, list[str]]:
    """Phases of the jobs in each of the namespaces."""
    return {
        namespace: [
            each["status"]["phase"] for each in (await bench.cluster.api.get(jobs.path(namespace)))["items"]
        ]
        for namespace in (*QUIET, RUNNING)
    }


async def _clear_up(api: Api) -> None:
    """Delete the jobs that would run or wait for ever."""
    for namespace in (WAITING, SUSPENDED, RUNNING):
        await api.delete(jobs.path(namespace))
    async with asyncio.timeout(60):
        while True:
            left = [await api.get(jobs.path(each)) for each in (WAITING, SUSPENDED, RUNNING)]
            if not any(each["items"] for each in left):
                return
            await asyncio.sleep(0.2)
