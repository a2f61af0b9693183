"""The hand-over of a stream's chunks from what reads them to its consumer: a `Sink`.

A `Handoff` is the sending end of the memory channel together with the one task that waits for what
goes into it. `Waiter` is the wake-up that both sides use. A `FoldingSink` is for an answer that nobody
watches: there is no other task, and nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import trio

from .._types.chunks import StreamChunk
from .._types.errors import MiniLLMError

Item: TypeAlias = "list[StreamChunk] | StreamChunk | MiniLLMError"
"""An item of the channel: a batch (the chunks of one read), a chunk, or the error that is last."""


class Sink(Protocol):
    """The place that the items of a stream go to, in order."""

    def put_nowait(self, item: Item) -> bool:
        """Put an item there. Return True if a consumer was waiting for it.

        Raises `trio.WouldBlock` if there is no room.
        """
        ...

    async def put(self, item: Item) -> None:
        """Put an item there, and wait for room if there is none."""
        ...

    def close(self) -> None:
        """Say that no more items follow."""
        ...


class FoldingSink:
    """A sink that folds each item as it comes."""

    def __init__(self, fold: Callable[[Item], None]) -> None:
        self._fold = fold

    def put_nowait(self, item: Item) -> bool:
        self._fold(item)
        return False

    async def put(self, item: Item) -> None:
        self._fold(item)

    def close(self) -> None:
        del self._fold  # or its owner and the task would keep each other alive


class Waiter:
    """A wake-up for at most one waiting task.

    It costs half of what a `trio.lowlevel.ParkingLot` does, and every chunk that is waited for pays it.
    """

    def __init__(self) -> None:
        self._waiting: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Wait until `wake` is called. A checkpoint."""
        self._waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> bool:
        """Wake the waiting task. Return True if there was one."""
        task, self._waiting = self._waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        return task is not None


class Handoff(Waiter):
    """The sending end of a stream's channel; its consumer waits here for the next item."""

    def __init__(self, send: trio.MemorySendChannel[Item]) -> None:
        super().__init__()
        self._send = send
        self.sent: int = 0
        """The number of items that went into the channel."""
        self.closed: bool = False
        """True once no more items will follow."""

    def put_nowait(self, item: Item) -> bool:
        """Send an item and wake the consumer. Return True if it was waiting.

        Raises `trio.WouldBlock` if the channel is full.
        """
        self._send.send_nowait(item)
        self.sent += 1
        return self.wake()

    async def put(self, item: Item) -> None:
        """Send an item, and wait for room if the channel is full."""
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            await self._send.send(item)
        self.sent += 1
        self.wake()

    def close(self) -> None:
        """Say that no more items follow, and wake the consumer.

        The channel itself stays open: another stream may use it when this one is over.
        """
        self.closed = True
        self.wake()
