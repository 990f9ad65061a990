"""The generator: what it makes of each construct, and that it refuses what it does not understand."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from tunewright.api.base import IntOrString, Matches, Rule, SpecModel
from tunewright.api.immutable import immutability_rules
from tunewright.api.schema import SchemaError, structural_schema


class Inner(SpecModel):
    """An inner block."""

    size: Annotated[int, Field(gt=0, lt=9)] = 3
    """How large."""
    kind: Literal["A"] = "A"
    """What kind."""


class Outer(SpecModel):
    """An outer block."""

    name: Annotated[str, Field(max_length=9), Matches("[a-z]+", "write letters")]
    """Its name."""
    note: str | None = None
    """A note."""
    inner: Inner = Inner()
    """The inner block."""
    maybe: Inner | None = None
    """An optional block."""
    items: Annotated[list[Inner], Field(max_length=2)] | None = None
    """Some blocks."""
    labels: dict[str, str] | None = None
    """Some labels."""
    stage: Annotated[
        Literal["Auto", 0, 1], IntOrString("Auto|[01]", "write Auto, 0 or 1", digits_to_int=True)
    ] = "Auto"
    """A stage."""

    RULES = (Rule("self.name != 'x'", lambda o: o.name != "x", "another name"),)


SCHEMA = structural_schema(Outer, defaults=True)
FIELDS = SCHEMA["properties"]


def test_an_object_lists_its_required_fields_and_rules() -> None:
    assert SCHEMA["type"] == "object"
    assert SCHEMA["required"] == ["name"]
    assert SCHEMA["x-kubernetes-validations"] == [{"rule": "self.name != 'x'", "message": "another name"}]
    assert "additionalProperties" not in SCHEMA
    assert "title" not in SCHEMA


def test_a_string_keeps_bounds_and_gets_its_expression_as_a_rule() -> None:
    assert FIELDS["name"] == {
        "type": "string",
        "maxLength": 9,
        "description": "Its name.",
        "x-kubernetes-validations": [{"rule": "self.matches(r'^(?:[a-z]+)$')", "message": "write letters"}],
    }


def test_an_optional_field_is_just_not_required() -> None:
    assert FIELDS["note"] == {"type": "string", "description": "A note."}


def test_bounds_that_exclude_are_written_as_openapi_3_0_does() -> None:
    assert FIELDS["inner"]["properties"]["size"] == {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 9,
        "exclusiveMaximum": True,
        "description": "How large.",
        "default": 3,
    }


def test_a_single_choice_is_an_enum() -> None:
    assert FIELDS["inner"]["properties"]["kind"]["enum"] == ["A"]


def test_a_block_defaults_to_its_members_defaults_and_keeps_the_fields_own_words() -> None:
    assert FIELDS["inner"]["default"] == {"size": 3, "kind": "A"}
    assert FIELDS["inner"]["description"] == "The inner block."


def test_an_optional_block_has_no_default() -> None:
    assert "default" not in FIELDS["maybe"]


def test_list_items_have_no_defaults_but_tell_them() -> None:
    size = FIELDS["items"]["items"]["properties"]["size"]
    assert "default" not in size
    assert size["description"] == "How large. Default: 3."
    assert FIELDS["items"]["x-kubernetes-list-type"] == "atomic"


def test_a_map_keeps_its_value_schema() -> None:
    assert FIELDS["labels"]["additionalProperties"] == {"type": "string"}


def test_int_or_string_has_no_type() -> None:
    assert "type" not in FIELDS["stage"]
    assert FIELDS["stage"]["x-kubernetes-int-or-string"] is True
    assert FIELDS["stage"]["default"] == "Auto"


def test_a_status_has_no_defaults_anywhere() -> None:
    assert "'default'" not in repr(structural_schema(Outer, defaults=False))


class Union(SpecModel):
    """Two types in one field."""

    either: int | str
    """One or the other."""


class Tuple(SpecModel):
    """A fixed list."""

    pair: tuple[int, int]
    """Two numbers."""


@pytest.mark.parametrize(
    ("model", "message"),
    [(Union, r"Union\.either: a union of types"), (Tuple, r"Tuple\.pair: .* has no .*prefixItems")],
    ids=["union", "tuple"],
)
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[SpecModel], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        structural_schema(model, defaults=True)


def test_immutability_covers_every_field_but_the_mutable_ones() -> None:
    rules = {rule["fieldPath"]: rule["rule"] for rule in immutability_rules(SCHEMA, frozenset({"note"}))}
    optional = "(has(self.{0}) == has(oldSelf.{0}) && (!has(self.{0}) || self.{0} == oldSelf.{0}))"
    assert rules == {
        ".name": "(self.name == oldSelf.name)",
        ".inner": optional.format("inner"),
        ".maybe": optional.format("maybe"),
        ".items": optional.format("items"),
        ".labels": optional.format("labels"),
        ".stage": "(has(self.stage) == has(oldSelf.stage)"
        " && (!has(self.stage) || string(self.stage) == string(oldSelf.stage)))",
    }
