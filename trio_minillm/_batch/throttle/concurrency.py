"""How many requests should run at once: found by trying. Pure.

What counts is throughput, not latency: a server that batches answers each request later the
more there are, and still does more of them. So the limit rises while more at once gets more
done, and stays where it does not.
"""

from __future__ import annotations

START = 8
"""Where it begins: large enough to be told apart from noise, small enough for any server."""
WORTH_DOUBLING = 1.08
"""The gain in throughput for which twice as many at once are kept at the beginning."""
WORTH_MORE, WORTH_LESS = 1.025, 0.99
"""The gain for which a step up is kept, and what a step down must keep for it to stay."""
STEP = 1.25
"""A step in either direction, once the beginning is over."""
CUT = 0.7
"""What an overload leaves of the limit."""
RAISE = 1.05
"""What is added, at least one, with each generation of answers after a cut, up to where it was
cut: what was possible before is not to be proved again."""
MAX_REST = 8
"""The most epochs without a trial, while none of them finds anything better."""


class ConcurrencyLimit:
    """A limit that is doubled while that pays (slow start), then climbs the hill of
    throughput in small steps, and is cut on each sign of overload.

    Throughput is measured in epochs: as many answers as were under way when the limit changed are
    not counted, then some more than the limit are. An epoch in which the limit was not what
    held requests back says nothing.
    """

    def __init__(self, maximum: int, now: float) -> None:
        self.limit = min(START, maximum)
        self.maximum = maximum
        self._starting = True
        self._base: tuple[int, float] | None = None  # a limit and its throughput
        self._up = True
        self._rest = self._resting = 0
        self._failures = 0
        self._back_to = 0  # where it was cut
        self._measure(now, self.limit)

    def _measure(self, now: float, skip: int) -> None:
        self._skip = skip
        self._began = now
        self._count = self._full = self._since_full = 0
        quick = self._starting or self.limit < self._back_to
        self._wanted = max(START, self.limit) if quick else max(3 * START, 2 * self.limit)

    def finished(self, now: float, in_flight: int) -> None:
        """An answer came, one of ``in_flight``."""
        if self._skip > 0:
            self._skip -= 1
            self._began = now
            return
        self._count += 1
        # Answers come in waves, and who follows takes breath: full is who was so a wave ago.
        self._since_full = 0 if in_flight >= self.limit else self._since_full + 1
        self._full += self._since_full < self.limit
        if self._count < self._wanted or now <= self._began:
            return
        throughput = self._count / (now - self._began)
        if self._full < 0.9 * self._count:
            self._base = None
            self._measure(now, 0)
        elif self._starting:
            self._start(now, throughput)
        elif self.limit < self._back_to:
            self._set(now, min(self._back_to, max(self.limit + 1, int(self.limit * RAISE))))
        else:
            self._climb(now, throughput)

    def overloaded(self, now: float, in_flight: int) -> None:
        """The server refused or failed for its load, with so many under way."""
        self._starting = False
        self._up = True
        reached = min(self.limit, max(in_flight, 1))
        self._back_to = reached - 1
        self._set(now, int(reached * CUT))

    def _set(self, now: float, limit: int) -> None:
        self.limit = max(1, min(limit, self.maximum))
        self._base = None
        self._measure(now, self.limit)

    def change(self, maximum: int, now: float) -> None:
        """Another upper end, while it runs."""
        self.maximum = maximum
        if self.limit > maximum:
            self._set(now, maximum)

    def _start(self, now: float, throughput: float) -> None:
        if self._base is not None and throughput < self._base[1] * WORTH_DOUBLING:
            self._failures += 1
            if self._failures < 2:  # it may have been chance
                self._measure(now, 0)
                return
            self._starting = False
            limit, before = self._base
            if throughput < before * WORTH_MORE:
                self._set(now, limit)
            else:
                self._base = self.limit, throughput
                self._try(now)
            return
        self._failures = 0
        if self.limit >= self.maximum:
            self._starting = False
            self._set(now, self.maximum)
            return
        base = self.limit, throughput
        self._set(now, self.limit * 2)
        self._base = base

    def _climb(self, now: float, throughput: float) -> None:
        if self._base is None or self._base[0] == self.limit:
            before = throughput if self._base is None else self._base[1]
            self._base = self.limit, (before + throughput) / 2
            self._resting -= 1
            if self._resting > 0:
                self._measure(now, 0)
            else:
                self._try(now)
            return
        limit, before = self._base
        kept = throughput >= before * (WORTH_MORE if self.limit > limit else WORTH_LESS)
        if kept:
            self._rest = 0
            self._base = self.limit, throughput
            self._try(now)
        else:
            self._up = not self._up
            self._rest = min(MAX_REST, 2 * self._rest or 1)
            self._resting = self._rest
            base = limit, before
            self._set(now, limit)
            self._base = base

    def _try(self, now: float) -> None:
        """A step away from the base."""
        base = self._base
        assert base is not None
        step = max(1, round(base[0] * (STEP - 1.0)))
        other = base[0] + step if self._up else base[0] - step
        if not 1 <= other <= self.maximum:
            other = min(max(other, 1), self.maximum)
            if other == base[0]:
                self._up = not self._up
                self._measure(now, 0)
                return
        self._set(now, other)
        self._base = base
