"""spec.model: the base model that is tuned."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewright.api.base import Matches, ModelUri, Rule, SecretRef, SpecModel


class ModelSpec(SpecModel):
    """The base model: a folder with config.json, a tokenizer and safetensors."""

    source: ModelUri
    """Where the model is: hf://organisation/name[@revision] or pvc://claim/folder."""
    revision: (
        Annotated[
            str,
            Field(max_length=128),
            Matches(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", "write a branch, a tag or a commit"),
        ]
        | None
    ) = None
    """Branch, tag or commit of an hf:// source. A commit makes the job repeatable."""
    secret_ref: SecretRef | None = None
    """Secret with the key HF_TOKEN, for gated or private hf:// models."""

    RULES = (
        Rule(
            "!has(self.revision) || (self.source.startsWith('hf://') && !self.source.contains('@'))",
            lambda m: m.revision is None or (m.source.startswith("hf://") and "@" not in m.source),
            "revision is for hf:// sources without '@': remove model.revision, or the '@' part of the source",
        ),
        Rule(
            "!has(self.secretRef) || self.source.startsWith('hf://')",
            lambda m: m.secret_ref is None or m.source.startswith("hf://"),
            "secretRef is for hf:// sources: remove model.secretRef",
        ),
    )
