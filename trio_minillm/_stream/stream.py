"""The receiving side of a stream: what the user holds.

`StreamingCompletion` opens a nursery for the reader's task, takes batches from the memory
channel, or from the connection while the reader lends it, folds every chunk into the ingest
machine as it hands it out, and closes everything with its block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._protocol.ingest import COMPACT_EVERY, Ingest
from .._protocol.templates import EventTemplate, TextRun
from .._types.chunks import StreamChunk
from .._types.cost import CostInfo
from .._types.errors import EndedEarly, MiniLLMError
from .._types.response import CompletionResponse, Outcome, Timings
from .._types.usage import Usage
from ..providers import Model
from ..providers._guarded import safe_cost
from .body import AttemptInfo
from .task import Item, Reader

BUFFERED_BATCHES = 32
"""Batches (one read each, so at most about 64 KiB of body) in the channel to a slow consumer,
and as many taken out of it at once; then the reader stops reading, and TCP holds the server
back. A consumer that has waited once reads by itself, and nothing is read ahead of it."""
YIELD_EVERY = 64
"""Chunks of one batch that are handed out before other tasks get a turn."""

MANY_CHUNKS = 4096
"""Chunks that are taken out of the channel at once, about: `collect` folds them in one step."""

LOOK_EVERY = 8
"""Items of a single chunk after which the channel is looked into for more. Where each read brings
one chunk there is seldom more, and looking costs as well."""

LEAVE_SECONDS = 1.0
"""How long leaving a finished stream may wait for the rest of its body to be drained (which
has its own, shorter bound)."""


class StreamingCompletion(trio.abc.ReceiveChannel[StreamChunk]):
    """One streamed answer; use it as ``async with client.stream(…) as stream``.

    Guarantees:

    - Nothing outlives the block: not the task, not the connection. Leaving it is never slow,
      and an exception of the block comes out as itself.
    - It ends in exactly one `Outcome`, which never changes once it is set.
    - Iteration yields every chunk of the answer in order, then ends, or raises once the
      error that ended the stream (a `MiniLLMError` whose ``partial`` has what arrived).
    - Every chunk that is handed out has been folded in: ``accumulated``, ``usage`` and the
      other properties agree with what the caller has seen.
    - Taking a chunk checks for cancellation each time, and lets other tasks run whenever
      nothing is buffered and at least every 64 chunks.

    Two tasks that take chunks at once get `trio.BusyResourceError`; outside of its block it
    raises `trio.ClosedResourceError`.
    """

    def __init__(
        self,
        state: Ingest,
        receive: trio.MemoryReceiveChannel[Item],
        *,
        reader: Reader | None = None,
        model: Model | None = None,
        response_type: Any = None,
    ) -> None:
        self._state = state
        self._receive = receive
        self._reader = reader
        self._model = model
        self._response_type = response_type
        self._facts = reader.facts if reader is not None else AttemptInfo()
        self._batch: list[StreamChunk] = []
        self._position = 0
        self._last: MiniLLMError | None = None  # came behind the batch that is being handed out
        self._append: Callable[[str], None] | None = None  # for more text of the kind before
        self._alike: EventTemplate | None = None  # whose texts those are
        self._received = 0  # items taken out of the channel
        self._plenty = False  # the last look found more than one item
        self._taken = 0
        self._busy = False
        self._raised = False
        self._entered = reader is None
        self._closed = False
        self._response: CompletionResponse | None = None
        self._nursery: Any = None

    @staticmethod
    def from_channel(
        model: str, id: str = "", expect_usage: bool = True
    ) -> tuple[StreamingCompletion, trio.MemorySendChannel[Item]]:
        """A stream without a connection, fed by hand: for tests, and for replays.

        Returns the stream (no block needed) and the channel's sending end, which takes chunks,
        lists of chunks, and errors; closing it is the end of the body.
        """
        send, receive = trio.open_memory_channel[Item](100)
        state = Ingest(model=model, id=id, expect_usage=expect_usage)
        return StreamingCompletion(state, receive), send

    # -- the block -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._closed or self._nursery is not None:
            raise RuntimeError("a stream can be entered once")
        await checkpoint()
        self._begin()
        self._entered = True
        if self._reader is not None:
            self._nursery = trio.open_nursery()
            nursery = await self._nursery.__aenter__()
            nursery.start_soon(self._reader.run, name="trio_minillm stream")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await self._close(at_once=exc is not None)
        finally:
            if self._nursery is not None:
                # The reader is done and raises nothing, so this can't either.
                await self._nursery.__aexit__(None, None, None)
        crash = self._reader.crash if self._reader is not None else None
        if crash is not None and not self._raised:
            if exc is None:
                raise crash
            raise BaseExceptionGroup("the block and its stream both failed", [exc, crash])

    async def aclose(self) -> None:
        """Stop and close, like leaving the block; what had arrived stays readable."""
        await self._close(at_once=True)
        await checkpoint()

    async def _close(self, *, at_once: bool) -> None:
        self._closed, self._append = True, None
        try:
            self._leave()
        finally:
            await self._stop_reader(at_once)
            self._receive.close()

    async def _stop_reader(self, at_once: bool) -> None:
        reader = self._reader
        if reader is not None and self._nursery is not None and not reader.done.is_set():
            if at_once or self._state.outcome is not Outcome.FINISHED:
                reader.scope.cancel()
            with trio.CancelScope(shield=True):  # bounded: the reader only drains and closes
                with trio.move_on_after(LEAVE_SECONDS):
                    await reader.done.wait()
                reader.scope.cancel()
                await reader.done.wait()

    # -- taking chunks ---------------------------------------------------------------------

    async def next_chunk(self) -> StreamChunk | None:
        """The next chunk, or ``None`` when the answer is over.

        Raises the error that ended the stream, once; after that ``None``. A checkpoint.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        if self._closed or not self._entered:
            self._check_open()
        self._busy = True
        ending = self._state.ending
        waited = False
        try:
            while not ending.over:
                if self._position == len(self._batch):
                    waited = await self._receive_batch()
                    continue
                self._taken += 1
                if waited:
                    waited = False  # that was the checkpoint
                elif self._taken % YIELD_EVERY:
                    await checkpoint_if_cancelled()
                else:
                    await checkpoint()
                chunk = self._take()
                if chunk is not None:
                    return chunk
            await checkpoint()
            self._raise_once()
            return None
        finally:
            self._busy = False

    def _take(self) -> StreamChunk | None:
        """Fold the next buffered chunk, after the wait: a cancelled take loses nothing, and
        another task's `cancel` may have emptied the buffer meanwhile.
        """
        if self._state.ending.over or self._position == len(self._batch):
            return None
        chunk = self._batch[self._position]
        self._position += 1
        self._state.ingest(chunk)
        if self._state.ending.over:
            self._ended()
        elif self._position == 1 and type(self._batch) is TextRun:
            self._alike = self._batch.template
            self._append = self._state.pieces_of(chunk).append
        # An empty opening says nothing; one that crossed a bound is not handed out.
        shown = chunk.progress or chunk.raw is not None
        return chunk if shown and self._state.error is None else None

    async def _receive_batch(self) -> bool:
        """Take the next item, and wait for it if need be; a failure or the end of the channel goes
        to the machine. Whether it was a checkpoint, which it is if it takes nothing.

        What is taken is put down before anything else is awaited: it would be lost to another
        task that ends the stream in between.
        """
        if self._last is not None:
            await checkpoint()
            self._put(self._last)
            return True
        waited = False
        reader = self._reader
        while not self._state.ending.over:
            try:
                if reader is None:  # fed by hand
                    waited = True
                    item = await self._receive.receive()
                elif self._received < reader.arrived.count or reader.arrived.over:
                    item = self._receive.receive_nowait()
                elif reader.lent:
                    waited = True
                    if chunks := await reader.read_lent():
                        self._put(chunks)
                        return True
                    continue
                else:
                    waited = True
                    await reader.arrived.wait()
                    continue
            except (trio.EndOfChannel, trio.ClosedResourceError):
                self._channel_ended()
                break
            self._put(item)
            self._received += 1
            look = self._plenty or len(self._batch) > 1 or not self._received % LOOK_EVERY
            if look and not self._state.ending.over:
                self._put_more()
            return waited
        if not waited:
            await checkpoint()
        return True

    def _put_more(self) -> None:
        """Take what else is there, up to as much as the channel holds: the reader then finds
        room, and the two tasks take turns once for many reads.
        """
        more: list[StreamChunk] = []
        template = self._batch.template if type(self._batch) is TextRun else None
        for _ in range(BUFFERED_BATCHES):
            try:
                item = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
            self._received += 1
            if isinstance(item, StreamChunk):
                item = [item]
            if not isinstance(item, list):
                self._last = item
                break
            if type(item) is not TextRun or item.template is not template:
                template = None
            more += item
            if len(more) >= MANY_CHUNKS:
                break
        self._plenty = bool(more)
        if more:  # a list of its own: the first was somebody's
            if template is None:
                self._append = self._alike = None
            both = self._batch + more
            self._batch = both if template is None else TextRun(both, template)

    def _put(self, item: Item) -> None:
        if type(item) is not TextRun or item.template is not self._alike:
            self._append = self._alike = None
        if isinstance(item, list):
            self._batch, self._position = item, 0
        elif isinstance(item, StreamChunk):
            self._batch, self._position = [item], 0
        else:
            self._state.fail(item)
            self._ended()

    def _channel_ended(self) -> None:
        if self._reader is not None:
            # A reader sends why the answer ended, unless it was cancelled from outside or has
            # crashed, and the crash itself is raised then.
            self._fold_held()
            self._state.cancel()
        else:
            self._state.fail(EndedEarly("the stream was closed before the answer ended"))

    def _raise_once(self) -> None:
        """The stream is over: raise what ended it, unless that was done."""
        self._ended()
        if self._raised:
            return
        self._raised = True
        if self._reader is not None and self._reader.crash is not None:
            raise self._reader.crash
        if self._state.error is not None:
            self._complete(self._state.error)
            raise self._state.error

    async def __anext__(self) -> StreamChunk:
        append, state = self._append, self._state
        if append is not None and not (self._busy or state.ending.over):
            # The common case of `next_chunk`: more text of the same kind.
            if self._position == len(self._batch):
                here = await self._more_alike()
            elif here := bool((self._taken + 1) % YIELD_EVERY):
                await checkpoint_if_cancelled()
            if here:
                chunk = self._batch[self._position]
                self._position += 1
                self._taken += 1
                append(chunk.delta or chunk.reasoning)
                state.chunks += 1
                state.last_at = chunk.received_at
                if not state.chunks % COMPACT_EVERY:
                    state.compact()
                return chunk
            if self._closed:  # meanwhile: as for who waits in `next_chunk`, that is the end
                self._raise_once()
                raise StopAsyncIteration
        following = await self.next_chunk()
        if following is None:
            raise StopAsyncIteration
        return following

    async def _more_alike(self) -> bool:
        """Wait for more from a connection that this side reads; whether it is of the same kind."""
        reader = self._reader
        if reader is None or not reader.lent:
            return False
        self._busy = True
        try:
            if batch := await reader.read_lent():
                self._put(batch)
        finally:
            self._busy = False
        return bool(batch) and self._append is not None and not self._state.ending.over

    async def receive(self) -> StreamChunk:
        """As `next_chunk`, but raises `trio.EndOfChannel` when the answer is over."""
        chunk = await self.next_chunk()
        if chunk is None:
            raise trio.EndOfChannel
        return chunk

    async def collect(self) -> CompletionResponse:
        """Take all that is still to come and return the response.

        Raises the error that ended the stream, also if iteration has raised it before.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        self._check_open()
        self._busy = True
        try:
            while not self._state.ending.over:
                if self._position < len(self._batch):
                    batch, start = self._batch, self._position
                    self._batch, self._position, self._append = [], 0, None
                    self._state.ingest_all(batch if start == 0 else batch[start:])
                elif not await self._receive_batch():
                    await checkpoint_if_cancelled()
            await checkpoint()
        finally:
            self._busy = False
        self._raise_once()
        if self._state.error is not None:
            raise self._state.error
        return self.response

    # -- leaving early ---------------------------------------------------------------------

    def drain_buffered(self) -> None:
        """Fold everything that has arrived already, without waiting.

        What the provider said before the caller left counts: usage, an end, an error.
        """
        state = self._state
        while not state.ending.over:
            state.ingest_all(self._batch[self._position :])
            self._batch, self._position, self._append = [], 0, None
            if state.ending.over:
                return
            if self._last is not None:
                self._put(self._last)
                return
            try:
                self._put(self._receive.receive_nowait())
                self._received += 1
            except trio.EndOfChannel:
                self._channel_ended()
            except (trio.WouldBlock, trio.ClosedResourceError):
                self._fold_held()
                self._fold_lent()
                return

    def _fold_held(self) -> None:
        """An opening that the reader holds back has arrived, too, and may have usage and an id."""
        held, self._facts.held = self._facts.held, []
        self._state.ingest_all(held)

    def _fold_lent(self) -> None:
        """What lies in a connection that this side reads has arrived, too."""
        if self._reader is None:
            return
        for _ in range(BUFFERED_BATCHES):
            chunks = self._reader.take_lent()
            if chunks is None:
                break
            self._state.ingest_all(chunks)
        if self._reader.failure is not None:
            self._put(self._reader.failure)

    async def cancel(self) -> CompletionResponse:
        """End the stream now and return what had arrived. Does nothing to one that has ended.

        Any task may call it; one that waits for a chunk gets the end. When it returns, the
        connection is closed. A checkpoint.
        """
        self._check_open()
        self._leave()
        if self._reader is not None:
            self._reader.scope.cancel()
            await self._reader.done.wait()
        else:
            self._receive.close()
        await checkpoint()
        return self.response

    def reject(self) -> None:
        """End the stream now and mark it as not accepted: nothing of it is ever billed to
        the caller's books. Does nothing to a stream that has ended.
        """
        self._leave(rejected=True)
        if self._reader is not None:
            self._reader.scope.cancel()

    def _leave(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        """End it now, whatever it was doing. What had arrived counts, unless it is rejected."""
        if not rejected:
            self.drain_buffered()
        self._state.cancel(rejected=rejected, error=error)
        self._ended()

    def _begin(self) -> None:
        """The stream starts, now; may raise instead."""

    def _ended(self) -> None:
        """The outcome stands. May be called more than once."""

    # -- reading ---------------------------------------------------------------------------

    @property
    def response(self) -> CompletionResponse:
        """All that has been folded in; final once ``outcome`` is set."""
        if self._response is None:
            made = self._state.response(**self._facts_of_response())
            if made.outcome is None or (
                self._reader is not None and not self._reader.done.is_set()
            ):
                return made
            self._response = made
        return self._response

    @property
    def accumulated(self) -> str:
        """The text of choice 0 so far."""
        return self._state.accumulated

    @property
    def usage(self) -> Usage | None:
        """The usage so far; ``usage.final`` says whether more may come."""
        return self._state.usage

    @property
    def id(self) -> str:
        """The provider's generation id: from the response's headers, else the first chunk."""
        return self._facts.generation_id or self._state.id

    @property
    def model(self) -> str:
        """The model, in the provider's words as soon as it has said them."""
        return self._state.model

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case; of the newest attempt that got any. A key
        that the server repeats is not in them.
        """
        if self._reader is None:
            return {}
        return {name: self._reader.hidden(value) for name, value in self._facts.headers.items()}

    @property
    def finish_reason(self) -> str | None:
        """The newest finish reason, in the provider's words."""
        return self._state.finish_reason

    @property
    def is_finished(self) -> bool:
        """Whether the stream is over, in whatever way."""
        return self._state.ending.over

    @property
    def errored(self) -> bool:
        """Whether it ended in a failure (errored or truncated): never billed as accepted."""
        return self._state.outcome in (Outcome.ERRORED, Outcome.TRUNCATED)

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended; ``None`` while it runs."""
        return self._state.outcome

    @property
    def error(self) -> MiniLLMError | None:
        """The error that ended the stream, also after it was raised."""
        return self._state.error

    def ingest(self, chunk: StreamChunk) -> None:
        """Fold one chunk: the one truth of the state machine (see `trio_minillm._protocol.ingest`)."""
        self._append = None
        self._state.ingest(chunk)

    def __repr__(self) -> str:
        return f"<StreamingCompletion {self.model} {self._state.ending.state.value}>"

    # -- inside ----------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._entered:
            raise RuntimeError("use the stream as `async with client.stream(…) as stream`")
        if self._closed:
            raise trio.ClosedResourceError("the stream's block has been left")

    def _complete(self, error: MiniLLMError) -> None:
        """Give the error's partial response what only the reader knows."""
        error.partial = self._state.response(**self._facts_of_response())

    def _facts_of_response(self) -> dict[str, Any]:
        facts, state = self._facts, self._state
        start = facts.started if facts.started is not None else 0.0

        def since(at: float | None) -> float | None:
            return None if at is None else at - start

        timings = Timings(
            headers=since(facts.headers_at),
            first_chunk=since(state.first_at),
            last_chunk=since(state.last_at),
            total=since(facts.ended),
            chunks=state.chunks,
            bytes=facts.received,
            attempts=facts.attempts,
        )
        more: dict[str, Any] = {
            "timings": timings,
            "request_id": facts.request_id,
            "skipped_events": facts.skipped,
            "response_type": self._response_type,
            "id": self.id,
            "cost": self._cost(),
        }
        return more

    def _cost(self) -> CostInfo:
        if self._model is None or self._state.rejected:
            return CostInfo()  # what was rejected is nobody's to book
        return safe_cost(self._model, self._state.usage)
