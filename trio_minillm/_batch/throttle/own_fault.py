"""Failures that look like a matter of the server's state, and are a request's own fault. Pure.

Rule: a request that is refused again and again, for rate or load, or is never answered, while others are
accepted, hurts itself only. Each of its failures counts by how unlikely it is, at the share that the
others meet. The first counts nothing, as it may be anybody's. Where the rate is limited, one in a hundred
is refused, and the third in a row is suspect; where a half is refused by chance, the eleventh is.
"""

from __future__ import annotations

import math

import msgspec

from .doubt import MOSTLY, unlikely_row

SUSPECT = math.log(1e3)
"""Odds from which on a request's failures are kept out of what the lane learns."""
CERTAIN = math.log(1e9)
"""Odds at which each failure of a request counts as one of its attempts: so long a row should not come
by chance in a run of a million."""
ANSWERS = 100.0
"""Answers over which the share of failures is a moving average."""
LEAST_SHARE = 0.01
"""The least share of failures that is reckoned with."""
LEAST_ROW = 3
"""Failures for load in a row of which fewer may always be chance."""
SERVING_SECONDS = 1.0
"""Seconds after an accepted request for which a server is taken to be well."""


class Ticket(msgspec.Struct, gc=False):
    """A lane's record of a request that it let go, from its start to its end."""

    sent_at: float
    number: int
    tokens: float
    """Tokens that it was counted for: the estimate, corrected by `TokenCalibration`."""
    tokens_sent: float
    """Tokens that the lane had sent by then, these included."""
    estimate: float = 0.0
    others: int = 0
    """Requests that were under way when it was sent."""
    accepted: bool = False
    odds: float = 0.0
    """The logarithm of the odds that its failures so far are its own fault."""
    sent_before: float = math.inf
    """Time at which it was sent the last time before."""
    refusals: int = 0
    """Refusals so far that say nothing about the request: for rate, and for load while others were
    accepted."""


class OwnFaults:
    """The share of failures in a lane, against which those of one request are weighed."""

    def __init__(self) -> None:
        self._share = 0.5
        self._share_when_well = 0.0  # at the newest accepted request: in an outage, all fail
        self._answers = 2.0
        self._accepted_at = -math.inf
        self._newest = -math.inf  # the latest time at which an accepted request was sent

    def accepted(self, now: float, sent_at: float) -> None:
        """Count an accepted request."""
        self.note_accepted(now, sent_at)
        if self._share > LEAST_SHARE or self._answers < ANSWERS:
            self._count(0.0)
        self._share_when_well = self._share

    def note_accepted(self, now: float, sent_at: float) -> None:
        """Take note of an accepted request that changes no share (`settled`)."""
        self._accepted_at = now
        if sent_at > self._newest:
            self._newest = sent_at

    @property
    def settled(self) -> bool:
        """True if another accepted request changes no share."""
        return self._share <= LEAST_SHARE == self._share_when_well and self._answers >= ANSWERS

    def failed(self, ticket: Ticket) -> bool:
        """Weigh a failure that speaks of load. Returns True if the request is suspect.

        It counts only if a request that was sent later than this one the last time was accepted:
        else the server may have failed everything meanwhile.
        """
        if self._newest > ticket.sent_before:
            ticket.odds -= math.log(self._share)
        if ticket.odds >= SUSPECT:
            return True
        self._count(1.0)
        return False

    @property
    def patience(self) -> int:
        """The number of failures in a row that are no chance."""
        return max(LEAST_ROW, unlikely_row(self._share_when_well))

    def serving(self, now: float) -> bool:
        """Return True if a request was accepted a moment ago: the server is not down."""
        return now - self._accepted_at <= SERVING_SECONDS

    def well(self, now: float) -> bool:
        """Return True if it is not, and does not fail nearly all: to wait for it helps nobody."""
        return self.serving(now) and self._share <= MOSTLY

    def _count(self, failed: float) -> None:
        self._answers = min(ANSWERS, self._answers + 1.0)
        self._share = max(LEAST_SHARE, self._share + (failed - self._share) / self._answers)


def followed(ticket: Ticket, before: Ticket | None) -> Ticket:
    """Return the ticket of a request, with what is known of its attempt before."""
    if before is not None:
        ticket.odds, ticket.sent_before = before.odds, before.sent_at
        ticket.refusals = before.refusals
    return ticket
