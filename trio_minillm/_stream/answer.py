"""One answer as its bytes arrive: its chunks, how far it has come, and what its clocks are told.

Nothing here waits. The stream's task and, in direct reading, the consumer feed it alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from .._protocol.decoder import ChunkDecoder
from .._protocol.left_out import NOTHING_UNREAD
from .._protocol.state import OPEN, StreamState
from .._protocol.templates import TextRun
from .._types.chunks import StreamChunk, continues_answer, has_effect
from .._types.errors import (
    EndedEarly,
    LimitExceeded,
    MiniLLMError,
    StreamTimeout,
    StreamTruncated,
)
from .._types.options import BOUNDS
from .clocks import Clocks

NO_END = "the body ended without a finish reason or an end marker"
DISPROVED = (
    "the end marker arrived, but content had followed the finish reason, and no usage confirms that "
    "the answer is complete"
)
NO_EVIDENCE = (
    "the end marker arrived without a finish reason or usage to confirm that the answer is complete"
)


SILENCES = ("first_chunk", "idle", "byte_idle")
"""Clocks by which a connection that is dead, and says nothing of it, is found out."""


def is_cut(error: MiniLLMError | None) -> bool:
    """Return whether an error tells of the connection alone, and not of the answer."""
    if isinstance(error, StreamTimeout):
        return error.clock in SILENCES
    return isinstance(error, StreamTruncated)


class AttemptInfo(msgspec.Struct, kw_only=True):
    """Facts about the newest attempt that no chunk carries; the response gets them, too."""

    started: float | None = None
    """The time at which the attempt began, on Trio's clock, in seconds."""
    sent_at: float | None = None
    headers_at: float | None = None
    ended: float | None = None
    attempts: int = 0
    resumes: int = 0
    """Number of times that the answer of the newest attempt was taken up again."""
    received: int = 0
    """Decompressed bytes of the body so far."""
    skipped: int = 0
    """Events that were passed over."""
    unread: Mapping[str, int] = NOTHING_UNREAD
    """Names of what could not be read and was left out, and how often."""
    request_id: str | None = None
    generation_id: str | None = None
    status: int = 0
    """The status of the newest response."""
    headers: Mapping[str, str] = MappingProxyType({})
    """The headers of the newest response, as they came."""
    held: Sequence[StreamChunk] = ()
    """Openings without content, held back because another attempt can still follow."""


class Answer:
    """One attempt's answer, fed with its body: bytes in, chunks out.

    It counts what came, tells the clocks, and knows when nothing more of the body is wanted.
    ``max_response`` is the most bytes that the body may have, decompressed.
    """

    __slots__ = (
        "_decoder",
        "_info",
        "_max_response",
        "begun",
        "clocks",
        "content",
        "error",
        "resumable",
        "state",
    )

    def __init__(
        self,
        decoder: ChunkDecoder,
        state: StreamState,
        clocks: Clocks,
        info: AttemptInfo,
        max_response: int = BOUNDS.response,
    ) -> None:
        self.state: StreamState = state
        self.clocks: Clocks = clocks
        self.error: MiniLLMError | None = None
        """The error that ended the answer, unless it was over before."""
        self.begun: bool = False
        """True once a part of the answer was handed on; empty chunks are dropped from then on."""
        self.content: int = 0
        """The number of chunks with content."""
        self.resumable: bool = False
        """True if it may go on in another body, where this one is cut."""
        self._decoder = decoder
        self._info = info
        self._max_response = max_response

    def reopen(self) -> None:
        """Wait for another body: who leaves meanwhile has left, and was not cut."""
        self.error = self._info.ended = None

    def go_on(self, clocks: Clocks) -> None:
        """Go on with another body, under other clocks."""
        self.clocks = clocks
        self.reopen()

    @property
    def failure(self) -> MiniLLMError | None:
        """The error that ended the answer, unless it may go on behind it."""
        return None if self.resumable and is_cut(self.error) else self.error

    @property
    def over(self) -> bool:
        """True if nothing more of the body is wanted."""
        return self.state.over or self.error is not None

    def feed(self, data: bytes, now: float) -> tuple[list[StreamChunk], bool]:
        """Return the chunks that these bytes complete, and whether they hold more than an opening.

        ``b""`` is the end of the body; ``now`` is the time at which the bytes left the socket.
        """
        state, info = self.state, self._info
        info.received += len(data)
        if data:
            chunks = self._decoder.feed(data, now)
            if type(chunks) is TextRun and self.begun and state.state is OPEN:
                state.chunk(chunks[0])  # the others would change nothing more
                self.content += len(chunks)
                self.clocks.heard(now, True, state)
                if info.received > self._max_response:
                    self.error = LimitExceeded("bytes in one response", self._max_response)
                return chunks, True
        else:
            chunks = self._decoder.finish(now)
        chunks, content = self._weigh(chunks, now)
        if not data:
            self.error = self.error or self._decoder.error or self._unproven(NO_END)
        if info.received > self._max_response:
            self.error = self.error or LimitExceeded("bytes in one response", self._max_response)
        self.error = self.error or self._decoder.error
        left_out = self._decoder.left_out
        info.skipped, info.unread = left_out.skipped, left_out.unread
        return chunks, content or state.over

    def _weigh(self, chunks: list[StreamChunk], now: float) -> tuple[list[StreamChunk], bool]:
        """Tell the state and the clocks of these chunks, and drop those that follow the end."""
        content = silent = False
        state = self.state
        for number, chunk in enumerate(chunks):
            state.chunk(chunk)
            if chunk.progress:
                content = True
                text = chunk.delta or chunk.reasoning
                if text or (chunk.finish_reason is None and chunk.usage is None):
                    self.content += 1
            else:
                silent = True
            if state.over or chunk.end:
                chunks = chunks[: number + 1]
                if not state.over:
                    self.error = self._unproven(DISPROVED if state.reopened else NO_EVIDENCE)
                break
        if not state.over:  # then no clock runs any more
            says = state.state is not OPEN and any(map(continues_answer, chunks))
            self.clocks.heard(now, content, state, says)
        if silent and self.begun:
            chunks = list(filter(has_effect, chunks))
        return chunks, content

    def _unproven(self, why: str) -> MiniLLMError:
        """Return the error of a body that is over without evidence that the answer is whole."""
        said = None if self.state.understood else self._decoder.other_words()
        return said or EndedEarly(why)
