"""The measurements of one command: one load, several, or a search for the highest that meets an objective."""

from __future__ import annotations

from msgspec.structs import replace

from .engine import Engine
from .figures.objective import Objective
from .figures.store import Store
from .plan import Closed, Course, Load, Open
from .search import Search

MIN_LATE = 0.25
"""Seconds by which the last requests may be late, however short the run was: a pause of this machine."""


async def carry_out(engine: Engine, course: Course) -> Search | None:
    """Measure all of a course, until something stops it; the points are the engine's.

    All streams of a load have ended before the next one begins. The engine has the course's objective, if
    there is one. Raises as `Engine.measure`.
    """
    if course.objective is None:
        for plan in course.plans:
            if not engine.stopped:
                await engine.measure(plan)
        return None
    return await _find(engine, course, course.objective)


async def _find(engine: Engine, course: Course, objective: Objective) -> Search:
    (plan,) = course.plans
    first = plan.load.concurrency if course.over == "concurrency" else _rate_of(plan.load)
    engine.search = search = Search(
        over=course.over,
        share=objective.share,
        first=float(first or 1),
        precision=course.precision,
    )
    while search.value is not None:
        before = search.trials.get(search.value)
        runs = 0 if before is None else before.runs
        trial = replace(plan, load=_at(plan.load, search.value), seed=plan.seed + runs)
        await engine.measure(trial, passing=True)
        if engine.stopped or (run := engine.run) is None:
            search.end(engine.stopped)
            break
        counted = engine.counted
        offered = was_offered(counted, run.unsent, trial.load, course.precision)
        total = counted.sent - counted.outcomes["cancelled"]
        search.tell(counted.good, total, hopeless=run.gave_up, offered=offered)
    return search


def was_offered(counted: Store, unsent: int, load: Load, precision: float) -> bool:
    """Return False if requests were not started at their times for want of speed of this program.

    If they had to wait for a place within ``--concurrency``, that is the server's doing.
    """
    if not isinstance(load, Open) or load.concurrency is not None or counted.sent < 2:
        return True
    scheduled = counted.every("scheduled")
    wanted = scheduled.max() - scheduled.min()
    real = counted.every("sent").max() - scheduled.min()
    late, few = max(MIN_LATE, precision / 2 * wanted), precision / 2 * (counted.sent + unsent)
    return bool(real - wanted <= late) and unsent <= max(MIN_LATE * load.rate, few)


def _rate_of(load: Load) -> float | None:
    return load.rate if isinstance(load, Open) else None


def _at(load: Load, value: float) -> Load:
    """Return the load with another rate or concurrency."""
    if isinstance(load, Open):
        return replace(load, rate=value)
    if isinstance(load, Closed):
        return replace(load, concurrency=round(value))
    raise ValueError("a search can't vary a ramp or a trace")
