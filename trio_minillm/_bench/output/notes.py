"""What qualifies the figures of a load, in sentences."""

from __future__ import annotations

from ..figures.figures import Figures
from ..run import Point


def notes_of(point: Point) -> list[str]:
    """Return the point's own notes, and what its figures say of themselves."""
    return [*point.notes, *figures_notes(point.figures)]


def figures_notes(figures: Figures) -> list[str]:
    """Return what must be known to read these figures."""
    notes = []
    empty = figures.finished - figures.latency["ttft"].count
    if empty > 0:
        notes.append(f"{_many(empty)} had no content")
    told = 0 if figures.tokens is None else figures.tokens["answers"]
    if 0 < told < figures.finished:
        missing = _many(figures.finished - told)
        notes.append(f"{missing} came without usage: there were more tokens than these")
    if figures.retries:
        notes.append(
            f"sent again: {figures.retries:,}; times run from the first attempt, waiting included"
        )
    return notes


def _many(count: int) -> str:
    return f"{count:,} whole answer{'' if count == 1 else 's'}"
