"""Counts of how a batch is doing, in memory that does not grow with it. Pure."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from .._types.cost import CostResolution
from .._types.money import add
from .histogram import Histogram
from .throttle.controls import Control
from .throttle.rate_limits import Reason
from .types import Attempt, BatchResult


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a batch when you read it: a copy. Times are in seconds, and money is in USD."""

    total: int | None = None
    """The largest possible number of results, if the length of the input is known."""
    pulled: int = 0
    """Requests read from the input; each sample counts."""
    ok: int = 0
    """Results with a complete and valid answer."""
    failed: int = 0
    """Results with an error, or with an invalid answer."""
    cached: int = 0
    """Results among ``ok`` that came from the cache."""
    running: int = 0
    """Requests that are running now."""
    waiting: dict[Reason, int] = msgspec.field(default_factory=dict)
    """Requests that were read and are not running, by what they wait for."""
    unsent: int = 0
    """Requests that were read, and dropped without a result when the run stopped."""
    attempts: int = 0
    """Requests that were sent, including retries."""
    retries: int = 0
    """Attempts after the first."""
    asked_again: int = 0
    """Invalid answers after which the model was asked again."""
    rate_limited: int = 0
    """Attempts that were refused because of a rate limit (HTTP 429)."""
    chunks: int = 0
    """Chunks with content in all attempts."""
    prompt_tokens: int = 0
    """Input tokens of all attempts, as far as they are known."""
    completion_tokens: int = 0
    """Output tokens of all attempts, as far as they are known."""
    cost: Decimal = Decimal(0)
    """Cost of all attempts in USD, as far as it is known."""
    resolutions: dict[CostResolution, int] = msgspec.field(default_factory=dict)
    """Attempts by the reliability of their cost; refused ones are not counted."""
    ttft_p50: float | None = None
    """Median time to first token, in seconds, of finished answers, accurate to 1 %."""
    ttft_p99: float | None = None
    """99th percentile of the time to first token, in seconds, of finished answers."""
    elapsed: float = 0.0
    """Seconds since the run started."""
    concurrency: int = 0
    """Requests that may run at the same time at present."""
    controls: tuple[Control, ...] = ()
    """Limits that are in force, for each endpoint, key, and model; ``str`` of one is a sentence."""
    newest_failure: Attempt | None = None
    """The newest attempt that failed, retried or not."""

    @property
    def done(self) -> int:
        """Requests that have a result."""
        return self.ok + self.failed


class Counters:
    """Running sums behind `BatchStatistics`. Its 15 attributes are one for each of them."""

    def __init__(self) -> None:
        self.pulled = self.ok = self.failed = self.cached = self.unsent = 0
        self.attempts = self.retries = self.rate_limited = self.asked_again = 0
        self.chunks = self.tokens = self.completion_tokens = 0
        self.cost = Decimal(0)
        # By the member's value: an enum's own hash is computed by a method written in Python.
        self._resolutions: dict[str, int] = {}
        self.ttft = Histogram()

    def add_attempt(self, attempt: Attempt, number: int, tokens: int | None) -> None:
        """Count an attempt that has ended, the ``number``-th of its request, which came to so many
        tokens.
        """
        self.attempts += 1
        if number > 1:
            self.retries += 1
        timings, cost = attempt.timings, attempt.cost
        self.chunks += timings.chunks
        if tokens is not None:
            assert attempt.usage is not None
            self.tokens += tokens
            self.completion_tokens += attempt.usage.completion_tokens or 0
        if cost.amount is not None:
            self.cost = add(self.cost, cost.amount)
        if attempt.error is None:
            if timings.first_chunk is not None:
                self.ttft.add(timings.first_chunk)
        else:
            self.rate_limited += attempt.kind == "rate_limit"
            if attempt.refused:
                return
        word, counts = cost.resolution._value_, self._resolutions
        counts[word] = counts.get(word, 0) + 1

    def add_result(self, result: BatchResult) -> None:
        """Count a result."""
        if result.response is not None and result.invalid is None:
            self.ok += 1
            self.cached += result.cached
        else:
            self.failed += 1

    def read(self, **more: object) -> BatchStatistics:
        """Return a copy, together with the figures that are kept elsewhere."""
        p50, p99 = self.ttft.percentiles(50, 99)
        return BatchStatistics(
            pulled=self.pulled,
            ok=self.ok,
            failed=self.failed,
            cached=self.cached,
            unsent=self.unsent,
            attempts=self.attempts,
            retries=self.retries,
            rate_limited=self.rate_limited,
            asked_again=self.asked_again,
            chunks=self.chunks,
            prompt_tokens=self.tokens - self.completion_tokens,
            completion_tokens=self.completion_tokens,
            cost=self.cost,
            resolutions={CostResolution(word): n for word, n in self._resolutions.items()},
            ttft_p50=p50,
            ttft_p99=p99,
            **more,  # type: ignore[arg-type]  # of the same struct
        )
