"""Takes accepted progress posts in, and has a reconcile write them to status, but not too often."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tunewright.cluster.caches import Caches, JobKey
from tunewright.core.progress import ProgressBook
from tunewright_trainer.contract import ProgressPost

log = logging.getLogger(__name__)


class ProgressIntake:
    """Fills the book. ``enqueue_after`` is called with a job's key and the seconds until status is due."""

    def __init__(
        self,
        book: ProgressBook,
        caches: Caches,
        enqueue_after: Callable[[JobKey, float], None],
        status_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._caches = caches
        self._enqueue_after = enqueue_after
        self._status_seconds = status_seconds
        self._clock = clock
        self._due: dict[str, float] = {}

    def record(self, namespace: str, name: str, pod_uid: str, post: ProgressPost) -> None:
        """Take a post of a pod that was found to belong to the job."""
        job = self._caches.jobs.store.get(namespace, name)
        if job is None:
            return
        uid = job["metadata"]["uid"]
        self._book.record(uid, pod_uid, post, datetime.now(UTC))
        now = self._clock()
        due = self._due.get(uid, now)
        if due <= now:  # otherwise a reconcile is on its way, which will find this post too
            self._enqueue_after((namespace, name), 0.0)
            self._due[uid] = now + self._status_seconds
        else:
            self._enqueue_after((namespace, name), due - now)

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._book.forget(job_uid)
        self._due.pop(job_uid, None)
