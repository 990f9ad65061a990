"""Makes what two lives have left comparable: no times, no uids, no history of who looked when."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.cluster_support.admin import Object
from tunewright.core import names


class Hide:
    """Takes out of a document what belongs to one run: namespace, the job's uid, what derives from it."""

    def __init__(self, namespace: str, uid: str) -> None:
        self._words = {namespace: "NAMESPACE"}
        if uid:
            self._words |= {uid: "UID"}
            self._words |= {str(names.rendezvous_port(uid, n)): f"PORT-{n}" for n in (1, 2)}

    def __call__(self, document: Object) -> Object:
        text = json.dumps(document, sort_keys=True)
        for word, stand_in in self._words.items():
            text = text.replace(word, stand_in)
        hidden: Object = json.loads(text)
        return hidden


_TIMES = re.compile(r"(At|Time)$")
_UIDS = ("controller-uid", "batch.kubernetes.io/controller-uid")


def essence(raw: Object) -> Object:
    """An object without what the API server and the run add."""
    metadata = {key: raw["metadata"].get(key) for key in ("name", "labels", "annotations")}
    content = {key: raw[key] for key in ("spec", "data") if key in raw}
    kept: Object = _without_times({"metadata": metadata, **content})
    if raw.get("kind") == "Job" or "template" in (raw.get("spec") or {}):
        for labels in (kept["metadata"]["labels"], kept["spec"]["template"]["metadata"]["labels"]):
            for key in _UIDS:
                labels.pop(key, None)
        kept["spec"].pop("selector", None)
    for key in ("clusterIP", "clusterIPs"):
        kept.get("spec", {}).pop(key, None)
    return kept


def settled(status: Object) -> Object:
    """A status without times, and of its history only what doesn't depend on when somebody looked."""
    kept: Object = _without_times(status)
    told = [entry["phase"] for entry in kept.pop("timeline", [])]
    kept["ends"] = told[-1:]
    kept["restarted"] = "Restarting" in told
    curve = kept.pop("curve", {})
    kept["newest"] = [curve.get(key, [None])[-1] for key in ("steps", "loss")]
    # What was seen of the nodes while they were held is history too.
    kept["conditions"] = [each for each in kept.get("conditions", []) if each["type"] != "NodesReady"]
    return kept


def _without_times(value: Any) -> Any:
    """``value`` without every field whose name says that it is a time."""
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not _TIMES.search(key)}
    if isinstance(value, list):
        return [_without_times(each) for each in value]
    return value
