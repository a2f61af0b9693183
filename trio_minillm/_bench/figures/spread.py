"""The summary of a set of numbers, with intervals of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .intervals import Resampling, intervals_of

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
    """Bounds of the mean and of percentiles at 95 % confidence, by their names: those for which there are
    enough values."""
    estimated: bool = False
    """True if the values rest on an assumption: `Figures` says which."""
    relative_error: float = 0.0
    """The percentiles are within this share of themselves; 0 is exact."""

    def at(self, name: str) -> float | None:
        """Return the figure of this name: ``mean``, ``std``, ``min``, ``max``, ``p50`` …"""
        if name in QUANTILES:
            return self.percentiles.get(name)
        found: float | None = getattr(self, name)
        return found


def spread_of(
    values: Sequence[float] | NDArray[np.floating[Any]],
    weights: NDArray[np.floating[Any]] | None = None,
    *,
    resampling: Resampling | None = None,
    groups: NDArray[np.int64] | None = None,
    **told: Any,
) -> Spread:
    """Return the summary of these values.

    A value with a weight of n counts as n of them; NaN is no value. ``resampling`` gives intervals, for
    which ``groups`` has the number of what is drawn with each value. ``told`` are further fields.
    """
    found = np.asarray(values, dtype=np.float64)
    sizes = np.ones(found.size) if weights is None else np.asarray(weights, dtype=np.float64)
    there = np.flatnonzero(~np.isnan(found) & (sizes > 0))
    if not there.size:
        return Spread(count=0, **told)
    order = there[np.argsort(found[there], kind="stable")]
    found, sizes = found[order], sizes[order]
    ranks = np.cumsum(sizes)
    total = float(ranks[-1])
    mean = float(found @ sizes) / total
    variance = float(((found - mean) ** 2) @ sizes) / (total - 1) if total > 1 else None
    shares = {name: share / 100 for name, share in QUANTILES.items()}
    intervals: dict[str, tuple[float, float]] = {}
    if resampling is not None and groups is not None:
        intervals = intervals_of(found, sizes, groups[order], shares, resampling)
    return Spread(
        **{
            "count": round(total),
            "mean": mean,
            "std": None if variance is None else float(np.sqrt(variance)),
            "min": float(found[0]),
            "max": float(found[-1]),
            "percentiles": {name: _at(found, ranks, share) for name, share in shares.items()},
            "intervals": intervals,
            **told,
        }
    )


def _at(found: Values, ranks: Values, share: float) -> float:
    """Return the smallest value such that at least that share of all are not above it."""
    place = np.searchsorted(ranks, share * ranks[-1] * (1 - 1e-12))
    return float(found[min(int(place), found.size - 1)])


def fields_of(spread: Spread) -> dict[str, Any]:
    """Return a summary for JSON: the percentiles stand beside the mean."""
    names = ("count", "mean", "std", "min")
    return {
        **{name: getattr(spread, name) for name in names},
        **{name: spread.percentiles.get(name) for name in QUANTILES},
        "max": spread.max,
        "intervals": spread.intervals,
        "estimated": spread.estimated,
        "relative_error": spread.relative_error,
    }
