"""Options of a batch by name, and the same checked and with their defaults."""

from __future__ import annotations

import math
import os
from typing import Any, Literal, TypedDict, get_args

import msgspec

from .._types.checks import check_count
from .._types.options import Limits, Retry, Timeouts
from .files.response_cache import ResponseCache
from .scoring import Score, Validate
from .throttle.rate_limits import Adapt, Rates
from .trace import TraceTarget

MAX_CONCURRENCY = 1_000
"""Most requests at once where the number is searched for, unless the caller says otherwise."""


class BatchOptions(TypedDict, total=False):
    """Arguments of `Client.batch` by name. ``None`` stands for the default throughout."""

    concurrency: int | Literal["auto"]
    """Requests that run at once: a number, for all models together; or ``"auto"`` (the default), which
    searches for the best number for each endpoint, key and model."""
    max_concurrency: int | None
    """Most requests at once that ``"auto"`` tries, for all models together; 1,000 unless set."""
    adapt: Adapt
    """Control that follows what the servers accept: ``"rate+concurrency"`` (the default) learns limits
    from headers and refusals, and pauses for a server that is down; ``"concurrency"`` leaves the rates
    alone; ``"off"`` does nothing but keep the numbers that are given, of which ``concurrency`` must be
    one, and the waits between attempts."""
    requests_per_minute: float | None
    """Limit for each endpoint, key and model; requests are spread evenly over the minute."""
    tokens_per_minute: float | None
    """Input and output together, for each endpoint, key and model."""
    limits: Limits | None
    """Limits on the run's cost in USD and on its tokens; reaching one ends the run."""
    retry: Retry | None
    """Attempts for each request, and the waits between them; by default 6, up to a minute apart."""
    retry_share: float
    """Retries that the run may make, as a share of its requests (1.0), beside an allowance for many
    that fail at once. Refusals for rate or load do not count."""
    deadline: float | None
    """Seconds that a request may take from its first attempt's start, waits included."""
    timeouts: Timeouts | None
    """Clocks of each attempt; the total one is 600 s unless set."""
    lenient: bool
    """Events whose text or calls can't be read are passed over, and counted on the response."""
    ordered: bool
    """Results in the order of the requests, instead of as they come."""
    window: int | None
    """Requests that may be open with ``ordered``, which is how far a slow one may be overtaken. By
    default twice as many as run at once, and 1,000 at least."""
    buffer: int
    """Results that are kept for a slow consumer (100); beyond that no more requests are sent."""
    samples: int
    """Answers that are asked for each request (1)."""
    cache: ResponseCache | None
    """Cache in which answers are looked up before anything is sent, and stored. An answer from it
    takes no part in rates and limits."""
    validate: Validate | None
    """Function of a result with a whole answer, async or not, which raises ``ValueError`` (or an error of
    msgspec's) for one that won't do: that is the result's ``invalid``. Any other exception ends the
    run. `validate_schema` is one."""
    retries_invalid: int
    """Times that an invalid answer is asked again (0), with the answer and what is wrong with it as
    further turns. Each is an attempt as any other: it counts for costs, limits and the deadline, but
    not for ``retry``. The last answer becomes the result, valid or not."""
    trace: TraceTarget | None
    """Log of the control's decisions: a file, which is written anew with a line of JSON for each
    `TraceEvent`, or a function that is called with each. An exception of either ends the run."""
    score: Score | None
    """Function of a result, async or not, that returns its ``score``. An exception ends the run. The
    request counts as running until the function has returned."""


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a batch, checked and with their defaults; see `BatchOptions`."""

    concurrency: int | Literal["auto"] = "auto"
    max_concurrency: int | None = None
    adapt: Adapt = "rate+concurrency"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    limits: Limits | None = None
    retry: Retry | None = None
    retry_share: float = 1.0
    deadline: float | None = None
    timeouts: Timeouts | None = None
    lenient: bool = False
    ordered: bool = False
    window: int | None = None
    buffer: int = 100
    samples: int = 1
    cache: ResponseCache | None = None
    validate: Validate | None = None
    retries_invalid: int = 0
    trace: TraceTarget | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        if self.concurrency != "auto":
            check_count("concurrency", self.concurrency)
        if self.adapt not in get_args(Adapt):
            raise ValueError(f"adapt must be one of {', '.join(map(repr, get_args(Adapt)))}")
        if self.adapt == "off" and self.concurrency == "auto":
            raise ValueError("with adapt='off', concurrency must be a number")
        for name in ("max_concurrency", "window"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("requests_per_minute", "tokens_per_minute", "deadline"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a number above 0")
        if not (_is_number(self.retry_share) and 0 <= self.retry_share < math.inf):
            raise ValueError("retry_share must be a number, 0 or more")
        for name in ("buffer", "samples"):
            check_count(name, getattr(self, name))
        kinds: dict[str, type] = {"limits": Limits, "retry": Retry, "timeouts": Timeouts}
        kinds["cache"] = ResponseCache
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}")
        if type(self.retries_invalid) is not int or self.retries_invalid < 0:
            raise ValueError("retries_invalid must be a whole number, 0 or more")
        for name in ("validate", "score"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a function")
        trace = self.trace
        if trace is not None and not (isinstance(trace, str | os.PathLike) or callable(trace)):
            raise TypeError("trace must be a path or a function")

    @property
    def capacity(self) -> int:
        """Requests that may run at once, over all lanes."""
        if self.concurrency != "auto":
            return self.concurrency
        return self.max_concurrency or MAX_CONCURRENCY

    @property
    def searched(self) -> int | None:
        """Most requests at once that a lane's search may find; ``None`` if there is no search."""
        return self.capacity if self.concurrency == "auto" else None

    @property
    def rates(self) -> Rates:
        """Limits per minute of each lane."""
        return Rates(self.requests_per_minute, self.tokens_per_minute)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def settings_from(options: BatchOptions) -> BatchSettings:
    """Return the options checked and with their defaults.

    Raises ``TypeError`` for an unknown one, ``ValueError`` for a wrong value.
    """
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    return BatchSettings(**given)
