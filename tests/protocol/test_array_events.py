"""A stream that is one JSON array: its elements are events, as they come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm._protocol.array_events import ArrayEvents
from trio_minillm._protocol.decoder import ChunkDecoder


def elements(*pieces: bytes, most: int = 1000) -> list[bytes]:
    array = ArrayEvents(most)
    return [bytes(event.data) for piece in pieces for event in array.feed(piece)]


NESTED = b'{"a": [1, {"b": "]}\\"\\\\"}], "c": "{[\\\\"}'


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[]", []),
        (b'[{"a":1}]', [b'{"a":1}']),
        (b' [\r\n{"a":1}\r\n,\r\n{"b":2}\r\n]\r\n', [b'{"a":1}', b'{"b":2}']),
        (b"[" + NESTED + b"," + NESTED + b"]", [NESTED, NESTED]),
        (b'[[{"a":1}],"{\\"x\\":1}"]', [b'[{"a":1}]', b'"{\\"x\\":1}"']),
        (b'[1, true, {"a":1}, null]', [b'{"a":1}']),  # numbers and words are no events
        (b'[{"a":1},{"b":', [b'{"a":1}']),  # cut
        (b'[{"a":1}] [{"b":2}]', [b'{"a":1}']),  # behind its end
        (b'[{"a":1', []),
    ],
)
def test_the_elements_of_an_array(body: bytes, found: list[bytes]) -> None:
    assert elements(body) == found
    assert elements(*(body[i : i + 1] for i in range(len(body)))) == found
    for at in range(len(body)):
        assert elements(body[:at], b"", body[at:]) == found


def test_an_element_comes_with_its_last_byte() -> None:
    array = ArrayEvents(100)
    assert array.feed(b'[{"a":1') == []
    assert [event.data for event in array.feed(b'},{"b"')] == [b'{"a":1}']
    assert [event.data for event in array.feed(b":2}")] == [b'{"b":2}']


def test_an_element_has_a_bound() -> None:
    for pieces in ([b'[{"a":"', b"x" * 10, b"x" * 10], [b'[{"a":"xxxxxxxxxxxxxxxxxx"}, {}]']):
        array = ArrayEvents(16)
        assert [event for piece in pieces for event in array.feed(piece)] == []
        assert array.failure is not None
        assert array.failure.limit == 16
        assert array.feed(b'"},{"b":1}]') == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), _json, max_size=3)), st.data())
def test_any_array_in_any_pieces(found: list[dict[str, Any]], data: st.DataObject) -> None:
    body = json.dumps(found, ensure_ascii=data.draw(st.booleans()), indent=2).encode()
    at = data.draw(st.lists(st.integers(0, len(body))))
    edges = [0, *sorted(at), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert [json.loads(one) for one in elements(*pieces, most=10**6)] == found


# -- in the decoder ----------------------------------------------------------------------------

BODY = b"[" + b",\r\n".join(event[6:].strip() for event in testing.gemini_events("a", "b")) + b"]"


@pytest.mark.parametrize("before", [b"", b"\r\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_chunks_come_before_the_body_ends(before: bytes) -> None:
    decoder = ChunkDecoder(providers.Gemini())
    body = before + BODY
    cut = body.index(b",\r\n")
    assert [chunk.delta for chunk in decoder.feed(body[:cut], 0.0)] == ["a"]
    rest = decoder.feed(body[cut:], 0.0)
    assert [chunk.delta for chunk in rest] == ["b", ""]
    assert rest[-1].finish_reason == "STOP"
    assert decoder.finish(0.0) == []
    assert decoder.error is None


def test_the_bound_of_an_element_ends_the_stream() -> None:
    decoder = ChunkDecoder(providers.Gemini(), max_event=64)
    assert decoder.feed(b'[{"a": "' + b"x" * 100, 0.0) == []
    assert isinstance(decoder.error, llm.LimitExceeded)
    assert decoder.feed(b'"}]', 0.0) == []


def test_an_array_without_an_answer_is_shown() -> None:
    for body in (b'["sorry, no"]', b"[1]", b'[{"error": {"code": 503, "message": "sorry, no"}}]'):
        response, error = testing.decode(providers.Gemini(), [body])
        assert error is not None
        assert response.outcome is not llm.Outcome.FINISHED
    assert "sorry, no" in str(error)


def test_other_wires_read_an_array_when_it_is_whole() -> None:
    body = b'[{"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}]'
    decoder = ChunkDecoder(providers.OpenAIChat())
    assert decoder.feed(body, 0.0) == []
    assert [chunk.delta for chunk in decoder.finish(0.0)] == ["a"]
