"""Percentiles of millions of times in bounded memory. Pure."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from itertools import repeat
from typing import Any

EXACT = 4_096
"""Values up to which a histogram keeps each one. Beyond that it counts them in buckets."""
GROWTH = 1.02
"""Width of a bucket: the upper end, as a multiple of the lower one."""
ERROR = 0.01
"""Relative error of a percentile out of buckets (more exactly √`GROWTH` - 1)."""
LEAST, MOST = 1e-6, 1e6
"""Seconds of the first bucket's end and of the last one's. Shorter times read as 0, longer ones are
counted in the last bucket: 1,397 buckets in all."""
PERCENTILES = (50, 90, 99)
"""Percentiles of a `Histogram.summary`."""

_LOG_GROWTH = math.log(GROWTH)


def _bucket(value: float) -> int:
    if value < LEAST:
        return 0
    return 1 + int(math.log(min(value, MOST) / LEAST) / _LOG_GROWTH)


def _middle(bucket: int) -> float:
    return LEAST * GROWTH ** (bucket - 0.5) if bucket else 0.0


class Histogram:
    """Times in seconds, any number of them, in bounded memory.

    A percentile is the nearest rank: the smallest value such that at least that share of all
    values is not above it. It is exact up to `EXACT` values, and from then on within `ERROR` of
    itself (or `LEAST` seconds). Count, mean, least and most are always exact.
    """

    __slots__ = ("_buckets", "_counted", "_least", "_most", "_total", "_values")

    def __init__(self) -> None:
        self._values = array("d")  # those that are in no bucket yet: a new one is only added here
        self._buckets: Counter[int] | None = None
        # Of those in buckets:
        self._counted = 0
        self._total = 0.0
        self._least = math.inf
        self._most = 0.0

    @property
    def exact(self) -> bool:
        """True as long as percentiles are exact."""
        return self._buckets is None

    @property
    def count(self) -> int:
        """The number of values."""
        return self._counted + len(self._values)

    @property
    def total(self) -> float:
        """The sum of all values."""
        return sum(self._values, self._total)

    @property
    def least(self) -> float:
        """The least value, infinity if there is none."""
        return min(self._least, min(self._values, default=math.inf))

    @property
    def most(self) -> float:
        """The greatest value, 0 if there is none."""
        return max(self._most, max(self._values, default=0.0))

    def add(self, value: float) -> None:
        """Count a time, which is 0 or more."""
        values = self._values
        values.append(value)
        if len(values) > EXACT:
            self._in_buckets()

    def add_times(self, value: float, times: int) -> None:
        """Count a time, which is 0 or more, so many times."""
        if self._buckets is None and self.count + times <= EXACT:
            self._values.extend(repeat(value, times))
        elif times:
            self._in_buckets()[_bucket(value)] += times
            self._note(times, value * times, value, value)

    def merge(self, other: Histogram) -> None:
        """Count all values of another histogram, which is not changed."""
        if self.exact and other.exact and self.count + other.count <= EXACT:
            self._values.extend(other._values)
        elif other.count:
            buckets = self._in_buckets()
            buckets.update(map(_bucket, other._values))
            buckets.update(other._buckets or ())
            self._note(other.count, other.total, other.least, other.most)

    def _in_buckets(self) -> Counter[int]:
        """Put the values that are in no bucket yet into theirs."""
        values = self._values
        if self._buckets is None:
            self._buckets = Counter()
        if values:
            self._values = array("d")
            self._buckets.update(map(_bucket, values))
            self._note(len(values), sum(values), min(values), max(values))
        return self._buckets

    def _note(self, count: int, total: float, least: float, most: float) -> None:
        self._counted += count
        self._total += total
        self._least = min(self._least, least)
        self._most = max(self._most, most)

    def percentiles(self, *wanted: int) -> list[float | None]:
        """Return the values at these percentages, which must rise; ``None`` each if there is no
        value at all.
        """
        if not self.count:
            return [None] * len(wanted)
        ranks = [max(1, -(-percent * self.count // 100)) for percent in wanted]
        if self._buckets is None:
            values = sorted(self._values)
            return [values[rank - 1] for rank in ranks]
        found: list[float | None] = []
        buckets, below = iter(sorted(self._in_buckets().items())), 0
        middle = 0.0
        for rank in ranks:
            while below < rank:
                bucket, count = next(buckets)
                below += count
                middle = _middle(bucket)
            found.append(self._most if rank == self._counted else max(self._least, middle))
        return [min(value, self._most) for value in found if value is not None]

    def summary(self) -> dict[str, Any]:
        """Return the figures in JSON's types; ``None`` where there is no value at all."""
        names = [f"p{percent}" for percent in PERCENTILES]
        return {
            "count": self.count,
            "mean": self.total / self.count if self.count else None,
            **dict(zip(names, self.percentiles(*PERCENTILES), strict=True)),
            "max": self.most if self.count else None,
            "relative_error": 0.0 if self.exact else ERROR,
        }
