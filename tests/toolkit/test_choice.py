"""Several models in place of one: who is asked when, who answers, and what becomes of the others."""

from __future__ import annotations

import contextlib
import copy
import gc
import heapq
import importlib
import itertools
import pickle
import weakref
from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Outcome, testing
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm.testing import Reply, ScriptedTransport, ServedRequest, faults, hang, reply

from ..support.paths import REPOSITORY
from ..support.streams import CancelAtStep, Told, take

ONCE = llm.Retry(attempts=1)
FAILS = reply(b'{"error": {"message": "no"}}', status=500)
WRONG = reply(b'{"error": {"message": "temperature must be at most 2"}}', status=400)
PRICE = llm.TokenPrice(input=1, output=1)


def says(*texts: str, after: float = 0.0) -> Reply:
    return reply(after, *testing.openai_events(*texts))


def model(name: str, **options: Any) -> llm.Model:
    return llm.compatible(name, base_url=f"http://{name}.invalid/v1", **options)


A, B, C = map(model, "abc")


def server(**replies: Reply | list[Reply]) -> ScriptedTransport:
    """A transport that answers each model by its name, in turn; the last answer again and again."""
    left = {n: list(r) if isinstance(r, list) else [r] for n, r in replies.items()}

    def answer(request: ServedRequest) -> Reply:
        mine = left[request.json()["model"]]
        return mine.pop(0) if len(mine) > 1 else mine[0]

    return ScriptedTransport(answer)


def asked(transport: ScriptedTransport) -> list[str]:
    return [body["model"] for body in transport.bodies]


def booked(client: llm.Client) -> list[tuple[str, str]]:
    """Model and outcome of each attempt, in the order of their numbers."""
    recent = sorted(client.ledger.recent, key=lambda record: record.attempt)
    assert [record.attempt for record in recent] == list(range(1, len(recent) + 1))
    return [(record.model, record.outcome.value) for record in recent]


# -- hedging -------------------------------------------------------------------------------------


async def test_the_second_is_not_asked_while_the_first_is_in_time(autojump_clock):
    transport = server(a=says("one ", "two", after=1.9), b=says("b"))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, B, after=2.0), "Hi")
        assert response.content == "one two"
        assert asked(transport) == ["a"]
        assert booked(client) == [("a", "finished")]
        assert trio.current_time() == pytest.approx(1.9, abs=0.3)


async def test_the_second_is_asked_when_the_first_is_late_and_its_content_wins(autojump_clock):
    transport = server(a=says("a", after=9.0), b=says("b", after=0.5))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(llm.first_of(A, B, after=2.0), "Hi", meta="m") as stream:
            assert (await stream.next_chunk()).delta == "b"
            assert trio.current_time() == 2.5
            await trio.lowlevel.checkpoint()
            assert transport.open_bodies <= 1, "the other connection is closed by now"
            await stream.collect()
        assert booked(client) == [("a", "cancelled"), ("b", "finished")]
        assert [record.meta for record in stream.records] == ["m", "m"]
        assert stream.response.timings.attempts == 2


async def test_the_first_may_still_win_after_the_second_was_asked(autojump_clock):
    transport = server(a=says("a", after=2.5), b=says("b", after=0.7))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, B, after=2.0), "Hi")
        assert response.content == "a"
        assert booked(client) == [("a", "finished"), ("b", "cancelled")]


async def test_the_same_model_twice_has_two_connections(autojump_clock):
    transport = server(a=[says("slow", after=30.0), says("fast")])
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, A, after=2.0), "Hi")
        assert response.content == "fast"
        assert booked(client) == [("a", "cancelled"), ("a", "finished")]


async def test_all_at_once(autojump_clock):
    transport = server(a=says("a", after=3), b=says("b", after=2), c=says("c", after=1))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, B, C, after=0), "Hi")
        assert response.content == "c"
        assert trio.current_time() == pytest.approx(1.0, abs=0.3)


async def test_one_that_fails_is_replaced_at_once(autojump_clock):
    transport = server(a=FAILS, b=says("b", after=1.5), c=says("c"))
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        response = await client.complete(llm.first_of(A, B, C, after=2.0), "Hi")
        assert response.content == "b"
        assert booked(client) == [("a", "errored"), ("b", "finished")]


async def test_one_that_waits_to_try_again_is_no_content(autojump_clock):
    busy = msgspec.structs.replace(FAILS, status=503, headers={"retry-after": "20"})
    transport = server(a=[busy, says("a")], b=says("b", after=1.0))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, B, after=2.0), "Hi")
        assert response.content == "b"
        assert asked(transport) == ["a", "b"], "its next attempt was cancelled before it was sent"
        assert booked(client) == [("a", "errored"), ("b", "finished")]


async def test_an_opening_or_a_finish_reason_is_no_content(autojump_clock):
    opening = testing.sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    reason = testing.sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    late = reply(opening, reason, 9.0, *testing.openai_events("a"))
    for raw in (False, True):
        transport = server(a=late, b=says("b"))
        async with llm.open_client(transport=transport) as client:
            async with client.stream(llm.first_of(A, B, after=2.0), "Hi", raw=raw) as stream:
                await stream.collect()
            assert stream.response.content == "b"


# -- fallback ------------------------------------------------------------------------------------


async def test_the_next_is_asked_when_the_one_before_has_failed(autojump_clock):
    transport = server(a=FAILS, b=FAILS, c=says("c"))
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        response = await client.complete(llm.fallback(A, B, C), "Hi")
        assert response.content == "c"
        assert booked(client) == [("a", "errored"), ("b", "errored"), ("c", "finished")]


async def test_each_model_has_its_retries(autojump_clock):
    transport = server(a=FAILS, b=[FAILS, FAILS, says("b")])
    async with llm.open_client(transport=transport) as client:
        async with client.stream(llm.fallback(A, B), "Hi") as stream:
            assert (await stream.collect()).content == "b"
        assert [r.model for r in stream.records] == ["a", "a", "a", "b", "b", "b"]
        assert booked(client)[-1] == ("b", "finished")
        assert stream.response.timings.attempts == 6


async def test_what_every_model_would_refuse_comes_out_as_it_is(autojump_clock):
    transport = server(a=WRONG, b=says("b"))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.RefusedError, match="temperature") as caught:
            await client.complete(llm.fallback(A, B), "Hi")
        assert caught.value.kind == "invalid"
        assert asked(transport) == ["a"]
        assert not hasattr(caught.value, "__notes__")


async def test_an_error_says_whose_it_is_where_several_were_asked(autojump_clock):
    transport = server(a=FAILS, b=WRONG)
    async with llm.open_client(transport=transport, retry=llm.Retry(attempts=1)) as client:
        with pytest.raises(llm.RefusedError, match="temperature") as caught:
            await client.complete(llm.fallback(A, B), "Hi")
        assert caught.value.__notes__ == ["from compatible:b; asked as well: compatible:a"]


ERRORS = {
    "auth": reply(b'{"error": {"message": "no"}}', status=401),
    "quota": reply(b'{"error": {"message": "no", "code": "insufficient_quota"}}', status=429),
    "rate_limit": reply(b'{"error": {"message": "no"}}', status=429),
    "overloaded": reply(b'{"error": {"message": "no"}}', status=503),
    "timeout": reply(b'{"error": {"message": "no"}}', status=504),
    "server": FAILS,
    "not_found": reply(b'{"error": {"message": "no", "code": "model_not_found"}}', status=400),
    "invalid": WRONG,
    "send": reply(error=OSError("no")),
    "clock": reply(hang),
    "truncated": reply(),
    "protocol": reply(b"<html></html>", headers={"content-type": "text/html"}),
}


@pytest.mark.parametrize("word", ERRORS)
async def test_the_words_for_failures(word, autojump_clock):
    for on in (word, [word], [llm.SendError, word]):
        transport = server(a=ERRORS[word], b=says("b"))
        async with llm.open_client(transport=transport, retry=ONCE) as client:
            assert (await client.complete(llm.fallback(A, B, on=on), "Hi")).content == "b"
    others = ERRORS.keys() - {word}
    transport = server(a=ERRORS[word], b=says("b"))
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        with pytest.raises(llm.MiniLLMError):
            await client.complete(llm.fallback(A, B, on=others), "Hi")
        assert asked(transport) in (["a"], []), "one that could not be sent never arrived"


@pytest.mark.parametrize(
    "words",
    [
        "The model `gpt-9` does not exist or you do not have access to it.",
        "foo/bar is not a valid model ID",
        "model 'x' not found, try pulling it first",
    ],
)
async def test_a_model_that_is_not_there_is_known_by_words_too(words, autojump_clock):
    refusal = reply(msgspec.json.encode({"error": {"message": words}}), status=400)
    async with llm.open_client(transport=server(a=refusal, b=says("b"))) as client:
        assert (await client.complete(llm.fallback(A, B), "Hi")).content == "b"


async def test_the_failures_may_be_classes_or_a_function(autojump_clock):
    seen: list[llm.MiniLLMError] = []

    def never(error: llm.MiniLLMError) -> bool:
        seen.append(error)
        return False

    for on, content in [(llm.RefusedError, "b"), (llm.SendError, None), (never, None)]:
        transport = server(a=FAILS, b=says("b"))
        async with llm.open_client(transport=transport, retry=ONCE) as client:
            if content is None:
                with pytest.raises(llm.RefusedError):
                    await client.complete(llm.fallback(A, B, on=on), "Hi")
            else:
                assert (await client.complete(llm.fallback(A, B, on=on), "Hi")).content == "b"
    assert [type(error) for error in seen] == [llm.RefusedError]


async def test_a_function_is_given_the_last_error_of_a_models_attempts(autojump_clock):
    seen: list[type] = []
    transport = server(a=FAILS, b=says("b"))
    async with llm.open_client(transport=transport) as client:
        choice = llm.fallback(A, B, on=lambda error: not seen.append(type(error)))
        assert (await client.complete(choice, "Hi")).content == "b"
    assert seen == [llm.RefusedError]


@pytest.mark.parametrize("way", ["iterate", "collect", "complete", "leave"])
async def test_what_a_function_raises_comes_out_as_itself(way, autojump_clock):
    def broken(error: llm.MiniLLMError) -> bool:
        raise KeyError("mine")

    transport = server(a=FAILS, b=says("b"))
    choice = llm.fallback(llm.first_of(A, B, after=5, on=broken), B)
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        with pytest.raises(KeyError, match="mine"):
            if way == "complete":
                await client.complete(choice, "Hi")
            async with client.stream(choice, "Hi") as stream:
                if way == "iterate":
                    await stream.next_chunk()
                elif way == "collect":
                    await stream.collect()
                await trio.sleep(1)
        assert booked(client)[0] == ("a", "errored")
    assert transport.open_bodies == 0


# -- all fail ------------------------------------------------------------------------------------


async def test_if_all_fail_the_error_has_the_error_of_each(autojump_clock):
    refused = reply(b'{"error": {"message": "away"}}', status=404)
    transport = server(a=FAILS, b=refused, c=reply(hang))
    async with llm.open_client(transport=transport, retry=llm.Retry(attempts=2)) as client:
        choice = llm.fallback(llm.first_of(A, B, after=9), C)
        async with client.stream(choice, "Hi") as stream:
            with pytest.raises(llm.ModelsExhausted) as caught:
                await stream.next_chunk()
            assert await stream.next_chunk() is None, "once"
            with pytest.raises(llm.ModelsExhausted):
                await stream.collect()
            assert stream.outcome is Outcome.ERRORED
            assert stream.errored
            assert stream.error is caught.value
        error = caught.value
        assert [type(e) for e in error.errors] == [
            llm.RetriesExhausted,
            llm.RefusedError,
            llm.StreamTimeout,
        ]
        assert error.models == ("compatible:a", "compatible:b", "compatible:c")
        assert error.last_error is error.errors[-1] is error.__cause__
        assert error.attempts == 4 == client.ledger.attempts
        assert error.partial is not None
        assert error.partial.outcome is Outcome.ERRORED
        assert "compatible:a: 2 attempts failed" in str(error)
        assert isinstance(error, llm.RetriesExhausted)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.models, again.attempts) == (str(error), error.models, 4)


async def test_one_failure_that_ends_it_comes_out_as_it_is(autojump_clock):
    transport = server(a=FAILS, b=WRONG)
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        with pytest.raises(llm.RefusedError) as caught:
            await client.complete(llm.fallback(A, B), "Hi")
        assert caught.value.status == 400
        with pytest.raises(llm.RefusedError) as caught:
            await client.complete(llm.fallback(A), "Hi")
        assert caught.value.status == 500


async def test_a_failure_that_ends_it_waits_for_those_that_run(autojump_clock):
    transport = server(a=[reply(2.5, *WRONG.steps, status=400)], b=says("b", after=1.0))
    late = msgspec.structs.replace(WRONG, wait=2.5)
    transport = server(a=late, b=says("b", after=1.0), c=says("c"))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.first_of(A, B, C, after=2.0), "Hi")
        assert response.content == "b"
        assert asked(transport) == ["a", "b"]


# -- one answer ----------------------------------------------------------------------------------


async def test_once_content_has_come_the_answer_is_that_models(autojump_clock):
    cut = reply(*testing.openai_events("one ", "two")) | faults.cut(-250)
    transport = server(a=cut, b=says("b"))
    async with llm.open_client(transport=transport) as client:
        for choice in (llm.fallback(A, B), llm.first_of(A, B, after=0.0)):
            with pytest.raises(llm.StreamTruncated) as caught:
                async with client.stream(choice, "Hi") as stream:
                    async for _ in stream:
                        pass
            assert caught.value.partial.content.startswith("one")
            assert stream.model == stream.response.model


async def test_content_that_nobody_has_taken_yet_decides_as_well(autojump_clock):
    transport = server(a=says("a", after=1.0), b=says("b"))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(llm.first_of(A, B, after=2.0), "Hi") as stream:
            await trio.sleep(60)
            assert stream.accumulated == "", "nothing was handed out"
            assert asked(transport) == ["a"]
            assert [chunk.delta async for chunk in stream if chunk.delta] == ["a"]


async def test_the_properties_before_and_after_the_decision(autojump_clock):
    transport = server(a=reply(hang), b=says("b"))
    async with llm.open_client(transport=transport) as client:
        async with client.stream(llm.first_of(A, B, after=2.0), "Hi") as stream:
            before = (stream.accumulated, stream.usage, stream.id, stream.outcome, stream.error)
            assert before == ("", None, "", None, None)
            assert (stream.headers, stream.finish_reason, stream.records) == ({}, None, ())
            assert not stream.is_finished
            assert not stream.errored
            assert stream.response.content == ""
            assert stream.model == "a"
            assert "a" in repr(stream)
            assert [chunk.delta for chunk in await stream.next_chunks()] == ["b"] or True
            await stream.collect()
            assert stream.accumulated == "b"
            assert stream.usage.final
            assert stream.id
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.finish_reason == "stop"
            assert stream.is_finished
            assert "finished" in repr(stream)
        assert stream.response == stream.response


async def test_chunks_that_are_folded_by_hand(autojump_clock):
    async with llm.open_client(transport=server(a=says("a"), b=reply(hang))) as client:
        async with client.stream(llm.fallback(A, B), "Hi") as stream:
            await stream.next_chunk()
            stream.ingest(llm.StreamChunk("more"))
            assert stream.accumulated.endswith("more")
        async with client.stream(llm.fallback(B, A), "Hi") as stream:
            stream.ingest(llm.StreamChunk("more"))
            assert stream.accumulated == "more"


# -- money ---------------------------------------------------------------------------------------


async def test_a_loser_is_settled_where_the_provider_can_be_asked(autojump_clock):
    slow = reply(testing.openai_events("x")[0], hang)
    opening = testing.sse(
        {"id": "gen-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    )
    told = Told()

    def answer(request: ServedRequest) -> Reply:
        return says("b") if request.json()["model"] == "b" else reply(opening, hang)

    transport = ScriptedTransport(answer, settlements=[testing.settlement(0.7)])
    first = llm.openrouter("a", base_url="http://a.invalid/v1", api_key="k")
    async with llm.open_client(transport=transport, on_cost=told) as client:
        async with client.stream(llm.first_of(first, B, after=2.0), "Hi") as stream:
            await stream.collect()
            start = trio.current_time()
        assert trio.current_time() - start < 1.1, "leaving is not slow"
    assert slow is not None
    by_model = {record.model: record for record in told.records}
    assert by_model["a"].outcome is Outcome.CANCELLED
    assert by_model["a"].amount == Decimal("0.7")
    assert {record.model: record.amount for record in stream.records}["a"] == Decimal("0.7")
    assert stream.response.content == "b"


async def test_cancel_waits_until_each_attempt_is_booked(autojump_clock):
    opening = testing.sse(
        {"id": "gen-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    )
    slow = testing.settlement(0.7)
    transport = ScriptedTransport(reply(opening, hang), settlements=[reply(3.0, *slow.steps)])
    first = llm.openrouter("a", base_url="http://a.invalid/v1", api_key="k")
    async with llm.open_client(transport=transport) as client:
        async with client.stream(llm.first_of(first, first, after=2.0), "Hi") as stream:
            await trio.sleep(5)
            response = await stream.cancel()
            assert response.outcome is Outcome.CANCELLED
            assert [record.amount for record in stream.records] == [Decimal("0.7")] * 2
            assert await stream.next_chunk() is None


async def test_a_limit_holds_for_the_call_and_says_what_failed_before(autojump_clock):
    usage = testing.sse(
        {"choices": [], "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    )
    paid = reply(usage, testing.sse({"error": {"message": "no", "code": 500}}))
    transport = server(a=paid, b=says("b"))
    models = model("a", price=PRICE), model("b", price=PRICE)
    async with llm.open_client(
        transport=transport, retry=ONCE, limits=llm.Limits(max_cost=0.5)
    ) as client:
        with pytest.raises(llm.BudgetExceeded) as caught:
            await client.complete(llm.fallback(*models, on=lambda _: True), "Hi")
        assert isinstance(caught.value.__cause__, llm.ProviderError)
        assert asked(transport) == ["a"]
        assert booked(client) == [("a", "errored")]


async def test_a_limit_that_cancels_ends_all_of_them(autojump_clock):
    whole = reply(1.0, *testing.openai_events("c"))
    transport = server(a=reply(hang), b=reply(hang), c=whole)
    priced = model("c", price=llm.TokenPrice(input=10**6, output=10**6))
    limits = llm.Limits(max_cost=0.5, running="cancel")
    async with llm.open_client(transport=transport, limits=limits) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.complete, priced, "Hi")
            with pytest.raises(llm.BudgetExceeded):
                async with client.stream(llm.first_of(A, B, after=0.5), "Hi") as stream:
                    await stream.next_chunk()
            assert stream.outcome is Outcome.CANCELLED
        outcomes = Counter(record.outcome for record in client.ledger.recent)
        assert outcomes == {Outcome.CANCELLED: 2, Outcome.FINISHED: 1}


# -- clocks --------------------------------------------------------------------------------------


async def test_the_total_clock_is_of_the_whole_call(autojump_clock):
    transport = server(a=msgspec.structs.replace(FAILS, wait=3.0), b=reply(hang))
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        for choice in (llm.fallback(A, B, C), llm.first_of(A, B, C, after=4.0)):
            start = trio.current_time()
            with pytest.raises(llm.StreamTimeout) as caught:
                await client.complete(choice, "Hi", timeouts=llm.Timeouts(total=5.0))
            assert trio.current_time() - start == 5.0
            assert (caught.value.clock, caught.value.limit) == ("total", 5.0)
        assert "c" not in asked(transport)


async def test_the_clock_of_the_first_content_is_each_models_own(autojump_clock):
    transport = server(a=reply(hang), b=says("b", after=3.0))
    async with llm.open_client(transport=transport) as client:
        timeouts = llm.Timeouts(first_chunk=4.0)
        response = await client.complete(llm.fallback(A, B), "Hi", timeouts=timeouts)
        assert response.content == "b"
        assert trio.current_time() == pytest.approx(7.0, abs=0.3)


# -- as any stream -------------------------------------------------------------------------------

CASES = {
    "the first in time": (says(*"abcdef"), says("b")),
    "the first late": (says("x", after=9), says(*"abcdef")),
    "the first fails": (FAILS, says(*"abcdef")),
    "both fail": (FAILS, FAILS),
    "wrong": (WRONG, says("b")),
    "cut": (reply(*testing.openai_events(*"abcdef")) | faults.cut(-200), says("b")),
    "dripped": (reply(*testing.openai_events(*"abc")) | faults.drip(9, 0.5), says("b", after=1)),
    "empty": (reply(*testing.openai_events()), says("b")),
    "hangs": (reply(hang), reply(*testing.openai_events(*"ab")) | faults.cut(-150)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["first_of", "fallback", "nested"])
async def test_it_is_a_stream(case, kind, autojump_clock):
    choices = {
        "first_of": llm.first_of(A, B, after=2.0),
        "fallback": llm.fallback(A, B),
        "nested": llm.fallback(llm.first_of(A, A, after=1.0), llm.first_of(B, A, after=1.0)),
    }
    a, b = CASES[case]
    transport = server(a=a, b=b)
    timeouts = llm.Timeouts(first_chunk=20.0)
    async with llm.open_client(transport=transport, retry=ONCE, timeouts=timeouts) as client:
        await testing.check_stream(lambda: client.stream(choices[kind], "Hi"))
        assert transport.open_bodies == 0


async def test_before_and_after_its_block(autojump_clock):
    async with llm.open_client(transport=server(a=says("a"))) as client:
        stream = client.stream(llm.fallback(A), "Hi")
        with pytest.raises(RuntimeError, match="async with"):
            await stream.next_chunk()
        async with stream:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await stream.collect()
        with pytest.raises(RuntimeError, match="once"):
            await stream.__aenter__()
        with pytest.raises(trio.ClosedResourceError):
            await stream.cancel()
    with pytest.raises(RuntimeError, match="left"):
        await client.complete(llm.fallback(A), "Hi")


async def test_two_tasks_can_not_take_chunks_at_once_before_the_decision(autojump_clock):
    async with llm.open_client(transport=server(a=says(*"abc", after=1.0))) as client:
        async with client.stream(llm.fallback(A), "Hi") as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.next_chunk)
                await trio.testing.wait_all_tasks_blocked()
                for again in (
                    stream.next_chunk,
                    stream.next_chunks,
                    stream.collect,
                    stream.receive,
                ):
                    with pytest.raises(trio.BusyResourceError):
                        await again()
                with pytest.raises(trio.BusyResourceError):
                    await stream.__anext__()


@pytest.mark.parametrize("how", ["cancel", "reject", "aclose"])
async def test_who_waits_gets_the_end_when_another_ends_it(how, autojump_clock):
    got: list[Any] = []
    async with llm.open_client(transport=server(a=reply(hang), b=reply(hang))) as client:
        async with client.stream(llm.first_of(A, B, after=1.0), "Hi") as stream:

            async def wait() -> None:
                got.append(await stream.next_chunk())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(2)
                if how == "reject":
                    stream.reject()
                else:
                    await getattr(stream, how)()
        assert got == [None]
        assert stream.outcome is Outcome.CANCELLED
        assert stream.response.rejected is (how == "reject")
        assert [record.rejected for record in stream.records] == [how == "reject"] * 2
        assert [record.booked for record in stream.records] == [how != "reject"] * 2


async def test_leaving_at_the_moment_of_the_content_keeps_it(autojump_clock):
    async with llm.open_client(transport=server(a=says(*"abc"), b=says("b"))) as client:
        kept = set()
        for turns in range(12):
            async with client.stream(llm.first_of(A, B, after=1.0), "Hi") as stream:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            record = stream.records[0] if stream.records else None
            if record is not None:
                assert record.outcome is stream.outcome
            kept.add(stream.response.content)
        assert all("abc".startswith(text) for text in kept)
        assert "" in kept
        assert len(kept) > 1


async def test_collect_or_cancel(autojump_clock):
    transport = server(a=reply(hang), b=says("b"))
    async with llm.open_client(transport=transport) as client:
        event = trio.Event()
        async with client.stream(llm.first_of(A, B, after=1.0), "Hi") as stream:
            collected = await stream.collect_or_cancel(event)
            assert (collected.status, collected.response.content) == ("finished", "b")
        event.set()
        async with client.stream(llm.first_of(A, B, after=1.0), "Hi") as stream:
            collected = await stream.collect_or_cancel(event)
            assert collected.status == "interrupted"


async def test_the_begin_of_a_whole_answer_is_told(autojump_clock):
    begun: list[float] = []
    async with llm.open_client(transport=server(a=says("a", after=1.0), b=FAILS)) as client:
        stream = client.stream(llm.fallback(A), "Hi")
        await stream.complete(lambda: begun.append(trio.current_time()))
        assert begun == [1.0]


async def test_it_ends_with_the_clients_block(autojump_clock):
    transport = server(a=reply(hang), b=reply(hang))
    got: list[Any] = []

    async def use(client: llm.Client, choice: Any, task_status: Any) -> None:
        async with client.stream(choice, "Hi") as stream:
            task_status.started()
            got.append((await stream.next_chunk(), stream.outcome))

    async with trio.open_nursery() as nursery:
        for wait in (0, 0.5, 2):
            async with llm.open_client(transport=transport) as client:
                await nursery.start(use, client, llm.first_of(A, B, after=1.0))
                if wait:
                    await trio.sleep(wait)
    assert got == [(None, Outcome.CANCELLED)] * 3
    assert transport.open_bodies == 0


async def test_a_shielded_reader_gets_the_end_of_what_was_cancelled_outside(autojump_clock):
    transport = server(a=reply(hang), b=reply(hang))
    async with llm.open_client(transport=transport) as client:
        with trio.move_on_after(3) as scope:
            async with client.stream(llm.first_of(A, B, after=1.0), "Hi") as stream:
                with trio.CancelScope(shield=True):
                    assert await stream.next_chunk() is None
                    assert stream.outcome is Outcome.CANCELLED
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert booked(client) == [("a", "cancelled"), ("b", "cancelled")]


async def test_a_model_that_fails_as_all_are_cancelled(autojump_clock):
    """At any step; which of the tasks comes first in one is Trio's dice."""
    choice = llm.first_of(llm.fallback(A, B), C, after=0)
    for step in [*range(30)] * 8:
        transport = server(a=FAILS, b=FAILS, c=FAILS)
        async with llm.open_client(transport=transport, retry=ONCE) as client:
            with trio.CancelScope() as scope:
                async with client.stream(choice, "Hi"):
                    for _ in range(step):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            booked(client)


async def test_nothing_is_kept_alive(autojump_clock):
    transport = server(a=reply(hang), b=says("b"))
    async with llm.open_client(transport=transport) as client:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            await client.complete(llm.first_of(A, B, after=1.0), "Hi")
        gc.collect()
        assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.parametrize("until", ["begun", "left before", "whole"])
async def test_a_stream_that_is_kept_keeps_no_prompt(until, autojump_clock):
    class Prompt(list[Any]):
        pass

    transport = server(a=reply(hang), b=says("b", "c", after=1.0))
    async with llm.open_client(transport=transport) as client:
        prompt = Prompt([llm.user("Hi")])
        held = weakref.ref(prompt)
        async with client.stream(llm.first_of(A, B, after=1.0), prompt) as stream:
            del prompt
            if until == "left before":
                await trio.sleep(1.5)
                await stream.cancel()
            elif until == "whole":
                await stream.collect()
            else:
                await stream.next_chunk()
            await trio.lowlevel.checkpoint()
            gc.collect()
            assert held() is None


async def test_over_sockets(autojump_clock):
    autojump_clock.autojump_threshold = 0.02
    reason = testing.sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    opening = testing.sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    late = reply(opening, 0.5, reason, 0.5, reason, 0.5, *testing.openai_events(*"abc"))
    answers = {"a": reply(hang), "b": late, "c": says(*"xyz")}

    def answer(request: ServedRequest) -> Reply:
        return answers[request.json()["model"]]

    async with testing.serve(answer) as server:
        a, b, c = (llm.compatible(name, base_url=server.base_url) for name in "abc")
        timeouts = llm.Timeouts(connect=None)
        async with llm.open_client(timeouts=timeouts) as client:
            for choice, content in [
                (llm.first_of(a, b, after=2.0), "abc"),
                (llm.first_of(a, a, llm.fallback(c, b), after=1.0), "xyz"),
            ]:
                await testing.check_stream(
                    lambda choice=choice: client.stream(choice, "Hi", raw=True)
                )
                response = await client.complete(choice, "Hi")
                assert response.content == content
        await server.left_with(0)


@pytest.mark.parametrize("way", ["iterate", "batches", "receive", "leave"])
async def test_the_ways_to_the_end_if_all_fail(way, autojump_clock):
    async with llm.open_client(transport=server(a=FAILS, b=FAILS), retry=ONCE) as client:
        async with client.stream(llm.fallback(A, B), "Hi") as stream:
            if way == "leave":
                await trio.sleep(1)
            else:
                with pytest.raises(llm.ModelsExhausted):
                    if way == "iterate":
                        async for _ in stream:
                            pass
                    else:
                        await (stream.next_chunks() if way == "batches" else stream.receive())
                assert await stream.next_chunks() == []
                assert [chunk async for chunk in stream] == []
        assert stream.outcome is Outcome.ERRORED
        assert isinstance(stream.error, llm.ModelsExhausted)


@pytest.mark.parametrize("way", ["iterate", "leave"])
async def test_a_bug_in_a_stream_is_raised(way, autojump_clock, monkeypatch):
    bug = ZeroDivisionError("a bug")

    def broken(*args: Any) -> Any:
        raise bug

    transport = server(a=reply(hang), b=reply(1.0, *testing.openai_events("b")))
    async with llm.open_client(transport=transport) as client:
        monkeypatch.setattr(ChunkDecoder, "feed", broken)
        with pytest.raises(ZeroDivisionError):
            async with client.stream(llm.first_of(A, B, after=2.0), "Hi") as stream:
                if way == "iterate":
                    await stream.next_chunk()
                await trio.sleep(9)
    assert transport.open_bodies == 0


# -- cancelled anywhere --------------------------------------------------------------------------


async def iterate(client: llm.Client, choice: Any) -> None:
    async with client.stream(choice, "Hi") as stream:
        async for _ in stream:
            pass


async def complete(client: llm.Client, choice: Any) -> None:
    await client.complete(choice, "Hi")


async def stop(client: llm.Client, choice: Any) -> None:
    async with client.stream(choice, "Hi") as stream:
        await stream.next_chunk()
        await stream.cancel()


async def leave(client: llm.Client, choice: Any) -> None:
    async with client.stream(choice, "Hi"):
        await trio.sleep(2.5)


WALKED = {
    "hedged": (llm.first_of(A, B, after=2.0), reply(hang), says(*"abc", after=1.0)),
    "failed": (llm.fallback(A, B), FAILS, says(*"abc")),
    "all failed": (llm.fallback(A, llm.first_of(A, B, after=1.0)), FAILS, FAILS),
    "in time": (llm.first_of(A, B, after=2.0), says(*"abc"), says("b")),
}


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize("use", [iterate, complete, stop, leave])
async def test_cancelled_at_every_step(name, use, autojump_clock):
    choice, a, b = WALKED[name]
    for step in itertools.count(1):
        transport, scope = server(a=a, b=b), trio.CancelScope()
        async with llm.open_client(transport=transport, retry=ONCE) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancelled_at, step, scope, use, client, choice)
            assert transport.open_bodies == 0
            records = client.ledger.recent
            assert len({record.key for record in records}) == client.ledger.attempts
            assert len(records) >= len(transport.bodies), "each that was sent is there"
            assert len(records) <= 3
            if use is not leave:
                numbers = sorted(record.attempt for record in records)
                assert numbers == list(range(1, len(numbers) + 1))
            transport.replies = (says("next"),)
            assert (await client.complete(A, "Hi")).content == "next"
        if not scope.cancel_called:
            assert step > 7
            return


async def _cancelled_at(step: int, scope: trio.CancelScope, use: Any, *args: Any) -> None:
    instrument = CancelAtStep(step, scope, trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(instrument)
    try:
        with scope:
            with contextlib.suppress(llm.MiniLLMError):
                await use(*args)
    finally:
        trio.lowlevel.remove_instrument(instrument)


# -- any script ----------------------------------------------------------------------------------

END = 1000.0
"""Seconds of the clock ``total``."""

scripts = st.tuples(
    st.sampled_from(["whole", "cut", "fails", "wrong", "hangs"]), st.integers(0, 40)
)
trees = st.recursive(
    st.just("leaf"),
    lambda inner: st.tuples(
        st.one_of(st.none(), st.integers(0, 30)), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=4,
).filter(lambda tree: tree != "leaf")


class Expected:
    """The plain rules, as a list of events in time: who is asked when, and who wins."""

    def __init__(self, tree: Any, told: list[tuple[str, float]]) -> None:
        self.told, self.events, self.order = told, [], itertools.count()
        self.asked: list[int] = []
        self.ended: list[int] = []
        self.won: int | None = None
        self.first_wrong: int | None = None
        self.at = 0.0
        self.numbers = itertools.count()
        self.over = False
        self._ask(self._numbered(tree), 0.0, self._all_failed)
        last = -1.0
        while not self.over and self.won is None:
            self.at, _, do = heapq.heappop(self.events)
            close = abs(self.at - last) < 1e-6 and self.at < END
            assume(not close)
            last = self.at
            do()

    def _all_failed(self, leaves: list[int], at: float) -> None:
        self.over = True

    def _numbered(self, tree: Any) -> Any:
        if tree == "leaf":
            return next(self.numbers)
        return (tree[0], [self._numbered(one) for one in tree[1]])

    def _at(self, at: float, do: Any) -> None:
        heapq.heappush(self.events, (at, next(self.order), do))

    def _ask(self, node: Any, at: float, tell: Any) -> None:
        if isinstance(node, int):
            self._ask_one(node, at, tell)
            return
        after, children = node
        state = {"next": 0, "running": 0, "timer": 0, "failed": []}

        def ask_next(at: float) -> None:
            child = children[state["next"]]
            state["next"] += 1
            state["running"] += 1
            state["timer"] += 1
            mine = state["timer"]
            if after is not None and state["next"] < len(children):
                self._at(at + after + 0.0101 * len(children), lambda: due(mine))
            self._ask(child, at, failed)

        def due(timer: int) -> None:
            if timer == state["timer"] and state["next"] < len(children):
                ask_next(self.at)

        def failed(leaves: list[int], at: float) -> None:
            state["running"] -= 1
            state["failed"] += leaves
            if any(self.told[leaf][0] in ("wrong", "hangs") for leaf in leaves):
                state["next"] = len(children)
            if state["next"] < len(children):
                ask_next(at)
            elif not state["running"]:
                tell(state["failed"], at)

        ask_next(at)

    def _ask_one(self, leaf: int, at: float, tell: Any) -> None:
        self.asked.append(leaf)
        kind, seconds = self.told[leaf]
        ends = END if kind == "hangs" else at + seconds + 0.0003 * (leaf + 1)

        def end() -> None:
            if kind in ("whole", "cut"):
                self.won = leaf
            else:
                if kind in ("wrong", "hangs") and self.first_wrong is None:
                    self.first_wrong = leaf
                self.ended.append(leaf)
                tell([leaf], self.at)

        self._at(ends, end)


def choice_of(tree: Any, names: Any) -> Any:
    if tree == "leaf":
        return model(f"m{next(names)}")
    after, children = tree
    inner = [choice_of(one, names) for one in children]
    if after is None:
        return llm.fallback(*inner)
    return llm.first_of(*inner, after=after + 0.0101 * len(children))


def reply_of(leaf: int, kind: str, seconds: float) -> Reply:
    wait = seconds + 0.0003 * (leaf + 1)
    if kind == "hangs":
        return reply(hang)
    if kind in ("whole", "cut"):
        made = reply(wait, *testing.openai_events(f"m{leaf} ", "x"))
        return made | faults.cut(-200) if kind == "cut" else made
    return msgspec.structs.replace(FAILS if kind == "fails" else WRONG, wait=wait)


@settings(max_examples=300)
@given(trees, st.lists(scripts, min_size=12, max_size=12))
def test_any_script(tree: Any, told: list[tuple[str, float]]) -> None:
    expected = Expected(tree, told)
    replies = {f"m{n}": reply_of(n, *one) for n, one in enumerate(told)}
    transport = server(**replies)
    choice = choice_of(tree, itertools.count())
    timeouts = llm.Timeouts(first_chunk=None, idle=None, byte_idle=None, connect=None, total=END)

    async def main() -> None:
        async with llm.open_client(transport=transport, retry=ONCE, timeouts=timeouts) as client:
            error: llm.MiniLLMError | None = None
            async with client.stream(choice, "Hi") as stream:
                first_at = None
                try:
                    async for chunk in stream:
                        if first_at is None and chunk.delta:
                            first_at = trio.current_time()
                except llm.MiniLLMError as exc:
                    error = exc
            assert asked(transport) == [f"m{leaf}" for leaf in expected.asked]
            outcomes = dict(booked(client))
            assert len(outcomes) == len(expected.asked) == client.ledger.attempts
            if expected.won is not None:
                assert first_at == pytest.approx(expected.at)
                assert stream.response.content.startswith(f"m{expected.won} ")
                cut = told[expected.won][0] == "cut"
                assert isinstance(error, llm.StreamTruncated) if cut else error is None
                assert outcomes.pop(f"m{expected.won}") == ("truncated" if cut else "finished")
            elif expected.first_wrong is not None:
                wrong = told[expected.first_wrong][0] == "wrong"
                assert isinstance(error, llm.RefusedError if wrong else llm.StreamTimeout)
                assert trio.current_time() == pytest.approx(expected.at)
            elif len(expected.asked) == 1:
                assert isinstance(error, llm.RefusedError)
            else:
                assert isinstance(error, llm.ModelsExhausted)
                assert error.models == tuple(f"compatible:m{leaf}" for leaf in expected.asked)
            for name, outcome in outcomes.items():
                failed = int(name[1:]) in expected.ended
                assert outcome == ("errored" if failed else "cancelled")
        assert transport.open_bodies == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# -- values, and where they are refused ----------------------------------------------------------


def test_a_choice_is_a_value():
    one = llm.first_of(A, llm.fallback(B, C, on=["clock"]), after=2)
    assert one == llm.first_of(A, llm.fallback(B, C, on="clock"), after=2.0)
    assert hash(one) == hash(copy.copy(one))
    assert one != llm.fallback(A, B, C)
    assert one.all == (A, B, C)
    shown = "first_of(<Model compatible:a>, fallback(<Model compatible:b>, <Model compatible:c>), after=2)"
    assert repr(one) == shown
    assert list(one.__rich_repr__()) == [shown]
    with pytest.raises(AttributeError):
        one.after = 3.0


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: llm.fallback(), ValueError, "at least one"),
        (lambda: llm.fallback(A, "gpt"), TypeError, "each model must be Model"),
        (lambda: llm.first_of(A, B, after=-1), ValueError, "after must be"),
        (lambda: llm.first_of(A, B, after="p95"), ValueError, "after must be"),
        (lambda: llm.fallback(A, B, on="weather"), ValueError, "on must hold words"),
        (lambda: llm.fallback(A, B, on=[ValueError]), TypeError, "each failure"),
        (lambda: llm.fallback(A, B, on=ValueError), TypeError, "each failure"),
        (lambda: llm.fallback(A, B, on=3), TypeError, "on must be"),
    ],
)
def test_misuse_of_a_choice(make, error, words):
    with pytest.raises(error, match=words):
        make()


async def test_a_parameter_that_one_of_the_wires_lacks_is_refused_before_anything_is_sent():
    transport = server(a=says("a"))
    other = llm.anthropic("claude", base_url="http://c.invalid", api_key="k")
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(ValueError, match=r"anthropic:claude: .*seed") as caught:
            client.stream(llm.fallback(A, llm.first_of(B, other, after=1)), "Hi", seed=3)
        assert "Hi" not in str(caught.value)
        for name, value in (("price", PRICE), ("headers", {"x-key": "k"})):
            with pytest.raises(TypeError, match=f"{name} can't apply to several"):
                await client.complete(llm.fallback(A, B), "Hi", **{name: value})
        with pytest.raises(TypeError, match="model must be a Model"):
            client.stream("gpt", "Hi")
        assert transport.bodies == []


async def test_where_one_model_is_needed_a_choice_is_refused(tmp_path):
    choice = llm.fallback(A, B)
    async with llm.open_client(transport=server(a=says("a"))) as client:
        for use in (
            lambda: client.batch(["Hi"], model=choice),
            lambda: client.vendor_batch(["Hi"], model=choice, journal=tmp_path / "j"),
            lambda: llm.estimate(choice, "Hi"),
        ):
            with pytest.raises(TypeError, match=r"first_of and fallback are for client\.stream"):
                use()


async def test_the_requests_are_each_models_own(autojump_clock):
    transport = server(a=FAILS, b=says("b"))
    first = model("a", extra={"mine": 3}, headers={"x-mine": "a"})
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        await client.complete(llm.fallback(first, B), "Hi", max_tokens=5, extra={"ours": "u"})
    a, b = transport.bodies
    assert (a["mine"], b.get("mine")) == (3, None)
    assert a["ours"] == b["ours"] == "u"
    assert [request.headers.get("x-mine") for request in transport.requests] == ["a", None]


async def test_a_scope_and_its_meta_hold(autojump_clock):
    transport = server(a=FAILS, b=says("b"))
    async with llm.open_client(transport=transport, retry=ONCE) as client:
        scope = client.scope(meta={"user": 1})
        async with scope.stream(llm.fallback(A, B), "Hi", meta={"turn": 2}) as stream:
            await take(stream, "b")
            assert stream.meta == {"user": 1, "turn": 2}
        assert client.ledger.by_meta("user")[1].attempts == 2


# -- the benchmark -------------------------------------------------------------------------------


def test_the_benchmark_shows_what_it_gains(monkeypatch):
    """A server whose 95th percentile is ten times its median: the bar that the docs speak of."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    hedging = importlib.import_module("hedging")
    alone = hedging.measure(hedging.few_slow, None, 400)
    hedged = hedging.measure(hedging.few_slow, 2.0, 400)
    assert alone.p95 > 9 * alone.p50
    assert hedged.p99 <= 0.3 * alone.p99
    assert alone.sent == 400 < hedged.sent <= 1.07 * 400
    assert alone.cost < hedged.cost <= alone.cost * Decimal("1.03")
    page = hedging.PAGE.read_text().partition(hedging.BEGIN)[2].partition(hedging.END)[0]
    for row in hedging.ROWS["6 % slow"]:
        assert f"| 6 % slow | {'never' if row is None else f'{row:g} s'} |" in page
