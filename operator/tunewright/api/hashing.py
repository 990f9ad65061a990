"""The spec hash: two jobs with the same hash would make the same result.

It stands in the plan, in the trainer's config and beside every output, and decides whether an output that is
already there may be adopted. So it must never change by itself:

* a field at its default is left out, written or not, so that a new field leaves old jobs' hashes alone;
* what only moves the work (ranks, memory, ZeRO stage, credentials, places) is left out;
* the version in front changes only when the meaning of the hashed fields does. A golden test holds it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tunewright.api.spec import DEFAULT_EPOCHS, DEFAULT_LEARNING_RATE, FineTuneJobSpec

VERSION = "v1"

_DATA_SOURCE = {"secret_ref"}
_EXCLUDED: dict[str, Any] = {
    "model": {"secret_ref"},
    "dataset": {"train": {"__all__": _DATA_SOURCE}, "validation": {"__all__": _DATA_SOURCE}},
    "training": {"batch": {"micro"}, "activation_checkpointing": True, "evaluation": True},
}


def spec_hash(spec: FineTuneJobSpec) -> str:
    """``v1:`` and the sha256, in hex, of what shapes the result: task, model, data, method, training."""
    content = spec.model_dump(
        mode="json",
        by_alias=True,
        include={"task", "model", "dataset", "method", "training"},
        exclude=_EXCLUDED,
        exclude_defaults=True,
        exclude_none=True,
    )
    training = content.get("training", {})
    # The planner's defaults are defaults too: writing them out changes nothing.
    if training.get("epochs") == DEFAULT_EPOCHS:
        del training["epochs"]
    if training.get("learningRate") == DEFAULT_LEARNING_RATE[spec.method.type]:
        del training["learningRate"]
    kept = _without_empty(content)
    if spec.deepspeed.config:
        # DeepSpeed's own: there an empty object can mean something.
        kept["deepspeed"] = {"config": spec.deepspeed.config}
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{VERSION}:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _without_empty(content: dict[str, Any]) -> dict[str, Any]:
    """Without objects that hold nothing, at any depth of objects: a block of defaults is no block."""
    result = {}
    for key, value in content.items():
        kept = _without_empty(value) if isinstance(value, dict) else value
        if kept != {}:
            result[key] = kept
    return result
