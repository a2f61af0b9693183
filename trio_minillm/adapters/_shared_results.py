"""Results that many processes share, in the files of one folder."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import msgspec
import trio

from .._batch.files.key_table import KeyTable
from .._batch.files.result_file import ResultFile
from .._batch.files.result_format import fingerprint, result_line
from .._batch.types import BatchRequest, BatchResult

_OFFSET = 44
"""Bits of a line's offset in its file (up to 16 TiB). Of the other bits of a 64-bit place, the
lowest says whether the result is ok, and the highest are the file's number."""


class SharedResults:
    """The result lines of all actors of all runs, in the files of a folder.

    Guarantees: once `append` has returned, every actor that calls `refresh` later and sees the file
    finds the line; a torn line counts as missing. The folder is made if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._own = ResultFile(self._folder / name)
        self._files: list[Path] = []
        self._read: dict[Path, int] = {}
        self._places = KeyTable()
        self._refreshing = trio.Lock()
        self._look()

    def __enter__(self) -> SharedResults:
        return self

    def __exit__(self, *exc: object) -> None:
        self._own.close()

    async def append(self, result: BatchResult) -> bytes:
        """Write a result's line to this actor's file, and return it."""
        await self._own.append(result)
        return result_line(result, fingerprint(result.request))

    async def refresh(self) -> None:
        """Read the lines that any actor has written since the last call."""
        async with self._refreshing:
            await trio.to_thread.run_sync(self._look)

    async def line(self, request: BatchRequest, *, retry_failed: bool = False) -> bytes | None:
        """Return the line of this request, or None.

        ``retry_failed`` ignores failures of other actors and runs, but not of this one: what
        has failed here is not sent again. It waits only for a line of this actor that has not been
        read yet. Raises ``ValueError`` if the key's line is of another request.
        """
        own = self._own.state(request) != "missing"
        if own and request.key not in self._places:
            await self.refresh()
        place = self._places.get(request.key)
        if place is None or (retry_failed and not place & 1 and not own):
            return None
        with self._files[place >> (_OFFSET + 1)].open("rb") as file:
            file.seek(place >> 1 & (1 << _OFFSET) - 1)
            line = file.readline()
        if _head(line).request != fingerprint(request):
            raise ValueError(f"{request.key!r} belonged to another request when it was answered")
        return line

    def _look(self) -> None:
        for path in sorted(self._folder.glob("*.jsonl")):
            if path not in self._read:
                self._read[path] = 0
                self._files.append(path)
            number = self._files.index(path)
            with path.open("rb") as file:
                at = file.seek(self._read[path])
                while (line := file.readline()).endswith(b"\n"):
                    self._learn(line, number << _OFFSET | at)
                    at += len(line)
            self._read[path] = at

    def _learn(self, line: bytes, place: int) -> None:
        try:
            head = _head(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return  # torn
        known = self._places.get(head.custom_id)
        if head.ok or known is None or not known & 1:
            self._places.put(head.custom_id, place << 1 | head.ok)


class _Head(msgspec.Struct):
    custom_id: str
    ok: bool
    request: str


_head = msgspec.json.Decoder(_Head).decode
