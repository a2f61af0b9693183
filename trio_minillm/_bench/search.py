"""The search for the highest load that meets an objective. Pure: it is told what was measured.

The load is doubled until it fails (or halved until it does not), and then the interval between the
highest that met the objective and the lowest that failed it is bisected in the logarithm. A share of
requests is only known within an interval; where that holds the wanted share, the same load is measured
again, and the requests are taken together.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

Z = 1.96
"""Standard deviations of the interval of a share: 95 % confidence."""
MAX_TRIALS = 60
"""Measurements of one search, at most: doubling to a million takes 20."""
MAX_AGAIN = 3
"""Times that one load is measured again while its verdict is uncertain. Then the estimate counts."""
MAX_HALVINGS = 10
"""Times that the first load is halved, before no load is said to meet the objective."""

MAX_HOPELESS = 3
"""Loads at which all failed, before the search is given up if none met the objective."""

Over = Literal["rate", "concurrency"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One load that was tried, with what is known of it so far."""

    value: float
    """Requests a second, or streams at once."""
    good: int
    """Requests that kept the limits."""
    total: int
    met: bool
    """The verdict."""
    certain: bool
    """True if the interval of the share does not hold the wanted one."""
    interval: tuple[float, float]
    """Bounds of the share of good requests, at 95 % confidence."""
    offered: bool = True
    """False if this program did not start the requests in time, so that the load was a lower one."""
    runs: int = 1
    """Measurements that were taken together."""


class Search:
    """The state of one search. Measure at `value` and `tell` until that is None.

    ``share`` is the wanted share of good requests, ``first`` the load to begin with. The search ends when
    the interval is no wider than ``precision``, as a share of the load.
    """

    def __init__(self, *, over: Over, share: float, first: float, precision: float) -> None:
        self.over: Over = over
        self.share = share
        self.precision = precision
        self.trials: dict[float, Trial] = {}
        """Loads that were tried, with what is known of each."""
        self.value: float | None = first
        """The load to measure next."""
        self.why = ""
        """The reason that the search ended before its precision was reached."""
        self._first = first
        self._left = MAX_TRIALS
        self._hopeless = 0

    @property
    def met(self) -> float | None:
        """The highest load that met the objective, of those below the lowest that failed."""
        passed = [one.value for one in self.trials.values() if one.met]
        limit = self.failed
        return max((v for v in passed if limit is None or v < limit), default=None)

    @property
    def failed(self) -> float | None:
        """The lowest load that failed it."""
        return min((one.value for one in self.trials.values() if not one.met), default=None)

    def tell(self, good: int, total: int, *, hopeless: bool = False, offered: bool = True) -> None:
        """Take what was measured at `value`, and set the next one.

        ``hopeless`` says that the run was given up, as all of its requests failed; ``offered`` is False if
        the load was not what it should have been. In both cases it has not met the objective.
        """
        assert self.value is not None
        value, before = self.value, self.trials.get(self.value)
        if before is not None and before.offered:
            good, total = good + before.good, total + before.total
        low, high = share_interval(good, total)
        certain = hopeless or not offered or not low < self.share <= high or total == 0
        runs = 1 if before is None else before.runs + 1
        self.trials[value] = Trial(
            value=value,
            good=good,
            total=total,
            met=not hopeless and offered and total > 0 and good >= self.share * total,
            certain=certain,
            offered=offered,
            interval=(low, high),
            runs=runs,
        )
        self._left -= 1
        self._hopeless += hopeless
        self.value = None
        if self._hopeless >= MAX_HOPELESS and self.met is None:
            self.why = "all requests failed"
        elif self._left == 0:
            self.why = f"gave up after {MAX_TRIALS} measurements"
        elif (not certain and runs <= MAX_AGAIN and self._near()) or (not offered and runs == 1):
            self.value = value
        else:
            self._go_on()
        limit = self.trials.get(self.failed or 0.0)
        if self.value is None and limit is not None and not limit.offered:
            self.why = (
                self.why or "the benchmark itself can't start requests any faster; try --processes"
            )

    def end(self, why: str) -> None:
        """End the search early."""
        self.value, self.why = None, why

    def fields(self) -> dict[str, Any]:
        """Return the outcome, in JSON's types. ``load`` is None if no load met the objective."""
        return {
            "over": self.over,
            "load": self.met,
            "interval": [self.met, self.failed],
            "precision": self.precision,
            "incomplete": self.why or None,
            "trials": [msgspec.to_builtins(trial) for trial in self.trials.values()],
        }

    # -- where to go -------------------------------------------------------------------------

    def _near(self) -> bool:
        """Return True if the verdict on `trials`' newest decides where the knee is looked for.

        While loads are still doubled and are met, the next one tells more than the same again.
        """
        return self.failed is not None

    def _go_on(self) -> None:
        met, failed = self.met, self.failed
        if met is None:
            assert failed is not None
            self._go_down(failed)
        elif failed is None:
            self.value = met * 2
        elif not self._narrow(met, failed):
            middle = math.sqrt(met * failed)
            self.value = float(self._whole(middle, met, failed))
        elif not (last := self.trials[met]).certain and last.runs <= MAX_AGAIN:
            self.value = met  # it passed while loads were doubled, where that was enough

    def _go_down(self, failed: float) -> None:
        least = 1.0 if self.over == "concurrency" else self._first / 2**MAX_HALVINGS
        if failed > least:
            lower = failed / 2
            self.value = max(1.0, math.floor(lower)) if self.over == "concurrency" else lower

    def _narrow(self, met: float, failed: float) -> bool:
        if self.over == "concurrency" and failed - met <= 1:
            return True
        return failed <= met * (1 + self.precision)

    def _whole(self, value: float, met: float, failed: float) -> float:
        if self.over == "rate":
            return value
        return min(max(round(value), met + 1), failed - 1)


def share_interval(good: int, total: int) -> tuple[float, float]:
    """Return the bounds of a share at 95 % confidence (Wilson's)."""
    if not total:
        return 0.0, 1.0
    p, z2 = good / total, Z * Z
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # In exact numbers the share is within; in floats, of none or of all, it may miss by a last digit.
    return min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))
