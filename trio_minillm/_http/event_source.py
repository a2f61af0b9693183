"""Exchanges over an answer that another client has received."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import httpx

from .exchange import Outgoing
from .httpx_exchange import HttpxExchange


class _ServerSentEvent(Protocol):
    @property
    def event(self) -> str: ...
    @property
    def data(self) -> str: ...


class _EventSource(Protocol):
    @property
    def response(self) -> httpx.Response: ...


EventSource: TypeAlias = (
    httpx.Response | _EventSource | AsyncIterable["bytes | str | _ServerSentEvent"]
)
"""A streamed response of httpx's that was not read; an ``EventSource`` of httpx-sse's around one; or
an async iterable of the body: its bytes or text, cut anywhere, or server-sent events."""


def exchange_over(source: EventSource) -> tuple[HttpxExchange, str]:
    """Return an exchange that has this answer, and the URL that was asked, if it is known.

    Raises ``TypeError`` for a source of another kind.
    """
    response = getattr(source, "response", source)
    if not isinstance(response, httpx.Response):
        if not isinstance(source, AsyncIterable):
            raise TypeError("the source is neither a response nor an async iterable")
        response = httpx.Response(200, stream=_Given(source))

    async def send(_: Outgoing) -> httpx.Response:
        return response

    with suppress(RuntimeError):  # it was made without a request
        return HttpxExchange(send), str(response.request.url)
    return HttpxExchange(send), ""


class _Given(httpx.AsyncByteStream):
    """An iterable as the body of a response."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = aiter(source)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        item = await anext(self._source)
        if isinstance(item, bytes | bytearray):
            return bytes(item)
        return item.encode() if isinstance(item, str) else _wire_of(item)

    async def aclose(self) -> None:
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()


def _wire_of(event: _ServerSentEvent) -> bytes:
    lines = [f"event: {event.event}"] if event.event else []
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()
