"""Requests that are answered before they are sent, on each way that a request takes."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm._http.exchange import Exchange
from trio_minillm._http.httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.roundtrip import AHEAD_BYTES
from trio_minillm._http.trio_exchange import TrioExchange

from ..support.certificates import trusting
from ..support.peers import (
    SOON,
    Peer,
    answering,
    client_of,
    open_sockets,
    ours,
    serving,
    theirs,
)
from ..support.streams import cancelled_at

MUCH = b"x" * 12_000_000
"""More than the sockets of both sides hold."""
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
COMMENT = b"3\r\n:a\n\r\n"

both = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answered_at_once(peer: Peer) -> None:
    """Begins to answer before it reads the body, and ends when it has all."""
    while request := await peer.head():
        await peer.send(HEAD, COMMENT)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(chunk(b"data: early\n\n"))
        body = await peer.body_of(request)
        await peer.send(chunk(b"data: %d\n\n" % len(body)), b"0\r\n\r\n")


ALL = b":a\ndata: early\n\ndata: %d\n\n" % len(MUCH)


async def read(exchange: Exchange, url: str, body: bytes = MUCH) -> bytes:
    answer = b""
    try:
        await exchange.start(url, {}, body)
        while data := await exchange.receive():
            answer += data
    finally:
        await exchange.close()
    return answer


@both
async def test_an_early_success_does_not_end_the_request(tls: bool) -> None:
    async with serving(answered_at_once, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        for _ in range(2):  # the connection is used again
            assert await read(TrioExchange(pool), server.url) == ALL
        assert server.connections == 1
        assert pool.statistics().idle == 1
        pool.close()
        for transport in (ours(), theirs()):
            async with transport, client_of(transport) as client:
                for send in (
                    partial(send_by_transport, transport),
                    partial(send_by_client, client),
                ):
                    assert await read(HttpxExchange(send), server.url) == ALL


@both
async def test_the_rest_goes_out_while_the_response_is_read(tls: bool) -> None:
    """The head is handed on at once, and reading is not left to others before all is sent."""
    told: list[str] = []
    async with serving(answered_at_once, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        exchange = TrioExchange(pool)
        await exchange.start(server.url, {}, MUCH, on_progress=told.append)
        assert (exchange.status, exchange.sending, exchange.direct) == (200, True, False)
        assert exchange.resumable
        assert "http11.send_request_body.complete" not in told
        answer = b""
        while data := await exchange.receive():
            answer += data
        assert answer == ALL
        assert not exchange.sending
        assert told[-1] == "http11.send_request_body.complete"
        assert set(told[3:-1]) == {"http11.send_request_body.progress"}
        await exchange.close()
        pool.close()


async def refused_at_once(peer: Peer) -> None:
    await peer.head()
    await peer.reply(b"no", status=b"413 Too Large")
    await peer.server.go.wait()  # neither reads nor hangs up


async def whole_and_deaf(peer: Peer) -> None:
    await peer.head()
    await peer.reply(b"yes")
    await peer.server.go.wait()


async def broken_off(peer: Peer) -> None:
    await peer.head()
    await peer.reply(b"yes")


@both
@pytest.mark.parametrize(
    ("script", "answer"),
    [(refused_at_once, b"no"), (whole_and_deaf, b"yes"), (broken_off, b"yes")],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_connection_on_which_a_request_was_not_sent_whole_takes_no_other(
    script: Any, answer: bytes, tls: bool
) -> None:
    async with serving(script, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        assert await read(TrioExchange(pool), server.url) == answer
        assert (pool.statistics().idle, pool.statistics().active) == (0, 0)
        server.go.set()
        pool.close()


@both
async def test_a_connection_that_ends_in_the_upload_is_an_error(tls: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()

    async with serving(script, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        with pytest.raises(llm.SendError):
            await read(TrioExchange(pool), server.url)
        pool.close()


@both
async def test_an_answer_that_is_cut_in_the_upload_is_no_whole_one(tls: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD, COMMENT)

    async with serving(script, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        with pytest.raises(llm.ConnectionCut):
            await read(TrioExchange(pool), server.url)
        assert pool.statistics().active == 0
        pool.close()


async def test_a_body_that_is_still_being_made_is_sent_before_the_head_is_handed_on() -> None:
    async def pieces() -> Any:
        for start in range(0, len(MUCH), 1 << 20):
            yield MUCH[start : start + (1 << 20)]

    async with serving(answered_at_once) as server:
        async with client_of(ours()) as client:
            response = await client.post(server.url, content=pieces())
            assert response.content == ALL


async def test_what_comes_while_a_body_is_being_made_is_bounded() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.head()
        assert request is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, HEAD, *[chunk(b"y" * (1 << 20))] * 8)
            await peer.body_of(request)
        await peer.send(b"0\r\n\r\n")

    held: list[int] = []

    async def pieces() -> Any:
        for start in range(0, len(MUCH), 1 << 20):
            held.append(sum(map(len, body._parser.pieces)))
            yield MUCH[start : start + (1 << 20)]

    async with serving(script) as server, ours() as transport:
        url = httpx.URL(server.url)
        request = httpx.Request("POST", url, content=pieces())
        with pytest.MonkeyPatch.context() as patch:
            from trio_minillm._http import transport as module

            class Seen(module.Roundtrip):
                def __init__(self, pool: ConnectionPool) -> None:
                    nonlocal body
                    super().__init__(pool)
                    body = self

            body: Any = None
            patch.setattr(module, "Roundtrip", Seen)
            response = await transport.handle_async_request(request)
        assert max(held) <= AHEAD_BYTES + 64 * 1024
        assert len(await response.aread()) == 8 << 20
        await response.aclose()


async def answered_slowly(peer: Peer) -> None:
    request = await peer.head()
    assert request is not None
    await peer.send(HEAD, COMMENT)
    body = await peer.body_of(request)
    for part in (chunk(b"%d" % len(body)), b"0\r\n\r\n"):
        await peer.send(part)


@both
async def test_cancelled_at_any_step_nothing_is_left(tls: bool) -> None:
    before = open_sockets()
    body = b"x" * 3_000_000
    async with serving(answered_slowly, tls=tls, seconds=60) as server:
        step, cancelled = 0, True
        while cancelled:
            step += 1
            pool = ConnectionPool(verify=trusting())
            with trio.fail_after(SOON):
                cancelled = await cancelled_at(step, read, TrioExchange(pool), server.url, body)
            assert pool.statistics().active == 0
            pool.close()
            await server.left_with(0)
    assert step > 8
    assert open_sockets() == before


@both
async def test_a_read_that_is_cancelled_while_the_request_goes_out_loses_nothing(tls: bool) -> None:
    async with serving(answered_at_once, tls=tls) as server:
        pool = ConnectionPool(verify=trusting())
        exchange, answer, cancelled = TrioExchange(pool), b"", 0
        await exchange.start(server.url, {}, MUCH)
        while True:
            with trio.CancelScope() as scope:
                if exchange.sending and not cancelled % 2:
                    scope.cancel()
                data = await exchange.receive()
                if not data:
                    break
                answer += data
            cancelled += 1
        assert answer == ALL
        await exchange.close()
        assert pool.statistics().idle == 1
        pool.close()


async def test_a_small_request_that_goes_out_at_once_is_told_in_one_event() -> None:
    told: list[str] = []
    async with serving(answering) as server:
        pool = ConnectionPool()
        exchange = TrioExchange(pool)
        await exchange.start(server.url, {}, b"{}", on_progress=told.append)
        await exchange.close()
        pool.close()
    assert [event.rpartition("_")[2] for event in told[2:]] == ["body.complete"]


@pytest.mark.parametrize("make", [ours, theirs])
async def test_progress_is_told_whoever_sends(make: Any) -> None:
    told: list[str] = []
    async with serving(answering) as server, make() as transport:
        exchange = HttpxExchange(partial(send_by_transport, transport))
        await exchange.start(server.url, {}, MUCH, on_progress=told.append)
        assert await exchange.receive() == b"ok"
        await exchange.close()
    assert told.count("http11.send_request_body.progress") > 10
    first = told.index("http11.send_request_body.progress")
    assert told.index("http11.send_request_headers.started") < first
    assert told.index("http11.send_request_body.complete") > first
