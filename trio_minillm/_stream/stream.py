"""The receiving side of a stream: what the user holds.

`StreamingCompletion` takes batches from its source (the channel of a `StreamTask`, or the connection
itself in direct reading), folds every chunk into the ingest machine as it hands it out, and closes
everything with its block.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._protocol.ingest import COMPACT_EVERY, Ingest
from .._protocol.templates import TextRun
from .._types.checks import check_count, check_type
from .._types.chunks import StreamChunk, separate
from .._types.cost import CostInfo
from .._types.errors import MiniLLMError
from .._types.options import BOUNDS, Bounds, Timeouts
from .._types.response import FINISHED, CompletionResponse, Outcome, Timings
from .._types.usage import Usage
from ..providers import Model, Provider
from ..providers._safe_calls import safe_cost
from .background import raise_crash
from .body import DIRECT
from .buffer import NO_CHUNKS, ChunkBuffer
from .handoff import BUFFERED_BATCHES, Item
from .outside import check_in_trio
from .source import ChannelSource, Source

if TYPE_CHECKING:
    from .._http.event_source import EventSource

_FAILURES = (Outcome.ERRORED, Outcome.TRUNCATED)

YIELD_EVERY = 128
"""Chunks of one batch that are handed out before other tasks get a turn. A turn costs as much as
handing out ten chunks."""


class StreamingCompletion(trio.abc.ReceiveChannel[StreamChunk]):
    """The receiving side of a stream.

    `trio_minillm._toolkit.streams` adds the methods that read values, calls, and broadcasts, and
    documents what users are promised.
    """

    def __init__(
        self,
        ingest: Ingest,
        source: Source,
        *,
        model: Model | None = None,
        response_type: Any = None,
    ) -> None:
        self._ingest = ingest
        self._source = source
        self._model = model
        self._response_type = response_type
        self._buffer = ChunkBuffer()
        self._busy = False
        self._raised = False
        self._entered = isinstance(source, ChannelSource)  # needs no block
        self._closed = False
        self._response: CompletionResponse | None = None

    @classmethod
    def from_channel(
        cls, model: str, id: str = "", expect_usage: bool = True
    ) -> tuple[Self, trio.MemorySendChannel[Item]]:
        """Return a stream without a connection, and the channel that feeds it, for tests and
        replays.

        - ``model`` and ``id`` are the name of the model and the id of the answer.
        - ``expect_usage`` says whether the stream waits for usage at its end.

        The channel accepts chunks, lists of chunks, and errors. Closing it ends the body. The
        stream needs no ``async with`` block.
        """
        send, receive = trio.open_memory_channel[Item](100)
        ingest = Ingest(model=model, id=id, expect_usage=expect_usage)
        return cls(ingest, ChannelSource(receive, ingest.state)), send

    @classmethod
    def from_event_source(
        cls,
        event_source: EventSource,
        model: Model | str,
        *,
        provider: Provider | None = None,
        expect_usage: bool = True,
        idle_timeout: float | None = None,
        choices: int = 1,
        timeouts: Timeouts | None = None,
        bounds: Bounds = BOUNDS,
        lenient: bool = False,
        raw: bool = False,
        response_type: Any = None,
    ) -> Self:
        """Return a stream over an answer that another client receives. Use it as ``async with … as
        stream``.

        - ``event_source`` is one of these: an ``EventSource`` that ``aconnect_sse`` of httpx-sse or
          httpx2 opened; a streaming response of httpx or httpx2 that is unread or completely read;
          or an async iterable of the body. An iterable may yield bytes, text, server-sent events
          (objects with ``event`` and ``data``), or the lines of httpx's ``aiter_lines()``. Lines
          from elsewhere must keep their line ends.
        - ``model`` gives the wire format and the price. It may be just a name if you pass
          ``provider``.
        - ``idle_timeout`` sets both ``first_chunk`` and ``idle``: the seconds of silence after
          which the stream fails. Use either it or ``timeouts``.
        - ``choices`` is the number of answers that were requested (``n=``).
        - ``expect_usage``, ``timeouts``, ``bounds``, ``lenient``, and ``raw`` are as for
          `Client.stream`.
        - ``response_type`` is the type that `CompletionResponse.parsed` decodes into by default.

        Clocks, bounds, and the end of the stream are as for `Client.stream`. There is one attempt,
        and no ledger records it. The source is closed with the block.

        The bytes of an ``EventSource`` are read from its response, by this library's rules. An
        event counts even without the blank line after it, lines end only where the standard says
        so, a byte-order mark is ignored, ``bounds`` limit the size of events, and an error status
        raises `RefusedError` whatever its content type. If you pass the iterator ``aiter_sse()``
        instead, events that httpx-sse drops are lost.

        Raises ``TypeError`` for any other source or option. Raises ``ValueError`` for a response
        that was partly read or closed, and for ``idle_timeout`` together with ``timeouts``.
        """
        # Streams of one's own don't need it.
        from .event_source import model_of, task_over, with_idle

        model = model_of(event_source, model, provider)
        timeouts = with_idle(timeouts, idle_timeout)
        check_count("choices", choices)
        check_type("bounds", bounds, Bounds)
        ingest = Ingest(
            model=model.name,
            expect_usage=expect_usage,
            choices=choices,
            bounds=bounds,
            wire=model.provider.wire_at(model),
        )
        task = task_over(
            event_source,
            model,
            expect_usage=expect_usage,
            choices=choices,
            timeouts=timeouts,
            bounds=bounds,
            lenient=lenient,
            raw=raw,
        )
        return cls(ingest, task, model=model, response_type=response_type)

    # -- the block -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._closed or self._source.started:
            raise RuntimeError("a stream can be entered only once")
        try:
            await checkpoint_if_cancelled()  # leaving lets other tasks run, always
        except RuntimeError:
            check_in_trio("a stream")
            raise
        self._begin()
        self._entered = True
        await self._source.start()
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
            await self._source.join()
        crash = self._source.crash
        if crash is not None and not self._raised:
            raise_crash(crash, exc, "the block and its stream both failed")

    async def aclose(self) -> None:
        """Stop the stream and close it, like leaving the block. What has arrived stays readable."""
        await self._close(at_once=True)
        await checkpoint()

    async def _close(self, *, at_once: bool) -> None:
        self._closed, self._buffer.append = True, None
        source = self._source
        try:
            self._leave()
        finally:
            try:
                if not source.is_done:
                    finished = self._ingest.outcome is FINISHED
                    await source.end(at_once=at_once or not finished)
            finally:
                source.close()

    # -- taking chunks ---------------------------------------------------------------------

    async def next_chunk(self) -> StreamChunk | None:
        """Return the next chunk, or ``None`` when the answer is over.

        Raises the error that ended the stream, once; after that, returns ``None``. This is a
        checkpoint.
        """
        return await self._next_chunk()

    @overload
    async def _next_chunk(self, ends: None = None) -> StreamChunk | None: ...
    @overload
    async def _next_chunk(self, ends: type[Exception]) -> StreamChunk: ...
    async def _next_chunk(self, ends: type[Exception] | None = None) -> StreamChunk | None:
        """Return what `next_chunk` does, but raise ``ends``, if given, when the answer is over."""
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        if self._closed or not self._entered:
            self._check_open()
        self._busy = True
        state, buffer = self._ingest.state, self._buffer
        waited = False
        try:
            while not state.over:
                if buffer.position == len(buffer.batch):
                    waited = await self._receive_batch()
                    continue
                buffer.taken += 1
                if waited:
                    waited = False  # that was the checkpoint
                elif buffer.taken % YIELD_EVERY:
                    await checkpoint_if_cancelled()
                else:
                    await checkpoint()
                chunk = self._take()
                if chunk is not None:
                    return chunk
            if not waited and ends is StopAsyncIteration:
                await self._end_iteration()
            elif not waited:
                await checkpoint()
            self._raise_once()
            if ends is not None:
                raise ends
            return None
        finally:
            self._busy = False

    def _take(self) -> StreamChunk | None:
        """Fold the next buffered chunk, and return it if it has something to show.

        Called after the wait: a cancelled take loses nothing, and another task's `cancel` may have
        emptied the buffer meanwhile.
        """
        buffer, ingest = self._buffer, self._ingest
        batch, position = buffer.batch, buffer.position
        if ingest.state.over or position == len(batch):
            return None
        chunk = batch[position]
        buffer.position = position + 1
        ingest.ingest(chunk)
        if ingest.state.over:
            self._ended()
        elif not position and type(batch) is TextRun:
            buffer.template = batch.template
            buffer.append = ingest.pieces_of(chunk).append
        # An empty opening says nothing; one that crossed a bound is not handed out.
        shown = chunk.progress or chunk.raw is not None
        if not shown or ingest.error is not None:
            return None
        if type(batch) is not TextRun or chunk.usage is not None:
            separate(chunk)
        return chunk

    async def _receive_batch(self) -> bool:
        """Receive the next item, waiting for it if need be. Return whether that was a checkpoint.

        A failure, or the end of the channel, goes to the machine. It is a checkpoint whenever it
        receives nothing. What is received is put down before anything else is awaited: it would be
        lost to another task that ends the stream in between.
        """
        buffer, source = self._buffer, self._source
        if buffer.error is not None:
            await checkpoint()
            self._put(buffer.error)
            return True
        waited = False
        while not self._ingest.state.over:
            try:
                if not source.ready:
                    waited = True
                    body = source.body
                    if body is not None and body.mode is DIRECT:
                        if chunks := await body.read_direct():
                            buffer.put(chunks)
                            return True
                    else:
                        await source.wait()
                    continue
                item = source.receive_nowait()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                self._source_ended()
                waited = False  # a channel that has ended says so at once
                break
            self._put(item)
            if not self._ingest.state.over:
                buffer.look_for_more(source)
            return waited
        if not waited:
            await checkpoint()
        return True

    def _put(self, item: Item) -> None:
        if isinstance(item, list):
            self._buffer.put(item)
        elif isinstance(item, StreamChunk):
            self._buffer.put([item])
        else:
            self._ingest.fail(item)
            self._ended()

    def _source_ended(self) -> None:
        error = self._source.unexplained_end()
        if error is None:
            self._fold_held()
            self._ingest.cancel()
        else:
            self._ingest.fail(error)

    def _raise_once(self) -> None:
        """Raise what ended the stream, unless that was done."""
        self._ended()
        if self._raised:
            return
        self._raised = True
        if self._source.crash is not None:
            raise self._source.crash
        if self._ingest.error is not None:
            self._ingest.error.partial = self._built()
            raise self._ingest.error

    async def __anext__(self) -> StreamChunk:
        """Return what `next_chunk` does, in fewer steps where the next chunk is simply read and taken."""
        buffer, ingest = self._buffer, self._ingest
        here = False
        if not (self._busy or ingest.state.over):
            if buffer.position < len(buffer.batch):
                if here := bool((buffer.taken + 1) % YIELD_EVERY):
                    await checkpoint_if_cancelled()  # lets nobody else run
            elif (body := self._source.body) and body.mode is DIRECT and not self._source.ready:
                # As `_receive_batch` does, which would be two frames for as long as this waits.
                self._busy = True
                buffer.batch, buffer.position = NO_CHUNKS, 0  # not held while this waits
                try:
                    buffer.put(await body.read_direct())
                finally:
                    self._busy = False
                if self._closed:  # meanwhile: as for who waits in `next_chunk`, that is the end
                    self._raise_once()
                    raise StopAsyncIteration
                here = bool(buffer.batch) and not ingest.state.over
        if here:
            buffer.taken += 1
            append = buffer.append
            if append is not None:
                # More text of the same kind. What is kept up to date here is what `Ingest.ingest` and
                # `Ingest.ingest_all` do for such a chunk.
                position = buffer.position
                chunk = buffer.batch[position]
                buffer.position = position + 1
                append(chunk.delta or chunk.reasoning)
                ingest.chunks += 1
                ingest.last_at = chunk.received_at
                if chunk.usage is not None:
                    ingest.newest_usage = chunk.usage
                if not ingest.chunks % COMPACT_EVERY:
                    ingest.compact()
                return chunk
            taken = self._take()
            if taken is not None:
                return taken
            if ingest.state.over and self._source.started and not self._closed:
                self._raise_once()  # the check was just made, and leaving the block lets others run
                raise StopAsyncIteration
        return await self._next_chunk(StopAsyncIteration)

    async def _end_iteration(self) -> None:
        """Check for cancellation, and let other tasks run unless leaving the block does."""
        if self._source.started and not self._closed:
            await checkpoint_if_cancelled()
        else:
            await checkpoint()

    async def receive(self) -> StreamChunk:
        """Return the next chunk, like `next_chunk`, but raise `trio.EndOfChannel` when the answer
        is over.
        """
        return await self._next_chunk(trio.EndOfChannel)

    async def next_chunks(self) -> list[StreamChunk]:
        """Return all chunks that have arrived, or an empty list when the answer is over.

        Waits until there is at least one chunk. The chunks are those of `next_chunk`, but this
        takes less CPU time if one read of the socket brings many. Raises the error that ended the
        stream, once. This is a checkpoint.
        """
        batch = await self._next_batch()
        for chunk in batch:
            separate(chunk)
        return batch

    async def _next_batch(self) -> list[StreamChunk]:
        """Return what `next_chunks` does, for code that changes nothing of the chunks."""
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        self._check_open()
        self._busy = True
        waited = False
        try:
            while not self._ingest.state.over:
                if self._buffer.empty:
                    waited = await self._receive_batch()
                    continue
                if not waited:
                    await checkpoint()
                if shown := self._take_all():
                    return shown
                waited = False
            if not waited:
                await checkpoint()
        finally:
            self._busy = False
        self._raise_once()
        return []

    def _take_all(self) -> list[StreamChunk]:
        """Fold all buffered chunks, and return those that have something to show."""
        ingest, buffer = self._ingest, self._buffer
        batch = buffer.rest()
        buffer.taken += len(batch)
        if type(batch) is TextRun:
            ingest.ingest_all(batch)
            return [] if ingest.error is not None else list(batch)
        shown: list[StreamChunk] = []
        for chunk in batch:
            if ingest.state.over:
                break
            ingest.ingest(chunk)
            if (chunk.progress or chunk.raw is not None) and ingest.error is None:
                shown.append(chunk)
        if ingest.state.over:
            self._ended()
        return shown

    async def collect(self) -> CompletionResponse:
        """Receive all remaining chunks, and return the response.

        Raises the error that ended the stream, even if iteration has already raised it.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        self._check_open()
        self._busy = True
        try:
            while not self._ingest.state.over:
                if not self._buffer.empty:
                    self._ingest.ingest_all(self._buffer.rest())
                elif not await self._receive_batch():
                    await checkpoint_if_cancelled()
            await checkpoint()
        finally:
            self._busy = False
        self._raise_once()
        if self._ingest.error is not None:
            raise self._ingest.error
        return self.response

    # -- leaving early ---------------------------------------------------------------------

    def drain_buffered(self) -> None:
        """Process everything that has already arrived, without waiting.

        What the provider sent before the caller left counts: usage, an end, or an error.
        """
        ingest = self._ingest
        while not ingest.state.over:
            ingest.ingest_all(self._buffer.rest())
            if ingest.state.over:
                return
            if self._buffer.error is not None:
                self._put(self._buffer.error)
                return
            try:
                self._put(self._source.receive_nowait())
            except trio.EndOfChannel:
                self._source_ended()
            except (trio.WouldBlock, trio.ClosedResourceError):
                self._fold_held()
                self._fold_direct()
                return

    def _fold_held(self) -> None:
        """Fold an opening that the task holds back: it may have usage and an id."""
        info = self._source.info
        held, info.held = info.held, ()
        self._ingest.ingest_all(held)

    def _fold_direct(self) -> None:
        """Fold what lies in a connection that this side reads."""
        body = self._source.body
        if body is None:
            return
        for _ in range(BUFFERED_BATCHES):
            chunks = body.take_direct()
            if chunks is None:
                break
            self._ingest.ingest_all(chunks)
        if body.answer.failure is not None:
            self._put(body.answer.failure)

    async def cancel(self) -> CompletionResponse:
        """End the stream now, and return what has arrived. Has no effect after the end.

        Any task may call it. A task that waits for a chunk sees the end of the stream. The
        connection is closed when this returns. This is a checkpoint.
        """
        self._check_open()
        self._leave()
        await self._source.stopped()
        await checkpoint()
        return self.response

    def reject(self) -> None:
        """End the stream now and mark its answer as rejected, so that its cost is not counted.

        Has no effect after the end.
        """
        self._leave(rejected=True)
        self._source.stop()

    def _leave(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        """End it now, whatever it was doing. What has arrived counts, unless it is rejected."""
        if not self._ingest.state.over:
            if not rejected:
                self.drain_buffered()
            self._ingest.cancel(rejected=rejected, error=error)
        self._ended()

    def _begin(self) -> None:
        """Prepare to start. What this raises is raised by entering the block."""

    def _ended(self) -> None:
        """Take note of the outcome, which stands. May be called more than once."""

    # -- reading ---------------------------------------------------------------------------

    @property
    def response(self) -> CompletionResponse:
        """The response so far; complete once ``outcome`` is set."""
        return self._kept_response()

    @property
    def text(self) -> str:
        """The text of choice 0 so far."""
        return self._ingest.accumulated

    @property
    def accumulated(self) -> str:
        """The old name of `text`."""
        return self.text

    @property
    def usage(self) -> Usage | None:
        """The usage so far; ``usage.final`` says whether it is final."""
        return self._ingest.usage

    @property
    def id(self) -> str:
        """The provider's generation id, from the headers or the first chunk."""
        return self._source.info.generation_id or self._ingest.id

    @property
    def model(self) -> str:
        """The name of the requested model, or, once it has arrived, the name that the provider
        reports.
        """
        return self._ingest.model

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the newest response, with names in lower case and keys redacted."""
        source = self._source
        return {name: source.redacted(value) for name, value in source.info.headers.items()}

    @property
    def finish_reason(self) -> str | None:
        """The newest finish reason, as the provider sent it."""
        return self._ingest.finish_reason

    @property
    def is_finished(self) -> bool:
        """True once the stream is over, with any outcome."""
        return self._ingest.state.over

    @property
    def errored(self) -> bool:
        """True if the stream failed (errored or truncated); its cost is then not counted."""
        return self._ingest.outcome in _FAILURES

    @property
    def outcome(self) -> Outcome | None:
        """The `Outcome` once the stream is over, and ``None`` while it runs."""
        return self._ingest.outcome

    @property
    def error(self) -> MiniLLMError | None:
        """The error that ended the stream, also after it was raised."""
        return self._ingest.error

    def ingest(self, chunk: StreamChunk) -> None:
        """Add one chunk to the answer, as if the stream had received it."""
        self._buffer.append = None
        self._ingest.ingest(chunk)

    def __repr__(self) -> str:
        return f"<StreamingCompletion {self.model} {self._ingest.state.state.value}>"

    # -- inside ----------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._entered:
            raise RuntimeError("use the stream as `async with client.stream(…) as stream`")
        if self._closed:
            raise trio.ClosedResourceError("the stream's block has been left")

    def _kept_response(self) -> CompletionResponse:
        """Return the response so far; always the same once nothing of it changes any more."""
        if self._response is None:
            made = self._built()
            if made.outcome is None or not self._source.is_done:
                return made
            self._response = made
        return self._response

    def _built(self) -> CompletionResponse:
        """Return the response so far, with the fields that the state machine does not know."""
        info = self._source.info
        return self._ingest.response(
            id=info.generation_id or self._ingest.id,
            unread=info.unread,
            cost=self._cost(),
            timings=self._timings(),
            request_id=info.request_id,
            skipped_events=info.skipped,
            response_type=self._response_type,
        )

    def _timings(self) -> Timings:
        info, ingest = self._source.info, self._ingest
        start = info.started or 0.0
        headers, first, last, ended = info.headers_at, ingest.first_at, ingest.last_at, info.ended
        return Timings(
            sent=None if info.sent_at is None else info.sent_at - start,
            headers=None if headers is None else headers - start,
            first_chunk=None if first is None else first - start,
            last_chunk=None if last is None else last - start,
            total=None if ended is None else ended - start,
            chunks=ingest.chunks,
            bytes=info.received,
            attempts=info.attempts,
            resumes=info.resumes,
        )

    def _cost(self) -> CostInfo:
        if self._model is None or self._ingest.rejected:
            return CostInfo()  # a rejected answer is nobody's to pay
        return safe_cost(self._model, self._ingest.charged_usage)
