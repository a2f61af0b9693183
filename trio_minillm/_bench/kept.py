"""The records of one load as far as they are kept, and the figures that are made of them. Pure.

A run and whoever reads its records again take the same way from records to figures.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from .figures.figures import Figures, figures_of
from .figures.objective import Objective
from .figures.series import series_of
from .figures.store import Store
from .plan import Load
from .prompts.told import SizesTold
from .record import ALONE, MEASURED, WARMUP, Record
from .run import Point
from .steady import Steady, steady_rates, steady_state

MAX_REQUESTS = 10_000_000
"""Requests of one load, of each of which some 200 bytes are kept: 2 GB. Then no more are sent."""
MAX_STAMPS = 20_000_000
"""Contents of one load whose times are kept, and requests, some 700 MB of them. Then no more requests are sent."""


class Kept:
    """All records of what may be cut off, if a steady state is looked for; of others, sums."""

    def __init__(self, *, steady: bool, objective: Objective | None) -> None:
        self.measured: list[Record] = []
        """Those that count, and those to the first model alone; empty if no steady state is wanted."""
        self.sizes = SizesTold()
        self.full: Callable[[], object] = lambda: None
        """Called when more would take too much memory."""
        self._steady = steady
        self._objective = objective
        self._stores = self._empty()
        self._requests = self._stamps = 0

    def _empty(self) -> dict[str, Store]:
        return {phase: Store(self._objective) for phase in (WARMUP, ALONE, MEASURED)}

    def add(self, record: Record) -> None:
        """Take a record. Raises ``KeyError`` for a phase that there is not."""
        self._stores[record.phase].add(record)
        self._requests += 1
        if self._steady and record.phase != WARMUP:
            self.measured.append(record)
            self._stamps += 1 + len(record.stamps)
        if self._requests >= MAX_REQUESTS or self._stamps > MAX_STAMPS:
            self.full()
        self.sizes.add(record)

    def point(self, load: Load, seed: int) -> tuple[Point, Store]:
        """Return the figures of the load, and the measured requests that they are made of."""
        steady = steady_state(self._of(MEASURED), load) if self._steady else None
        stores = self._counted(steady)
        figures, warmup, alone = (
            figures_of(stores[phase], seed=seed) for phase in (MEASURED, WARMUP, ALONE)
        )
        if steady is not None and steady.found:
            figures = in_steady_state(figures, self._of(MEASURED), steady)
            figures = replace(figures, series=series_of(self._stores[MEASURED]))
        point = Point(
            load=load,
            seed=seed,
            figures=figures,
            warmup=warmup if warmup.sent else None,
            alone=alone if alone.sent else None,
            steady=steady,
        )
        return point, stores[MEASURED]

    def _of(self, phase: str) -> list[Record]:
        """Return the records of a phase that are kept."""
        return [record for record in self.measured if record.phase == phase]

    def _counted(self, steady: Steady | None) -> dict[str, Store]:
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
