"""The bound on the connections to one origin that are being made at a time.

Thousands of requests that begin at once would otherwise connect at once. A server's queue of connections
that it has not accepted is short: what finds it full tries again a second later, and again after three.
And no handshake is done before almost all are: the first answer comes after the last handshake, and the
clock ``connect`` runs all the while.
"""

from __future__ import annotations

import trio

from .dialing import Tell

AT_ONCE = 64
"""Connections to one origin that are being made at a time: half of what the shortest usual queue of a
server holds (128), and enough for the handshakes of one core."""
STALLED_SECONDS = 1.0
"""Seconds without any connection made after which the bound is none: what is in the way may answer
nobody, and each request is to find that out in its own time."""


class Gate:
    """The way to one origin. Whoever enters must leave."""

    __slots__ = ("_made", "_waiting", "making")

    def __init__(self) -> None:
        self.making = 0
        """Connections that are being made, or whose place was given to who waited for it."""
        self._made = 0
        self._waiting: dict[trio.Event, None] = {}  # in line; whose turn has come is set, and gone

    @property
    def unused(self) -> bool:
        """True if nobody is inside or waits."""
        return not (self.making or self._waiting)

    async def enter(self, tell: Tell) -> None:
        """Wait for a place, first come, first served. The wait is one for the pool: no other clock runs.

        Cancelled, it has not entered.
        """
        if self.making < AT_ONCE:
            self.making += 1
            return
        turn = trio.Event()
        self._waiting[turn] = None
        try:
            await tell("connection_pool.wait.started")
            await self._wait_for(turn)
            await tell("connection_pool.wait.complete")
        except BaseException:
            if turn in self._waiting:
                del self._waiting[turn]
            else:
                self.leave(made=False)
            raise

    async def _wait_for(self, turn: trio.Event) -> None:
        """Wait for a turn, or take it once nothing has moved for too long."""
        while not turn.is_set():
            before = self._made
            with trio.move_on_after(STALLED_SECONDS):
                await turn.wait()
            if self._made == before and turn in self._waiting:
                self._give(turn)

    def leave(self, *, made: bool) -> None:
        """Make place for another; ``made`` says whether there is a connection."""
        self.making -= 1
        self._made += made
        if self._waiting and self.making < AT_ONCE:
            self._give(next(iter(self._waiting)))

    def _give(self, turn: trio.Event) -> None:
        """Give a place to who waits for it. So nobody who comes before that one wakes can take it."""
        del self._waiting[turn]
        self.making += 1
        turn.set()
