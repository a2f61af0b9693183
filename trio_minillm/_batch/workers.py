"""The tasks that send a batch's requests, woken when a request may be sent."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from .line import Line
from .throttle.schedule import Item, Schedule

BURST = 32
"""Requests that are sent between two gaps (see `WorkerPool`). After a refusal has
arrived, up to about twice as many more may still be sent. A gap costs some 60 µs, and each request
that waits for its end some 15 µs."""
GAP_TURNS = 4
"""Turns of Trio's loop in a gap: enough for a refusal to get from the socket to its lane."""
TOGETHER = 4
"""Requests that begin in one turn of Trio's loop while the number under way grows: one alone would
cost a turn each, and the more begin at once, the more are out when the first refusal arrives."""


class WorkerPool:
    """A pool that grows to as many workers as were ever busy at once.

    After every `BURST` requests all of them wait for a few turns of Trio's loop, the gap, until what
    servers have said meanwhile has reached the lanes. On a busy loop one turn can bring hundreds of
    answers, and each would be followed by another request although the first of them was a refusal.
    There is no gap while so few run that no more than twice `BURST` answers can come at once.

    ``serve`` is awaited with each item. ``expire`` is called when the time of a waiting item is over,
    and returns when the next one's will be. ``crashed`` is given what a task raises, and may raise it
    again.

    Its 15 attributes are what it is given, the workers and what they are given, and the states of the
    gap and of the timer.
    """

    def __init__(
        self,
        schedule: Schedule,
        serve: Callable[[Item], Awaitable[None]],
        *,
        expire: Callable[[float], float],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._schedule = schedule
        self._serve = serve
        self.held = False
        """True while nothing may be sent at all."""
        self._expire = expire
        self._crashed = crashed
        self._nursery: trio.Nursery | None = None
        self._clock: trio.abc.Clock
        self._idle = Line()
        self._given: deque[Item] = deque()  # to workers that were woken, and have not gone on yet
        self._retiring = False
        self._sent = 0
        self._in_gap = False
        self._gap = trio.lowlevel.ParkingLot()
        self._timer = trio.lowlevel.ParkingLot()
        self._alarm = math.inf  # when the timer rings

    def start(self, nursery: trio.Nursery) -> None:
        """Start in this nursery; only its cancellation ends all tasks."""
        self._nursery, self._clock = nursery, trio.lowlevel.current_clock()
        nursery.start_soon(self._watch_clock, name="trio_minillm batch clock")
        nursery.start_soon(self._keep_gaps, name="trio_minillm batch gaps")

    def end(self) -> None:
        """Give nothing more to anybody: the nursery is about to be closed."""
        self._nursery = None

    def notify(self, most: int = TOGETHER) -> None:
        """Give workers what may be sent now, so many at most, and set the timer for what may be sent
        later. The last of them goes on with this.
        """
        schedule, given = self._schedule, self._given
        if self._nursery is None:
            return
        while schedule.waiting and schedule.running < schedule.limit and len(given) < most:
            item = self._next()
            if item is None:
                return
            given.append(item)
            if self._idle:
                self._idle.wake()
            else:
                self._nursery.start_soon(self._work, name="trio_minillm batch worker")

    def retire(self) -> None:
        """Keep no more workers than there are items: only retries may still come.

        To end is cheaper for a task than to be cancelled.
        """
        self._retiring = True
        if not self._schedule.waiting:
            self._idle.wake_all()

    def wake_at(self, when: float) -> None:
        """Set the timer to this time, or leave it at an earlier one."""
        if when < self._alarm:
            self._alarm = when
            self._timer.unpark()

    async def _watch_clock(self) -> None:
        while True:
            with trio.move_on_at(self._alarm):
                await self._timer.park()
            now = trio.current_time()
            if now >= self._alarm:
                self._alarm = self._expire(now)
                self.notify()

    def _next(self) -> Item | None:
        """Return the item that is sent now; ``None`` if none may be."""
        if self._in_gap or self.held:
            return None
        schedule = self._schedule
        item = schedule.next(self._clock.current_time())
        if item is None:
            self.wake_at(schedule.wake_at)
            return None
        self._sent += 1
        if not self._sent % BURST and schedule.running > 2 * BURST:
            self._in_gap = True
            self._gap.unpark()
        return item

    async def _work(self) -> None:
        schedule, given = self._schedule, self._given
        try:
            while given:  # else it was woken to end
                item: Item | None = given.popleft()  # in order: Trio goes on with tasks in any
                while item is not None:
                    if not given and schedule.running < schedule.limit:
                        self.notify()
                    await self._serve(item)
                    item = self._next() if schedule.waiting else None
                if self._retiring and not schedule.waiting:
                    self._idle.wake_all()
                    return
                await self._idle.wait()
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    async def _keep_gaps(self) -> None:
        while True:
            while not self._in_gap:
                await self._gap.park()
            for _ in range(GAP_TURNS):
                await trio.lowlevel.checkpoint()
            self._in_gap = False
            self.notify(BURST)
