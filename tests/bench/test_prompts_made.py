"""Tests of made prompts: their lengths, what they share, and how a token is found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._bench.plan import Plan
from trio_minillm._bench.prompts import fitting, synthetic
from trio_minillm._bench.prompts.collected import PromptError, Shape
from trio_minillm._bench.prompts.fitting import FEW, MANY, described, fit_of, made_for
from trio_minillm._bench.prompts.prompt import OWN_WORDS, Prompt, as_sent
from trio_minillm._bench.prompts.recordings import recorded_shapes
from trio_minillm._bench.prompts.synthetic import Fit, Synthetic, longest_of, make_prompts
from trio_minillm._bench.prompts.told import SizesTold
from trio_minillm._bench.prompts.words import WORDS
from trio_minillm._bench.record import Record
from trio_minillm._serve.distributions import distribution
from trio_minillm.testing import ScriptedTransport

from ..support.wires import FORMATS, KINDS

ONE = Fit(how="a word is a token")
MODEL = llm.compatible("m", base_url="http://test.invalid/v1")


def wanted(tokens: str, **options: Any) -> Synthetic:
    if "output" in options:
        options["output"] = distribution(options["output"], "output")
    return Synthetic(tokens=distribution(tokens, "tokens"), **{"count": 20, **options})


def words_of(prompt: Prompt) -> list[str]:
    sent = as_sent(prompt).messages
    assert isinstance(sent, str)
    return sent.split(" ")


def test_prompts_have_the_wanted_words() -> None:
    found = make_prompts(wanted("uniform(3, 60)", output="uniform(2, 9)"), ONE).prompts
    assert len(found) == 20
    assert all(len(words_of(prompt)) == prompt.tokens for prompt in found)
    assert len({prompt.tokens for prompt in found}) > 5
    assert {prompt.params["max_tokens"] for prompt in found} <= set(range(2, 10))
    assert all(set(words_of(prompt)) <= set(WORDS) for prompt in found)


def test_the_seed_decides_all_but_the_new_words() -> None:
    given = wanted("normal(40, 10)", turns=3, seed=5)
    first, again = make_prompts(given, ONE).prompts, make_prompts(given, ONE).prompts
    assert first == again
    other = make_prompts(msgspec.structs.replace(given, seed=6), ONE).prompts
    assert other != first
    assert words_of(first[0])[OWN_WORDS:] == words_of(again[0])[OWN_WORDS:]
    assert words_of(first[0])[:OWN_WORDS] != words_of(again[0])[:OWN_WORDS]
    assert [len(prompt.turns) for prompt in first] == [2] * 20


def test_a_shared_prefix_of_the_given_share() -> None:
    made = make_prompts(wanted("100", prefix_share=0.4), ONE).prompts
    sent = [words_of(prompt) for prompt in made]
    assert {tuple(words[:40]) for words in sent} == {tuple(sent[0][:40])}
    assert len({tuple(words[40:46]) for words in sent}) == len(sent)
    assert {len(words) for words in sent} == {100}
    later = make_prompts(wanted("100", prefix_share=0.4), ONE).prompts
    assert words_of(later[0])[:6] != sent[0][:6], "a prefix is new in every run"
    assert words_of(later[0])[6:40] == sent[0][6:40]


def test_the_whole_prompt_may_be_shared() -> None:
    made = make_prompts(wanted("30", prefix_share=1.0), ONE).prompts
    assert len({tuple(words_of(prompt)) for prompt in made}) == 1
    assert made[0].own is None


def test_template_and_words_of_several_tokens() -> None:
    fit = Fit(each=2.0, around=11.0, how="")
    (prompt,) = make_prompts(wanted("111", count=1), fit).prompts
    assert len(words_of(prompt)) == 50
    assert make_prompts(wanted("3", count=1), fit).prompts[0].tokens == 3


def test_prompts_that_can_be_counted_have_exactly_the_tokens() -> None:
    long = {word: 1 + (len(word) > 5) for word in WORDS}

    def count(text: str) -> int:
        return 9 + sum(long[word] for word in text.split())

    fit = fit_of(count, "counted")
    assert 1 < fit.each < 2
    made = make_prompts(wanted("normal(200, 50)", prefix_share=0.5), fit).prompts
    apart = [abs(count(" ".join(words_of(prompt))) - (prompt.tokens or 0)) for prompt in made]
    assert max(apart) <= OWN_WORDS, "only the new words differ from those that were counted"
    assert any(abs(len(words_of(prompt)) - fit.words(prompt.tokens or 0)) > 1 for prompt in made)


def test_the_room_that_a_local_server_needs() -> None:
    assert longest_of(wanted("5000", turns=2), 100) == 10_200
    assert 900 <= longest_of(wanted("uniform(1, 800)", output="uniform(1, 120)"), 5) <= 920
    shapes = Shape(tokens=9, output=70), Shape(tokens=50)
    assert longest_of(Synthetic(shapes=shapes), 10) == 79


def test_made_prompts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "MAX_MADE_BYTES", 1000)
    made = make_prompts(wanted("100"), ONE)
    assert 1 <= len(made.prompts) < 20
    assert made.size < 3000


def test_blocks_with_one_id_are_one_text() -> None:
    shapes = Shape(tokens=1000, blocks=(1, 2)), Shape(tokens=1100, output=5, blocks=(1, 3, 4))
    first, second = make_prompts(Synthetic(shapes=shapes), ONE).prompts
    a, b = words_of(first), words_of(second)
    assert (len(a), len(b)) == (1000, 1100)
    assert a[:512] == b[:512]
    assert a[512:1000] != b[512:1000]
    assert second.params == {"max_tokens": 5}
    again = make_prompts(Synthetic(shapes=shapes), ONE).prompts
    assert words_of(again[0])[:6] != a[:6], "no cache has them from an earlier run"


# -- the tokens of a word ------------------------------------------------------------------------


def counting(each: float, around: int) -> Any:
    """Return a reply to a request, with usage that counts its words."""

    def reply(request: testing.ServedRequest) -> testing.Reply:
        text = request.json()["messages"][-1]["content"]
        tokens = round(around + each * len(text.split()))
        usage = {"prompt_tokens": tokens, "completion_tokens": 1}
        events = testing.openai_events("a", usage=False)
        return testing.reply(*events[:-1], testing.sse({"choices": [], "usage": usage}), events[-1])

    return reply


async def made_with(reply: Any, plan: Plan, **options: Any) -> tuple[Any, Fit, ScriptedTransport]:
    script = ScriptedTransport(reply)
    async with llm.open_client(transport=script) as client:
        found, fit = await made_for(wanted("100", **options), client, MODEL, plan, local=False)
    return found, fit, script


async def test_two_probes_tell_the_template_and_the_tokens_of_a_word(autojump_clock: Any) -> None:
    plan = Plan(prompts=(), system=llm.system("Be brief."), params={"max_tokens": 900})
    found, fit, script = await made_with(counting(1.5, 12), plan)
    assert (fit.each, fit.around) == (1.5, 12.0)
    assert {len(words_of(prompt)) for prompt in found.prompts} == {round(88 / 1.5)}
    bodies = script.bodies
    assert [len(body["messages"][1]["content"].split()) for body in bodies] == [FEW, MANY]
    assert {body["messages"][0]["content"] for body in bodies} == {"Be brief."}
    assert {body["max_tokens"] for body in bodies} == {fitting.PROBE_TOKENS}
    told = described(wanted("100"), fit)
    assert told["counted"] == "estimated from the usage of two short requests"
    assert (told["tokens_per_word"], told["template_tokens"]) == (1.5, 12.0)


async def test_a_server_that_counts_nothing(autojump_clock: Any) -> None:
    silent = testing.reply(*testing.openai_events("a", usage=False))
    _, fit, _ = await made_with(silent, Plan(prompts=()))
    assert fit.each == 1.0
    assert "a word counts as a token" in fit.how
    _, fit, _ = await made_with(counting(0, 7), Plan(prompts=()))
    assert "do not grow" in fit.how


async def test_tiktoken_counts_where_it_has_the_encoding(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "encoding_at_hand", lambda name: "o200k_base")
    monkeypatch.setattr(fitting, "counter", lambda encoding, name: lambda text: len(text.split()))
    script = ScriptedTransport(testing.reply(status=500))
    model = llm.openai("gpt-4o", api_key="sk-test-0123456789")
    async with llm.open_client(transport=script) as client:
        found, fit = await made_for(wanted("100"), client, model, Plan(prompts=()), local=False)
    assert script.requests == []
    assert fit.how == "counted by tiktoken (o200k_base)"
    assert {len(words_of(prompt)) for prompt in found.prompts} == {93}


async def test_a_probe_that_fails_is_an_error(autojump_clock: Any) -> None:
    with pytest.raises(llm.RefusedError):
        await made_with(testing.reply(status=401), Plan(prompts=()))


def test_the_tokens_told_by_answers() -> None:
    told = SizesTold()
    assert told.notes() == []
    for asked, counted in (100, 100), (100, 104), (None, 9), (7, None):
        told.add(
            Record(
                number=0, scheduled=0, sent=0, ended=1, asked_tokens=asked, prompt_tokens=counted
            )
        )
    (note,) = told.notes()
    assert note == (
        "prompts had 102.0 tokens on average instead of 100.0 (off by 2.0 on average, 4 at most)"
    )


# -- recordings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if KINDS[k].format in FORMATS])
async def test_the_lengths_of_recorded_requests(
    kind: str, tmp_path: Path, autojump_clock: Any
) -> None:
    path, given = tmp_path / "r.jsonl", KINDS[kind]
    script = ScriptedTransport(testing.answer("Sea ", "salty"), testing.reply(status=400))
    model = given.make("m", base_url="http://test.invalid" + given.base, api_key="sk-test-012345")
    async with testing.record(path, script) as recording:
        async with llm.open_client(transport=recording, retry=llm.Retry(attempts=1)) as client:
            await client.complete(model, "Hi")
            with pytest.raises(llm.RefusedError):
                await client.complete(model, "Hi")
    assert await recorded_shapes(path) == [Shape(tokens=7, output=2)]


async def test_a_recorded_answer_that_the_client_left(tmp_path: Path, autojump_clock: Any) -> None:
    path = tmp_path / "r.jsonl"
    events = testing.openai_events("Sea ", "salty")
    script = ScriptedTransport(testing.reply(*events), testing.reply(events[0], testing.hang))
    async with testing.record(path, script) as recording:
        async with llm.open_client(transport=recording) as client:
            await client.complete(MODEL, "Hi")
            with trio.move_on_after(1):
                await client.complete(MODEL, "Hi")
    began = trio.current_time()
    assert await recorded_shapes(path) == [Shape(tokens=7, output=2)]
    assert trio.current_time() == began


async def test_a_recording_without_usage(tmp_path: Path, autojump_clock: Any) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"recording": 1}) + "\n")
    with pytest.raises(PromptError, match="no answer in this recording"):
        await recorded_shapes(path)
    path.write_text("{}\n")
    with pytest.raises(PromptError, match="not a recording"):
        await recorded_shapes(path)
