"""The reading of one body, by the stream's task or, directly, by the consumer.

At first the task reads and puts what it reads into the channel. A consumer that waits has nothing
else to do: once it does, it reads the socket itself, so that one task wakes for a read and not two.
The task keeps the clocks meanwhile, and takes the body back for what a consumer must not do: to
yield between the slices of a huge read, to drain, and to close.

============  ============================  ===========================================
mode          who reads                     what ends it
============  ============================  ===========================================
``BUFFERED``  the task                      the consumer waits for what was read ->
                                            ``DIRECT``; the channel is full -> ``FULL``
``FULL``      nobody; the task waits until  there is room -> ``BUFFERED``
              there is room
``DIRECT``    nobody; the consumer is away  it comes for a chunk -> ``AWAITED``
``AWAITED``   the consumer waits at the     a chunk, or cancellation -> ``DIRECT``
              socket
============  ============================  ===========================================

From ``DIRECT`` and ``AWAITED`` the body is handed back (-> ``BUFFERED``) when the answer is over, when
a read is too much for one step, and when decoding fails with a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import trio

from .._http.exchange import Exchange
from .._types.chunks import StreamChunk
from .._types.errors import StreamError
from .answer import Answer, AttemptInfo
from .handoff import Sink, Waiter

MAX_HELD = 64
"""Openings without content that are held back for another attempt. Beyond them they are handed
out, and no other attempt follows. Real streams have one or two."""

MANY_LINES = 4096
"""Lines in one read beyond which it is decoded in slices, between which other tasks get their turn:
64 KiB of the smallest events would hold them up for a tenth of a second. Real events are longer."""
SLICE = 4 * 1024
"""Bytes of such a slice: so few that it is not sliced again."""


class Mode(Enum):
    """The side that reads a body, and what it waits for; see the table at the top."""

    BUFFERED = "buffered"
    FULL = "full"
    DIRECT = "direct"
    AWAITED = "awaited"


BUFFERED: Final = Mode.BUFFERED
FULL: Final = Mode.FULL
DIRECT: Final = Mode.DIRECT
AWAITED: Final = Mode.AWAITED


class BodyReader(Waiter):
    """The body of one response: the task's `read`, and the consumer's `read_direct`.

    While the body is `lent`, the task waits here until the consumer hands it back.

    ``on_begin`` is called once, when the first part of the answer is handed on: from then on no
    other attempt can follow.
    """

    __slots__ = (
        "_away_since",
        "_exchange",
        "_info",
        "_on_begin",
        "_sink",
        "_slices",
        "_unsent",
        "answer",
        "crash",
        "mode",
    )

    def __init__(
        self,
        exchange: Exchange,
        answer: Answer,
        info: AttemptInfo,
        sink: Sink,
        on_begin: Callable[[], None],
    ) -> None:
        self._waiting = None
        self.answer: Answer = answer
        self.mode: Mode = BUFFERED
        self.crash: Exception | None = None
        """The bug that direct reading met; `read` raises it."""
        self._exchange = exchange
        self._info = info
        self._sink = sink
        self._on_begin: Callable[[], None] | None = on_begin
        # Of a read that is too much for one step; the last one first.
        self._slices: list[bytes] | None = None
        self._unsent: list[StreamChunk] | None = None  # there was no room for them
        self._away_since: float | None = None  # told to the clocks when the consumer is back

    # -- in the stream's task ----------------------------------------------------------------

    async def read(self) -> bool:
        """Read until the answer is over, and return True; or until the body is `lent`, or the scope of the
        clocks, within which it is called, is cancelled: then it is to be called again in a new one, unless
        `check_clocks` raises.

        Raises what ended the answer otherwise. A clock that runs out loses nothing that was read: it
        cancels only the wait for bytes.
        """
        answer = self.answer
        if self.crash is not None:
            raise self.crash
        if not self._exchange.resumable and self._unable():
            return False
        while not answer.over or self.mode is FULL:  # there may be no room for the end
            if self.mode is FULL:
                await self._wait_for_room()
            elif self.mode is not BUFFERED or await self._read_buffered():
                return False
        if answer.error is not None and not answer.state.over:
            raise answer.error
        return True

    @property
    def lent(self) -> bool:
        """True while the consumer reads: the task is to `wait`, and then to call `read` again."""
        return self.mode is DIRECT or self.mode is AWAITED

    def _unable(self) -> bool:
        """Return True if the scope was cancelled, so that a read in it, which can't be made again, would
        lose what it gets.

        Raises the error of a clock that has run out: nothing waits, and so nothing else would.
        """
        clocks = self.answer.clocks
        if self.answer.over or self._slices or self.mode is not BUFFERED or not clocks.fired:
            return False
        if clocks.due():
            self._overdue()
        return True

    def check_clocks(self) -> None:
        """Raise the error of the clock for which `read` was cancelled, if it has run out."""
        if self.crash is not None:
            raise self.crash
        if self.mode is FULL:
            return  # no clock runs while the consumer is slow
        if self.answer.clocks.due() or not self._exchange.resumable:
            self._overdue()

    def close(self) -> None:
        """Drop what is needed no more, since a stream may be kept: the connection's objects, perhaps
        with the prompt, and what owns this reader.
        """
        self.mode = BUFFERED
        del self._exchange
        self._on_begin = None

    async def _read_buffered(self) -> bool:
        """Read until the answer is over, or the mode changes.

        Return whether bytes came in the moment of a deadline before that: the next read wants a scope
        of its own.
        """
        answer = self.answer
        while True:
            data = b""
            try:
                if self._slices:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    data = self._slices.pop()
                else:
                    data = await self._exchange.receive()
            except StreamError as exc:
                answer.error = exc
            if len(data) > MANY_LINES and self._sliced(data):
                continue
            now = answer.clocks.clock.current_time()
            chunks, content = answer.feed(data, now)
            if answer.state.over:
                self._info.ended = now
            awaited = bool(chunks) and self._deliver(chunks, content)
            if answer.over:
                return False
            if awaited and self._exchange.direct and not self._slices:
                self.mode = DIRECT
            # A stream that waits for long holds no more than it must.
            del data, chunks
            if answer.clocks.fired:
                return True
            if self.mode is not BUFFERED:
                return False

    def _sliced(self, data: bytes) -> bool:
        """Put a long read aside in slices, if it is too much for one step. Return whether it was."""
        many = data.count(b"\n") + data.count(b"\r") > MANY_LINES
        if many:
            self._slices = [data[i : i + SLICE] for i in range(0, len(data), SLICE)][::-1]
        return many

    def _deliver(self, chunks: list[StreamChunk], content: bool) -> bool:
        """Put a batch into the channel. Return whether the consumer was waiting for it."""
        info, begun = self._info, self.answer.begun
        if not (begun or content or len(info.held) >= MAX_HELD):
            info.held = (*info.held, *chunks)
            return False
        if info.held:
            chunks = [*info.held, *chunks]
            info.held = ()
        if not begun:
            self.answer.begun = True
            if self._on_begin is not None:
                self._on_begin()
                self._on_begin = None
        try:
            return self._sink.put_nowait(chunks)
        except trio.WouldBlock:
            self._unsent = chunks
            self.mode = FULL
            return False

    async def _wait_for_room(self) -> None:
        """Wait until the consumer has caught up. Its time does not count for any clock."""
        paused_at = self.answer.clocks.pause()
        assert self._unsent is not None
        await self._sink.put(self._unsent)
        self._unsent = None
        self.mode = BUFFERED
        self.answer.clocks.resume(paused_at)

    def _overdue(self) -> None:
        """Raise the error of the clock that has run out, unless bytes came in time.

        Bytes are in time if they were read at that very moment, or if they are in the socket and
        the consumer has yet to read them.
        """
        answer = self.answer
        if answer.over or self._slices:
            return
        awaited = self.mode is AWAITED
        read_here = self.mode is BUFFERED
        if read_here or self._exchange.silent or (awaited and answer.clocks.name == "total"):
            raise answer.clocks.error(answer.content, self._info.received)
        if not awaited:
            self._away_since = answer.clocks.away()

    # -- in the consumer's task --------------------------------------------------------------

    async def read_direct(self) -> list[StreamChunk]:
        """Wait for the next chunks at the socket; only in mode ``DIRECT``.

        Returns an empty list if the body was handed back meanwhile. A checkpoint; cancelled, it
        has lost nothing.
        """
        if self._away_since is not None:
            self.answer.clocks.resume(self._away_since)
            self._away_since = None
        self.mode = AWAITED
        try:
            while self.mode is AWAITED:
                try:  # noqa: SIM105 - an object less for each chunk
                    await self._exchange.readable()
                except (OSError, ValueError, trio.ClosedResourceError):
                    pass  # `_take` finds out why
                if self.mode is AWAITED and (chunks := self._take()):
                    return chunks
        finally:
            if self.mode is AWAITED:
                self.mode = DIRECT
        return []

    def take_direct(self) -> list[StreamChunk] | None:
        """Return the chunks that came by now, without waiting; None if no bytes came.

        Also None unless the mode is ``DIRECT``. In particular while the consumer waits: chunks that
        another task took could not wake it any more, and it alone may hand back what it waits at.
        """
        return self._take() if self.mode is DIRECT else None

    def _take(self) -> list[StreamChunk] | None:
        """Read once, without waiting, and hand the body back if that is due."""
        answer, data = self.answer, None
        chunks: list[StreamChunk] = []
        try:
            data = self._exchange.receive_now()
        except StreamError as exc:
            answer.error = exc
            data = b""
        now = answer.clocks.clock.current_time()
        try:
            if data is not None and not (len(data) > MANY_LINES and self._sliced(data)):
                chunks, _ = answer.feed(data, now)
        except Exception as exc:  # noqa: BLE001 - the task raises it, as where it reads itself
            self.crash = exc
        if answer.over or self._slices or self.crash:
            self._hand_back(now)
        return chunks if data is not None else None

    def _hand_back(self, now: float) -> None:
        """Let the task go on, for the end of the answer or for what takes more than one step."""
        self.mode = BUFFERED
        self._info.ended = now if self.answer.over else None
        self.wake()
