"""Scripted HTTP servers on loopback sockets, one script for each connection, and their clients.

A script is an async function that is given the server's end of a connection, with or without TLS.
"""

from __future__ import annotations

import gc
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import httpx
import httpx2
import trio
import trio.testing

from trio_minillm._http.brought import as_httpx
from trio_minillm._http.transport import TrioTransport

from .certificates import certified, trusting

SOON = 30.0
"""Seconds after which a test that hangs is ended. Nothing waits for it; on a busy machine, and with the
branches counted, the longest took over 10."""


class Request(NamedTuple):
    """Request that a server received."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def header(self, name: str) -> bytes | None:
        found = re.search(rb"(?mi)^%s: *(.*?)\r?$" % name.encode(), self.head)
        return found[1] if found else None


class Peer:
    """The server's end of one connection, perhaps with TLS on it."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self.server = server
        self.stream = stream
        self.data = bytearray()
        self.tls: ssl.SSLObject | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    async def shake_hands(self, context: ssl.SSLContext, *, flush: bool = True) -> None:
        """Without ``flush`` the session tickets, the last of it, are left in ``outgoing``."""
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.stream.send_all(self.outgoing.read())
            self.incoming.write(await self.stream.receive_some())
            if not self.incoming.pending:
                raise trio.BrokenResourceError
        if flush:
            await self.stream.send_all(self.outgoing.read())

    def wrapped(self, *records: bytes) -> bytes:
        """The bytes on the wire, each as one record."""
        if self.tls is None:
            return b"".join(records)
        for record in records:
            self.tls.write(record)
        return self.outgoing.read()

    def farewell(self) -> bytes:
        """TLS's close_notify, if there is TLS."""
        if self.tls is None:
            return b""
        with suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def send(self, *records: bytes) -> None:
        await self.stream.send_all(self.wrapped(*records))

    async def receive(self) -> bytes:
        """More of what the client sends, ``b""`` at its end."""
        while True:
            if self.tls is not None:
                with suppress(ssl.SSLWantReadError):
                    return self.tls.read(1 << 20)
            data = bytes(await self.stream.receive_some(1 << 20))
            if self.tls is None or not data:
                return data
            self.incoming.write(data)

    async def until(self, end: bytes) -> bytes:
        """Return the bytes up to and with ``end``, or ``b""`` if it does not come."""
        start = 0
        while (at := self.data.find(end, start)) < 0:
            start = max(0, len(self.data) - len(end))
            more = await self.receive()
            if not more:
                return b""
            self.data += more
        return self.take(at + len(end))

    def take(self, size: int) -> bytes:
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    async def exactly(self, size: int) -> bytes:
        while len(self.data) < size:
            more = await self.receive()
            if not more:
                raise trio.BrokenResourceError
            self.data += more
        return self.take(size)

    async def head(self) -> Request | None:
        """The next request without its body; None when there is no more."""
        head = await self.until(b"\r\n\r\n")
        if not head:
            return None
        request = Request(head, b"")
        self.server.requests.append(request)
        return request

    async def body_of(self, request: Request) -> bytes:
        if request.header("transfer-encoding") == b"chunked":
            pieces = []
            while size := int((await self.until(b"\r\n"))[:-2] or b"-1", 16):
                if size < 0:
                    raise trio.BrokenResourceError
                pieces.append(await self.exactly(size))
                assert await self.exactly(2) == b"\r\n"
            assert await self.exactly(2) == b"\r\n"
            return b"".join(pieces)
        return await self.exactly(int(request.header("content-length") or b"0"))

    async def request(self) -> Request | None:
        """The next request; None when there is no more."""
        request = await self.head()
        if request is not None:
            request = request._replace(body=await self.body_of(request))
            self.server.requests[-1] = request
        return request

    async def reply(self, body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> None:
        lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
        await self.send(b"\r\n".join([*lines, b"", b""]) + body)

    async def close(self) -> None:
        """Hang up, with TLS's word for it."""
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(self.farewell())
        await trio.aclose_forcefully(self.stream)

    async def half_close(self) -> None:
        """Say that nothing more will come, and go on listening."""
        await self.stream.send_all(self.farewell())
        await self.stream.send_eof()

    def reset(self) -> None:
        """Hang up so that the client's next read fails."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs a script for every connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.script = script
        self.context = context
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.go = trio.Event()
        """For scripts that wait for the test."""
        self._changed = trio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.port}/"

    async def run(self, task_status: Any) -> None:
        serve = partial(trio.serve_tcp, self.serve, 0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(serve)
            self.port = listener.socket.getsockname()[1]
            task_status.started()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self._count(1)
        peer = Peer(self, stream)
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                if self.context is not None:
                    await peer.shake_hands(self.context)
                await self.script(peer)
                if peer.stream.socket.fileno() >= 0:
                    await peer.close()
        finally:
            await trio.aclose_forcefully(stream)
            self._count(-1)

    def _count(self, change: int) -> None:
        self.open += change
        self._changed.set()
        self._changed = trio.Event()

    async def left_with(self, most: int) -> None:
        """Wait until no more than so many connections are left."""
        with trio.fail_after(SOON):
            while self.open > most:
                await self._changed.wait()


@asynccontextmanager
async def serving(
    script: Script, *, tls: bool | ssl.SSLContext = False, seconds: float = 2 * SOON
) -> AsyncIterator[Server]:
    context = certified() if tls is True else tls or None
    server = Server(script, context)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        with trio.fail_after(seconds):
            yield server
        nursery.cancel_scope.cancel()


async def answering(peer: Peer) -> None:
    """Answers every request with ``ok``."""
    while await peer.request():
        await peer.reply()


async def hanging(peer: Peer) -> None:
    """Reads all, and never answers."""
    while await peer.receive():
        pass


def saying(*records: bytes) -> Script:
    """Answers one request with these bytes, each written on its own, and hangs up."""

    async def script(peer: Peer) -> None:
        if await peer.request():
            for record in records:
                await peer.send(record)
                await trio.lowlevel.checkpoint()

    return script


def ours(**options: Any) -> TrioTransport:
    return TrioTransport(**{"verify": trusting(), **options})


def theirs(*, max_connections: int | None = None) -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=max_connections)
    return httpx.AsyncHTTPTransport(verify=trusting(), limits=limits, trust_env=False)


def newer(*, max_connections: int | None = None) -> httpx.AsyncBaseTransport:
    """That of httpx2, as a client of ours uses it."""
    limits = httpx2.Limits(max_connections=max_connections)
    return as_httpx(httpx2.AsyncHTTPTransport(verify=trusting(), limits=limits, trust_env=False))


def client_of(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)


async def in_steps(peer: Peer) -> None:
    """Answers any request in several writes."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    while await peer.request():
        for part in (head[:20], head[20:] + b"3\r\n", b"abc\r\n", b"3\r\ndef\r\n0\r\n\r\n"):
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(part)


async def dying_often(peer: Peer) -> None:
    """Answers one request, and hangs up behind the second."""
    await peer.request()
    await peer.reply(b"abcdef")
    await peer.request()


def open_sockets() -> int:
    """Return how many sockets of this process are open."""
    gc.collect()
    return sum(1 for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() >= 0)
