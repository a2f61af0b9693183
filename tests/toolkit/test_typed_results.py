"""Tests of values: a response's, the errors of those that are none, and asking again."""

import copy
import pickle
import traceback
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import ScriptedTransport, openai_events, reply

from ..support.streams import cancelled_at


class City(msgspec.Struct):
    name: str
    people: int


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Review(msgspec.Struct, forbid_unknown_fields=True):
    mood: Mood = Mood.GOOD
    stars: Annotated[int, msgspec.Meta(le=5)] = 5
    words: dict[str, int] = {}
    kind: Literal["a", "b"] = "a"


class Person(pydantic.BaseModel):
    name: str = ""
    age: int = 0
    words: dict[str, int] = {}


PARIS = '{"name": "Paris", "people": 2}'


def response(text: str, type: Any = City, **more: Any) -> llm.CompletionResponse:
    choice = llm.Choice(content=text, **more)
    return llm.CompletionResponse(id="gen-1", choices=(choice,), response_type=type)


def answers(*texts: str) -> ScriptedTransport:
    return ScriptedTransport(*(reply(*openai_events(text)) for text in texts))


class Kept(llm.Ledger):
    """A ledger that has its records in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[llm.CostRecord] = []

    def record(self, record: llm.CostRecord) -> bool:
        self.records.append(record)
        return super().record(record)


# -- values --------------------------------------------------------------------------------------


def test_the_value_is_decoded_once_and_stays_the_same_object() -> None:
    answer = response(PARIS)
    answer.value.people += 1
    assert answer.value == City("Paris", 3)
    assert answer.parsed() == City("Paris", 2)


def test_a_value_that_was_read_changes_nothing_else_of_a_response() -> None:
    answer, other = response(PARIS), response(PARIS)
    assert answer.value == City("Paris", 2)
    assert answer == other
    for again in (copy.copy(answer), pickle.loads(pickle.dumps(answer))):
        assert again == answer
        assert again.value == answer.value
    changed = msgspec.structs.replace(
        answer, choices=(llm.Choice(content='{"name":"Rome","people":3}'),)
    )
    assert changed.value == City("Rome", 3)
    plain = response('{"a": 1}', None)
    before = msgspec.json.encode(plain)
    assert plain.value == {"a": 1}
    assert msgspec.json.encode(plain) == before
    assert "value" not in msgspec.structs.asdict(plain)


def test_a_response_takes_no_attribute() -> None:
    with pytest.raises(AttributeError):
        response(PARIS).extra = 1  # type: ignore[attr-defined]


async def test_a_response_has_the_value_that_was_asked_for(autojump_clock) -> None:
    async with llm.open_client(
        transport=answers(PARIS, '{"answer": [1, 2]}', '{"a": 1}')
    ) as client:
        asked = await client.complete(testing.model(), "Hi", response_format=City)
        assert asked.value == City("Paris", 2)
        numbers = await client.complete(testing.model(), "Hi", response_format=list[int])
        assert numbers.value == [1, 2]
        plain = await client.complete(testing.model(), "Hi, JSON", response_format="json")
        assert plain.value == {"a": 1}


async def test_a_stream_has_it_too(autojump_clock) -> None:
    async with llm.open_client(transport=answers(PARIS)) as client:
        async with client.stream(testing.model(), "Hi", response_format=City) as stream:
            answer = await stream.collect()
    assert answer.value == City("Paris", 2)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "type", "path", "message"),
    [
        (
            '{"name": "secret", "people": "x"}',
            City,
            "$.people",
            "Expected `int`, got `str` - at `$.people`",
        ),
        ('["secret"]', City, "$", "Expected `object`, got `array`"),
        ('{"mood": "secret"}', Review, "$.mood", "Invalid enum value - at `$.mood`"),
        ('{"mood": "secret - at `$.x`"}', Review, "$.mood", "Invalid enum value - at `$.mood`"),
        ('{"kind": "secret"}', Review, "$.kind", "Invalid enum value - at `$.kind`"),
        ('{"secret": 1}', Review, "$", "Object contains unknown field"),
        (
            '{"words": {"secret": "x"}}',
            Review,
            "$.words[...]",
            "Expected `int`, got `str` - at `$.words[...]`",
        ),
        ('{"stars": 7}', Review, "$.stars", "Expected `int` <= 5 - at `$.stars`"),
        ('[{"age": "secret"}]', list[Person], "$[0].age", None),
        ('{"words": {"secret": "x"}}', Person, "$.words[...]", None),
    ],
)
def test_a_mismatch_names_its_place_and_shows_nothing(
    text: str, type: Any, path: str, message: str | None
) -> None:
    answer = response(text, type)
    with pytest.raises(llm.MismatchedAnswer) as caught:
        answer.value  # noqa: B018
    error = caught.value
    assert isinstance(error, msgspec.ValidationError)
    assert isinstance(error, llm.InvalidAnswer)
    assert (error.path, error.text) == (path, text)
    assert error.response is error.partial is answer
    assert message is None or str(error) == message
    assert "secret" not in str(error) + repr(error)
    if not isinstance(error.__cause__, pydantic.ValidationError):  # whose own words have it
        assert "secret" not in "".join(traceback.format_exception(error))
    assert answer.content == text


def test_the_reason_may_quote_the_answer() -> None:
    with pytest.raises(llm.MismatchedAnswer) as caught:
        response('{"mood": "odd"}', Review).parsed()
    assert caught.value.reason == "Invalid enum value 'odd' - at `$.mood`"


@pytest.mark.parametrize("text", ["Sorry, secret.", "", '{"name": "secret', "\ud800 secret"])
def test_what_is_no_json_has_no_place(text: str) -> None:
    with pytest.raises(llm.InvalidAnswer) as caught:
        response(text).value  # noqa: B018
    error = caught.value
    assert isinstance(error, msgspec.DecodeError)
    assert not isinstance(error, msgspec.ValidationError)
    assert (error.path, error.text) == (None, text)
    assert "secret" not in "".join(traceback.format_exception(error))


def test_an_invalid_answer_can_be_pickled() -> None:
    for text in ('{"name": 1}', "no"):
        with pytest.raises(llm.InvalidAnswer) as caught:
            response(text).value  # noqa: B018
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is type(caught.value)
        assert (str(again), again.path, again.text, again.reason) == (
            str(caught.value),
            caught.value.path,
            text,
            caught.value.reason,
        )


async def test_a_batch_has_the_same_errors_and_values(autojump_clock) -> None:
    asked = [llm.BatchRequest(f"k{n}", f"q{n}", response_format=City) for n in range(2)]
    transport = answers(PARIS, '{"name": "Rome"}')
    async with llm.open_client(transport=transport) as client:
        async with client.batch(asked, model=testing.model(), concurrency=1) as results:
            good, bad = [result async for result in results]
    assert good.value is good.response.value
    assert isinstance(bad.invalid, llm.MismatchedAnswer)
    assert (bad.value, bad.invalid.path, bad.invalid.text) == (None, "$", '{"name": "Rome"}')


# -- asking again --------------------------------------------------------------------------------


async def test_an_invalid_answer_is_asked_again(autojump_clock) -> None:
    transport = answers("no JSON", '{"name": "Paris", "people": "many"}', PARIS)
    ledger = Kept()
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        answer = await client.complete(
            testing.model(), "Where?", response_format=City, retries_invalid=5, meta={"job": "x"}
        )
    assert answer.value == City("Paris", 2)
    assert [record.attempt for record in ledger.records] == [1, 2, 3]
    assert [record.meta for record in ledger.records] == [{"job": "x"}] * 3
    turns = transport.bodies[2]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert "at `$.people`" in turns[-1]["content"]
    assert turns[0] == transport.bodies[0]["messages"][0]


async def test_the_model_is_told_what_it_wrote(autojump_clock) -> None:
    transport = answers('{"mood": "odd"}', "{}")
    async with llm.open_client(transport=transport) as client:
        await client.complete(testing.model(), "?", response_format=Review, retries_invalid=1)
    assert "Invalid enum value 'odd'" in transport.bodies[1]["messages"][-1]["content"]


async def test_the_last_error_has_the_last_answer(autojump_clock) -> None:
    transport = answers("one", "two", "three", PARIS)
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.InvalidAnswer) as caught:
            await client.complete(testing.model(), "?", response_format=City, retries_invalid=2)
        assert client.ledger.attempts == 3
    assert caught.value.text == caught.value.response.content == "three"
    assert caught.value.response.outcome is llm.Outcome.FINISHED
    assert len(transport.requests) == 3


async def test_without_retries_the_answer_is_returned_as_it_is(autojump_clock) -> None:
    async with llm.open_client(transport=answers("no")) as client:
        answer = await client.complete(testing.model(), "?", response_format=City)
    assert answer.content == "no"


async def test_a_failure_on_the_way_is_raised_as_it_is(autojump_clock) -> None:
    transport = ScriptedTransport(reply(*openai_events("no")), reply(b"{}", status=400))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.RefusedError):
            await client.complete(testing.model(), "?", response_format=City, retries_invalid=2)
    assert len(transport.requests) == 2


async def test_a_retry_on_the_way_is_counted(autojump_clock) -> None:
    transport = ScriptedTransport(
        reply(b"{}", status=503), reply(*openai_events("no")), reply(*openai_events(PARIS))
    )
    ledger = Kept()
    async with llm.open_client(transport=transport, ledger=ledger) as client:
        await client.complete(testing.model(), "?", response_format=City, retries_invalid=1)
    assert [record.attempt for record in ledger.records] == [1, 2, 3]


async def test_the_attempts_at_several_models_are_counted_on(autojump_clock) -> None:
    refused = reply(b"{}", status=401)
    texts = (reply(*openai_events(text)) for text in ("no", PARIS))
    transport = ScriptedTransport(refused, next(texts), refused, next(texts))
    ledger, told = Kept(), []

    class Numbers(llm.Observer):
        def attempt_began(self, attempt: llm.ObservedAttempt) -> None:
            told.append(attempt.number)

    async with llm.open_client(transport=transport, ledger=ledger, observer=Numbers()) as client:
        choice = llm.fallback(testing.model(), testing.model())
        await client.complete(choice, "?", response_format=City, retries_invalid=1)
    assert [record.attempt for record in ledger.records] == told == [1, 2, 3, 4]


async def test_asking_again_keeps_to_the_budget(autojump_clock) -> None:
    transport = answers("no", PARIS)
    model = testing.model(price=llm.TokenPrice(input=10**6, output=10**6))
    async with llm.open_client(transport=transport, limits=llm.Limits(max_cost=1)) as client:
        with pytest.raises(llm.BudgetExceeded):
            await client.complete(model, "?", response_format=City, retries_invalid=1)
    assert len(transport.requests) == 1


@pytest.mark.parametrize("given", [-1, True, "2", 1.0, None])
async def test_a_number_of_retries_that_is_none(given: Any) -> None:
    async with llm.open_client(transport=answers("x")) as client:
        with pytest.raises(
            ValueError, match=r"^retries_invalid must be a whole number, 0 or more$"
        ):
            await client.complete(testing.model(), "?", response_format=City, retries_invalid=given)


@pytest.mark.parametrize("given", [{}, {"response_format": "text"}, {"response_format": None}])
async def test_retries_need_something_that_can_be_invalid(given: Any) -> None:
    transport = answers("x")
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(ValueError, match=r"^retries_invalid needs a response_format:"):
            await client.complete(testing.model(), "?", retries_invalid=1, **given)
    assert not transport.requests


async def test_a_stream_says_who_asks_again() -> None:
    async with llm.open_client(transport=answers("x")) as client:
        with pytest.raises(TypeError, match=r"retries_invalid \(client.complete and batches"):
            client.stream(testing.model(), "?", retries_invalid=1)  # type: ignore[call-arg]


async def test_no_frame_of_asking_again_shows_the_prompt(autojump_clock) -> None:
    transport = ScriptedTransport(reply(*openai_events("no")), reply(b"{}", status=400))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.RefusedError) as caught:
            await client.complete(
                testing.model(),
                "secret prompt",
                response_format=City,
                retries_invalid=2,
                headers={"x-key": "secret key"},
            )
    trace, seen = caught.value.__traceback__, []
    while trace is not None:
        if trace.tb_frame.f_globals["__name__"].startswith("trio_minillm"):
            seen.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert seen
    assert not [names for names in seen if "secret" in names]


async def test_cancelled_at_any_step_it_leaves_nothing_open(autojump_clock) -> None:
    step, asked = 0, set()
    while True:
        step += 1
        transport = answers("no", PARIS)
        ledger = Kept()
        async with llm.open_client(transport=transport, ledger=ledger) as client:

            async def ask(client: llm.Client = client) -> None:
                await client.complete(testing.model(), "?", response_format=City, retries_invalid=1)

            more = await cancelled_at(step, ask)
        asked.add(len(transport.requests))
        assert transport.open_bodies == 0
        assert len(ledger.records) == len(transport.requests)
        if not more:
            break
    assert asked >= {1, 2}
