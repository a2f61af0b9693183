"""The way of results out of a batch: in order or not, to one consumer or to several.

Handing a result over never waits. Where a consumer is too slow the batch starts nothing new, and
what still comes was running by then, so every buffer has a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, NoReturn, Self

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._types.value_type import Value
from .line import Line
from .types import BatchResult

YIELD_EVERY = 64
"""Results that are taken before other tasks get a turn, while there are some."""


class Sink:
    """The buffer of one consumer; ``on_full`` is told when it is full, and when it is no more."""

    def __init__(self, size: int, on_full: Callable[[bool], None], *, drops: bool = False) -> None:
        self.dropped: int = 0
        self.full: bool = False
        """True if nothing more should be sent before some results were taken."""
        self._size = size
        self._drops = drops
        self._on_full = on_full
        self._waiting: deque[BatchResult] = deque()
        self._line = Line()  # of tasks that wait for a result, or for the end
        self._closed = False
        self._taken = 0

    def put(self, result: BatchResult) -> None:
        """Add a result, in place of the oldest one if the buffer is full and drops."""
        waiting = self._waiting
        waiting.append(result)
        if len(waiting) >= self._size:
            if not self._drops:
                self._set_full(True)
            elif len(waiting) > self._size:
                waiting.popleft()
                self.dropped += 1
        self._line.wake()

    async def take(self, raise_end: Callable[[], NoReturn]) -> BatchResult:
        """Return the next result; after the last, raise what ``raise_end`` does. A checkpoint."""
        waiting = self._waiting
        if waiting:
            self._taken += 1
            if self._taken % YIELD_EVERY:
                await checkpoint_if_cancelled()
            else:
                await checkpoint()
        while not waiting:
            if self._closed:
                await checkpoint()
                raise_end()
            await self._line.wait()
        result = waiting.popleft()
        if self.full and len(waiting) < self._size:
            self._set_full(False)
        return result

    def _set_full(self, full: bool) -> None:
        if full != self.full:
            self.full = full
            self._on_full(full)

    def close(self) -> None:
        """End iteration once all results were taken."""
        self._closed = True
        self._line.wake_all()

    def clear(self) -> None:
        """Drop all results and end iteration: the consumer has left."""
        self._waiting.clear()
        self.close()
        self._set_full(False)


def _raise_stop() -> NoReturn:
    raise StopAsyncIteration


class Watch(Generic[Value]):
    """Another consumer of a batch's results: ``async with results.watch() as watch``."""

    def __init__(self, sink: Sink, leave: Callable[[Sink], None]) -> None:
        self._sink = sink
        self._leave = leave

    @property
    def dropped(self) -> int:
        """The number of results that it has lost."""
        return self._sink.dropped

    def close(self) -> None:
        """Receive no more results. You may call this again."""
        self._leave(self._sink)
        self._sink.clear()

    async def __aenter__(self) -> Self:
        await checkpoint()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, BatchResult[Value]]:
        return self._sink.take(_raise_stop)


class Results:
    """All consumers of a batch, and the order in which they see its results."""

    def __init__(self, buffer: int, *, ordered: bool, on_full: Callable[[bool], None]) -> None:
        self.main = Sink(buffer, on_full)
        self.handed_out = 0
        """The number of results that were handed out. It is kept only if they are in the order of the
        requests."""
        self._sinks = [self.main]
        self._on_full = on_full
        self._ordered = ordered
        self._early: dict[int, BatchResult] = {}  # results that wait for an earlier one
        self._closed = False

    def blocked(self) -> bool:
        """Return True if a consumer has to catch up before anything new is sent."""
        return any(sink.full for sink in self._sinks)

    def watch(self, buffer: int, policy: Literal["block", "drop_oldest"]) -> Watch:
        """Return a further consumer of all results from now on."""
        sink = Sink(buffer, self._on_full, drops=policy == "drop_oldest")
        if self._closed:
            sink.close()
        else:
            self._sinks.append(sink)
        return Watch(sink, self._forget)

    def _forget(self, sink: Sink) -> None:
        if sink in self._sinks:
            self._sinks.remove(sink)

    def put(self, result: BatchResult, number: int) -> None:
        """Hand a result out, in the order of ``number`` (from 0, without gaps) if there is one."""
        if self._ordered:
            self._early[number] = result
            while (following := self._early.pop(self.handed_out, None)) is not None:
                self._hand_out(following)
        else:
            for sink in self._sinks:
                sink.put(result)

    def _hand_out(self, result: BatchResult) -> None:
        self.handed_out += 1
        for sink in self._sinks:
            sink.put(result)

    def close(self) -> None:
        """Hand out the results behind a gap as well, and end all iterations."""
        if not self._closed:
            self._closed = True
            for number in sorted(self._early):
                self._hand_out(self._early[number])
            self._early.clear()
            for sink in self._sinks:
                sink.close()
