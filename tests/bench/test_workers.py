"""Worker processes: one load from several of them, and every way in which they can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm._bench.arrivals import offsets
from trio_minillm._bench.engine import Engine
from trio_minillm._bench.messages import (
    Done,
    Frames,
    Job,
    Kept,
    Over,
    Ready,
    Status,
    report_frame,
)
from trio_minillm._bench.plan import Closed, Load, Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Failure, Record
from trio_minillm._bench.workers import COMMAND, WorkerDied, Workers, WorkersRun, open_workers

from ..support.command import KEY, LIMIT, environment, wait_for
from ..support.endpoint import END, HELLO, OPENING, Endpoint, chunk, text


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as made:
        yield made


def plan_of(load: Load, **more: Any) -> Plan:
    return Plan(prompts=(Prompt(messages="Hi"),), load=load, **more)


def job_of(endpoint: Endpoint, *, price: str | None = None) -> Job:
    model = llm.compatible("m", base_url=endpoint.url, api_key=KEY)
    if price is not None:
        rate = Decimal(price)
        model = llm.compatible(
            "m", base_url=endpoint.url, api_key=KEY, price=llm.TokenPrice(input=rate, output=rate)
        )
    return Job(model=model, secret=KEY, hedge=None, max_cost=price is not None)


class Bench:
    """An engine with workers, and all that comes out of it."""

    def __init__(self, engine: Engine, workers: Workers, ledger: llm.Ledger) -> None:
        self.engine = engine
        self.workers = workers
        self.ledger = ledger
        self.records: list[Record] = []

    @property
    def run(self) -> WorkersRun:
        assert isinstance(self.engine.run, WorkersRun)
        return self.engine.run

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.workers.all]


@asynccontextmanager
async def bench_of(
    endpoint: Endpoint, processes: int, *, price: str | None = None, max_cost: Any = None
) -> AsyncIterator[Bench]:
    ledger, job = llm.Ledger(), job_of(endpoint, price=price)
    with trio.fail_after(LIMIT):
        async with (
            llm.open_client() as client,
            open_workers(processes, job, ledger=ledger, max_cost=max_cost) as workers,
        ):
            records: list[Record] = []
            engine = Engine(client, job.model, workers=workers, sink=records.append)
            bench = Bench(engine, workers, ledger)
            bench.records = records
            yield bench


async def until(happened: Any) -> None:
    while not happened():
        await trio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_several_processes_send_one_load_after_the_other(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [OPENING, 0.02, text("a"), text("b"), END])
    loads = Closed(concurrency=5), Open(rate=100.0, burstiness=1.0), Closed(concurrency=1)
    async with bench_of(endpoint, 2) as bench:
        for load in loads:
            bench.records.clear()
            point = await bench.engine.measure(plan_of(load, requests=40, warmup=4, seed=3))
            measured = [record for record in bench.records if record.phase == "measured"]
            assert sorted(record.number for record in measured) == list(range(40))
            assert point.figures.outcomes == {"finished": 40}
            assert point.figures.chunks == 80
            assert point.warmup is not None
            assert point.warmup.sent == 4
            used = {0, 1} if load is not loads[2] else {0}
            assert {record.worker for record in measured} == used
            assert point.audit.workers == len(used)
            assert len(point.audit.cpu_shares) == len(used) + 1
            assert all(share > 0 for share in point.audit.cpu_shares)
            assert point.audit.lag is None or point.audit.lag.count > 0
            if isinstance(load, Open):
                numbers = {record.number: record.scheduled for record in measured}
                gaps = [numbers[n] - numbers[0] for n in range(40)]
                wanted = list(islice(offsets(load, 3), 40))
                assert gaps == pytest.approx([at - wanted[0] for at in wanted], abs=2e-3)
        pids = bench.pids()
    assert bench.ledger.attempts == len(endpoint.requests) == 132
    assert {name: totals.attempts for name, totals in bench.ledger.by_meta("bench").items()} == {
        "warmup": 12,
        "measured": 120,
    }
    assert all(map(gone, pids))


async def test_failures_come_as_records_and_as_errors(endpoint: Endpoint) -> None:
    said = f'{{"error": {{"message": "no {KEY}"}}}}'.encode()
    endpoint.script = lambda n: (401, [said])
    async with bench_of(endpoint, 2) as bench:
        point = await bench.engine.measure(plan_of(Closed(concurrency=2), requests=400))
    assert point.figures.sent < 60
    assert bench.engine.stopped == "gave up after 10 failures in a row"
    (kind,) = point.figures.failures
    assert (kind["type"], kind["status"]) == ("RefusedError", 401)
    assert KEY[:8] not in str(kind)
    (error,) = bench.run.errors.values()
    assert isinstance(error, llm.RefusedError)
    assert error.status == 401


async def test_a_stop_lets_the_streams_of_all_processes_end(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, text("b"), END])
    async with bench_of(endpoint, 2) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.measure, plan_of(Closed(concurrency=4), requests=50))
        await until(lambda: endpoint.running == 4)
        await until(lambda: bench.engine.run is not None and bench.run.running == 4)
        bench.engine.stop("enough")
        await trio.sleep(0.3)  # until it has reached them
        endpoint.release.set()
        await until(lambda: bench.engine.points)
    assert [record.outcome for record in bench.records] == ["finished"] * 4
    assert len(endpoint.requests) == 4


async def test_what_is_cancelled_is_recorded(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 3 else [text("a"), endpoint.release])
    async with bench_of(endpoint, 2) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.measure, plan_of(Closed(concurrency=4), requests=50))
        await until(lambda: len(endpoint.requests) == 7)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    outcomes = [record.outcome for record in bench.records]
    assert sorted(map(str, outcomes)) == ["cancelled"] * 4 + ["finished"] * 3
    (point,) = bench.engine.points
    assert point.figures.outcomes == {"cancelled": 4, "finished": 3}
    assert bench.ledger.attempts == 7


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_process_that_dies_loses_nothing_but_its_own(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 20 else [text("a"), endpoint.release, END])
    async with bench_of(endpoint, 2) as bench:
        errors: list[Exception] = []

        async def measure() -> None:
            try:
                await bench.engine.measure(plan_of(Closed(concurrency=4), requests=200))
            except Exception as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure)
            await until(lambda: endpoint.running == 4)
            await until(lambda: len(bench.records) == 20)
            os.kill(bench.pids()[0], signal.SIGKILL)
            await until(lambda: bench.run.stopped)
            await trio.sleep(0.3)  # until the other one knows
            endpoint.release.set()
    assert str(errors[0]) == "process 1 of the benchmark died (signal 9)"
    (point,) = bench.engine.points
    assert point.figures.outcomes == {"finished": 22}
    assert bench.ledger.attempts == 22
    assert all(map(gone, bench.pids()))


async def test_all_stop_when_they_have_spent_enough_together(endpoint: Endpoint) -> None:
    usage = chunk({}, "stop") + chunk(usage={"prompt_tokens": 0, "completion_tokens": 250_000})
    endpoint.script = lambda n: (200, [0.1, text("a"), usage + b"data: [DONE]\n\n"])
    async with bench_of(endpoint, 2, price="1", max_cost=Decimal(2)) as bench:
        point = await bench.engine.measure(plan_of(Closed(concurrency=2), requests=100))
    assert bench.engine.stopped == "--max-cost was reached"
    assert 8 <= point.figures.sent <= 14
    assert bench.ledger.total == Decimal("0.25") * point.figures.sent


async def test_a_cost_that_is_not_known_ends_the_run_of_all(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), chunk({}, "stop"), b"data: [DONE]\n\n"])
    async with bench_of(endpoint, 2, price="1", max_cost=Decimal(2)) as bench:
        point = await bench.engine.measure(plan_of(Closed(concurrency=2), requests=1_000))
    assert bench.run.error is not None
    assert "can't be enforced" in bench.run.error
    assert point.figures.sent < 100


async def test_a_parameter_that_the_wire_lacks_is_refused(endpoint: Endpoint) -> None:
    async with bench_of(endpoint, 2) as bench:
        with pytest.raises(ValueError, match="no_such"):
            await bench.engine.measure(plan_of(Closed(), params={"no_such": 1}))
    assert endpoint.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_no_worker_outlives_a_parent_that_is_killed(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release])
    options = ["--concurrency", "2", "--processes", "2"]
    where = ["-m", "compatible:m", "--base-url", endpoint.url]
    command = [sys.executable, "-P", "-m", "trio_minillm.cli", "bench", *where, *options]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: endpoint.running == 2)
        told = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout
        assert told.count("_bench.worker") == 2
        assert KEY not in told
        process.kill()
        pids = [int(line.split()[0]) for line in told.splitlines()]
        wait_for(lambda: all(map(gone, pids)))


def test_a_worker_loads_nothing_that_only_figures_need() -> None:
    code = "import sys, trio_minillm._bench.worker; print('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_a_worker_whose_input_ends_is_gone() -> None:
    began = time.monotonic()
    ran = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert time.monotonic() - began < LIMIT


def test_reports_are_read_as_they_were_written() -> None:
    record = Record(
        number=3,
        worker=2,
        scheduled=1.0,
        sent=1.25,
        ended=3.0,
        stamps=[1.5, 2.0],
        counts=[1, 2],
        outcome="errored",
        failure=Failure(type="RefusedError", status=429, message="ß"),
        cost="0.10",
    )
    over = Over(
        status=Status(1, 2, 3),
        stopped="",
        gave_up=False,
        unsent=0,
        error=None,
        refused=None,
        errors=[b"x"],
        audit=b"y",
    )
    reports = [Ready(), Kept(record), Status(4, 5, 6), over, Done()]
    data = b"".join(map(report_frame, reports))
    for size in (1, 3, 1_000_000):
        frames = Frames()
        found = [one for i in range(0, len(data), size) for one in frames.feed(data[i : i + size])]
        assert found == reports


async def test_a_process_that_died_before_the_run_is_an_error_of_it(endpoint: Endpoint) -> None:
    async with open_workers(2, job_of(endpoint), ledger=llm.Ledger()) as workers:
        os.kill(workers.all[0].process.pid, signal.SIGKILL)
        with trio.fail_after(LIMIT):
            await workers.wait_until(lambda: workers.all[0].dead)
        run = workers.load(plan_of(Closed(concurrency=2), requests=4), lambda record: None)
        with pytest.raises(WorkerDied, match=r"process 1 of the benchmark died \(signal 9\)"):
            await run.run()
