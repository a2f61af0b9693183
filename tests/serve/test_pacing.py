"""The pacer, its clock, and the places of a server, on a mocked clock."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing

from trio_minillm._serve.capacity import Capacity
from trio_minillm._serve.pacer import Pacer
from trio_minillm._serve.timers import FileTimer, SleepingTimer, new_timer


class Ticks:
    """A job with a turn at each of some times."""

    def __init__(self, *gaps: float) -> None:
        self.gaps = list(gaps)
        self.turns: list[tuple[float, float]] = []

    def turn(self, due: float, now: float) -> float | None:
        self.turns.append((due, now))
        return due + self.gaps.pop(0) if self.gaps else None


async def test_each_turn_comes_when_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    pacer = Pacer(SleepingTimer(trio.current_time))
    jobs = [Ticks(*[0.02] * 5), Ticks(*[0.03] * 3), Ticks()]
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pacer.run)
        for number, job in enumerate(jobs):
            pacer.add(began + 1 + number, job)
        await trio.sleep(0.5)
        early = Ticks()
        pacer.add(began + 0.6, early)  # before what the pacer waits for
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [due - began for due, _ in jobs[0].turns] == pytest.approx(
        [1, 1.02, 1.04, 1.06, 1.08, 1.1]
    )
    assert [len(job.turns) for job in jobs] == [6, 4, 1]
    assert early.turns[0][1] == pytest.approx(began + 0.6, abs=0.001)
    for job in jobs:
        for due, now in job.turns:
            assert due <= now <= due + 0.001


async def test_the_schedule_does_not_drift_when_turns_are_late() -> None:
    time = 0.0
    timer = SleepingTimer(lambda: time)
    pacer, job = Pacer(timer), Ticks(0.1, 0.1, 0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pacer.run)
        pacer.add(0.0, job)
        await trio.testing.wait_all_tasks_blocked()
        time = 0.25
        pacer.add(0.25, Ticks())
        timer.set(0.2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [due for due, _ in job.turns] == pytest.approx([0, 0.1, 0.2])
    assert [now for _, now in job.turns] == [0.0, 0.25, 0.25]


async def test_an_alarm_can_be_set_earlier_and_off() -> None:
    timer = new_timer()
    if not isinstance(timer, FileTimer):
        pytest.skip("there is no timerfd")
    done = []

    async def wait() -> None:
        await timer.wait()
        done.append(timer.now())

    async with trio.open_nursery() as nursery:
        timer.set(timer.now() + 1000)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        due = timer.now() + 0.001
        timer.set(due)
    assert done[0] >= due
    timer.set(float("inf"))
    timer.close()


class Client:
    def __init__(self) -> None:
        self.began: float | None = None

    def start(self, at: float) -> None:
        self.began = at


def test_places_are_given_in_order() -> None:
    capacity, clients = Capacity(2), [Client() for _ in range(5)]
    for number, client in enumerate(clients):
        capacity.enter(client, float(number))
    assert [client.began for client in clients] == [0, 1, None, None, None]
    assert (capacity.running, capacity.queued) == (2, 3)
    capacity.leave(clients[2], 5)  # it hung up in the line
    capacity.leave(clients[0], 6)
    assert (clients[2].began, clients[3].began, clients[4].began) == (None, 6, None)
    capacity.leave(clients[1], 7)
    capacity.leave(clients[3], 8)
    capacity.leave(clients[4], 9)
    assert (clients[4].began, capacity.running, capacity.queued) == (7, 0, 0)


def test_without_a_limit_nobody_waits() -> None:
    capacity, clients = Capacity(None), [Client() for _ in range(100)]
    for client in clients:
        capacity.enter(client, 1.0)
    assert (capacity.running, capacity.queued) == (100, 0)


def test_the_line_is_that_of_theory() -> None:
    """M/D/1 at a load of 0.8: the mean wait is 0.8 / (2 · (1 - 0.8)) service times, which is 2."""
    random, capacity, at, ends = Random(3), Capacity(1), 0.0, []
    waits: list[float] = []

    class Guest(Client):
        def __init__(self, came: float) -> None:
            self.came = came

        def start(self, at: float) -> None:
            waits.append(at - self.came)
            ends.append((at + 1.0, self))

    for _ in range(60_000):
        at += random.expovariate(0.8)
        while ends and ends[0][0] <= at:
            end, guest = ends.pop(0)
            capacity.leave(guest, end)
        capacity.enter(Guest(at), at)
    assert sum(waits) / len(waits) == pytest.approx(2.0, rel=0.06)
