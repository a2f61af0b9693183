"""A batch as a whole, on the virtual clock, against servers that are functions."""

from __future__ import annotations

import errno
import json
import math
import random
import ssl
from collections import Counter, deque
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm.batch import Attempt, BatchRequest, BatchResult, TraceEvent
from trio_minillm.testing import Reply, ScriptedTransport, hang, model, openai_events, reply, sse

from ..support.streams import CancelAtStep

GOOD = b"".join(openai_events("ok"))
PRICE = llm.TokenPrice(input=1, output=1)


def requests(count, **options):
    return [BatchRequest(f"k{n}", f"prompt {n}", **options) for n in range(count)]


class Answer(Exception):
    """Refusal that a server function may raise."""

    def __init__(self, status, code=None, message="no", **headers):
        self.status, self.code, self.message = status, code, message
        self.headers = {k.replace("_", "-"): str(v) for k, v in headers.items()}


class Server(httpx.AsyncBaseTransport):
    """A server that is an async function of the request's number and body; it may raise `Answer`."""

    def __init__(self, function=None, seconds=1.0):
        self.function = function
        self.seconds = seconds
        self.running = self.most = self.count = 0
        self.prompts = []
        self.at = []
        self.headers = {}

    async def handle_async_request(self, request):
        body = json.loads(await request.aread())
        trace = request.extensions.get("trace")
        if trace is not None:
            await trace("http11.send_request_body.complete", {})
        number, self.count = self.count, self.count + 1
        self.prompts.append(body["messages"][0]["content"])
        self.at.append(trio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.function is not None:
                await self.function(number, body)
            await trio.sleep(self.seconds)
        except Answer as exc:
            error = {"message": exc.message, "code": exc.code}
            return httpx.Response(exc.status, headers=exc.headers, json={"error": error})
        finally:
            self.running -= 1
        headers = {"content-type": "text/event-stream", **self.headers}
        return httpx.Response(200, headers=headers, content=GOOD)


async def run(server, asked, **options):
    """All results, and the statistics at the end."""
    options.setdefault("model", model())
    async with llm.open_client(transport=server) as client:
        async with client.batch(asked, **options) as results:
            return [result async for result in results], results.statistics()


# -- results -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 7, "auto"])
async def test_every_request_has_one_result(autojump_clock, concurrency):
    server = Server()
    found, statistics = await run(server, requests(50), concurrency=concurrency)
    assert sorted(r.index for r in found) == list(range(50))
    assert all(r.ok and r.response.content == "ok" and r.key == f"k{r.index}" for r in found)
    assert server.count == 50
    assert server.most <= (16 if concurrency == "auto" else concurrency)
    assert (statistics.ok, statistics.failed, statistics.running) == (50, 0, 0)
    assert statistics.total == statistics.done == statistics.pulled == statistics.attempts == 50
    assert statistics.completion_tokens == 50
    assert statistics.ttft_p50 == pytest.approx(1.0, rel=0.02)


async def test_a_result_says_what_its_attempts_took_and_cost(autojump_clock):
    async def fails_once(number, body):
        if number == 0:
            await trio.sleep(0.5)
            raise Answer(503, retry_after=3, x_request_id="req-1")

    asked = [BatchRequest("a", "Hello", model(price=PRICE), {"max_tokens": 5}, meta={"target": 7})]
    (result,), statistics = await run(Server(fails_once), asked)
    first, second = result.attempts
    assert (first.error, first.kind, first.status) == ("RefusedError", "overloaded", 503)
    assert (first.retry_after, first.request_id, first.usage) == (3.0, "req-1", None)
    assert second.error is None
    assert second.usage.total_tokens == 8
    assert second.cost.amount == result.cost.amount == statistics.cost
    assert 3.0 <= second.waited <= 3.5
    assert second.timings.first_chunk == pytest.approx(1.0)
    assert first.record != second.record
    assert result.outcome is llm.Outcome.FINISHED
    assert result.meta == {"target": 7}
    assert (statistics.attempts, statistics.retries) == (2, 1)


async def test_input_order_on_request_and_no_further_than_the_window(autojump_clock):
    async def slow_first(number, body):
        if body["messages"][0]["content"] == "prompt 0":
            await trio.sleep(100)
            assert len(pulled) == 20

    pulled = []

    def asked():
        for request in requests(100):
            pulled.append(request)
            yield request

    server = Server(slow_first)
    async with llm.open_client(transport=server) as client:
        batch = client.batch(asked(), model=model(), concurrency=5, ordered=True, window=20)
        async with batch as results:
            async for result in results:
                if result.index == 0:
                    assert trio.current_time() == pytest.approx(101)
    assert result.index == 99


async def test_samples_are_requests_of_their_own(autojump_clock):
    server = Server()
    found, _ = await run(server, requests(3), samples=4, ordered=True)
    expected = [(index, sample) for index in range(3) for sample in range(4)]
    assert [(r.index, r.sample) for r in found] == expected
    assert server.count == 12


async def test_a_request_names_the_samples_that_it_lacks(autojump_clock):
    server = Server()
    first, second, third = requests(3)
    asked = [
        msgspec.structs.replace(first, samples=(1, 5)),
        msgspec.structs.replace(second, samples=[0]),
        third,
    ]
    found, statistics = await run(server, asked, samples=2, ordered=True)
    assert [(r.index, r.sample) for r in found] == [(0, 1), (0, 5), (1, 0), (2, 0), (2, 1)]
    assert statistics.total == statistics.pulled == statistics.done == 5


@pytest.mark.parametrize("samples", [(), (-1,), (0, 0), ("0",), (True,)])
def test_samples_are_different_numbers(samples):
    with pytest.raises(ValueError, match="samples must be"):
        BatchRequest("k", "x", samples=samples)


async def test_a_handler_is_awaited_with_one_result_after_the_other(autojump_clock):
    running, seen = 0, []

    async def handler(result):
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(0.1)
        running -= 1
        seen.append(result.key)

    async with llm.open_client(transport=Server()) as client:
        statistics = await client.batch(requests(20), model=model()).run(handler)
    assert len(set(seen)) == statistics.ok == 20


async def test_requests_are_pulled_no_further_ahead_than_they_can_be_sent(autojump_clock):
    pulled = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield BatchRequest(f"k{pulled}", "Hello")

    taken = 0
    async with llm.open_client(transport=Server()) as client:
        async with client.batch(endless(), model=model(), concurrency=10) as results:
            async for _ in results:
                taken += 1
                assert pulled <= taken + 10 + 256 + 100 + 1
                if taken == 2_000:
                    break
    assert pulled < 2_500


async def test_an_async_input_is_waited_for_and_closed(autojump_clock):
    closed = []

    async def trickle():
        try:
            for request in requests(100):
                await trio.sleep(10)
                yield request
        finally:
            closed.append(True)

    async with llm.open_client(transport=Server()) as client:
        async with client.batch(trickle(), model=model()) as results:
            async for result in results:
                assert trio.current_time() == pytest.approx(10 * (result.index + 1) + 1)
                if result.index == 4:
                    break
    assert closed


async def test_no_requests_are_no_results(autojump_clock):
    assert (await run(Server(), []))[0] == []


async def test_a_slow_consumer_holds_up_the_sending(autojump_clock):
    server = Server()
    async with llm.open_client(transport=server) as client:
        options = {"concurrency": 4, "buffer": 10}
        async with client.batch(requests(100), model=model(), **options) as results:
            await trio.sleep(1_000)
            assert server.count <= 10 + 4
            assert sum([1 async for _ in results]) == 100


async def test_results_are_taken_after_the_end_as_before(autojump_clock):
    async def crash(number, body):
        if number == 3:
            await trio.sleep(1)
            raise ZeroDivisionError

    keys = []
    async with llm.open_client(transport=Server(crash)) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.batch(requests(9), model=model(), concurrency=2, buffer=1) as results:
                async for result in results:
                    keys.append(result.request.key)
                    await trio.sleep(
                        1.5
                    )  # one is ready meanwhile: nothing is sent before it is taken
        assert len(keys) == 3
        results.update(concurrency=5)  # which is too late, and no error


async def test_others_may_watch(autojump_clock):
    async with llm.open_client(transport=Server()) as client:
        seen = []
        async with client.batch(requests(60), model=model(), concurrency=5) as results:
            slow = results.watch(buffer=5, policy="drop_oldest")

            async def watch():
                async with results.watch(buffer=3) as whole:
                    async for result in whole:
                        await trio.sleep(0.5)
                        seen.append(result.key)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.testing.wait_all_tasks_blocked()
                keys = [result.key async for result in results]
            assert seen == keys
            assert slow.dropped == 55
            assert [result.key async for result in slow] == keys[-5:]
        assert [result async for result in results.watch()] == []


async def test_who_stops_watching_holds_up_nobody(autojump_clock):
    async with llm.open_client(transport=Server()) as client:
        async with client.batch(requests(60), model=model(), concurrency=5) as results:
            watch = results.watch(buffer=1)
            async with trio.open_nursery() as nursery:

                async def leave():
                    await trio.sleep(100)
                    watch.close()
                    watch.close()

                nursery.start_soon(leave)
                assert len([result async for result in results]) == 60
    assert trio.current_time() > 100


# -- errors --------------------------------------------------------------------------------------------


async def test_what_will_not_pass_is_not_tried_again(autojump_clock):
    async def no(number, body):
        raise Answer(400)

    server = Server(no)
    found, statistics = await run(server, requests(3))
    assert [type(r.error) for r in found] == [llm.RefusedError] * 3
    assert server.count == statistics.failed == 3
    assert not any(r.ok for r in found)
    assert all(r.error.__traceback__ is None for r in found)  # whose frames have the prompt


async def test_broken_answers_are_tried_again(autojump_clock):
    transport = ScriptedTransport(
        reply(*openai_events("a", "b")[:2]),
        reply(*openai_events("a")[:2], hang),
        Reply(steps=(GOOD,)),
    )
    (result,), statistics = await run(transport, requests(1), timeouts=llm.Timeouts(idle=5.0))
    assert [a.error for a in result.attempts] == ["EndedEarly", "StreamTimeout", None]
    assert [a.outcome for a in result.attempts] == ["truncated", "errored", "finished"]
    assert result.ok
    assert statistics.retries == 2


async def test_attempts_have_an_end(autojump_clock):
    async def no(number, body):
        raise Answer(500)

    server = Server(no)
    (result,), _ = await run(server, requests(1), retry=llm.Retry(attempts=3))
    assert len(result.attempts) == server.count == 3
    assert result.error.status == 500


@pytest.mark.parametrize(
    ("status", "refused"),
    [(413, True), (404, True), (429, True), (503, True), (500, False), (504, False)],
)
async def test_what_a_refusal_costs_is_unknown_as_in_the_ledger(autojump_clock, status, refused):
    async def no(number, body):
        raise Answer(status)

    ledger = llm.Ledger()
    async with llm.open_client(transport=Server(no), ledger=ledger) as client:
        options = {"model": model(), "retry": llm.Retry(attempts=1)}
        async with client.batch(requests(1), **options) as batch:
            (result,) = [result async for result in batch]
    (attempt,), (record,) = result.attempts, ledger.recent
    assert result.cost == attempt.cost == record.cost == llm.CostInfo()
    assert attempt.refused is refused  # behind a server that failed, a model may have answered
    counted = {} if refused else {llm.CostResolution.UNKNOWN: 1}
    assert batch.statistics().resolutions == counted


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), ConnectionRefusedError(111, "no")])
async def test_an_attempt_says_why_it_was_not_sent(autojump_clock, error):
    transport = httpx.MockTransport(lambda request: (_ for _ in ()).throw(error))
    (result,), statistics = await run(transport, requests(1), retry=llm.Retry(attempts=1))
    refused = isinstance(error, ConnectionRefusedError)
    (attempt,) = result.attempts
    assert attempt.refused is refused
    assert attempt.reason == result.error.reason == ("refused" if refused else None)
    assert statistics.newest_failure == attempt
    assert result.cost == attempt.cost == llm.CostInfo()


async def test_retry_after_delays_the_attempt_and_nobody_else(autojump_clock):
    async def first(number, body):
        if number == 0:
            raise Answer(429, retry_after=50)

    found, _ = await run(Server(first), requests(30), concurrency=2)
    assert found[-1].index == 0
    assert len(found[-1].attempts) == 2
    assert found[-1].attempts[1].waited >= 50
    assert 50 < trio.current_time() < 70


async def test_a_deadline_counts_from_the_first_attempt_and_includes_waits(autojump_clock):
    async def no(number, body):
        raise Answer(503, retry_after=30)

    found, _ = await run(Server(no), requests(4), concurrency=4, deadline=70.0, ordered=True)
    assert trio.current_time() == pytest.approx(70, abs=1)  # also those that waited for the others
    for result in found:
        assert result.error is not None
        assert len(result.attempts) in (1, 2, 3)
        assert sum(a.waited for a in result.attempts[1:]) < 70
    hanging = ScriptedTransport(reply(hang))
    (result,), _ = await run(hanging, requests(1), deadline=70.0)
    assert (result.error.clock, result.error.limit) == ("total", 70.0)


async def test_a_deadline_is_kept_by_who_is_behind_others_in_a_pause(autojump_clock):
    """The first to be tried again is not the first whose time is over."""
    started, ended = {}, {}

    async def no(number, body):
        key = body["messages"][0]["content"].replace("prompt ", "k")
        started.setdefault(key, trio.current_time())
        raise Answer(503, retry_after=20 if key == "k0" else 5)

    server = Server(no)
    async with llm.open_client(transport=server) as client:
        asked = client.batch(
            requests(12), model=model(), concurrency=12, deadline=30.0, requests_per_minute=60
        )
        await asked.run(lambda result: ended.update({result.key: trio.current_time()}))
    assert len(ended) == 12
    for key, at in ended.items():
        assert at - started.get(key, at) <= 30.01, key


@pytest.mark.parametrize(
    ("status", "code"), [(429, "insufficient_quota"), (402, None), (401, None)]
)
async def test_what_no_request_would_escape_ends_the_run_at_once(autojump_clock, status, code):
    async def out(number, body):
        if number >= 10:
            raise Answer(status, code)

    server, keys = Server(out, seconds=5.0), []
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(500), model=model(), concurrency=4) as results:
            with pytest.raises(llm.RefusedError) as caught:
                async for result in results:
                    keys.append(result.key)
            assert results.stopped is caught.value
            statistics = results.statistics()
            assert [r async for r in results] == []
    assert caught.value.status == status
    assert len(keys) == statistics.ok == 10
    assert server.count <= 14
    assert statistics.unsent == statistics.pulled - 10
    assert statistics.failed == statistics.running == 0


@pytest.mark.parametrize(("status", "code"), [(404, "model_not_found"), (403, None), (405, None)])
@pytest.mark.parametrize("concurrency", [1, 20, 1_000, "auto"])
@pytest.mark.parametrize("count", [5, 2_000])
async def test_refusals_of_one_cause_before_any_answer_end_the_run_and_fail_no_request(
    autojump_clock, status, code, concurrency, count
):
    async def out(number, body):
        raise Answer(status, code)

    server = Server(out)
    async with llm.open_client(transport=server) as client:
        batch = client.batch(requests(count), model=model(), concurrency=concurrency)
        async with batch as results:
            with pytest.raises(llm.RefusedError) as caught:
                async for result in results:
                    raise AssertionError(result)
            assert results.stopped is caught.value
            statistics = results.statistics()
    assert caught.value.status == status
    assert statistics.failed == statistics.running == 0
    assert statistics.unsent == statistics.pulled
    assert min(count, 10) <= server.count <= 32


async def test_numbers_in_the_words_of_a_refusal_make_it_no_other_cause(autojump_clock):
    async def out(number, body):
        raise Answer(404, message=f"no such model (request req-{number:04}a)")

    server = Server(out)
    async with llm.open_client(transport=server) as client:
        with pytest.raises(llm.RefusedError):
            await client.batch(requests(100), model=model(), concurrency=4).run()
    assert server.count < 20


async def test_who_waits_for_a_refusal_to_go_on_gets_it(autojump_clock):
    """Requests that come only when the results of others are there are held up by none of them."""

    async def out(number, body):
        raise Answer(404)

    async def asked():
        for number, request in enumerate(requests(6)):
            while len(found) < number // 3 * 3:
                await trio.sleep(1.0)
            yield request

    found = []
    async with llm.open_client(transport=Server(out)) as client:
        async with client.batch(asked(), model=model()) as results:
            with pytest.raises(llm.RefusedError):
                async for result in results:
                    found.append(result.key)
    assert sorted(found) == ["k0", "k1", "k2"]


async def test_refusals_that_were_held_are_results_once_another_is_accepted(autojump_clock):
    async def out(number, body):
        if number < 5:
            raise Answer(404)

    found, statistics = await run(Server(out), requests(30), concurrency=6)
    assert len(found) == 30
    assert sum(not result.ok for result in found) == statistics.failed == 5


async def test_refusals_that_are_held_at_the_stop_bind_no_request(autojump_clock):
    async def out(number, body):
        await trio.sleep(number)
        raise Answer(404)

    async with llm.open_client(transport=Server(out)) as client:
        async with client.batch(requests(8), model=model(), concurrency=8) as results:
            await trio.sleep(3.5)
            results.stop()
            assert [result async for result in results] == []
            statistics = results.statistics()
    assert (statistics.failed, statistics.unsent) == (0, 8)


async def test_a_model_that_is_not_there_ends_its_lane_and_no_other(autojump_clock):
    async def out(number, body):
        if body["model"] == "bad":
            raise Answer(404, "model_not_found")

    asked = [
        BatchRequest(
            key=str(n), messages="Hi", model=llm.compatible(name, base_url="http://llm.invalid/v1")
        )
        for n, name in enumerate(["good", "bad"] * 400)
    ]
    found = []
    async with llm.open_client(transport=Server(out)) as client:
        async with client.batch(asked, concurrency=2) as results:
            with pytest.raises(llm.RefusedError):
                async for result in results:
                    assert results.stopped is None
                    found.append(result)
            assert results.stopped is not None
            statistics = results.statistics()
    assert (len(found), all(result.ok for result in found)) == (400, True)
    assert (statistics.unsent, statistics.failed) == (400, 0)
    assert [c.kind for c in statistics.controls if c.model == "bad"] == ["closed"]


@pytest.mark.parametrize("good", [0, 5])
async def test_refusals_of_other_causes_or_behind_an_answer_end_nothing(autojump_clock, good):
    async def out(number, body):
        if good:
            if number != good:
                raise Answer(404, "model_not_found")
        elif number % 9 == 0:
            raise Answer(400, "bad")
        else:
            raise Answer(404, "model_not_found")

    async with llm.open_client(transport=Server(out)) as client:
        async with client.batch(requests(40), model=model(), concurrency=1) as results:
            found = [result async for result in results]
    assert len(found) == 40
    assert sum(result.ok for result in found) == bool(good)


async def test_limits_end_the_run_and_what_runs_is_waited_for(autojump_clock):
    server = Server()
    limits = llm.Limits(max_tokens=80)  # eight each
    async with llm.open_client(transport=server) as client:
        batch = client.batch(requests(100), model=model(), concurrency=3, limits=limits)
        keys = []
        with pytest.raises(llm.BudgetExceeded):
            async with batch as results:
                async for result in results:
                    keys.append(result.key)
    assert 10 <= len(keys) == server.count <= 12
    assert client.ledger.attempts == len(keys)


async def test_limits_of_the_client_count_too_and_raising_ours_goes_on(autojump_clock):
    async with llm.open_client(transport=Server()) as client:
        batch = client.batch(
            requests(20), model=model(), concurrency=1, limits=llm.Limits(max_tokens=40)
        )
        async with batch as results:
            count = 0
            async for _ in results:
                count += 1
                if count == 3:
                    results.update(limits=llm.Limits(max_tokens=1000))
            assert count == 20


async def test_limits_that_come_while_it_runs_stop_what_runs_already(autojump_clock):
    async with llm.open_client(transport=Server(seconds=3.0)) as client:
        async with client.batch(requests(100), model=model(), concurrency=4) as results:
            await anext(results)
            await trio.sleep(1.0)
            results.update(limits=llm.Limits(max_tokens=1, running="cancel"))
            with pytest.raises(llm.BudgetExceeded, match="max_tokens is reached: 32 tokens"):
                async for _ in results:
                    pass
            assert trio.current_time() == pytest.approx(4.0)
            assert results.statistics().ok == 4


async def test_after_stop_what_runs_comes_to_its_end(autojump_clock):
    server, found = Server(), []
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(100), model=model(), concurrency=4) as results:
            async for result in results:
                found.append(result)
                results.stop()
            statistics = results.statistics()
    assert 4 <= len(found) == server.count <= 8
    assert statistics.unsent == statistics.pulled - len(found)
    assert results.stopped is None


async def test_a_batch_that_was_stopped_before_it_began_sends_nothing(autojump_clock):
    server = Server()
    async with llm.open_client(transport=server) as client:
        batch = client.batch(requests(10), model=model())
        batch.stop()
        async with batch as results:
            assert [r async for r in results] == []
    assert server.count == 0


async def test_who_waits_for_another_attempt_at_the_stop_has_no_result(autojump_clock):
    async def down(number, body):
        raise Answer(500, retry_after=100)

    async with llm.open_client(transport=Server(down)) as client:
        async with client.batch(requests(3), model=model()) as results:
            await trio.sleep(50)
            assert results.statistics().waiting == {"retry": 3}
            results.stop()
            assert [r async for r in results] == []
            assert results.statistics().unsent == 3


async def test_cancel_keeps_the_results_that_are_there(autojump_clock):
    async def later(number, body):
        await trio.sleep(0 if number < 3 else 1_000)

    server = Server(later)
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(10), model=model(), concurrency=6) as results:
            await trio.sleep(10)
            results.cancel()
            assert sorted([r.index async for r in results]) == [0, 1, 2]
    assert trio.current_time() < 50
    assert client.ledger.outcomes == {"finished": 3, "cancelled": 6}


# -- structure -----------------------------------------------------------------------------------------


async def test_leaving_the_block_cancels_what_runs_and_books_it(autojump_clock):
    transport = ScriptedTransport(reply(GOOD[:200], hang))
    async with llm.open_client(transport=transport) as client:
        async with client.batch(requests(100), model=model(), concurrency=9):
            await trio.sleep(5)
            assert transport.open_bodies == 9
        assert transport.open_bodies == 0
        assert client.ledger.outcomes == {"cancelled": 9}


@pytest.mark.parametrize("where", ["input", "async input", "item", "params", "model"])
async def test_bugs_come_out_as_themselves(autojump_clock, where):
    def asked():
        yield from requests(3)
        if where == "input":
            raise KeyError("bug")
        if where == "item":
            yield "not a request"
        if where == "params":
            yield BatchRequest("bad-one", "Hello", params={"temprature": 1})
        if where == "model":
            yield BatchRequest("bad-one", "Hello")

    async def asked_async():
        for request in asked():
            yield request
        raise KeyError("bug")

    kinds = {"input": KeyError, "async input": KeyError, "model": ValueError}
    given = asked_async() if where == "async input" else asked()
    usual = None if where == "model" else model()
    if where == "model":
        given = [msgspec.structs.replace(r, model=model()) for r in requests(3)]
        given.append(BatchRequest("bad-one", "Hello"))
    with pytest.raises(kinds.get(where, TypeError)) as caught:
        await run(Server(), given, model=usual)
    if where in ("params", "model"):
        assert "bad-one" in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))


async def test_a_bug_comes_out_of_the_block_if_nobody_iterates(autojump_clock):
    with pytest.raises(KeyError):
        async with llm.open_client(transport=Server()) as client:
            async with client.batch(map({}.__getitem__, [1]), model=model()):
                await trio.sleep(1)


async def test_an_exception_of_the_block_comes_out_as_itself(autojump_clock):
    with pytest.raises(KeyError):
        async with llm.open_client(transport=Server()) as client:
            async with client.batch(requests(9), model=model()):
                raise KeyError


async def test_a_score_that_fails_comes_out_as_itself(autojump_clock):
    def score(result):
        raise KeyError

    with pytest.raises(KeyError):
        await run(Server(), requests(9), score=score)


async def test_cancellation_goes_through(autojump_clock):
    with trio.move_on_after(5.5) as scope:
        await run(Server(), requests(1_000), concurrency=2)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(5.5)


@pytest.mark.parametrize("first", range(0, 240, 40))
async def test_cancelled_at_any_step_nothing_is_left(first):
    for step in range(first, first + 40):
        transport = ScriptedTransport(Reply(steps=(GOOD,)))
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(step, scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                await run(transport, requests(3), concurrency=2)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert transport.open_bodies == 0


async def test_misuse_is_told_at_the_call():
    async with llm.open_client(transport=Server()) as client:
        for wrong in ({"adapt": "rate"}, {"adapt": "off"}):
            with pytest.raises(ValueError, match="adapt"):
                client.batch([], **wrong)
        for wrong in ({"concurrency": 0}, {"concurrency": "many"}, {"samples": 0}, {"buffer": 1.5}):
            with pytest.raises(ValueError, match="whole number"):
                client.batch([], **wrong)
        for wrong in (
            {"requests_per_minute": 0},
            {"tokens_per_minute": math.inf},
            {"deadline": -1},
        ):
            with pytest.raises(ValueError, match="above 0"):
                client.batch([], **wrong)
        for wrong in (
            {"limits": 5},
            {"retry": 3},
            {"model": "gpt"},
            {"trace": 3},
            {"concurency": 4},
        ):
            with pytest.raises(TypeError):
                client.batch([], **wrong)
        for wrong in (5, "text", None):
            with pytest.raises(TypeError, match="iterable"):
                client.batch(wrong)
        batch = client.batch([])
        with pytest.raises(RuntimeError, match="async with"):
            await anext(batch)
        async with batch:
            with pytest.raises(TypeError, match="can't be changed while it runs: ordered"):
                batch.update(ordered=True)
            with pytest.raises(TypeError, match="unknown option: nope"):
                batch.update(nope=1)
            with pytest.raises(ValueError, match="policy"):
                batch.watch(policy="drop")
        with pytest.raises(RuntimeError, match="once"):
            await batch.__aenter__()


KNOWN = llm.CostInfo(Decimal("0.25"), llm.CostResolution.RESOLVED)
LEAST = llm.CostInfo(Decimal("0.5"), llm.CostResolution.LOWER_BOUND)
UNPRICED = llm.CostInfo(None, llm.CostResolution.UNPRICED)
UNKNOWN = llm.CostInfo()


@pytest.mark.parametrize(
    ("attempts", "amount", "resolution"),
    [
        ([], "0", "resolved"),  # from a cache
        ([("refused", UNKNOWN)], None, "unknown"),
        ([("unsent", UNKNOWN), ("refused", UNKNOWN)], None, "unknown"),
        ([("refused", UNKNOWN), ("paid", KNOWN)], "0.25", "resolved"),
        ([("refused", UNKNOWN), ("unsent", UNKNOWN), ("paid", LEAST)], "0.5", "lower_bound"),
        # Behind a server that failed, a model may have answered.
        ([("failed", UNKNOWN), ("paid", KNOWN)], "0.25", "lower_bound"),
        ([("broken", KNOWN), ("paid", KNOWN)], "0.50", "resolved"),
        ([("broken", LEAST), ("paid", KNOWN)], "0.75", "lower_bound"),
        ([("broken", KNOWN), ("paid", UNPRICED)], None, "unpriced"),
        ([("broken", UNPRICED), ("broken", UNKNOWN)], None, "unknown"),
        ([("cut", UNKNOWN)], None, "unknown"),
        ([("cut", UNKNOWN), ("refused", UNKNOWN)], None, "unknown"),
        # An answer of which nothing came may have cost something.
        ([("cut", UNKNOWN), ("paid", KNOWN)], "0.25", "lower_bound"),
    ],
)
def test_a_result_costs_what_its_attempts_cost(attempts, amount, resolution):
    facts = {
        "refused": {"error": "RefusedError", "kind": "rate_limit", "status": 429},
        "failed": {"error": "RefusedError", "kind": "server", "status": 500},
        "unsent": {"error": "SendError", "reason": "refused"},
        "cut": {"error": "ConnectionCut"},
        "broken": {"error": "ConnectionCut", "usage": llm.Usage(completion_tokens=1)},
        "paid": {"usage": llm.Usage(completion_tokens=1)},
    }
    made = tuple(
        Attempt(outcome=llm.Outcome.FINISHED, started=datetime.now(UTC), cost=cost, **facts[what])
        for what, cost in attempts
    )
    cost = BatchResult(request=requests(1)[0], index=0, attempts=made).cost
    assert ((cost.amount and str(cost.amount)) or amount, cost.resolution) == (amount, resolution)
    assert (cost.amount is None) == (amount is None)


def test_values_show_no_prompt_and_check_their_key():
    request = BatchRequest("k", "the secret prompt")
    assert "secret" not in repr(request) + repr(BatchResult(request=request, index=0))
    for wrong, kind in ((5, TypeError), ("", ValueError)):
        with pytest.raises(kind):
            BatchRequest(wrong, "Hello")


# -- control -------------------------------------------------------------------------------------------


async def test_a_model_that_is_down_does_not_hold_up_another(autojump_clock):
    async def down(number, body):
        if body["model"] == "a":
            raise Answer(503)

    a, b = (llm.compatible(name, base_url="http://test.invalid/v1") for name in "ab")
    asked = requests(100, model=a) + requests(100, model=b)
    ended = Counter()
    async with llm.open_client(transport=Server(down)) as client:
        async with client.batch(asked, concurrency=8) as results:
            async for result in results:
                ended[result.request.model.name] += result.ok
                if ended["b"] == 100:
                    break
    assert trio.current_time() < 60


async def test_concurrency_and_rates_can_be_changed_while_it_runs(autojump_clock):
    server = Server()
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(2_000), model=model(), concurrency=2) as results:
            done = 0
            async for _ in results:
                done += 1
                if done == 20:
                    assert server.most == 2
                    results.update(concurrency=30)
                if done == 320:
                    assert server.most == 30
                    results.update(requests_per_minute=60)
                    at, before = trio.current_time(), server.count
                if done == 420:
                    per_second = (server.count - before) / (trio.current_time() - at)
                    assert 0.9 < per_second < 1.4
                    assert "requests" in results.statistics().waiting
                    results.update(requests_per_minute=None, concurrency="auto")
    assert done == 2_000


async def test_tokens_a_minute_are_kept_by_what_answers_really_took(autojump_clock):
    found, _ = await run(Server(), requests(300), tokens_per_minute=2400, concurrency=50)
    assert len(found) == 300  # of eight tokens each: a minute's worth
    assert 50 < trio.current_time() < 75


class Minute(Server):
    """Allows so many requests a minute, counted in one of three ways."""

    def __init__(self, per_minute, counts, told=False):
        super().__init__(self.check, 0.5)
        self.per_minute, self.counts, self.told = per_minute, counts, told
        self.level, self.level_at = per_minute / 6, 0.0
        self.log = deque()
        self.accepted, self.refused = [], []

    async def check(self, number, body):
        await trio.sleep(0.01)
        now = trio.current_time()
        if self.counts == "bucket":
            gained = (now - self.level_at) * self.per_minute / 60
            self.level, self.level_at = min(self.per_minute / 6, self.level + gained), now
            good = self.level >= 1
            self.level -= good
            left = int(self.level)
        else:
            until = now - 60 if self.counts == "log" else now // 60 * 60
            while self.log and self.log[0] <= until - (self.counts == "window") * 1e-9:
                self.log.popleft()
            good = len(self.log) < self.per_minute
            if good:
                self.log.append(now)
            left = self.per_minute - len(self.log)
        if self.told:
            self.headers = {
                "x-ratelimit-limit-requests": str(self.per_minute),
                "x-ratelimit-remaining-requests": str(left),
                "x-ratelimit-reset-requests": f"{self.whole_in(now):.3f}s",
            }
        (self.accepted if good else self.refused).append(now)
        if not good:
            raise Answer(429, **self.headers)

    def whole_in(self, now):
        """Seconds until as many may be sent as ever. Some may be long before."""
        if self.counts == "bucket":
            return (self.per_minute / 6 - self.level) * 60 / self.per_minute
        return 60 - (now - self.log[-1] if self.counts == "log" else now % 60)


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
@pytest.mark.parametrize("concurrency", [60, "auto"])
@pytest.mark.parametrize("counts", ["bucket", "window", "log"])
async def test_a_limit_is_used_and_hardly_ever_crossed(autojump_clock, counts, concurrency, told):
    server = Minute(600, counts, told)

    def endless():
        number = 0
        while True:
            number += 1
            yield BatchRequest(f"k{number}", "Hello")

    with trio.move_on_after(180):
        await run(server, endless(), concurrency=concurrency)
    late = [at for at in server.refused if at > 10]
    sent = len(late) + sum(at > 10 for at in server.accepted)
    assert len(server.accepted) >= 0.95 * 600 * 3
    assert len(late) <= 0.02 * sent + 8  # and a window's first end, where nothing was known


@pytest.mark.parametrize("concurrency", [20, "auto"])
@pytest.mark.parametrize(("share", "most"), [(0.01, 2.0), (0.05, 2.5), (0.2, 3.2), (0.5, 6.4)])
async def test_refusals_at_random_don_t_slow_a_run_down(autojump_clock, share, most, concurrency):
    """At 20 at once, a run without refusals takes 2.5 virtual seconds; ``most`` times as many are allowed, 1.6
    times what it takes.
    """
    chance, took = random.Random(7), []

    async def maybe(number, body):
        await trio.sleep(0.05)
        if chance.random() < share:
            raise Answer(429)

    for _ in range(3):  # the waits are chance as well: the one in the middle counts
        began = trio.current_time()
        found, _ = await run(Server(maybe, 0.0), requests(1_000), concurrency=concurrency)
        assert len(found) == 1_000
        took.append(trio.current_time() - began)
    assert sorted(took)[1] < 2.5 * most


async def test_a_refusal_is_heard_before_hundreds_follow(autojump_clock):
    """All answers come at once, and each could be followed by another request."""
    refused = 0

    async def full(number, body):
        nonlocal refused
        if number >= 2_400:
            refused += 1
            raise Answer(429)

    server = Server(full)
    asked = (BatchRequest(f"k{n}", "Hello") for n in range(10_000))
    with trio.move_on_after(30):
        await run(server, asked, concurrency=400)
    assert server.count > 2_400
    assert server.most >= 400
    assert refused <= 80


async def test_a_server_that_slows_down_gets_what_it_can_do(autojump_clock):
    async def slows(number, body):
        await trio.sleep(0.5 * (server.running / 16) ** 2)

    best = 0
    for concurrency in (8, 16, 32):
        server = Server(slows, seconds=0.5)
        _, statistics = await run(server, requests(400), concurrency=concurrency)
        best = max(best, 400 / statistics.elapsed)
    server = Server(slows, seconds=0.5)
    _, statistics = await run(server, requests(1_500), concurrency="auto")
    assert 1_500 / statistics.elapsed >= 0.9 * best


async def test_tokens_a_minute_hold_the_first_wave_back_as_well(autojump_clock):
    """Before any answer has told what it took, a request counts by its length."""
    sent_at = []

    async def check(number, body):
        sent_at.append(trio.current_time())

    asked = [BatchRequest(str(i), "x" * 4_000, params={"max_tokens": 8}) for i in range(20)]
    await run(Server(check), asked, tokens_per_minute=60_000, concurrency=20)
    early = sum(at < 0.5 for at in sent_at)
    assert early <= 3  # a second is worth one request of a thousand tokens


@pytest.mark.parametrize("number", [1, 5])
async def test_a_bug_that_strikes_several_at_once_comes_out_as_itself(autojump_clock, number):
    def broken(request):
        raise ZeroDivisionError

    transport = ScriptedTransport(broken)
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(ZeroDivisionError):
            await client.batch(requests(number), model=model(), concurrency=5).run()


async def test_bugs_of_the_block_and_of_the_batch_come_out_together(autojump_clock):
    def broken():
        yield from requests(1)
        raise KeyError("input")

    async with llm.open_client(transport=Server()) as client:
        with pytest.raises(ExceptionGroup) as caught:
            async with client.batch(broken(), model=model()):
                await trio.sleep(5)
                raise OSError("block")
    assert [type(one) for one in caught.value.exceptions] == [OSError, KeyError]


async def test_a_bug_in_a_block_that_is_cancelled_comes_out_as_itself(autojump_clock):
    def score(result):
        raise ZeroDivisionError

    transport = ScriptedTransport()
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(ZeroDivisionError), trio.move_on_after(1):
            async with client.batch(requests(3), model=model(), score=score):
                await trio.sleep(10)


async def test_a_plain_function_may_handle_results(autojump_clock):
    found = []
    async with llm.open_client(transport=ScriptedTransport()) as client:
        await client.batch(requests(3), model=model(), buffer=None).run(found.append)
    assert len(found) == 3


async def test_a_server_that_never_answers_ends_the_run(autojump_clock):
    transport = ScriptedTransport(Reply(error=httpx.ConnectError("refused")))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.SendError, match="refused"):
            await client.batch(requests(500), model=model(), concurrency=50).run()
    assert 60 < trio.current_time() < 300


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_refuses_for_minutes_is_waited_for(autojump_clock, status):
    async def closed(number, body):
        if trio.current_time() < 400:
            raise Answer(status)

    found, _ = await run(Server(closed), requests(3), retry=llm.Retry(attempts=50))
    assert [result.ok for result in found] == [True] * 3
    assert trio.current_time() > 400


@pytest.mark.parametrize("asked", [7_200, 86_400])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("concurrency", [1, 20, 1_000, "auto"])
async def test_a_server_that_refuses_for_hours_ends_the_run_and_says_until_when(
    autojump_clock, asked, status, concurrency
):
    async def closed(number, body):
        if number >= 3:
            raise Answer(status, retry_after=asked)

    server, keys = Server(closed), []
    async with llm.open_client(transport=server) as client:
        batch = client.batch(requests(500), model=model(), concurrency=concurrency)
        async with batch as results:
            with pytest.raises(
                llm.RefusedUntil, match=r"^the server refuses until .*\(in "
            ) as caught:
                async for result in results:
                    keys.append(result.key)
            assert results.stopped is caught.value
            statistics = results.statistics()
    assert f"(in {asked // 3600} h 00 min): HTTP {status}" in str(caught.value)
    assert caught.value.retry_after == asked
    wait = caught.value.until.timestamp() - datetime.now(UTC).timestamp()
    assert asked - 600 < wait < asked + 600
    assert len(keys) == statistics.ok == 3
    assert (statistics.failed, statistics.unsent) == (0, statistics.pulled - 3)
    assert server.count < 50
    assert trio.current_time() < 30


async def test_a_deadline_is_what_is_waited_for_at_most(autojump_clock):
    async def closed(number, body):
        raise Answer(429, retry_after=100)

    async with llm.open_client(transport=Server(closed)) as client:
        batch = client.batch(requests(50), model=model(), concurrency=5, deadline=60.0)
        with pytest.raises(llm.RefusedUntil):
            await batch.run()
        assert batch.statistics().failed == 0


async def test_one_wait_for_all_where_the_server_says_when_to_come_back(autojump_clock):
    async def closed(number, body):
        if 5.0 < trio.current_time() < 1_800.0:
            raise Answer(429, retry_after=f"{1_800.0 - trio.current_time():.0f}")

    server = Server(closed)
    found, _ = await run(server, requests(200), concurrency=10)
    assert all(result.ok for result in found)
    assert len(found) == 200
    assert sum(5.0 < at < 1_790.0 for at in server.at) < 20
    assert trio.current_time() < 2_000  # the pauses, of a minute at most, may have just begun


@pytest.mark.parametrize("concurrency", [1, 20])
async def test_a_server_that_asks_for_an_hour_and_accepts_others_is_not_believed(
    autojump_clock, concurrency
):
    async def lies(number, body):
        if number % 20 == 3:
            raise Answer(429, retry_after=7_200)

    found, statistics = await run(Server(lies), requests(200), concurrency=concurrency)
    assert all(result.ok for result in found)
    assert (len(found), statistics.unsent) == (200, 0)
    assert trio.current_time() < 600


async def test_one_request_that_is_always_told_to_wait_fails_alone(autojump_clock):
    async def closed(number, body):
        if body["messages"][0]["content"] == "prompt 3":
            raise Answer(429, retry_after=7_200)

    found, _ = await run(Server(closed), requests(100), concurrency=4)
    assert [result.key for result in found if not result.ok] == ["k3"]


@pytest.mark.parametrize("why", [(429, "insufficient_quota"), (429, None)])
async def test_a_model_that_is_refused_for_hours_holds_up_no_other(autojump_clock, why):
    async def closed(number, body):
        if body["model"] == "bad":
            raise Answer(*why, retry_after=7_200)

    asked = [
        BatchRequest(
            key=str(n), messages="Hi", model=llm.compatible(name, base_url="http://llm.invalid/v1")
        )
        for n, name in enumerate(["good", "bad"] * 50)
    ]
    async with llm.open_client(transport=Server(closed)) as client:
        batch = client.batch(asked, concurrency=4)
        with pytest.raises(llm.RefusedUntil):
            await batch.run()
        statistics = batch.statistics()
    assert (statistics.ok, statistics.failed, statistics.unsent) == (50, 0, 50)


class Flaky(Server):
    """A server whose network is down for a time."""

    def __init__(self, begin, end):
        super().__init__()
        self.begin, self.end = begin, end
        self.tries = 0

    async def handle_async_request(self, request):
        self.tries += 1
        if self.begin <= trio.current_time() < self.end:
            await trio.lowlevel.checkpoint()
            raise httpx.ConnectError("no") from OSError(errno.EHOSTUNREACH, "no route")
        return await super().handle_async_request(request)


@pytest.mark.parametrize("concurrency", [1, 20, "auto"])
@pytest.mark.parametrize("outage", [(0.0, 60.0), (5.5, 900.0)])
async def test_an_outage_of_the_network_costs_no_request_and_no_attempt(
    autojump_clock, concurrency, outage
):
    server = Flaky(*outage)
    async with llm.open_client(transport=server) as client:
        count = 100 if concurrency == 1 else 1_000
        batch = client.batch(requests(count), model=model(), concurrency=concurrency, buffer=1_000)
        async with batch as results:
            await trio.sleep(outage[0] + 3.0)
            (control,) = [c for c in results.statistics().controls if c.kind == "pause"]
            assert "nothing can be sent, the host can't be reached: no route to it" in str(control)
            found = [result async for result in results]
    assert (len(found), all(result.ok for result in found)) == (count, True)
    assert trio.current_time() < outage[1] + 60 + 110
    assert server.tries < count + 200


async def test_a_network_that_does_not_come_back_ends_the_run_after_an_hour(autojump_clock):
    async with llm.open_client(transport=Flaky(5.5, math.inf)) as client:
        batch = client.batch(requests(100), model=model(), concurrency=5)
        with pytest.raises(llm.SendError, match="no route"):
            await batch.run()
        statistics = batch.statistics()
    assert statistics.failed == 0
    assert 3_600 < trio.current_time() < 3_800


async def test_one_request_that_can_not_be_sent_fails_alone(autojump_clock):
    async def breaks(number, body):
        if body["messages"][0]["content"] == "prompt 3":
            raise httpx.ConnectError("no") from OSError(errno.ECONNRESET, "reset")

    found, _ = await run(Server(breaks), requests(300), concurrency=4)
    assert [result.key for result in found if not result.ok] == ["k3"]


# -- the log of its control ---------------------------------------------------------------------------


async def refuse_some(number, body):
    if number % 7 == 3:
        raise Answer(503)


async def test_a_trace_has_every_decision_and_a_state_each_second(autojump_clock, tmp_path):
    path, told = tmp_path / "control.jsonl", []
    for trace in (path, told.append):
        random.seed(1)
        begin = trio.current_time()
        server = Server(refuse_some)
        _, statistics = await run(server, requests(100), trace=trace, concurrency=5)
        seconds = trio.current_time() - begin
    lines = path.read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=TraceEvent) for line in lines]
    assert sum(event.event == "sample" for event in found) == pytest.approx(seconds, abs=2)
    assert sum(event.event == "refused" for event in found) == statistics.retries > 10
    assert {event.event for event in told} == {event.event for event in found}
    assert all((event.model, event.host) == (model().name, "test.invalid") for event in found)
    assert [event.time for event in found] == sorted(event.time for event in found)
    assert b"prompt" not in path.read_bytes()


async def test_a_lane_that_is_closed_is_in_the_trace(autojump_clock):
    async def out(number, body):
        raise Answer(401)

    told = []
    with pytest.raises(llm.RefusedError):
        await run(Server(out), requests(3), trace=told.append)
    found = [(event.event, event.why) for event in told]
    assert found.count(("closed", "RefusedError")) == 1
    assert ("refused", "auth 401") in found


@pytest.mark.parametrize("last", [False, True])
async def test_a_trace_that_fails_ends_the_run(autojump_clock, last):
    def bug(event):
        if not last or event.event == "refused":
            raise ZeroDivisionError

    async def no(number, body):
        raise Answer(400)

    with pytest.raises(ZeroDivisionError):
        await run(Server(no if last else None, seconds=5), requests(1), trace=bug)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
async def test_a_trace_on_a_full_disk_ends_and_nothing_else(autojump_clock, caplog):
    found, _ = await run(Server(seconds=5), requests(100), trace="/dev/full", concurrency=2)
    assert sum(result.ok for result in found) == 100
    (record,) = caplog.records
    assert record.getMessage().startswith("the trace /dev/full can't be written (No space left")


async def test_a_trace_that_can_not_be_written_is_told_before_anything_is_sent(
    autojump_clock, tmp_path
):
    server = Server()
    with pytest.raises(FileNotFoundError):
        await run(server, requests(1), trace=tmp_path / "no" / "where")
    assert server.count == 0


# -- the ledger ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "kept"),
    [
        ({"user": "ann"}, {"user": "ann"}),
        ("ann", "ann"),
        (None, None),
        ({"text": "x" * 70_000}, None),  # too large for a ledger
        ({1, object()}, None),  # no JSON
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
async def test_the_meta_of_a_request_is_in_the_ledger(
    meta, kept, in_file, tmp_path, autojump_clock
):
    ledger = llm.JSONLLedger(tmp_path / "costs.jsonl") if in_file else llm.Ledger()
    async with llm.open_client(transport=Server(), ledger=ledger) as client:
        async with client.batch([BatchRequest("a", "Hi", model(), meta=meta)]) as results:
            async for result in results:
                assert result.ok
                assert result.meta is meta
    (record,) = ledger.recent
    assert record.meta == kept
    assert record.key == result.attempts[0].record


async def test_the_records_of_a_request_are_numbered(autojump_clock):
    async def refusing(number, body):
        if number < 2:
            raise Answer(503)

    async with llm.open_client(transport=Server(refusing)) as client:
        async with client.batch([BatchRequest("a", "Hi", model())]) as results:
            (result,) = [one async for one in results]
        numbers = {record.key: record.attempt for record in client.ledger.recent}
    assert [numbers[attempt.record] for attempt in result.attempts] == [1, 2, 3]


async def test_the_meta_of_a_request_is_added_to_that_of_the_scope(autojump_clock):
    async with llm.open_client(transport=Server()) as client:
        scope = client.scope(meta={"user": "ann"})
        asked = [BatchRequest("a", "Hi", model(), meta={"task": 1})]
        asked.append(BatchRequest("b", "Hi", model(), meta="no mapping"))
        await scope.batch(asked).run()
        metas = [record.meta for record in client.ledger.recent]
    assert sorted(metas, key=len) == [{"user": "ann"}, {"user": "ann", "task": 1}]


# -- the system's limits -----------------------------------------------------------------------------


class Crowded(Server):
    """A server behind a process that may have so many connections open."""

    def __init__(self, most_files, seconds=1.0):
        super().__init__(seconds=seconds)
        self.files = most_files
        self.tries = 0

    async def handle_async_request(self, request):
        self.tries += 1
        await trio.lowlevel.checkpoint()
        if self.running >= self.files:
            error = httpx.ConnectError("all attempts failed")
            raise error from OSError(errno.EMFILE, "Too many open files")
        return await super().handle_async_request(request)


@pytest.mark.parametrize("concurrency", [100, "auto"])
async def test_out_of_files_fewer_run_and_nothing_is_lost(autojump_clock, concurrency):
    server = Crowded(3)
    found, statistics = await run(server, requests(200), concurrency=concurrency)
    assert all(result.ok for result in found)
    assert statistics.ok == 200
    assert server.most == 3
    # The first wave finds out; from then on, one is tried whenever as many as run have ended.
    assert server.tries < 100 + 200 * 1.5
    assert trio.current_time() < 200 / 3 + 10, "no pause for a server that is well"


async def test_room_that_comes_back_is_used(autojump_clock):
    async def makes_room(number, body):
        if number == 30:
            server.files = 20

    server = Crowded(2)
    server.function = makes_room
    found, _ = await run(server, requests(300), concurrency=20)
    assert all(result.ok for result in found)
    assert server.most > 10


async def test_without_a_single_file_the_run_stops_and_fails_no_request(autojump_clock):
    server = Crowded(0)
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(10), model=model(), concurrency=4) as results:
            with pytest.raises(llm.SendError, match="too many open files"):
                async for result in results:
                    raise AssertionError(result)
            statistics = results.statistics()
    assert (statistics.ok, statistics.failed, statistics.unsent) == (0, 0, 10)
    assert server.count == 0


@pytest.mark.parametrize("answered", [False, True])
async def test_a_certificate_that_nobody_trusts(autojump_clock, answered):
    """Check that an untrusted certificate ends a batch only if nothing has ever answered.

    Every request would end so in that case. Otherwise it is one server of several.
    """

    async def untrusted(number, body):
        if number or not answered:
            raise httpx.ConnectError("no") from ssl.SSLCertVerificationError("unknown")

    server = Server(untrusted)
    found, raises = (
        [],
        nullcontext() if answered else pytest.raises(llm.SendError, match="rejected"),
    )
    async with llm.open_client(transport=server) as client:
        async with client.batch(requests(5), model=model(), concurrency=1) as results:
            with raises:
                found += [result.ok async for result in results]
    assert found == ([True, False, False, False, False] if answered else [])
    assert server.count == (5 if answered else 1), "none is sent again"


# -- what can't be read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "params", "lenient"),
    [
        ({}, {}, False),
        ({"lenient": True}, {}, True),
        ({}, {"lenient": True}, True),
        ({"lenient": True}, {"lenient": False}, False),  # a request's own word counts
    ],
)
async def test_a_lenient_batch_passes_over_malformed_events(
    options, params, lenient, autojump_clock
):
    events = openai_events("a", "b")
    transport = ScriptedTransport(reply(*events[:2], sse("{nonsense"), *events[2:]))
    async with llm.open_client(transport=transport) as client:
        batch = client.batch([BatchRequest("k", "Hi", model(), params)], **options)
        async with batch as results:
            (result,) = [result async for result in results]
    assert result.ok is lenient
    if lenient:
        assert (result.response.content, result.response.skipped_events) == ("ab", 1)
