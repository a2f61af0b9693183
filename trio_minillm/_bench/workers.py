"""A benchmark's worker processes, as their parent sees them.

Guarantees: what the workers measured is merged as records, so all figures are those of one process;
each attempt is in the ledger once; a worker that dies loses nothing but its own running requests; no
worker outlives the block.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import IO, Any

import trio
from msgspec.structs import replace

from .._accounting.ledger import Ledger
from .._types.errors import MiniLLMError
from .audit.audit import Audit
from .messages import (
    Begin,
    Booked,
    Cancel,
    Done,
    End,
    Frames,
    Job,
    Kept,
    Over,
    Ready,
    Status,
    Stop,
)
from .plan import Plan, parts_of
from .process import Worker
from .record import MEASURED, WARMUP, Record

COMMAND = (sys.executable, "-P", "-m", "trio_minillm._bench.worker")
"""The command that starts a worker."""
MAX_PROCESSES = 256
"""Most worker processes: more than the cores of the largest machines that one benchmark runs on."""
LEAD = 0.05
"""Seconds between the order to begin and the beginning: the order has reached all by then."""
CANCEL_SECONDS = 5.0
"""Seconds that the workers have to report on what was cancelled, before they are given up."""
END_SECONDS = 90.0
"""Seconds that they have to book everything: twice the clock ``settlement``, as a client has, and
half as much again."""


class WorkerDied(Exception):
    """A worker process has ended before its time. That is an error of this program."""


class Workers:
    """The worker processes of one command, which carry out one plan after the other.

    ``ledger`` gets their attempts. ``max_cost`` is the most that all may spend in USD. `open_workers`
    makes it.
    """

    def __init__(self, job: Job, ledger: Ledger, max_cost: Any) -> None:
        self.all: list[Worker] = []
        self.run: WorkersRun | None = None
        self.died = ""
        """The end of the first process that died, whether or not a plan was being carried out."""
        self._job = job
        self._ledger = ledger
        self._max_cost = max_cost
        self._changed = trio.Event()

    @property
    def secret(self) -> str:
        """The keys that must not show, a line each."""
        return self._job.secret

    def load(self, plan: Plan, sink: Callable[[Record], object]) -> WorkersRun:
        """Return the run of a plan by these processes."""
        self.run = WorkersRun(self, plan, sink)
        if self.died:
            self.run.died(self.died)
        return self.run

    async def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for what the workers' reports change."""
        while not true():
            await self._changed.wait()

    async def start(self, nursery: trio.Nursery, processes: int) -> None:
        """Start the processes, with tasks for what they say that a cancellation does not end."""
        for number in range(processes):
            log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_listen`
            try:
                process = await _started(log)
            except BaseException:
                log.close()
                raise
            worker = Worker(number, process, log)
            self.all.append(worker)
            nursery.start_soon(self._listen, worker, log)
            worker.tell(replace(self._job, worker=number))

    async def end(self) -> None:
        """Let the processes book everything and exit; kill those that don't."""
        with trio.move_on_after(END_SECONDS, shield=True):
            for worker in self.all:
                worker.tell(End())
            await self.wait_until(lambda: all(worker.dead for worker in self.all))
        for worker in self.all:
            if not worker.dead:
                worker.process.kill()

    async def _listen(self, worker: Worker, log: IO[bytes]) -> None:
        """Take a worker's reports, until it ends."""
        assert worker.process.stdout is not None
        frames = Frames()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.keep_telling)
                async for data in worker.process.stdout:
                    for report in frames.feed(bytes(data)):
                        self._take(worker, report)
                    self._changed.set()
                    self._changed = trio.Event()
                nursery.cancel_scope.cancel()
            await worker.process.stdout.aclose()
            await worker.close()
        worker.dead = True
        if not worker.done:
            self.died = self.died or worker.explain(self.secret)
            if self.run is not None:
                self.run.died(self.died)
        log.close()
        self._changed.set()
        self._changed = trio.Event()

    def _take(self, worker: Worker, report: Any) -> None:
        if isinstance(report, Booked):
            self._ledger.record(report.record)
            spent = self._ledger.total + self._ledger.unbooked
            if self._max_cost is not None and spent >= self._max_cost and self.run is not None:
                self.run.stop("--max-cost was reached")
        elif isinstance(report, Kept) and self.run is not None:
            self.run.sink(report.record)
        elif isinstance(report, Status):
            worker.status = report
        elif isinstance(report, Ready):
            worker.ready = True
        elif isinstance(report, Over):
            worker.over, worker.status = report, report.status
            if self.run is not None:
                self.run.part_is_over(report)
        elif isinstance(report, Done):
            worker.done = True


class WorkersRun:
    """The requests of one plan in several processes: `LoadRun`'s like."""

    def __init__(self, workers: Workers, plan: Plan, sink: Callable[[Record], object]) -> None:
        self.plan = plan
        self.sink = sink
        self.stopped = ""
        self.gave_up = False
        self.unsent = 0
        self.measuring: Callable[[], object] = lambda: None
        self.error: str | None = None
        self.phase = WARMUP if plan.warmup else MEASURED
        self.errors: dict[tuple[str | None, ...], MiniLLMError] = {}
        self.over: list[Over] = []
        """Report of each process at its end."""
        self._workers = workers
        self._mine: list[Worker] = []
        self._died: str | None = None

    @property
    def running(self) -> int:
        """Streams that are open."""
        return sum(worker.status.running for worker in self._mine if not worker.idle)

    @property
    def idle(self) -> bool:
        """True if there is no stream to wait for, which only the end of all parts makes sure."""
        return all(worker.idle for worker in self._mine)

    @property
    def chunks(self) -> int:
        """Contents of the current phase so far."""
        return sum(worker.status.chunks for worker in self._mine)

    @property
    def tokens(self) -> int:
        """Tokens of the current phase so far, as far as the server has told."""
        return sum(worker.status.tokens for worker in self._mine)

    def audits(self) -> Iterator[Audit]:
        """Yield the audit of each process that came to its end."""
        for over in self.over:
            yield pickle.loads(over.audit)  # noqa: S301 - from our own child

    def stop(self, why: str) -> None:
        """Send no more requests. Running streams go on."""
        if not self.stopped:
            self.stopped = why
            for worker in self._mine:
                worker.tell(Stop(why))

    def died(self, how: str) -> None:
        """Take note that a process has died."""
        self._died = self._died or how
        self.stop(how)

    def part_is_over(self, over: Over) -> None:
        """Take note of a process's report. What stopped it stops the others."""
        self.over.append(over)
        self.error = self.error or over.error
        self.unsent += over.unsent
        self.gave_up = self.gave_up or (over.gave_up and not self.stopped)
        for pickled in over.errors:
            kind, error = pickle.loads(pickled)  # noqa: S301 - from our own child
            self.errors[kind] = error
        if over.stopped:
            self.stop(over.stopped)

    async def run(self) -> None:
        """Run the warm-up in all processes, then what counts, which begins in all at one instant.

        Raises ``ValueError`` as `LoadRun.run`, and `WorkerDied`.
        """
        able = [worker for worker in self._workers.all if not worker.dead]
        parts = parts_of(self.plan, len(able))
        if self._died is not None:
            raise WorkerDied(self._died)
        if self.stopped:
            return
        for worker, part in zip(able, parts, strict=False):
            worker.begin(part)
            self._mine.append(worker)
        wait = self._workers.wait_until
        try:
            await wait(lambda: all(worker.ready or worker.idle for worker in self._mine))
            at = time.perf_counter() + LEAD
            self.phase = MEASURED
            self.measuring()
            for worker in self._mine:
                worker.tell(Begin(at))
            await wait(lambda: all(worker.idle for worker in self._mine))
        except trio.Cancelled:
            with trio.move_on_after(CANCEL_SECONDS, shield=True):
                for worker in self._mine:
                    worker.tell(Cancel())
                await wait(lambda: all(worker.idle for worker in self._mine))
            raise
        refused = next((over.refused for over in self.over if over.refused is not None), None)
        if refused is not None:
            raise ValueError(refused)
        if self._died is not None:
            raise WorkerDied(self._died)


async def _started(log: IO[bytes]) -> trio.Process:
    """Return a new process, out of reach of the terminal's signals."""
    options: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
    return await trio.lowlevel.open_process(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, **options
    )


@asynccontextmanager
async def open_processes(
    processes: int, job: Job, *, ledger: Ledger, max_cost: Any = None
) -> AsyncIterator[Workers | None]:
    """Run so many worker processes for the length of the block; none if this one is enough."""
    if processes == 1:
        yield None
        return
    async with open_workers(processes, job, ledger=ledger, max_cost=max_cost) as workers:
        yield workers


@asynccontextmanager
async def open_workers(
    processes: int, job: Job, *, ledger: Ledger, max_cost: Any = None
) -> AsyncIterator[Workers]:
    """Run so many worker processes for the length of the block, also if that is one.

    What the processes' ledgers get comes to ``ledger``. ``max_cost`` is the most USD for all.
    """
    failure: BaseException | None = None
    workers = Workers(job, ledger, max_cost)
    async with trio.open_nursery() as nursery:
        try:
            await workers.start(nursery, processes)
            yield workers
        except BaseException as exc:  # noqa: BLE001 - also Cancelled; comes out as itself
            failure = exc
        finally:
            await workers.end()
    if failure is not None:
        raise failure
