"""The stream of one model among several that are asked: an ordinary one, which others enter and close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from copy import copy, deepcopy
from functools import partial
from typing import Any

import trio

from ..._protocol.ingest import Ingest
from ..._stream.body import DIRECT
from ..._types.chunks import StreamChunk, has_content
from ..._types.errors import MiniLLMError
from ..._types.response import Outcome
from ...providers import Model
from ..streams import TrackedStream


def name_of(model: Model) -> str:
    """Return the model as errors name it, with its provider."""
    return f"{model.provider.name}:{model.name}"


class Attempt(TrackedStream):
    """The stream of one model in a race. Any task may enter and close it, in any order with others."""

    def enter(
        self, nursery: trio.Nursery, asked_at: float, numbers: Iterator[int]
    ) -> Awaitable[Any]:
        """Begin, in this nursery, as a part of a call that was made at ``asked_at``.

        ``numbers`` are for the records, which number all attempts of the call.
        """
        task = self._task
        task.asked_at = asked_at
        task.nursery = nursery
        task.before_attempt = partial(self._number, numbers, task.before_attempt)
        return self.__aenter__()

    def _number(self, numbers: Iterator[int], also: Callable[[], None]) -> None:
        if self._budget is not None:
            self._budget.check()
        self.made_before = next(numbers) - self.sent - 1
        also()

    async def begun(self) -> None:
        """Wait until content has come, or there will be none. Nothing is handed out, and what came is in
        the buffer. A checkpoint unless that is so already.
        """
        buffer, source = self._buffer, self._source
        while not (self._ingest.state.over or buffer.error or any(map(_begins, buffer.batch))):
            try:
                if source.ready:
                    item = source.receive_nowait()
                    chunks = [item] if isinstance(item, StreamChunk) else item
                else:
                    chunks = await self._wait_for_more()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                if buffer.empty:
                    self._source_ended()
                    self._ended()
                return
            if isinstance(chunks, list):
                rest = buffer.rest()  # nothing of the answer: a reason, or usage
                buffer.put([*rest, *chunks] if rest else chunks)
            elif buffer.empty:
                self._put(chunks)
            else:
                buffer.error = chunks

    async def _wait_for_more(self) -> list[StreamChunk]:
        body = self._source.body
        if body is not None and body.mode is DIRECT:
            return await body.read_direct()
        await self._source.wait()
        return []

    @property
    def folded(self) -> Ingest:
        """The machine of its answer."""
        return self._ingest

    @property
    def asked(self) -> str:
        """The model that was asked, as in `repr`."""
        return name_of(self._asked)

    @property
    def sent(self) -> int:
        """The number of requests that were sent."""
        return self._source.info.attempts

    @property
    def said(self) -> bool:
        """True if it is whole, or has content, handed out or not."""
        content = self._ingest.chunks > 0 or any(map(_begins, self._buffer.batch))
        return content or self.outcome is Outcome.FINISHED

    @property
    def failure(self) -> MiniLLMError | None:
        """The error that ended it before any content."""
        if self.said:
            return None
        behind = self._buffer.error
        return self.error if behind is None or self.is_finished else self._judged(behind)

    def _judged(self, error: MiniLLMError) -> MiniLLMError | None:
        """Return an error that came behind chunks without content, unless the answer is whole with them:
        an empty one, which has a finish reason. Nothing is handed out, so that is tried on copies.
        """
        ingest, chunks = deepcopy((self._ingest, self._buffer.batch[self._buffer.position :]))
        ingest.ingest_all(chunks)
        ingest.fail(copy(error))
        return None if ingest.outcome is Outcome.FINISHED else error

    @property
    def crash(self) -> Exception | None:
        """The bug that ended it, unless it was raised."""
        return None if self._raised else self._source.crash

    async def next_batch(self) -> list[StreamChunk]:
        """Return what `next_chunks` does, for code that changes nothing of the chunks."""
        return await self._next_batch()

    def leave(
        self, *, rejected: bool = False, error: MiniLLMError | None = None, stop: bool = True
    ) -> None:
        """End it now. What has arrived counts, unless it is rejected.

        Without ``stop``, the rest of a whole answer may still be read, so that its connection is kept.
        """
        self._leave(rejected=rejected, error=error)
        if stop:
            self._task.stop()

    async def stopped(self) -> None:
        """Stop it, and wait until its connection is closed."""
        await self._source.stopped()

    async def booked(self) -> None:
        """Wait until it is known what it cost, or that nobody will say."""
        await self._wait_booked()

    async def close(self, *, at_once: bool) -> None:
        """Close it, as the end of its block would. Bounded, and shielded."""
        await self._close(at_once=at_once)


def _begins(chunk: StreamChunk) -> bool:
    """Return whether a chunk is content, and not an opening, a finish reason, or usage alone."""
    if not chunk.progress:
        return False
    return has_content(chunk) or (chunk.finish_reason is None and chunk.usage is None)
