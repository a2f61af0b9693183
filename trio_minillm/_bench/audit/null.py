"""The figures of a null run: the same load against a server whose timing is known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from ..figures.spread import Spread, spread_of
from ..record import Record


class NullRun(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own share of each figure, and that of the way to a server on this machine.

    Every request is compared with the server's own record of it, so that the server's timing, and its
    errors, are in none of these.
    """

    requests: int
    """Requests that were sent."""
    matched: int
    """Whole answers that were found in the server's records."""
    timing: dict[str, float]
    """The timing that the server was given: ``ttft`` and ``itl`` in seconds, ``tokens``."""
    ttft: Spread
    """Seconds by which the client's time to the first content was longer than the server's, from the
    receipt of the request to the sending of its first content."""
    e2e: Spread
    """The same up to the last content."""
    arrival: Spread
    """Seconds from the server's sending of a content to the client's time of it; of all contents."""
    itl: Spread
    """Seconds by which the gap between contents differed from the server's, without a sign."""
    server_late: float | None = None
    """The longest time by which the server sent after a content was due, in seconds."""


def null_run_of(
    records: Iterable[Record], served: Mapping[str, Mapping[str, Any]], timing: dict[str, float]
) -> NullRun:
    """Return the comparison of records with those of the server, by the ids of requests."""
    found: dict[str, list[float]] = {name: [] for name in ("ttft", "e2e", "arrival", "itl")}
    count = matched = 0
    late: list[float] = []
    for record in records:
        count += 1
        theirs = served.get(record.request_id or "")
        if theirs is None or not record.whole or len(theirs["sent"]) != len(record.stamps):
            continue
        if (first := record.first) is None or (last := record.last) is None:
            continue
        matched += 1
        sent, received = theirs["sent"], theirs["received"]
        late.append(theirs["max_late"])
        found["ttft"].append(first - record.sent - (sent[0] - received))
        found["e2e"].append(last - record.sent - (sent[-1] - received))
        ways = [mine - its for mine, its in zip(record.stamps, sent, strict=True)]
        found["arrival"] += ways
        found["itl"] += [abs(b - a) for a, b in pairwise(ways)]
    spreads = {name: spread_of(values) for name, values in found.items()}
    return NullRun(
        requests=count,
        matched=matched,
        timing=timing,
        server_late=max(late, default=None),
        **spreads,
    )
