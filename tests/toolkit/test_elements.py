"""The elements of a list, wherever that may stand, and what is no such list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._toolkit.values.elements import ElementShape

from ..support.json_texts import VALUES, cut


def read(pieces, type=None, **options):
    shape = ElementShape(type, **options)
    found = [value for piece in pieces for value in shape.feed(piece)]
    return found + shape.finish(), shape.broken


PLACES = {
    "%s": {},
    ' {"x": [0], "items": %s, "y": {"items": [1]}}': {"field": "items"},
    '{"answer": %s}': {"wrapped": True},
    " %s ": {"wrapped": True},
}


@pytest.mark.parametrize(("text", "options"), PLACES.items())
@given(value=st.lists(VALUES, max_size=5), data=st.data())
def test_a_list_at_every_place(text, options, value, data):
    whole = text % json.dumps(value)
    assert read(data.draw(cut(whole)), **options) == (value, None)


def test_a_list_that_comes_as_text():
    text = json.dumps({"answer": {"json_text": json.dumps([1, 'é"', [2]])}})
    for pieces in ([text], list(text)):
        assert read(pieces, wrapped=True) == ([1, 'é"', [2]], None)
    for bad in ('{"answer": {"json_text": "{}"}}', '{"answer": {"json_text": "[1, x"}}'):
        for pieces in ([bad], list(bad)):
            assert isinstance(read(pieces, wrapped=True)[1], llm.BrokenJSON)


def test_a_field_that_is_null_has_no_elements():
    assert read(['{"items": null}'], field="items") == ([], None)


@pytest.mark.parametrize(
    ("text", "options", "path"),
    [
        ('{"a": 1}', {}, "$"),
        ('"x"', {}, "$"),
        ("[1]", {"field": "items"}, "$"),
        ('{"other": [1]}', {"field": "items"}, "$"),
        ('{"items": "x"}', {"field": "items"}, "$.items"),
        ('{"items": 1}', {"field": "items"}, "$.items"),
        ('{"items": {"a": 1}}', {"field": "items"}, "$.items"),
        ('{"items": [1, "x"]}', {"field": "items", "type": int}, "$.items[1]"),
        ('[1, "x"]', {"type": int}, "$[1]"),
    ],
)
def test_what_is_no_such_list(text, options, path):
    for pieces in ([text], list(text)):
        error = read(pieces, **options)[1]
        assert isinstance(error, llm.UnexpectedValue)
        assert error.path == path


@pytest.mark.parametrize(
    ("text", "options", "path"),
    [
        ('{"items": [1, {"a": tru}]}', {"field": "items"}, "$.items[1].a"),
        ('[1, {"a": [0, x', {}, "$[1].a[1]"),
    ],
)
def test_where_it_breaks(text, options, path):
    for pieces in ([text], list(text)):
        found, error = read(pieces, **options)
        assert found == [1]
        assert error.path == path
