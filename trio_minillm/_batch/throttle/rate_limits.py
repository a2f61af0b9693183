"""The rate limits of one lane: the user's, the provider's stated ones, and the learned one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec

from .breaker import LONGEST_PAUSE
from .controls import ControlKind, ControlSource
from .learned_rate import LearnedRate
from .rate_headers import Unit, family_of, limits_in
from .token_bucket import MARGIN, StatedLimit, TokenBucket
from .window import SPAN

UNTOLD_PAUSE = 8.0
"""Seconds of the longest pause after refusals that don't say when to come back: the end of a
provider's window of a minute is then missed by little. Less for a window that was learned to be
shorter."""
PROBES = 0.01
"""Share of a stated limit that may be spent on finding out whether it is still used up."""

Reason: TypeAlias = Literal["concurrency", "requests", "tokens", "pause", "retry"]
"""Cause for which a request waits: others must end; the limit on requests or on tokens a minute;
a server that is down or refuses everything; the time of its own next attempt."""


Adapt: TypeAlias = Literal["rate+concurrency", "concurrency", "off"]
"""The control that follows what a server accepts: of the rate and the number at once, of the number
alone, or none."""


class Rates(msgspec.Struct, frozen=True):
    """Limits that the user gives, for each lane; per minute."""

    requests: float | None = None
    tokens: float | None = None


class RateLimits:
    """Limits on requests and tokens per minute, all of which must allow a request."""

    def __init__(self, now: float) -> None:
        self.learned = LearnedRate(now)
        self.family: str | None = None
        """The naming scheme of the server's headers (`family_of`), once one stated a limit."""
        self._given: dict[Unit, TokenBucket] = {}
        self._stated: dict[Unit, StatedLimit] = {}
        self._buckets: tuple[tuple[Unit, TokenBucket], ...] = ()  # all of both
        self._reset_at = -math.inf  # end of the provider's window of requests, if it says so

    def forget(self, now: float) -> None:
        """Forget what the server said of its limits, and what its refusals taught."""
        self.learned = LearnedRate(now)
        self.family = None
        self._stated.clear()
        self._collect()

    def change(self, rates: Rates, now: float) -> None:
        """Set the user's limits, also while the lane is in use."""
        pairs: tuple[tuple[Unit, float | None], ...]
        pairs = ("requests", rates.requests), ("tokens", rates.tokens)
        for unit, per_minute in pairs:
            if per_minute is None:
                self._given.pop(unit, None)
                continue
            new = TokenBucket.of(per_minute, now)
            if unit in self._given:
                self._given[unit].set(now, rate=new.rate, capacity=new.capacity)
            else:
                self._given[unit] = new
        self._collect()

    def _collect(self) -> None:
        buckets: list[tuple[Unit, TokenBucket]] = [*self._given.items()]
        for unit, limit in self._stated.items():
            buckets.append((unit, limit.bucket))
        self._buckets = tuple(buckets)

    def wait(self, tokens: float, now: float) -> tuple[Reason, float] | None:
        """Return the limit that holds a request of so many tokens back the longest, and the seconds
        that it does; ``None`` if it may be sent.
        """
        reason: Reason
        if self.untouched:
            return None
        longest, reason = self.learned.wait(now), "requests"
        for unit, bucket in self._buckets:
            wait = bucket.wait(tokens if unit == "tokens" else 1.0, now)
            if wait > longest:
                longest, reason = wait, unit
        return (reason, longest) if longest > 0 else None

    @property
    def untouched(self) -> bool:
        """True while there is no limit of any kind, and nothing was refused."""
        return self.learned.doubt.untouched and not self._buckets

    def in_force(self) -> Iterator[tuple[ControlKind, ControlSource, float]]:
        """Yield each limit: of what, from whom, and requests per second or tokens per minute."""
        if self.learned.active:
            yield "rate", "learned", self.learned.bucket.rate
        rates: list[tuple[Unit, ControlSource, float]] = []
        for unit, stated in self._stated.items():
            rates.append((unit, "stated", stated.bucket.rate))
        for unit, bucket in self._given.items():
            rates.append((unit, "set", bucket.rate / MARGIN))
        for unit, source, rate in rates:
            if unit == "tokens":
                yield "tokens", source, 60.0 * rate
            else:
                yield "rate", source, rate

    def take(self, tokens: float, now: float) -> None:
        """Count a request of so many tokens as sent."""
        if not self.learned.doubt.untouched:
            self.learned.take(now)
        for unit, bucket in self._buckets:
            bucket.take(tokens if unit == "tokens" else 1.0, now)

    def correct(self, tokens: float, now: float) -> None:
        """Take the tokens by which an answer took more than it was counted for (or give back)."""
        if self._given and (bucket := self._given.get("tokens")) is not None:
            bucket.take(tokens, now)

    def refused(self, tokens: float, now: float) -> None:
        """Give back a request of so many tokens, which the provider has not counted."""
        for unit, stated in self._stated.items():
            stated.bucket.take(-tokens if unit == "tokens" else -1.0, now)

    def read(
        self,
        headers: Mapping[str, str],
        now: float,
        *,
        epoch: float,
        sent_at: float,
        since: Mapping[Unit, float],
    ) -> None:
        """Learn from the headers of a response, whose names are in lower case.

        ``sent_at`` is when its request was sent, ``since`` what was sent after it, and ``epoch`` the
        time of day in seconds since 1970.
        """
        family = self.family = self.family or family_of(headers)
        if family is None:
            return
        for limit in limits_in(headers, family, epoch=epoch):
            stated = self._stated.get(limit.unit)
            if stated is None:
                stated = self._stated[limit.unit] = StatedLimit(now)
                self._collect()
            if limit.unit == "requests" and limit.reset is not None:
                self._reset_at = now + limit.reset
            stated.sync(limit, now, sent_at=sent_at, since=since[limit.unit])

    def longest_pause(self, now: float) -> float:
        """Return the seconds of the longest pause after refusals that don't say when to come back.

        That is the end of the provider's window, or as long as keeps requests that may be refused
        few beside the stated limit: some may be accepted long before the window ends.
        """
        stated = self._stated.get("requests")
        apart = math.inf if stated is None else 1.0 / (PROBES * stated.bucket.rate)
        untold = UNTOLD_PAUSE * (self.learned.window or SPAN) / SPAN
        return max(untold, min(self._reset_at - now, LONGEST_PAUSE, apart))
