"""The measurement of one load after the other, with one client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import trio
from msgspec.structs import replace

from .._client import Client
from .figures.figures import Figures, figures_of
from .hedge import Hedge
from .load import LoadRun
from .plan import Plan
from .record import ALONE, MEASURED, WARMUP, Record
from .run import Point
from .search import Search
from .steady import Steady, steady_rates, steady_state
from .workers import Workers, WorkersRun

BUSY = 0.8
"""Share of a core from which on this program itself may have limited what was measured."""
BUSY_SECONDS = 1.0
"""Seconds that a run must have taken for `BUSY` to apply: a shorter one is always busy."""


MAX_STAMPS = 20_000_000
"""Contents of one load whose times are kept, some 700 MB of them. Then no more requests are sent."""
FULL = f"{MAX_STAMPS:,} contents are as many as are kept"
"""Reason for a stop there."""

Run: TypeAlias = LoadRun | WorkersRun


class Engine:
    """Runs plans, and makes a point of each.

    ``sink`` is called with each record, whatever its phase, for whoever writes or watches them. The
    requests are sent by ``workers``, if there are any.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        *,
        secret: str = "",
        hedge: Hedge | None = None,
        max_cost: bool = False,
        workers: Workers | None = None,
        sink: Callable[[Record], object] = lambda record: None,
    ) -> None:
        self._client = client
        self._model = model
        self._options: dict[str, Any] = {"secret": secret, "hedge": hedge, "max_cost": max_cost}
        self._workers = workers
        self._sink = sink
        self.run: Run | None = None
        """The load that runs, or ran last."""
        self.stopped = ""
        """The reason that no more requests are sent."""
        self.points: list[Point] = []
        """Figures of each load that has ended, also of one that was cancelled."""
        self.counted: list[Record] = []
        """Records of the newest load that its figures are made of."""
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
        kept: dict[str, list[Record]] = {WARMUP: [], ALONE: [], MEASURED: []}
        stamps = 0

        def keep(record: Record) -> None:
            nonlocal stamps
            kept[record.phase].append(record)
            stamps += len(record.stamps)
            if stamps > MAX_STAMPS:
                run.stop(FULL)
            self._sink(record)

        self.run = run = self._load(plan, keep)
        if self.stopped:
            run.stop(self.stopped)
        cpu, began = time.process_time(), trio.current_time()
        try:
            await run.run()
        finally:
            if not (self.stopped or run.stopped == FULL or (passing and run.gave_up)):
                self.stopped = run.stopped
            used, seconds = time.process_time() - cpu, trio.current_time() - began
            self.points.append(self._point(run, kept, used, seconds))
        return self.points[-1]

    def _load(self, plan: Plan, sink: Callable[[Record], object]) -> Run:
        if self._workers is not None:
            return self._workers.load(plan, sink)
        return LoadRun(self._client, self._model, plan, sink, **self._options)

    def _point(self, run: Run, kept: dict[str, list[Record]], used: float, seconds: float) -> Point:
        """Return the figures of a load that has ended."""
        plan, measured, alone = run.plan, kept[MEASURED], kept[ALONE]
        steady = steady_state(measured, plan.load) if plan.steady else None
        if steady is not None and steady.found:
            self.counted = [record for record in measured if steady.holds(record)]
            alone = [record for record in alone if steady.holds(record)]
            figures = in_steady_state(figures_of(self.counted), measured, steady)
        else:
            self.counted, figures = measured, figures_of(measured)
        return Point(
            load=plan.load,
            figures=figures,
            warmup=figures_of(kept[WARMUP]) if kept[WARMUP] else None,
            alone=figures_of(alone) if alone else None,
            steady=steady,
            audit={"cpu_seconds": used, "seconds": seconds, **_of_processes(run)},
            notes=tuple(_notes(run, steady, used, seconds)),
        )


def in_steady_state(figures: Figures, measured: list[Record], steady: Steady) -> Figures:
    """Return the figures of the requests that count, with the rates of the steady state itself."""
    assert steady.begin is not None
    assert steady.end is not None
    rates = {**figures.rates, **steady_rates(measured, steady)}
    return replace(figures, window=steady.end - steady.begin, rates=rates)


def _of_processes(run: Run) -> dict[str, Any]:
    """Return the CPU time of each worker process during what counted, where there are any."""
    if isinstance(run, LoadRun):
        return {}
    return {"workers": [{"cpu_seconds": o.cpu, "seconds": o.seconds} for o in run.over]}


def _notes(run: Run, steady: Steady | None, cpu: float, seconds: float) -> Iterator[str]:
    if run.gave_up or run.stopped == FULL:
        yield f"this load was stopped: {run.stopped}"
    if run.unsent:
        yield f"{run.unsent:,} requests that were due were not sent: no place was free"
    if steady is not None and not steady.found:
        yield f"no steady state was found: {steady.why}"
    elif steady is not None and steady.cut_failed:
        yield f"{steady.cut_failed:,} requests outside of the steady state failed"
    used = [("this program", cpu, seconds)]
    if isinstance(run, WorkersRun):
        used += [("one of its processes", over.cpu, over.seconds) for over in run.over]
    name, cpu, seconds = max(used, key=lambda one: one[1] / max(one[2], 1e-9))
    if seconds >= BUSY_SECONDS and cpu > BUSY * seconds:
        yield f"{name} took {cpu / seconds:.0%} of a core: it may have been the limit"
