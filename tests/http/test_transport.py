"""The transport on real sockets: a contract that httpx's own keeps too, and what only ours promises.

Servers are scripts: an async function that is given one connection. Nothing here measures time;
what takes long is waited for by events, and clocks that must run out are a few hundredths of a
second, or mocked.
"""

from __future__ import annotations

import gc
import gzip
import itertools
import random
import socket
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h11
import httpx
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm._http.connection import EAGER_READS, READ_BYTES, Connection
from trio_minillm._http.http1 import ResponseParser
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.roundtrip import DIED_IDLE_SECONDS
from trio_minillm._http.transport import BODY, TrioBody, TrioTransport
from trio_minillm.testing import openai_events

from ..support.certificates import certified
from ..support.paths import TLS_FILES
from ..support.peers import (
    SOON,
    Peer,
    Script,
    Server,
    answering,
    client_of,
    dying_often,
    hanging,
    in_steps,
    newer,
    open_sockets,
    ours,
    saying,
    serving,
    theirs,
)
from ..support.streams import cancelled_at, other_task
from ..support.wires import KEY

BIG = random.Random(4).randbytes(5_000_000)
"""More than the buffers of a socket hold on loopback."""
NOW = 0.03
"""A clock of httpx's that must run out."""


# -- servers -------------------------------------------------------------------------------------


# -- clients -------------------------------------------------------------------------------------


def quiet(transport: TrioTransport, *, idle: int | None = None) -> None:
    """Nobody uses it: every count is what it must be then."""
    now = transport.statistics()
    assert (now.active, now.waiting) == (0, 0)
    assert idle is None or now.idle == idle
    if transport.pool._slots is not None:
        assert transport.pool._slots.borrowed_tokens == 0


class Raw:
    """The pieces of a body as the transport gives them, without the generators of httpx."""

    def __init__(self, body: TrioBody) -> None:
        self.body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.body.receive():
            return data
        raise StopAsyncIteration


def raw(response: httpx.Response) -> AsyncIterator[bytes]:
    return Raw(response.extensions[BODY])


async def started(client: httpx.AsyncClient, url: str, **options: Any) -> httpx.Response:
    """A response whose body is still to be read."""
    request = client.build_request(options.pop("method", "GET"), url, **options)
    return await client.send(request, stream=True)


# -- the contract --------------------------------------------------------------------------------

Use = Callable[[httpx.AsyncClient, Server], Awaitable[Any]]


class Contract(NamedTuple):
    """Clause of the contract: the client's actions, the server's script and the required result."""

    use: Use
    script: Script
    expected: Any
    theirs: Any
    """Result with httpx's own transport, where ours is stricter or does more."""
    schemes: tuple[str, ...]
    options: dict[str, Any]


CONTRACT: dict[str, Contract] = {}
SAME = object()


def contract(
    script: Script,
    expected: Any,
    *,
    theirs: Any = SAME,
    schemes: tuple[str, ...] = ("http", "https"),
    **options: Any,
) -> Callable[[Use], Use]:
    """A clause of the contract; its function returns what it saw."""

    def add(use: Use) -> Use:
        other = expected if theirs is SAME else theirs
        CONTRACT[use.__name__] = Contract(use, script, expected, other, schemes, options)
        return use

    return add


async def told(doing: Awaitable[Any]) -> Any:
    """Its result, or the name of its error, where that is one of httpx's."""
    try:
        result = await doing
    except (httpx.HTTPError, h11.LocalProtocolError) as exc:
        return type(exc).__name__  # httpcore lets h11's through in one place
    return result.text if isinstance(result, httpx.Response) else result


def seen_by(response: httpx.Response) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "version": response.http_version,
        "headers": response.headers.raw,
        "body": response.content,
    }


# httpx logs the reason phrase, and a server can put anything into it, also the key.
@contract(
    saying(b"HTTP/1.1 200 Fine\r\nX-One: 1\r\ncontent-length: 2\r\n\r\nok"), "OK", theirs="Fine"
)
async def get(client, server):
    response = await client.get(server.url + "a%20b?c=d&c=e#f", headers=[("X", "1"), ("x", "2")])
    (request,) = server.requests
    assert request.head.replace(b"%d" % server.port, b"PORT") == (
        b"GET /a%20b?c=d&c=e HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAccept: */*\r\n"
        b"Accept-Encoding: " + client.headers["accept-encoding"].encode() + b"\r\n"
        b"Connection: keep-alive\r\nUser-Agent: python-httpx/"
        + httpx.__version__.encode()
        + b"\r\n"
        b"X: 1\r\nx: 2\r\n\r\n"
    )
    assert seen_by(response) == {
        "status": 200,
        "version": "HTTP/1.1",
        "headers": [(b"X-One", b"1"), (b"content-length", b"2")],
        "body": b"ok",
    }
    return response.reason_phrase


@contract(answering, [(m, m.encode(), b"ok") for m in ("POST", "PUT", "PATCH", "DELETE", "QUERY")])
async def a_body_of_bytes(client, server):
    seen = []
    for method in ("POST", "PUT", "PATCH", "DELETE", "QUERY"):
        response = await client.request(method, server.url, content=method.encode())
        request = server.requests[-1]
        assert request.line == method.encode() + b" / HTTP/1.1"
        assert request.header("content-length") == b"%d" % len(method)
        seen.append((method, request.body, response.content))
    assert server.connections == 1
    return seen


@contract(answering, (b"0", None))
async def an_empty_body(client, server):
    await client.post(server.url, content=b"")
    await client.get(server.url)
    return tuple(request.header("content-length") for request in server.requests)


async def generated(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


@contract(answering, (b"chunked", None, b"abcdef", "ok", 1))
async def a_body_of_pieces(client, server):
    answer = await told(client.post(server.url, content=generated(b"ab", b"", b"c", b"def")))
    (request,) = server.requests
    framing = request.header("transfer-encoding"), request.header("content-length")
    await client.get(server.url)
    return (*framing, request.body, answer, server.connections)


@contract(answering, (b"", b""))
async def no_pieces(client, server):
    await client.post(server.url, content=generated())
    await client.post(server.url, content=generated(b"", b""))
    return tuple(request.body for request in server.requests)


@contract(answering, (b"6", None, b"abcdef", "ok"))
async def pieces_of_a_declared_length(client, server):
    sending = client.post(
        server.url, content=generated(b"abc", b"def"), headers={"content-length": "6"}
    )
    answer = await told(sending)
    (request,) = server.requests
    framing = request.header("content-length"), request.header("transfer-encoding")
    return (*framing, request.body, answer)


@contract(answering, ["LocalProtocolError"] * 5 + ["ok"])
async def another_length_than_declared(client, server):
    seen = []
    for declared, pieces in [
        (5, [b"abc"]),
        (5, []),
        (5, [b"abc", b"def"]),
        (2, [b"abc"]),
        (0, [b"a"]),
    ]:
        headers = {"content-length": str(declared)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # httpx's generator around ours
            seen.append(
                await told(client.post(server.url, content=generated(*pieces), headers=headers))
            )
    return [*seen, await told(client.get(server.url))]


async def half_big(peer: Peer) -> None:
    while request := await peer.request():
        await peer.reply(request.body[::-1])


@contract(half_big, True)
async def a_large_body_each_way(client, server):
    response = await client.post(server.url, content=BIG)
    chunked = await client.post(server.url, content=generated(*[BIG[:70_000]] * 10))
    assert chunked.content == (BIG[:70_000] * 10)[::-1]
    return response.content == BIG[::-1] and server.connections == 1


async def to_head(peer: Peer) -> None:
    while request := await peer.request():
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        if request.line.startswith(b"GET"):
            await peer.send(b"ok")


@contract(to_head, [(b"", "2"), (b"", "2"), (b"ok", "2"), (b"", "2")])
async def head(client, server):
    seen = []
    for method in ("HEAD", "HEAD", "GET", "HEAD"):
        response = await client.request(method, server.url)
        seen.append((response.content, response.headers["content-length"]))
    return seen


async def without_body(peer: Peer) -> None:
    for status in (
        b"204 No Content",
        b"304 Not Modified\r\ncontent-length: 9",
        b"200 OK\r\ncontent-length: 0",
    ):
        await peer.request()
        await peer.send(b"HTTP/1.1 %s\r\n\r\n" % status)
    await answering(peer)


@contract(without_body, ([(204, b""), (304, b""), (200, b""), (200, b"ok")], 1))
async def no_body(client, server):
    answers = [await client.get(server.url) for _ in range(4)]
    return [(a.status_code, a.content) for a in answers], server.connections


async def in_three(peer: Peer) -> None:
    while await peer.request():
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        await peer.server.go.wait()
        await peer.send(b"defghi")


@contract(in_three, (b"abc", "abcdefghi", 2))
async def a_response_that_is_left_in_its_middle(client, server):
    response = await started(client, server.url)
    body = response.aiter_raw()
    first = await anext(body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # httpx's generators
        await response.aclose()
        await body.aclose()
        del body
    server.go.set()
    return first, await told(client.get(server.url)), server.connections


@contract(in_three, (b"abcdefghi", 1))
async def a_response_as_it_comes(client, server):
    response = await started(client, server.url)
    body = b""
    async for piece in response.aiter_raw():
        server.go.set()
        body += piece
    await client.get(server.url)
    return body, server.connections


async def moved(peer: Peer) -> None:
    await peer.request()
    await peer.reply(b"", b"location: /there", status=b"307 Moved")


@contract(moved, (307, "/there", 1))
async def redirects_are_not_followed(client, server):
    response = await client.get(server.url)
    return response.status_code, response.headers["location"], len(server.requests)


async def packed(peer: Peer) -> None:
    while await peer.request():
        await peer.reply(gzip.compress(b"word " * 1000), b"content-encoding: gzip")


@contract(packed, "word " * 1000)
async def compression(client, server):
    return await told(client.get(server.url))


ODD = (
    b"HTTP/1.1 200 \r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nX: \xc3\xa9\xff\r\nEmpty:\r\n"
    b"Spaced: \t a b \t\r\nContent-Length: 0\r\n\r\n"
)


@contract(
    saying(ODD),
    [
        (b"Set-Cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"X", b"\xc3\xa9\xff"),
        (b"Empty", b""),
        (b"Spaced", b"a b"),
        (b"Content-Length", b"0"),
    ],
)
async def headers_of_every_kind(client, server):
    return (await client.get(server.url)).headers.raw


@contract(answering, (["ok"] * 4, 1, b"\xc3\xa9"))
async def connections_are_kept(client, server):
    headers = [(b"x", "é".encode())]
    answers = [await told(client.get(server.url, headers=headers)) for _ in range(4)]
    return answers, server.connections, server.requests[-1].header("x")


async def closing(peer: Peer) -> None:
    await peer.request()
    await peer.reply(b"ok", b"Connection: Close")
    await peer.receive()  # it is the client that hangs up


@contract(closing, (["ok"] * 3, 3))
async def connection_close(client, server):
    return [await told(client.get(server.url)) for _ in range(3)], server.connections


@contract(answering, (["ok"] * 3, 3))
async def connection_close_of_the_request(client, server):
    headers = {"connection": "close"}
    answers = [await told(client.get(server.url, headers=headers)) for _ in range(3)]
    return answers, server.connections


@contract(saying(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"), (["ok"] * 2, "HTTP/1.0", 3))
async def http_1_0(client, server):
    answers = [await told(client.get(server.url)) for _ in range(2)]
    return answers, (await client.get(server.url)).http_version, server.connections


@contract(saying(b"HTTP/1.1 200 OK\r\n\r\n", b"abc", b"def"), ["abcdef"] * 2)
async def until_the_connection_ends(client, server):
    return [await told(client.get(server.url)) for _ in range(2)]


@contract(saying(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nabc"), ["abc"] * 2)
async def until_the_connection_ends_in_1_0(client, server):
    return [await told(client.get(server.url)) for _ in range(2)]


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def in_chunks(peer: Peer) -> None:
    while await peer.request():
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.send(b"4;ext=1\r\nde")
        await peer.send(b"fg\r")
        await peer.send(b"\n0\r\nTrailer: x\r\n\r\n")


@contract(in_chunks, (["abcdefg"] * 3, 1))
async def chunks_extensions_and_trailers(client, server):
    return [await told(client.get(server.url)) for _ in range(3)], server.connections


async def too_large(peer: Peer) -> None:
    await peer.head()
    await peer.reply(b"no", status=b"413 Too Large")


@contract(too_large, [(413, b"no")] * 3, schemes=("http",))
async def an_answer_before_the_request_is_out(client, server):
    answers = []
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # httpx's generator of the body
            response = await client.post(server.url, content=BIG * 3)
            gc.collect()
        answers.append((response.status_code, response.content))
    return answers


async def going_on(peer: Peer) -> None:
    while request := await peer.head():
        assert request.header("expect") == b"100-continue"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        assert await peer.body_of(request) == BIG
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await peer.reply()


@contract(going_on, ([("ok", 1)] * 2, 1))
async def interim_answers(client, server):
    answers = []
    for _ in range(2):
        response = await client.post(server.url, content=BIG, headers={"expect": "100-continue"})
        answers.append((response.text, len(response.headers)))
    return answers, server.connections


async def half_closing(peer: Peer) -> None:
    await peer.request()
    await peer.reply()
    await peer.half_close()
    with suppress(trio.BrokenResourceError, ssl.SSLError):
        assert not await peer.receive()


@contract(half_closing, (["ok"] * 3, 3))
async def a_peer_that_half_closes(client, server):
    answers = []
    for _ in range(3):
        answers.append(await told(client.get(server.url)))
        await trio.testing.wait_all_tasks_blocked()
    return answers, server.connections


async def hanging_up(peer: Peer) -> None:
    await peer.request()
    await peer.reply()


@contract(hanging_up, (["ok"] * 4, 4))
async def a_connection_that_died_idle(client, server):
    answers = []
    for _ in range(4):
        answers.append(await told(client.post(server.url, content=b"x")))
        await server.left_with(0)
    return answers, server.connections


async def resetting_idle(peer: Peer) -> None:
    await peer.request()
    await peer.reply()
    await peer.server.go.wait()
    peer.reset()


@contract(resetting_idle, (["ok"] * 3, 3))
async def a_connection_that_was_reset_idle(client, server):
    answers = []
    for _ in range(3):
        answers.append(await told(client.post(server.url, content=b"x")))
        server.go.set()
        await server.left_with(0)
        server.go = trio.Event()
    return answers, server.connections


async def unasked(peer: Peer) -> None:
    await peer.request()
    await peer.reply()
    await peer.server.go.wait()
    await peer.reply(b"EVIL")
    assert await peer.request() is None


@contract(unasked, (["ok"] * 3, 3))
async def bytes_that_came_while_idle(client, server):
    answers = []
    for _ in range(3):
        answers.append(await told(client.get(server.url)))
        server.go.set()
        await trio.testing.wait_all_tasks_blocked()
        server.go = trio.Event()
    return answers, server.connections


def followed_by(junk: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + junk)
        await answering(peer)

    return script


EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"


@contract(followed_by(EVIL), (["ok"] * 3, 3), theirs=(["ok", "EVIL", "ok"], 2))
async def a_response_behind_the_response(client, server):
    return [await told(client.get(server.url)) for _ in range(3)], server.connections


@contract(followed_by(b"junk"), (["ok"] * 3, 3), theirs=(["ok", "RemoteProtocolError", "ok"], 2))
async def junk_behind_the_response(client, server):
    return [await told(client.get(server.url)) for _ in range(3)], server.connections


async def body_and_error(client: httpx.AsyncClient, server: Server) -> tuple[bytes, str]:
    """Return a body up to its fault, and the name of the error that the fault raises."""
    response = await started(client, server.url)
    body = b""
    try:
        async for piece in response.aiter_raw():
            body += piece
            server.go.set()
    except httpx.HTTPError as exc:
        return body, type(exc).__name__
    return body, ""


async def resetting(peer: Peer) -> None:
    await peer.request()
    await peer.send(CHUNKED + b"3\r\nabc\r\n")
    await peer.server.go.wait()
    peer.reset()


@contract(resetting, (b"abc", "ReadError"))
async def a_reset_in_the_body(client, server):
    return await body_and_error(client, server)


def cut(*records: bytes, farewell: bool = True) -> Script:
    """Sends what it has once the client has read all before, and hangs up."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for record in records[:-1]:
            await peer.send(record)
        await peer.server.go.wait()
        await peer.send(records[-1])
        await trio.testing.wait_all_tasks_blocked()
        if not farewell:
            await trio.aclose_forcefully(peer.stream)

    return script


@contract(cut(CHUNKED + b"3\r\nabc\r\n", b"5\r\nde"), (b"abcde", "RemoteProtocolError"))
async def a_cut_in_a_chunk(client, server):
    return await body_and_error(client, server)


@contract(cut(CHUNKED + b"3\r\nabc\r\n", b"2\r\nde\r\n"), (b"abcde", "RemoteProtocolError"))
async def a_cut_between_chunks(client, server):
    return await body_and_error(client, server)


@contract(
    cut(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"de", farewell=False),
    (b"abcde", "RemoteProtocolError"),
)
async def a_cut_of_a_length(client, server):
    return await body_and_error(client, server)


@contract(
    cut(CHUNKED + b"3\r\nabc\r\n", b"2\r\nde\r\nzz\r\n"),
    (b"abcde", "RemoteProtocolError"),
)
async def a_fault_in_the_body(client, server):
    return await body_and_error(client, server)


async def faulty_and_silent(peer: Peer) -> None:
    await peer.request()
    await peer.send(CHUNKED + b"3\r\nabc\r\nzz\r\n")
    assert not await peer.receive()


@contract(faulty_and_silent, (b"abc", "RemoteProtocolError"))
async def a_fault_behind_which_nothing_comes(client, server):
    return await body_and_error(client, server)


@contract(saying(), "RemoteProtocolError")
async def no_answer(client, server):
    return await told(client.get(server.url))


@contract(saying(b"HTTP/1.1 200 OK\r\ncontent-le"), "RemoteProtocolError")
async def half_a_head(client, server):
    return await told(client.get(server.url))


NOT_HTTP = [
    b"<html>no</html>\r\n\r\n",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
]


async def one_by_one(client: httpx.AsyncClient, server: Server, answers: list[bytes]) -> list[Any]:
    seen = []
    for answer in answers:
        server.script = saying(answer)
        seen.append(await told(client.get(server.url)))
        await server.left_with(0)
    return seen


@contract(answering, ["RemoteProtocolError"] * len(NOT_HTTP))
async def what_is_not_http(client, server):
    return await one_by_one(client, server, NOT_HTTP)


LAX = {
    "one length twice": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "a length and a coding": CHUNKED[:-2] + b"content-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "folded headers": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
}
"""Responses that h11 accepts and our parser refuses, because each can be read in two ways."""


@contract(answering, ["RemoteProtocolError"] * len(LAX), theirs=["ok"] * len(LAX))
async def what_can_be_read_in_two_ways(client, server):
    return await one_by_one(client, server, list(LAX.values()))


BAD_HEADERS = [
    [(b"x", b"a\r\nb: c")],
    [(b"x", b"a\nb: c")],
    [(b"x", b"a\0b")],
    [(b"x\r\ny", b"a")],
    [(b"x y", b"a")],
    [(b"x", b" a")],
    [(b"", b"a")],
    [(b"content-length", b"1"), (b"content-length", b"2")],
    [(b"content-length", b"x")],
    [(b"transfer-encoding", b"gzip")],
    [(b"host", b"a"), (b"host", b"b")],
]


@contract(answering, (["LocalProtocolError"] * len(BAD_HEADERS), "ok", 1))
async def headers_that_would_break_the_line(client, server):
    seen = []
    for headers in BAD_HEADERS:
        request = client.build_request("POST", server.url, content=b"x")
        given = [(n, v) for n, v in request.headers.raw if n.lower() not in dict(headers)]
        request.headers = httpx.Headers([*given, *headers])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            seen.append(await told(client.send(request)))
    return seen, await told(client.get(server.url)), len(server.requests)


@contract(answering, ["LocalProtocolError"] * 3, theirs=["LocalProtocolError", "ok", "ok"])
async def two_framings_in_a_request(client, server):
    seen = []
    for more in (
        {"content-length": "3", "transfer-encoding": "gzip"},
        {"content-length": "3", "transfer-encoding": "chunked"},
        {"Transfer-Encoding": "chunked", "Content-Length": "3"},
    ):
        seen.append(await told(client.post(server.url, content=generated(b"abc"), headers=more)))
    return seen


@contract(answering, (["LocalProtocolError"] * 3, b"OPTIONS * HTTP/1.1"))
async def the_request_line(client, server):
    seen = []
    for method, target in (("GE T", b"/"), ("GET\r\nX:", b"/"), ("GET", b"/ HTTP/1.1\r\nX: y")):
        asking = client.request(method, server.url, extensions={"target": target})
        seen.append(await told(asking))
    await client.request("OPTIONS", server.url, extensions={"target": b"*"})
    return seen, server.requests[-1].line


@contract(answering, "LocalProtocolError")
async def a_request_without_a_host(client, server):
    request = client.build_request("GET", server.url)
    del request.headers["host"]
    return await told(client.send(request))


@contract(answering, ["UnsupportedProtocol"] * 2)
async def another_scheme(client, server):
    urls = ("ftp://127.0.0.1/", "//127.0.0.1/")
    return [await told(client.get(url)) for url in urls]


@contract(answering, "ConnectError")
async def nobody_there(client, server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and no listen
        return await told(
            client.get(f"{server.url.partition(':')[0]}://127.0.0.1:{taken.getsockname()[1]}/")
        )


class Resolver(trio.abc.HostnameResolver):
    """Knows some names, in any case; for others it waits for an event, if there is one."""

    def __init__(self, port: int = 0, wait: trio.Event | None = None) -> None:
        self.port = port
        self.wait = wait

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        if self.wait is not None:
            await self.wait.wait()
        await trio.lowlevel.checkpoint()
        if host != b"localhost":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@contract(answering, ["ok", "ConnectError"])
async def names(client, server):
    trio.socket.set_custom_hostname_resolver(Resolver())
    url = server.url.replace("127.0.0.1", "{}")
    return [await told(client.get(url.format(name))) for name in ("localhost", "no.such.invalid")]


@contract(answering, ["ConnectError", "ok"], schemes=("https",))
async def the_name_in_the_certificate(client, server):
    return [
        await told(client.get(server.url, extensions={"sni_hostname": name}))
        for name in ("example.org", "localhost")
    ]


@contract(answering, (["ok"] * 20, 20))
async def many_at_once(client, server):
    answers: list[str] = []
    meeting: list[Peer] = []
    together = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        meeting.append(peer)
        if len(meeting) == 20:
            together.set()
        await together.wait()
        await peer.reply()
        await peer.receive()

    async def ask() -> None:
        answers.append(await told(client.get(server.url)))

    server.script = script
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    return answers, server.connections


def limits(**clocks: float) -> httpx.Timeout:
    return httpx.Timeout(None, **clocks)


@contract(hanging, "ReadTimeout")
async def the_clock_read_before_the_head(client, server):
    return await told(client.get(server.url, timeout=limits(read=NOW)))


@contract(in_three, "ReadTimeout")
async def the_clock_read_in_the_body(client, server):
    seen = await told(client.get(server.url, timeout=limits(read=NOW)))
    server.go.set()
    return seen


async def not_reading(peer: Peer) -> None:
    await peer.head()
    await peer.server.go.wait()


@contract(not_reading, ["WriteTimeout"] * 2)
async def the_clock_write(client, server):
    clocks = limits(write=NOW)
    pieces = generated(*[BIG] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # httpx's generators around ours
        seen = [
            await told(client.post(server.url, content=BIG * 4, timeout=clocks)),
            await told(client.post(server.url, content=pieces, timeout=clocks)),
        ]
        gc.collect()
    await pieces.aclose()
    server.go.set()
    return seen


@contract(hanging, "ConnectTimeout", schemes=("http",))
async def the_clock_connect(client, server):  # nobody answers the handshake
    url = server.url.replace("http:", "https:")
    return await told(client.get(url, timeout=limits(connect=NOW)))


@contract(answering, "ConnectTimeout", schemes=("http",))
async def the_clock_connect_in_the_name_look_up(client, server):
    trio.socket.set_custom_hostname_resolver(Resolver(wait=trio.Event()))
    url = server.url.replace("127.0.0.1", "localhost")
    return await told(client.get(url, timeout=limits(connect=NOW)))


@contract(in_three, ["PoolTimeout", "abcdefghi", "abcdefghi"], max_connections=1)
async def the_clock_pool(client, server):
    holder = await started(client, server.url)
    late = await told(client.get(server.url, timeout=limits(pool=NOW)))
    server.go.set()
    await holder.aread()
    return [late, holder.text, await told(client.get(server.url, timeout=limits(pool=SOON)))]


async def bad_request(peer: Peer) -> None:
    await peer.receive()
    await peer.reply(b"", status=b"400 Bad Request")


@contract(bad_request, "ConnectError", schemes=("http",))
async def tls_to_a_server_without(client, server):
    return await told(client.get(server.url.replace("http:", "https:")))


@contract(answering, "RemoteProtocolError", schemes=("https",))
async def a_server_with_tls_without_it(client, server):
    seen = await told(client.get(server.url.replace("https:", "http:")))
    # The server's alert, or its reset.
    return "RemoteProtocolError" if seen == "ReadError" else seen


async def check(clause: Contract, make: Callable[..., Any], scheme: str) -> None:
    """Hold a transport to one clause."""
    before = open_sockets()
    async with serving(clause.script, tls=scheme == "https") as server:
        transport = make(**clause.options)
        async with client_of(transport) as client:
            with trio.fail_after(SOON):
                seen = await clause.use(client, server)
            if make is ours:
                quiet(transport)
                await server.left_with(transport.statistics().idle)
        await server.left_with(0)
    assert seen == (clause.expected if make is ours else clause.theirs)
    assert open_sockets() == before


@pytest.mark.parametrize(
    ("name", "scheme"), [(n, s) for n, c in CONTRACT.items() for s in c.schemes]
)
@pytest.mark.parametrize("make", [ours, theirs, newer], ids=["ours", "httpx's", "httpx2's"])
async def test_the_contract(make: Callable[..., Any], name: str, scheme: str) -> None:
    with warnings.catch_warnings():
        if make is not ours:  # it leaves generators to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
        await check(CONTRACT[name], make, scheme)
        gc.collect()


async def test_ipv6_literals() -> None:
    try:
        (listener,) = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    server = Server(answering, None)
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        for make in (ours, theirs):
            async with client_of(make()) as client:
                assert (await client.get(f"http://[::1]:{port}/")).text == "ok"
            assert server.requests[-1].header("host") == b"[::1]:%d" % port
        nursery.cancel_scope.cancel()


# -- what it counts ------------------------------------------------------------------------------


def counts(transport: TrioTransport | ConnectionPool) -> tuple[int, ...]:
    now = transport.statistics()
    return (now.active, now.idle, now.waiting, now.opened, now.reused, now.retried)


async def test_the_counts_at_every_turn() -> None:
    async with serving(in_three) as server:
        transport = ours()
        assert counts(transport) == (0, 0, 0, 0, 0, 0)
        async with client_of(transport) as client:
            first = await started(client, server.url)
            assert counts(transport) == (1, 0, 0, 1, 0, 0)
            second = await started(client, server.url)
            assert counts(transport) == (2, 0, 0, 2, 0, 0)
            server.go.set()
            await first.aread()
            assert counts(transport) == (1, 1, 0, 2, 0, 0)
            third = await started(client, server.url)
            assert counts(transport) == (2, 0, 0, 2, 1, 0)
            await second.aclose()  # in its middle: of no more use
            assert counts(transport) == (1, 0, 0, 2, 1, 0)
            await third.aread()
            assert counts(transport) == (0, 1, 0, 2, 1, 0)
            await third.aclose()
            assert counts(transport) == (0, 1, 0, 2, 1, 0)
        assert counts(transport) == (0, 0, 0, 2, 1, 0)
        await server.left_with(0)
        assert server.connections == 2


async def test_a_connection_is_back_before_the_last_piece_is_out() -> None:
    async with serving(answering) as server, client_of(ours()) as client:
        transport = client._transport
        response = await started(client, server.url)
        assert await anext(raw(response)) == b"ok"
        assert transport.statistics().idle == 1
        with pytest.raises(StopAsyncIteration):
            await anext(raw(response))
        await response.aclose()
        quiet(transport, idle=1)


async def test_a_response_that_came_whole_need_not_be_read() -> None:
    async with serving(answering) as server, client_of(ours()) as client:
        for number in range(3):
            response = await started(client, server.url)
            await response.aclose()
            assert counts(client._transport) == (0, 1, 0, 1, number, 0)


async def test_a_request_whose_body_fails_leaves_nothing() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise KeyError

    async with serving(answering) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            for _ in range(2):
                with pytest.raises(KeyError):
                    await client.post(server.url, content=failing())
                quiet(transport, idle=0)
                await server.left_with(0)
            assert await told(client.get(server.url)) == "ok"


async def test_a_name_that_none_can_have() -> None:
    async with client_of(ours()) as client:
        for name in ("a" * 64, f"{'a' * 64}.test", ".test"):
            assert await told(client.get(f"http://{name}/")) == "ConnectError"
        quiet(client._transport, idle=0)


async def test_other_tasks_have_their_turn_while_much_is_read() -> None:
    class Endless:
        """A socket that always has more."""

        def fileno(self) -> int:
            return readable.fileno()

        def recv_into(self, buffer: bytearray) -> int:
            return len(buffer)

    rounds = 10
    readable, peer = socket.socketpair()
    with readable, peer:
        peer.send(b"x")
        endless: Any = Endless()
        connection = Connection(("http", "x", 80), endless, bytearray(READ_BYTES))
        parser = ResponseParser()
        parser.feed(b"HTTP/1.1 200 OK\r\n\r\n")
        async with other_task() as turns:
            for _ in range(rounds * EAGER_READS):
                await connection.wait()
                assert connection.read_now(parser)
                assert len(parser.take()) == READ_BYTES
            assert len(turns) >= rounds // 2
            with trio.CancelScope() as scope:
                scope.cancel()
                await connection.wait()
            assert scope.cancelled_caught


async def test_after_the_end_of_an_exchange_nothing_more_is_read() -> None:
    async with serving(in_three) as server, client_of(ours()) as client:
        response = await started(client, server.url)
        body = raw(response)
        assert await anext(body) == b"abc"
        await response.aclose()
        quiet(client._transport, idle=0)
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        await response.aclose()
        quiet(client._transport, idle=0)
        server.go.set()


async def test_one_piece_a_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(2):
            await peer.server.go.wait()
            await peer.send(b"".join(b"1\r\n%c\r\n" % i for i in range(64)))
        await peer.send(b"0\r\n\r\n")

    async with serving(script) as server, client_of(ours()) as client:
        body = raw(await started(client, server.url))
        server.go.set()
        await trio.testing.wait_all_tasks_blocked()
        pieces = [piece async for piece in body]
        assert b"".join(pieces) == bytes(range(64)) * 2
        assert len(pieces) <= 2


@pytest.mark.parametrize("tls", [False, True])
async def test_two_streams_through_one_buffer(tls: bool) -> None:
    rounds = 50

    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert request is not None
        letter = request.line.partition(b"/")[2][:1]
        await peer.send(CHUNKED)
        if len(peer.server.requests) == 3:
            peer.server.go.set()
        await peer.server.go.wait()
        for size in range(1, rounds):
            await peer.send(b"%x\r\n%s\r\n" % (size, letter * size))
            await trio.lowlevel.checkpoint()
        await peer.send(b"0\r\n\r\n")
        assert await peer.request() is None

    async def read(name: str) -> None:
        async for piece in raw(await started(client, server.url + name)):
            kept[name].append(piece)
            await trio.lowlevel.checkpoint()

    async with serving(script, tls=tls) as server, client_of(ours()) as client:
        kept: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
        async with trio.open_nursery() as nursery:
            for name in kept:
                nursery.start_soon(read, name)
        quiet(client._transport, idle=3)
    for name, pieces in kept.items():
        assert b"".join(pieces) == name.encode() * sum(range(1, rounds))


async def test_a_transport_can_be_used_by_one_run_after_the_other() -> None:
    async with serving(answering) as server:
        transport = ours()
        for _ in range(2):
            request = httpx.Request("GET", server.url)
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"ok"
        await transport.aclose()
        assert counts(transport) == (0, 0, 0, 1, 1, 0)


# -- a connection that dies idle -----------------------------------------------------------------


def dying(after: bytes = b"", *, times: int = 1) -> Script:
    """The first connections answer once, and hang up behind the next request."""

    async def script(peer: Peer) -> None:
        if peer.server.connections > times:
            await answering(peer)
        await peer.request()
        await peer.reply()
        await peer.request()
        await peer.send(after)

    return script


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("content", [None, b"", b"x", BIG])
async def test_a_request_is_sent_again_when_its_connection_died_idle(
    content: bytes | None, tls: bool
) -> None:
    async with serving(dying(), tls=tls) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            await client.get(server.url)
            response = await started(client, server.url, method="POST", content=content)
            assert counts(transport)[0] == transport.pool._slots.borrowed_tokens == 1
            assert await response.aread() == b"ok"
            assert counts(transport) == (0, 1, 0, 2, 1, 1)
            quiet(transport)
            await client.get(server.url)
            assert counts(transport) == (0, 1, 0, 2, 2, 1)
        assert [r.body for r in server.requests] == [b"", content or b"", content or b"", b""]


TIRED = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("content", [b"x", BIG])
async def test_a_connection_that_ends_with_a_timeout_has_answered_no_request(
    content: bytes,
) -> None:
    async with serving(dying(TIRED)) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            await client.get(server.url)
            response = await client.post(server.url, content=content)
            assert (response.status_code, response.content) == (200, b"ok")
            assert counts(transport) == (0, 1, 0, 2, 1, 1)
            quiet(transport)


@pytest.mark.parametrize("answer", [TIRED.replace(b"connection: close\r\n", b""), TIRED])
async def test_any_other_timeout_is_an_answer(answer: bytes) -> None:
    """One of a connection that stays, or of a new one."""
    async with serving(dying(answer, times=9)) as server:
        transport = ours()
        async with client_of(transport) as client:
            await client.get(server.url)
            pieces = generated(b"a", b"b") if answer is TIRED else b"x"  # which can't be sent again
            assert (await client.post(server.url, content=pieces)).status_code == 408
            assert len(server.requests) == 2


async def test_it_is_sent_again_once_and_no_more() -> None:
    async with serving(dying(times=1)) as server:
        transport = ours()
        async with client_of(transport) as client:
            await client.get(server.url)
            server.script = saying()
            assert await told(client.get(server.url)) == "RemoteProtocolError"
            assert len(server.requests) == 3
            quiet(transport, idle=0)
            assert transport.statistics().retried == 1


@pytest.mark.parametrize(
    "after", [b"H", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 100 X\r\n\r\n"]
)
async def test_it_is_not_sent_again_when_a_byte_came(after: bytes) -> None:
    async with serving(dying(after)) as server:
        transport = ours()
        async with client_of(transport) as client:
            await client.get(server.url)
            assert await told(client.get(server.url)) == "RemoteProtocolError"
            assert len(server.requests) == 2
            assert counts(transport) == (0, 0, 0, 1, 1, 0)
            assert await told(client.get(server.url)) == "ok"


async def test_a_body_of_many_pieces_is_not_sent_again() -> None:
    async with serving(dying()) as server:
        transport = ours()
        async with client_of(transport) as client:
            await client.get(server.url)
            sending = client.post(server.url, content=generated(b"a", b"b"))
            assert await told(sending) == "RemoteProtocolError"
            assert len(server.requests) == 2
            assert counts(transport) == (0, 0, 0, 1, 1, 0)


def test_a_connection_that_ends_late_did_not_die_idle() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.reply()
            await peer.request()
            clock.jump(DIED_IDLE_SECONDS + 1)

        async with serving(script) as server:
            transport = ours()
            async with client_of(transport) as client:
                await client.get(server.url)
                assert await told(client.get(server.url)) == "RemoteProtocolError"
            assert len(server.requests) == 2
            assert transport.statistics().retried == 0

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


async def test_a_request_that_could_not_be_sent_whole_is_sent_again() -> None:
    async def script(peer: Peer) -> None:
        if peer.server.connections > 1:
            await answering(peer)
        await peer.request()
        await peer.reply()
        await peer.head()
        peer.reset()

    async with serving(script) as server:
        transport = ours()
        async with client_of(transport) as client:
            await client.get(server.url)
            assert await told(client.post(server.url, content=BIG)) == "ok"
            assert counts(transport) == (0, 1, 0, 2, 1, 1)  # the new one is kept
            assert await told(client.get(server.url)) == "ok"
            assert counts(transport) == (0, 1, 0, 2, 2, 1)


async def test_many_dead_connections_are_passed_over_at_once() -> None:
    async with serving(in_three) as server:
        transport = ours()
        async with client_of(transport) as client:
            responses = [await started(client, server.url) for _ in range(20)]
            server.go.set()
            for response in responses:
                await response.aread()
            quiet(transport, idle=20)
            for connection in list(transport.pool._idle._all)[1:]:
                connection._sock.shutdown(socket.SHUT_RDWR)
            assert await told(client.get(server.url)) == "abcdefghi"
            assert counts(transport) == (0, 1, 0, 20, 1, 0)
            await server.left_with(1)


# -- early answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_is_seen_while_the_request_still_goes_out(tls: bool) -> None:
    """httpx's own waits for ever here: the server neither reads on nor hangs up."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reply(b"no", status=b"413 Too Large")
        await peer.server.go.wait()

    async with serving(script, tls=tls) as server, client_of(ours()) as client:
        pieces = generated(*[BIG] * 3)
        for content in (BIG * 3, pieces):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # httpx's generator around ours
                response = await client.post(server.url, content=content)
                gc.collect()
            assert (response.status_code, response.content) == (413, b"no")
            quiet(client._transport, idle=0)  # nobody knows where the server would read on
        await pieces.aclose()
        server.go.set()


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_streams_while_the_request_still_goes_out(tls: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.server.go.wait()
        await peer.send(b"3\r\ndef\r\n0\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()

    async with serving(script, tls=tls) as server, client_of(ours()) as client:
        body = raw(await started(client, server.url, method="POST", content=BIG * 3))
        assert await anext(body) == b"abc"
        server.go.set()
        assert b"".join([piece async for piece in body]) == b"def"
        quiet(client._transport, idle=0)


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_that_is_none_while_the_request_still_goes_out(tls: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"<html>go away</html>\r\n\r\n")
        await peer.server.go.wait()

    async with serving(script, tls=tls) as server, client_of(ours()) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="not HTTP"):
            await client.post(server.url, content=BIG * 3)
        quiet(client._transport, idle=0)
        server.go.set()


def test_the_clock_write_is_for_each_part_and_not_for_all() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            request = await peer.head()
            assert request is not None
            size = 0
            while size < 3 * len(BIG):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(6)
                size += len(await peer.exactly(min(len(BIG), 3 * len(BIG) - size)))
            await peer.reply()

        async with serving(script, seconds=1000) as server, client_of(ours()) as client:
            clocks = httpx.Timeout(None, write=10)
            assert await told(client.post(server.url, content=BIG * 3, timeout=clocks)) == "ok"
            assert trio.current_time() > 15

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


# -- slots ---------------------------------------------------------------------------------------


async def test_requests_wait_in_line() -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await answers.acquire()
            await peer.reply()

    async def ask(number: int) -> None:
        async def trace(event: str, info: Any) -> None:
            if event == "connection_pool.wait.complete":
                turns.append(number)

        await client.get(server.url, extensions={"trace": trace})

    answers = trio.Semaphore(0)
    turns: list[int] = []
    async with serving(script) as server:
        transport = ours(max_connections=2)
        async with client_of(transport) as client:
            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(ask, number)
                    await trio.testing.wait_all_tasks_blocked()
                    assert transport.statistics().waiting == max(0, number - 1)
                for left in reversed(range(9)):
                    assert transport.statistics().active == min(2, left + 1)
                    answers.release()
                    await trio.testing.wait_all_tasks_blocked()
                    assert transport.statistics().waiting == max(0, left - 2)
            quiet(transport, idle=2)
        assert transport.statistics().opened == server.connections == 2
    assert turns == list(range(2, 9))


async def test_a_waiter_that_is_cancelled_leaves_no_trace() -> None:
    async with serving(in_three) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            holder = await started(client, server.url)
            async with trio.open_nursery() as nursery:
                scopes = []
                for _ in range(3):
                    scopes.append(trio.CancelScope())
                    nursery.start_soon(cancellable, scopes[-1], client.get, server.url)
                    await trio.testing.wait_all_tasks_blocked()
                assert transport.statistics().waiting == 3
                scopes[1].cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert transport.statistics().waiting == 2
                scopes[0].cancel()
                server.go.set()
                await holder.aread()
            quiet(transport, idle=1)
            assert len(server.requests) == 2


async def cancellable(
    scope: trio.CancelScope, do: Callable[..., Awaitable[Any]], *args: Any
) -> None:
    with scope:
        await do(*args)


async def test_the_wait_for_a_slot_is_told_to_the_trace() -> None:
    async def trace(event: str, info: Any) -> None:
        await trio.lowlevel.checkpoint()
        events.append(event)

    events: list[str] = []
    extensions = {"trace": trace}
    after = ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
    sent = ["http11.send_request_headers.started", "http11.send_request_body.complete"]
    wait = ["connection_pool.wait.started", "connection_pool.wait.complete"]
    async with serving(in_three) as server:
        async with client_of(ours(max_connections=1)) as client:
            holder = await started(client, server.url, extensions=extensions)
            assert events == after + sent
            async with trio.open_nursery() as nursery:
                events.clear()
                nursery.start_soon(partial(client.get, server.url, extensions=extensions))
                await trio.testing.wait_all_tasks_blocked()
                assert events == wait[:1]
                server.go.set()
                await holder.aread()
            assert events == wait + sent  # on the holder's connection


async def test_a_trace_that_fails_leaves_nothing() -> None:
    def failing_at(failing: str) -> Any:
        async def trace(event: str, info: Any) -> None:
            if event == failing:
                raise KeyError(event)

        return trace

    async with serving(answering) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            for event in (
                "connection.connect_tcp.started",
                "connection.connect_tcp.complete",
                "http11.send_request_body.complete",
            ):
                with pytest.raises(KeyError):
                    await client.get(server.url, extensions={"trace": failing_at(event)})
                quiet(transport, idle=0)
            assert await told(client.get(server.url)) == "ok"


async def test_idle_connections_give_way_to_other_origins() -> None:
    async with serving(answering) as one, serving(answering) as other:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            for server in (one, other, one):
                assert await told(client.get(server.url)) == "ok"
                quiet(transport, idle=1)
        assert (one.connections, other.connections) == (2, 1)


# -- idle connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_no_more_idle_connections_than_told(most: int) -> None:
    async with serving(in_three) as server:
        transport = ours(max_idle_connections=most)
        async with client_of(transport) as client:
            responses = [await started(client, server.url) for _ in range(5)]
            server.go.set()
            for response in responses:
                await response.aread()
            quiet(transport, idle=most)
            await server.left_with(most)


async def test_a_connection_that_may_not_be_idle_is_closed() -> None:
    async with serving(answering) as server:
        transport = ours(keepalive_expiry=0)
        async with client_of(transport) as client:
            for _ in range(3):
                assert await told(client.get(server.url)) == "ok"
                quiet(transport, idle=0)
                await server.left_with(0)
            assert server.connections == 3


def test_connections_expire() -> None:
    async def main() -> None:
        async with (
            serving(answering, seconds=1000) as server,
            serving(answering, seconds=1000) as other,
        ):
            transport = ours(keepalive_expiry=15)
            async with client_of(transport) as client:
                await client.get(server.url)
                await client.get(other.url)
                for _ in range(3):
                    clock.jump(14)
                    await client.get(server.url)
                quiet(transport, idle=1)
                assert (server.connections, other.connections) == (1, 1)
                await other.left_with(0)
                clock.jump(15)
                await client.get(other.url)
                quiet(transport, idle=1)
                await server.left_with(0)
                assert (server.connections, other.connections) == (1, 2)
                clock.jump(15)
                await client.get(other.url)  # it is there, and too old
                quiet(transport, idle=1)
                assert other.connections == 3
                assert transport.statistics().reused == 3

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


async def test_the_connection_that_was_used_last_is_used_first() -> None:
    async with serving(in_three) as server:
        transport = ours()
        async with client_of(transport) as client:
            one, two = [await started(client, server.url) for _ in range(2)]
            server.go.set()
            await two.aread()
            await one.aread()
            used = next(reversed(transport.pool._idle._all))
            for _ in range(3):
                await client.get(server.url)
                assert next(reversed(transport.pool._idle._all)) is used


# -- the cost of many connections ----------------------------------------------------------------


class Unplugged:
    """In place of a socket: counts how often it is asked anything."""

    asked = 0

    def recv(self, size: int, flags: int) -> bytes:
        Unplugged.asked += 1
        raise BlockingIOError

    def fileno(self) -> int:
        Unplugged.asked += 1
        return -1


def unplugged(transport: TrioTransport, origins: list[tuple[str, str, int]]) -> list[Connection]:
    sockets: list[Any] = [Unplugged() for _ in origins]
    return [
        Connection(origin, sock, transport.pool._buffer)
        for origin, sock in zip(origins, sockets, strict=True)
    ]


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """Yield a count of the library's lines that run, which would reveal a loop over connections."""
    lines = [0]

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if "/trio_minillm/" not in frame.f_code.co_filename:
            return None
        lines[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("reuse", [False, True])
async def test_other_connections_do_not_make_a_request_dearer(reuse: bool) -> None:
    many = 2000
    async with serving(answering) as server:
        host = ("http", "127.0.0.1", server.port)
        lines = {}
        for count in (0, many):
            transport = ours(max_idle_connections=5 * many, max_connections=5 * many)
            pool = transport.pool
            async with client_of(transport) as client:
                await client.get(server.url)
                connection = pool._idle.take(host)
                assert connection is not None
                for other in (
                    *unplugged(transport, [host] * count if reuse else []),
                    *unplugged(transport, [("http", f"{i}.test", 80) for i in range(count)]),
                ):
                    pool._idle.put(other)
                fakes = unplugged(transport, [host] * count)
                pool._active.update(fakes)
                if reuse:
                    pool._idle.put(connection)
                else:
                    connection.close()
                Unplugged.asked = 0
                request = client.build_request("GET", server.url)
                with counted_lines() as counter:
                    response = await transport.handle_async_request(request)
                    assert [piece async for piece in raw(response)] == [b"ok"]
                    await response.aclose()
                    transport.statistics()
                lines[count] = counter[0]
                assert Unplugged.asked == 0
                pool._active.difference_update(fakes)
                assert transport.statistics().opened == 1 + (not reuse)
        assert lines[0] > 50
        assert lines[many] <= lines[0] + 10  # a wait more or less


# -- the end of it -------------------------------------------------------------------------------


async def test_after_its_end_it_says_so() -> None:
    async with serving(answering) as server:
        transport = ours(max_connections=1)
        client = client_of(transport)
        await client.get(server.url)
        for _ in range(2):
            await transport.aclose()
            quiet(transport, idle=0)
        await server.left_with(0)
        with pytest.raises(RuntimeError, match="closed"):
            await client.get(server.url)
        quiet(transport, idle=0)
        await client.aclose()
        assert server.connections == 1


async def test_a_connection_that_was_closed_does_not_come_back() -> None:
    async with serving(answering) as server:
        transport = ours()
        client = client_of(transport)
        read, unread = [await started(client, server.url) for _ in range(2)]  # both came whole
        await transport.aclose()
        assert [piece async for piece in raw(read)] == [b"ok"]
        for response in (read, unread):
            await response.aclose()
        quiet(transport, idle=0)
        await client.aclose()


async def test_the_end_is_a_checkpoint() -> None:
    transport = ours()
    with trio.testing.assert_checkpoints():
        await transport.aclose()


@pytest.mark.parametrize("tls", [False, True])
async def test_the_end_while_a_body_is_read(tls: bool) -> None:
    async with serving(in_three, tls=tls) as server:
        transport = ours()
        client = client_of(transport)
        waiting, calm = [await started(client, server.url) for _ in range(2)]
        bodies = raw(waiting), raw(calm)
        for body in bodies:
            assert await anext(body) == b"abc"

        async def read() -> None:
            with pytest.raises(httpx.ReadError):
                await anext(bodies[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
            quiet(transport, idle=0)
        with pytest.raises(httpx.ReadError):
            await anext(bodies[1])
        server.go.set()
        await server.left_with(0)
        for response in (waiting, calm):
            await response.aclose()
        quiet(transport, idle=0)
        await client.aclose()


async def end_while(
    transport: TrioTransport, ask: Callable[[], Awaitable[Any]], error: type[Exception]
) -> None:
    """Close it while a request waits for something, which must then fail."""

    async def asking() -> None:
        with pytest.raises(error):
            await ask()

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asking)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
            assert counts(transport)[:2] == (0, 0)
    quiet(transport, idle=0)


@pytest.mark.parametrize("tls", [False, True])
async def test_the_end_while_a_request_is_sent(tls: bool) -> None:
    async with serving(not_reading, tls=tls) as server:
        transport = ours()
        async with client_of(transport) as client:
            sending = partial(client.post, server.url, content=BIG * 4)
            await end_while(transport, sending, httpx.TransportError)
            server.go.set()
            await server.left_with(0)


@pytest.mark.parametrize("tls", [False, True])
async def test_the_end_while_a_head_is_waited_for(tls: bool) -> None:
    async with serving(hanging, tls=tls) as server:
        transport = ours()
        async with client_of(transport) as client:
            await end_while(transport, partial(client.get, server.url), httpx.ReadError)
            await server.left_with(0)


async def test_the_end_in_a_handshake() -> None:
    async with serving(hanging) as server:
        transport = ours()
        async with client_of(transport) as client:
            url = server.url.replace("http:", "https:")
            await end_while(transport, partial(client.get, url), httpx.ConnectError)
            await server.left_with(0)


async def test_the_end_while_a_slot_is_waited_for() -> None:
    async with serving(in_three) as server:
        transport = ours(max_connections=1)
        async with client_of(transport) as client:
            holder = await started(client, server.url)

            async def waiting() -> None:
                with pytest.raises((RuntimeError, httpx.TransportError)):
                    await client.get(server.url)

            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(waiting)
                    await trio.testing.wait_all_tasks_blocked()
                    await transport.aclose()
                    await holder.aclose()
            quiet(transport, idle=0)
            assert server.connections == 1
            server.go.set()


async def test_the_end_while_a_connection_is_made() -> None:
    found = trio.Event()
    trio.socket.set_custom_hostname_resolver(Resolver(wait=found))
    async with serving(answering) as server:
        transport = ours()
        async with client_of(transport) as client:

            async def connecting() -> None:
                with pytest.raises((RuntimeError, httpx.TransportError)):
                    await client.get(server.url.replace("127.0.0.1", "localhost"))

            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connecting)
                    await trio.testing.wait_all_tasks_blocked()
                    await transport.aclose()
                    found.set()
            quiet(transport, idle=0)
            await server.left_with(0)
            assert not server.requests


# -- TLS -----------------------------------------------------------------------------------------


async def test_certificates_are_verified() -> None:
    async with serving(answering, tls=True) as server:
        for verify in (True, ssl.create_default_context()):
            transport = TrioTransport(verify=verify)
            async with client_of(transport) as client:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.get(server.url)
                quiet(transport, idle=0)
        async with client_of(TrioTransport()) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(server.url)
        await server.left_with(0)
        assert not server.requests


async def test_the_name_is_verified() -> None:
    async with serving(answering, tls=True) as server, client_of(ours()) as client:
        with pytest.raises(httpx.ConnectError, match="mismatch"):
            await client.get(server.url, extensions={"sni_hostname": "example.org"})
        with pytest.raises(httpx.ConnectError):
            await client.get(server.url, extensions={"sni_hostname": ".localhost"})
        quiet(client._transport, idle=0)
        assert not server.requests
        assert await told(client.get(server.url.replace("127.0.0.1", "localhost"))) == "ok"


async def test_verification_can_be_turned_off() -> None:
    async with serving(answering, tls=True) as server:
        async with client_of(TrioTransport(verify=False)) as client:
            assert await told(client.get(server.url)) == "ok"


async def test_the_authorities_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
    async with serving(answering, tls=True) as server:
        async with client_of(TrioTransport()) as client:
            assert await told(client.get(server.url)) == "ok"


async def test_a_bare_context_takes_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(secrets))
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with serving(answering, tls=True) as server:
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with client_of(TrioTransport(verify=bare)) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(server.url)
        bare.load_verify_locations(TLS_FILES / "ca.pem")
        async with client_of(TrioTransport(verify=bare)) as client:
            assert await told(client.get(server.url)) == "ok"
        assert not secrets.exists()
        # Python's default one asks the environment itself.
        usual = ssl.create_default_context()
        async with client_of(TrioTransport(verify=usual)) as client:
            assert await told(client.get(server.url)) == "ok"
        assert secrets.exists()


async def test_the_trust_store_of_the_platform() -> None:
    truststore = pytest.importorskip("truststore")
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with serving(answering, tls=True) as server:
        async with client_of(TrioTransport(verify=context)) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(server.url)
        context.load_verify_locations(TLS_FILES / "ca.pem")
        async with client_of(TrioTransport(verify=context)) as client:
            assert await told(client.get(server.url)) == "ok"


async def test_tls_1_2() -> None:
    async with serving(half_big, tls=certified(ssl.TLSVersion.TLSv1_2)) as server:
        async with client_of(ours()) as client:
            for _ in range(2):
                response = await client.post(server.url, content=BIG)
                assert response.content == BIG[::-1]
            quiet(client._transport, idle=1)


async def test_http_2_is_not_offered_and_not_spoken() -> None:
    async def script(peer: Peer) -> None:
        assert peer.tls is not None
        chosen.append(peer.tls.selected_alpn_protocol())
        await answering(peer)

    chosen: list[str | None] = []
    async with serving(script, tls=True) as server:
        async with client_of(TrioTransport(verify=False)) as client:
            assert await told(client.get(server.url)) == "ok"
        assert chosen == ["http/1.1"]
        context = ssl.create_default_context(cafile=TLS_FILES / "ca.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with client_of(TrioTransport(verify=context)) as client:
            with pytest.raises(httpx.ConnectError, match="HTTP/2"):
                await client.get(server.url)
            quiet(client._transport, idle=0)


async def test_all_records_of_a_read_are_one_piece() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
        await peer.server.go.wait()
        await peer.send(*[b"x" * 100] * 100)
        await peer.request()

    async with serving(script, tls=True) as server, client_of(ours()) as client:
        body = raw(await started(client, server.url))
        server.go.set()
        assert [piece async for piece in body] == [b"x" * 10_000]
        quiet(client._transport, idle=1)


async def test_records_in_single_bytes() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        answer = CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        for i in peer.wrapped(answer[:60], answer[60:70], answer[70:]):
            await peer.stream.send_all(bytes([i]))
            await trio.lowlevel.checkpoint()

    async with serving(script, tls=True) as server, client_of(ours()) as client:
        assert await told(client.get(server.url)) == "abcdefg"


@pytest.mark.parametrize("farewell", [True, False])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("answer", "body", "end"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc", ""),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc", ""),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", b"abc", ""),
        (CHUNKED + b"3\r\nabc\r\n", b"abc", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"abc", "RemoteProtocolError"),
        (CHUNKED + b"3\r\nabc\r\nzz\r\n", b"abc", "RemoteProtocolError"),
    ],
    ids=["until the end", "1.0", "length", "chunked", "cut", "cut length", "fault"],
)
async def test_how_the_connection_ends_under_tls(
    answer: bytes, body: bytes, end: str, together: bool, farewell: bool
) -> None:
    """Without close_notify anyone could have cut it there."""

    async def script(peer: Peer) -> None:
        await peer.request()
        data = peer.wrapped(answer[:-1], answer[-1:])
        bye = peer.farewell() if farewell else b""
        if together:
            await peer.stream.send_all(data + bye)
        else:
            await peer.stream.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
            await peer.stream.send_all(bye)
        await trio.aclose_forcefully(peer.stream)

    if b"length" not in answer and b"chunked" not in answer and not farewell:
        end = "ReadError"
    async with serving(script, tls=True) as server, client_of(ours()) as client:
        for _ in range(2):
            assert await body_and_error(client, server) == (body, end)
            await server.left_with(0)
            assert client._transport.statistics().active == 0


@pytest.mark.parametrize("before", [CHUNKED + b"3\r\nabc\r\n", CHUNKED, b""])
async def test_a_broken_record(before: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        good, bad = peer.wrapped(before) if before else b"", peer.wrapped(b"3\r\ndef\r\n")
        await peer.stream.send_all(good + bad[:-1] + bytes([bad[-1] ^ 1]))
        with suppress(trio.BrokenResourceError):
            await peer.stream.receive_some()

    async with serving(script, tls=True) as server, client_of(ours()) as client:
        if before:
            body = b"abc" if b"abc" in before else b""
            assert await body_and_error(client, server) == (body, "ReadError")
        else:
            assert await told(client.get(server.url)) == "ReadError"
        quiet(client._transport, idle=0)


@pytest.mark.parametrize(
    "answer", [b"", b"\x16\x03\x03", b"\x15\x03\x03\x00\x02\x02\x28", b"HTTP/1.1 400 No\r\n\r\n"]
)
async def test_a_handshake_that_fails(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(answer)

    async with serving(script) as server, client_of(ours(max_connections=1)) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await client.get(server.url.replace("http:", "https:"))
            quiet(client._transport, idle=0)
        await server.left_with(0)


async def test_session_tickets_while_a_request_goes_out() -> None:
    """They make the socket readable, and are no answer."""

    async def script(peer: Peer) -> None:
        await peer.shake_hands(certified(), flush=False)
        tickets = peer.outgoing.read()
        assert tickets
        for i in range(0, len(tickets), 50):
            await trio.testing.wait_all_tasks_blocked()  # the client can't send more
            await peer.stream.send_all(tickets[i : i + 50])
        await half_big(peer)

    async with serving(script) as server, client_of(ours()) as client:
        url = server.url.replace("http:", "https:")
        for _ in range(2):
            response = await client.post(url, content=BIG * 3)
            assert response.content == (BIG * 3)[::-1]
        quiet(client._transport, idle=1)


async def test_a_farewell_while_idle_is_found() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reply()
        await peer.half_close()
        await peer.server.go.wait()

    async with serving(script, tls=True) as server, client_of(ours()) as client:
        for number in range(1, 4):
            assert await told(client.get(server.url)) == "ok"
            await trio.testing.wait_all_tasks_blocked()
            assert server.connections == number
        assert client._transport.statistics().retried == 0
        server.go.set()


# -- cancellation --------------------------------------------------------------------------------


async def walk(server: Server, use: Use, *, after: bool = True, **options: Any) -> int:
    """Cancel it at its first step, at its second, and so on until it completes: nothing may be
    left, and the next request is answered at once. Returns how many steps there were.
    """
    for step in itertools.count(1):
        transport = ours(**options)
        async with client_of(transport) as client:
            with trio.fail_after(SOON):
                cancelled = await cancelled_at(step, use, client, server)
            quiet(transport)
            await server.left_with(transport.statistics().idle)
            if after:
                with trio.fail_after(SOON):
                    answer = await client.get(server.url)
                assert answer.content.startswith(b"abc")
                quiet(transport)
        await server.left_with(0)
        if not cancelled:
            return step
    raise AssertionError


async def refusing(peer: Peer) -> None:
    """Answers before it has read a body."""
    await peer.head()
    await peer.reply(b"abc")


async def slow_reader(peer: Peer) -> None:
    """Reads a request only when its sender can't go on, and answers."""
    receive = peer.receive

    async def slowly() -> bytes:
        await trio.testing.wait_all_tasks_blocked()
        return await receive()

    peer.receive = slowly  # type: ignore[method-assign]
    while await peer.request():
        await peer.reply(b"abc")


async def get_and_read(client: httpx.AsyncClient, server: Server) -> None:
    assert (await client.get(server.url)).content == b"abcdef"


async def read_in_pieces(client: httpx.AsyncClient, server: Server) -> None:
    async with client.stream("GET", server.url) as response:
        async for _ in raw(response):
            await trio.lowlevel.checkpoint()


async def reuse(client: httpx.AsyncClient, server: Server) -> None:
    for _ in range(2):
        await client.get(server.url)


async def upload(client: httpx.AsyncClient, server: Server) -> None:
    await client.post(server.url, content=BIG)


async def upload_with_clocks(client: httpx.AsyncClient, server: Server) -> None:
    await client.post(server.url, content=BIG[:1_000_000], timeout=60)


async def upload_in_pieces(client: httpx.AsyncClient, server: Server) -> None:
    class Pieces(httpx.AsyncByteStream):  # no generator, which would be left to the collector
        def __init__(self) -> None:
            self.left = 4

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await trio.lowlevel.checkpoint()
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return BIG[:1_000_000]

    request = client.build_request("POST", server.url, headers={"transfer-encoding": "chunked"})
    request.stream = Pieces()
    await client.send(request)


async def wait_in_line(client: httpx.AsyncClient, server: Server) -> None:
    async def trace(event: str, info: Any) -> None:
        await trio.lowlevel.checkpoint()

    get = partial(client.get, server.url, extensions={"trace": trace})
    async with trio.open_nursery() as nursery:
        async with client.stream("GET", server.url) as response:
            for _ in range(2):
                nursery.start_soon(get)
                await trio.testing.wait_all_tasks_blocked(0.001)
            await response.aread()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("use", "script", "options", "steps"),
    [
        (get_and_read, in_steps, {}, 5),
        (read_in_pieces, in_steps, {}, 5),
        (reuse, in_steps, {"max_connections": 1}, 9),
        (upload, slow_reader, {}, 12),
        (upload_with_clocks, slow_reader, {}, 6),
        (upload_in_pieces, slow_reader, {}, 12),
        (upload, refusing, {}, 4),
        (reuse, dying_often, {"max_connections": 1}, 5),
        (wait_in_line, in_steps, {"max_connections": 1}, 16),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_cancelled_at_any_step_nothing_is_left(
    use: Use, script: Script, options: dict[str, Any], steps: int, tls: bool
) -> None:
    before = open_sockets()
    server = Server(script, certified() if tls else None)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        with trio.fail_after(60):
            assert await walk(server, use, **options) > steps
        nursery.cancel_scope.cancel()
    assert open_sockets() == before


async def test_the_end_cancelled_at_any_step() -> None:
    async def use(client: httpx.AsyncClient, server: Server) -> None:
        async with trio.open_nursery() as nursery:
            async with client.stream("GET", server.url) as response:
                await anext(raw(response))
                nursery.start_soon(suppressing, client.get, server.url)
                await trio.testing.wait_all_tasks_blocked(0.001)
                await client._transport.aclose()

    async def suppressing(get: Callable[..., Awaitable[Any]], url: str) -> None:
        with suppress(httpx.TransportError, RuntimeError):
            await get(url)

    before = open_sockets()
    async with serving(in_steps) as server:
        for options in ({}, {"max_connections": 1}):
            assert await walk(server, use, after=False, **options) > 8
    assert open_sockets() == before


@pytest.mark.parametrize("tls", [False, True])
async def test_a_read_that_was_cancelled_has_lost_nothing(tls: bool) -> None:
    """The library's clocks rely on it: they cancel a read and take it up again."""
    text = bytes(range(200))

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(CHUNKED)
            for i in text:
                await peer.send(b"1\r\n%c\r\n" % i)
                await trio.lowlevel.checkpoint()
            await peer.send(b"0\r\n\r\n")

    async def read(body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            pieces.append(piece)

    async with serving(script, tls=tls) as server, client_of(ours()) as client:
        for step in range(1, 20):
            pieces: list[bytes] = []
            body = raw(await started(client, server.url))
            cancelled = 0
            while await cancelled_at(step, read, body):
                cancelled += 1
                await trio.testing.wait_all_tasks_blocked()
                if cancelled == 50:
                    await read(body)
                    break
            assert b"".join(pieces) == text
            assert cancelled
            quiet(client._transport, idle=1)
        assert server.connections == 1


@pytest.mark.parametrize("tls", [False, True])
async def test_churn(tls: bool) -> None:
    """Many requests that are cancelled here and there, in a line for few slots."""
    chance = random.Random(7)
    most = 4

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(CHUNKED + b"3\r\nabc\r\n")
            for _ in range(chance.randrange(4)):
                await trio.lowlevel.checkpoint()
            await peer.send(b"3\r\ndef\r\n0\r\n\r\n")

    async def visitor() -> None:
        for _ in range(30):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(client.get, server.url)
                    for _ in range(chance.randrange(40)):
                        await trio.lowlevel.checkpoint()
                    assert transport.statistics().active <= most
                    if chance.random() < 0.7:
                        scope.cancel()

    async with serving(script, tls=tls) as server:
        transport = ours(max_connections=most)
        async with client_of(transport) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(visitor)
            quiet(transport)
            idle = transport.statistics().idle
            assert idle <= most
            await server.left_with(idle)
            assert server.open == idle
            opened = transport.statistics().opened
            assert opened >= 30  # it did cancel connections under way
            assert await told(client.get(server.url)) == "abcdef"
            assert transport.statistics().opened - opened == (idle == 0)
        await server.left_with(0)


# -- through the library -------------------------------------------------------------------------


async def streaming(peer: Peer) -> None:
    while await peer.request():
        await peer.send(CHUNKED)
        for event in openai_events("a", "b"):
            await peer.send(b"%x\r\n%s\r\n" % (len(event), event))
        await peer.send(b"0\r\n\r\n")


def model_at(url: str) -> llm.Model:
    return llm.compatible("m", base_url=f"{url}v1", api_key=KEY)


async def test_it_is_the_default(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ConnectionPool] = []

    class Seen(ConnectionPool):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr("trio_minillm._http.connector.ConnectionPool", Seen)
    async with serving(streaming) as server:
        async with llm.open_client() as client:
            for _ in range(3):
                assert (await client.complete(model_at(server.url), "Hi")).content == "ab"
            (pool,) = made
            assert counts(pool) == (0, 1, 0, 1, 2, 0)
        assert counts(pool) == (0, 0, 0, 1, 2, 0)  # the client that made it ends it
        await server.left_with(0)
    assert made == [pool]


async def test_one_that_was_brought_is_kept() -> None:
    async with serving(streaming, tls=True) as server:
        transport = ours(max_connections=2)
        async with llm.open_client(transport=transport) as client:
            assert (await client.complete(model_at(server.url), "Hi")).content == "ab"
        quiet(transport, idle=1)
        await transport.aclose()


async def test_httpx_own_still_does() -> None:
    async with serving(streaming) as server:
        async with httpx.AsyncHTTPTransport() as transport:
            async with llm.open_client(transport=transport) as client:
                for _ in range(2):
                    assert (await client.complete(model_at(server.url), "Hi")).content == "ab"
        assert server.connections == 1


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_used(
    name: str, no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(peer: Peer) -> None:
        await peer.request()
        await peer.reply(b"", b"connection: close", status=b"403 Forbidden")

    secure = name == "HTTPS_PROXY"
    url = f"http{'s' if secure else ''}://model.invalid/"
    async with serving(proxy) as server:
        monkeypatch.setenv(name, server.url)
        async with llm.open_client(retry=llm.Retry(attempts=1)) as client:
            with pytest.raises(llm.MiniLLMError):
                await client.complete(model_at(url), "Hi")
        asked = {request.line for request in server.requests}
    line = b"CONNECT model.invalid:443 HTTP/1.1" if secure else b"POST http://model.invalid/v1/"
    assert len(asked) == 1
    assert asked.pop().startswith(line)


async def test_no_cookie_of_a_proxy_is_kept(
    no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(peer: Peer) -> None:
        while await peer.request():
            await peer.reply(b"{}", b"set-cookie: session=of-key-a; path=/", status=b"400 Bad")

    async with serving(proxy) as server:
        monkeypatch.setenv("http_proxy", server.url)
        async with llm.open_client() as client:
            for _ in range(2):
                with pytest.raises(llm.RefusedError):
                    await client.complete(model_at("http://model.invalid/"), "Hi")
        assert len(server.requests) == 2
        assert all(b"of-key-a" not in request.head for request in server.requests)


async def test_a_proxy_does_not_matter_to_a_transport_that_was_brought(
    no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(streaming) as server:
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1/")
        transport = ours()
        async with llm.open_client(transport=transport) as client:
            assert (await client.complete(model_at(server.url), "Hi")).content == "ab"
        await transport.aclose()


def test_the_wait_for_a_slot_is_on_no_clock() -> None:
    async def main() -> None:
        async with serving(streaming) as server:
            transport = ours(max_connections=1)
            async with client_of(transport) as other:
                holder = await started(other, server.url)
                async with llm.open_client(transport=transport, **options) as client:
                    async with trio.open_nursery() as nursery:

                        async def ask() -> None:
                            answer = await client.complete(model_at(server.url), "Hi")
                            answers.append(answer.content)

                        nursery.start_soon(ask)
                        for _ in range(5):
                            await trio.testing.wait_all_tasks_blocked()
                            assert transport.statistics().waiting == 1
                            clock.jump(1)
                        await trio.testing.wait_all_tasks_blocked()
                        await holder.aclose()
            quiet(transport)

    clock = trio.testing.MockClock()
    options: dict[str, Any] = {
        "timeouts": llm.Timeouts(connect=1, first_chunk=1, idle=1, byte_idle=1, total=3),
        "retry": llm.Retry(attempts=1),
    }
    answers: list[str] = []
    trio.run(main, clock=clock)
    assert answers == ["ab"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_connections": 0}, ValueError, "max_connections must be a whole number, 1 or more"),
        ({"max_connections": -1}, ValueError, "max_connections must be"),
        ({"max_connections": "x"}, ValueError, "max_connections must be"),
        ({"max_connections": True}, ValueError, "max_connections must be"),
        ({"max_idle_connections": -1}, ValueError, "max_idle_connections must be"),
        ({"max_idle_connections": None}, ValueError, "max_idle_connections must be"),
        ({"keepalive_expiry": None}, ValueError, "keepalive_expiry must be a number of seconds"),
        ({"verify": None}, TypeError, "verify must be SSLContext or bool, not NoneType"),
        ({"verify": 0}, TypeError, "verify must be SSLContext or bool, not int"),
        ({"verify": "x"}, TypeError, "verify must be SSLContext or bool, not str"),
    ],
)
def test_options_that_make_no_sense_are_told(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        TrioTransport(**options)
    assert TrioTransport(max_connections=1, max_idle_connections=0, keepalive_expiry=0)
