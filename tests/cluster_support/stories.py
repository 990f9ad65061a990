"""Lives that the kill sweep goes through again and again; each takes seconds."""

from __future__ import annotations

from bench.jobs import FOREVER, fine_tune_job
from tests.cluster_support.admin import Admin, Object
from tunewright.core import names

NAME = "tune"


class Story:
    """What happens to a job. What is done to it never depends on how long an operator was dead."""

    def begin(self, api: Admin, namespace: str) -> None:
        raise NotImplementedError

    def advance(self, api: Admin, namespace: str) -> bool:
        """Do what is due; True when the life is over."""
        raise NotImplementedError


def running_workers(api: Admin, namespace: str) -> list[Object]:
    """Worker pods that run and were not told to go."""
    pods = api.list("pods", namespace, f"{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}")
    return [
        pod
        for pod in pods
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


class Whole(Story):
    """From creation to Succeeded: two pods that train for a moment and post their progress."""

    def begin(self, api: Admin, namespace: str) -> None:
        job = fine_tune_job(namespace, NAME, pods=2, train_seconds=1.0, post_every_seconds=0.3)
        api.call("POST", f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}", job)

    def advance(self, api: Admin, namespace: str) -> bool:
        job = api.find("finetunejobs", namespace, NAME) or {}
        is_over = bool((job.get("status") or {}).get("phase") == "Succeeded")
        return is_over and not job["metadata"].get("finalizers")


class Interrupted(Story):
    """Started, suspended while it trains, resumed, and deleted while it trains again."""

    def __init__(self) -> None:
        self._step = 0

    def begin(self, api: Admin, namespace: str) -> None:
        self._step = 0
        job = fine_tune_job(namespace, NAME, pods=2, train_seconds=FOREVER, post_every_seconds=0.3)
        api.call("POST", f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}", job)

    def advance(self, api: Admin, namespace: str) -> bool:
        workers = running_workers(api, namespace)
        attempts = {pod["metadata"]["labels"][names.LABEL_ATTEMPT] for pod in workers}
        if self._step == 0 and len(workers) == 2:
            self._suspend(api, namespace, True)
        elif self._step == 1 and self._is_at_rest(api, namespace):
            self._suspend(api, namespace, False)
        elif self._step == 2 and len(workers) == 2 and attempts == {"2"}:
            api.delete("finetunejobs", namespace, NAME, propagationPolicy="Background")
            self._step += 1
        elif self._step == 3:
            gone = api.find("finetunejobs", namespace, NAME) is None
            left = [each for plural in ("jobs", "pods", "services") for each in api.list(plural, namespace)]
            return gone and not left
        return False

    @staticmethod
    def _is_at_rest(api: Admin, namespace: str) -> bool:
        """Resumed any sooner, the job would go on with the attempt that it is in."""
        job = api.find("finetunejobs", namespace, NAME) or {}
        attempts = (job.get("status") or {}).get("attempts") or [{}]
        return bool(attempts[-1].get("reason") == "Suspended")

    def _suspend(self, api: Admin, namespace: str, suspend: bool) -> None:
        api.merge("finetunejobs", namespace, NAME, {"spec": {"lifecycle": {"suspend": suspend}}})
        self._step += 1
