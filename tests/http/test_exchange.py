"""Exchanges: the same bytes go out and the same response comes back, whichever way is chosen.

The ways differ in what stands between this library and the socket; what streams see must not.
"""

from __future__ import annotations

import gc
import gzip
import itertools
import logging
import socket
import sys
import traceback
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._http import connection
from trio_minillm._http.connector import Connect, open_connector
from trio_minillm._http.exchange import Exchange
from trio_minillm._http.headers import ResponseHeaders
from trio_minillm._http.httpx_exchange import HttpxExchange, send_by_client, send_by_transport
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.routes import RoutedExchange
from trio_minillm._http.transport import BODY, TrioTransport
from trio_minillm._http.trio_exchange import TrioExchange
from trio_minillm._types.errors import MiniLLMError
from trio_minillm.testing import ScriptedTransport, openai_events, reply

from ..support.certificates import trusting
from ..support.peers import (
    SOON,
    Peer,
    Server,
    answering,
    client_of,
    dying_often,
    hanging,
    in_steps,
    open_sockets,
    ours,
    saying,
    serving,
    theirs,
)
from ..support.streams import cancelled_at

KEY = "sk-0123456789abcdef"
PROMPT = b'{"prompt": "a secret plan"}'
HEADERS = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}


# -- the ways ------------------------------------------------------------------------------------


class Wrapped(httpx.AsyncBaseTransport):
    """A transport that wraps the body of ours in an object of its own, as `testing.record` does."""

    class Body(httpx.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self.receive, self.aclose = inner.receive, inner.aclose  # type: ignore[method-assign]

        def __aiter__(self) -> AsyncIterator[bytes]:
            raise AssertionError("this one is to be read by `receive`")

    def __init__(self, transport: TrioTransport) -> None:
        self.transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.transport.handle_async_request(request)
        body = self.Body(response.extensions[BODY])
        extensions = {**response.extensions, BODY: body}
        return httpx.Response(
            response.status_code, headers=response.headers, stream=body, extensions=extensions
        )


class Way(NamedTuple):
    """Factory of exchanges, and the pool of ours that they use, if any."""

    connect: Connect
    pool: ConnectionPool | None = None


@asynccontextmanager
async def on_our_pool(**options: Any) -> AsyncIterator[Way]:
    pool = ConnectionPool(verify=trusting(), **options)
    yield Way(partial(TrioExchange, pool), pool)
    pool.close()


@asynccontextmanager
async def by_a_client_on_ours(**options: Any) -> AsyncIterator[Way]:
    transport = ours(**options)
    async with client_of(transport) as client:
        yield Way(partial(HttpxExchange, partial(send_by_client, client)), transport.pool)


@asynccontextmanager
async def by_a_transport_around_ours(**options: Any) -> AsyncIterator[Way]:
    async with ours(**options) as transport:
        send = partial(send_by_transport, Wrapped(transport))
        yield Way(partial(HttpxExchange, send), transport.pool)


@asynccontextmanager
async def by_httpx_transport() -> AsyncIterator[Way]:
    async with theirs() as transport:
        yield Way(partial(HttpxExchange, partial(send_by_transport, transport)))


@asynccontextmanager
async def by_httpx_client() -> AsyncIterator[Way]:
    async with client_of(theirs()) as client:
        yield Way(partial(HttpxExchange, partial(send_by_client, client)))


Open = Callable[..., AbstractAsyncContextManager[Way]]
ON_OURS: list[Open] = [on_our_pool, by_a_client_on_ours, by_a_transport_around_ours]
WAYS: list[Open] = [*ON_OURS, by_httpx_transport, by_httpx_client]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
every_way_on_ours = pytest.mark.parametrize("way", ON_OURS, ids=lambda way: way.__name__)


def quiet(pool: ConnectionPool) -> None:
    now = pool.statistics()
    assert (now.active, now.waiting) == (0, 0)
    assert pool._slots is None or pool._slots.borrowed_tokens == 0


# -- responses -----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """All that can be seen of a response through an exchange."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    error: str = ""


async def seen(exchange: Exchange, url: str, method: str = "POST") -> Seen:
    """Send a request and read the whole response, as streams do."""
    body = b""
    try:
        await exchange.start(url, HEADERS, PROMPT if method == "POST" else b"", method=method)
        while data := await exchange.receive():
            body += data
        assert await exchange.receive() == b""  # its end stays its end
        await exchange.drain()
    except MiniLLMError as exc:
        return Seen(exchange.status, exchange.headers, body, type(exc).__name__)
    finally:
        await exchange.close()
        await exchange.close()
    return Seen(exchange.status, exchange.headers, body)


OK = b"HTTP/1.1 200 OK\r\n"
TEXT = b"data: a\n\ndata: b\n\n" * 9
BARE = zlib.compressobj(wbits=-15)
BARE_DEFLATE = BARE.compress(TEXT) + BARE.flush()
SIZED = b"content-length: %d\r\n\r\n"


def encoded(name: bytes, data: bytes) -> bytes:
    return OK + b"content-encoding: %s\r\n" % name + SIZED % len(data) + data


RESPONSES: dict[str, tuple[bytes, tuple[int, bytes, str]]] = {
    "length": (OK + SIZED % 2 + b"ok", (200, b"ok", "")),
    "chunked": (
        OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        (200, b"abcde", ""),
    ),
    "until closed": (b"HTTP/1.0 200 OK\r\n\r\nabc", (200, b"abc", "")),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", "")),
    "refused": (b"HTTP/1.1 401 No\r\nx-request-id: r\r\n" + SIZED % 1 + b"x", (401, b"x", "")),
    "behind interim ones": (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK + SIZED % 2 + b"ok",
        (200, b"ok", ""),
    ),
    "twice the same header": (
        OK + b"X-A: 1\r\nx-a: 2\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\n" + SIZED % 0,
        (200, b"", ""),
    ),
    "headers in UTF-8": (OK + "x-a: é\r\n".encode() + SIZED % 0, (200, b"", "")),
    "headers in Latin-1": (OK + b"x-a: \xe9\r\nx-b: \xc3\xa9\r\n" + SIZED % 0, (200, b"", "")),
    "gzip": (encoded(b"gzip", gzip.compress(TEXT)), (200, TEXT, "")),
    "gzip, two members": (encoded(b"GZIP", gzip.compress(TEXT) * 2), (200, TEXT * 2, "")),
    "deflate": (encoded(b"deflate", zlib.compress(TEXT)), (200, TEXT, "")),
    "deflate without a header": (encoded(b"deflate", BARE_DEFLATE), (200, TEXT, "")),
    "half of gzip": (encoded(b"gzip", gzip.compress(TEXT)[:-4]), (200, TEXT, "ConnectionCut")),
    "broken gzip": (encoded(b"gzip", b"x" * 20), (200, b"", "ProtocolError")),
    "unknown coding": (encoded(b"br", b"x"), (200, b"", "ProtocolError")),
    "identity": (encoded(b"identity", TEXT), (200, TEXT, "")),
    "cut": (OK + SIZED % 9 + b"abc", (200, b"abc", "ConnectionCut")),
    "cut in a chunk": (
        OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde",
        (200, b"abcde", "ConnectionCut"),
    ),
    "no response": (b"", (0, b"", "SendError")),
    "not HTTP": (b"SSH-2.0-x\r\n\r\n", (0, b"", "ProtocolError")),
    "moved": (
        b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\n" + SIZED % 0,
        (307, b"", ""),
    ),
}


@every_way
@pytest.mark.parametrize("name", RESPONSES)
async def test_the_same_response_comes_from_the_same_bytes(way: Open, name: str) -> None:
    data, expected = RESPONSES[name]
    async with serving(saying(data)) as server, way() as (connect, pool):
        found = await seen(connect(), server.url)
        assert (found.status, found.body, found.error) == expected
        if pool is not None:
            quiet(pool)
        async with client_of(theirs()) as client, serving(saying(data)) as other:
            if found.status:  # httpx decodes and joins the headers for us, to compare with
                request = client.build_request("POST", other.url, content=PROMPT)
                response = await client.send(request, stream=True)
                assert found.headers == dict(response.headers.items())
                await response.aclose()


def test_a_header_is_found_without_reading_the_others() -> None:
    received = ResponseHeaders(b"X-A:  one \r\nx-a-b: two\r\nx-c:")
    assert [received.get(name) for name in ("x-a", "x-a-b", "x-c", "a", "x")] == [
        *("one", "two", ""),
        *(None, None),
    ]
    assert repr(received) == "<headers>"
    assert dict(received) == {"x-a": "one", "x-a-b": "two", "x-c": ""}
    assert (len(received), received["x-a"], received.get("x-a"), "x" in received) == (
        3,
        "one",
        "one",
        False,
    )


def test_a_header_that_came_twice_is_joined_and_one_that_is_not_ascii_decoded() -> None:
    assert ResponseHeaders(b"x-a: one\r\nx-b: b\r\nX-A: two").get("x-a") == "one, two"
    assert ResponseHeaders("x-a: é".encode()).get("x-a") == "é"
    assert ResponseHeaders(b"x-a: \xe9").get("x-a") == "é"
    assert ResponseHeaders(b"").get("x-a", "none") == "none"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"X-A", b"x-a", b"x-b"]),
            st.binary(max_size=4).map(lambda value: value.translate(None, b"\r\n").strip(b" \t"))
            | st.sampled_from([b"\xc3\xa9", b"\xe9", b"a, b", b":", b""]),
        ),
        max_size=6,
    )
)
def test_headers_are_decoded_and_joined_as_httpx_does_it(
    headers: list[tuple[bytes, bytes]],
) -> None:
    lines = b"\r\n".join(b"%s: %s" % line for line in headers)
    expected = dict(httpx.Headers(headers).items())
    for name in ("x-a", "x-b", "x", "a"):  # one by one, before all are read
        assert ResponseHeaders(lines).get(name, "none") == expected.get(name, "none")
    received = ResponseHeaders(lines)
    assert (received, len(received)) == (expected, len(expected))
    assert [received[name] for name in expected] == [received.get(name) for name in expected]
    assert repr(received) == "<headers>"


@every_way
async def test_a_redirect_to_an_address_that_is_none(way: Open) -> None:
    """httpx's client reads the address of a redirect that it does not follow."""
    data = b"HTTP/1.1 307 Moved\r\nlocation: http://[::1/\r\n" + SIZED % 0
    async with serving(saying(data)) as server, way() as (connect, _):
        found = await seen(connect(), server.url)
    by_client = way in (by_a_client_on_ours, by_httpx_client)
    assert (found.status, found.error) == ((0, "RefusedError") if by_client else (307, ""))


@pytest.mark.parametrize(
    ("way", "resumable", "direct"),
    [
        (on_our_pool, True, True),
        (by_a_client_on_ours, True, True),
        (by_a_transport_around_ours, True, False),
        (by_httpx_transport, False, False),
        (by_httpx_client, False, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_how_a_body_can_be_read(way: Open, resumable: bool, direct: bool) -> None:
    zipped = encoded(b"gzip", gzip.compress(TEXT))
    for data, plain in ((OK + SIZED % 2 + b"ok", True), (zipped, False)):
        async with serving(saying(data)) as server, way() as (connect, _):
            exchange = connect()
            assert (exchange.resumable, exchange.direct, exchange.silent) == (False, False, False)
            await exchange.start(server.url, HEADERS, PROMPT)
            assert exchange.resumable == (resumable and plain)
            assert exchange.direct == (direct and plain)
            await exchange.close()


async def test_a_timeout_of_httpx_forbids_direct_reading() -> None:
    """Each read must then have a scope of its own, which only the task of a stream can give it."""

    class Limited(TrioTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions = {**request.extensions, "timeout": {"read": 60.0}}
            return await super().handle_async_request(request)

    async with serving(answering) as server, Limited() as transport:
        exchange = HttpxExchange(partial(send_by_transport, transport))
        await exchange.start(server.url, HEADERS, PROMPT)
        assert (exchange.resumable, exchange.direct) == (True, False)
        assert await exchange.receive() == b"ok"
        await exchange.close()


@pytest.mark.parametrize("poll", sorted({connection._POLL, False}))
async def test_direct_reading(poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_POLL", poll)  # Windows has none

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n")
            await peer.server.go.wait()
            await peer.send(b"3\r\nabc\r\n")

    for way in (on_our_pool, by_a_client_on_ours):
        async with serving(script) as server, way() as (connect, _):
            exchange = connect()
            await exchange.start(server.url, HEADERS, PROMPT)
            assert exchange.receive_now() is None
            assert exchange.silent
            server.go.set()
            await exchange.readable()
            assert not exchange.silent
            assert exchange.receive_now() == b"abc"
            assert exchange.receive_now() is None
            await exchange.close()
            assert exchange.receive_now() == b""
            with trio.testing.assert_checkpoints():
                await exchange.readable()
        async with serving(saying(RESPONSES["cut"][0])) as server, way() as (connect, _):
            exchange = connect()
            await exchange.start(server.url, HEADERS, PROMPT)
            pieces = []
            with pytest.raises(llm.ConnectionCut) as caught:
                while True:
                    await exchange.readable()
                    pieces.append(exchange.receive_now())
            assert b"".join(filter(None, pieces)) == b"abc"
            assert caught.value.__cause__ is None  # it would quote what the server sent
            await exchange.close()


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, [5]])
async def test_no_frame_shows_the_headers_of_a_request_that_can_not_be_sent(value: Any) -> None:
    async with on_our_pool() as (connect, _):
        with pytest.raises(AttributeError) as caught:
            headers: Any = {"authorization": f"Bearer {KEY}", "x-a": value}
            await connect().start("http://127.0.0.1:1/", headers, b"{}")
        del headers
    shown = caught.getrepr(showlocals=True, style="long")
    frames = [entry for entry in caught.traceback if "trio_minillm" in str(entry.path)]
    locals_ = [repr(v) for entry in frames for v in entry.frame.f_locals.values()]
    assert frames
    assert shown
    assert not any(KEY in text for text in locals_)


async def test_a_request_in_bytes() -> None:
    async with serving(answering) as server, on_our_pool() as (connect, _):
        found = await seen(connect(), f"{server.url}v1/a%20b?c=d#e")
        assert (found.status, found.body) == (200, b"ok")
        (request,) = server.requests
    assert request.head == (
        b"POST /v1/a%20b?c=d HTTP/1.1\r\n"
        b"host: 127.0.0.1:" + str(server.port).encode() + b"\r\n"
        b"connection: keep-alive\r\n"
        b"content-length: " + str(len(PROMPT)).encode() + b"\r\n"
        b"authorization: Bearer " + KEY.encode() + b"\r\n"
        b"accept: text/event-stream\r\n\r\n"
    )
    assert request.body == PROMPT


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize("target", ["", "v1?a=b", "a%2Fb/é?x=[1]&y=a b"])
@pytest.mark.parametrize("body", [b"", b"{}", PROMPT * 10_000])
@pytest.mark.parametrize(
    "headers", [{}, {"X-Call": "b", "Host": "other", "connection": "close", "X-up": "Q"}]
)
async def test_the_same_request_goes_out(
    method: str, target: str, body: bytes, headers: dict[str, str]
) -> None:
    """Byte for byte on our ways; by a client of httpx's, in httpx's order and case."""
    async with serving(answering) as server, AsyncExitStack() as stack:
        pool, transport = ConnectionPool(), await stack.enter_async_context(ours())
        client = await stack.enter_async_context(client_of(ours()))
        client.headers.clear()
        client.headers["connection"] = "keep-alive"
        stack.callback(pool.close)
        for connect in (
            partial(TrioExchange, pool),
            partial(HttpxExchange, partial(send_by_transport, transport)),
            partial(HttpxExchange, partial(send_by_client, client)),
        ):
            exchange = connect()
            await exchange.start(server.url + target, headers, body, method=method)
            assert await exchange.receive() == b"ok"
            await exchange.close()
        by_pool, by_transport, by_client = server.requests
    assert by_pool == by_transport
    assert by_pool.body == by_client.body == body
    lines, others = (sorted(r.head.lower().split(b"\r\n")) for r in (by_pool, by_client))
    assert lines == others


class Names(trio.abc.HostnameResolver):
    """A resolver that knows no name, and which ones were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    async def getaddrinfo(self, host: Any, port: Any, *args: Any) -> Any:
        self.asked.append((host, port))
        raise socket.gaierror(-2, "no such name")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "url",
    [
        *("http://model.invalid", "HTTP://Model.INVALID:80/v1", "https://model.invalid:443"),
        *("http://model.invalid:8080/x?y#z", "http://user:pass@model.invalid/", "http://x:"),
        *("http://müller.invalid/", "http://xn--mller-kva.invalid/", "http://xn--bad-.invalid/"),
        *(f"http://{'a' * 64}.invalid/", "http://.invalid/", "http:///v1", "http://", ""),
        *("ftp://model.invalid/", "/v1", "model.invalid", "http://[::1/", "http://x:99999/"),
        *(
            "http://x:y/",
            "http://a b/",
            "http://a\nb/",
            "http://\udc80/",
            f"http://x/{'a' * 70_000}",
        ),
    ],
    ids=lambda url: ascii(url)[1:30],
)
async def test_a_url_leads_where_it_leads_with_httpx(url: str) -> None:
    ends = []
    names = Names()
    trio.socket.set_custom_hostname_resolver(names)
    async with on_our_pool() as (direct, pool), by_a_transport_around_ours() as (by_httpx, _):
        for connect in (direct, direct, by_httpx):  # twice: what is cached must not matter
            names.asked.clear()
            with pytest.raises(MiniLLMError) as caught:
                await connect().start(url, HEADERS, PROMPT)
            cause = caught.value.__cause__
            ends.append((str(caught.value), type(cause), str(cause), [*names.asked]))
        quiet(pool)
    assert ends[0] == ends[1] == ends[2]
    assert "secret" not in ends[0][0]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "é"},
        {"x-é": "a"},
        {"x-a": "b\r\nc: d"},
        {"x a": "b"},
        {"x-a": " b"},
        {"host": "a", "Host": "b"},
        {"content-length": "5"},
        {"content-length": "500000"},
        {"content-length": "x"},
        {"transfer-encoding": "chunked"},
    ],
    ids=str,
)
async def test_a_request_that_can_not_be_sent_as_it_is(headers: dict[str, str]) -> None:
    for way in (on_our_pool, by_a_transport_around_ours):
        async with serving(hanging) as server, way() as (connect, pool):
            exchange = connect()
            with pytest.raises(llm.SendError) as caught:
                await exchange.start(server.url, {**HEADERS, **headers}, PROMPT)
            await exchange.close()
            assert pool is not None
            quiet(pool)
            assert server.requests == []
        assert KEY not in str(caught.value)


@every_way
async def test_responses_are_logged_as_httpx_does_it(
    way: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="httpx")
    data = b"HTTP/1.0 404 Not Found\r\n\r\n"
    async with serving(saying(data)) as server, way() as (connect, _):
        await seen(connect(), f"{server.url}v1?a=b", "GET")
        await seen(connect(), f"{server.url}v1?a=b", "GET")
    line = f'HTTP Request: GET {server.url}v1?a=b "HTTP/1.0 404 Not Found"'
    assert [r.getMessage() for r in caplog.records if r.name == "httpx"] == [line, line]


async def test_the_words_that_a_server_says_beside_a_status_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="httpx")
    data = f"HTTP/1.1 200 {KEY}\r\ncontent-length: 0\r\n\r\n".encode()
    async with serving(saying(data)) as server, on_our_pool() as (connect, _):
        await seen(connect(), server.url)
    assert "200 OK" in caplog.text
    assert KEY not in caplog.text


@every_way_on_ours
async def test_the_progress_of_a_request_is_told(way: Open) -> None:
    told: list[str] = []
    connecting = ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
    sent = [] if way is on_our_pool else ["http11.send_request_headers.started"]
    sent += ["http11.send_request_body.complete"]
    line = ["connection_pool.wait.started", "connection_pool.wait.complete"]
    async with serving(answering) as server, way(max_connections=1) as (connect, pool):
        first, second = connect(), connect()
        await first.start(server.url, HEADERS, PROMPT, on_progress=told.append)
        assert told == [*connecting, *sent]
        told.clear()
        async with trio.open_nursery() as nursery:
            start = partial(second.start, server.url, HEADERS, PROMPT, on_progress=told.append)
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            assert told == line[:1]
            assert await first.receive() == b"ok"
        assert told == [*line, *sent]  # on the connection of the first
        assert await second.receive() == b"ok"
        assert pool is not None
        quiet(pool)


# -- what is left --------------------------------------------------------------------------------


async def shown(exchange: Exchange, url: str) -> str:
    """Return the traceback of a request that fails, with the local variables of its frames."""
    try:
        await exchange.start(url, {**HEADERS}, PROMPT)
    except Exception as exc:
        found = traceback.TracebackException.from_exception(exc, capture_locals=True)
    finally:
        await exchange.close()
    return "".join(found.format())


@every_way
async def test_a_failure_shows_neither_the_key_nor_the_prompt(way: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    async with serving(saying(RESPONSES["not HTTP"][0])) as server:
        async with way() as (connect, _):
            for url in (f"http://127.0.0.1:{port}/", "http://[::1/", server.url):
                text = await shown(connect(), url)
                assert "MiniLLMError" in text or "ProtocolError" in text or "SendError" in text
                assert KEY not in text
                assert "secret plan" not in text
        if way is not by_httpx_transport:  # that one has no end
            text = await shown(connect(), server.url)
            assert "RuntimeError" in text  # no failure of a request, but a mistake of its sender
            assert KEY not in text
            assert "secret plan" not in text


@pytest.mark.parametrize("way", [on_our_pool, by_a_client_on_ours], ids=lambda way: way.__name__)
async def test_an_exchange_keeps_no_prompt(way: Open) -> None:
    """A stream may last for hours, and a prompt be long."""
    body = b"x" * 100_000
    async with serving(answering) as server, way() as (connect, _):
        before = sys.getrefcount(body)
        exchange = connect()
        await exchange.start(server.url, HEADERS, body)
        gc.collect()
        assert sys.getrefcount(body) == before
        await exchange.close()


async def read_all(connect: Connect, server: Server) -> None:
    assert (await seen(connect(), server.url)).body == b"abcdef"


async def read_directly(connect: Connect, server: Server) -> None:
    exchange, body = connect(), b""
    try:
        await exchange.start(server.url, HEADERS, PROMPT)
        while (data := exchange.receive_now()) != b"":
            body += data or b""
            await exchange.readable()
        assert body == b"abcdef"
    finally:
        await exchange.close()


async def leave_and_drain(connect: Connect, server: Server) -> None:
    exchange = connect()
    try:
        await exchange.start(server.url, HEADERS, PROMPT)
        await exchange.receive()
        await exchange.drain()
    finally:
        await exchange.close()


async def refuse(connect: Connect, server: Server) -> None:
    exchange = connect()
    try:
        await exchange.start(server.url, HEADERS, PROMPT)
        assert await exchange.short_body(SOON) == b"abcdef"
    finally:
        await exchange.close()


async def send_much(connect: Connect, server: Server) -> None:
    exchange = connect()
    try:
        await exchange.start(server.url, HEADERS, b"x" * 5_000_000)
    finally:
        await exchange.close()


async def twice(connect: Connect, server: Server) -> None:
    for _ in range(2):
        await read_all(connect, server)


async def in_line(connect: Connect, server: Server) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read_all, connect, server)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("use", "script", "options", "steps"),
    [
        (read_all, in_steps, {}, 5),
        (read_directly, in_steps, {}, 6),
        (leave_and_drain, in_steps, {}, 5),
        (refuse, in_steps, {}, 5),
        (send_much, in_steps, {}, 8),
        (twice, in_steps, {"max_connections": 1}, 9),
        (twice, dying_often, {"max_connections": 1}, 5),
        (in_line, in_steps, {"max_connections": 1}, 16),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@every_way_on_ours
async def test_cancelled_at_any_step_nothing_is_left(
    way: Open, use: Any, script: Any, options: dict[str, Any], steps: int, tls: bool
) -> None:
    if use is read_directly and way is by_a_transport_around_ours:
        pytest.skip("it is not read directly")
    before = open_sockets()
    async with serving(script, tls=tls, seconds=60) as server:
        for step in itertools.count(1):
            async with way(**options) as (connect, pool):
                assert pool is not None
                with trio.fail_after(SOON):
                    cancelled = await cancelled_at(step, use, connect, server)
                quiet(pool)
                await server.left_with(pool.statistics().idle)
                with trio.fail_after(SOON):
                    assert (await seen(connect(), server.url)).body == b"abcdef"
                quiet(pool)
            await server.left_with(0)
            if not cancelled:
                assert step > steps
                break
    assert open_sockets() == before


# -- the choice ----------------------------------------------------------------------------------


async def kind_of(**options: Any) -> type[Exchange]:
    async with open_connector(**options) as connect:
        assert connect() is not connect()
        return type(connect())


async def test_which_exchange_is_chosen(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(TrioTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await super().handle_async_request(request)

    class Configured(TrioTransport):
        def __init__(self) -> None:
            super().__init__(max_connections=5)

    async with AsyncExitStack() as stack:
        transports = [TrioTransport(), Configured(), Own(), theirs(), ScriptedTransport()]
        for transport in transports:
            await stack.enter_async_context(transport)
        client = await stack.enter_async_context(client_of(ours()))
        for proxy in ("", "http://127.0.0.1:1"):
            if proxy:
                monkeypatch.setenv("ALL_PROXY", proxy)
            kinds = [await kind_of(transport=transport) for transport in transports]
            assert kinds == [
                TrioExchange,
                TrioExchange,
                HttpxExchange,
                HttpxExchange,
                HttpxExchange,
            ]
            assert await kind_of(client=client) is HttpxExchange
            assert await kind_of() is (RoutedExchange if proxy else TrioExchange)
        assert not client.is_closed


async def test_a_transport_that_handles_requests_itself_is_asked() -> None:
    asked = []

    class Own(TrioTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append((request.method, request.content))
            return await super().handle_async_request(request)

    async with serving(answering) as server, Own() as transport:
        async with open_connector(transport=transport) as connect:
            assert (await seen(connect(), server.url)).body == b"ok"
            assert transport.statistics().idle == 1
    assert asked == [("POST", PROMPT)]


async def test_a_transport_that_was_brought_shares_its_connections() -> None:
    """And its limit, and its counts: by httpx and by a client of this library alike."""
    async with serving(answering) as server, ours(max_connections=1) as transport:
        async with open_connector(transport=transport) as connect:
            assert (await seen(connect(), server.url)).body == b"ok"
            other = client_of(transport)
            assert (await other.get(server.url)).text == "ok"
            now = transport.statistics()
            assert (now.idle, now.opened, now.reused) == (1, 1, 1)
        assert transport.statistics().idle == 1  # it is left as it was
        assert (await other.get(server.url)).text == "ok"
    async with open_connector(transport=transport) as connect:
        with pytest.raises(RuntimeError, match="closed"):
            await connect().start(server.url, HEADERS, PROMPT)


async def test_the_end_of_the_block_closes_what_was_opened_for_it(no_proxies: None) -> None:
    async with serving(answering) as server:
        async with open_connector() as connect:
            assert (await seen(connect(), server.url)).body == b"ok"
            assert server.open == 1
        await server.left_with(0)


async def test_a_client_that_was_closed_sends_nothing() -> None:
    async with client_of(ScriptedTransport(reply(*openai_events("x")))) as client:
        pass
    async with llm.open_client(http_client=client) as ours_too:
        with pytest.raises(RuntimeError, match="closed"):
            await ours_too.complete(llm.testing.model(), "Hi")


@pytest.mark.parametrize("where", ["object", "class"])
async def test_a_transport_whose_method_was_replaced_is_asked(where, monkeypatch):
    asked = []
    transport = llm.TrioTransport()

    async def spy(*args):
        asked.append(args[-1].url.path)
        raise httpx.ConnectError("not here")

    monkeypatch.setattr(
        transport if where == "object" else llm.TrioTransport, "handle_async_request", spy
    )
    model = llm.compatible("m", base_url="http://127.0.0.1:9/v1")
    async with llm.open_client(transport=transport, retry=llm.Retry(attempts=1)) as client:
        with pytest.raises(llm.SendError):
            await client.complete(model, "Hi")
    assert asked == ["/v1/chat/completions"]
