"""One request and its response, in bytes and in this library's errors: what streams read from.

There are two implementations, `trio_exchange.TrioExchange` on this library's own connections and
`httpx_exchange.HttpxExchange` over any client or transport of httpx's; `connector` chooses. They
differ in how a response is obtained and in its `Body`; everything else is here.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from .._types.errors import MiniLLMError
from .failures import foreign, host_of, map_error, safe_cause
from .http1 import Headers
from .proxies import name_proxy
from .roundtrip import OnProgress
from .status_phrases import phrase_of
from .urls import URL

if TYPE_CHECKING:  # loaded by the first response that needs it
    from .decompression import Decompressor

SHORT_BODY = 64 * 1024
"""Bytes that are read of a body that is no stream: an error's, or a settlement's."""
SHORT_BODY_SECONDS = 10.0
"""Seconds that reading such a body may take; whatever has arrived by then is used."""
DRAIN_BYTES = 64 * 1024
"""Bytes that are read behind an answer's end, so that the connection can be used again."""
DRAIN_SECONDS = 0.25
"""Seconds that this may take. The rest of a well-behaved body (``[DONE]``, the last HTTP chunk)
comes with the end or right behind it."""

_log = logging.getLogger("httpx")


# -- requests ------------------------------------------------------------------------------


class Outgoing(msgspec.Struct, frozen=True):
    """A request to be sent.

    Kept as one value so that no frame has its parts as local variables: a tool that prints a
    traceback's variables would show the key and the prompt.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    on_progress: OnProgress

    def __repr__(self) -> str:
        return f"<{self.method} request>"

    def all_headers(self, host: bytes) -> Headers:
        """Return the headers, with those that HTTP demands in front if they are missing.

        Nothing else is added: what is sent is what the caller says.
        """
        given = [(k.encode("ascii"), v.encode("ascii")) for k, v in self.headers.items()]
        added = {b"host": host, b"connection": b"keep-alive"}
        if self.has_body:
            added[b"content-length"] = b"%d" % len(self.body)
        for name, _ in given:
            added.pop(name.lower(), None)
        return [*added.items(), *given]

    @property
    def has_body(self) -> bool:
        """True if the length of the body is announced, be it 0."""
        return bool(self.body) or self.method in ("POST", "PUT", "PATCH")


logs_responses: Callable[[], bool] = partial(_log.isEnabledFor, logging.INFO)
"""Returns whether `log_response` does anything."""


def log_response(
    method: str, url: URL, version: str, status: int, reason: str | None = None
) -> None:
    """Log a response as httpx does, under httpx's logger name, where no httpx client sends.

    Without a ``reason`` it has the status's registered phrase.
    """
    if logs_responses():
        phrase = phrase_of(status) if reason is None else reason
        _log.info('HTTP Request: %s %s "%s %d %s"', method, url, version, status, phrase)


def ignore_progress(event: str) -> None:
    """Take no notice of an event."""


# -- responses -----------------------------------------------------------------------------


class Body(Protocol):
    """The body of a response, as it is on the wire. What it raises is one of `foreign`."""

    @property
    def resumable(self) -> bool:
        """True if a `receive` that was cancelled has lost nothing, and can be called again."""
        ...

    @property
    def direct(self) -> bool:
        """True if `readable`, `receive_now` and `silent` can be used, by any task."""
        ...

    @property
    def sending(self) -> bool:
        """True if the request is still being sent, which `receive` does."""
        ...

    @property
    def silent(self) -> bool:
        """True if nothing is left to hand out: neither bytes nor an end nor a fault."""
        ...

    @property
    def ended(self) -> bool:
        """True once there is nothing more to read."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes, ``b""`` at the end."""
        ...

    def receive_now(self) -> bytes | None:
        """Return what `receive` would, without waiting; None if nothing is there."""
        ...

    def readable(self) -> Awaitable[None]:
        """Wait until `receive_now` has an answer."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Bounded."""
        ...


class Response(msgspec.Struct, frozen=True):
    """A response whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    """Values by the names in lower case."""
    body: Body


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Exchange(ABC):
    """One request and its response. Used once; `close` must be awaited in any case."""

    waits: bool = False
    """True if `start` returns no response before other tasks had a turn."""
    tells: bool = False
    """True if ``on_progress`` is told before `start` waits for anything but the response."""

    __slots__ = ("_body", "_decompressor", "headers", "status")

    def __init__(self) -> None:
        self.status: int = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        """The response's headers, by their names in lower case."""
        self._body: Body | None = None
        self._decompressor: Decompressor | None = None

    @abstractmethod
    def _send(self, request: Outgoing) -> Awaitable[Response]:
        """Send the request and return the response, its body unread. Raises one of `foreign`."""

    async def start(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        method: str = "POST",
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Send the request, and wait for the response's headers. A server may send them before it
        has the whole request; the rest then goes out as the body is read.

        Raises `SendError`, and `ProtocolError` for a response that is not HTTP. A status that
        refuses the request is not an error here.
        """
        request = Outgoing(method, url, headers, body, on_progress)
        headers, body = {}, b""
        try:
            response = await self._send(request)
        except foreign() as exc:
            failure = name_proxy(exc, map_error(exc, begun=False, host=host_of(url)))
            cause = safe_cause(exc)
        else:
            self.status, self._body = response.status, response.body
            headers = self.headers = response.headers
            if encoding := headers.get("content-encoding"):
                from .decompression import Decompressor

                self._decompressor = Decompressor.of(encoding, response.body.receive)
            return
        del request  # the failure's traceback has this frame, which would keep the prompt
        raise failure from cause  # out here, so that `exc` is not its context

    def adopt(self, other: Exchange) -> None:
        """Go on with the response that another exchange has got, in its place."""
        self.status, self.headers = other.status, other.headers
        self._body, self._decompressor = other._body, other._decompressor

    @property
    def resumable(self) -> bool:
        """True if a `receive` that was cancelled has lost nothing, and can be called again."""
        plain = self._decompressor is None  # a step that is cut short would lose bytes
        return plain and self._body is not None and self._body.resumable

    @property
    def direct(self) -> bool:
        """True if any task may wait for the body (`readable`) and take what is there
        (`receive_now`), with no scope around it that belongs to this exchange. Once true, it stays.
        """
        return self._decompressor is None and self._body is not None and self._body.direct

    @property
    def sending(self) -> bool:
        """True if a part of the request is still to be sent, which `receive` does."""
        return self._body is not None and self._body.sending

    @property
    def ended(self) -> bool:
        """True if there is nothing more to read, and so nothing to `drain`."""
        return self._body is None or self._body.ended

    @property
    def silent(self) -> bool:
        """True if nothing has come that was not taken; only where it is `direct`."""
        return self._body is not None and self._body.silent

    def readable(self) -> Awaitable[None]:
        """Wait until `receive_now` has an answer; only where it is `direct`. A checkpoint.

        Raises ``OSError``, ``ValueError`` or `trio.ClosedResourceError` where the connection is
        gone: `receive_now` says why.
        """
        assert self._body is not None
        return self._body.readable()

    def receive_now(self) -> bytes | None:
        """Return what `receive` would, without waiting; None if nothing is there.

        Only where it is `direct`. Raises `ConnectionCut`.
        """
        assert self._body is not None
        try:
            return self._body.receive_now()
        except foreign() as exc:
            failure, cause = map_error(exc, begun=True), safe_cause(exc)
        raise failure from cause

    async def receive(self) -> bytes:
        """Return the next bytes of the body, decompressed, ``b""`` at its end.

        Raises `ConnectionCut`, and `ProtocolError` for a compression that is broken or unknown.
        """
        assert self._body is not None
        decompressor = self._decompressor
        try:
            if decompressor is None:
                return await self._body.receive()
            data = await decompressor.receive()
            if decompressor.plain:
                self._decompressor = None
            return data
        except foreign() as exc:
            failure, cause = map_error(exc, begun=True), safe_cause(exc)
        raise failure from cause

    async def short_body(self, seconds: float) -> bytes:
        """Return the start of a body that is no stream, in UTF-8: an error's, or a settlement's.

        At most `SHORT_BODY` bytes, and what came within so many seconds, or `SHORT_BODY_SECONDS`.
        Raises no error of this library.
        """
        from .short_bodies import in_utf8, unzipped  # of refusals and settlements alone

        pieces: list[bytes] = []
        size = 0
        with trio.move_on_after(min(seconds, SHORT_BODY_SECONDS)):
            try:
                while size < SHORT_BODY and (data := await self.receive()):
                    pieces.append(data)
                    size += len(data)
            except MiniLLMError:
                pass  # a broken error body still has its status to report
        body = unzipped(b"".join(pieces)[:SHORT_BODY], SHORT_BODY)
        return in_utf8(body, self.headers.get("content-type", ""))

    async def drain(self) -> None:
        """Read the body's rest, if it is short and quick, so that the connection is kept."""
        if self.ended:
            return  # it came with the answer's end, as it mostly does
        size = 0
        with trio.move_on_after(DRAIN_SECONDS):
            try:
                while size < DRAIN_BYTES and (data := await self.receive()):
                    size += len(data)
            except MiniLLMError:
                pass  # the answer is whole; what breaks now breaks nothing

    async def close(self) -> None:
        """Give the connection back, or close it. Bounded, also when cancelled; safe to call always."""
        if self._body is not None:
            try:  # `suppress` would be an object more for each request
                await self._body.aclose()
            except foreign():
                pass
