"""Counts and times of a server, in bounded memory, and their form for Prometheus. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

PER_SECOND: Final = 1_000_000
"""Parts of a second to which times are kept: microseconds."""
MAX_DISTINCT: Final = 8_192
"""Distinct times that are kept like that. Others beyond them go to buckets, so that memory is bounded."""
STEPS: Final = 1_024
"""Buckets for each doubling of a time: a quantile out of them is within 0.05 %."""
QUANTILES: Final = (0.5, 0.9, 0.99)
BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper ends of the buckets of a histogram, in seconds."""


class Times:
    """Times in seconds: how many there were of each microsecond.

    Count and sum are exact. A quantile is the nearest rank, to a microsecond, or within 0.05 % of itself
    once there were more than `MAX_DISTINCT` different times.
    """

    __slots__ = ("_buckets", "_counts", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self._counts: dict[int, int] = {}
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count a time; a negative one counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.total += seconds
        place = int(seconds * PER_SECOND + 0.5)
        counts = self._counts
        if place in counts:
            counts[place] += 1
        elif len(counts) < MAX_DISTINCT or not place:  # no bucket has 0
            counts[place] = 1
        else:
            share, exponent = math.frexp(seconds)
            self._buckets[exponent * STEPS + int((share - 0.5) * 2 * STEPS)] += 1

    @property
    def count(self) -> int:
        """The number of times."""
        return sum(self._counts.values()) + sum(self._buckets.values())

    @property
    def exact(self) -> bool:
        """True as long as quantiles are exact to a microsecond."""
        return not self._buckets

    def _sorted(self) -> list[tuple[float, int]]:
        """Return the different times, in order, and how many there were of each."""
        found = [(place / PER_SECOND, count) for place, count in self._counts.items()]
        for bucket, count in self._buckets.items():
            exponent, step = divmod(bucket, STEPS)
            found.append((math.ldexp(0.5 + (step + 0.5) / 2 / STEPS, exponent), count))
        return sorted(found)

    def quantiles(self, shares: Iterable[float] = QUANTILES) -> list[float | None]:
        """Return the quantile of each share, which must rise; None without any time."""
        times, count = self._sorted(), self.count
        if not count:
            return [None for _ in shares]
        found: list[float | None] = []
        below, at = 0, -1
        for share in shares:
            rank = max(1, math.ceil(share * count - 1e-9))
            while below < rank:
                at += 1
                below += times[at][1]
            found.append(times[at][0])
        return found

    def summary(self) -> dict[str, Any]:
        """Return the figures for JSON, in seconds; null without any time."""
        count = self.count
        least, p50, p90, p99, most = self.quantiles((0.0, *QUANTILES, 1.0))
        return {
            "count": count,
            "mean": self.total / count if count else None,
            "min": least,
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": most,
            "exact": self.exact,
        }

    def buckets(self) -> list[int]:
        """Return how many times are not above each of `BUCKETS`."""
        counts = [0] * (len(BUCKETS) + 1)
        for seconds, count in self._sorted():
            counts[bisect_left(BUCKETS, seconds)] += count
        sums, below = [], 0
        for count in counts[:-1]:
            below += count
            sums.append(below)
        return sums


class Measures:
    """All that a server measures of its streams since it began, or was reset."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests by wire format, and by how they ended."""
        self.faults: Counter[str] = Counter()
        """Requests that a fault struck, by its name."""
        self.chunks = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.times: dict[str, Times] = {name: Times() for name in NAMES}
        self.ttft, self.itl, self.e2e, self.queue, self.late = self.times.values()

    def fields(self) -> dict[str, Any]:
        """Return all figures for JSON."""
        by_wire: dict[str, dict[str, int]] = {}
        for (wire, ending), count in sorted(self.requests.items()):
            by_wire.setdefault(wire, {})[ending] = count
        endings: Counter[str] = Counter()
        for (_, ending), count in sorted(self.requests.items()):
            endings[ending] += count
        return {
            "requests": {"ended": sum(endings.values()), **endings},
            "by_wire": by_wire,
            "faults": dict(sorted(self.faults.items())),
            "chunks": self.chunks,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            **{name: times.summary() for name, times in self.times.items()},
        }


NAMES: Final = {
    "ttft": "Seconds from a complete request to its first chunk.",
    "itl": "Seconds from one chunk of a stream to the next.",
    "e2e": "Seconds from a complete request to the end of its answer, of complete answers.",
    "queue": "Seconds that a request waited for a slot.",
    "late": "Seconds by which a chunk was sent after it was due.",
}
"""The times that are measured, and their descriptions."""


def prometheus(measures: Measures, gauges: dict[str, tuple[str, float]]) -> str:
    """Return everything in Prometheus' text format; ``gauges`` are further ones, with descriptions."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, *samples: tuple[str, float]) -> None:
        full = f"trio_minillm_serve_{name}"
        lines.extend((f"# HELP {full} {text}", f"# TYPE {full} {kind}"))
        lines.extend(f"{full}{label} {value:.15g}" for label, value in samples)

    ended = sorted(measures.requests.items())
    family(
        *("requests_total", "counter", "Requests by wire format and by how they ended."),
        *((f'{{wire="{wire}",ended="{ending}"}}', n) for (wire, ending), n in ended),
    )
    struck = sorted(measures.faults.items())
    family(
        *("faults_total", "counter", "Requests to which a fault was applied."),
        *((f'{{fault="{name}"}}', n) for name, n in struck),
    )
    family("chunks_total", "counter", "Chunks sent.", ("", measures.chunks))
    family(
        *("tokens_total", "counter", "Tokens of prompts, and of chunks sent."),
        ('{type="prompt"}', measures.prompt_tokens),
        ('{type="completion"}', measures.completion_tokens),
    )
    for name, (text, value) in gauges.items():
        family(name, "gauge", text, ("", value))
    for name, text in NAMES.items():
        times = measures.times[name]
        counted = zip([f"{end:g}" for end in BUCKETS], times.buckets(), strict=True)
        family(
            *(f"{name}_seconds", "histogram", text),
            *((f'_bucket{{le="{end}"}}', n) for end, n in counted),
            ('_bucket{le="+Inf"}', times.count),
            ("_sum", times.total),
            ("_count", times.count),
        )
        known = [(q, v) for q, v in zip(QUANTILES, times.quantiles(), strict=True) if v is not None]
        family(
            *(f"{name}_quantile_seconds", "gauge", f"{text[:-1]}: quantiles."),
            *((f'{{quantile="{q:g}"}}', v) for q, v in known),
        )
    return "\n".join(lines) + "\n"
