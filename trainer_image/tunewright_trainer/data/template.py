"""Renders chats with a model's Jinja chat template, as transformers does but without importing it.

Templates come with models, so they are untrusted: they run in Jinja's immutable sandbox, on plain JSON
values. The set-up (blocks, loop controls, ``raise_exception``, ``strftime_now``, ``tojson``,
``{% generation %}``) is that of transformers.utils.chat_template_utils 5.23; a test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.utils
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunewright_trainer.contract import Reason
from tunewright_trainer.data.formats import Conversation, RowError
from tunewright_trainer.errors import TrainerError

TEMPLATE_LIMIT_CHARACTERS = 1 << 20
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Span = tuple[int, int]
"""Begin and end in characters of a rendered text."""


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}``: marks what the assistant wrote, and records where it lies."""

    tags = {"generation"}

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._blocks: list[str] | None = None
        self._spans: list[Span] = []
        environment.extend(generation_tag=self)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_record"), [], [], body).set_lineno(line)

    def _record(self, caller: Callable[[], str]) -> str:
        text = caller()
        if self._blocks is not None:
            start = sum(map(len, self._blocks))
            self._spans.append((start, start + len(text)))
        return text

    @contextmanager
    def recording(self) -> Iterator[tuple[list[str], list[Span]]]:
        self._blocks, self._spans = [], []
        try:
            yield self._blocks, self._spans
        finally:
            self._blocks = None


class _Dict:
    """``dict`` for templates without the class itself, through whose attributes a sandbox can be left."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """``namespace`` for templates without names that begin with an underscore, which lead to internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *positional = args
        attributes = dict(*positional, **kwargs)
        for name in attributes:
            _check_namespace_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_namespace_name(name)
        super().__setitem__(name, value)


def _check_namespace_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace can't hold the name {name!r}")


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class ChatTemplate:
    """A compiled chat template with the tokenizer's special tokens."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Raises ModelInvalid if ``source`` is not a Jinja template, or absurdly long."""
        self.source = source
        self.marks_generation = bool(_GENERATION.search(source))
        self._special_tokens = dict(special_tokens)
        if len(source) > TEMPLATE_LIMIT_CHARACTERS:
            raise TrainerError(Reason.MODEL_INVALID, f"The chat template has {len(source):,} characters.")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda format_: now().strftime(format_),
            "dict": _Dict(),
            "namespace": _Namespace,
        }
        self._tag: _GenerationTag = environment.generation_tag  # type: ignore[attr-defined]
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            raise TrainerError(
                Reason.MODEL_INVALID,
                f"The chat template is not valid Jinja: {error.message}{f' (line {line})' if line else ''}.",
                "Correct it, or set dataset.chatTemplate to one that works.",
            ) from error

    def render(self, chat: Conversation, turns: int | None = None, *, ask: bool = False) -> str:
        """The chat's first ``turns`` turns (all by default) as text.

        ``ask`` adds what makes the model answer (``add_generation_prompt``). Raises
        :class:`RowError` with the template's own words if it refuses the chat.
        """
        return "".join(self._generate(chat, turns, ask))

    def render_with_generation(self, chat: Conversation) -> tuple[str, list[Span]]:
        """The chat as text, and the spans that ``{% generation %}`` marks."""
        with self._tag.recording() as (blocks, spans):
            for block in self._generate(chat, None, False):
                blocks.append(block)
            return "".join(blocks), list(spans)

    def _generate(self, chat: Conversation, turns: int | None, ask: bool) -> Iterator[str]:
        try:
            yield from self._template.generate(
                messages=chat.messages[:turns],
                tools=chat.tools,
                documents=None,
                add_generation_prompt=ask,
                **self._special_tokens,
            )
        except jinja2.TemplateError as error:
            raise RowError(
                f"the chat template refuses it: {error.message or type(error).__name__}"
            ) from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            # What a template's own expressions raise on values that they don't expect.
            raise RowError(f"the chat template fails on it: {type(error).__name__}: {error}") from error
