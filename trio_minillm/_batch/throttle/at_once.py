"""A server's limit on the number of requests at once, told from a limit on their rate. Pure.

Model: where the number is what limits, a request is refused if and only if so many others are under way.
Where the rate does, as many are under way at a refusal as at any accepted request.

========  ===========================================  ===================================  ========
state     event                                        verdict                              next
========  ===========================================  ===================================  ========
free      refused; hardly any accepted request had     it is the number, perhaps; after two  kept
          as many others beside it                     it is, and is kept to
free      refused; more had                            one less that speaks for the number
kept      a hundred accepted                           one more is tried
kept      five such accepted in a row                  the number is one more
kept      refused, while there is one more             it is the number
kept      refused, after it was raised                 it is the number, and one less
kept      refused, while there is not                  it is not, perhaps; after two         free
========  ===========================================  ===================================  ========

While the number is kept there is no learned rate. Five in a row, as an answer that is on its way here makes
room at the server for one more than are counted.
"""

from __future__ import annotations

import math
from collections import Counter

from .cut_pays import RARE

SURE = 2
"""Refusals that it takes: by chance, one speaks for the number in one case of thirty or fewer."""
REST, TRIALS = 100, 5
"""Accepted requests from a refusal to the next trial of one more, so that one in a hundred is refused for
it; and accepted trials that it takes."""


class AtOnce:
    """The evidence that the number at once is what limits, and that number."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Requests that may be under way; ``None`` while this seems not to be what limits."""
        self._sure = 0
        # Accepted requests since the last refusal, by how many others were under way; and when that
        # came. Those sent before had the refused one beside them, which was not under way at the server.
        self._accepted = Counter[int]()
        self._refused_at = -math.inf
        self._resting = 0
        self.trial = 0
        """Number of the request that is one more; 0 if there is none."""
        self._trials = 0  # accepted in a row
        self._raised = False  # the number is one more than at the last refusal, at least

    def full(self, in_flight: int) -> bool:
        """Return True if no more than those under way may be."""
        if self.limit is None:
            return False
        return in_flight >= self.limit + (self._resting <= 0 and not self.trial)

    def sent(self, number: int, others: int) -> None:
        """Note that a request with this number is sent while so many others are under way."""
        if self.limit is not None and others >= self.limit:
            self.trial = number

    def ended(self, number: int) -> None:
        """Note that this request is over."""
        if number == self.trial:
            self.trial = 0

    def accepted(self, number: int, sent_at: float, others: int) -> None:
        """Count this accepted request, which was sent at this time beside so many others."""
        if self.limit is None:
            self._accepted[others] += sent_at >= self._refused_at
            return
        self._resting -= 1
        if number == self.trial:
            self._trials += 1
            if self._trials == TRIALS:
                self.limit, self._trials, self._raised = self.limit + 1, 0, True

    def refused(self, now: float, others: int) -> None:
        """Count the refusal of a request that was sent beside so many others."""
        self._refused_at = now
        if self.limit is None:
            compared = self._accepted.total()
            beside = sum(n for number, n in self._accepted.items() if number >= others)
            by_number = (beside + 1) / (compared + 1) <= RARE
            if not by_number and compared < 1.0 / RARE:
                return  # too few to tell
            self._accepted.clear()
        else:
            by_number = others >= self.limit or self.trial > 0 or self._raised
            self.limit -= self._raised
        self._raised = False
        if not by_number:
            self._sure = max(0, self._sure - 1)
            if not self._sure:
                self.limit = None
            return
        self._resting, self._trials = REST, 0
        self._sure = min(SURE, self._sure + 1)
        if self._sure == SURE and self.limit is None:
            self.limit = max(1, others)
