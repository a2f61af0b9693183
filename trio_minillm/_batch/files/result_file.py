"""The results of a batch in a file of JSON lines, from which a run that was killed goes on.

A line has the shape of the output of OpenAI's Batch API, with the outcome, usage, cost, timings and
every attempt beside it. A line is whole if it is a JSON object: no beginning of an object is one, so
a torn line can't be taken for a whole one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
import trio
from msgspec.structs import replace

from ..._types.checks import check_count
from ...providers import Model
from ..types import BatchRequest, BatchResult
from .append_file import AppendFile, Fsync, ResultFileError, read_lines
from .key_table import KeyTable
from .result_format import MARKER, ResultLine, fingerprint, result_line
from .unpacked import DamagedError, opened

YIELD_EVERY = 16
"""Lines that are written before other tasks get a turn; they take 0.5 ms."""

State = Literal["missing", "finished", "failed", "changed", "outdated"]
"""State of a request in the file: no line; an answer; an error; the answer to another request of this
key, or its error."""


class _Head(msgspec.Struct):
    """The fields of a line that are needed to go on."""

    custom_id: str
    ok: bool
    request: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    sample: int = 0


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_line = msgspec.json.Decoder(ResultLine).decode


class ResultFile:
    """A file with the results of a batch, one line each, which knows which requests have one.

    ``path`` is created with mode 0600. ``fsync`` says how much can be lost if the *machine* dies:

    - ``"never"``: everything that the system had not written yet, about 30 seconds.
    - ``"interval"``, the default: the last second.
    - ``"always"``: nothing, because `append` returns only once the disk has the line.

    Unless it is ``"never"``, all lines are on the disk when the block ends.

    Guarantees: a result survives the death of the process once `append` has returned. A line is
    either complete or recognised as torn, and a torn end is removed when the file is opened. No
    sample of a key has two lines. Only one process writes at a time.

    Raises `ResultFileError` (an ``OSError``) if another process writes to the file or if it
    contains something else, and ``OSError`` if it can't be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: Fsync = "interval") -> None:
        self.path: Path = Path(path).absolute()
        self.torn: int = 0
        """Lines that could not be read: at the end (they are cut off) or in between."""
        self._appended = 0
        self._file = AppendFile(self.path, fsync)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def finished(self) -> int:
        """The number of lines with a complete answer."""
        return self._finished

    @property
    def failed(self) -> int:
        """The number of lines with an error."""
        return len(self._keys) - self._finished

    def state(self, request: BatchRequest, *, model: Model | None = None) -> State:
        """Return the state of a request in the file. ``model`` is for a request that names none."""
        return self.states(request, 1, model=model)[0]

    def states(
        self, request: BatchRequest, samples: int, *, model: Model | None = None
    ) -> list[State]:
        """Return the states of the first ``samples`` samples of a request, in order."""
        found = [self._keys.get(_name(request.key, sample)) for sample in range(samples)]
        mark = None
        if any(known is not None for known in found):
            mark = _mark(request, model)
        return [_state(known, mark) for known in found]

    def has_other_answers(self, request: BatchRequest, *, model: Model | None = None) -> bool:
        """Return True if any sample of this key from number 1 on is an answer to another request.

        ``model`` is for a request that names none.
        """
        known = self._further.get(request.key) if len(self._further) else None
        return known is not None and known != _mark(request, model) << 1

    def unanswered(
        self, requests: Iterable[BatchRequest], *, model: Model | None = None, samples: int = 1
    ) -> Iterator[BatchRequest]:
        """Yield the requests that have no line yet, neither an answer nor an error.

        ``model`` is for requests that name none. With several ``samples``, each request is yielded
        with its missing samples as ``samples``, so that a batch asks only for these.

        Raises ``ValueError`` at a request whose key has a line of another request, which differs in
        messages, parameters, or model. Beyond these samples, only answers count.
        """
        check_count("samples", samples)
        for request in requests:
            states = self.states(request, samples, model=model)
            others = self.has_other_answers(request, model=model)
            if others or "changed" in states or "outdated" in states:
                raise ValueError(
                    f"{request.key!r} belonged to another request when it was answered"
                )
            missing = tuple(number for number, state in enumerate(states) if state == "missing")
            if missing:
                yield request if samples == 1 else replace(request, samples=missing)

    def forget(self, wanted: Callable[[str, bool], bool], *, samples: int | None = None) -> int:
        """Remove the lines for which ``wanted(key, ok)`` is true, and return their number.

        With ``samples``, only lines of the first samples of each request are removed. The new file
        replaces the old one in one step, so that a kill at any time leaves the old or the new one.
        """
        gone = 0

        def rest(lines: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal gone
            for line in lines:
                head = _head(line)
                beyond = samples is not None and head is not None and head.sample >= samples
                if head is not None and not beyond and wanted(head.custom_id, head.ok):
                    gone += 1
                else:
                    yield line

        self._file.replace(rest)
        self._read()
        return gone

    async def append(self, result: BatchResult) -> None:
        """Write the line of a result.

        Cancellation takes effect before or after the line, but not in between. Other tasks get to
        run only at every `YIELD_EVERY`-th line, so that results do not pile up in memory, where a
        kill would lose them.

        Raises ``ValueError`` for a key that already has a line, and ``OSError`` if the line can't
        be written completely (nothing of it remains), or if the disk failed earlier.
        """
        if self._appended % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        self._file.check()
        name = _name(result.key, result.sample)
        if name in self._keys:
            raise ValueError(f"{result.key!r} already has a line")
        request = fingerprint(result.request)
        self._file.write(result_line(result, request))
        self._note(result.key, result.sample, request, ok=result.ok)
        self._appended += 1
        await self._file.sync()

    def close(self) -> None:
        """Close the file, so that other processes can write to it. You may call this again.

        Raises ``OSError`` if the disk could not store what was written.
        """
        self._file.close()

    def _note(self, key: str, sample: int, request: str, *, ok: bool) -> None:
        """Remember a line: its request's hash, with ``ok`` in place of the last bit."""
        self._finished += ok
        mark = int(request, 16) >> 1 << 1
        self._keys.put(_name(key, sample), mark | ok)
        if sample and ok and self._further.add(key, mark) != mark:
            self._further.put(key, mark | 1)

    def _read(self) -> None:
        """Read which lines the file has, and make it end with a whole one."""
        self._keys, self._finished, self.torn = KeyTable(), 0, 0
        # The hash of the request that a key's answers from sample 1 on are to; its last bit is 1 if
        # they are to several requests.
        self._further = KeyTable()
        head: _Head | None = None
        end, whole = 0, True
        for number, line in enumerate(self._file.read(), 1):
            whole = line.endswith(b"\n")
            head = _head(line)
            if head is not None:
                self._note(head.custom_id, head.sample, head.request, ok=head.ok)
            elif line.strip():
                if not _torn(line, among_ours=bool(self._keys)):
                    what = f"line {number:,} is not a result of a batch"
                    raise ResultFileError(errno.EINVAL, what, str(self.path))
                self.torn += 1
            if whole or head is not None:
                end += len(line)
        self._file.cut(end)
        if head is not None and not whole:  # all but the newline had been written
            self._file.write(b"\n")


def read_results(path: str | os.PathLike[str]) -> Iterator[ResultLine]:
    """Yield the lines of a results file in order, without torn ones.

    Another process may be writing to the file. It may be compressed with gzip or zstd; zstd needs
    the extra ``zstd``, and raises ``ImportError`` without it. Raises ``OSError`` if the file can't
    be read.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            for line in read_lines(file):
                try:
                    yield _decode_line(line)
                except (msgspec.MsgspecError, UnicodeError, RecursionError):
                    continue
    except DamagedError as exc:
        raise OSError(errno.EINVAL, str(exc), str(path)) from exc


def _name(key: str, sample: int) -> str:
    """Return the name of a line in the table of keys, which is that of no other line."""
    return f"\0{sample}\0{key}" if sample or key.startswith("\0") else key


def _mark(request: BatchRequest, model: Model | None) -> int:
    """Return what the table keeps of a request's hash."""
    if request.model is None:
        request = replace(request, model=model)
    return int(fingerprint(request), 16) >> 1


def _state(known: int | None, mark: int | None) -> State:
    """Return the state of a line from its entry in the table; ``mark`` is its request's hash now."""
    if known is None:
        return "missing"
    if known >> 1 != mark:
        return "changed" if known & 1 else "outdated"
    return "finished" if known & 1 else "failed"


def _head(line: bytes) -> _Head | None:
    """Return the fields of a line that are needed, ``None`` if it is torn or of another kind."""
    try:
        return _decode_head(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _torn(line: bytes, *, among_ours: bool) -> bool:
    """Return True if a line that can't be read may have been a result: it is no JSON, and begins like
    one (or stands among results, and was mangled).
    """
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        msgspec.json.decode(line)
        return False
    return among_ours or line[: len(MARKER)] == MARKER[: len(line)]
