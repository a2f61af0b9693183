"""A result as one HTML file that needs nothing else: no network, no other file.

Guarantees: whatever a server or a user has said is text in it, never markup or script; its policy
(CSP) forbids every request, and any script but the two that are in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import msgspec

from ..run import Point, Result
from .curves import Curves
from .plots import Plot, plots_of_all, plots_of_load
from .table import load_text, table_of

Rows = Iterable[tuple[str, str]]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a report that is not plots."""

    table: Sequence[tuple[str, ...]]
    rows: Sequence[tuple[str, str]]
    verdict: Sequence[str] = ()
    """Sentences on whether the figures can be believed."""


def html_of(result: Result, curves: Mapping[int, Curves], page: Page) -> str:
    """Return the report. ``curves`` are those of the loads by their numbers. Raises ``ImportError``
    without the extra ``report``.
    """
    plots: list[Plot] = []
    body = "".join(
        [
            _head(result),
            _verdict(page),
            f"<section><h2>Summary</h2>{_table(page.table)}{_list(page.rows)}</section>",
            _figures("Distributions and loads", plots_of_all(result, curves), plots),
            *(
                _load(n, point, curves.get(n), result, plots)
                for n, point in enumerate(result.points)
            ),
            f"<section><h2>Configuration</h2>{_list(_flat(result.config))}</section>",
        ]
    )
    data = _json_text([{"data": plot.data, "layout": plot.layout} for plot in plots])
    library, script, style = _library(), _own("report.js"), _own("report.css")
    policy = (
        f"default-src 'none'; script-src {_hashed(library)} {_hashed(script)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    title = escape(f"{result.config.get('model')}: benchmark")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        f'<script type="application/json" id="plots">{data}</script>\n'
        f"<script>{library}</script>\n<script>{script}</script>\n</body>\n</html>\n"
    )


# -- sections --------------------------------------------------------------------------------


def _head(result: Result) -> str:
    points = result.points
    load = load_text(points[0].load) if len(points) == 1 else f"{len(points)} loads"
    when = result.at.strftime("%Y-%m-%d %H:%M:%S %Z")
    told = [when, load, str(result.config.get("base_url") or ""), f"trio-minillm {result.version}"]
    return (
        f"<header><h1>{escape(str(result.config.get('model')))}</h1>"
        f"<p>{' · '.join(escape(text) for text in told if text)}</p>"
        "<noscript><p>The plots need JavaScript; the tables do not.</p></noscript></header>\n"
    )


def _verdict(page: Page) -> str:
    if not page.verdict:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in page.verdict)
    return f"<section><h2>Can you trust the figures?</h2><ul>{lines}</ul></section>\n"


def _load(
    number: int, point: Point, curves: Curves | None, result: Result, plots: list[Plot]
) -> str:
    alone = len(result.points) == 1
    title = "The run over time" if alone else f"Load {number + 1}: {load_text(point.load)}"
    inner = "" if alone else _table(table_of(point.figures, point.audit.unreliable))
    inner += _figures("", plots_of_load(point, curves), plots)
    if curves is None:
        inner += "<p>For this load, only the figures were kept.</p>"
    opened = " open" if number == len(result.points) - 1 else ""
    return f"<details{opened}><summary><h2>{escape(title)}</h2></summary>{inner}</details>\n"


def _figures(title: str, shown: Iterable[Plot], plots: list[Plot]) -> str:
    """Return the places of these plots, which are added to ``plots``: a script draws them."""
    parts = []
    for plot in shown:
        parts.append(
            f'<figure><h3>{escape(plot.title)}</h3><div class="plot" data-plot="{len(plots)}" '
            f'style="height:{plot.height}px" role="img" aria-label="{escape(plot.about)}"></div>'
            f"<figcaption>{escape(plot.about)}</figcaption></figure>"
        )
        plots.append(plot)
    if not title:
        return "".join(parts)
    return f'<section><h2>{escape(title)}</h2><div class="grid">{"".join(parts)}</div></section>\n'


def _table(table: Sequence[tuple[str, ...]]) -> str:
    if len(table) < 2:
        return ""
    head, *rows = table
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        '<div class="wide" tabindex="0"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _list(rows: Rows) -> str:
    lines = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in rows)
    return f"<dl>{lines}</dl>" if lines else ""


def _flat(config: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in config.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name}.")
        elif value is not None:
            rows.append((f"{before}{name}", str(value)))
    return rows


# -- scripts ---------------------------------------------------------------------------------


def _library() -> str:
    """Return plotly.js, which the Python package has with it."""
    from plotly.offline import get_plotlyjs

    return _script_text(get_plotlyjs())


def _own(name: str) -> str:
    return _script_text(resources.files(__package__ or "").joinpath(name).read_text("utf-8"))


def _script_text(text: str) -> str:
    """Return a script or a style so that no HTML parser ends or changes it."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", text.replace("\r\n", "\n"), flags=re.IGNORECASE)


def _json_text(value: Any) -> str:
    """Return JSON that can stand in an element of HTML."""
    text = msgspec.json.encode(value).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hashed(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
