"""The prospects of a lane: signs that none of its requests will be accepted. Pure.

======================================  ==========================================================
sign                                    what follows
======================================  ==========================================================
no answer of any kind yet               `FIRST_WAVE` requests go out, more after `FIRST_SECONDS`
refusals in a row of one cause that     no more than ten are under way; after ten, and more than are
will not pass, and nothing accepted     under way, the lane is closed
refused, "come back in an hour"         nothing for now: servers say so and accept the next request
the same, ``TOLD_AGAIN`` more times,    it is believed: the lane pauses until then, or is closed if
nothing accepted that was sent since    nobody would wait for so long
======================================  ==========================================================

A lane is closed by the run, which knows how long its user would wait.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from ..._types.errors import MiniLLMError, RefusedError

FIRST_WAVE, FIRST_SECONDS = 32, 1.0
"""Requests that are sent before the first answer of any kind, and the seconds that this holds others
back: a wrong key or model is told by then, and a thousand refusals teach no more than a few."""
SAME_REFUSALS = 10
"""Refusals of one cause, with no request accepted before, after which a lane is closed: too few to
cost anything, and more than the bad lines that a good file begins with."""
TOLD_AGAIN = 3
"""Further refusals after which a long wait that a server asks for is believed."""
_NOT_THERE = (404, 405, 410)
"""Statuses for a model or an endpoint that is not there."""
_NUMBERED = re.compile(r"[\w-]*\d[\w-]*")
"""Words that differ from one refusal to the next: identifiers and times."""


class Prospects:
    """The signs of the table above, as far as they were seen."""

    def __init__(self) -> None:
        self.ever_accepted = False
        """True once the server has begun to answer any request."""
        self.row = 0
        """Refusals in a row of one cause that will not pass, while nothing was accepted."""
        self.mixed = False
        """True if there were refusals of several causes."""
        self._cause: tuple[str, int | None, str] | None = None
        self.answered = False
        """True once there was an answer of any kind, also a failure."""
        self._first_sent = math.inf
        # Since a long wait was asked for: when, and how many times again.
        self._told_at = math.inf
        self._told_again = 0
        self.shut = False
        """True if that was asked for often enough to be believed."""

    def wait(self, now: float, in_flight: int) -> float:
        """Return the seconds for which no more than so many should be under way: 0 for none, infinity
        until one has ended.
        """
        if self.row and in_flight >= SAME_REFUSALS:
            return math.inf
        if self.answered or in_flight < FIRST_WAVE:
            return 0.0
        return max(0.0, self._first_sent + FIRST_SECONDS - now)

    @property
    def settled(self) -> bool:
        """True if requests are accepted, and there is no sign that others will not be."""
        return self.ever_accepted and not self.row and self._told_at == math.inf

    def sent(self, now: float) -> None:
        """Note that a request is sent."""
        if self._first_sent == math.inf:
            self._first_sent = now

    def accepted(self, sent_at: float) -> None:
        """Note that the server has begun to answer a request that was sent at this time."""
        self.answered = self.ever_accepted = True
        self.row = 0
        if sent_at >= self._told_at:
            self._told_at, self._told_again, self.shut = math.inf, 0, False

    # -- refusals that will not pass -----------------------------------------------------------

    def refused(self, error: MiniLLMError) -> bool:
        """Count a failure. Returns True if it is one of a row (``row``) that may close the lane: an
        unknown model, a wrong address, a key that may not ask.
        """
        if self.ever_accepted or not isinstance(error, RefusedError) or error.info.retryable:
            return False
        if error.kind != "auth" and error.status not in _NOT_THERE:
            self._cause, self.row, self.mixed = None, 0, True
            return False
        cause = error.kind, error.status, _NUMBERED.sub("#", error.info.message)
        self.mixed = self.mixed or (cause != self._cause is not None)
        self.row = self.row + 1 if cause == self._cause else 1
        self._cause = cause
        return True

    def hopeless(self, in_flight: int) -> bool:
        """Return True if the row is long enough to close the lane, whatever becomes of so many
        requests that are still under way.
        """
        return self.row >= max(SAME_REFUSALS, in_flight + 1)

    # -- long waits ----------------------------------------------------------------------------

    def told(self, now: float, sent_at: float, pending: Iterable[float]) -> None:
        """Note the refusal of a request, sent at this time, that asks for a long wait.

        ``pending`` has the times at which those were sent that have no answer yet. Refusals come
        sooner than answers, so that these may well be accepted.
        """
        if self._told_at == math.inf:
            self._told_at = now
        elif sent_at >= self._told_at:
            self._told_again += 1
            since = sum(at >= self._told_at for at in pending)
            self.shut = self._told_again >= max(TOLD_AGAIN, since)

    @property
    def asked_to_wait(self) -> bool:
        """True if a long wait was asked for, and nothing that was sent since was accepted."""
        return self._told_at < math.inf
