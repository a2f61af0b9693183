"""The measurement of one load after the other, with one client or several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from msgspec.structs import replace

from .._client import Client
from .audit.audit import Audit, judged, merged
from .audit.stamps import Lags
from .audit.watch import Watch
from .figures.figures import Figures, figures_of
from .figures.notes import notes_of
from .figures.objective import Objective
from .figures.store import Store
from .hedge import Hedge
from .load import LoadRun
from .plan import Plan
from .prompts.told import SizesTold
from .record import ALONE, MEASURED, WARMUP, Record
from .run import Point
from .search import Search
from .steady import Steady, steady_rates, steady_state
from .workers import Workers, WorkersRun

MAX_STAMPS = 20_000_000
"""Contents of one load whose times are kept, some 700 MB of them. Then no more requests are sent."""
FULL = f"{MAX_STAMPS:,} contents are as many as are kept"
"""Reason for a stop there."""

Run: TypeAlias = LoadRun | WorkersRun


class Engine:
    """Runs plans, and makes a point of each.

    ``sink`` is called with each record, whatever its phase, for whoever writes or watches them. The
    requests are sent by ``workers``, if there are any. ``objective`` says which answers are good ones;
    ``lags`` are those of the client's reads, if its transport tells them.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        *,
        secret: str = "",
        hedge: Hedge | None = None,
        max_cost: bool = False,
        objective: Objective | None = None,
        workers: Workers | None = None,
        sink: Callable[[Record], object] = lambda record: None,
        lags: Lags | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._options: dict[str, Any] = {"secret": secret, "hedge": hedge, "max_cost": max_cost}
        self._workers = workers
        self._sink = sink
        self._objective = objective
        self._lags = lags
        self.run: Run | None = None
        """The load that runs, or ran last."""
        self.stopped = ""
        """The reason that no more requests are sent."""
        self.points: list[Point] = []
        """Figures of each load that has ended, also of one that was cancelled."""
        self.counted = Store()
        """The requests of the newest load that its figures are made of."""
        self.search: Search | None = None
        """The search that runs, or ran last."""

    def stop(self, why: str) -> None:
        """Send no more requests, in this load and in later ones."""
        self.stopped = self.stopped or why
        if self.run is not None:
            self.run.stop(why)

    async def measure(self, plan: Plan, *, passing: bool = False) -> Point:
        """Run a plan and return its figures. Raises as `LoadRun.run`.

        With ``passing``, a load at which all fails is no reason to measure no others.
        """
        kept = Kept(plan, self._objective, self._sink)
        self.run = run = self._load(plan, kept.add)
        kept.full = lambda: run.stop(FULL)
        if self.stopped:
            run.stop(self.stopped)
        with Watch(self._lags) as watch:
            run.measuring = watch.restart
            try:
                await run.run()
            finally:
                if not (self.stopped or run.stopped == FULL or (passing and run.gave_up)):
                    self.stopped = run.stopped
                self.points.append(self._point(run, kept, watch.audit()))
        return self.points[-1]

    def _load(self, plan: Plan, sink: Callable[[Record], object]) -> Run:
        if self._workers is not None:
            return self._workers.load(plan, sink)
        run = LoadRun(self._client, self._model, plan, sink, **self._options)
        if self._lags is not None:
            run.sender.lag_at = self._lags.at
        return run

    def _point(self, run: Run, kept: Kept, audit: Audit) -> Point:
        """Return the figures of a load that has ended."""
        plan = run.plan
        if isinstance(run, WorkersRun) and run.over:
            audit = merged([*run.audits()], here=audit)
        steady = kept.steady()
        stores = kept.counted(steady)
        self.counted = stores[MEASURED]
        figures, warmup, alone = (
            figures_of(stores[phase], seed=plan.seed) for phase in (MEASURED, WARMUP, ALONE)
        )
        if steady is not None and steady.found:
            figures = in_steady_state(figures, kept.of(MEASURED), steady)
        return Point(
            load=plan.load,
            figures=figures,
            warmup=warmup if warmup.sent else None,
            alone=alone if alone.sent else None,
            steady=steady,
            audit=judged(audit, figures, plan.load),
            notes=(*_notes(run, steady), *notes_of(figures), *kept.sizes.notes()),
        )


class Kept:
    """The records of one run as far as they are kept: all of what may be cut off, the sums of the rest."""

    def __init__(
        self, plan: Plan, objective: Objective | None, sink: Callable[[Record], object]
    ) -> None:
        self.measured: list[Record] = []
        """Those that count, and those to the first model alone; empty if no steady state is wanted."""
        self.sizes = SizesTold()
        self.full: Callable[[], object] = lambda: None
        """Called when more would take too much memory."""
        self._plan = plan
        self._objective = objective
        self._sink = sink
        self._stores = self._empty()
        self._stamps = 0

    def _empty(self) -> dict[str, Store]:
        return {phase: Store(self._objective) for phase in (WARMUP, ALONE, MEASURED)}

    def add(self, record: Record) -> None:
        """Take a record."""
        self._stores[record.phase].add(record)
        if self._plan.steady and record.phase != WARMUP:
            self.measured.append(record)
            self._stamps += len(record.stamps)
            if self._stamps > MAX_STAMPS:
                self.full()
        self.sizes.add(record)
        self._sink(record)

    def steady(self) -> Steady | None:
        """Return the steady state, if one is wanted."""
        if not self._plan.steady:
            return None
        return steady_state(self.of(MEASURED), self._plan.load)

    def of(self, phase: str) -> list[Record]:
        """Return the records of a phase that are kept."""
        return [record for record in self.measured if record.phase == phase]

    def counted(self, steady: Steady | None) -> dict[str, Store]:
        """Return what figures are made of, by phase."""
        if steady is None or not steady.found:
            return self._stores
        stores = {**self._empty(), WARMUP: self._stores[WARMUP]}
        for record in self.measured:
            if steady.holds(record):
                stores[record.phase].add(record)
        return stores


def in_steady_state(figures: Figures, measured: list[Record], steady: Steady) -> Figures:
    """Return the figures of the requests that count, with the rates of the steady state itself."""
    assert steady.begin is not None
    assert steady.end is not None
    rates = {**figures.rates, **steady_rates(measured, steady)}
    return replace(figures, window=steady.end - steady.begin, rates=rates)


def _notes(run: Run, steady: Steady | None) -> Iterator[str]:
    if run.gave_up or run.stopped == FULL:
        yield f"this load was stopped: {run.stopped}"
    if run.unsent:
        yield f"{run.unsent:,} requests that were due were not sent: no place was free in time"
    if steady is not None and not steady.found:
        yield f"no steady state was found: {steady.why}"
    elif steady is not None and steady.cut_failed:
        yield f"{steady.cut_failed:,} requests outside of the steady state failed"
