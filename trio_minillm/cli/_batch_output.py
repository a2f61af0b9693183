"""The output of a ``batch`` command: a file of JSON lines, a table that is made of one, or stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from trio_minillm.batch import BatchRequest, BatchResult, ResultFile, read_results, write_table

from .._batch.files.append_file import Fsync
from .._batch.files.key_table import KeyTable
from .._batch.files.result_format import fingerprint, result_line
from .._batch.files.result_table import SUFFIXES
from .._batch.files.tables import pyarrow_or_error
from ._output import Misuse, OutputError
from ._terminal import put, write_all

STDOUT = "-"
"""OUTPUT for stdout."""
PACKED = (".gz", ".zst", ".bz2", ".xz")
"""Endings of names of compressed files, to which no line can be added that a kill would not tear."""


class Target(msgspec.Struct, frozen=True):
    """The place that OUTPUT names."""

    name: str
    """OUTPUT as it was given."""
    lines: Path | None
    """File of JSON lines, from which a run goes on; ``None`` for stdout."""
    table: Path | None = None
    """File that is made of the lines when the run ends."""
    journal: Path | None = None
    """File that keeps what was submitted in vendors' batches, if any are."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are written."""
        return tuple(path for path in (self.lines, self.table) if path is not None)


def target_of(given: str, *, retry_failed: bool, journal: bool = False) -> Target:
    """Return the place that OUTPUT names, with a journal beside it if there is to be one. Raises
    `Misuse` for one that can't be written, or that has no earlier results to retry.
    """
    made = _target_of(given, retry_failed=retry_failed)
    if not journal:
        return made
    if made.lines is None:
        raise Misuse("--via provider needs a file as OUTPUT, from which the next run continues")
    return replace(made, journal=made.lines.with_name(f"{made.lines.name}.batches"))


def _target_of(given: str, *, retry_failed: bool) -> Target:
    path = Path(given)
    kind = path.suffix.lower()
    if given == STDOUT:
        if retry_failed:
            raise Misuse("--retry-failed needs a file as OUTPUT: stdout has no earlier results")
        return Target(given, None)
    if kind in PACKED:
        raise Misuse(f"the output {path}: leave out {kind}, and compress the file after the run")
    if kind not in SUFFIXES:
        return Target(given, path)
    if path.exists() and not path.is_file():
        raise Misuse(f"the output {path}: not a regular file")
    lines = path.with_name(f"{path.name}.jsonl")
    if path.exists() and not lines.exists():
        what = f"it exists, but {lines.name}, from which a run continues, does not"
        raise Misuse(f"the output {path}: {what}; remove it or name another file")
    try:
        pyarrow_or_error()
    except ImportError as exc:
        raise Misuse(f"the output {path}: {exc}") from exc
    return Target(given, lines, path)


class StdoutResults:
    """The counterpart of a `ResultFile` that writes to stdout and knows no earlier runs' results."""

    torn: int = 0

    def __init__(self) -> None:
        self._written = KeyTable()

    def states(self, request: BatchRequest, samples: int) -> Sequence[str]:
        return ["missing"] * samples

    def has_other_answers(self, request: BatchRequest) -> bool:
        return False

    def unanswered(
        self, requests: Iterable[BatchRequest], *, samples: int
    ) -> Iterator[BatchRequest]:
        for request in requests:
            missing = [n for n in range(samples) if _name(request.key, n) not in self._written]
            if missing:
                yield replace(request, samples=None if samples == 1 else tuple(missing))

    def forget(self, wanted: Callable[[str, bool], bool], *, samples: int | None = None) -> int:
        return 0

    async def append(self, result: BatchResult) -> None:
        await put(result_line(result, fingerprint(result.request)))
        self._written.put(_name(result.key, result.sample), 1)


def _name(key: str, sample: int) -> str:
    return f"{sample}\0{key}"


Output: TypeAlias = ResultFile | StdoutResults


@contextmanager
def open_output(
    target: Target, fsync: Fsync, *, dry_run: bool, keep_empty: bool = True
) -> Iterator[Output | None]:
    """Open the output for a block, or nothing if this is a dry run and there is no output yet.

    A new one with nothing in it goes again if the block fails, or unless it is to ``keep_empty``.
    Raises `Misuse` if it can't be used, and at the end `OutputError` if the disk could not take what
    was written.
    """
    path = target.lines
    if path is None:
        with writing(target):
            write_all(sys.stdout, b"")  # raises if there is no stdout, before anything is sent
        yield StdoutResults()
        return
    try:
        if dry_run and not path.exists():
            yield None
            return
        new = not path.exists()
        out = ResultFile(path, fsync=fsync)
    except OSError as exc:
        raise Misuse(f"the output {path}: {exc.strerror or exc}") from exc
    kept = False
    try:
        yield out
        kept = keep_empty
    finally:
        if new and not kept and not (target.table and target.table.exists()):
            remove_empty(path)
        with writing(target):
            out.close()


def remove_empty(path: Path) -> None:
    """Remove a file with nothing in it. It must be locked, so that no other process has begun one."""
    with suppress(OSError):  # on Windows it is open, and stays
        if not path.stat().st_size:
            path.unlink()


@contextmanager
def writing(target: Target) -> Iterator[None]:
    """Raise the `OutputError` that names the output for an `OSError` of the block."""
    try:
        yield
    except OutputError as exc:
        raise OutputError(exc.cause, "the results") from exc
    except OSError as exc:
        raise OutputError(exc, "the output", target.lines) from exc


def make_table(target: Target) -> None:
    """Make the table of all lines, if one is wanted. Raises `OutputError`."""
    if target.table is None or target.lines is None:
        return
    try:
        write_table(read_results(target.lines), target.table)
    except OSError as exc:
        what = f"{target.lines} has all results, but the table"
        raise OutputError(exc, what, target.table) from exc
