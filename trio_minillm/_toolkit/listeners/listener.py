"""One of the listeners of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ..._stream.stream import YIELD_EVERY
from ..._types.chunks import StreamChunk
from ..._types.errors import MiniLLMError
from ..._types.response import CompletionResponse, Outcome
from .chunk_log import ChunkLog

if TYPE_CHECKING:
    from ..._stream.stream import StreamingCompletion

Policy: TypeAlias = Literal["block", "drop_oldest", "detach"]
"""The fate of a listener that is as far behind as its buffer allows.

``block``: the stream waits for it, and so do all others · ``drop_oldest``: it goes without the oldest
chunks that it has not taken · ``detach``: it gets a `ListenerDetached`, and is none any more.
"""


class ListenerDetached(trio.BrokenResourceError):
    """A listener fell further behind than its buffer allows, so it was removed.

    ``behind`` is the number of chunks that it had not received, and ``buffer`` the largest number
    allowed. The stream and the other listeners continue. A new listener starts with everything so
    far.
    """

    def __init__(self, behind: int, buffer: int) -> None:
        super().__init__(f"the listener is {behind} chunks behind, and its buffer is {buffer}")
        self.behind = behind
        self.buffer = buffer


class Listener(trio.abc.ReceiveChannel[StreamChunk]):
    """The chunks of a stream for one listener. Make one with `Broadcast.subscribe`.

    Guarantees:

    - It yields every chunk from the beginning in order. Then it ends like the stream: with the end,
      or with a copy of the stream's error, once. Only ``drop_oldest`` leaves chunks out; `dropped`
      says how many.
    - If chunks have already arrived, the first receive returns them merged, in as few chunks as
      possible. Their joined text is the text so far.
    - Receiving a chunk checks for cancellation, as in a stream. A cancelled receive loses nothing.
    - Chunks are shared with the other listeners, so read them without changing them.

    Close a listener that you no longer need (``with``, ``async with``), because under ``block`` the
    stream waits for it. A listener that is garbage-collected counts as closed.
    """

    def __init__(
        self,
        log: ChunkLog,
        stream: StreamingCompletion,
        buffer: int,
        policy: Policy,
        leave: Callable[[Listener], None],
    ) -> None:
        self.stream: StreamingCompletion = stream
        """The stream that it listens to."""
        self.policy: Policy = policy
        self.buffer: int = buffer
        """Chunks that it may be behind."""
        self.dropped: int = 0
        """The number of chunks that it went without, under ``drop_oldest``."""
        self.taken_to: int = 0
        """The number of the stream's chunks that it has taken."""
        self.begun: bool = not log.snapshot()
        """True unless it is a late one that has taken nothing: that can't be behind."""
        self.brakes: bool = False
        """True while the stream waits for it."""
        self._log = log
        self._leave = leave
        self._first: list[StreamChunk] = []  # the beginning of a late one, last chunk first
        self._turns = 0
        self._closed = False
        self._told = False
        self._detached_at = 0  # chunks that it was behind then

    @property
    def outcome(self) -> Outcome | None:
        """The stream's outcome once it is over, even if this listener has not received
        everything.
        """
        return self.stream.outcome

    @property
    def error(self) -> MiniLLMError | None:
        """The error that ended the stream."""
        return self.stream.error

    @property
    def response(self) -> CompletionResponse:
        """The stream's response so far."""
        return self.stream.response

    async def receive(self) -> StreamChunk:
        """Return the next chunk. Raises `trio.EndOfChannel` when the answer is over.

        Raises the stream's error, once. Raises `ListenerDetached` if the listener fell behind under
        ``detach``, and `trio.ClosedResourceError` if it was closed, or if the hub's block was left
        before the answer ended.
        """
        chunks = await self._next(1)
        if not chunks:
            raise trio.EndOfChannel
        return chunks[0]

    async def next_chunk(self) -> StreamChunk | None:
        """Return the next chunk, or ``None`` when the answer is over. Raises what `receive`
        raises.
        """
        chunks = await self._next(1)
        return chunks[0] if chunks else None

    async def next_chunks(self) -> list[StreamChunk]:
        """Return all chunks that have arrived, or an empty list when the answer is over.

        Waits until there is at least one chunk. Raises what `receive` raises.
        """
        return await self._next(None)

    async def _next(self, most: int | None) -> list[StreamChunk]:
        if self in self._log.waiting:
            raise trio.BusyResourceError("another task is taking chunks from this listener")
        self._turns += 1
        if self._turns % YIELD_EVERY and (most is not None or not self._is_ready):
            await checkpoint_if_cancelled()
        else:
            await checkpoint()
        while True:
            self._check_open()
            if found := self._take(most):
                return found
            if self._log.over:
                if not self._told:
                    self._told = True
                    self._log.raise_failure()
                return []
            await self._log.wait(self)
            self._turns = 0

    @property
    def _is_ready(self) -> bool:
        begins = self._first or not self.begun
        return bool(begins) or self._log.published > self.taken_to or self._log.over

    def _take(self, most: int | None) -> list[StreamChunk]:
        """Take what there is, of the beginning first."""
        if not self.begun:
            self._first = self._log.snapshot()[::-1]
            self.taken_to, self.begun, self._log.changed = self._log.published, True, True
        if self._first:
            return [self._first.pop() for _ in range(most or len(self._first))]
        behind = self._log.published - self.taken_to
        if behind > self.buffer and self.policy != "block":
            self._fall_behind(behind)
        found = self._log.since(self.taken_to, most)
        self.taken_to += len(found)
        if self.brakes and self._log.published - self.taken_to <= self.buffer // 2:
            self.brakes = False
            self._log.release()
        return found

    def _fall_behind(self, behind: int) -> None:
        if self.policy == "detach":
            self._detached_at = behind
            self._leave(self)
            raise ListenerDetached(behind, self.buffer)
        self.dropped += behind - self.buffer
        self.taken_to += behind - self.buffer

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this listener was closed")
        if self._detached_at:
            raise ListenerDetached(self._detached_at, self.buffer)
        if self._log.left and not self._log.over:
            raise trio.ClosedResourceError("the broadcast's block was left before the answer ended")

    def close(self) -> None:
        """Stop listening. A task that waits for a chunk here gets `trio.ClosedResourceError`."""
        if not self._closed:
            self._closed, self._first = True, []
            self._leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def aclose(self) -> None:
        """Stop listening, like `close`. This is a checkpoint."""
        self.close()
        await checkpoint()

    def __repr__(self) -> str:
        return f"<Listener {self.policy} {self._log.published - self.taken_to} behind>"
