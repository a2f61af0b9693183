"""Qualifications of the figures of a run, in words. Pure."""

from __future__ import annotations

from .figures import Figures
from .gaps import MAX_GAPS
from .spread import QUANTILES


def notes_of(figures: Figures) -> list[str]:
    """Return the qualifications that follow from the records themselves."""
    notes = []
    finished, tokens = figures.finished, figures.tokens
    if figures.empty:
        notes.append(f"{_many(figures.empty, 'complete answer')} had no content")
    if tokens is not None and tokens["answers"] < finished:
        missing = _many(finished - tokens["answers"], "complete answer")
        notes.append(f"{missing} had no usage, so the token counts are too low")
    if figures.retries:
        notes.append(
            f"{_many(figures.retries, 'retry', 'retries')}; times start at the first attempt"
        )
    if figures.goodput is not None and "tpot" in figures.goodput.limits and finished:
        unknown = finished - (0 if tokens is None else tokens["answers"])
        if unknown:
            notes.append(
                f"TPOT of {_many(unknown, 'complete answer')} is unknown, which counts as not good"
            )
    shown = {name: percent for name, percent in QUANTILES.items() if name != "p999"}
    few = [name for name, percent in shown.items() if finished < round(100 / (100 - percent))]
    if finished and few:
        *more, last = few
        names = f"{', '.join(more)} and {last}" if more else last
        verb = "is" if len(few) == 1 else "are"
        notes.append(f"with {_many(finished, 'complete answer')}, {names} {verb} the largest value")
    errors = [spread.relative_error for spread in figures.latency.values()]
    if any(errors):
        notes.append(f"percentiles of more than {MAX_GAPS:,} gaps are exact to {max(errors):.1%}")
    return notes


def _many(count: int, what: str, more: str = "") -> str:
    return f"{count:,} {what if count == 1 else more or f'{what}s'}"
