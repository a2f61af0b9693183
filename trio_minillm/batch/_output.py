"""The results of a batch in a file of JSON lines, with which a run that was killed goes on.

A line has the shape of the output of OpenAI's Batch API, and more beside it: the outcome, usage,
cost, timings, every attempt. A line is whole if it ends with a newline and is a JSON object: no
beginning of an object is one, so that a torn line can't be taken for a whole one.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Literal

import msgspec
import trio
from msgspec.structs import replace
from outcome import Error, Outcome

from ..providers import Model
from ._keys import KeyTable
from ._result_format import MARKER, ResultLine, fingerprint, line_of
from ._values import BatchRequest, BatchResult

try:
    import fcntl
except ImportError:  # Windows: there two writers are not told apart
    fcntl = None  # type: ignore[assignment]

FSYNC_SECONDS = 1.0
"""With ``fsync="interval"``: what a crash of the machine can lose."""
YIELD_EVERY = 16
"""Lines that are written before other tasks get a turn: 0.5 ms."""
MAX_LINE = 256 << 20
"""Bytes of a line; what is longer is no result of ours."""

Fsync = Literal["never", "interval", "always"]
State = Literal["missing", "finished", "failed", "changed"]
"""What the file has of a request: no line; an answer; an error; a line of another request."""
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class _Head(msgspec.Struct):
    """What must be known of each line to go on."""

    custom_id: str
    ok: bool
    request: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    sample: int = 0


_head_of = msgspec.json.Decoder(_Head).decode
_line_of = msgspec.json.Decoder(ResultLine).decode


class ResultFileError(OSError):
    """The file can't take results: another process writes to it, or it is no file of results."""


class ResultFile:
    """A file that keeps the results of a batch, one line each, and knows whose it has.

    Guarantees: a result that `append` returned for survives the death of the process at any
    instant; a line is whole or recognised as torn, and a torn end is cut off when the file is
    opened; no key has two lines; one process writes at a time. The file is made with mode 0600.

    ``fsync`` says what the death of the *machine* can take: ``"never"`` what the system had not
    written yet (some 30 s), ``"interval"`` the last second, ``"always"`` nothing: `append` then
    returns when the disk has the line. All of it is on the disk when the block ends, except with
    ``"never"``.

    Raises `ResultFileError` (an `OSError`) for a file that another process writes to or that has
    lines of something else, and `OSError` where it can't be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: Fsync = "interval") -> None:
        if fsync not in ("never", "interval", "always"):
            raise ValueError("fsync must be 'never', 'interval' or 'always'")
        self.path: Path = Path(path).absolute()
        self.torn: int = 0
        """Lines that could not be read: at the end (they are cut off) or in between."""
        self._fsync: Fsync = fsync
        self._written = self._synced = 0
        self._sync_due = 0.0
        self._syncing = trio.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._sync_failed: OSError | None = None
        self._fd = _open_locked(self.path)
        try:
            _beside(self.path).unlink(missing_ok=True)  # of a process that was killed in `forget`
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def finished(self) -> int:
        """How many lines have a whole answer."""
        return self._finished

    @property
    def failed(self) -> int:
        """How many lines have an error."""
        return len(self._keys) - self._finished

    def state(self, request: BatchRequest, *, model: Model | None = None) -> State:
        """What the file has of this request; ``model`` is for one that names none."""
        known = self._keys.get(request.key)
        if request.model is None:
            request = replace(request, model=model)
        if known is None:
            return "missing"
        if known >> 1 != int(fingerprint(request), 16) >> 1:
            return "changed"
        return "finished" if known & 1 else "failed"

    def unanswered(
        self, requests: Iterable[BatchRequest], *, model: Model | None = None
    ) -> Iterator[BatchRequest]:
        """Those that have no line yet, neither an answer nor an error. ``model`` is for those
        that name none.

        Raises ``ValueError`` at one whose key has a line of another request: with other messages,
        parameters or another model.
        """
        for request in requests:
            state = self.state(request, model=model)
            if state == "changed":
                raise ValueError(f"{request.key!r} was another request when it was answered")
            if state == "missing":
                yield request

    def forget(self, wanted: Callable[[str, bool], bool]) -> int:
        """Take out the lines for which ``wanted(key, ok)`` is true, and return how many.

        The file is written anew beside the old one and put in its place in one step: killed at
        any instant, there is the old one or the new one.
        """
        fresh = _beside(self.path)
        fd = _open_locked(fresh)
        gone = 0
        try:
            os.ftruncate(fd, 0)
            with self.path.open("rb") as old, open(fd, "wb", closefd=False) as new:
                for line in _lines(old):
                    head = _head(line)
                    if head is not None and wanted(head.custom_id, head.ok):
                        gone += 1
                    else:
                        new.write(line)
            os.fsync(fd)
            if fcntl is None:  # an open file can't be replaced there
                os.close(fd)
                self.close()
                fresh.replace(self.path)
                fd = _open_locked(self.path)
            else:
                fresh.replace(self.path)
                self.close()
        except BaseException:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        self._fd = fd
        _sync_folder(self.path)
        self._read()
        return gone

    async def append(self, result: BatchResult) -> None:
        """Write a result's line. Cancellation comes before it or after it, never between; other
        tasks get a turn at every `YIELD_EVERY`-th line, so that results don't pile up (a kill
        loses those).

        Raises ``ValueError`` for a key that has a line already, and `OSError` where the line
        can't be written whole (nothing of it is left then), or the disk failed before.
        """
        if self._written % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if self._sync_failed is not None:
            raise self._sync_failed
        name = _name(result.key, result.sample)
        if name in self._keys:
            raise ValueError(f"{result.key!r} has a line already")
        mark = fingerprint(result.request)
        self._write(line_of(result, mark))
        self._know(name, mark, ok=result.ok)
        self._written += 1
        if self._fsync == "always":
            await self._sync(self._written)
        elif self._fsync == "interval":
            self._sync_behind()

    def close(self) -> None:
        """Give the file up; other processes can write to it then. Harmless the second time.

        Raises `OSError` where the disk could not take what was written.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._idle.wait()  # for one fsync at most
        try:
            if self._sync_failed is not None:
                raise self._sync_failed
            if self._fsync != "never" and self._synced < self._written:
                os.fsync(fd)
        finally:
            os.close(fd)

    async def _sync(self, number: int) -> None:
        """Return when so many lines are on the disk: one call serves all that wait for it."""
        with trio.CancelScope(shield=True):
            async with self._syncing:
                if self._synced < number:
                    written = self._written
                    await trio.to_thread.run_sync(os.fsync, self._fd)
                    self._synced = written

    def _sync_behind(self) -> None:
        """Once a second, in a thread that nobody waits for but `close`: results that wait for a
        disk to be written would be lost by a kill.
        """
        now = trio.current_time()
        if now < self._sync_due or not self._idle.is_set():
            return
        self._sync_due = now + FSYNC_SECONDS
        self._synced = self._written
        self._idle.clear()
        trio.lowlevel.start_thread_soon(partial(os.fsync, self._fd), self._behind)

    def _behind(self, ended: Outcome[None]) -> None:
        if isinstance(ended, Error) and isinstance(ended.error, OSError):
            self._sync_failed = ended.error
        self._idle.set()

    def _know(self, name: str, mark: str, *, ok: bool) -> None:
        self._finished += ok
        self._keys.put(name, int(mark, 16) >> 1 << 1 | ok)

    def _read(self) -> None:
        """Learn what the file has, and see that it ends with a whole line."""
        self._keys, self._finished, self.torn = KeyTable(), 0, 0
        self._end, whole = 0, True
        with self.path.open("rb") as file:
            for number, line in enumerate(_lines(file), 1):
                whole = line.endswith(b"\n")
                head = _head(line)
                if head is not None:
                    self._know(_name(head.custom_id, head.sample), head.request, ok=head.ok)
                elif line.strip():
                    if not _torn(line, among_ours=bool(self._keys)):
                        what = f"line {number:,} is no result of a batch"
                        raise ResultFileError(errno.EINVAL, what, str(self.path))
                    self.torn += 1
                if whole or head is not None:
                    self._end += len(line)
        if self._end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self._end)
        elif not whole:  # all but the newline had been written
            self._write(b"\n")

    def _write(self, line: bytes) -> None:
        """Write all of it, or leave the file as it was."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(line)


def read_results(path: str | os.PathLike[str]) -> Iterator[ResultLine]:
    """The lines of a file of results, in its order; torn ones are passed over.

    Can be used while another process writes to it. Raises `OSError` where it can't be read.
    """
    with Path(path).open("rb") as file:
        for line in _lines(file):
            try:
                yield _line_of(line)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                continue


def _name(key: str, sample: int) -> str:
    """What a line is found by. (No key of a file has a NUL.)"""
    return f"{key}\0{sample}" if sample else key


def _head(line: bytes) -> _Head | None:
    """What a line says, unless it is torn or of something else."""
    try:
        return _head_of(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _torn(line: bytes, *, among_ours: bool) -> bool:
    """Whether a line that can't be read may have been one of ours: no JSON, and of our beginning
    (or mangled among others of ours).
    """
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        msgspec.json.decode(line)
        return False
    return among_ours or line[: len(MARKER)] == MARKER[: len(line)]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ResultFileError(errno.EFBIG, f"a line is longer than {MAX_LINE:,} bytes")
        yield line


def _open_locked(path: Path) -> int:
    """The file, made if it is missing, for this process alone."""
    while True:
        fd = os.open(path, _FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ResultFileError(errno.EINVAL, "not a regular file", str(path))
            if fcntl is None:
                return fd
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what = "another process writes its results to it"
                raise ResultFileError(errno.EAGAIN, what, str(path)) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # `forget` of another process has put a new file in its place


def _beside(path: Path) -> Path:
    """Where a file is written anew. Only who holds its lock uses this."""
    return path.with_name(f".{path.name}.trio-minillm.tmp")


def _sync_folder(path: Path) -> None:
    """See that a file's new name survives a crash, where a folder can be synced."""
    with suppress(OSError):
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
