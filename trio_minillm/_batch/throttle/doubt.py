"""The doubt whether a server refuses for the rate of requests: a cut must pay. Pure.

Rule: a limit that was learned from refusals stays only if fewer requests are refused for it. If the
rate is what limits, then at a rate below what was accepted hardly anything is refused, and at four
times as much nothing more is accepted. If refusals are chance, or the server is short of machines,
their share is the same at any rate, and to send less only means to finish later.

========  ================================================  ===========================  ===========
state     event                                             verdict                      next state
========  ================================================  ===========================  ===========
FREE      more are refused than may be chance, or the       what is refused depends on   CUT
          share has not been looked into for long           the rate, perhaps
FREE      the same, and hardly anything is accepted         it does                      LIMITED
CUT       answers at a fifth less than was accepted:        it does                      LIMITED
          hardly a refusal
CUT       as many refusals as before                        it does not                  RAISED
CUT       the same, soon after a raise that failed          open                         LIMITED, as
                                                                                         before
LIMITED   more is accepted than a window that was guessed   it does not                  FREE
LIMITED   three refusals that come too early for a limit    perhaps it does not          CUT
RAISED    24 answers at four times the rate: the share is   it does not, so far          RAISED, or
          nearer to what it was than to what a limit makes                               FREE at any
          of it                                                                          rate
RAISED    the share is higher                               it does                      LIMITED
========  ================================================  ===========================  ===========

A wrong cut costs the answers that it takes to judge it, a wrong raise some twenty refusals. The model and
its comparison are in this folder's ``__init__.py``. A server that states its limits is not doubted.
"""

from __future__ import annotations

import math
from enum import Enum, auto

from .cut_pays import FEW, RARE, SURE, CutTest

CHANCE = 0.35
"""Share of refusals, above the usual one, up to which they may be chance: a limit that is exceeded by
far refuses more."""
CHECK = 200
"""Answers after which the share is looked into in any case; twice as many each time that it turned
out to be chance."""
BLOCK = 50
"""Answers over which a rise of the share is noticed."""
MOSTLY = 0.75
"""Share of refusals beyond which the server refuses nearly all, which is no chance."""
EARLY, EARLY_ABOVE, CONTRADICTIONS = 40, 8, 3
"""Accepted requests since the last cut below which a refusal is early, at a rate up to the estimate, for
which a hundred are accepted before a limit shows again, and above it; and how many such it takes."""
TRIAL, STEP = 24, 4.0
"""Answers by which a raised rate is judged, and the factor of it. A true limit then costs some eighteen
refusals; a smaller factor tells it from chance less well."""
REST, LONGEST_REST = 20.0, 2_560.0
"""Seconds from a raise that failed to the next; twice as many each time."""
NO_CHANCE = 1e-3
"""Probability below which failures in a row are no chance."""


class State(Enum):
    """States of the table above."""

    FREE = auto()
    CUT = auto()
    LIMITED = auto()
    RAISED = auto()


FREE, LIMITED = State.FREE, State.LIMITED
"""Two that each accepted request is asked about: see `trio_minillm._types.response.FINISHED`."""


class Doubt:
    """The evidence for and against a limit, and the state that follows from it.

    Its 16 attributes are what has been counted, by state and block.
    """

    def __init__(self) -> None:
        self.state = State.FREE
        self.untouched = True
        """True until the first refusal: until then accepted requests need not be counted."""
        self.usual = 0.0
        """The share of refusals to expect, whatever the rate."""
        self.pays = True
        """False if the last cut to the limit has not made refusals fewer."""
        self._chance = 0.0  # the share of refusals over a long time without a limit
        # Answers to requests that were sent since the state began, or since the first refusal.
        self._since = math.inf
        self._accepted = self._refused = 0
        # Those of the last block, while there is no limit.
        self._block_accepted = self._block_refused = 0
        self._check = CHECK
        self._sure = SURE
        self._test = CutTest(0.5)  # of the newest cut
        self._contradictions = 0
        self._rests_until = -math.inf
        self._rest = REST

    @property
    def share(self) -> float:
        """The share of refusals since the state began."""
        return self._refused / max(1, self._accepted + self._refused)

    @property
    def patience(self) -> float:
        """The number of failures in a row that are no chance."""
        if self.state is State.LIMITED:
            return max(2, unlikely_row(self.usual))
        if self.state is State.FREE and self.usual:
            return math.inf  # a rise is noticed by the share
        if self._accepted + self._refused < TRIAL:
            return max(
                5, unlikely_row(self.usual)
            )  # a row of five is one in twenty-five at shares to 75 %
        share = max(self.share, self.usual)
        if share > MOSTLY:
            return 2
        return max(3, unlikely_row(share))

    def accepted_rate(self, now: float, pending: int) -> float | None:
        """Return the requests accepted in a second since the state began, of ``pending`` ones a share
        as of the others; ``None`` if they are too few to tell.
        """
        if self._accepted < FEW or now <= self._since:
            return None
        return (self._accepted + pending * (1.0 - self.share)) / (now - self._since)

    # -- what happens ------------------------------------------------------------------------

    def accepted(self, sent_at: float) -> None:
        """Count an accepted request that was sent at this time."""
        if sent_at < self._since:
            return
        self._accepted += 1
        if self.state is State.CUT:
            self._test.accepted()
        elif self.state is State.FREE:
            self._block_accepted += 1
            self._end_block()

    def refused(self, now: float, sent_at: float) -> None:
        """Count the refusal of a request that was sent at this time."""
        if self.untouched:
            self.untouched, self._since = False, now
        if sent_at < self._since and self.state in (State.CUT, State.RAISED):
            return
        if self.state is State.CUT:
            self._test.refused()
        elif self.state is State.FREE:
            self._block_refused += 1
            self._end_block()
        self._refused += 1

    def _end_block(self) -> None:
        if self._block_accepted + self._block_refused >= BLOCK:
            self._block_accepted = self._block_refused = 0

    # -- what follows ------------------------------------------------------------------------

    def seems_chance(self, now: float, pending: int) -> bool:
        """Return True if refusals without a limit are too few to do anything about them.

        ``pending`` requests have no answer yet: refusals come sooner than answers, so those may
        well be accepted.
        """
        answers = self._accepted + self._refused
        if self._refused > 1 and self.share < RARE:
            self._begin(now, State.FREE)
            self._refused = 1
            return True
        if answers >= self._check:
            return False
        if self._accepted < FEW and not self.mostly(pending):
            return True
        most = min(0.9, CHANCE + 2.0 * self.usual)
        recent = self._block_accepted + self._block_refused + pending
        return self._block_refused <= max(self._few, most * recent)

    def mostly(self, pending: int) -> bool:
        """Return True if nearly all are refused, even if all that have no answer yet are accepted, or
        if there were many.
        """
        answers = self._accepted + self._refused
        if answers < BLOCK:
            answers += pending
        return self._refused > max(self._few, MOSTLY * answers)

    @property
    def _few(self) -> int:
        """The number of refusals that may be chance in any case."""
        return max(FEW, unlikely_row(self.usual))

    def cut(self, now: float, pending: int) -> None:
        """Begin to judge a cut."""
        if self.state is State.FREE and self._accepted + self._refused >= BLOCK:
            self._chance = self.share
        self.usual = max(self._chance, self._guess(pending))
        self._contradictions = 0
        self._test = CutTest(self.usual, self._sure)
        self._begin(now, State.CUT)

    def _guess(self, pending: int) -> float:
        """Return the share of refusals, as far as few answers tell (Laplace's rule of succession), if
        all that have no answer yet are accepted.
        """
        return (self._refused + 1) / (self._accepted + self._refused + pending + 2)

    def limit(self, now: float, *, pays: bool = True) -> None:
        """Begin with a limit. If it does not pay, it is there because a higher rate has not paid either,
        and waits for the next trial.
        """
        self.pays = pays
        if self.state is State.CUT:
            self.usual = self.share  # what is left of it
        self._contradictions = 0
        self._begin(now, State.LIMITED)

    def free(self, now: float) -> None:
        """Go on without a limit."""
        self._check *= 2
        self._sure += SURE
        self._begin(now, State.FREE)

    def verdict(self, pending: int) -> bool | None:
        """Return whether a cut or a raise has shown that the rate is what limits; ``None``: not yet.

        ``pending`` requests have no answer yet. Refusals come sooner than answers, so what speaks for
        the refusals must do so even if all of those are accepted.
        """
        if self.state is State.CUT:
            return self._test.verdict(pending)
        answers, usual = self._accepted + self._refused, self.usual
        limited = 1.0 - (1.0 - usual) / STEP  # if no more is accepted than before
        most = (usual + limited) / 2.0
        if answers < TRIAL:
            return None
        if self.share <= most:
            return False
        return True if self._refused > most * (answers + pending) else None

    def raise_rate(self, now: float) -> None:
        """Begin to judge a raised rate."""
        if self.state is State.LIMITED:
            self.usual = max(self._chance, self._guess(0))
        self._begin(now, State.RAISED)

    def raise_failed(self, now: float) -> None:
        """Go back to the limit, and leave it in peace for a while."""
        self._rests_until = now + self._rest
        self._rest = min(LONGEST_REST, 2.0 * self._rest)
        self.limit(now)

    def contradicted(self, accepted: int, now: float, *, above: bool) -> bool:
        """Weigh a refusal behind so many ``accepted`` requests since the last cut. Returns True if
        there were enough that contradict the limit. ``above``: the rate is above the estimate, where a
        refusal is expected.
        """
        if not 0 < accepted < (EARLY_ABOVE if above else EARLY) or self.share > MOSTLY:
            self._contradictions = max(0, self._contradictions - 1)
            return False
        self._contradictions += 1
        if self._contradictions == 1:
            self._begin(now, State.LIMITED)
        return self._contradictions >= CONTRADICTIONS

    @property
    def contested(self) -> bool:
        """True if the newest refusals contradict the limit."""
        return self._contradictions > 1

    def may_raise(self, now: float) -> bool:
        """Return False if the limit was found to be right not long ago."""
        return now >= self._rests_until

    def _begin(self, now: float, state: State) -> None:
        self.state = state
        self.untouched = False
        self._since = now
        self._accepted = self._refused = self._block_accepted = self._block_refused = 0


def unlikely_row(share: float) -> int:
    """Return the failures in a row that are no chance at this share of them."""
    return math.ceil(math.log(NO_CHANCE) / math.log(min(max(share, 0.01), MOSTLY)))
