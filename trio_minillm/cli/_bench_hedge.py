"""The comparison of ``trio-minillm bench --hedge``: each prompt with a second model and without one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

import trio_minillm as llm

from ._costs import cost_fields, cost_text
from ._measurements import Results, Sample, seconds_text
from ._output import Row, usd
from ._shared import price_of

ALONE = "alone"
"""The phase, in ``meta``, of the requests to the first model alone."""


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """The second model, and the seconds after which it is asked."""

    name: str
    model: llm.Model
    after: float


class Comparison:
    """The requests to the first model alone, beside those with a second one, which are measured."""

    def __init__(self, hedge: Hedge, measured: Results, secret: str) -> None:
        self.hedge = hedge
        self.measured = measured
        self.alone = Results(ALONE, secret)
        self._answers = Decimal(0)
        """USD of whole answers with a second model behind them."""

    def turns(self, number: int) -> tuple[Results, ...]:
        """Return the results that the two requests of a prompt count in, by turns in either order: the
        second may find the prompt in the server's cache.
        """
        both = self.alone, self.measured
        return both if number % 2 else both[::-1]

    def choice(self, model: llm.Model) -> llm.ModelChoice:
        """Return the first model with the second behind it."""
        second = msgspec.structs.replace(self.hedge.model, price=price_of(self.hedge.model))
        return llm.first_of(model, second, after=self.hedge.after)

    def add(self, results: Results, sample: Sample) -> None:
        """Take note of what a whole answer cost."""
        cost = sample.response.cost.amount
        if results is self.measured and sample.response.outcome is llm.Outcome.FINISHED:
            self._answers += cost or 0

    def _lost(self, totals: llm.Totals) -> tuple[int, Decimal]:
        """Return the number of attempts that lost, and their USD as far as they are known."""
        left = self.measured.outcomes[llm.Outcome.CANCELLED]
        return totals.outcomes.get(llm.Outcome.CANCELLED, 0) - left, totals.total - self._answers

    def rows(self, ledger: llm.Ledger) -> list[Row]:
        """Return the lines of the comparison."""
        costs = ledger.by_meta("bench")
        totals, sent = costs.get(self.measured.phase) or llm.Totals(), self.measured.sent
        times = [r.latencies.ttft.percentiles(50, 95, 99) for r in (self.alone, self.measured)]
        rows = [
            (f"first content {name}", " · ".join(_named(found)))
            for name, found in zip((ALONE, "with both"), times, strict=True)
            if found[-1] is not None
        ]
        alone, both = times[0][-1], times[1][-1]
        if alone and both is not None:
            rows.append(("p99", f"{1 - both / alone:.0%} less" if both < alone else "no less"))
        if sent:
            more = totals.attempts / sent - 1
            rows.append(("requests", f"{totals.attempts:,} for {sent:,} answers (+{more:.1%})"))
        lost, usd_lost = self._lost(totals)
        unknown = totals.booked - sum(
            totals.resolutions.get(r, 0)
            for r in (llm.CostResolution.RESOLVED, llm.CostResolution.LOWER_BOUND)
        )
        cost = f"{'at least ' if unknown else ''}${usd(usd_lost)}" if usd_lost else "cost unknown"
        if lost:
            rows.append(("lost", f"{lost:,} cancelled · {cost}"))
        return [*rows, ("cost alone", cost_text(costs.get(ALONE))), *self.alone.failures.rows()]

    def fields(self, ledger: llm.Ledger) -> dict[str, Any]:
        """Return the comparison for ``--json``."""
        costs = ledger.by_meta("bench")
        totals = costs.get(self.measured.phase) or llm.Totals()
        lost, usd_lost = self._lost(totals)
        both = (self.alone.latencies.ttft, self.measured.latencies.ttft)
        p95 = [times.percentiles(95)[0] for times in both]
        return {
            "model": self.hedge.name,
            "after": self.hedge.after,
            "requests": totals.attempts,
            "lost": lost,
            "lost_cost": f"{usd_lost:f}" if usd_lost else None,
            "p95": dict(zip((ALONE, "with_both"), p95, strict=True)),
            ALONE: {**self.alone.fields(), "cost": cost_fields(costs.get(ALONE), None)},
        }


def _named(times: list[float | None]) -> list[str]:
    return [f"p{p} {seconds_text(s)}" for p, s in zip((50, 95, 99), times, strict=True)]
