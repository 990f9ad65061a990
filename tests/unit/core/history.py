"""Random histories of a job: what users, nodes, pods, caches and dying operators may do to it, then peace.

Every step changes raw facts of a simulated cluster; what our own code made of them is only judged.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.builders import SETTINGS, make_failure
from tests.unit.core.cluster_sim import COMPONENTS, ClusterSim, SimPod, deletion_time
from tests.unit.core.invariants import check_move, check_status
from tests.unit.core.operator_sim import OperatorSim
from tunewright.core import names
from tunewright.core.model import Manifest
from tunewright_trainer.contract import ExitCode, Reason

CHAOS_STEPS = 12
PEACE_STEPS = 80
CODES = [*(int(code) for code in ExitCode if code), 1, 139]
LAG = 12
"""How many changes a cache may be behind."""


class History:
    """One job's life under ``seed``. :meth:`run` raises AssertionError where a rule is broken."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cluster = ClusterSim(self.rng, self._spec())
        if self.rng.random() < 0.03:
            self.cluster.sequences = 1  # fewer than one batch: the planner refuses
        if self.rng.random() < 0.2:
            self.cluster.references["secret/hf-token"] = False
        url = SETTINGS.progress_url if self.rng.random() < 0.8 else None
        self.operator = OperatorSim(
            self.cluster, self.rng, replace(SETTINGS, progress_url=url), self._status_written
        )
        self.phases: set[str] = set()
        self.log: list[str] = []

    def _spec(self) -> dict[str, Any]:
        rng = self.rng
        nodes = rng.choice([1, 2])
        lifecycle = {
            "maxRestarts": rng.choice([0, 1, 3]),
            "maxPreemptions": rng.choice([1, 20]),
            "suspend": rng.random() < 0.05,
        }
        spec: dict[str, Any] = {"compute": {"nodes": nodes}, "lifecycle": lifecycle}
        if rng.random() < 0.01:
            spec["compute"]["nodes"] = -1  # as an older schema may have let through
        return spec

    def run(self) -> None:
        """Chaos, then peace, in which the job has to reach an end and everything comes to rest."""
        if self.cluster.nodes_wanted < 0:
            self.cluster.nodes_wanted = 1
        for _ in range(self.rng.choice([0, 2, 3, 4, 4, 5, 6])):  # so that chaos comes in every phase
            self.cluster.tick(self._finished(0.8, 0.0, 0.8))
            self._settle()
        for _ in range(CHAOS_STEPS):
            self._chaos()
        self._make_peace()
        for _ in range(PEACE_STEPS):
            self.cluster.tick()
            self._settle(passes=12 if self.rng.random() < 0.3 else 1)
            if self.cluster.is_over():
                return
            self.cluster.advance(self.rng.choice([5, 30, 60]))
        raise AssertionError(f"no end after {PEACE_STEPS} quiet steps: {self.cluster.job}")

    # --- peace ----------------------------------------------------------------------------------------------

    def _make_peace(self) -> None:
        cluster = self.cluster
        for name in ("node-a", "node-b", "node-c"):
            cluster.set_node(name, "True")
        cluster.references = dict.fromkeys(cluster.references, True)
        if cluster.job is not None and cluster.job["spec"].get("lifecycle", {}).get("suspend"):
            self._edit(suspend=False)
        cluster.commit()

    def _settle(self, passes: int = 12) -> None:
        """With nothing else happening the operator comes to rest: no pass writes for ever."""
        self.operator.catch_up()
        if passes == 1:
            self.operator.reconcile()
            return
        decided = None
        for _ in range(passes):
            writes = self.operator.writes
            decided = self.operator.reconcile()
            if decided is None or self.operator.writes == writes:
                wait = None if decided is None else decided.requeue_after_seconds
                assert wait is None or wait > 0, "a pass that changes nothing asks for another at once"
                return
            self.operator.catch_up()
        raise AssertionError(f"the operator goes on writing: {decided}")

    # --- chaos ----------------------------------------------------------------------------------------------

    def _chaos(self) -> None:
        rng = self.rng
        happening, weight = zip(*_HAPPENINGS, strict=True)
        for happen in rng.choices(happening, weight, k=rng.randint(0, 2)):
            self.log.append(happen.__name__)
            happen(self)
        self.cluster.tick(self._finished(0.7, 0.1, 0.3))
        self._post()
        for _ in range(rng.randint(1, 2)):
            self.operator.watch(lag=rng.choice([0, 0, 1, LAG]))
            self.operator.reconcile(die_after=rng.randint(0, 4) if rng.random() < 0.15 else None)
        # Hours pass in no time, or backwards, where clocks are set.
        jump = 3600.0 * rng.choice([-1, 1]) if rng.random() < 0.02 else 0.0
        self.cluster.advance(rng.choice([0, 1, 5, 31, 61, 400]) + jump)

    def _finished(self, *chances: float) -> list[str]:
        """Components whose pods get done in this step, each with its chance."""
        rng = self.rng
        return [part for part, chance in zip(COMPONENTS, chances, strict=True) if rng.random() < chance]

    def _post(self) -> None:
        for pod in self.cluster.pods.values():
            is_rank_0 = pod.job is not None and pod.job.component == names.COMPONENT_TRAIN and pod.index == 0
            if is_rank_0 and pod.phase == "Running" and self.rng.random() < 0.7:
                self.operator.post(
                    pod.uid, pod.age * 10 + self.rng.choice([0, 0, 3]), self.rng.uniform(0.5, 3)
                )

    def _status_written(self, before: Manifest, after: Manifest | None) -> None:
        if after is None:
            return
        check_status(after)
        check_move(before, after)
        self.phases.add(after["status"]["phase"])

    def _edit(self, **lifecycle: Any) -> None:
        job = self.cluster.job
        if job is not None:
            spec = {**job["spec"], "lifecycle": {**job["spec"].get("lifecycle", {}), **lifecycle}}
            self.cluster.change_job(spec_changed=True, spec=spec)

    def _some_pod(self, *phases: str) -> SimPod | None:
        pods = [pod for pod in self.cluster.pods.values() if pod.phase in phases and pod.job is not None]
        return self.rng.choice(pods) if pods else None

    # Each of these is something that happens to the job.

    def pod_ends(self) -> None:
        if (pod := self._some_pod("Running")) is None or not self.cluster.node_is_well(pod.node):
            return
        code = self.rng.choice(CODES)
        failure = make_failure(
            self.rng.choice(list(Reason)),
            rank=self.rng.choice([None, 0, 1]),
            step=self.rng.choice([None, 7]),
        ).model_dump_json()
        out_of_range = failure.replace('"step":7', '"step":-7')
        message = self.rng.choice(["", "Traceback\nValueError: x" * 100, failure, out_of_range, "\x00{"])
        self.cluster.end(pod, code, message, self.rng.choice([None, None, "OOMKilled"]))

    def pod_is_disrupted(self) -> None:
        if (pod := self._some_pod("Running", "Pending")) is not None:
            self.cluster.pods[pod.name] = replace(pod, deleting=True, disruption="Evicted: node drain.")

    def pod_is_deleted(self) -> None:
        if (pod := self._some_pod("Running", "Pending", "Succeeded", "Failed")) is not None:
            if pod.live:
                self.cluster.pods[pod.name] = replace(pod, deleting=True)
            else:
                del self.cluster.pods[pod.name]

    def image_is_missing(self) -> None:
        if (pod := self._some_pod("Pending")) is not None:
            waiting = self.rng.choice([("ImagePullBackOff", "not found"), ("CreateContainerConfigError", "")])
            self.cluster.pods[pod.name] = replace(pod, waiting=waiting)

    def node_changes(self) -> None:
        name = self.rng.choice(["node-a", "node-b", "node-c"])
        self.cluster.set_node(name, self.rng.choice(["True", "False", "Unknown", "gone"]))

    def all_nodes_change(self) -> None:
        state = self.rng.choice(["True", "False", "Unknown", "gone"])
        for name in ("node-a", "node-b", "node-c"):
            self.cluster.set_node(name, state)

    def child_job_is_deleted(self) -> None:
        if self.cluster.jobs:
            name = self.rng.choice(sorted(self.cluster.jobs))
            self.cluster.delete_child_job(name, self.rng.choice(["Foreground", "Background", "Orphan"]))

    def parts_are_deleted(self) -> None:
        self.rng.choice([self.cluster.config_maps, self.cluster.services]).clear()

    def reference_changes(self) -> None:
        name = self.rng.choice(sorted(self.cluster.references))
        self.cluster.references[name] = self.rng.random() < 0.5

    def user_suspends(self) -> None:
        self._edit(suspend=True)

    def user_resumes(self) -> None:
        self._edit(suspend=False)

    def user_sets_limits(self) -> None:
        self._edit(
            activeDeadlineSeconds=self.rng.choice([1, 600, 100_000]),
            ttlSecondsAfterFinished=self.rng.choice([0, 60]),
        )

    def user_grows_impatient(self) -> None:
        self._edit(progressDeadlineSeconds=self.rng.choice([1, 60, 1800]))

    def user_deletes(self) -> None:
        if self.cluster.job is not None and "deletionTimestamp" not in self.cluster.job["metadata"]:
            self.cluster.change_job(deletionTimestamp=deletion_time(self.cluster))

    def operator_is_replaced(self) -> None:
        self.operator.start(lag=self.rng.choice([0, LAG, 2 * LAG]))


_HAPPENINGS: list[tuple[Callable[[History], None], int]] = [
    (History.pod_ends, 20),
    (History.pod_is_disrupted, 6),
    (History.pod_is_deleted, 6),
    (History.image_is_missing, 4),
    (History.node_changes, 10),
    (History.all_nodes_change, 5),
    (History.child_job_is_deleted, 6),
    (History.parts_are_deleted, 3),
    (History.reference_changes, 2),
    (History.user_suspends, 6),
    (History.user_resumes, 8),
    (History.user_sets_limits, 1),
    (History.user_grows_impatient, 5),
    (History.user_deletes, 2),
    (History.operator_is_replaced, 12),
]
