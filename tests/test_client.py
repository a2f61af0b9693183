"""The client: what is sent, what is tried again, and how it behaves on real sockets."""

import asyncio
import gc
import gzip
import json
import socket
import traceback
import zlib
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
import msgspec
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import Outcome, Retry, Timeouts
from trio_minillm._http.exchange import DRAIN_BYTES, SHORT_BODY
from trio_minillm.testing import Reply, ScriptedTransport, hang, model, openai_events, reply, sse

from .support.certificates import certified
from .support.paths import TLS_FILES
from .support.streams import other_task

KEY = "sk-very-secret-0123456789"


def run(function):
    return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


async def complete(transport, target=None, **options):
    async with llm.open_client(transport=transport) as client:
        return await client.complete(target or model(), "Hi", **options)


# -- what is sent --------------------------------------------------------------------------------


async def test_the_request_on_the_wire():
    transport = ScriptedTransport()
    target = llm.compatible(
        "m", base_url="http://test.invalid/v1/", api_key=KEY, headers={"X-Team": "a"}
    )
    await complete(transport, target, temperature=0, extra={"seed2": 1}, headers={"X-Call": "b"})
    (request,) = transport.requests
    assert request.method == "POST"
    assert str(request.url) == "http://test.invalid/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "a"
    assert request.headers["x-call"] == "b"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["user-agent"] == f"trio-minillm/{llm.__version__}"
    assert transport.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "temperature": 0,
            "stream_options": {"include_usage": True},
            "seed2": 1,
        }
    ]


async def test_usage_is_not_asked_for_on_request():
    transport = ScriptedTransport(reply(*openai_events("x", usage=False, done=False), hang))
    response = await complete(transport, expect_usage=False)
    assert "stream_options" not in transport.bodies[0]
    assert response.outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temprature": 1}, TypeError),
        ({"extra": {"messages": []}}, ValueError),
        ({"extra": {"temperature": 1}, "temperature": 0.5}, ValueError),
        ({"extra": {"temperature": 1}}, ValueError),
        ({"n": 0}, ValueError),
        ({"headers": {"a": "b\r\nc: d"}}, ValueError),
        ({"headers": {"a\r\nb": "c"}}, ValueError),
        ({"headers": {"é": "c"}}, ValueError),
        ({"headers": {"a": None}}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"timeouts": 5}, TypeError),
        ({"timeouts": 0}, TypeError),
        ({"timeouts": False}, TypeError),
        ({"retry": 3}, TypeError),
        ({"retry": False}, TypeError),
        ({"bounds": 0}, TypeError),
        ({"betas": ["x"]}, ValueError),
    ],
)
async def test_misuse_is_told_before_anything_is_sent(options, error):
    transport = ScriptedTransport()
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(error):
            client.stream(model(), "Hi", **options)
    assert transport.requests == []


async def test_no_cookie_is_kept():
    headers = {"set-cookie": "session=of-key-a; Path=/"}
    transport = ScriptedTransport(reply(*openai_events("x"), headers=headers))
    async with llm.open_client(transport=transport) as client:
        for _ in range(2):
            await client.complete(model(), "Hi")
    assert all("cookie" not in request.headers for request in transport.requests)


async def test_more_misuse_is_told_at_the_call():
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises(TypeError, match=r"llm\.openai"):
            client.stream("gpt-5", "Hi")
        prompt = "".join(["a sec", "ret \ud800"])
        with pytest.raises(ValueError, match="Unicode") as caught:
            client.stream(model(), prompt)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(ValueError, match="content"):
            client.stream(model(), [{"role": "user"}])
        with pytest.raises(TypeError, match="Timeouts"):
            await client.complete(model(), "Hi", timeouts=5)
        with pytest.raises(TypeError, match="timeouts must be Timeouts or None, not int"):
            await client.complete(model(), "Hi", timeouts=0)
        with pytest.raises(TypeError, match="timeouts must be Timeouts or None, not int"):
            await client.settle(timeouts=0)
    for options in (
        {"timeouts": 5},
        {"timeouts": 0},
        {"retry": 2},
        {"retry": False},
        {"bounds": 0},
        {"transport": 5},
        {"http_client": httpx.Client()},
    ):
        with pytest.raises(TypeError):
            async with llm.open_client(**options):
                pass
    for attempts in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="attempts"):
            Retry(attempts=attempts)


def test_another_event_loop_is_told_what_is_needed():
    async def main():
        async with llm.open_client():
            pass

    with pytest.raises(RuntimeError, match=r"open_client needs Trio, and this is asyncio"):
        asyncio.run(main())


async def test_a_misspelt_parameter_is_told_its_right_name():
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises(TypeError, match="did you mean temperature"):
            client.stream(model(), "Hi", temprature=1)
        with pytest.raises(TypeError, match="did you mean retry"):
            client.stream(model(), "Hi", retries=1)
        with pytest.raises(TypeError, match="extra="):
            client.stream(model(), "Hi", zzzzzz=1)


async def test_none_is_the_same_as_leaving_it_out():
    transport = ScriptedTransport()
    await complete(transport, temperature=None, tools=None)
    assert "temperature" not in transport.bodies[0]


async def test_a_type_as_response_format_is_what_parsed_gives():
    class City(msgspec.Struct):
        name: str

    transport = ScriptedTransport(reply(*openai_events('{"name":', '"Rome"}')))
    response = await complete(transport, response_format=City)
    assert response.parsed() == City("Rome")
    assert response.parsed(dict) == {"name": "Rome"}
    assert transport.bodies[0]["response_format"]["type"] == "json_schema"


async def test_several_choices():
    def choice(index, delta, reason=None):
        inner = {"index": index, "delta": delta, "finish_reason": reason}
        return sse({"choices": [inner]})

    steps = [
        choice(0, {"content": "a"}),
        choice(1, {"content": "b"}),
        choice(0, {}, "stop"),
        choice(1, {}, "length"),
    ]
    response = await complete(ScriptedTransport(reply(*steps, hang)), n=2, expect_usage=False)
    assert [(c.content, c.finish_reason) for c in response.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]


# -- retries -------------------------------------------------------------------------------------

GOOD = reply(*openai_events("ok"))


def refused(status, code=None, headers=None):
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    return reply(body, status=status, headers=headers or {})


@pytest.mark.parametrize(
    "first",
    [
        refused(408),
        refused(409),
        refused(429, "rate_limit_exceeded"),
        refused(500),
        refused(502),
        refused(503),
        refused(529),
        refused(400, headers={"x-should-retry": "true"}),
        reply(error=httpx.ConnectError("no route")),
        reply(error=httpx.RemoteProtocolError("server disconnected")),
        reply(error=httpx.ReadError("reset")),
        reply(sse({"error": {"code": 429, "message": "slow down"}})),
        reply(sse({"error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")),
        reply(openai_events()[0], sse({"error": {"code": 503, "message": "no"}})),
    ],
)
def test_what_is_tried_again(first):
    transport = ScriptedTransport(first, GOOD)

    async def main():
        response = await complete(transport)
        assert response.content == "ok"
        assert response.timings.attempts == 2

    run(main)
    assert len(transport.requests) == 2
    assert transport.open_bodies == 0


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (refused(400), llm.RefusedError),
        (refused(401), llm.RefusedError),
        (refused(402), llm.RefusedError),
        (refused(404), llm.RefusedError),
        (refused(429, "insufficient_quota"), llm.RefusedError),
        (refused(503, headers={"x-should-retry": "false"}), llm.RefusedError),
        (refused(429, headers={"retry-after": "61"}), llm.RefusedError),
        (reply(sse({"error": {"code": 400, "message": "bad"}})), llm.ProviderError),
        (reply(), llm.EndedEarly),
        (reply(*openai_events("x")[:2], sse({"error": {"code": 503}})), llm.ProviderError),
        (reply(*openai_events("x")[:2], httpx.ReadError("cut")), llm.ConnectionCut),
    ],
)
def test_what_is_not_tried_again(first, error):
    transport = ScriptedTransport(first, GOOD)

    async def main():
        with pytest.raises(error):
            await complete(transport)

    run(main)
    assert len(transport.requests) == 1


def test_when_all_attempts_fail_the_error_has_them_all():
    transport = ScriptedTransport(refused(503), refused(500), refused(429))

    async def main():
        with pytest.raises(llm.RetriesExhausted) as caught:
            await complete(transport)
        assert [e.status for e in caught.value.errors] == [503, 500, 429]
        assert caught.value.last_error.kind == "rate_limit"
        assert caught.value.partial.outcome is Outcome.ERRORED
        assert caught.value.partial.timings.attempts == 3

    run(main)


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "60"}, 60.0),
    ],
)
def test_the_server_says_how_long_to_wait(headers, waited):
    transport = ScriptedTransport(refused(429, headers=headers), GOOD)

    async def main():
        start = trio.current_time()
        await complete(transport)
        assert trio.current_time() - start == pytest.approx(waited)

    run(main)


@pytest.mark.parametrize(
    ("reset", "total", "least", "most"),
    [("7s", 60, 7.0, 7.5), ("1m1s", 60, 0.0, 0.5), ("7s", 5, 0.0, 0.5)],
)
def test_a_limit_that_is_used_up_is_waited_for_if_that_is_soon(reset, total, least, most):
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    transport = ScriptedTransport(refused(429, headers=headers), GOOD)

    async def main():
        start = trio.current_time()
        await complete(transport, timeouts=Timeouts(total=total))
        assert least <= trio.current_time() - start <= most

    run(main)


def test_a_wait_that_would_outlast_the_total_clock_is_not_begun():
    transport = ScriptedTransport(refused(429, headers={"retry-after": "30"}), GOOD)

    async def main():
        with pytest.raises(llm.RefusedError) as caught:
            await complete(transport, timeouts=Timeouts(total=20))
        assert caught.value.retry_after == 30
        assert trio.current_time() < 1

    run(main)


def test_retries_can_be_turned_off():
    transport = ScriptedTransport(refused(503), GOOD)

    async def main():
        with pytest.raises(llm.RefusedError):
            await complete(transport, retry=Retry(attempts=1))

    run(main)


def test_a_connect_timeout_is_tried_again():
    class Slow(httpx.AsyncBaseTransport):
        attempts = 0

        async def handle_async_request(self, request):
            self.attempts += 1
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            await trio.sleep_forever()

    async def main():
        slow = Slow()
        with pytest.raises(llm.RetriesExhausted, match="clock 'connect'"):
            await complete(slow)
        assert slow.attempts == 3

    run(main)


# -- refusals ------------------------------------------------------------------------------------


async def test_a_refusal_tells_what_to_do():
    headers = {"x-request-id": "req_9", "retry-after": "99"}
    transport = ScriptedTransport(refused(429, "rate_limit_exceeded", headers))
    with pytest.raises(llm.RefusedError) as caught:
        await complete(transport)
    error = caught.value
    assert (error.status, error.code, error.kind) == (429, "rate_limit_exceeded", "rate_limit")
    assert (error.retry_after, error.request_id) == (99.0, "req_9")
    assert error.headers["x-request-id"] == "req_9"


@pytest.mark.parametrize(
    "event",
    [
        {"code": 500, "msg": "internal error"},
        {"errors": [{"message": "x"}]},
        {"status": "error", "reason": "x"},
        {"object": "error", "message": "x"},
        {"detail": "x"},
    ],
)
async def test_complaints_without_an_error_field_are_errors(event):
    with pytest.raises(llm.ProviderError):
        once = Retry(attempts=1)
        await complete(ScriptedTransport(reply(sse(event), sse("[DONE]"))), retry=once)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_refused_and_the_key_stays_here(status):
    moved = reply(status=status, headers={"location": "http://evil.invalid/"})
    transport = ScriptedTransport(moved, GOOD)
    http = httpx.AsyncClient(transport=transport, follow_redirects=True)
    async with http, llm.open_client(http_client=http) as client:
        with pytest.raises(llm.RefusedError, match="redirects"):
            await client.complete(model(), "Hi")
    assert len(transport.requests) == 1


async def test_what_is_not_modified_is_not_sent_on():
    with pytest.raises(llm.RefusedError, match="HTTP 304 invalid: no explanation"):
        await complete(ScriptedTransport(reply(status=304)))


def test_an_endless_error_body_is_read_up_to_its_bound():
    taken = []

    def steps():
        while True:
            taken.append(1)
            yield b"x" * 4096

    transport = ScriptedTransport(Reply(status=400, steps=steps()))

    async def main():
        with pytest.raises(llm.RefusedError) as caught:
            await complete(transport)
        assert len(str(caught.value)) < 2_200

    run(main)
    assert len(taken) <= SHORT_BODY // 4096 + 65
    assert transport.open_bodies == 0


def test_a_status_is_never_lost_to_its_body():
    odd = refused(429, headers={"content-encoding": "br", "retry-after": "99"})
    slow = reply(*[1.0, b"x"] * 60, status=429, headers={"retry-after": "99"})

    async def main():
        for answer in (odd, slow):
            with pytest.raises(llm.RefusedError) as caught:
                clocks = Timeouts(first_chunk=2, idle=2, byte_idle=2)
                await complete(ScriptedTransport(answer), timeouts=clocks)
            assert (caught.value.status, caught.value.retry_after) == (429, 99)

    run(main)


async def test_a_redirect_to_nowhere_is_a_redirect():
    moved = reply(status=307, headers={"location": "http://[::1/"})
    transport = ScriptedTransport(moved, GOOD)
    with pytest.raises(llm.RefusedError, match="redirects"):
        await complete(transport)
    assert len(transport.requests) == 1
    async with httpx.AsyncClient(transport=ScriptedTransport(moved, GOOD)) as http:
        async with llm.open_client(http_client=http) as client:
            with pytest.raises(llm.RefusedError, match="redirects"):
                await client.complete(model(), "Hi")


def test_an_error_body_that_never_ends_is_not_waited_for():
    transport = ScriptedTransport(reply(b'{"error":', hang, status=401, headers={}))

    async def main():
        with pytest.raises(llm.RefusedError):
            await complete(transport)
        assert trio.current_time() == pytest.approx(10)
        with pytest.raises(llm.RefusedError):
            await complete(transport, timeouts=Timeouts(total=3))
        assert trio.current_time() == pytest.approx(13)

    run(main)


# -- secrets -------------------------------------------------------------------------------------


def test_an_address_with_a_password_is_refused():
    with pytest.raises(ValueError, match="user or password"):
        llm.compatible("m", base_url="http://me:secret@127.0.0.1/v1")


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "schlüssel", " padded", "tab\tbed"])
def test_a_key_that_can_not_stand_in_a_header_is_refused_without_being_shown(bad):
    for make in (llm.openai, llm.openrouter, llm.anthropic):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            make("m", api_key=bad)
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "first",
    [
        reply(json.dumps({"error": {"message": f"bad key {KEY}!"}}).encode(), status=401),
        reply(sse({"error": {"message": f"bad key {KEY}", "code": 400}})),
        reply(f"<html>{KEY}</html>".encode(), status=502),
        reply(error=httpx.ConnectError("no")),
        reply(b'{"error": {"message": "' + b"x" * 1990 + KEY.encode() + b'"}}', status=400),
        reply(json.dumps({"error": {"message": "x", "code": KEY}}).encode(), status=401),
        reply(json.dumps({"error": {"message": "x", "type": KEY}}).encode()),
        reply(b"{}", status=400, headers={"x-request-id": KEY, "x-echo": f"Bearer {KEY}"}),
        reply(f"error: {KEY}\n\n".encode()),
        reply(sse("not json " + KEY)),
        reply(b'{"error": {"message": "sk-very\\u002dsecret-0123456789"}}', status=401),
        reply(sse('{"error": {"message": "sk-very\\u002dsecret\\u002d0123456789"}}')),
    ],
)
def test_the_key_is_in_no_message_repr_or_traceback(first, caplog):
    caplog.set_level(0)
    transport = ScriptedTransport(first)
    target = llm.compatible("m", base_url="http://test.invalid", api_key=KEY)

    async def main():
        with pytest.raises(llm.MiniLLMError) as caught:
            await complete(transport, target)
        error = caught.value
        shown = [str(error), repr(error), repr(vars(error)), repr(target), caplog.text]
        shown += traceback.format_exception(error)
        for inner in getattr(error, "errors", ()):
            shown += [str(inner), repr(vars(inner))]
        assert KEY not in "".join(shown)

    run(main)


async def test_the_prompt_is_in_no_repr_and_no_log(caplog):
    caplog.set_level(0)
    transport = ScriptedTransport()
    async with llm.open_client(transport=transport) as client:
        stream = client.stream(model(), "my secret plan")
        assert "secret plan" not in repr(stream) + repr(stream._source._prepared)
        async with stream:
            await stream.collect()
    assert "secret plan" not in caplog.text


# -- whoever brings it keeps it ------------------------------------------------------------------


class Closing(ScriptedTransport):
    closed = False

    async def aclose(self):
        self.closed = True


async def test_a_transport_that_was_brought_is_left_open():
    transport = Closing()
    async with llm.open_client(transport=transport):
        pass
    assert not transport.closed


async def test_a_client_that_was_brought_is_left_open():
    async with httpx.AsyncClient(transport=Closing()) as http:
        async with llm.open_client(http_client=http) as client:
            await client.complete(model(), "Hi")
        assert not http.is_closed
    with pytest.raises(ValueError, match="not both"):
        async with llm.open_client(http_client=http, transport=Closing()):
            pass


# -- real sockets --------------------------------------------------------------------------------


class Server:
    """A small HTTP/1.1 server on loopback: ``answer`` writes the response of one request."""

    def __init__(self, answer):
        self.answer = answer
        self.connections = 0
        self.requests = 0
        self.closed = trio.Event()

    async def serve(self, stream):
        self.connections += 1
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some()
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                while len(data) < length:
                    data += await stream.receive_some()
                data = data[length:]
                self.requests += 1
                if not await self.answer(stream):
                    return
        except trio.BrokenResourceError:
            pass
        finally:
            self.closed.set()
            await stream.aclose()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def serving(answer):
    server = Server(answer)
    serve = partial(trio.serve_tcp, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve, server.serve, 0)
        host, port = listener.socket.getsockname()[:2]
        yield server, llm.compatible("m", base_url=f"http://{host}:{port}/v1", api_key=KEY)
        nursery.cancel_scope.cancel()


async def test_a_finished_stream_leaves_its_connection_for_the_next():
    async def answer(stream):
        await stream.send_all(CHUNKED)
        for event in openai_events("a", "b"):
            await stream.send_all(chunk(event))
        await stream.send_all(b"0\r\n\r\n")
        return True

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            for _ in range(5):
                assert (await client.complete(target, "Hi")).content == "ab"
            assert (server.connections, server.requests) == (1, 5)


async def test_the_end_marker_is_drained_when_it_comes_behind_the_answer():
    async def answer(stream):
        await stream.send_all(CHUNKED)
        events = openai_events("a")
        await stream.send_all(b"".join(map(chunk, events[:-1])))
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(chunk(events[-1]) + b"0\r\n\r\n")
        return True

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            for _ in range(3):
                await client.complete(target, "Hi")
            assert server.connections == 1


async def test_a_body_that_goes_on_behind_the_answer_is_not_read_for_ever():
    sent = 0

    async def answer(stream):
        nonlocal sent
        await stream.send_all(CHUNKED + b"".join(map(chunk, openai_events("a"))))
        while True:
            await stream.send_all(chunk(b": more\n" * 1000))
            sent += 7000

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            assert (await client.complete(target, "Hi")).content == "a"
            await server.closed.wait()
    assert sent < DRAIN_BYTES + 16 * 1024 * 1024  # what loopback's buffers hold, at most


async def test_a_read_of_many_small_http_chunks_can_be_left_in_its_middle():
    async def answer(stream):
        events = b"".join(chunk(e) for e in openai_events(*["x"] * 300, finish=None, done=False))
        await stream.send_all(CHUNKED + events + b"".join([chunk(b":")] * 5000))
        await stream.receive_some()
        return False

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            async with client.stream(target, "Hi") as stream:
                await stream.next_chunk()
            await server.closed.wait()
        gc.collect()  # abandoned generators would warn, and warnings are errors


@pytest.mark.parametrize("how", ["break", "cancel", "scope"])
async def test_the_peer_sees_a_cancelled_stream_close(how):
    async def answer(stream):
        await stream.send_all(CHUNKED + chunk(openai_events("a")[1]))
        await stream.receive_some()  # ends when the client closes
        return False

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            with trio.CancelScope() as scope:
                async with client.stream(target, "Hi") as stream:
                    await stream.next_chunk()
                    if how == "cancel":
                        await stream.cancel()
                    elif how == "scope":
                        scope.cancel()
                        await stream.next_chunk()
            with trio.fail_after(5):
                await server.closed.wait()


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (CHUNKED + chunk(openai_events("a")[1]), llm.ConnectionCut),
        (CHUNKED + b"ff\r\nshort", llm.ConnectionCut),
        (CHUNKED + chunk(b'data: {"choices":[{"del') + b"0\r\n\r\n", llm.EndedEarly),
        (CHUNKED + chunk(b'data: {"choices":[{"del'), llm.ConnectionCut),
        (CHUNKED + chunk(openai_events("a")[1]) + b"0\r\n\r\n", llm.EndedEarly),
        (HEAD + b"content-length: 9999\r\n\r\n" + openai_events("a")[1], llm.ConnectionCut),
        (HEAD.replace(b"1.1", b"1.0") + b"\r\n" + openai_events("a")[1], llm.EndedEarly),
        (CHUNKED + b"nonsense\r\n", llm.ConnectionCut),
        (HEAD + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope", llm.ProtocolError),
        (HEAD + b"content-encoding: br\r\ncontent-length: 4\r\n\r\nnope", llm.ProtocolError),
        (b"HTTP/1.1 204 No Content\r\n\r\n", llm.EndedEarly),
    ],
)
async def test_cuts_of_every_kind(response, error):
    async def answer(stream):
        await stream.send_all(response)
        return False

    async with serving(answer) as (_, target):
        async with llm.open_client() as client:
            with pytest.raises(error):
                await client.complete(target, "Hi")


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "x-gzip": lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:]),
    "Deflate ": raw_deflate,
}


@pytest.mark.parametrize("encoding", PACKERS)
@pytest.mark.parametrize("cut", [None, -5])
async def test_a_body_that_is_compressed_all_the_same(encoding, cut):
    plain = b"".join(openai_events(*["word "] * 1000))
    packed = PACKERS[encoding](plain)[:cut]
    headers = {"content-encoding": encoding}
    pieces = [packed[i : i + 50] for i in range(0, len(packed), 50)]
    transport = ScriptedTransport(reply(*pieces, headers=headers))
    if cut is None:
        assert (await complete(transport)).content == "word " * 1000
    else:  # the answer is whole, what is missing is the checksum behind it
        assert (await complete(transport)).outcome is Outcome.FINISHED
    short = ScriptedTransport(reply(*pieces[:2], headers=headers))
    with pytest.raises(llm.ConnectionCut):
        await complete(short)


async def test_unpacking_lets_other_tasks_run():
    packed = gzip.compress(b": \n\n" * 1_000_000 + b"".join(openai_events("x")))
    transport = ScriptedTransport(reply(packed, headers={"content-encoding": "gzip"}))
    async with other_task() as turns:
        assert (await complete(transport)).content == "x"
    assert len(turns) > 40


async def test_a_few_bytes_that_blow_up_are_unpacked_in_steps():
    bomb = gzip.compress(b": " + b"x\n" * 50_000_000, 1)
    transport = ScriptedTransport(reply(bomb, headers={"content-encoding": "gzip"}))
    with pytest.raises(llm.LimitExceeded):
        await complete(transport, bounds=llm.Bounds(response=1_000_000))


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 200"])
async def test_a_server_that_dies_before_answering_is_tried_again_and_then_told(response):
    async def answer(stream):
        if response:
            await stream.send_all(response)
        return False

    async with serving(answer) as (server, target):
        async with llm.open_client(retry=Retry(attempts=2, base_delay=0)) as client:
            with pytest.raises(llm.RetriesExhausted) as caught:
                await client.complete(target, "Hi")
        assert isinstance(caught.value.last_error, llm.SendError)
        assert server.requests == 2


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    ],
)
async def test_an_answer_that_is_not_http_is_not_asked_for_again(response):
    async def answer(stream):
        await stream.send_all(response)
        return False

    async with serving(answer) as (server, target):
        async with llm.open_client() as client:
            with pytest.raises(llm.ProtocolError, match="not HTTP") as caught:
                await client.complete(target, "Hi")
        assert str(caught.value).count("not HTTP") == 1
        assert server.requests == 1


async def test_a_dead_pooled_connection_is_replaced():
    async def answer(stream):
        body = b"".join(openai_events("a"))
        await stream.send_all(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        return server.requests % 2 == 1 and None  # close after each answer, unannounced

    async with serving(answer) as (server, target):
        async with llm.open_client(retry=Retry(base_delay=0)) as client:
            for _ in range(4):
                assert (await client.complete(target, "Hi")).content == "a"


async def test_nobody_there_is_an_error_of_ours():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    target = llm.compatible("m", base_url=f"http://127.0.0.1:{port}")
    async with llm.open_client(retry=Retry(attempts=1)) as client:
        with pytest.raises(llm.SendError, match="could not be sent"):
            await client.complete(target, "Hi")


async def test_tls_is_verified(monkeypatch):
    async def answer(stream):
        body = b"".join(openai_events("a"))
        await stream.send_all(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        return True

    context = certified()
    server = Server(answer)

    async def serve(stream):
        with suppress(trio.BrokenResourceError):
            await server.serve(trio.SSLStream(stream, context, server_side=True))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"https://localhost:{listener.socket.getsockname()[1]}"
        once = Retry(attempts=1)

        async def ask(host="localhost"):
            target = llm.compatible("m", base_url=url.replace("localhost", host), api_key=KEY)
            async with llm.open_client(retry=once) as client:
                return await client.complete(target, "Hi")

        with pytest.raises(llm.SendError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask()
        assert server.requests == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS_FILES / "ca.pem"))
        assert (await ask()).content == "a"
        trio.socket.set_custom_hostname_resolver(Everywhere())
        with pytest.raises(llm.SendError, match=r"example\.org"):
            await ask("example.org")
        assert server.requests == 1
        nursery.cancel_scope.cancel()


class Everywhere(trio.abc.HostnameResolver):
    """Every name is this machine's."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


async def test_after_a_storm_of_cancellations_the_next_request_works():
    async def answer(stream):
        await stream.send_all(CHUNKED)
        for event in openai_events("a", "b"):
            await stream.send_all(chunk(event))
            await trio.lowlevel.checkpoint()
        await stream.send_all(b"0\r\n\r\n")
        return True

    async with serving(answer) as (_, target):
        async with llm.open_client() as client:

            async def one(steps):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(client.complete, target, "Hi")
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

            async with trio.open_nursery() as storm:
                for steps in range(60):
                    storm.start_soon(one, steps)
            with trio.fail_after(10):
                assert (await client.complete(target, "Hi")).content == "ab"
