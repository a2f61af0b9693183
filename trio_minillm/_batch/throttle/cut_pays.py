"""The test whether a cut pays, be it of a rate or of the number at once. Pure.

Rule: a cut must pay. A limit that is lowered because requests are refused stays lower only if a smaller
share of them is refused for it. At a tenth of the share it pays, at the same share it does not; answers
are counted until the odds are clear (Wald's sequential test of a ratio of probabilities).
"""

from __future__ import annotations

import math

RARE = 0.03
"""Share of refusals below which nothing is done about them: a known limit costs nearly as many."""
FEW = 5
"""Refusals that may be chance in any case: a short run is over before a cut could pay."""
BELOW = 0.8
"""Share of what was accepted that a first cut leaves: so little that a limit shows by the absence of
refusals, and enough not to matter if there is none."""
PAYS = 10.0
"""Factor by which a cut makes refusals fewer, if what was cut is what limits."""
SURE = math.log(50.0)
"""Odds at which that is decided."""
LEAST = 10
"""Answers that it takes to say that it does not: what a server has left of a second is used up in one
go."""
ENOUGH = 40
"""Answers after which the likelier of the two is taken."""


class CutTest:
    """The answers to requests that were sent after a cut, weighed against the share before it."""

    def __init__(self, usual: float, sure: float = SURE) -> None:
        self._sure = sure
        self._accepts = math.log((1.0 - usual) / (1.0 - usual / PAYS))
        self._answers = 0
        self._odds = 0.0  # that it does not pay: their logarithm

    def accepted(self) -> None:
        """Count an accepted request."""
        self._answers += 1
        self._odds += self._accepts

    def refused(self) -> None:
        """Count a refused one."""
        self._answers += 1
        self._odds += math.log(PAYS)

    def verdict(self, pending: int = 0) -> bool | None:
        """Return whether the cut pays; ``None``: not clear yet.

        ``pending`` requests have no answer yet. Refusals come sooner than answers, so what speaks for
        them must do so even if all of those are accepted.
        """
        if self._odds <= -self._sure:
            return True
        if self._answers >= LEAST and self._odds + pending * self._accepts >= self._sure:
            return False
        return self._odds < 0.0 if self._answers >= ENOUGH + pending else None
