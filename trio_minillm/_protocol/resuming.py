"""The decoding of an answer that goes on in another body, behind the last event that came.

Only answers in the background are decoded so. Their events are numbered, each with the number that
follows the one before; so it is certain of each body that it goes on where the last was cut. What was
learned of the answer (its items, what it has said) stays, and the framing begins anew: half an event
that a cut has left behind comes again, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._types.chunks import StreamChunk, has_content
from .._types.errors import ProtocolError
from ..providers import Continuation, Provider
from ..providers._base import Parsed
from .decoder import HALF, ChunkDecoder, listed, new_framing
from .sse import SSEEvent


class ResumableDecoder(ChunkDecoder):
    """The decoder of an answer that may be taken up again.

    Guarantees, on top of those of a decoder: after `resume`, no event counts twice, and none is
    passed over: a body that lacks some, or in which they have no numbers, is a `ProtocolError`.
    """

    def __init__(self, provider: Provider, continuation: Continuation, *options: Any) -> None:
        super().__init__(provider, *options)
        self._by_template, self._credit = False, 0  # templates hand no numbers on
        self.response_id: str = ""
        """The id of the answer, once it has come."""
        self.position: int | None = None
        """The number of the newest event; ``None`` as long as none came, or if they are in no order."""
        self._position_in = continuation.position_in
        self._ordered = True
        self._resumed = False

    def resume(self) -> None:
        """Begin another body, which goes on with the answer."""
        if self._halves is not None and self._ended:
            self.left_out.found_again(HALF)  # its other half is still to come
        self._sse = new_framing(self._sse.max_event)
        self._sniffed, self._sniffer, self._array = False, None, None
        self._ended, self.error, self._doubt = False, None, b""
        self._resumed = True

    def _ordinary(self, block: bytes, at: float) -> Parsed:
        plain = None if self._resumed else self._sse.plain(block)  # each event is looked at twice
        number = None if plain is None else self._position_in(plain[1])
        if number is None:
            return None
        parsed = super()._ordinary(block, at)
        if parsed is not None:
            self._note_place(number, listed(parsed))
        return parsed

    def _events(self, events: list[SSEEvent], at: float) -> list[StreamChunk]:
        out: list[StreamChunk] = []
        for event in events:
            number, before = self._position_in(bytes(event.data)), self.position
            if self._resumed and number is not None and self.position is not None:
                if number <= self.position:
                    continue  # it came before the cut
                if number > self.position + 1:
                    self.error = _gap(self.position + 1, number)
                    return out
            chunks = super()._events([event], at)
            self._note_place(number, chunks)
            if self.position == before and any(map(_counts, chunks)):
                if self._resumed:
                    self.error = ProtocolError("an event of the answer has no number")
                    return out
                self._lose_place()
            out += chunks
            if self.error is not None:
                return out
        self.error = self._sse.failure
        return out

    def _note_place(self, number: int | None, chunks: Sequence[StreamChunk]) -> None:
        """Take note of how far the answer has come."""
        if not self.response_id:
            self.response_id = next((chunk.id for chunk in chunks if chunk.id), "")
        if number is None or not self._ordered:
            return
        if self.position is None or number == self.position + 1:
            self.position = number
        else:
            self._lose_place()

    def _lose_place(self) -> None:
        """Ask for nothing behind a number: events have come that may stand before it or behind it."""
        self._ordered, self.position = False, None

    def _document(self, body: bytes, at: float) -> list[StreamChunk]:
        if not self._resumed:
            return super()._document(body, at)
        self.error = ProtocolError("the body is not an event stream")
        return []


def _gap(wanted: int, number: int) -> ProtocolError:
    return ProtocolError(f"event {number} arrived instead of event {wanted}")


def _counts(chunk: StreamChunk) -> bool:
    """Return whether a chunk is part of an answer, and no mere sign of life."""
    return has_content(chunk) or bool(chunk.delta) or chunk.finish_reason is not None
