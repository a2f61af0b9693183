"""A comparison as a table, lines of text, and JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..output.table import NAMES
from .change import Change
from .compare import SHARES, Comparison, value_text

SCHEMA = "trio-minillm/bench-compare/1"
"""Name and version of the JSON object's form."""
SHOWN = (
    *("ttft.mean", "ttft.p50", "ttft.p99", "itl.mean", "itl.p99", "tpot.mean", "tpot.p99"),
    *("e2e.mean", "e2e.p50", "e2e.p99"),
    *("requests_per_second", "output_tokens_per_second", "goodput", "failed"),
)
"""Figures in the table, if they were measured; JSON has all."""
WORDS = {"same": "no difference shown", "unknown": "-"}
"""Verdicts in words, but for those that are words."""


def table_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the table, of which the first row is the head."""
    rows = [_row(change) for name in SHOWN if _measured(change := comparison.changes[name])]
    return [("", "base", "new", "new/base", "95 % interval", ""), *rows]


def _measured(change: Change) -> bool:
    return change.base is not None or change.new is not None


def _row(change: Change) -> tuple[str, ...]:
    name, _, which = change.name.partition(".")
    label = f"{NAMES[name]} {which}" if which else name.replace("_per_second", "/s")
    if name in SHARES:
        ratio = "-" if change.difference is None else f"{change.difference * 100:+.2f} pp"
        bounds, form = change.difference_interval, "{:+.2f} to {:+.2f} pp"
        bounds = None if bounds is None else (bounds[0] * 100, bounds[1] * 100)
    else:
        ratio = "-" if change.ratio is None else f"{change.ratio:.3f}x"
        bounds, form = change.ratio_interval, "{:.3f} to {:.3f}x"
    return (
        label.replace("_", " "),
        value_text(change.base, change.name),
        value_text(change.new, change.name),
        ratio,
        "-" if bounds is None else form.format(*bounds),
        WORDS.get(change.verdict, change.verdict),
    )


def fields_of(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison in JSON's types. Times are seconds."""
    found: dict[str, Any] = msgspec.to_builtins(comparison)
    return found
