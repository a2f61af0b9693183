"""What a batch can be told, by name, and what is taken where it is told nothing."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict

import msgspec

from .._types.options import Limits, Retry, Timeouts
from .files.response_cache import ResponseCache
from .scoring import Score
from .throttle.rate_limits import Rates

MAX_CONCURRENCY = 1_000
"""How many run at once at most where the number is found by trying, unless told otherwise."""


class BatchOptions(TypedDict, total=False):
    """What `Client.batch` takes by name. ``None`` stands for the default throughout."""

    concurrency: int | Literal["auto"]
    """How many run at once: a number, for all models together; or ``"auto"`` (the default), found
    by trying, for each endpoint, key and model."""
    max_concurrency: int | None
    """The most that ``"auto"`` tries, for all together; 1,000 unless set."""
    requests_per_minute: float | None
    """For each endpoint, key and model; spread evenly."""
    tokens_per_minute: float | None
    """Input and output together, for each endpoint, key and model."""
    limits: Limits | None
    """What the run may cost, in USD and in tokens; reaching it ends the run."""
    retry: Retry | None
    """Attempts for each request; by default 6, up to a minute apart."""
    retry_share: float
    """Retries that the run may make, as a share of its requests (0.2), beside an allowance for what
    fails all at once. Refusals for rate do not count."""
    deadline: float | None
    """Seconds that a request may take from its first attempt's start, waits included."""
    timeouts: Timeouts | None
    """The clocks of each attempt; the total one is 600 s unless set."""
    ordered: bool
    """Results in the order of the requests, instead of as they come."""
    window: int | None
    """How many requests may be open at once with ``ordered``: that far a slow one may be overtaken.
    By default twice as many as run at once, and 1,000 at least."""
    buffer: int
    """Results that are kept for a consumer who is slow (100); then no more requests are sent."""
    samples: int
    """Answers to each request."""
    cache: ResponseCache | None
    """Where answers are looked for before anything is sent, and kept. What is found takes no part in
    rates and limits."""
    score: Score | None
    """A function, async or not, that is given each result; what it returns is its ``score``. What
    it raises ends the run. The request counts as running until it has returned."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`BatchOptions`, checked, and with their defaults."""

    concurrency: int | Literal["auto"] = "auto"
    max_concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    limits: Limits | None = None
    retry: Retry | None = None
    retry_share: float = 0.2
    deadline: float | None = None
    timeouts: Timeouts | None = None
    ordered: bool = False
    window: int | None = None
    buffer: int = 100
    samples: int = 1
    cache: ResponseCache | None = None
    score: Score | None = None

    def __post_init__(self) -> None:
        if self.concurrency != "auto":
            check_count("concurrency", self.concurrency)
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
        if self.score is not None and not callable(self.score):
            raise TypeError("score must be a function")

    @property
    def capacity(self) -> int:
        """How many may run at once in all."""
        if self.concurrency != "auto":
            return self.concurrency
        return self.max_concurrency or MAX_CONCURRENCY

    @property
    def searched(self) -> int | None:
        """The most requests at once that a lane's search may find; ``None`` without a search."""
        return self.capacity if self.concurrency == "auto" else None

    @property
    def rates(self) -> Rates:
        """The user's rates."""
        return Rates(self.requests_per_minute, self.tokens_per_minute)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_count(name: str, value: object) -> None:
    """``ValueError`` unless it is a whole number from 1 on."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on")


def settings_of(options: BatchOptions) -> Settings:
    """Checked options. Raises ``TypeError`` for an unknown one, ``ValueError`` for a wrong one."""
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    return Settings(**given)
