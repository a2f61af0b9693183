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
any          overload                                            limit cut by 30 %; recovering
===========  ==================================================  ====================================
"""

from __future__ import annotations

START = 8
"""First limit: large enough for its throughput to stand out of the noise, small enough for any
server."""
WORTH_DOUBLING = 1.08
"""Factor of throughput for which twice as many requests at once are kept, while doubling."""
WORTH_MORE, WORTH_LESS = 1.025, 0.99
"""Factor of throughput for which a step up is kept, and for which a step down is."""
STEP = 1.25
"""Factor of a step, while climbing."""
CUT = 0.7
"""Share of the limit that an overload leaves."""
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
    """The number of requests that may run at once, searched for by the table above."""

    def __init__(self, maximum: int, now: float) -> None:
        self.limit = min(START, maximum)
        self.maximum = maximum
        self._doubling = True
        self._misses = 0  # epochs in a row that were not worth doubling
        self._back_to = 0  # recovering up to this limit, 0 when not
        self._base: tuple[int, float] | None = None  # a limit and its throughput
        self._up = True  # direction of the next step
        self._rest = self._resting = 0  # epochs between steps, and those that are left
        self._measure(now, self.limit)

    def _measure(self, now: float, skip: int) -> None:
        quick = self._doubling or self.limit < self._back_to
        wanted = max(START, self.limit) if quick else max(3 * START, 2 * self.limit)
        self._epoch = _Epoch(now, self.limit, skip=skip, wanted=wanted)

    def finished(self, now: float, in_flight: int) -> None:
        """Count an answer, one of ``in_flight`` requests."""
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

    def overloaded(self, now: float, in_flight: int) -> None:
        """Cut the limit: the server refused or failed under the load of so many requests."""
        self._doubling = False
        self._up = True
        reached = min(self.limit, max(in_flight, 1))
        self._back_to = reached - 1
        self._set(now, int(reached * CUT))

    def change(self, maximum: int, now: float) -> None:
        """Set another maximum while the limit is in use."""
        self.maximum = maximum
        if self.limit > maximum:
            self._set(now, maximum)

    def _set(self, now: float, limit: int, base: tuple[int, float] | None = None) -> None:
        self.limit = max(1, min(limit, self.maximum))
        self._base = base
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
