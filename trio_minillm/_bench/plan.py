"""A benchmark's plan: what is sent, when, and by how many processes. Values only."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .._types.messages import Message
from .._types.options import Timeouts
from .prompts.prompt import Prompt

__all__ = ["Closed", "Load", "Open", "Plan", "Ramp", "Trace"]

CONCURRENCY = 10
"""Streams at once by default."""
REQUESTS = 100
"""Requests by default: few enough to cost cents."""


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """A closed loop: a request starts when another one ends."""

    concurrency: int = CONCURRENCY
    """Streams at once."""


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """An open loop: requests start at a rate, whatever became of earlier ones."""

    rate: float
    """Requests a second, in the mean."""
    burstiness: float | None = None
    """Shape of the gamma distribution of the times between arrivals: 1 is a Poisson process, less is
    burstier, more is more regular; ``None`` is a constant rate."""
    concurrency: int | None = None
    """Streams at once, at most: what comes beyond waits for its turn, which is part of its latency."""


class Ramp(msgspec.Struct, frozen=True, kw_only=True, tag="ramp"):
    """An open loop whose rate rises or falls linearly, and then stays."""

    first: float
    """Requests a second at the beginning."""
    last: float
    """Requests a second at the end of the ramp, and from then on."""
    seconds: float
    """Length of the ramp."""
    burstiness: float | None = None
    """As for `Open`."""
    concurrency: int | None = None
    """As for `Open`."""


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag="trace"):
    """An open loop whose requests start at given times."""

    offsets: tuple[float, ...]
    """Seconds after the beginning, in order."""
    concurrency: int | None = None
    """As for `Open`."""


Load: TypeAlias = Closed | Open | Ramp | Trace


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one run, under one load."""

    prompts: tuple[Prompt, ...]
    """Prompts, sent in turn: the n-th request has the n-th of them, and after the last the first again."""
    load: Load = Closed()
    requests: int | None = REQUESTS
    """Requests in all; ``None`` is as many as ``duration`` allows."""
    duration: float | None = None
    """Seconds after which no more requests start."""
    warmup: int = 0
    """Requests before those that count."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Parameters of every request, by the names of `trio_minillm.Params`, with ``extra``."""
    system: Message | None = None
    """The system message of every request."""
    timeouts: Timeouts = Timeouts()
    attempts: int = 1
    """Requests in all for one answer."""
    seed: int = 0
    """Seed of all that is drawn: arrivals, synthetic prompts, resamples."""
    part: tuple[int, int] = (0, 1)
    """``(i, n)``: this process sends the i-th of every n requests."""
