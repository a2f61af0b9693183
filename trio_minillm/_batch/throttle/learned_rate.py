"""A provider's limit on requests, learned from its refusals. Pure.

Every method takes the time, in seconds of any steady clock. Rates are in requests per second.

=========================================  =======================================================
event                                      what happens
=========================================  =======================================================
no refusal yet                             no limit
few refusals                               nothing (`Doubt`)
more, most of them behind each other       a quarter of the rate so far is tried (what is under way
                                           is taken for accepted)
more, among accepted requests              a fifth less than what was accepted is tried
refused again within a second              a quarter of that: the server had saved up more than the
                                           rate allows
refused early, more than once              half of the rate; then it is tried without (`Exemption`)
refused again later                        estimate: requests accepted between the two refusals, by
                                           the seconds between them; the rate begins a little below
the same, far above that, without a burst  the server saves nothing up: estimate: what was accepted
before                                     in the last two seconds
nothing accepted for 5 s after a refusal,  the server counts by the minute; estimate: requests
then accepted                              accepted in the minute before the silence, by 60 s
accepted                                   the rate rises along the cubic curve
refused, after a rate had held for long    not below 92 % of that rate
=========================================  =======================================================

What the numbers below achieve is measured by ``benchmarks/batch.py rate``, against servers that count
with a bucket, by the minute, and over the last sixty seconds; docs/batch.md has the results.
"""

from __future__ import annotations

import math
from collections import deque

from .exemption import Doubt, Exemption
from .token_bucket import BURST_SECONDS, TokenBucket

SPAN = 60.0
"""Seconds over which a limit is estimated: providers count by the minute."""
SWING = 0.04
"""Distance below the estimated limit at which the rate begins after a refusal, as a share of it. It
reaches the same distance above after twice the time that it takes to be back at the estimate."""
BACK_SECONDS, BACK_REQUESTS, BACK_LONGEST = 10.0, 100, 60.0
"""Time in which the rate is back at the estimate: so many seconds, or the time of so many requests
if that is longer, but a minute at the most. Each rise ends with a refusal or two, so this keeps
refusals at one in a hundred requests."""
DROP = 0.25
"""Share of a rate that a refusal leaves while no estimate is possible: at first, and within a
second of the last refusal. What a server had saved up lets many times its rate through."""
HELD_SECONDS, HELD, HELD_LONG = 2.0, 5, 100
"""Seconds and accepted requests after which a rate is evidence in itself, if it is within 50 % of
the estimate; and accepted requests after which it is evidence whatever the estimate."""
HELD_SHARE = 0.92
"""Share of such a rate that a refusal leaves."""
DRY_SECONDS = 5.0
"""Seconds without an accepted request after which a server is taken to count by the minute."""
ENOUGH = 20
"""Accepted requests in a minute from which on their number is an estimate."""
FIRST = 1.0
"""Lowest rate after the first refusal, in requests a second: the very first request may have been
refused, and for a reason of its own."""
LEAST = 1.1 / SPAN
"""Lowest rate, in requests a second: a silent minute proves none below one a minute. A little more, or
each would meet the same second of the server's minute."""
MANY = 0.3
"""Share of refusals from which on the rate is many times the limit, and falls by `DROP`."""
GENTLE = 0.2
"""Distance below the rate at which it begins where fewer are refused: enough for a limit nearby."""
LEAST_SECONDS = 1.0
"""Least seconds over which the first rate is told."""
FAR = 1.5
"""Factor between two rates that can't both be the limit."""


class LearnedRate:
    """A limit on requests that is learned from refusals; unlimited until the first.

    A refusal says that nothing is left at this moment, so the requests accepted between two
    refusals are what the provider allows in that time. From a little below that estimate the rate
    rises along a cubic curve (that of TCP CUBIC's window): flat around the estimate, and ever faster
    beyond, so that a limit that was raised is found. It rises only with requests that are accepted:
    time in which nothing was sent proves nothing.

    Its 18 attributes are what has been counted, and the curve.
    """

    def __init__(self, now: float) -> None:
        self.bucket = TokenBucket(math.inf, math.inf, now)
        self._estimate: float | None = None
        self.waived = False
        """True if the newest refusal was taken for chance."""
        self._by_minute = False  # the server counts by the minute
        # Refusals: when, and how many requests had been accepted by then.
        self._refusals: deque[tuple[float, int]] = deque(maxlen=256)
        # Accepted requests: how many, how many of them before the last refusal, and how many in
        # each second of the last minute, as [second, count].
        self._accepted = self._accepted_before = 0
        self._seconds: deque[list[int]] = deque(maxlen=int(SPAN) + 1)
        self._most = 0  # of them in one second
        self._started = self._last_accepted = now
        self._doubt = Doubt()
        # The curve: where it begins and how long it takes, and the seconds of it that were used.
        self._swing = SWING
        self._back = BACK_SECONDS
        self._risen = 0.0
        self._risen_at = now
        self._cut_at = now
        self._hopeful = False  # the newest cut was to what was accepted lately

    @property
    def active(self) -> bool:
        """True once requests were refused, unless refusals turned out not to be a matter of rate."""
        return self._estimate is not None and self._doubt.exemption is None

    @property
    def exempt(self) -> Exemption | None:
        """The time without a limit, for refusals that are not a matter of rate; ``None`` elsewhere."""
        return self._doubt.exemption

    @property
    def patience(self) -> int:
        """The number of refusals in a row that are no chance."""
        if self.exempt is not None:
            return self.exempt.patience
        return 2 if self._estimate is not None else self._doubt.patience

    def wait(self, now: float) -> float:
        """Return the seconds until another request may be sent."""
        return self.bucket.wait(1.0, now) if self.active else 0.0

    def accepted(self, now: float, sent_at: float = math.inf) -> None:
        """Count an accepted request, and raise the rate by the time that it stands for."""
        self._doubt.accepted(sent_at)
        if self._doubt.exemption is not None:
            self._judge(now)
        elif self._estimate is not None:
            last = self._last_accepted
            dry = now - max(last, self._cut_at) >= DRY_SECONDS
            if dry and self._cut_at > last - DRY_SECONDS:
                counted = self._in_last_minute(max(last, self._cut_at))
                if counted >= ENOUGH:
                    self._by_minute = True
                    self._cut(now, counted / SPAN)
            self._risen += min(now - self._risen_at, 2.0 / self.bucket.rate)
            self._set(now)
        self._accepted += 1
        self._risen_at = self._last_accepted = now
        if self._seconds and self._seconds[-1][0] == int(now):
            self._seconds[-1][1] += 1
            self._most = max(self._most, self._seconds[-1][1])
        else:
            self._seconds.append([int(now), 1])

    def refused(self, now: float, pending: int = 0, *, told: bool = False) -> None:
        """Learn from a refusal of a request that was sent after the last refusal had come.

        ``pending`` is the number of requests that have no answer yet. They were sent before this
        one, and are taken for accepted (see `also_refused`). ``told``: the server states its limits,
        so that there is no doubt what it refuses for.
        """
        doubt, held = self._doubt, self._accepted - self._accepted_before
        doubt.refused()
        if doubt.exemption is not None:
            self._judge(now)
            return
        self.waived = self._estimate is None and not told and doubt.seems_chance(now, pending)
        if self.waived:
            return
        refusals, so_far = self._refusals, self._accepted + pending
        while len(refusals) > 1 and now - refusals[1][0] >= SPAN:
            refusals.popleft()
        seconds, count = (now - refusals[0][0], so_far - refusals[0][1]) if refusals else (0.0, 0)
        refusals.append((now, so_far))
        many = told or doubt.share > MANY
        known = so_far / max(now - self._started, LEAST_SECONDS)
        if self._estimate is None and many:
            self._cut(now, max(FIRST, known * DROP), 0.5, 2.0)
        elif self._estimate is None:
            self._cut(now, max(FIRST, known * (1.0 - doubt.share)), GENTLE, 2.0)
        elif not told and doubt.contradicted(
            held, now, above=self.bucket.rate > 1.1 * self._estimate
        ):
            if self.active:
                self._cut(now, self._estimate / 2.0, GENTLE, 2.0)
        elif self._by_minute:
            self._cut(now, self._at_least_held(now, self._in_last_minute(now) / SPAN))
        elif seconds < 1.0:
            if many:
                self._cut(now, self._estimate * DROP, 0.5, 2.0)
        else:
            found = max(count / seconds, self._estimate * DROP)
            swing = min(0.5, max(SWING, max(count, 1) ** -0.5))
            rate = self._lately(now, found) or self._at_least_held(now, found)
            self._cut(now, rate, swing if rate == found else SWING, seconds)
        self._accepted_before = self._accepted

    def also_refused(self) -> None:
        """Take back one of the requests that the last refusal had taken for accepted."""
        self._doubt.refused()
        if self._refusals and self._doubt.exemption is None:
            at, so_far = self._refusals[-1]
            self._refusals[-1] = at, so_far - 1

    def _judge(self, now: float) -> None:
        """End an exemption that has failed: the limit is back, or is learned anew."""
        exemption = self._doubt.exemption
        assert exemption is not None
        if not exemption.failed:
            return
        self._doubt.end(now)
        self._refusals.clear()
        self._refusals.append((now, self._accepted))
        if exemption.proven or self._estimate is None:
            self._estimate, self._started = None, now
            self._accepted = self._accepted_before = 0
        else:
            self._cut(now, self._estimate)

    def _at_least_held(self, now: float, found: float) -> float:
        """Return the rate that was ``found``, or a share of the present one if that has held for a
        while and is higher: a server that saves nothing up refuses at the least jitter.
        """
        many = self._accepted - self._accepted_before
        held = HELD_SHARE * self.bucket.rate
        if many < HELD or now - self._cut_at < HELD_SECONDS:
            return found
        return held if found < held and (many >= HELD_LONG or held < FAR * found) else found

    def _lately(self, now: float, found: float) -> float:
        """Return a share of what was accepted in the last two whole seconds, if that is far above the
        rate that was ``found``: what was not used was lost, as the server saves nothing up. Else 0.

        Not after bursts, which show that it does, and not twice in a row: then this was wrong.
        """
        last = int(now)
        lately = sum(n for second, n in self._seconds if last - 2 <= second < last) / 2.0
        far = FAR * found < lately >= self._most / FAR and now - self._cut_at >= DRY_SECONDS
        self._hopeful = far and not self._hopeful
        return HELD_SHARE * lately if self._hopeful else 0.0

    def _in_last_minute(self, now: float) -> int:
        return sum(count for second, count in self._seconds if second > now - SPAN)

    def _cut(self, now: float, rate: float, swing: float = SWING, back: float = math.inf) -> None:
        """Begin the curve anew for this estimate, which it reaches after ``back`` seconds at most:
        an estimate from a short time is uncertain, and is left the sooner.
        """
        self._estimate = max(rate, LEAST)
        self._swing = swing
        slow = max(BACK_SECONDS, BACK_REQUESTS / self._estimate)
        self._back = min(slow, BACK_LONGEST, max(2.0, back))
        self._cut_at = self._risen_at = now
        self._risen = 0.0
        self._set(now, level=0.0)

    def _set(self, now: float, level: float | None = None) -> None:
        assert self._estimate is not None
        x = self._risen / self._back - 1.0
        rate = max(LEAST, self._estimate * (1.0 + self._swing * x**3))
        self.bucket.set(now, rate=rate, capacity=max(1.0, rate * BURST_SECONDS), level=level)
