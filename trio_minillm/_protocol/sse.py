"""Server-sent events: bytes in, events out, by the WHATWG standard.

House rules of this file:

- No I/O, no clock, no JSON: framing only.
- The events do not depend on how the bytes were cut.
- The work is linear in the bytes, however they are cut: each byte of a partial line is looked at
  once, and the line is a buffer that grows in place, not a list of pieces with an overhead each.
- What is held is bounded (``max_line``, ``max_event``). Crossing a bound ends the decoder:
  events that were complete before are still handed out, then `SSEDecoder.failure` is set.

Beyond the standard, for servers that exist:

- `SSEDecoder.flush` returns a last event that lacks its blank line. The standard drops it; some
  LLM servers end with an unterminated ``data: [DONE]``.
- A field ``error:`` (llama.cpp before its PR 16109) becomes an event named ``error``.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from .._types.errors import LimitExceeded
from .._types.options import BOUNDS

QUICK_BYTES = 4 * 1024
"""Bytes of the longest unfinished event that `SSEDecoder.hold` keeps as it is. It is put before the
next bytes each time, so this bounds what is copied."""

LONG_LINE = 64 * 1024
"""Bytes from which on a line is not copied more often than it must be."""

NAME_LINE = 64
"""Bytes of the longest line with an event's name that `SSEDecoder.plain` reads."""

_BOM = b"\xef\xbb\xbf"
_JSON = (b'"', b"}", b"]")
"""Beginnings of the lines of JSON that is printed with a line for each field."""

_STRAY = re.compile(rb"(?:[\s\0]|\xc2\xa0|\xe2\x80\x8b|\xef\xbb\xbf){1,16}(?=(?:data|event):)")
"""Blanks, also invisible ones, before the name of a field: what is left of somebody's keep-alive."""


@lru_cache(maxsize=64)  # the events of an answer have few names
def name_in(line: bytes) -> str | None:
    """Return the name in a line that is a field ``event``; ``None`` unless it is ASCII, and one line."""
    if not (line.startswith(b"event:") and line.isascii()) or line.find(b"\n") >= 0:
        return None
    return line[6:].removeprefix(b" ").decode() or "message"


_NO_BYTES = bytearray()
"""The unfinished line of every stream between two lines; nothing is added to it in place."""


class SSEEvent(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event."""

    data: bytes | bytearray
    """The data lines, joined by line feeds and undecoded; a ``bytearray`` only if it has
    `LONG_LINE` bytes or more."""
    event: str = "message"
    """The type of the event."""
    id: str = ""
    """The last event id that was in force when the event was complete."""


class SSEDecoder:
    """An incremental decoder of one event stream.

    - ``max_line`` and ``max_event`` are the most bytes of a line and of an event.
    - ``forgiving`` accepts what real servers send although the standard ignores or joins it, as
      listed below.

    With ``forgiving``:

    - A byte-order mark before any line is ignored, not only before the first: .NET servers write
      one before each event.
    - A line that starts a JSON object or list is data, and so are the lines that continue it.
      Proxies write an error, or a complete answer, without a field name after their keep-alives.
    - Spaces before the name of a field are ignored.
    - Data with complete JSON ends with its line if the next line starts a JSON object or list. Some
      servers write no blank lines, and their answers must not wait for the end of the body.

    Its 16 attributes are options, what it has counted, and one unfinished line and event.

    Guarantees: `feed` never raises for any bytes. The events do not depend on how the bytes are
    split. After a bound is exceeded, ``failure`` is set and no more events follow.
    """

    __slots__ = (
        "_data",
        "_event",
        "_forgiving",
        "_has_data",
        "_held",
        "_id",
        "_late",
        "_partial",
        "_skip_lf",
        "_started",
        "comments",
        "failure",
        "last_event_id",
        "max_event",
        "max_line",
        "retry_ms",
    )

    def __init__(
        self,
        max_line: int = BOUNDS.event,
        max_event: int = BOUNDS.event,
        forgiving: bool = False,
    ) -> None:
        self.max_line: int = max_line
        self.max_event: int = max_event
        self.failure: LimitExceeded | None = None
        """The bound that was crossed."""
        self.retry_ms: int | None = None
        """The reconnection time that the stream asked for, in milliseconds."""
        self.last_event_id: str = ""
        self.comments: int = 0
        """The number of comment lines (keep-alives)."""
        self._forgiving = forgiving
        self._started = False  # past the byte-order mark
        self._skip_lf = False  # the last byte was CR: an LF right after it is the same line end
        self._held = b""  # the unfinished event, not looked at yet (`hold` with ``quick``)
        self._partial = _NO_BYTES  # the unfinished line
        self._data = _NO_BYTES  # the unfinished event's data lines, joined
        self._has_data = False
        self._event = ""
        self._late = ""  # the event's name, which came behind its data or begins the next event
        self._id = ""  # becomes last_event_id at dispatch, as the standard says

    @property
    def between(self) -> bool:
        """True if the next byte starts a block and nothing before it affects that."""
        pending = self._held or self._partial or self._has_data or self._event or self._skip_lf
        return self._started and not pending and self._id == self.last_event_id

    def feed(self, data: bytes) -> list[SSEEvent]:
        """Take the next bytes, and return the events that they complete, in order."""
        events, blocks, tail = self.split(data)
        for block in blocks:
            events += self.dissect(block)
        return events + self.hold(tail)

    def split(self, data: bytes) -> tuple[list[SSEEvent], list[bytes], bytes]:
        """Do the first half of `feed`, for a caller that can read most blocks by itself.

        Returns, in the order of the stream: the events that were pending; complete blocks of lines,
        for `dissect`; and the rest, for `hold`.
        """
        events: list[SSEEvent] = []
        if self.failure is not None or not data:
            return events, [], b""
        if not self._started:
            if self._partial or data[0] == _BOM[0]:
                data = self._skip_bom(data)
                if not self._started:
                    return events, [], b""
            self._started = True
        if self._skip_lf or data.find(b"\r") >= 0:
            data = self._only_lf(data)
        if self._held:
            data, self._held = self._held + data, b""
        if self._partial or self._has_data or self._event or self._id != self.last_event_id:
            data = data[self._until_blank(data, 0, events) :]
        blocks = data.split(b"\n\n")
        return events, blocks, blocks.pop()

    def plain(self, block: bytes) -> tuple[str, bytes] | None:
        """Return the name and the data of a block that is one line of data, with or without a name
        before it. Returns ``None`` for any other block.
        """
        if len(block) > self.max_line or len(block) > self.max_event:
            return None
        # A partition takes half of the time of `find`, which parses its arguments. `in`, here and
        # elsewhere, tries to read the bytes as a number before it looks for them.
        before, _, line = block.rpartition(b"\n")
        name: str | None = "message"
        if before:
            name = name_in(before) if len(before) < NAME_LINE else None
        if name is None:
            return None
        if line[:6] == b"data: ":
            return name, line[6:]
        return (name, line[5:]) if line[:5] == b"data:" else None

    def dissect(self, block: bytes) -> list[SSEEvent]:
        """Return the event of a complete block, if there is one in it."""
        if self.failure is not None or not block:
            return []
        if (plain := self.plain(block)) is not None:
            name, data = plain
            return [SSEEvent(data, name, self.last_event_id)]
        events: list[SSEEvent] = []
        for line in block.split(b"\n"):
            self._line(line, events)
            if self.failure is not None:
                return events
        self._dispatch(events)
        return events

    def hold(self, tail: bytes, *, quick: bool = False) -> list[SSEEvent]:
        """Keep the beginning of a block, and return the events that it completes.

        With ``quick``, a short beginning is kept as it is, so that `split` returns the complete
        block.
        """
        events: list[SSEEvent] = []
        short = min(QUICK_BYTES, self.max_line, self.max_event)
        whole_line = (
            self._forgiving and tail.find(b"}\n", 0, -1) >= 0
        )  # may end its event, without a blank line
        if quick and len(tail) <= short and self.failure is None and not whole_line:
            self._held = tail
            return events
        start = 0
        while start < len(tail) and self.failure is None:
            start = self._until_blank(tail, start, events)
        return events

    def flush(self) -> list[SSEEvent]:
        """End the body, and return the last event if its blank line was missing."""
        if self.failure is not None:
            return []
        held, self._held = self._held, b""
        events = self.hold(held)
        self._started = True
        if self._partial:
            self._line(self._take_partial(), events)
        if self.failure is None:
            self._dispatch(events)
        return events

    # -- bytes ---------------------------------------------------------------------------

    def _skip_bom(self, data: bytes) -> bytes:
        if self._partial:
            data = self._take_partial() + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._partial = bytearray(data)
            return b""
        self._started = True
        return data.removeprefix(_BOM)

    def _only_lf(self, data: bytes) -> bytes:
        """Replace every line end by LF. A CR ends its line at once, without waiting for an LF."""
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                data = data[1:]
        if data.find(b"\r") >= 0:
            self._skip_lf = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _until_blank(self, data: bytes, start: int, events: list[SSEEvent]) -> int:
        """Read line by line up to the end of an event, and return the place of the next byte."""
        while self.failure is None:
            end = data.find(b"\n", start)
            if end < 0:
                if start < len(data):
                    self._keep(data[start:])
                return len(data)
            line = data[start:end]
            if self._partial:
                self._keep(line)
                if len(self._partial) > LONG_LINE and self._long_data():
                    start = end + 1
                    continue
                line = self._take_partial()
                if self.failure is not None:
                    return len(data)
            start = end + 1
            if line:
                self._line(line, events)
            else:
                self._dispatch(events)
                return start
        return len(data)

    def _keep(self, piece: bytes) -> None:
        if len(self._partial) + len(piece) > self.max_line:
            self._fail("bytes in one line", self.max_line)
        elif self._partial:
            self._partial += piece
        else:
            self._partial = bytearray(piece)

    def _long_data(self) -> bool:
        """Take a long line that is the first data of its event, without a copy. Return whether."""
        partial = self._partial
        if self._has_data or not partial.startswith(b"data:") or self.failure is not None:
            return False
        del partial[: 6 if partial[5:6] == b" " else 5]  # moves nothing: only where it begins
        if len(partial) > self.max_event:
            self._fail("bytes in one event", self.max_event)
            return True
        self._data, self._partial = partial, _NO_BYTES
        self._has_data = True
        return True

    def _take_partial(self) -> bytes:
        line, self._partial = bytes(self._partial), _NO_BYTES
        return line

    # -- lines ---------------------------------------------------------------------------

    def _line(self, line: bytes, events: list[SSEEvent]) -> None:
        if len(line) > self.max_line:
            self._fail("bytes in one line", self.max_line)
            return
        if self._forgiving:
            line = line.removeprefix(_BOM)
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            if self._has_data:
                self._go_on(value, events)
            self._add(value)
        elif not field:
            self.comments += 1 if line else 0
        elif field == b"event":
            name = value.decode("utf-8", "replace")
            if self._has_data and self._forgiving:
                self._late = name
            else:
                self._event = name
        elif field == b"error":
            self._event = "error"
            self._add(value)
        elif field == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif self._forgiving and self._is_json(line):
            self._go_on(line, events)
            self._add(line)
        elif self._forgiving and (stray := _STRAY.match(line)):
            self._line(line[stray.end() :], events)
        elif field == b"retry" and value.isdigit() and len(value) <= 18:
            self.retry_ms = int(value)  # bytes.isdigit() is ASCII only, as the standard wants

    def _is_json(self, line: bytes) -> bool:
        """Return whether a line without a field's name begins JSON, or goes on with it."""
        bare = line.lstrip()
        return bare[:1] in (b"{", b"[") or (
            self._data.startswith((b"{", b"[")) and bare[:1] in _JSON
        )

    def _add(self, value: bytes) -> None:
        if len(self._data) + len(value) + self._has_data > self.max_event:
            self._fail("bytes in one event", self.max_event)
            return
        if self._has_data:
            self._data += b"\n"
            self._data += value
        else:
            self._data, self._has_data = bytearray(value), True

    def _dispatch(self, events: list[SSEEvent]) -> None:
        self.last_event_id = self._id
        if self._has_data:
            # Copying a picture of 40 MB takes 30 ms.
            data = self._data if len(self._data) > LONG_LINE else bytes(self._data)
            name = self._late or self._event or "message"
            events.append(SSEEvent(data, name, self.last_event_id))
            self._data, self._has_data = _NO_BYTES, False
        self._event = self._late = ""

    def _go_on(self, value: bytes, events: list[SSEEvent]) -> None:
        """End the event before data that can't go on with its own.

        No JSON has a line that closes an object or a list right before one that opens another.
        """
        closed = self._data.endswith((b"}", b"]"))
        if self._forgiving and closed and value.startswith((b"{", b"[")):
            late, self._late = self._late, ""
            self._dispatch(events)
            self._event = late

    def _fail(self, bound: str, limit: int) -> None:
        self.failure = LimitExceeded(bound, limit)
        self._partial = self._data = _NO_BYTES
        self._has_data = False
