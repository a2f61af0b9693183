"""Tests of the limits on JSON that is about to be decoded."""

from __future__ import annotations

import json

import pytest

from trio_minillm._protocol.json_limits import (
    MAX_NESTED,
    MAX_OBJECTS,
    MAX_VALUES,
    exceeded_limit,
    shallow,
    without_side_fields,
)


@pytest.mark.parametrize(
    ("data", "bound"),
    [
        (b"[" + b"{}," * MAX_OBJECTS + b"0]", "opening braces and brackets"),
        (b"[" + b"[]," * MAX_OBJECTS + b"0]", "opening braces and brackets"),
        (b"{" + b'"":0,' * (MAX_OBJECTS // 2) + b'"a":":"' * MAX_OBJECTS + b"}", "quotation marks"),
        (b"{" + b"a:0," * (MAX_OBJECTS + 1) + b"}", "names of fields"),
        (b"[" + b"1," * (MAX_VALUES + 1) + b"1]", "values"),
    ],
)
def test_too_much(data: bytes, bound: str) -> None:
    found = exceeded_limit(data)
    assert found is not None
    assert found[0] == bound


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'"' + b"{" * (MAX_OBJECTS + 1) + b'"',  # in a text it is text
        b'"' + b'\\"{' * (MAX_OBJECTS + 1) + b'"',
        b'"' + b"\\\\" * MAX_OBJECTS + b'":' + b'"' + b"[" * (MAX_OBJECTS + 1) + b'"',
        b"[" + b"1," * MAX_VALUES + b"1]",
        b"[" + b"{}," * (MAX_OBJECTS - 2) + b"0]",
    ],
)
def test_enough(data: bytes) -> None:
    assert exceeded_limit(data) is None


@pytest.mark.parametrize("choices", ["", '"choices":[],', '"choices":null,'])
def test_what_has_no_choices_is_left_as_it_is(choices: str) -> None:
    data = ("{" + choices + '"x":[' + "{}," * MAX_OBJECTS + "0]}").encode()
    assert without_side_fields(data) == (data, [])


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")])
@pytest.mark.parametrize("levels", [1, MAX_NESTED - 1, MAX_NESTED, MAX_NESTED + 1, 5000])
def test_what_nests_too_deep_becomes_null(opens: str, closes: str, levels: int) -> None:
    text = '{"before":"[\\"{","deep":' + opens * levels + "1" + closes * levels + ',"behind":[2]}'
    found = json.loads(shallow(text.encode()))
    assert found["before"] == '["{'
    assert found["behind"] == [2]
    if levels * opens.count("[") + levels * opens.count("{") < MAX_NESTED:
        assert found == json.loads(text)
    value, depth = found["deep"], 0
    while isinstance(value, list | dict):
        value, depth = next(iter(value.values() if isinstance(value, dict) else value)), depth + 1
    assert depth < MAX_NESTED
    assert value in (1, None)


def test_what_does_not_end_is_cut_off_as_deep() -> None:
    assert shallow(b'{"a":' + b"[" * 5000).endswith(b"[null")
