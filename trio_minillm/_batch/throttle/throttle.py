"""The throttle of one lane, an endpoint with one key and one model: why a request waits. Pure.

`Lane.blocked` says why nothing may be sent now, and when to ask again. ``statistics().waiting`` counts
the requests that wait by its reasons; those that wait outside this folder count as ``concurrency``:

======================================  ===========================================================
a request waits for                     decided in
======================================  ===========================================================
one of those under way to end           `ConcurrencyLimit` and `AtOnce`, for the lane;
                                        ``Schedule.limit``, for all
                                        (at most ``MAX_CONCURRENCY`` unless the caller says more)
the server, which is down or refuses    `CircuitBreaker`
a limit on requests or tokens           `RateLimits`: the caller's, the server's, and a learned one
its next attempt                        ``retry.retry_delay``
any answer, or a sign of hope           `Prospects`
results to be read                      `Results.blocked`, outside this folder
being read from the input               `Run`, outside this folder
refusals that may be on their way       `WorkerPool`, which sends `BURST` at a time
======================================  ===========================================================

A lane hears of each event below, with the time. Its parts are asked in the order of the columns.

======================  ======================  ====================  ==============================
event                   `ConcurrencyLimit`      `CircuitBreaker`      `RateLimits`
======================  ======================  ====================  ==============================
start                   one more in flight      probing: pause        taken from each limit
accepted                                        closed                learned rate rises
headers                                                               stated limits are copied
ended: answer           throughput              closed                tokens corrected
ended: refused (429)    failure, if no rate is  failure               given back to stated limits;
                        learned                                       learned rate cut, or doubted,
                                                                      if `AtOnce` says it is not the
                                                                      number
ended: overload, clock  failure                 failure               given back, if refused
ended: not sent                                 failure
ended: no room here                                                   tokens given back
ended: other refusal                                                  given back to stated limits
ended: broken answer                            there is a server
dropped (cancelled)     one less in flight
======================  ======================  ====================  ==============================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..._types.errors import (
    ConnectTimeout,
    MiniLLMError,
    ProviderError,
    RefusedError,
    SendError,
    StreamTimeout,
)
from .at_once import AtOnce
from .breaker import LONGEST_PAUSE, CircuitBreaker
from .concurrency import ConcurrencyLimit
from .controls import Control, ControlKind, ControlSource, Place, Tally
from .learned_rate import LearnedRate
from .own_fault import OwnFaults, Ticket, followed
from .prospects import Prospects
from .rate_limits import Adapt, RateLimits, Rates, Reason
from .retry import server_delay
from .token_estimate import TokenCalibration

NETWORK_PAUSE = 10.0
"""Seconds of the longest pause while no connection can be made: to try costs nobody anything."""
COUNT_EVERY = 64
"""Requests accepted by a quiet lane that are counted at once."""
LOOK_FIRST, LOOK_EVERY = 8, 256
"""Responses whose headers are read while none has stated a limit: the first eight, then one in 256."""


class LaneState(NamedTuple):
    """The decisions of a lane that are in force."""

    concurrency: int | None
    rate: float | None
    """Requests per second that were learned from refusals."""
    settled: bool
    """True if that rate is not being judged."""
    stated: tuple[tuple[str, float], ...]
    """Limits in the server's headers: of what, and requests per second or tokens per minute."""
    open: bool
    """True after failures in a row."""
    paused_until: float


class Lane:
    """Requests under way at one endpoint, with one key, for one model; and the control of them.

    Guarantees: `start` is followed by exactly one of `ended` and `dropped`. A failure counts once
    for all requests that were under way when it came.

    While nothing was refused lately and no limit is set or stated, the lane is *quiet*: most of its parts
    have nothing to hold back and nothing to learn, and are not asked. A lane that is never quiet decides
    the same.

    Its 19 attributes are its parts, one for each thing that a request may wait for, and what is under way.
    """

    def __init__(
        self,
        now: float,
        rates: Rates,
        max_concurrency: int | None,
        adapt: Adapt = "rate+concurrency",
    ) -> None:
        self.place = Place("", "")
        """The names of the model and the host."""
        self.concurrency: ConcurrencyLimit | None = None
        """The search for the number of requests at once, up to ``max_concurrency``; ``None`` if
        there is no search."""
        self.in_flight = 0
        self._sent = 0
        self._tokens_sent = 0.0
        # Requests neither accepted nor refused yet: when they were sent.
        self._pending: dict[int, float] = {}
        self._tokens_pending = 0.0
        self.prospects = Prospects()
        """Signs that none of its requests will be accepted."""
        self.tally = Tally()
        """Counts of how they were received."""
        self._breaker = CircuitBreaker()
        self.faults = OwnFaults()
        """Failures that say nothing about the lane."""
        self._rates = RateLimits(now)
        self._at_once = AtOnce()
        self._aside = LearnedRate(now)  # the learned rate, while the number at once is what limits
        self._calibration = TokenCalibration()
        self._quiet = False
        # Accepted while it was quiet, and not counted yet: when, and when the latest of them was sent.
        self._accepted_at: list[float] = []
        self._newest_sent = -math.inf
        self.change(rates, max_concurrency, now, adapt)

    def change(self, rates: Rates, max_concurrency: int | None, now: float, adapt: Adapt) -> None:
        """Set the user's limits, also while the lane is in use."""
        self._adapt = adapt
        self._wake()
        if adapt != "rate+concurrency":
            self._rates.forget(now)
            self._at_once = AtOnce()
        self._rates.change(rates, now)
        if max_concurrency is None:
            self.concurrency = None
        elif self.concurrency is None:
            self.concurrency = ConcurrencyLimit(max_concurrency, now)
        else:
            self.concurrency.change(max_concurrency, now)

    # -- in words ----------------------------------------------------------------------------

    def controls(self, now: float, waiting: int) -> list[Control]:
        """Return what holds requests back now; ``waiting`` of them wait."""
        found: list[Control] = []

        def add(
            kind: ControlKind,
            source: ControlSource,
            limit: float,
            why: str,
            most: float | None = None,
        ) -> None:
            found.append(
                Control(
                    model=self.place.model,
                    host=self.place.host,
                    kind=kind,
                    source=source,
                    limit=limit,
                    most=most,
                    in_use=self.in_flight,
                    waiting=waiting,
                    refused=self.tally.share,
                    reason=why,
                )
            )

        number = self._limit_at_once
        most = None if self.concurrency is None else self.concurrency.maximum
        if number is not None and (most is None or number < most):
            add("concurrency", "found", number, self.tally.share_text or "found by trying", most)
        for kind, source, limit in self._rates.in_force():
            add(kind, source, limit, _SOURCES[source])
        breaker = self._breaker
        if breaker.is_open and self._adapt != "off":
            why = "the server asked for it" if breaker.asked else self.tally.newest
            left = max(0.0, breaker.paused_until - now)
            add("pause", "asked" if breaker.asked else "failures", left, why)
        return found

    def state(self, now: float) -> LaneState:
        """Return what the lane has decided so far."""
        learned, breaker, limits = self._rates.learned, self._breaker, self._rates.in_force()
        return LaneState(
            concurrency=self._limit_at_once,
            rate=learned.bucket.rate if learned.active else None,
            settled=learned.settled,
            stated=tuple((kind, limit) for kind, source, limit in limits if source == "stated"),
            open=breaker.is_open and self._adapt != "off",
            paused_until=breaker.paused_until,
        )

    @property
    def _limit_at_once(self) -> int | None:
        found = [] if self.concurrency is None else [self.concurrency.limit]
        if self._at_once.limit is not None:
            found.append(self._at_once.limit)
        return min(found, default=None)

    # -- before ------------------------------------------------------------------------------

    def blocked(self, now: float, tokens: float) -> tuple[Reason, float] | None:
        """Return why a request of so many tokens may not be sent now, and the seconds until it is
        worth asking again (infinity: once a request has ended); ``None`` if it may.
        """
        if self.concurrency is not None and self.in_flight >= self.concurrency.limit:
            return "concurrency", math.inf
        if self._quiet:
            return None
        if self._at_once.limit is not None and self._at_once.full(self.in_flight):
            return "concurrency", math.inf
        if self._breaker.paused_until > now and self._adapt != "off":
            return "pause", self._breaker.paused_until - now
        prospects = self.prospects
        if not prospects.ever_accepted and self._adapt != "off":
            wait = prospects.wait(now, self.in_flight)
            if wait:
                return "concurrency", wait
        return self._rates.wait(tokens * self._calibration.factor, now)

    def start(self, now: float, tokens: float, before: Ticket | None = None) -> Ticket:
        """Count a request as sent, with an estimate of its tokens; ``before`` is its ticket of the
        last attempt.
        """
        estimate, tokens = tokens, tokens * self._calibration.factor
        others = self.in_flight
        self.in_flight = others + 1
        self._sent = number = self._sent + 1
        self._tokens_sent = tokens_sent = self._tokens_sent + tokens
        self._pending[number] = now
        self._tokens_pending += tokens
        if not self._quiet:
            if self._at_once.limit is not None:
                self._at_once.sent(number, others)
            if self._breaker.is_open:
                self._breaker.started(now)
            if not self.prospects.answered:
                self.prospects.sent(now)
            self._rates.take(tokens, now)
        ticket = Ticket(now, number, tokens, tokens_sent, estimate, others)
        return ticket if before is None else followed(ticket, before)

    def unreachable(self, now: float, error: MiniLLMError) -> bool:
        """Return True if nothing at this address answers, for as long as is worth trying: not at all
        after an error that stays, if nothing ever did.
        """
        stays = isinstance(error, SendError) and error.permanent
        return self._breaker.unreachable(now, stays=stays)

    # -- after -------------------------------------------------------------------------------

    def accepted(self, ticket: Ticket, now: float) -> None:
        """Note that the server has begun to answer."""
        if ticket.accepted:
            return
        ticket.accepted = True
        del self._pending[ticket.number]
        self._tokens_pending -= ticket.tokens
        sent_at = ticket.sent_at
        if self._quiet:
            accepted = self._accepted_at
            accepted.append(now)
            if sent_at > self._newest_sent:
                self._newest_sent = sent_at
            if len(accepted) >= COUNT_EVERY:
                self.catch_up()
            return
        learned = self._rates.learned
        self.prospects.accepted(sent_at)
        self.tally.add_accepted()
        told = not learned.doubt.untouched or self._at_once.limit is not None
        if told and self._may_be_number:  # else nothing was refused yet
            self._at_once.accepted(ticket.number, sent_at, ticket.others)
        learned.accepted(now, sent_at, len(self._pending))
        self._breaker.accepted(sent_at)
        self.faults.accepted(now, sent_at)
        self._quiet = self.may_be_quiet()

    def catch_up(self) -> None:
        """Count what was accepted while the lane was quiet: many at once cost a fraction."""
        accepted = self._accepted_at
        if accepted:
            self.tally.accepted += len(accepted)
            self._rates.learned.count(accepted)
            self.faults.note_accepted(accepted[-1], self._newest_sent)
            accepted.clear()

    def _wake(self) -> None:
        """Ask all parts again, until the next accepted request."""
        self._quiet = False
        self.catch_up()

    def may_be_quiet(self) -> bool:
        """Return True if another accepted request changes nothing but counts."""
        return (
            self._at_once.limit is None
            and not self._at_once.trial
            and self._rates.untouched
            and self._breaker.untouched
            and self.prospects.settled
            and self.tally.settled
            and self.faults.settled
        )

    @property
    def wants_headers(self) -> bool:
        """True if the headers of the next response should be read."""
        stated = self._rates.family is not None
        return stated or not self._sent % LOOK_EVERY or self._sent <= LOOK_FIRST

    def read(self, ticket: Ticket, now: float, headers: Mapping[str, str], *, epoch: float) -> None:
        """Learn from the headers of a response (names in lower case). ``epoch`` is the time of day
        in seconds since 1970.
        """
        if self._adapt != "rate+concurrency":
            return
        tokens = min(self._tokens_sent - ticket.tokens_sent, self._tokens_pending)
        requests = min(self._sent - ticket.number, len(self._pending))
        self._rates.read(
            headers,
            now,
            epoch=epoch,
            sent_at=ticket.sent_at,
            since={"requests": requests, "tokens": tokens},
        )
        if not self._rates.untouched:
            self._wake()

    def ended(
        self, ticket: Ticket, now: float, *, error: MiniLLMError | None, tokens: int | None
    ) -> None:
        """Note that a request is over. ``tokens`` is what it really came to, if that is known."""
        if error is None:
            if not ticket.accepted:
                self.accepted(ticket, now)
            if self.concurrency is not None:
                self.concurrency.finished(now, self.in_flight, ticket.sent_at)
            if tokens is not None:
                self._calibration.add(ticket.estimate, tokens)
            if self._quiet:
                self.in_flight -= 1
                return
        self._leave(ticket)
        if error is not None:
            self._wake()
            self._learn(ticket, now, error)
        used = tokens if tokens is not None else 0.0 if not ticket.accepted else ticket.tokens
        if used != ticket.tokens:
            self._rates.correct(used - ticket.tokens, now)

    def _learn(self, ticket: Ticket, now: float, error: MiniLLMError) -> None:
        if not no_room_here(error):
            ticket.refusals += self._says_nothing(error, now)
            self._note(ticket, error)
            if self._is_own_fault(ticket, error):
                self._rates.refused(ticket.tokens, now)
            elif not ticket.accepted or _speaks_of_load(error):
                self._failed(ticket, now, error)
            if not isinstance(error, SendError):
                self._breaker.answered()
            self._heed(ticket, now, server_delay(error))

    def dropped(self, ticket: Ticket) -> None:
        """Note that a request was cancelled, which says nothing about the server."""
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        if self._at_once.trial:
            self._at_once.ended(ticket.number)
        if not ticket.accepted:
            del self._pending[ticket.number]
            self._tokens_pending -= ticket.tokens

    def _says_nothing(self, error: MiniLLMError, now: float) -> bool:
        """Return True for a refusal that says nothing about its request: of rate, or of load while
        others are accepted.
        """
        if not isinstance(error, RefusedError):
            return False
        serving = error.kind == "overloaded" and self.faults.serving(now)
        return serving or error.kind == "rate_limit"

    def _note(self, ticket: Ticket, error: MiniLLMError) -> None:
        self.prospects.answered = True
        trouble = "nothing can be sent" if isinstance(error, SendError) else "failures in a row"
        self.tally.newest = f"{trouble}, {failure_words(error)}"
        if _speaks_of_load(error) and not ticket.accepted:
            self.tally.add_refused()

    def _heed(self, ticket: Ticket, now: float, asked: float | None) -> None:
        """Pause for as long as the server asks for, if that is long and it is to be believed."""
        if asked is not None and asked > LONGEST_PAUSE:
            self.prospects.told(now, ticket.sent_at, self._pending.values())
            if self.prospects.shut:
                self._breaker.hold(now + asked)

    def _is_own_fault(self, ticket: Ticket, error: MiniLLMError) -> bool:
        return _speaks_of_load(error) and self.faults.failed(ticket)

    def _failed(self, ticket: Ticket, now: float, error: MiniLLMError) -> None:
        load = _speaks_of_load(error)
        if isinstance(error, RefusedError):
            self._rates.refused(ticket.tokens, now)
        if not load and not isinstance(error, SendError):
            return
        by_rate = _is_for_rate(error)
        rate_holds = by_rate and self._adapt == "rate+concurrency"
        if load and not (rate_holds or self._breaker.is_open) and self.concurrency is not None:
            self.concurrency.failed(now, self.in_flight + 1, ticket.sent_at)
        asked = server_delay(error) or None  # 0 says nothing of the rate
        if asked is not None and asked > LONGEST_PAUSE:
            asked = None  # see `_heed`
        untold = by_rate and asked is None
        longest = self._rates.longest_pause(now) if untold else LONGEST_PAUSE
        if network_down(error):
            longest = NETWORK_PAUSE
        learned = self._rates.learned
        failures = self._breaker.failed(
            now,
            ticket.sent_at,
            asked=asked,
            longest=longest,
            patience=learned.patience if rate_holds else self.faults.patience if load else 2,
            pending=self._unanswered if load and not learned.settled else None,
        )
        if not rate_holds:
            return
        if failures and self._is_for_number(ticket, now):
            return
        if not failures:
            learned.also_refused(now, ticket.sent_at)
        elif failures == 1 or failures < learned.patience or not learned.settled:
            learned.refused(
                now,
                len(self._pending),
                sent_at=ticket.sent_at,
                told=self._rates.family is not None,
            )
        else:
            learned.nothing_left(ticket.sent_at)

    def _is_for_number(self, ticket: Ticket, now: float) -> bool:
        """Return True if a refusal for rate is one for the number at once."""
        at_once, learned = self._at_once, self._rates.learned
        before = at_once.limit
        if self._may_be_number:
            at_once.refused(now, ticket.others)
        if (before is None) != (at_once.limit is None):
            self._aside, self._rates.learned = learned, self._aside
            self._rates.learned.resume(now)
        return at_once.limit is not None

    @property
    def _may_be_number(self) -> bool:
        """True while refusals may be for the number at once: not while there are more and more, and not
        where all were refused for a while, which is a window.
        """
        learned = self._rates.learned
        return self._at_once.limit is not None or (learned.settled and learned.window is None)

    @property
    def _unanswered(self) -> tuple[int, float]:
        """The number of requests without an answer, and the time at which the first was sent."""
        return len(self._pending), next(iter(self._pending.values()), math.inf)


_SOURCES: dict[ControlSource, str] = {
    "learned": "learned from refusals",
    "stated": "stated by the server",
    "set": "set by you",
}


def failure_words(error: MiniLLMError) -> str:
    """Return a failure in a few words, without what a server has said."""
    if isinstance(error, SendError):
        before, _, words = str(error).partition(": ")
        return (words or before)[:200]
    if isinstance(error, RefusedError | ProviderError):
        return f"{error.kind} {error.status or ''}".rstrip()
    return type(error).__name__


def network_down(error: MiniLLMError) -> bool:
    """Return True if a request was not sent because no connection could be made, for a cause that may
    pass: which says nothing about the request.
    """
    if not isinstance(error, SendError):
        return False
    return isinstance(error, ConnectTimeout) or error.reason in _NO_CONNECTION


_NO_CONNECTION = ("refused", "no_such_host", "unreachable")


def no_room_here(error: MiniLLMError) -> bool:
    """Return True if a request was not sent because this machine has too many files open, which
    says nothing about the server.
    """
    return isinstance(error, SendError) and error.reason == "open_files"


def _is_for_rate(error: MiniLLMError) -> bool:
    return isinstance(error, RefusedError) and error.kind == "rate_limit"


def _speaks_of_load(error: MiniLLMError) -> bool:
    """Return True if a failure is a sign that the server has too much to do."""
    if isinstance(error, RefusedError | ProviderError):
        return error.kind in ("rate_limit", "overloaded", "timeout")
    return isinstance(error, StreamTimeout)
