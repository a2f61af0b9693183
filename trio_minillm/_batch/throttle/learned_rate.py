"""Rates: token buckets, what a provider's headers say of its limits, and what refusals teach.

Pure: every method is told the time, in seconds of any steady clock. Rates are per second
inside; users and providers speak of minutes.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

BURST_SECONDS = 0.25
"""How much of its rate a bucket may save up: enough to make up for a late wake-up, too little to
cross a provider's window by more than half a percent."""
SHORTEST = 1e-5
"""The shortest wait, in seconds: shorter ones may not change a clock's reading."""
MARGIN = 0.99
"""The share of a given rate that is used: the way to the server is not equally long for all
requests, so some arrive closer together than they were sent."""


class Bucket:
    """A token bucket. Its level may be below zero: what was sent is sent."""

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self.level = capacity
        self._at = now

    @classmethod
    def of(cls, per_minute: float, now: float) -> Bucket:
        """For a limit that a user gives, spread evenly."""
        rate = per_minute * MARGIN / 60.0
        return cls(rate, max(1.0, rate * BURST_SECONDS), now)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self.level = min(self.capacity, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` may be taken; 0 for now. More than the bucket can ever hold may
        be taken from a full one, and is made good afterwards.
        """
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        if missing <= 1e-9:
            return 0.0
        return max(missing / self.rate, SHORTEST) if self.rate > 0 else math.inf

    def take(self, amount: float, now: float) -> None:
        """Take it; a negative amount gives back."""
        self._refill(now)
        self.level = min(self.capacity, self.level - amount)

    def set(self, now: float, *, rate: float, capacity: float, level: float | None = None) -> None:
        """Change it while it runs. Without ``level``, what was saved up or owed stays."""
        self._refill(now)
        self.rate, self.capacity = rate, capacity
        self.level = min(capacity, self.level if level is None else level)


# -- what headers say ----------------------------------------------------------------------------

Unit = Literal["requests", "tokens"]


class Limit(NamedTuple):
    """One rate limit as a provider's headers state it; ``None`` for what they leave out."""

    unit: Unit
    limit: float | None
    remaining: float
    reset: float | None
    """Seconds until it is whole again."""


def _rows(pattern: str) -> tuple[tuple[Unit, str, str, str], ...]:
    units: tuple[Unit, Unit] = ("requests", "tokens")
    words = ("limit", "remaining", "reset")
    names = {unit: [pattern.format(unit=unit, word=word) for word in words] for unit in units}
    return tuple((unit, names[unit][0], names[unit][1], names[unit][2]) for unit in units)


_FAMILIES: dict[str, tuple[tuple[Unit, str, str, str], ...]] = {
    "openai": _rows("x-ratelimit-{word}-{unit}"),
    "anthropic": _rows("anthropic-ratelimit-{unit}-{word}"),
    "plain": (("requests", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),),
}
"""Names of headers by custom: OpenAI's (Azure, Groq, Mistral, …), Anthropic's, and the old plain
ones (OpenRouter)."""


def family_of(headers: Mapping[str, str]) -> str | None:
    """Whose custom these headers follow, if they name limits at all."""
    for name, rows in _FAMILIES.items():
        if any(row[2] in headers for row in rows):
            return name
    return None


def limits_in(headers: Mapping[str, str], family: str, *, epoch: float) -> list[Limit]:
    """The limits that a response's headers (names in lower case) state; what makes no sense is
    passed over. ``epoch``: the time of day, in seconds.
    """
    found = []
    for unit, limit, remaining, reset in _FAMILIES[family]:
        left = _number(headers.get(remaining))
        if left is not None:
            until = seconds_until(headers.get(reset, ""), epoch=epoch)
            found.append(Limit(unit, _number(headers.get(limit)), left, until))
    return found


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None


_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def seconds_until(text: str, *, epoch: float) -> float | None:
    """Seconds from ``epoch`` until a reset: a duration (``6m0s``, ``120ms``), a date
    (RFC 3339), a number of seconds, or a time of day in seconds or milliseconds.
    """
    text = text.strip()[:64]
    number = _number(text)
    if number is not None:
        if number > 1e11:
            number /= 1000.0
        return max(0.0, number - epoch) if number > 1e9 else number
    parts = _DURATION.fullmatch(text)
    if text and parts is not None:
        return sum(float(n) * s for n, s in zip(parts.groups(), _SECONDS, strict=True) if n)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - epoch)


class StatedLimit:
    """A provider's own bucket, as its headers let it be known. Idle until they have."""

    def __init__(self, now: float) -> None:
        self.bucket = Bucket(0.0, math.inf, now)
        self._newest = -1.0

    def sync(self, stated: Limit, now: float, *, sent_at: float, since: float) -> None:
        """Take over what a response stated. ``sent_at`` is when its request was sent, and
        ``since`` how much was sent after it, which the server had not counted then.
        """
        if sent_at < self._newest:
            return  # a newer request's answer was here first
        self._newest = sent_at
        rate, capacity = self.bucket.rate, max(stated.remaining, 1.0)
        if stated.limit:
            capacity = max(stated.limit, 1.0)
            rate = stated.limit / 60.0
            if stated.reset is not None and stated.reset > 60.0:  # a limit for a day, say
                rate = (stated.limit - stated.remaining) / stated.reset
        elif stated.reset:
            rate = max(rate, 1.0 / stated.reset)
        rate = max(rate, 1.0 / 60.0)  # it is asked again, whatever was misunderstood
        self.bucket.set(now, rate=rate, capacity=capacity, level=stated.remaining - since)


# -- what refusals teach ---------------------------------------------------------------------------

SPAN = 60.0
"""Seconds over which a limit is estimated: providers count by the minute."""
SWING = 0.04
"""How far below the estimated limit a rate begins after a refusal, as a share of it; it comes
as far above it again in twice the time that it takes to be back at it."""
BACK_SECONDS, BACK_REQUESTS, BACK_LONGEST = 10.0, 100, 60.0
"""How long it takes to be back at the limit: so many seconds, and so many requests, but at most a
minute. Each way up ends with a refusal or two; this keeps them at one in a hundred."""
DROP = 0.25
"""What a refusal leaves of a rate of which nothing is known yet, within a second of the first: what
was saved up at the server lets through many times its rate before."""
HELD_SECONDS, HELD, HELD_LONG = 2.0, 5, 100
"""For how long a rate must have been fine, in seconds and requests, to count as evidence of its own
if it is near the estimate; and for how many requests, if it is not."""
HELD_SHARE = 0.95
"""What a refusal leaves of such a rate."""
DRY_SECONDS = 5.0
"""A pause after a refusal from which on it is one of a server that counts by the minute."""
ENOUGH = 20
"""Requests in a minute from which on their number says something."""
FIRST = 1.0
"""The least that is tried after the first refusal, in requests a second: it may have been the very
first request's, and about that one alone."""
LEAST = 1.0 / 60.0
"""The lowest rate, in requests a second: a minute's silence shows no more."""


class LearnedRate:
    """A provider's limit, learned from its refusals; unlimited until the first.

    A refusal says: at this moment nothing is left. So what was accepted between two of them is
    what the provider allows in that time. Where it then accepts nothing for long, it counts by
    the minute, and what it had accepted in that minute is the limit. From a little below that
    estimate the rate rises along a cubic curve (as TCP CUBIC's window): flat around the estimate,
    and ever faster beyond, so that it finds a limit that has been raised. It rises only with
    requests that are accepted: time in which nothing was asked proves nothing.
    """

    def __init__(self, now: float) -> None:
        self._empty: deque[tuple[float, int]] = deque(maxlen=256)  # when nothing was left
        self._seconds: deque[list[int]] = deque(maxlen=int(SPAN) + 1)  # [second, accepted in it]
        self._estimate: float | None = None
        self._by_minute = False
        self._swing = SWING
        self._back = BACK_SECONDS
        self._rising = 0.0  # seconds since the cut, as far as they were used
        self._cut_at = self._started = self._accepted_at = now
        self._last_at = now
        self._accepted = self._accepted_before = 0
        self.bucket = Bucket(math.inf, math.inf, now)

    @property
    def active(self) -> bool:
        """Whether anything was refused yet."""
        return self._estimate is not None

    def accepted(self, now: float) -> None:
        """A request was accepted."""
        if self._estimate is not None:
            last = self._last_at
            dry = now - max(last, self._cut_at) >= DRY_SECONDS
            if dry and self._cut_at > last - DRY_SECONDS:
                counted = self._in_last_minute(max(last, self._cut_at))
                if counted >= ENOUGH:
                    self._by_minute = True
                    self._cut(now, counted / SPAN)
            self._rising += min(now - self._accepted_at, 2.0 / self.bucket.rate)
            self._set(now)
        self._accepted += 1
        self._accepted_at = self._last_at = now
        if self._seconds and self._seconds[-1][0] == int(now):
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([int(now), 1])

    def refused(self, now: float, pending: int = 0) -> None:
        """A request that was sent after the last refusal had come was refused, too. So many others
        have no answer yet: sent before it, they are taken for accepted (see `also_refused`).
        """
        empty, so_far = self._empty, self._accepted + pending
        while len(empty) > 1 and now - empty[1][0] >= SPAN:
            empty.popleft()
        seconds, count = (now - empty[0][0], so_far - empty[0][1]) if empty else (0.0, 0)
        empty.append((now, so_far))
        if self._estimate is None:
            known = self._accepted / max(now - self._started, 1.0)
            self._cut(now, max(FIRST, known * DROP), 0.5, 2.0)
        elif self._by_minute:
            self._cut(now, self._held(now, self._in_last_minute(now) / SPAN))
        elif seconds < 1.0:
            self._cut(now, self._estimate * DROP, 0.5, 2.0)
        else:
            found, swing = count / seconds, min(0.5, max(SWING, max(count, 1) ** -0.5))
            held = self._held(now, found)
            self._cut(now, held, swing if held == found else SWING, seconds)
        self._accepted_before = self._accepted

    def also_refused(self) -> None:
        """One of those that had no answer at the last refusal has met with one itself."""
        if self._empty:
            at, so_far = self._empty[-1]
            self._empty[-1] = at, so_far - 1

    def wait(self, now: float) -> float:
        """Seconds until another request may be sent."""
        return 0.0 if self._estimate is None else self.bucket.wait(1.0, now)

    def _held(self, now: float, found: float) -> float:
        """A rate that was fine for a while, if that is better than what was ``found``. A server
        that lets nothing be saved up refuses for a small jolt.
        """
        many = self._accepted - self._accepted_before
        if many < HELD or now - self._cut_at < HELD_SECONDS:
            return found
        held = HELD_SHARE * self.bucket.rate
        return held if found < held and (many >= HELD_LONG or held < 1.5 * found) else found

    def _in_last_minute(self, now: float) -> int:
        return sum(count for second, count in self._seconds if second > now - SPAN)

    def _cut(self, now: float, rate: float, swing: float = SWING, back: float = math.inf) -> None:
        """Begin again, a little below this rate; ``back`` is how sure it is, in seconds."""
        self._estimate = max(rate, LEAST)
        self._swing = swing
        slow = max(BACK_SECONDS, BACK_REQUESTS / self._estimate)
        self._back = min(slow, BACK_LONGEST, max(2.0, back))
        self._cut_at = self._accepted_at = now
        self._rising = 0.0
        self._set(now, level=0.0)

    def _set(self, now: float, level: float | None = None) -> None:
        assert self._estimate is not None
        x = self._rising / self._back - 1.0
        rate = self._estimate * (1.0 + self._swing * x**3)
        self.bucket.set(now, rate=rate, capacity=max(1.0, rate * BURST_SECONDS), level=level)
