"""A benchmark's plan: what is sent, when, and by how many processes. Values only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec.structs import replace

from .._types.messages import Message
from .._types.options import Timeouts
from .prompts.prompt import Prompt
from .search import Over

if TYPE_CHECKING:
    from .figures.objective import Objective

__all__ = [
    "Closed",
    "Course",
    "Load",
    "Open",
    "Plan",
    "Ramp",
    "Trace",
    "part_of",
    "parts_of",
    "requests_by_default",
]

CONCURRENCY = 10
"""Streams at once by default."""
REQUESTS = 100
"""Requests by default: few enough to cost cents."""
WAVES = 4
"""Requests for each stream of a closed loop by default, if that is more than `REQUESTS`: with fewer, most
of the time goes by before all streams run, and after some have ended."""


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


def requests_by_default(load: Load) -> int:
    """Return the number of requests of a run whose end nobody has set."""
    if isinstance(load, Trace):
        return len(load.offsets)
    return max(REQUESTS, WAVES * load.concurrency) if isinstance(load, Closed) else REQUESTS


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one run, under one load."""

    prompts: tuple[Prompt, ...]
    """Prompts, sent in turn: the n-th request has the n-th of them, and after the last the first again."""
    load: Load = Closed()
    requests: int | None = REQUESTS
    """Requests in all, each turn of a conversation counted; ``None`` is as many as ``duration`` allows."""
    duration: float | None = None
    """Seconds after which no more requests start."""
    warmup: int = 0
    """Requests before those that count."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Parameters of every request, by the names of `trio_minillm.Params`, with ``extra``."""
    system: Message | None = None
    """The system message of every request that has none of its own."""
    think: float = 0.0
    """Seconds between the end of an answer and the next turn of its conversation."""
    timeouts: Timeouts = Timeouts()
    attempts: int = 1
    """Requests in all for one answer."""
    seed: int = 0
    """Seed of all that is drawn: arrivals, synthetic prompts, resamples."""
    steady: bool = False
    """True if the figures are to be those of the steady state alone, if there is one."""
    part: tuple[int, int] = (0, 1)
    """``(i, n)``: this process sends the i-th of every n requests."""

    def __post_init__(self) -> None:
        if self.requests is None and self.duration is None and not isinstance(self.load, Trace):
            raise ValueError("a run needs a number of requests or a duration")


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The plans of one command, in order."""

    plans: tuple[Plan, ...]
    """One for each load. A search begins with the only one."""
    objective: Objective | None = None
    """The objective of a search."""
    over: Over = "rate"
    """The number that a search changes."""
    precision: float = 0.05
    """Width of the interval at which a search ends, as a share of the load."""


def parts_of(plan: Plan, processes: int) -> Sequence[Plan]:
    """Return what each of several processes has to send: together it is the plan.

    There are fewer than ``processes`` if some would have nothing to do.
    """
    most: float | None = plan.load.concurrency
    wanted = (math.inf if number is None else number for number in (most, plan.requests))
    n = int(max(1, min(processes, *wanted)))
    return [replace(plan, load=_share(plan.load, i, n), part=(i, n)) for i in range(n)]


def _share(load: Load, i: int, n: int) -> Load:
    """Return a load with the i-th part of its streams at once. Its times stay those of all."""
    if load.concurrency is None:
        return load
    return replace(load, concurrency=load.concurrency // n + (i < load.concurrency % n))


def part_of(total: int, part: tuple[int, int]) -> int:
    """Return how many of so many requests this part of them is."""
    i, n = part
    return max(0, -((i - total) // n))
