"""A model's tokenizer and chat template from its files, by the tokenizers library alone (no torch)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from tunewright_trainer.contract import Reason
from tunewright_trainer.data.template import ChatTemplate, Span
from tunewright_trainer.errors import TrainerError
from tunewright_trainer.files import read_json, sha256_of
from tunewright_trainer.storage.base import ModelFolder

IGNORED = -100
"""Label of a token that carries no loss; the value every Hugging Face loss ignores."""

Ids = NDArray[np.int32]


class Tokenizer:
    """Texts to token ids and labels."""

    def __init__(self, folder: ModelFolder, chat_template: str | None = None) -> None:
        """Read tokenizer.json and what stands beside it; ``chat_template`` overrides the model's own.

        Raises ModelInvalid if there is no tokenizer.json or it can't be read.
        """
        path = folder.path / "tokenizer.json"
        self._fast = _load(path, folder.uri)
        self._fast.no_truncation()
        self._fast.no_padding()
        config = read_json(folder.path / "tokenizer_config.json") or {}
        self.special_tokens = _special_tokens(
            config, read_json(folder.path / "special_tokens_map.json") or {}
        )
        eos = self.special_tokens.get("eos_token")
        self.eos_id: int | None = self._fast.token_to_id(eos) if eos else None
        source = chat_template or _chat_template(folder.path, config)
        self.template = ChatTemplate(source, self.special_tokens) if source else None
        self.special_token_texts: Sequence[str] = sorted(
            {token.content for token in self._fast.get_added_tokens_decoder().values() if token.special}
            | set(self.special_tokens.values())
        )
        self.fingerprint = hashlib.sha256(
            "\n".join([sha256_of(path), repr(sorted(self.special_tokens.items())), source or ""]).encode()
        ).hexdigest()

    def encode(self, texts: Sequence[str], *, special_tokens: bool) -> list[Encoding]:
        """Encode texts in parallel. ``special_tokens``: let the tokenizer add its own (BOS, say)."""
        return list(self._fast.encode_batch(list(texts), add_special_tokens=special_tokens))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return str(self._fast.decode(list(ids), skip_special_tokens=False))

    def with_eos(self, ids: Ids, labels: Ids) -> tuple[Ids, Ids]:
        """Ids and labels with the end-of-text token at the end, so that the model learns to stop."""
        if self.eos_id is None or (len(ids) and ids[-1] == self.eos_id):
            return ids, labels
        end = np.array([self.eos_id], np.int32)
        return np.concatenate([ids, end]), np.concatenate([labels, end])


def labels_of(encoding: Encoding, text_length: int, spans: Sequence[Span]) -> tuple[Ids, Ids]:
    """Ids and labels, both int32 of shape (tokens,): tokens that touch a span keep their id as label.

    The first token never carries loss: nothing stands before it to predict it from.
    """
    ids = np.array(encoding.ids, np.int32)
    labels = np.full(len(ids), IGNORED, np.int32)
    for start, end in spans:
        tokens = _tokens_of(encoding, text_length, start, end)
        labels[tokens] = ids[tokens]
    labels[:1] = IGNORED
    return ids, labels


def _tokens_of(encoding: Encoding, text_length: int, start: int, end: int) -> slice:
    """The tokens that characters ``start`` to ``end`` (exclusive) lie in."""
    if start == 0 and end == text_length:
        return slice(0, len(encoding.ids))
    # Blanks may belong to no token (trimmed offsets): step over them, inwards.
    first = next((t for c in range(start, end) if (t := encoding.char_to_token(c)) is not None), None)
    if first is None:
        return slice(0, 0)
    if end >= text_length:
        return slice(first, len(encoding.ids))
    last = next(t for c in range(end - 1, start - 1, -1) if (t := encoding.char_to_token(c)) is not None)
    # A character of several tokens is found at its first one: the rest ends where the next begins.
    following = encoding.char_to_token(end)
    return slice(first, max(last + 1, following if following is not None else 0))


def _load(path: Path, uri: str) -> FastTokenizer:
    if not path.is_file():
        raise TrainerError(
            Reason.MODEL_INVALID,
            f"{uri} has no tokenizer.json.",
            "Write one with AutoTokenizer.from_pretrained(model).save_pretrained(folder).",
        )
    try:
        return FastTokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever it can't read
        raise TrainerError(
            Reason.MODEL_INVALID, f"tokenizer.json of {uri} can't be read: {error}.", "Copy the model again."
        ) from error


def _special_tokens(config: dict[str, Any], special_map: dict[str, Any]) -> dict[str, str]:
    """``{"bos_token": "<s>", …}`` as templates get them."""
    tokens: dict[str, str] = {}
    for source in (special_map, config):
        for name, value in source.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                tokens[name] = text
    return tokens


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    old_file = read_json(folder / "chat_template.json")
    template = config.get("chat_template") or (old_file or {}).get("chat_template")
    if isinstance(template, list):  # several named ones: [{"name": "default", "template": …}, …]
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None
