"""The course of a run: what began, ended and came in each second. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .store import Store

MAX_BINS = 600
"""Bins of a series; a longer run has wider ones."""
WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
"""Widths of bins, in seconds."""

Floats = NDArray[np.float64]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Counts by bins of ``width`` seconds, from the first request's start on; all lists are of one length."""

    width: float
    """Seconds of each bin."""
    began: float
    """Time of the first bin's beginning, on the machine's monotonic clock."""
    started: list[int]
    """Requests that began."""
    ended: list[int]
    """Whole answers that ended."""
    failed: list[int]
    """Other requests that ended."""
    running: list[float]
    """Requests under way, in the mean over the bin."""
    chunks: list[int]
    """Contents of whole answers that came, to a tick of 0.1 s or so (`gaps`)."""
    tokens: list[float]
    """Output tokens of whole answers that came, spread over the contents as in `tokens_of`."""
    ttft_p50: list[float | None]
    """Median time to the first content of the whole answers that began in the bin, in seconds."""
    ttft_p99: list[float | None]


def series_of(store: Store) -> Series | None:
    """Return the course of a run, or None if nothing was sent."""
    if not store.sent:
        return None
    sent, ended, whole = store.every("sent"), store.every("ended"), store.every("whole") > 0
    began, span = float(sent.min()), max(0.0, float(ended.max() - sent.min()))
    width = float(next((w for w in WIDTHS if span < w * MAX_BINS), -(-span // MAX_BINS)))
    bins = int(span // width) + 1
    edges = began + width * np.arange(bins + 1, dtype=np.float64)

    def place(times: Floats) -> NDArray[np.int64]:
        return np.clip((times - began) // width, 0, bins - 1).astype(np.int64)

    def count(times: Floats, weights: Floats | None = None) -> Any:
        return np.bincount(place(times), weights, bins).tolist()

    ticks, chunks, tokens = store.gaps.counted()
    running = np.diff(_seconds(sent, edges) - _seconds(ended, edges)) / width
    starts, ttft = place(store.whole("sent")), store.whole("ttft")
    return Series(
        width=width,
        began=began,
        started=count(sent),
        ended=count(ended[whole]),
        failed=count(ended[~whole]),
        running=[round(value, 6) for value in running.tolist()],
        chunks=[round(value) for value in count(ticks + store.gaps.tick / 2, chunks)],
        tokens=count(ticks + store.gaps.tick / 2, tokens),
        **_by_start(starts, ttft, bins),
    )


def _seconds(times: Floats, edges: Any) -> Any:
    """Return the seconds that have gone by at each edge since all of the times that lie before it."""
    ordered = np.sort(times)
    sums = np.append(0.0, np.cumsum(ordered - edges[0]))
    before = np.searchsorted(ordered, edges)
    return before * (edges - edges[0]) - sums[before]


def _by_start(starts: NDArray[np.int64], ttft: Floats, bins: int) -> dict[str, list[float | None]]:
    known = ~np.isnan(ttft)
    starts, ttft = starts[known], ttft[known]
    order = np.lexsort((ttft, starts))
    ttft, begins = ttft[order], np.searchsorted(starts[order], np.arange(bins + 1))
    found: dict[str, list[float | None]] = {"ttft_p50": [], "ttft_p99": []}
    for begin, end in zip(begins.tolist(), begins[1:].tolist(), strict=False):
        for name, percent in (("ttft_p50", 50), ("ttft_p99", 99)):
            rank = max(1, -(-percent * (end - begin) // 100))
            found[name].append(float(ttft[begin + rank - 1]) if end > begin else None)
    return found
