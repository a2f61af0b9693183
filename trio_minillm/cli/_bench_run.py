"""One ``trio-minillm bench`` command: its progress, its end, and its report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

import trio_minillm as llm

from .._bench.engine import Engine
from .._bench.output.json import fields_of
from .._bench.output.table import rows_of, table_of
from .._bench.plan import Closed, Plan
from .._bench.record import MEASURED, WARMUP
from .._bench.run import Point, Result
from ..local._named import open_model
from ._bench_hedge import SecondModel, hedge_fields, hedge_rows
from ._bench_live import Watch
from ._costs import RunLedger, cost_fields, cost_text
from ._live import LiveRun, Progress, Table
from ._output import Misuse, Row, error_code, one_line, usd
from ._shared import LOCAL_SLOTS, price_of

LOCAL_CONTEXT = 2048
"""Tokens for each slot of a local model. Streams beyond its slots wait in its server, and that is
measured."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The model that is measured, and what its requests may cost."""

    model: llm.Model | str
    """The model, or the name of a local one."""
    second: SecondModel | None
    limits: llm.Limits
    ledger: llm.Ledger | None
    secret: str
    """The keys, a line each."""


class Bench(LiveRun):
    """One benchmark as its user sees it."""

    noun = "stream"

    def __init__(self, plan: Plan, target: Target, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.plan = plan
        self.target = target
        self.secret = target.secret
        self.ledger = RunLedger(target.ledger)
        self.began = datetime.now(UTC)
        self.engine: Engine | None = None
        self.points: list[Point] = []
        self._streams = trio.CancelScope()
        self._watch_of = Watch()

    # -- the work ----------------------------------------------------------------------------

    async def work(self) -> None:
        with self._streams:
            await self._measure()

    async def _measure(self) -> None:
        plan, target = self.plan, self.target
        most = (
            plan.load.concurrency or LOCAL_SLOTS if isinstance(plan.load, Closed) else LOCAL_SLOTS
        )
        slots = min(most, LOCAL_SLOTS)
        async with (
            open_model(target.model, context=LOCAL_CONTEXT, slots=slots) as model,
            llm.open_client(ledger=self.ledger, limits=target.limits) as client,
        ):
            model = msgspec.structs.replace(model, price=price_of(model))
            self.engine = engine = Engine(
                client,
                model,
                secret=self.secret,
                hedge=None if target.second is None else target.second.behind(model),
                max_cost=target.limits.max_cost is not None,
                sink=self._watch_of.add,
            )
            try:
                self.points.append(await engine.measure(plan))
            except (ValueError, TypeError) as exc:
                raise Misuse(str(exc)) from exc
            finally:
                if not self.points and engine.point is not None:
                    self.points.append(engine.point)
                if engine.run is not None and engine.run.error is not None:
                    self.error = Misuse(engine.run.error)
                self.leaving()

    def stop(self) -> int:
        running = 0
        if self.engine is not None:
            self.engine.stop("interrupted")
            running = 0 if self.engine.run is None else self.engine.run.running
        if not running:
            self._streams.cancel()
        return running

    def cancel(self) -> None:
        self._streams.cancel()

    def progress(self) -> Progress | None:
        if self.engine is None or self.engine.run is None:
            return None
        text = self._watch_of.text(self.engine, self.every, self.ledger)
        return Progress(text, bool(self._watch_of.failed))

    # -- the end -----------------------------------------------------------------------------

    @property
    def point(self) -> Point | None:
        """The newest figures, if there are any."""
        return self.points[-1] if self.points else None

    def exit_code(self) -> int:
        if self.interrupted:
            return 128 + self.interrupted
        if self.error is not None:
            return error_code(self.error)
        sent = sum(point.figures.sent for point in self.points)
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

    def summary(self) -> tuple[Table, list[Row]] | None:
        point = self.point
        if point is None or not (point.figures.sent or point.warmup is not None):
            return None
        return table_of(point.figures), self.rows(point)

    def rows(self, point: Point) -> list[Row]:
        """Return the lines below the table."""
        costs = self.ledger.by_meta("bench")
        rows = [(one_line(label, 60), one_line(text, 220)) for label, text in rows_of(point)]
        rows.append(("cost", cost_text(costs.get(MEASURED))))
        if point.alone is not None:
            rows += hedge_rows(point, point.alone, self.ledger)
        if point.warmup is not None:
            warm = f"{point.warmup.finished:,} of {point.warmup.sent:,} finished"
            spent = costs.get(WARMUP)
            warm += f" · ${usd(spent.total)}" if spent is not None and spent.total else ""
            rows.append(("warm-up", warm))
        return rows + [("note", one_line(note)) for note in self.notes(point)]

    def notes(self, point: Point) -> list[str]:
        """Return what qualifies the results."""
        stopped = "" if self.engine is None else self.engine.stopped
        notes = [f"stopped: {stopped}"] if stopped and self.error is None else []
        return [*notes, *point.notes]

    def fields(self, name: str) -> dict[str, Any]:
        costs = self.ledger.by_meta("bench")
        result = Result(
            version=llm.__version__,
            at=self.began,
            config=config_of(self.plan, self.target, name),
            points=tuple(
                msgspec.structs.replace(point, notes=tuple(self.notes(point)))
                for point in self.points
            ),
        )
        fields = fields_of(result)
        fields["cost"] = cost_fields(costs.get(MEASURED), costs.get(WARMUP))
        if self.target.second is not None and self.point is not None:
            fields["hedge"] = hedge_fields(self.target.second, self.point, self.ledger)
        return fields


def config_of(plan: Plan, target: Target, name: str) -> dict[str, Any]:
    """Return the options for ``--json``: no key, and only the count and size of the prompts."""
    clocks = msgspec.structs.asdict(plan.timeouts.with_total(None))
    cost, model = target.limits.max_cost, target.model
    sizes = [len(p.messages) for p in plan.prompts if isinstance(p.messages, str)]
    return {
        "model": name,
        "base_url": None if isinstance(model, str) else model.base_url.partition("?")[0],
        "load": msgspec.to_builtins(plan.load),
        **{n: getattr(plan, n) for n in ("requests", "duration", "warmup", "seed")},
        "max_tokens": plan.params.get("max_tokens"),
        "prompts": {"count": len(plan.prompts), "characters": sum(sizes)},
        "attempts": plan.attempts,
        "timeouts": clocks,
        "max_cost": None if cost is None else str(cost),
    }
