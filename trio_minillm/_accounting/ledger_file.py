"""The ledger in a file of JSON lines, which outlives the process."""

from __future__ import annotations

import errno
import io
import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec.structs import asdict, replace

from .._types.money import payable
from .ledger import Ledger
from .record import CostRecord, countable, detached
from .totals import JSON_ERRORS

MAX_LINE = 1 << 20
"""Bytes of a line of the file, its end included; a longer one counts as torn."""
MAX_META = MAX_LINE - (1 << 16)
"""Bytes of a meta as JSON. The 64 KiB that it leaves for the rest of the line are far more than
that has: `_line_of` cuts each text to 1,000 characters if it must."""
MAX_PENDING = 64 << 20
"""Bytes of lines that wait for a file that can't be written: some 100,000 of them. Beyond, the
oldest are lost."""

_log = logging.getLogger("trio_minillm")

_MARKER = b'{"v":1,"key":"'
"""Beginning of every line. No line has it a second time (`_unmarked`), so a record is found
behind the torn line of another process."""
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_decode = msgspec.json.Decoder(CostRecord).decode


class JSONLLedger(Ledger):
    """A ledger in an append-only file, with a line of JSON for each attempt.

    It continues where the file ended. If the final cost of an attempt is looked up, a second line
    with the same key replaces the first. ``path`` is created with mode 0600, and its folder must
    exist. With ``read_only=True``, the file must exist, and nothing can be recorded.

    Guarantees:

    - A recorded attempt survives the death of the process. It may not survive the death of the
      machine, because there is no fsync.
    - Several processes can append at the same time. Each knows the lines that the others had
      written when it opened the file.
    - Reading never fails because of the file's content.
    - `record` does not raise if writing fails, and the sums still include the attempt.

    Raises ``OSError`` if the file can't be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        super().__init__()
        self.path: Path = Path(path).absolute()  # a program may change its directory
        self._read_only = read_only
        self._torn = self._newer = self._lost = self._pending_bytes = 0
        self._pending: deque[bytes] = deque()
        self._failing = False
        self._open_file()

    @property
    def torn(self) -> int:
        """The number of lines that could not be read completely when this ledger was opened."""
        return self._torn

    @property
    def newer(self) -> int:
        """The number of lines in a newer version of this format, which were skipped."""
        return self._newer

    @property
    def pending(self) -> int:
        """The number of lines that wait until the file is writable again."""
        return len(self._pending)

    @property
    def lost(self) -> int:
        """The number of lines that were given up because more than 64 MiB waited. The sums include
        them.
        """
        return self._lost

    def check(self, meta: object) -> None:
        """Raise an error if this ledger can't store ``meta``.

        Raises ``TypeError`` if it can't be written as JSON, and ``ValueError`` if that is longer
        than `MAX_META`; neither shows it. Raises ``io.UnsupportedOperation`` if this ledger is
        read-only.
        """
        self._check_writable()
        try:
            text = _unmarked(msgspec.json.encode(meta))
            # A hundred levels deeper: msgspec counts the program's own stack in its limit, and the
            # file must be readable from deeper in a program, too.
            msgspec.json.decode(b"[" * 100 + text + b"]" * 100)
        except JSON_ERRORS:
            raise TypeError("meta must be JSON for this ledger") from None
        if len(text) > MAX_META:
            raise ValueError(f"meta is more than {MAX_META:,} bytes of JSON")

    def record(self, record: CostRecord) -> bool:
        """Record an attempt and append its line. Returns False, and writes nothing, if it was
        recorded before.

        A line that can't be written waits for the next one (see `pending`). A ``meta`` that `check`
        rejects is left out.
        """
        self._check_writable()
        record, line = _line_of(detached(record))
        if not self._count(record, len(line)):
            return False
        self._pending.append(line)
        self._pending_bytes += len(line)
        while self._pending_bytes > MAX_PENDING:
            self._pending_bytes -= len(self._pending.popleft())
            self._lost += 1
        try:
            self.flush()
        except OSError as error:
            if not self._failing:
                why = error.strerror or type(error).__name__
                _log.warning("the ledger %s can't be written (%s): its lines wait", self.path, why)
            self._failing = True
        return True

    def flush(self) -> None:
        """Write the waiting lines, oldest first. Raises ``OSError`` if that fails; they then keep
        waiting.
        """
        if not self._pending:
            return
        # Opened for each record: nothing to close, nothing that a log rotation can mislead. A
        # record takes 14 µs, of which the file has 5 and this open and close 1 (ext4, 2 cores).
        fd = os.open(self.path, _FLAGS, 0o600)
        try:
            while self._pending:
                _append(fd, self._pending[0])
                self._pending_bytes -= len(self._pending.popleft())
        except OSError as exc:
            exc.filename = str(self.path)
            raise
        finally:
            os.close(fd)
        self._failing = False

    def records(self) -> Iterator[CostRecord]:
        """Yield every readable record of the file in order, with both records of an attempt that
        has two.
        """
        with self.path.open("rb") as file:
            for line in _lines(file):
                yield from _parse(line)[0]

    def _open_file(self) -> None:
        """Create the file if it is missing, and count its records."""
        path = self.path
        if path.exists() and not path.is_file():
            code = errno.EISDIR if path.is_dir() else errno.EINVAL
            raise OSError(code, "the ledger must be a regular file", str(path))
        if not self._read_only:
            if not path.parent.is_dir():
                missing = "the ledger's folder does not exist"
                raise FileNotFoundError(errno.ENOENT, missing, str(path.parent))
            os.close(os.open(path, _FLAGS, 0o600))
        with path.open("rb") as file:
            for line in _lines(file):
                records, torn, newer = _parse(line)
                self._torn += torn
                self._newer += newer
                for record in records:
                    self._count(record, len(line))

    def _check_writable(self) -> None:
        if self._read_only:
            raise io.UnsupportedOperation("this ledger is read-only")


def _unmarked(text: bytes) -> bytes:
    """Return JSON as one line without `_MARKER`, which a meta may have.

    Inside a string, a newline and the marker's quotes are escaped, so the only thing that changes
    is space between tokens.
    """
    return text.replace(b"\n", b" ").replace(_MARKER, b"{ " + _MARKER[1:])


def _line_of(record: CostRecord) -> tuple[CostRecord, bytes]:
    """Return a record's line, and the record as it will be read back from it."""
    try:
        line = b'{"v":1,' + _unmarked(msgspec.json.encode(record))[1:] + b"\n"
        if len(line) <= MAX_LINE:
            return record, line
    except JSON_ERRORS:
        pass
    # `check` was not asked, or a provider's text is absurd. The attempt must not be lost for it.
    texts = {k: text for k, text in asdict(record).items() if type(text) is str}
    short = {k: text[:1000].encode(errors="replace").decode() for k, text in texts.items()}
    record = replace(record, **{**short, "meta": None})
    return record, b'{"v":1,' + msgspec.json.encode(record)[1:] + b"\n"


def _append(fd: int, line: bytes) -> None:
    """Write a line, whole and on a line of its own, even if other processes append as well."""
    end = os.lseek(fd, 0, os.SEEK_END)
    if end:
        os.lseek(fd, end - 1, os.SEEK_SET)
        if os.read(fd, 1) != b"\n":  # the torn line of a process that was killed
            line = b"\n" + line
    rest, end = line, -1
    while rest:
        written = os.write(fd, rest)
        if written == len(line):
            return
        # A short write (mostly a full disk). If another process appended before the rest could
        # follow, the line is in two pieces: write it once more, whole.
        before, end = end, os.lseek(fd, 0, os.SEEK_CUR)
        if before in (-1, end - written):
            rest = rest[written:]
        else:
            rest = line = b"\n" + line.lstrip(b"\n")
            end = -1


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield each line without its newline.

    Of a line that is longer than `MAX_LINE` this is only the last part, where a record may be.
    """
    line = b""
    while part := file.readline(MAX_LINE):
        line = part if not line else (line + part)[-2 * MAX_LINE :]
        if line.endswith(b"\n"):
            yield line[:-1]
            line = b""
    if line:
        yield line


def _parse(line: bytes) -> tuple[list[CostRecord], int, int]:
    """Return the records of a line, and the number of torn and of newer lines that it counts as.

    A record may stand behind another one that was torn, or that lacks only its newline.
    """
    if not line or line.isspace():  # two writers ended the same torn line
        return [], 0, 0
    if len(line) < MAX_LINE:
        record = _record(line) if line.startswith(_MARKER) else None
        if record is not None:
            return [record], 0, 0
        try:
            whole = msgspec.json.decode(line)
        except JSON_ERRORS:
            pass
        else:
            version = whole.get("v") if isinstance(whole, dict) else None
            newer = isinstance(version, int) and version > 1
            record = _record(line) if version == 1 else None
            return [record] if record else [], not newer and record is None, newer
    junk, *pieces = line.split(_MARKER)
    found = [_record(_MARKER + piece) for piece in pieces]
    records = [record for record in found if record is not None]
    return records, bool(junk) or len(records) < len(found), 0


def _record(line: bytes) -> CostRecord | None:
    """Return the record of a line, unless it is torn or no attempt can have had it."""
    try:
        record = _decode(line) if len(line) < MAX_LINE else None
    except JSON_ERRORS:
        record = None
    if record is None:
        return None
    return record if payable(record.amount) and countable(record.usage) else None
