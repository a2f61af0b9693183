"""Tests of what evaluations need of a batch: the cache, samples, valid answers, and scores."""

import json

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._batch.files.response_cache import ResponseCache
from trio_minillm._batch.files.result_format import fingerprint
from trio_minillm._toolkit.reasking import MAX_WORDS, asked_again, words_of
from trio_minillm.batch import BatchRequest
from trio_minillm.testing import ScriptedTransport, openai_events, reply


class City(msgspec.Struct):
    name: str
    people: int


def texts(*answers):
    return ScriptedTransport(*(reply(*openai_events(text)) for text in answers))


def requests(count, **params):
    return [BatchRequest(f"k{n}", f"question {n}", params=params) for n in range(count)]


async def results_of(transport, asked, **options):
    async with (
        llm.open_client(transport=transport) as client,
        client.batch(asked, model=testing.model(), **options) as batch,
    ):
        return [result async for result in batch], batch.statistics()


@pytest.fixture
def cache(tmp_path):
    with ResponseCache(tmp_path / "answers") as cache:
        yield cache


# -- the cache -----------------------------------------------------------------------------------


async def test_what_was_answered_once_is_not_sent_again(cache, autojump_clock):
    transport = texts("first")
    first, _ = await results_of(transport, requests(5), cache=cache)
    again, statistics = await results_of(transport, requests(7), cache=cache, ordered=True)
    assert len(transport.requests) == 7
    assert [r.cached for r in first] == [False] * 5
    assert [r.cached for r in again] == [True] * 5 + [False] * 2
    assert all(r.ok and r.response.content == "first" for r in again)
    assert (statistics.cached, statistics.ok, statistics.attempts) == (5, 7, 2)
    hit = again[0]
    assert hit.attempts == ()
    assert hit.cost == llm.CostInfo(hit.cost.amount, llm.CostResolution.RESOLVED, hit.cost.source)
    assert hit.cost.amount == 0
    assert transport.open_bodies == 0


async def test_only_hits_and_nothing_is_sent(cache, autojump_clock):
    transport = texts("first")
    await results_of(transport, requests(300), cache=cache)
    again, statistics = await results_of(
        transport, requests(300), cache=cache, concurrency=3, buffer=2, deadline=5
    )
    assert len(transport.requests) == 300
    assert {r.key for r in again} == {f"k{n}" for n in range(300)}
    assert statistics.attempts == statistics.running == 0


async def test_another_request_is_no_hit(cache, autojump_clock):
    transport = texts("first")
    await results_of(transport, requests(1), cache=cache)
    await results_of(transport, requests(1, temperature=0.5), cache=cache)
    assert len(transport.requests) == 2


async def test_failures_are_not_kept(cache, autojump_clock):
    transport = ScriptedTransport(
        reply(b'{"error":{"message":"no"}}', status=400), reply(*openai_events("yes"))
    )
    (failed,), _ = await results_of(transport, requests(1), cache=cache)
    (found,), _ = await results_of(transport, requests(1), cache=cache)
    assert not failed.ok
    assert found.response.content == "yes"
    assert not found.cached


async def test_a_slow_consumer_holds_hits_back(cache, autojump_clock):
    transport = texts("first")
    await results_of(transport, requests(50), cache=cache)
    pulled = []

    def asked():
        for request in requests(50):
            pulled.append(request.key)
            yield request

    async with (
        llm.open_client(transport=transport) as client,
        client.batch(asked(), model=testing.model(), cache=cache, concurrency=2, buffer=3) as batch,
    ):
        await trio.sleep(1)
        assert len(pulled) < 15
        assert len([r async for r in batch]) == 50


async def test_a_cache_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="cache must be a ResponseCache"):
        await results_of(texts("x"), requests(1), cache={})


# -- samples -------------------------------------------------------------------------------------


async def test_each_sample_is_an_answer_of_its_own_and_is_kept_so(cache, autojump_clock):
    transport = texts("a", "b", "c")
    options = {"cache": cache, "samples": 3, "concurrency": 1}
    first, _ = await results_of(transport, requests(1), **options)
    again, _ = await results_of(transport, requests(1), **options)
    assert len(transport.requests) == 3
    assert sorted((r.sample, r.response.content) for r in first) == sorted(
        (r.sample, r.response.content) for r in again
    )
    assert {r.response.content for r in first} == {"a", "b", "c"}
    more, _ = await results_of(transport, requests(1), **{**options, "samples": 4})
    assert len(transport.requests) == 4
    assert sum(r.cached for r in more) == 3


# -- values --------------------------------------------------------------------------------------


async def test_values_and_answers_that_are_none(cache, autojump_clock):
    transport = texts('{"name": "Paris", "people": 2}', '{"name": "Rome"}', "no JSON", "")
    asked = requests(4, response_format=City)
    options = {"ordered": True, "concurrency": 1, "cache": cache}
    for _ in range(2):  # sent, then from the cache
        results, statistics = await results_of(transport, asked, **options)
        good, missing, text, empty = results
        assert good.ok
        assert good.value == City("Paris", 2)
        assert good.invalid is None
        for bad, kind in (
            (missing, msgspec.ValidationError),
            (text, msgspec.DecodeError),
            (empty, msgspec.DecodeError),
        ):
            assert not bad.ok
            assert bad.error is None
            assert isinstance(bad.invalid, kind)
            assert bad.value is None
            assert bad.response.outcome is llm.Outcome.FINISHED
        assert (statistics.ok, statistics.failed) == (1, 3)
    assert len(transport.requests) == 4


# -- what won't do -------------------------------------------------------------------------------

PARIS = '{"name": "Paris", "people": 2}'


WANTED = "Give the whole answer again, corrected, and nothing else."


def asked_in(request):
    return [(m["role"], m["content"]) for m in json.loads(request.content)["messages"]]


async def test_an_invalid_answer_is_asked_again_with_what_is_wrong(autojump_clock):
    transport = texts('{"name": "Paris"}', PARIS)
    price = llm.TokenPrice(input=1, output=1)
    asked = [BatchRequest("k", "question", testing.model(price=price), {"response_format": City})]
    records = []

    async def book(record):
        records.append(record)

    async with llm.open_client(transport=transport, on_cost=book) as client:
        async with client.batch(asked, retries_invalid=2) as batch:
            (result,) = [result async for result in batch]
    assert (result.ok, result.value, result.invalid) == (True, City("Paris", 2), None)
    first, second = result.attempts
    assert first.invalid == "Object missing required field `people`"
    assert second.invalid is None
    assert [r.key for r in records] == [first.record, second.record]
    assert result.cost.amount == first.cost.amount + second.cost.amount
    assert asked_in(transport.requests[1]) == [
        ("user", "question"),
        ("assistant", '{"name": "Paris"}'),
        (
            "user",
            f"This answer can't be used: {first.invalid}\n{WANTED}",
        ),
    ]
    statistics = batch.statistics()
    assert (statistics.ok, statistics.attempts, statistics.asked_again) == (1, 2, 1)
    assert fingerprint(result.request) == fingerprint(asked[0])


async def test_the_last_answer_is_the_result_valid_or_not(autojump_clock):
    transport = texts("one", "two", "three", PARIS)
    (result,), statistics = await results_of(
        transport, requests(1, response_format=City), retries_invalid=2
    )
    assert (result.ok, result.error) == (False, None)
    assert isinstance(result.invalid, msgspec.DecodeError)
    assert result.response.content == "three"
    assert [attempt.invalid is None for attempt in result.attempts] == [False, False, True]
    assert len(asked_in(transport.requests[2])) == 5
    assert (statistics.failed, statistics.asked_again) == (1, 2)


async def test_asking_again_is_no_retry_of_the_transport(autojump_clock):
    busy = reply(b'{"error":{"message":"busy"}}', status=503)
    transport = ScriptedTransport(reply(*openai_events("no")), busy, reply(*openai_events(PARIS)))
    (result,), _ = await results_of(
        transport,
        requests(1, response_format=City),
        retries_invalid=1,
        retry=llm.Retry(attempts=2),
    )
    assert result.ok
    assert [a.status for a in result.attempts] == [None, 503, None]
    assert len(asked_in(transport.requests[2])) == 3


async def test_asking_again_keeps_to_the_rate(autojump_clock):
    transport = texts("no", PARIS)
    began = trio.current_time()
    options = {"retries_invalid": 1, "requests_per_minute": 6, "concurrency": 1}
    (result,), _ = await results_of(transport, requests(1, response_format=City), **options)
    assert result.ok
    assert trio.current_time() - began >= 10


async def test_asking_again_keeps_to_the_deadline(autojump_clock):
    slow = [6.0, *openai_events("no")]
    transport = ScriptedTransport(reply(*slow), reply(*slow))
    (late,), _ = await results_of(
        transport, requests(1, response_format=City), retries_invalid=1, deadline=10
    )
    assert isinstance(late.error, llm.StreamTimeout)
    assert late.error.limit == pytest.approx(4)
    transport = ScriptedTransport(reply(*slow))
    (waited,), _ = await results_of(
        transport,
        requests(1, response_format=City),
        retries_invalid=1,
        deadline=10,
        requests_per_minute=1,
    )
    assert isinstance(waited.error, llm.StreamTimeout)
    assert len(waited.attempts) == 1


async def test_an_answer_at_its_deadline_is_not_asked_again(autojump_clock):
    transport = texts("no")

    async def validate(result):
        await trio.sleep(20)
        raise ValueError("too late")

    (result,), _ = await results_of(
        transport, requests(1), retries_invalid=1, deadline=10, validate=validate
    )
    assert str(result.invalid) == "too late"
    assert len(transport.requests) == 1


async def test_asking_again_keeps_to_the_budget(autojump_clock):
    transport = texts("no", PARIS)
    model = testing.model(price=llm.TokenPrice(input=10**6, output=10**6))
    async with llm.open_client(transport=transport) as client:
        asked = requests(1, response_format=City)
        options = {"retries_invalid": 1, "limits": llm.Limits(max_cost=1)}
        async with client.batch(asked, model=model, **options) as batch:
            with pytest.raises(llm.BudgetExceeded):
                [result async for result in batch]
    assert len(transport.requests) == 1
    assert batch.statistics().unsent == 1


async def test_a_run_that_stops_asks_nothing_again(autojump_clock):
    transport = ScriptedTransport(reply(5.0, *openai_events("no")))
    async with llm.open_client(transport=transport) as client:
        asked = requests(1, response_format=City)
        async with client.batch(asked, model=testing.model(), retries_invalid=1) as batch:
            await trio.sleep(1)
            batch.stop()
            assert [result async for result in batch] == []
    assert (batch.statistics().unsent, len(transport.requests)) == (1, 1)


async def test_the_cache_has_each_answer_under_its_own_question(cache, autojump_clock):
    transport = texts("no", PARIS, "never sent")
    asked = requests(1, response_format=City)
    await results_of(transport, asked, cache=cache, retries_invalid=2)
    (again,), statistics = await results_of(transport, asked, cache=cache, retries_invalid=2)
    assert (again.ok, again.cached, again.attempts, again.cost.amount) == (True, True, (), 0)
    assert (statistics.cached, statistics.asked_again) == (1, 1)
    (direct,), _ = await results_of(transport, asked, cache=cache)
    assert (direct.ok, direct.cached, direct.response.content) == (False, True, "no")
    assert len(transport.requests) == 2


async def test_an_answer_that_stays_invalid_is_not_kept(cache, autojump_clock):
    transport = texts("no", "still no", PARIS)
    asked = requests(1, response_format=City)
    options = {"cache": cache, "retries_invalid": 1, "deadline": 60}
    await results_of(transport, asked, **options)
    (found,), _ = await results_of(transport, asked, **options)
    assert (found.ok, found.cached, len(found.attempts)) == (True, False, 1)
    assert len(asked_in(transport.requests[2])) == 3


@pytest.mark.parametrize("waits", [False, True])
async def test_a_function_says_what_will_do(waits, autojump_clock):
    def check(result):
        if "please" not in result.response.content:
            raise ValueError("it must say please")

    async def check_slowly(result):
        await trio.sleep(1)
        check(result)

    transport = texts("no", "yes, please")
    (result,), _ = await results_of(
        transport, requests(1), validate=check_slowly if waits else check, retries_invalid=1
    )
    assert (result.ok, result.attempts[0].invalid) == (True, "it must say please")
    (bad,), _ = await results_of(texts("no"), requests(1), validate=check)
    assert (bad.ok, str(bad.invalid), bad.attempts[0].invalid) == (
        False,
        "it must say please",
        None,
    )

    def bug(result):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await results_of(texts("no"), requests(1), validate=bug)


async def test_a_function_is_not_asked_about_answers_of_another_type(autojump_clock):
    seen = []
    transport = texts("no", PARIS)
    await results_of(
        transport,
        requests(2, response_format=City),
        concurrency=1,
        validate=lambda result: seen.append(result.value),
    )
    assert seen == [City("Paris", 2)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retries_invalid": -1}, ValueError),
        ({"retries_invalid": True}, ValueError),
        ({"validate": 5}, TypeError),
    ],
)
async def test_options_that_can_not_be(options, error):
    with pytest.raises(error, match=f"{next(iter(options))} must be"):
        await results_of(texts("x"), requests(1), **options)


def test_words_for_the_model_are_few_and_on_one_line():
    assert words_of(ValueError("a\n  b")) == "a b"
    assert words_of(ValueError("x" * 9_000)) == "x" * (MAX_WORDS - 1) + "…"
    assert words_of(ValueError()) == "it can't be read"
    assert words_of(RecursionError("deep")) == "it can't be read"
    assert words_of(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")) == "it can't be read"


def test_an_answer_without_text_has_a_turn_of_its_own():
    call = llm.ToolCall(id="c", name="f")
    for choice, said in (
        (llm.Choice(parts=(call,), tool_calls=(call,)), "(no text)"),
        (llm.Choice(refusal="I won't."), "I won't."),
        (llm.Choice(content=" text \n"), "text"),
    ):
        answer = llm.CompletionResponse(choices=(choice,))
        turns = asked_again("question", answer, "no")
        assert [(m.role, m.text) for m in turns[:2]] == [("user", "question"), ("assistant", said)]
        assert len(turns[1].parts) == 1


# -- scores --------------------------------------------------------------------------------------


async def test_a_score_of_each_result(cache, autojump_clock):
    transport = texts("yes", "no")
    (yes, no), _ = await results_of(
        transport,
        requests(2),
        ordered=True,
        concurrency=1,
        cache=cache,
        score=lambda result: result.response.content == "yes",
    )
    assert (yes.score, no.score) == (True, False)

    async def slow(result):
        await trio.sleep(5)
        return len(result.response.content)

    began = trio.current_time()
    again, _ = await results_of(transport, requests(2), ordered=True, cache=cache, score=slow)
    assert [r.score for r in again] == [3, 2]
    assert trio.current_time() - began == pytest.approx(5)  # side by side
    assert len(transport.requests) == 2


async def test_failed_results_are_scored_too(autojump_clock):
    transport = ScriptedTransport(reply(b'{"error":{"message":"no"}}', status=400))
    (failed,), _ = await results_of(transport, requests(1), score=lambda result: result.ok)
    assert failed.score is False


@pytest.mark.parametrize("cached", [False, True])
async def test_a_bug_in_the_score_comes_out_as_itself(cache, cached, autojump_clock):
    transport = texts("x")
    if cached:
        await results_of(transport, requests(3), cache=cache)

    def score(result):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await results_of(transport, requests(3), cache=cache, score=score)
    assert transport.open_bodies == 0


async def test_a_score_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="score must be a function"):
        await results_of(texts("x"), requests(1), score=5)
