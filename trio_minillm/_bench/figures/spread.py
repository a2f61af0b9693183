"""The summary of a set of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

QUANTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9}
"""Percentiles that are told of each set, by name: the nearest rank, which is a value that was observed."""

Values = NDArray[np.float64]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds (or other numbers), summed up. All are None if there is no value."""

    count: int
    mean: float | None = None
    std: float | None = None
    """Standard deviation of the sample; None for fewer than two values."""
    min: float | None = None
    max: float | None = None
    percentiles: dict[str, float] = {}
    """The values at `QUANTILES`, by name."""
    intervals: dict[str, tuple[float, float]] = {}
    """Bounds of the mean and of percentiles at 95 % confidence, by their names."""

    def at(self, name: str) -> float | None:
        """Return the figure of this name: ``mean``, ``std``, ``min``, ``max``, ``p50`` …"""
        if name in QUANTILES:
            return self.percentiles.get(name)
        found: float | None = getattr(self, name)
        return found


def spread_of(values: Sequence[float] | Values) -> Spread:
    """Return the summary of these values."""
    found = np.sort(np.asarray(values, dtype=np.float64))
    if not found.size:
        return Spread(count=0)
    return Spread(
        count=int(found.size),
        mean=float(found.mean()),
        std=float(found.std(ddof=1)) if found.size > 1 else None,
        min=float(found[0]),
        max=float(found[-1]),
        percentiles={name: nearest(found, percent) for name, percent in QUANTILES.items()},
    )


def nearest(ordered: Values, percent: float) -> float:
    """Return the smallest value such that at least ``percent`` of all are not above it."""
    rank = max(1, int(np.ceil(round(percent * ordered.size / 100, 9))))
    return float(ordered[rank - 1])


def fields_of(spread: Spread) -> dict[str, Any]:
    """Return a summary for JSON: the percentiles stand beside the mean."""
    names = ("count", "mean", "std", "min")
    return {
        **{name: getattr(spread, name) for name in names},
        **{name: spread.percentiles.get(name) for name in QUANTILES},
        "max": spread.max,
        "intervals": spread.intervals,
    }
