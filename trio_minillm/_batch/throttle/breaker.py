"""Pauses for a server that fails: a circuit breaker. Pure.

=======  ===============================================  =========================================
state    event                                            what happens
=======  ===============================================  =========================================
closed   a failure                                        nothing yet: it may be chance
closed   as many failures in a row as are no chance       open, for half a second
         (``patience``): one where a window is known,
         two at another known limit, more
         where some are refused at any rate
open     its time is over                                 probing
probing  a request is sent                                open for as long again, so that requests
                                                          are sent one at a time
probing  a failure                                        open for twice as long, a minute at most
any      the answer to a request sent after the last      closed
         failure
any      a failure of a request that was under way at     nothing: it is the same failure
         the last one
=======  ===============================================  =========================================

Only failures that speak of the server count (see `Lane`).
"""

from __future__ import annotations

import math

OUTRUN = 30
"""Failures without an accepted request after which one that has no answer is not waited for."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds of the first pause and of the longest: a provider's window is a minute."""
UNREACHABLE_SECONDS = 120.0
"""Seconds without any answer, not even a refusal, after which an address is given up: a mistyped one
would hold up a run of thousands for hours."""
OUTAGE_SECONDS = 3_600.0
"""The same for an address that has answered before: a network that is down for minutes comes back."""


class CircuitBreaker:
    """A lane's state by the table above."""

    def __init__(self) -> None:
        self.paused_until = -math.inf
        self.pause = 0.0
        """Seconds of the newest pause."""
        self.asked = False
        """True if the server asked for the newest pause."""
        self._failures = 0  # in a row
        # Failures of requests sent since the first in the row came, while all sent before one of them
        # were answered; those of the present round; and when the row and the round began.
        self._row = self._in_round = 0
        self._row_began = self._round_began = math.inf
        self._pauses = 0
        self.is_open: bool = False
        """True while it is open or probing."""
        self._failed_at = -math.inf
        self._failing_since = math.inf
        self._answered = False

    @property
    def untouched(self) -> bool:
        """True while it is closed and the newest request did not fail."""
        return not self._failures and not self.is_open

    def started(self, now: float) -> None:
        """Note that a request is sent."""
        if self.is_open:
            self.paused_until = now + self.pause

    def accepted(self, sent_at: float) -> None:
        """Note that the server has begun to answer a request that was sent at this time."""
        self._answered = True
        self._failing_since = math.inf
        if self.untouched:
            return
        if sent_at >= self._row_began:
            self._row = self._in_round = 0
            self._row_began = math.inf
        if sent_at >= self._failed_at:
            self._failures = self._pauses = 0
            self.is_open = False
            self.paused_until = -math.inf

    def answered(self) -> None:
        """Note that the server has refused a request or broken off an answer: it can be reached."""
        self._answered = True
        self._failing_since = math.inf

    def failed(
        self,
        now: float,
        sent_at: float,
        *,
        asked: float | None,
        longest: float,
        patience: float = 2,
        pending: tuple[int, float] | None = None,
    ) -> int:
        """Note that a request failed that was sent at ``sent_at``.

        ``asked`` is the number of seconds that the server asked to wait, ``longest`` the longest
        pause where it did not; ``patience`` is the number of failures in a row that are no chance;
        ``pending`` is how many requests have no answer yet, and when the first of them was sent, if
        those may be accepted. Returns the number of failures in a row, and 0 for a request that was
        under way when the last failure came.
        """
        self._in_round += sent_at >= self._row_began
        if sent_at < self._failed_at:
            return 0
        self._failed_at = now
        self._failures += 1
        self._failing_since = min(self._failing_since, now)
        row = self._failures if pending is None else self._in_a_row(now, *pending)
        if self.is_open or row >= patience:
            self.is_open = True
            pause = min(longest, FIRST_PAUSE * 2.0 ** min(self._pauses, 16))
            self._pauses += 1
            self.pause = min(max(pause, asked or 0.0), LONGEST_PAUSE)
            self.paused_until = now + self.pause
            self.asked = asked is not None
        return self._failures

    def hold(self, until: float) -> None:
        """Pause until this time, which the server named, unless a request is accepted before."""
        self.is_open = self.asked = True
        self.paused_until = max(self.paused_until, until)

    def _in_a_row(self, now: float, count: int, first_sent: float) -> int:
        """Return the failures in a row among requests of which all that were sent before are answered:
        refusals come sooner than answers, so those that have none yet may well be accepted.
        """
        if self._row_began == math.inf:
            self._row_began = self._round_began = now
            self._row, self._in_round = 1, 0
        elif first_sent >= self._round_began or self._in_round > max(OUTRUN, 2 * count):
            self._row += self._in_round
            self._round_began, self._in_round = now, 0
        return self._row

    def unreachable(self, now: float, *, stays: bool = False) -> bool:
        """Return True if there was no answer for as long as is worth trying; ``stays``: the newest
        failure is one that trying again does not change.
        """
        if self._answered:
            return now - self._failing_since >= OUTAGE_SECONDS
        return stays or now - self._failing_since >= UNREACHABLE_SECONDS
