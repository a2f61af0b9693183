"""The kind of a body, told by its first bytes: an event stream, or one document in its place."""

from __future__ import annotations

import re

from .._types.errors import LimitExceeded, ProtocolError

BOM = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8."""
_GZIP = b"\x1f"
"""The first byte of gzip's data, and of no text."""


class Sniffer:
    """Tells an event stream from a document, and collects the document.

    An event stream never begins like JSON or HTML: that tells, and not the header, which servers
    get wrong. A body whose first line closes a JSON object, and whose next line opens another or is
    a field of an event, is a stream of JSON lines. With ``arrays``, one that begins like a JSON array is
    a stream, whose events are its elements. A document may have ``max_size`` bytes.
    """

    def __init__(self, max_size: int, *, arrays: bool = False) -> None:
        self.decided: bool = False
        """True once a byte came that is neither blank nor of a byte-order mark."""
        self.pieces: list[bytes] | None = None
        """The document so far; ``None`` unless the body is one."""
        self.rest: bytes = b""
        """Half a byte-order mark, which waits for its other half."""
        self.failure: ProtocolError | None = None
        self.is_array: bool = False
        """True once the body is known to be an array of events."""
        self.max_size: int = max_size
        self._arrays = arrays
        self._size = 0
        self._past_bom = False
        self._last = b""  # of the first line: its newest byte that is no blank
        self._line_over = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes. Return those that are to be decoded as events now."""
        if self.pieces is not None:
            return self._collect(data)
        if self.is_array:
            return data
        data, self.rest = self.rest + data, b""
        if self._past_bom:  # a byte-order mark behind blanks is none
            head = data.lstrip()[:1]
        elif len(data) < len(BOM) and BOM.startswith(data):
            self.rest = data
            return b""
        else:
            self._past_bom = True
            head = data.removeprefix(BOM).lstrip()[:1]
        self.decided = bool(head)
        if head == _GZIP:
            self.failure = ProtocolError("the body is compressed, but has no content-encoding")
            return b""
        self.is_array = self._arrays and head == b"["
        if not head or head not in b"{[<" or self.is_array:
            return data
        self.pieces = []
        return self._collect(data.removeprefix(BOM))

    def document(self) -> bytes:
        """Return the document, without byte-order mark and blanks before it."""
        return b"".join(self.pieces or ()).lstrip()

    def _collect(self, data: bytes) -> bytes:
        """Keep the next bytes of a document. If it is a stream after all, return all that came."""
        assert self.pieces is not None
        self._size += len(data)
        if self._size > self.max_size:
            bound = "bytes in a body that is no event stream"
            self.failure = LimitExceeded(bound, self.max_size)
            self.pieces.clear()
            return b""
        self.pieces.append(data)
        if self._last != _NEVER and self._goes_on(data):
            stream, self.pieces = self.document(), None
            return stream
        return b""

    def _goes_on(self, data: bytes) -> bool:
        """Return whether a line of a stream follows the first line of the document."""
        if not self._line_over:
            line, *rest = _LINE_END.split(data if self._last else data.lstrip(), maxsplit=1)
            self._last = line.rstrip()[-1:] or self._last
            if not rest:
                return False
            self._line_over = True
            if self._last != b"}":
                self._last = _NEVER
                return False
            data = rest[0]
        first = data.lstrip()[:1]
        if first and first not in _BEGINNINGS:
            self._last = _NEVER
        return bool(first) and first in _BEGINNINGS


_NEVER = b"no"
"""Value of `Sniffer._last` once a document can't be a stream any more: no single byte."""
_LINE_END = re.compile(rb"[\r\n]")
_BEGINNINGS = b"{[:dei"
"""First bytes of what may follow a line of JSON in a stream: more of it, a comment, or a field."""
