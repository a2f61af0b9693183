"""The doubt whether a server's refusals are a matter of rate: a cut must pay. Pure.

A limit that is learned from refusals stays only if refusals become fewer for it. If the rate is what
limits, a refusal comes when the rate is back at the estimate, for which about a hundred requests are
accepted (`learned_rate.BACK_REQUESTS`); refusals that come much earlier, at a rate that was cut, are
no matter of rate: the server is short of machines, or refuses at random.

==========================================  ======================================================
event                                       what happens
==========================================  ======================================================
fewer than 3 % of requests are refused      nothing: a known limit costs nearly as many
fewer than 35 % are, and fewer than 200     nothing yet: a short run is over before a cut could
answers have come since the first refusal   pay, and a limit that is far exceeded refuses more
a refusal after fewer than 40 accepted (8   a contradiction
above the estimate, where one is expected)
a refusal after more                        one contradiction less
three contradictions                        exemption: it is tried without the limit
30 answers in an exemption                  it is proven if the share of refusals is about the same;
                                            otherwise the limit is back, for 20 s at least, and
                                            twice as long each time
the share rises suddenly, later             the exemption ends; everything is learned anew
==========================================  ======================================================

The numbers are those of the simulation, ``benchmarks/control.py``, and hold in the tests of
``tests/batch/throttle`` at 2 to 100 requests a second: with fewer contradictions or answers, true limits are doubted, and each trial costs a few
refusals; with more, refusals at random slow a run down for longer. A server that states its limits is
not doubted.
"""

from __future__ import annotations

import math

RARE = 0.03
"""Share of refusals below which nothing is done about them."""
CHANCE_SHARE, FIRST_REFUSALS, SURE_ANSWERS = 0.35, 5, 200
"""Share of refusals up to which they may be chance, and number of them; and answers since the first
refusal from which on they are not taken for chance any more."""
SHARED_ANSWERS = 20
"""Answers from which on a share is told; and requests without an answer that are taken for accepted."""
HALF, MOSTLY = 0.5, 0.75
"""Share of refusals beyond which two in a row are no chance; and that beyond which the server
refuses nearly all."""
FEW, VERY_FEW = 40, 8
"""Accepted requests since the last cut below which a refusal contradicts the estimate: at a rate up
to it, and above it."""
CONTRADICTIONS = 3
"""Refusals that contradict the estimate after which an exemption begins."""
TRIAL = 30
"""Answers by which an exemption is judged."""
REST, LONGEST_REST = 20.0, 2_560.0
"""Seconds from an exemption that failed to the next."""
CHANCE = 1e-4
"""Probability below which failures in a row are no chance."""


class Exemption:
    """A time without a learned limit; ``share`` is the share of refusals that there was under it."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.proven = False
        """True once the share turned out to be about the same without the limit."""
        self.failed = False
        """True once it turned out to be higher."""
        self._answers = self._refused = 0
        self._recent = share  # a moving average over some fifty answers

    def count(self, *, refused: bool) -> None:
        """Count an answer."""
        self._answers += 1
        self._refused += refused
        self._recent += (refused - self._recent) / 50.0
        if not self.proven and self._answers >= TRIAL:
            found = self._refused / self._answers
            # The share under the limit was told from few answers, too.
            self.proven = found <= min(max(1.3 * self.share + 0.1, 3.0 * self.share), MOSTLY)
            self.failed = not self.proven
            self.share = self._recent = found
        elif self.proven:
            self.failed = self._recent > min(0.9, 2.0 * self.share + 0.2)

    @property
    def patience(self) -> int:
        """The number of failures in a row that are no chance, at this share of refusals."""
        return max(2, _patience(max(self._recent, self.share)))


def _patience(share: float) -> int:
    return math.ceil(math.log(CHANCE) / math.log(min(max(share, 0.01), 0.9)))


class Doubt:
    """The evidence for and against a learned limit, by the table above."""

    def __init__(self) -> None:
        self.exemption: Exemption | None = None
        self._contradictions = 0
        # Answers to requests that were sent since the first refusal, or the end of an exemption.
        self._since = math.inf
        self._accepted = self._refused = 0
        self._rests_until = -math.inf
        self._rest = REST

    @property
    def share(self) -> float:
        """The share of refusals."""
        return self._refused / max(1, self._accepted + self._refused)

    def accepted(self, sent_at: float) -> None:
        """Count an accepted request that was sent at this time."""
        self._accepted += sent_at >= self._since
        if self.exemption is not None:
            self.exemption.count(refused=False)

    def refused(self) -> None:
        """Count a refusal."""
        self._refused += 1
        if self.exemption is not None:
            self.exemption.count(refused=True)

    def seems_chance(self, now: float, pending: int) -> bool:
        """Return True if refusals are too few to do anything about them.

        ``pending`` requests have no answer yet: refusals come sooner than answers, so those may
        well be accepted.
        """
        answers = self._accepted + self._refused
        if self._refused > 1 and self.share >= RARE:
            likely = CHANCE_SHARE * (answers + min(pending, SHARED_ANSWERS))
            few = self._refused <= max(FIRST_REFUSALS, likely)
            return few and answers < SURE_ANSWERS
        self._begin(now)
        return True

    @property
    def patience(self) -> int:
        """The number of refusals in a row that are no chance, before there is a limit."""
        if self._accepted + self._refused < SHARED_ANSWERS:
            return 3
        return 2 if self.share > HALF else max(3, _patience(self.share))

    def contradicted(self, accepted: int, now: float, *, above: bool) -> bool:
        """Weigh a refusal behind so many ``accepted`` requests since the last cut. Returns True if
        it contradicts the estimate, and not as the first; begins an exemption if that is due.
        ``above``: the rate is above the estimate, where a refusal is expected.
        """
        early = 0 < accepted < (VERY_FEW if above else FEW) and self.share <= MOSTLY
        self._contradictions = max(0, self._contradictions + (1 if early else -1))
        if self._contradictions >= CONTRADICTIONS and now >= self._rests_until:
            self.exemption = Exemption(self.share)
        return self._contradictions > 1

    def end(self, now: float) -> None:
        """End an exemption that has failed."""
        self.exemption = None
        self._contradictions = 0
        self._begin(now)
        self._rests_until = now + self._rest
        self._rest = min(LONGEST_REST, 2.0 * self._rest)

    def _begin(self, now: float) -> None:
        self._since = now
        self._accepted, self._refused = 0, 1
