"""The figures of one run: everything that is reported of its records."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from ..record import Record
from .gaps import GapSet, Together
from .intervals import Resampling, groups_of
from .objective import Objective
from .request import FIGURES
from .series import Series, series_of
from .spread import Spread, spread_of
from .store import Store

LATENCIES = {
    "ttft": "time to first token: to the first chunk of any kind",
    "ttft_text": "time to the first text",
    "ttft_reasoning": "time to the first reasoning",
    "itl": "inter-token latency, by chunk: gap between two chunks",
    "itl_token": "gap between two tokens: the gap before a chunk, divided among its tokens",
    "itl_max": "longest gap of each answer",
    "tpot": "time per output token after the first chunk",
    "e2e": "end-to-end latency: time to the last chunk",
    "e2e_stream": "time to the end of the stream",
    "ttft_scheduled": "time to the first chunk, from the scheduled start",
    "ttft_text_scheduled": "time to the first text, from the scheduled start",
    "ttft_reasoning_scheduled": "time to the first reasoning, from the scheduled start",
    "e2e_scheduled": "time to the last chunk, from the scheduled start",
    "e2e_stream_scheduled": "time to the end of the stream, from the scheduled start",
    "sending": "from the call until the request is sent: connection, key, and the client's own work",
    "late": "from the scheduled start to the call",
}
"""The distributions that are made of whole answers, with their meaning. All are seconds."""


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """The answers that kept their limits (``--goodput``, or an objective)."""

    limits: dict[str, float]
    """Seconds that a good answer stays below, by names of `FIGURES`."""
    good: int
    """Whole answers within the limits."""
    share: float | None
    """Share of all requests that were good; None without requests."""
    rate: float | None
    """Good answers per second of the window."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The measured requests of one load, summed up."""

    sent: int
    outcomes: dict[str, int]
    """Requests by outcome."""
    reasons: dict[str, int]
    """Whole answers by finish reason."""
    chunks: int
    """Contents of whole answers."""
    together: Together
    """Contents that one read brought together with others."""
    empty: int
    """Whole answers without content."""
    retries: int
    latency: dict[str, Spread]
    """Distributions by the names of `LATENCIES`. That of ``itl_token`` is ``estimated`` unless every
    answer came with running usage: the tokens of an answer are then taken to be spread evenly over its
    contents."""
    window: float | None
    """Seconds from the first request's start to the last content of the last whole answer."""
    rates: dict[str, float | None]
    """Per second of the window: ``requests``, ``chunks``, ``output_tokens``, ``input_tokens``. And two that
    a user has, as the mean over the answers: ``output_tokens_per_user``, an answer's output tokens by its
    ``e2e``, and ``decode_tokens_per_user``, 1 by its ``tpot``."""
    tokens: dict[str, int] | None
    """Sums over the answers that came with usage; ``answers`` is their number."""
    failures: list[dict[str, Any]]
    """Failures by kind, the commonest first, each with its count and an example."""
    cost: str | None
    """USD of all requests, as far as it is known."""
    costs: dict[str, float | None]
    """USD ``per_million_output_tokens`` and ``per_good_answer`` (without limits: per whole answer). Both
    are None unless the cost of every request is known."""
    goodput: Goodput | None = None
    """None if there are no limits."""
    series: Series | None = None
    """The course of the run."""

    @property
    def finished(self) -> int:
        """Whole answers."""
        return self.outcomes.get("finished", 0)


def figures_of(
    records: Store | Iterable[Record], *, objective: Objective | None = None, seed: int = 0
) -> Figures:
    """Return the figures of these records, which are those of one phase; a store has its own objective."""
    if isinstance(records, Store):
        store = records
    else:
        store = Store(objective)
        for record in records:
            store.add(record)
    window = _window(store)
    tokens = {**store.tokens, "answers": store.answers} if store.answers else None
    return Figures(
        sent=store.sent,
        outcomes=dict(store.outcomes),
        reasons=dict(store.reasons),
        chunks=store.gaps.chunks,
        together=store.gaps.together(),
        empty=store.empty,
        retries=store.retries,
        latency=_latencies(store, seed),
        window=window,
        rates=_rates(store, window),
        tokens=tokens,
        failures=sorted(store.failures.values(), key=lambda kind: -int(kind["count"])),
        cost=None if store.cost is None else f"{store.cost:f}",
        costs=_costs(store),
        goodput=_goodput(store, window),
        series=series_of(store),
    )


def _latencies(store: Store, seed: int) -> dict[str, Spread]:
    answers = store.finished
    resampling = Resampling(answers, seed)
    groups = groups_of(np.arange(answers), answers)
    found = {
        name: spread_of(store.whole(name), resampling=resampling, groups=groups)
        for name in (*FIGURES, "sending", "late")
    }

    def of(gaps: GapSet, **told: Any) -> Spread:
        if gaps.relative_error:
            told |= {"relative_error": gaps.relative_error, "max": gaps.most}
        return spread_of(
            gaps.values, gaps.weights, resampling=resampling, groups=gaps.groups, **told
        )

    found["itl"] = of(store.gaps.by_chunk())
    found["itl_token"] = of(store.gaps.by_token(), estimated=store.running < store.answers)
    return {name: found[name] for name in LATENCIES}


def _window(store: Store) -> float | None:
    last = store.whole("last")
    if np.isnan(last).all():
        return None
    return float(np.nanmax(last) - store.every("sent").min())


def _rates(store: Store, window: float | None) -> dict[str, float | None]:
    def rate(count: int | None) -> float | None:
        return count / window if window and count is not None else None

    def mean(values: Any) -> float | None:
        there = values[np.isfinite(values)]
        return float(there.mean()) if there.size else None

    known = store.answers > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        whole, decode = store.whole("tokens") / store.whole("e2e"), 1 / store.whole("tpot")
    return {
        "requests": rate(store.finished),
        "chunks": rate(store.gaps.chunks),
        "output_tokens": rate(store.tokens["output_tokens"]) if known else None,
        "input_tokens": rate(store.tokens["prompt_tokens"]) if known else None,
        "output_tokens_per_user": mean(whole),
        "decode_tokens_per_user": mean(decode),
    }


def _costs(store: Store) -> dict[str, float | None]:
    def per(count: float) -> float | None:
        if store.cost is None or store.priced < store.sent or not count:
            return None
        return float(store.cost / Decimal(count))

    good = store.finished if store.objective is None else store.good
    complete = store.answers == store.finished
    return {
        "per_million_output_tokens": per(store.tokens["output_tokens"] / 1e6) if complete else None,
        "per_good_answer": per(good),
    }


def _goodput(store: Store, window: float | None) -> Goodput | None:
    if store.objective is None:
        return None
    return Goodput(
        limits=store.objective.limits,
        good=store.good,
        share=store.good / store.sent if store.sent else None,
        rate=store.good / window if window else None,
    )
