"""A file of lines that one process at a time appends to, so that a kill tears none but the last.

Lines are bytes with a newline at their end; what they say is for others to know.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import trio
from outcome import Error, Outcome

try:
    import fcntl
except ImportError:  # Windows: there two writers are not told apart
    fcntl = None  # type: ignore[assignment]

FSYNC_SECONDS = 1.0
"""With ``fsync="interval"``: what a crash of the machine can lose."""
MAX_LINE = 256 << 20
"""Bytes of a line; what is longer is none of ours."""

Fsync = Literal["never", "interval", "always"]
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class ResultFileError(OSError):
    """The file can't take results: another process writes to it, or it is no file of results."""


class LineFile:
    """The file, locked for this process.

    Guarantees: a line that `append` was given is written whole or not at all, unless the process
    dies meanwhile; `replace` leaves the old file or the new one, whenever it is killed. What the
    death of the machine can take is as ``fsync`` says (see `ResultFile`).
    """

    def __init__(self, path: Path, fsync: Fsync) -> None:
        if fsync not in ("never", "interval", "always"):
            raise ValueError("fsync must be 'never', 'interval' or 'always'")
        self.path = path
        self._fsync: Fsync = fsync
        self._end = 0
        self._written = self._synced = 0
        self._sync_due = 0.0
        self._syncing = trio.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._sync_failed: OSError | None = None
        self._fd = _open_locked(path)
        with suppress(FileNotFoundError):
            _beside(path).unlink()  # of a process that was killed in `replace`

    def read(self) -> Iterator[bytes]:
        """All lines; the last may lack its newline."""
        with self.path.open("rb") as file:
            yield from lines_of(file)

    def cut(self, end: int) -> None:
        """Keep so many bytes, and go on behind them."""
        if end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end)
        self._end = end

    def write(self, line: bytes) -> None:
        """Write all of it, or leave the file as it was."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(line)
        self._written += 1

    def check(self) -> None:
        """Raise the `OSError` with which the disk has failed behind."""
        if self._sync_failed is not None:
            raise self._sync_failed

    async def sync(self) -> None:
        """See to it that what was written gets to the disk, as soon as ``fsync`` says."""
        if self._fsync == "always":
            await self._sync(self._written)
        elif self._fsync == "interval":
            self._sync_behind()

    def replace(self, lines: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        """Write the file anew, with what ``lines`` makes of its lines, and go on with that."""
        fresh = _beside(self.path)
        fd = _open_locked(fresh)
        try:
            os.ftruncate(fd, 0)
            with open(fd, "wb", closefd=False) as new:
                new.writelines(lines(self.read()))
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

    def close(self) -> None:
        """Give the file up; other processes can write to it then. Harmless the second time.

        Raises `OSError` where the disk could not take what was written.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._idle.wait()  # for one fsync at most
        try:
            self.check()
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


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Its lines. `ResultFileError` for one that is too long to be one."""
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
