"""Reads manifests from files as kubectl does, so that what is said offline holds on the cluster.

PyYAML alone would differ: to it ``2e-4`` is a string, a date is not, and a key given twice is fine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

LIMIT_BYTES = 3 * 1024 * 1024
"""The API server takes no larger request."""

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


class ManifestError(Exception):
    """A file that holds no readable manifest; the text is one sentence for a person."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_manifests(path: str) -> list[dict[str, Any]]:
    """All objects in a YAML or JSON file, ``-`` for standard input; members of a List one by one.

    Raises ManifestError.
    """
    text = _read(path)
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ManifestError(_yaml_sentence(error)) from None
    objects: list[dict[str, Any]] = []
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ManifestError(
                f"document {number} is no Kubernetes object: write apiVersion, kind and metadata"
            )
        items = document.get("items") if document.get("kind") == "List" else None
        objects.extend(like_json(item) for item in (items or [document]) if isinstance(item, dict))
    return objects


def _read(path: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"can't be read: {error.strerror}") from None
    if len(data) > LIMIT_BYTES:
        raise ManifestError(f"is larger than {LIMIT_BYTES} bytes, which no API server takes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"is not UTF-8 at byte {error.start}: save it as UTF-8") from None


def _yaml_sentence(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else f"is not YAML: {problem}"


def like_json(value: Any) -> Any:
    """Whole floats as integers: JSON knows one kind of number, and so does the API server."""
    if isinstance(value, dict):
        return {key: like_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [like_json(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
