"""The kind of a body, told by its first bytes: an event stream, or one document in its place."""

from __future__ import annotations

from .._types.errors import LimitExceeded

BOM = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8."""


class Sniffer:
    """Tells an event stream from a document, and collects the document.

    An event stream never begins like JSON or HTML: that tells, and not the header, which servers
    get wrong. A document may have ``max_size`` bytes.
    """

    def __init__(self, max_size: int) -> None:
        self.decided: bool = False
        """True once a byte came that is neither blank nor of a byte-order mark."""
        self.pieces: list[bytes] | None = None
        """The document so far; ``None`` unless the body is one."""
        self.rest: bytes = b""
        """Half a byte-order mark, which waits for its other half."""
        self.failure: LimitExceeded | None = None
        self._size = 0
        self._max_size = max_size
        self._past_bom = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes. Return those that are to be decoded as events now."""
        if self.pieces is not None:
            self._collect(data)
            return b""
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
        if not head or head not in b"{[<":
            return data
        self.pieces = []
        self._collect(data)
        return b""

    def document(self) -> bytes:
        """Return the document, without byte-order mark and blanks before it."""
        return b"".join(self.pieces or ()).removeprefix(BOM).lstrip()

    def _collect(self, data: bytes) -> None:
        assert self.pieces is not None
        self._size += len(data)
        if self._size > self._max_size:
            bound = "bytes in a body that is no event stream"
            self.failure = LimitExceeded(bound, self._max_size)
            self.pieces.clear()
        else:
            self.pieces.append(data)
