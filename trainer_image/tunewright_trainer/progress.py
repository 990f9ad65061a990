"""Tells the operator how far training is, from a thread that can never disturb it.

The wire is Kubeflow's (KEP-2779): a POST of :class:`ProgressPost` with a bearer token. CA and token are
read anew for each post, because kubelet rotates both files while a job runs.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tunewright_trainer.contract import (
    ENV_PROGRESS_CA,
    ENV_PROGRESS_TOKEN,
    ENV_PROGRESS_URL,
    LONGEST_ESTIMATE_SECONDS,
    ProgressMetric,
    ProgressPost,
    TrainerStatus,
    TunewrightProgress,
)

ENV_PROGRESS_SECONDS = "TUNEWRIGHT_PROGRESS_SECONDS"
"""Seconds between two posts at least; for tests."""
DEFAULT_INTERVAL_SECONDS = 5.0
POST_TIMEOUT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """A snapshot of training, as rank 0 sees it."""

    attempt: int
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    last_checkpoint_step: int | None = None
    resumed_from_step: int | None = None
    peak_memory_bytes: int | None = None
    remaining_seconds: float | None = None

    def post(self, now: datetime) -> ProgressPost:
        """The body of a post. Metrics repeat the main figures for readers of Kubeflow's fields alone."""
        shown = {"loss": self.loss, "eval_loss": self.eval_loss, "learning_rate": self.learning_rate}
        own = {name: getattr(self, name) for name in TunewrightProgress.model_fields}
        return ProgressPost(
            trainer_status=TrainerStatus(
                progress_percentage=min(100, 100 * self.step // self.total_steps) if self.total_steps else 0,
                estimated_remaining_seconds=(
                    None
                    if self.remaining_seconds is None
                    else round(min(LONGEST_ESTIMATE_SECONDS, max(0, self.remaining_seconds)))
                ),
                metrics=[
                    ProgressMetric(name=name, value=f"{value:.6g}")
                    for name, value in shown.items()
                    if value is not None
                ],
                last_updated_time=now.isoformat(),
                tunewright=TunewrightProgress(**own),
            )
        )


class Reporter(Protocol):
    """Takes what changed; may be called from the training loop at any rate."""

    def update(self, **changes: Any) -> None: ...

    def close(self) -> None: ...


class Silent:
    """The reporter of ranks that report nothing."""

    def update(self, **changes: Any) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing to close."""


class Poster:
    """Posts the latest snapshot, at most one per interval, and only if something was said since the last.

    A trainer that hangs therefore falls silent, which is how the operator sees it.
    """

    def __init__(
        self,
        start: Progress,
        send: Callable[[bytes], None],
        interval_seconds: float,
        also: Callable[[Progress], None] | None = None,
    ) -> None:
        self._progress, self._send, self._interval_seconds, self._also = start, send, interval_seconds, also
        self._wake, self._closing = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._unsaid = False
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Set fields of the snapshot. Without any it still says: training is alive."""
        with self._lock:
            self._progress = replace(self._progress, **changes)
            self._unsaid = True
        if self._also is not None:
            self._also(self._progress)
        self._wake.set()

    def close(self) -> None:
        """Post what was not posted yet and stop; waits for one post at most."""
        self._closing.set()
        self._wake.set()
        self._thread.join(2 * POST_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            closing = self._closing.is_set()
            with self._lock:
                snapshot, unsaid, self._unsaid = self._progress, self._unsaid, False
                self._wake.clear()
            if unsaid:
                self._post(snapshot)
            if closing:
                return
            if self._closing.wait(self._interval_seconds):
                self._wake.set()

    def _post(self, snapshot: Progress) -> None:
        body = snapshot.post(datetime.now(UTC)).model_dump_json(by_alias=True, exclude_none=True)
        try:
            self._send(body.encode())
            self._complained = False
        except Exception as error:
            # Whatever it is, the job matters more than its report. One line, until it works again.
            if not self._complained:
                logger.warning("progress can't be posted (%s); training goes on", error)
            self._complained = True


def sender(environment: Mapping[str, str]) -> Callable[[bytes], None] | None:
    """What posts one body to the URL of the environment; None if there is no URL."""
    url = environment.get(ENV_PROGRESS_URL)
    if not url:
        return None
    ca, token = environment.get(ENV_PROGRESS_CA), environment.get(ENV_PROGRESS_TOKEN)

    def send(body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {Path(token).read_text(encoding='utf-8').strip()}"
        context = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=POST_TIMEOUT_SECONDS, context=context):
            """The answer has no content that matters."""

    return send


def reporter(
    start: Progress,
    also: Callable[[Progress], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Reporter:
    """Rank 0's reporter. ``also`` sees each snapshot (metrics), with or without a URL to post to."""
    interval_seconds = float(environment.get(ENV_PROGRESS_SECONDS) or DEFAULT_INTERVAL_SECONDS)
    send = sender(environment)
    if send is None and also is None:
        return Silent()
    return Poster(start, send or (lambda _body: None), interval_seconds, also)


class Remaining:
    """Time left, from the steps made since this process started: a resumed run's clock starts anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None

    def seconds(self, step: int, total_steps: int) -> float | None:
        """None until two steps were seen: the first one compiles, allocates and says little."""
        now = self._clock()
        if self._first is None:
            self._first = (step, now)
            return None
        first_step, started = self._first
        if step <= first_step:
            return None
        return (now - started) / (step - first_step) * (total_steps - step)
