"""The seam to HTTP: one exchange over an httpx client, in bytes and in our errors.

httpx is spoken here and in `_client` only. A transport of another make takes the place of
httpx's own below this (``open_client(transport=…)``), and nothing above this changes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx
import trio

from .._types.errors import (
    ConnectionCut,
    ErrorInfo,
    MiniLLMError,
    ProtocolError,
    RefusedError,
    SendError,
)
from .roundtrip import Roundtrip
from .transport import BODY

SHORT_BODY = 64 * 1024
"""How much of a body that is no stream is read, in bytes."""
SHORT_BODY_SECONDS = 10.0
"""How long that may take; what has come by then must do."""
DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.25
"""What is read on after the answer's end, so that the connection can be used again. The rest
of a well-behaved body (``[DONE]``, the last chunk) comes with the end or right behind it."""
PIECES_IN_A_READ = 16_384
"""More HTTP chunks than can lie in one read of 64 KiB, since each takes 6 bytes at least."""
CLOSE_SECONDS = 1.0
"""How long closing a connection may take before it is left to the operating system."""


_FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    UnicodeError,  # a host that is no name for IDNA
)
"""What httpx, or a transport, may raise."""


def _translated(exc: Exception, *, begun: bool) -> MiniLLMError:
    """Foreign errors become ours, in one place; the caller keeps the cause."""
    if isinstance(exc, httpx.RemoteProtocolError) and "location header" in str(exc):
        return _redirected_nowhere()
    if isinstance(exc, httpx.RemoteProtocolError) and not begun and "disconnect" not in str(exc):
        # It did answer, and may have begun to work: asking again is not safe.
        return ProtocolError(f"the response is not HTTP: {_own_words(exc)}")
    words = f"{type(exc).__name__}: {_own_words(exc)}" if str(exc) else type(exc).__name__
    if begun:
        return ConnectionCut(f"the connection broke: {words}")
    return SendError(f"the request could not be sent: {words}")


def _redirected_nowhere() -> RefusedError:
    """What httpx makes of a redirect: it reads the address though it is told to follow none."""
    message = "the server redirects, to an address that is none; not followed"
    return RefusedError(ErrorInfo(message=message, kind="invalid"))


def _own_words(exc: Exception) -> str:
    """What a transport says, without the bytes of the server's that h11 quotes behind it."""
    text = str(exc)
    quotes = isinstance(exc, httpx.RemoteProtocolError)
    return re.split(r"[:,]? *(?:bytearray\(|b['\"])", text)[0] if quotes else text


def _cause(exc: Exception) -> Exception | None:
    """What a foreign error leaves of itself: neither what a server said, nor frames, which would
    show the request to whatever prints local variables, and keep it.
    """
    if isinstance(exc, httpx.RemoteProtocolError | httpx.InvalidURL):
        return None
    one: BaseException | None = exc
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return exc


class _Bytes(httpx.AsyncByteStream):
    """A request body whose iterator is a plain object: httpx's own is an async generator, and
    a send that is cancelled leaves it to the garbage collector.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._data)


class _Once:
    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if data is None:
            raise StopAsyncIteration
        return data


class _Inflate:
    """Decompression in steps of bounded size, whatever a few bytes may blow up to.

    Requests ask for no compression, since it holds chunks back; this is for servers and
    proxies that compress all the same.
    """

    STEP = 64 * 1024

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding != "deflate"
        # gzip or zlib, by its header; some servers' `deflate` has none.
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._begun = False
        self._broken: ProtocolError | None = None  # came behind bytes that were handed out

    @classmethod
    def of(cls, encoding: str) -> _Inflate | None:
        """What undoes a ``content-encoding``. Raises `ProtocolError` for an unknown one."""
        name = encoding.strip().lower()
        if name in ("", "identity"):
            return None
        if name in ("gzip", "x-gzip", "deflate"):
            return cls(name)
        raise ProtocolError("the body is compressed in a way that was not asked for")

    async def receive(self, source: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next decompressed bytes, ``b""`` at the end."""
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
            data = self._zlib.decompress(compressed, self.STEP)
        except zlib.error:
            if self._begun or self._gzip:
                self._broken = ProtocolError("the body's compression is broken")
                return self._before_the_fault(before, compressed)
            self._begun = True
            self._zlib = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            return self._step(compressed)
        self._begun = True
        return data

    def _before_the_fault(self, state: Any, compressed: bytes) -> bytes:
        """What a read brought before its compression broke: zlib gives all of it or none, so that
        the place is found by halves.
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


class Exchange:
    """One request and its response. Not reusable; `close` must be awaited, always."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.status: int = 0
        self.headers: Mapping[str, str] = {}
        """The response's headers, by their names in lower case."""
        self._close: Callable[[], Awaitable[None]] | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._ours: Roundtrip | None = None  # its reads and its closing are as we need them
        self._roundtrip: Roundtrip | None = None  # if it is that one itself
        self._ended = False
        self._inflate: _Inflate | None = None
        self._unreadable: ProtocolError | None = None

    async def start(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Send, and wait for the response's headers. Raises `SendError`.

        ``on_progress`` is told the transport's trace events (``connection.…``,
        ``….send_request_body.complete``), on transports that have any.
        """

        async def trace(event: str, info: object) -> None:
            on_progress(event)

        request = None
        try:
            request = self._client.build_request(
                method,
                url,
                headers=dict(headers),
                content=body,
                timeout=None,  # all clocks are ours
                extensions={"trace": trace},
            )
            request.stream = _Bytes(body)
            headers, body = {}, b""  # or this frame would show them, and keep the prompt
            response = await self._client.send(request, stream=True, follow_redirects=False)
        except _FOREIGN as exc:
            failure, cause = _translated(exc, begun=False), _cause(exc)
            if request is not None and isinstance(exc, httpx.InvalidURL):
                failure = _redirected_nowhere()
        else:
            self._answered(response)
            return
        raise failure from cause  # out here, so that `exc` is not its context

    def _answered(self, response: httpx.Response) -> None:
        # httpx's own iterators are more async generators on top of this one, and the only thing
        # that they add is decompression.
        stream = response.extensions.get(BODY)
        self._ours = stream
        self._roundtrip = stream if isinstance(stream, Roundtrip) else None
        # A stream of hours need not keep httpx's response and request, some 4 KiB and a prompt.
        self._close = response.aclose if stream is None else stream.aclose
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._body = aiter(response.stream)
        self.status, self.headers = response.status_code, dict(response.headers.items())
        try:
            self._inflate = _Inflate.of(self.headers.get("content-encoding", ""))
        except ProtocolError as exc:
            self._unreadable = exc  # a status must not be lost to its body

    @property
    def resumable(self) -> bool:
        """Whether a `receive` that was cancelled has lost nothing, and can be called again."""
        return self._inflate is None and self._ours is not None

    @property
    def direct(self) -> bool:
        """Whether any task may wait for the body (`readable`) and take what is there
        (`receive_now`), without a scope of this one's around it.
        """
        body = self._roundtrip
        return body is not None and body.direct and self._inflate is None

    @property
    def silent(self) -> bool:
        """Whether nothing came that was not taken."""
        return self._roundtrip is not None and self._roundtrip.silent

    def readable(self) -> Awaitable[None]:
        """Wait until `receive_now` has an answer. A checkpoint; raises ``OSError``, ``ValueError`` or
        `trio.ClosedResourceError` where the connection is gone: `receive_now` says why.
        """
        assert self._roundtrip is not None
        return self._roundtrip.readable()

    def receive_now(self) -> bytes | None:
        """As `receive`, of what is there; None if nothing is. Only where it is `direct`."""
        assert self._roundtrip is not None
        try:
            return self._roundtrip.receive_now()
        except _FOREIGN as exc:
            failure, cause = _translated(exc, begun=True), _cause(exc)
        raise failure from cause

    async def receive(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end. Raises `ConnectionCut`."""
        if self._unreadable is not None:
            raise self._unreadable
        if self._inflate is not None:
            return await self._inflate.receive(self._receive)
        if self._ours is None:
            return await self._receive()
        try:
            return await self._ours.receive()
        except _FOREIGN as exc:
            failure, cause = _translated(exc, begun=True), _cause(exc)
        raise failure from cause

    async def _receive(self) -> bytes:
        """The same, as it is on the wire."""
        assert self._body is not None
        try:
            while not (data := await anext(self._body)):
                pass
            return data
        except StopAsyncIteration:
            self._ended = True
            return b""
        except _FOREIGN as exc:
            failure, cause = _translated(exc, begun=True), _cause(exc)
        raise failure from cause

    async def short_body(self, seconds: float) -> bytes:
        """The start of a body that is read whole: an error's, or a settlement's. Bounded in bytes
        and in time; never raises ours.
        """
        pieces: list[bytes] = []
        size = 0
        with trio.move_on_after(min(seconds, SHORT_BODY_SECONDS)):
            try:
                while size < SHORT_BODY and (data := await self.receive()):
                    pieces.append(data)
                    size += len(data)
            except MiniLLMError:
                pass  # a broken error body still has its status to report
        return b"".join(pieces)[:SHORT_BODY]

    async def drain(self) -> None:
        """Read the body's rest, if it is short and quick, so that the connection is kept."""
        if self._roundtrip is not None and self._roundtrip.ended:
            return  # it came with the answer's end, as it mostly does
        size = 0
        with trio.move_on_after(DRAIN_SECONDS):
            try:
                while size < DRAIN_BYTES and (data := await self.receive()):
                    size += len(data)
            except MiniLLMError:
                pass  # the answer is whole; what breaks now breaks nothing

    async def close(self) -> None:
        """Give the connection back, or close it. Shielded and bounded; safe to call always."""
        if self._close is None:
            return
        if self._ours is not None:  # does not wait
            with suppress(*_FOREIGN):
                await self._close()
            return
        with trio.CancelScope(shield=True) as bound:
            bound.deadline = trio.current_time() + CLOSE_SECONDS
            with suppress(*_FOREIGN):
                if not self._ended and isinstance(self._body, AsyncGenerator):
                    await self._unwind()
                await self._close()

    async def _unwind(self) -> None:
        """End the body's generators from the inside.

        httpx nests six async generators around the socket. Leaving the outermost abandons
        the others to the garbage collector (ResourceWarnings, clean-up in a foreign task). A
        read that is cancelled at the socket ends them all in order, so make one.
        """
        assert self._body is not None
        with trio.CancelScope() as scope, suppress(StopAsyncIteration, *_FOREIGN):
            scope.cancel()
            for _ in range(PIECES_IN_A_READ):  # what was read already comes out first
                await anext(self._body)
