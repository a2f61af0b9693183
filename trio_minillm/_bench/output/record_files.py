"""Files of records: written while a benchmark runs, and read again.

Guarantees: a record is in the file soon after its request has ended, unless the file is a table, whose
rows are written in groups; memory is bounded; a failed write costs the file, and never the run. There is
no prompt, no answer and no key in it.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from ..record import Record
from .record_lines import (
    SCHEMA,
    Mark,
    column_types,
    columns_of,
    mark_line,
    parsed,
    record_from_row,
    record_line,
    row_of,
)

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
"""Endings of the names of such files."""
LINES, LINES_SECONDS = 256, 1.0
"""Records that are written at a time, and seconds after which those that wait are, however few."""
ROWS, ROW_STAMPS = 5_000, 2_000_000
"""Rows of a table that are written at a time, or fewer with so many stamps."""
MAX_WAITING = 8
"""Writes that may wait for the disk before new records wait for them."""
KEY = b"trio_minillm"
"""Name of a table's metadata."""


class RecordsError(Exception):
    """A file of records that can't be read. The message says why."""


class _Lines:
    """JSON lines, compressed if the name ends in ``.gz``."""

    most = (LINES, ROW_STAMPS, LINES_SECONDS)
    """Records, stamps, and seconds that may wait to be written."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        self._zip = None
        if path.suffix == ".gz":
            self._zip = gzip.GzipFile("", "wb", 5, self._raw, mtime=0)

    def write(self, batch: list[Mark | tuple[int, Record]]) -> None:
        data = b"".join(
            mark_line(one) if isinstance(one, Mark) else record_line(*one) for one in batch
        )
        if self._zip is not None:
            self._zip.write(data)
            self._zip.flush()
        else:
            self._raw.write(data)
        self._raw.flush()

    def close(self) -> None:
        with self._raw:
            if self._zip is not None:
                self._zip.close()


class _Table:
    """A Parquet file. Its marks are in its metadata, which is written at the end."""

    most = (ROWS, ROW_STAMPS, float("inf"))

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        types = {
            name: pa.list_(getattr(pa, kind)()) if many else getattr(pa, kind)()
            for name, (kind, many) in column_types().items()
        }
        self._schema = pa.schema(types)
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._marks: list[Mark] = []

    def write(self, batch: list[Mark | tuple[int, Record]]) -> None:
        self._marks += [one for one in batch if isinstance(one, Mark)]
        rows = [row_of(*one) for one in batch if not isinstance(one, Mark)]
        if rows:
            self._writer.write_table(self._pa.table(columns_of(rows), schema=self._schema))

    def close(self) -> None:
        with self._file:
            self._writer.add_key_value_metadata({KEY: msgspec.json.encode(self._marks)})
            self._writer.close()


class RecordFile:
    """The file of ``--records`` while a benchmark writes it, from a thread of its own.

    It is made, or emptied, with the first record. Nothing that is called while the benchmark runs raises:
    `close` returns the first failure. Its 10 attributes are the file, what waits for it, and its state.
    """

    def __init__(self, path: Path, **begin: Any) -> None:
        """Prepare the file. ``begin`` is what its first mark says."""
        self.path = path
        self._kind: type[_Lines | _Table] = _Table if path.suffix == ".parquet" else _Lines
        self._sheet: _Lines | _Table | None = None
        self._thread = ThreadPoolExecutor(1, "bench-records")
        self._waiting = deque[Future[None]]()
        self._batch: list[Mark | tuple[int, Record]] = []
        self._any = False
        """True once there has been a record."""
        self._stamps = 0
        self._since = time.monotonic()
        self._failed: OSError | None = None
        self.mark("begin", schema=SCHEMA, **begin)

    def add(self, point: int, record: Record) -> None:
        """Write a record of the load with this number, soon."""
        self._any = True
        self._put((point, record))
        self._stamps += len(record.stamps)
        most, stamps, seconds = self._kind.most
        waited = time.monotonic() - self._since
        if len(self._batch) >= most or self._stamps >= stamps or waited >= seconds:
            self._hand_over()

    def mark(self, mark: str, point: int | None = None, **fields: Any) -> None:
        """Write that something begins or ends."""
        self._put(Mark(mark=mark, point=point, fields=fields))

    def close(self) -> OSError | None:
        """Write what waits, close the file, and return the first failure."""
        if self._any:
            self._hand_over()
        self._thread.shutdown()
        self._settle(0)
        try:
            if self._sheet is not None:
                self._sheet.close()
        except OSError as exc:
            self._failed = self._failed or exc
        return self._failed

    def _write(self, batch: list[Mark | tuple[int, Record]]) -> None:
        """Write these, in the thread."""
        if self._sheet is None:
            self._sheet = self._kind(self.path)
        self._sheet.write(batch)

    def _put(self, one: Mark | tuple[int, Record]) -> None:
        if self._failed is None:
            self._batch.append(one)

    def _hand_over(self) -> None:
        batch, self._batch, self._stamps = self._batch, [], 0
        self._since = time.monotonic()
        if batch and self._failed is None:
            self._waiting.append(self._thread.submit(self._write, batch))
        self._settle(MAX_WAITING)

    def _settle(self, most: int) -> None:
        """Note the failures of writes that are over, and wait until no more than ``most`` are left."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            error = self._waiting.popleft().exception()
            if isinstance(error, OSError):
                self._failed = self._failed or error
            elif error is not None:
                raise error


# -- reading ---------------------------------------------------------------------------------


def read_records(path: Path) -> Iterator[Mark | tuple[int, Record]]:
    """Yield what stands in a file of records, in order; of a table, its marks come first.

    The last line of a run that was killed may be torn: it is passed over. Raises `RecordsError`.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_table(path)
        else:
            yield from _read_lines(path)
    except OSError as exc:
        raise RecordsError(f"{path}: {exc.strerror or exc}") from exc


def _read_lines(path: Path) -> Iterator[Mark | tuple[int, Record]]:
    number = first = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and line.strip():
                    found = parsed(line)
                    if not first:
                        _check(path, found)
                    first = first or number
                    yield found
        except EOFError:  # the end of a compressed file is missing: it was killed
            pass
        except (ValueError, zlib.error) as exc:
            raise RecordsError(f"{path}: line {number} is not a record: {exc}") from None
    if not first:
        raise RecordsError(f"{path}: empty, or ends within its first line")


def _check(path: Path, first: Mark | tuple[int, Record]) -> None:
    schema = first.fields.get("schema") if isinstance(first, Mark) else None
    if schema != SCHEMA:
        raise RecordsError(f"{path}: not a file of records from trio-minillm bench")


def _read_table(path: Path) -> Iterator[Mark | tuple[int, Record]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise RecordsError("Parquet needs pyarrow: pip install 'trio-minillm[tables]'") from None
    try:
        with pq.ParquetFile(path) as file:
            told = (file.metadata.metadata or {}).get(KEY, b"[]")
            marks = msgspec.convert(json.loads(told), list[Mark])
            _check(path, marks[0] if marks else Mark(mark=""))
            yield from marks
            for group in file.iter_batches(ROWS):
                for row in group.to_pylist():
                    yield record_from_row(row)
    except (pa.ArrowInvalid, ValueError) as exc:
        raise RecordsError(f"{path}: {exc}") from None
