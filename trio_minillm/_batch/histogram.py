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

    __slots__ = ("_buckets", "_values", "count", "least", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.most = 0.0
        self._values = array("d")
        self._buckets: Counter[int] | None = None

    @property
    def exact(self) -> bool:
        """True as long as percentiles are exact."""
        return self._buckets is None

    def add(self, value: float, times: int = 1) -> None:
        """Count a time, which is 0 or more, so many times."""
        if not times:
            return
        self.count += times
        self.total += value if times == 1 else value * times
        if value < self.least:
            self.least = value
        if value > self.most:
            self.most = value
        if self._buckets is not None:
            self._buckets[_bucket(value)] += times
        elif times == 1 and self.count <= EXACT:
            self._values.append(value)
        elif self.count <= EXACT and self._buckets is None:
            self._values.extend(repeat(value, times))
        else:
            self._in_buckets()[_bucket(value)] += times

    def merge(self, other: Histogram) -> None:
        """Count all values of another histogram, which is not changed."""
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        if self.count <= EXACT and self._buckets is None and other._buckets is None:
            self._values.extend(other._values)
        else:
            more = map(_bucket, other._values) if other._buckets is None else other._buckets
            self._in_buckets().update(more)

    def _in_buckets(self) -> Counter[int]:
        if self._buckets is None:
            self._buckets = Counter(map(_bucket, self._values))
            self._values = array("d")
        return self._buckets

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
        buckets, below = iter(sorted(self._buckets.items())), 0
        middle = 0.0
        for rank in ranks:
            while below < rank:
                bucket, count = next(buckets)
                below += count
                middle = _middle(bucket)
            found.append(self.most if rank == self.count else max(self.least, middle))
        return [min(value, self.most) for value in found if value is not None]

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
