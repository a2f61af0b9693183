"""The record of each request as the server did it, and the file of them."""

from __future__ import annotations

import os
from array import array
from collections import deque
from io import FileIO
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .options import Wire

Ending: TypeAlias = Literal["whole", "fault", "left", "slow", "refused", "stopped"]
"""The ways in which a request ends: ``whole``; by a ``fault`` that was asked for; the client ``left``, or was so ``slow``
that the server gave it up; ``refused``, for the request was none that is served; or the server
``stopped``."""

MAX_RECORDS: Final = 10_000
"""Records that are kept in memory; of older ones the file alone has any."""
MAX_STAMPS: Final = 2_000_000
"""Contents of kept records, of which each has a time and a count of tokens: 16 bytes."""


class ServedRecord(msgspec.Struct, kw_only=True):
    """One request, as the server really saw and did it.

    Times are seconds of the machine's monotonic clock (CLOCK_MONOTONIC, as ``time.monotonic()``), which all
    processes share.
    """

    id: str
    """The answer's id, without the prefix of its wire format; the header ``x-request-id`` has it, too."""
    number: int
    """Number of the request since the server began or was reset, from 0."""
    wire: Wire | Literal[""]
    """The wire format, or an empty text if the path has none."""
    path: str
    """The path of the request."""
    model: str = ""
    """The model that it names."""
    stream: bool = False
    """True if the answer is streamed."""
    received: float
    """Time at which its last byte had been read."""
    received_unix: float
    """The same as Unix time."""
    started: float | None = None
    """Time at which its turn came; None if it never did."""
    queued: float = 0.0
    """Seconds that it waited for its turn."""
    first_content: float | None = None
    """Time at which the first content was sent."""
    sent: array[float] = msgspec.field(default_factory=lambda: array("d"))
    """Times at which contents were sent."""
    tokens: array[int] = msgspec.field(default_factory=lambda: array("l"))
    """Tokens of each content; -1 where they are not known, as of a recording."""
    max_late: float = 0.0
    """Seconds by which the latest send came after its due time."""
    backlogged: int = 0
    """Sends that had to wait because the client had not read what was sent before."""
    prompt_tokens: int = 0
    """Tokens of the prompt, as the usage says."""
    completion_tokens: int = 0
    """Tokens of the whole answer, as the usage says; it may have been cut before."""
    reasoning_tokens: int = 0
    """Those of them that are reasoning."""
    status: int = 200
    """The HTTP status."""
    faults: list[str] = []
    """The faults that struck it, by name."""
    ended: Ending = "whole"
    """The way in which it ended."""
    ended_at: float | None = None
    """Time at which it ended; None while it runs."""

    def line(self) -> bytes:
        """Return the record as a line of JSON."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        fields |= {"sent": self.sent.tolist(), "tokens": self.tokens.tolist()}
        return msgspec.json.encode(fields) + b"\n"


class Records:
    """The newest records, and the file that gets all of them."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Raise ``OSError`` if the file can't be opened; it is appended to."""
        self.kept: deque[ServedRecord] = deque()
        self.failed: OSError | None = None
        """The error for which nothing more is written."""
        self._stamps = 0
        self._file: FileIO | None = None
        if path is not None:
            self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - `close` closes it

    def add(self, record: ServedRecord, *, keep: bool) -> None:
        """Write the record of what has ended, and keep it."""
        if keep:
            self.kept.append(record)
            self._stamps += len(record.sent)
        while len(self.kept) > MAX_RECORDS or (self._stamps > MAX_STAMPS and len(self.kept) > 1):
            self._stamps -= len(self.kept.popleft().sent)
        if self._file is None or self.failed is not None:
            return
        line = record.line()
        try:
            while line:  # the disk may take a part, and says why not the rest
                line = line[self._file.write(line) :]
        except OSError as exc:  # a full disk, say: the streams go on
            self.failed = exc

    def clear(self) -> None:
        """Forget the kept records. The file keeps its own."""
        self.kept.clear()
        self._stamps = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
