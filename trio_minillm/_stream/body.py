"""What a read of one answer means: its chunks, how far the answer is, and what the clocks hear.

Nothing here waits. The task of a stream feeds it and sends on what comes out; while the consumer
has nothing to do but wait, it feeds it itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .._protocol.decoder import ChunkDecoder
from .._protocol.state import State, StreamState
from .._protocol.templates import TextRun
from .._types.chunks import StreamChunk, has_content
from .._types.errors import EndedEarly, LimitExceeded, MiniLLMError
from .clocks import Clocks

MAX_RESPONSE = 256 * 1024 * 1024
"""Decompressed bytes in one response: 256 MiB, about fifty times the longest answer that any
model gives today with log probabilities."""

NO_END = "the body ended without a finish reason or an end marker"


class AttemptInfo(msgspec.Struct, kw_only=True):
    """What the reader knows beside the chunks; the stream puts it into the response."""

    started: float | None = None
    """When the newest attempt began, on Trio's clock."""
    headers_at: float | None = None
    ended: float | None = None
    attempts: int = 0
    received: int = 0
    skipped: int = 0
    request_id: str | None = None
    generation_id: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The newest response's, as they came."""
    held: list[StreamChunk] = msgspec.field(default_factory=list)
    """Openings without content, held back: until content comes, another attempt may."""


class Intake:
    """One answer, fed with its body as that comes."""

    def __init__(
        self, decoder: ChunkDecoder, ending: StreamState, clocks: Clocks, facts: AttemptInfo
    ) -> None:
        self.ending: StreamState = ending
        self.clocks: Clocks = clocks
        self.error: MiniLLMError | None = None
        """What ended the answer, unless it was over before."""
        self.begun: bool = False
        """Whether anything of the answer was handed on: nothings aren't any more then."""
        self.content: int = 0
        """Chunks that said something."""
        self._decoder = decoder
        self._facts = facts

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted of the body."""
        return self.ending.over or self.error is not None

    def feed(self, data: bytes, now: float) -> tuple[list[StreamChunk], bool]:
        """What these bytes complete, and whether any of it is more than an opening; ``b""`` is the
        body's end.
        """
        ending, facts = self.ending, self._facts
        facts.received += len(data)
        if data:
            chunks = self._decoder.feed(data, now)
            if type(chunks) is TextRun and self.begun and ending.state is State.OPEN:
                ending.chunk(chunks[0])  # the others would change nothing more
                self.content += len(chunks)
                self.clocks.heard(now, True, State.OPEN, False)
                if facts.received > MAX_RESPONSE:
                    self.error = LimitExceeded("bytes in one response", MAX_RESPONSE)
                return chunks, True
        else:
            chunks = self._decoder.finish(now)
            self.error = self.error or self._decoder.error or EndedEarly(NO_END)
        chunks, content = self._weigh(chunks, now)
        if facts.received > MAX_RESPONSE:
            self.error = self.error or LimitExceeded("bytes in one response", MAX_RESPONSE)
        self.error = self.error or self._decoder.error
        facts.skipped = self._decoder.skipped
        return chunks, content or ending.over

    def _weigh(self, chunks: list[StreamChunk], now: float) -> tuple[list[StreamChunk], bool]:
        """What the chunks mean for the ending and the clocks."""
        content = silent = False
        ending = self.ending
        for number, chunk in enumerate(chunks):
            ending.chunk(chunk)
            if chunk.progress:
                content = True
                self.content += chunk.finish_reason is None and chunk.usage is None
            else:
                silent = True
            if ending.over:
                chunks = chunks[: number + 1]
                break
        says = ending.state is State.ENDING and any(map(has_content, chunks))
        self.clocks.heard(now, content, ending.state, says)
        if silent and self.begun:
            chunks = list(filter(_worth_sending, chunks))
        return chunks, content


def _worth_sending(chunk: StreamChunk) -> bool:
    """Whether a chunk in the middle says anything: the buffer counts batches, and a server could
    fill them with nothings.
    """
    return bool(
        chunk.progress
        or chunk.usage is not None
        or chunk.block is not None
        or chunk.end
        or chunk.metadata
        or chunk.raw
    )
