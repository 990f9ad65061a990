"""spec.dataset: what is learnt from, and how rows become sequences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewright.api.base import DataUri, Matches, ObjectName, Rule, SecretRef, SpecModel

ColumnName = Annotated[str, Field(min_length=1, max_length=256)]


class ConfigMapRef(SpecModel):
    """One key of a ConfigMap in the job's namespace; for small data."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: Annotated[
        str,
        Field(min_length=1, max_length=253),
        Matches(r"[-._a-zA-Z0-9]+", "write a key of the ConfigMap, such as train.jsonl"),
    ]
    """Key whose value is the data file; its ending tells the kind (.jsonl or .json)."""


class ColumnsSpec(SpecModel):
    """Names of the columns in the data, where they differ from ours."""

    messages: ColumnName | None = None
    """Column with the list of chat messages (role and content)."""
    prompt: ColumnName | None = None
    """Column with the prompt."""
    completion: ColumnName | None = None
    """Column with the completion."""
    text: ColumnName | None = None
    """Column with plain text."""


class DataSourceSpec(SpecModel):
    """One source of rows: either source or configMapRef."""

    source: DataUri | None = None
    """hf://organisation/name/file, pvc://claim/path (globs allowed) or https://host/path."""
    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap's key instead of source. Kustomize follows the name when it adds a hash suffix."""
    secret_ref: SecretRef | None = None
    """Secret with the key HF_TOKEN, for private hf:// data."""
    format: Literal["Auto", "Messages", "PromptCompletion", "Text"] = "Auto"
    """Shape of the rows. Auto looks at the first rows."""
    columns: ColumnsSpec | None = None
    """Names of the columns in the data, where they differ from messages, prompt, completion and text."""
    max_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Only the first so many rows are read."""
    sha256: (
        Annotated[str, Field(max_length=64), Matches(r"[0-9a-f]{64}", "write 64 lower-case hex digits")]
        | None
    ) = None
    """Digest that the file must have; the job fails when it differs."""

    RULES = (
        Rule(
            "has(self.source) != has(self.configMapRef)",
            lambda s: (s.source is None) != (s.config_map_ref is None),
            "write either source or configMapRef",
        ),
        Rule(
            "!has(self.secretRef) || (has(self.source) && self.source.startsWith('hf://'))",
            lambda s: s.secret_ref is None or (s.source or "").startswith("hf://"),
            "secretRef is for hf:// sources: remove secretRef",
        ),
    )


class DatasetSpec(SpecModel):
    """Training and validation data, and how rows become token sequences."""

    train: Annotated[list[DataSourceSpec], Field(min_length=1, max_length=64)]
    """Sources of training rows, read in this order."""
    validation: Annotated[list[DataSourceSpec], Field(min_length=1, max_length=64)] | None = None
    """Sources of validation rows; or use validationFraction."""
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the training rows that is held out for validation, chosen by the seed."""
    max_sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """Longest sequence in tokens; longer rows are cut and counted in status.data.truncatedRows."""
    packing: Literal["Auto", "Always", "Never"] = "Auto"
    """Several short rows in one sequence, without attention from one to another. Auto packs."""
    loss_on: Literal["Auto", "Assistant", "Completion", "All"] = "Auto"
    """Tokens that carry loss. Auto: assistant turns of chats, completions of prompts, all of plain text."""
    chat_template: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    """Jinja chat template to use instead of the model's own."""

    RULES = (
        Rule(
            "!(has(self.validation) && has(self.validationFraction))",
            lambda d: d.validation is None or d.validation_fraction is None,
            "write either dataset.validation or dataset.validationFraction",
        ),
    )
