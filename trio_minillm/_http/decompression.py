"""Decompression of a response's body, in steps of bounded size.

Requests ask for no compression, since it holds chunks back; this is for servers and proxies that
compress all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .._types.errors import ConnectionCut, ProtocolError

STEP_BYTES = 64 * 1024
"""The most bytes that one step yields, however far the input expands."""


class Decompressor:
    """Reader of a body with ``content-encoding: gzip`` or ``deflate``."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding != "deflate"
        # gzip or zlib, as the data's own header says; some servers' `deflate` has none.
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._begun = False
        self._broken: ProtocolError | None = None  # raised next: bytes before it were handed out

    @classmethod
    def of(cls, encoding: str) -> Decompressor | None:
        """Return what undoes a ``content-encoding``, None if there is nothing to undo.

        Raises `ProtocolError` for an unknown one.
        """
        name = encoding.strip().lower()
        if name in ("", "identity"):
            return None
        if name in ("gzip", "x-gzip", "deflate"):
            return cls(name)
        raise ProtocolError("the body is compressed in a way that was not asked for")

    async def receive(self, source: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the next decompressed bytes, ``b""`` at the end. A checkpoint, but at the end.

        ``source`` returns the next compressed bytes, ``b""`` at their end. Raises what it raises,
        `ProtocolError` for broken data and `ConnectionCut` for data that ends too early.
        """
        while True:
            if self._broken is not None:
                await trio.lowlevel.checkpoint()
                raise self._broken
            if self._zlib.eof and self._gzip:  # a gzip file may have several members
                rest = self._zlib.unused_data or await source()
                await trio.lowlevel.checkpoint()
                if not rest:
                    return b""
                self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            elif self._zlib.eof:
                return b""
            else:
                rest = self._zlib.unconsumed_tail
                if rest:  # much comes out of little: other tasks must get their turn
                    await trio.lowlevel.checkpoint()
                else:
                    rest = await source()
                if not rest:
                    raise ConnectionCut("the body ended inside its compression")
            if data := self._step(rest):
                return data

    def _step(self, compressed: bytes) -> bytes:
        before = self._zlib.copy()
        try:
            data = self._zlib.decompress(compressed, STEP_BYTES)
        except zlib.error:
            if self._begun or self._gzip:
                self._broken = ProtocolError("the body's compression is broken")
                return _before_the_fault(before, compressed)
            # Not zlib's format, then: `deflate` as some servers understand it, without a header.
            self._begun = True
            self._zlib = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            return self._step(compressed)
        self._begun = True
        return data


def _before_the_fault(state: Any, compressed: bytes) -> bytes:
    """Return what a read brought before its compression broke.

    zlib gives all of it or none, so the fault is located by bisection. What precedes it is at most
    `STEP_BYTES`, since the previous step ended before it.
    """
    out: list[bytes] = []
    at, size = 0, len(compressed)
    while size and at < len(compressed):
        trial = state.copy()
        try:
            out.append(trial.decompress(compressed[at : at + size]))
            state, at = trial, at + size
        except zlib.error:
            size //= 2
    return b"".join(out)
