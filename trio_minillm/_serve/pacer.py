"""One task that does the work of all streams when it is due.

A task for each stream that sleeps before each chunk costs 60–80 µs a chunk, and thousands of them are
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
LEAST_PAUSE: Final = 0.0002
"""Seconds from one awakening to the next, at least. Each costs some 40 µs, so that a thousand streams
would spend more on awakenings than on chunks; and nobody is later by more than this."""


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
            if self._work(began):
                await trio.lowlevel.checkpoint()
                continue
            self._arm(max(self._heap[0][0], began + LEAST_PAUSE) if self._heap else math.inf)
            await self._timer.wait()

    def _work(self, now: float) -> bool:
        """Do what is due. Returns True if there is more that is due by now."""
        heap, clock, numbers = self._heap, self.now, self._numbers
        until = now + TURN_SECONDS
        while heap and heap[0][0] <= now:
            due, _, job = heappop(
                heap
            )  # before its turn, which may add others that are due as well
            again = job.turn(due, now)
            if again is not None:
                heappush(heap, (again, next(numbers), job))
            now = clock()
            if now > until:
                return bool(heap) and heap[0][0] <= now
        return False
