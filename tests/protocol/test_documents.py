"""Tests of events, and bodies, that hold several JSON objects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import ProtocolError, ProviderError, providers
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.documents import MAX_SPLIT, documents, without_prefix


def piece(text: str, reason: str | None = None) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return json.dumps({"id": "g", "choices": [choice]}).encode()


def decoded(body: bytes, cut: int = 0) -> tuple[str, str | None, bool, ChunkDecoder]:
    decoder = ChunkDecoder(providers.OpenAIChat())
    chunks = [*decoder.feed(body[:cut], 0.0), *decoder.feed(body[cut:], 0.0), *decoder.finish(0.0)]
    text = "".join(chunk.delta for chunk in chunks)
    reason = next((chunk.finish_reason for chunk in chunks if chunk.finish_reason), None)
    return text, reason, any(chunk.end for chunk in chunks), decoder


HEL, LO, STOP, DONE = piece("Hel"), piece("lo"), piece("", "stop"), b"[DONE]"
WHOLE = json.dumps(
    {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"".join(b"data: data: %s\n\n" % one for one in (HEL, LO, STOP, DONE)),
        b"".join(b"data: data:data: %s\n\n" % one for one in (HEL, LO, STOP, DONE)),
        b"data: %s%s\n\ndata: %s\n\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b"data: %s %s, %s\n\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b"data: %sdata: %s data: %s data: [DONE]\n\n" % (HEL, LO, STOP),
        b"data: %s\\n\\n\n\ndata: %s\\n\\n\n\ndata: %s\\n\\n\n\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b"data: %s\\n\\ndata: %s\\n\\ndata: %s\\n\\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b"data: [%s,%s,%s]\n\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b"".join(
            b"data: %s\n\n" % json.dumps(one.decode()).encode() for one in (HEL, LO, STOP)
        )
        + b"data: [DONE]\n\n",
    ],
)  # fmt: skip
def test_an_event_of_several_objects_is_several_events(body: bytes) -> None:
    text, reason, end, decoder = decoded(body)
    assert (text, reason, end, decoder.error) == ("Hello", "stop", True, None)
    assert decoder.left_out.unread == {}


@pytest.mark.parametrize(
    "body",
    [
        b"%s\n%s\n%s\n" % (HEL, LO, STOP),
        b"%s\n%s\n%s" % (HEL, LO, STOP),
        b"%s\r\n%s\r\n%s\r\n[DONE]\r\n" % (HEL, LO, STOP),
        b"%s\n\n%s\n\n%s\n\ndata: [DONE]\n\n" % (HEL, LO, STOP),
        b" \n%s  \n\n: keep-alive\n\n%s\n%s\n[DONE]" % (HEL, LO, STOP),
        b"%s\n\ndata: [DONE]\n\n" % WHOLE,
        b"%s\n[DONE]\n" % WHOLE,
        b"%s\n\nevent: done\ndata: [DONE]\n\n" % WHOLE,
        b"\xef\xbb\xbf%s\n%s\n%s\n" % (HEL, LO, STOP),
        b"%s\n\n\n" % WHOLE,
    ],
)
def test_a_body_of_lines_of_json_is_a_stream_however_it_is_cut(body: bytes) -> None:
    for cut in range(len(body)):
        text, reason, _, decoder = decoded(body, cut)
        assert (text, reason, decoder.error) == ("Hello", "stop", None)


@pytest.mark.parametrize("before", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"])
def test_a_broken_line_behind_a_whole_answer_costs_the_same_however_it_is_cut(
    before: bytes,
) -> None:
    body = before + WHOLE + b'\n\n{"id": "c", "choi [{\n\n'
    for cut in range(len(body)):
        text, reason, _, decoder = decoded(body, cut)
        assert (text, reason, decoder.error) == ("Hello", "stop", None)


def test_lines_of_json_are_handed_out_as_they_come() -> None:
    decoder = ChunkDecoder(providers.OpenAIChat())
    assert decoder.feed(HEL + b"\n", 0.0) == []
    chunks = decoder.feed(LO + b"\n" + STOP + b"\n", 0.0)
    assert [chunk.delta for chunk in chunks] == ["Hel", "lo"]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.loads(WHOLE), indent=2).encode(),
        json.dumps(json.loads(WHOLE), indent=None, separators=(",\n", ":")).encode(),
        WHOLE[:-1] + b"\n}\n",
        WHOLE[:-1] + b'\n,"more":{}\n}',
        WHOLE[:-2] + b"\n]\n}",
    ],
)
def test_a_whole_answer_on_several_lines_is_one(body: bytes) -> None:
    for cut in range(len(body)):
        text, reason, _, decoder = decoded(body, cut)
        assert (text, reason, decoder.error) == ("Hello", "stop", None)


def test_an_error_among_the_objects_of_an_event_fails() -> None:
    error = b'{"error":{"message":"overloaded","code":503}}'
    text, _, _, decoder = decoded(b"data: %s%s%s\n\n" % (HEL, error, LO))
    assert text == "Hel"
    assert isinstance(decoder.error, ProviderError)


def test_events_are_counted_one_by_one() -> None:
    _, _, _, decoder = decoded(b"data: %s%s\n\ndata: %s\n\n" % (HEL, LO, STOP))
    assert decoder.events == 3


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"{}", []),
        (b'{"a":1', []),
        (b'{"a":1}}', []),
        (b'{"a":1} and {"b":2}', []),
        (b'{"a":1} "b"', []),
        (b'{"type":"}{"}{"usage":2}', [b'{"type":"}{"}', b'{"usage":2}']),
        (b'{"type":1}\\n\\n', [b'{"type":1}']),
        (b'[{"a":1},{"b":2}]', [b'{"a":1}', b'{"b":2}']),
        (b'{"type":1} {}', []),
        (b'{"type":1}' * 257, []),
        (b"[" + b"{}," * 256 + b"{}]", []),
        (b'{"type":"' + b'\\"' * 30_000, []),
        (b'{"type":1} {"type":"' + b'<a href=\\"x\\">' * 3_000, []),
        (b'{"type":1}{"a":2}', []),
        (b'[{"a":1},2]', []),
        (b"[ping]", []),
        (b"[]", []),
        (b'"{\\"a\\":1}"', [b'{"a":1}']),
        (b'"text"', []),
        (b'"half', []),
        (b'{"a":1}{"b":2}' + b" " * MAX_SPLIT + b"{}", []),
    ],
)
def test_the_objects_of_an_event(data: bytes, found: list[bytes]) -> None:
    assert documents(data) == found


def test_a_list_of_events_with_a_long_text_is_malformed_and_shows_no_mark() -> None:
    text, _, _, decoder = decoded(b"data: [" + piece("x" * 70_000) + b"," + STOP + b"]\n\n")
    assert text == ""
    assert isinstance(decoder.error, ProtocolError)


def test_the_prefix_is_taken_off() -> None:
    assert without_prefix(b"data: data:{}") == b"{}"
    assert without_prefix(b"{}") == b"{}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.dictionaries(st.text(), JSON, max_size=3).map(lambda d: {"type": "x", **d}),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from(["", " ", ",", "data: ", "\\n\\n", "\\r\\ndata:"]),
)
def test_any_objects_in_a_row_are_found(values: list[dict[str, Any]], between: str) -> None:
    found = documents(between.join(map(json.dumps, values)).encode())
    assert [json.loads(one) for one in found] == values
