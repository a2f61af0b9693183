"""Results as a file in columns: Parquet, or Arrow's own format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .append_file import beside, sync_folder
from .result_format import ROW_TYPES, ResultLine
from .tables import pyarrow_or_error

ROWS = 10_000
"""Rows that are written at a time, and read at a time later: Parquet packs few of them badly."""
TEXT = 16 << 20
"""Characters of the rows that are written at a time, beyond the last one: what bounds the memory."""
SUFFIXES = (".parquet", ".arrow", ".feather")
"""Endings of the names of such files. The second and the third are the same format."""
_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_"}


def write_table(results: Iterable[ResultLine], path: str | os.PathLike[str]) -> int:
    """Write results to a ``.parquet``, ``.arrow`` or ``.feather`` file, a row for each with the fields
    of `ResultLine.row`, and return their number: ``write_table(read_results("out.jsonl"),
    "out.parquet")``.

    Guarantees: a file that is there is replaced in one step when the new one is whole and on the
    disk; no more than `ROWS` rows are held at a time, nor much more than `TEXT` characters. The
    file is made with mode 0600.

    Raises ``ValueError`` for another ending of the name, `ImportError` without the extra
    ``tables``, and `OSError` if it can't be written; the old file is left then.
    """
    path = Path(path).absolute()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a table is a file with one of the endings {', '.join(SUFFIXES)}")
    pyarrow_or_error()
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_arrow
    fresh = beside(path)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            count = write(results, file)
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
    except BaseException as exc:
        fresh.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            exc.filename = str(path)
        raise
    sync_folder(path)
    return count


def _write_parquet(results: Iterable[ResultLine], file: BinaryIO) -> int:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, _schema(), compression="zstd") as writer:
        return _write_batches(results, writer.write_batch)


def _write_arrow(results: Iterable[ResultLine], file: BinaryIO) -> int:
    from pyarrow import ipc

    options = ipc.IpcWriteOptions(compression="lz4")  # as Feather files have by default
    with ipc.new_file(file, _schema(), options=options) as writer:
        return _write_batches(results, writer.write_batch)


def _write_batches(results: Iterable[ResultLine], write: Callable[[Any], None]) -> int:
    import pyarrow

    count, schema = 0, _schema()
    for rows in _batches(results):
        write(pyarrow.RecordBatch.from_pylist(rows, schema=schema))
        count += len(rows)
    return count


def _batches(results: Iterable[ResultLine]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    held = 0
    for result in results:
        row = result.row()
        rows.append(row)
        held += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(rows) >= ROWS or held >= TEXT:
            yield rows
            rows, held = [], 0
    if rows:
        yield rows


def _schema() -> Any:
    import pyarrow

    fields = [(name, getattr(pyarrow, _TYPES[kind])()) for name, kind in ROW_TYPES.items()]
    return pyarrow.schema(fields)
