"""A provider's limit on requests, learned from its refusals. Pure.

Every method takes the time, in seconds of any steady clock. Rates are in requests per second.

=========================================  =======================================================
event                                      what happens
=========================================  =======================================================
no refusal yet                             no limit
refusals that may be chance                nothing (`Doubt`)
more, among accepted requests              a fifth less than what is accepted is tried, and judged
nearly all are refused                     a quarter of the rate so far is tried (what is under way
                                           is taken for accepted); refused again within a second: a
                                           quarter of that, as the server had saved up more
refused early, three times                 a fifth less than what is accepted is tried, and judged
it does not pay                            four times the rate is tried, and again, up to no limit
refused again later                        estimate: requests accepted between the two refusals, by
                                           the seconds between them; the rate begins a little below
the same, far above that, without a burst  the server saves nothing up: estimate: what was accepted
before                                     in the last two seconds
nothing accepted for 5 s after a refusal,  the server counts by a window, which has ended; estimate:
then accepted                              requests accepted in it, by its seconds (60 at most)
refused again in a window, then accepted   another has ended: its length is known better (`Window`)
accepted                                   the rate rises along the cubic curve
refused, after a rate had held for long    not below 92 % of that rate
=========================================  =======================================================

What the numbers below achieve is measured by ``benchmarks/control.py``, against servers that count in
many ways, and by ``benchmarks/batch.py rate`` over sockets; docs/batches/batch-control.md has the results.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

from .cut_pays import BELOW
from .doubt import FREE, LIMITED, STEP, Doubt, State
from .token_bucket import BURST_SECONDS, TokenBucket
from .window import SPAN, Window

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
"""Seconds without an accepted request after which a server is taken to count by a window."""
FIRST = 1.0
"""Lowest rate after the first refusal, in requests a second: the very first request may have been
refused, and for a reason of its own."""
LEAST = 1.1 / SPAN
"""Lowest rate, in requests a second: a silent minute proves none below one a minute. A little more, or
each would meet the same second of the server's minute."""
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

    Its 20 attributes are what has been counted, and the curve.
    """

    def __init__(self, now: float) -> None:
        self.bucket = TokenBucket(math.inf, math.inf, now)
        self._estimate: float | None = None
        self._window = Window(now)
        # Refusals: when, and how many requests had been accepted by then.
        self._refusals: deque[tuple[float, int]] = deque(maxlen=256)
        # Accepted requests: how many, how many of them before the last refusal, and how many in
        # each second of the last minute, as [second, count].
        self._accepted = self._accepted_before = 0
        self._seconds: deque[list[int]] = deque(maxlen=int(SPAN) + 1)
        self._newest = [-1, 0]  # of those pairs
        self._most = 0  # of them in one second
        self._started = self._last_accepted = now
        self.doubt = Doubt()
        """The state of the table, and what it rests on."""
        # The curve: where it begins and how long it takes, and the seconds of it that were used.
        self._swing = SWING
        self._back = BACK_SECONDS
        self._risen = 0.0
        self._risen_at = now
        self._cut_at = now
        self._uncut = 0.0  # the estimate before the cut that is being judged, if there was one
        self._falling = False  # no rate that held was found yet: each refusal cuts it
        self._hopeful = False  # the newest cut was to what was accepted lately

    @property
    def active(self) -> bool:
        """True once requests were refused, unless refusals turned out not to be a matter of rate."""
        return self.doubt.state is not FREE

    @property
    def settled(self) -> bool:
        """True while there is a limit that is not being judged."""
        return self.doubt.state is LIMITED

    @property
    def patience(self) -> float:
        """The number of failures in a row that are no chance: where a server counts by a window, the
        first says that it is used up.
        """
        return 1 if self.settled and self.window is not None else self.doubt.patience

    @property
    def window(self) -> float | None:
        """Seconds of the server's window, if it counts by one."""
        return self._window.seconds

    def wait(self, now: float) -> float:
        """Return the seconds until another request may be sent."""
        if self.doubt.state is FREE or self._window.ready:
            return 0.0
        return self.bucket.wait(1.0, now)

    def take(self, now: float) -> None:
        """Count a request as sent."""
        if self._window.ready:
            self._window.ready -= 1
            self.bucket.set(now, rate=self.bucket.rate, capacity=self.bucket.capacity, level=0.0)
        elif self.doubt.state is not FREE:
            self.bucket.take(1.0, now)

    def accepted(self, now: float, sent_at: float = math.inf, pending: int = 0) -> None:
        """Count an accepted request, and raise the rate by the time that it stands for."""
        doubt = self.doubt
        if not doubt.untouched:
            doubt.accepted(sent_at)
        if doubt.state is LIMITED:
            self._rise(now, min(now, sent_at))
        elif doubt.state is not FREE:
            self._judge(now, pending)
        self._count(now, 1)

    def _count(self, now: float, times: int) -> None:
        self._accepted += times
        self._risen_at = self._last_accepted = now
        second = int(now)
        if self._newest[0] != second:
            self._newest = [second, 0]
            self._seconds.append(self._newest)
        self._newest[1] = count = self._newest[1] + times
        if count > self._most:
            self._most = count

    def count(self, times: Sequence[float]) -> None:
        """Count requests that were accepted at these times, which is all that follows from them while
        nothing was refused.
        """
        for second, number in Counter(map(int, times)).items():
            self._count(second, number)
        self._risen_at = self._last_accepted = times[-1]

    def _rise(self, now: float, sent_at: float) -> None:
        """Raise the rate by the time that an accepted request stands for."""
        window, last = self._window, self._last_accepted
        if window.disproved(self._accepted):
            self._go_free(now)
            return
        dry = now - max(last, self._cut_at) >= DRY_SECONDS and self._cut_at > last - DRY_SECONDS
        if window.is_new(sent_at) if window.seconds is not None else dry:
            lately = self._in_last(SPAN, max(last, self._cut_at))
            rate = window.next(sent_at, self._accepted, lately)
            if rate is not None:
                self._cut(now, rate)
        window.tried(self._accepted)
        self._risen += min(now - self._risen_at, 2.0 / self.bucket.rate)
        self._set(now)

    def refused(
        self, now: float, pending: int = 0, *, sent_at: float = math.inf, told: bool = False
    ) -> None:
        """Learn from a refusal of a request that was sent after the last refusal had come.

        ``pending`` is the number of requests that have no answer yet. They were sent before this
        one, and are taken for accepted (see `also_refused`). ``told``: the server states its limits,
        so that there is no doubt what it refuses for.
        """
        doubt = self.doubt
        doubt.refused(now, sent_at)
        self.nothing_left(min(now, sent_at))
        if doubt.state is FREE:
            if not told and doubt.seems_chance(now, pending):
                return
            self._begin_limit(now, pending, told=told)
        elif doubt.state is not LIMITED:
            self._judge(now, pending)
        else:
            self._learn(now, pending, told=told)

    def _begin_limit(self, now: float, pending: int, *, told: bool) -> None:
        """Cut the rate for the first time, to be judged if it can be told what is accepted."""
        so_far = self._accepted + pending
        known = so_far / max(now - self._started, LEAST_SECONDS)
        sure = told or self.doubt.mostly(pending)
        accepted = None if sure else self.doubt.accepted_rate(now, pending)
        self._refusals.append((now, so_far))
        self._accepted_before = self._accepted
        if accepted is None:
            self._falling = True
            self.doubt.limit(now)
            self._cut(now, max(FIRST, known * DROP), 0.5, 2.0)
        else:
            self._cut_to(now, max(FIRST, accepted), pending)

    def _cut_to(self, now: float, accepted: float, pending: int) -> None:
        """Cut the rate to less than what is accepted, and begin to judge whether that pays."""
        self._falling = False
        self._uncut = self._estimate or 0.0
        self.doubt.cut(now, pending)
        self._cut(now, accepted, 1.0 - BELOW, 2.0)

    def _learn(self, now: float, pending: int, *, told: bool) -> None:
        """Estimate the limit anew from what was accepted between two refusals."""
        assert self._estimate is not None
        doubt, held = self.doubt, self._accepted - self._accepted_before
        refusals, so_far = self._refusals, self._accepted + pending
        while len(refusals) > 1 and now - refusals[1][0] >= SPAN:
            refusals.popleft()
        seconds, count = (now - refusals[0][0], so_far - refusals[0][1]) if refusals else (0.0, 0)
        refusals.append((now, so_far))
        above = self.bucket.rate > 1.1 * self._estimate
        window = self._window
        if window.unsure and window.seconds is not None:
            window.confirm()
            self._cut(now, window.allowed / window.seconds)
        elif not told and doubt.contradicted(held, now, above=above):
            self._cut_to(now, doubt.accepted_rate(now, pending) or self._estimate / 2.0, pending)
        elif not told and (doubt.contested or not doubt.pays):
            pass  # one more, and the limit is judged
        elif window.seconds is not None:
            window.confirm()
            since = math.floor(now - window.seconds) + 1  # only whole seconds are known
            self._cut(now, self._in_last(window.seconds, now) / (now - since))
        elif seconds < 1.0:
            if self._falling or told:
                self._cut(now, self._estimate * DROP, 0.5, 2.0)
        else:
            self._falling = False
            found = max(count / seconds, self._estimate * DROP)
            swing = min(0.5, max(SWING, max(count, 1) ** -0.5))
            rate = self._lately(now, found) or self._at_least_held(now, found)
            self._cut(now, rate, swing if rate == found else SWING, seconds)
        self._accepted_before = self._accepted

    def also_refused(self, now: float, sent_at: float = -math.inf) -> None:
        """Take back one of the requests that the last refusal had taken for accepted."""
        self.doubt.refused(now, sent_at)
        self.nothing_left(min(now, sent_at))
        if self._refusals and self.doubt.state is LIMITED:
            at, so_far = self._refusals[-1]
            self._refusals[-1] = at, so_far - 1

    def resume(self, now: float) -> None:
        """Go on with what was learned, after a time in which it was not heeded."""
        self._last_accepted = now
        if self._estimate is not None:
            self._cut(now, self._estimate)

    def nothing_left(self, sent_at: float) -> None:
        """Note a refusal, of a request that was sent at this time, that teaches nothing but that a
        window was not over.
        """
        self._window.refused(sent_at)

    def _judge(self, now: float, pending: int) -> None:
        """Go where the answers to a cut or a raise lead, once they are enough."""
        doubt = self.doubt
        if doubt.state is FREE or (by_rate := doubt.verdict(pending)) is None:
            return
        if not by_rate and doubt.may_raise(now):
            self._raise(now)
            return
        assert self._estimate is not None
        self._refusals.clear()
        self._refusals.append((now, self._accepted))
        if doubt.state is State.RAISED:
            doubt.raise_failed(now)
            self._cut(now, self._estimate)
            return
        doubt.limit(now, pays=by_rate)
        if not by_rate:
            self._cut(now, self._uncut or self._estimate)
        elif self._uncut:
            self._cut(now, self._estimate)
        else:
            self._cut(now, self._estimate, 0.5, 2.0)  # it was told from few answers

    def _raise(self, now: float) -> None:
        """Try a multiple of the rate, or none at all if it was ever as high."""
        rate = self.bucket.rate * STEP
        self.doubt.raise_rate(now)
        if rate <= STEP * self._most:
            self.bucket.set(now, rate=rate, capacity=max(1.0, rate * BURST_SECONDS))
            return
        self._go_free(now)

    def _go_free(self, now: float) -> None:
        self.doubt.free(now)
        self._refusals.clear()
        self._estimate, self._window = None, Window(now)
        self._started = now
        self._accepted = self._accepted_before = 0

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

    def _in_last(self, span: float, now: float) -> int:
        """Return the number of requests accepted in so many seconds."""
        return sum(count for second, count in self._seconds if second > now - span)

    def _cut(self, now: float, rate: float, swing: float = SWING, back: float = math.inf) -> None:
        """Begin the curve anew for this estimate, which it reaches after ``back`` seconds at most:
        an estimate from a short time is uncertain, and is left the sooner.
        """
        self._estimate = max(rate, LEAST)
        self._swing = swing
        slow = max(BACK_SECONDS, BACK_REQUESTS / self._estimate)
        if self._window.seconds is not None:
            # Too high a rate shows at the end of a window only.
            slow = max(slow, self._window.seconds / (1.0 if self._window.proven else 2.0))
        self._back = min(slow, BACK_LONGEST, max(2.0, back))
        self._cut_at = self._risen_at = now
        self._risen = 0.0
        self._set(now, level=0.0)

    def _set(self, now: float, level: float | None = None) -> None:
        assert self._estimate is not None
        x = self._risen / self._back - 1.0
        rate = max(LEAST, self._estimate * (1.0 + self._swing * x**3))
        self.bucket.set(now, rate=rate, capacity=max(1.0, rate * BURST_SECONDS), level=level)
