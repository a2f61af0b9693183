"""The measurement of one load after the other, with one client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._client import Client
from .audit.audit import Audit, judged
from .audit.stamps import Lags
from .audit.watch import Watch
from .figures.figures import figures_of
from .figures.notes import notes_of
from .figures.objective import Objective
from .figures.store import Store
from .hedge import Hedge
from .load import LoadRun
from .plan import Plan
from .prompts.told import SizesTold
from .record import ALONE, MEASURED, WARMUP, Record
from .run import Point


class Engine:
    """Runs plans, and makes a point of each.

    ``sink`` is called with each record, whatever its phase, for whoever writes or watches them.
    ``objective`` says which answers are good ones; ``lags`` are those of the client's reads, if its
    transport tells them.
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
        sink: Callable[[Record], object] = lambda record: None,
        lags: Lags | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._options: dict[str, Any] = {"secret": secret, "hedge": hedge, "max_cost": max_cost}
        self._sink = sink
        self._objective = objective
        self._lags = lags
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
        stores = {phase: Store(self._objective) for phase in (WARMUP, ALONE, MEASURED)}
        sizes = SizesTold()

        def keep(record: Record) -> None:
            stores[record.phase].add(record)
            sizes.add(record)
            self._sink(record)

        self.run = run = LoadRun(self._client, self._model, plan, keep, **self._options)
        if self.stopped:
            run.stop(self.stopped)
        with Watch(self._lags) as watch:
            run.measuring = watch.restart
            try:
                await run.run()
            finally:
                self.stopped = self.stopped or run.stopped
                self.point = point = self._point(plan, stores, watch.audit(), sizes)
        return point

    def _point(self, plan: Plan, stores: dict[str, Store], audit: Audit, sizes: SizesTold) -> Point:
        figures, warmup, alone = (
            figures_of(stores[phase], seed=plan.seed) for phase in (MEASURED, WARMUP, ALONE)
        )
        return Point(
            load=plan.load,
            figures=figures,
            warmup=warmup if warmup.sent else None,
            alone=alone if alone.sent else None,
            audit=judged(audit, figures, plan.load),
            notes=(*notes_of(figures), *sizes.notes()),
        )
