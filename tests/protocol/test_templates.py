"""The short way and the long way read every stream alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import LimitExceeded, StreamChunk, testing
from trio_minillm._protocol.decoder import (
    LEARN_FROM,
    LEARNING_COST,
    MAX_CREDIT,
    ChunkDecoder,
)
from trio_minillm._protocol.ingest import COMPACT_EVERY, Ingest
from trio_minillm._protocol.json_limits import MAX_DECODED
from trio_minillm._protocol.templates import MAX_TEMPLATE, EventTemplate, TextRun
from trio_minillm.providers import Anthropic, Compatible, OpenAIChat, OpenRouter, Provider

OPENAI, ANTHROPIC = OpenAIChat(), Anthropic()


def long_way(provider: Provider, pieces: list[bytes]) -> tuple[list[StreamChunk], Any]:
    decoder = ChunkDecoder(provider)
    decoder._credit = 0
    return _all(decoder, pieces)


def _all(decoder: ChunkDecoder, pieces: list[bytes]) -> tuple[list[StreamChunk], Any]:
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece, 1.0)]
    chunks += decoder.finish(1.0)
    return chunks, (str(decoder.error), decoder.events, decoder.left_out.skipped)


def eager(provider: Provider) -> ChunkDecoder:
    """One that learns from the first event on."""
    decoder = ChunkDecoder(provider)
    decoder._learn_from = 0
    return decoder


def both_ways(provider: Provider, body: bytes, cut: int | None = None) -> ChunkDecoder:
    """Decode it in one piece, or in pieces of ``cut`` bytes, and compare with the long way."""
    size = cut or len(body) or 1
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    expected = long_way(provider, [body])
    assert _all(ChunkDecoder(provider), pieces) == expected
    decoder = eager(provider)
    assert _all(decoder, pieces) == expected
    return decoder


def chunk(text: str, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "c", "model": "m", "choices": [choice], "usage": None, **fields}
    return (
        b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )


def learned(provider: Provider, *events: bytes) -> EventTemplate | None:
    decoder = eager(provider)
    for event in events:
        decoder.feed(event, 0.0)
    return decoder._template


TEXTS = [
    *(
        "a",
        " token",
        "\n",
        '"',
        "\\",
        '\\"',
        "é",
        "日本",
        "\u2028",
        "\x7f",
        "}",
        '"}}',
        "data: ",
        "{",
    ),
    *('","finish_reason":"stop', "null", "content", "c", "m", "id", "\t", "\x00", "😀"),
]


def test_what_it_is_for() -> None:
    decoder = eager(OPENAI)
    decoder.feed(chunk("one"), 0.0)
    batch = decoder.feed(chunk("two") + chunk("three"), 5.0)
    assert type(batch) is TextRun
    assert [(c.delta, c.event, c.received_at) for c in batch] == [
        ("two", 2, 5.0),
        ("three", 3, 5.0),
    ]
    assert batch[0].id == "c"


@pytest.mark.parametrize("cut", [None, 1, 2, 3, 7, 64, 100, 200, 1000])
def test_every_text_and_every_cut(cut: int | None) -> None:
    body = b"".join(chunk(text) for text in ("first", *TEXTS, "", "last"))
    both_ways(OPENAI, body + b"data: [DONE]\n\n", cut)
    both_ways(OPENAI, body.replace(b"\n\n", b"\r\n\r\n"), cut)
    both_ways(OPENAI, body.replace(b"data: ", b"data:"), cut)
    both_ways(OPENAI, body.replace(b"\n\n", b"\n\n\n\n: comment\n\n"), cut)
    both_ways(OPENAI, b"\xef\xbb\xbf" + body[:-2], cut)


@pytest.mark.parametrize("cut", [None, 1, 50])
def test_anthropic_and_its_padding(cut: int | None) -> None:
    events = testing.anthropic_events(*TEXTS[:10], "and", "more")
    both_ways(ANTHROPIC, b"".join(events), cut)
    padded = [e.replace(b'"}}\n', b'"}' + b" " * (n % 9) + b"}\n") for n, e in enumerate(events)]
    decoder = both_ways(ANTHROPIC, b"".join(padded), cut)
    assert decoder._credit > MAX_CREDIT - 8 * LEARNING_COST
    other = events[3].replace(b'"}}\n', b'"},"more":"x"} \n')
    both_ways(ANTHROPIC, b"".join([*events[:5], other, other, *events[5:]]), cut)
    thoughts = [
        e.replace(b"text_delta", b"thinking_delta").replace(b'"text":', b'"thinking":')
        for e in events
        if b"content_block_delta" in e
    ]
    decoder = both_ways(ANTHROPIC, b"".join(thoughts), cut)
    assert decoder._template is not None
    assert decoder._template.reasoning


@pytest.mark.parametrize("cut", [None, 1, 50])
def test_openais_padding(cut: int | None) -> None:
    padding = ["x", "AbC", "", "1" * 16, "q", 'q"', "q\\u0041", "a-b", "zz"]
    body = b"".join(chunk(text, obfuscation=p) for text, p in zip(TEXTS, padding, strict=False))
    decoder = both_ways(OPENAI, body, cut)
    assert decoder._template is not None
    assert decoder._template.end is not None
    unclosed = chunk("c", obfuscation="").replace(b'""', b'"')
    both_ways(OPENAI, chunk("a", obfuscation="b") + unclosed + chunk("d", obfuscation="e"), cut)
    tricky = chunk("a", obfuscation="b") + chunk('","obfuscation":"b"', obfuscation="c")
    both_ways(OPENAI, tricky + chunk("d", obfuscation="e").replace(b'"e"', b'"e","id":"other"'))
    both_ways(
        OPENAI, chunk("a", obfuscation="b") + chunk("c", obfuscation="d").replace(b"}\n", b"}x\n")
    )


NEAR_MISSES = [
    chunk("b", usage={"prompt_tokens": 1, "completion_tokens": 2}),
    chunk("b", id="other"),
    chunk("b", error={"message": "no"}),
    chunk("b").replace(b"null", b'"stop"', 1),
    chunk("b").replace(b'"b"', b'"b'),
    chunk("b").replace(b'"b"', b'"b""'),
    chunk("b").replace(b'"b"', b'"b\x01"'),
    chunk("b").replace(b'"b"', b'"\xff"'),
    chunk("b").replace(b'"b"', b'"\\ud800"'),
    chunk("b").replace(b'"b"', b'"\\x"'),
    chunk("b").replace(b'"b"', b'"b","content":"c"'),
    chunk("b").replace(b'"b"', b'["b"]'),
    chunk("b").replace(b'"b"', b"null"),
    chunk("b").replace(b'"b"', b'""'),
    b"id: 7\n" + chunk("b"),
    b"event: error\n" + chunk("b"),
    chunk("b")[:-2] + b"\ndata: more\n\n",
    chunk("b")[:-2] + b"\nretry: 5\n\n",
    chunk("b" * (MAX_TEMPLATE + 10)),
    b"data: [DONE]\n\n",
    b": comment\n\n",
    b"\n\n\n",
]


@pytest.mark.parametrize("miss", NEAR_MISSES, ids=range(len(NEAR_MISSES)))
@pytest.mark.parametrize("cut", [None, 1, 33])
def test_what_is_almost_the_same_goes_the_long_way(miss: bytes, cut: int | None) -> None:
    both_ways(OPENAI, chunk("a") + chunk("aa") + miss + chunk("z") + miss, cut)
    both_ways(OPENAI, miss + chunk("a") + chunk("aa"), cut)


def test_a_text_that_could_be_elsewhere_teaches_nothing() -> None:
    assert learned(OPENAI, chunk("m")) is None  # the model's name is the same
    assert learned(OPENAI, chunk("x", note="x")) is None
    spelled = chunk("h").replace(b'"h"', b'"\\u0068"')
    assert learned(OPENAI, spelled) is None  # not there in plain letters
    assert learned(OPENAI, spelled.replace(b'"id":"c"', b'"id":"h"')) is None
    assert learned(OPENAI, chunk("a" * MAX_TEMPLATE)) is None
    assert learned(OPENAI, b"id: 1\n" + chunk("a"), b": x\n\n") is None


def test_the_second_parsing_is_what_proves_it() -> None:
    """A field that is a text, and is read as one, but is not the only one that counts."""
    event = chunk("seen").replace(b'"content":"seen"', b'"content":"\\u0073een","refusal":""')
    fake = event.replace(b'"usage":null', b'"service_tier":"seen","usage":null')
    assert learned(OPENAI, fake) is None
    both_ways(OPENAI, fake + fake.replace(b'"seen"', b'"other"'))


def test_a_parser_of_ones_own_is_always_asked() -> None:
    class Shouting(OpenAIChat):
        def parse_chunk(self, data: bytes) -> Any:
            parsed = super().parse_chunk(data)
            parsed.delta = parsed.delta.upper()
            return parsed

    class Quiet(Shouting):
        literal_text = True

    class Renamed(OpenRouter):
        name = "renamed"

    assert (OpenAIChat.literal_text, Anthropic.literal_text) == (True, True)
    assert (Compatible.literal_text, Renamed.literal_text) == (True, True)
    assert (Shouting.literal_text, Quiet.literal_text) == (False, True)
    chunks, _ = _all(ChunkDecoder(Shouting()), [chunk("a") + chunk("b")])
    assert [c.delta for c in chunks] == ["A", "B"]
    assert learned(Quiet(), chunk("a")) is None  # the probe shows that it is no literal text


def test_raw_and_lenient_streams_are_the_same() -> None:
    decoder = ChunkDecoder(OPENAI, raw=True)
    chunks, _ = _all(decoder, [chunk("a") + chunk("b")])
    assert [json.loads(c.raw or b"")["id"] for c in chunks] == ["c", "c"]
    body = chunk("a") + chunk("b") + b"data: {\n\n" + chunk("c")
    lenient = ChunkDecoder(OPENAI, lenient=True)
    chunks, (_, events, skipped) = _all(lenient, [body])
    assert ([c.delta for c in chunks], events, skipped) == (["a", "b", "c"], 4, 1)


def test_a_stream_that_never_repeats_itself_is_not_studied_for_ever() -> None:
    decoder = eager(OPENAI)
    for number in range(100):
        decoder.feed(chunk(f"t{number}", created=number), 0.0)
    assert decoder._credit <= 0
    assert decoder._template is not None
    assert decoder.feed(chunk("x", created=3), 0.0)[0].delta == "x"


@given(
    st.lists(st.tuples(st.text(max_size=8), st.sampled_from([{}, {"a": 1}, {"obfuscation": "x"}]))),
    st.integers(1, 400),
)
def test_any_texts_and_any_cut(events: list[tuple[str, dict[str, Any]]], cut: int) -> None:
    texts = [(t.encode("utf-8", "replace").decode(), more) for t, more in events]
    body = b"".join(chunk(text, **more) for text, more in texts)
    both_ways(OPENAI, body, cut)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_inside_an_event(junk: bytes, place: int) -> None:
    event = chunk("b")
    broken = event[:place] + junk + event[place:]
    both_ways(OPENAI, chunk("a") + chunk("aa") + broken + chunk("z"))


@given(st.lists(st.integers(1, 3 * COMPACT_EVERY), min_size=1, max_size=3), st.booleans())
def test_a_batch_folds_like_its_chunks(sizes: list[int], thinking: bool) -> None:
    folds_alike(sizes, thinking)


@pytest.mark.parametrize("thinking", [False, True])
def test_so_does_one_in_which_what_came_is_joined(thinking: bool) -> None:
    folds_alike([1, 2 * COMPACT_EVERY, 3], thinking)


def folds_alike(sizes: list[int], thinking: bool) -> None:
    def machine() -> Ingest:
        return Ingest(model="?", expect_usage=False)

    one, other = machine(), machine()
    field = "reasoning" if thinking else "delta"
    like = StreamChunk(**{field: "x"}, id="i", model="m")
    template = EventTemplate(like, b'"', b'"', None)
    for number, size in enumerate(sizes):
        made = [
            StreamChunk(
                **{field: f"{number}.{i} "}, id="i", model="m", event=i, received_at=float(i)
            )
            for i in range(size)
        ]
        one.ingest_all(TextRun.of(template, made))
        for each in made:
            other.ingest(each)
    for state in (one, other):
        state.ingest(StreamChunk(finish_reason="stop", end=True))
    assert one.response() == other.response()
    assert (one.chunks, one.first_at, one.last_at) == (other.chunks, other.first_at, other.last_at)
    one.ingest_all(TextRun.of(template, [like]))
    assert one.chunks == other.chunks, "it is over"


def test_events_one_by_one_are_learned_from_when_it_pays() -> None:
    decoder = ChunkDecoder(OPENAI)
    kinds = [type(decoder.feed(chunk("a"), 0.0)) for _ in range(LEARN_FROM + 3)]
    assert kinds == [list] * (LEARN_FROM + 1) + [TextRun] * 2
    at_once = ChunkDecoder(OPENAI)
    at_once.feed(chunk("a") * (LEARN_FROM + 1), 0.0)
    assert type(at_once.feed(chunk("a"), 0.0)) is TextRun


@pytest.mark.parametrize(
    "before", [b": half a com", b"id: 7\n", b"event: x\n", b"data: {}\n", b"\r"]
)
def test_a_read_of_one_event_is_one_only_where_a_block_begins(before: bytes) -> None:
    both_ways(OPENAI, chunk("a") * 3)
    pieces = [chunk("a"), chunk("b"), before, chunk("c"), chunk("d")]
    decoder = eager(OPENAI)
    assert _all(decoder, pieces) == long_way(OPENAI, [b"".join(pieces)])


def test_a_read_of_one_event_has_its_bounds() -> None:
    long = chunk('\\"' * MAX_DECODED)
    for decoder in (eager(OPENAI), ChunkDecoder(OPENAI)):
        decoder.feed(chunk("a"), 0.0)
        assert decoder.feed(long, 0.0) == []
        assert isinstance(decoder.error, LimitExceeded)


def test_a_run_has_no_other_chunk_in_it_though_the_same_read_completes_one() -> None:
    decoder = ChunkDecoder(OPENAI)
    decoder.feed(chunk("a") * (LEARN_FROM + 1), 0.0)
    assert type(decoder.feed(chunk("a") * 2, 0.0)) is TextRun
    # Without blank lines, an event is complete when the next line begins one.
    long = {"filler": "x" * 5_000, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    lines = b"data: " + json.dumps(long).encode() + b'\ndata: {"choices":[]}\n'
    read = decoder.feed(chunk("a") * 2 + lines, 0.0)
    assert type(read) is list
    assert [c.finish_reason for c in read] == [None, None, "stop"]
