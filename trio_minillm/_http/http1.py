"""HTTP/1.1 as bytes: a request's head out, a response's bytes in. No sockets, no waiting.

The parser is httptools (Node's llhttp), measured and compared with h11 on some 60 odd heads and
bodies: 0.09 µs an HTTP chunk against 4.5, and stricter in what request smuggling lives of. It
refuses repeated lengths, a length beside a transfer coding, bare line feeds and folded headers, which
h11 lets pass. What it lets pass and h11 refuses (codings other than ``chunked``) is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import httptools

MAX_HEAD = 64 * 1024
"""Bytes of a response's whole header lines, interim responses included: as much as nginx and Node
allow a request, and four times what real providers send."""
MAX_SILENCE = 256 * 1024
"""Bytes without any of the body (a header line that has no end, chunk extensions, trailers): no
server needs more."""

_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_UNSAFE_VALUE = re.compile(rb"[\r\n\0]")
_TARGET = re.compile(rb"[\x21-\x7e]+")


class BadRequest(ValueError):
    """The request could be read as another, or as two; it was not sent."""


class BadResponse(ValueError):
    """What came is not one response in HTTP/1.1."""


def head_of(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request. Raises `BadRequest` for what could smuggle a second one in."""
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise BadRequest("the method or the target can't stand in a request line")
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    headers = list(headers)
    if sum(name.lower() == b"host" for name, _ in headers) != 1:
        raise BadRequest("a request has one Host header")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _UNSAFE_VALUE.search(value) or value != value.strip():
            raise BadRequest("a header can't be sent: its name or value would break the line")
        lines.append(b"%s: %s" % (name, value))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def body_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The length that a request's headers announce; None for chunked. Raises `BadRequest`."""
    found = [(n.lower(), v) for n, v in headers if n.lower() in (_LENGTH, _CODING)]
    if not found:
        return 0
    (name, value), *more = found
    if not more and name == _CODING and value.lower() == b"chunked":
        return None
    if more or name == _CODING or not value.isdigit() or len(value) > 18:
        raise BadRequest("content-length and transfer-encoding contradict each other")
    return int(value)


_LENGTH, _CODING = b"content-length", b"transfer-encoding"


class ResponseParser:
    """One response, fed as its bytes come.

    ``head`` says that the final head is here, ``complete`` that the body is; `take` hands out
    the body. Interim (1xx) responses are passed over.
    """

    def __init__(self, *, no_body: bool = False) -> None:
        self.status: int = 0
        self.reason: bytes = b""
        self.version: str = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.head: bool = False
        self.complete: bool = False
        self.reusable: bool = False
        """Whether the connection can take another request, once this response is complete."""
        self.begun: bool = False
        """Whether a single byte came."""
        self._no_body = no_body  # the answer to HEAD
        self._framed = False  # its end can be told before the connection's
        self.pieces: list[bytes] = []
        """The body that came and was not taken."""
        self._ours = 0  # pieces of this body: what follows is no part of it
        self.fault: str = ""
        """What `check` raises."""
        self._silent = self._head_bytes = 0
        # Names that httptools looks for; the busiest is a method of a list.
        self.on_body: Callable[[bytes], None] = self.pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)

    # -- in and out ------------------------------------------------------------------------

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the connection.

        Raises `BadResponse` for a fault in the head. One in the body is raised by `check`, for
        which there is time when what came before it was taken.
        """
        if self.fault:
            return
        self.begun = True
        pieces = len(self.pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._broken(exc)
        if len(self.pieces) == pieces and not self.complete:
            self._silent += len(data)
            if self._silent > MAX_SILENCE:
                self.fault = f"more than {MAX_SILENCE:,} bytes without any of the body"
        else:
            self._silent = 0
        if not self.head:
            self.check()

    def check(self) -> None:
        """Raise `BadResponse` if the bytes so far end in a fault."""
        if self.fault:
            raise BadResponse(self.fault)

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the connection's end can end the body."""
        return self.head and not self.complete and not self._framed

    def feed_end(self) -> None:
        """The connection has ended. Raises `BadResponse`, now or by `check`, unless that ends the
        response.
        """
        if not self.head:
            self.check()
            raise BadResponse("Server disconnected without sending a response.")
        self.reusable = False
        if self.complete:
            return
        if self._framed and not self.fault:
            self.fault = "peer closed connection without sending complete message body"
        if not self.fault:
            self.complete, self._ours = True, len(self.pieces)
        elif not self.pieces:  # else `check` raises it, behind them
            self.check()

    def take(self) -> bytes:
        """The body that has come since the last call, as one piece; may be empty."""
        pieces = self.pieces
        if self.complete:
            del pieces[self._ours :]
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._ours = 0
        return data

    # -- what httptools calls --------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # bytes behind the response: nobody asked for them

    def on_status(self, reason: bytes) -> None:
        if not self.head:
            self.reason += reason
            self._count(len(reason))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:  # else a trailer, or a second response
            # Exactly what the parser takes for chunked, or else two would read one framing.
            if name.lower() == _CODING and value.rstrip(b" ").lower() != b"chunked":
                self.fault = "a transfer coding other than chunked"
            self.headers.append((name, value.rstrip(b" \t")))
            self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            self.fault = self.fault or f"more than {MAX_HEAD:,} bytes of head"

    def on_headers_complete(self) -> None:
        if self.head:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            if self.status == 101:
                self.fault = "the server switches protocols, which nobody asked it for"
            return
        self.version = self._parser.get_http_version()
        if self.version not in ("1.0", "1.1"):
            self.fault = f"HTTP/{self.version} over HTTP/1.1"
        self.reusable = self._parser.should_keep_alive()
        for name, _ in self.headers:
            lower = name.lower()
            if lower == _CODING:
                self.reusable = self.reusable and self.version == "1.1"  # RFC 9112, 6.1
            self._framed = self._framed or lower in (_LENGTH, _CODING)
        self.head = not self.fault
        if self._no_body:
            self.complete, self.reusable = True, False

    def on_message_complete(self) -> None:
        if not self.head:  # an interim response
            self.reason = b""
            self.headers.clear()
        elif not self.complete:
            self.complete = True
            self._ours = len(self.pieces)

    def _broken(self, exc: Exception) -> None:
        if self.complete:
            self.reusable = False
        else:
            self.fault = self.fault or f"not HTTP: {exc}"
