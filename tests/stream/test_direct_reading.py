"""While the consumer waits it reads the socket itself; the stream's task keeps the clocks.

Over real sockets, on a mocked clock that jumps when nothing happens for 20 ms. What must hold: one
task wakes for a chunk; whoever reads, the clocks, cancellation and the ending are the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm import Outcome
from trio_minillm._stream import body
from trio_minillm._stream.body import Mode
from trio_minillm.providers import OpenAIChat
from trio_minillm.testing import LoopbackServer, forever, hang, reply, serve, sse
from trio_minillm.testing._script import Step

from ..support.certificates import certified, trusting
from ..support.peers import Peer, serving
from ..support.promises import PIECES, SO_FAR, WHOLE, wire_named
from ..support.runs import ON_SOCKETS, run

W = wire_named("openai")
COMMENT = b": keep-alive\n\n"
CLOCKS = llm.Timeouts(connect=None, first_chunk=None, idle=10.0, byte_idle=None)
PAUSE = 1.0
SPOKEN = 40


def spaced(*events: bytes) -> list[Step]:
    """Each event a second after the one before."""
    return [step for event in events for step in (PAUSE, event)]


@asynccontextmanager
async def streaming(
    *steps: Step, timeouts: llm.Timeouts = CLOCKS, tls: bool = False, direct: bool = True
) -> AsyncIterator[tuple[llm.TrackedStream, LoopbackServer, llm.TrioTransport]]:
    """A stream whose first chunks are taken, and whose socket the consumer reads."""
    transport = llm.TrioTransport(verify=trusting() if tls else True)
    context = certified() if tls else None
    async with serve(reply(*W.head, *steps), context=context) as server:
        async with llm.open_client(transport=transport, timeouts=timeouts) as client:
            async with client.stream(W.model(server.base_url), "Hi") as stream:
                while stream.accumulated != SO_FAR:
                    assert await stream.next_chunk() is not None
                if direct:
                    assert await stream.next_chunk() is not None
                    assert read_directly(stream)
                yield stream, server, transport
        assert transport.statistics().active == 0
        await transport.aclose()
        with trio.fail_after(5):
            await server.left_with(0)


def read_directly(stream: llm.StreamingCompletion) -> bool:
    body = stream._source.body
    return body is not None and body.mode is Mode.DIRECT


async def text_of(stream: llm.TrackedStream) -> str:
    return stream.accumulated + "".join([chunk.delta async for chunk in stream])


class Steps(trio.abc.Instrument):
    """Counts the steps of the tasks that streams are read and consumed by."""

    def __init__(self, consumer: trio.lowlevel.Task) -> None:
        self.consumer, self.of_consumer, self.of_reader = consumer, 0, 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of_consumer += task is self.consumer
        self.of_reader += task.name == "trio_minillm stream"


@pytest.mark.parametrize("tls", [False, True])
def test_one_task_wakes_for_a_chunk(tls: bool) -> None:
    async def main() -> None:
        events = [W.says("x")] * SPOKEN
        clocks = llm.Timeouts(connect=None)  # none runs out, and so none is looked at
        steps = spaced(*events, b"".join(W.tail()))
        async with streaming(*steps, tls=tls, timeouts=clocks) as (stream, _, _):
            assert await stream.next_chunk() is not None
            woken = Steps(trio.lowlevel.current_task())
            trio.lowlevel.add_instrument(woken)
            for _ in range(SPOKEN - 5):
                assert await anext(stream)
            trio.lowlevel.remove_instrument(woken)
            assert (woken.of_consumer, woken.of_reader) == (SPOKEN - 5, 0)
            assert await text_of(stream) == SO_FAR + "x" * SPOKEN
        assert stream.outcome is Outcome.FINISHED
        assert stream.usage is not None
        assert stream.usage.final

    run(main, ON_SOCKETS)


def test_a_stream_that_waits_at_its_socket_holds_no_channel() -> None:
    """It takes one again for what its task has to hand over: here the error that ends the answer."""

    async def main() -> None:
        async with streaming(*spaced(W.says("x")), hang) as (stream, _, _):
            assert stream._task._handoff is not None
            assert stream._task._handoff._channel is None
            with pytest.raises(llm.StreamTimeout):
                await stream.collect()
            assert stream.text == SO_FAR + "x"

    run(main, ON_SOCKETS)


@pytest.mark.parametrize("take", ["iterate", "collect", "next_chunk"])
def test_a_connection_that_was_read_directly_is_used_again(take: str) -> None:
    async def main() -> None:
        steps = spaced(*[W.says("x")] * 3, b"".join(W.tail()))
        async with serve(reply(*W.head, *steps), reply(*W.whole)) as server:
            async with llm.open_client(timeouts=CLOCKS) as client:
                async with client.stream(W.model(server.base_url), "Hi") as stream:
                    if take == "iterate":
                        await text_of(stream)
                    elif take == "collect":
                        await stream.collect()
                    else:
                        while await stream.next_chunk() is not None:
                            pass
                assert stream.response.content == SO_FAR + "xxx"
                assert (await client.complete(W.model(server.base_url), "Hi")).content == WHOLE
            assert len(server.connections) == 1

    run(main, ON_SOCKETS)


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "timeouts", "steps", "seconds"),
    [
        ("idle", CLOCKS, [hang], 10.0),
        ("idle", CLOCKS, [forever(3.0, COMMENT)], 10.0),
        ("byte_idle", llm.Timeouts(idle=None, byte_idle=7.0), [2.0, COMMENT, hang], 9.0),
        ("total", llm.Timeouts(total=12.5), [forever(PAUSE, W.says("x"))], 11.5),
    ],
)
def test_the_clocks_run_while_the_consumer_reads(
    clock: str, timeouts: llm.Timeouts, steps: list[Step], seconds: float
) -> None:
    async def main() -> None:
        async with streaming(PAUSE, W.says("x"), *steps, timeouts=timeouts) as (stream, _, _):
            began = trio.current_time()
            with pytest.raises(llm.StreamTimeout) as caught:
                await text_of(stream)
            assert caught.value.clock == clock
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.3)
            assert caught.value.partial is not None
            assert caught.value.partial.content.startswith(SO_FAR + "x")
        assert stream.outcome is Outcome.ERRORED

    run(main, ON_SOCKETS)


def test_usage_that_never_comes_ends_the_wait_and_not_the_answer() -> None:
    async def main() -> None:
        steps = [*spaced(W.says("x"), *W.tail(usage=False, end=False)), hang]
        async with streaming(*steps) as (stream, _, _):
            assert await text_of(stream) == SO_FAR + "x"
        assert stream.outcome is Outcome.FINISHED
        assert stream.usage is None

    run(main, ON_SOCKETS)


@pytest.mark.parametrize(("away", "waited"), [(4.0, 10.0), (11.0, 0.0), (500.0, 0.0)])
def test_a_slow_consumer_trips_no_clock(away: float, waited: float) -> None:
    """Check that what came in time is handed out however late; only silence after the last read counts."""

    async def main() -> None:
        said = [*spaced(*[W.says("x")] * 3), 8.0, W.says("y")]
        async with streaming(*said, hang) as (stream, _, _):
            for text in "xxy":
                await trio.sleep(away)
                assert (await stream.receive()).delta == text
            began = trio.current_time()
            with pytest.raises(llm.StreamTimeout):
                await stream.receive()
            assert trio.current_time() - began == pytest.approx(waited, abs=0.3)

    run(main, ON_SOCKETS)


def test_time_away_from_what_has_come_is_not_part_of_the_whole() -> None:
    async def main() -> None:
        timeouts = llm.Timeouts(total=20.0)
        async with streaming(*spaced(*[W.says("x")] * 2), hang, timeouts=timeouts) as (
            stream,
            _,
            _,
        ):
            await trio.sleep(500.0)
            began = trio.current_time()
            assert (await stream.receive()).delta == "x"
            with pytest.raises(llm.StreamTimeout) as caught:
                await stream.receive()
            assert caught.value.clock == "total"
            assert trio.current_time() - began == pytest.approx(19.0, abs=0.3)

    run(main, ON_SOCKETS)


@pytest.mark.parametrize(
    ("clock", "timeouts", "seconds"),
    [
        ("idle", CLOCKS, 10.0),
        ("byte_idle", llm.Timeouts(idle=None, byte_idle=7.0), 7.0),
        ("total", llm.Timeouts(total=12.5), 11.5),
    ],
)
@pytest.mark.parametrize("away", [0.5, 500.0])
def test_a_silent_server_is_late_wherever_the_consumer_is(
    clock: str, timeouts: llm.Timeouts, seconds: float, away: float
) -> None:
    """Else it was never late for a consumer that looks in from time to time."""

    async def main() -> None:
        async with streaming(PAUSE, W.says("x"), hang, timeouts=timeouts) as (stream, server, _):
            began = trio.current_time()

            async def look() -> None:
                while True:
                    await trio.sleep(away)
                    with trio.move_on_after(0.05):
                        await stream.receive()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.left_with, 0)
                with trio.fail_after(2000), pytest.raises(llm.StreamTimeout) as caught:
                    await look()
            assert caught.value.clock == clock
            (connection,) = server.connections
            assert connection.left_at is not None
            assert connection.left_at - began == pytest.approx(seconds, abs=0.6)

    run(main, ON_SOCKETS)


def test_an_answer_that_is_whole_is_finished_while_the_consumer_is_away() -> None:
    async def main() -> None:
        steps = [*spaced(W.says("x"), *W.tail(usage=False, end=False)), hang]
        async with streaming(*steps) as (stream, _, _):
            while not (await stream.receive()).finish_reason:
                pass
            await trio.sleep(llm.Timeouts().usage_grace + 1)
        assert stream.outcome is Outcome.FINISHED

    run(main, ON_SOCKETS)


def test_the_time_of_the_last_read_is_the_end_of_the_answer() -> None:
    """And not when the stream's task next has its turn: the consumer may let it wait."""
    clock = trio.testing.MockClock(autojump_threshold=ON_SOCKETS)

    async def main() -> None:
        steps = [PAUSE, W.says("x"), PAUSE, b"".join([W.says("y"), *W.tail()])]
        async with streaming(*steps) as (stream, _, _):
            assert (await stream.receive()).delta == "y"
            clock.jump(30)  # the consumer works, and nobody else can
            await text_of(stream)
        timings = stream.response.timings
        assert timings is not None
        assert timings.total == timings.last_chunk == pytest.approx(2.0, abs=0.3)

    trio.run(main, clock=clock)


# -- leaving and breaking --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "reject", "aclose"])
def test_another_task_ends_a_stream_that_is_waited_for(how: str) -> None:
    async def main() -> None:
        async with streaming(PAUSE, W.says("x"), hang) as (stream, _, _):
            got: list[Any] = ["unset"]

            async def wait() -> None:
                got[0] = await stream.next_chunk()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                if how == "reject":
                    stream.reject()
                else:
                    await getattr(stream, how)()
            assert got == [None]
            assert trio.current_time() < 5  # no clock was needed
        assert stream.outcome is Outcome.CANCELLED
        assert stream.accumulated == SO_FAR + "x"

    run(main, ON_SOCKETS)


def test_what_lies_in_the_socket_has_arrived_when_the_stream_is_cancelled() -> None:
    async def main() -> None:
        tail = b"".join([W.says("y"), *W.tail()])
        async with streaming(PAUSE, W.says("x"), PAUSE, tail, hang) as (stream, _, _):
            await trio.sleep(5)
            response = await stream.cancel()
            assert response.content == SO_FAR + "xy"
            assert response.usage is not None
            assert response.usage.final
        assert stream.outcome is Outcome.FINISHED

    run(main, ON_SOCKETS)


def test_an_error_that_lies_in_the_socket_is_not_cancelled_away() -> None:
    async def main() -> None:
        steps = [PAUSE, W.says("x"), PAUSE, W.says("y") + W.error(529), hang]
        async with streaming(*steps) as (stream, _, _):
            await trio.sleep(5)
            response = await stream.cancel()
        assert response.content == SO_FAR + "xy"
        assert stream.outcome is Outcome.ERRORED
        assert isinstance(stream.error, llm.ProviderError)

    run(main, ON_SOCKETS)


def test_a_wait_that_is_cancelled_has_lost_nothing() -> None:
    async def main() -> None:
        async with streaming(*spaced(*[W.says("x")] * 6, *W.tail())) as (stream, _, _):
            for _ in range(30):
                with trio.move_on_after(0.3):
                    await stream.next_chunk()
            assert await text_of(stream) == SO_FAR + "x" * 6
        assert stream.outcome is Outcome.FINISHED

    run(main, ON_SOCKETS)


@pytest.mark.parametrize("waiting", [False, True])
def test_the_transport_is_closed_under_it(waiting: bool) -> None:
    async def main() -> None:
        async with streaming(PAUSE, W.says("x"), hang) as (stream, _, transport):
            async with trio.open_nursery() as nursery:

                async def close() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    await transport.aclose()

                nursery.start_soon(close)
                if not waiting:
                    await trio.sleep(1)
                with pytest.raises(llm.ConnectionCut):
                    await stream.next_chunk()
        assert stream.outcome is Outcome.TRUNCATED

    run(main, ON_SOCKETS)


def test_the_server_goes_away() -> None:
    async def main() -> None:
        async with streaming(PAUSE, W.says("x"), hang) as (stream, server, _):
            server.disconnect()
            with pytest.raises(llm.ConnectionCut) as caught:
                await text_of(stream)
            assert caught.value.partial is not None
            assert caught.value.partial.content == SO_FAR + "x"

    run(main, ON_SOCKETS)


def test_a_read_of_many_lines_goes_back_to_the_task() -> None:
    """It would hold the others up; the task takes it in slices, and lends the socket again."""

    async def main() -> None:
        flood = b"\n" * (body.MANY_LINES + 100) + W.says("y")
        steps = [PAUSE, W.says("x"), PAUSE, flood, PAUSE, W.says("z"), *spaced(*W.tail())]
        async with streaming(*steps) as (stream, _, _):
            assert await text_of(stream) == SO_FAR + "xyz"
        assert stream.outcome is Outcome.FINISHED

    run(main, ON_SOCKETS)


def test_a_malformed_event_is_raised_behind_what_came_before() -> None:
    async def main() -> None:
        steps = [PAUSE, W.says("x"), PAUSE, W.says("y") + sse("{"), hang]
        async with streaming(*steps) as (stream, _, _):
            assert (await stream.receive()).delta == "y"
            with pytest.raises(llm.ProtocolError) as caught:
                await stream.receive()
            assert caught.value.partial is not None
            assert caught.value.partial.content == SO_FAR + "xy"
        assert stream.outcome is Outcome.ERRORED

    run(main, ON_SOCKETS)


# -- in the same moment ----------------------------------------------------------------------------


def chunked(*events: bytes) -> bytes:
    data = b"".join(events)
    return b"%x\r\n%s\r\n" % (len(data), data)


ENDING = chunked(W.says("y"), *W.tail())


@asynccontextmanager
async def written_to(
    *, tls: bool, timeouts: llm.Timeouts = CLOCKS
) -> AsyncIterator[tuple[llm.TrackedStream, Callable[[bytes], None]]]:
    """A stream whose socket the consumer reads, and how to put bytes into that, now."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        peers.append(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunked(*W.head))
        await trio.sleep(PAUSE)
        await peer.send(chunked(W.says("x")))
        await peer.request()

    def write(data: bytes) -> None:
        os.write(peers[0].stream.socket.fileno(), peers[0].wrapped(data) if tls else data)

    context = certified() if tls else False
    transport = llm.TrioTransport(verify=trusting() if tls else True)
    async with serving(script, tls=context, seconds=100) as server:
        async with llm.open_client(transport=transport, timeouts=timeouts) as client:
            async with client.stream(W.model(server.url), "Hi") as stream:
                while stream.accumulated != SO_FAR + "x":
                    assert await stream.next_chunk() is not None
                assert read_directly(stream)
                yield stream, write
        assert transport.statistics().active == 0
        await transport.aclose()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("take", ["next_chunk", "collect", "iterate"])
@pytest.mark.parametrize("how", ["cancel", "reject", "aclose"])
@pytest.mark.parametrize(
    "there",
    [ENDING + b"0\r\n\r\n", ENDING, chunked(W.says("y")), chunked(W.says("y"))[:20]],
    ids=["whole", "unended", "part", "half"],
)
def test_bytes_come_in_the_moment_in_which_another_task_ends_the_stream(
    there: bytes, how: str, take: str, tls: bool
) -> None:
    """Whoever waits for them wakes, though the connection may be in the pool by then, and nobody
    else waits at the socket.
    """

    async def main() -> None:
        async with written_to(tls=tls) as (stream, write):

            async def wait() -> None:
                if take == "iterate":
                    assert [chunk async for chunk in stream] == []
                else:
                    await getattr(stream, take)()

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    write(there)
                    if how == "reject":
                        stream.reject()
                    else:
                        await getattr(stream, how)()
        assert stream.outcome in (Outcome.CANCELLED, Outcome.FINISHED)

    run(main, ON_SOCKETS)


class Tie(trio.abc.Instrument):
    """Does something right before the next wait for sockets and deadlines."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do

    def before_io_wait(self, timeout: float) -> None:
        trio.lowlevel.remove_instrument(self)
        self.do()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("there", ["much", "little", "half"])
def test_bytes_come_in_the_moment_of_a_deadline(there: str, tls: bool) -> None:
    """They are in time if there is anything of the answer in them, even if it takes a while to read;
    half an HTTP chunk's head is silence, and no reason to wait for ever.
    """
    much = chunked(b"\n" * (body.MANY_LINES + 9) + W.says("y"))
    data = {"much": much, "little": chunked(W.says("y")), "half": b"5"}[there]

    async def main() -> None:
        def come() -> None:
            write(data)
            clock.jump(10.0)

        async with written_to(tls=tls) as (stream, write):

            async def tie() -> None:
                await trio.testing.wait_all_tasks_blocked()
                trio.lowlevel.add_instrument(Tie(come))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(tie)
                if there == "half":
                    with trio.fail_after(60), pytest.raises(llm.StreamTimeout):
                        await stream.receive()
                else:
                    assert (await stream.receive()).delta == "y"
            assert trio.current_time() == pytest.approx(11.0, abs=0.3)

    for _ in range(8):  # whose turn is first is a matter of luck
        clock = trio.testing.MockClock(autojump_threshold=ON_SOCKETS)
        trio.run(main, clock=clock)


# -- a bug -----------------------------------------------------------------------------------------


class Bug(Exception):
    """Nothing that malformed data would cause."""


class Buggy(OpenAIChat):
    """A parser with a bug."""

    def parse_chunk(self, data: bytes) -> Any:
        if b"bug" in data:
            raise Bug
        return super().parse_chunk(data)


async def _taken(stream: llm.TrackedStream, how: str) -> None:
    if how == "iterate":
        await text_of(stream)
    elif how in ("cancel", "leave", "fail"):
        await trio.sleep(5)
        if how == "cancel":
            await stream.cancel()
        if how == "fail":
            raise ValueError
    elif how == "go on":
        with pytest.raises(Bug):
            await text_of(stream)
        assert await text_of(stream) == SO_FAR + "x"  # a chunk would be lost in between
        raise Bug
    else:
        await getattr(stream, how)()


@pytest.mark.parametrize(
    "how", ["iterate", "next_chunk", "collect", "go on", "cancel", "leave", "fail"]
)
def test_a_bug_in_a_parser_comes_out_as_itself(how: str) -> None:
    """As where the stream's task reads: it ends the stream, which is booked all the same."""

    async def main() -> None:
        steps = [PAUSE, W.says("x"), PAUSE, W.says("bug"), PAUSE, W.says("z"), hang]
        async with serve(reply(*W.head, *steps)) as server:
            async with llm.open_client(timeouts=CLOCKS) as client:
                stream = client.stream(server.model(Buggy()), "Hi")
                with pytest.raises(ExceptionGroup if how == "fail" else Bug):
                    async with stream:
                        while stream.accumulated != SO_FAR + "x":
                            assert await stream.next_chunk() is not None
                        assert read_directly(stream)
                        await _taken(stream, how)
            assert stream.outcome is Outcome.CANCELLED
            assert [record.outcome for record in stream.records] == [Outcome.CANCELLED]
            await server.left_with(0)

    run(main, ON_SOCKETS)


def test_the_pieces_of_an_answer_are_these() -> None:
    assert "".join(PIECES) == WHOLE  # what the tests above take for granted


async def test_a_chunks_usage_belongs_to_whoever_gets_it(autojump_clock: Any) -> None:
    """Whatever is done with it, the stream's own counts are those of the server."""
    from trio_minillm.testing import ScriptedTransport, gemini_events

    events = gemini_events(*"abcdefghijklmnop")
    transport = ScriptedTransport(reply(*events[:4], PAUSE, b"".join(events[4:12]), *events[12:]))
    model = llm.gemini("m", base_url="http://127.0.0.1:1", api_key="k")
    async with llm.open_client(transport=transport) as client:
        async with client.stream(model, "Hi") as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    assert chunk.usage.raw
                    chunk.usage.completion_tokens = 9_999
                    chunk.usage.raw["candidatesTokenCount"] = 9_999
        assert stream.outcome is Outcome.FINISHED
        assert stream.usage is not None
        assert stream.usage.completion_tokens == 16
        assert stream.usage.raw
        assert stream.usage.raw["candidatesTokenCount"] == 16
