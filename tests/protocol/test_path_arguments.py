"""Arguments that come as values with their paths become one JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import StreamChunk, ToolCallDelta
from trio_minillm._protocol.path_arguments import PathArguments


def call(name: str | None = None, more: bool = True, *values: Any, **fields: Any) -> StreamChunk:
    partial = {"partialArgs": list(values), "willContinue": more, **fields}
    return StreamChunk(tool_calls=(ToolCallDelta(name=name, partial=partial),))


def text(path: str, value: str, more: bool = False) -> dict[str, Any]:
    return {"jsonPath": path, "stringValue": value, **({"willContinue": True} if more else {})}


def written(*values: Any, paths: PathArguments | None = None) -> str:
    """The arguments of a call whose values come one by one."""
    paths = paths or PathArguments()
    chunks = [call("f"), *(call(None, True, value) for value in values), call(None, False)]
    for chunk in chunks:
        paths.write(chunk)
        assert chunk.tool_calls[0].partial is None
    return "".join(chunk.tool_calls[0].arguments for chunk in chunks)


@pytest.mark.parametrize(
    ("beside", "moves"),
    [({}, False), ({"finish_reason": "STOP"}, True), ({"annotations": ({},)}, True)],
)
def test_the_end_of_no_call_moves_the_answer_by_what_stands_beside_it(
    beside: Any, moves: bool
) -> None:
    chunk = StreamChunk(tool_calls=(ToolCallDelta(partial={}),), **beside)
    PathArguments().write(chunk)
    assert chunk.progress is moves


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], {}),
        ([text("$.a", "x")], {"a": "x"}),
        ([text("$.a", 'x "', True), text("$.a", "y\n", True), text("$.a", "")], {"a": 'x "y\n'}),
        ([text("$.a", "x", True), {"jsonPath": "$.a"}], {"a": "x"}),  # the end of the string
        ([text("$.a", "x", True), text("$.b", "y", True)], {"a": "x", "b": "y"}),
        ([{"jsonPath": "$.a", "numberValue": 0.5}], {"a": 0.5}),
        ([{"jsonPath": "$.a", "boolValue": False}], {"a": False}),
        ([{"jsonPath": "$.a", "nullValue": "NULL_VALUE"}], {"a": None}),
        ([{"jsonPath": "$.a", "nullValue": None}], {"a": None}),
        ([{"jsonPath": "$.a", "stringValue": 1}], {"a": 1}),
        ([text("$['a.b'][0]", "x"), text('$["a.b"][1]', "y")], {"a.b": ["x", "y"]}),
        ([text(r"$['it\'s']", "x")], {"it's": "x"}),
        (
            [text("$.a[0].b", "1"), text("$.a[0].c", "2"), text("$.a[1].b", "3"), text("$.d.e", "4")],
            {"a": [{"b": "1", "c": "2"}, {"b": "3"}], "d": {"e": "4"}},
        ),
        ([text("$.a[0][0]", "1"), text("$.a[0][1]", "2"), text("$.a[1][0]", "3")], {"a": [["1", "2"], ["3"]]}),
    ],
)  # fmt: skip
def test_values_become_json(values: list[Any], found: Any) -> None:
    assert json.loads(written(*values)) == found


@pytest.mark.parametrize(
    "values",
    [
        [text("$", "x")],
        [text("a", "x")],
        [text("$.", "x")],
        [{"jsonPath": 7, "stringValue": "x"}],
        [{"jsonPath": "$.a"}],
        ["x"],
        [text("$[0]", "x")],
        [text("$.a[1]", "x")],
        [text("$.a", "x"), text("$.a", "y")],
        [text("$.a", "x"), text("$.a.b", "y")],
        [text("$.a.b", "x"), text("$.a", "y")],
        [text("$.a.b", "x"), text("$.a[0]", "y")],
        [text("$.a[0]", "x"), text("$.a.b", "y")],
        [text("$.a[0]", "x"), text("$.a[2]", "y")],
        [text("$.a.b", "x"), text("$.c", "y"), text("$.a.d", "z")],
        [text("$.a", "x", True), text("$", "y"), text("$.b", "z")],
    ],
)
def test_values_in_no_order_leave_the_text_open(values: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        json.loads(written(*values))


def test_arguments_that_come_whole_at_the_end() -> None:
    paths = PathArguments()
    first, last = call("f"), call(None, False, args={"a": 1})
    paths.write(first)
    paths.write(last)
    assert (first.tool_calls[0].arguments, last.tool_calls[0].arguments) == ("", '{"a":1}')
    assert last.progress


def test_a_call_goes_on_under_its_name_and_another_name_begins_one() -> None:
    paths = PathArguments()
    chunks = [call("f"), call("f", True, text("$.a", "x")), call("g"), call(None, False)]
    for chunk in chunks:
        paths.write(chunk)
    assert [chunk.tool_calls[0].name for chunk in chunks] == ["f", None, "g", None]
    assert [chunk.tool_calls[0].arguments for chunk in chunks] == ["", '{"a":"x"', "", "{}"]


def test_an_end_without_a_call_is_none() -> None:
    chunk = call(None, False)
    PathArguments().write(chunk)
    assert (chunk.tool_calls[0].arguments, chunk.progress) == ("", False)


def test_each_choice_has_a_call_of_its_own() -> None:
    paths = PathArguments()
    chunks = [call("f"), call("g"), call(None, False, text("$.a", "1")), call(None, False)]
    for number, chunk in enumerate(chunks):
        chunk.choice = number % 2
        paths.write(chunk)
    assert [c.tool_calls[0].arguments for c in chunks] == ["", "", '{"a":"1"}', "{}"]


def test_other_calls_are_left_alone() -> None:
    chunk = StreamChunk(tool_calls=(ToolCallDelta(0, "id", "f", "{}"),))
    PathArguments().write(chunk)
    assert chunk.tool_calls == (ToolCallDelta(0, "id", "f", "{}"),)


def leaves(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = key.replace("\\", "\\\\").replace("'", "\\'")
            yield from leaves(inner, f"{path}['{name}']")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text(), inner, min_size=1, max_size=3)
    ),
    max_leaves=10,
)
_KINDS = {bool: "boolValue", int: "numberValue", type(None): "nullValue"}


@given(st.dictionaries(st.text(), _values, max_size=4), st.data())
def test_any_object_by_its_leaves(given_: dict[str, Any], data: st.DataObject) -> None:
    values: list[Any] = []
    for path, value in leaves(given_, "$"):
        if isinstance(value, str):
            cut = data.draw(st.integers(0, len(value)))
            values += [text(path, value[:cut], True), text(path, value[cut:])]
        else:
            values.append({"jsonPath": path, _KINDS[type(value)]: value})
    assert json.loads(written(*values)) == given_
