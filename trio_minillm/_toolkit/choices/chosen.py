"""The stream of a call to several models: that of the one that gives the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, overload

import msgspec
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..._accounting.record import CostRecord
from ..._protocol.ingest import Ingest
from ..._protocol.request import Prepared
from ..._stream.background import Background, raise_crash
from ..._types.chunks import StreamChunk
from ..._types.errors import MiniLLMError
from ..._types.response import CompletionResponse, Outcome
from ..._types.usage import Usage
from ..streams import TrackedStream
from .attempt import Attempt
from .race import PreparedChoice, Race


def stream_of_choice(prepared: PreparedChoice, make: Callable[..., TrackedStream]) -> TrackedStream:
    """Return the stream of the model that will answer.

    ``make`` makes a stream of one request, of the class that is its ``kind``.
    """

    def attempt(prepared: Prepared) -> Attempt:
        made = make(prepared, Attempt)
        assert isinstance(made, Attempt)
        return made

    nothing = msgspec.structs.replace(prepared.first, body=b"", headers={}, credentials=None)
    return make(nothing, partial(ChosenStream, Race(prepared, attempt)))


class ChosenStream(TrackedStream):
    """The stream of a call to several models.

    Until it is decided who answers, it is empty. From then on it hands out and says what the stream of
    that model does, and nothing of any other, except that ``records`` are those of all attempts. Its own
    state is used only if there is no such stream: where all models failed, or the caller left before.
    """

    def __init__(self, race: Race, *parts: Any) -> None:
        super().__init__(*parts)
        self._race = race
        self._background = Background()

    # -- the block ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._closed or self._entered:
            raise RuntimeError("a stream can be entered only once")
        await checkpoint_if_cancelled()
        self._begin()
        self._entered = True
        race = partial(self._race.run, self.made_before)
        await self._background.start(race, "trio_minillm race")
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
            await self._background.join()
        crashes = [self._race.crash, *(attempt.crash for attempt in self._race.attempts)]
        crash = next(filter(None, crashes), None)
        if crash is not None and not self._raised:
            raise_crash(crash, exc, "the block and its stream both failed")

    async def _close(self, *, at_once: bool) -> None:
        self._closed = True
        try:
            self._leave()
        finally:
            await self._race.close(at_once=at_once)
            self._source.close()

    # -- taking chunks -----------------------------------------------------------------------

    async def _choose(self) -> Attempt | None:
        """Wait until it is decided who answers. Returns ``None`` if the stream is over without that, also
        because it was closed meanwhile.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        self._check_open()
        race = self._race
        if not race.decided.is_set():
            self._busy = True
            try:
                await race.decided.wait()
            finally:
                self._busy = False
        if race.won is not None:
            return None if self._closed else race.won
        if race.crash is not None and not self._raised:
            self._raised = True
            raise race.crash
        self._leave()
        return None

    @overload
    async def _next_chunk(self, ends: None = None) -> StreamChunk | None: ...
    @overload
    async def _next_chunk(self, ends: type[Exception]) -> StreamChunk: ...
    async def _next_chunk(self, ends: type[Exception] | None = None) -> StreamChunk | None:
        won = await self._choose()
        chunk = None
        if won is not None:
            chunk = await won.next_chunk()
        else:
            await checkpoint()
            self._raise_once()
        if chunk is None and ends is not None:
            raise ends
        return chunk

    async def _next_batch(self) -> list[StreamChunk]:
        won = await self._choose()
        if won is not None:
            return await won.next_batch()
        await checkpoint()
        self._raise_once()
        return []

    async def __anext__(self) -> StreamChunk:
        won = self._race.won
        if won is None or self._busy:
            won = await self._choose()
        if won is not None:
            return await won.__anext__()
        await checkpoint()
        self._raise_once()
        raise StopAsyncIteration

    async def collect(self) -> CompletionResponse:
        won = await self._choose()
        if won is not None:
            await won.collect()
            return self.response
        await checkpoint()
        self._raise_once()
        if self._ingest.error is not None:
            raise self._ingest.error
        return self.response

    async def complete(self, on_begin: Callable[[], None] | None = None) -> CompletionResponse:
        async with self:
            if await self._choose() is not None and on_begin is not None:
                on_begin()
            await self.collect()
        return self.response

    # -- leaving early -----------------------------------------------------------------------

    def drain_buffered(self) -> None:
        won, error = self._race.won, self._race.error
        if won is not None:
            won.drain_buffered()
        elif error is not None and not self._ingest.state.over:
            self._put(error)

    async def cancel(self) -> CompletionResponse:
        self._check_open()
        self._leave()
        await self._race.stopped()
        await self._wait_booked()
        return self.response

    def reject(self) -> None:
        self._leave(rejected=True)
        self._race.stop()

    def _leave(self, *, rejected: bool = False, error: MiniLLMError | None = None) -> None:
        race = self._race
        race.leave(rejected=rejected, error=error)
        if race.won is None:
            super()._leave(rejected=rejected, error=error)
        self._forget()

    def _stop(self, error: MiniLLMError | None = None) -> None:
        self._leave(error=error)
        self._race.stop()

    async def _wait_booked(self) -> None:
        await self._race.booked()
        await checkpoint()

    # -- reading -----------------------------------------------------------------------------

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """The ledger's records of all models' attempts that have ended, in the order of their numbers."""
        found = (record for attempt in self._race.attempts for record in attempt.records)
        return tuple(sorted(found, key=lambda record: record.attempt))

    @property
    def response(self) -> CompletionResponse:
        won = self._race.won
        made = super().response if won is None else won.response
        sent = sum(attempt.sent for attempt in self._race.attempts)
        timings = msgspec.structs.replace(made.timings, attempts=sent)
        return msgspec.structs.replace(made, timings=timings)

    @property
    def _folded(self) -> Ingest:
        won = self._race.won
        return super()._folded if won is None else won.folded

    @property
    def text(self) -> str:
        won = self._race.won
        return super().text if won is None else won.text

    @property
    def usage(self) -> Usage | None:
        won = self._race.won
        return super().usage if won is None else won.usage

    @property
    def id(self) -> str:
        won = self._race.won
        return super().id if won is None else won.id

    @property
    def model(self) -> str:
        won = self._race.won
        return super().model if won is None else won.model

    @property
    def headers(self) -> Mapping[str, str]:
        won = self._race.won
        return super().headers if won is None else won.headers

    @property
    def finish_reason(self) -> str | None:
        won = self._race.won
        return super().finish_reason if won is None else won.finish_reason

    @property
    def is_finished(self) -> bool:
        won = self._race.won
        return super().is_finished if won is None else won.is_finished

    @property
    def errored(self) -> bool:
        won = self._race.won
        return super().errored if won is None else won.errored

    @property
    def outcome(self) -> Outcome | None:
        won = self._race.won
        return super().outcome if won is None else won.outcome

    @property
    def error(self) -> MiniLLMError | None:
        won = self._race.won
        return super().error if won is None else won.error

    def ingest(self, chunk: StreamChunk) -> None:
        won = self._race.won
        if won is None:
            super().ingest(chunk)
        else:
            won.ingest(chunk)

    def __repr__(self) -> str:
        won = self._race.won
        return super().__repr__() if won is None else repr(won)
