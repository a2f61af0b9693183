"""The bookkeeper by itself: no streams, no HTTP, a settlement that answers as it is told."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import partial

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import CostResolution, Outcome, Usage
from trio_minillm._accounting import bookkeeper as module
from trio_minillm._accounting.bookkeeper import CALLBACK_SECONDS, DELIVERY_SECONDS, Bookkeeper
from trio_minillm._accounting.budget import Budget
from trio_minillm._accounting.ledger import Ledger
from trio_minillm._accounting.record import attempt_record
from trio_minillm.providers.openrouter import OpenRouter

from ..support.streams import Told
from ..support.wires import model_on

MODEL = model_on("openrouter")
FINAL = Usage(uncached_input_tokens=7, completion_tokens=5, cost=0.5, final=True)
RUNNING = Usage(uncached_input_tokens=7, completion_tokens=1, cost=0.25)


class Settlement:
    """Stands in for the `SettlementClient`: has its answer after some seconds."""

    def __init__(self, usage=FINAL, seconds=0.0):
        self.usage, self.seconds = usage, seconds
        self.asked = []
        self.models = []

    def remember(self, model):
        self.models.append(model)

    def model_at(self, provider, base_url):
        return next((m for m in self.models if m.base_url == base_url), None)

    def model_for(self, generation_id):
        return next(iter(self.models), None)

    async def ask(self, model, generation_id, seconds):
        self.asked.append((model, generation_id))
        await trio.sleep(self.seconds)
        return self.usage


def attempt(keeper, outcome=Outcome.FINISHED, usage=FINAL, ident="gen-1", **fields):
    key = keeper.ledger.new_key()
    return attempt_record(
        MODEL, key=key, outcome=outcome, generation_id=ident, usage=usage, **fields
    )


def unsettled(keeper, outcome=Outcome.CANCELLED, ident="gen-1"):
    record = attempt(keeper, outcome, None, ident)
    assert record.unsettled
    return record


class Kept:
    """A bookkeeper in a nursery, as a client has it; ``took`` is how long its end took."""

    def __init__(self, settlement=None, ledger=None, on_cost=None):
        self._args = settlement or Settlement(), ledger or Ledger(), on_cost

    async def __aenter__(self):
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        self.keeper = Bookkeeper(*self._args, nursery)
        return self.keeper

    async def __aexit__(self, *exc):
        self.keeper.close()
        start = trio.current_time()
        try:
            return await self._manager.__aexit__(*exc)
        finally:
            self.took = trio.current_time() - start
            self.keeper.finish()


# -- one attempt ---------------------------------------------------------------------------------


async def test_an_attempt_is_in_the_ledger_before_anything_waits(autojump_clock):
    told = Told()
    async with Kept(on_cost=told) as keeper:
        pending = keeper.book(attempt(keeper), MODEL, None, 30.0)
        assert (keeper.ledger.attempts, keeper.ledger.total) == (1, Decimal("0.5"))
        assert pending.settled.is_set()
        assert not pending.delivered.is_set()
        assert told.records == []
        await pending.wait()
        assert told.records == [pending.record]
    assert len(told.records) == 1


@pytest.mark.parametrize(
    ("outcome", "rejected"),
    [(Outcome.TRUNCATED, False), (Outcome.ERRORED, False), (Outcome.CANCELLED, True)],
)
async def test_the_callback_is_not_told_of_what_is_not_booked(outcome, rejected, autojump_clock):
    told, settlement = Told(), Settlement()
    async with Kept(settlement, on_cost=told) as keeper:
        record = attempt(keeper, outcome, RUNNING, rejected=rejected)
        assert (record.booked, record.unsettled) == (False, False)
        pending = keeper.book(record, MODEL, None, 30.0)
        assert pending.settled.is_set()
        assert pending.delivered.is_set()
    assert (keeper.ledger.attempts, keeper.ledger.unbooked) == (1, Decimal("0.25"))
    assert (told.records, settlement.asked) == ([], [])


async def test_what_is_settled_is_in_the_ledger_and_told_once(autojump_clock):
    told, settlement = Told(), Settlement(seconds=3)
    async with Kept(settlement, on_cost=told) as keeper:
        pending = keeper.book(unsettled(keeper), MODEL, None, 30.0)
        assert keeper.ledger.unsettled == (pending.record,)
        await pending.wait()
        assert trio.current_time() == 3
        assert pending.record.cost.resolution is CostResolution.RESOLVED
        assert told.records == [pending.record]
    assert settlement.asked == [(MODEL, "gen-1")]
    assert (keeper.ledger.attempts, keeper.ledger.total) == (1, Decimal("0.5"))
    assert keeper.ledger.unsettled == ()


async def test_without_an_answer_it_is_told_as_it_is(autojump_clock):
    told = Told()
    async with Kept(Settlement(usage=None), on_cost=told) as keeper:
        pending = keeper.book(unsettled(keeper), MODEL, None, 30.0)
    assert told.records == [pending.record]
    assert told.records[0].unsettled
    assert keeper.ledger.attempts == 1


async def test_a_settlement_that_hangs_ends_after_twice_its_clock(autojump_clock):
    """It may wait for its turn as long as it may ask."""
    told = Told()
    kept = Kept(Settlement(seconds=1000), on_cost=told)
    async with kept as keeper:
        keeper.book(unsettled(keeper), MODEL, None, 30.0)
    assert kept.took == 60
    assert [r.unsettled for r in told.records] == [True]


@pytest.mark.parametrize("when", ["not begun", "asking"])
async def test_no_cancellation_reaches_what_is_booked(when, autojump_clock):
    told = Told(seconds=1)
    with trio.CancelScope() as scope:
        async with Kept(Settlement(seconds=3), on_cost=told) as keeper:
            keeper.book(unsettled(keeper), MODEL, None, 30.0)
            keeper.book(attempt(keeper), MODEL, None, 30.0)
            if when == "asking":
                await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert sorted(r.amount for r in told.records) == [Decimal("0.5")] * 2
    assert keeper.ledger.total == 1


# -- the callback --------------------------------------------------------------------------------


async def test_a_callback_need_not_be_async(autojump_clock):
    told = []
    async with Kept(on_cost=told.append) as keeper:
        pending = keeper.book(attempt(keeper), MODEL, None, 30.0)
        await pending.wait()
        assert told == [pending.record]


async def test_a_callback_that_fails_is_logged(autojump_clock, caplog):
    async def on_cost(record):
        await trio.sleep(0)
        raise KeyError("mine")

    async with Kept(on_cost=on_cost) as keeper:
        pending = keeper.book(attempt(keeper), MODEL, None, 30.0)
        await pending.wait()
    assert f"on_cost failed for attempt {pending.record.key}" in caplog.text
    assert keeper.ledger.attempts == 1


async def test_a_callback_that_hangs_is_cancelled(autojump_clock, caplog):
    async def on_cost(record):
        await trio.sleep_forever()

    kept = Kept(on_cost=on_cost)
    async with kept as keeper:
        pending = keeper.book(attempt(keeper), MODEL, None, 30.0)
        await pending.wait()
        assert trio.current_time() == DELIVERY_SECONDS
        assert not pending.delivered.is_set()
    assert kept.took == CALLBACK_SECONDS - DELIVERY_SECONDS
    assert pending.delivered.is_set()
    (logged,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "took too long" in logged.message


# -- a ledger of the user's own ------------------------------------------------------------------


class Broken(Ledger):
    def record(self, record):
        raise OSError("the database is down")

    def flush(self):
        raise OSError("the database is still down")


async def test_a_ledger_that_fails_stops_nothing_else(autojump_clock, caplog):
    told, budget = Told(), Budget(llm.Limits(max_cost=Decimal("0.4")))
    async with Kept(ledger=Broken(), on_cost=told) as keeper:
        pending = keeper.book(attempt(keeper), MODEL, budget, 30.0)
        with pytest.raises(llm.BudgetExceeded):
            budget.check()
    assert told.records == [pending.record]
    assert f"the ledger failed for attempt {pending.record.key}" in caplog.text
    assert "lines of the ledger are still unwritten" in caplog.text


class Silent(Ledger):
    def record(self, record):
        super().record(record)


async def test_a_ledger_that_returns_nothing_has_counted(autojump_clock):
    budget = Budget(llm.Limits(max_tokens=12))
    async with Kept(ledger=Silent()) as keeper:
        keeper.book(attempt(keeper), MODEL, budget, 30.0)
        with pytest.raises(llm.BudgetExceeded):
            budget.check()


# -- budgets -------------------------------------------------------------------------------------


async def test_a_budget_is_charged_the_difference_when_an_attempt_is_settled(autojump_clock):
    def left(amount):
        keeper.change(budget, llm.Limits(max_cost=Decimal(amount)))
        try:
            budget.check()
        except llm.BudgetExceeded:
            return False
        return True

    budget = Budget(llm.Limits())
    async with Kept(Settlement(seconds=3)) as keeper:
        record = attempt(keeper, Outcome.CANCELLED, RUNNING)
        assert record.unsettled
        pending = keeper.book(record, MODEL, budget, 30.0)
        assert left("0.26")
        assert not left("0.25")
        await pending.wait()
        assert left("0.51")
        assert not left("0.5")
        # Settled once more from an old record: the ledger counts no second time, nor does this.
        await keeper.settle([record], MODEL, 30.0)
        assert left("0.51")


# -- the client's block --------------------------------------------------------------------------


async def test_close_ends_the_streams_that_are_open():
    ended = []
    async with Kept() as keeper:
        one, two = (partial(ended.append, name) for name in ("one", "two"))
        keeper.enter(one)
        keeper.enter(two)
        keeper.leave(one)
        keeper.leave(ended.clear)  # which was not entered
        keeper.check_open()
    assert ended == ["two"]
    with pytest.raises(RuntimeError, match="has been left"):
        keeper.check_open()
    with pytest.raises(RuntimeError, match="has been left"):
        await keeper.settle(None, None, 30.0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("outcome", "took"), [(Outcome.CANCELLED, 3), (Outcome.FINISHED, 0)])
async def test_close_waits_for_what_was_cancelled_alone(when, outcome, took, autojump_clock):
    """Also for what is booked while the block ends: its streams end then."""
    told = Told()
    kept = Kept(Settlement(seconds=3), on_cost=told)
    async with kept as keeper:
        if when == "before":
            keeper.book(unsettled(keeper, outcome), MODEL, None, 30.0)
            await trio.testing.wait_all_tasks_blocked()
        else:
            record = unsettled(keeper, outcome)
            keeper.enter(lambda: keeper.book(record, MODEL, None, 30.0))
    assert kept.took == took
    assert [r.unsettled for r in told.records] == [took == 0]


# -- settle --------------------------------------------------------------------------------------


async def left_open(keeper, settlement, *idents):
    """Book attempts about which there is no answer."""
    usage, settlement.usage = settlement.usage, None
    pending = [keeper.book(unsettled(keeper, ident=i), MODEL, None, 30.0) for i in idents]
    for one in pending:
        await one.wait()
    settlement.usage = usage
    return [one.record for one in pending]


async def test_settle_asks_about_each_with_the_model_that_made_it(autojump_clock):
    settlement = Settlement()
    async with Kept(settlement) as keeper:
        one, _ = await left_open(keeper, settlement, "gen-1", "gen-2")
        settlement.asked.clear()
        other = model_on("openrouter", api_key="another-key")
        records = await keeper.settle(None, other, 30.0)
        assert [(r.id, r.amount) for r in records] == [
            ("gen-1", Decimal("0.5")),
            ("gen-2", Decimal("0.5")),
        ]
        assert sorted(ident for _, ident in settlement.asked) == ["gen-1", "gen-2"]
        assert {model.api_key for model, _ in settlement.asked} == {MODEL.api_key}
        assert await keeper.settle([records[0]], None, 30.0) == records[:1]
        assert len(settlement.asked) == 2, "what is settled is not asked about"
        assert (keeper.ledger.attempts, keeper.ledger.total) == (2, 1)
        assert one.key == records[0].key


async def test_the_models_of_unsettled_attempts_are_bounded(autojump_clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNSETTLED", 1)
    settlement = Settlement()
    async with Kept(settlement) as keeper:
        await left_open(keeper, settlement, "gen-1", "gen-2")
        with pytest.raises(ValueError, match="needs model"):
            await keeper.settle(["gen-1"], None, 30.0)
        (second,) = await keeper.settle(["gen-2"], None, 30.0)
        keeper.remember(MODEL)
        (first,) = await keeper.settle(["gen-1"], None, 30.0)
        assert (first.amount, second.amount) == (Decimal("0.5"), Decimal("0.5"))


async def test_an_answer_reaches_the_task_that_is_asking(autojump_clock):
    told, settlement = Told(), Settlement(usage=None, seconds=10)
    async with Kept(settlement, on_cost=told) as keeper:
        pending = keeper.book(unsettled(keeper), MODEL, None, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        settlement.usage, settlement.seconds = FINAL, 1
        (record,) = await keeper.settle(None, None, 30.0)
        await pending.wait()
        assert trio.current_time() == 1
        assert told.records == [pending.record] == [record]


@pytest.mark.parametrize("ident", [None, ""])
async def test_a_record_without_an_id_can_not_be_asked_about(ident, autojump_clock):
    settlement = Settlement()
    async with Kept(settlement) as keeper:
        (record,) = await left_open(keeper, settlement, "gen-1")
        nameless = llm.CostRecord(
            key="other-1",
            at=record.at,
            model=record.model,
            provider=record.provider,
            base_url=record.base_url,
            id=ident,
            outcome=Outcome.CANCELLED,
            booked=True,
            unsettled=True,
        )
        with pytest.raises(ValueError, match="needs model"):
            await keeper.settle([nameless], MODEL, 30.0)


class Free(OpenRouter):
    """A provider whose answers cost nothing, whatever was used."""

    def cost_of(self, usage, price):
        return llm.CostInfo(Decimal(0), CostResolution.RESOLVED, "native")


async def test_an_unknown_id_is_asked_about_even_where_no_usage_has_a_price(autojump_clock):
    settlement, refused = Settlement(), Settlement(usage=None)
    free = llm.Model(name="m", provider=Free(), base_url="http://free.invalid")
    async with Kept(refused) as keeper:
        (record,) = await keeper.settle(["gen-1"], free, 30.0)
        assert (record.amount, record.unsettled, len(refused.asked)) == (None, True, 1)
    async with Kept(settlement) as keeper:
        (record,) = await keeper.settle(["gen-1"], free, 30.0)
        assert (record.amount, record.unsettled, len(settlement.asked)) == (Decimal(0), False, 1)
        assert (keeper.ledger.attempts, keeper.ledger.resolutions) == (
            1,
            {CostResolution.RESOLVED: 1},
        )
