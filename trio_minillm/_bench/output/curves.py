"""The curves of which a report's plots are drawn: made of records as they come, in bounded memory. Pure."""

from __future__ import annotations

import random
from array import array
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..figures.gaps import Gaps
from ..figures.request import FIGURES
from ..record import MEASURED, Record

MAX_STEPS = 2_000
"""Points of a curve of shares, and of a cloud of first contents."""
MAX_STREAMS = 500
"""Streams of a timeline: a sample of all, which is told."""
MAX_LOADS = 100
"""Loads of which curves are kept."""
ECDFS = ("ttft", "itl", "e2e")
"""Distributions that are drawn as curves of shares."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One request in the timeline, in seconds since the load's first request was due."""

    number: int
    scheduled: float
    sent: float
    first: float | None
    ended: float
    outcome: str


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """The curves of one load."""

    ecdf: dict[str, tuple[list[float], list[float]]]
    """Values in rising order, with the share of all that are not above each."""
    starts: list[float]
    """Seconds from the beginning to the start of each answer in ``ttft``."""
    ttft: list[float]
    """Times to the first content, in the order of their starts."""
    streams: list[Stream]
    """Requests in the order of their starts: a sample of ``streams_of``."""
    streams_of: int


class CurveMaker:
    """Takes the records of all loads. A request takes some 20 bytes, until its load has ended."""

    def __init__(self) -> None:
        self.made: dict[int, Curves] = {}
        """The curves of each load that has ended, by its number."""
        self._number = 0
        self._draw = random.Random(0)
        self._begin()

    def add(self, number: int, record: Record) -> None:
        """Take a record of the load with this number. Those of one load come together."""
        if number != self._number:
            self.finish()
            self._number = number
        if record.phase != MEASURED:
            return
        self._sample(record)
        if record.whole:
            self._gaps.add(record.stamps, [])
            for name, values in self._columns.items():
                value = FIGURES[name](record)
                values.append(np.nan if value is None else value)
            self._starts.append(record.sent)

    def finish(self) -> None:
        """Make the curves of the load that has ended."""
        if self._seen and len(self.made) < MAX_LOADS:
            self.made[self._number] = self._curves()
        self._begin()

    def _begin(self) -> None:
        self._columns = {name: array("d") for name in ECDFS if name != "itl"}
        self._starts = array("d")
        self._gaps = Gaps()
        self._streams: list[Record] = []
        self._seen = 0
        self._began = np.inf

    def _sample(self, record: Record) -> None:
        """Keep the request, or let chance decide which one is kept in place of another."""
        self._seen += 1
        self._began = min(self._began, record.scheduled, record.sent)
        if len(self._streams) < MAX_STREAMS:
            self._streams.append(record)
        elif (place := self._draw.randrange(self._seen)) < MAX_STREAMS:
            self._streams[place] = record

    def _curves(self) -> Curves:
        began = self._began
        gaps = self._gaps.by_chunk()
        ecdf = {
            name: _ecdf(
                *(gaps.values, gaps.weights) if name == "itl" else _plain(self._columns[name])
            )
            for name in ECDFS
        }
        starts, ttft = np.array(self._starts), np.array(self._columns["ttft"])
        order = np.argsort(starts)
        order = order[~np.isnan(ttft[order])]
        order = order[_picked(order.size)]
        return Curves(
            ecdf=ecdf,
            starts=_rounded(starts[order] - began),
            ttft=_rounded(ttft[order]),
            streams=[_stream(r, began) for r in sorted(self._streams, key=lambda r: r.sent)],
            streams_of=self._seen,
        )


def _stream(record: Record, began: float) -> Stream:
    return Stream(
        number=record.number,
        scheduled=round(record.scheduled - began, 6),
        sent=round(record.sent - began, 6),
        first=None if record.first is None else round(record.first - began, 6),
        ended=round(record.ended - began, 6),
        outcome=str(record.outcome),
    )


def _plain(column: array[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.array(column)
    return values, np.ones(values.size)


def _ecdf(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Return values in rising order and the share of all that are not above each: of many, the extremes
    and some that are evenly spaced.
    """
    there = ~np.isnan(values)
    values, weights = values[there], weights[there]
    if not values.size:
        return [], []
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order])
    shares /= shares[-1]
    picked = _picked(order.size)
    return _rounded(values[order][picked]), _rounded(shares[picked])


def _picked(count: int) -> NDArray[np.int64]:
    """Return places of at most `MAX_STEPS` of so many: the first and the last, and the tail in full."""
    if count <= MAX_STEPS:
        return np.arange(count)
    tail = np.arange(count - MAX_STEPS // 4, count)
    body = np.linspace(0, count - tail.size - 1, MAX_STEPS - tail.size)
    return np.append(np.round(body).astype(np.int64), tail)


def _rounded(values: Any) -> list[float]:
    """Return numbers with six digits behind the point, which is a microsecond."""
    found: list[float] = np.round(values, 6).tolist()
    return found
