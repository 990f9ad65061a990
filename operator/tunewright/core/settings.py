"""The operator's own configuration as plain values, so that decisions never read the environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorSettings:
    """What decisions need to know of this installation.

    tunewright.settings builds it from the environment; tests build it by hand.
    """

    trainer_image: str
    """Image for new plans; a job keeps the image that was frozen in its status.plan."""
    image_pull_policy: str = "IfNotPresent"
    progress_url: str | None = None
    """``https://host:port`` that trainers post to; None: no progress endpoint in this installation."""
    progress_ca_pem: str = ""
    """CA certificate of the progress endpoint, PEM."""
    progress_status_seconds: float = 30.0
    """Progress is written to a job's status at most this often."""
    prepare_cpu: str = "1"
    prepare_memory: str = "2Gi"
    export_cpu: str = "1"
    export_memory: str = "2Gi"
    termination_grace_seconds: int = 300
    """Grace period of worker pods: a save on SIGTERM has to fit in it."""
    node_lost_seconds: float = 60.0
    """A worker's node that is NotReady for longer ends the attempt as NodeLost."""
    restart_backoff_seconds: float = 10.0
    """Pause before the first restart after a failure of the software; doubles with each, up to 300 s."""
    status_seconds: float = 30.0
    """A status whose phase and reason stay the same is rewritten at most this often."""
    reference_poll_seconds: float = 10.0
    """How often a missing secret, claim or ConfigMap is looked for again."""
