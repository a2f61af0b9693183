"""Fields, elements and calls of a stream, on every wire, from any task, and however it ends."""

import gc
import json
import sys
from typing import Any

import httpx
import msgspec
import pydantic
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm.testing import ScriptedTransport, faults, hang, openai_events, reply, sse

from ..support.conversations import SPEAKERS, Turn
from ..support.json_texts import OBJECTS, VALUES
from ..support.streams import CancelAtStep
from ..support.wires import KINDS


class City(msgspec.Struct):
    name: str
    people: int


class Trip(msgspec.Struct):
    title: str
    cities: list[City]
    days: int


TRIP = {
    "title": 'To "Rome"',
    "cities": [{"name": "Rome", "people": 3}, {"name": "Ostia", "people": 1}],
    "days": 2,
}
MODEL = llm.openai("m", api_key="k")


def opened(*steps: Any, model: llm.Model = MODEL, **params: Any) -> Any:
    """A client, and the stream that answers so."""

    class Both:
        async def __aenter__(self) -> llm.TrackedStream:
            transport = ScriptedTransport(reply(*steps))
            self.client = llm.open_client(transport=transport)
            client = await self.client.__aenter__()
            self.stream = client.stream(model, "Hi", **params)
            return await self.stream.__aenter__()

        async def __aexit__(self, *exc: Any) -> None:
            await self.stream.__aexit__(*exc)
            await self.client.__aexit__(*exc)

    return Both()


def answer(text: str, *, size: int = 3, **params: Any) -> Any:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return opened(*openai_events(*pieces), **params)


async def all_of(view: Any) -> list[Any]:
    return [value async for value in view]


async def until_error(view: Any) -> tuple[list[Any], Exception | None]:
    out = []
    try:
        async for value in view:
            out.append(value)
    except (llm.MiniLLMError, httpx.HTTPError) as error:
        return out, error
    return out, None


def values(fields: list[llm.Field]) -> dict[str, Any]:
    return {field.name: field.value for field in fields if field.done}


def texts(fields: list[llm.Field]) -> dict[str, str]:
    out: dict[str, str] = {}
    for field in fields:
        out[field.name] = out.get(field.name, "") + field.delta
    return out


# -- every wire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
async def test_fields_on_every_wire(name):
    kind, text = KINDS[name], json.dumps(TRIP, ensure_ascii=False)
    options = {"base_url": "http://test.invalid"} if name == "compatible" else {}
    model = kind.make("m", api_key="k", **options)
    events = kind.events(*(text[i : i + 2] for i in range(0, len(text), 2)))
    async with opened(*events, model=model) as stream:
        fields = await all_of(stream.fields())
        assert values(fields) == TRIP
        assert texts(fields)["title"] == TRIP["title"]
        assert stream.outcome is llm.Outcome.FINISHED
        assert await all_of(stream.values(City, field="cities")) == [
            City("Rome", 3),
            City("Ostia", 1),
        ]
        assert stream.partial(Trip).value == msgspec.convert(TRIP, Trip)


@pytest.mark.parametrize("name", SPEAKERS)
async def test_calls_on_every_wire(name):
    calls = (("plan", json.dumps(TRIP), ""), ("now", "{}", ""), ("sky", '{"city": "Rome"}', ""))
    speaker = SPEAKERS[name]
    events = speaker.stream(0, Turn("Hi", "I think {a: 1}.", "Let me see.", calls))
    async with opened(*events, model=speaker.model) as stream:
        seen = []
        async for call in stream.calls():
            assert call.runnable is None or stream.is_finished
            fields = await all_of(call.fields())
            seen.append((call.name, values(fields), values(await all_of(call.fields()))))
        assert [name for name, *_ in seen] == ["plan", "now", "sky"]
        for (_, first, again), (_, arguments, _) in zip(seen, calls, strict=True):
            assert first == again == json.loads(arguments)
        calls_again = await all_of(stream.calls())
        assert [call.tool_call for call in calls_again] == list(stream.response.tool_calls)
        assert [call.id for call in calls_again] == [c.id for c in stream.response.tool_calls]
        assert await all_of(calls_again[0].values(field="cities")) == TRIP["cities"]


@settings(max_examples=30)
@given(OBJECTS, st.integers(1, 30), st.integers(1, 40), st.sampled_from(sorted(KINDS)))
def test_any_object_in_any_pieces_on_any_wire(value, size, read, name):
    """The events are cut anywhere, and so are the bytes."""
    kind, text = KINDS[name], json.dumps(value)
    options = {"base_url": "http://test.invalid"} if name == "compatible" else {}
    model = kind.make("m", api_key="k", **options)
    body = b"".join(kind.events(*(text[i : i + size] for i in range(0, len(text), size))))

    async def pieces():
        for at in range(0, len(body), read):
            yield body[at : at + read]

    async def run():
        async with llm.StreamingCompletion.from_event_source(pieces(), model) as stream:
            fields = await all_of(stream.fields())
            assert values(fields) == value
            said = texts(fields)
            assert all(said[k] == v for k, v in value.items() if isinstance(v, str))
            others = {k: v for k, v in value.items() if not isinstance(v, str)}
            assert {k: json.loads(said[k]) for k in others} == others

    trio.run(run)


@settings(max_examples=30)
@given(st.lists(VALUES, max_size=6), st.integers(1, 20), st.sampled_from(["%s", '{"answer": %s}']))
def test_the_elements_are_those_of_the_list(value, size, wrapping):
    async def run():
        text = wrapping % json.dumps(value)
        async with answer(text, size=size, response_format=list[Any]) as stream:
            assert await all_of(stream.values()) == value

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


# -- types ---------------------------------------------------------------------------------------


async def test_values_have_the_types_of_the_response_format():
    async with answer(json.dumps(TRIP), response_format=Trip) as stream:
        fields = await all_of(stream.fields())
        assert values(fields)["cities"] == [City("Rome", 3), City("Ostia", 1)]
        assert await all_of(stream.values(field="cities")) == [City("Rome", 3), City("Ostia", 1)]
        for wrong in ({"field": "nothing"}, {"field": "days"}, {}):
            with pytest.raises(ValueError, match=r"field|list"):
                stream.values(**wrong)


async def test_elements_of_an_answer_that_is_a_list():
    for text in (json.dumps({"answer": TRIP["cities"]}), json.dumps(TRIP["cities"])):
        async with answer(text, response_format=list[City]) as stream:
            assert await all_of(stream.values()) == [City("Rome", 3), City("Ostia", 1)]
            assert values(await all_of(stream.fields())) == {
                "answer": [City("Rome", 3), City("Ostia", 1)]
            }


async def test_elements_come_as_they_close(autojump_clock):
    events = openai_events('{"answer": [{"name": "Rome"', ', "people": 3}, ', '{"name": "O', "", "")
    steps = [step for event in events for step in (1.0, event)]
    async with opened(*steps, response_format=list[City]) as stream:
        view = stream.values()
        assert await view.__anext__() == City("Rome", 3)
        assert stream.accumulated.endswith("}, ")
        assert not stream.is_finished


async def test_a_tools_arguments_have_its_types():
    def plan(title: str, cities: list[City]) -> None:
        """Plan a trip."""

    arguments = json.dumps({"title": "a", "cities": TRIP["cities"]})
    events = SPEAKERS["openai"].stream(0, Turn("Hi", "", "", (("plan", arguments, ""),)))
    async with opened(*events, tools=[plan]) as stream:
        async for call in stream.calls():
            assert call.tool is not None
            assert call.tool.function is plan
            assert values(await all_of(call.fields()))["cities"] == [
                City("Rome", 3),
                City("Ostia", 1),
            ]
            assert await all_of(call.values(field="cities")) == [City("Rome", 3), City("Ostia", 1)]
            partial = call.partial()
            assert partial.value.cities == [City("Rome", 3), City("Ostia", 1)]
            assert call.arguments == arguments


async def test_a_model_of_pydantic():
    class Person(pydantic.BaseModel):
        name: str
        born: int = pydantic.Field(ge=1900)

    async with answer('{"name": "Ada", "born": 1815}', response_format=Person) as stream:
        fields, error = await until_error(stream.fields())
        assert values(fields) == {"name": "Ada"}
        assert isinstance(error, llm.UnexpectedValue)
        assert isinstance(error.__cause__, msgspec.ValidationError)
        assert error.path == "$.born"


class Span(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@pytest.mark.parametrize(
    ("text", "type", "path", "words"),
    [
        ('{"name": "P"}', City, "$", "Object missing required field `people`"),
        ("{}", City, "$", "Object missing required field `name`"),
        ('{"low": 2, "high": 1}', Span, "$", "low is above high"),
        ('{"answer": [{"name": "P"}]}', list[City], "$[0]", "missing required field `people`"),
    ],
)
async def test_what_only_the_whole_shows_is_told_at_the_end(text, type, path, words):
    async with answer(text, response_format=type) as stream:
        _, error = await until_error(stream.fields())
        assert isinstance(error, llm.UnexpectedValue)
        assert words in str(error)
        assert error.path in (path, "$.answer" + path[1:])
        assert error.text == text
        with pytest.raises(llm.MismatchedAnswer):
            assert stream.response.value


async def test_a_call_that_lacks_an_argument():
    def plan(title: str, days: int) -> str:
        return title

    events = SPEAKERS["openai"].stream(0, Turn("Hi", "", "", (("plan", '{"title": "a"}', ""),)))
    async with opened(*events, tools=[plan]) as stream:
        async for call in stream.calls():
            fields, error = await until_error(call.fields())
            assert values(fields) == {"title": "a"}
            assert "missing required field `days`" in str(error)


async def test_the_place_of_a_wrong_value_is_told_in_full():
    text = json.dumps({"title": "t", "cities": [{"name": "Rome", "people": "x"}]})
    async with answer(text, response_format=Trip) as stream:
        for view in stream.fields(), stream.values(field="cities"):
            _, error = await until_error(view)
            assert error.path == "$.cities[0].people"
            assert "Expected `int`, got `str` - at `$.cities[0].people`" in str(error)


async def test_a_list_that_is_null_although_it_must_not_be():
    async with answer('{"title": "t", "cities": null}', response_format=Trip) as stream:
        found, error = await until_error(stream.values(field="cities"))
        assert (found, error.path) == ([], "$.cities")


# -- several views, several tasks ----------------------------------------------------------------


def interleaved() -> list[bytes]:
    """Two calls whose pieces take turns."""
    texts = ['{"a": "one two three"}', '{"b": [1, 2, 3], "c": 4}']
    events = []
    for index, name in enumerate(("first", "second")):
        function = {"name": name, "arguments": ""}
        call = {"index": index, "id": f"c{index}", "type": "function", "function": function}
        events.append(sse({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    for at in range(0, 24, 4):
        for index, text in enumerate(texts):
            call = {"index": index, "function": {"arguments": text[at : at + 4]}}
            events.append(sse({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    return [*events, *openai_events(finish="tool_calls")[1:]]


async def test_calls_that_take_turns_are_read_one_after_the_other():
    async with opened(*interleaved()) as stream:
        seen = [
            (call.name, call.index, values(await all_of(call.fields())))
            async for call in stream.calls()
        ]
    assert seen == [("first", 0, {"a": "one two three"}), ("second", 1, {"b": [1, 2, 3], "c": 4})]


async def test_a_task_for_each_call(autojump_clock):
    steps = [step for event in interleaved() for step in (0.1, event)]
    seen: dict[str, Any] = {}
    at: dict[str, list[float]] = {"first": [], "second": []}

    async def read(call: llm.StreamedCall) -> None:
        async for field in call.fields():
            at[call.name].append(trio.current_time())
            if field.done:
                seen[field.name] = field.value

    async with opened(*steps) as stream:
        async with trio.open_nursery() as nursery:
            async for call in stream.calls():
                nursery.start_soon(read, call)
        assert stream.outcome is llm.Outcome.FINISHED
    assert seen == {"a": "one two three", "b": [1, 2, 3], "c": 4}
    assert at["second"][0] < at["first"][-1]  # both while they came


async def test_one_that_pulls_for_others_is_cancelled(autojump_clock):
    steps = [step for event in openai_events(*json.dumps(TRIP)) for step in (0.1, event)]
    found = []
    async with opened(*steps) as stream:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first() -> None:
                with scope:
                    await all_of(stream.fields())

            async def second() -> None:
                await trio.sleep(0)
                found.append(values(await all_of(stream.fields())))

            nursery.start_soon(first)
            nursery.start_soon(second)
            await trio.sleep(0.55)
            scope.cancel()
    assert found == [TRIP]


async def test_one_view_is_for_one_task():
    async with opened(hang) as stream:
        view = stream.fields()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view.__anext__)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await view.__anext__()
            nursery.cancel_scope.cancel()


async def test_chunks_that_others_have_taken_count():
    async with answer(json.dumps(TRIP)) as stream:
        for _ in range(5):
            await stream.next_chunk()
        view = stream.fields()
        first = await view.__anext__()
        assert TRIP["title"].startswith(first.delta)
        await stream.collect()
        assert values([first, *await all_of(view)]) == TRIP
    assert values(await all_of(view)) == {}
    assert values(await all_of(stream.fields())) == TRIP  # behind the block, from what has come


async def test_the_block_must_be_open_for_more():
    async with answer(json.dumps(TRIP)) as stream:
        view = stream.fields()
        await view.__anext__()
    with pytest.raises(trio.ClosedResourceError):
        await all_of(stream.fields()) if stream.outcome is None else await stream.next_chunks()
    async with llm.open_client(transport=ScriptedTransport(reply())) as client:
        with pytest.raises(RuntimeError, match="async with"):
            await client.stream(MODEL, "Hi").fields().__anext__()


# -- ends ----------------------------------------------------------------------------------------


async def test_the_streams_error_comes_behind_what_is_good():
    text = json.dumps(TRIP)
    steps = [*openai_events(*text[:60])[:-3], httpx.ReadError("cut")]
    async with opened(*steps) as stream:
        for _ in range(2):  # each view raises it
            fields, error = await until_error(stream.fields())
            assert values(fields) == {"title": TRIP["title"]}
            assert texts(fields)["cities"] == text[text.index("[") : 60]
            assert error is stream.error
            assert isinstance(error, llm.ConnectionCut)
        calls, error = await until_error(stream.calls())
        assert (calls, error) == ([], stream.error)
        assert stream.partial().fields["title"] == TRIP["title"]


async def test_an_answer_that_was_cut():
    async with answer(json.dumps(TRIP)[:61]) as stream:
        fields, error = await until_error(stream.fields())
        assert values(fields) == {"title": TRIP["title"]}
        assert isinstance(error, llm.CutJSON)
        assert error.partial is not None
        assert error.partial.outcome is llm.Outcome.FINISHED
        assert (error.position, error.path) == (61, "$.cities[0].people")


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (openai_events("", finish="stop"), "the answer is empty"),
        (
            [sse({"choices": [{"index": 0, "delta": {"refusal": "No."}}]}), *openai_events()],
            "the model declined to answer",
        ),
        (interleaved(), "the answer is empty: the model called tools instead"),
    ],
)
async def test_an_answer_without_any_json(events, words):
    async with opened(*events) as stream:
        fields, error = await until_error(stream.fields())
        assert fields == []
        assert str(error).startswith(words)
        assert isinstance(error, llm.BrokenJSON)


async def test_a_wrong_value_is_raised_before_the_end():
    text = json.dumps({"title": "a", "cities": 5, "days": 1})
    async with answer(text, response_format=Trip) as stream:
        fields, error = await until_error(stream.fields())
        assert values(fields) == {"title": "a"}
        assert isinstance(error, llm.UnexpectedValue)
        assert not stream.is_finished
        await stream.collect()


async def test_a_stream_that_is_cancelled_ends_the_views():
    async with answer(json.dumps(TRIP)) as stream:
        view = stream.fields()
        await view.__anext__()
        await stream.cancel()
        assert not any(field.name == "days" for field in await all_of(view))


async def test_a_bound_that_is_crossed():
    bounds = llm.Bounds(arguments=30)
    async with opened(*interleaved(), bounds=bounds) as stream:
        with pytest.raises(llm.LimitExceeded):
            async for call in stream.calls():
                await all_of(call.fields())


@pytest.mark.parametrize("fault", [faults.drip(7, 0.0), faults.cut(700)], ids=["dripped", "cut"])
async def test_bytes_that_drip(fault, autojump_clock):
    transport = ScriptedTransport(reply(*openai_events(*json.dumps(TRIP))) | fault)
    async with llm.open_client(transport=transport) as client:
        async with client.stream(MODEL, "Hi") as stream:
            fields, error = await until_error(stream.fields())
    assert error is stream.error
    assert values(fields) == (TRIP if error is None else {})


async def test_cancelled_at_every_step():
    step, over = 0, False
    while not over:
        step += 1
        scope = trio.CancelScope()
        async with opened(*interleaved()) as stream:
            instrument = CancelAtStep(step, scope, trio.lowlevel.current_task())
            view, found = stream.calls(), {}
            trio.lowlevel.add_instrument(instrument)
            try:
                with scope:
                    async for call in view:
                        async for field in call.fields():
                            found |= {field.name: field.value} if field.done else {}
            finally:
                trio.lowlevel.remove_instrument(instrument)
            over = not scope.cancelled_caught
            # Nothing is lost: who goes on has all of it.
            async for call in stream.calls():
                assert call.name in ("first", "second")
                found |= values(await all_of(call.fields()))
            assert found == {"a": "one two three", "b": [1, 2, 3], "c": 4}
    assert step > 4
    gc.collect()


# -- repair --------------------------------------------------------------------------------------


async def test_a_cut_answer_mended():
    async with answer(json.dumps(TRIP)[:60], response_format=Trip) as stream:
        view = stream.fields(repair=True)
        fields, error = await until_error(view)
        assert isinstance(error, llm.CutJSON)  # a city without people is none
        assert not view.repaired
    text = json.dumps({"title": "a", "cities": [], "days": 12})[:-1]
    async with answer(text, response_format=Trip) as stream:
        view = stream.fields(repair=True)
        fields = await all_of(view)
        assert values(fields) == {"title": "a", "cities": [], "days": 12}
        assert [field.name for field in fields if field.repaired] == ["days"]
        assert view.repaired


@pytest.mark.parametrize(
    ("text", "value", "repaired"),
    [
        ('{"a": "one tw', {"a": "one tw"}, ["a"]),
        ('{"a": "one", "b": [1, 2,]}', {"a": "one", "b": [1, 2]}, ["b"]),
        ('{"a": "one", "b": "x\\ud83d', {"a": "one", "b": "x"}, ["b"]),
        ("{'a': 'one'}", {"a": "one"}, ["a"]),
        ('```json\n{"a": "one",}\n```', {"a": "one"}, []),
        ('{"a": "one"}', {"a": "one"}, []),
    ],
)
async def test_what_models_do_wrong(text, value, repaired):
    async with answer(text) as stream:
        view = stream.fields(repair=True)
        fields = await all_of(view)
        assert values(fields) == value
        assert texts(fields)["a"] == value["a"]
        assert [field.name for field in fields if field.repaired and field.done] == repaired
        assert view.repaired == (text != '{"a": "one"}')


async def test_elements_mended():
    async with answer("[1, 2, 3,]", response_format=list[int]) as stream:
        view = stream.values(repair=True)
        assert await all_of(view) == [1, 2, 3]
        assert view.repaired
    async with answer("[1, 2, x", response_format=list[int]) as stream:
        found, error = await until_error(stream.values(repair=True))
        assert found in ([1, 2], [1, 2, "x"])
        assert error is None or isinstance(error, llm.BrokenJSON)


async def test_a_stream_that_broke_is_not_mended():
    steps = [*openai_events('{"a": "one tw')[:-3], httpx.ReadError("cut")]
    async with opened(*steps) as stream:
        _, error = await until_error(stream.fields(repair=True))
        assert isinstance(error, llm.ConnectionCut)


async def test_line_ends_in_arguments_are_marked():
    calls = (("write", '{"text": "a\nb", "n": 1}', ""),)
    events = SPEAKERS["openai"].stream(0, Turn("Hi", "", "", calls))
    async with opened(*events) as stream:
        async for call in stream.calls():
            fields = await all_of(call.fields())
            assert values(fields) == {"text": "a\nb", "n": 1}
            assert {f.name: f.repaired for f in fields if f.done} == {"text": True, "n": False}
        assert call.runnable
        assert call.tool_call.parsed(Any) == {"text": "a\nb", "n": 1}


async def test_arguments_too_long_to_be_mended_are_broken(monkeypatch):
    """The call can't be run, and its fields must not end as if it could."""
    monkeypatch.setattr("trio_minillm._toolkit.values.shapes.MAX_MENDED", 5)

    def plan(title: str) -> str:
        return title

    arguments = '{"title": "one\ntwo"}'
    events = SPEAKERS["openai"].stream(0, Turn("Hi", "", "", (("plan", arguments, ""),)))
    async with opened(*events, tools=[plan]) as stream:
        async for call in stream.calls():
            fields, error = await until_error(call.fields())
            assert texts(fields) == {"title": "one\ntwo"}
            assert type(error) is llm.BrokenJSON
            assert error.text == arguments


async def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "json_repair", None)
    async with answer("{}") as stream:
        for use in (stream.fields, stream.values, stream.partial):
            with pytest.raises(ImportError, match=r"trio-minillm\[repair\]"):
                use(repair=True)
        assert await all_of(stream.fields()) == []


async def test_texts_too_long_to_be_mended(monkeypatch):
    monkeypatch.setattr("trio_minillm._toolkit.values.repair.MAX_REPAIRED", 5)
    async with answer('{"a": "one tw') as stream:
        _, error = await until_error(stream.fields(repair=True))
        assert isinstance(error, llm.CutJSON)


def test_nothing_shows_the_text():
    field = llm.Field(name="secret", delta="secret", value="secret")
    assert "secret" not in repr(field)
