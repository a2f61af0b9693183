"""Clients and transports of httpx2, in the place of httpx's.

Its transport is also held to the contract of transports, in `test_transport.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
import trio

import trio_minillm as llm
from trio_minillm import Outcome, Retry, Timeouts
from trio_minillm._http.brought import as_httpx
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import Reply, faults, hang, openai_events, reply, serve

from ..support.peers import open_sockets

KEY = "sk-very-secret-0123456789"
ONCE = Retry(attempts=1)


def by_client() -> dict[str, Any]:
    return {"http_client": httpx2.AsyncClient(trust_env=False)}


def by_transport() -> dict[str, Any]:
    return {"transport": httpx2.AsyncHTTPTransport(trust_env=False)}


both = pytest.mark.parametrize("options", [by_client, by_transport])


@both
async def test_answers_come_by_every_way(options: Any) -> None:
    before = open_sockets()
    async with serve(reply(*openai_events("Hel", "lo"))) as server:
        given = options()
        (http,) = given.values()
        async with http, llm.open_client(**given) as client:
            model = server.model(api_key=KEY)
            assert (await client.complete(model, "Hi")).content == "Hello"
            async with client.stream(model, "Hi" * 100_000) as stream:
                assert [chunk.delta async for chunk in stream if chunk.delta] == ["Hel", "lo"]
            assert stream.outcome is Outcome.FINISHED
            async with client.batch([BatchRequest("k", "Hi")], model=model) as results:
                assert [r.response and r.response.content async for r in results] == ["Hello"]
        assert len(server.connections) == 1
        assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
        assert {r.headers["accept-encoding"] for r in server.requests} == {"identity"}
        await server.left_with(0)
    assert open_sockets() == before


@both
async def test_what_was_brought_is_left_open(options: Any) -> None:
    async with serve(reply(*openai_events("Hi"))) as server:
        given = options()
        (http,) = given.values()
        async with http:
            for _ in range(2):
                async with llm.open_client(**given) as client:
                    await client.complete(server.model(), "Hi")
        assert len(server.connections) == 1


@both
async def test_a_stream_that_is_left_closes_its_connection(options: Any) -> None:
    async with serve(reply(*openai_events("Hi")[:2], hang)) as server:
        given = options()
        (http,) = given.values()
        async with http, llm.open_client(**given) as client:
            async with client.stream(server.model(), "Hi") as stream:
                assert (await anext(stream)).delta == "Hi"
            assert stream.outcome is Outcome.CANCELLED
            await server.left_with(0)


@both
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.cut(60), llm.ConnectionCut),
        (faults.cut(60, "reset"), llm.ConnectionCut),
        (faults.endless_headers(), llm.ProtocolError),
    ],
    ids=["cut", "reset", "headers"],
)
async def test_faults_are_errors_of_ours(options: Any, fault: Any, error: Any) -> None:
    answer: Reply = reply(*openai_events("Hel", "lo")) | fault
    async with serve(answer) as server:
        given = options()
        (http,) = given.values()
        async with http, llm.open_client(**given, retry=ONCE) as client:
            with pytest.raises(error) as caught:
                await client.complete(server.model(api_key=KEY), "Hi")
    told: list[BaseException | None] = [caught.value]
    while told and (one := told.pop()):
        assert not type(one).__module__.startswith("httpx2")
        assert KEY not in repr(vars(one))
        told += [one.__cause__]


@both
async def test_a_port_at_which_nobody_listens(options: Any) -> None:
    async with serve() as server:
        model = server.model()
    given = options()
    (http,) = given.values()
    async with http, llm.open_client(**given, retry=ONCE) as client:
        with pytest.raises(llm.SendError, match="nothing listens there") as caught:
            await client.complete(model, "Hi")
    assert caught.value.reason == "refused"


@both
@pytest.mark.parametrize("location", ["http://elsewhere.invalid/", "http://[", "http://x:y/"])
async def test_nothing_follows_a_redirect(options: Any, location: str) -> None:
    async with serve(reply(b"", status=307, headers={"location": location})) as server:
        given = options()
        (http,) = given.values()
        async with http, llm.open_client(**given, retry=ONCE) as client:
            with pytest.raises(llm.RefusedError, match="not followed"):
                await client.complete(server.model(), "Hi")


@both
async def test_clocks_run_as_elsewhere(options: Any, mock_clock: Any) -> None:
    mock_clock.autojump_threshold = 0.02
    async with serve(reply(*openai_events("Hi")[:2], hang)) as server:
        given = options()
        (http,) = given.values()
        clocks = Timeouts(idle=3)
        async with http, llm.open_client(**given, timeouts=clocks, retry=ONCE) as client:
            with pytest.raises(llm.StreamTimeout) as caught:
                await client.complete(server.model(), "Hi")
    assert caught.value.clock == "idle"
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hi"


async def test_any_transport_of_its_interface_is_taken() -> None:
    seen: list[Any] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.content, request.headers["x-one"]))
        return httpx2.Response(200, content=b"".join(openai_events("Hi")))

    model = llm.compatible("m", base_url="http://test.invalid/v1", headers={"x-one": "1"})
    for given in (
        {"transport": httpx2.MockTransport(handler)},
        {"http_client": httpx2.AsyncClient(transport=httpx2.MockTransport(handler))},
    ):
        async with llm.open_client(**given) as client:
            assert (await client.complete(model, "Hi")).content == "Hi"
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert b'"content":"Hi"' in seen[0][0]


async def test_its_own_headers_cookies_and_auth_go_along() -> None:
    async with serve(reply(*openai_events("Hi"))) as server:
        http = httpx2.AsyncClient(headers={"x-mine": "1"}, cookies={"a": "b"}, trust_env=False)
        async with http, llm.open_client(http_client=http) as client:
            await client.complete(server.model(), "Hi")
        (request,) = server.requests
    assert (request.headers["x-mine"], request.headers["cookie"]) == ("1", "a=b")


class Failing(httpx2.AsyncBaseTransport):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        raise self.error


class Own(httpx2.ReadError):
    """A subclass of somebody's."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (httpx2.PoolTimeout("full"), llm.SendError),
        (Own("broke"), llm.SendError),
        (httpx2.RemoteProtocolError("what is b'SSH'"), llm.ProtocolError),
        (httpx2.UnsupportedProtocol("ftp"), llm.SendError),
        (httpx2.InvalidURL("no url"), llm.SendError),
        (httpx2.StreamConsumed(), llm.SendError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("around", ["transport", "http_client"])
async def test_each_error_has_its_like(error: Exception, told: Any, around: str) -> None:
    transport = Failing(error)
    given: Any = transport if around == "transport" else httpx2.AsyncClient(transport=transport)
    model = llm.compatible("m", base_url="http://test.invalid/v1")
    async with llm.open_client(**{around: given}, retry=ONCE) as client:
        if isinstance(error, httpx2.InvalidURL) and around == "http_client":
            told = llm.RefusedError  # a client parses no other address than a redirect's
        with pytest.raises(told):
            await client.complete(model, "Hi")


@pytest.mark.parametrize(
    "given",
    [
        {"http_client": httpx2.Client()},
        {"http_client": httpx2.AsyncHTTPTransport()},
        {"transport": httpx2.AsyncClient()},
        {"transport": httpx2.HTTPTransport()},
        {"transport": httpx.AsyncClient()},
    ],
)
async def test_anything_else_is_refused(given: Any) -> None:
    (name,) = given
    with pytest.raises(TypeError, match=f"^{name} must be Async"):
        async with llm.open_client(**given):
            pass


def test_it_is_not_imported_unless_it_is_brought() -> None:
    code = """if True:
        import sys
        sys.modules["httpx2"] = None  # as if it were not installed
        import httpx, trio, trio_minillm as llm
        from trio_minillm.testing import ScriptedTransport, model

        async def main():
            for given in ({"transport": ScriptedTransport()}, {"http_client": httpx.AsyncClient(transport=ScriptedTransport())}, {}):
                async with llm.open_client(**given) as client:
                    if given:
                        await client.complete(model(), "Hi")

        trio.run(main)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


async def test_a_body_that_can_not_be_closed_costs_nothing() -> None:
    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for event in openai_events("Hi")[:2]:
                yield event
            raise httpx2.ReadError("broke")

        async def aclose(self) -> None:
            raise httpx2.ReadError("can't be closed")

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Body()))
    model = llm.compatible("m", base_url="http://test.invalid/v1")
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        with pytest.raises(llm.ConnectionCut) as caught:
            await client.complete(model, "Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hi"


async def test_a_transport_may_be_asked_with_a_body_that_was_not_read() -> None:
    """As by a client of httpx's that uploads a stream."""

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"piece by "
            yield b"piece"

    async with serve(lambda request: reply(request.body)) as server:
        async with as_httpx(httpx2.AsyncHTTPTransport(trust_env=False)) as transport:
            request = httpx.Request("POST", f"{server.url}/x", stream=Body())
            request.headers.update({"host": "127.0.0.1", "transfer-encoding": "chunked"})
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"piece by piece"
