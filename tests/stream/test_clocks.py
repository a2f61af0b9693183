"""The clocks of a request on its way out, on the virtual clock."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

import trio_minillm as llm
from trio_minillm import Timeouts
from trio_minillm._protocol.state import StreamState
from trio_minillm._stream.clocks import Clocks
from trio_minillm.testing import model, openai_events

ANSWER = b"".join(openai_events("ok"))
ONCE = llm.Retry(attempts=1)


class Uploading(httpx.AsyncBaseTransport):
    """A transport that tells this, pause after pause, and then answers."""

    def __init__(self, *steps: str | float) -> None:
        self.steps = steps
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        for step in self.steps:
            if isinstance(step, str):
                await request.extensions["trace"](step, {})
            else:
                await trio.sleep(step)
        return httpx.Response(200, content=ANSWER, headers={"content-type": "text/event-stream"})


CONNECTED = ("connection.connect_tcp.started", 5.0, "connection.connect_tcp.complete")
SENDING = "http11.send_request_headers.started"
MORE = "http11.send_request_body.progress"
SENT = "http11.send_request_body.complete"
LINE = ("connection_pool.wait.started", 1000.0, "connection_pool.wait.complete")


async def end(*steps: str | float, **clocks: float | None) -> tuple[str, float | None, float]:
    """The class of the error that a request ends with, the limit that it names, and when."""
    start = trio.current_time()
    async with llm.open_client(transport=Uploading(*steps), retry=ONCE) as client:
        try:
            await client.complete(model(), "Hi", timeouts=Timeouts(**clocks, total=None))
        except llm.MiniLLMError as exc:
            limit = getattr(exc, "limit", None)
            return f"{type(exc).__name__} {getattr(exc, 'clock', '')}", limit, _since(start)
    return "", None, _since(start)


def _since(start: float) -> float:
    return round(trio.current_time() - start, 3)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # However long it takes: 100 pieces, one in 29 s.
        ((*CONNECTED, SENDING, *(29.0, MORE) * 100, SENT), ("", None, 2905)),
        ((*CONNECTED, SENDING, 29.0, MORE, 31.0), ("SendTimeout send", 30, 64)),
        ((*CONNECTED, SENDING, 31.0), ("SendTimeout send", 30, 35)),
        ((SENDING, 31.0), ("SendTimeout send", 30, 30)),  # on a connection that was there
        (("connection.connect_tcp.started", 11.0), ("ConnectTimeout connect", 10, 10)),
        ((*CONNECTED, 6.0), ("ConnectTimeout connect", 10, 10)),
        ((*CONNECTED, SENDING, SENT, 301.0), ("StreamTimeout first_chunk", 300, 305)),
        # One that was kept turned out to be dead; it connects anew, with the time for that.
        ((SENDING, SENT, 3.0, *CONNECTED, 4.0, SENDING, SENT), ("", None, 12)),
        ((SENDING, SENT, 3.0, *CONNECTED, 6.0), ("ConnectTimeout connect", 10, 13)),
        # A tunnel through a proxy stands, and TLS begins in it.
        ((*CONNECTED, SENDING, SENT, "proxy.start_tls.started", 11.0), ("ConnectTimeout connect", 10, 15)),
        # The server takes no more: what counts then is its answer.
        ((*CONNECTED, SENDING, "http11.send_request_body.failed", 100.0), ("", None, 105)),
        ((*LINE, SENDING, SENT), ("", None, 1000)),
        (("connection.connect_tcp.started", *LINE, 5.0, SENDING, SENT), ("", None, 1005)),
    ],
)  # fmt: skip
async def test_which_clock_runs_while_a_request_goes_out(
    steps: tuple[str | float, ...], expected: tuple[str, float | None, float], autojump_clock: Any
) -> None:
    assert await end(*steps) == expected


async def test_a_clock_that_is_off_ends_nothing(autojump_clock: Any) -> None:
    steps = (*CONNECTED, SENDING, 1000.0, SENT)
    assert await end(*steps, send=None) == ("", None, 1005)


async def test_a_transport_that_tells_nothing_is_given_time_with_each_piece(
    autojump_clock: Any,
) -> None:
    class Taking(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.AsyncByteStream)
            async for _ in request.stream:
                await trio.sleep(200)
            await trio.sleep(self.last)
            return httpx.Response(200, content=ANSWER)

        last = 0.0

    transport = Taking()
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        timeouts = Timeouts(total=None)
        await client.complete(model(), "x" * 500_000, timeouts=timeouts)
        assert trio.current_time() >= 1600
        transport.last = 311
        with pytest.raises(llm.StreamTimeout, match="first_chunk"):
            await client.complete(model(), "Hi", timeouts=timeouts)


async def test_an_upload_that_stands_still_is_tried_again(autojump_clock: Any) -> None:
    transport = Uploading(SENDING, 31.0)
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.RetriesExhausted) as caught:
            await client.complete(model(), "Hi")
    assert transport.requests == 3
    assert isinstance(caught.value.last_error, llm.SendTimeout)


def running(clocks: Clocks) -> tuple[str, float]:
    """The clock that runs out next, and in how many seconds."""
    return clocks.name, round(clocks.new_scope().deadline - trio.current_time(), 3)


async def test_an_answer_that_begins_before_the_request_is_out(mock_clock: Any) -> None:
    clocks = Clocks(Timeouts(first_chunk=50, idle=40, byte_idle=20), float("inf"))
    state = StreamState(expect_usage=True)
    clocks.transport_event(SENDING)
    mock_clock.jump(10)
    clocks.answered(sending=True)
    assert running(clocks) == ("send", 20), "its head is no progress of the request"
    clocks.heard(trio.current_time(), False, state)
    assert running(clocks) == ("send", 20), "nor is a comment"
    clocks.transport_event(MORE)
    assert running(clocks) == ("send", 30)
    mock_clock.jump(29)
    state.chunk(llm.StreamChunk.content("a"))
    clocks.heard(trio.current_time(), True, state)
    assert running(clocks) == ("send", 1), "nor is content"
    error = clocks.error(1, 10)
    assert isinstance(error, llm.StreamTimeout), "the answer has begun: no other attempt follows"
    assert (error.clock, error.limit) == ("send", 30)
    clocks.transport_event(MORE)
    mock_clock.jump(25)
    clocks.transport_event(SENT)
    assert running(clocks) == ("byte_idle", 20), "the time of sending was not the server's silence"
    clocks.heard(trio.current_time(), True, state)
    assert running(clocks) == ("byte_idle", 20)


async def test_the_head_before_the_end_leaves_the_first_content_its_time(mock_clock: Any) -> None:
    clocks = Clocks(Timeouts(first_chunk=50), float("inf"))
    clocks.transport_event(SENDING)
    clocks.answered(sending=True)
    mock_clock.jump(29)
    clocks.transport_event(SENT)
    assert running(clocks) == ("first_chunk", 50)


async def test_a_request_that_goes_out_at_once_sets_one_deadline(mock_clock: Any) -> None:
    def clocks() -> Clocks:
        return Clocks(Timeouts(connect=7, send=9, first_chunk=50), float("inf"), sent=True)

    at_once = clocks()
    scope = at_once.new_scope()
    at_once.transport_event(SENT)
    at_once.answered(sending=False)
    assert (at_once.name, scope.deadline) == ("first_chunk", trio.current_time() + 50)

    connecting = clocks()
    connecting.new_scope()
    connecting.transport_event("connection.connect_tcp.started")
    assert running(connecting) == ("connect", 7), "it had to connect first"
    mock_clock.jump(3)
    connecting.transport_event(SENT)
    assert running(connecting) == ("first_chunk", 50)

    slow = clocks()
    slow.transport_event(SENDING)
    assert running(slow) == ("send", 9), "the socket did not take it all"

    in_line = clocks()
    in_line.transport_event("connection_pool.wait.started")
    mock_clock.jump(1000)
    in_line.transport_event("connection_pool.wait.complete")
    in_line.transport_event(SENT)
    assert running(in_line) == ("first_chunk", 50)


async def test_an_answer_that_is_whole_waits_for_no_request(mock_clock: Any) -> None:
    clocks = Clocks(Timeouts(), float("inf"))
    clocks.transport_event(SENDING)
    clocks.answered(sending=True)
    state = StreamState(expect_usage=True)
    state.chunk(llm.StreamChunk(delta="a", finish_reason="stop"))
    clocks.heard(trio.current_time(), True, state)
    assert running(clocks) == ("usage_grace", 1)
