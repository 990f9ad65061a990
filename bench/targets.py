"""The targets that a run is held against, restated; and how far its figures are from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.figures import shown


@dataclass(frozen=True)
class Check:
    """One figure against one limit."""

    key: str
    what: str
    limit: float
    unit: str = ""
    bound: Literal["at most", "at least"] = "at most"

    def verdict(self, value: float) -> str:
        """What was measured and whether that is enough, in a few words."""
        measured = f"{self.what}: {shown(value)} {self.unit}".strip()
        limit = f"{self.bound} {shown(self.limit)}"
        good = value <= self.limit if self.bound == "at most" else value >= self.limit
        if good:
            return f"{measured} ({limit}: met)"
        if not self.limit or not value:
            return f"{measured} ({limit}: **missed**)"
        times = value / self.limit if self.bound == "at most" else self.limit / value
        return f"{measured} ({limit}: **missed, {times:.1f} times**)"


@dataclass(frozen=True)
class Target:
    """A target as it was set, and the checks of what we measure of it."""

    name: str
    text: str
    checks: Sequence[Check] = ()
    note: str = ""
    """What was not measured, or was measured otherwise than the target says."""


TARGETS: Sequence[Target] = (
    Target(
        "Writes",
        "At most 18 writes per undisturbed job, whatever its number of pods; events apart.",
        (
            Check("writes.pods_1", "1 pod", 18),
            Check("writes.pods_8", "8 pods", 18),
        ),
    ),
    Target(
        "Steady",
        "No write in 60 s for waiting, suspended and finished jobs; at most one per 30 s for a running one.",
        (
            Check("steady.waiting_writes", "waiting", 0),
            Check("steady.suspended_writes", "suspended", 0),
            Check("steady.finished_writes", "finished", 0),
            Check("steady.running_gap_s", "running, shortest gap", 29.0, "s", "at least"),
        ),
        "Each write is caused by a post that comes up to 2 s after it was due, so gaps scatter around 30 s.",
    ),
    Target(
        "T1",
        "Create → all 8 pods at 1 job/s: median 50 ms, p99 250 ms. For an operator that makes pods itself.",
        (
            Check("rate.prepare_job_p50_ms", "create → prepare Job, median", 50, "ms"),
            Check("rate.prepare_job_p99_ms", "p99", 250, "ms"),
            Check("rate.complete_worker_job_p50_ms", "prepare complete → worker Job, median", 50, "ms"),
            Check("rate.complete_worker_job_p99_ms", "p99", 250, "ms"),
        ),
        "The operator's own two steps are held against it. Its pods come from the Job controller, which "
        "gathers events for a second before it acts: those waits stand apart below.",
    ),
    Target(
        "T2",
        "Burst of 500 jobs x 4 pods: all pods in 10 s, 200 pods/s, 8 ms of CPU per job.",
        (
            Check("burst.all_pods_s", "first create → last pod", 10, "s"),
            Check("burst.pods_per_second", "worker pods", 200, "/s", "at least"),
            Check("burst.cpu_ms_per_job", "CPU per job", 8, "ms"),
        ),
        "Set for one stage that ends with the pods. Here it is the whole life of a job: three Jobs one "
        "after the other, progress posts over TLS, to Succeeded.",
    ),
    Target(
        "T3",
        "10 jobs/s x 2 pods for 5 min: the queue drains, p99 at most 1 s.",
        note="Takes too long for each run.",
    ),
    Target(
        "T4",
        "One job of 256 pods: all created in 2 s.",
        (Check("wide.pods_ms", "worker Job → all pods (Job controller)", 2000, "ms"),),
    ),
    Target(
        "T5",
        "A pod fails → the next attempt's pods at most 500 ms after the old ones are gone.",
        (
            Check("restart.pods_p50_ms", "old pods gone → all new ones, median", 500, "ms"),
            Check("restart.worker_job_p50_ms", "Job failed → next worker Job (operator), median", 500, "ms"),
        ),
        "In between, the Job controller takes its second to say that the old Job has failed.",
    ),
    Target(
        "T6",
        "Memory: 130 MB idle, 170 MB with 1,000 jobs and 4,000 pods, 400 MB with 10,000 and 20,000.",
        (
            Check("idle.rss_mb", "idle", 130, "MB"),
            Check("burst.rss_after_mb", "after the burst", 170, "MB"),
            Check("cold.rss_mb", "fresh process, the same jobs", 170, "MB"),
        ),
        "With half as many jobs as the second figure is for; neither 10,000 jobs nor the slope over 30 min "
        "of churn was measured.",
    ),
    Target(
        "T7",
        "Idle: 0.2 requests/s, 1 % of a core.",
        (
            Check("idle.requests_per_second", "requests", 0.2, "/s"),
            Check("idle.cpu_percent", "CPU", 1, "%"),
        ),
        "The Lease alone is renewed every 2 s, as client-go does it.",
    ),
    Target(
        "T8",
        "Cold start with 5,000 finished jobs: ready in 10 s, no write.",
        (
            Check("cold.ready_s", "ready", 10, "s"),
            Check("cold.writes", "writes", 0),
        ),
        "With a tenth as many jobs.",
    ),
    Target(
        "T9",
        "A standby leads 17 s after a crash, 3 s after a graceful end.",
        (
            Check("failover.crash_lease_s", "crash", 17, "s"),
            Check("failover.graceful_lease_s", "graceful", 3, "s"),
        ),
    ),
    Target(
        "T10",
        "Writes per job at most N + 8 for N pods.",
        (Check("writes.pods_8", "8 pods", 16),),
        "Set for one stage; the figure that counts here is the first row's.",
    ),
)


def how_far(target: Target, values: Mapping[str, float]) -> list[str]:
    """Verdicts of those checks whose figures were measured."""
    return [check.verdict(values[check.key]) for check in target.checks if check.key in values]
