"""Who sends: tasks that take one item after the other, woken when something may be sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from .throttle.schedule import Item, Schedule

BREATH = 32
"""Requests that are sent before a breath is taken (see `WorkerPool`): so many meet with a refusal that has
come meanwhile, at most about twice that. One breath costs some 60 µs."""
ROUNDS = 4
"""Turns of Trio's loop from a refusal at the socket to its lane."""


class WorkerPool:
    """Workers, as many as were ever busy at once; who has sent wakes the next.

    After every `BREATH` requests all wait until what servers have said meanwhile has been heard:
    where the loop is busy, one turn of it can bring hundreds of answers, and each would be followed
    by another request though the first of them was refused.

    ``serve`` is awaited with each item; ``held`` says whether nothing may be sent now at all,
    ``expire`` is called when the time of somebody who waits is over, and says when that will be so
    of the next. ``crashed`` is told what a task raises; it may raise it again.
    """

    def __init__(
        self,
        schedule: Schedule,
        serve: Callable[[Item], Awaitable[None]],
        *,
        held: Callable[[], bool],
        expire: Callable[[float], float],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._schedule = schedule
        self._serve = serve
        self._held = held
        self._expire = expire
        self._crashed = crashed
        self._nursery: trio.Nursery | None = None
        self._idle = trio.lowlevel.ParkingLot()
        self._coming = False  # a worker is on its way to its item
        self._sent = 0
        self._breathing = False
        self._breath = trio.lowlevel.ParkingLot()
        self._timer = trio.lowlevel.ParkingLot()
        self._alarm = math.inf

    def start(self, nursery: trio.Nursery) -> None:
        """Begin, in this nursery. It ends with the nursery's cancellation only."""
        self._nursery = nursery
        nursery.start_soon(self._watch_clock, name="trio_minillm batch clock")
        nursery.start_soon(self._breathe, name="trio_minillm batch breath")

    def kick(self) -> None:
        """Let somebody go on, if anything may be sent; he wakes the next. Else see to the clock."""
        if self._nursery is None or self._coming or self._breathing:
            return
        if self._held() or not self._schedule.waiting:
            return
        if self._schedule.ready(trio.current_time()):
            self._coming = True
            if self._idle:
                self._idle.unpark()
            else:
                self._nursery.start_soon(self._work, name="trio_minillm batch worker")
        else:
            self.wake_at(self._schedule.wake_at)

    def wake_at(self, when: float) -> None:
        """See then who may go on, and whose time is over."""
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
                self.kick()

    async def _work(self) -> None:
        schedule = self._schedule
        try:
            while True:
                self._coming = False
                waits = self._breathing or self._held()
                item = None if waits else schedule.next(trio.current_time())
                if item is None:
                    self.wake_at(schedule.wake_at)
                    await self._idle.park()
                    continue
                self._sent += 1
                if not self._sent % BREATH:
                    self._breathing = True
                    self._breath.unpark()
                if schedule.running < schedule.capacity:
                    self.kick()
                await self._serve(item)
        except BaseException as exc:  # noqa: BLE001 - comes out of iteration, as itself
            self._crashed(exc)

    async def _breathe(self) -> None:
        schedule = self._schedule
        while True:
            while not self._breathing:
                await self._breath.park()
            for _ in range(ROUNDS):
                await trio.lowlevel.checkpoint()
            self._breathing = False
            self.kick()
            free = min(schedule.waiting, schedule.capacity - schedule.running, BREATH)
            if self._coming and free > 1:
                self._idle.unpark(count=free - 1)
