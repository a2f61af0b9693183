"""A file of lines that one process at a time appends to, and of which a kill tears only the last.

Lines are bytes with a newline at their end; their content is not looked at here.
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

from .locks import HAS_LOCKS, lock_whole, warn_unlocked

FSYNC_SECONDS = 1.0
"""Seconds between two writes to the disk with ``fsync="interval"``: so much a crash of the machine can
lose."""
MAX_LINE = 256 << 20
"""Bytes of the longest line; no line of this library is longer."""

Fsync = Literal["never", "interval", "always"]
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class ResultFileError(OSError):
    """The file can't store results, because another process writes to it or it contains something
    else.
    """


class AppendFile:
    """An open file that is locked for this process, where the file system has locks.

    Guarantees: `write` writes a line whole or not at all, unless the process dies meanwhile;
    `replace` leaves the old file or the new one, whenever the process is killed. ``fsync`` says
    how much the death of the machine can take (see `ResultFile`).
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
        self._fd, unlocked = _open_locked(path)
        if unlocked is not None:
            danger = "nothing keeps a second process from writing to it at the same time"
            warn_unlocked(path, unlocked, danger)
        with suppress(FileNotFoundError):
            beside(path).unlink()  # of a process that was killed in `replace`

    def read(self) -> Iterator[bytes]:
        """Yield all lines; the last may lack its newline."""
        with self.path.open("rb") as file:
            yield from read_lines(file)

    def cut(self, end: int) -> None:
        """Keep so many bytes, and append behind them."""
        if end < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, end)
        self._end = end

    def write(self, line: bytes) -> None:
        """Append a line whole, or leave the file as it was and raise."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BaseException as exc:
            os.ftruncate(self._fd, self._end)
            if isinstance(exc, OSError):
                exc.filename = str(self.path)
            raise
        self._end += len(line)
        self._written += 1

    def check(self) -> None:
        """Raise the `OSError` of an earlier write to the disk that nobody waited for."""
        if self._sync_failed is not None:
            raise self._sync_failed

    async def sync(self) -> None:
        """Bring what was written to the disk, as soon as ``fsync`` asks for."""
        if self._fsync == "always":
            await self._sync(self._written)
        elif self._fsync == "interval":
            self._sync_in_thread()

    def replace(self, lines: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        """Put a new file in the place of this one, with the lines that ``lines`` yields when it is
        given the present ones, and append to that.
        """
        fresh = beside(self.path)
        fd, _ = _open_locked(fresh)
        try:
            os.ftruncate(fd, 0)
            with open(fd, "wb", closefd=False) as new:
                new.writelines(lines(self.read()))
            os.fsync(fd)
            if not HAS_LOCKS:  # Windows, where an open file can't be replaced
                os.close(fd)
                self.close()
                fresh.replace(self.path)
                fd, _ = _open_locked(self.path)
            else:
                fresh.replace(self.path)
                self.close()
        except BaseException:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        self._fd = fd
        sync_folder(self.path)

    def close(self) -> None:
        """Close the file, so that other processes can write to it. May be called again.

        Raises `OSError` if the disk could not take what was written.
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
        """Wait until so many lines are on the disk; one call serves all tasks that wait."""
        with trio.CancelScope(shield=True):
            async with self._syncing:
                if self._synced < number:
                    written = self._written
                    await trio.to_thread.run_sync(os.fsync, self._fd)
                    self._synced = written

    def _sync_in_thread(self) -> None:
        """Start a write to the disk in a thread, once a second at most.

        Only `close` waits for it: results that waited for the disk would be lost by a kill.
        """
        now = trio.current_time()
        if now < self._sync_due or not self._idle.is_set():
            return
        self._sync_due = now + FSYNC_SECONDS
        self._synced = self._written
        self._idle.clear()
        trio.lowlevel.start_thread_soon(partial(os.fsync, self._fd), self._thread_ended)

    def _thread_ended(self, ended: Outcome[None]) -> None:
        if isinstance(ended, Error) and isinstance(ended.error, OSError):
            self._sync_failed = ended.error
        self._idle.set()


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file. Raises `ResultFileError` for one that is longer than `MAX_LINE`."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ResultFileError(errno.EFBIG, f"a line is longer than {MAX_LINE:,} bytes")
        yield line


def _open_locked(path: Path) -> tuple[int, OSError | None]:
    """Open and lock a file, which is made if it is missing. The second value is the reason if its
    file system has no locks.
    """
    while True:
        fd = os.open(path, _FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ResultFileError(errno.EINVAL, "not a regular file", str(path))
            try:
                unlocked = lock_whole(fd)
            except BlockingIOError:
                what = "it is already open for results, in this process or another"
                raise ResultFileError(errno.EAGAIN, what, str(path)) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd, unlocked
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # another process has put a new file in its place meanwhile


def beside(path: Path) -> Path:
    """Return the path at which a new file is written before it takes the place of ``path``."""
    return path.with_name(f".{path.name}.trio-minillm.tmp")


def sync_folder(path: Path) -> None:
    """Make a file's new name survive a crash, where the system can sync a folder."""
    with suppress(OSError):
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
