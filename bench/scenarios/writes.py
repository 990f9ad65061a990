"""How often the operator writes for one undisturbed job, and whether more pods make it write more."""

from __future__ import annotations

from collections import Counter

from bench.audit import JOB_WRITES, Request, job_writes
from bench.figures import Figures
from bench.jobs import fine_tune_job
from bench.load import Timeline, create
from bench.scenarios.context import Bench, released

TRAIN_SECONDS = 3.0
"""Long enough for two posts: the first makes the job Running, the second changes nothing."""
APART = ("event", "token review", "read")


async def run(bench: Bench) -> None:
    """Jobs one after another, each alone in its namespace, from creation to the finalizer's removal."""
    figures = Figures("writes")
    for pods in bench.scale.write_pods:
        counted = []
        for number in range(bench.scale.write_jobs):
            counted.append(await _one_job(bench, f"bench-writes-{pods}-{number}", pods))
        totals = [len(job_writes(requests)) for requests in counted]
        kinds = Counter(request.kind for requests in counted for request in requests)
        noun = "pod" if pods == 1 else "pods"
        figures.add(f"pods_{pods}", f"writes per job of {pods} {noun}, most", max(totals))
        for kind in JOB_WRITES:
            figures.add(f"pods_{pods}_{kind}", f"… {kind}", kinds[kind] / len(counted))
        for kind in APART:
            name = kind.replace(" ", "_")
            figures.add(f"pods_{pods}_{name}", f"apart: {kind}s", kinds[kind] / len(counted))
    bench.take(figures)


async def _one_job(bench: Bench, namespace: str, pods: int) -> list[Request]:
    """All requests of the operator for the namespace's one job; token reviews have no namespace."""
    await bench.cluster.namespace(namespace)
    timeline = Timeline(bench.cluster.api, namespace)
    position = bench.cluster.audit.position()
    async with timeline.watching():
        await create(
            bench.cluster.api, fine_tune_job(namespace, "job", pods=pods, train_seconds=TRAIN_SECONDS)
        )
        await released(timeline, 1)
    requests = bench.cluster.audit.requests(position)
    return [each for each in requests if each.namespace == namespace or each.kind == "token review"]
