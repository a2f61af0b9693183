"""A client in other programs' loops: opened once in each, cancelled with its caller, closed."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
import trio

import trio_minillm as llm
from trio_minillm.adapters._portal import Portal, open_both
from trio_minillm.local._named import open_model


class Opened:
    """The resource that a portal opens here, and its history."""

    def __init__(self):
        self.opened = self.closed = 0
        self.began = threading.Event()
        self.cancelled = threading.Event()

    @asynccontextmanager
    async def block(self):
        self.opened += 1
        await trio.lowlevel.checkpoint()
        try:
            yield self
        finally:
            self.closed += 1

    async def hang(self, _):
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


async def answer(_):
    await trio.lowlevel.checkpoint()
    return 42


async def fail(_):
    await trio.lowlevel.checkpoint()
    raise KeyError("not here")


@pytest.fixture
def made():
    return Opened()


@pytest.fixture
def portal(made):
    portal = Portal(made.block)
    yield portal
    portal.close()


# -- in a Trio run -------------------------------------------------------------------------------


def test_one_is_opened_for_each_trio_run_and_closed_with_it(portal, made):
    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(portal.call, answer)
            assert await portal.call(answer) == 42
        with pytest.raises(KeyError, match="not here"):
            await portal.call(fail)
        assert made.opened - made.closed == 1

    for number in (1, 2):
        trio.run(main)
        assert made.opened == made.closed == number


def test_a_call_that_is_cancelled_in_a_trio_run(portal, made):
    async def main():
        with trio.move_on_after(0.01):
            await portal.call(made.hang)

    trio.run(main)
    assert made.cancelled.is_set()
    assert made.closed == 1


# -- in a thread ---------------------------------------------------------------------------------


def test_one_is_opened_for_all_other_loops_and_threads(portal, made):
    async def main():
        assert await asyncio.gather(portal.call(answer), portal.call(answer)) == [42, 42]
        with pytest.raises(KeyError, match="not here"):
            await portal.call(fail)

    asyncio.run(main())
    asyncio.run(main())
    assert portal.submit(answer).result(5) == 42
    assert (made.opened, made.closed) == (1, 0)
    portal.close()
    portal.close()
    assert made.closed == 1
    assert portal.submit(answer).result(5) == 42  # opened again
    assert made.opened == 2


def test_a_call_that_is_cancelled_in_asyncio(portal, made):
    async def main():
        task = asyncio.create_task(portal.call(made.hang))
        await asyncio.to_thread(made.began.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert made.cancelled.wait(5)
    assert portal.submit(answer).result(5) == 42


def test_what_is_under_way_when_it_is_closed(portal, made):
    future = portal.submit(made.hang)
    assert made.began.wait(5)
    portal.close()
    assert future.cancelled()
    assert made.cancelled.is_set()


def test_a_future_that_is_cancelled_before_it_began(portal, made):
    future = portal.submit(made.hang)
    future.cancel()
    assert portal.submit(answer).result(5) == 42


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_what_can_t_be_opened_says_so_to_each_caller(loop):
    portal = Portal(lambda: open_model("nonsense"))

    async def main():
        for _ in range(2):
            with pytest.raises(ValueError, match="the model is"):
                await portal.call(answer)

    trio.run(main) if loop == "trio" else asyncio.run(main())
    portal.close()


async def test_a_client_and_a_model_in_one_block():
    given = llm.compatible("m", base_url="http://127.0.0.1:1/v1")
    async with open_both(given, {}) as (client, model):
        assert model is given
        assert isinstance(client, llm.Client)
