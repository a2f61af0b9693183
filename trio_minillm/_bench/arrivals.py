"""The times at which a load wants its requests to start. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .plan import Load, Open, Ramp, Trace


def offsets(load: Load, seed: int) -> Iterator[float]:
    """Yield the seconds after the beginning at which the requests of an open loop start, in order.

    The same seed gives the same times. Raises ``TypeError`` for a closed loop, which has none.
    """
    if isinstance(load, Trace):
        yield from load.offsets
    elif isinstance(load, Open):
        at, draw = 0.0, random.Random(seed)
        while True:
            yield at
            at += _gap(draw, load.burstiness) / load.rate
    elif isinstance(load, Ramp):
        at, draw = 0.0, random.Random(seed)
        while True:
            yield at
            share = min(1.0, at / load.seconds)
            at += _gap(draw, load.burstiness) / (load.first + share * (load.last - load.first))
    else:
        raise TypeError("a closed loop has no times of its own")


def _gap(draw: random.Random, burstiness: float | None) -> float:
    """Return a time between two arrivals whose mean is 1."""
    if burstiness is None:
        return 1.0
    return draw.gammavariate(burstiness, 1 / burstiness)
