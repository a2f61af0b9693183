"""Tracked streams: who is told what an attempt cost, when, and what no cancellation can change."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import Counter
from decimal import Decimal

import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import CostResolution, Outcome, TokenPrice
from trio_minillm.testing import ScriptedTransport, hang, reply, settlement

from ..support.streams import CancelAtStep, Told, take
from ..support.wires import KEY, WIRES, Spent, begin, end, model_on

PRICE = TokenPrice(input=1_000_000, output=10_000_000)
PROVISIONAL, FINAL = Spent(3, 1), Spent(3, 2)  # 13 and 23 USD
NATIVE = Spent(3, 2, cost=0.5)
NOT_YET = reply(b"{}", status=404)

every_wire = pytest.mark.parametrize("wire", WIRES)


def whole(wire, **options):
    """An answer that comes to 23 USD, on OpenRouter to 0.5."""
    provisional, final = (None, NATIVE) if wire == "openrouter" else (PROVISIONAL, FINAL)
    return reply(*begin(wire, provisional), *end(wire, final), **options)


def open_ended(wire, **options):
    """An answer that never comes to its end."""
    usage = None if wire == "openrouter" else PROVISIONAL
    return reply(*begin(wire, usage), hang, **options)


def priced(wire):
    return model_on(wire, price=None if wire == "openrouter" else PRICE)


def cost_of_whole(wire):
    return Decimal("0.5") if wire == "openrouter" else Decimal(23)


async def drained(stream):
    async for _ in stream:
        pass


# -- when ----------------------------------------------------------------------------------------


@every_wire
async def test_the_callback_comes_before_the_blocks_end_if_the_usage_is_in_hand(
    wire, autojump_clock
):
    told = Told(seconds=0.5)  # a write to a database
    async with llm.open_client(transport=ScriptedTransport(whole(wire)), on_cost=told) as client:
        async with client.stream(priced(wire), "Hi", meta="m") as stream:
            await drained(stream)
            assert client.ledger.attempts == 1, "and the ledger has it at once"
        assert [(r.amount, r.meta) for r in told.records] == [(cost_of_whole(wire), "m")]
        await client.complete(priced(wire), "Hi")
        assert len(told.records) == 2


async def test_a_callback_is_told_what_the_ledger_and_the_stream_say():
    told = Told()
    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=told
    ) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            await drained(stream)
    (record,) = told.records
    assert (record,) == stream.records
    assert record.cost == stream.response.cost
    (kept,) = client.ledger.recent
    assert (kept.key, kept.cost, kept.at) == (record.key, record.cost, record.at)
    assert kept.usage.raw is None


async def test_leaving_is_not_slow_though_the_provider_must_be_asked(autojump_clock):
    told, slow = Told(), settlement(0.7)
    transport = ScriptedTransport(
        open_ended("openrouter"), settlements=[NOT_YET, reply(7.0, *slow.steps)]
    )
    async with llm.open_client(transport=transport, on_cost=told) as client:
        start = trio.current_time()
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
        assert trio.current_time() == start
        assert stream.response.cost == llm.CostInfo()
        assert stream.usage is None
        assert client.ledger.attempts == 1
        assert [r.id for r in client.ledger.unsettled] == ["gen-1"]
        assert told.records == []
    assert trio.current_time() - start > 7, "the client's block waited"
    assert [(r.amount, r.unsettled) for r in told.records] == [(Decimal("0.7"), False)]
    assert stream.response.cost.amount == client.ledger.total == Decimal("0.7")
    assert stream.usage.final
    assert client.ledger.unsettled == ()


async def test_a_callback_that_hangs_does_not_hold_up_a_stream(autojump_clock, caplog):
    async def on_cost(record):
        await trio.sleep_forever()

    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=on_cost
    ) as client:
        start = trio.current_time()
        for _ in range(3):
            await client.complete(priced("openai"), "Hi")
        assert trio.current_time() - start <= 3.0, "a second each"
        assert client.ledger.total == 69
    assert trio.current_time() - start < 35, "and half a minute in all"
    assert len([r for r in caplog.records if "too long" in r.message]) == 3


@pytest.mark.parametrize("way", ["cancel()", "collect_or_cancel"])
async def test_cancel_waits_for_the_answer(way, autojump_clock, nursery):
    told = Told()
    answer = settlement(0.7, native_tokens_prompt=30, native_tokens_completion=20)
    transport = ScriptedTransport(
        open_ended("openrouter"), settlements=[NOT_YET, NOT_YET, reply(4.0, *answer.steps)]
    )
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "abc")

            async def look():
                await trio.sleep(0.1)
                assert transport.open_bodies == 0, "the connection is closed before"
                assert stream.outcome is Outcome.CANCELLED
                assert stream.response.cost.resolution is CostResolution.UNKNOWN

            nursery.start_soon(look)
            if way == "cancel()":
                response = await stream.cancel()
            else:
                event = trio.Event()
                event.set()
                collected = await stream.collect_or_cancel(event)
                assert collected.status == "interrupted"
                response = collected.response
            assert trio.current_time() > 4
            assert response.cost.amount == Decimal("0.7")
            assert response.usage is stream.usage or response.usage == stream.usage
            assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (30, 20)
            assert response.usage.final
            assert response.content == "abc"
            assert [r.amount for r in told.records] == [Decimal("0.7")]
            assert stream.records == tuple(told.records)
        assert stream.response == response
    assert len(told.records) == 1


async def test_cancel_of_what_has_ended_does_nothing(autojump_clock):
    told = Told()
    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=told
    ) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            response = await stream.collect()
            assert await stream.cancel() == stream.response == response
            assert await stream.cancel() == response
    assert client.ledger.attempts == len(told.records) == 1


async def test_cancel_by_several_tasks_is_one_booking(autojump_clock):
    told = Told()
    transport = ScriptedTransport(open_ended("openrouter"), settlements=[settlement(0.7)])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(stream.cancel)
    assert client.ledger.attempts == len(told.records) == len(transport.questions) == 1


# -- the client's block --------------------------------------------------------------------------


class MyError(Exception):
    pass


@pytest.mark.parametrize("ending", ["left", "cancelled", "raised", "both"])
async def test_the_clients_block_ends_only_when_all_is_booked(ending, autojump_clock):
    told = Told(seconds=0.5)
    transport = ScriptedTransport(
        open_ended("openrouter"), settlements=[*[NOT_YET] * 4, settlement(0.7)]
    )
    raised = None
    with trio.CancelScope() as scope:
        try:
            async with llm.open_client(transport=transport, on_cost=told) as client:
                for _ in range(3):
                    async with client.stream(model_on("openrouter"), "Hi") as stream:
                        await take(stream, "a")
                if ending in ("cancelled", "both"):
                    scope.cancel()
                if ending in ("raised", "both"):
                    raise MyError
                if ending == "cancelled":
                    await trio.sleep_forever()
        except MyError as error:
            raised = error
        assert client.ledger.total == Decimal("2.1")
        assert [r.amount for r in told.records] == [Decimal("0.7")] * 3
    assert (raised is not None) is (ending in ("raised", "both")), "as itself, in no group"
    assert transport.open_bodies == 0


async def test_an_error_of_the_body_is_not_lost_to_a_cancellation_while_booking(autojump_clock):
    transport = ScriptedTransport(open_ended("openrouter"))  # never says what it cost
    with pytest.raises(MyError):
        with trio.move_on_after(5):
            async with llm.open_client(transport=transport) as client:
                async with client.stream(model_on("openrouter"), "Hi") as stream:
                    await take(stream, "a")
                raise MyError
    assert [r.id for r in client.ledger.unsettled] == ["gen-1"]


async def test_an_error_inside_a_stream_comes_out_as_itself_and_the_stream_is_booked(
    autojump_clock,
):
    told = Told()
    transport = ScriptedTransport(open_ended("openrouter"), settlements=[settlement(0.7)])
    with pytest.raises(MyError):
        async with llm.open_client(transport=transport, on_cost=told) as client:
            async with client.stream(model_on("openrouter"), "Hi") as stream:
                await take(stream, "a")
                raise MyError
    assert [r.amount for r in told.records] == [Decimal("0.7")]


async def test_a_group_of_the_body_comes_out_as_it_is(autojump_clock):
    group = ExceptionGroup("two", [MyError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with llm.open_client(transport=ScriptedTransport()):
            raise group
    assert caught.value is group


async def test_a_stream_that_another_task_holds_ends_with_the_clients_block(autojump_clock):
    told, seen = Told(), []
    transport = ScriptedTransport(open_ended("openrouter"), settlements=[settlement(0.7)])

    async def hold(client, task_status):
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "abc")
            task_status.started()
            seen.append(await stream.next_chunk())
            seen.append(stream.outcome)
            with pytest.raises(RuntimeError, match="left"):
                async with client.stream(model_on("openrouter"), "Hi"):
                    pass
        with pytest.raises(RuntimeError, match="left"):
            await client.complete(model_on("openrouter"), "Hi")

    async with trio.open_nursery() as nursery:
        async with llm.open_client(transport=transport, on_cost=told) as client:
            await nursery.start(hold, client)
        assert [r.amount for r in told.records] == [Decimal("0.7")]
    assert seen == [None, Outcome.CANCELLED]
    assert client.ledger.attempts == len(transport.requests) == 1
    assert transport.open_bodies == 0


async def test_a_stream_that_is_entered_twice_is_still_ended_by_the_clients_block(autojump_clock):
    transport, streams = ScriptedTransport(open_ended("openai")), []

    async def hold(client, task_status):
        async with client.stream(priced("openai"), "Hi") as stream:
            streams.append(stream)
            await take(stream, "abc")
            with pytest.raises(RuntimeError, match="once"):
                await stream.__aenter__()
            task_status.started()
            assert await stream.next_chunk() is None

    async with trio.open_nursery() as nursery:
        async with llm.open_client(transport=transport) as client:
            await nursery.start(hold, client)
        assert client.ledger.outcomes == {Outcome.CANCELLED: 1}
        nursery.cancel_scope.deadline = trio.current_time() + 1
    assert not nursery.cancel_scope.cancelled_caught


@every_wire
async def test_a_transport_that_crashes(wire, autojump_clock):
    """A bug comes out as itself; the attempt was sent, so it is in the ledger."""
    told = Told()
    transport = ScriptedTransport(
        reply(*begin(wire), RuntimeError("a bug")), settlements=[settlement(0.7)]
    )
    with pytest.raises(RuntimeError, match="a bug"):
        async with llm.open_client(transport=transport, on_cost=told) as client:
            await client.complete(priced(wire), "Hi")
    assert client.ledger.attempts == 1
    assert told.keys == [r.key for r in client.ledger.recent if r.booked]
    assert transport.open_bodies == 0


async def test_a_meta_that_the_ledger_can_not_keep_is_refused_before_anything_is_sent(tmp_path):
    path = tmp_path / "costs.jsonl"
    transport = ScriptedTransport(whole("openai"))
    async with llm.open_client(transport=transport, ledger=llm.JSONLLedger(path)) as client:
        with pytest.raises(TypeError, match="meta"):
            client.stream(priced("openai"), "Hi", meta=object())
        with pytest.raises(TypeError, match="meta"):
            await client.scope(meta={"a": object()}).complete(priced("openai"), "Hi")
        await client.complete(priced("openai"), "Hi", meta={"a": 1})
    read_only = llm.JSONLLedger(path, read_only=True)
    assert (read_only.attempts, read_only.total) == (1, 23)
    async with llm.open_client(transport=transport, ledger=read_only) as client:
        with pytest.raises(OSError, match="read-only"):
            client.stream(priced("openai"), "Hi")
    assert len(transport.requests) == 1


# -- callbacks that misbehave --------------------------------------------------------------------


async def raises(record):
    raise MyError("the database is down")


async def raises_later(record):
    await trio.sleep(0.1)
    raise MyError("the database is down")


async def raises_a_group(record):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_later, record)
        nursery.start_soon(raises, record)


async def raises_much_later(record):
    await trio.sleep(5)
    raise MyError("the database is down")


def raises_synchronously(record):
    raise MyError("the database is down")


@pytest.mark.parametrize(
    "on_cost", [raises, raises_later, raises_a_group, raises_much_later, raises_synchronously]
)
@pytest.mark.parametrize("kind", ["finished", "cancelled", "body raises", "truncated"])
async def test_a_callback_that_fails_changes_nothing_but_the_log(
    on_cost, kind, autojump_clock, caplog
):
    """The booking stands, the stream's own result is shown, and the log says no secret."""
    answer = {
        "finished": whole("openrouter"),
        "cancelled": open_ended("openrouter"),
        "body raises": open_ended("openrouter"),
        "truncated": reply(*begin("openrouter")),
    }[kind]
    transport = ScriptedTransport(answer, settlements=[settlement(0.7)])
    caught = None
    with caplog.at_level(logging.DEBUG, logger="trio_minillm"):
        async with llm.open_client(transport=transport, on_cost=on_cost) as client:
            try:
                async with client.stream(
                    model_on("openrouter"), "my own prompt", meta="my own meta"
                ) as stream:
                    if kind == "cancelled":
                        await take(stream, "a")
                    elif kind == "body raises":
                        await take(stream, "a")
                        raise KeyError("body")
                    else:
                        await drained(stream)
            except Exception as error:
                caught = error
    (record,) = client.ledger.recent
    expected = {
        "finished": (None, Decimal("0.5")),
        "cancelled": (None, Decimal("0.7")),
        "body raises": (KeyError, Decimal("0.7")),
        "truncated": (llm.EndedEarly, None),
    }[kind]
    assert (type(caught) if caught else None, record.amount) == expected
    logged = [r for r in caplog.records if "on_cost" in r.message]
    if kind == "truncated":
        assert logged == []
        return
    assert [r.levelno for r in logged] == [logging.ERROR]
    assert record.key in caplog.text
    assert "MyError" in caplog.text
    for secret in ("my own prompt", "my own meta", KEY):
        assert secret not in caplog.text


async def test_a_plain_function_will_do():
    told = []
    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=told.append
    ) as client:
        await client.complete(priced("openai"), "Hi")
        assert [r.amount for r in told] == [23]
    with pytest.raises(TypeError, match="on_cost"):
        async with llm.open_client(on_cost=3):
            pass


async def test_a_callback_may_use_the_client_itself(autojump_clock):
    """It asks another model for a summary, say; that is booked like everything else."""
    told = []

    async def on_cost(record):
        told.append((record.meta, record.amount))
        if record.meta == "first":
            await client.complete(priced("openai"), "Hi", meta="inner")

    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=on_cost
    ) as client:
        await client.complete(priced("openai"), "Hi", meta="first")
        assert told == [("first", 23), ("inner", 23)]
        assert trio.current_time() == 0
    assert client.ledger.total == 46


async def test_a_callback_at_the_clients_end_gets_the_error_that_the_client_is_closed(
    autojump_clock, caplog
):
    async def on_cost(record):
        await client.complete(model_on("openrouter"), "Hi")

    transport = ScriptedTransport(open_ended("openrouter"), settlements=[settlement(0.7)])
    async with llm.open_client(transport=transport, on_cost=on_cost) as client:
        async with client.stream(model_on("openrouter"), "Hi") as stream:
            await take(stream, "a")
    assert client.ledger.total == Decimal("0.7")
    assert "the client's block has been left" in caplog.text


async def test_a_slow_callback_of_one_stream_holds_up_no_other(autojump_clock):
    async def on_cost(record):
        if record.meta == "slow":
            await trio.sleep(20)

    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=on_cost
    ) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(client.complete, priced("openai"), "Hi", meta="slow")
            )
            await trio.testing.wait_all_tasks_blocked()
            await client.complete(priced("openai"), "Hi")
            assert trio.current_time() == 0


# -- many ----------------------------------------------------------------------------------------


@every_wire
async def test_two_streams_at_once_each_have_their_own_record(wire, autojump_clock):
    told = Told()
    first = reply(*begin(wire, id="gen-1"), 5.0, *end(wire, NATIVE, id="gen-1"))
    second = reply(*begin(wire, id="gen-2"), 5.0, *end(wire, NATIVE, id="gen-2"))
    transport = ScriptedTransport(first, second)
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with (
            client.stream(priced(wire), "Hi", meta=1) as one,
            client.stream(priced(wire), "Hi", meta=2) as other,
        ):
            await take(one, "abc")
            await take(other, "abc")
            await drained(other)
            await drained(one)
    assert {r.meta: r.key for r in told.records} == {
        1: one.records[0].key,
        2: other.records[0].key,
    }
    assert {one.id, other.id} == {"gen-1", "gen-2"}
    assert client.ledger.attempts == 2


class Counting(ScriptedTransport):
    """Knows how many questions were under way at most."""

    asking = most = 0

    async def handle_async_request(self, request):
        if request.method != "GET":
            return await super().handle_async_request(request)
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            await trio.sleep(0.2)
            return await super().handle_async_request(request)
        finally:
            self.asking -= 1


@pytest.mark.parametrize("way", ["outside", "cancel()"])
async def test_two_hundred_streams_cancelled_at_once(way, autojump_clock):
    told, streams = Told(), []
    transport = Counting(
        *[reply(*begin("openrouter", id=f"gen-{i}"), hang) for i in range(200)],
        settlements=[*[NOT_YET] * 200, settlement(0.01)],
    )

    async def hold(client, number):
        async with client.stream(model_on("openrouter"), "Hi", meta=number) as stream:
            streams.append(stream)
            await take(stream, "a")
            if way == "cancel()":
                await trio.testing.wait_all_tasks_blocked()
                response = await stream.cancel()
                assert response.cost.amount == Decimal("0.01")
            await trio.sleep_forever()

    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(hold, client, number)
            await trio.sleep(1 if way == "outside" else 100)
            start = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() == start
        assert client.ledger.attempts == 200
    assert {s.records[0].amount for s in streams} == {Decimal("0.01")}
    assert client.ledger.total == 2
    assert Counter(r.meta for r in told.records) == dict.fromkeys(range(200), 1)
    assert Counter(r.id for r in told.records) == {f"gen-{i}": 1 for i in range(200)}
    assert transport.open_bodies == 0
    assert transport.most <= 64, "no flood"


# -- collect_or_cancel ---------------------------------------------------------------------------


async def collect(answer, *, wire="openrouter", set_at=None, **options):
    """Call `collect_or_cancel`, and return its result, the ledger, and the time when it returned."""
    transport = ScriptedTransport(answer, settlements=[settlement(0.7)])
    event, told = trio.Event(), Told()

    async def setter():
        await trio.sleep(set_at)
        event.set()

    async with llm.open_client(transport=transport, on_cost=told, **options) as client:
        async with trio.open_nursery() as nursery:
            if set_at == "already":
                event.set()
            elif set_at is not None:
                nursery.start_soon(setter)
            async with client.stream(priced(wire), "Hi") as stream:
                if set_at == "already":
                    await take(stream, "a")
                    await trio.testing.wait_all_tasks_blocked()
                out = await stream.collect_or_cancel(event)
                at = trio.current_time()
                assert out.response.outcome is stream.outcome
                keys = told.keys
            nursery.cancel_scope.cancel()
    assert transport.open_bodies == 0
    booked = [r.key for r in client.ledger.recent if r.booked]
    assert keys == told.keys == booked, "when it returns, it is booked"
    return out, client.ledger, at


@every_wire
async def test_collect_or_cancel_to_the_end(wire, autojump_clock):
    out, ledger, at = await collect(whole(wire), wire=wire)
    assert (out.status, out.error, at) == ("finished", None, 0)
    assert (out.response.content, out.response.outcome) == ("abc", Outcome.FINISHED)
    assert out.response.cost.amount == ledger.total == cost_of_whole(wire)


@every_wire
async def test_collect_or_cancel_until_the_event(wire, autojump_clock):
    out, ledger, at = await collect(open_ended(wire), wire=wire, set_at=5.0)
    assert (out.status, out.error) == ("interrupted", None)
    assert (out.response.content, out.response.outcome) == ("abc", Outcome.CANCELLED)
    assert out.response.cost.amount == ledger.total
    assert ledger.total == (Decimal("0.7") if wire == "openrouter" else 13)
    assert 5 <= at < 6


@pytest.mark.parametrize(
    ("answer", "error", "outcome"),
    [
        (reply(*begin("openrouter")), llm.EndedEarly, Outcome.TRUNCATED),
        (reply(*begin("openrouter"), OSError("cut")), llm.ConnectionCut, Outcome.TRUNCATED),
        (open_ended("openrouter"), llm.StreamTimeout, Outcome.ERRORED),
        (reply(b"{}", status=401), llm.RefusedError, Outcome.ERRORED),
        (reply(b"{}", status=500), llm.RetriesExhausted, Outcome.ERRORED),
    ],
)
async def test_collect_or_cancel_of_what_fails(answer, error, outcome, autojump_clock):
    out, ledger, _ = await collect(answer)
    assert out.status == "failed"
    assert type(out.error) is error
    assert out.response.outcome is outcome
    assert out.error.partial.content == out.response.content
    assert (ledger.total, ledger.totals.booked) == (0, 0)
    assert ledger.recent[-1].outcome is outcome


async def test_collect_or_cancel_with_the_event_set_and_everything_in_the_buffer(autojump_clock):
    """Check that what has arrived counts: a whole answer is finished, and nobody needs to be asked."""
    out, ledger, at = await collect(whole("openrouter"), set_at="already")
    assert (out.status, at) == ("finished", 0)
    assert ledger.total == Decimal("0.5")
    answer = reply(*begin("openrouter"), *end("openrouter", NATIVE)[:-1], hang)
    out, ledger, at = await collect(answer, set_at="already")
    assert (out.status, out.response.content, at) == ("interrupted", "abc", 0)
    assert ledger.total == Decimal("0.5"), "the usage was there, only the end marker was not"
    out, _, _ = await collect(open_ended("openrouter"), set_at="already")
    assert (out.status, out.response.content) == ("interrupted", "abc")
    out, _, _ = await collect(reply(*begin("openrouter")), set_at="already")
    assert (out.status, type(out.error)) == ("failed", llm.EndedEarly)


async def test_collect_or_cancel_with_the_event_at_the_moment_of_the_end(autojump_clock):
    """Whichever comes first: one outcome, one booking, and the status agrees with it."""
    answer = reply(*begin("openrouter"), 5.0, *end("openrouter", NATIVE))
    for _ in range(20):  # the scheduler tosses coins
        start = trio.current_time()
        out, ledger, _ = await collect(answer, set_at=5.0)
        assert 5 <= trio.current_time() - start < 7
        finished = out.response.outcome is Outcome.FINISHED
        assert out.status == ("finished" if finished else "interrupted")
        assert ledger.total == out.response.cost.amount
        assert ledger.total == Decimal("0.5" if finished else "0.7")
        assert ledger.attempts == 1


async def test_collect_or_cancel_is_cancelled_from_outside(autojump_clock):
    told = Told()
    transport = ScriptedTransport(open_ended("openrouter"), settlements=[NOT_YET, settlement(0.7)])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        with trio.move_on_after(3) as scope:
            async with client.stream(model_on("openrouter"), "Hi") as stream:
                await stream.collect_or_cancel(trio.Event())
        assert scope.cancelled_caught
        assert trio.current_time() == 3
        assert stream.outcome is Outcome.CANCELLED
    assert [r.amount for r in told.records] == [Decimal("0.7")]


async def test_collect_or_cancel_is_cancelled_while_it_waits_for_the_answer(autojump_clock):
    told = Told()
    transport = ScriptedTransport(
        open_ended("openrouter"), settlements=[reply(4.0, *settlement(0.7).steps)]
    )
    event = trio.Event()
    event.set()
    async with llm.open_client(transport=transport, on_cost=told) as client:
        with trio.move_on_after(1) as scope:
            async with client.stream(model_on("openrouter"), "Hi") as stream:
                await take(stream, "a")
                await stream.collect_or_cancel(event)
        assert scope.cancelled_caught
        assert trio.current_time() == 1
    assert [r.amount for r in told.records] == [Decimal("0.7")]
    assert len(transport.questions) == 1, "the question was not cancelled"


@pytest.mark.parametrize("event", [5, None, threading.Event()])
async def test_collect_or_cancel_takes_an_event_of_trios(event):
    async with llm.open_client(transport=ScriptedTransport(whole("openai"))) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            with pytest.raises(TypeError, match="event must be a trio"):
                await stream.collect_or_cancel(event)
            assert (await stream.collect()).outcome is Outcome.FINISHED


async def test_collect_or_cancel_after_the_end_says_the_same_again(autojump_clock):
    async with llm.open_client(transport=ScriptedTransport(whole("openai"))) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            response = await stream.collect()
            out = await stream.collect_or_cancel(trio.Event())
            assert (out.status, out.response) == ("finished", response)
    async with llm.open_client(transport=ScriptedTransport(reply())) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            with pytest.raises(llm.EndedEarly):
                await stream.collect()
            out = await stream.collect_or_cancel(trio.Event())
            assert (out.status, out.error) == ("failed", stream.error)
    assert client.ledger.attempts == 1


async def test_what_collect_or_cancel_returns_can_be_shown():
    out = llm.Collected(status="failed", response=llm.CompletionResponse(), error=llm.SendError())
    assert repr(out).startswith("<Collected failed <CompletionResponse")
    assert list(out.__rich_repr__()) == [repr(out)]


# -- reject --------------------------------------------------------------------------------------


@every_wire
@pytest.mark.parametrize("when", ["before the headers", "midway", "whole in the buffer"])
async def test_a_rejected_stream_is_in_the_ledger_and_nobody_is_told(wire, when, autojump_clock):
    told = Told()
    answer = {
        "before the headers": reply(wait=hang),
        "midway": open_ended(wire),
        "whole in the buffer": whole(wire),
    }[when]
    transport = ScriptedTransport(answer, settlements=[settlement(0.7)])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(priced(wire), "Hi", meta="m") as stream:
            if when != "before the headers":
                await take(stream, "a")
            await trio.testing.wait_all_tasks_blocked()
            stream.reject()
            assert (stream.outcome, stream.response.rejected) == (Outcome.CANCELLED, True)
            stream.reject()
            await stream.cancel()
            assert await stream.next_chunk() is None
    assert (told.records, transport.questions) == ([], [])
    (record,) = client.ledger.recent
    assert (record.outcome, record.rejected, record.booked) == (Outcome.CANCELLED, True, False)
    assert record.meta == "m"
    totals = client.ledger.totals
    assert (totals.attempts, totals.booked, totals.rejected, totals.total) == (1, 0, 1, 0)


async def test_rejecting_what_has_ended_does_nothing(autojump_clock):
    told = Told()
    transport = ScriptedTransport(whole("openai"), open_ended("openrouter"), settlements=[NOT_YET])
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            await stream.collect()
            stream.reject()
        async with client.stream(model_on("openrouter"), "Hi") as other:
            await take(other, "a")
            await other.cancel()
            other.reject()
        other.reject()
    assert not stream.response.rejected
    assert client.ledger.totals.rejected == 0
    assert len(told.records) == client.ledger.totals.booked == 2


async def test_rejecting_between_two_attempts_leaves_the_failed_one_only(autojump_clock):
    transport = ScriptedTransport(reply(b"{}", status=503, headers={"retry-after": "9"}))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            await trio.sleep(1)
            stream.reject()
    (record,) = client.ledger.recent
    assert (record.outcome, record.rejected) == (Outcome.ERRORED, False)
    assert stream.records == (record,)
    assert len(transport.requests) == 1


# -- used twice at once --------------------------------------------------------------------------


async def test_collecting_twice_at_once_is_refused_and_books_once(autojump_clock, nursery):
    told = Told()
    transport = ScriptedTransport(reply(*begin("openai"), 5.0, *end("openai", FINAL)))
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            event = trio.Event()
            nursery.start_soon(stream.collect_or_cancel, event)
            await trio.testing.wait_all_tasks_blocked()
            for method in (
                stream.next_chunk,
                stream.receive,
                stream.collect,
                functools.partial(stream.collect_or_cancel, trio.Event()),
            ):
                with pytest.raises(trio.BusyResourceError):
                    await method()
            assert stream.outcome is None
            done = trio.Event()
            done.set()
            with pytest.raises(trio.BusyResourceError):
                await stream.collect_or_cancel(done)
            await trio.sleep(6)
        assert stream.outcome is Outcome.FINISHED
    assert [r.amount for r in told.records] == [23]


async def test_collect_or_cancel_outside_of_the_block():
    async with llm.open_client(transport=ScriptedTransport(whole("openai"))) as client:
        stream = client.stream(priced("openai"), "Hi")
        with pytest.raises(RuntimeError, match="async with"):
            await stream.collect_or_cancel(trio.Event())
        async with stream:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await stream.collect_or_cancel(trio.Event())


# -- records and meta ----------------------------------------------------------------------------


async def test_the_records_of_a_stream_grow_with_its_attempts(autojump_clock):
    failed = reply(b"{}", status=503, headers={"retry-after": "2", "x-request-id": "req-1"})
    transport = ScriptedTransport(failed, reply(error=OSError("no")), whole("openai", wait=5.0))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(priced("openai"), "Hi", meta="m") as stream:
            assert stream.records == ()
            await trio.sleep(1)
            assert [r.attempt for r in stream.records] == [1]
            await stream.collect()
            assert len(stream.records) == 3
    assert stream.records[0].request_id == "req-1"
    assert [r.error for r in stream.records] == ["RefusedError", "SendError", None]
    assert [r.attempt for r in stream.records] == [1, 2, 3]
    assert [r.booked for r in stream.records] == [False, False, True]
    assert [str(r.outcome) for r in stream.records] == ["errored", "errored", "finished"]
    assert {r.meta for r in stream.records} == {"m"}
    assert [r.key for r in stream.records] == [r.key for r in client.ledger.recent]
    assert len({r.key for r in stream.records}) == 3
    assert all(r.at.tzinfo is not None for r in stream.records)


async def test_the_meta_comes_back_untouched_whatever_it_is():
    given = {"list": [1, 2]}
    told, metas = Told(), [None, 0, "", "text", ("a", 1), given, object()]
    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=told
    ) as client:
        for meta in metas:
            await client.complete(priced("openai"), "Hi", meta=meta)
            stream = client.stream(priced("openai"), "Hi", meta=meta)
            assert stream.meta is meta
    assert all(r.meta is meta for r, meta in zip(told.records, metas, strict=True))


@pytest.mark.parametrize(
    ("outer", "inner", "call", "merged"),
    [
        (None, None, None, None),
        ({"a": 1}, None, None, {"a": 1}),
        ({"a": 1}, {"b": 2}, None, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"c": 3}, {"a": 2, "c": 3}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}),
        (None, None, {"c": 3}, {"c": 3}),
        ({"a": 1}, {"b": 2}, {}, {"a": 1, "b": 2}),
    ],
)
async def test_the_meta_of_scopes_and_calls_is_merged(outer, inner, call, merged):
    told = Told()
    async with llm.open_client(
        transport=ScriptedTransport(whole("openai")), on_cost=told
    ) as client:
        scoped = client.scope(meta=outer).scope(meta=inner)
        await scoped.complete(priced("openai"), "Hi", meta=call)
        await client.complete(priced("openai"), "Hi")
        assert [r.meta for r in told.records] == [merged, None], "the client itself has none"
        assert scoped.ledger is client.ledger
    if isinstance(merged, dict):
        for key, value in merged.items():
            assert client.ledger.by_meta(key)[value].attempts == 1


# -- what leaves no record -----------------------------------------------------------------------


async def test_what_was_never_sent_leaves_no_record(autojump_clock):
    told = Told()
    transport = ScriptedTransport(whole("openai"))
    async with llm.open_client(transport=transport, on_cost=told) as client:
        client.stream(priced("openai"), "Hi")  # never entered
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client.stream(priced("openai"), "Hi"):
                pytest.fail("entered")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.complete(priced("openai"), "Hi")
        async with client.stream(priced("openai"), "Hi") as stream:
            pass  # left before its task began
        assert stream.outcome is Outcome.CANCELLED
        assert stream.records == ()
        async with client.stream(priced("openai"), "Hi") as stream:
            stream.reject()
        async with client.stream(priced("openai"), "Hi") as stream:
            await stream.cancel()
    assert client.ledger.attempts == len(transport.requests)
    assert (client.ledger.attempts, told.records) == (0, [])


# -- the walk ------------------------------------------------------------------------------------


async def use_finished(client, model):
    async with client.stream(model, "Hi") as stream:
        await stream.collect()


async def use_complete(client, model):
    await client.complete(model, "Hi")


async def use_iterated(client, model):
    async with client.stream(model, "Hi") as stream:
        await drained(stream)


async def use_left(client, model):
    async with client.stream(model, "Hi") as stream:
        await take(stream, "a")


async def use_cancel(client, model):
    async with client.stream(model, "Hi") as stream:
        await take(stream, "a")
        await stream.cancel()


async def use_rejected(client, model):
    async with client.stream(model, "Hi") as stream:
        await take(stream, "a")
        stream.reject()
        await trio.lowlevel.checkpoint()


async def use_collect_or_cancel(client, model):
    event = trio.Event()

    async def later():
        await trio.sleep(1)
        event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        async with client.stream(model, "Hi") as stream:
            await stream.collect_or_cancel(event)


async def use_settle(client, model):
    async with client.stream(model, "Hi") as stream:
        await take(stream, "a")
    await client.settle()


async def use_two(client, model):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use_left, client, model)
        nursery.start_soon(use_cancel, client, model)


SCENARIOS = {
    # name: the use, and the replies on a wire
    "finished": (use_finished, lambda wire: [whole(wire)]),
    "iterated": (use_iterated, lambda wire: [whole(wire, wait=1.0)]),
    "left": (use_left, lambda wire: [open_ended(wire)]),
    "cancel()": (use_cancel, lambda wire: [open_ended(wire)]),
    "rejected": (use_rejected, lambda wire: [open_ended(wire)]),
    "without usage": (use_finished, lambda wire: [reply(*begin(wire), *end(wire))]),
    "retried": (use_finished, lambda wire: [reply(b"{}", status=503), whole(wire)]),
    "truncated": (use_finished, lambda wire: [reply(*begin(wire))]),
    "complete()": (use_complete, lambda wire: [whole(wire, wait=1.0)]),
    "complete() drained": (use_complete, lambda wire: [reply(*begin(wire), *end(wire), 0.1)]),
    "complete() retried": (use_complete, lambda wire: [reply(b"{}", status=503), whole(wire)]),
    "complete() truncated": (use_complete, lambda wire: [reply(*begin(wire))]),
    "collect_or_cancel": (use_collect_or_cancel, lambda wire: [open_ended(wire)]),
    "settle()": (use_settle, lambda wire: [open_ended(wire)]),
    "two at once": (use_two, lambda wire: [open_ended(wire)]),
}


A_FEW_QUESTIONS = llm.Timeouts(settlement=4.0)
"""Each question is some steps, and each step a walk of its own."""


class Walked:
    """One run of a scenario in which a scope is cancelled before the n-th step of any task."""

    def __init__(self, name, wire, where, answers):
        self.use, replies = SCENARIOS[name]
        self.model = priced(wire)
        self.where = where
        self.ledger = llm.Ledger()
        self.told = Told(seconds=0.1)
        settlements = [NOT_YET, settlement(0.7)] if answers else []
        self.transport = ScriptedTransport(*replies(wire), settlements=settlements)

    def run(self, step):
        """Run with a cancel at this step, and return whether the end came before the step."""
        trio._core._run._r.seed(step)  # the order of tasks: so that a failure comes again
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(self._main, step, clock=clock)

    async def _main(self, step):
        scope = trio.CancelScope()
        instrument = CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        opening = llm.open_client(
            transport=self.transport,
            ledger=self.ledger,
            on_cost=self.told,
            timeouts=A_FEW_QUESTIONS,
        )
        if self.where == "client":
            with scope:
                async with opening as client:
                    await self._use(client)
        else:
            async with opening as client:
                with scope:
                    await self._use(client)
        return instrument.left > 0

    async def _use(self, client):
        with contextlib.suppress(llm.MiniLLMError):
            await self.use(client, self.model)

    def check(self, answers):
        ledger, told, transport = self.ledger, self.told, self.transport
        records = ledger.recent
        assert transport.open_bodies == 0
        assert ledger.attempts == len(records) == len(transport.requests)
        assert len({r.key for r in records}) == len(records)
        booked = {
            r.key: r
            for r in records
            if r.outcome in (Outcome.FINISHED, Outcome.CANCELLED) and not r.rejected
        }
        assert {r.key for r in records if r.booked} == set(booked)
        assert sorted(told.keys) == sorted(booked), "told of each that is booked, once"
        unsettled = {r.key for r in ledger.unsettled}
        for record in told.records:
            kept = booked[record.key]
            assert (record.cost, record.unsettled) == (kept.cost, kept.unsettled)
            if record.provider != "openrouter" or record.id is None:
                final = record.usage is not None and record.usage.final
                assert (record.resolution is CostResolution.RESOLVED) is final
                assert record.key not in unsettled
            else:
                resolved = record.resolution is CostResolution.RESOLVED
                assert (record.key in unsettled) is not resolved
                # For a finished one the client's block does not wait.
                final = record.usage is not None and record.usage.final
                assert resolved is answers or final or record.outcome is Outcome.FINISHED
        assert ledger.total == sum(r.amount or 0 for r in told.records)
        assert ledger.unbooked == sum(r.amount or 0 for r in records if not r.booked)


@every_wire
@pytest.mark.parametrize("where", ["stream", "client"])
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("answers", [True, False], ids=["answered", "never answered"])
def test_cancelled_at_every_step_the_books_are_right(name, wire, where, answers):
    if not answers and wire != "openrouter":
        pytest.skip("nobody is asked on this wire")
    step, ended = 0, False
    while not ended:
        step += 1
        walked = Walked(name, wire, where, answers)
        try:
            ended = walked.run(step)
            walked.check(answers)
        except BaseException as error:
            error.add_note(f"cancelled before step {step}")
            raise
    assert step > 10


async def test_a_meta_that_can_not_be_merged_is_refused():
    async with llm.open_client(transport=ScriptedTransport()) as client:
        scoped = client.scope(meta={"a": 1})
        with pytest.raises(TypeError, match="merged"):
            scoped.stream(priced("openai"), "Hi", meta="a string")
        with pytest.raises(TypeError, match="meta must be"):
            client.scope(meta="a string")


async def test_it_is_in_the_ledger_as_soon_as_it_is_over(autojump_clock):
    async with llm.open_client(transport=ScriptedTransport(whole("openai"))) as client:
        async with client.stream(priced("openai"), "Hi") as stream:
            while stream.outcome is None:
                await stream.next_chunk()
            assert client.ledger.attempts == len(stream.records) == 1


class Broken(llm.Ledger):
    def record(self, record):
        raise OSError("the ledger broke")


async def test_a_ledger_that_raises_hides_nothing(autojump_clock, caplog):
    told = Told()
    transport = ScriptedTransport(whole("openai"))
    with pytest.raises(KeyError):
        async with llm.open_client(transport=transport, ledger=Broken(), on_cost=told) as client:
            response = await client.complete(priced("openai"), "Hi")
            assert response.outcome is llm.Outcome.FINISHED
            async with client.stream(priced("openai"), "Hi") as stream:
                await stream.next_chunk()
                raise KeyError
    assert len(told.records) == 2
    assert [r.getMessage().partition(" for ")[0] for r in caplog.records] == [
        "the ledger failed"
    ] * 2
    assert transport.open_bodies == 0


async def test_what_a_ledger_raises_is_logged_without_the_server_s_words(autojump_clock, caplog):
    refused = reply(b'{"error": {"message": "can not read: my prompt"}}', status=500)
    transport = ScriptedTransport(refused, whole("openai"))
    async with llm.open_client(transport=transport, ledger=Broken()) as client:
        await client.complete(priced("openai"), "my prompt")
    assert caplog.text.count("OSError: the ledger broke") == 2
    assert "my prompt" not in caplog.text


async def test_an_attempt_that_is_refused_as_it_is_left_is_booked_once(autojump_clock):
    """At any step; which of the tasks comes first in one is Trio's dice."""
    for step in [*range(16)] * 8:
        transport = ScriptedTransport(reply(b"{}", status=503))
        async with llm.open_client(transport=transport) as client:
            async with client.stream(priced("openai"), "Hi") as stream:
                for _ in range(step):
                    await trio.lowlevel.checkpoint()
                stream.reject()
                await trio.sleep(1)
            numbers = [record.attempt for record in client.ledger.recent]
            assert numbers == [record.attempt for record in stream.records] == [1][: len(numbers)]


class Unreadable(dict):
    def items(self):
        raise ValueError("closed")


async def test_a_meta_that_can_not_be_read_loses_no_booking(autojump_clock, caplog):
    async with llm.open_client(transport=ScriptedTransport(whole("openai"))) as client:
        await client.complete(priced("openai"), "Hi", meta=Unreadable(a=1))
        assert client.ledger.attempts == 1
        assert client.ledger.by_meta("a") == {}
    assert len(caplog.records) == 1


async def test_a_stream_that_is_entered_as_the_client_ends_does_not_start(autojump_clock):
    """Whichever of the two tasks comes first."""
    for _ in range(20):
        transport, ends = ScriptedTransport(whole("openai")), []

        async def late(client, ends=ends):
            try:
                ends.append((await client.complete(priced("openai"), "Hi")).outcome)
            except RuntimeError as exc:
                ends.append(type(exc))

        async with trio.open_nursery() as nursery:
            async with llm.open_client(transport=transport) as client:
                nursery.start_soon(late, client)
                await trio.lowlevel.checkpoint()
        assert len(client.ledger.recent) == len(transport.requests)
        if transport.requests:
            assert ends in ([Outcome.FINISHED], [Outcome.CANCELLED])
        else:
            assert ends == [RuntimeError]


async def test_the_key_is_in_no_record(autojump_clock):
    key = "sk-or-0123456789abcdef"
    answer = reply(*begin("openrouter", id=f"gen-{key}"), *end("openrouter", NATIVE))
    model = model_on("openrouter", api_key=key)
    async with llm.open_client(transport=ScriptedTransport(answer)) as client:
        await client.complete(model, "Hi")
        (record,) = client.ledger.recent
    assert record.id == "gen-[hidden]"
