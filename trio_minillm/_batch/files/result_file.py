"""The results of a batch in a file of JSON lines, with which a run that was killed goes on.

A line has the shape of the output of OpenAI's Batch API, and more beside it: the outcome, usage,
cost, timings, every attempt. A line is whole if it ends with a newline and is a JSON object: no
beginning of an object is one, so that a torn line can't be taken for a whole one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
import trio
from msgspec.structs import replace

from ...providers import Model
from ..types import BatchRequest, BatchResult
from .append_file import Fsync, LineFile, ResultFileError, lines_of
from .key_table import KeyTable
from .result_format import MARKER, ResultLine, fingerprint, line_of

YIELD_EVERY = 16
"""Lines that are written before other tasks get a turn: 0.5 ms."""

State = Literal["missing", "finished", "failed", "changed"]
"""What the file has of a request: no line; an answer; an error; a line of another request."""


class _Head(msgspec.Struct):
    """What must be known of each line to go on."""

    custom_id: str
    ok: bool
    request: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    sample: int = 0


_head_of = msgspec.json.Decoder(_Head).decode
_line_of = msgspec.json.Decoder(ResultLine).decode


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
        self.path: Path = Path(path).absolute()
        self.torn: int = 0
        """Lines that could not be read: at the end (they are cut off) or in between."""
        self._appended = 0
        self._lines = LineFile(self.path, fsync)
        try:
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
        gone = 0

        def rest(lines: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal gone
            for line in lines:
                head = _head(line)
                if head is not None and wanted(head.custom_id, head.ok):
                    gone += 1
                else:
                    yield line

        self._lines.replace(rest)
        self._read()
        return gone

    async def append(self, result: BatchResult) -> None:
        """Write a result's line. Cancellation comes before it or after it, never between; other
        tasks get a turn at every `YIELD_EVERY`-th line, so that results don't pile up (a kill
        loses those).

        Raises ``ValueError`` for a key that has a line already, and `OSError` where the line
        can't be written whole (nothing of it is left then), or the disk failed before.
        """
        if self._appended % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        self._lines.check()
        name = _name(result.key, result.sample)
        if name in self._keys:
            raise ValueError(f"{result.key!r} has a line already")
        mark = fingerprint(result.request)
        self._lines.write(line_of(result, mark))
        self._know(name, mark, ok=result.ok)
        self._appended += 1
        await self._lines.sync()

    def close(self) -> None:
        """Give the file up; other processes can write to it then. Harmless the second time.

        Raises `OSError` where the disk could not take what was written.
        """
        self._lines.close()

    def _know(self, name: str, mark: str, *, ok: bool) -> None:
        self._finished += ok
        self._keys.put(name, int(mark, 16) >> 1 << 1 | ok)

    def _read(self) -> None:
        """Learn what the file has, and see that it ends with a whole line."""
        self._keys, self._finished, self.torn = KeyTable(), 0, 0
        head: _Head | None = None
        end, whole = 0, True
        for number, line in enumerate(self._lines.read(), 1):
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
                end += len(line)
        self._lines.cut(end)
        if head is not None and not whole:  # all but the newline had been written
            self._lines.write(b"\n")


def read_results(path: str | os.PathLike[str]) -> Iterator[ResultLine]:
    """The lines of a file of results, in its order; torn ones are passed over.

    Can be used while another process writes to it. Raises `OSError` where it can't be read.
    """
    with Path(path).open("rb") as file:
        for line in lines_of(file):
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
