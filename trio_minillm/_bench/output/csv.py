"""A result as CSV: a row for each load, in columns whose names stay."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from ..figures.figures import LATENCIES
from ..figures.spread import QUANTILES
from ..run import Point, Result
from .table import failed_of

STATISTICS = ("count", "mean", "std", "min", *QUANTILES, "max")
"""Figures of each distribution, as the names of its columns end."""
LOAD = ("concurrency", "rate", "burstiness", "first", "last", "seconds")
"""Parts of a load, by name: each kind of load has some of them."""
RATES = ("requests", "chunks", "output_tokens", "input_tokens")
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def columns() -> list[str]:
    """Return the names of all columns. Times are seconds; what is not known is an empty cell."""
    return [
        *("at", "version", "model", "point", "load", *LOAD),
        *("sent", "finished", "failed", "cancelled", "chunks", "retries", "window"),
        *(f"{name}_per_second" for name in RATES),
        *TOKENS,
        "cost",
        *(f"{name}_{which}" for name in LATENCIES for which in STATISTICS),
    ]


def csv_of(result: Result) -> str:
    """Return a result as CSV, with a head."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(), lineterminator="\n")
    writer.writeheader()
    for number, point in enumerate(result.points):
        writer.writerow(
            {
                "at": result.at.isoformat(),
                "version": result.version,
                "model": _plain(str(result.config.get("model") or "")),
                "point": number,
                **_fields(point),
            }
        )
    return out.getvalue()


def _fields(point: Point) -> dict[str, Any]:
    figures, load = point.figures, msgspec.to_builtins(point.load)
    tokens = figures.tokens or {}
    found: dict[str, Any] = {
        "load": load["type"],
        **{name: load.get(name) for name in LOAD},
        "sent": figures.sent,
        "finished": figures.finished,
        "failed": failed_of(figures),
        "cancelled": figures.outcomes.get("cancelled", 0),
        "chunks": figures.chunks,
        "retries": figures.retries,
        "window": figures.window,
        **{f"{name}_per_second": figures.rates.get(name) for name in RATES},
        **{name: tokens.get(name) for name in TOKENS},
        "cost": figures.cost,
    }
    for name in LATENCIES:
        if (spread := figures.latency.get(name)) is not None:
            at = {"count": spread.count, **{n: spread.at(n) for n in STATISTICS[1:]}}
            found |= {f"{name}_{which}": value for which, value in at.items()}
    return found


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
