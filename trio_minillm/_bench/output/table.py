"""A result as a table and lines of text."""

from __future__ import annotations

from collections.abc import Container

from ..audit.null import NullRun
from ..figures.figures import Figures
from ..figures.objective import limits_text
from ..run import Point

NAMES = {
    "ttft": "TTFT",
    "ttft_text": "TTFT, text",
    "ttft_reasoning": "TTFT, reasoning",
    "itl": "ITL",
    "itl_token": "ITL, by token",
    "itl_max": "ITL, longest",
    "tpot": "TPOT",
    "e2e": "E2E",
    "e2e_stream": "E2E, end of stream",
    "ttft_scheduled": "TTFT from schedule",
    "ttft_text_scheduled": "TTFT, text, from schedule",
    "ttft_reasoning_scheduled": "TTFT, reasoning, from schedule",
    "e2e_scheduled": "E2E from schedule",
    "e2e_stream_scheduled": "E2E, end of stream, from schedule",
    "sending": "until sent",
    "late": "sent late",
}
"""Names of the distributions in the table."""
SHOWN = ("mean", "std", "p50", "p90", "p95", "p99", "max")
"""Figures of the table's columns."""
CUT = ("length", "max_tokens", "max_output_tokens", "MAX_TOKENS")
"""Finish reasons of an answer that the parameter max_tokens has cut off."""


MARK = " (!)"
"""Mark of a figure that the audit refuses."""


def table_of(figures: Figures, unreliable: Container[str] = ()) -> list[tuple[str, ...]]:
    """Return the table of the distributions that have values; its first row is the head. Those that are
    ``unreliable`` have a mark.
    """
    rows = [
        (
            NAMES[name] + (MARK if name in unreliable else ""),
            f"{spread.count:,}",
            *(seconds_text(spread.at(which)) for which in SHOWN),
        )
        for name, spread in figures.latency.items()
        if spread.count and (name, figures.latency["late"].max) != ("late", 0)
    ]
    return [("", "count", *SHOWN), *rows]


def rows_of(point: Point) -> list[tuple[str, str]]:
    """Return the lines below the table, but that of the cost: a label and a text each."""
    figures = point.figures
    reasons = " · ".join(
        f"{n:,} cut at max_tokens" if reason in CUT else f"{reason} {n:,}"
        for reason, n in sorted(figures.reasons.items(), key=lambda item: -item[1])
    )
    rows = [
        (
            "finished",
            f"{figures.finished:,} of {figures.sent:,}" + (f" ({reasons})" if reasons else ""),
        )
    ]
    cancelled = figures.outcomes.get("cancelled", 0)
    failed = figures.sent - figures.finished - cancelled
    if failed:
        rows.append(("failed", f"{failed:,}"))
    for kind in figures.failures:
        words = (kind[name] for name in ("type", "kind", "status", "clock"))
        name = " ".join(str(word) for word in words if word is not None)
        rows.append((name, f"{kind['count']:,} · {kind['example']}"))
    if cancelled:
        rows.append(("cancelled", f"{cancelled:,}"))
    if figures.window is not None:
        rows.append(
            (
                "time",
                f"{seconds_text(figures.window)} · {_rate(figures, 'requests')} answers/s"
                + _mark(point, "requests"),
            )
        )
        rows.append(
            (
                "chunks",
                f"{figures.chunks:,} · {_rate(figures, 'chunks')}/s" + _mark(point, "chunks"),
            )
        )
    if figures.finished:
        rows.append(("tokens", _tokens_text(figures) + _mark(point, "output_tokens")))
    return rows + _judgements(point)


def _judgements(point: Point) -> list[tuple[str, str]]:
    rows = []
    if (goodput := point.figures.goodput) is not None and goodput.share is not None:
        rate = "-" if goodput.rate is None else f"{goodput.rate:,.1f}"
        text = f"{goodput.good:,} good of {point.figures.sent:,} ({goodput.share:.1%}) · {rate}/s"
        rows.append(("goodput", f"{text} · {limits_text(goodput.limits)}"))
    if point.audit.verdict:
        rows.append(("audit", point.audit.verdict))
    if point.audit.null is not None:
        rows.append(("null run", _null_text(point.audit.null)))
    return rows


def _null_text(null: NullRun) -> str:
    named = ("TTFT", null.ttft), ("ITL", null.itl), ("E2E", null.e2e)
    parts = [
        f"{name} p50 {seconds_text(spread.at('p50'))} p99 {seconds_text(spread.at('p99'))}"
        for name, spread in named
    ]
    return f"the client's own share: {' · '.join(parts)} ({null.matched:,} of {null.requests:,})"


def _mark(point: Point, name: str) -> str:
    return MARK if name in point.audit.unreliable else ""


def _rate(figures: Figures, name: str) -> str:
    found = figures.rates.get(name)
    return "-" if found is None else f"{found:,.1f}"


def _tokens_text(figures: Figures) -> str:
    if (tokens := figures.tokens) is None:
        return "unknown: no answer came with its usage"
    text = f"{tokens['output_tokens']:,} out · {_rate(figures, 'output_tokens')}/s"
    if tokens["reasoning_tokens"]:
        text += f" ({tokens['reasoning_tokens']:,} of them reasoning)"
    text += f" · {tokens['prompt_tokens']:,} in"
    return text + (f" ({tokens['cached_tokens']:,} cached)" if tokens["cached_tokens"] else "")


def seconds_text(seconds: float | None) -> str:
    """Return a time such as ``0.42 ms``, ``12.3 ms`` or ``1.23 s``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"
