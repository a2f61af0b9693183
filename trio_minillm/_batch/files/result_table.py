"""Results as a file in columns: Parquet, or Arrow's own format."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .append_file import beside, sync_folder
from .result_format import ROW_TYPES, ResultLine
from .tables import pyarrow_or_error

ROWS = 10_000
"""Rows that are written at a time, and read at a time later: Parquet packs few of them badly."""
TEXT = 16 << 20
"""Characters of the rows that are written at a time, beyond the last one: what bounds the memory."""
SUFFIXES = (".parquet", ".arrow", ".feather")
"""Endings of the names of such files. The second and the third are the same format."""
MAX_FIELDS = 100
"""Names of fields in metas for which there are columns. With more of them, metas are no fixed set of
fields, and none has a column."""
_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_"}
_decode = msgspec.json.Decoder().decode


def write_table(results: Iterable[ResultLine], path: str | os.PathLike[str]) -> int:
    """Write results to a ``.parquet``, ``.arrow``, or ``.feather`` file, and return their number.

    Use it as ``write_table(read_results("out.jsonl"), "out.parquet")``. There is one row for each
    result, with the fields of `ResultLine.row`. If all scores are numbers or flags, ``score`` has
    these instead of JSON. If each ``meta`` is an object or missing, a field that has only numbers,
    only flags, or only text gets a column ``meta.NAME``, unless there are more than `MAX_FIELDS`
    names.

    Guarantees: an existing file is replaced in one step, once the new one is complete and on the
    disk. At most `ROWS` rows, and not much more than `TEXT` characters, are held at a time; while
    they are written, the folder holds them a second time. The file is created with mode 0600.

    Raises ``ValueError`` for another file extension, ``ImportError`` without the extra ``tables``,
    and ``OSError`` if the file can't be written, which leaves the old file in place.
    """
    path = Path(path).absolute()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a table must have one of the endings {', '.join(SUFFIXES)}")
    pyarrow_or_error()
    fresh = beside(path)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(fd, "wb") as file, tempfile.TemporaryFile(dir=path.parent) as plain:
            kinds = _Kinds()
            count = _write_plain(results, plain, kinds)
            plain.seek(0)
            _write_typed(plain, kinds, file, parquet=path.suffix.lower() == ".parquet")
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


class _Kinds:
    """The kinds of all scores, and of the fields of all metas, by which the columns are chosen."""

    def __init__(self) -> None:
        self._score = set[type]()
        self._fields: dict[str, set[type]] | None = {}
        """``None`` once a meta is no object, or there are too many names."""

    def add(self, result: ResultLine) -> None:
        """Note the kinds of a result."""
        if result.score is not None:
            self._score.add(_kind(result.score))
        if result.meta is None or self._fields is None:
            return
        if isinstance(result.meta, dict):
            for name, value in result.meta.items():
                if value is not None:
                    self._fields.setdefault(name, set()).add(_kind(value))
        if not isinstance(result.meta, dict) or len(self._fields) > MAX_FIELDS:
            self._fields = None

    def score(self) -> type | None:
        """Return the type of the scores; ``None`` if they stay JSON."""
        kind = _common(self._score)
        return None if kind is str else kind

    def fields(self) -> dict[str, type]:
        """Return the fields of the metas that get a column, with their types."""
        found = {name: _common(kinds) for name, kinds in (self._fields or {}).items()}
        return {name: kind for name, kind in found.items() if kind is not None}


def _kind(value: Any) -> type:
    """Return the type of a value, and ``object`` for one that no column can hold as it is."""
    kind = type(value)
    if kind not in _TYPES or (kind is int and not -(2**63) <= value < 2**63):
        return object
    return kind


def _common(kinds: set[type]) -> type | None:
    """Return the type of a column for values of these kinds, ``None`` if there is none."""
    if kinds == {int, float}:
        return float
    (kind,) = kinds if len(kinds) == 1 else (object,)
    return kind if kind in _TYPES else None


def _write_plain(results: Iterable[ResultLine], file: BinaryIO, kinds: _Kinds) -> int:
    """Write the rows with their JSON as it is, and return their number: which types the columns can
    have is known only after the last of them.
    """
    import pyarrow
    from pyarrow import ipc

    count, schema = 0, _schema(ROW_TYPES)
    with ipc.new_stream(file, schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
        for rows in _batches(results, kinds):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _write_typed(plain: BinaryIO, kinds: _Kinds, file: BinaryIO, *, parquet: bool) -> None:
    """Write the table from the plain rows."""
    from pyarrow import ipc
    from pyarrow.parquet import ParquetWriter

    score, fields = kinds.score(), kinds.fields()
    types = {**ROW_TYPES, "score": score or str, **{f"meta.{n}": k for n, k in fields.items()}}
    schema = _schema(types)
    if parquet:
        writer: Any = ParquetWriter(file, schema, compression="zstd")
    else:  # compressed as Feather files are by default
        options = ipc.IpcWriteOptions(compression="lz4")
        writer = ipc.new_file(file, schema, options=options)
    with writer, ipc.open_stream(plain) as reader:
        for batch in reader:
            writer.write_batch(_typed(batch, score, fields, schema))


def _typed(batch: Any, score: type | None, fields: dict[str, type], schema: Any) -> Any:
    """Return a batch of plain rows with the columns of the table."""
    import pyarrow

    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if score is not None:
        columns["score"] = [_as(value, score) for value in _decoded(columns["score"])]
    if fields:
        metas = [meta or {} for meta in _decoded(columns["meta"])]
        for name, kind in fields.items():
            columns[f"meta.{name}"] = [_as(meta.get(name), kind) for meta in metas]
    made = [pyarrow.array(columns[field.name], type=field.type) for field in schema]
    return pyarrow.RecordBatch.from_arrays(made, schema=schema)


def _decoded(column: Any) -> list[Any]:
    return [None if text is None else _decode(text) for text in column.to_pylist()]


def _as(value: Any, kind: type) -> Any:
    return float(value) if kind is float and value is not None else value


def _batches(results: Iterable[ResultLine], kinds: _Kinds) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    held = 0
    for result in results:
        kinds.add(result)
        row = result.row()
        rows.append(row)
        held += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(rows) >= ROWS or held >= TEXT:
            yield rows
            rows, held = [], 0
    if rows:
        yield rows


def _schema(types: dict[str, type]) -> Any:
    import pyarrow

    return pyarrow.schema([(n, getattr(pyarrow, _TYPES[kind])()) for n, kind in types.items()])
