"""Loads on Trio's mocked clock: when requests start, and what ends a run."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm._bench.arrivals import offsets
from trio_minillm._bench.course import carry_out, was_offered
from trio_minillm._bench.engine import Engine
from trio_minillm._bench.figures.objective import parse_objective
from trio_minillm._bench.figures.store import Store
from trio_minillm._bench.load import GIVE_UP, GIVE_UP_FATAL, LoadRun
from trio_minillm._bench.plan import (
    Closed,
    Course,
    Load,
    Open,
    Plan,
    Ramp,
    Trace,
    part_of,
    parts_of,
    requests_by_default,
)
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import MEASURED, Record
from trio_minillm.testing import (
    Reply,
    ScriptedTransport,
    ServedRequest,
    hang,
    model,
    openai_events,
    reply,
)

PROMPTS = (Prompt(messages="Hi"),)
EVENTS = openai_events("a", "b")


def plan_of(load: Load, **more: Any) -> Plan:
    return Plan(prompts=PROMPTS, load=load, **more)


def answering(seconds: float) -> ScriptedTransport:
    """A server that takes so long for each answer, however many it is asked."""
    return ScriptedTransport(reply(*EVENTS, wait=seconds))


class Queue:
    """A server that answers one request after the other: it carries ``1 / seconds`` a second."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.free_at = -math.inf
        self.transport = ScriptedTransport(self.answer)

    def answer(self, request: ServedRequest) -> Reply:
        now = trio.current_time()
        self.free_at = max(now, self.free_at) + self.seconds
        return reply(*EVENTS, wait=self.free_at - now)


def client_of(transport: ScriptedTransport) -> AbstractAsyncContextManager[llm.Client]:
    return llm.open_client(transport=transport)


async def run_of(plan: Plan, transport: ScriptedTransport) -> tuple[LoadRun, list[Record]]:
    records: list[Record] = []
    async with client_of(transport) as client:
        run = LoadRun(client, model(), plan, records.append)
        await run.run()
    return run, sorted(records, key=lambda record: record.number)


def starts(records: list[Record]) -> list[float]:
    return [record.sent - records[0].sent for record in records]


# -- when ------------------------------------------------------------------------------------


LOADS = [
    Open(rate=20),
    Open(rate=20, burstiness=1.0),
    Open(rate=20, burstiness=0.3),
    Ramp(first=1, last=30, seconds=3, burstiness=1.0),
    Trace(offsets=(0.0, 0.5, 0.5, 3.25)),
]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: type(load).__name__)
@pytest.mark.parametrize("seconds", [0.01, 30.0])
async def test_requests_start_at_their_times_whatever_became_of_earlier_ones(
    load: Load, seconds: float, autojump_clock: Any
) -> None:
    plan = plan_of(load, requests=min(50, requests_by_default(load)), seed=5)
    began = trio.current_time()
    run, records = await run_of(plan, answering(seconds))
    wanted = list(islice(offsets(load, 5), len(records)))
    began += run.sender.offset
    assert [record.scheduled - began for record in records] == pytest.approx(wanted)
    assert [record.sent - began for record in records] == pytest.approx(wanted)


async def test_processes_share_one_sequence_of_arrivals(autojump_clock: Any) -> None:
    load = Open(rate=50, burstiness=1.0, concurrency=7)
    whole = plan_of(load, requests=31, seed=2)
    merged: list[tuple[int, float]] = []
    for part in parts_of(whole, 3):
        records: list[Record] = []
        async with client_of(answering(0.001)) as client:
            run = LoadRun(client, model(), part, records.append)
            begin = trio.current_time() + 1
            await run.run_measured(begin)
        begin += run.sender.offset
        merged += [(record.number, record.scheduled - begin) for record in records]
    numbers, times = zip(*sorted(merged), strict=True)
    assert numbers == tuple(range(31))
    assert times == pytest.approx(list(islice(offsets(load, 2), 31)))


@pytest.mark.parametrize(
    ("load", "requests", "n"),
    [
        (Closed(concurrency=7), 50, 3),
        (Closed(concurrency=2), 50, 2),
        (Closed(concurrency=9), 2, 2),
        (Open(rate=1), None, 3),
    ],
)
def test_parts_have_the_whole_load_together(load: Load, requests: int | None, n: int) -> None:
    plan = plan_of(load, requests=requests, duration=9)
    parts = parts_of(plan, 3)
    assert [part.part for part in parts] == [(i, n) for i in range(n)]
    if load.concurrency is not None:
        assert sum(part.load.concurrency or 0 for part in parts) == load.concurrency
    if requests is not None:
        assert sum(part_of(requests, part.part) for part in parts) == requests


async def test_a_closed_loop_keeps_its_streams(autojump_clock: Any) -> None:
    run, records = await run_of(plan_of(Closed(concurrency=4), requests=10), answering(1.0))
    assert [round(at) for at in starts(records)] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert (run.running, run.stopped, run.unsent) == (0, "", 0)


async def test_who_waits_for_a_place_keeps_the_scheduled_time(autojump_clock: Any) -> None:
    load = Open(rate=10, concurrency=1)
    run, records = await run_of(plan_of(load, requests=5), answering(1.0))
    late = [record.sent - record.scheduled for record in records]
    assert late == pytest.approx([0, 0.9, 1.8, 2.7, 3.6], abs=1e-2)
    assert run.unsent == 0


async def test_what_was_due_and_never_sent_is_told(autojump_clock: Any) -> None:
    load = Open(rate=10, concurrency=1)
    run, records = await run_of(plan_of(load, requests=None, duration=2.05), answering(1.0))
    assert (len(records), run.unsent) == (3, 18)
    run, records = await run_of(plan_of(load, requests=5, duration=2.05), answering(1.0))
    assert (len(records), run.unsent) == (3, 2)
    async with client_of(answering(1.0)) as client:
        engine = Engine(client, model())
        point = await engine.measure(plan_of(load, requests=None, duration=2.05))
    assert any("18 requests were due but never sent" in note for note in point.notes)


async def test_the_last_request_is_not_followed_by_a_wait(autojump_clock: Any) -> None:
    began = trio.current_time()
    await run_of(plan_of(Open(rate=0.01), requests=1), answering(0.5))
    assert trio.current_time() - began < 1


@pytest.mark.parametrize("load", [Closed(concurrency=2), Open(rate=4.0)])
async def test_a_duration_ends_the_starts_and_no_stream(load: Load, autojump_clock: Any) -> None:
    plan = plan_of(load, requests=None, duration=1.1)
    _, records = await run_of(plan, answering(0.5))
    assert [round(at, 1) for at in starts(records)] in (
        [0, 0, 0.5, 0.5, 1, 1],
        [0, 0.2, 0.5, 0.8, 1],
    )
    assert all(record.whole for record in records)


async def test_a_ramp_to_nothing_ends(autojump_clock: Any) -> None:
    load = Ramp(first=10, last=0, seconds=2)
    _, records = await run_of(plan_of(load, requests=1_000), answering(0.1))
    assert len(records) == 11  # the area of the ramp is 10; the first comes at 0


async def test_a_warm_up_ends_before_what_counts_begins(autojump_clock: Any) -> None:
    plan = plan_of(Open(rate=10, concurrency=2), requests=3, warmup=4)
    _, records = await run_of(plan, answering(1.0))
    phases = [(record.phase, record.number) for record in records]
    assert sorted(phases) == [(MEASURED, n) for n in range(3)] + [("warmup", n) for n in range(4)]
    ended = max(record.ended for record in records if record.phase == "warmup")
    assert min(record.sent for record in records if record.phase == MEASURED) >= ended


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="a number of requests or a duration"):
        plan_of(Closed(), requests=None)
    assert requests_by_default(Closed(concurrency=100)) == 400
    assert requests_by_default(Closed(concurrency=1)) == 100
    assert requests_by_default(Trace(offsets=(0.0, 1.0))) == 2


async def test_a_thousand_streams_at_a_poisson_rate_start_on_time(autojump_clock: Any) -> None:
    load = Open(rate=200, burstiness=1.0)
    _, records = await run_of(plan_of(load, requests=2_000), answering(5.0))
    assert max(record.sent - record.scheduled for record in records) < 1e-3
    assert starts(records)[-1] == pytest.approx(10, rel=0.1)


# -- the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "most", "for_good"), [(500, GIVE_UP, False), (401, GIVE_UP_FATAL, True)]
)
async def test_it_gives_up_where_all_fails(
    status: int, most: int, for_good: bool, autojump_clock: Any
) -> None:
    transport = ScriptedTransport(reply(b"{}", status=status))
    run, records = await run_of(plan_of(Closed(concurrency=4), requests=10_000), transport)
    assert most <= len(records) < most + 10
    assert run.stopped.startswith(f"gave up after {most} failures in a row")
    assert run.gave_up is not for_good


async def test_a_stop_lets_the_streams_end(autojump_clock: Any) -> None:
    records: list[Record] = []
    async with client_of(answering(1.0)) as client, trio.open_nursery() as nursery:
        run = LoadRun(client, model(), plan_of(Open(rate=10), requests=100), records.append)
        nursery.start_soon(run.run)
        await trio.sleep(0.55)
        run.stop("enough")
        assert run.running == 6
    assert [record.outcome for record in records] == ["finished"] * 6
    assert run.stopped == "enough"


@pytest.mark.parametrize("load", [Closed(concurrency=3), Open(rate=10)])
async def test_each_stream_that_was_started_has_a_record_if_all_is_cancelled(
    load: Load, autojump_clock: Any
) -> None:
    records: list[Record] = []
    transport = ScriptedTransport(reply(*EVENTS[:2], hang))
    async with client_of(transport) as client:
        run = LoadRun(client, model(), plan_of(load, requests=100), records.append)
        with trio.move_on_after(0.25) as scope:
            await run.run()
    assert scope.cancelled_caught
    assert [record.outcome for record in records] == ["cancelled"] * 3
    assert all(record.stamps for record in records)


async def test_a_refused_parameter_is_said_before_anything_is_sent(autojump_clock: Any) -> None:
    transport = answering(0.1)
    with pytest.raises(TypeError):
        await run_of(plan_of(Closed(), params={"no_such": 1}), transport)
    assert transport.requests == []


# -- several loads ---------------------------------------------------------------------------


async def test_a_sweep_makes_a_point_of_each_load(autojump_clock: Any) -> None:
    async with client_of(answering(1.0)) as client:
        engine = Engine(client, model())
        loads = [Closed(concurrency=n) for n in (1, 2, 4)]
        plans = tuple(plan_of(load, requests=8, warmup=1) for load in loads)
        assert await carry_out(engine, Course(plans=plans)) is None
    assert [point.load for point in engine.points] == loads
    rates = [point.figures.rates["requests"] for point in engine.points]
    assert rates == pytest.approx([1, 2, 4], rel=0.01)
    assert [point.figures.sent for point in engine.points] == [8, 8, 8]


async def test_a_stop_is_one_of_the_whole_sweep(autojump_clock: Any) -> None:
    async with client_of(answering(1.0)) as client, trio.open_nursery() as nursery:
        engine = Engine(client, model())
        plans = tuple(plan_of(Closed(concurrency=n), requests=20) for n in (1, 2, 4))
        nursery.start_soon(carry_out, engine, Course(plans=plans))
        await trio.sleep(21)
        engine.stop("enough")
    assert [point.figures.sent for point in engine.points] == [20, 2]


async def test_the_highest_rate_of_a_queue_is_found(autojump_clock: Any) -> None:
    """A server that carries 5 a second: beyond, the wait grows for as long as the run lasts."""
    course = Course(
        plans=(plan_of(Open(rate=1), requests=None, duration=60),),
        objective=parse_objective("99% ttft<1s"),
        precision=0.05,
    )
    async with client_of(Queue(1 / 5).transport) as client:
        engine = Engine(client, model(), objective=course.objective)
        search = await carry_out(engine, course)
    assert search is not None
    assert search.met is not None
    assert search.failed is not None
    # Within a minute the wait for the queue reaches 0.8 seconds at 5 · (1 + 0.8 / 60).
    assert search.met <= 5 * 1.02
    assert search.failed >= 5
    assert search.failed <= search.met * 1.05
    assert len(engine.points) == sum(trial.runs for trial in search.trials.values())


async def test_the_highest_concurrency_of_a_queue_is_found(autojump_clock: Any) -> None:
    """Of n streams each waits for n answers of 50 ms: ten take half a second."""
    course = Course(
        plans=(plan_of(Closed(concurrency=1), requests=300),),
        objective=parse_objective("90% ttft<0.525s"),
        over="concurrency",
    )
    async with client_of(Queue(1 / 20).transport) as client:
        search = await carry_out(Engine(client, model(), objective=course.objective), course)
    assert search is not None
    assert (search.met, search.failed) == (10, 11)


async def test_a_load_at_which_all_fails_does_not_end_a_search(autojump_clock: Any) -> None:
    open_now = 0

    def answer(request: ServedRequest) -> Reply:
        nonlocal open_now
        if loaded() > 8:
            return reply(b"{}", status=503)
        return reply(*EVENTS, wait=1.0)

    def loaded() -> float:
        run = engine.run
        assert run is not None
        return run.plan.load.concurrency or 0

    course = Course(
        plans=(plan_of(Closed(concurrency=1), requests=400),),
        objective=parse_objective("90% ttft<2s"),
        over="concurrency",
    )
    async with client_of(ScriptedTransport(answer)) as client:
        engine = Engine(client, model(), objective=course.objective)
        search = await carry_out(engine, course)
    assert search is not None
    assert (search.met, search.failed, engine.stopped) == (8, 9, "")
    assert any("gave up" in note for point in engine.points for note in point.notes)


def test_what_was_not_offered() -> None:
    def sent(slower: float) -> Store:
        store = Store()
        for n in range(100):
            at = n * (1 + slower)
            store.add(Record(number=n, scheduled=n, sent=at, ended=at))
        return store

    load, good, slow = Open(rate=1), sent(0.00001), sent(0.1)
    assert was_offered(good, 0, load, 0.05)
    assert not was_offered(slow, 0, load, 0.05)
    assert not was_offered(good, 10, load, 0.05)
    assert was_offered(slow, 10, Open(rate=1, concurrency=5), 0.05)
    assert was_offered(slow, 0, Closed(), 0.05)


async def test_a_load_ends_with_as_many_requests_as_are_kept(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    monkeypatch.setattr("trio_minillm._bench.kept.MAX_REQUESTS", 20)
    async with client_of(answering(0.5)) as client:
        engine = Engine(client, model())
        point = await engine.measure(plan_of(Closed(concurrency=2), requests=50))
        later = await engine.measure(plan_of(Closed(concurrency=2), requests=5))
    assert 20 <= point.figures.finished <= 21
    assert any("reached the limit of" in note for note in point.notes)
    assert later.figures.finished == 5, "the next load has room"


async def test_the_steady_state_makes_the_figures(autojump_clock: Any) -> None:
    async with client_of(answering(5.0)) as client:
        engine = Engine(client, model())
        plan = plan_of(Open(rate=20), requests=None, duration=40, steady=True)
        point = await engine.measure(plan)
    assert point.steady is not None
    assert point.steady.found
    assert point.figures.sent == engine.counted.sent == 800 - point.steady.cut
    assert point.figures.rates["requests"] == pytest.approx(20, rel=0.02)
    assert not any("steady" in note for note in point.notes)
