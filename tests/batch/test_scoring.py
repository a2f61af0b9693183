"""Tests of what evaluations need of a batch: the cache, samples, values of a type, and scores."""

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._batch.files.response_cache import ResponseCache
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
