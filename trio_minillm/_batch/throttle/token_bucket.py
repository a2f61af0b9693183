"""Token buckets: the limits that a user gives, and a copy of those that a provider states. Pure.

Every method takes the time, in seconds of any steady clock. Rates are per second here; users
and providers speak of minutes.
"""

from __future__ import annotations

import math

from .rate_headers import RateLimit

BURST_SECONDS = 0.25
"""Seconds of its rate that a bucket may save up: enough to make up for a late wake-up, too little
to cross a provider's window of a minute by more than half a percent."""
SHORTEST_WAIT = 1e-5
"""Seconds of the shortest wait: a shorter one may leave a clock's reading unchanged."""
MARGIN = 0.99
"""Share of a given rate that is used: requests take different times to reach the server, so some
arrive closer together than they were sent."""


class TokenBucket:
    """A token bucket whose level may be below zero, since what was sent can't be taken back."""

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self.level = capacity
        self._at = now

    @classmethod
    def of(cls, per_minute: float, now: float) -> TokenBucket:
        """Return a bucket for a limit that a user gives, spread evenly over the minute."""
        rate = per_minute * MARGIN / 60.0
        return cls(rate, max(1.0, rate * BURST_SECONDS), now)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until ``amount`` may be taken; 0 if it may be taken now.

        An amount above the capacity may be taken from a full bucket, and is made up for afterwards.
        """
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        if missing <= 1e-9:
            return 0.0
        return max(missing / self.rate, SHORTEST_WAIT) if self.rate > 0 else math.inf

    def take(self, amount: float, now: float) -> None:
        """Take an amount; a negative one is given back."""
        self._refill(now)
        self.level = min(self.capacity, self.level - amount)

    def set(self, now: float, *, rate: float, capacity: float, level: float | None = None) -> None:
        """Change the bucket while it is in use. Without ``level``, savings and debts stay."""
        self._refill(now)
        self.rate, self.capacity = rate, capacity
        self.level = min(capacity, self.level if level is None else level)


class StatedLimit:
    """A copy of a provider's own bucket, as its headers describe it; no limit until they do."""

    def __init__(self, now: float) -> None:
        self.bucket = TokenBucket(0.0, math.inf, now)
        self._newest = -1.0  # when the request was sent whose response counts

    def sync(self, stated: RateLimit, now: float, *, sent_at: float, since: float) -> None:
        """Take over what a response states.

        ``sent_at`` is when its request was sent; ``since`` is the amount that was sent after it,
        which the server had not counted yet. A response to an older request changes nothing.
        """
        if sent_at < self._newest:
            return
        self._newest = sent_at
        rate, capacity = self.bucket.rate, max(stated.remaining, 1.0)
        if stated.limit:
            capacity = max(stated.limit, 1.0)
            rate = stated.limit / 60.0
            if stated.reset is not None and stated.reset > 60.0:  # a limit for a day, say
                rate = (stated.limit - stated.remaining) / stated.reset
        elif stated.reset:
            rate = max(rate, 1.0 / stated.reset)
        rate = max(rate, 1.0 / 60.0)  # so that a misread header never stops a lane for good
        self.bucket.set(now, rate=rate, capacity=capacity, level=stated.remaining - since)
