"""The hand-over of a stream's chunks from what reads them to its consumer: a `Sink`.

A `Handoff` is the memory channel together with the one task that waits for what goes into it. `Waiter` is the wake-up that both sides use. A `FoldingSink` is for an answer that nobody
watches: there is no other task, and nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, cast

import trio

from .._types.chunks import StreamChunk
from .._types.errors import MiniLLMError

Item: TypeAlias = "list[StreamChunk] | StreamChunk | MiniLLMError"
"""An item of the channel: a batch (the chunks of one read), a chunk, or the error that is last."""


BUFFERED_BATCHES = 32
"""Batches in the channel to a slow consumer. Each is one read, at most about 64 KiB of body. When
the channel is full, the task stops reading and TCP holds the server back. A consumer that has
waited once reads by itself, and nothing is read ahead of it."""

_Channel: TypeAlias = tuple[trio.MemorySendChannel[Item], trio.MemoryReceiveChannel[Item]]
# Without an index, which takes a twentieth of what the channel does.
_open_channel = cast("Callable[[int], _Channel]", trio.open_memory_channel)
_unused_channels: list[_Channel] = []
"""Channels that streams have given up, for the next ones: to open and close one takes as long as a pass
of Trio's loop and a half. Each is open and empty, and nobody waits at it."""
UNUSED_CHANNELS = 64
"""Channels that are kept so; each takes some 2 KiB."""


def _new_channel() -> _Channel:
    try:
        return _unused_channels.pop()  # another thread may have taken the last
    except IndexError:
        return _open_channel(BUFFERED_BATCHES)


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

    __slots__ = ("_waiting",)

    _waiting: trio.lowlevel.Task | None  # None until `wait`

    def wait(self) -> Awaitable[None]:
        """Wait until `wake` is called; to be awaited at once. A checkpoint."""
        self._waiting = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 - a frame less

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
    """The channel of a stream, and its consumer, which waits here for the next item.

    The channel is taken for the first item, and given up while nothing goes through it for long (`rest`):
    each takes some 2 KiB, a seventh of a waiting stream.
    """

    __slots__ = ("_channel", "closed", "received", "sent")

    def __init__(self) -> None:
        self._waiting = None
        self._channel: _Channel | None = None
        self.sent: int = 0
        """The number of items that went into the channel."""
        self.received: int = 0
        """The number of items that were taken out of it."""
        self.closed: bool = False
        """True once no more items will follow."""

    def put_nowait(self, item: Item) -> bool:
        """Send an item and wake the consumer. Return True if it was waiting.

        Raises `trio.WouldBlock` if the channel is full.
        """
        if self._channel is None:
            self._channel = _new_channel()
        self._channel[0].send_nowait(item)
        self.sent += 1
        return self.wake()

    async def put(self, item: Item) -> None:
        """Send an item, and wait for room if the channel is full."""
        try:
            self.put_nowait(item)
        except trio.WouldBlock:
            assert self._channel is not None
            await self._channel[0].send(item)
            self.sent += 1
            self.wake()

    def take_nowait(self) -> Item:
        """Take the next item. Raises what a memory channel does."""
        if self._channel is None or self.closed:
            if self.received == self.sent:
                raise trio.EndOfChannel if self.closed else trio.WouldBlock
            if self._channel is None:
                raise trio.ClosedResourceError
        item = self._channel[1].receive_nowait()  # perhaps one that `put` has yet to count
        self.received += 1
        return item

    def close(self) -> None:
        """Say that no more items follow, and wake the consumer.

        The channel itself stays open: another stream may use it when this one is over.
        """
        self.closed = True
        self.wake()

    def rest(self) -> None:
        """Give up the channel, if every item was taken, until the next is sent."""
        if self.received == self.sent:
            self.leave(empty=True)

    def leave(self, *, empty: bool) -> None:
        """Give up the channel. One that is ``empty``, and that nobody waits at, serves other streams."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if empty and len(_unused_channels) < UNUSED_CHANNELS:
            _unused_channels.append(channel)
        else:
            for end in channel:
                end.close()
