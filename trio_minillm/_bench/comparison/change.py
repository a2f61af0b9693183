"""The change of a figure between two sides, and the bounds within which it lies. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..figures.spread import QUANTILES
from .sides import Floats, Sample

RESAMPLES = 2_000
"""Resamples of a bootstrap, at most."""
LEAST_RESAMPLES = 200
MAX_WORK = 40_000_000
"""Values times resamples of one figure: what bounds its time to a second or two."""
MAX_VALUES = MAX_WORK // LEAST_RESAMPLES
"""Values of which percentiles are resampled; of more, evenly spaced ones."""
LEAST_REQUESTS = 10
"""Requests of a side, at least, for an interval to be told."""
CONFIDENCE = 0.95
Z = 1.96
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's quantiles for 2, 3, … 10 runs."""

Verdict = Literal["better", "worse", "same", "unknown"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one side, and its standard error if that is known."""

    value: float | None
    error: float | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure on both sides."""

    name: str
    """Such as ``ttft.p99``, ``requests_per_second`` or ``failed``."""
    base: float | None
    new: float | None
    ratio: float | None = None
    """The new value as a multiple of the base's; None if that is 0 or not known."""
    ratio_interval: tuple[float, float] | None = None
    """Bounds of the ratio at 95 % confidence; None if they are not known."""
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    """For shares: bounds of the difference at 95 % confidence."""
    verdict: Verdict = "unknown"
    """``better`` or ``worse`` if the interval says so, ``same`` if it does not exclude that nothing has
    changed."""


def change_of(
    name: str,
    base: float | None,
    new: float | None,
    interval: tuple[float, float] | None,
    *,
    share: bool,
    more_is_better: bool,
) -> Change:
    """Return a change with this interval: of the difference for a ``share``, otherwise of the ratio."""
    known = base is not None and new is not None
    ratio = new / base if known and base else None  # type: ignore[operator]
    nothing = 0.0 if share else 1.0
    verdict: Verdict = "unknown"
    if interval is not None:
        low, high = interval
        verdict = "same"
        if low > nothing or high < nothing:
            verdict = "better" if (low > nothing) == more_is_better else "worse"
    return Change(
        name=name,
        base=base,
        new=new,
        ratio=ratio,
        ratio_interval=None if share else interval,
        difference=new - base if known else None,  # type: ignore[operator]
        difference_interval=interval if share else None,
        verdict=verdict,
    )


# -- from summaries --------------------------------------------------------------------------


def estimate_of(values: Sequence[float | None], errors: Sequence[float | None]) -> Estimate:
    """Return the mean of the values of several runs, with the larger of the errors within the runs and
    between them.
    """
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return Estimate(value=None)
    count, mean = len(there), math.fsum(there) / len(there)
    found = []
    if all(error is not None for error in errors):
        found.append(math.sqrt(math.fsum(e**2 for e in errors if e is not None)) / count)
    if count > 1:
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in there) / (count - 1) / count)
        found.append(spread * (T[count - 2] if count - 2 < len(T) else Z) / Z)
    return Estimate(value=mean, error=max(found, default=None))


def ratio_interval(base: Estimate, new: Estimate) -> tuple[float, float] | None:
    """Return the bounds of the ratio of two independent estimates, from their logarithms."""
    if not base.value or not new.value or base.error is None or new.error is None:
        return None
    if base.value < 0 or new.value < 0:
        return None
    middle = math.log(new.value / base.value)
    half = Z * math.hypot(base.error / base.value, new.error / new.value)
    return math.exp(middle - half), math.exp(middle + half)


def share_interval(base: tuple[int, int], new: tuple[int, int]) -> tuple[float, float] | None:
    """Return the bounds of the difference of two shares, each given as so many of so many
    (Agresti and Caffo: one more of either kind on each side).
    """
    if not base[1] or not new[1]:
        return None
    (p, n), (q, m) = (((k + 1) / (of + 2), of + 2) for k, of in (base, new))
    half = Z * math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    return q - p - half, q - p + half


# -- from requests ---------------------------------------------------------------------------


class Paired:
    """A bootstrap in which both sides draw the same prompts, so that what a prompt costs is the same on
    both: with several runs of a side, runs are drawn too.
    """

    def __init__(self, base: Sequence[Sample], new: Sequence[Sample], seed: int = 0) -> None:
        self._sides = base, new
        self._numbers = np.unique(np.concatenate([np.array(s.numbers) for s in (*base, *new)]))
        self._seed = seed

    def intervals(self, name: str) -> dict[str, tuple[float, float]]:
        """Return the bounds of the ratios of a distribution's mean and percentiles, by their names: those
        for which there are enough requests.
        """
        sides = [[sample.values(name) for sample in side] for side in self._sides]
        if min(sum(np.unique(o).size for _, o in side) for side in sides) < LEAST_REQUESTS:
            return {}
        fewest = min(sum(values.size for values, _ in side) for side in sides)
        names = ["mean", *(which for which in QUANTILES if _enough(which, fewest))]
        base, new = self._drawn(sides, names)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(base == 0, np.inf, new / base)
        found = {which: _bounds(ratios[:, n]) for n, which in enumerate(names)}
        return {which: bounds for which, bounds in found.items() if bounds is not None}

    def failed(self) -> tuple[float, float] | None:
        """Return the bounds of the difference of the shares of failed requests."""
        sides = [
            [(np.array(s.failed), np.array(s.numbers, dtype=np.int64)) for s in side]
            for side in self._sides
        ]
        base, new = self._drawn(sides, ["mean"])
        return _bounds(new[:, 0] - base[:, 0])

    def _drawn(
        self, sides: list[list[tuple[Floats, NDArray[np.int64]]]], names: list[str]
    ) -> tuple[Floats, Floats]:
        """Return the figures of these names on both sides, with a row for each resample."""
        parts = [_Part(side, self._numbers) for side in sides]
        count = self._numbers.size
        most = max(part.size for part in parts) + count
        draws = int(np.clip(MAX_WORK // most, LEAST_RESAMPLES, RESAMPLES))
        random = np.random.default_rng(self._seed)
        base, new = np.empty((2, draws, len(names)))
        for row in range(draws):
            weights = np.bincount(random.integers(count, size=count), minlength=count)
            base[row], new[row] = (part.figures(names, weights, random) for part in parts)
        return base, new


class _Part:
    """The values of one side, in order, each with the request and the run that it is of."""

    def __init__(self, runs: list[tuple[Floats, NDArray[np.int64]]], numbers: Any) -> None:
        values = np.concatenate([values for values, _ in runs])
        owners = np.concatenate([owners for _, owners in runs])
        whose = np.repeat(np.arange(len(runs)), [values.size for values, _ in runs])
        order = np.argsort(values, kind="stable")
        if order.size > MAX_VALUES:
            order = order[np.linspace(0, order.size - 1, MAX_VALUES).round().astype(np.int64)]
        self.size = order.size
        self._runs = len(runs)
        self._values = values[order]
        self._places = np.searchsorted(numbers, owners[order])
        self._whose = whose[order]

    def figures(self, names: list[str], weights: Any, random: np.random.Generator) -> list[float]:
        """Return the figures with so many of each request, and runs drawn by chance; NaN if no value was
        drawn.
        """
        mine = weights[self._places].astype(np.float64)
        if self._runs > 1:
            drawn = np.bincount(random.integers(self._runs, size=self._runs), minlength=self._runs)
            mine *= drawn[self._whose]
        ranks = np.cumsum(mine)
        total = ranks[-1]
        if not total:
            return [math.nan] * len(names)
        found = []
        for name in names:
            if name == "mean":
                found.append(float(self._values @ mine / total))
            else:
                rank = QUANTILES[name] / 100 * total * (1 - 1e-12)
                place = int(np.searchsorted(ranks, rank))
                found.append(float(self._values[min(place, self.size - 1)]))
        return found


def _bounds(drawn: Floats) -> tuple[float, float] | None:
    """Return the bounds of what was drawn, without what has no value; None if there is no bound: some of it
    is a multiple of 0.
    """
    there = drawn[~np.isnan(drawn)]
    if not there.size or np.isinf(there).any():
        return None
    low, high = np.quantile(there, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _enough(which: str, count: int) -> bool:
    """Return whether a percentile of so many values has an upper bound below the largest one."""
    share = QUANTILES[which] / 100
    return bool(share**count <= (1 - CONFIDENCE) / 2)
