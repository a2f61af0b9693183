"""The measurement of one load after the other, with one client or several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from msgspec.structs import replace

from .._client import Client
from .audit.audit import Audit, judged, merged
from .audit.stamps import Lags
from .audit.watch import Watch
from .figures.notes import notes_of
from .figures.objective import Objective
from .figures.store import Store
from .hedge import Hedge
from .kept import MAX_REQUESTS, MAX_STAMPS, Kept
from .load import LoadRun
from .plan import Plan
from .record import Record
from .run import Point
from .search import Search
from .steady import Steady
from .workers import Workers, WorkersRun

FULL = f"reached the limit of {MAX_REQUESTS:,} requests or {MAX_STAMPS:,} chunks"
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
        kept = Kept(steady=plan.steady, objective=self._objective)

        def keep(record: Record) -> None:
            kept.add(record)
            self._sink(record)

        self.run = run = self._load(plan, keep)
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
        return LoadRun(self._client, self._model, plan, sink, lags=self._lags, **self._options)

    def _point(self, run: Run, kept: Kept, audit: Audit) -> Point:
        """Return the figures of a load that has ended."""
        plan = run.plan
        if isinstance(run, WorkersRun) and run.over:
            audit = merged([*run.audits()], here=audit)
        point, self.counted = kept.point(plan.load, plan.seed)
        notes = *_notes(run, point.steady), *notes_of(point.figures), *kept.sizes.notes()
        return replace(point, audit=judged(audit, point.figures, plan.load), notes=notes)


def _notes(run: Run, steady: Steady | None) -> Iterator[str]:
    if run.gave_up or run.stopped == FULL:
        yield f"this load stopped early: {run.stopped}"
    if run.unsent:
        why = (
            "no stream was free in time"
            if run.plan.load.concurrency
            else "the benchmark itself was too slow"
        )
        yield f"{run.unsent:,} requests were due but never sent, because {why}"
    if steady is not None and not steady.found:
        yield f"no steady state: {steady.why}"
    elif steady is not None and steady.cut_failed:
        yield f"{steady.cut_failed:,} requests outside the steady state failed"
