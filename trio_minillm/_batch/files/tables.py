"""Tables as a batch's input: a row is a request in the short form, a column one of its fields."""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from .unpacked import DamagedError

BATCH_ROWS = 256
"""Rows of a Parquet file that are read at a time."""
_META = "meta."


def csv_rows(
    file: TextIO, json: Collection[str], delimiter: str, limit: int
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a CSV with a head: the number of each one's first line, and its fields
    or the words for a fault.

    An empty cell is a field that is not there. Cells of the columns ``json`` are read as JSON where
    they can be, and those of others are text. A row has at most ``limit`` characters.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a process-wide default of 128 KiB
    size = 0

    def lines() -> Iterator[str]:
        nonlocal size
        while line := file.readline(limit + 1):
            size += len(line)
            if size > limit:
                raise csv.Error(f"a row is longer than {limit:,} characters")
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    following = 1
    try:
        head = next(reader, [])
        if len(head) == 1 and (other := _other_delimiter(head[0], delimiter)):
            yield 1, f"the columns seem to be separated by {other} instead of {delimiter!r}"
            return
        following = reader.line_num + 1
        size = 0
        for cells in reader:
            number, following = following, reader.line_num + 1
            size = 0
            if not cells:
                continue
            if len(cells) != len(head):
                yield number, f"{len(cells)} cells, but {len(head)} columns"
                continue
            pairs = ((k, _cell(k, cell, json)) for k, cell in zip(head, cells, strict=True) if cell)
            yield number, _fields(dict(pairs))
    except (csv.Error, UnicodeError, DamagedError) as exc:
        # After a quote that is not closed nothing can be trusted.
        what = "not UTF-8" if isinstance(exc, UnicodeError) else str(exc)
        yield following, f"not readable from here on: {what}"


def _other_delimiter(head: str, delimiter: str) -> str | None:
    """Return what seems to separate the columns of a head that was read as one column."""
    return next((repr(mark) for mark in ";\t" if mark != delimiter and mark in head), None)


def parquet_rows(path: Path, json: Collection[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a Parquet file: each one's number and fields. Columns may be nested, and text in
    the columns ``json`` is read as JSON where it can be.

    Raises `ImportError` without the extra ``tables``, ``ValueError`` for another kind of file.
    """
    pyarrow = pyarrow_or_error()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    given = {k: v for k, v in row.items() if v is not None}
                    cells = {
                        k: _cell(k, v, json) if isinstance(v, str) else v for k, v in given.items()
                    }
                    yield number, _fields(cells)
    except pyarrow.ArrowInvalid:
        raise ValueError(f"{path} is not a Parquet file") from None


def pyarrow_or_error() -> Any:
    """Return the package pyarrow with its part for Parquet. Raises `ImportError` that says what to
    install.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        what = "Parquet and Arrow files need pyarrow: pip install 'trio-minillm[tables]'"
        raise ImportError(what) from exc
    return pyarrow


def _cell(name: str, cell: str, json: Collection[str]) -> Any:
    """Return a cell's value: its text, or what it is as JSON (a number, a flag, a list)."""
    if name not in json:
        return cell
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, RecursionError):
        return cell


def _fields(cells: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the row in the form of a line, with ``meta.NAME`` in its ``meta``."""
    meta = {k.removeprefix(_META): v for k, v in cells.items() if k.startswith(_META)}
    fields = {k: _plain(v) for k, v in cells.items() if not k.startswith(_META)}
    if not meta:
        return fields
    whole = fields.get("meta") or {}
    if not isinstance(whole, dict):
        return "meta is not an object, but there are also columns for its fields"
    return {**fields, "meta": {**whole, **meta}}


def _plain(value: Any) -> Any:
    """Return a nested value without the nulls of a struct's missing fields."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value
