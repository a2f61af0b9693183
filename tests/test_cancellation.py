"""Cancelled at every step, through the public API and over real sockets: nothing is left behind.

A walk does the same thing again and again and cancels it before its first step, its second, and so
on until it comes to its end. After each: no connection in use and no one in line, the next
request on the same client works, and every attempt is in the ledger once. After the walk: no
descriptor, no task, and no generator for the garbage collector (its warnings are errors here).

The pool, TLS and the transport alone are walked in ``test_transport.py``, a stream in memory in
``test_stream.py``, the ledger in ``test_tracked.py``, ``test_settlement.py`` and ``test_budget.py``.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import LoopbackServer, Reply, faults, hang

from .support.certificates import certified, trusting
from .support.streams import CancelAtStep, take
from .support.wires import begin

SOON = 60
CLOCKS = llm.Timeouts(connect=None, first_chunk=None)  # names are looked up in real time
RETRY = llm.Retry(base_delay=0.01)
WHOLE = testing.reply(*testing.openai_events("a", "b", "c"))
PIECES = testing.reply(*[s for e in testing.openai_events("a", "b") for s in (e, 0.01)])
BROKEN = testing.reply(b"{", 0.01, b"}", status=503)
LATE = PIECES | faults.late(3.0)
GRACE = testing.reply(*testing.openai_events("a", usage=False, done=False), hang)

Use = Callable[[llm.Client, llm.Model], Awaitable[object]]


@contextlib.contextmanager
def cancelled_at(step: int, scope: trio.CancelScope) -> Any:
    instrument = CancelAtStep(step, scope, trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(instrument)
    try:
        with scope, contextlib.suppress(llm.MiniLLMError):
            yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


def descriptors() -> int:
    """Return the number of file descriptors that this process has open."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Descriptors and tasks are as many after the block as before."""
    gc.collect()
    before = descriptors(), trio.lowlevel.current_statistics().tasks_living
    yield
    gc.collect()
    assert (descriptors(), trio.lowlevel.current_statistics().tasks_living) == before


def quiet(transport: llm.TrioTransport) -> None:
    now = transport.statistics()
    assert (now.active, now.waiting) == (0, 0)


async def walk(server: LoopbackServer, use: Use, replies: tuple[Reply, ...], **options: Any) -> int:
    """Returns how many steps it took to its end."""
    for step in itertools.count(1):
        server.replies = replies
        server.requests.clear()
        transport = llm.TrioTransport(**options)
        model = server.model()
        ledger = llm.Ledger()
        with trio.fail_after(SOON):
            async with llm.open_client(
                transport=transport, ledger=ledger, timeouts=CLOCKS, retry=RETRY
            ) as client:
                scope = trio.CancelScope()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_one, step, scope, use, client, model)
                quiet(transport)
                assert all(r.outcome is not None for r in ledger.recent), step
                assert ledger.attempts <= len(replies)
                server.replies = (WHOLE,)
                assert (await client.complete(model, "next")).content == "abc"
                quiet(transport)
            await transport.aclose()
            await server.left_with(0)
        if not scope.cancel_called:
            return step
    raise AssertionError


async def _one(
    step: int, scope: trio.CancelScope, use: Use, client: llm.Client, model: llm.Model
) -> None:
    with cancelled_at(step, scope):
        await use(client, model)


async def iterate(client: llm.Client, model: llm.Model) -> None:
    async with client.stream(model, "Hi") as stream:
        async for _ in stream:
            pass


async def collect(client: llm.Client, model: llm.Model) -> None:
    async with client.stream(model, "Hi") as stream:
        await stream.collect()


async def complete(client: llm.Client, model: llm.Model) -> None:
    await client.complete(model, "Hi")


async def stop(client: llm.Client, model: llm.Model) -> None:
    async with client.stream(model, "Hi") as stream:
        await stream.next_chunk()
        await stream.cancel()


async def two_at_once(client: llm.Client, model: llm.Model) -> None:
    """The second waits for the first's slot."""
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(suppressing, client, model)


async def suppressing(client: llm.Client, model: llm.Model) -> None:
    with contextlib.suppress(llm.MiniLLMError):
        await client.complete(model, "Hi")


async def one_after_the_other(client: llm.Client, model: llm.Model) -> None:
    """The second on the first's connection."""
    for _ in range(2):
        await suppressing(client, model)


WALKS: dict[str, tuple[Use, tuple[Reply, ...], dict[str, Any]]] = {
    "iterate": (iterate, (PIECES,), {}),
    "collect": (collect, (PIECES,), {}),
    "complete": (complete, (PIECES,), {}),
    "stop": (stop, (PIECES,), {}),
    "headers held back": (complete, (LATE,), {}),
    "usage never comes": (iterate, (GRACE,), {}),
    "cut": (iterate, (WHOLE | faults.cut(-200),), {}),
    "reset": (iterate, (WHOLE | faults.cut(-200, "reset"),), {}),
    "retry": (complete, (BROKEN, PIECES), {}),
    "retry of what was not sent": (complete, (testing.reply(error=OSError("no")), WHOLE), {}),
    "retries exhausted": (complete, (BROKEN, BROKEN, BROKEN), {}),
    "in line for a slot": (two_at_once, (PIECES, PIECES), {"max_connections": 1}),
    "reused": (one_after_the_other, (WHOLE, PIECES), {}),
}


@pytest.mark.parametrize("name", WALKS)
async def test_cancelled_at_every_step(name: str, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.005
    use, replies, options = WALKS[name]
    async with nothing_left():
        async with testing.serve() as server:
            assert await walk(server, use, replies, **options) > 7


@pytest.mark.parametrize("name", ["iterate", "retry"])
async def test_cancelled_at_every_step_under_tls(name: str) -> None:
    use, replies, _ = WALKS[name]
    async with nothing_left():
        async with testing.serve(context=certified()) as server:
            assert await walk(server, use, replies, verify=trusting()) > 8


async def test_the_clients_block_cancelled_at_every_step_of_a_settlement(
    autojump_clock: MockClock,
) -> None:
    """Whatever is cancelled: an attempt that was sent is in the ledger once, settled or to be."""
    autojump_clock.autojump_threshold = 0.005
    begun = testing.reply(*begin("openrouter"), hang)
    answers = (testing.reply(b"{}", status=404), testing.settlement(0.7))
    async with nothing_left():
        async with testing.serve(begun) as server:
            model = llm.openrouter("m", base_url=server.base_url, api_key="k")
            for step in itertools.count(1):
                server.replies, server.settlements = (begun,), answers
                server.requests.clear()
                transport, ledger, scope = llm.TrioTransport(), llm.Ledger(), trio.CancelScope()
                with trio.fail_after(1000):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_settling, step, scope, transport, ledger, model)
                    quiet(transport)
                    await transport.aclose()
                    await server.left_with(0)
                assert len(server.requests) <= ledger.attempts <= 1, step
                settled = ledger.attempts - len(ledger.unsettled)
                assert ledger.total in (0, Decimal("0.7") * settled), step
                if not scope.cancel_called:
                    break
            assert (step > 15, ledger.attempts, ledger.total) == (True, 1, Decimal("0.7"))


async def _settling(
    step: int,
    scope: trio.CancelScope,
    transport: llm.TrioTransport,
    ledger: llm.Ledger,
    model: llm.Model,
) -> None:
    with cancelled_at(step, scope):
        async with llm.open_client(transport=transport, ledger=ledger) as client:
            async with client.stream(model, "Hi") as stream:
                await take(stream, "abc")


async def test_a_local_model_cancelled_at_any_step_of_its_start_and_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("xllamacpp")
    from trio_minillm.local import open_local_server

    children: list[trio.Process] = []
    real = trio.lowlevel.open_process

    async def spy(*args: Any, **kwargs: Any) -> trio.Process:
        process: trio.Process = await real(*args, **kwargs)
        children.append(process)
        return process

    async def use(step: int, scope: trio.CancelScope) -> None:
        with cancelled_at(step, scope):
            async with open_local_server(context=256, slots=1):
                await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.lowlevel, "open_process", spy)
    await use(-1, trio.CancelScope())  # what is opened once and kept is open now
    async with nothing_left():
        for step in (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 40, 60, 90):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, step, scope)
            assert all(child.returncode is not None for child in children), step
            if not scope.cancel_called:
                break
