"""Decompression of a response's body, in steps of bounded size.

Requests ask for no compression, since it holds chunks back; this is for servers and proxies that
compress all the same.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import trio

from .._types.errors import ConnectionCut, ProtocolError

STEP_BYTES = 64 * 1024
"""The most bytes that one step yields, however far the input expands."""
JUDGED_BYTES = 16
"""Bytes by which a body is judged that says it is compressed; fewer if they tell."""
MAX_CODINGS = 3
"""Codings on top of each other that are undone. A server and two proxies: nobody has more."""

Source: TypeAlias = Callable[[], Awaitable[bytes]]
"""Async function that returns the next bytes, ``b""`` at their end."""

_DECODABLE = ("gzip", "x-gzip", "deflate")


_COMPRESSIONS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip")
"""Codings of IANA's registry that compress and are not undone here."""
_WORD = "[a-z]{1,12}|utf-?8"
"""A coding that an error may show: too short, and of too few characters, for a key."""
_STREAM = (
    rb"(?:\xef\xbb\xbf)?[ \t\r\n]*"
    rb"(?:(?:data|event|id|retry|error)[:\r\n]|:[ -~\r\n]|[{\[][\s\"{\[\]}]|<[!?A-Za-z])"
)
"""The beginning of a stream of events, of JSON, or of HTML. No coding's data begin so, but by a chance
of less than one in ten thousand, if none of `_CONTROL` is near."""
_CONTROL = rb"[\x00-\x08\x0b\x0c\x0e-\x1f]"
"""Bytes that no text has. The shortest data that are compressed may begin like text otherwise."""


class Decompressor:
    """Reader of a body that its ``content-encoding`` says is compressed.

    Many servers send words there that name no coding (``none``, ``utf-8``), or name one and send the
    body as it is. So what the body begins with decides: see `_judge`. From then on ``plain`` says
    whether it is to be read directly.
    """

    def __init__(self, codings: tuple[str, ...], source: Source) -> None:
        self.plain: bool = False
        """True once all that was read has been handed out, and the rest is as it is on the wire."""
        self._codings = codings
        self._source = source
        self._head = b""  # not handed out, for it is too short to judge
        self._decode: Source | None = None  # set once the body is known to be compressed

    @classmethod
    def of(cls, encoding: str, source: Source) -> Decompressor | None:
        """Return what undoes a ``content-encoding``; None if it names no coding.

        ``source`` returns the next bytes of the body, ``b""`` at their end.
        """
        codings = _codings(encoding)
        return cls(codings, source) if codings else None

    async def receive(self) -> bytes:
        """Return the next decompressed bytes, ``b""`` at the end. A checkpoint, but at the end.

        Raises what the source raises, `ProtocolError` for data that are broken or of a coding that
        is not undone here, and `ConnectionCut` for data that end too early.
        """
        while self._decode is None:
            data = await self._source()
            self._head += data
            as_it_is = _judge(self._head, self._codings[-1], ended=not data)
            if as_it_is:
                self.plain = True
                data, self._head = self._head, b""
                return data
            if as_it_is is False:
                self._decode = self._chain()
        return await self._decode()

    def _chain(self) -> Source:
        """Return the source of what the codings, undone in turn, make of the body."""
        if len(self._codings) > MAX_CODINGS:
            raise ProtocolError("the body has too many content-encodings")
        source: Source = self._from_the_head
        for coding in reversed(self._codings):
            if coding not in _DECODABLE:
                shown = re.fullmatch(_WORD, coding) or coding in _COMPRESSIONS
                named = f"content-encoding {coding!r}" if shown else "an unknown content-encoding"
                raise ProtocolError(
                    f"the body has {named}, which was not requested and can't be read"
                )
            source = partial(_Inflater(coding).receive, source)
        return source

    async def _from_the_head(self) -> bytes:
        data, self._head = self._head, b""
        return data or await self._source()


def is_plain(encoding: str, head: bytes) -> bool:
    """Return True if a body that begins so is certainly not compressed, whatever its
    ``content-encoding``.
    """
    codings = _codings(encoding)
    return not codings or _judge(head, codings[-1], ended=False) is True


def _codings(encoding: str) -> tuple[str, ...]:
    names = (name.strip().lower() for name in encoding.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def _judge(head: bytes, coding: str, *, ended: bool) -> bool | None:
    """Return whether a body that begins so is as it is on the wire, in spite of its coding; None
    if it is too early to tell.

    ==========================================  ======================  =========================
    coding                                      begins like a stream,   begins otherwise
                                                JSON or HTML
    ==========================================  ======================  =========================
    one that is undone here (gzip, deflate)     as it is                compressed
    another compression (br, zstd)              as it is                an error
    a word that names no compression            as it is                text: as it is; else an
                                                                        error
    ==========================================  ======================  =========================
    """
    no_text = re.search(_CONTROL, head[:JUDGED_BYTES])
    if (re.match(_STREAM, head) and not no_text) or (ended and not head):
        return True
    may_be_text = not head or head[0] in b"\t\n\r\xef" or head[0] >= 0x20
    if may_be_text and len(head) < JUDGED_BYTES and not ended:
        return None
    return coding not in _DECODABLE and coding not in _COMPRESSIONS and _is_text(head)


def _is_text(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()  # the data may end inside a character
    try:
        text = decoder.decode(data).removeprefix("\ufeff")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n" for c in text)


class _Inflater:
    """Decompression of ``gzip`` or ``deflate``, step by step."""

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        # gzip or zlib, as the data's own header says; some servers' `deflate` has none.
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._begun = False
        self._broken: ProtocolError | None = None  # raised next: bytes before it were handed out

    async def receive(self, source: Source) -> bytes:
        """Return the next decompressed bytes, ``b""`` at the end. A checkpoint, but at the end."""
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
                    raise ConnectionCut("the compressed body ended early")
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
