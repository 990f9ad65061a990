"""Merge patches, checked against what applying them does."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunewright.cluster.patch import merge_patch

values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.text(max_size=2), values, max_size=5)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    target = copy.deepcopy(target)
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = applied(target.get(name), value)
    return target


@given(documents, documents)
def test_the_patch_makes_old_equal_to_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert applied(old, merge_patch(old, new)) == new


@given(documents)
def test_nothing_changed_is_an_empty_patch(document: dict[str, Any]) -> None:
    assert merge_patch(document, copy.deepcopy(document)) == {}


def test_only_what_differs_is_sent() -> None:
    old = {"phase": "Running", "progress": {"step": 1, "loss": 2.0}, "gone": [1]}
    new = {"phase": "Running", "progress": {"step": 2, "loss": 2.0}}
    assert merge_patch(old, new) == {"progress": {"step": 2}, "gone": None}


def test_none_means_absent() -> None:
    assert merge_patch({}, {"a": None, "b": {"c": None}}) == {"b": {}}
    assert merge_patch({"a": 1}, {"a": None}) == {"a": None}
