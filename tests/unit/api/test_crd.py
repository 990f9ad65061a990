"""The CRD and the reference page: fresh, small enough, bounded and described everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tunewright.api.crd import crd, crd_yaml, generated_files, main, root_schema
from tunewright.api.schema import Schema
from tunewright.core import names

ROOT = Path(__file__).parents[3]


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _fields(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _fields(schema[key], f"{path}[]")


SPEC_AND_STATUS = [
    field for name in ("spec", "status") for field in _fields(root_schema()["properties"][name], name)
]


@pytest.mark.parametrize("path", generated_files())
def test_generated_files_are_fresh(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == generated_files()[path], "run `make generate`"


def test_yaml_says_what_the_dict_says() -> None:
    assert yaml.safe_load(crd_yaml()) == crd()


def test_client_side_apply_can_hold_it() -> None:
    # kubectl apply keeps the whole object in an annotation of at most 256 KiB.
    assert len(crd_yaml().encode()) < 200_000


def test_every_field_is_described() -> None:
    bare = [
        path for path, schema in SPEC_AND_STATUS if not path.endswith("[]") and not schema.get("description")
    ]
    assert bare == []


def test_every_list_string_and_map_of_the_spec_is_bounded() -> None:
    # The API server estimates what a rule may cost from these bounds, and refuses a CRD without them.
    bounds = {"array": "maxItems", "string": "maxLength"}
    loose = [
        path
        for path, schema in SPEC_AND_STATUS
        if path.startswith("spec") and (bound := bounds.get(schema.get("type", "")))
        if bound not in schema and "enum" not in schema
    ]
    loose += [p for p, s in SPEC_AND_STATUS if "additionalProperties" in s and "maxProperties" not in s]
    assert loose == []


def test_no_default_inside_list_items() -> None:
    inside = [path for path, schema in SPEC_AND_STATUS if "[]" in path and "default" in schema]
    assert inside == []


def test_conditions_merge_by_type() -> None:
    conditions = root_schema()["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_only_the_names_rule_stands_at_the_root() -> None:
    rules = root_schema()["x-kubernetes-validations"]
    assert [rule["fieldPath"] for rule in rules] == [".metadata.name"]
    assert rules[0]["optionalOldSelf"] is True
    assert rules[0]["rule"].startswith("oldSelf.hasValue() || ")


def test_longest_name_leaves_room_for_the_longest_child() -> None:
    longest = "a" * names.MAX_JOB_NAME_LENGTH
    assert len(f"{names.prepare_job(longest)}-00000-xxxxx") <= 63


def test_check_tells_a_stale_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "crd.yaml"
    assert main(["--check", str(path)]) == 1
    assert capsys.readouterr().err == f"{path} is stale: run `make generate`\n"
    assert main([str(path)]) == 0
    assert main(["--check", str(path)]) == 0
    path.write_text(path.read_text() + "\n")
    assert main(["--check", str(path)]) == 1


def test_reference_page_has_a_row_for_every_field_and_a_line_for_every_answer() -> None:
    page = generated_files()["docs/reference/finetunejob.md"]
    assert "| `training.batch.global` | integer, 1 to 65536 | `32` |" in page
    assert "| `dataset.train[].format` | `Auto` \\| `Messages` \\|" in page
    assert "| `model.source` | string | required |" in page
    assert "| `spec.training` | write either training.epochs or training.maxSteps |" in page
    assert "| `conditions[].lastTransitionTime` |" in page
