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
    """The keyword arguments of `Client.batch`. ``None`` means the default everywhere."""

    concurrency: int | Literal["auto"]
    """The number of requests that run at the same time, for all models together. ``"auto"``, the
    default, finds the best number for each endpoint, key, and model."""
    max_concurrency: int | None
    """The largest number that ``"auto"`` tries, for all models together; 1,000 by default."""
    adapt: Adapt
    """The way in which the batch adapts to the servers. ``"rate+concurrency"``, the default, learns
    limits from headers and refusals, and pauses while a server is down. ``"concurrency"`` leaves
    the rates alone. ``"off"`` keeps only the numbers that you set, of which ``concurrency`` must be
    one, and the waits between attempts."""
    requests_per_minute: float | None
    """The limit for each endpoint, key, and model. Requests are spread evenly over the minute."""
    tokens_per_minute: float | None
    """The limit for each endpoint, key, and model, for input and output together."""
    limits: Limits | None
    """Limits on the run's cost in USD and on its tokens. Reaching one ends the run."""
    retry: Retry | None
    """The attempts for each request, and the waits between them. The default is 6 attempts with
    waits of up to a minute."""
    retry_share: float
    """The number of retries that the run may make, as a share of its requests (1.0), in addition to
    an allowance for many requests that fail at once. Refusals for rate or load do not count."""
    deadline: float | None
    """The seconds that a request may take from the start of its first attempt, including waits."""
    timeouts: Timeouts | None
    """The clocks of each attempt. ``total`` is 600 seconds by default."""
    lenient: bool
    """True to skip and count events whose text or calls can't be read."""
    ordered: bool
    """True for results in the order of the requests, instead of as they arrive."""
    window: int | None
    """The number of requests that may be open with ``ordered``, which limits how far others get
    ahead of a slow one. The default is twice as many as run at the same time, and at least
    1,000."""
    buffer: int
    """The number of results that are kept for a slow consumer (100). Beyond it, no more requests
    are sent."""
    samples: int
    """The number of answers to each request (1)."""
    cache: ResponseCache | None
    """A cache in which answers are looked up before anything is sent, and stored. An answer from it
    does not count towards rates and limits."""
    validate: Validate | None
    """A function, async or not, that receives each result with a complete answer. It raises
    ``ValueError`` or an error of msgspec's to reject the answer; the error is the result's
    ``invalid``. Any other exception ends the run. `validate_schema` is such a function."""
    retries_invalid: int
    """The number of times to ask again after an invalid answer (0), with the answer and what is
    wrong with it as further messages. Each is a normal attempt: it counts towards costs, limits,
    and the deadline, but not towards ``retry``. The last answer becomes the result, valid or
    not."""
    trace: TraceTarget | None
    """A log of the batch's decisions: a file that is overwritten with a line of JSON for each
    `TraceEvent`, or a function that receives each event. An exception of the function ends the run.
    A file that can't be opened does so as well, but a later error of the file only ends the log."""
    score: Score | None
    """A function, async or not, that receives each result and returns its ``score``. An exception
    ends the run. The request counts as running until the function has returned."""


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
