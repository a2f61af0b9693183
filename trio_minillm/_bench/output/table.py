"""A result as a table and lines of text."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec

from ..audit.null import NullRun
from ..figures.figures import Figures
from ..figures.objective import Objective, limits_text
from ..figures.spread import Spread
from ..plan import Closed, Load, Open, Ramp
from ..run import Point, Result
from ..steady import Steady

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
    "sending": "time to send",
    "late": "sent late",
}
"""Names of the distributions in the table."""
SHOWN = ("mean", "p50", "p90", "p95", "p99", "max")
"""Figures of the table's columns."""
CUT = ("length", "max_tokens", "max_output_tokens", "MAX_TOKENS")
"""Finish reasons of an answer that the parameter max_tokens has cut off."""
ALIKE = {
    "ttft_text": "ttft",
    "ttft_reasoning": "ttft",
    "itl_token": "itl",
    "e2e_stream": "e2e",
}
"""Distributions that are shown only where they differ from another one."""
SCHEDULED = ("ttft_scheduled", "e2e_scheduled", "late")
"""Distributions that are shown only where requests were sent late."""
HIDDEN = ("itl_max", "ttft_text_scheduled", "ttft_reasoning_scheduled", "e2e_stream_scheduled")
"""Distributions that are in JSON alone."""
SAME, SAME_SHARE = 0.005, 0.1
"""Seconds, and part of a time, up to which two times are shown as one: less than people act upon."""
LATE = 0.02
"""Seconds up to which a request counts as sent in time: what a busy machine delays a timer by."""
LONG = 10.0
"""Seconds from which on a row is in seconds and not in milliseconds."""

Table = list[tuple[str, ...]]
"""A table's rows, of which the first is its head."""


MARK = " (!)"
"""Mark of a figure that the audit refuses."""


def result_table(result: Result) -> Table:
    """Return the table of one load's distributions, or of several loads."""
    if len(result.points) == 1:
        return table_of(result.points[0].figures, result.points[0].audit.unreliable)
    return sweep_table(result.points)


# -- one load --------------------------------------------------------------------------------


def table_of(figures: Figures, unreliable: Container[str] = ()) -> Table:
    """Return the table of the distributions that have something to say; its first row is the head. Those
    that are ``unreliable`` have a mark.
    """
    rows = [
        _row(name, spread, MARK if name in unreliable else "")
        for name, spread in figures.latency.items()
        if spread.count and _says_something(name, figures.latency)
    ]
    return [("", "count", *SHOWN), *rows]


def _says_something(name: str, latency: dict[str, Spread]) -> bool:
    """Return whether a distribution differs from the one that is shown anyway."""
    spread, other = latency[name], latency.get(ALIKE.get(name, ""))
    if name in HIDDEN:
        return False
    if name in SCHEDULED:
        return (latency["late"].max or 0.0) > LATE
    if name == "sending":
        return (spread.at("p50") or 0.0) > SAME
    if other is None:
        return True
    if spread.count != other.count and name != "itl_token":
        return True
    least = 0.0 if name == "itl_token" else SAME
    pairs = [(spread.at(which) or 0.0, other.at(which) or 0.0) for which in SHOWN]
    return any(abs(one - two) > max(least, SAME_SHARE * two) for one, two in pairs)


def _row(name: str, spread: Spread, mark: str) -> tuple[str, ...]:
    unit, scale = ("s", 1.0) if (spread.max or 0.0) >= LONG else ("ms", 1000.0)
    cells = []
    for which in SHOWN:
        value, bounds = spread.at(which), spread.intervals.get(which)
        cell = "-" if value is None else number_text(value * scale)
        if which == "mean" and bounds is not None:
            cell += f" ±{number_text((bounds[1] - bounds[0]) / 2 * scale)}"
        cells.append(cell)
    label = NAMES.get(name, name) + (", estimated" if spread.estimated else "")
    return (f"{label} ({unit}){mark}", f"{spread.count:,}", *cells)


def rows_of(point: Point) -> list[tuple[str, str]]:
    """Return the lines below the table, but that of the cost: a label and a text each."""
    figures = point.figures
    reasons = " · ".join(
        f"{n:,} cut at max_tokens" if reason in CUT else f"{reason} {n:,}"
        for reason, n in sorted(figures.reasons.items(), key=lambda item: -item[1])
    )
    finished = f"{figures.finished:,} of {figures.sent:,}"
    rows = [("finished", finished + (f" ({reasons})" if reasons else ""))]
    cancelled = figures.outcomes.get("cancelled", 0)
    if failed := failed_of(figures):
        rows.append(("failed", f"{failed:,}"))
    rows += failure_rows(figures)
    if cancelled:
        rows.append(("cancelled", f"{cancelled:,}"))
    if figures.window is not None:
        rate = f"{rate_text(figures, 'requests')} requests/s{_mark(point, 'requests')}"
        rows.append(("time", f"{seconds_text(figures.window)} · {rate}"))
        rate = f"{rate_text(figures, 'chunks')}/s{_mark(point, 'chunks')}"
        rows.append(("chunks", f"{figures.chunks:,} · {rate}"))
    if figures.finished:
        rows.append(("tokens", _tokens_text(figures) + _mark(point, "output_tokens")))
    return rows + _judgements(point)


def goodput_text(figures: Figures) -> str:
    """Return the good requests and their rate: ``97 good of 100 (97.0%) · 12.1/s``, or ``-``."""
    good = figures.goodput
    if good is None or good.share is None:
        return "-"
    rate = "" if good.rate is None else f" · {good.rate:,.1f}/s"
    return f"{good.good:,} good of {figures.sent:,} ({good.share:.1%}){rate}"


def failure_rows(figures: Figures) -> list[tuple[str, str]]:
    """Return a line for each kind of failure, the commonest first."""
    rows = []
    for kind in figures.failures:
        words = (kind[name] for name in ("type", "kind", "status", "clock"))
        name = " ".join(str(word) for word in words if word is not None)
        rows.append((name, f"{kind['count']:,} · {kind['example']}"))
    return rows


def _judgements(point: Point) -> list[tuple[str, str]]:
    rows = []
    if point.steady is not None and point.steady.found:
        rows.append(("steady state", _steady_text(point.steady)))
    if point.figures.goodput is not None:
        limits = limits_text(point.figures.goodput.limits)
        rows.append(("goodput", f"{goodput_text(point.figures)} · {limits}"))
    if point.audit.verdict:
        rows.append(("audit", point.audit.verdict))
    if point.null_run is not None:
        rows.append(("null run", _null_text(point.null_run)))
    return rows


def _steady_text(steady: Steady) -> str:
    within = seconds_text((steady.end or 0.0) - (steady.begin or 0.0))
    ends = f"{seconds_text(steady.before)} before it and {seconds_text(steady.after)} after it"
    return f"{within}, without {ends} · {steady.cut:,} requests left out"


def found_text(found: dict[str, Any]) -> str:
    """Return the outcome of a search in a line: ``concurrency 24 meets 99% ttft<0.5s; 25 does not``."""
    objective = msgspec.convert(found["objective"], Objective)
    over, load, beyond = found["over"], found["load"], found["interval"][1]
    if load is None:
        text = f"no {over} meets {objective}"
    else:
        text = f"{over} {_rate_text(load)} meets {objective}"
        text += "; no higher load failed" if beyond is None else f"; {_rate_text(beyond)} does not"
    return text + (f" · incomplete: {found['incomplete']}" if found["incomplete"] else "")


def _null_text(null: NullRun) -> str:
    named = ("TTFT", null.ttft), ("ITL", null.itl), ("E2E", null.e2e)
    parts = [
        f"{name} p50 {seconds_text(spread.at('p50'))} p99 {seconds_text(spread.at('p99'))}"
        for name, spread in named
    ]
    return f"the client's own share: {' · '.join(parts)} ({null.matched:,} of {null.requests:,})"


def _mark(point: Point, name: str) -> str:
    return MARK if name in point.audit.unreliable else ""


def failed_of(figures: Figures) -> int:
    """Return the number of requests that failed; cancelled ones did not."""
    return figures.sent - figures.finished - figures.outcomes.get("cancelled", 0)


def rate_text(figures: Figures, name: str) -> str:
    """Return one of the rates, such as ``1,041.3``, or ``-``."""
    found = figures.rates.get(name)
    return "-" if found is None else f"{found:,.1f}"


def _tokens_text(figures: Figures) -> str:
    if (tokens := figures.tokens) is None:
        return "unknown: no answer reported usage"
    text = f"{tokens['output_tokens']:,} out · {rate_text(figures, 'output_tokens')}/s"
    if tokens["reasoning_tokens"]:
        text += f" ({tokens['reasoning_tokens']:,} of them reasoning)"
    text += f" · {tokens['prompt_tokens']:,} in"
    return text + (f" ({tokens['cached_tokens']:,} cached)" if tokens["cached_tokens"] else "")


# -- several loads ---------------------------------------------------------------------------


def sweep_table(points: tuple[Point, ...]) -> Table:
    """Return a table with a row for each load."""
    told = any(p.figures.tokens is not None for p in points)
    limited = any(p.figures.goodput is not None for p in points)
    speed = "output_tokens" if told else "chunks"
    head = (
        *("load", "requests/s", "TTFT p50", "p99", "TPOT p50" if told else "ITL p50"),
        "tokens/s" if told else "chunks/s",
        *(("goodput",) if limited else ()),
        "failed",
    )
    rows = []
    for point in points:
        figures = point.figures
        ttft, pace = figures.latency["ttft"], figures.latency["tpot" if told else "itl"]
        rows.append(
            (
                load_text(point.load),
                rate_text(figures, "requests") + _mark(point, "requests"),
                *(seconds_text(ttft.at(name)) + _mark(point, "ttft") for name in ("p50", "p99")),
                seconds_text(pace.at("p50")) + _mark(point, "tpot" if told else "itl"),
                rate_text(figures, speed) + _mark(point, speed),
                *((_share_text(figures),) if limited else ()),
                f"{failed_of(figures):,}",
            )
        )
    return [head, *rows]


def _share_text(figures: Figures) -> str:
    good = figures.goodput
    return "-" if good is None or good.share is None else f"{good.share:.1%}"


def load_text(load: Load) -> str:
    """Return a load in a few words: ``concurrency 10``, ``5/s``, ``1/s to 20/s``."""
    if isinstance(load, Closed):
        return f"concurrency {load.concurrency:,}"
    if isinstance(load, Open):
        return f"{_rate_text(load.rate)}/s"
    if isinstance(load, Ramp):
        return f"{_rate_text(load.first)}/s to {_rate_text(load.last)}/s"
    return f"trace of {len(load.offsets):,} requests"


def _rate_text(rate: float) -> str:
    """Return a rate with as many digits as a reader can use: ``5``, ``0.125``, ``11.31``, ``1,000``."""
    text = f"{rate:,.2f}" if rate >= 10 else f"{rate:.3f}"
    return text.rstrip("0").rstrip(".") if float(text.replace(",", "")) else f"{rate:.3g}"


# -- numbers ---------------------------------------------------------------------------------


def number_text(number: float) -> str:
    """Return a number with three or more digits: ``0.42``, ``12.3``, ``1,234``."""
    if abs(number) >= 999.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 9.995 else f"{number:.2f}"


def seconds_text(seconds: float | None) -> str:
    """Return a time such as ``0.42 ms``, ``12.3 ms`` or ``1.23 s``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:,.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.009995 else f"{seconds * 1000:.2f} ms"
