"""Exchanges over an answer that another client has received.

The body of a response is read as it came, also where httpx-sse's ``EventSource`` is around it: its own
events are never asked for. They would come only behind a blank line, not behind the end of the body;
a byte-order mark would cost the first; and a content type other than ``text/event-stream`` would cost
them all, the report of a failure included.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import httpx

from .._types.errors import ProtocolError
from .exchange import Outgoing
from .httpx_exchange import HttpxExchange


class _ServerSentEvent(Protocol):
    @property
    def event(self) -> str: ...
    @property
    def data(self) -> str: ...


if TYPE_CHECKING:
    import httpx2
    import httpx_sse

    _Body: TypeAlias = AsyncIterable[bytes | str | _ServerSentEvent]
    _Response: TypeAlias = httpx.Response | httpx2.Response
    EventSource: TypeAlias = httpx_sse.EventSource | httpx2.EventSource | _Response | _Body
    """An ``EventSource`` of httpx-sse's or httpx2's; the response of the one or the other, not read yet or
    read whole; or an async iterable of the body: its bytes or text, cut anywhere, or server-sent events."""


def exchange_over(source: EventSource) -> tuple[HttpxExchange, httpx.Request | None]:
    """Return an exchange that has this answer, and the request that was sent, if it is known.

    Raises ``TypeError`` for a source of another kind, and ``ValueError`` for a response of which
    something was consumed that is not there any more.
    """
    response = _response_in(source)
    if response is None:
        if not isinstance(source, AsyncIterable):
            raise TypeError("the source is neither a response nor an async iterable")
        response = httpx.Response(200, stream=_Given(source))
    elif response.is_stream_consumed or response.is_closed:
        response = _read_before(response)

    async def send(_: Outgoing) -> httpx.Response:
        return response

    return HttpxExchange(send), _request_of(response)


def _request_of(response: httpx.Response) -> httpx.Request | None:
    with suppress(RuntimeError):  # it was made without a request
        return response.request
    return None


def _response_in(source: object) -> httpx.Response | None:
    """Return the response that is the source, or that an ``EventSource`` or the like is around."""
    response: Any = getattr(source, "response", source)
    if isinstance(response, httpx.Response):
        return response
    newer = sys.modules.get("httpx2")  # a program that has such a response has imported it
    if newer is not None and isinstance(response, newer.Response):
        from .httpx2_bridge import received_by

        return received_by(response)
    return None


def address_of(source: EventSource) -> str:
    """Return the address that was asked, without its query; an empty text if it is not known."""
    response = _response_in(source)
    asked = None if response is None else _request_of(response)
    return "" if asked is None else str(asked.url).partition("?")[0]


def _read_before(response: httpx.Response) -> httpx.Response:
    """Return a response with the body that another has, who read it whole."""
    try:
        body = response.content
    except httpx.ResponseNotRead:
        raise ValueError(
            "the response was already read or closed: pass it unread, inside `http.stream(…)`"
        ) from None
    headers = [(k, v) for k, v in response.headers.multi_items() if k not in _OF_THE_BODY]
    again = httpx.Response(response.status_code, headers=headers, stream=_Given(_once(body)))
    if (asked := _request_of(response)) is not None:
        again.request = asked
    return again


_OF_THE_BODY = frozenset(("content-encoding", "content-length", "transfer-encoding"))
"""Headers that say how a body was sent, which is undone once it was read."""


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


class _Given(httpx.AsyncByteStream):
    """An iterable as the body of a response."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = aiter(source)
        self._lines = _Lines() if getattr(source, "__name__", "") == "aiter_lines" else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            item = await anext(self._source)
        except Exception as exc:
            failure = _failure_of(exc)
            if failure is None:
                raise
        else:
            return self._bytes_of(item)
        raise failure

    def _bytes_of(self, item: Any) -> bytes:
        if isinstance(item, bytes | bytearray):
            return bytes(item)
        if self._lines is not None and isinstance(item, str):
            item = self._lines.add(item)
        return item.encode() if isinstance(item, str) else _wire_of(item)

    async def aclose(self) -> None:
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()


def _failure_of(exc: Exception) -> Exception | None:
    """Return the failure of a source that httpx or httpx2 tells of, as one of httpx's or of ours;
    ``None`` for any other exception.
    """
    if isinstance(exc, httpx.TransportError):
        import httpx_sse  # most programs have no use for it

        return ProtocolError(_OTHER_TYPE) if isinstance(exc, httpx_sse.SSEError) else exc
    newer = sys.modules.get("httpx2")
    if newer is None:
        return None
    from .httpx2_bridge import ERRORS, as_httpx_error

    if isinstance(exc, newer.SSEError):
        return ProtocolError(_OTHER_TYPE)
    return as_httpx_error(exc) if isinstance(exc, ERRORS) else None


_OTHER_TYPE = "the response is not an event stream: it has another content type"


class _Lines:
    """httpx's lines, with their ends put back.

    httpx also cuts at ends that are none in an event stream (U+2028, U+0085), which JSON may hold as
    they are. So data end where a blank line or another field follows.
    """

    def __init__(self) -> None:
        self._in_data = False

    def add(self, line: str) -> str:
        field = line.partition(":")[0] in _FIELDS
        before = "" if not self._in_data else "\n" if field or not line else "\u2028"
        self._in_data = line.startswith("data:") or (self._in_data and before == "\u2028")
        return before + line + ("" if self._in_data else "\n")


_FIELDS = frozenset(("", "data", "event", "id", "retry", "error"))


def _wire_of(event: _ServerSentEvent) -> bytes:
    if not (hasattr(event, "event") and isinstance(getattr(event, "data", None), str)):
        kind = type(event).__name__
        raise TypeError(
            f"the source yielded a {kind}, which is neither bytes, text, nor a server-sent event"
        )
    lines = [f"event: {event.event}"] if event.event else []
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()
