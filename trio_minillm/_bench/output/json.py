"""A result as a JSON object, whose form docs/benchmarks/bench-output.md describes."""

from __future__ import annotations

from typing import Any

import msgspec

from ..audit.null import NullRun
from ..figures.figures import Figures
from ..figures.spread import fields_of as spread_fields
from ..run import SCHEMA, Point, Result


def fields_of(result: Result) -> dict[str, Any]:
    """Return a result in JSON's types."""
    return {
        "schema": SCHEMA,
        "version": result.version,
        "at": result.at,
        "config": result.config,
        "points": [_point_fields(point) for point in result.points],
        "found": result.found,
    }


def _point_fields(point: Point) -> dict[str, Any]:
    warmup, alone = point.warmup, point.alone
    told = None
    if warmup is not None:
        told = {"sent": warmup.sent, "finished": warmup.finished, "failures": warmup.failures}
    return {
        "load": msgspec.to_builtins(point.load),
        "seed": point.seed,
        **_figures_fields(point.figures),
        "warmup": told,
        "alone": None if alone is None else _figures_fields(alone),
        "steady": msgspec.to_builtins(point.steady),
        "audit": {**msgspec.to_builtins(point.audit), "null": _null_fields(point.null_run)},
        "notes": list(point.notes),
    }


def _figures_fields(figures: Figures) -> dict[str, Any]:
    return {
        "counts": {
            "sent": figures.sent,
            "outcomes": figures.outcomes,
            "finish_reasons": figures.reasons,
            "chunks": figures.chunks,
            "together": msgspec.to_builtins(figures.together),
            "empty": figures.empty,
            "retries": figures.retries,
        },
        "latency": {name: spread_fields(spread) for name, spread in figures.latency.items()},
        "window": figures.window,
        "rates": figures.rates,
        "tokens": figures.tokens,
        "failures": figures.failures,
        "cost": figures.cost,
        "costs": figures.costs,
        "goodput": msgspec.to_builtins(figures.goodput),
        "series": msgspec.to_builtins(figures.series),
    }


def _null_fields(null: NullRun | None) -> dict[str, Any] | None:
    if null is None:
        return None
    fields: dict[str, Any] = msgspec.to_builtins(null)
    return fields | {n: spread_fields(getattr(null, n)) for n in ("ttft", "e2e", "arrival", "itl")}
