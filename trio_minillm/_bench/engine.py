"""The measurement of one load after the other, with one client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio

from .._client import Client
from .figures.figures import figures_of
from .hedge import Hedge
from .load import LoadRun
from .plan import Plan
from .record import ALONE, MEASURED, WARMUP, Record
from .run import Point

BUSY = 0.8
"""Share of a core from which on this program itself may have limited what was measured."""
BUSY_SECONDS = 1.0
"""Seconds that a run must have taken for `BUSY` to apply: a shorter one is always busy."""


class Engine:
    """Runs plans, and makes a point of each.

    ``sink`` is called with each record, whatever its phase, for whoever writes or watches them.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        *,
        secret: str = "",
        hedge: Hedge | None = None,
        max_cost: bool = False,
        sink: Callable[[Record], object] = lambda record: None,
    ) -> None:
        self._client = client
        self._model = model
        self._options: dict[str, Any] = {"secret": secret, "hedge": hedge, "max_cost": max_cost}
        self._sink = sink
        self.run: LoadRun | None = None
        """The load that runs, or ran last."""
        self.stopped = ""
        """The reason that no more requests are sent."""
        self.point: Point | None = None
        """Figures of the load that ended last, also of one that was cancelled."""

    def stop(self, why: str) -> None:
        """Send no more requests, in this load and in later ones."""
        self.stopped = self.stopped or why
        if self.run is not None:
            self.run.stop(why)

    async def measure(self, plan: Plan) -> Point:
        """Run a plan and return its figures. Raises as `LoadRun.run`."""
        records: dict[str, list[Record]] = {WARMUP: [], ALONE: [], MEASURED: []}

        def keep(record: Record) -> None:
            records[record.phase].append(record)
            self._sink(record)

        self.run = run = LoadRun(self._client, self._model, plan, keep, **self._options)
        if self.stopped:
            run.stop(self.stopped)
        cpu, began = time.process_time(), trio.current_time()
        try:
            await run.run()
        finally:
            self.stopped = self.stopped or run.stopped
            used, seconds = time.process_time() - cpu, trio.current_time() - began
            self.point = point = Point(
                load=plan.load,
                figures=figures_of(records[MEASURED]),
                warmup=figures_of(records[WARMUP]) if records[WARMUP] else None,
                alone=figures_of(records[ALONE]) if records[ALONE] else None,
                audit={"cpu_seconds": used, "seconds": seconds},
                notes=tuple(_notes(used, seconds)),
            )
        return point


def _notes(cpu: float, seconds: float) -> list[str]:
    if seconds >= BUSY_SECONDS and cpu > BUSY * seconds:
        share = cpu / seconds
        return [f"this program took {share:.0%} of a core: it may have been the limit"]
    return []
