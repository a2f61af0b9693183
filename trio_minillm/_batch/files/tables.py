"""Tables as a batch's input: a row is a request in the short form, a column one of its fields."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

BATCH_ROWS = 256
"""Rows of a Parquet file that are read at a time."""
_TEXT = {"key", "custom_id", "prompt", "system", "model"}
"""Columns of a CSV that are text as they stand. Other cells are read as JSON where they can be."""
_META = "meta."


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a CSV in UTF-8 with a head, or of a TSV: the number of each one's first line,
    and its fields or the words for a fault.

    An empty cell is a field that is not there.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a process-wide default of 128 KiB
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        following = 1
        try:
            head = next(reader, [])
            following = reader.line_num + 1
            for cells in reader:
                number, following = following, reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(head):
                    yield number, f"{len(cells)} cells under a head of {len(head)}"
                    continue
                pairs = ((k, _cell(k, cell)) for k, cell in zip(head, cells, strict=True) if cell)
                yield number, _fields(dict(pairs))
        except (csv.Error, UnicodeError) as exc:
            # After a quote that is not closed nothing can be trusted.
            what = str(exc) if isinstance(exc, csv.Error) else "not UTF-8"
            yield following, f"not readable from here on: {what}"


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a Parquet file: each one's number and fields. Columns may be nested, or hold
    JSON text.

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
                    cells = {k: _cell(k, v) if isinstance(v, str) else v for k, v in given.items()}
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
        what = "Parquet, Arrow and zstd files need pyarrow: pip install 'trio-minillm[tables]'"
        raise ImportError(what) from exc
    return pyarrow


def _cell(name: str, cell: str) -> Any:
    """Return a cell's value: its text, or what it is as JSON (a number, a flag, a list)."""
    if name in _TEXT or name.startswith(_META):
        return cell
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, RecursionError):
        return cell


def _fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row in the form of a line, with ``meta.NAME`` in its ``meta``."""
    meta = {k.removeprefix(_META): v for k, v in cells.items() if k.startswith(_META)}
    fields = {k: _plain(v) for k, v in cells.items() if not k.startswith(_META)}
    return {**fields, "meta": {**(fields.get("meta") or {}), **meta}} if meta else fields


def _plain(value: Any) -> Any:
    """Return a nested value without the nulls of a struct's missing fields."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value
