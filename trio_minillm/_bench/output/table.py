"""A result as a table and lines of text."""

from __future__ import annotations

from ..figures.figures import Figures
from ..run import Point

NAMES = {
    "ttft": "TTFT",
    "ttft_text": "TTFT, text",
    "ttft_reasoning": "TTFT, reasoning",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "e2e_stream": "E2E, end of stream",
    "ttft_scheduled": "TTFT from schedule",
    "e2e_scheduled": "E2E from schedule",
    "late": "sent late",
}
"""Names of the distributions in the table."""
SHOWN = ("mean", "std", "p50", "p90", "p95", "p99", "max")
"""Figures of the table's columns."""
CUT = ("length", "max_tokens")
"""Finish reasons of an answer that the parameter max_tokens has cut off."""


def table_of(figures: Figures) -> list[tuple[str, ...]]:
    """Return the table of the distributions that have values; its first row is the head."""
    rows = [
        (NAMES[name], f"{spread.count:,}", *(seconds_text(spread.at(which)) for which in SHOWN))
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
            ("time", f"{seconds_text(figures.window)} · {_rate(figures, 'requests')} answers/s")
        )
        rows.append(("chunks", f"{figures.chunks:,} · {_rate(figures, 'chunks')}/s"))
    if figures.finished:
        rows.append(("tokens", _tokens_text(figures)))
    return rows


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
