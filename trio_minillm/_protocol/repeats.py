"""Repetitions in an answer: content in other places than the reference has, and whole messages.

There are proxies that stream for servers which don't, behind keep-alives and an opening, servers that
stream the reasoning alone and have the text in a last ``message``, and servers that send all of the
text so far with each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .._types.chunks import StreamChunk, has_content
from .._types.errors import MiniLLMError
from ..providers import Provider
from ..providers._base import RepeatFilter
from .left_out import LeftOut

ELSEWHERE = "content in another place than before"
MESSAGE = b'"message"'
"""A part of every whole answer: a field of OpenAI's, and the type of Anthropic's."""
_DELTA = b'"delta"'
_KINDS = ("delta", "reasoning", "refusal", "tool_calls", "reasoning_details")
"""Kinds of content: fields of `StreamChunk`."""

MALFORMED = (
    msgspec.MsgspecError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors that malformed input can cause in a provider's parser. Every other is a bug, and shall be
seen as one."""


def kinds_of(chunk: StreamChunk) -> list[str]:
    """Return the kinds of content that a chunk has."""
    return [kind for kind in _KINDS if getattr(chunk, kind)]


def in_message(data: bytes) -> bool:
    """Return whether an event has its text in a ``message``, which may repeat all before it."""
    return data.find(MESSAGE) >= 0 and data.find(_DELTA) < 0


class Repeats(RepeatFilter):
    """The kinds of content that an answer has so far, and what repeats them."""

    def __init__(self, provider: Provider, left_out: LeftOut) -> None:
        self._provider = provider
        self._left_out = left_out
        self._said: set[tuple[int, str]] = set()  # the kinds that came in their place, by choice
        # Texts that came in messages, likewise.
        self._messages: dict[tuple[int, str], _Growing] = {}

    def note(self, chunk: StreamChunk) -> None:
        """Take note of the kinds of content that came in their place."""
        for kind in kinds_of(chunk):
            self._said.add((chunk.choice, kind))

    def removed_from(
        self,
        parsed: StreamChunk | Sequence[StreamChunk],
        data: bytes,
        restored: Callable[[Any], Any],
    ) -> StreamChunk | Sequence[StreamChunk]:
        """Return an event's chunks without what repeats the answer so far.

        If the event ends the answer, they have also what only its ``message`` says. ``restored`` puts
        long texts back into what was made of ``data``.
        """
        chunks = (parsed,) if isinstance(parsed, StreamChunk) else parsed
        silent = True
        for chunk in chunks:
            if chunk.elsewhere:
                self._remove(chunk)
                chunk.progress = has_content(chunk) or chunk.finish_reason is not None
                continue
            if (chunk.delta or chunk.reasoning) and in_message(data):
                self._shorten(chunk)
                silent = False
                continue
            if has_content(chunk):
                self.note(chunk)
                silent = False
        if silent and data.find(MESSAGE) >= 0 and any(c.finish_reason for c in chunks):
            with suppress(MiniLLMError, *MALFORMED):
                whole: Sequence[StreamChunk] = restored(self._provider.parse_response(data))
                for chunk in whole:
                    chunk.end = False  # a body would be over; behind an event, usage may follow
                    self._remove(chunk)
                    self._shorten(chunk, last=True)
                if any(map(has_content, whole)):
                    return whole
        return parsed

    def _remove(self, chunk: StreamChunk) -> None:
        """Take out of a chunk what kinds of content have come before where they belong."""
        for kind in kinds_of(chunk):
            if (chunk.choice, kind) in self._said:
                if chunk.elsewhere:
                    self._left_out.note(ELSEWHERE)
                setattr(chunk, kind, type(getattr(chunk, kind))())

    def _shorten(self, chunk: StreamChunk, *, last: bool = False) -> None:
        """Take out of a chunk the text of the messages before it, if it repeats them and goes on.

        The ``last``, beside the reason, may repeat pieces that did not.
        """
        for kind in ("delta", "reasoning"):
            text, key = getattr(chunk, kind), (chunk.choice, kind)
            if not text:
                continue
            before = self._messages.setdefault(key, _Growing())
            setattr(chunk, kind, before.new_of(text, last=last))


class _Growing:
    """The text of messages so far, and whether each has all of those before it."""

    def __init__(self) -> None:
        self._text = ""
        self._grows: bool | None = None

    def new_of(self, text: str, *, last: bool) -> str:
        """Return what a message adds. The first that does not go on with all before it decides that
        they are pieces; one that only repeats does not decide.
        """
        before, starts = self._text, text.startswith(self._text)
        if (
            before
            and starts
            and (self._grows or len(text) > len(before))
            and self._grows is not False
        ):
            self._grows, self._text = True, text
            return text[len(before) :]
        if last and before and (starts or len(text) >= len(before) or text.strip() in before):
            return text[len(before) :] if starts else ""  # the same, written in another way
        if before and not starts and self._grows is None:
            self._grows = False
        self._text = before + text
        return text
