"""The lines of ``trio-minillm bench --hedge``: each prompt with a second model and without one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

import trio_minillm as llm

from .._bench.figures.figures import Figures
from .._bench.hedge import Hedge
from .._bench.output.table import seconds_text
from .._bench.record import ALONE, MEASURED
from .._bench.run import Point
from ._costs import cost_fields, told_cost
from ._output import Row, usd
from ._shared import price_of


class SecondModel(msgspec.Struct, frozen=True, kw_only=True):
    """The second model of ``--hedge``, and the seconds after which it is asked."""

    name: str
    model: llm.Model
    after: float

    def behind(self, first: llm.Model) -> Hedge:
        """Return both models for a run."""
        second = msgspec.structs.replace(self.model, price=price_of(self.model))
        choice = llm.first_of(first, second, after=self.after)
        return Hedge(name=self.name, after=self.after, choice=choice)


def _lost(totals: llm.Totals, both: Figures) -> tuple[int, Decimal]:
    """Return the number of attempts that lost, and their USD as far as they are known."""
    left = both.outcomes.get("cancelled", 0)
    lost = totals.outcomes.get(llm.Outcome.CANCELLED, 0) - left
    return lost, totals.total - Decimal(both.cost or 0)


def hedge_rows(point: Point, alone: Figures, fields: dict[str, Any]) -> list[Row]:
    """Return the lines of the comparison, from what `hedge_fields` has returned."""
    both, requests = point.figures, fields["requests"]
    named = (ALONE, alone), ("with both", both)
    rows = [
        (f"TTFT {name}", " · ".join(_times(figures)))
        for name, figures in named
        if figures.latency["ttft"].count
    ]
    before, after = (figures.latency["ttft"].at("p99") for _, figures in named)
    if before and after is not None:
        rows.append(("p99", f"{1 - after / before:.0%} less" if after < before else "no less"))
    if both.sent:
        more = requests / both.sent - 1
        rows.append(("requests", f"{requests:,} for {both.sent:,} answers (+{more:.1%})"))
    cost = "cost unknown"
    if fields["lost_cost"] is not None:
        least = "at least " if fields["lost_at_least"] else ""
        cost = f"{least}${usd(Decimal(fields['lost_cost']))}"
    if fields["lost"]:
        rows.append(("lost", f"{fields['lost']:,} cancelled · {cost}"))
    return [*rows, ("cost alone", told_cost(fields["cost_alone"]))]


def hedge_fields(second: SecondModel, point: Point, ledger: llm.Ledger) -> dict[str, Any]:
    """Return the comparison for ``--json``; the figures of the first model alone are in the point."""
    costs = ledger.by_meta("bench")
    totals = costs.get(MEASURED) or llm.Totals()
    lost, usd_lost = _lost(totals, point.figures)
    known = llm.CostResolution.RESOLVED, llm.CostResolution.LOWER_BOUND
    return {
        "model": second.name,
        "after": second.after,
        "requests": totals.attempts,
        "lost": lost,
        "lost_cost": f"{usd_lost:f}" if usd_lost else None,
        "lost_at_least": totals.booked > sum(totals.resolutions.get(r, 0) for r in known),
        "cost_alone": cost_fields(costs.get(ALONE), None),
    }


def _times(figures: Figures) -> list[str]:
    ttft = figures.latency["ttft"]
    return [f"{name} {seconds_text(ttft.at(name))}" for name in ("p50", "p95", "p99")]
