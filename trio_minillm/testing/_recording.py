"""Recordings of real responses: raw bytes with their timing, without keys.

A recording is a file of JSON lines. The first is ``{"recording": 1}``, with the version of the
format. In the others, ``n`` is the number of the exchange and ``t`` the seconds since its request
was handed over. Each exchange has these lines, in this order::

    {"n": 0, "t": 0.0, "method": "POST", "url": "https://host/v1/chat/completions"}
    {"n": 0, "t": 0.41, "status": 200, "headers": [["content-type", "text/event-stream"]]}
    {"n": 0, "t": 0.52, "text": "data: {...}"}      a read of the body; "base64" if not UTF-8
    {"n": 0, "t": 1.93, "end": "complete"}

``end`` is ``complete``, ``left`` (the client hung up first), ``limit`` (the file is full),
``compressed`` (not recorded, because keys can't be searched for), or the name of httpx's error.
The lines of simultaneous exchanges interleave. `_replay` reads the file.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import trio

from .._http.decompression import is_plain
from .._http.transport import BODY, TrioTransport
from .._protocol.redaction import MIN_RECORDED, secrets_in, stretches

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes that a recording may grow to by default."""
SEARCH_BYTES: Final = 32 * 1024
"""Bytes of a body that are collected before they are searched for keys: each search repeats the
bytes that the one before has kept."""
SPELLED: Final = 12
"""Bytes that one character of a key may take, however it is escaped."""


class Recording(httpx.AsyncBaseTransport):
    """A transport that records the responses of another one. Make it with `record`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        secrets: Iterable[str] = (),
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path: Path = Path(path)
        self._inner = TrioTransport() if transport is None else transport
        self._secrets = {s.encode() for s in secrets if len(s) >= MIN_RECORDED}
        self._left = max_bytes
        self._count = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._file = os.fdopen(os.open(self.path, flags, 0o600), "wb")
        self.write({"recording": 1})

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request through the other transport, without compression, and record the
        response.
        """
        request.headers["accept-encoding"] = "identity"
        exchange = _Exchange(self, self._count, self._secrets | _secrets_of(request))
        self._count += 1
        exchange.begin(request)
        try:
            response = await self._inner.handle_async_request(request)
        except Exception as exc:
            exchange.end(type(exc).__name__)
            raise
        except BaseException:
            exchange.end("left")
            raise
        exchange.head(response)
        body = response.extensions.get(BODY)
        stream = _Body(exchange, response.stream if body is None else body, body is not None)
        extensions = dict(response.extensions)
        if body is not None:
            extensions[BODY] = stream
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=stream,
            extensions=extensions,
        )

    def write(self, line: dict[str, Any]) -> bool:
        """Write a line. Returns False if it no longer fits."""
        data = msgspec.json.encode(line) + b"\n"
        self._left -= len(data)
        if self._left < 0 or self._file.closed:
            return False
        self._file.write(data)
        return True

    def write_end(self, line: dict[str, Any]) -> None:
        """Write the last line of an exchange, whatever the size of the file."""
        if not self._file.closed:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()

    async def aclose(self) -> None:
        """Close the other transport and the file."""
        try:
            await self._inner.aclose()
        finally:
            self._file.close()


def record(
    path: str | os.PathLike[str],
    transport: httpx.AsyncBaseTransport | None = None,
    *,
    secrets: Iterable[str] = (),
    max_bytes: int = MAX_BYTES,
) -> Recording:
    """Return a transport that records every response, for ``open_client(transport=…)``.

    Use it as ``async with record(path) as transport``, which closes both.

    - ``path`` is a new file; an existing one raises ``FileExistsError``. Only its owner can read
      it.
    - ``transport`` sends the requests. The default is a new `TrioTransport`.
    - ``secrets`` are texts to replace by ``*`` wherever a response repeats them.
    - ``max_bytes`` is the approximate limit of the file's size.

    Guarantees: the file contains no headers, query, or body of a request. Anything in a request's
    headers, query, or URL that may be a key is treated like ``secrets``, in any common spelling and
    even if only a part of it is repeated. The client's responses are unchanged and not delayed.
    """
    return Recording(path, transport, secrets=secrets, max_bytes=max_bytes)


def _secrets_of(request: httpx.Request) -> set[bytes]:
    """Return the parts of a request that may be a key."""
    fields = (*request.headers.items(), *request.url.params.multi_items())
    return secrets_in(fields, (request.url.password, request.url.username))


class _Exchange:
    """The lines of one request and its response."""

    def __init__(self, file: Recording, number: int, secrets: set[bytes]) -> None:
        self._file = file
        self._number = number
        self._secrets = secrets
        self._hold = SPELLED * max(map(len, secrets), default=0)
        self._started = trio.current_time()
        self._pieces: list[tuple[float, bytes]] = []  # not written yet
        self._new = 0  # bytes that have not been searched yet
        self._coding = ""  # the response's, until the body's first piece has told what it is worth
        self._over = self._begun = False

    def _line(self, at: float, **fields: Any) -> None:
        if not self._file.write({"n": self._number, "t": at, **fields}):
            self._finish(at, "limit")

    def _finish(self, at: float, how: str) -> None:
        self._over = True
        self._pieces.clear()
        if self._begun:
            self._file.write_end({"n": self._number, "t": at, "end": how})

    def _now(self) -> float:
        return trio.current_time() - self._started

    def begin(self, request: httpx.Request) -> None:
        url = request.url.copy_with(query=None, fragment=None, username=None, password=None)
        self._line(0.0, method=request.method, url=self._clean(str(url).encode()).decode())
        self._begun = not self._over

    def head(self, response: httpx.Response) -> None:
        headers = []
        for name, value in response.headers.raw:
            key = name.decode("latin-1").lower()
            hidden = b"*" * len(value) if "cookie" in key else self._clean(value)
            headers.append((key, hidden.decode("latin-1")))
        if not self._over:
            self._line(self._now(), status=response.status_code, headers=headers)
        self._coding = response.headers.get("content-encoding", "")

    def piece(self, data: bytes) -> None:
        if self._over or not data:
            return
        if self._coding and not is_plain(self._coding, data):
            self._finish(self._now(), "compressed")  # a key in it would not be found
            return
        self._coding = ""  # the first piece has told
        self._pieces.append((self._now(), data))
        self._new += len(data)
        if self._new >= SEARCH_BYTES + self._hold:
            self._write_pieces(self._hold)

    def end(self, how: str) -> None:
        """Write the rest, and the last line. Only the first call has an effect."""
        if not self._over:
            self._write_pieces(0)
        if not self._over:
            self._finish(self._now(), how)

    def _write_pieces(self, hold: int) -> None:
        """Write the pieces, but keep the last ``hold`` bytes, in which a key may have begun."""
        data = b"".join(data for _, data in self._pieces)
        spans = stretches(data, self._secrets)
        clean = _blanked(data, spans)
        pieces, self._pieces = self._pieces, []
        end = held = 0
        for number, (at, piece) in enumerate(pieces):
            end += len(piece)
            if end > len(data) - hold:
                # The kept bytes are searched again as they came, so that a key that ends in the
                # next piece is found whole. One whose beginning is written now is blanked now.
                data = _blanked(data, [span for span in spans if span[0] < held])
                for later, piece in pieces[number:]:
                    self._pieces.append((later, data[held : held + len(piece)]))
                    held += len(piece)
                break
            self._line(at, **_encoded(clean[held:end]))
            if self._over:
                return
            held = end
        self._new = 0

    def _clean(self, data: bytes) -> bytes:
        """Return the data with ``*`` in place of each byte of a secret."""
        return _blanked(data, stretches(data, self._secrets))


def _blanked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    clean = bytearray(data)
    for start, stop in spans:
        clean[start:stop] = b"*" * (stop - start)
    return bytes(clean)


def _encoded(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


class _Body(httpx.AsyncByteStream):
    """A body that is recorded while it is read.

    With ``ours`` the inner body is a `TrioTransport`'s, and is read by `receive`; otherwise it can
    only be iterated.
    """

    def __init__(self, exchange: _Exchange, inner: Any, ours: bool) -> None:
        self._exchange = exchange
        self._inner = inner
        self._ours = ours

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self if self._ours else self._generate()

    async def __anext__(self) -> bytes:
        data = await self.receive()
        if not data:
            raise StopAsyncIteration
        return data

    async def receive(self) -> bytes:
        """Return the next bytes, as a body of `TrioTransport` does: a cancelled read loses none."""
        try:
            data: bytes = await self._inner.receive()
        except Exception as exc:
            self._exchange.end(type(exc).__name__)
            raise
        if data:
            self._exchange.piece(data)
        else:
            self._exchange.end("complete")
        return data

    async def _generate(self) -> AsyncGenerator[bytes, None]:
        pieces = aiter(self._inner)
        try:
            async for data in pieces:
                self._exchange.piece(data)
                yield data
        except Exception as exc:
            self._exchange.end(type(exc).__name__)
            raise
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        self._exchange.end("complete")

    async def aclose(self) -> None:
        self._exchange.end("left")
        await self._inner.aclose()
