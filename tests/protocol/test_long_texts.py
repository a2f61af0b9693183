"""Long texts: cut out of an event, put back, and never misread."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_minillm import LimitExceeded, StreamChunk, providers
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.json_limits import MAX_DECODED
from trio_minillm._protocol.long_texts import LONG_TEXT, LongTexts
from trio_minillm.testing import sse

LONG = "A" * LONG_TEXT


def read(value: Any, **options: Any) -> tuple[Any, LongTexts]:
    long = LongTexts(json.dumps(value, **options).encode())
    return long.restored(msgspec.json.decode(long.short)), long


@pytest.mark.parametrize(
    "value",
    [
        LONG,
        [LONG, LONG + "b", 1],
        {"a": {"url": "data:image/png;base64," + LONG * 3}, "b": [LONG], "c": LONG},
        {LONG: 1, "k": LONG},
        {"short": "x" * (LONG_TEXT - 1)},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_cut_out_is_put_back(value: Any, indent: int | None) -> None:
    assert read(value, indent=indent)[0] == value


@pytest.mark.parametrize("text", [LONG * 8, "x" * 100 + LONG * 8])
def test_a_long_text_is_not_decoded_with_its_event(text: str) -> None:
    back, long = read({"a": text, "b": 1})
    assert back == {"a": text, "b": 1}
    assert len(long.short) < 100


@pytest.mark.parametrize(
    "value",
    [
        "\u00e9" * LONG_TEXT,
        "\\" * LONG_TEXT,
        '"' * LONG_TEXT,
        list(range(LONG_TEXT)),
        {"x:": list(range(LONG_TEXT)), ",": "b"},
        " " * LONG_TEXT + "\n",
    ],
)
def test_what_is_no_plain_text_stays(value: Any) -> None:
    back, long = read(value)
    assert back == value
    assert len(long.short) >= LONG_TEXT


texts = st.text(st.sampled_from('ab":,[]{}\\ \u00e9'), max_size=4) | st.sampled_from(
    [LONG, LONG * 2]
)
values = st.recursive(
    texts | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(values, st.sampled_from([None, 1]))
def test_any_json_is_read_as_it_is(value: Any, indent: int | None) -> None:
    assert read(value, indent=indent)[0] == value


def decoded(*events: bytes, **options: Any) -> tuple[list[StreamChunk], ChunkDecoder]:
    decoder = ChunkDecoder(providers.OpenRouter(), **options)
    body = b"".join(events)
    pieces = [body[i : i + 65536] for i in range(0, len(body), 65536)]
    return [c for piece in pieces for c in decoder.feed(piece, 0.0)], decoder


def delta(**fields: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": fields}]})


def test_a_picture_of_nine_mebibytes_arrives() -> None:
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + "QUJD" * (9 << 18)},
    }
    chunks, decoder = decoded(delta(content="a"), delta(images=[image]), delta(content="b"))
    assert decoder.error is None
    assert [c.delta for c in chunks] == ["a", "", "b"]
    assert chunks[1].images == (image,)


def test_raw_data_are_those_that_came() -> None:
    event = delta(content=LONG * 2)
    (chunk,), _ = decoded(event, raw=True)
    assert chunk.raw == event.removeprefix(b"data: ").rstrip()
    assert chunk.delta == LONG * 2


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": [{"type": "text", "text": LONG}, {"type": "text", "text": LONG + "b"}]}, ""),
        ({"reasoning": [{"text": LONG}, {"text": LONG + "b"}]}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": LONG}]}, "a" + LONG),
    ],
)
def test_long_texts_of_several_parts_are_joined(fields: dict[str, Any], text: str) -> None:
    (chunk,), decoder = decoded(delta(**fields))
    assert decoder.error is None
    assert chunk.delta + chunk.reasoning == (text or LONG * 2 + "b")


def test_a_picture_with_escaped_slashes_arrives() -> None:
    url = "data:image/png;base64," + "QU/D" * (2 << 20)
    event = delta(images=[{"image_url": {"url": url}}]).replace(b"/", b"\\/")
    (chunk,), decoder = decoded(event)
    assert decoder.error is None
    assert chunk.images == ({"image_url": {"url": url}},)


@pytest.mark.parametrize("end", ["\\", '\\"', "\\\\/", "\\n"])
def test_other_escapes_of_a_long_text_are_read_as_json(end: str) -> None:
    assert read({"a": LONG + "/" + end})[0] == {"a": LONG + "/" + end}
    assert read({"a": [end + LONG, end]})[0] == {"a": [end + LONG, end]}


def test_a_long_text_in_arguments_that_are_an_object_is_put_back() -> None:
    function = {"name": "f", "arguments": {"a": LONG, "b": [LONG]}}
    (chunk,), _ = decoded(delta(tool_calls=[{"index": 0, "id": "c", "function": function}]))
    assert json.loads(chunk.tool_calls[0].arguments) == {"a": LONG, "b": [LONG]}


def test_a_long_text_in_the_input_of_an_anthropic_block_is_put_back() -> None:
    block = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": LONG}}
    event = sse({"type": "content_block_start", "index": 0, "content_block": block})
    (chunk,) = ChunkDecoder(providers.Anthropic()).feed(event, 0.0)
    assert json.loads(chunk.tool_calls[0].arguments) == {"a": LONG}


def test_a_long_text_of_a_whole_answer_in_an_event_is_put_back() -> None:
    message = {"content": LONG, "images": [{"image_url": {"url": LONG}}]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    chunks, _ = decoded(sse({}), sse(answer))
    assert "".join(c.delta for c in chunks) == LONG
    assert [c.images for c in chunks if c.images] == [({"image_url": {"url": LONG}},)]


def test_a_long_text_beside_a_failure_is_put_back() -> None:
    choice = {"index": 0, "delta": {"content": LONG}, "finish_reason": "error"}
    (chunk,), decoder = decoded(sse({"choices": [choice]}))
    assert decoder.error is not None
    assert chunk.delta == LONG


@pytest.mark.parametrize("text", ["\x00long text \x000", "(long text 0123456789abcdef 000000)"])
def test_a_text_that_looks_like_a_mark_stays(text: str) -> None:
    assert read([LONG, text, LONG])[0] == [LONG, text, LONG]


def test_what_must_be_decoded_in_one_go_is_bounded() -> None:
    _, decoder = decoded(delta(content='"' * (MAX_DECODED // 2)))
    assert isinstance(decoder.error, LimitExceeded)
    assert decoder.error.bound == "bytes beside long texts in one event"


def test_the_bound_of_an_event_can_be_chosen() -> None:
    event = delta(content=LONG * 4)
    _, decoder = decoded(event, max_event=LONG_TEXT)
    assert isinstance(decoder.error, LimitExceeded)
    assert decoded(event, max_event=5 * LONG_TEXT)[1].error is None


def test_what_is_kept_as_json_gets_its_texts_back() -> None:
    long = LongTexts(json.dumps({"a": LONG, "b": [LONG]}).encode())
    raw = msgspec.json.decode(long.short, type=msgspec.Raw)
    back = long.restored(raw)
    assert isinstance(back, msgspec.Raw)
    assert msgspec.json.decode(back) == {"a": LONG, "b": [LONG]}
