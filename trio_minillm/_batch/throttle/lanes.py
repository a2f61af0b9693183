"""What may be sent when: one lane for each endpoint, key and model. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from ..._types.errors import MiniLLMError, ProviderError, RefusedError, SendError, StreamTimeout
from .concurrency import ConcurrencyLimit
from .learned_rate import Bucket, LearnedRate, StatedLimit, family_of, limits_in
from .retry import asked_to_wait

Reason: TypeAlias = Literal["concurrency", "requests", "tokens", "pause", "retry"]
"""What a request waits for: others to end; requests or tokens per minute; a server that is down
or refuses everything; or its own next attempt."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""How long a lane stands still after its second failure in a row, in seconds; twice as long each
time, up to the longest, or as long as the server asks."""
UNTOLD_PAUSE = 8.0
"""The longest pause after a refusal for its rate that does not say when to come back: a window
of a minute is then missed by little."""

PROBES = 0.01
"""The share of a stated limit that may be spent on asking whether it is still used up."""
LOOK_FIRST, LOOK_EVERY = 8, 256
"""Whose headers are read while none has named a limit: the first, and every so many."""


class Rates(msgspec.Struct, frozen=True):
    """Limits that the user gives, for each lane; per minute."""

    requests: float | None = None
    tokens: float | None = None


HOPELESS = 120.0
"""Seconds after which an address is given up at which nobody ever answered, neither with a refusal: a
wrong one would hold a run of thousands up for hours."""


class Ticket(msgspec.Struct, gc=False):
    """What a lane knows of a request that it let go."""

    sent_at: float
    number: int
    tokens: float
    tokens_before: float
    """Tokens that the lane had sent by then, with these."""
    guess: float = 0.0
    """What they were taken for, before it was known how far such guesses are from the truth."""
    accepted: bool = False


class Lane:
    """One endpoint, key and model: what is under way there, and whether more may be.

    After two failures in a row that speak of the server (refused for rate, overloaded, unreachable)
    without an answer between them, the lane pauses, and then lets single requests go until one is
    accepted. A failure counts once for all requests that were under way when it came.
    """

    def __init__(self, now: float, rates: Rates, adaptive: ConcurrencyLimit | None) -> None:
        self.adaptive = adaptive
        self.in_flight = 0
        self._sent = 0
        self._tokens_sent = 0.0
        self._guessed = self._used = (
            0.0  # of the newest answers: tokens by our count, and by theirs
        )
        self._pending = 0  # sent, and neither accepted nor refused yet
        self._tokens_pending = 0.0
        self._given: dict[Reason, Bucket] = {}
        self._stated: dict[Reason, StatedLimit] = {}
        self._learned = LearnedRate(now)
        self._family: str | None = None
        self._reset_at = -math.inf  # when the provider's window ends, as far as it says
        self._failed_at = -math.inf
        self._strikes = 0
        self._answers = False
        self._began_to_fail = math.inf
        self._paused_until = -math.inf
        self._pause = 0.0
        self.counts_tokens = False
        """Whether it matters how many tokens a request has."""
        self.change(rates, now)

    def change(self, rates: Rates, now: float) -> None:
        """Other rates of the user's, while it runs."""
        pairs: tuple[tuple[Reason, float | None], ...]
        pairs = ("requests", rates.requests), ("tokens", rates.tokens)
        for reason, per_minute in pairs:
            if per_minute is None:
                self._given.pop(reason, None)
                continue
            new = Bucket.of(per_minute, now)
            if reason in self._given:
                self._given[reason].set(now, rate=new.rate, capacity=new.capacity)
            else:
                self._given[reason] = new
        self.counts_tokens = "tokens" in self._given or "tokens" in self._stated

    # -- before ------------------------------------------------------------------------------

    def blocked(self, now: float, tokens: float) -> tuple[Reason, float] | None:
        """Why nothing may be sent now, and in how many seconds to ask again (infinity: when
        something has ended); ``None`` if it may.
        """
        if self.adaptive is not None and self.in_flight >= self.adaptive.limit:
            return "concurrency", math.inf
        if self._paused_until > now:
            return "pause", self._paused_until - now
        tokens *= self._truth()
        longest, reason = self._learned.wait(now), "requests"
        for name, bucket in self._given.items():
            wait = bucket.wait(tokens if name == "tokens" else 1.0, now)
            if wait > longest:
                longest, reason = wait, name
        for name, mirror in self._stated.items():
            wait = mirror.bucket.wait(tokens if name == "tokens" else 1.0, now)
            if wait > longest:
                longest, reason = wait, name
        return (reason, longest) if longest > 0 else None  # type: ignore[return-value]

    def start(self, now: float, tokens: float) -> Ticket:
        """A request is sent, with about so many tokens."""
        guess, tokens = tokens, tokens * self._truth()
        self.in_flight += 1
        self._sent += 1
        self._tokens_sent += tokens
        self._pending += 1
        self._tokens_pending += tokens
        if self._strikes >= 2:  # one at a time, until one is accepted
            self._paused_until = now + self._pause
        if self._learned.active:
            self._learned.bucket.take(1.0, now)
        for name, bucket in self._given.items():
            bucket.take(tokens if name == "tokens" else 1.0, now)
        for name, mirror in self._stated.items():
            mirror.bucket.take(tokens if name == "tokens" else 1.0, now)
        return Ticket(now, self._sent, tokens, self._tokens_sent, guess)

    def hopeless(self, now: float) -> bool:
        """Whether nobody has ever answered there, for as long as is worth trying."""
        return not self._answers and now - self._began_to_fail >= HOPELESS

    def _truth(self) -> float:
        """What the newest answers took, as a share of what had been guessed."""
        return self._used / self._guessed if self._guessed > 0 else 1.0

    # -- after -------------------------------------------------------------------------------

    def accepted(self, ticket: Ticket, now: float) -> None:
        """The server has begun to answer."""
        if not ticket.accepted:
            ticket.accepted = self._answers = True
            self._learned.accepted(now)
            self._pending -= 1
            self._tokens_pending -= ticket.tokens
            if ticket.sent_at >= self._failed_at:
                self._strikes = 0
                self._paused_until = -math.inf

    @property
    def wants_headers(self) -> bool:
        """Whether the headers of the next answer are worth reading: where the server names no
        limits, few are.
        """
        return self._family is not None or not self._sent % LOOK_EVERY or self._sent <= LOOK_FIRST

    def read(self, ticket: Ticket, now: float, headers: Mapping[str, str], *, epoch: float) -> None:
        """Learn from the headers of a response (names in lower case)."""
        family = self._family = self._family or family_of(headers)
        if family is None:
            return
        for limit in limits_in(headers, family, epoch=epoch):
            mirror = self._stated.get(limit.unit)
            if mirror is None:
                mirror = self._stated[limit.unit] = StatedLimit(now)
                self.counts_tokens = self.counts_tokens or limit.unit == "tokens"
            if limit.unit == "tokens":
                since = min(self._tokens_sent - ticket.tokens_before, self._tokens_pending)
            else:
                since = min(self._sent - ticket.number, self._pending)
            if limit.unit == "requests" and limit.reset is not None:
                self._reset_at = now + limit.reset
            mirror.sync(limit, now, sent_at=ticket.sent_at, since=since)

    def ended(
        self, ticket: Ticket, now: float, *, error: MiniLLMError | None, tokens: int | None
    ) -> None:
        """It is over. ``tokens`` is what it really came to, if that is known."""
        if error is None:
            self.accepted(ticket, now)
        self._leave(ticket)
        if error is None:
            if self.adaptive is not None:
                self.adaptive.finished(now, self.in_flight + 1)
        elif not ticket.accepted or _speaks_of_load(error):
            self._failed(ticket, now, error)
        # Whatever else it may say, a refusal is an answer, and so is a stream that broke.
        self._answers = self._answers or not isinstance(error, SendError)
        if error is None and tokens is not None:
            self._guessed = 0.95 * self._guessed + ticket.guess
            self._used = 0.95 * self._used + tokens
        bucket = self._given.get("tokens")
        if bucket is not None:
            used = tokens if tokens is not None else 0.0 if not ticket.accepted else ticket.tokens
            bucket.take(used - ticket.tokens, now)

    def dropped(self, ticket: Ticket) -> None:
        """It was cancelled: that says nothing of the server."""
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        if not ticket.accepted:
            self._pending -= 1
            self._tokens_pending -= ticket.tokens

    def _failed(self, ticket: Ticket, now: float, error: MiniLLMError) -> None:
        load = _speaks_of_load(error)
        if isinstance(error, RefusedError):  # it was not counted
            for name, mirror in self._stated.items():
                mirror.bucket.take(-ticket.tokens if name == "tokens" else -1.0, now)
        if not load and not isinstance(error, SendError):
            return
        by_rate = isinstance(error, RefusedError) and error.kind == "rate_limit"
        if ticket.sent_at < self._failed_at:  # it was under way when that failure came
            if by_rate:
                self._learned.also_refused()
            return
        self._failed_at = now
        self._strikes += 1
        self._began_to_fail = min(self._began_to_fail, now)
        if self._strikes >= 2:
            asked = asked_to_wait(error)
            longest = LONGEST_PAUSE
            if by_rate and asked is None:
                told = min(self._reset_at - now, LONGEST_PAUSE, self._probes_apart())
                longest = max(UNTOLD_PAUSE, told)
            pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._strikes - 2, 16))
            self._pause = min(max(pause, asked or 0.0), LONGEST_PAUSE)
            self._paused_until = now + self._pause
        if by_rate:
            known = self._learned.active
            if self._strikes < 2 or not known:
                self._learned.refused(now, self._pending)
            if known:
                return  # the rate is what limits, and not how many run at once
        if load and self.adaptive is not None:
            self.adaptive.overloaded(now, self.in_flight + 1)

    def _probes_apart(self) -> float:
        """Seconds between requests that may all be refused, so that they are few beside the limit
        that is stated. (The reset is when it is whole again: some may be sent long before.)
        """
        mirror = self._stated.get("requests")
        return math.inf if mirror is None else 1.0 / (PROBES * mirror.bucket.rate)


def _speaks_of_load(error: MiniLLMError) -> bool:
    """Whether a failure is a sign that the server has too much to do."""
    if isinstance(error, RefusedError | ProviderError):
        return error.kind in ("rate_limit", "overloaded", "timeout")
    return isinstance(error, StreamTimeout)
