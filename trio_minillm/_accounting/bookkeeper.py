"""The bookkeeper puts every attempt into the ledger, has it settled, and calls ``on_cost``.

Data goes one way. A stream hands in the record of an attempt, which is in the ledger before
anything waits. Then a task of the client's nursery asks the provider, if it must be asked, and
calls ``on_cost``. So leaving a stream is never slow, and no cancellation loses a record.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import TypeAlias

import trio
from msgspec.structs import replace

from .._types.cost import CostInfo
from .._types.errors import alone
from .._types.money import add
from .._types.options import Limits
from .._types.response import Outcome
from ..providers import Model
from ..providers._safe_calls import safe_settlement_request
from .budget import Budget
from .ledger import MAX_UNSETTLED, Ledger
from .record import CostRecord, attempt_record, settled_record
from .settlement import SettlementClient

OnCost: TypeAlias = Callable[[CostRecord], Awaitable[object]]
"""The client's callback. It is called once for each attempt that is booked."""

CALLBACK_SECONDS = 30.0
"""Seconds after which a callback is cancelled and an error is logged, so that one that hangs can't
keep the client's block from ending. The clock ``settlement`` is as long by default."""
DELIVERY_SECONDS = 1.0
"""Seconds that leaving a stream waits for the callback: enough for a write to a database. A slower
callback goes on in the client's nursery."""

_log = logging.getLogger("trio_minillm")


_NOTHING = Decimal(0)
_SET = trio.Event()  # of all attempts that nothing more happens to
_SET.set()


class PendingSettlement:
    """An attempt in the ledger that may still be settled, and of which the callback is told.

    ``record`` is replaced when the provider has answered. ``settled`` is set when it will not
    change any more, ``delivered`` when the callback has returned or there is none to call.
    """

    __slots__ = ("asking", "delivered", "record", "settled")

    def __init__(self, record: CostRecord, done: bool) -> None:
        self.record: CostRecord = record
        self.settled: trio.Event = _SET if done else trio.Event()
        self.delivered: trio.Event = _SET if done else trio.Event()
        self.asking: trio.CancelScope | None = None  # while the provider is asked

    def hurry(self) -> None:
        """Stop asking about a finished stream, as the client's block has ended.

        Its usage should have come with it, so the block does not wait for it; it does wait for
        streams that were cancelled.
        """
        if self.record.outcome is Outcome.FINISHED and self.asking is not None:
            self.asking.cancel()

    async def wait(self) -> None:
        """Wait until the cost is settled and `wait_delivered` returns. A checkpoint."""
        await self.settled.wait()
        await self.wait_delivered()

    async def wait_delivered(self) -> None:
        """Wait until the callback has returned, for `DELIVERY_SECONDS` at most. A checkpoint."""
        with trio.move_on_after(DELIVERY_SECONDS):
            await self.delivered.wait()


class Bookkeeper:
    """The part of a client that records attempts, settles them and calls ``on_cost``.

    Guarantees: an attempt is in the ledger when `book` returns; ``on_cost`` is called once for
    each booked one, when its cost is settled or nobody is asked any more; every task that this
    starts in the client's nursery ends, within the clocks of its settlement and its callback.
    """

    def __init__(
        self,
        settlement: SettlementClient,
        ledger: Ledger,
        on_cost: OnCost | None,
        nursery: trio.Nursery,
    ) -> None:
        self.ledger: Ledger = ledger
        self._settlement = settlement
        self._on_cost = on_cost
        self._nursery = nursery
        # What ends each stream that runs, and the budget that it counts in.
        self._streams: dict[Callable[..., None], Budget | None] = {}
        # The model to ask about an unsettled record, and the budget it counts in, by its key.
        self._unsettled: dict[str, tuple[Model, Budget | None]] = {}
        self._asking: dict[str, PendingSettlement] = {}  # of this client's own tasks, by key
        self._closed = False
        self._finished = False

    # -- the client's block ------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise ``RuntimeError`` if the client's block has been left."""
        if self._closed:
            raise RuntimeError("the client's block has been left")

    def enter(self, end: Callable[..., None], budget: Budget | None = None) -> None:
        """Register a stream that begins, by what ends it if the client's block ends first, and the budget
        that it counts in.
        """
        self._streams[end] = budget

    def leave(self, end: Callable[..., None]) -> None:
        """Forget a stream that has ended."""
        self._streams.pop(end, None)

    def change(self, budget: Budget, limits: Limits) -> None:
        """Replace the limits of a budget, also for the streams that run in it already."""
        budget.change(limits, [end for end, its in self._streams.items() if its is budget])

    def close(self) -> None:
        """End the streams that other tasks still hold open, as the client's block ends."""
        self._closed = True
        while self._streams:
            end, _ = self._streams.popitem()
            end()
        for pending in self._asking.values():
            pending.hurry()

    def finish(self) -> None:
        """Let the ledger write what it could not write before. All tasks must have ended."""
        self._finished = True
        try:
            self.ledger.flush()
        except OSError as error:
            _log.error("lines of the ledger are still unwritten: %s", error)

    # -- one attempt -------------------------------------------------------------------------

    def book(
        self, record: CostRecord, model: Model, budget: Budget | None, seconds: float
    ) -> PendingSettlement:
        """Write an attempt into the ledger, and start what is left to do in the client's nursery.

        ``seconds`` is the clock ``settlement``.
        """
        told = record.booked and self._on_cost is not None
        pending = PendingSettlement(record, not (record.unsettled or told))
        if record.unsettled:
            self._unsettled[record.key] = model, budget
            if len(self._unsettled) > MAX_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]
        elif told:
            pending.settled.set()
        self._write(record, None, budget)
        if record.unsettled or told:
            self._nursery.start_soon(
                self._settle_and_deliver, pending, model, seconds, name="trio_minillm bookkeeper"
            )
        return pending

    def _write(self, record: CostRecord, before: CostRecord | None, budget: Budget | None) -> None:
        """Write a record, in place of the one ``before``, and spend the difference."""
        if not record.unsettled:
            self._unsettled.pop(record.key, None)
        try:
            new = self.ledger.record(record) is not False  # a user's own may return nothing
        except Exception as exc:  # noqa: BLE001 - a ledger of the user's own: the rest must go on
            _log.exception("the ledger failed for attempt %s", record.key, exc_info=alone(exc))
            new = True
        if budget is None:
            return
        if not budget.idle and _is_unpriced(record):
            budget.note_unpriced(record.model)
        if new:
            cost, tokens = _spent(record)
            if before is not None:
                old_cost, old_tokens = _spent(before)
                cost, tokens = add(cost, old_cost.copy_negate()), tokens - old_tokens
            budget.spend(cost, tokens)

    async def _settle_and_deliver(
        self, pending: PendingSettlement, model: Model, seconds: float
    ) -> None:
        """Settle an attempt, then call ``on_cost``. A shielded task that ends within its clocks."""
        key = pending.record.key
        with trio.CancelScope(shield=True):
            try:
                if pending.record.unsettled:
                    self._asking[key] = pending
                    # Bounded: with thousands in line, each may wait for its turn as long as it
                    # may ask.
                    pending.asking = trio.move_on_after(2 * seconds)
                    if self._closed:
                        pending.hurry()
                    with pending.asking:
                        await self._settle(pending.record, model, seconds)
            finally:
                self._asking.pop(key, None)
                pending.settled.set()
            try:
                await self._deliver(pending.record)
            finally:
                pending.delivered.set()

    async def _deliver(self, record: CostRecord) -> None:
        if self._on_cost is None:
            return
        try:
            with trio.move_on_after(CALLBACK_SECONDS) as scope:
                told = self._on_cost(record)
                if inspect.isawaitable(told):
                    await told
        except Exception:  # noqa: BLE001 - the callback's, whatever it is
            # It is not the stream's failure, and months may pass until the client's block ends.
            _log.exception("on_cost failed for attempt %s, which the ledger has", record.key)
        else:
            if scope.cancelled_caught:
                _log.error("on_cost took too long for attempt %s; the ledger has it", record.key)

    # -- settlement --------------------------------------------------------------------------

    def remember(self, model: Model) -> None:
        """Keep a model to ask about attempts that an earlier process made at its address."""
        self._settlement.remember(model)

    async def settle(
        self, wanted: Iterable[str | CostRecord] | None, model: Model | None, seconds: float
    ) -> list[CostRecord]:
        """Ask what attempts cost, all at once, and write the answers. A checkpoint.

        ``wanted`` are generation ids and records; ``None`` for all that are unsettled. Returns a
        record for each, in order. See `Client.settle` for what is raised.
        """
        if self._finished:
            raise RuntimeError("the client's block has been left")
        self.ledger.check(None)  # a ledger that can't be written says so before anyone is asked
        if isinstance(wanted, str):
            raise TypeError("ids must be several ids, not one string")
        questions = [
            self._question(one, model)
            for one in (self.ledger.unsettled if wanted is None else wanted)
        ]
        answers = [record for record, _ in questions]

        async def ask(number: int, record: CostRecord, asked: Model) -> None:
            answers[number] = await self._settle(record, asked, seconds)

        async with trio.open_nursery() as nursery:
            for number, (record, asked) in enumerate(questions):
                if asked is not None:
                    nursery.start_soon(ask, number, record, asked)
            await trio.lowlevel.checkpoint()
        return answers

    async def _settle(self, record: CostRecord, model: Model, seconds: float) -> CostRecord:
        """Ask what an attempt cost and write the answer. Without one, return the same record."""
        assert record.id is not None
        _, budget = self._unsettled.get(record.key, (model, None))
        usage = await self._settlement.ask(model, record.id, seconds)
        if usage is None:
            return record
        settled = settled_record(record, model, usage)
        self._write(settled, record, budget)
        pending = self._asking.get(record.key)
        if pending is not None:  # the client's own task: it need not ask any more
            pending.record = settled
            assert pending.asking is not None  # from the moment on that it is in there
            pending.asking.cancel()
        return settled

    def _question(
        self, one: str | CostRecord, model: Model | None
    ) -> tuple[CostRecord, Model | None]:
        """Return the record of an id, and the model to ask about it; ``None`` if it is settled.

        An id that the ledger does not have gets a record.
        """
        if not isinstance(one, CostRecord) and not (isinstance(one, str) and one):
            raise TypeError("settle takes generation ids and records")
        record = self.ledger.newest(one) if isinstance(one, str) else one
        if record is not None and not record.unsettled:
            return record, None
        ident = one if isinstance(one, str) else one.id or ""
        if record is None:
            model = model or self._settlement.model_for(ident)
        elif record.key in self._unsettled:
            model, _ = self._unsettled[record.key]
        else:
            model = model or self._settlement.model_at(record.provider, record.base_url)
        if model is None or not ident or safe_settlement_request(model, ident) is None:
            raise ValueError("settle needs model=…: the address and the key to ask with")
        record = record or self._unknown(ident, model)
        return record, model if record.unsettled else None

    def _unknown(self, ident: str, model: Model) -> CostRecord:
        """Record an attempt that this ledger does not have, or does not have at hand any more.

        In the latter case it keeps its key, and so is not counted again.
        """
        key = self.ledger.key_of(ident) or self.ledger.new_key()
        record = attempt_record(model, key=key, outcome=Outcome.CANCELLED, generation_id=ident)
        # Nothing is known of it, whatever the provider makes of no usage: the answer decides.
        record = replace(record, unsettled=True, cost=CostInfo())
        self.ledger.record(record)
        return record


def _is_unpriced(record: CostRecord) -> bool:
    """Return True for a finished answer whose cost will stay unknown."""
    finished = record.outcome is Outcome.FINISHED and not record.unsettled
    return finished and record.cost.amount is None


def _spent(record: CostRecord) -> tuple[Decimal, int]:
    """Return the USD and tokens that are known to be spent, booked or not."""
    tokens = record.usage.total_tokens if record.usage is not None else None
    return record.cost.amount or _NOTHING, tokens or 0
