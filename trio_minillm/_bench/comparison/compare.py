"""The comparison of two sides, load by load. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..figures.spread import QUANTILES
from ..output.table import load_text, number_text, seconds_text
from ..plan import Load
from .change import (
    Change,
    Estimate,
    Paired,
    Z,
    change_of,
    estimate_of,
    ratio_interval,
    share_interval,
)
from .sides import LATENCIES, ResultError, Run, Side

STATISTICS = ("mean", *QUANTILES, "max")
RATES = ("requests", "chunks", "output_tokens")
"""Rates that are compared, each as ``…_per_second``."""
SHARES = ("failed", "goodput")
"""Shares of all requests."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One load on both sides."""

    base: str
    new: str
    load: str
    """The load in words; both, if they differ."""
    changes: dict[str, Change]
    paired: bool
    """True if the intervals are those of a bootstrap of requests, in which both sides draw the same
    prompts; otherwise they are made of each side's own intervals."""
    notes: tuple[str, ...]


def names_of_figures() -> list[str]:
    """Return the names of all figures that are compared."""
    return [
        *(f"{name}.{which}" for name in LATENCIES for which in STATISTICS),
        *(f"{name}_per_second" for name in RATES),
        *SHARES,
    ]


def compare(base: Side, new: Side) -> list[Comparison]:
    """Return the comparison of each load that both sides have. Raises `ResultError` if there is none."""
    pairs = _pairs(base, new)
    if not pairs:
        raise ResultError(f"{base.name} and {new.name} have no load in common")
    notes = _differences(base, new)
    left = sum(max(len(run.points()) for run in side.runs) - len(pairs) for side in (base, new))
    if left > 0:
        notes.append(f"{left} load{' is' if left == 1 else 's are'} on one side only")
    return [_comparison(base, new, at, notes) for at in pairs]


def _pairs(base: Side, new: Side) -> list[tuple[list[int], list[int]]]:
    """Return the numbers of the points that belong together, by run, on both sides."""
    runs = [*base.runs, *new.runs]
    if all(len(run.fields["points"]) == 1 for run in runs):
        return [([0] * len(base.runs), [0] * len(new.runs))]
    tables = [run.points() for run in runs]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    count = len(base.runs)
    found = [[table[key] for table in tables] for key in shared]
    return [(numbers[:count], numbers[count:]) for numbers in found]


def _comparison(
    base: Side, new: Side, at: tuple[list[int], list[int]], notes: list[str]
) -> Comparison:
    sides = [
        [run.fields["points"][number] for run, number in zip(side.runs, numbers, strict=True)]
        for side, numbers in zip((base, new), at, strict=True)
    ]
    loads = [load_text(msgspec.convert(points[0]["load"], Load)) for points in sides]
    notes = list(notes)
    if loads[0] != loads[1]:
        notes.insert(0, f"the loads differ: {loads[0]} and {loads[1]}")
    notes += _limited(base.name, sides[0]) + _limited(new.name, sides[1])
    paired = _paired(base, new, at)
    changes = [
        *(change for name in LATENCIES for change in _latencies(sides, name, paired)),
        *(_rate(sides, name) for name in RATES),
        _share(sides, "failed", paired),
        _share(sides, "goodput", None),
    ]
    return Comparison(
        base=base.name,
        new=new.name,
        load=loads[0] if loads[0] == loads[1] else " / ".join(loads),
        changes={change.name: change for change in changes},
        paired=paired is not None,
        notes=tuple(notes),
    )


def value_text(value: float | None, name: str) -> str:
    """Return the value of a figure in its unit: ``12.3 ms``, ``1.25%``, ``7.37``, or ``-``."""
    if value is None:
        return "-"
    if name in SHARES:
        return f"{value:.2%}"
    return seconds_text(value) if "." in name else number_text(value)


def _limited(name: str, points: list[dict[str, Any]]) -> list[str]:
    """Return a sentence on the compared figures that a side's own audit refuses."""
    found = {
        figure
        for point in points
        for figure in (point.get("audit") or {}).get("unreliable") or {}
        if figure in (*LATENCIES, *RATES)
    }
    shown = [figure for figure in (*LATENCIES, *RATES) if figure in found]
    return [f"the client may have limited {', '.join(shown)} in {name}"] if shown else []


def _paired(base: Side, new: Side, at: tuple[list[int], list[int]]) -> Paired | None:
    if not (base.sampled and new.sampled):
        return None
    samples = [
        [(run.samples or {})[n] for run, n in zip(side.runs, numbers, strict=True)]
        for side, numbers in zip((base, new), at, strict=True)
    ]
    return Paired(samples[0], samples[1])


def _latencies(sides: list[list[dict[str, Any]]], name: str, paired: Paired | None) -> list[Change]:
    """Return the changes of all figures of a distribution."""
    intervals = {} if paired is None else paired.intervals(name)
    changes = []
    for which in STATISTICS:
        base, new = (
            estimate_of(
                [point["latency"].get(name, {}).get(which) for point in points],
                [_error(point["latency"].get(name, {}), which) for point in points],
            )
            for points in sides
        )
        interval = intervals.get(which)
        if paired is None and which != "max":
            interval = ratio_interval(base, new)
        full = f"{name}.{which}"
        changes.append(
            change_of(full, base.value, new.value, interval, share=False, more_is_better=False)
        )
    return changes


def _error(spread: dict[str, Any], which: str) -> float | None:
    """Return the standard error of a figure, from its interval."""
    if (bounds := spread.get("intervals", {}).get(which)) is not None:
        return float((bounds[1] - bounds[0]) / 2 / Z)
    return None


def _rate(sides: list[list[dict[str, Any]]], name: str) -> Change:
    base, new = (
        estimate_of([point["rates"].get(name) for point in points], [None] * len(points))
        for points in sides
    )
    interval = ratio_interval(base, new)
    full = f"{name}_per_second"
    return change_of(full, base.value, new.value, interval, share=False, more_is_better=True)


def _share(sides: list[list[dict[str, Any]]], name: str, paired: Paired | None) -> Change:
    """Return the change of the share of failed or good requests, of those that were not cancelled."""
    counts: list[tuple[int, int]] = []
    for points in sides:
        of = sum(_ended(point) for point in points)
        good = [point.get("goodput") for point in points]
        if name == "failed":
            some = of - sum(point["counts"]["outcomes"].get("finished", 0) for point in points)
        elif any(found is None for found in good):
            return Change(name=name, base=None, new=None)
        else:
            some = sum(found["good"] for found in good if found is not None)
        counts.append((some, of))
    base, new = (Estimate(value=some / of if of else None) for some, of in counts)
    interval = share_interval(*counts)
    if paired is not None and all(some for some, _ in counts):
        interval = paired.failed()
    better = name == "goodput"
    return change_of(name, base.value, new.value, interval, share=True, more_is_better=better)


def _ended(point: dict[str, Any]) -> int:
    outcomes: dict[str, int] = point["counts"]["outcomes"]
    return sum(outcomes.values()) - outcomes.get("cancelled", 0)


def _differences(base: Side, new: Side) -> list[str]:
    """Return what was asked for differently, in sentences."""
    found = []
    one, two = _config(base.runs[0]), _config(new.runs[0])
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            found.append(f"{name} differs: {one.get(name, '-')} and {two.get(name, '-')}")
    for side in (base, new):
        if any(_config(run) != _config(side.runs[0]) for run in side.runs):
            found.append(f"the runs of {side.name} used different options")
    return found


def _config(run: Run) -> dict[str, Any]:
    """Return the options of a run, flat; its load is told for itself."""
    found: dict[str, Any] = {"version": run.fields.get("version")}
    config = run.fields.get("config")
    for name, value in (config if isinstance(config, dict) else {}).items():
        if name == "load":
            continue
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            found[name] = value
    return found
