"""Prometheus metrics of a running job, served by rank 0 of the gang."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tunewright_trainer.progress import Progress

_GAUGES = {
    "step": "Optimizer steps made.",
    "total_steps": "Optimizer steps that the job will make.",
    "epoch": "Passes over the training data.",
    "loss": "Training loss of the last step, mean over the tokens of the global batch.",
    "eval_loss": "Loss of the last evaluation, mean over the tokens of the validation data.",
    "learning_rate": "Learning rate of the last step.",
    "grad_norm": "Norm of the last step's gradient, before clipping.",
    "tokens_per_second": "Tokens read by all ranks together.",
    "last_checkpoint_step": "Step of the newest complete checkpoint.",
    "peak_memory_bytes": "Most memory that rank 0 has used.",
}


def serve(address: str, namespace: str, job: str) -> Callable[[Progress], None]:
    """Serve ``/metrics`` on ``host:port``; returns what takes each snapshot.

    Raises OSError if the address can't be bound.
    """
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    labels = {"namespace": namespace, "job": job}
    gauges = {
        name: Gauge(f"tunewright_training_{name}", text, list(labels), registry=registry).labels(**labels)
        for name, text in _GAUGES.items()
    }
    start_http_server(int(port), addr=host or "0.0.0.0", registry=registry)

    def take(progress: Progress) -> None:
        for name, gauge in gauges.items():
            value = getattr(progress, name)
            if value is not None:
                gauge.set(value)

    return take
