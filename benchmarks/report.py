"""Write the results as Markdown tables and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from answers import LAYOUTS
from cases import ALONE, BIG, IMPORTS, OTHERS, STREAM_COUNTS, WIRES, Case
from contenders import CONTENDERS, FLOOR, OURS

Values = dict[str, list[float]]
"""The numbers of a row by metric, one per round."""


def _of_chunks(got: dict[str, Any]) -> dict[str, float]:
    timed = got["chunks"] - 1  # the clock starts with the first
    return {"cpu": got["cpu"] / timed, "waits": got["waits"] / timed, "total": got["cpu"]}


def _of_requests(got: dict[str, Any]) -> dict[str, float]:
    return {"cpu": got["cpu"] / got["requests"], "first": got["first"]}


def _of_many(got: dict[str, Any]) -> dict[str, float]:
    kept = ("p50", "p90", "p99", "max", "memory", "set_up")
    return {"cpu": got["cpu"] / got["chunks"], **{name: got[name] for name in kept}}


_METRICS: dict[str, Callable[[Any], dict[str, float]]] = {
    "chunk": _of_chunks,
    "request": _of_requests,
    "many": _of_many,
    "big": _of_chunks,
    "import": dict,
    "churn": dict,
}


class Results:
    """All numbers by table, contender and metric, and the reasons why some are missing."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Values]] = {}
        self.skipped: dict[tuple[str, str], str] = {}
        self.failed: dict[tuple[str, str], str] = {}

    def add(self, case: Case, got: Any) -> None:
        """Add the report of one process."""
        for table in case.tables:
            self.values.setdefault(table, {}).setdefault(case.contender, {})
        if isinstance(got, dict) and ("failed" in got or "skipped" in got):
            for table in case.tables:
                key, where = (table, case.contender), "failed" if "failed" in got else "skipped"
                getattr(self, where).setdefault(key, got[where])
            return
        several = got if isinstance(got, list) else [got]
        for table, one in zip(case.tables, several, strict=True):
            row = self.values[table][case.contender]
            for metric, value in _METRICS[case.part](one).items():
                row.setdefault(metric, []).append(value)

    def why_not(self, table: str, contender: str) -> str:
        """Return the reason why a row has no numbers, or an empty string."""
        key = (table, contender)
        if key in self.failed:
            return f"FAILED: {self.failed[key]}"
        return self.skipped.get(key, "")

    def all(self, table: str, contender: str, metric: str) -> list[float]:
        """Return one number per round; none if the case failed or was left out."""
        if self.why_not(table, contender):
            return []
        return self.values.get(table, {}).get(contender, {}).get(metric, [])

    def median(self, table: str, contender: str, metric: str) -> float | None:
        values = self.all(table, contender, metric)
        return statistics.median(values) if values else None

    def ratio(self, of: tuple[str, str], to: tuple[str, str], metric: str = "cpu") -> float | None:
        """Return the median of the rounds' ratios of one row (table, contender) to another."""
        pairs = list(zip(self.all(*of, metric), self.all(*to, metric), strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None


# -- tables ----------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Return a number with three significant digits, or a dash if there is none."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def ranged(values: list[float], scale: float) -> str:
    """Return the median, and the range in brackets."""
    if not values:
        return "-"
    middle, low, high = (number(f(values) * scale) for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} [{low}-{high}]"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that its source can be read."""
    every = [head, *rows]
    widths = [max(len(row[i]) for row in every if i < len(row)) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)) + " |"
        for row in every
    ]
    lines.insert(1, "| " + " | ".join("-" * max(w, 3) for w in widths) + " |")
    return "\n".join(lines)


def _rows(results: Results, table: str, cells: Callable[[str], list[str]]) -> Iterator[list[str]]:
    """Yield a row for each contender, with its cells or the reason why it has none."""
    for contender in results.values[table]:
        title = CONTENDERS[contender].title
        why = results.why_not(table, contender)
        blank = [""] * (len(cells(contender)) - 1)
        yield [title, why, *blank] if why else [title, *cells(contender)]


def _chunk(results: Results) -> Iterator[str]:
    for wire, (sdk, _) in WIRES.items():
        for scheme, words in (("http", "plain HTTP"), ("https", "TLS")):
            for layout, how in LAYOUTS.items():
                table = f"chunk/{wire}/{scheme}/{layout}"
                if table not in results.values:
                    continue

                others = [one for one in (FLOOR, sdk, OURS) if one]

                def cells(
                    contender: str, table: str = table, others: list[str] = others
                ) -> list[str]:
                    ratios = (results.ratio((table, contender), (table, to)) for to in others)
                    cost = ranged(results.all(table, contender, "cpu"), 1e6)
                    waits = results.median(table, contender, "waits")
                    return [cost, *map(number, ratios), number(waits)]

                head = [f"{layout}, {wire}, {words}", "µs of CPU per chunk"]
                head += [f"x {one}" for one in others] + ["waits per chunk"]
                yield f"{how.title}\n\n{markdown(head, list(_rows(results, table, cells)))}"


def _request(results: Results) -> Iterator[str]:
    titles = {f"request/{others}": f"{others:,} others open" for others in OTHERS}
    for table, title in {**titles, **{name: words for name, (*_, words) in ALONE.items()}}.items():
        if table not in results.values:
            continue

        def cells(contender: str, table: str = table) -> list[str]:
            alone = ("request/0", contender)
            return [
                ranged(results.all(table, contender, "first"), 1e6),
                ranged(results.all(table, contender, "cpu"), 1e6),
                number(results.ratio((table, contender), (table, "aiohttp"))),
                number(results.ratio((table, contender), alone, "first")),
                number(results.ratio((table, contender), alone)),
            ]

        head = [title, "µs to the first chunk", "µs of CPU per request", "CPU x aiohttp"]
        head += ["time x with none", "CPU x with none"]
        yield markdown(head, list(_rows(results, table, cells)))


def _many(results: Results) -> Iterator[str]:
    for count in STREAM_COUNTS:
        table = f"many/{count}"
        if table not in results.values:
            continue

        def cells(contender: str, table: str = table) -> list[str]:
            scales = {"p50": 1e3, "p99": 1e3, "memory": 1 / 1024, "set_up": 1.0}
            return [
                ranged(results.all(table, contender, "cpu"), 1e6),
                *(ranged(results.all(table, contender, name), s) for name, s in scales.items()),
                number(results.ratio((table, contender), (table, OURS))),
            ]

        head = [f"{count:,} streams", "µs of CPU per chunk", "p50 ms", "p99 ms", "KiB per stream"]
        yield markdown([*head, "set-up s", "CPU x ours"], list(_rows(results, table, cells)))


def _big(results: Results) -> Iterator[str]:
    for what, (_, _, steps, title) in BIG.items():
        tables = [f"big/{what}/{step}" for step in steps]
        if tables[0] not in results.values:
            continue

        def cells(contender: str, tables: list[str] = tables) -> list[str]:
            growth = results.ratio((tables[-1], contender), (tables[0], contender))
            totals = (ranged(results.all(table, contender, "total"), 1.0) for table in tables)
            return [*totals, number(growth)]

        head = [title, *(f"s of CPU, {step:,} deltas" for step in steps)]
        head += ["per delta: largest x smallest"]
        yield markdown(head, list(_rows(results, tables[0], cells)))


def _import(results: Results) -> Iterator[str]:
    if "import" not in results.values:
        return
    rows = []
    for name, modules in IMPORTS.items():
        cost = ranged(results.all("import", name, "cpu"), 1e3)
        ratio = number(results.ratio(("import", name), ("import", "base")))
        why = results.why_not("import", name)
        rows.append([modules, why or cost, ratio])
    yield markdown(["import", "ms of CPU", "x the three"], rows)


def _churn(results: Results) -> Iterator[str]:
    if "churn" not in results.values:
        return

    def cell(metric: str, scale: float = 1.0) -> str:
        return ranged(results.all("churn", OURS, metric), scale)

    why = results.why_not("churn", OURS)
    row = [cell("streams"), cell("whole"), cell("opened"), cell("reused"), cell("idle")]
    row += [cell("usual", 1e3), cell("next", 1e3), why or "exact"]
    head = ["streams started", "not cancelled", "connections opened", "reused", "idle after"]
    yield markdown([*head, "request before, ms", "next request after, ms", "counts"], [row])


def tables(results: Results) -> str:
    """Return the tables of all parts that were run."""
    parts = (_chunk, _request, _many, _big, _import, _churn)
    return "\n\n".join(text for part in parts for text in part(results))


def as_json(results: Results) -> dict[str, Any]:
    """Return all numbers, and the reasons why some are missing."""
    listed = [
        {"table": table, "contender": contender, "values": values}
        for table, rows in results.values.items()
        for contender, values in rows.items()
    ]
    return {
        "rows": listed,
        "skipped": [[*key, why] for key, why in results.skipped.items()],
        "failed": [[*key, why] for key, why in results.failed.items()],
    }
