"""Guards the plan against the one edit of a spec that the API server overlooks (docs/limits.md)."""

from __future__ import annotations

from tunewright.api.hashing import spec_hash
from tunewright.core.lifecycle import Phase
from tunewright.core.outcome import Context, Outcome, outcome

_MESSAGE = (
    "spec.deepspeed.config is not what this job's plan was made from, so nothing new is started. "
    "Put it back as it was and the job goes on by itself; for other settings create a new job."
)


def spec_changed(context: Context) -> bool:
    """Whether the result that the spec asks for is another than the planned one.

    Hashes of different versions can't be compared: a plan of an older operator is taken at its word.
    """
    planned: str = (context.status.get("plan") or {}).get("specHash") or ""
    present = spec_hash(context.spec)
    return planned != present and planned.partition(":")[0] == present.partition(":")[0]


def wait_for_the_planned_spec(context: Context, phase: Phase) -> Outcome | None:
    """The job waits in ``phase`` until its spec is the planned one; None when it is."""
    if not spec_changed(context):
        return None
    return outcome(context, phase, "SpecChanged", _MESSAGE, warning=True)
