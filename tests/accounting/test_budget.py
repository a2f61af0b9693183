"""Tests of spending limits: no attempt starts beyond them, and those under way finish or are cancelled."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import pickle
from collections import Counter
from decimal import Decimal

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import BudgetExceeded, Limits, Outcome, Timeouts, TokenPrice
from trio_minillm._accounting.budget import Budget
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import ScriptedTransport, hang, reply, settlement

from ..support.streams import CancelAtStep, Told, take
from ..support.wires import WIRES, Spent, begin, end, in_band_error, model_on

CENT = Spent(7, 3, cost=0.01)  # 10 tokens
MODEL = model_on("openrouter")


def costs(cost=0.01, *, before=0.0, **options):
    """A whole answer of 10 tokens at this cost."""
    usage = Spent(7, 3, cost=cost)
    return reply(before, *begin("openrouter"), *end("openrouter", usage), **options)


OPEN = reply(*begin("openrouter"), hang)


def opened(limits, *replies, settlements=(), told=None, **options):
    transport = ScriptedTransport(*(replies or (costs(),)), settlements=settlements)
    opening = llm.open_client(transport=transport, limits=limits, on_cost=told, **options)
    return transport, opening


async def complete(client, **options):
    return await client.complete(MODEL, "Hi", **options)


# -- the value -----------------------------------------------------------------------------------


def test_limits_are_a_value():
    assert Limits() == Limits(max_cost=None, max_tokens=None, running="finish")
    for amount in (0, 1, 0.5, Decimal("0.5"), 10**9):
        assert Limits(max_cost=amount).max_cost == amount
    assert Limits(max_tokens=0).max_tokens == 0
    with pytest.raises(AttributeError):
        Limits().max_cost = 3


def test_a_budget_without_limits_is_idle_and_counts_all_the_same():
    stopped = []
    outer = Budget(Limits())
    budget = Budget(Limits(), outer)
    assert budget.idle
    assert not Budget(Limits(), Budget(Limits(max_cost=1))).idle
    budget.spend(Decimal(1), 10)
    budget.change(Limits(max_tokens=20, running="cancel"), [lambda error: stopped.append(error)])
    assert not budget.idle
    budget.enter(stopped.append)
    assert stopped == []
    budget.spend(Decimal(0), 10)
    assert [error.allowed for error in stopped] == [20, 20]
    budget.change(Limits(), [stopped.append])
    assert budget.idle
    budget.check()
    outer.change(Limits(max_tokens=1, running="cancel"), [])
    assert len(stopped) == 2  # an outer one that was idle was told of no stream


def test_other_limits_count_what_was_spent_before():
    budget = Budget(Limits(max_tokens=100))
    budget.spend(Decimal("0.5"), 10)
    budget.change(Limits(max_tokens=11), [])
    budget.check()
    stopped = []
    budget.enter(stopped.append)
    budget.change(Limits(max_cost=0.5, running="cancel"), [stopped.append])
    assert [type(error) for error in stopped] == [BudgetExceeded]
    with pytest.raises(BudgetExceeded, match="max_cost"):
        budget.check()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_cost": -1},
        {"max_cost": -0.01},
        {"max_cost": Decimal(-1)},
        {"max_cost": math.nan},
        {"max_cost": math.inf},
        {"max_cost": Decimal("NaN")},
        {"max_cost": Decimal("sNaN")},
        {"max_cost": Decimal("Infinity")},
        {"max_cost": True},
        {"max_cost": "1"},
        {"max_tokens": -1},
        {"max_tokens": True},
        {"max_tokens": math.inf},
        {"max_tokens": 1.5},
        {"max_tokens": "1"},
        {"running": "stop"},
        {"running": None},
    ],
    ids=repr,
)
def test_what_is_no_limit_is_refused(fields):
    (name,) = fields
    with pytest.raises((ValueError, TypeError), match=name):
        Limits(**fields)


async def test_limits_of_another_type_are_refused():
    with pytest.raises(TypeError, match="limits"):
        async with llm.open_client(limits={"max_cost": 1}):
            pass
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises(TypeError, match="limits"):
            client.scope(limits=1)


# -- no attempt starts beyond --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (Limits(), 10),
        (Limits(max_cost=0), 0),
        (Limits(max_cost=Decimal("0.03")), 3),  # exactly: 0.01 + 0.01 + 0.01 is all of it
        (Limits(max_cost=0.03), 3),
        (Limits(max_cost=Decimal("0.0300000000000000000001")), 4),
        (Limits(max_cost=Decimal("0.0299999999999999999999")), 3),
        (Limits(max_cost=0.025), 3),
        (Limits(max_tokens=0), 0),
        (Limits(max_tokens=30), 3),
        (Limits(max_tokens=31), 4),
        (Limits(max_cost=0.05, max_tokens=20), 2),
        (Limits(max_cost=0.02, max_tokens=50), 2),
        (Limits(max_cost=0.03, running="cancel"), 3),
    ],
    ids=repr,
)
async def test_no_attempt_starts_once_a_limit_is_reached(limits, allowed, autojump_clock):
    told = Told()
    transport, opening = opened(limits, told=told)
    results = []
    async with opening as client:
        for _ in range(10):
            try:
                results.append(await complete(client))
            except BudgetExceeded as error:
                results.append(error)
    assert len(transport.requests) == allowed
    assert [type(r) for r in results] == [llm.CompletionResponse] * allowed + [BudgetExceeded] * (
        10 - allowed
    )
    assert client.ledger.attempts == len(told.records) == allowed, "what is not sent has no record"
    assert client.ledger.total == Decimal("0.01") * allowed
    assert transport.open_bodies == 0


async def test_what_the_error_says(autojump_clock):
    _, opening = opened(Limits(max_cost=Decimal("0.015")))
    async with opening as client:
        await complete(client)
        await complete(client)
        async with client.stream(MODEL, "my own prompt") as stream:  # entering raises nothing
            with pytest.raises(BudgetExceeded) as caught:
                await stream.next_chunk()
            assert await stream.next_chunk() is None, "once"
            with pytest.raises(BudgetExceeded):
                await stream.collect()
        assert stream.outcome is Outcome.ERRORED
        assert stream.records == ()
    error = caught.value
    assert (error.limit, error.allowed, error.spent) == (
        "max_cost",
        Decimal("0.015"),
        Decimal("0.02"),
    )
    assert str(error) == "the limit max_cost is reached: 0.02 USD spent, 0.015 allowed"
    assert isinstance(error, llm.MiniLLMError)
    assert error.partial.content == ""
    assert "prompt" not in repr(error)

    _, opening = opened(Limits(max_tokens=10))
    async with opening as client:
        await complete(client)
        with pytest.raises(BudgetExceeded, match="10 tokens spent, 10 allowed") as caught:
            await complete(client)
    assert (caught.value.limit, caught.value.allowed, caught.value.spent) == ("max_tokens", 10, 10)


async def test_the_error_can_be_pickled_and_copied(autojump_clock):
    _, opening = opened(Limits(max_cost=0.02, running="cancel"), OPEN, costs(0.05))
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
            await complete(client)
            with pytest.raises(BudgetExceeded) as caught:
                await stream.collect()
    error = caught.value
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is BudgetExceeded
        assert str(again) == str(error)
        assert (again.limit, again.allowed, again.spent) == (
            "max_cost",
            Decimal("0.02"),
            Decimal("0.05"),
        )
        assert again.partial == error.partial
        assert again.partial.content == "abc"


@pytest.mark.parametrize("wire", WIRES)
async def test_each_wire_counts_by_its_price_and_tokens(wire, autojump_clock):
    provisional = Spent(3, 1) if wire == "anthropic" else None
    answer = reply(*begin(wire, provisional), *end(wire, Spent(3, 2)))
    price = TokenPrice(input=1_000_000, output=10_000_000)  # 23 USD
    for limits in (Limits(max_cost=46), Limits(max_tokens=10)):
        transport, opening = opened(limits, answer)
        async with opening as client:
            for _ in range(2):
                await client.complete(model_on(wire, price=price), "Hi")
            with pytest.raises(BudgetExceeded):
                await client.complete(model_on(wire, price=price), "Hi")
        assert len(transport.requests) == 2


async def test_what_is_unknown_counts_nothing(autojump_clock):
    """There is no figure to count; never a made-up one."""
    answer = reply(*begin("openai"), *end("openai")[:-1], hang)
    transport, opening = opened(Limits(max_cost=0.01, max_tokens=1), answer)
    async with opening as client:
        assert (await client.complete(model_on("openai"), "Hi")).usage is None
        with pytest.warns(UserWarning, match="max_cost can't count"):
            assert (await client.complete(model_on("openai"), "Hi")).usage is None
        assert (await client.complete(model_on("openai"), "Hi")).usage is None
    assert len(transport.requests) == 3


async def test_a_limit_on_the_cost_that_can_not_act_is_warned_of_once(autojump_clock):
    unpriced, priced = (model_on("openai", price=p) for p in (None, TokenPrice(input=1, output=1)))
    answer = reply(*begin("openai"), *end("openai", Spent(7, 3)))
    _, opening = opened(Limits(max_cost=1), answer)
    async with opening as client:
        await client.complete(priced, "Hi")
        inner = client.scope(limits=Limits(max_tokens=1000))
        await inner.complete(unpriced, "Hi")
        with pytest.warns(UserWarning, match="(give price=)") as caught:
            client.stream(unpriced, "Hi")
        assert caught[0].filename == __file__
        await inner.complete(unpriced, "Hi")
    _, opening = opened(Limits(max_tokens=1000), answer)
    async with opening as client:
        for _ in range(2):
            await client.complete(unpriced, "Hi")


async def test_only_a_line_that_calls_is_warned(autojump_clock):
    """A task has none that called it: the warning is kept for one that does, or iterates a batch."""
    unpriced = model_on("openai")
    answer = reply(*begin("openai"), *end("openai", Spent(7, 3)))
    _, opening = opened(Limits(max_cost=1), answer)
    async with opening as client:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.complete, unpriced, "Hi")
        async with client.batch(
            [BatchRequest(key, "Hi") for key in "ab"], model=unpriced
        ) as results:
            with pytest.warns(UserWarning, match="(give price=)") as caught:
                await anext(results)
            assert caught[0].filename == __file__


# -- failed attempts -----------------------------------------------------------------------------


async def test_no_retry_starts_once_a_limit_is_reached(autojump_clock):
    """The failed attempt itself has reached it: Anthropic's message_start had 1,000 tokens."""
    opening_event = begin("anthropic", Spent(990, 10))[0]
    failed = reply(opening_event, in_band_error("anthropic", 529))
    transport, opening = opened(Limits(max_tokens=1_000), failed)
    async with opening as client:
        with pytest.raises(BudgetExceeded) as caught:
            await client.complete(model_on("anthropic"), "Hi")
        assert client.ledger.outcomes == {Outcome.ERRORED: 1}
    assert len(transport.requests) == 1
    assert caught.value.spent == 1_000


async def test_no_retry_starts_if_another_stream_reached_it_meanwhile(autojump_clock):
    busy = reply(b"{}", status=503, headers={"retry-after": "10"})
    transport, opening = opened(Limits(max_cost=0.01), busy, costs())
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await trio.sleep(1)
            await complete(client)
            with pytest.raises(BudgetExceeded):
                await stream.collect()
        assert 1 <= trio.current_time() <= 11
        assert stream.outcome is Outcome.ERRORED
        assert [(r.outcome, r.error) for r in stream.records] == [(Outcome.ERRORED, "RefusedError")]
    assert len(transport.requests) == 2
    assert client.ledger.attempts == 2


@pytest.mark.parametrize(
    "broken",
    [
        reply(*begin("openrouter", CENT)),
        reply(*begin("openrouter", CENT), OSError("cut")),
        reply(*begin("openrouter", CENT), in_band_error("openrouter")),
        reply(*begin("openrouter", CENT), hang),
    ],
    ids=["truncated", "cut", "error", "clock"],
)
@pytest.mark.parametrize("limits", [Limits(max_cost=0.02), Limits(max_tokens=20)], ids=repr)
async def test_the_known_cost_of_failed_attempts_counts(broken, limits, autojump_clock):
    transport, opening = opened(limits, broken)
    async with opening as client:
        for _ in range(2):
            with pytest.raises(llm.StreamError):
                await complete(client)
        with pytest.raises(BudgetExceeded):
            await complete(client)
    assert len(transport.requests) == 2
    assert (client.ledger.total, client.ledger.unbooked) == (0, Decimal("0.02"))


async def test_the_tokens_of_rejected_streams_count(autojump_clock):
    transport, opening = opened(
        Limits(max_tokens=10), reply(*begin("openrouter", CENT), hang), costs()
    )
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "abc")
            stream.reject()
        with pytest.raises(BudgetExceeded):
            await complete(client)
    assert len(transport.requests) == 1


# -- attempts under way --------------------------------------------------------------------------


async def test_finish_lets_those_under_way_finish(autojump_clock):
    told = Told()
    transport, opening = opened(
        Limits(max_cost=0.01, running="finish"), costs(before=5.0), costs(before=2.0), told=told
    )
    async with opening as client:
        async with client.stream(MODEL, "Hi") as slow:
            await trio.sleep(1)
            await complete(client)
            assert slow.outcome is None
            assert (await slow.collect()).content == "abc"
        with pytest.raises(BudgetExceeded) as caught:
            await complete(client)
    assert caught.value.spent == Decimal("0.02"), "beyond the limit, and that is known"
    assert len(transport.requests) == len(told.records) == 2


@pytest.mark.parametrize("use", ["next_chunk", "collect", "loop", "collect_or_cancel", "complete"])
async def test_cancel_cancels_those_under_way(use, autojump_clock):
    told = Told()
    transport, opening = opened(
        Limits(max_cost=0.01, running="cancel"),
        OPEN,
        costs(before=2.0),
        settlements=[settlement(0.7)],
        told=told,
    )
    caught, streams = [], []

    async def victim(client):
        try:
            if use == "complete":
                await complete(client, meta="victim")
                return
            async with client.stream(MODEL, "Hi", meta="victim") as stream:
                streams.append(stream)
                await take(stream, "abc")
                if use == "next_chunk":
                    await stream.next_chunk()
                elif use == "collect":
                    await stream.collect()
                elif use == "loop":
                    async for _ in stream:
                        pass
                else:
                    out = await stream.collect_or_cancel(trio.Event())
                    assert out.status == "failed"
                    raise out.error
        except BudgetExceeded as error:
            caught.append((error, trio.current_time()))

    async with opening as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim, client)
            await trio.testing.wait_all_tasks_blocked()
            await complete(client, meta="other")
            assert trio.current_time() == 2
    ((error, at),) = caught
    assert at <= 3
    assert (error.limit, error.spent) == ("max_cost", Decimal("0.01"))
    assert error.partial.content == "abc"
    assert error.partial.outcome is Outcome.CANCELLED
    assert [(r.meta, r.outcome, r.amount) for r in told.records] == [
        ("other", Outcome.FINISHED, Decimal("0.01")),
        ("victim", Outcome.CANCELLED, Decimal("0.7")),
    ]
    record = told.records[1]
    assert (record.booked, record.error) == (True, "BudgetExceeded")
    assert client.ledger.attempts == 2
    assert client.ledger.total == Decimal("0.71")
    if streams:
        assert streams[0].outcome is Outcome.CANCELLED
        assert streams[0].error is error
    assert transport.open_bodies == 0


async def test_what_was_whole_in_the_buffer_is_finished_and_not_cancelled(autojump_clock):
    whole = reply(*begin("openrouter"), *end("openrouter", CENT), hang)
    _, opening = opened(Limits(max_cost=0.01, running="cancel"), whole, costs())
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
            await trio.testing.wait_all_tasks_blocked()
            await complete(client)
            assert stream.outcome is Outcome.FINISHED
            assert (await stream.collect()).content == "abc"
    assert client.ledger.outcomes == {Outcome.FINISHED: 2}


async def test_a_block_that_does_not_look_ends_quietly(autojump_clock):
    _, opening = opened(Limits(max_cost=0.01, running="cancel"), OPEN, costs())
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
            await complete(client)
        assert stream.outcome is Outcome.CANCELLED
        assert isinstance(stream.error, BudgetExceeded)


async def test_the_stream_that_reaches_the_limit_is_whole(autojump_clock):
    told = Told()
    _, opening = opened(Limits(max_cost=0.01, running="cancel"), costs(0.5), told=told)
    async with opening as client:
        assert (await complete(client)).outcome is Outcome.FINISHED
    assert [r.amount for r in told.records] == [Decimal("0.5")]


@pytest.mark.parametrize("running", ["finish", "cancel"])
async def test_four_hundred_at_once(running, autojump_clock):
    """One is dear. The others finish, or are all cancelled at that moment."""
    told = Told()
    dear = costs(0.5, before=1.0)
    transport, opening = opened(
        Limits(max_cost=0.5, running=running),
        dear,
        costs(0.001, before=9.0),
        told=told,
        timeouts=Timeouts(settlement=None),
    )
    ends = []

    async def one(client):
        try:
            await complete(client)
            ends.append(("finished", trio.current_time()))
        except BudgetExceeded:
            ends.append(("exceeded", trio.current_time()))

    async with opening as client:
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(one, client)
    assert len(transport.requests) == 400
    assert client.ledger.attempts == len(told.records) == 400
    if running == "finish":
        assert Counter(ends) == {("finished", 1.0): 1, ("finished", 9.0): 399}
        assert client.ledger.total == Decimal("0.899")
    else:
        assert Counter(ends) == {("finished", 1.0): 1, ("exceeded", 1.0): 399}
        assert client.ledger.outcomes == {Outcome.FINISHED: 1, Outcome.CANCELLED: 399}
    assert transport.open_bodies == 0


# -- settlements ---------------------------------------------------------------------------------


async def test_a_settlement_counts_when_it_arrives(autojump_clock):
    transport, opening = opened(
        Limits(max_cost=0.5),
        OPEN,
        costs(),
        settlements=[reply(5.0, *settlement(0.7).steps)],
    )
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
        await complete(client)  # nothing is known yet
        await trio.sleep(6)
        with pytest.raises(BudgetExceeded) as caught:
            await complete(client)
        assert caught.value.spent == Decimal("0.71")
    assert len(transport.requests) == 2


async def test_a_settlement_takes_the_place_of_a_lower_bound(autojump_clock):
    running = reply(*begin("openrouter", Spent(3, 1, cost=0.2)), hang)  # and settled: 0.7
    for limit, exceeded in ((Decimal("0.7"), True), (Decimal("0.71"), False)):
        _, opening = opened(Limits(max_cost=limit), running, costs(), settlements=[settlement(0.7)])
        async with opening as client:
            async with client.stream(MODEL, "Hi") as stream:
                await take(stream, "abc")
                await stream.cancel()
            if exceeded:
                with pytest.raises(BudgetExceeded) as caught:
                    await complete(client)
                assert caught.value.spent == Decimal("0.7"), "and not 0.9"
            else:
                await complete(client)


async def test_the_tokens_of_a_settlement_take_the_place_of_those_before(autojump_clock):
    running = reply(*begin("openrouter", Spent(3, 1)), hang)  # 4, and settled: 7 + 5
    _, opening = opened(Limits(max_tokens=12), running, costs(), settlements=[settlement(0.7)])
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "abc")
            await stream.cancel()
        with pytest.raises(BudgetExceeded) as caught:
            await complete(client)
    assert caught.value.spent == 12


async def test_a_settlement_cancels_what_runs(autojump_clock):
    _, opening = opened(
        Limits(max_cost=0.5, running="cancel"),
        OPEN,
        costs(before=60.0),
        settlements=[reply(5.0, *settlement(0.7).steps)],
    )
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
        with pytest.raises(BudgetExceeded) as caught:
            await complete(client)
        assert trio.current_time() == 5
        assert caught.value.spent == Decimal("0.7")


@pytest.mark.parametrize("twice", ["background and settle()", "the record twice", "an old record"])
async def test_a_settlement_counts_once_whoever_asks(twice, autojump_clock):
    background = twice == "background and settle()"
    _, opening = opened(
        Limits(max_cost=Decimal("0.75")),
        OPEN,
        costs(),
        settlements=[reply(5.0, *settlement(0.7).steps)],
        timeouts=Timeouts(settlement=30 if background else None),
    )
    async with opening as client:
        async with client.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
        (old,) = stream.records
        ids = {"the record twice": [old, old]}.get(twice)
        await client.settle(ids, timeouts=Timeouts())
        if twice == "an old record":
            await client.settle([old, "gen-1"], timeouts=Timeouts())
        await trio.sleep(20)
        await complete(client)  # 0.7 of 0.75 are spent, and not 1.4
        assert client.ledger.total == Decimal("0.71")


async def test_a_settlement_by_settle_counts_where_the_stream_ran(autojump_clock):
    transport, opening = opened(
        None, OPEN, costs(), settlements=[settlement(0.7)], timeouts=Timeouts(settlement=None)
    )
    async with opening as client:
        scope = client.scope(limits=Limits(max_cost=0.5))
        async with scope.stream(MODEL, "Hi") as stream:
            await take(stream, "a")
        await client.settle(timeouts=Timeouts())
        await complete(client)
        with pytest.raises(BudgetExceeded):
            await complete(scope)
    assert len(transport.requests) == 2


# -- scopes --------------------------------------------------------------------------------------


async def test_a_scope_counts_what_is_sent_through_it(autojump_clock):
    transport, opening = opened(None)
    async with opening as client:
        for _ in range(5):
            await complete(client)
        scope = client.scope(limits=Limits(max_cost=0.02))
        await complete(scope)
        await complete(client)
        await complete(scope)
        with pytest.raises(BudgetExceeded):
            await complete(scope)
        await complete(client)
        await complete(client.scope(limits=Limits(max_cost=0.02)))
        assert scope.ledger is client.ledger
    assert len(transport.requests) == client.ledger.attempts == 10


async def test_a_scope_is_within_the_limits_outside_of_it(autojump_clock):
    _, opening = opened(Limits(max_cost=0.03))
    async with opening as client:
        wide, other = client.scope(limits=Limits(max_cost=1)), client.scope(meta={"a": 1})
        await complete(wide)
        await complete(other)
        await complete(client)
        for each in (client, wide, other, wide.scope(limits=Limits())):
            with pytest.raises(BudgetExceeded) as caught:
                await complete(each)
            assert (caught.value.allowed, caught.value.spent) == (Decimal("0.03"),) * 2


async def test_scopes_nest(autojump_clock):
    _, opening = opened(Limits(max_cost=1))
    async with opening as client:
        middle = client.scope(limits=Limits(max_tokens=40))
        inner, sibling = (middle.scope(limits=Limits(max_cost=0.02)) for _ in range(2))
        await complete(inner)
        await complete(inner)
        with pytest.raises(BudgetExceeded, match="max_cost"):
            await complete(inner)
        await complete(sibling)
        await complete(middle)
        for each, name in ((middle, "max_tokens"), (sibling, "max_tokens"), (inner, "max_cost")):
            with pytest.raises(BudgetExceeded, match=name):
                await complete(each)
        await complete(client)
        assert client.ledger.total == Decimal("0.05")


async def test_only_what_runs_in_the_scope_is_cancelled(autojump_clock):
    told = Told()
    _, opening = opened(
        None, OPEN, OPEN, OPEN, costs(), told=told, timeouts=Timeouts(settlement=None)
    )
    async with opening as client:
        outer = client.scope(limits=Limits(max_cost=0.5, running="cancel"))
        inner = outer.scope(limits=Limits(max_cost=0.01, running="cancel"))
        async with (
            client.stream(MODEL, "Hi", meta="client") as first,
            outer.stream(MODEL, "Hi", meta="outer") as second,
            inner.stream(MODEL, "Hi", meta="inner") as third,
        ):
            for stream in (first, second, third):
                await take(stream, "abc")
            await complete(inner)
            assert [s.outcome for s in (first, second, third)] == [None, None, Outcome.CANCELLED]
            assert third.error.allowed == Decimal("0.01")
            await complete(outer)
            assert second.outcome is None
    assert Counter(r.meta for r in told.records) == {"client": 1, "outer": 1, "inner": 1, None: 2}


async def test_the_outer_limit_cancels_what_runs_in_inner_scopes(autojump_clock):
    _, opening = opened(
        Limits(max_cost=0.01, running="cancel"),
        OPEN,
        costs(),
        timeouts=Timeouts(settlement=None),
    )
    async with opening as client:
        inner = client.scope(limits=Limits(max_cost=5)).scope(limits=Limits(max_tokens=500))
        async with inner.stream(MODEL, "Hi") as stream:
            await take(stream, "abc")
            await complete(client)
            assert stream.outcome is Outcome.CANCELLED
            with pytest.raises(BudgetExceeded) as caught:
                await stream.collect()
    assert caught.value.allowed == Decimal("0.01")
    assert client.ledger.attempts == 2


# -- the walk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", ["finish", "cancel"])
def test_cancelled_at_every_step_the_sums_are_right(running):
    """Two streams under a limit that the first reaches; the scope around both is cancelled."""
    step, ended = 0, False
    while not ended:
        step += 1
        ended = _walk(step, running)
    assert step > 20


def _walk(step, running):
    ledger, told = llm.Ledger(), Told()
    transport = ScriptedTransport(
        costs(0.5, before=1.0), OPEN, settlements=[reply(b"{}", status=404), settlement(0.7)]
    )

    async def use(client):
        with contextlib.suppress(BudgetExceeded):
            await client.complete(MODEL, "Hi")

    async def main():
        scope = trio.CancelScope()
        instrument = CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        async with llm.open_client(
            transport=transport,
            ledger=ledger,
            on_cost=told,
            limits=Limits(max_cost=0.5, running=running),
            timeouts=Timeouts(idle=50),
        ) as client:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(use, client)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(functools.partial(use, client))
                    await trio.sleep(9)
                    nursery.cancel_scope.cancel()
            budget = client._budget
        return instrument.left > 0, budget

    trio._core._run._r.seed(step)  # the order of tasks: so that a failure comes again
    ended, budget = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    records = ledger.recent
    assert ledger.attempts == len(transport.requests) == len(records), step
    assert sorted(told.keys) == sorted(r.key for r in records if r.booked), step
    known = sum(r.amount or 0 for r in records)
    assert ledger.total + ledger.unbooked == known == budget._cost, step
    assert budget._running == {}, step
    assert transport.open_bodies == 0, step
    return ended
