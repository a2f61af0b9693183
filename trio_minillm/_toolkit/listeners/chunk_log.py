"""The chunks of a stream for all of its listeners, kept once: each listener is a place in this log."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import trio

from ..._types.chunks import StreamChunk
from ..._types.errors import MiniLLMError
from .history import History


class ChunkLog:
    """The newest chunks, and the beginning for those who come late."""

    def __init__(self) -> None:
        self.published: int = 0
        """The number of chunks that listeners could have taken so far."""
        self.over: bool = False
        """True once the answer is over, and all of it published."""
        self.left: bool = False
        """True once nobody reads the stream any more for this log."""
        self.failure: Exception | None = None
        """The error that ended the stream, or a crash of the reading."""
        self.waiting: dict[object, trio.lowlevel.Task] = {}
        """The listeners that have taken all there is, and their tasks."""
        self.braking: int = 0
        """The number of listeners that the stream waits for."""
        self.room: trio.Event = trio.Event()
        """Set when listeners have made room, came or left."""
        self.changed: bool = True
        """True if listeners came, began or left, since it was looked up how many chunks have room."""
        self._chunks: list[StreamChunk] = []  # the newest, up to `published`
        self._history = History()
        self._snapshot: list[StreamChunk] | None = None

    def begin(self, before: Iterable[StreamChunk]) -> None:
        """Take what was said before the first chunk of the log."""
        self._history = History(before)
        self._snapshot = None

    def change(self) -> None:
        """Have it looked up anew how many chunks have room."""
        self.changed = True
        self.room.set()

    def snapshot(self) -> list[StreamChunk]:
        """Return all that has come so far, in few chunks; made at most once for each state of it."""
        if self._snapshot is None:
            self._snapshot = self._history.chunks()
        return self._snapshot

    def since(self, number: int, most: int | None) -> list[StreamChunk]:
        """Return the chunks behind the first ``number`` that were published."""
        start = number - (self.published - len(self._chunks))
        return self._chunks[start : None if most is None else start + most]

    def write(self, chunks: list[StreamChunk], *, listeners: int, keep: int) -> None:
        """Publish chunks, and wake who waits for them. No listener is more than ``keep`` behind."""
        log = self._chunks
        if len(self.waiting) >= listeners:
            log.clear()  # all have taken all of it
        log += chunks
        self.published += len(chunks)
        self._history.add(chunks)
        self._snapshot = None
        if len(log) > 2 * keep:
            del log[: len(log) - keep]
        self.wake()

    @property
    def size(self) -> int:
        """The number of chunks that are kept."""
        return len(self._chunks)

    async def wait(self, listener: object) -> None:
        """Wait until there is more, or the end, or `wake_one`."""
        self.waiting[listener] = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            del self.waiting[listener]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Wake all that wait."""
        waiting, self.waiting = self.waiting, {}
        for task in waiting.values():
            trio.lowlevel.reschedule(task)

    def wake_one(self, listener: object) -> None:
        """Wake the task of a listener, if one waits."""
        task = self.waiting.pop(listener, None)
        if task is not None:
            trio.lowlevel.reschedule(task)

    def release(self) -> None:
        """Take note that a listener brakes no longer."""
        self.braking -= 1
        if self.braking <= 0:
            self.room.set()

    def raise_failure(self) -> None:
        """Raise what ended the stream, if it did not end well: to each listener a copy of its own."""
        error = self.failure
        if isinstance(error, MiniLLMError):  # tracebacks would pile up in one for all
            own = copy.copy(error)
            own.__cause__, own.__suppress_context__ = error.__cause__, error.__suppress_context__
            raise own
        if error is not None:
            raise trio.BrokenResourceError("reading the stream has crashed") from error
