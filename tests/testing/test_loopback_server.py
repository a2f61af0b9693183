"""The server on a loopback socket: its script, its bounds, and what it sees of its clients."""

from __future__ import annotations

from decimal import Decimal

import httpx
import pytest
import trio

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm.testing import _loopback_connection as _connection
from trio_minillm.testing import faults

from ..support.certificates import certified, trusting

EVENTS = testing.openai_events("Sea ", "salty")


async def exchange(port, *data, hang_up=True):
    """Send bytes; all that comes back until the server hangs up."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        for piece in data:
            await stream.send_all(piece)
        if hang_up:
            await stream.send_eof()
        got = b""
        with trio.move_on_after(5):
            while piece := await stream.receive_some():
                got += piece
        return got


GET = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


async def test_it_answers_in_the_order_of_its_script(mock_clock):
    mock_clock.autojump_threshold = 0.02
    busy = testing.json_reply({"error": {"message": "later"}}, status=503)
    async with testing.serve(busy, testing.answer("a"), testing.answer("b", "c")) as server:
        async with llm.open_client() as client:
            for expected in ("a", "bc", "bc"):
                response = await client.complete(server.model(), "Hello")
                assert response.content == expected
            claude = await client.complete(server.model(providers.Anthropic()), "Hello")
            assert claude.content == "bc"
            other = await client.complete(server.model(providers.OpenAIResponses()), "Hello")
            assert (other.content, other.finish_reason) == ("bc", "completed")
            text = await client.complete(server.model(providers.TextCompletions()), "Hello")
            assert (text.content, text.finish_reason) == ("bc", "stop")
            server.replies = [testing.answer("new")]
            assert (await client.complete(server.model(), "Hello")).content == "new"
        assert server.bodies[0]["messages"][0]["content"] == "Hello"
        assert [r.path for r in server.requests[-4:]] == [
            "/v1/messages",
            "/v1/responses",
            "/v1/completions",
            "/v1/chat/completions",
        ]
        (connection,) = server.connections
        assert connection.requests == 8
        await server.left_with(0)
        assert connection.left_at is not None
        assert connection.closed_at >= connection.left_at >= connection.opened_at


async def test_answers_of_whoever_does_not_stream():
    async with (
        testing.serve(testing.answer("Hi ", "there")) as server,
        httpx.AsyncClient() as client,
    ):
        for path, provider in (
            ("chat/completions", providers.OpenAIChat()),
            ("messages", providers.Anthropic()),
            ("responses", providers.OpenAIResponses()),
            ("completions?x=1", providers.TextCompletions()),
        ):
            response = await client.post(f"{server.base_url}/{path}", json={"messages": []})
            assert response.headers["content-type"] == "application/json"
            chunks = provider.parse_response(response.content)
            assert "".join(chunk.delta for chunk in chunks) == "Hi there"
        response = await client.post(f"{server.base_url}/x", content=b"not JSON")
        assert response.json()["choices"][0]["message"]["content"] == "Hi there"


async def test_questions_after_the_fact_have_their_own_script(mock_clock):
    mock_clock.autojump_threshold = 0.02
    reply = testing.reply(*EVENTS[:2], testing.hang)
    async with testing.serve(reply, settlements=[testing.settlement(0.002)]) as server:
        model = llm.openrouter("m", base_url=server.base_url, api_key="dummy")
        async with llm.open_client() as client:
            async with client.stream(model, "Hello") as stream:
                await stream.next_chunk()
        assert client.ledger.total == Decimal("0.002")
        assert len(server.questions) == 1
        assert len(server.requests) == 1


async def test_a_stream_that_is_left_is_seen_to_be_left(mock_clock):
    mock_clock.autojump_threshold = 0.02
    async with testing.serve(testing.reply(*EVENTS[:3], testing.hang)) as server:
        async with llm.open_client() as client:
            async with client.stream(server.model(), "Hello") as stream:
                await stream.next_chunk()
                await server.asked(1)
                assert server.open == 1
            before = trio.current_time()
            await server.connections[0].left.wait()
            await server.connections[0].closed.wait()
            assert trio.current_time() == before
            assert server.open == 0


async def test_it_can_break_its_connections(mock_clock):
    mock_clock.autojump_threshold = 0.02
    async with testing.serve(testing.reply(*EVENTS[:3], testing.hang)) as server:
        async with llm.open_client() as client:
            async with client.stream(server.model(), "Hello") as stream:
                await stream.next_chunk()
                await stream.next_chunk()  # all that was sent is here
                server.disconnect()
                with pytest.raises(llm.ConnectionCut) as caught:
                    await stream.collect()
                assert caught.value.partial.content == "Sea salty"
        assert server.connections[0].left_at is None


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_over_tls(how, mock_clock):
    mock_clock.autojump_threshold = 0.02
    whole = testing.reply(*EVENTS)
    async with testing.serve(whole, whole | faults.cut(250, how), context=certified()) as server:
        assert server.base_url.startswith("https://localhost:")
        async with llm.TrioTransport(verify=trusting()) as transport:
            async with llm.open_client(transport=transport) as client:
                model = server.model(api_key="k" * 20)
                assert (await client.complete(model, "Hello")).content == "Sea salty"
                with pytest.raises(llm.ConnectionCut):
                    async with client.stream(model, "Hello") as stream:
                        await stream.collect()
        await server.left_with(0)


async def test_the_exception_of_the_block_comes_out_as_itself():
    with pytest.raises(LookupError):
        async with testing.serve():
            raise LookupError
    with trio.move_on_after(0) as scope:
        async with testing.serve():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_exception_of_a_reply_comes_out_as_itself():
    def broken(request):
        raise LookupError(request.path)

    with pytest.raises(LookupError, match="/v1/x"):
        async with testing.serve(broken) as server:
            await exchange(server.port, GET, hang_up=False)
            await trio.sleep_forever()
    with pytest.raises(ExceptionGroup) as caught:
        async with testing.serve(broken) as server:
            try:
                await exchange(server.port, GET, hang_up=False)
                await trio.sleep_forever()
            finally:
                raise ValueError
    assert {type(exc) for exc in caught.value.exceptions} == {LookupError, ValueError}


async def test_a_reply_may_depend_on_its_request():
    def echo(request: testing.ServedRequest) -> testing.Reply:
        assert "body" not in repr(request)
        return testing.json_reply({"path": request.path, "said": request.json()})

    async with testing.serve(echo) as server, httpx.AsyncClient() as client:
        got = await client.post(f"{server.url}/a?b=c", json="body")
        assert got.json() == {"path": "/a", "said": "body"}
    transport = testing.ScriptedTransport(echo)
    async with httpx.AsyncClient(transport=transport) as client:
        got = await client.post("http://x/a?b=c", json="body")
        assert got.json() == {"path": "/a", "said": "body"}


async def test_requests_may_be_chunked_pipelined_or_dripped(mock_clock):
    mock_clock.autojump_threshold = 0.02
    chunked = (
        b"POST /v1/y HTTP/1.1\r\nhost: x\r\nx-a: 1\r\nX-A: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )

    def echo(request):
        return testing.raw(request.body + b"!", keep_alive=True)

    async with testing.serve(echo) as server:
        for data in ([GET + chunked], [bytes([b]) for b in GET + chunked]):
            server.requests.clear()
            # A client that has ended its side is gone, so this one stays.
            assert await exchange(server.port, *data, hang_up=False) == b"{}!abcde!"
            assert [r.body for r in server.requests] == [b"{}", b"abcde"]
            assert server.requests[1].headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"SSH-2.0-x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nx: " + b"x" * _connection.MAX_HEAD + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\n" + b"x: y\r\n" * _connection.MAX_HEAD, 431),
    ],
)
async def test_what_is_no_request_is_refused(data, status):
    async with testing.serve() as server:
        got = await exchange(server.port, data, hang_up=False)
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in got
        await server.left_with(0)
        assert server.requests == []


async def test_a_body_has_a_bound(monkeypatch):
    monkeypatch.setattr(_connection, "MAX_BODY", 100)
    async with testing.serve() as server:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        got = await exchange(server.port, head + b"x" * 101, hang_up=False)
        assert got.startswith(b"HTTP/1.1 413 ")


async def test_pipelined_requests_have_a_bound():
    async with testing.serve(testing.reply(wait=testing.hang)) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(GET * (_connection.MAX_PIPELINED + 40))
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
                raise trio.BrokenResourceError  # an end will do as well


async def test_head_requests_get_a_head():
    async with testing.serve() as server, httpx.AsyncClient() as client:
        for _ in range(2):
            response = await client.head(server.url)
            assert (response.status_code, response.content) == (200, b"")
        assert len(server.connections) == 1


async def test_many_at_once(mock_clock):
    mock_clock.autojump_threshold = 0.05
    reply = testing.reply(*EVENTS) | faults.drip(40, 0.5)

    async with testing.serve(reply) as server, llm.open_client() as client:
        done = []

        async def ask():
            done.append((await client.complete(server.model(), "Hello")).content)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert done == ["Sea salty"] * 200
        assert len(server.connections) == 200
