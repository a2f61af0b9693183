"""Tests of conversations under load: each turn follows the model's own answer to the one before."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._bench.hedge import Hedge
from trio_minillm._bench.load import LoadRun
from trio_minillm._bench.plan import Closed, Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Record
from trio_minillm.testing import ScriptedTransport

MODEL = llm.compatible("m", base_url="http://test.invalid/v1")
ANSWER = testing.reply(1.0, *testing.openai_events("Sea ", "salty"))
PROMPT = Prompt(messages="Hi", turns=("Sing", "More"), params={"max_tokens": 5}, lengths=(6, 7))


async def run(plan: Plan, *replies: Any, **options: Any) -> tuple[list[Record], list[Any], LoadRun]:
    script, records = ScriptedTransport(*(replies or (ANSWER,))), list[Record]()
    async with llm.open_client(transport=script) as client:
        load = LoadRun(client, options.pop("model", MODEL), plan, records.append)
        stop = options.pop("stop_at", None)
        async with trio.open_nursery() as nursery:
            if stop is not None:
                nursery.start_soon(stop_at, load, stop)
            await load.run()
            nursery.cancel_scope.cancel()
    return records, script.bodies, load


async def stop_at(load: LoadRun, seconds: float) -> None:
    await trio.sleep(seconds)
    load.stop("interrupted")


def roles(body: Any) -> list[str]:
    return [f"{m['role']}: {m['content']}" for m in body["messages"]]


async def test_turns_follow_the_answers(autojump_clock: Any) -> None:
    plan = Plan(
        prompts=(PROMPT,), requests=3, load=Closed(concurrency=1), system=llm.system("Be brief.")
    )
    records, bodies, _ = await run(plan)
    assert [(r.number, r.turn, r.outcome) for r in records] == [
        (0, turn, "finished") for turn in range(3)
    ]
    assert roles(bodies[0]) == ["system: Be brief.", "user: Hi"]
    said = ["assistant: Sea salty", "user: Sing", "assistant: Sea salty", "user: More"]
    assert roles(bodies[2]) == ["system: Be brief.", "user: Hi", *said]
    assert [body["max_tokens"] for body in bodies] == [5, 6, 7]


async def test_a_user_thinks_between_turns(autojump_clock: Any) -> None:
    plan = Plan(prompts=(PROMPT,), requests=3, load=Closed(concurrency=1), think=5.0)
    records, _, _ = await run(plan)
    begun = [record.sent - records[0].sent for record in records]
    assert begun == pytest.approx([0, 6, 12], abs=0.01)
    late = [record.sent - record.scheduled for record in records[1:]]
    assert late == pytest.approx([0, 0], abs=0.01)


@pytest.mark.parametrize("load", [Closed(concurrency=4), Open(rate=1.0)])
async def test_every_turn_counts_as_a_request(autojump_clock: Any, load: Any) -> None:
    records, bodies, _ = await run(Plan(prompts=(PROMPT,), requests=8, load=load))
    assert len(bodies) == len(records) == 8
    turns = sorted((record.number, record.turn) for record in records)
    assert turns == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]


async def test_a_failed_turn_ends_its_conversation(autojump_clock: Any) -> None:
    refused = testing.reply(status=400)
    plan = Plan(prompts=(PROMPT,), requests=5, load=Closed(concurrency=1))
    records, _, _ = await run(plan, ANSWER, refused, ANSWER)
    turns = [(record.number, record.turn, record.outcome) for record in records]
    assert turns == [
        (0, 0, "finished"),
        (0, 1, "errored"),
        *((1, turn, "finished") for turn in range(3)),
    ], "the turn that was not sent is another conversation's"


async def test_an_answer_that_nothing_can_follow(autojump_clock: Any) -> None:
    empty = testing.reply(*testing.openai_events(""))
    plan = Plan(prompts=(PROMPT,), requests=2, load=Closed(concurrency=1))
    records, _, _ = await run(plan, empty)
    assert [(record.number, record.turn) for record in records] == [(0, 0), (1, 0)]


async def test_nobody_thinks_on_when_the_run_is_over(autojump_clock: Any) -> None:
    plan = Plan(prompts=(PROMPT,), requests=3, load=Closed(concurrency=1), think=1000.0)
    began = trio.current_time()
    records, _, _ = await run(plan, stop_at=3.0)
    assert trio.current_time() - began == pytest.approx(3.0)
    assert len(records) == 1
    timed = Plan(
        prompts=(PROMPT,), requests=None, duration=5.0, load=Closed(concurrency=1), think=9.0
    )
    began = trio.current_time()
    records, _, _ = await run(timed)
    assert trio.current_time() - began == pytest.approx(5.0)
    assert len(records) == 1


async def test_each_conversation_has_a_beginning_of_its_own(autojump_clock: Any) -> None:
    prompt = Prompt(messages="Hi", turns=("Sing",), own=(0, 6))
    plan = Plan(prompts=(prompt,), requests=4, load=Closed(concurrency=1))
    _, bodies, _ = await run(plan)
    first = [body["messages"][0]["content"] for body in bodies]
    assert first[0] == first[1] != first[2] == first[3]
    assert first[0].endswith(" Hi")


async def test_a_system_message_of_its_own_comes_before_the_plans(autojump_clock: Any) -> None:
    prompt = Prompt(messages=(llm.system("Sing."), llm.user("Hi")))
    plan = Plan(prompts=(prompt,), requests=1, system=llm.system("Be brief."))
    _, (body,), _ = await run(plan)
    assert roles(body) == ["system: Sing.", "user: Hi"]


async def test_a_wire_without_conversations_refuses_turns_before_anything_is_sent(
    autojump_clock: Any,
) -> None:
    model = llm.text_completions("m", base_url="http://test.invalid/v1", api_key="sk-test-01234567")
    script = ScriptedTransport(ANSWER)
    async with llm.open_client(transport=script) as client:
        plan = Plan(prompts=(Prompt(messages="Hi"), PROMPT))
        with pytest.raises(ValueError, match="text completions continue one prompt"):
            await LoadRun(client, model, plan, lambda record: None).run()
    assert script.requests == []


async def test_the_wanted_tokens_are_those_of_the_first_turn(autojump_clock: Any) -> None:
    prompt = Prompt(messages="Hi", turns=("Sing",), tokens=12)
    records, _, _ = await run(Plan(prompts=(prompt,), requests=2, load=Closed(concurrency=1)))
    assert [record.asked_tokens for record in records] == [12, None]


async def test_a_parameter_of_a_later_prompt_is_checked_for_both_models(
    autojump_clock: Any,
) -> None:
    second = llm.anthropic("m", base_url="http://test.invalid", api_key="sk-test-01234567")
    choice = llm.first_of(MODEL, second, after=1.0)
    hedge = Hedge(name="anthropic:m", after=1.0, choice=choice)
    prompts = Prompt(messages="Hi"), Prompt(messages="Ho", params={"seed": 1})
    script = ScriptedTransport(ANSWER)
    async with llm.open_client(transport=script) as client:
        load = LoadRun(client, MODEL, Plan(prompts=prompts), lambda record: None, hedge=hedge)
        with pytest.raises(ValueError, match="seed: not a parameter of the anthropic"):
            await load.run()
    assert script.requests == []
