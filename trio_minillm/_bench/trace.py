"""Traces: the times at which requests came to some server, read from a file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .._batch.files.rows import MAX_LINE

MAX_TRACE = 10_000_000
"""Requests of a trace: a day of 115 a second."""
COLUMN = "timestamp"
"""The field of a JSON line or the column of a CSV file that has the times, whatever its capitals."""


class TraceError(ValueError):
    """A file that is no trace. The message says which line is why."""


def read_trace(path: Path) -> list[float]:
    """Return the seconds after the first request of each one, in order.

    The file has a number of seconds in each line; or JSON lines with ``timestamp`` in milliseconds, as
    Mooncake's traces; or CSV with a column of that name, in seconds or as dates with a time. Empty lines
    are passed over. Raises `TraceError`, and ``OSError``.
    """
    times: list[float] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, at in _times(file):
                if times and at < times[-1]:
                    raise TraceError(f"line {number}: earlier than the line before")
                times.append(at)
                if len(times) > MAX_TRACE:
                    raise TraceError(f"it has more than {MAX_TRACE:,} requests")
    except (UnicodeError, csv.Error):
        raise TraceError("not a text file") from None
    if not times:
        raise TraceError("it has no requests")
    return [at - times[0] for at in times]


def _times(file: Any) -> Iterator[tuple[int, float]]:
    """Yield the time of each request in seconds, with the number of its line."""
    column: int | None = None
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
        if len(line) > MAX_LINE:
            raise TraceError(f"line {number}: longer than {MAX_LINE:,} characters")
        text = line.strip()
        if not text:
            continue
        if text.startswith("{"):
            yield number, _json_time(number, text)
            continue
        fields = [field.strip() for field in next(csv.reader([text]))]
        names = [field.lower() for field in fields]
        if column is None:
            column = names.index(COLUMN) if COLUMN in names else 0
            if COLUMN in names:
                continue
        yield number, _time(number, fields[column] if column < len(fields) else "")


def _json_time(number: int, text: str) -> float:
    try:
        found = msgspec.json.decode(text)
        milliseconds = {name.lower(): value for name, value in found.items()}[COLUMN]
        return _finite(float(milliseconds) / 1000)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError):
        raise TraceError(f"line {number}: not a JSON object with a number as {COLUMN}") from None


def _time(number: int, text: str) -> float:
    try:
        return _finite(float(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise TraceError(
            f"line {number}: neither a number of seconds nor a date with a time"
        ) from None


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number
