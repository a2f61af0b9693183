"""Tests of real sockets: streams that are left, peers that stall, and a real llama.cpp server.

Scripted servers listen on loopback sockets, on a mocked clock that jumps when nothing happens for
20 ms: whoever does not hang up at once is seen by the clock having moved.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import local
from trio_minillm.local import _server
from trio_minillm.local._settings import server_settings
from trio_minillm.testing import LoopbackServer, Reply, forever, hang, reply, serve

from .support.local_model import SMALL, gone, needs_local_model
from .support.promises import WHOLE, wire_named
from .support.runs import ON_SOCKETS, TRANSPORTS, client_over, run

transports = pytest.mark.parametrize("transport", TRANSPORTS)
W = wire_named("openai")


# -- leaving ---------------------------------------------------------------------------------------

Leave = Callable[[llm.TrackedStream, trio.CancelScope], Awaitable[None]]


class BoomError(Exception):
    pass


async def by_leaving(stream: llm.TrackedStream, scope: trio.CancelScope) -> None:
    """The end of the block."""


async def by_cancel(stream: llm.TrackedStream, scope: trio.CancelScope) -> None:
    await stream.cancel()


async def by_aclose(stream: llm.TrackedStream, scope: trio.CancelScope) -> None:
    await stream.aclose()


async def by_scope(stream: llm.TrackedStream, scope: trio.CancelScope) -> None:
    scope.cancel()
    await trio.sleep_forever()


async def by_exception(stream: llm.TrackedStream, scope: trio.CancelScope) -> None:
    raise BoomError


PHASES: dict[str, Callable[[], Reply]] = {
    "before the headers": lambda: reply(wait=hang),
    "behind the headers": lambda: reply(hang),
    "in the middle": lambda: reply(*W.head, hang),
    "in a flood": lambda: reply(*W.head, forever(W.says("more ") * 400)),
}


async def leave(client: llm.Client, server: LoopbackServer, phase: str, way: Leave) -> float:
    """Leave a stream in this phase and way, and return the time on the mocked clock."""
    asked = len(server.requests)
    with trio.CancelScope() as scope:
        try:
            async with client.stream(W.model(server.base_url), "Hi") as stream:
                while len(server.requests) == asked:
                    await trio.lowlevel.checkpoint()
                if "in" in phase.split():
                    for _ in range(3):
                        assert await stream.next_chunk() is not None
                await way(stream, scope)
        except BoomError:
            pass
    assert stream.outcome is llm.Outcome.CANCELLED
    return trio.current_time()


@transports
@pytest.mark.parametrize("way", [by_leaving, by_cancel, by_aclose, by_scope, by_exception])
@pytest.mark.parametrize("phase", PHASES)
def test_the_server_sees_at_once_that_the_caller_has_left(
    phase: str, way: Leave, transport: str
) -> None:
    async def main() -> None:
        async with serve(PHASES[phase](), reply(*W.whole)) as server:
            async with client_over(transport) as client:
                left_at = await leave(client, server, phase, way)
                connection = server.connections[0]
                await connection.left.wait()
                assert connection.left_at == left_at  # the clock has not moved
                following = await client.complete(W.model(server.base_url), "Hi")
                assert following.content == WHOLE
                assert server.open == 1
            await server.left_with(0)

    run(main, ON_SOCKETS)


@transports
def test_after_hundreds_of_cancelled_streams_the_next_works(transport: str) -> None:
    """Four times a hundred at once, left in every way and phase, over one client."""
    ways = [by_leaving, by_cancel, by_aclose, by_scope]

    async def main() -> None:
        replies = [PHASES[p]() for p in ("in the middle", "in a flood")] * 200
        async with serve(*replies, reply(*W.whole)) as server:
            async with client_over(transport) as client:

                async def one(number: int) -> None:
                    with trio.CancelScope() as scope:
                        async with client.stream(W.model(server.base_url), "Hi") as stream:
                            assert await stream.next_chunk() is not None
                            await ways[number % len(ways)](stream, scope)

                for _ in range(4):
                    async with trio.open_nursery() as nursery:
                        for number in range(100):
                            nursery.start_soon(one, number)
                await server.left_with(0)
                following = await client.complete(W.model(server.base_url), "Hi")
                assert following.content == WHOLE

    run(main, ON_SOCKETS)


# -- clocks that only a socket can show ------------------------------------------------------------


async def deaf(stream: trio.SocketStream) -> None:
    """A server that accepts, and neither reads nor says anything."""
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("scheme", "transport"),
    # httpcore leaves the socket of a TLS handshake that is cancelled to the garbage collector.
    [("http", "ours"), ("http", "httpx"), ("https", "ours")],
)
def test_a_server_that_takes_nothing_is_given_up(scheme: str, transport: str) -> None:
    """It does not read a prompt that no buffer holds; or it never answers TLS's first word."""
    prompt = "x" * (32 * 2**20 if scheme == "http" else 1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, deaf, 0, host="127.0.0.1", handler_nursery=nursery)
            )
            port = listeners[0].socket.getsockname()[1]
            async with client_over(transport, retry=llm.Retry(attempts=1)) as client:
                start = trio.current_time()
                with pytest.raises(llm.ConnectTimeout if scheme == "https" else llm.SendTimeout):
                    await client.complete(W.model(f"{scheme}://127.0.0.1:{port}"), prompt)
                limit = 10.0 if scheme == "https" else 30.0
                assert trio.current_time() - start == pytest.approx(limit, abs=0.5)
            nursery.cancel_scope.cancel()

    run(main, ON_SOCKETS)


@transports
@pytest.mark.parametrize("name", ["openai", "anthropic", "openai_responses", "gemini"])
def test_a_consumer_slower_than_all_clocks_trips_none(name: str, transport: str) -> None:
    """More than the buffers hold, taken in 20 bites with a wait beyond all limits between them."""
    wire = wire_named(name)
    answer = reply(*wire.opening, *[wire.says("salt " * 400)] * 2000, *wire.tail())
    limits = llm.Timeouts(total=600.0)

    async def main() -> None:
        async with serve(answer) as server, client_over(transport) as client:
            model = wire.model(server.base_url)
            async with client.stream(model, "Hi", max_tokens=9, timeouts=limits) as stream:
                count = 0
                async for chunk in stream:
                    count += bool(chunk.delta)
                    if chunk.delta and not count % 100:
                        await trio.sleep(1000.0)
            assert (stream.outcome, count) == (llm.Outcome.FINISHED, 2000)

    run(main, ON_SOCKETS)


# -- a real server ---------------------------------------------------------------------------------

real = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
ENDLESS: dict[str, Any] = {"max_tokens": 220, "extra": {"ignore_eos": True}}


@real
@needs_local_model
@transports
async def test_a_server_that_is_killed_in_the_middle(transport: str) -> None:
    async with local.open_local_server(**SMALL) as server, client_over(transport) as client:
        with pytest.raises(llm.ConnectionCut) as caught:
            async with client.stream(server.model(), "Once upon a time", **ENDLESS) as stream:
                assert await stream.next_chunk() is not None
                os.kill(server.pid, signal.SIGKILL)
                await stream.collect()
        partial_answer = caught.value.partial
        assert partial_answer is not None
        assert partial_answer.content
        assert partial_answer.outcome is llm.Outcome.TRUNCATED
        once = llm.Retry(attempts=1)
        with pytest.raises(llm.SendError):
            await client.complete(server.model(), "Once more", max_tokens=1, retry=once)
    assert gone(server.pid)


@real
@needs_local_model
@transports
async def test_a_server_that_is_stopped_in_the_middle(transport: str) -> None:
    limits = llm.Timeouts(idle=0.5)
    async with local.open_local_server(**SMALL) as server, client_over(transport) as client:
        with pytest.raises(llm.StreamTimeout) as caught:
            async with client.stream(
                server.model(), "Once upon a time", timeouts=limits, **ENDLESS
            ) as stream:
                assert await stream.next_chunk() is not None
                os.kill(server.pid, signal.SIGSTOP)
                await stream.collect()
        assert (caught.value.clock, stream.outcome) == ("idle", llm.Outcome.ERRORED)
        assert stream.response.content
        os.kill(server.pid, signal.SIGCONT)
        following = await client.complete(server.model(), "Once more", max_tokens=3)
        assert following.outcome is llm.Outcome.FINISHED
    assert gone(server.pid)


@real
@needs_local_model
@transports
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_server_that_is_restarted_between_two_requests(
    wire: local.Wire, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same address, so that the client's connection to the old one is of no use."""
    async with client_over(transport) as client:
        async with local.open_local_server(**SMALL) as old:
            first = await client.complete(old.model(wire), "One", max_tokens=3)
        port = httpx.URL(old.base_url).port
        monkeypatch.setattr(
            _server, "server_settings", lambda *a: {**server_settings(*a), "port": port}
        )
        async with local.open_local_server(**SMALL) as new:
            assert new.base_url == old.base_url
            second = await client.complete(new.model(wire), "One", max_tokens=3)
    assert first.outcome is second.outcome is llm.Outcome.FINISHED
    assert gone(old.pid)
    assert gone(new.pid)
