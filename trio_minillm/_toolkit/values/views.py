"""Views: what is iterated over while an answer arrives, and the pump that all views of a stream share."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import msgspec
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..._protocol.ingest import Ingest
from ..._stream.stream import YIELD_EVERY, StreamingCompletion
from ..._types.errors import MiniLLMError
from ..._types.response import FINISHED
from .broken import BrokenJSON, mismatch
from .reading import Reading
from .repair import Mender
from .shapes import Shape, escaped
from .sources import CallSource, Source

T = TypeVar("T")


class Pump:
    """Takes the chunks of one stream for all of its views, one task at a time."""

    def __init__(
        self,
        stream: StreamingCompletion,
        ingest: Callable[[], Ingest],
        take: Callable[[], Awaitable[Sequence[Any]]],
    ) -> None:
        self.stream: StreamingCompletion = stream
        self.ingest: Callable[[], Ingest] = ingest
        """Returns the machine of the answer: another one once it is decided which model answers."""
        self.over: bool = False
        """True once nothing more comes."""
        self._take = take
        self._busy = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def more(self) -> None:
        """Wait until more has come, or nothing more will. A checkpoint."""
        if self.over:
            await checkpoint()
            return
        if self._busy:
            await self._waiting.park()
            return
        self._busy = True
        try:
            self.over = not await self._take()
        except MiniLLMError as error:
            if error is not self.stream.error:
                raise
            self.over = True  # each view raises it behind what it has
        except trio.ClosedResourceError:
            if not self.stream.is_finished:
                raise
            self.over = True
            await checkpoint()
        finally:
            self._busy = False
            self._waiting.unpark_all()

    @property
    def failure(self) -> MiniLLMError | None:
        """The error that ended the stream, unless the answer is whole."""
        return None if self.stream.outcome is FINISHED else self.stream.error


class View(Generic[T]):
    """Values that are ready, and the wait for more; the base of all that is iterated over."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._ready: deque[T] = deque()
        self._ended = False
        self._failure: Exception | None = None
        self._busy = False
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next value. A checkpoint."""
        if self._busy:
            raise trio.BusyResourceError("another task is iterating over this view")
        self._busy = True
        waited = False
        try:
            while True:
                if self._ready:
                    if not waited:
                        self._taken += 1
                        if self._taken % YIELD_EVERY:
                            await checkpoint_if_cancelled()
                        else:
                            await checkpoint()
                    return self._ready.popleft()
                if self._ended:
                    if not waited:
                        await checkpoint()
                    failure, self._failure = self._failure, None
                    if failure is not None:
                        raise failure
                    raise StopAsyncIteration
                if not self._look():
                    await self._pump.more()
                    waited = True
        finally:
            self._busy = False

    def _look(self) -> bool:
        """Read what has come meanwhile; return False if that was nothing and more may come."""
        raise NotImplementedError


class TextView(View[T]):
    """A view of what one text holds."""

    def __init__(
        self,
        pump: Pump,
        source: Source,
        make: Callable[[], Shape[T]],
        *,
        early: bool = False,
        mender: Mender[T] | None = None,
        check: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__(pump)
        self._source = source
        self._reading: Reading[T] = Reading(make)
        self._early = early  # it ends with the JSON, and not with the answer
        self._mender = mender
        self._check = (
            check  # of all of the JSON, for what no part of it shows: a field that is missing
        )

    @property
    def repaired(self) -> bool:
        """True if the model did not write what was handed out last like this: it was mended."""
        return self._mender is not None and self._mender.done

    def _look(self) -> bool:
        source, reading, over = self._source, self._reading, self._pump.over
        if text := source.take():
            if source.restarted is not None and not reading.given:
                reading.restart(source.restarted)
            self._give(reading.feed(text))
        if reading.broken is not None and self._mender is None:
            self._end(reading.broken)
        elif self._early and reading.over and reading.given:
            self._end(self._unfit())
        elif over:
            self._finish()
        return bool(self._ready) or self._ended

    def _give(self, values: list[T]) -> None:
        self._ready.extend(values)
        if self._mender is not None:
            self._mender.note(values)

    def _finish(self) -> None:
        failure, reading = self._pump.failure, self._reading
        if failure is not None or self._pump.stream.outcome is not FINISHED:
            self._end(failure)
            return
        self._give(reading.finish(self._source))
        error = reading.broken
        if error is not None and self._mender is not None:
            self._ready.extend(self._mender.mended(self._source.final()))
            error = None if self._mender.done else error
        if error is not None:
            self._end(_explained(error, self._source, self._pump.stream))
        else:
            self._end(None if self.repaired else self._unfit())

    def _unfit(self) -> BrokenJSON | None:
        """Return the error of JSON that, as a whole, does not match its type, or can't be read at all."""
        if self._check is None:
            return None
        text = self._reading.read(self._source)
        try:
            self._check(escaped(text) if self._reading.shape.mended else text)
        except msgspec.ValidationError as error:
            return mismatch(error, self._reading.shape.at)
        except msgspec.DecodeError as error:  # control characters in a text too long to be mended
            failure = BrokenJSON("it can't be read as a whole", position=self._reading.shape.at)
            failure.__cause__ = error.with_traceback(None)
            return failure
        return None

    def _end(self, failure: Exception | None) -> None:
        self._ended, self._failure = True, failure
        if isinstance(failure, BrokenJSON):
            failure.came_in(self._pump.stream.response, self._source.whole())


def _explained(error: BrokenJSON, source: Source, stream: StreamingCompletion) -> BrokenJSON:
    """Return the error of an answer without any JSON, in the words of `CompletionResponse.parsed`."""
    if source.whole().strip() or isinstance(source, CallSource):
        return error
    try:
        stream.response.parsed(Any)
    except ValueError as why:
        return type(error)(str(why), position=error.position)
    return error
