"""The copy of stdin that ``batch`` reads twice."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import trio

from ._output import Misuse
from ._terminal import say

PIECE = 1 << 20
"""Bytes of stdin that are copied at a time."""


@asynccontextmanager
async def copy_of_stdin(progress: Callable[[int], None]) -> AsyncIterator[Path]:
    """Copy all of stdin to a temporary file, and provide a path to it within the block.

    The file is its owner's alone (mode 0600). On Linux its name is removed before anything is in it,
    so that a kill leaves nothing; elsewhere it is removed at the end. ``progress`` is told how many
    bytes there are. Raises `Misuse` if stdin can't be read, or the disk is full.
    """
    if sys.stdin is None:
        raise Misuse("stdin is closed")
    with ExitStack() as stack:
        try:
            fd, path = stack.enter_context(_temporary())
            if sys.stdin.isatty():
                say("Type the requests; end them with Ctrl-D on a line of its own.\n")
            # Its own descriptor: the thread may be left behind, and must not write to another file.
            await trio.to_thread.run_sync(_copy, os.dup(fd), progress, abandon_on_cancel=True)
        except OSError as exc:
            folder = tempfile.gettempdir()
            raise Misuse(f"can't copy stdin to {folder}: {exc.strerror or exc}") from exc
        yield path


@contextmanager
def _temporary() -> Iterator[tuple[int, Path]]:
    """Provide a new file's descriptor and a path at which it can be opened again."""
    fd, name = tempfile.mkstemp(prefix="trio-minillm-")
    named, path = Path(name), Path(f"/proc/self/fd/{fd}")
    try:
        if path.is_file():
            named.unlink()
        else:
            path = named
        yield fd, path
    finally:
        os.close(fd)
        if path is named:
            named.unlink()


def _copy(fd: int, progress: Callable[[int], None]) -> None:
    with os.fdopen(fd, "wb", buffering=0) as file:
        count = 0
        # Not through `sys.stdin`: at the end of the process, a thread that waits in one is a crash.
        while piece := os.read(0, PIECE):
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
            count += len(piece)
            progress(count)
