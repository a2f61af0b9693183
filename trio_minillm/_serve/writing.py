"""Answers of a given length, written into the form of their wire format. Pure but for the day's time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import msgspec

from ..testing._answer_parts import AnswerPart, reasoning
from .forms import (
    ALL_SO_FAR,
    CREATED,
    CREATED_AT,
    ID,
    MADE,
    NUMBER,
    PROMPT,
    REASONED,
    SO_FAR,
    TEXT,
    TEXT_SO_FAR,
    THOUGHT,
    Form,
    Kind,
    Length,
    Template,
    whole_body,
)
from .words import text_of


def _mark(number: int) -> bytes:
    return b"%d" % number


_NUMBER, _SO_FAR, _ALL, _TEXT = map(_mark, (NUMBER, SO_FAR, ALL_SO_FAR, TEXT_SO_FAR))


class Writer:
    """A stream that is being written: the contents of one answer, one after the other."""

    def __init__(self, form: Form, id: str, length: Length) -> None:
        self._form = form
        self._length = length
        self._events = 0  # so far
        self._made = 0  # tokens so far
        self._values = {
            **_totals(length),
            ID: id.encode(),
            THOUGHT: text_of(0, length.reasoning).encode(),
            TEXT: text_of(0, length.text).encode(),
        }

    def contents(
        self, per_chunk: int, *, opening: bool = False, end: bytes = b""
    ) -> Iterator[tuple[bytes, int]]:
        """Yield what is sent for each content, and its tokens.

        The events before the first content come with it, those after the last, and ``end``, with that.
        With ``opening`` the former come by themselves, as 0 tokens.
        """
        form, before = self._form, self._rendered(self._form.opening)
        if opening:
            yield before, 0
            before = b""
        runs = [n for n in (self._length.reasoning, self._length.text) if n]
        for which, total in enumerate(runs):
            if which:
                before = self._rendered(form.between)
            count = min(per_chunk, total)
            if total > count:
                yield before + self._content(which, 0, count), count
                before, last = b"", (total - 1) // per_chunk * per_chunk
                if form.fixed:
                    yield from self._same(which, per_chunk, last // per_chunk)
                    self._made += last - per_chunk
                else:
                    for first in range(per_chunk, last, per_chunk):
                        yield self._content(which, first, per_chunk), per_chunk
                first, count = last, total - last
            else:
                first = 0
            before += self._content(which, first, count)
            if which == len(runs) - 1:
                before += self._rendered(form.closing) + end
            yield before, count

    def _same(self, which: int, per_chunk: int, until: int) -> Iterator[tuple[bytes, int]]:
        """Yield the contents from number 1 on, which differ by their text alone."""
        pieces = self._form.pieces(which, per_chunk)
        id, created, rounds = self._values[ID], self._values[CREATED], len(pieces)
        for number in range(1, until):
            piece = pieces[number % rounds]
            yield piece.replace(ID, id).replace(CREATED, created), per_chunk

    def _content(self, which: int, first: int, count: int) -> bytes:
        values = self._values
        self._made += count
        thought = self._length.reasoning if self._form.mark(which) is TEXT else 0
        values[_SO_FAR] = b"%d" % self._made
        values[_ALL] = b"%d" % (self._length.prompt + self._made)
        values[_TEXT] = b"%d" % (self._made - thought)
        values[_NUMBER] = b"%d" % self._events
        self._events += 1
        mark = self._form.mark(which)
        whole, values[mark] = values[mark], text_of(first, count).encode()
        data = self._form.frame(self._form.contents[which].filled(values))
        values[mark] = whole
        return data

    def _rendered(self, templates: Iterable[Template]) -> bytes:
        pieces = []
        for template in templates:
            self._values[_NUMBER] = b"%d" % self._events
            self._events += 1
            pieces.append(self._form.frame(template.filled(self._values)))
        return b"".join(pieces)


def _totals(length: Length) -> dict[bytes, bytes]:
    prompt, made, thought = length.prompt, length.made, length.reasoning
    numbers = {
        PROMPT: prompt,
        MADE: made,
        PROMPT + MADE: prompt + made,
        REASONED: thought,
        MADE - REASONED: made - thought,
        CREATED_AT: int(time.time()),
    }
    return {_mark(mark): b"%d" % value for mark, value in numbers.items()}


def body(kind: Kind, id: str, length: Length) -> bytes:
    """Return the answer that is not streamed."""
    parts: list[AnswerPart] = []
    if length.reasoning:
        parts.append(reasoning(text_of(0, length.reasoning)))
    if length.text or not parts:
        parts.append(text_of(0, length.text))
    usage = kind.counts(length.prompt, length.made, length.reasoning)
    names = (kind.model, id, int(time.time()))
    return msgspec.json.encode(whole_body(kind.wire, parts, kind.finish, usage, names))
