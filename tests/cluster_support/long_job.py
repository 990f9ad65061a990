"""One long training that many tests disturb in turn: each sees to it that it runs again afterwards."""

from __future__ import annotations

from typing import Any

from tests.cluster_support.admin import Object
from tests.cluster_support.tuning import START_SECONDS, Tuning

NAME = "long"
SAVE_EVERY_STEPS = 25


class LongJob:
    """The job ``long``: two pods of one rank, steps without end, a checkpoint every 25."""

    def __init__(self, tuning: Tuning) -> None:
        self.tuning = tuning

    def running(self) -> Object:
        """Start the job unless it is there; wait until it makes steps and has a checkpoint; its status."""
        if self.tuning.job(NAME) is None:
            self.tuning.start(
                NAME,
                training={"maxSteps": 1_000_000, "schedule": {"type": "Constant"}},
                checkpoint={"everySteps": SAVE_EVERY_STEPS, "keep": 2},
                lifecycle={"maxRestarts": 100, "maxPreemptions": 100},
            )
        if self.tuning.status(NAME).get("phase") == "Suspended":
            self.tuning.change(NAME, suspend=False)
        attempt = (self.tuning.status(NAME).get("attempts") or [{"number": 1}])[-1]["number"]
        return self.tuning.wait_running(NAME, attempt, checkpoint=True)

    def status(self) -> Object:
        return self.tuning.status(NAME)

    def workers(self) -> list[Object]:
        """Its live worker pods by index; always the whole gang."""
        pods = self.tuning.workers(NAME)
        assert len(pods) == 2, self.tuning.account(NAME)
        return pods

    def ended(self, attempt: int) -> Object:
        """Wait until ``attempt`` is over; what status.attempts says of it."""
        found: list[Object] = []

        def is_over() -> bool:
            for each in self.status().get("attempts") or ():
                if each["number"] == attempt and "endedAt" in each:
                    found.append(each)
            return bool(found)

        self.tuning.wait(NAME, is_over, f"attempt {attempt} has ended", START_SECONDS)
        return found[0]

    def restarted(self, before: Object) -> tuple[Object, Object]:
        """Wait until the attempt after that of ``before`` makes steps.

        Returns what is said of the attempt that ended, and the new status. The new attempt must have begun
        with a checkpoint no older than the last one that ``before`` knew.
        """
        number = before["attempts"][-1]["number"]
        end = self.ended(number)
        status = self.tuning.wait_running(NAME, number + 1)
        resumed = status["attempts"][-1]["resumedFromStep"]
        assert resumed >= before["progress"]["lastCheckpointStep"] > 0, self.tuning.account(NAME)
        return end, status

    def pods_as_they_are(self) -> list[tuple[Any, ...]]:
        """What must not change while only the operator is disturbed: pods, their restarts, their start."""
        return [
            (
                pod["metadata"]["name"],
                pod["metadata"]["uid"],
                pod["metadata"].get("deletionTimestamp"),
                pod["spec"]["nodeName"],
                [
                    (each["restartCount"], each["state"]["running"]["startedAt"])
                    for each in pod["status"]["containerStatuses"]
                ],
            )
            for pod in self.workers()
        ]

    def advances(self) -> None:
        """Wait until status tells of a later step than now: the progress endpoint works and is believed."""
        step = self.status()["progress"]["step"]
        what = f"a step after {step} is told"
        self.tuning.wait(NAME, lambda: self.status()["progress"]["step"] > step, what, START_SECONDS)


def counts(status: Object) -> tuple[int, int]:
    """Restarts so far on account of the software and of the infrastructure."""
    restarts = status.get("restarts") or {}
    return restarts.get("software", 0), restarts.get("infrastructure", 0)
