"""A server's window: so many requests in so many seconds, and none until the next begins. Pure.

Model: once a window is used up, everything is refused until it ends, and then as many are accepted again.
So the first refusal says that nothing is left, and the next accepted request that another window has begun.
It began between the two, and is taken to have begun in the middle.

A server that was out of order looks the same at first, and accepts more afterwards. That is tried after the
first window, unless it may be a minute long: as many are sent again as it allows, as fast as they are
accepted, since none of those is refused if it is a window. The few beyond are sent at its rate, so that few
are refused if it is. Then as many are sent once more, as another window may have begun meanwhile.
"""

from __future__ import annotations

import math

SPAN = 60.0
"""Seconds of the longest window, over which a limit is estimated: providers count by the minute."""
ENOUGH = 20
"""Accepted requests in a window from which on their number is an estimate."""
EXCEEDED = 1.1
"""Factor of what a window may allow beyond which it is none: servers count roughly."""
AHEAD = 0.5
"""Share of what a window allows that may be under way at once while it is tried whether it is one: so much
is refused if it allows less than was counted. With a smaller share another window begins meanwhile."""


class Window:
    """The length of the windows by which a server counts, if it does, and what they allow.

    Accepted requests are given as their number so far.
    """

    def __init__(self, now: float) -> None:
        self.seconds: float | None = None
        """Length of a window; ``None`` if none is known."""
        self.allowed = 0
        """Requests that are accepted in one."""
        self.unsure = False
        """True while it is tried whether it was an outage instead."""
        self.proven = False
        """True once requests were refused again, after a window that was taken for one."""
        self.ready = 0
        """Requests that may be sent now, of those that no window would refuse."""
        self._left = 0  # of those, the ones that may be sent once others are accepted
        self._more = False  # another window may follow
        self._began = self._refused_at = now
        self._before = 0  # requests accepted before it began

    def refused(self, sent_at: float) -> None:
        """Note that a request was refused that was sent at this time: its window was used up."""
        self._refused_at = max(self._refused_at, sent_at)

    def confirm(self) -> None:
        """Note that the server refuses requests again: it is a window."""
        self.unsure = self._more = False
        self.ready = self._left = 0
        self.proven = True

    def tried(self, accepted: int) -> None:
        """Note that a request is accepted: in its place another may be sent of those that no window
        would refuse; and as many as in another window, once more than in one are accepted.
        """
        if self._left:
            self._left -= 1
            self.ready += 1
        elif self._more and accepted - self._before > EXCEEDED * self.allowed:
            self._more = False
            self._try()

    def _try(self) -> None:
        self.ready = math.ceil(AHEAD * self.allowed)
        self._left = self.allowed - self.ready

    def is_new(self, sent_at: float) -> bool:
        """Return True if a request that is accepted, sent at this time, is the first after a refusal."""
        return self._began < self._refused_at < sent_at

    def disproved(self, accepted: int) -> bool:
        """Return True if more is accepted than two windows allow, as another may have begun meanwhile:
        the server was out of order.
        """
        return self.unsure and accepted - self._before > 2 * EXCEEDED * self.allowed

    def next(self, sent_at: float, accepted: int, in_last_span: int) -> float | None:
        """Begin another window with the first request that is accepted again, sent at this time, and
        return the requests per second that the server allows, if that is known anew.

        The first window may have begun before the run did, which the second puts right. Later, several
        may have ended, which is told by what was accepted.
        """
        began = (self._refused_at + sent_at) / 2.0
        span, counted = began - self._began, accepted - self._before
        windows = 1
        if self.seconds is None:
            if sent_at - self._began >= SPAN:
                span, counted = SPAN, in_last_span
            if counted >= ENOUGH:
                self.seconds, self.allowed = span, counted
                self.unsure = self._more = span < SPAN
                if self.unsure:
                    self._try()
        elif windows := round(counted / self.allowed):
            self.seconds = min(span / windows, SPAN)
            if windows == 1:
                self.allowed = counted
        else:  # it was not used up
            self._refused_at = self._began
            return None
        self._began, self._before = began, accepted
        return None if self.seconds is None or windows > 1 else self.allowed / self.seconds
