"""Search for the number of requests that should run at once. Pure.

The measure is throughput, not latency: a server that answers in batches takes longer for each
request the more there are, and still finishes more of them. So the limit rises while more requests
at once finish sooner in all, and stays where they do not. Throughput is measured in epochs (`_Epoch`).
It is one of the things that a batch may wait for; `throttle.Lane.blocked` asks them all.

===========  ==================================================  ====================================
phase        event                                               what happens
===========  ==================================================  ====================================
doubling     epoch with at least 8 % more throughput             limit doubled; at the maximum: climbing
doubling     epoch with less, for the first time                 measured once more (it may be chance)
doubling     epoch with less, again                              climbing, from the better of the two
climbing     epoch at the base                                   throughput averaged; after the rest, a
                                                                 step of 25 % up or down
climbing     step that pays (2.5 % more, or down: 1 % less)      new base; next step the same way
climbing     step that does not                                  back to the base; rest, twice as long
                                                                 each time; then the other way
recovering   epoch                                               5 % more, up to where the limit was
                                                                 cut; there: climbing
any          epoch in which the limit held nothing back          base forgotten; measured again
any          five failures of load that are 3 % of the answers   limit cut to less than was accepted
             or more, and twice the share that was found to be   at once: judged
             usual
judged       hardly a failure any more: the cut pays             recovering
judged       as many as before: it does not                      as before the cut; the share is usual
===========  ==================================================  ====================================
"""

from __future__ import annotations

from .cut_pays import BELOW, FEW, RARE, CutTest

START = 8
"""First limit: large enough for its throughput to stand out of the noise, small enough for any
server."""
WORTH_DOUBLING = 1.08
"""Factor of throughput for which twice as many requests at once are kept, while doubling."""
WORTH_MORE, WORTH_LESS = 1.025, 0.99
"""Factor of throughput for which a step up is kept, and for which a step down is."""
STEP = 1.25
"""Factor of a step, while climbing."""
TWICE = 2.0
"""Factor of the usual share of failures at which it is no longer the usual one."""
RECENT = 200
"""Answers over which the share of failures is counted."""
RAISE = 1.05
"""Factor of a step while recovering, at least one request: a limit that the server bore before need
not be measured again."""
MAX_REST = 8
"""Most epochs between two steps, while none of them pays."""


class _Epoch:
    """A stretch of answers at one limit, long enough to tell the throughput from.

    As many answers as were under way when the limit changed are skipped. Answers come in waves, and
    a request that follows one starts a little later: the limit counts as filled for as many answers
    as it allows after it was reached.
    """

    __slots__ = ("_answers", "_began", "_filled", "_limit", "_since_filled", "_skip", "_wanted")

    def __init__(self, now: float, limit: int, *, skip: int, wanted: int) -> None:
        self._began = now
        self._limit = limit
        self._skip = skip
        self._wanted = wanted
        self._answers = self._filled = self._since_filled = 0

    def count(self, now: float, in_flight: int) -> bool:
        """Count an answer, and return True if the epoch is over."""
        if self._skip > 0:
            self._skip -= 1
            self._began = now
            return False
        self._answers += 1
        self._since_filled = 0 if in_flight >= self._limit else self._since_filled + 1
        self._filled += self._since_filled < self._limit
        return self._answers >= self._wanted and now > self._began

    @property
    def limited(self) -> bool:
        """True if the limit is what held requests back: else its throughput says nothing."""
        return self._filled >= 0.9 * self._answers

    def throughput(self, now: float) -> float:
        """Return the answers per second."""
        return self._answers / (now - self._began)


class ConcurrencyLimit:
    """The number of requests that may run at once, searched for by the table above.

    Its 16 attributes are the search, the present epoch, and the present cut.
    """

    def __init__(self, maximum: int, now: float) -> None:
        self.limit = min(START, maximum)
        self.maximum = maximum
        self._doubling = True
        self._misses = 0  # epochs in a row that were not worth doubling
        self._back_to = 0  # recovering up to this limit, 0 when not
        self._base: tuple[int, float] | None = None  # a limit and its throughput
        self._up = True  # direction of the next step
        self._rest = self._resting = 0  # epochs between steps, and those that are left
        # Answers since the limit was last cut, to requests that were sent later, and the failures
        # among them; the share of those whatever the limit; and the cut that is being judged.
        self._cut_at = now
        self._answers = self._failures = 0
        self._usual = 0.0
        self._test: CutTest | None = None
        # Before the cut: the limit, the number at once that was accepted, and if it was doubling.
        self._before = 0, 0, True
        self._measure(now, self.limit)

    def _measure(self, now: float, skip: int) -> None:
        quick = self._doubling or self.limit < self._back_to
        wanted = max(START, self.limit) if quick else max(3 * START, 2 * self.limit)
        self._epoch = _Epoch(now, self.limit, skip=skip, wanted=wanted)

    def finished(self, now: float, in_flight: int, sent_at: float) -> None:
        """Count an answer, one of ``in_flight`` requests, to one that was sent at this time."""
        if sent_at >= self._cut_at:
            self._count()
        if self._test is not None:
            if sent_at >= self._cut_at:
                self._test.accepted()
                self._judge(now)
            return
        epoch = self._epoch
        if not epoch.count(now, in_flight):
            return
        if not epoch.limited:
            self._base = None
            self._measure(now, 0)
        elif self._doubling:
            self._double(now, epoch.throughput(now))
        elif self.limit < self._back_to:
            limit = min(self._back_to, max(self.limit + 1, int(self.limit * RAISE)))
            if limit >= min(self._back_to, self.maximum):
                self._back_to = 0
            self._set(now, limit)
        else:
            self._climb(now, epoch.throughput(now))

    def failed(self, now: float, in_flight: int, sent_at: float) -> None:
        """Count a failure under the load of ``in_flight`` requests, of one that was sent at this time."""
        if sent_at < self._cut_at:
            return
        self._count()
        self._failures += 1
        if self._test is not None:
            self._test.refused()
            self._judge(now)
            return
        share = self._failures / self._answers
        reached = max(1, min(self.limit, in_flight))
        # Failures come sooner than answers: their share is known after as many as there are at once.
        known = self._failures >= FEW and self._answers >= reached
        if known and share > max(RARE, TWICE * self._usual):
            self._before = self.limit, int(reached * (1.0 - share)), self._doubling
            self._test = CutTest(min(share, 1.0 - RARE))
            self._restart(now)
            self.limit = max(1, int(BELOW * reached * (1.0 - share)))

    def _count(self) -> None:
        if self._answers >= RECENT:
            self._usual = min(self._usual, self._failures / self._answers)
            self._answers = self._failures = 0
        self._answers += 1

    def _restart(self, now: float) -> None:
        self._cut_at = now
        self._answers = self._failures = 0

    def _judge(self, now: float) -> None:
        """Go on below the limit that was cut, or at it if the cut has not paid."""
        assert self._test is not None
        pays = self._test.verdict()
        if pays is None:
            return
        limit, accepted, self._doubling = self._before
        self._test = None
        if pays:
            self._doubling, self._up = False, True
            self._back_to = limit - 1
            self._set(now, max(self.limit, accepted))
        else:
            self._usual = self._failures / self._answers
            self._set(now, limit)

    def change(self, maximum: int, now: float) -> None:
        """Set another maximum while the limit is in use."""
        self.maximum = maximum
        if self.limit > maximum:
            self._set(now, maximum)

    def _set(self, now: float, limit: int, base: tuple[int, float] | None = None) -> None:
        self.limit = max(1, min(limit, self.maximum))
        self._base = base
        self._restart(now)
        self._measure(now, self.limit)

    def _double(self, now: float, throughput: float) -> None:
        if self._base is not None and throughput < self._base[1] * WORTH_DOUBLING:
            self._misses += 1
            if self._misses < 2:
                self._measure(now, 0)
                return
            self._doubling = False
            limit, before = self._base
            if throughput < before * WORTH_MORE:
                self._set(now, limit)
            else:
                self._step(now, (self.limit, throughput))
            return
        self._misses = 0
        if self.limit >= self.maximum:
            self._doubling = False
            self._set(now, self.maximum)
            return
        self._set(now, self.limit * 2, (self.limit, throughput))

    def _climb(self, now: float, throughput: float) -> None:
        if self._base is None or self._base[0] == self.limit:
            before = throughput if self._base is None else self._base[1]
            self._base = self.limit, (before + throughput) / 2
            self._resting -= 1
            if self._resting > 0:
                self._measure(now, 0)
            else:
                self._step(now, self._base)
            return
        limit, before = self._base
        if throughput >= before * (WORTH_MORE if self.limit > limit else WORTH_LESS):
            self._rest = 0
            self._step(now, (self.limit, throughput))
        else:
            self._up = not self._up
            self._rest = min(MAX_REST, 2 * self._rest or 1)
            self._resting = self._rest
            self._set(now, limit, (limit, before))

    def _step(self, now: float, base: tuple[int, float]) -> None:
        """Try a limit above or below the base, which is what it is compared with."""
        limit = base[0]
        step = max(1, round(limit * (STEP - 1.0)))
        other = min(max(limit + step if self._up else limit - step, 1), self.maximum)
        if other == limit:  # at an end of the range
            self._up = not self._up
            self._base = base
            self._measure(now, 0)
            return
        self._set(now, other, base)
