"""The words of ``bench`` and ``report`` for a result, and the files that they write of it."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from .._bench.output.csv import csv_of
from .._bench.output.curves import CurveMaker, Curves
from .._bench.output.html import Page, html_of
from .._bench.output.json import fields_of
from .._bench.output.table import Table, failure_rows, found_text, load_text, result_table, rows_of
from .._bench.run import Point, Result
from ._bench_hedge import hedge_rows
from ._bench_output_options import Outputs
from ._costs import told_cost
from ._output import OutputError, Row, one_line, usd

LONGEST = 400
"""Characters of a line below the table."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A result, and what a run knows beside its records."""

    result: Result
    beside: dict[str, Any]
    """``cost`` by the ledger, and ``hedge`` where two models are compared, as JSON has them."""

    def fields(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**fields_of(self.result), **self.beside}

    def table(self) -> Table:
        """Return the table to print, of which the first row is the head."""
        return result_table(self.result)

    def rows(self) -> list[Row]:
        """Return the lines below the table."""
        points = self.result.points
        rows = self._point_rows(points[0]) if len(points) == 1 else self._sweep_rows(points)
        if self.result.found is not None:
            rows.insert(0, ("found", found_text(self.result.found)))
        return [(one_line(label, 60), one_line(text, LONGEST)) for label, text in rows]

    def _point_rows(self, point: Point) -> list[Row]:
        cost, hedge = self.beside.get("cost"), self.beside.get("hedge")
        rows = [("load", load_text(point.load)), *rows_of(point)]
        if cost is not None:
            rows.append(("cost", told_cost(cost)))
        elif point.figures.cost is not None:
            rows.append(("cost", f"${usd(Decimal(point.figures.cost))}"))
        if point.alone is not None and hedge is not None:
            rows += hedge_rows(point, point.alone, hedge)
        if point.warmup is not None:
            warm = f"{point.warmup.finished:,} of {point.warmup.sent:,} finished"
            spent = Decimal("0" if cost is None else cost["warmup"])
            rows.append(("warm-up", warm + (f" · ${usd(spent)}" if spent else "")))
            rows += failure_rows(point.warmup)
        return rows + [("note", note) for note in point.notes]

    def _sweep_rows(self, points: tuple[Point, ...]) -> list[Row]:
        """Return the lines of several loads: what is the same at several of them is said once."""
        counts, examples = Counter[str](), dict[str, str]()
        said: dict[Row, list[str]] = {}
        for point in points:
            for label, text in failure_rows(point.figures):
                count, _, example = text.partition(" · ")
                counts[label] += int(count.replace(",", ""))
                examples.setdefault(label, example)
            named = load_text(point.load)
            verdict = point.audit.verdict.partition(":")[0]  # what it rests on is in the JSON
            audit = [("audit", verdict)] if point.audit.limited else []
            for row in [*audit, *(("note", note) for note in point.notes)]:
                said.setdefault(row, []).append(named)
        rows = [(label, f"{n:,} · {examples[label]}") for label, n in counts.most_common()]
        if (cost := self.beside.get("cost")) is not None:
            rows.append(("cost", told_cost(cost)))
        return rows + [
            (label, f"{text} ({', '.join(dict.fromkeys(loads))})")
            for (label, text), loads in said.items()
        ]

    def html(self, curves: Mapping[int, Curves]) -> str:
        """Return the report."""
        verdict = [point.audit.verdict for point in self.result.points if point.audit.verdict]
        page = Page(table=self.table(), rows=self.rows(), verdict=verdict)
        return html_of(self.result, curves, page)

    def write_files(self, outputs: Outputs, curves: CurveMaker | None = None) -> OutputError | None:
        """Write the files that are wanted, each in one step, and return the first failure."""
        made: list[tuple[str, Path, Callable[[], str]]] = []
        if outputs.csv is not None:
            made.append(("the figures", outputs.csv, lambda: csv_of(self.result)))
        if outputs.html is not None and curves is not None:
            curves.finish()
            made.append(("the report", outputs.html, lambda: self.html(curves.made)))
        error: OutputError | None = None
        for what, path, text in made:
            try:
                replace_file(path, text())
            except OSError as exc:
                error = error or OutputError(exc, what, path)
        return error


def replace_file(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees the old one or the whole new one."""
    fd, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.resolve().parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(fresh).chmod(0o666 & ~mask)
        Path(fresh).replace(path.resolve())
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
