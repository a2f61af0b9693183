"""The times at which a load wants its requests to start. Pure.

The n-th time depends on the load and the seed alone. Every random process is made of arrivals at the
mean rate of 1, which the load's cumulative rate then spreads over the time: so a ramp's are exact at any
rate, even 0, and nothing adds up to a drift.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import count

from .plan import Load, Open, Ramp, Trace


def offsets(load: Load, seed: int) -> Iterator[float]:
    """Yield the seconds after the beginning at which the requests of an open loop start, in order.

    The same seed gives the same times. A constant rate begins at once, a random process with a gap, as
    only then its counts are those of the process. A trace ends, and a ramp down to 0 may; the others
    don't. Raises ``TypeError`` for a closed loop, which has none.
    """
    if isinstance(load, Trace):
        yield from load.offsets
    elif isinstance(load, Open):
        for many in _unit_arrivals(load.burstiness, seed):
            yield many / load.rate
    elif isinstance(load, Ramp):
        for many in _unit_arrivals(load.burstiness, seed):
            if (at := _reached(load, many)) == math.inf:
                return
            yield at
    else:
        raise TypeError("a closed loop has no times of its own")


def expected(load: Open | Ramp, at: float) -> float:
    """Return the mean number of arrivals in the first ``at`` seconds."""
    if isinstance(load, Open):
        return load.rate * at
    within = min(at, load.seconds)
    slope = (load.last - load.first) / load.seconds
    return load.first * within + slope * within**2 / 2 + load.last * (at - within)


def _reached(load: Ramp, many: float) -> float:
    """Return the time at which `expected` reaches this number; infinity if it never does."""
    by_the_end = expected(load, load.seconds)
    if many <= by_the_end:
        slope = (load.last - load.first) / load.seconds
        # The root of first·t + slope·t²/2 = many that stays exact where the slope is near 0.
        root = math.sqrt(max(0.0, load.first**2 + 2 * slope * many))
        return 2 * many / (load.first + root) if many else 0.0
    return load.seconds + (many - by_the_end) / load.last if load.last else math.inf


def _unit_arrivals(burstiness: float | None, seed: int) -> Iterator[float]:
    """Yield arrivals at a mean rate of 1, in order."""
    if burstiness is None:
        yield from map(float, count())
        return
    draw, at = random.Random(f"arrivals {seed}"), 0.0
    while True:
        at += draw.gammavariate(burstiness, 1 / burstiness)
        yield at
