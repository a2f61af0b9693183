"""Intervals of confidence by the bootstrap, in bounded time. Pure.

Whole requests are drawn, with replacement, and all values of a request with it: the chunks of one answer
resemble each other, so that drawing each by itself would give intervals that are too narrow. Requests are
taken to be independent of each other. Those that waited in the same queue are not; there the true
intervals are wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_REQUESTS = 20
"""Requests below which no interval is told."""
SAMPLES = 500
"""Samples that are drawn."""
MAX_GROUPS = 400
"""Groups of requests that are drawn. More requests than that are dealt out to so many groups, by numbers
that have no pattern: prompts that take turns must not fill a group each."""
STEPS = 128
"""Places about each percentile, within `WIDTH` standard errors of it, at which it may be found in a
sample."""
WIDTH = 6.0
CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2


def groups_of(requests: NDArray[np.integer[Any]], count: int) -> NDArray[np.int64]:
    """Return the group of each of these requests, of which there are ``count`` in all."""
    if count <= MAX_GROUPS:
        return requests.astype(np.int64)
    mixed = requests.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(32)) % np.uint64(MAX_GROUPS)).astype(np.int64)


class Resampling:
    """The draws of a bootstrap, which all distributions of a run share. The same seed gives the same."""

    def __init__(self, requests: int, seed: int = 0) -> None:
        self.requests = requests
        self.seed = seed

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The times that each group (the columns) is in each sample (the rows)."""
        groups = min(self.requests, MAX_GROUPS)
        draw = np.random.default_rng(self.seed)
        return draw.multinomial(groups, np.full(groups, 1 / groups), SAMPLES).astype(np.float64)


def intervals_of(
    values: NDArray[np.float64],
    sizes: NDArray[np.float64],
    groups: NDArray[np.int64],
    shares: Mapping[str, float],
    resampling: Resampling,
) -> dict[str, tuple[float, float]]:
    """Return the bounds of the ``mean`` and of the percentiles at these ``shares``, by name.

    ``values`` are sorted; ``sizes`` says how many each stands for, ``groups`` what is drawn with it.
    A percentile has an interval if there are enough values for its upper bound to be below the largest
    one: n such that ``share ** n`` is at most 2.5 %, which is 368 for p99.
    """
    if np.count_nonzero(np.bincount(groups)) < MIN_REQUESTS:
        return {}
    weights = resampling.weights
    ends = _bins(np.cumsum(sizes), tuple(shares.values()), resampling.requests)
    bins = np.zeros(values.size, dtype=np.int64)
    bins[ends[:-1] + 1] = 1
    np.cumsum(bins, out=bins)
    shape = (weights.shape[1], ends.size)
    counts = np.bincount(groups * ends.size + bins, sizes, shape[0] * shape[1]).reshape(shape)
    sums = np.bincount(groups, sizes * values, shape[0])
    ranks = (weights @ counts).cumsum(axis=1)
    some = ranks[:, -1] > 0  # a sample may hold none, of a kind of content that few answers have
    ranks, total = ranks[some], float(sizes.sum())
    drawn = ranks[:, -1]
    found = {"mean": _bounds((weights @ sums)[some] / drawn)}
    for name, share in shares.items():
        if total * np.log(share) <= np.log(TAIL):
            places = (ranks < (share * drawn * (1 - 1e-12))[:, None]).sum(axis=1)
            found[name] = _bounds(values[ends[np.minimum(places, ends.size - 1)]])
    return found


def _bins(
    ranks: NDArray[np.float64], shares: tuple[float, ...], requests: int
) -> NDArray[np.int64]:
    """Return the places at which the bins end, narrow where a percentile can be."""
    last = ranks.size - 1
    if last < STEPS * len(shares):
        return np.arange(last + 1)
    wanted = [np.array([0.0, 1.0])]
    for share in shares:
        error = WIDTH * np.sqrt(share * (1 - share) / requests)
        wanted.append(np.linspace(max(0.0, share - error), min(1.0, share + error), STEPS))
    places = np.searchsorted(ranks, np.concatenate(wanted) * ranks[-1])
    return np.unique(np.append(np.minimum(places, last), last))


def _bounds(found: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(found, [TAIL, 1 - TAIL], method="nearest")
    return float(low), float(high)
