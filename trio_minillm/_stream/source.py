"""The source of a stream's chunks, as its consumer's side sees it, and the one that is fed by hand.

`StreamTask` is the source of a stream over a connection.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import trio

from .._protocol.state import StreamState
from .._types.checks import wrong_type
from .._types.chunks import StreamChunk
from .._types.errors import EndedEarly, MiniLLMError, StreamTimeout
from .._types.options import Timeouts
from .answer import AttemptInfo
from .body import BodyReader
from .clocks import INFINITY, grace_of
from .handoff import Item


class Source(Protocol):
    """Items of a stream, and the life of whatever makes them.

    `receive_nowait` raises what a memory channel does: `trio.WouldBlock`, `trio.EndOfChannel`, or
    `trio.ClosedResourceError`. Only one task waits at a time.
    """

    info: AttemptInfo
    body: BodyReader | None
    """The body that may be read directly, in its mode ``DIRECT``."""

    @property
    def started(self) -> bool: ...
    @property
    def received(self) -> int:
        """The number of items that were taken."""
        ...

    @property
    def ready(self) -> bool: ...
    @property
    def more(self) -> bool:
        """False if `receive_nowait` has certainly no item."""
        ...

    @property
    def is_done(self) -> bool: ...
    @property
    def crash(self) -> Exception | None: ...
    def start(self) -> Awaitable[None]: ...
    def join(self) -> Awaitable[None]: ...
    def wait(self) -> Awaitable[None]: ...
    def receive_nowait(self) -> Item: ...
    def unexplained_end(self) -> MiniLLMError | None: ...
    def stop(self) -> None: ...
    async def stopped(self) -> None: ...
    async def end(self, *, at_once: bool) -> None: ...
    def close(self) -> None: ...
    def redacted(self, text: str) -> str: ...


class ChannelSource:
    """The receiving end of a channel that the caller feeds: no task, no connection, no block."""

    body: BodyReader | None = None
    more: bool = True  # only the channel knows
    started: bool = False
    is_done: bool = True
    crash: Exception | None = None

    def __init__(self, receive: trio.MemoryReceiveChannel[Item], state: StreamState) -> None:
        self.info: AttemptInfo = AttemptInfo()
        self.received: int = 0
        self._receive = receive
        self._state = state
        self._next: Item | None = None  # was waited for and not taken

    async def start(self) -> None: ...

    async def join(self) -> None: ...

    @property
    def ready(self) -> bool:
        """True if an item was waited for and not taken."""
        return self._next is not None

    async def wait(self) -> None:
        """Wait for the next item. Raises what a memory channel does. A checkpoint.

        Behind a finish reason it waits no longer than a connection would.
        """
        grace = grace_of(self._state, Timeouts())
        with trio.move_on_after(INFINITY if grace is None else grace) as scope:
            self._next = _checked(await self._receive.receive())
        if scope.cancelled_caught and grace is not None:
            self._next = StreamTimeout("usage_grace", grace)

    def receive_nowait(self) -> Item:
        """Take the item that was waited for, or the next in the channel."""
        item, self._next = self._next, None
        if item is None:
            item = _checked(self._receive.receive_nowait())
        self.received += 1
        return item

    def unexplained_end(self) -> MiniLLMError | None:
        """Return the error that the channel's end means if nothing before it ended the answer."""
        return EndedEarly("the stream was closed before the answer ended")

    def stop(self) -> None: ...

    async def stopped(self) -> None:
        """Close the channel."""
        self._receive.close()

    async def end(self, *, at_once: bool) -> None: ...

    def close(self) -> None:
        """Close the channel."""
        self._receive.close()

    def redacted(self, text: str) -> str:
        return text


def _checked(item: Item) -> Item:
    """Return the item. Raises ``TypeError`` if it is none of those that a stream is fed with."""
    chunks = item if isinstance(item, list) else [item]
    wanted = StreamChunk if chunks is item else StreamChunk | MiniLLMError
    for one in chunks:
        if not isinstance(one, wanted):
            kinds = (StreamChunk, "a list of such", MiniLLMError)
            raise wrong_type("an item of the channel", one, *kinds)
    return item
