"""An exchange whose response is at hand: a line of a vendor's results, read as a live answer is."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

import trio

from .._http.exchange import Exchange, Outgoing, Response


class CannedExchange(Exchange):
    """One response that came by another way than an answer to this request. Nothing is sent."""

    waits = True

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__()
        self._canned = Response(status, headers, _CannedBody(body))

    async def _send(self, request: Outgoing) -> Response:
        await trio.lowlevel.checkpoint()
        return self._canned


class _CannedBody:
    """A body that comes whole."""

    resumable: bool = False
    direct: bool = False
    sending: bool = False
    silent: bool = False
    ended: bool = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        data, self._data = self._data, b""
        self.ended = not data
        return data

    def receive_now(self) -> bytes | None:
        raise NotImplementedError

    def readable(self) -> Awaitable[None]:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._data = b""
