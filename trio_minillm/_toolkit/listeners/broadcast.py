"""One stream, any number of listeners.

The hub reads the stream once, and writes its chunks into a log; a listener is a place in it. So a chunk
is kept once however many listen, and writing it costs nothing for those who are behind: what a bound
means for a listener is found out when it takes its next chunk.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..._stream.background import Background, raise_crash
from ..._stream.stream import YIELD_EVERY
from ..._types.checks import check_count
from ..._types.chunks import StreamChunk
from ..._types.errors import MiniLLMError
from .chunk_log import ChunkLog
from .history import chunks_of
from .listener import Listener, Policy

if TYPE_CHECKING:
    from ..._stream.stream import StreamingCompletion

BUFFERED_CHUNKS = 1024
"""Chunks that a listener may be behind by default: one read of the socket may bring hundreds. They are
held once for all listeners, and twice as many at the most."""


class Broadcast:
    """The hub that reads a stream for any number of listeners. Make one with
    ``stream.broadcast()``.

    Use it as ``async with stream.broadcast() as hub``, inside the stream's block. Guarantees:

    - The stream is read once, from the start of the block, even if nobody listens.
    - Nothing outlives the block. Leaving it stops the reading, and waiting listeners get
      `trio.ClosedResourceError`. Once the answer is over, listeners can still receive the rest
      after the block.
    - A listener that is cancelled or closed does not affect the others.
    - A chunk is stored once. The log holds at most twice the largest buffer, and one read.
    """

    def __init__(self, stream: StreamingCompletion, buffer: int, policy: Policy) -> None:
        _check(buffer, policy)
        self.stream: StreamingCompletion = stream
        self._buffer = buffer
        self._policy: Policy = policy
        self._log = ChunkLog()
        self._listeners: set[weakref.ref[Listener]] = set()
        self._bounds = _Bounds(self._log)
        self._ended = trio.Event()
        self._background = Background()
        self._scope = trio.CancelScope()
        self._forget: Callable[[weakref.ref[Listener]], None] | None = None

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    async def __aenter__(self) -> Self:
        if self._forget is not None:
            raise RuntimeError("a broadcast can be entered only once")
        await checkpoint_if_cancelled()
        if self.stream._busy:  # noqa: SLF001 - as in `_hold`
            raise trio.BusyResourceError("another task is taking chunks from this stream")
        self._hold(held=True)
        self._forget = _forgetter(self._listeners, self._log.change)
        # Of an answer that was begun, the beginning.
        self._log.begin(chunks_of(self.stream.response))
        await self._background.start(self._read, "trio_minillm broadcast")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._log.left = True
        self._scope.cancel()
        try:
            await self._background.join()
        finally:
            self._ended.set()
            self._log.wake()
        crash = self._log.failure
        if crash is not None and not isinstance(crash, MiniLLMError):
            raise_crash(crash, exc, "the block and its broadcast both failed")

    def subscribe(self, *, buffer: int | None = None, policy: Policy | None = None) -> Listener:
        """Return a new listener, which receives the answer from its beginning.

        ``buffer`` and ``policy`` are the hub's by default. This does not wait. After the end of the
        stream, the listener gets the complete answer and its end.

        Raises `trio.ClosedResourceError` if the block was left before the answer ended, and
        ``RuntimeError`` before the block.
        """
        bound = self._buffer if buffer is None else buffer
        fate = self._policy if policy is None else policy
        _check(bound, fate)
        if self._forget is None:
            raise RuntimeError("use the broadcast as `async with stream.broadcast() as hub`")
        if self._log.left and not self._log.over:
            raise trio.ClosedResourceError("the broadcast's block was left")
        listener = Listener(self._log, self.stream, bound, fate, self._count_out)
        self._listeners.add(weakref.ref(listener, self._forget))
        self._log.changed = True
        return listener

    async def wait_over(self) -> None:
        """Wait until the answer is over, with any outcome, and all of it is published.

        Listeners may still have chunks to receive. This is a checkpoint.
        """
        await self._ended.wait()

    # -- inside ----------------------------------------------------------------------------

    def _count_out(self, listener: Listener) -> None:
        self._listeners.discard(weakref.ref(listener, self._forget))
        self._log.wake_one(listener)
        self._log.change()

    async def _read(self) -> None:
        with self._scope:
            try:
                while chunks := await self._next():
                    await self._publish(chunks)
            except trio.ClosedResourceError:  # the stream's block was left first
                self._log.left = True
            except Exception as exc:  # noqa: BLE001 - each listener gets it, and a crash the block
                self._log.failure = exc
            finally:
                self._hold(held=False)
            self._log.over = not self._log.left
        self._ended.set()
        self._log.wake()

    async def _next(self) -> list[StreamChunk]:
        self._hold(held=False)  # the stream holds itself while it waits
        try:
            return await self.stream.next_chunks()
        finally:
            self._hold(held=True)

    def _hold(self, *, held: bool) -> None:
        """Let nobody else take chunks from the stream: the listeners would go without them."""
        self.stream._busy = held  # noqa: SLF001 - as while a task takes chunks

    async def _publish(self, chunks: list[StreamChunk]) -> None:
        """Write chunks into the log, a part at a time for which every listener has room.

        Behind each part, those that can be too far behind get a turn, so that none that keeps up is
        taken to be. One checkpoint would not do: Trio runs the tasks of one pass in any order.
        """
        log, start = self._log, 0
        while start < len(chunks):
            room = self._bounds.room(self._listeners)
            if not room:
                log.room = trio.Event()
                await log.room.wait()
                continue
            part = chunks[start : start + room]
            start += len(part)
            log.write(part, listeners=len(self._listeners), keep=self._bounds.largest)
            if self._bounds.lossy:
                await checkpoint()
                await checkpoint()


class _Bounds:
    """The number of chunks that may be published at once; looked up only where it may have changed."""

    def __init__(self, log: ChunkLog) -> None:
        self.largest: int = 0
        """The largest of all buffers."""
        self.lossy: bool = False
        """True if a listener would lose something that is too far behind."""
        self._log = log
        self._part = sys.maxsize
        self._up_to = sys.maxsize

    def room(self, listeners: set[weakref.ref[Listener]]) -> int:
        """Return the number of chunks that may be published now; 0 if the stream has to wait."""
        if self._log.changed or self._up_to <= self._log.published:
            self._look(listeners)
        return min(self._part, self._up_to - self._log.published)

    def _look(self, listeners: set[weakref.ref[Listener]]) -> None:
        self.largest, self.lossy = 0, False
        self._log.changed, self._log.braking = False, 0
        self._part = self._up_to = sys.maxsize
        for ref in list(listeners):
            listener = ref()
            if listener is None:
                continue
            buffer = listener.buffer
            self.largest = max(self.largest, buffer)
            if not listener.begun:
                continue
            if listener.policy != "block":
                # No more than a listener takes in its turn, and so that two fit in.
                self._part, self.lossy = min(self._part, max(1, buffer // 2), YIELD_EVERY), True
                continue
            up_to = listener.taken_to + buffer
            self._up_to = min(self._up_to, up_to)
            listener.brakes = up_to <= self._log.published
            self._log.braking += listener.brakes


def _forgetter(
    listeners: set[weakref.ref[Listener]], change: Callable[[], None]
) -> Callable[[weakref.ref[Listener]], None]:
    """Return what is called when nobody holds a listener any more, perhaps in another thread."""
    token = trio.lowlevel.current_trio_token()

    def forget(gone: weakref.ref[Listener]) -> None:
        listeners.discard(gone)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(change, idempotent=True)

    return forget


def _check(buffer: int, policy: str) -> None:
    check_count("buffer", buffer)
    if policy not in get_args(Policy):
        raise ValueError(f"policy must be one of {', '.join(map(repr, get_args(Policy)))}")
