"""The contract of a transport as a test over real loopback sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import trio

from .._http.brought import HTTPTransport, as_httpx
from ._loopback_server import LoopbackServer, serve
from ._script import Answer, Reply, ServedRequest, hang, raw, reply
from ._wire_answers import openai_events
from .faults import closing, cut, endless_headers, framing, length

SECONDS = 5.0
"""Seconds that each check may take; loopback needs a few milliseconds."""
AT_ONCE = 20
"""Requests at the same time."""
BIG = b"0123456789abcdef" * 64 * 1024
"""1 MiB: more than a socket's buffers take at once."""

Factory = Callable[[], HTTPTransport]


async def check_transport(factory: Factory) -> None:
    """Check that a transport can carry this library.

    ``factory`` makes a new transport of httpx's or httpx2's interface each time, which must be able
    to reach 127.0.0.1. Use Trio's real clock, or ``MockClock(autojump_threshold=0.02)``.

    The checks run over real sockets. They are: requests and responses arrive unchanged; the bytes
    of a body are available as soon as they arrive; every framing is read to its end, and an early
    end raises an ``httpx.TransportError``; a connection is reused if its body was read completely,
    and closed otherwise; cancellation at any wait raises Trio's own exception, closes the
    connection, and leaves the transport usable; closing the transport closes all its connections.

    Raises ``AssertionError``, which says what is wrong.
    """
    for clause, check in _CLAUSES.items():
        with trio.move_on_after(SECONDS) as scope:
            await check(factory)
        assert not scope.cancelled_caught, f"it hangs, where it must hold: {clause}"


@asynccontextmanager
async def _running(
    factory: Factory, *replies: Answer
) -> AsyncIterator[tuple[httpx.AsyncBaseTransport, LoopbackServer]]:
    """Yield a transport and a server, and check that no connection outlives the transport."""
    async with serve(*replies) as server:
        transport = as_httpx(factory())
        try:
            yield transport, server
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await transport.aclose()
        with trio.move_on_after(SECONDS / 2) as scope:
            await server.left_with(0)
        assert not scope.cancelled_caught, "a connection is open after aclose"


def _request(server: LoopbackServer, body: bytes = b"{}", **headers: str) -> httpx.Request:
    timeout: dict[str, float | None] = dict.fromkeys(("connect", "read", "write", "pool"))
    extensions = {"timeout": timeout}
    url = f"{server.url}/v1/x?a=%20b"
    return httpx.Request("POST", url, content=body, headers=headers, extensions=extensions)


@asynccontextmanager
async def _response(
    transport: httpx.AsyncBaseTransport, request: httpx.Request
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    """Yield a response and the pieces of its body, and close both as this library does."""
    response = await transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream), "the body is no AsyncByteStream"
    pieces = aiter(response.stream)
    try:
        yield response, pieces
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            if isinstance(pieces, AsyncGenerator):
                await _unwind(pieces)
            await response.stream.aclose()


async def _unwind(pieces: AsyncGenerator[bytes, None]) -> None:
    """Close nested generators by a cancelled read, which ends the innermost one first."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in pieces:
            pass
    await pieces.aclose()


async def _read(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> bytes:
    async with _response(transport, request) as (_, pieces):
        return b"".join([piece async for piece in pieces])


# -- the clauses of the contract -----------------------------------------------------------------


async def _transfers(factory: Factory) -> None:
    headers = {"content-type": "text/x", "x-one": "1"}
    answer = reply(b"body", status=418, headers=headers)
    async with _running(factory, answer) as (transport, server):
        request = _request(server, BIG, authorization="Bearer k")
        async with _response(transport, request) as (response, pieces):
            assert response.status_code == 418, "the status differs"
            got = {name: response.headers.get(name) for name in headers}
            assert got == headers, f"the response's headers differ: {got}"
            assert b"".join([piece async for piece in pieces]) == b"body", "the body differs"
        (sent,) = server.requests
        assert (sent.method, sent.target) == ("POST", "/v1/x?a=%20b"), "the request line differs"
        assert sent.headers.get("authorization") == "Bearer k", "the request's header differs"
        assert sent.body == BIG, "the request's body differs"


async def _streams(factory: Factory) -> None:
    async with (
        _running(factory, reply(b"first", hang)) as (transport, server),
        _response(transport, _request(server)) as (_, pieces),
    ):
        with trio.move_on_after(SECONDS / 2) as scope:
            assert await anext(pieces) == b"first", "the first bytes differ"
        assert not scope.cancelled_caught, "a body is held back until more of it comes"


async def _reads_every_framing(factory: Factory) -> None:
    whole = reply(*openai_events("a", "b"))
    body = b"".join(step for step in whole.steps if isinstance(step, bytes))
    for answer in (
        whole,
        whole | framing("length"),
        whole | framing("close"),
        whole | framing("close", http="1.0"),
        whole | closing(),
        reply(BIG, BIG),
    ):
        expected = BIG * 2 if answer.steps[0] is BIG else body
        async with _running(factory, answer) as (transport, server):
            got = await _read(transport, _request(server))
            assert got == expected, f"a body framed by {answer.framing} is another"
    async with _running(factory, reply(status=204)) as (transport, server):
        assert await _read(transport, _request(server)) == b"", "a 204 has a body"


async def _reuses_connections(factory: Factory) -> None:
    async with _running(factory, reply(b"x")) as (transport, server):
        for _ in range(3):
            await _read(transport, _request(server))
        assert len(server.connections) == 1, "an idle connection is not reused"
    async with _running(factory, reply(b"x") | closing()) as (transport, server):
        for _ in range(2):
            await _read(transport, _request(server))


async def _reports_failures(factory: Factory) -> None:
    whole = reply(b"0123456789")
    broken = {
        "is cut": whole | cut(5),
        "is reset": whole | cut(5, "reset"),
        "is shorter than announced": whole | length(5),
    }
    for how, answer in broken.items():
        async with _running(factory, answer) as (transport, server):
            got = bytearray()
            failed = False
            try:
                async with _response(transport, _request(server)) as (_, pieces):
                    async for piece in pieces:
                        got += piece
            except httpx.TransportError:
                failed = True
            except OSError as exc:
                raise AssertionError(f"a foreign {type(exc).__name__} where a body {how}") from exc
            assert failed, f"a body that {how} looks whole"
            assert whole.steps[0][: len(got)] == got, f"other bytes where a body {how}"  # type: ignore[index]
    heads = {
        "is no HTTP": raw(b"SSH-2.0-x\r\n\r\n"),
        "has no end": whole | endless_headers(),
        "never comes": raw(),
    }
    for how, answer in heads.items():
        async with _running(factory, answer) as (transport, server):
            await _fails(_read(transport, _request(server)), f"a head that {how}")
    async with serve() as server:
        request = _request(server)
    transport = as_httpx(factory())
    await _fails(_read(transport, request), "a port at which nobody listens")
    await transport.aclose()


async def _fails(doing: Awaitable[object], where: str) -> None:
    try:
        await doing
    except httpx.TransportError:
        return
    except Exception as exc:
        raise AssertionError(f"a foreign {type(exc).__name__} at {where}") from exc
    raise AssertionError(f"no error at {where}")


async def _closes_abandoned_bodies(factory: Factory) -> None:
    async with _running(factory, reply(b"x", hang), reply(b"y")) as (transport, server):
        async with _response(transport, _request(server)) as (_, pieces):
            await anext(pieces)
        await _left(server, "a body that was left")
        assert await _read(transport, _request(server)) == b"y", "the next request gets another"


async def _left(server: LoopbackServer, what: str) -> None:
    with trio.move_on_after(SECONDS / 2) as scope:
        await server.connections[0].left.wait()
    assert not scope.cancelled_caught, f"{what} keeps its connection open"


async def _can_be_cancelled(factory: Factory) -> None:
    waits = {
        "the head": reply(wait=hang),
        "the body": reply(b"x", hang),
    }
    for what, answer in waits.items():
        async with _running(factory, answer, reply(b"y")) as (transport, server):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_read, transport, _request(server, BIG))
                    await server.asked(1)
                    await trio.sleep(0.01)
                    scope.cancel()
            assert scope.cancelled_caught, f"waiting for {what} swallows a cancellation"
            await _left(server, f"a request that was cancelled waiting for {what}")
            got = await _read(transport, _request(server))
            assert got == b"y", f"after being cancelled waiting for {what} it gets another answer"


async def _does_many_at_once(factory: Factory) -> None:

    def echo(request: ServedRequest) -> Reply:
        return reply(b"<", 0.001, request.body, b">")

    async with _running(factory, echo) as (transport, server):

        async def ask(number: int) -> None:
            body = b"%d" % number
            got = await _read(transport, _request(server, body))
            assert got == b"<%s>" % body, "a request got another's answer"

        try:
            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(ask, number)
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


_CLAUSES: dict[str, Callable[[Factory], Awaitable[None]]] = {
    "a request and a response arrive as they were sent": _transfers,
    "a body's bytes are there before more of it has come": _streams,
    "a body is read to its end, by whatever framing": _reads_every_framing,
    "a connection is used again when its body was drained": _reuses_connections,
    "a failure is an httpx.TransportError, after what had arrived": _reports_failures,
    "an abandoned body closes its connection, and the next request works": _closes_abandoned_bodies,
    "cancellation raises trio.Cancelled, closes the connection, and the next request works": (
        _can_be_cancelled
    ),
    "requests at once do not get each other's answers": _does_many_at_once,
}
