"""Tables and labelled lines as text that people paste: aligned, or Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Table = Sequence[tuple[str, ...]]
"""A table's rows, of which the first is its head. All columns but the first hold numbers."""


def aligned(table: Table) -> str:
    """Return the table with columns of equal width: the first to the left, the others to the right."""
    widths = _widths(table)
    return "".join("  ".join(_cells(row, widths)).rstrip() + "\n" for row in table)


def markdown(table: Table, rows: Iterable[tuple[str, str]] = ()) -> str:
    """Return a Markdown table that reads well as plain text too, and the rows as a list below it."""
    text = ""
    if table:
        head, *body = [tuple(map(escaped, row)) for row in table]
        widths = [max(3, width) for width in _widths([head, *body])]
        rule = tuple(
            "-" * width if column == 0 else "-" * (width - 1) + ":"
            for column, width in enumerate(widths)
        )
        lines = [_cells(head, widths), rule, *(_cells(row, widths) for row in body)]
        text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    listed = "".join(f"- **{escaped(label)}**: {escaped(line)}\n" for label, line in rows)
    return text + ("\n" if text and listed else "") + listed


_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#&!])")


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is: model names and errors are a server's words."""
    return _SPECIAL.sub(r"\\\1", text)


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _cells(row: tuple[str, ...], widths: list[int]) -> tuple[str, ...]:
    return tuple(
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
