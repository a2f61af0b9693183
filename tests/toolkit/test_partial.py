"""A partial value: at every place, it is the beginning of the whole."""

import itertools
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._toolkit.values.partial import PartialShape
from trio_minillm._toolkit.values.tree import NOTHING, Tree
from trio_minillm._types.chunks import StreamChunk
from trio_minillm.testing import ScriptedTransport, openai_events, reply

from ..support.json_texts import OBJECTS, VALUES, cut, texts_of


class Step(msgspec.Struct):
    text: str
    minutes: int


class Recipe(msgspec.Struct):
    title: str
    steps: list[Step]
    note: str | None = None


RECIPE = {
    "title": 'A "té"',
    "steps": [{"text": "boil\nit", "minutes": 3}, {"text": "pour", "minutes": 1}],
    "note": None,
}


def begins(part: Any, whole: Any) -> bool:
    """Whether a value is the beginning of another: of each string, list and object in it."""
    if isinstance(whole, str) and isinstance(part, str):
        return whole.startswith(part)
    if isinstance(whole, list) and isinstance(part, list):
        return len(part) <= len(whole) and all(map(begins, part, whole))
    if isinstance(whole, dict) and isinstance(part, dict):
        keys = list(whole)[: len(part)]
        return list(part) == keys and all(begins(part[key], whole[key]) for key in keys)
    return part is whole or part == whole


@given(texts_of(st.lists(VALUES, max_size=4) | OBJECTS), st.data())
def test_every_beginning_gives_a_beginning(made, data):
    value, text = made
    shape = PartialShape({})
    whole = {}
    for piece in data.draw(cut(text)):
        shape.feed(piece)
        data_so_far = shape.data()
        assert data_so_far is None or begins(json.loads(json.dumps(data_so_far)), value)
        assert all(shape.whole[key] == was for key, was in whole.items())
        whole = dict(shape.whole)
    assert shape.over
    assert shape.data() == value
    assert whole == (value if isinstance(value, dict) else {})


@given(texts_of(st.lists(VALUES, max_size=4) | OBJECTS), st.data())
def test_a_tree_shows_an_open_string_as_often_as_it_is_asked(made, data):
    value, text = made
    tree = Tree()
    for piece in data.draw(cut_outside_escapes(text)):
        tree.feed(piece)
        if data.draw(st.booleans()):
            assert tree.value() is NOTHING or begins(tree.value(), value)
    assert tree.value() == value


@st.composite
def cut_outside_escapes(draw, text):
    """Cuts as `MemberReader` gives the pieces: not in an escape, a number or a word."""
    places = [
        i for i in range(len(text)) if text[i] in '"{}[],: \n' and (i == 0 or text[i - 1] != "\\")
    ]
    chosen = sorted(draw(st.sets(st.sampled_from(places), max_size=6))) if places else []
    ends = [0, *chosen, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def stream_of(*deltas: str, response_format: Any = Recipe):
    transport = ScriptedTransport(reply(*openai_events(*deltas)))
    client = llm.open_client(transport=transport)
    model = llm.openai("m", api_key="k")
    return client, lambda c: c.stream(model, "Hi", response_format=response_format)


async def test_after_each_chunk():
    client, open_stream = stream_of(*json.dumps(RECIPE))
    seen = []
    async with client as c, open_stream(c) as stream:
        assert stream.partial() is stream.partial(Recipe)
        assert (stream.partial().data, dict(stream.partial().fields)) == (None, {})
        async for _ in stream:
            partial = stream.partial(Recipe)
            seen.append(json.loads(json.dumps(partial.data)))
            assert begins(seen[-1] or {}, RECIPE)
            assert partial.is_whole == (partial.value is not None)
        assert partial.value == msgspec.convert(RECIPE, Recipe)
        assert dict(partial.whole) == {
            "title": RECIPE["title"],
            "steps": [Step("boil\nit", 3), Step("pour", 1)],
            "note": None,
        }
        assert stream.partial().error is None
    assert {"title": 'A "té"', "steps": [{"text": "boil"}]} in seen
    assert {"title": 'A "té"', "steps": [{"text": "boil\nit", "minutes": 3}, {}]} in seen


async def test_a_list_that_was_asked_for_in_an_object():
    for text in ('{"answer": [1, 2', "[1, 2"):
        client, open_stream = stream_of(
            *text, ", 34]", "}" * text.startswith("{"), response_format=list[int]
        )
        async with client as c, open_stream(c) as stream:
            seen = [json.dumps(stream.partial(list[int]).data) async for _ in stream]
            assert "[1, 2]" not in seen  # it may be 23
            assert "[1]" in seen
            assert stream.partial().value == [1, 2, 34]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"title": "a", "steps": 1}', llm.UnexpectedValue),
        ('{"title": "a"}', llm.UnexpectedValue),
        ('{"title": "a", x', llm.BrokenJSON),
        ('{"title": "a", "ste', llm.CutJSON),
        ("no", llm.BrokenJSON),
    ],
)
async def test_a_value_that_will_never_be(text, kind):
    for deltas in ([text], list(text)):
        client, open_stream = stream_of(*deltas)
        async with client as c, open_stream(c) as stream:
            await stream.collect()
            partial = stream.partial(Recipe)
            assert type(partial.error) is kind
            assert (partial.value, partial.is_whole, partial.repaired) == (None, False, False)
            assert dict(partial.fields).get("title", "a") == "a"


async def test_a_cut_value_mended():
    client, open_stream = stream_of('{"title": "a", "steps": [{"text": "boil", "minutes": 3')
    async with client as c, open_stream(c) as stream:
        await stream.collect()
        assert stream.partial(Recipe).value is None
        partial = stream.partial(Recipe, repair=True)
        assert partial.value == Recipe("a", [Step("boil", 3)])
        assert (partial.repaired, partial.error, partial.is_whole) == (True, None, True)
        assert partial.fields["steps"] == [{"text": "boil", "minutes": 3}]


async def test_what_can_not_be_mended_stays_broken():
    client, open_stream = stream_of('{"title": "a", "ste')
    async with client as c, open_stream(c) as stream:
        await stream.collect()
        partial = stream.partial(Recipe, repair=True)
        assert (partial.value, partial.repaired) == (None, False)
        assert isinstance(partial.error, llm.CutJSON)
        assert dict(partial.fields) == {"title": "a"}


async def test_its_fields_can_not_be_changed():
    client, open_stream = stream_of(json.dumps(RECIPE))
    async with client as c, open_stream(c) as stream:
        await stream.collect()
        with pytest.raises(TypeError):
            stream.partial().fields["title"] = "b"  # type: ignore[index]
        assert "té" not in repr(stream.partial())


def test_time_is_in_proportion_to_the_text():
    """Asked after each of so many chunks: four times as many take four times the time, not sixteen."""

    def seconds(n):
        text = json.dumps({"items": [{"name": "word", "tags": ["a"]}] * n, "text": "word " * n})
        stream, _ = llm.StreamingCompletion.from_channel("m")
        begun = time.process_time()
        for at in range(0, len(text), 20):
            stream.ingest(StreamChunk(text[at : at + 20]))
            stream.partial(dict)
        return time.process_time() - begun

    seconds(100)
    assert min(seconds(8_000) for _ in range(2)) < 10 * max(seconds(2_000) for _ in range(2))
