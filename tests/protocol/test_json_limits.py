"""What is too much to be built, told from the bytes."""

from __future__ import annotations

import pytest

from trio_minillm._protocol.json_limits import MAX_OBJECTS, MAX_VALUES, exceeded_limit


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
