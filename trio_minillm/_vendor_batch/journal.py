"""The journal of a run: which requests went into which part, and what became of each part.

Lines of JSON, each on the disk before the next step is taken:

========================  ==============================================================================
``intent``                before a part is submitted: its token, its requests, the address
``batch``                 the vendor's id of it, as soon as that is known
``absent``                it was never submitted, or the vendor refused it: nothing is paid for it
``ended``                 its results were read; ``open`` are the places of requests without an answer
``released``              samples that may be sent again although they have an end
========================  ==============================================================================

A request whose newest part may hold an answer is never submitted again: the part is read again instead.
So a kill between any two lines pays for nothing twice.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import msgspec

from .._batch.files.append_file import AppendFile, ResultFileError, sync_folder

Item = tuple[str, int, str]
"""A request of a part: its key, the number of its sample, and the hash of what is asked."""
Sample = tuple[str, int]
"""A key, and the number of a sample."""
Known = Literal["submitting", "running", "absent", "ended"]


class Part(msgspec.Struct, kw_only=True):
    """A part of a run: the requests of one batch."""

    token: str
    at: float
    """Time of the intent, in seconds since 1970."""
    vendor: str
    url: str
    """The address of the vendor's batches."""
    model: str
    account: str
    """A hash of the token and the key with which it was submitted."""
    items: list[Item]
    state: Known = "submitting"
    batch: str | None = None
    """The vendor's id of it, once it is known."""
    open: frozenset[int] = frozenset()
    """Places of the requests that have no answer, once it has ended."""

    @property
    def under_way(self) -> bool:
        """True if it is at its vendor and not known to be over, or may be."""
        return self.state in ("submitting", "running")

    def id_of(self, place: int) -> str:
        """Return the id of a request in the vendor's batch."""
        return f"{self.token}-{place}"

    def place_of(self, id: str) -> int | None:
        """Return the place of the request with this id; ``None`` if it is of no request here."""
        token, _, number = id.rpartition("-")
        if token != self.token or not number.isdecimal() or len(number) > 9:
            return None
        place = int(number)
        return place if place < len(self.items) and id == self.id_of(place) else None


class _Entry(msgspec.Struct, omit_defaults=True):
    kind: str
    token: str = ""
    at: float = 0.0
    vendor: str = ""
    url: str = ""
    model: str = ""
    account: str = ""
    items: list[Item] = []
    batch: str = ""
    open: list[int] = []
    samples: list[Sample] = []


MARKER = b'{"kind":"'
"""The beginning of each line."""
_decode = msgspec.json.Decoder(_Entry).decode


class Journal:
    """The file that records a run's parts. One process at a time writes to it.

    Guarantees: what a method has written survives the death of the process, and once you have
    awaited it, also the death of the machine. A torn last line is removed, because what it recorded
    had not started.

    Raises `ResultFileError` for a file that is in use or contains something else, and ``OSError``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path).absolute()
        self.parts: dict[str, Part] = {}
        self._newest: dict[Sample, tuple[str, int]] = {}
        new = not self.path.exists()
        self._file = AppendFile(self.path, "always")
        if new:
            sync_folder(self.path)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. You may call this again."""
        self._file.close()

    def holder(self, item: Item) -> tuple[Part, int] | None:
        """Return the part that has, or may have, the answer to a request, and the request's place
        in it.

        Returns ``None`` if the request should be sent.
        """
        token, place = self._newest.get(item[:2], ("", 0))
        part = self.parts.get(token)
        if part is None or part.state == "absent":
            return None
        if part.items[place][2] != item[2]:
            return None  # another request, under the same key
        return None if part.state == "ended" and place in part.open else (part, place)

    async def intend(self, part: Part) -> None:
        """Record that a part is about to be submitted."""
        await self._write(
            _Entry(
                "intent",
                token=part.token,
                at=part.at,
                vendor=part.vendor,
                url=part.url,
                model=part.model,
                account=part.account,
                items=part.items,
            )
        )

    async def found(self, part: Part, batch: str) -> None:
        """Record the vendor's id of a part."""
        await self._write(_Entry("batch", token=part.token, batch=batch))

    async def absent(self, part: Part) -> None:
        """Record that the vendor has no such part, and will not have one."""
        await self._write(_Entry("absent", token=part.token))

    async def ended(self, part: Part, open: Iterable[int]) -> None:
        """Record that a part's results were read, and which requests have no answer among them."""
        await self._write(_Entry("ended", token=part.token, open=sorted(open)))

    async def release(self, samples: Iterable[Sample]) -> None:
        """Record that these samples of keys may be sent again, whatever answers they have."""
        if chosen := sorted(set(samples)):
            await self._write(_Entry("released", samples=chosen))

    async def _write(self, entry: _Entry) -> None:
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self._take(entry)
        await self._file.sync()

    def _take(self, entry: _Entry) -> None:
        if entry.kind == "intent":
            part = Part(
                token=entry.token,
                at=entry.at,
                vendor=entry.vendor,
                url=entry.url,
                model=entry.model,
                account=entry.account,
                items=entry.items,
            )
            self.parts[part.token] = part
            self._newest |= {item[:2]: (part.token, n) for n, item in enumerate(part.items)}
        elif entry.kind == "released":
            for sample in entry.samples:
                self._newest.pop(sample, None)
        elif (known := self.parts.get(entry.token)) is not None:
            if entry.kind == "batch":
                known.batch, known.state = entry.batch, "running"
            elif entry.kind == "absent":
                known.state = "absent"
            elif entry.kind == "ended":
                known.state, known.open = "ended", frozenset(entry.open)

    def _read(self) -> None:
        end, torn = 0, False
        for number, line in enumerate(self._file.read(), 1):
            entry = _entry_of(line) if line.endswith(b"\n") else None
            if torn or (entry is None and number == 1 and not line.startswith(MARKER[: len(line)])):
                what = f"line {number:,} does not belong to a journal of batches"
                raise ResultFileError(errno.EINVAL, what, str(self.path))
            if entry is None:
                torn = True  # the last one may be
                continue
            self._take(entry)
            end += len(line)
        self._file.cut(end)


def _entry_of(line: bytes) -> _Entry | None:
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
