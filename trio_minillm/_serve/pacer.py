"""One task that does the work of all streams when it is due.

A task for each stream that sleeps before each chunk costs 60 to 80 µs a chunk, and thousands of them are
late in an order that nobody knows. Here a heap holds the next due time of each stream.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import Final, Protocol

import trio

from .timers import Timer

TURN_SECONDS: Final = 0.001
"""Seconds of work after which other tasks get a turn: requests are read, and clients that left are seen,
also when the server can't keep up."""
PAUSE, BUSY_PAUSE, BUSY = 0.0002, 0.0005, 8
"""Seconds from one awakening to the next, at least; the longer ones after an awakening with as many turns as
`BUSY`. An awakening costs some 40 µs, so that a thousand streams would spend more on those than on chunks.
Nobody is later by more than this because of it."""


class Job(Protocol):
    """Work that falls due again and again."""

    def turn(self, due: float, now: float) -> float | None:
        """Do what was due at that time. Returns when the next is due, or None if there is no more."""
        ...


class Pacer:
    """A heap of due times, and the task that goes by them."""

    def __init__(self, timer: Timer) -> None:
        self.now = timer.now
        self._timer = timer
        self._heap: list[tuple[float, int, Job]] = []
        self._numbers = count()  # of equal times, the first comes first
        self._armed = math.inf

    def add(self, due: float, job: Job) -> None:
        """Have the job's turn come at this time."""
        heappush(self._heap, (due, next(self._numbers), job))
        if due < self._armed:
            self._arm(due)

    def _arm(self, at: float) -> None:
        self._armed = at
        self._timer.set(at)

    async def run(self) -> None:
        """Give each job its turns, for ever."""
        while True:
            began = self.now()
            turns = self._work(began)
            heap, now = self._heap, self.now()
            if heap and heap[0][0] <= now and now > began + TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                continue
            pause = BUSY_PAUSE if turns >= BUSY else PAUSE
            self._arm(max(heap[0][0], began + pause) if heap else math.inf)
            await self._timer.wait()

    def _work(self, now: float) -> int:
        """Do what is due, for a while. Returns the number of turns."""
        heap, clock, numbers = self._heap, self.now, self._numbers
        until, turns = now + TURN_SECONDS, 0
        while heap and heap[0][0] <= now < until:
            due, _, job = heappop(
                heap
            )  # before its turn, which may add others that are due as well
            again = job.turn(due, now)
            if again is not None:
                heappush(heap, (again, next(numbers), job))
            now = clock()
            turns += 1
        return turns
