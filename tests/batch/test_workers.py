"""The tasks that send a batch's requests."""

import math

import trio

from trio_minillm._batch.throttle.rate_limits import Rates
from trio_minillm._batch.throttle.schedule import Item, Schedule
from trio_minillm._batch.throttle.throttle import Lane
from trio_minillm._batch.types import BatchRequest
from trio_minillm._batch.workers import TOGETHER, WorkerPool
from trio_minillm.providers._models import compatible

MODEL = compatible("m", base_url="http://host/v1")


class Pool:
    """A pool whose items are served for as long as ``seconds`` says."""

    def __init__(self, capacity, count, seconds):
        self.schedule = Schedule(capacity, lambda now: Lane(now, Rates(), None))
        self.began, self.tasks = [], set()
        self.workers = WorkerPool(
            self.schedule, self._serve, expire=lambda now: math.inf, crashed=self._crashed
        )
        self._seconds = seconds
        for index in range(count):
            request = BatchRequest(f"k{index}", "hi", MODEL)
            self.schedule.add(Item(request, MODEL, index, 0, index), 0.0)

    async def _serve(self, item):
        self.began.append(item.index)
        self.tasks.add(trio.lowlevel.current_task())
        await trio.sleep(self._seconds(item.index))
        item.lane.ended(item.ticket, trio.current_time(), error=None, tokens=None)
        self.schedule.ended()

    def _crashed(self, exc):
        raise exc


async def test_requests_begin_in_order_in_no_more_tasks_than_may_run(autojump_clock):
    """Trio goes on with the tasks of a turn in any order."""
    pool = Pool(20, 200, lambda index: 1.0 + index % 3)
    async with trio.open_nursery() as nursery:
        pool.workers.start(nursery)
        pool.workers.notify()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.began == list(range(20))
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert sorted(pool.began) == list(range(200))
    assert len(pool.tasks) == 20


async def test_few_begin_in_one_turn_so_that_a_refusal_holds_back_the_rest(autojump_clock):
    pool = Pool(30, 30, lambda _: 1.0)
    async with trio.open_nursery() as nursery:
        pool.workers.start(nursery)
        pool.workers.notify()
        turns = []
        while len(pool.began) < 30:
            before = len(pool.began)
            await trio.lowlevel.checkpoint()
            turns.append(len(pool.began) - before)
        nursery.cancel_scope.cancel()
    assert max(turns) <= 2 * TOGETHER  # this task has its own anywhere in one


async def test_who_has_nothing_to_do_ends_once_no_more_comes(autojump_clock):
    pool = Pool(8, 16, lambda index: 1.0 + index)
    async with trio.open_nursery() as nursery:
        pool.workers.start(nursery)
        alone = trio.lowlevel.current_statistics().tasks_living
        pool.workers.notify()
        await trio.sleep(50)
        assert trio.lowlevel.current_statistics().tasks_living == alone + 8  # more may come
        pool.workers.retire()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == alone
        again = Item(BatchRequest("again", "hi", MODEL), MODEL, 16, 0, 16)
        pool.schedule.add(again, 0.0)
        pool.workers.notify()
        await trio.sleep(50)
        assert pool.began[-1] == 16
        assert trio.lowlevel.current_statistics().tasks_living == alone
        nursery.cancel_scope.cancel()
