"""The figures of one run: everything that is reported of its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from ..record import Record, kind_of_failure
from .spread import Spread, spread_of

LATENCIES = {
    "ttft": "time to the first content",
    "ttft_text": "time to the first text",
    "ttft_reasoning": "time to the first reasoning",
    "itl": "gap between two contents (inter-token latency, by chunk)",
    "tpot": "time for each output token after the first content",
    "e2e": "time to the last content",
    "e2e_stream": "time to the end of the stream",
    "ttft_scheduled": "time to the first content, from the scheduled start",
    "e2e_scheduled": "time to the last content, from the scheduled start",
    "late": "from the scheduled start to the real one",
}
"""The distributions that are made of whole answers, with their meaning. All are seconds."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The measured requests of one load, summed up."""

    sent: int
    outcomes: dict[str, int]
    """Requests by outcome."""
    reasons: dict[str, int]
    """Whole answers by finish reason."""
    chunks: int
    """Contents of whole answers."""
    retries: int
    latency: dict[str, Spread]
    """Distributions by the names of `LATENCIES`."""
    window: float | None
    """Seconds from the first request's start to the last content of the last whole answer."""
    rates: dict[str, float | None]
    """Per second of the window: ``requests``, ``chunks``, ``output_tokens``, ``input_tokens``; and
    ``output_tokens_per_user``, the mean of the answers' own rates."""
    tokens: dict[str, int] | None
    """Sums over the answers that came with usage; ``answers`` is their number."""
    failures: list[dict[str, Any]]
    """Failures by kind, the commonest first, each with its count and an example."""
    cost: str | None
    """USD of all requests, as far as it is known."""

    @property
    def finished(self) -> int:
        """Whole answers."""
        return self.outcomes.get("finished", 0)


def figures_of(records: Iterable[Record]) -> Figures:
    """Return the figures of these records, which are those of one phase."""
    every = list(records)
    whole = [record for record in every if record.whole]
    window = _window(every, whole)
    tokens = _tokens(whole)
    chunks = sum(len(record.stamps) for record in whole)

    def rate(count: int | None) -> float | None:
        return count / window if window and count is not None else None

    costs = [Decimal(r.cost) for r in every if r.cost is not None]
    return Figures(
        sent=len(every),
        outcomes=dict(Counter(str(record.outcome) for record in every)),
        reasons=dict(Counter(str(record.reason or "unknown") for record in whole)),
        chunks=chunks,
        retries=sum(max(0, record.attempts - 1) for record in every),
        latency={name: spread_of(values) for name, values in _latencies(whole).items()},
        window=window,
        rates={
            "requests": rate(len(whole)),
            "chunks": rate(chunks),
            "output_tokens": rate(tokens["output_tokens"] if tokens else None),
            "input_tokens": rate(tokens["prompt_tokens"] if tokens else None),
        },
        tokens=tokens,
        failures=_failures(every),
        cost=f"{sum(costs):f}" if costs else None,
    )


def _latencies(whole: Sequence[Record]) -> dict[str, Any]:
    found: dict[str, list[float]] = {name: [] for name in LATENCIES}
    gaps = [np.diff(record.stamps) for record in whole if len(record.stamps) > 1]
    for record in whole:
        found["late"].append(max(0.0, record.sent - record.scheduled))
        found["e2e_stream"].append(record.ended - record.sent)
        first, last = record.first, record.last
        if first is None or last is None:
            continue
        found["ttft"].append(first - record.sent)
        found["e2e"].append(last - record.sent)
        found["ttft_scheduled"].append(first - record.scheduled)
        found["e2e_scheduled"].append(last - record.scheduled)
        if record.first_text is not None:
            found["ttft_text"].append(record.first_text - record.sent)
        if record.first_reasoning is not None:
            found["ttft_reasoning"].append(record.first_reasoning - record.sent)
        if (each := time_per_token(record)) is not None:
            found["tpot"].append(each)
    return {**found, "itl": np.concatenate(gaps) if gaps else []}


def time_per_token(record: Record) -> float | None:
    """Return the seconds between the first and the last content for each token after the first.

    Usage with the first content says how many tokens that held; otherwise it is taken to be one, and
    reasoning that is counted and was not shown came before it.
    """
    first, last = record.first, record.last
    if first is None or last is None or record.output_tokens is None:
        return None
    hidden = 0 if record.first_reasoning is not None else record.reasoning_tokens or 0
    before = record.counts[0] if record.counts else 1 + hidden
    between = record.output_tokens - before
    return (last - first) / between if last > first and between > 0 else None


def _window(every: Sequence[Record], whole: Sequence[Record]) -> float | None:
    last = [record.last for record in whole if record.last is not None]
    return max(last) - min(record.sent for record in every) if last else None


def _tokens(whole: Sequence[Record]) -> dict[str, int] | None:
    names = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    known = [record for record in whole if record.output_tokens is not None]
    if not known:
        return None
    sums = {name: sum(getattr(record, name) or 0 for record in known) for name in names}
    return {**sums, "answers": len(known)}


def _failures(every: Sequence[Record]) -> list[dict[str, Any]]:
    kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in every:
        if (failure := record.failure) is None or record.whole:
            continue
        named = {n: getattr(failure, n) for n in ("type", "kind", "status", "code", "clock")}
        kind = kinds.setdefault(
            kind_of_failure(record),
            {"outcome": record.outcome, **named, "count": 0, "example": failure.message},
        )
        kind["count"] += 1
    return sorted(kinds.values(), key=lambda kind: -int(kind["count"]))
