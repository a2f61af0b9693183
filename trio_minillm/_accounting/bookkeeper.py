"""Who is told what an attempt cost, and who is asked: the client's books.

Data goes one way: a stream hands in the record of an attempt, which is in the ledger before
anything waits; then a task of the client's nursery asks the provider, if it must be asked,
and tells ``on_cost``. So leaving a stream is never slow, and no cancellation loses a booking.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TypeAlias

import msgspec
import trio

from .._http.exchange import Exchange
from .._protocol.request import headers_to
from .._types.cost import add
from .._types.errors import MiniLLMError, ProtocolError
from .._types.options import retry_after
from .._types.response import Outcome
from .._types.usage import Usage
from ..providers import Model, SettlementRequest
from ..providers._base import loggable_url
from ..providers._guarded import safe_settlement_request
from .budget import Budget
from .ledger import MAX_UNSETTLED, Ledger
from .record import CostRecord, attempt_record, settled_record

OnCost: TypeAlias = Callable[[CostRecord], Awaitable[object]]
"""The client's callback; it is given every attempt that is booked, once."""

CALLBACK_SECONDS = 30.0
"""How long a callback may take before it is cancelled (and the fact logged)."""
DELIVERY_SECONDS = 1.0
"""How long leaving a stream waits for the callback: a write to a database is done by then, and
what hangs is left to the client's nursery."""
ASK_SECONDS = 10.0
"""How long one question to a provider may take."""
ASK_EVERY = 2.0
"""Upper end of the time between two questions; it begins at a quarter of it."""
ASKING_AT_ONCE = 64
"""Questions to one address under way at a time, so that leaving a thousand streams is no flood."""

MAX_NONSENSE = 5
"""Answers that can't be read, after which the question is given up."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)

MODELS_KEPT = 64
"""Models of different addresses that are remembered for later questions, and lines for them."""

WAIT_STATUSES = frozenset({404, 408, 409, 425, 429})
"""Refusals that mean: not yet. So does every 5xx; others will not change."""

_log = logging.getLogger("trio_minillm")


class PendingSettlement:
    """One attempt in the books. ``record`` is replaced when the provider has answered."""

    def __init__(self, record: CostRecord) -> None:
        self.record: CostRecord = record
        self.settled: trio.Event = trio.Event()
        self.delivered: trio.Event = trio.Event()
        self.asking: trio.CancelScope = trio.CancelScope()

    def hurry(self) -> None:
        """The client's block has ended. It waits for streams that were cancelled, but not for
        finished ones, whose usage should have come with them.
        """
        if self.record.outcome is Outcome.FINISHED:
            self.asking.cancel()

    async def wait(self) -> None:
        """Until the cost is settled and the callback was told, or is too slow. A checkpoint."""
        await self.settled.wait()
        await self.wait_delivered()

    async def wait_delivered(self) -> None:
        """Until the callback was told, but not for long. A checkpoint."""
        with trio.move_on_after(DELIVERY_SECONDS):
            await self.delivered.wait()


class Bookkeeper:
    """What all streams of a client share: the ledger, the callback, and who asks providers."""

    def __init__(
        self,
        connect: Callable[[], Exchange],
        ledger: Ledger,
        on_cost: OnCost | None,
        nursery: trio.Nursery,
    ) -> None:
        self.ledger: Ledger = ledger
        self._connect = connect
        self._on_cost = on_cost
        self._nursery = nursery
        self._asking: dict[str, trio.CapacityLimiter] = {}  # by address
        # Who to ask about what is unsettled, and whose money it is, by the record's key.
        self._unsettled: dict[str, tuple[Model, Budget | None]] = {}
        self._used: dict[tuple[str, str], Model] = {}  # by provider and address
        self._asked: dict[
            str, PendingSettlement
        ] = {}  # what this client's own tasks ask about, by key
        self._open: dict[object, Callable[[], None]] = {}
        self._closed = False
        self.gone: bool = False
        """Whether the client's block has ended, with all that was left to do."""

    # -- streams -----------------------------------------------------------------------------

    def check_open(self) -> None:
        """``RuntimeError`` once the client's block has been left."""
        if self._closed:
            raise RuntimeError("the client's block has been left")

    def enter(self, stream: object, end: Callable[[], None]) -> None:
        """A stream begins; ``end`` ends it if the client's block ends first."""
        self._open[stream] = end

    def leave(self, stream: object) -> None:
        """A stream has ended."""
        self._open.pop(stream, None)

    def end(self) -> None:
        """All is done that was to be done: the ledger writes what it could not write before."""
        self.gone = True
        try:
            self.ledger.flush()
        except OSError:
            _log.exception("lines of the ledger are still unwritten")

    def close(self) -> None:
        """The client's block ends: so do streams that other tasks still hold open."""
        self._closed = True
        while self._open:
            _, end = self._open.popitem()
            end()
        for booking in self._asked.values():
            booking.hurry()

    # -- booking -----------------------------------------------------------------------------

    def book(
        self, record: CostRecord, model: Model, budget: Budget | None, seconds: float
    ) -> PendingSettlement:
        """Write an attempt into the ledger, now, and see to the rest in the client's nursery."""
        booking = PendingSettlement(record)
        if record.unsettled:
            self._unsettled[record.key] = model, budget
            if len(self._unsettled) > MAX_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]
        else:
            booking.settled.set()
        self._write(record, None, budget)
        if record.booked and (record.unsettled or self._on_cost is not None):
            self._nursery.start_soon(
                self._finish, booking, model, seconds, name="trio_minillm booking"
            )
        else:
            booking.delivered.set()
        return booking

    def _write(self, record: CostRecord, before: CostRecord | None, budget: Budget | None) -> None:
        if not record.unsettled:
            self._unsettled.pop(record.key, None)
        try:
            new = self.ledger.record(record) is not False  # a user's own may say nothing
        except Exception:  # noqa: BLE001 - a ledger of the user's own: the rest must go on
            _log.exception("the ledger failed for attempt %s", record.key)
            new = True
        if new and budget is not None:
            (cost, tokens), (old_cost, old_tokens) = _spent(record), _spent(before)
            budget.spend(add(cost, old_cost.copy_negate()), tokens - old_tokens)

    async def _finish(self, booking: PendingSettlement, model: Model, seconds: float) -> None:
        """The task of one booking: bounded, and not to be cancelled from outside."""
        with trio.CancelScope(shield=True):
            try:
                if booking.record.unsettled:
                    self._asked[booking.record.key] = booking
                    if self._closed:
                        booking.hurry()
                    # Not for ever: with thousands in line, each may wait as long as it may ask.
                    booking.asking.deadline = trio.current_time() + 2 * seconds
                    with booking.asking:
                        await self.settle(booking.record, model, seconds)
            finally:
                self._asked.pop(booking.record.key, None)
                booking.settled.set()
            try:
                await self._deliver(booking.record)
            finally:
                booking.delivered.set()

    async def _deliver(self, record: CostRecord) -> None:
        if self._on_cost is None:
            return
        try:
            with trio.move_on_after(CALLBACK_SECONDS) as scope:
                told = self._on_cost(record)
                if inspect.isawaitable(told):
                    await told
        except Exception:  # noqa: BLE001 - the callback's, whatever it is
            # Not the stream's failure, and months may pass until the client's block ends.
            _log.exception("on_cost failed for attempt %s, which the ledger has", record.key)
        else:
            if scope.cancelled_caught:
                _log.error("on_cost took too long for attempt %s; the ledger has it", record.key)

    # -- settlement --------------------------------------------------------------------------

    async def settle(self, record: CostRecord, model: Model, seconds: float) -> CostRecord:
        """Ask what an attempt cost and book the answer. The same record if there is none."""
        assert record.id is not None
        _, budget = self._unsettled.get(record.key, (model, None))
        usage = await self._ask(model, record.id, seconds)
        if usage is None:
            return record
        settled = settled_record(record, model, usage)
        self._write(settled, record, budget)
        booking = self._asked.get(record.key)
        if booking is not None:  # whoever asked
            booking.record = settled
            booking.asking.cancel()
        return settled

    async def _ask(self, model: Model, ident: str, seconds: float) -> Usage | None:
        request = safe_settlement_request(model, ident)
        line = self._line(loggable_url(model))
        until, wait, nonsense = math.inf, 0.0, 0
        while request is not None and seconds > 0 and nonsense < MAX_NONSENSE:
            usage, again = None, 0.0
            async with line:
                # The clock begins with the first question, not in the line for it.
                until = min(until, trio.current_time() + seconds)
                with trio.move_on_at(until):
                    try:
                        usage, again = await self._ask_once(model, request)
                    except (*_UNREADABLE, ProtocolError):
                        nonsense += 1
            wait = min(ASK_EVERY, wait + ASK_EVERY / 4)
            left = until - trio.current_time()
            if usage is not None or again >= left:
                return usage
            await trio.sleep(min(max(wait, again), left))
        return None

    def _line(self, address: str) -> trio.CapacityLimiter:
        if address not in self._asking and len(self._asking) >= MODELS_KEPT:
            del self._asking[next(iter(self._asking))]
        return self._asking.setdefault(address, trio.CapacityLimiter(ASKING_AT_ONCE))

    async def _ask_once(
        self, model: Model, request: SettlementRequest
    ) -> tuple[Usage | None, float]:
        """The answer, if there is one; and in how many seconds at the earliest to ask again,
        infinity for never. Raises what a parser may raise for an answer that it can't read.
        """
        exchange = self._connect()
        try:
            with trio.move_on_after(ASK_SECONDS):
                headers = headers_to(model, "application/json")
                await exchange.start(request.url, headers, request.body, method=request.method)
                body = await exchange.short_body(ASK_SECONDS)
                if 200 <= exchange.status < 300:
                    return model.provider.parse_settlement(body), 0.0
                if exchange.status in WAIT_STATUSES or exchange.status >= 500:
                    return None, retry_after(exchange.headers, now=time.time()) or 0.0
                return None, math.inf
        except (*_UNREADABLE, ProtocolError):
            raise
        except MiniLLMError:
            pass  # the next answer may be better
        except Exception as exc:  # noqa: BLE001 - a provider's bug must not lose the booking
            # Without its text, which may quote a server, and that the key.
            names = type(model.provider).__name__, type(exc).__name__
            _log.error("%s can't read a settlement: %s", *names)
            return None, math.inf
        finally:
            await exchange.close()
        return None, 0.0

    def use(self, model: Model) -> None:
        """Remember a model that can be asked, for attempts that an earlier process made."""
        place = (model.provider.name, loggable_url(model))
        self._used.pop(place, None)
        self._used[place] = model
        if len(self._used) > MODELS_KEPT:
            del self._used[next(iter(self._used))]

    def question(
        self, one: str | CostRecord, model: Model | None
    ) -> tuple[CostRecord, Model | None]:
        """The record that an id stands for, and the model that can be asked about it; ``None``
        if there is nothing to ask.
        """
        if not isinstance(one, CostRecord) and not (isinstance(one, str) and one):
            raise TypeError("settle takes generation ids and records")
        record = self.ledger.newest(one) if isinstance(one, str) else one
        if record is not None and not record.unsettled:
            return record, None
        if record is not None:
            own = self._unsettled.get(record.key)
            place = (record.provider, record.base_url)
            model = own[0] if own is not None else model or self._used.get(place)
        else:
            able = [m for m in self._used.values() if safe_settlement_request(m, str(one))]
            model = model or (able[-1] if able else None)
        ident = one if isinstance(one, str) else one.id
        if model is None or ident is None or safe_settlement_request(model, ident) is None:
            raise ValueError("settle needs model=…: the address and the key to ask with")
        record = record or self._foreign(str(one), model)
        return record, model if record.unsettled else None

    def _foreign(self, ident: str, model: Model) -> CostRecord:
        """A record for an attempt that this ledger does not have, or not at hand any more.

        In that case it keeps its key, and so is not counted again.
        """
        key = self.ledger.key_of(ident) or self.ledger.new_key()
        record = attempt_record(model, key=key, outcome=Outcome.CANCELLED, generation_id=ident)
        self.ledger.record(record)
        return record


def _spent(record: CostRecord | None) -> tuple[Decimal, int]:
    """What is known to be spent, in USD and tokens, whether it is booked or not."""
    if record is None:
        return Decimal(0), 0
    tokens = record.usage.total_tokens if record.usage is not None else None
    return record.cost.amount or Decimal(0), tokens or 0
