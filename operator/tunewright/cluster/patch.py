"""JSON merge patches (RFC 7386), as the API server understands them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest merge patch that makes ``old`` equal to ``new``; empty when they are.

    Lists are replaced whole. None in ``new`` means that the key is absent, as in a merge patch.
    """
    patch: dict[str, Any] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = merge_patch(before, after)
            if inner:
                patch[key] = inner
        elif isinstance(after, Mapping):
            patch[key] = _without_nulls(after)
        elif before != after:
            patch[key] = after
    return patch


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
