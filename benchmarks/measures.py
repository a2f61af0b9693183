"""Measure one contender in a process of its own.

``python measures.py JSON`` takes the names of the measure and of the contender, and the measure's
numbers; it prints one JSON object: the results, or ``{"skipped": reason}``. A wrong answer raises.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import churn
import contenders
import floor
import open_files
from answers import Answer, digest, texts
from contenders import FLOOR, Contender, Options, Stream

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WARM_UP = 300
"""Chunks of the unmeasured stream before the measured one, on the same connection."""
WARM_UP_REQUESTS = 20
STARTING = 200
"""Most requests that may be starting at the same time, for every contender."""
SPARE_FILES = 100
"""Open files that a process needs in addition to its connections."""

Result = dict[str, Any]


class Clock:
    """CPU time, wall time and voluntary context switches between `start` and `stop`."""

    def __init__(self) -> None:
        self._from = self._to = (0.0, 0.0, 0)

    @staticmethod
    def _now() -> tuple[float, float, int]:
        if resource is None:
            return time.process_time(), time.perf_counter(), 0
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.perf_counter(), used.ru_nvcsw

    def start(self) -> None:
        self._from = self._now()

    def stop(self) -> None:
        self._to = self._now()

    def result(self) -> dict[str, float]:
        cpu, wall, waits = (b - a for a, b in zip(self._from, self._to, strict=True))
        return {"cpu": cpu, "wall": wall, "waits": waits}


def resident() -> int:
    """Return the bytes of memory that the process has in use."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib may not be loaded yet
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# -- one stream after the other ------------------------------------------------------------


class _Reading:
    """The measurement of one answer, and the check of its text."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.pieces: list[str] = []
        self.clock = Clock()

    def first(self, text: str) -> None:
        self.pieces.append(text)
        self.clock.start()

    def result(self) -> Result:
        self.clock.stop()
        found = [text for text in self.pieces if text]
        if len(found) != self.answer.chunks:
            raise AssertionError(f"{len(found)} chunks instead of {self.answer.chunks}")
        if digest(found) != digest(texts(self.answer)):
            raise AssertionError("the text is wrong")
        return {"answer": self.answer.name, "chunks": len(found), **self.clock.result()}


def _answers(names: list[str]) -> list[tuple[Answer, Answer]]:
    """Return each answer with a short one of its kind, to warm up with."""
    every = map(Answer.parse, names)
    return [(a._replace(chunks=min(WARM_UP, a.chunks)), a) for a in every]


async def streams(stream: Stream, loop: contenders.Loop, names: list[str]) -> list[Result]:
    """Measure the CPU time of whole streams, from the first chunk to the end."""
    results = []
    for warm_up, answer in _answers(names):
        await stream(warm_up.name, str, str)
        reading = _Reading(answer)
        gc.collect()
        await stream(answer.name, reading.first, reading.pieces.append)
        results.append(reading.result())
    return results


def floor_streams(options: Options, names: list[str]) -> list[Result]:
    results, connection = [], floor.Floor(options)
    for warm_up, answer in _answers(names):
        connection.stream(warm_up.name, str, str)
        reading = _Reading(answer)
        gc.collect()
        connection.stream(answer.name, reading.first, reading.pieces.append)
        results.append(reading.result())
    return results


# -- requests while others are open --------------------------------------------------------


class _Requests:
    """The measurement of short requests: time to the first chunk, and CPU."""

    def __init__(self, count: int) -> None:
        self.count = count + WARM_UP_REQUESTS
        self.clock = Clock()
        self._waited: list[float] = []
        self._sent = 0.0

    def send(self) -> None:
        if len(self._waited) == WARM_UP_REQUESTS:
            gc.collect()
            self.clock.start()
        self._sent = time.perf_counter()

    def first(self, text: str) -> None:
        self._waited.append(time.perf_counter() - self._sent)

    def result(self, others: int) -> Result:
        self.clock.stop()
        waited = self._waited[WARM_UP_REQUESTS:]
        assert len(waited) == self.count - WARM_UP_REQUESTS
        first = statistics.median(waited)
        return {"others": others, "requests": len(waited), "first": first, **self.clock.result()}


async def requests(
    stream: Stream, loop: contenders.Loop, count: int, others: int, answer: str = "short"
) -> Result:
    """Measure short requests, one by one, while other streams are open and silent."""
    opened, all_open = 0, loop.event()
    starting = loop.semaphore(STARTING)

    def first(text: str) -> None:
        nonlocal opened
        starting.release()
        opened += 1
        if opened == others:
            all_open.set()

    async def hold(number: int) -> None:
        await starting.acquire()
        await stream("hold", first, str)

    async def main() -> Result:
        if others:
            await all_open.wait()
        asked = _Requests(count)
        for _ in range(asked.count):
            asked.send()
            await stream(answer, asked.first, str)
        return asked.result(others)

    result: Result = await loop.together(hold, others, main)
    return result


def floor_requests(options: Options, count: int, others: int, answer: str = "short") -> Result:
    held = [floor.Floor(options) for _ in range(others)]
    for one in held:
        one.send("hold")
    for one in held:
        one.take(str)
    asked, connection = _Requests(count), floor.Floor(options)
    for _ in range(asked.count):
        asked.send()
        connection.stream(answer, asked.first, str)
    return asked.result(others)


# -- many at once --------------------------------------------------------------------------


class _ManyStreams:
    """The measurement of many paced streams: latency, memory and CPU."""

    def __init__(self, count: int, chunks: int, rate: float) -> None:
        self.count = count
        self.total = count * chunks
        self.model = f"paced/{os.getpid()}/{count}/{chunks}/{rate:g}"
        self.opened = 0
        self.late = array("q", bytes(8 * self.total))
        self.clock = Clock()
        self._taken = 0
        self._base = resident()
        self._begun = time.perf_counter()
        self._set_up = 0.0

    def first(self, text: str) -> None:
        """Count an open stream; with the last one, start the clock: the server waits a second then."""
        self.opened += 1
        if self.opened == self.count:
            self._set_up = time.perf_counter() - self._begun
            gc.collect()
            self.clock.start()

    def take(self, text: str) -> None:
        if not text:
            return
        self.late[self._taken] = time.monotonic_ns() - int(text)
        self._taken += 1
        if self._taken == self.total:
            self.clock.stop()
            self._used = resident() - self._base

    def result(self) -> Result:
        if self._taken != self.total:
            raise AssertionError(f"{self._taken} chunks instead of {self.total}")
        late = sorted(self.late)
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {
            **self.clock.result(),
            **{name: late[int(share * self.total)] / 1e9 for name, share in shares.items()},
            "max": late[-1] / 1e9,
            "streams": self.count,
            "chunks": self.total,
            "set_up": self._set_up,
            "memory": self._used / self.count,
        }


async def many(
    stream: Stream, loop: contenders.Loop, count: int, chunks: int, rate: float
) -> Result:
    """Measure many streams at once, which together get chunks at a given rate."""
    await stream("short", str, str)
    gc.collect()
    measured, starting = _ManyStreams(count, chunks, rate), loop.semaphore(STARTING)

    def first(text: str) -> None:
        starting.release()
        measured.first(text)

    async def one(number: int) -> None:
        await starting.acquire()
        await stream(measured.model, first, measured.take)

    await loop.together(one, count)
    return measured.result()


def floor_many(options: Options, count: int, chunks: int, rate: float) -> Result:
    floor.Floor(options).stream("short", str, str)
    measured = _ManyStreams(count, chunks, rate)
    floor.many(options, measured.model, count, measured.first, measured.take)
    return measured.result()


# -- running one -----------------------------------------------------------------------------

MEASURES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "streams": (streams, floor_streams),
    "requests": (requests, floor_requests),
    "many": (many, floor_many),
}


def unable_because(contender: Contender, connections: int) -> str:
    """Return the reason why a contender can't run here, or an empty string."""
    if importlib.util.find_spec(contender.needs) is None:
        return "not installed"
    allowed = open_files.raise_limit()
    if connections + SPARE_FILES > allowed:
        return f"needs {connections + SPARE_FILES:,} open files, `ulimit -Hn` allows {allowed:,}"
    return ""


def measure(name: str, contender: str, options: Options, **numbers: Any) -> Any:
    chosen = contenders.CONTENDERS[contender]
    if reason := unable_because(chosen, numbers.get("others", numbers.get("count", 0))):
        return {"skipped": reason}
    if name == "churn":
        return contenders.trio_loop().run(partial(churn.churn, options, **numbers))
    ours, floors = MEASURES[name]
    if contender == FLOOR:
        return floors(options, **numbers)
    loop, opened = chosen.loop(), chosen.open
    assert opened is not None

    async def main() -> Any:
        async with opened(options) as stream:
            return await ours(stream, loop, **numbers)

    return loop.run(main)


def main() -> None:
    task = json.loads(sys.argv[1])
    cpu = task.pop("cpu")
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    options = Options(**task.pop("options"))
    print(json.dumps(measure(options=options, **task)))


if __name__ == "__main__":
    main()
