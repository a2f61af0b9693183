"""Plot the results as bars on logarithmic scales, in one small SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from answers import LAYOUTS
from cases import OTHERS, STREAM_COUNTS, WIRES
from contenders import CONTENDERS, OURS
from report import Results, number

WIDTH, LABELS, VALUES = 460, 180, 60
"""Widths in pixels: of a panel, of the names on its left, of the numbers on its right."""
BAR, GAP, HEAD = 16, 5, 30
COLUMNS = 2
COLOURS = {OURS: "#c2410c", "floor": "#9ca3af"}
OTHER = "#64748b"
STYLE = (
    "text{font:12px sans-serif;fill:#1f2937}.t{font-weight:bold}.n{text-anchor:end}"
    "rect.p{fill:#fff;stroke:#e5e7eb}"
)
CAPTION = "Medians; less is better. Logarithmic scales. Thin lines: the range over the rounds."


class Panel(NamedTuple):
    title: str
    bars: list[tuple[str, float, float, float]]
    """Contender, median, minimum and maximum."""

    @property
    def height(self) -> int:
        return HEAD + len(self.bars) * (BAR + GAP) + GAP


def _panel(results: Results, table: str, metric: str, scale: float, title: str) -> Panel:
    bars = []
    for contender in results.values.get(table, {}):
        values = [v * scale for v in results.all(table, contender, metric)]
        middle = results.median(table, contender, metric)
        if middle:
            bars.append((contender, middle * scale, min(values), max(values)))
    return Panel(title, bars)


def panels(results: Results) -> list[Panel]:
    """Return a panel for each table that has numbers."""
    every = [
        _panel(
            results,
            f"chunk/{wire}/{scheme}/{layout}",
            "cpu",
            1e6,
            f"µs of CPU per chunk: {layout}, {wire}, {'TLS' if scheme == 'https' else 'plain'}",
        )
        for wire in WIRES
        for layout in LAYOUTS
        for scheme in ("http", "https")
    ]
    for metric, words in (("first", "µs to the first chunk"), ("cpu", "µs of CPU per request")):
        for others in OTHERS:
            title = f"{words}: {others:,} others open"
            every.append(_panel(results, f"request/{others}", metric, 1e6, title))
    for metric, scale, words in (
        ("cpu", 1e6, "µs of CPU per chunk"),
        ("p99", 1e3, "ms of added latency, p99"),
        ("memory", 1 / 1024, "KiB per stream"),
    ):
        for count in STREAM_COUNTS:
            title = f"{words}: {count:,} streams"
            every.append(_panel(results, f"many/{count}", metric, scale, title))
    return [panel for panel in every if panel.bars]


def _drawn(panel: Panel, left: int, top: int) -> Iterator[str]:
    """Yield the panel's elements.

    Bars begin at half the smallest value; a thin line shows the range over the rounds.
    """
    start = math.log(min(low for _, _, low, _ in panel.bars) / 2)
    span = math.log(max(high for *_, high in panel.bars)) - start
    room = WIDTH - LABELS - VALUES

    def at(value: float) -> float:
        return left + LABELS + room * (math.log(value) - start) / span

    yield f'<rect class="p" x="{left}" y="{top}" width="{WIDTH - 8}" height="{panel.height - 6}"/>'
    yield f'<text class="t" x="{left + 8}" y="{top + 18}">{escape(panel.title)}</text>'
    y = top + HEAD
    for contender, middle, low, high in panel.bars:
        colour, zero = COLOURS.get(contender, OTHER), left + LABELS
        text, base = escape(CONTENDERS[contender].title), y + BAR - 4
        yield f'<text class="n" x="{zero - 6}" y="{base}">{text}</text>'
        yield (
            f'<rect x="{zero}" y="{y}" width="{at(middle) - zero:.1f}" height="{BAR}" '
            f'fill="{colour}"/>'
        )
        middle_y = y + BAR / 2
        yield (
            f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{middle_y}" y2="{middle_y}" '
            'stroke="#111827"/>'
        )
        yield f'<text x="{at(high) + 5:.1f}" y="{base}">{number(middle)}</text>'
        y += BAR + GAP


def svg(results: Results) -> str:
    """Return the whole plot."""
    body, top, every = list[str](), 26, panels(results)
    body.append(f'<text x="8" y="18">{CAPTION}</text>')
    for at in range(0, len(every), COLUMNS):
        row = every[at : at + COLUMNS]
        for column, panel in enumerate(row):
            body += _drawn(panel, 8 + column * WIDTH, top)
        top += max(panel.height for panel in row) + 4
    size = f'width="{COLUMNS * WIDTH + 8}" height="{top + 4}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="#f9fafb"/>',
            *body,
            "</svg>\n",
        ]
    )
