"""The bound on the connections to one origin that are being made at a time."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from trio_minillm._http import pool as pool_module
from trio_minillm._http.connection import Origin
from trio_minillm._http.gate import AT_ONCE, STALLED_SECONDS, Gate
from trio_minillm._http.pool import ConnectionPool
from trio_minillm._http.transport_errors import ConnectError

MANY = 5 * AT_ONCE
HERE: Origin = ("http", "a.example", 80)


class Dials:
    """Stand-in for `dial`: each takes so many seconds, and then fails, or gives one end of a pair."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.failure: OSError | None = None
        self.now = self.most = self.done = 0
        self.ends: list[socket.socket] = []
        monkeypatch.setattr(pool_module, "dial", self)

    async def __call__(self, *args: Any) -> socket.socket:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.now -= 1
        self.done += 1
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return ours

    def close(self) -> None:
        for end in self.ends:
            end.close()


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Dials(monkeypatch)
    yield made
    made.close()


async def silent(event: str) -> None:
    """Take no notice."""


async def open_many(pool: ConnectionPool, origin: Origin, count: int = MANY) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(pool.open, origin, None, silent)


async def test_few_at_a_time_while_they_get_made(dials: Dials, autojump_clock: Any) -> None:
    dials.seconds = STALLED_SECONDS / 2
    pool = ConnectionPool()
    began = trio.current_time()
    await open_many(pool, HERE)
    assert dials.most == AT_ONCE
    assert trio.current_time() - began == pytest.approx(dials.seconds * MANY / AT_ONCE)
    assert pool.statistics().active == MANY
    assert not pool._gates
    pool.close()


async def test_each_origin_has_its_own(dials: Dials, autojump_clock: Any) -> None:
    dials.seconds, pool = 0.5, ConnectionPool()
    async with trio.open_nursery() as nursery:
        for host in "ab":
            nursery.start_soon(open_many, pool, ("http", host, 80))
    assert dials.most == 2 * AT_ONCE
    pool.close()


async def test_where_nobody_answers_there_is_no_bound(dials: Dials, autojump_clock: Any) -> None:
    dials.seconds, pool = 100, ConnectionPool()
    with trio.move_on_after(STALLED_SECONDS + 0.5):
        await open_many(pool, HERE)
    assert dials.most == MANY
    assert not pool._gates
    assert pool.statistics().active == 0


async def test_failures_make_place_too(dials: Dials, autojump_clock: Any) -> None:
    dials.seconds, dials.failure = 0.1, ConnectionRefusedError("no")
    pool, failed = ConnectionPool(), 0

    async def one() -> None:
        nonlocal failed
        with pytest.raises(ConnectError):
            await pool.open(HERE, None, silent)
        failed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(one)
    assert (failed, dials.most) == (MANY, AT_ONCE)
    assert not pool._gates


async def test_the_wait_is_told_and_is_first_come_first_served(autojump_clock: Any) -> None:
    gate, told, entered = Gate(), list[str](), list[int]()

    async def tell(event: str) -> None:
        told.append(event)

    for _ in range(AT_ONCE):
        await gate.enter(tell)
    assert told == []

    async def one(number: int) -> None:
        await trio.sleep(number / 100)
        await gate.enter(tell)
        entered.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(one, number)
        await trio.sleep(0.1)
        assert entered == []
        for _ in range(3):
            gate.leave(made=True)
            await trio.testing.wait_all_tasks_blocked()
    assert entered == [0, 1, 2]
    started, complete = (f"connection_pool.wait.{word}" for word in ("started", "complete"))
    assert (told.count(started), told.count(complete)) == (3, 3)
    assert gate.making == AT_ONCE


async def test_who_comes_later_gets_no_place_of_one_that_waits(autojump_clock: Any) -> None:
    gate, entered = Gate(), list[str]()

    async def one(name: str) -> None:
        await gate.enter(silent)
        entered.append(name)

    async def leave() -> None:
        await trio.sleep(0.1)
        gate.leave(made=True)

    for _ in range(AT_ONCE):
        await gate.enter(silent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(leave)
        gate.leave(made=True)
        await one("later")  # in the same moment
    assert entered == ["first", "later"]


async def test_a_place_is_kept_in_line_however_long_it_takes(autojump_clock: Any) -> None:
    gate, entered = Gate(), list[int]()

    async def one(number: int) -> None:
        await gate.enter(silent)
        entered.append(number)

    for _ in range(AT_ONCE):
        await gate.enter(silent)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            await trio.sleep(STALLED_SECONDS * 0.4)
            gate.leave(made=True)
    assert entered == [*range(20)]


async def test_while_some_get_made_the_others_wait_on(autojump_clock: Any) -> None:
    gate = Gate()
    for _ in range(AT_ONCE + 1):
        gate.making += 1  # one more than may be, as after a stall
    entered = trio.Event()

    async def enter() -> None:
        await gate.enter(silent)
        entered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(enter)
        for _ in range(9):
            await trio.sleep(STALLED_SECONDS * 0.9)
            gate.leave(made=True)
            gate.making += 1
            assert not entered.is_set()
        await trio.sleep(STALLED_SECONDS * 2.1)
        assert entered.is_set()


@pytest.mark.parametrize(
    "at", ["connection_pool.wait.started", "connection_pool.wait.complete", ""]
)
async def test_who_is_cancelled_holds_no_place(at: str, autojump_clock: Any) -> None:
    gate = Gate()
    for _ in range(AT_ONCE):
        await gate.enter(silent)
    with trio.CancelScope() as scope:

        async def tell(event: str) -> None:
            if event == at:
                scope.cancel()
            await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await trio.sleep(0.1)
                gate.leave(made=True)
                if not at:
                    scope.cancel()  # in the moment in which it is let in

            nursery.start_soon(leave)
            await gate.enter(tell)
            await trio.lowlevel.checkpoint()
            gate.leave(made=False)
    while gate.making > 0:
        gate.leave(made=True)
    assert gate.unused


async def test_waiting_for_others_no_clock_runs(dials: Dials, autojump_clock: Any) -> None:
    """Five rounds of 0.6 s each are longer than ``connect``."""
    import trio_minillm as llm

    dials.seconds = 0.6
    model = llm.openai("m", base_url="http://127.0.0.1:1/v1", api_key="k")
    timeouts = llm.Timeouts(connect=1.0, send=1.0, first_chunk=1.0)
    retry = llm.Retry(attempts=1)

    async def one(client: llm.Client) -> None:
        with pytest.raises(llm.StreamTimeout) as caught:
            await client.complete(model, "x")
        assert (
            caught.value.clock == "first_chunk"
        )  # connected in time, and then nobody says anything

    async with llm.open_client(timeouts=timeouts, retry=retry) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(partial(one, client))
    assert dials.most == AT_ONCE


@pytest.mark.parametrize("pool", [None, 10.0, 1.0])
async def test_for_httpx_the_wait_is_one_for_the_pool(
    dials: Dials, autojump_clock: Any, pool: float | None
) -> None:
    from trio_minillm import TrioTransport

    dials.seconds = 0.6
    ends: list[type[Exception]] = []

    async def one(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.TimeoutException) as caught:
            await client.get("http://127.0.0.1:1/")
        ends.append(caught.type)

    timeout = httpx.Timeout(1.0, pool=pool)
    async with httpx.AsyncClient(transport=TrioTransport(), timeout=timeout) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(one, client)
    late = 0 if pool != 1.0 else MANY - 2 * AT_ONCE  # the second round begins after 0.6 s
    assert ends.count(httpx.PoolTimeout) == late
    assert ends.count(httpx.ReadTimeout) == MANY - late  # connected in time
