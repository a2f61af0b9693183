"""One ``trio-minillm bench`` command: its progress, its end, and its report."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

import trio_minillm as llm

from .._bench.audit.null_run import NullRunError, null_run
from .._bench.audit.stamps import Lags, open_stamped_transport
from .._bench.course import carry_out
from .._bench.engine import Engine
from .._bench.figures.objective import Objective
from .._bench.messages import Job
from .._bench.output.curves import CurveMaker
from .._bench.output.record_files import RecordFile
from .._bench.plan import Course
from .._bench.record import MEASURED, WARMUP, Record
from .._bench.run import Point, Result
from .._bench.workers import WorkerDied, open_processes
from ..local._named import open_model
from ._bench_hedge import SecondModel, hedge_fields
from ._bench_live import Watch
from ._bench_output_options import Outputs
from ._bench_prompt_options import Prompts
from ._bench_request_options import Asked
from ._bench_told import Told
from ._costs import RunLedger, cost_fields
from ._live import LiveRun, Progress, Table
from ._output import Misuse, OutputError, Row, error_code
from ._shared import LOCAL_SLOTS, price_of
from ._terminal import ALIGNED, MARKDOWN

LOCAL_CONTEXT = 2048
"""Tokens for each slot of a local model, at least. Streams beyond its slots wait in its server, and that is
measured."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is measured, and what its requests may cost."""

    name: str
    """The model's name, as it was given."""
    model: llm.Model | str
    """The model, or the name of a local one."""
    second: SecondModel | None
    limits: llm.Limits
    ledger: llm.Ledger | None
    secret: str
    """The keys and the values of headers, a line each."""
    asked: Asked
    """The part that is the same in every request."""
    prompts: Prompts
    """The prompts, or the lengths of those to be made."""
    objective: Objective | None = None
    """The limits of a good answer."""
    null_run: bool = False
    """True if the same load is put on a server whose timing is known, afterwards."""
    processes: int = 1
    """Processes that send."""


class Bench(LiveRun):
    """One benchmark as its user sees it.

    Its 15 attributes are its plan, its outlets, and how far it has come.
    """

    noun = "stream"

    def __init__(self, course: Course, target: Target, outputs: Outputs, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.form = MARKDOWN if outputs.markdown else ALIGNED
        self.outputs = outputs
        self.course = course
        self.target = target
        self.prompts = target.prompts
        self.secret = target.secret
        self.ledger = RunLedger(target.ledger)
        self.began = datetime.now(UTC)
        self.engine: Engine | None = None
        self._streams = trio.CancelScope()
        self._watch_of = Watch()
        self.records: RecordFile | None = None
        self.curves = None if outputs.html is None else CurveMaker()
        self._marked = 0
        """Loads that have their mark in the records."""

    # -- the work ----------------------------------------------------------------------------

    async def work(self) -> None:
        with self._streams:
            await self._measure()

    async def _measure(self) -> None:
        target = self.target
        async with (
            open_model(target.model, **self._room()) as model,
            open_stamped_transport(lags := Lags()) as transport,
            llm.open_client(
                ledger=self.ledger, limits=target.limits, transport=transport
            ) as client,
            AsyncExitStack() as stack,
        ):
            model = target.asked.with_fields(model)
            model = msgspec.structs.replace(model, price=price_of(model))
            hedge = None if target.second is None else target.second.behind(model)
            workers = await stack.enter_async_context(
                open_processes(
                    target.processes,
                    Job(
                        model=model,
                        secret=self.secret,
                        hedge=hedge,
                        max_cost=target.limits.max_cost is not None,
                    ),
                    ledger=self.ledger,
                    max_cost=target.limits.max_cost,
                )
            )
            self.engine = engine = Engine(
                client,
                model,
                secret=self.secret,
                hedge=hedge,
                max_cost=target.limits.max_cost is not None,
                workers=workers,
                sink=self._add,
                lags=lags,
                objective=target.objective,
            )
            await self._carry_out(engine, client, model)
        if target.null_run and engine.points and not engine.stopped and self.error is None:
            await self._null_run(engine)

    def _room(self) -> dict[str, Any]:
        """Return the options of a local model's server: the tokens of a slot, and the slots."""
        plans = self.course.plans
        most = max(plan.load.concurrency or LOCAL_SLOTS for plan in plans)
        slots = LOCAL_SLOTS if self.course.objective is not None else min(most, LOCAL_SLOTS)
        context = self.prompts.context(LOCAL_CONTEXT, plans[0].params["max_tokens"])
        return {"context": context, "slots": slots}

    async def _carry_out(self, engine: Engine, client: llm.Client, model: llm.Model) -> None:
        """Make the prompts, if they are yet to be made, and measure all loads."""
        try:
            course = await self._with_prompts(client, model)
            self._open_records()
            gc.collect()
            gc.freeze()  # what is here now is not looked through again while streams are read
            await carry_out(engine, course)
        except WorkerDied as exc:
            self.error = exc
        except (ValueError, TypeError) as exc:
            raise Misuse(str(exc)) from exc
        finally:
            if engine.run is not None and engine.run.error is not None:
                self.error = Misuse(engine.run.error)
            self.leaving()

    async def _with_prompts(self, client: llm.Client, model: llm.Model) -> Course:
        """Return the course with prompts, which may be yet to be made for the model."""
        plans, local = self.course.plans, isinstance(self.target.model, str)
        second = None if self.target.second is None else self.target.second.model
        self.prompts = await self.prompts.made(client, model, plans[0], local=local, second=second)
        plans = tuple(msgspec.structs.replace(p, prompts=self.prompts.prompts) for p in plans)
        return msgspec.structs.replace(self.course, plans=plans)

    async def _null_run(self, engine: Engine) -> None:
        """Put the newest point's load on a server of our own, and add what that shows to the point."""
        point, run = engine.points[-1], engine.run
        assert run is not None
        try:
            null = await null_run(run.plan, point.figures)
        except (NullRunError, OSError) as exc:
            self.error = exc
            return
        engine.points[-1] = msgspec.structs.replace(point, null_run=null)

    def _open_records(self) -> None:
        """Prepare the file of ``--records``, if there is to be one."""
        if self.outputs.records is not None:
            about = {"version": llm.__version__, "at": self.began, "config": self.config()}
            self.records = RecordFile(self.outputs.records, **about)

    def _add(self, record: Record) -> None:
        """Take a request that has ended to all that want it."""
        if self.engine is None or self.engine.run is None:
            return
        self._watch_of.add(record, self.engine.run)
        number = len(self.engine.points)
        if self.records is not None:
            begins = self._marked < number
            self._mark_loads()
            if begins:  # what the first one is stands in the options
                plan = self.engine.run.plan
                about = {"load": msgspec.to_builtins(plan.load), "seed": plan.seed}
                self.records.mark("begin", number, **about)
            self.records.add(number, record)
        if self.curves is not None:
            self.curves.add(number, record)

    def _mark_loads(self) -> None:
        """Write to the records what is known, beside them, of the loads that have ended since."""
        points = [] if self.engine is None else self.engine.points
        for number in range(self._marked, len(points)):
            point = self._noted(points[number])
            if self.records is not None:
                names = "load", "seed", "audit", "null_run", "notes"
                known = {name: getattr(point, name) for name in names}
                self.records.mark("load", number, **msgspec.to_builtins(known))
        self._marked = len(points)

    def stop(self) -> int:
        run = None if self.engine is None else self.engine.run
        if self.engine is not None:
            self.engine.stop("interrupted")
        if run is None or run.idle:
            self._streams.cancel()
        return 0 if run is None else run.running

    def cancel(self) -> None:
        self._streams.cancel()

    def progress(self) -> Progress | None:
        if self.engine is None or self.engine.run is None:
            return None
        watch, engine = self._watch_of, self.engine
        return Progress(
            watch.text(engine, self.every, self.ledger),
            bool(watch.failed),
            share=watch.share(engine),
            below=watch.lines(engine),
        )

    # -- the end -----------------------------------------------------------------------------

    @property
    def points(self) -> list[Point]:
        """The figures of each load so far."""
        return [] if self.engine is None else self.engine.points

    @property
    def point(self) -> Point | None:
        """The newest figures, if there are any."""
        return self.points[-1] if self.points else None

    def exit_code(self) -> int:
        if self.interrupted:
            return 128 + self.interrupted
        if self.error is not None:
            return error_code(self.error)
        search = None if self.engine is None else self.engine.search
        if search is not None and search.met is not None:
            return 0  # failures at too high a load are what a search looks for
        cut = sum(point.steady.cut_failed for point in self.points if point.steady is not None)
        sent = sum(point.figures.sent for point in self.points) + cut
        finished = sum(point.figures.finished for point in self.points)
        if finished and finished == sent:
            return 0
        return 6 if finished or self.fatal is None else error_code(self.fatal)

    @property
    def fatal(self) -> Exception | None:
        """The commonest failure, if no answer was whole."""
        if self.interrupted or any(point.figures.finished for point in self.points):
            return None
        return self._watch_of.commonest(self.engine)

    def _noted(self, point: Point) -> Point:
        """Return a point with all that qualifies its figures."""
        stopped = "" if self.engine is None or point is not self.point else self.engine.stopped
        notes = [f"stopped: {stopped}"] if stopped and self.error is None else []
        notes += [*point.notes, *self.prompts.told(point.figures)]
        return msgspec.structs.replace(point, notes=tuple(notes))

    def _found(self) -> dict[str, Any] | None:
        """Return the outcome of the search for the highest load, if that is what was asked for."""
        if self.engine is None or self.engine.search is None or self.course.objective is None:
            return None
        return {
            "objective": msgspec.to_builtins(self.course.objective),
            **self.engine.search.fields(),
        }

    def told(self) -> Told:
        """Return all that is to be told."""
        costs = self.ledger.by_meta("bench")
        result = Result(
            version=llm.__version__,
            at=self.began,
            config=self.config(),
            points=tuple(map(self._noted, self.points)),
            found=self._found(),
        )
        beside: dict[str, Any] = {"cost": cost_fields(costs.get(MEASURED), costs.get(WARMUP))}
        if self.target.second is not None and self.point is not None:
            beside["hedge"] = hedge_fields(self.target.second, self.point, self.ledger)
        return Told(result=result, beside=beside)

    def summary(self) -> tuple[Table, list[Row]] | None:
        if not any(point.figures.sent or point.warmup is not None for point in self.points):
            return None
        told = self.told()
        return told.table(), told.rows()

    def fields(self, name: str) -> dict[str, Any]:
        return self.told().fields()

    def write_files(self, name: str) -> OutputError | None:
        if self.summary() is None:
            return None
        told = self.told()
        error = told.write_files(self.outputs, self.curves)
        if self.records is None:
            return error
        self._mark_loads()
        self.records.mark("end", found=told.result.found, **told.beside)
        wrong = self.records.close()
        return error if wrong is None else OutputError(wrong, "the records", self.records.path)

    def config(self) -> dict[str, Any]:
        """Return the options for JSON: no key, and only the count and size of the prompts."""
        return config_of(self.course, self.target, self.prompts)


def config_of(course: Course, target: Target, prompts: Prompts) -> dict[str, Any]:
    """Return the options for JSON: no key, and only the count and size of the prompts."""
    plan = course.plans[0]
    clocks = msgspec.structs.asdict(plan.timeouts.with_total(None))
    cost, model = target.limits.max_cost, target.model
    return {
        "model": target.name,
        "base_url": None if isinstance(model, str) else model.base_url.partition("?")[0],
        "load": msgspec.to_builtins(plan.load),
        **{n: getattr(plan, n) for n in ("requests", "duration", "warmup", "seed", "steady")},
        "processes": target.processes,
        "request": target.asked.config(),
        "prompts": prompts.config(),
        "attempts": plan.attempts,
        "timeouts": clocks,
        "max_cost": None if cost is None else str(cost),
        "goodput": None if target.objective is None else target.objective.limits,
    }
