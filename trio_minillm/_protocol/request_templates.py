"""Requests that differ in their texts only: built once for each shape, and then filled in.

An evaluator sends thousands of requests to one model that are equal but for a prompt. Building one
takes longer than anything else that is done before it goes out, so it is done with other texts, the
probes, in place of the prompt's, and the body is cut where they stand. `Provider.any_text` says that
nothing else depends on them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from types import NoneType
from typing import Any, TypeAlias

import msgspec

from .._types.messages import Message, TextPart
from ..providers import Model

Texts: TypeAlias = "tuple[tuple[str, ...], list[str]]"
"""The roles of messages, and the one text of each."""

MAX_MESSAGES = 8
"""Messages of the longest conversation that has a shape: instructions, a few examples, a question."""
MAX_SHAPES = 64
"""Shapes that are kept. Beyond them, the one goes that was learned, or first seen, longest ago."""
MAX_PARAM = 256
"""Characters of the longest parameter of a request that has a shape."""
_ROLES = frozenset(("system", "developer", "user", "assistant"))
_PLAIN = frozenset((str, int, float, bool, NoneType))


def texts_of(messages: Any) -> Texts | None:
    """Return the roles and the texts of messages that are nothing else; ``None`` for any others.

    Each has one text with something to see. The last is not the model's own, which some servers go on
    with, and whose end then matters.
    """
    if type(messages) is str:
        return (_USER, [messages]) if messages and not messages.isspace() else None
    if isinstance(messages, Message | Mapping):
        messages = (messages,)
    if not isinstance(messages, Sequence) or not 0 < len(messages) <= MAX_MESSAGES:
        return None
    roles: list[str] = []
    texts: list[str] = []
    for message in messages:
        if isinstance(message, Message):
            part = message.parts[0] if len(message.parts) == 1 and message.name is None else None
            if type(part) is not TextPart or part.cache or part.citations:
                return None
            role, text = message.role, part.text
        elif type(message) is dict and message.keys() == _FIELDS:
            role, text = message["role"], message["content"]
        else:
            return None
        if type(text) is not str or not text or text.isspace():
            return None
        if type(role) is not str or role not in _ROLES:
            return None
        roles.append(role)
        texts.append(text)
    return (tuple(roles), texts) if roles[-1] != "assistant" else None


_USER = ("user",)
_FIELDS = {"role", "content"}


class Template(msgspec.Struct, frozen=True):
    """A request with holes for its texts."""

    made: Any
    """The request with the probes."""
    model: Model
    headers: dict[str, str]
    """The model's when it was built: a dictionary could be changed."""
    extra: bytes
    """Likewise, as JSON: there may be others in it."""
    head: bytes
    """The body before the texts."""
    holes: tuple[tuple[int, bytes], ...]
    """The number of each text, as they stand in the body (Anthropic's has instructions at its end), and
    what follows it there."""

    def is_of(self, model: Model) -> bool:
        """Return True if requests to this model are as when the template was made."""
        same = self.model is model and self.headers == model.headers
        return same and self.extra == _json_of(model.extra)

    def filled(self, texts: list[str]) -> bytes:
        """Return the body with these texts. Raises ``UnicodeError``."""
        out = [self.head]
        for number, behind in self.holes:
            out.append(_encode(texts[number])[1:-1])
            out.append(behind)
        return b"".join(out)


_encode = msgspec.json.Encoder().encode


def _json_of(extra: Mapping[str, Any]) -> bytes:
    """Return a model's extra fields as JSON; nothing if they have become something else."""
    if not extra:
        return b"{}"
    with suppress(TypeError, ValueError, RecursionError):  # the request that is built says why
        return _encode(extra)
    return b""


class Templates:
    """The templates of the newest shapes. A shape gets one when it is seen for the second time."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, Template | None] = OrderedDict()

    def get(
        self,
        model: Model,
        roles: tuple[str, ...],
        options: tuple[Hashable, ...],
        params: Mapping[str, Any],
        build: Callable[[list[dict[str, str]]], tuple[Any, bytes]],
    ) -> Template | None:
        """Return the template of requests to ``model`` with messages of these roles, and with these
        options and parameters; ``None`` if there is none, or not yet.

        ``build`` makes a request out of such messages, and returns it and its body.
        """
        values = tuple(params.values())
        for value in values:
            if type(value) not in _PLAIN or (type(value) is str and len(value) > MAX_PARAM):
                return None
        key = id(model), roles, options, tuple(params), values, tuple(map(type, values))
        try:
            found = self._found[key]
        except KeyError:
            self._put(key, None)
            return None
        if found is None or not found.is_of(model):
            found = self._learn(model, roles, build)
            self._put(key, found)
        return found

    def _put(self, key: Hashable, template: Template | None) -> None:
        self._found.pop(key, None)  # nothing in here fails if another thread does the same
        self._found[key] = template
        if len(self._found) > MAX_SHAPES:
            self._found.popitem(last=False)

    def _learn(
        self,
        model: Model,
        roles: tuple[str, ...],
        build: Callable[[list[dict[str, str]]], tuple[Any, bytes]],
    ) -> Template | None:
        probes = [f"probe-{number}-of-{id(self):x}" for number in range(len(roles))]
        messages = [
            {"role": role, "content": probe} for role, probe in zip(roles, probes, strict=True)
        ]
        made, body = build(messages)
        marks = [probe.encode() for probe in probes]
        if any(body.count(mark) != 1 for mark in marks):
            return None  # it stands twice
        order = sorted(range(len(marks)), key=lambda number: body.find(marks[number]))
        head, *pieces = re.split(b"|".join(marks), body)
        holes = tuple(zip(order, pieces, strict=True))
        return Template(made, model, dict(model.headers), _json_of(model.extra), head, holes)
