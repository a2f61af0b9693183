"""Recordings of real responses: raw bytes with their timing, without keys.

A recording is a file of JSON lines. The first is ``{"recording": 1}``, the number being the
version of the format. In the others ``n`` is the number of the exchange and ``t`` the seconds since
its request was handed over; in their order they are, for each exchange::

    {"n": 0, "t": 0.0, "method": "POST", "url": "https://host/v1/chat/completions"}
    {"n": 0, "t": 0.41, "status": 200, "headers": [["content-type", "text/event-stream"]]}
    {"n": 0, "t": 0.52, "text": "data: {...}"}      a read of the body; "base64" if not UTF-8
    {"n": 0, "t": 1.93, "end": "complete"}

``end`` is ``complete``, ``left`` (the client went first), ``limit`` (the file is full),
``compressed`` (not recorded, since keys can't be looked for), or the name of httpx's error.
Exchanges that run at once interleave.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import trio

from .._http.transport import BODY, TrioTransport
from .._protocol.redaction import MIN_RECORDED, secrets_in, stretches
from ._script import Reply, Step, eof, hang, reset

MAX_BYTES: Final = 64 * 1024 * 1024
"""What a recording may grow to by default."""
MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of a line that `replay` reads; a read of a socket is 64 KiB at most."""
LOOK_BYTES: Final = 32 * 1024
"""Of a body are looked through for keys at once."""
SPELLED: Final = 12
"""Bytes that one character of a key may take, however it is escaped."""


class Recording(httpx.AsyncBaseTransport):
    """A transport that records what another brings; made by `record`."""

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
        """Send the request by the other transport, asking for no compression, and record."""
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
        """Write a line, if it still fits."""
        data = msgspec.json.encode(line) + b"\n"
        self._left -= len(data)
        if self._left < 0 or self._file.closed:
            return False
        self._file.write(data)
        return True

    def write_end(self, line: dict[str, Any]) -> None:
        """Write the last line of an exchange, which there is always room for."""
        if not self._file.closed:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()

    async def aclose(self) -> None:
        """Close the other transport, and the file."""
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
    """A transport that records every response, for ``open_client(transport=…)``.

    Guarantees: the file is new (``FileExistsError`` otherwise), readable by its owner only, and at
    most about ``max_bytes`` long; no request's headers, query or body are in it; whatever a
    header, a query or the URL of the request had of a key, and ``secrets``, is replaced by
    as many ``*`` where the response repeats it, in any common spelling and also when it was
    cut. What a client sees is unchanged, and not held up.

    ``transport`` does the work, a `TrioTransport` of its own by default; use it as ``async with
    record(path) as transport``, which closes both. The format stands at the top of this module,
    and in the documentation.
    """
    return Recording(path, transport, secrets=secrets, max_bytes=max_bytes)


def _secrets_of(request: httpx.Request) -> set[bytes]:
    """What a request carries that may be a key."""
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
        self._pieces: list[tuple[float, bytes]] = []  # to be looked through
        self._new = 0  # bytes that were not looked through yet
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
        coding = response.headers.get("content-encoding", "identity")
        if coding.lower() not in ("", "identity") and not self._over:
            self._finish(self._now(), "compressed")

    def piece(self, data: bytes) -> None:
        if self._over or not data:
            return
        self._pieces.append((self._now(), data))
        self._new += len(data)
        if self._new >= LOOK_BYTES + self._hold:
            self._write_pieces(self._hold)

    def end(self, how: str) -> None:
        """The exchange is over. The first call counts."""
        if not self._over:
            self._write_pieces(0)
        if not self._over:
            self._finish(self._now(), how)

    def _write_pieces(self, hold: int) -> None:
        """Write what came, but for the last bytes, in which a key may have begun."""
        data = b"".join(data for _, data in self._pieces)
        spans = stretches(data, self._secrets)
        clean = _blanked(data, spans)
        pieces, self._pieces = self._pieces, []
        end = held = 0
        for number, (at, piece) in enumerate(pieces):
            end += len(piece)
            if end > len(data) - hold:
                # What is held is looked through again, as it came: a key that ends in what comes
                # next is found whole. One whose beginning is written is blanked now.
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
        """As long as before, with ``*`` where a secret stood."""
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
    """A body that is recorded while it is read, in the way in which the other can be read."""

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
        """Of `TrioTransport`: a read that is cancelled has lost nothing."""
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


# -- back again ----------------------------------------------------------------------------------


class _Line(msgspec.Struct, kw_only=True):
    n: int = -1
    t: float = 0.0
    recording: int | None = None
    method: str | None = None
    url: str = ""
    status: int | None = None
    headers: list[tuple[str, str]] = []
    text: str | None = None
    base64: bytes | None = None
    end: str | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


def replay(
    path: str | os.PathLike[str], *, speed: float = 1.0, questions: bool = False
) -> tuple[Reply, ...]:
    """The responses of a recording, in the order of their requests, as replies of a script.

    They bring the same bytes in the same reads, ``speed`` times as fast as then: ``math.inf`` is
    without a pause. An exchange that the client had left is silent behind what it had read. With
    ``questions`` they are those to GET requests, for ``settlements=``, else all others.

    Raises ``ValueError``, which says where, for a file that is no recording, and for an exchange
    whose body was not recorded whole; ``OSError`` for one that can't be read.
    """
    if not speed > 0:
        raise ValueError("speed must be above 0")
    exchanges: dict[int, list[_Line]] = {}
    for number, line in _lines(Path(path)):
        if line.method is not None:
            exchanges[line.n] = []
        elif line.n not in exchanges:
            raise ValueError(f"line {number}: there is no exchange {line.n}")
        exchanges[line.n].append(line)
    wanted = (e for _, e in sorted(exchanges.items()) if (e[0].method == "GET") is questions)
    return tuple(_reply_of(lines, speed) for lines in wanted)


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    with path.open("rb") as file:
        number = 0
        while data := file.readline(MAX_LINE + 1):
            number += 1
            if len(data) > MAX_LINE:
                raise ValueError(f"line {number} has more than {MAX_LINE:,} bytes")
            if not data.endswith(b"\n") and number > 1:
                return  # torn: whoever wrote it was stopped
            try:
                line = _decode_line(data)
            except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                raise ValueError(f"line {number} is not of a recording") from exc
            if number == 1 and line.recording != 1:
                raise ValueError("this is no recording, or one of another version")
            if number > 1:
                yield number, line
    if not number:
        raise ValueError("this is no recording: it is empty")


def _reply_of(lines: list[_Line], speed: float) -> Reply:
    opening, *rest = lines
    last = rest[-1] if rest else opening
    if last.end in ("limit", "compressed"):
        raise ValueError(f"exchange {opening.n} was not recorded whole: {last.end}")
    head = rest[0] if rest and rest[0].status is not None else None
    if head is None:
        if last.end in (None, "left"):
            return Reply(wait=hang)
        return Reply(error=_error(last.end or ""))
    steps: list[Step] = []
    at = head.t
    for line in rest[1:]:
        if line.t > at and math.isfinite(speed):
            steps.append((line.t - at) / speed)
        at = max(at, line.t)
        if line.text is not None or line.base64 is not None:
            steps.append(line.base64 or (line.text or "").encode())
    if last.end is None or last.end == "left":
        steps.append(hang)
    elif last.end != "complete":
        steps.append(eof if last.end == "RemoteProtocolError" else reset)
    assert head.status is not None
    headers: dict[str, str] = {}
    for name, value in head.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    coded = headers.pop("transfer-encoding", None)
    closes = "close" in headers.pop("connection", "").lower()
    return Reply(
        steps=tuple(steps),
        status=head.status,
        headers=headers,
        wait=head.t / speed,
        framing="close" if closes and not coded else "chunked",
        keep_alive=not closes,
    )


def _error(name: str) -> Exception:
    kind = getattr(httpx, name, None)
    if isinstance(kind, type) and issubclass(kind, httpx.TransportError):
        return kind("the recorded connection failed")
    return httpx.ConnectError(f"the recorded connection failed: {name}")
