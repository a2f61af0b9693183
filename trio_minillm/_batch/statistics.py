"""How a batch is doing, in memory that does not grow with it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal

import msgspec

from .._types.cost import CostResolution, add
from .throttle.rate_limits import Reason
from .types import Attempt, BatchResult

_RATIO = 1.02
"""Values closer than this to each other are counted together: a percentile is at most 1 % off."""
_SMALLEST = 1e-6


class Distribution:
    """A histogram with logarithmic steps, from a microsecond on."""

    def __init__(self) -> None:
        self.count = 0
        self._steps: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self._steps[round(math.log(max(seconds, _SMALLEST)) / _STEP)] += 1

    def percentile(self, percent: float) -> float | None:
        """The value below which so many are; ``None`` for none at all."""
        wanted = max(1, math.ceil(self.count * percent / 100))
        for step in sorted(self._steps):
            wanted -= self._steps[step]
            if wanted <= 0:
                return math.exp(step * _STEP)
        return None


_STEP = math.log(_RATIO)


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch was doing when this was read: a copy. Times are in seconds, money in USD."""

    total: int | None = None
    """How many results there will be at most, where the requests have a length."""
    pulled: int = 0
    """How many were taken from the input (samples counted each)."""
    ok: int = 0
    failed: int = 0
    """Results with an error, or with an answer that is not what was asked for."""
    cached: int = 0
    """Those of the ``ok`` that came from the cache."""
    running: int = 0
    waiting: dict[Reason, int] = msgspec.field(default_factory=dict)
    """How many were pulled and are not running, by what they wait for."""
    unsent: int = 0
    """How many were pulled and dropped without a result when the run was stopped."""
    attempts: int = 0
    retries: int = 0
    """Attempts after a first one."""
    rate_limited: int = 0
    """Attempts that were refused for their rate (429)."""
    chunks: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    """What all attempts cost, where it is known."""
    resolutions: dict[CostResolution, int] = msgspec.field(default_factory=dict)
    """How many attempts' costs have each; refused ones are not counted."""
    ttft_p50: float | None = None
    """From sending to the first content, of answers that finished."""
    ttft_p99: float | None = None
    elapsed: float = 0.0
    concurrency: int = 0
    """How many may run at once by now."""

    @property
    def done(self) -> int:
        """How many have a result."""
        return self.ok + self.failed


class Counters:
    """The sums behind `BatchStatistics`."""

    def __init__(self) -> None:
        self.pulled = self.ok = self.failed = self.cached = self.unsent = 0
        self.attempts = self.retries = self.rate_limited = 0
        self.chunks = self.prompt_tokens = self.completion_tokens = 0
        self.cost = Decimal(0)
        self.resolutions: Counter[CostResolution] = Counter()
        self.ttft = Distribution()

    def attempt(self, attempt: Attempt, number: int) -> None:
        """An attempt has ended, the ``number``-th of its request."""
        self.attempts += 1
        self.retries += number > 1
        self.rate_limited += attempt.kind == "rate_limit"
        self.chunks += attempt.timings.chunks
        usage = attempt.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens or 0
            self.completion_tokens += usage.completion_tokens or 0
        if attempt.cost.amount is not None:
            self.cost = add(self.cost, attempt.cost.amount)
        if attempt.error is None:
            first = attempt.timings.first_chunk
            if first is not None:
                self.ttft.add(first)
        if attempt.status is None or usage is not None:
            self.resolutions[attempt.cost.resolution] += 1

    def result(self, result: BatchResult) -> None:
        """A result is there."""
        if result.ok:
            self.ok += 1
            self.cached += result.cached
        else:
            self.failed += 1

    def read(self, **more: object) -> BatchStatistics:
        """A copy, with what others know."""
        return BatchStatistics(
            pulled=self.pulled,
            ok=self.ok,
            failed=self.failed,
            cached=self.cached,
            unsent=self.unsent,
            attempts=self.attempts,
            retries=self.retries,
            rate_limited=self.rate_limited,
            chunks=self.chunks,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost=self.cost,
            resolutions=dict(self.resolutions),
            ttft_p50=self.ttft.percentile(50),
            ttft_p99=self.ttft.percentile(99),
            **more,  # type: ignore[arg-type]  # of the same struct
        )
