"""While the consumer waits it reads the socket itself; the stream's task keeps the clocks.

Over real sockets, on a mocked clock that jumps when nothing happens for 20 ms. What must hold: one
task wakes for a chunk; whoever reads, the clocks, cancellation and the ending are the same.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm import Outcome, _reader
from trio_minillm.testing import LoopbackServer, forever, hang, reply, serve, sse
from trio_minillm.testing._script import Step

from .promises import PIECES, SO_FAR, WHOLE, Wire
from .test_reliability import ON_SOCKETS, run

TLS_FILES = Path(__file__).parent / "tls"
W = Wire("openai")
COMMENT = b": keep-alive\n\n"
CLOCKS = llm.Timeouts(connect=None, first_chunk=None, idle=10.0, byte_idle=None)
PAUSE = 1.0
SPOKEN = 40


def spaced(*events: bytes) -> list[Step]:
    """Each event a second after the one before."""
    return [step for event in events for step in (PAUSE, event)]


@asynccontextmanager
async def streaming(
    *steps: Step, timeouts: llm.Timeouts = CLOCKS, tls: bool = False, lent: bool = True
) -> AsyncIterator[tuple[llm.TrackedStream, LoopbackServer, llm.TrioTransport]]:
    """A stream whose first chunks are taken, and whose socket is lent."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS_FILES / "srv.pem", TLS_FILES / "srv.key")
    verify = ssl.create_default_context(cafile=TLS_FILES / "ca.pem") if tls else True
    transport = llm.TrioTransport(verify=verify)
    async with serve(reply(*W.head, *steps), context=context) as server:
        async with llm.open_client(transport=transport, timeouts=timeouts) as client:
            async with client.stream(W.model(server.base_url), "Hi") as stream:
                while stream.accumulated != SO_FAR:
                    assert await stream.next_chunk() is not None
                if lent:
                    assert await stream.next_chunk() is not None
                    assert stream._reader is not None
                    assert stream._reader.lent
                yield stream, server, transport
        assert transport.statistics().active == 0
        await transport.aclose()
        with trio.fail_after(5):
            await server.left_with(0)


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


@pytest.mark.parametrize("take", ["iterate", "collect", "next_chunk"])
def test_a_connection_that_was_lent_is_used_again(take: str) -> None:
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


@pytest.mark.parametrize(("away", "waited"), [(4.0, 2.0), (11.0, 10.0), (500.0, 10.0)])
def test_a_slow_consumer_trips_no_clock(away: float, waited: float) -> None:
    """What came meanwhile is read when it is back; where nothing came, the server is late by then
    only if it is silent on.
    """

    async def main() -> None:
        said = spaced(*[W.says("x")] * 3)
        async with streaming(*said, hang) as (stream, _, _):
            for _ in range(2):
                await trio.sleep(away)
                assert (await stream.receive()).delta == "x"
            await trio.sleep(away)
            began = trio.current_time()
            with pytest.raises(llm.StreamTimeout):
                await stream.receive()
            # The last read is two absences old. Where it is back in time, that silence counts.
            assert trio.current_time() - began == pytest.approx(waited, abs=0.3)

    run(main, ON_SOCKETS)


@pytest.mark.parametrize("away", [5.0, 500.0])
def test_time_away_is_not_part_of_the_whole(away: float) -> None:
    async def main() -> None:
        timeouts = llm.Timeouts(total=20.0)
        async with streaming(*spaced(W.says("x")), hang, timeouts=timeouts) as (stream, _, _):
            await trio.sleep(away)
            began = trio.current_time()
            with pytest.raises(llm.StreamTimeout) as caught:
                await stream.receive()
            assert caught.value.clock == "total"
            waited = 14.0 if away < 20 else 19.0
            assert trio.current_time() - began == pytest.approx(waited, abs=0.3)

    run(main, ON_SOCKETS)


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
        flood = b"\n" * (_reader.MANY_LINES + 100) + W.says("y")
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


def test_the_pieces_of_an_answer_are_these() -> None:
    assert "".join(PIECES) == WHOLE  # what the tests above take for granted
