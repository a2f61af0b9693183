"""Ordinary events of Anthropic's have a short way, which gives what the long way gives or nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import StreamChunk
from trio_minillm.providers import Anthropic, anthropic
from trio_minillm.providers._anthropic_ordinary import ordinary_chunk

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 1},
}
TEXT = {"type": "text", "text": ""}
CALL = {"type": "tool_use", "id": "c", "name": "f", "input": {}}


def start(**more: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {**MESSAGE, **more}}


def block(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": content, **more}


def delta(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 1, "delta": {"type": kind, **fields}}


def reason(word: Any = "end_turn", **more: Any) -> dict[str, Any]:
    usage = {"output_tokens": 5}
    return {"type": "message_delta", "delta": {"stop_reason": word, **more}, "usage": usage}


STOP = {"type": "content_block_stop", "index": 0}
END = {"type": "message_stop"}
PING = {"type": "ping"}
CACHED = {
    "input_tokens": 9,
    "cache_read_input_tokens": 4,
    "cache_creation": {"ephemeral_1h_input_tokens": 3},
    "output_tokens": 1,
    "service_tier": "priority",
}

ORDINARY: list[dict[str, Any]] = [
    start(),
    start(container=None, context_management=[], more={"error": "x"}),
    start(usage=None),
    start(usage=CACHED),
    start(usage={"input_tokens": "x"}),
    start(id=None, content=None),
    block(TEXT),
    delta("text_delta", text=" a"),
    delta("thinking_delta", thinking="t"),
    delta("thinking_delta", thinking="t", text="a"),
    delta("input_json_delta", partial_json="{"),
    STOP,
    {**STOP, "index": -1},
    {**STOP, "index": 2**70},
    reason(),
    reason(None),
    reason("stop_sequence", stop_sequence="\n"),
    reason("tool_use", stop_sequence=None, stop_details=None, container=None),
    {"type": "message_delta", "delta": {}},
    {"type": "message_delta", "delta": {}, "usage": None},
    {**reason(), "usage": {"output_tokens": -1}},
    END,
    PING,
]
OTHERS: list[dict[str, Any]] = [
    start(content=[{"type": "text", "text": "a"}]),
    start(stop_reason="end_turn"),
    start(model=5),
    {**start(), "error": {"message": "no"}},
    {"type": "message_start"},
    {"type": "message_start", "message": "a"},
    block({**TEXT, "text": "a"}),
    block({**TEXT, "citations": None}),
    block(CALL),
    block({"type": "thinking", "thinking": "", "signature": ""}),
    block(None),
    block(TEXT, error="no"),
    delta("text_delta"),
    delta("text_delta", text=""),
    delta("text_delta", text=None),
    delta("text_delta", text=["a"]),
    delta("text_delta", thinking="a"),
    delta("text", text="a"),
    delta("text_delta", text="a", citation={}),
    delta("thinking_delta", thinking="", text="a"),
    delta("input_json_delta", partial_json=""),
    delta("input_json_delta", partial_json={"a": 1}),
    delta("signature_delta", signature="s"),
    delta("vendor_delta", text="a"),
    {**delta("text_delta", text="a"), "index": "0"},
    {"type": "content_block_delta", "index": 0, "delta": "a"},
    {"type": "content_block_stop"},
    {**STOP, "index": 1.0},
    {**STOP, "content_block": CALL},
    reason("error"),
    reason("refusal", stop_details={"type": "refusal"}),
    reason("pause_turn"),
    reason(5),
    reason(container={"id": "c"}),
    reason(usage={"output_tokens": 3}),
    {**reason(), "context_management": {"applied_edits": []}},
    {**reason(), "usage": [5]},
    {**reason(), "error": {"message": "no"}},
    {**END, "usage": {"output_tokens": 5}},
    {**END, "stop_reason": "end_turn"},
    {**PING, "error": "no"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
    {"type": "vendor_event"},
    {"type": None},
    {},
]
BYTES = [
    b'{"type":"ping","type":"error"}',
    b'{"type":"ping","type":"ping"}',
    b'{"type":"content_block_stop","index":0,"index":1}',
    b'{"type":"content_block_stop","index":"a","index":1}',
    b'{"index":3,"type":"content_block_stop"}',
    b'{"type":"\\u0070ing"}',
    b' {"type":"ping"} ',
    b'{"type":"ping"}{}',
    b'{"type":"content_block_stop","index":1e400}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83d"}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}',
    b'{"type":"message_delta","delta":{"stop_reason":"a","stop_reason":"end_turn"}}',
    b'{"type":"message_delta","delta":{},"usage":' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
    b"[DONE]",
    b"[]",
    b"{",
    b"",
]


def read(name: str, data: bytes, *, short: bool) -> Any:
    """What the provider makes of an event, in either way."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not short:
            monkeypatch.setattr(anthropic, "ordinary_chunk", lambda data: msgspec.UNSET)
        try:
            found = Anthropic().parse_event(name, data)
        except Exception as exc:
            return type(exc), str(exc), getattr(exc, "usage", None), getattr(exc, "info", None)
    chunks = [found] if isinstance(found, StreamChunk) else found
    usages = [chunk.usage and vars(chunk.usage) for chunk in chunks or ()]
    return chunks, usages


def assert_alike(name: str, data: bytes) -> None:
    assert read(name, data, short=True) == read(name, data, short=False)


@pytest.mark.parametrize("event", ORDINARY, ids=json.dumps)
def test_an_ordinary_event_is_read_as_the_long_way_reads_it(event: dict[str, Any]) -> None:
    data = json.dumps(event).encode()
    assert ordinary_chunk(data) is not msgspec.UNSET
    for name in (event["type"], "message", "ping", "error", "x", ""):
        assert_alike(name, data)


@pytest.mark.parametrize("event", OTHERS, ids=json.dumps)
def test_any_other_event_is_left_to_the_long_way(event: dict[str, Any]) -> None:
    data = json.dumps(event).encode()
    assert ordinary_chunk(data) is msgspec.UNSET
    assert_alike(event.get("type") or "message", data)


@pytest.mark.parametrize("data", BYTES, ids=lambda data: repr(data[:60]))
def test_odd_bytes_are_read_alike(data: bytes) -> None:
    assert_alike("message_delta", data)


NAMES = sorted(
    {name for event in ORDINARY + OTHERS for name in event}
    | set(MESSAGE)
    | set(CACHED)
    | {"text", "thinking", "partial_json", "signature", "citation", "stop_details", "container"}
)
VALUES = st.sampled_from(
    (
        *(None, True, 0, 1, -1, 1.5, 2**70, "", "a", "error", "end_turn", "text_delta", "ping"),
        *([], {}, ["a"], {"type": "text", "text": "a"}, {"output_tokens": 5}, {"error": "no"}),
    )
)


@st.composite
def events(draw: Any) -> bytes:
    """An event with fields taken away, put in, replaced, or named twice; perhaps cut short."""
    event = json.loads(json.dumps(draw(st.sampled_from(ORDINARY + OTHERS))))
    inner = [part for part in event.values() if isinstance(part, dict)]
    inner += [found for part in inner for found in part.values() if isinstance(found, dict)]
    for place in draw(st.lists(st.sampled_from((event, *inner)), max_size=2)):
        if place and draw(st.booleans()):
            del place[draw(st.sampled_from(sorted(place)))]
        else:
            place[draw(st.sampled_from(NAMES))] = draw(VALUES)
    data = json.dumps(event).encode()
    if event and draw(st.booleans()):  # a field twice
        again = {draw(st.sampled_from(sorted(event))): draw(VALUES)}
        first, last = json.dumps(again).encode()[1:-1], data[1:-1]
        data = b"{%b,%b}" % draw(st.sampled_from(((first, last), (last, first))))
    if draw(st.integers(0, 9)) == 9:
        data = data[: draw(st.integers(0, len(data)))]
    return data


@given(st.sampled_from(("message", "ping", "message_delta", "error", "x", "")), events())
def test_both_ways_read_alike(name: str, data: bytes) -> None:
    assert_alike(name, data)
