"""HTTP/1.1 as bytes: the head of a request out, the bytes of a response in. No sockets, no waiting.

The parser is httptools (Node's llhttp), measured and compared with h11 on some 60 unusual heads and
bodies: 0.09 µs for an HTTP chunk against 4.5, and stricter where request smuggling begins. It
refuses repeated lengths, a length beside a transfer coding, bare line feeds and folded headers, all
of which h11 accepts. What it accepts and h11 refuses (codings other than ``chunked``) is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import httptools
import msgspec

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Header lines in their order, names as they were written."""

MAX_HEAD = 64 * 1024
"""Bytes of a response's head, interim responses included: as much as nginx and Node accept in a
request, and four times what real providers send."""
MAX_SILENCE = 256 * 1024
"""Bytes in a row behind the head that bring nothing of the body (chunk extensions, trailers); no server
needs more."""

_TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, 5.6.2
_UNSAFE_VALUE = rb"[\r\n\0]"
_TARGET = rb"[\x21-\x7e]+"
_LENGTH, _CODING = b"content-length", b"transfer-encoding"
_LENGTH_LINE, _CODING_LINE = b"\r\n%s:" % _LENGTH, b"\r\n%s:" % _CODING
"""Beginnings of a response's header lines, in lower case: no space can stand before the colon."""
# Exactly what httptools does not take for chunked: where two readers see one framing in different
# ways, smuggling begins.
_OTHER_CODING = re.compile(rb"\r\n%s:(?![ \t]*chunked *(?:\r\n|\Z))" % _CODING)
_FOREIGN_CODING = "a transfer coding other than chunked"
_LONG_HEAD = f"more than {MAX_HEAD:,} bytes of head"


class BadRequest(ValueError):
    """A request that could be read as another one, or as two; it was not sent."""


class BadResponse(ValueError):
    """Bytes that are not one response in HTTP/1.1."""


# -- requests ------------------------------------------------------------------------------


class RequestHead(msgspec.Struct, frozen=True):
    """The head of a request, and what its headers say about the body and the connection."""

    data: bytes
    """Request line and headers, with the empty line behind them."""
    length: int | None
    """Bytes of the body that is announced; None if it is chunked."""
    closes: bool
    """True if the client announces that it closes the connection after the response."""


def request_head(method: bytes, target: bytes, headers: Headers) -> RequestHead:
    """Encode the head of a request. Raises `BadRequest` for anything that could smuggle in another.

    The message of the error never quotes a header: its value may be a key.
    """
    if not re.fullmatch(_TOKEN, method) or not re.fullmatch(_TARGET, target):
        raise BadRequest("the method or the target is not valid in a request line")
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    hosts, closes = 0, False
    framing: Headers = []
    for name, value in headers:
        if (
            not re.fullmatch(_TOKEN, name)
            or re.search(_UNSAFE_VALUE, value)
            or value != value.strip()
        ):
            raise BadRequest("a header can't be sent: its name or value would break the line")
        lines.append(b"%s: %s" % (name, value))
        lower = name.lower()
        if lower == b"host":
            hosts += 1
        elif lower in (_LENGTH, _CODING):
            framing.append((lower, value))
        elif lower == b"connection":
            closes = closes or b"close" in value.lower()
    if hosts != 1:
        raise BadRequest("a request must have exactly one Host header")
    lines.append(b"\r\n")
    return RequestHead(b"\r\n".join(lines), _announced(framing), closes)


def _announced(framing: Headers) -> int | None:
    """Return the length of the body that these headers announce; None for chunked."""
    if not framing:
        return 0
    (name, value), *more = framing
    if not more and name == _CODING and value.lower() == b"chunked":
        return None
    # 18 digits: more than any body has, and less than it takes to make `int` slow.
    if more or name == _CODING or not value.isdigit() or len(value) > 18:
        raise BadRequest("content-length and transfer-encoding contradict each other")
    return int(value)


# -- responses -----------------------------------------------------------------------------


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response, without the reason phrase: a server can put anything into that."""

    status: int
    version: str
    """Version of HTTP: ``1.0`` or ``1.1``."""
    lines: bytes
    """The header lines as they came, without the end of the last."""

    @property
    def headers(self) -> Headers:
        """The header lines cut into names and values."""
        cut = [line.partition(b":") for line in self.lines.split(b"\r\n") if line]
        return [(name, value.strip(b" \t")) for name, _, value in cut]


class ResponseParser:
    """Parser of one response, fed with the bytes of its connection.

    ::

        waiting for the head  --head-->  reading the body  --end of the body-->  complete
                 |                               |
                 +-----------> fault <-----------+

    ``head`` and ``complete`` say how far it is. A fault in the head is raised at once; one in the
    body by `check`, so that the body before it can be handed out first. Interim (1xx) responses are
    passed over. What follows a complete response is no part of it, and spoils the connection.
    """

    __slots__ = (
        "_earlier",
        "_final",
        "_framed",
        "_in_body",
        "_interim",
        "_no_body",
        "_parser",
        "_raw",
        "_silent",
        "complete",
        "fault",
        "head",
        "pieces",
        "reusable",
    )

    def __init__(self, *, no_body: bool = False) -> None:
        self.head: bool = False
        """True once the final head is here; `take_head` returns it."""
        self.complete: bool = False
        """True once the whole body is here; `take` returns what was not taken of it."""
        self.reusable: bool = False
        """True if the connection can take another request once this response is complete."""
        self.pieces: list[bytes] = []
        """The body that came and was not taken, one piece for each HTTP chunk of a read."""
        self.fault: str = ""
        """Description of the fault that `check` raises; empty without one."""
        self._no_body = no_body  # the response to HEAD has none, whatever its headers say
        self._framed = False  # the body's end can be told before the connection's
        self._in_body = 0  # pieces up to the end of the body, once it is complete
        self._silent = 0  # bytes since the last that belonged to the body
        self._interim = 0  # responses with a status of 1xx
        # Until the head is here, all that came. httptools checks it, and would also cut it into
        # headers, but calls back for each; a model's provider sends some 25.
        self._raw = b""
        self._earlier: bytearray | None = None  # what came in reads before this one
        self._final: ResponseHead
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)

    # -- in and out ------------------------------------------------------------------------

    def feed(self, data: bytes | memoryview) -> None:
        """Parse the next bytes of the connection. Raises `BadResponse` for a fault in the head."""
        if self.fault:
            return
        if not self.head:
            self._raw = bytes(data)
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
            if self._earlier is None:
                self._earlier = bytearray()
            self._earlier += self._raw
            if len(self._earlier) > MAX_HEAD:
                self.fault = self.fault or _LONG_HEAD
            self.check()

    def feed_end(self) -> None:
        """Note that the connection has ended. Raises `BadResponse`, here or in `check`, unless that
        is how the response ends.
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
            self.complete, self._in_body = True, len(self.pieces)
        elif not self.pieces:  # else `check` raises it, behind them
            self.check()

    def check(self) -> None:
        """Raise `BadResponse` if the bytes so far end in a fault."""
        if self.fault:
            raise BadResponse(self.fault)

    def take_head(self) -> ResponseHead:
        """Return the head, once: the parser of a long stream does not keep it."""
        head = self._final
        del self._final
        return head

    def take(self) -> bytes:
        """Return the body that has come since the last call, as one piece; it may be empty."""
        pieces = self.pieces
        if self.complete:
            del pieces[self._in_body :]
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._in_body = 0
        return data

    def close(self) -> None:
        """Let go of httptools' parser, which refers to this one: else both would wait for the garbage
        collector. Nothing can be fed any more; what came can be taken.
        """
        del self._parser

    @property
    def status(self) -> int:
        """The status of a head that `take_head` has not returned yet."""
        return self._final.status

    @property
    def begun(self) -> bool:
        """True if a single byte of a response came."""
        return self.head or self._silent > 0 or bool(self.fault)

    @property
    def ends_with_connection(self) -> bool:
        """True if only the connection's end can end the body."""
        return self.head and not self.complete and not self._framed

    # -- what httptools calls --------------------------------------------------------------
    # It looks these names up once, when it is made.

    @property
    def on_body(self) -> Callable[[bytes], None]:  # the busiest: for each HTTP chunk a call in C
        return self.pieces.append

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # bytes behind the response, which answer no request

    def on_headers_complete(self) -> None:
        if self.head:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status == 101:
                self.fault = "the server switches protocols without being asked"
            return
        head = self._take_raw_head()
        # To ask httptools takes as long as all the rest.
        version = "1.1" if head.startswith(b"HTTP/1.1 ") else self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self.fault = f"HTTP/{version} over HTTP/1.1"
        names = head.lower()
        coded = _CODING_LINE in names
        if coded and _OTHER_CODING.search(names):
            self.fault = _FOREIGN_CODING
        self._framed = coded or _LENGTH_LINE in names
        # RFC 9112, 6.1
        self.reusable = self._parser.should_keep_alive() and not (coded and version != "1.1")
        self._final = ResponseHead(status, version, head.partition(b"\r\n")[2])
        self.head = not self.fault
        if self._no_body:
            self.complete, self.reusable = True, False

    def _take_raw_head(self) -> bytes:
        """Return the final head without its last line ends, and note its faults."""
        raw, self._raw = self._raw, b""
        if self._earlier or self._interim or raw[:1] in b"\r\n":
            return self._last_head(raw)
        end = raw.find(b"\r\n\r\n")
        if end + 4 > MAX_HEAD:
            self.fault = _LONG_HEAD
        return raw[:end]

    def _last_head(self, raw: bytes) -> bytes:
        """Return what `_take_raw_head` does, where more came than one head in one read."""
        head, rest = b"", bytes(self._earlier or b"") + raw
        self._earlier = None
        size = len(rest)
        for _ in range(self._interim + 1):
            head, _, rest = rest.lstrip(b"\r\n").partition(b"\r\n\r\n")
            if _OTHER_CODING.search(head.lower()):
                self.fault = _FOREIGN_CODING
        if size - len(rest) > MAX_HEAD:
            self.fault = self.fault or _LONG_HEAD
        return head

    def on_message_complete(self) -> None:
        if self.head and not self.complete:
            self.complete = True
            self._in_body = len(self.pieces)

    def _broken(self, exc: Exception) -> None:
        if self.complete:
            self.reusable = False
        else:
            self.fault = self.fault or f"not HTTP: {exc}"
