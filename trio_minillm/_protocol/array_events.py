"""The framing of a stream that is one JSON array, whose elements are its events.

Gemini sends it where ``alt=sse`` is missing, or was dropped on the way. Each element is handed out as
soon as its last byte has come.
"""

from __future__ import annotations

import re

from .._types.errors import LimitExceeded
from .sse import SSEEvent

_BETWEEN = re.compile(rb'[^"{\[\]]*+')
"""Everything outside elements: blanks and commas, and numbers or words, which are no events."""
_MARK = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'(?s)(?:[^"\\]++|\\.)*+')
"""A string's text up to the mark that closes it, or to half of an escape at the end of the bytes."""


class ArrayEvents:
    """Splits a JSON array into its elements, as the bytes come.

    Guarantees: the elements are the same however the bytes were cut; each byte is looked at once; an
    element of more than ``max_event`` bytes sets ``failure``, and none comes out after it. An element
    that was cut is none. What follows the array is ignored.
    """

    def __init__(self, max_event: int) -> None:
        self.failure: LimitExceeded | None = None
        self._max_event = max_event
        self._pieces: list[bytes] = []  # of the element that has begun
        self._size = 0  # of those pieces
        self._begun = False
        self._depth = 0  # brackets that are open in the element
        self._in_string = False
        self._escaped = False  # the last byte was a backslash in a string
        self._opened = False  # the array's own bracket has come
        self._over = False

    def feed(self, data: bytes) -> list[SSEEvent]:
        """Return the elements that these bytes complete."""
        out: list[SSEEvent] = []
        at = begin = 0
        while at < len(data) and not self._over and self.failure is None:
            if not self._begun:
                begin = _BETWEEN.match(data, at).end()  # type: ignore[union-attr]  # matches anything
                at = self._open(data, begin)
                continue
            at = self._skip_string(data, at) if self._in_string else self._next_mark(data, at)
            if not self._in_string and self._depth == 0:
                self._keep(data[begin:at])
                if self.failure is None:
                    out.append(SSEEvent(b"".join(self._pieces), "message", ""))
                self._begun, self._pieces, self._size = False, [], 0
        if self._begun and self.failure is None:
            self._keep(data[begin:])
        return out

    def _open(self, data: bytes, at: int) -> int:
        """Take the mark at a place between elements, if there is one. Return the place behind it."""
        mark = data[at : at + 1]
        if mark == b"]":
            self._over = True
        elif mark == b"[" and not self._opened:
            self._opened = True
        elif mark:
            self._begun, self._in_string = True, mark == b'"'
            self._depth = int(mark != b'"')
        return at + 1

    def _next_mark(self, data: bytes, at: int) -> int:
        """Go behind the next mark outside of strings."""
        found = _MARK.search(data, at)
        if found is None:
            return len(data)
        mark = found[0]
        if mark == b'"':
            self._in_string = True
        else:
            self._depth += 1 if mark in b"{[" else -1
        return found.end()

    def _skip_string(self, data: bytes, at: int) -> int:
        """Go behind the string that is open, as far as it has come."""
        if self._escaped:
            self._escaped = False
            at += 1
        at = _IN_STRING.match(data, at).end()  # type: ignore[union-attr]  # matches anything
        mark = data[at : at + 1]
        self._in_string = mark != b'"'
        self._escaped = mark == b"\\"
        return at + len(mark)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_event:
            self.failure = LimitExceeded("bytes in one event", self._max_event)
            self._pieces = []
        else:
            self._pieces.append(piece)
