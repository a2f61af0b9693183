"""Chunks that have arrived and were not handed out yet."""

from __future__ import annotations

from collections.abc import Callable

import trio

from .._protocol.templates import EventTemplate, TextRun
from .._types.chunks import StreamChunk
from .._types.errors import MiniLLMError
from .handoff import BUFFERED_BATCHES
from .source import Source

MANY_CHUNKS = 4096
"""Approximate number of chunks taken out of the channel at once; `collect` folds them in one step."""

LOOK_EVERY = 8
"""Items of a single chunk after which the channel is looked into for more. Where each read brings
one chunk there is seldom more, and looking costs as well."""


NO_CHUNKS: list[StreamChunk] = []
"""The batch of every stream that has handed out all; nothing is put into it."""


class ChunkBuffer:
    """The batch that a stream is handing out, and what is known of it."""

    __slots__ = (
        "_plenty",
        "append",
        "batch",
        "error",
        "position",
        "taken",
        "template",
    )

    def __init__(self) -> None:
        self.batch: list[StreamChunk] = NO_CHUNKS
        self.position: int = 0
        """The index of the next chunk."""
        self.error: MiniLLMError | None = None
        """The error that came behind the batch."""
        self.append: Callable[[str], None] | None = None
        """Adds to the text so far, where the next chunk is more of it and nothing else."""
        self.template: EventTemplate | None = None
        """The template of the events whose text `append` takes."""
        self.taken: int = 0
        """The number of chunks that were handed out."""
        self._plenty = False  # the last look found more than one item

    @property
    def empty(self) -> bool:
        """True if every chunk was handed out."""
        return self.position == len(self.batch)

    def put(self, chunks: list[StreamChunk]) -> None:
        """Take the next batch; the one before must have been handed out."""
        if type(chunks) is not TextRun or chunks.template is not self.template:
            self.append = self.template = None
        self.batch, self.position = chunks, 0

    def rest(self) -> list[StreamChunk]:
        """Take everything that was not handed out."""
        batch, position = self.batch, self.position
        self.batch, self.position, self.append = NO_CHUNKS, 0, None
        return batch[position:] if position else batch

    def look_for_more(self, source: Source) -> None:
        """Take more out of the channel if that is likely to find something.

        The task then finds room, and the two tasks take turns once for many reads.
        """
        if self._plenty or len(self.batch) > 1 or not source.received % LOOK_EVERY:
            if source.more:
                self._take_more(source)
            else:
                self._plenty = False

    def _take_more(self, source: Source) -> None:
        more: list[StreamChunk] = []
        template = self.batch.template if type(self.batch) is TextRun else None
        for _ in range(BUFFERED_BATCHES):
            try:
                item = source.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            if isinstance(item, StreamChunk):
                item = [item]
            if not isinstance(item, list):
                self.error = item
                break
            if type(item) is not TextRun or item.template is not template:
                template = None
            more += item
            if len(more) >= MANY_CHUNKS:
                break
        self._plenty = bool(more)
        if more:  # a list of its own: the first belongs to whoever sent it
            if template is None:
                self.append = self.template = None
            both = self.batch + more
            self.batch = both if template is None else TextRun.of(template, both)
