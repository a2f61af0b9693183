"""The tasks that send a batch's requests, woken when a request may be sent."""

from __future__ import annotations

import math
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


class WorkerPool:
    """A pool that grows to as many workers as were ever busy at once; one that sends wakes the next.

    After every `BURST` requests all of them wait for a few turns of Trio's loop, the gap, until what
    servers have said meanwhile has reached the lanes. On a busy loop one turn can bring hundreds of
    answers, and each would be followed by another request although the first of them was a refusal.
    There is no gap while so few run that no more than twice `BURST` answers can come at once.

    ``serve`` is awaited with each item. ``expire`` is called when the time of a waiting item is over,
    and returns when the next one's will be. ``crashed`` is given what a task raises, and may raise it
    again.
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
        self._idle = Line()
        self._waking = False  # a worker was woken and has not taken its item yet
        self._sent = 0
        self._in_gap = False
        self._gap = trio.lowlevel.ParkingLot()
        self._timer = trio.lowlevel.ParkingLot()
        self._alarm = math.inf  # when the timer rings

    def start(self, nursery: trio.Nursery) -> None:
        """Start in this nursery; only its cancellation ends the tasks."""
        self._nursery = nursery
        nursery.start_soon(self._watch_clock, name="trio_minillm batch clock")
        nursery.start_soon(self._keep_gaps, name="trio_minillm batch gaps")

    def notify(self) -> None:
        """Wake a worker if a request may be sent now, else set the timer."""
        if self._nursery is None or self._waking or self._in_gap:
            return
        schedule = self._schedule
        if not schedule.waiting or schedule.running >= schedule.limit or self.held:
            return
        if schedule.ready(trio.current_time()):
            self._waking = True
            if self._idle:
                self._idle.wake()
            else:
                self._nursery.start_soon(self._work, name="trio_minillm batch worker")
        else:
            self.wake_at(schedule.wake_at)

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

    async def _work(self) -> None:
        schedule, clock = self._schedule, trio.lowlevel.current_clock()
        try:
            while True:
                self._waking = False
                waits = self._in_gap or self.held
                item = None if waits else schedule.next(clock.current_time())
                if item is None:
                    self.wake_at(schedule.wake_at)
                    await self._idle.wait()
                    continue
                self._sent += 1
                if not self._sent % BURST and schedule.running > 2 * BURST:
                    self._in_gap = True
                    self._gap.unpark()
                if schedule.running < schedule.limit:
                    self.notify()
                await self._serve(item)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    async def _keep_gaps(self) -> None:
        schedule = self._schedule
        while True:
            while not self._in_gap:
                await self._gap.park()
            for _ in range(GAP_TURNS):
                await trio.lowlevel.checkpoint()
            self._in_gap = False
            self.notify()
            free = min(schedule.waiting, schedule.limit - schedule.running, BURST)
            if self._waking and free > 1:
                self._idle.wake(free - 1)
