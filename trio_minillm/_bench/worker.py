"""The program of a worker process: ``python -m trio_minillm._bench.worker``.

stdin   Orders of the parent (`messages`): a job, then plans. Its end is the order to exit at once, so
        that no worker outlives the benchmark, however that ends.
stdout  Reports. What anything else prints goes to stderr.

It imports nothing that only figures need.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
from contextlib import suppress

import trio

from .._accounting.ledger import Ledger
from .._accounting.record import CostRecord
from .._client import Client, open_client
from .._types.errors import MiniLLMError
from .audit.stamps import Lags, open_stamped_transport
from .audit.watch import Watch
from .load import LoadRun
from .messages import (
    Begin,
    Booked,
    Cancel,
    Done,
    End,
    Job,
    Kept,
    Order,
    Over,
    Ready,
    Report,
    Status,
    Stop,
    read_order,
    report_frame,
)
from .plan import Plan
from .record import Record

FLUSH_EVERY, STATUS_EVERY = 0.05, 0.2
"""Seconds between two writes to the parent, and between two states of the run."""


class Outbox:
    """Reports on their way to the parent, which are written by a thread, many at once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = bytearray()

    def put(self, report: Report) -> None:
        self._waiting += report_frame(report)

    async def flush(self) -> None:
        data, self._waiting = memoryview(self._waiting), bytearray()
        if data:
            await trio.to_thread.run_sync(_write_all, self._fd, data)

    async def keep_flushing(self) -> None:
        while True:
            await trio.sleep(FLUSH_EVERY)
            await self.flush()


class ReportingLedger(Ledger):
    """A ledger whose records the parent gets; its own sums are of no use to anyone."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def record(self, record: CostRecord) -> bool:
        self._outbox.put(Booked(record))
        return super().record(record)


class Worker:
    """The process's work: one plan after the other, with one client."""

    def __init__(self, job: Job, client: Client, outbox: Outbox, lags: Lags) -> None:
        self._job = job
        self._lags = lags
        self._client = client
        self._outbox = outbox
        self._run: LoadRun | None = None
        self._begin: trio.Event = trio.Event()
        self._at = 0.0
        self._scope = trio.CancelScope()

    async def obey(self, orders: trio.MemoryReceiveChannel[Order]) -> None:
        """Carry out orders until that of the end."""
        async with trio.open_nursery() as nursery:
            async for order in orders:
                if isinstance(order, Plan):
                    self._begin, self._scope = trio.Event(), trio.CancelScope()
                    self._run = self._load(order)
                    nursery.start_soon(self._carry_out, self._run)
                elif isinstance(order, Begin):
                    self._at = order.at
                    self._begin.set()
                elif isinstance(order, Stop) and self._run is not None:
                    self._run.stop(order.why)
                elif isinstance(order, Cancel):
                    self._scope.cancel()
                elif isinstance(order, End):
                    break
            nursery.cancel_scope.cancel()

    def _load(self, plan: Plan) -> LoadRun:
        job = self._job

        def keep(record: Record) -> None:
            record.worker = job.worker
            self._outbox.put(Kept(record))

        return LoadRun(
            self._client,
            job.model,
            plan,
            keep,
            secret=job.secret,
            hedge=job.hedge,
            max_cost=job.max_cost,
            lags=self._lags,
        )

    async def _carry_out(self, run: LoadRun) -> None:
        refused, watch = None, Watch(self._lags)
        try:
            with self._scope, watch:
                run.measuring = watch.restart
                run.check()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell, run)
                    await run.warm_up()
                    gc.collect()
                    gc.freeze()  # as where there is one process
                    self._outbox.put(Ready())
                    await self._begin.wait()
                    await run.run_measured(self._at - run.sender.offset)
                    nursery.cancel_scope.cancel()
        except (ValueError, TypeError) as exc:
            refused = str(exc)
        self._outbox.put(
            Over(
                status=_status(run),
                stopped=run.stopped,
                gave_up=run.gave_up,
                unsent=run.unsent,
                error=run.error,
                refused=refused,
                errors=_pickled(run),
                audit=pickle.dumps(watch.audit()),
            )
        )

    async def _tell(self, run: LoadRun) -> None:
        while True:
            await trio.sleep(STATUS_EVERY)
            self._outbox.put(_status(run))


def _status(run: LoadRun) -> Status:
    return Status(running=run.running, chunks=run.chunks, tokens=run.tokens)


def _pickled(run: LoadRun) -> list[bytes]:
    """Return the run's errors, without those that can't be sent: their records are enough."""
    found = []
    for kind, error in run.errors.items():
        with suppress(Exception):
            found.append(pickle.dumps((kind, _bare(error))))
    return found


def _bare(error: MiniLLMError) -> MiniLLMError:
    """Return the error without what it had received, or what raised it."""
    error.__cause__ = error.__context__ = None
    error.partial = None
    return error


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read_exactly(count: int) -> bytes:
    """Read from stdin without its buffer, whose lock a thread would hold when the process exits.

    At the end of the input the parent is gone, and the process ends here.
    """
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(1)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _next_order() -> Order:
    return read_order(_read_exactly(int.from_bytes(_read_exactly(4))))


async def _receive(orders: trio.MemorySendChannel[Order]) -> None:
    while True:
        order = await trio.to_thread.run_sync(_next_order, abandon_on_cancel=True)
        await orders.send(order)


async def work(fd: int) -> None:
    """Do what the orders on stdin say, and report to this file descriptor."""
    outbox = Outbox(fd)
    send, orders = trio.open_memory_channel[Order](10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, send)
        job = await orders.receive()
        assert isinstance(job, Job)
        nursery.start_soon(outbox.keep_flushing)
        async with (
            open_stamped_transport(lags := Lags()) as transport,
            open_client(ledger=ReportingLedger(outbox), transport=transport) as client,
        ):
            await Worker(job, client, outbox, lags).obey(orders)
        outbox.put(Done())
        nursery.cancel_scope.cancel()
    await outbox.flush()


def main() -> None:
    """Run the worker. Signals are the parent's matter, as a terminal sends them to both."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    reports = os.dup(1)
    os.dup2(2, 1)
    trio.run(work, reports)


if __name__ == "__main__":
    main()
