"""Repetitions in an answer: content in other places than the reference has, and whole messages.

There are proxies that stream for servers which don't, behind keep-alives and an opening, servers that
stream the reasoning alone and have the text in a last ``message``, servers that send all of the
text so far with each piece, and relays that open a block with its whole text, and stream that, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

import msgspec

from .._types.chunks import StreamChunk, has_content
from .._types.errors import MiniLLMError
from ..providers import Provider
from ..providers._base import RepeatFilter
from .left_out import LeftOut

ELSEWHERE = "content in another place than before"
TWICE = "the text that a block was opened with, again"
SURE_CHARS = 16
"""Characters of the shortest text that counts as sent again, and not as said twice ("haha")."""
MESSAGE = b'"message"'
"""A part of every whole answer: a field of OpenAI's, and the type of Anthropic's."""
_DELTA = rb'"delta"(?! ?: ?null)'
_NOTHING: frozenset[tuple[int, str]] = frozenset()
_TEXT = frozenset({(0, "delta")})
"""The kinds of content that almost every answer has, behind its first text; before it has `_NOTHING`. One
set each for all the thousands of streams."""
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
    return data.find(MESSAGE) >= 0 and re.search(_DELTA, data) is None


def _says_more(chunk: StreamChunk) -> bool:
    """Return whether a chunk has content or citations, which a server may have in the last message
    alone.
    """
    return has_content(chunk) or bool(chunk.annotations)


def _has_opening(chunk: StreamChunk) -> bool:
    """Return whether a chunk with a block has so much text that it would be noticed if it came again."""
    return len(chunk.delta) >= SURE_CHARS or len(chunk.reasoning) >= SURE_CHARS


def _grown(
    said: AbstractSet[tuple[int, str]], more: Iterable[tuple[int, str]]
) -> set[tuple[int, str]]:
    """Return a set with more in it: the same one, unless that is shared."""
    own = said if isinstance(said, set) else set(said)
    own.update(more)
    return own


class Repeats(RepeatFilter):
    """The kinds of content that an answer has so far, and what repeats them."""

    __slots__ = (
        "_left_out",
        "_messages",
        "_openings",
        "_provider",
        "_said",
    )

    def __init__(self, provider: Provider, left_out: LeftOut) -> None:
        self._provider = provider
        self._left_out = left_out
        # The kinds that came in their place, by choice.
        self._said: AbstractSet[tuple[int, str]] = _NOTHING
        # Texts that came in messages, likewise.
        self._messages: dict[tuple[int, str], _Growing] | None = None
        # Texts that blocks were opened with, by block and kind.
        self._openings: dict[tuple[int | None, str], _Opening] | None = None

    def note(self, chunk: StreamChunk) -> None:
        """Take note of the kinds of content that came in their place, and take out of a chunk what its
        block was opened with.
        """
        texts = chunk.delta or chunk.reasoning
        if self._openings or (texts and chunk.block is not None and _has_opening(chunk)):
            self._compare_with_opening(chunk)
        said, choice = self._said, chunk.choice
        others = chunk.reasoning or chunk.refusal or chunk.tool_calls or chunk.reasoning_details
        if chunk.delta and not others:  # almost every time
            if not said and not choice:
                self._said = _TEXT
            elif (choice, "delta") not in said:
                self._said = _grown(said, ((choice, "delta"),))
        elif others:
            self._said = _grown(said, [(choice, kind) for kind in kinds_of(chunk)])

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
                if data.find(MESSAGE) >= 0 and not any(c.finish_reason for c in chunks):
                    self._shorten(chunk)
                chunk.progress = _says_more(chunk) or chunk.finish_reason is not None
                continue
            if self._openings or (chunk.block is not None and _has_opening(chunk)):
                self._compare_with_opening(chunk)
            if (chunk.delta or chunk.reasoning) and in_message(data):
                self._shorten(chunk)
                silent = False
            elif has_content(chunk):
                self._said = _grown(self._said, [(chunk.choice, kind) for kind in kinds_of(chunk)])
                silent = False
        if silent and data.find(MESSAGE) >= 0 and any(c.finish_reason for c in chunks):
            with suppress(MiniLLMError, *MALFORMED):
                whole: Sequence[StreamChunk] = restored(self._provider.parse_response(data))
                for chunk in whole:
                    chunk.end = False  # a body would be over; behind an event, usage may follow
                    self._remove(chunk)
                    self._shorten(chunk, last=True)
                if any(map(_says_more, whole)):
                    return whole
        return parsed

    def _compare_with_opening(self, chunk: StreamChunk) -> None:
        """Hold back pieces that repeat, from its beginning, the text that their block was opened with,
        until all of it has come again, or something else.
        """
        opens = chunk.block is not None and chunk.block.start is not None
        if self._openings is None:
            self._openings = {}
        for kind in ("delta", "reasoning"):
            text, key = getattr(chunk, kind), (chunk.part, kind)
            opening = self._openings.get(key)
            if opening is None:
                if opens and len(text) >= SURE_CHARS:
                    self._openings[key] = _Opening(text)
                continue
            if text or (chunk.block is not None and chunk.block.stop):
                setattr(chunk, kind, opening.new_of(text))
            if opening.over:
                del self._openings[key]
            if opening.repeated:
                self._left_out.note(TWICE)

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
        if self._messages is None:
            self._messages = {}
        for kind in ("delta", "reasoning"):
            text, key = getattr(chunk, kind), (chunk.choice, kind)
            if not text:
                continue
            before = self._messages.setdefault(key, _Growing())
            setattr(chunk, kind, before.new_of(text, last=last))


class _Opening:
    """The text that a block was opened with, and how much of it has come again."""

    def __init__(self, text: str) -> None:
        self.over: bool = False
        """True once all that comes is new."""
        self.repeated: bool = False
        """True once all of the text has come again."""
        self._text = text
        self._at = 0  # so much of it has come again, and is held back

    def new_of(self, text: str) -> str:
        """Return what a piece adds, with those that were held back if they were no repetition; an
        empty one is the end.
        """
        whole, at = self._text, self._at
        left = len(whole) - at
        if text and len(text) < left and whole.startswith(text, at):
            self._at += len(text)
            return ""
        self.repeated = bool(text) and text.startswith(whole[at:])
        self.over = self.repeated or bool(at or text)
        return text[left:] if self.repeated else whole[:at] + text


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
