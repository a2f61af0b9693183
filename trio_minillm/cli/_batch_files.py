"""The files that a ``batch`` command names: kept apart, tried before anything is read, and opened.

Its output has a module of its own, `_batch_output`.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import combinations
from pathlib import Path

import trio
from msgspec.structs import replace

import trio_minillm as llm
from trio_minillm.batch import CacheError, RequestFile, ResponseCache, TraceEvent

from .._batch.trace import Trace
from ._batch_output import Target
from ._batch_report import STDIN, BatchPlan
from ._costs import open_ledger
from ._output import Misuse


def check_files(
    source: Path,
    target: Target,
    *,
    schema: Path | None,
    ledger: Path | None,
    cache: Path | None,
    trace: Path | None,
) -> None:
    """Raise `Misuse` if two of the files are the same one, or if one can't be written, or made if it
    is missing. Nothing is made or changed.
    """
    beside = {"ledger": ledger, "cache": cache, "trace": trace}
    written = [("the output", path) for path in target.files]
    written += [(f"--{name}", path) for name, path in beside.items() if path is not None]
    written += [] if target.journal is None else [("the journal", target.journal)]
    read = [] if source == STDIN else [("the input", source)]
    read += [] if schema is None else [("--schema", schema)]
    check_paths(read, written)


def check_paths(read: list[tuple[str, Path]], written: list[tuple[str, Path]]) -> None:
    """Raise `Misuse` if two of these named files are the same one, or if one of ``written`` can't be
    written, or made if it is missing. Nothing is made or changed.
    """
    check_apart(read + written)
    for name, path in written:
        try:
            _try_to_write(path)
        except OSError as exc:
            raise Misuse(f"{name} {path}: {exc.strerror or exc}") from exc


def check_apart(files: list[tuple[str, Path]]) -> None:
    """Raise `Misuse` if two files are the same one: each would ruin the other."""
    for (one, first), (other, second) in combinations(files, 2):
        same = os.path.realpath(first) == os.path.realpath(second)
        with suppress(OSError):  # one of them is not there
            same = same or first.samefile(second)
        if same:
            raise Misuse(f"{other} must not be the same file as {one}")


def _try_to_write(path: Path) -> None:
    if path.exists():
        if not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")  # opening a pipe would block
        os.close(os.open(path, os.O_RDWR | os.O_APPEND))
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "its folder does not exist")
    # Permissions alone don't tell: the file system may be read-only.
    with tempfile.TemporaryFile(dir=folder):
        pass


def open_input(
    plan: BatchPlan, source: Path, named: Callable[[str | None], llm.Model]
) -> RequestFile:
    """Open the input, of which ``source`` is the path. Raises `Misuse`."""
    try:
        return RequestFile(
            source,
            model=named,
            params=plan.params,
            **plan.columns,
            strict=plan.strict,
            format=plan.format,
            shard=plan.shard,
            skip_bad=plan.skip_bad,
        )
    except OSError as exc:
        raise Misuse(f"the input {plan.input}: {exc.strerror or exc}") from exc


def ledger_for(path: Path | None, *, dry_run: bool) -> llm.Ledger | None:
    """Open the ledger, if one is wanted. Raises `Misuse`. A dry run only tries it, and makes none."""
    if path is None:
        return None
    if not dry_run:
        return open_ledger(path)
    if path.exists():
        open_ledger(path, read_only=True)
    return None


def open_cache(plan: BatchPlan) -> AbstractContextManager[ResponseCache | None]:
    """Open the cache, if one is wanted. Raises `Misuse`."""
    return nullcontext() if plan.cache is None else _opened_cache(plan.cache)


def check_cache(plan: BatchPlan) -> None:
    """Raise `Misuse` if the cache can't be opened. One that is missing or empty stays so."""
    path = plan.cache
    if path is not None and path.exists() and path.stat().st_size:
        _opened_cache(path).close()


def _opened_cache(path: Path) -> ResponseCache:
    try:
        return ResponseCache(path)
    except (OSError, CacheError) as exc:
        raise Misuse(f"the cache {path}: {exc}") from exc


class RunTrace:
    """The log of ``--trace``, to which the batch of the check and that of the others write."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def of_batch(self) -> Callable[[TraceEvent], None]:
        """Return the function that takes the events of a batch which begins now."""
        later = trio.current_time() - self._trace.began

        def tell(event: TraceEvent) -> None:
            self._trace.tell(replace(event, time=round(event.time + later, 6)))
            if event.event == "sample":  # once a second, so that it can be watched
                self._trace.flush()

        return tell


@contextmanager
def open_trace(plan: BatchPlan) -> Iterator[RunTrace | None]:
    """Empty the log of ``--trace`` and open it for the block, if one is wanted. Raises `Misuse`."""
    if plan.trace is None:
        yield None
        return
    trace = Trace(plan.trace)
    try:
        trace.open(trio.current_time())
    except OSError as exc:
        raise Misuse(f"--trace {plan.trace}: {exc.strerror or exc}") from exc
    try:
        yield RunTrace(trace)
    finally:
        trace.close()
