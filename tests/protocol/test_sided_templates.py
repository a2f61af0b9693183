"""Events that differ in their text and in one value beside it are read alike by both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import StreamChunk, testing
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.templates import SidedTemplate, TextRun
from trio_minillm.providers import Gemini, OpenAIResponses, Provider

RESPONSES, GEMINI = OpenAIResponses(), Gemini()
OPENED = testing.responses_events(status=None)
TEXTS = [
    "a",
    " b",
    '"',
    "\\",
    "\n",
    "é",
    "\u2028",
    "{",
    "data: ",
    "usageMetadata",
    "9",
    "m",
    "TEXT",
]
TEXTS += [
    '"sequence_number":7,',
    '"}],"role":"model"},"index":0}],"usageMetadata":',
    "sequence_number",
]
DELTA = "response.output_text.delta"


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def delta(
    number: Any, text: str, kind: str = DELTA, *, ordered: bool = False, **more: Any
) -> bytes:
    """An event as OpenAI writes it, or with its fields in alphabetical order, as vLLM does."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    data = {"type": kind, "sequence_number": number, **place, "delta": text, **more}
    if ordered:
        data = dict(sorted(data.items()))
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(data))


def piece(text: str, made: Any, *, first: bool = False, part: Any = None, **counts: Any) -> bytes:
    """An event of Gemini's, with its usage behind the text or before it."""
    usage = {"promptTokenCount": 9, "candidatesTokenCount": made, "totalTokenCount": 9, **counts}
    if type(made) is int and "totalTokenCount" not in counts:
        usage["totalTokenCount"] = 9 + made + counts.get("thoughtsTokenCount", 0)
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": 9}]
    usage = {name: value for name, value in usage.items() if value is not None}
    parts = [{"text": text, **(part or {})}]
    said = {"candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}]}
    both = {"usageMetadata": usage} | said if first else said | {"usageMetadata": usage}
    return b"data: %b\n\n" % dumps({**both, "modelVersion": "g", "responseId": "r"})


def decoded(decoder: ChunkDecoder, pieces: list[bytes]) -> tuple[list[StreamChunk], Any]:
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece, 1.0)]
    chunks += decoder.finish(1.0)
    return chunks, (str(decoder.error), decoder.events, decoder.left_out.unread)


def both_ways(provider: Provider, body: bytes, cut: int | None = None) -> ChunkDecoder:
    """Decode in pieces of ``cut`` bytes, with and without templates, and compare; return the first."""
    size = cut or len(body) or 1
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    plain = ChunkDecoder(provider)
    plain._credit = 0
    expected = decoded(plain, [body])
    assert decoded(ChunkDecoder(provider), pieces) == expected
    eager = ChunkDecoder(provider)
    eager._learn_from = 0
    assert decoded(eager, pieces) == expected
    return eager


def response_of(provider: Provider, chunks: list[StreamChunk]) -> Any:
    ingest = Ingest(model="?", expect_usage=False)
    for chunk in chunks:
        ingest.ingest(chunk)
    return ingest.response()


@pytest.mark.parametrize("cut", [None, 1, 7, 64, 333])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("more", [{}, {"logprobs": []}, {"logprobs": [], "obfuscation": "q7R"}])
def test_events_with_numbers(cut: int | None, ordered: bool, more: Any) -> None:
    said = [delta(4 + n, text, ordered=ordered, **more) for n, text in enumerate(TEXTS)]
    decoder = both_ways(RESPONSES, b"".join([*OPENED, delta(3, "first", **more), *said]), cut)
    if "obfuscation" not in more or not ordered:
        assert type(decoder._template) is SidedTemplate


def test_padding_of_varying_length() -> None:
    pads = ["x", "AbC", "", "1" * 16, 'q"', "a-b", "zz"]
    said = [delta(4 + n, f"t{n}", obfuscation=pad) for n, pad in enumerate(pads)]
    decoder = both_ways(RESPONSES, b"".join([*OPENED, *said]))
    assert type(decoder._template) is SidedTemplate


def test_without_numbers_it_is_any_other_template() -> None:
    events = [*OPENED, *(delta(0, text).replace(b'"sequence_number":0,', b"") for text in "abcdef")]
    template = both_ways(RESPONSES, b"".join(events))._template
    assert template is not None
    assert type(template) is not SidedTemplate


NUMBERS = [
    b"8\r",
    b"8\r\n",
    b"8\t",
    b"8\n",
    b"\n8",
    b"07",
    b"-1",
    b"1.5",
    b'"9"',
    b"null",
    b"",
    b"9" * 40,
    b"[]",
    b"1e3",
    b" 8 ",
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("ordered", [False, True])
def test_odd_numbers(number: bytes, ordered: bool) -> None:
    odd = delta(77, "odd", ordered=ordered).replace(b"77", number)
    said = [delta(n, f"t{n}", ordered=ordered) for n in range(4, 9)]
    both_ways(RESPONSES, b"".join([*OPENED, *said, odd, *said]))


OTHERS = [
    delta(30, "x", item_id="msg_2", output_index=1),
    delta(30, "x", "response.reasoning_text.delta", output_index=1),
    delta(30, "x", "response.refusal.delta"),
    delta(30, "x", logprobs=[{"token": "x"}]),
    delta(30, "x", sequence_number_of="y"),
    delta(30, "x", note={"sequence_number": 3}),
    delta(30, "x").replace(b'"delta":"x"', b'"delta":"x","delta":"y"'),
    delta(30, "x").replace(b'"content_index"', b'"sequence_number":9,"content_index"'),
    delta(30, "x").replace(b'"x"', b'"x\\ud83d"') + delta(31, "x").replace(b'"x"', b'"\\ude00"'),
    OPENED[2].replace(b'"msg_1"', b'"msg_9"'),
    b"event: error\n" + delta(30, "x").partition(b"\n")[2],
]


@pytest.mark.parametrize("other", range(len(OTHERS)))
def test_one_other_event_among_many(other: int) -> None:
    said = [delta(n, f"t{n} ") for n in range(4, 9)]
    both_ways(RESPONSES, b"".join([*OPENED, *said, OTHERS[other], *said]))


@given(st.lists(st.sampled_from(["said"] * 9 + [*range(len(OTHERS))]), max_size=30), st.data())
def test_among_others_blocks_stay_apart(kinds: list[Any], data: st.DataObject) -> None:
    events = [
        delta(n, f"t{n} ") if kind == "said" else OTHERS[kind] for n, kind in enumerate(kinds)
    ]
    cut = data.draw(st.sampled_from([None, 1, 50, 400]))
    both_ways(RESPONSES, b"".join([*OPENED, *events]), cut)


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, 1, 7, 64, 333])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("part", [{}, {"thought": True}])
@pytest.mark.parametrize("counts", [{}, {"thoughtsTokenCount": 3}, {"cachedContentTokenCount": 4}])
def test_events_with_usage(cut: int | None, first: bool, part: Any, counts: Any) -> None:
    events = [
        piece(text, n, first=first, part=part, **counts)
        for n, text in enumerate(["first", *TEXTS], 1)
    ]
    decoder = both_ways(GEMINI, b"".join(events), cut)
    assert type(decoder._template) is SidedTemplate
    assert decoder._template.reasoning == bool(part)


def test_thoughts_alone_are_output() -> None:
    events = [piece("hm", None, thoughtsTokenCount=n, totalTokenCount=9 + n) for n in range(1, 9)]
    decoder = both_ways(GEMINI, b"".join(events))
    assert type(decoder._template) is SidedTemplate


def test_each_chunk_has_its_usage() -> None:
    decoder = ChunkDecoder(GEMINI)
    decoder.feed(b"".join(piece("a", n) for n in range(1, 6)), 1.0)
    run = decoder.feed(piece("b", 7) + piece("c", 9), 2.0)
    assert type(run) is TextRun
    assert [(c.delta, c.usage and c.usage.completion_tokens, c.event) for c in run] == [
        ("b", 7, 6),
        ("c", 9, 7),
    ]
    assert run[1].usage is not None
    assert run[1].usage.raw == {
        "promptTokenCount": 9,
        "candidatesTokenCount": 9,
        "totalTokenCount": 18,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
    }


ODD_PIECES = [
    piece("x", 5, totalTokenCount=99),
    piece("x", 0),
    piece("x", 5, toolUsePromptTokenCount=3),
    piece("x", 5, thoughtsTokenCount=2),
    piece("x", 5, cachedContentTokenCount=4),
    piece("x", 5, cachedContentTokenCount=9),
    piece("x", 5, candidatesTokensDetails=[{"modality": "AUDIO", "tokenCount": 5}]),
    piece("x", 5, serviceTier="flex"),
    piece("x", None),
    piece("x", "5"),
    piece("x", 5.0),
    piece("x", 2**53),
    piece("", 5),
    piece("x", 5, first=True),
    piece("x", 5, part={"thought": True}),
    piece("x", 5, part={"thoughtSignature": "s"}),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata":{},"usageMetadata":{'),
    piece("x", 5).replace(b'"usageMetadata":', b'"usageMetadata":null,"x":'),
    piece("x", 5).replace(b'"index":0', b'"index":1'),
    piece("x", 5).replace(b'"index":0', b'"index":0,"finishReason":"STOP"'),
    piece("x", 5).replace(b'"text":"x"', b'"text":"x","text":"y"'),
    piece("x", 5)[:-3] + b"\n\n",
    piece("x", 5).replace(b'}]},"modelVersion"', b'}]}\n,"modelVersion"'),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata":{\n'),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata":{\r'),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata":{\r\n\t'),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata":\n{'),
    piece("x", 5).replace(b'"usageMetadata":{', b'"usageMetadata": {'),
]


@pytest.mark.parametrize("other", range(len(ODD_PIECES)))
def test_one_odd_piece_among_many(other: int) -> None:
    said = [piece(f"t{n} ", n) for n in range(1, 6)]
    both_ways(GEMINI, b"".join([*said, ODD_PIECES[other], *said]))
    both_ways(GEMINI, b"".join([ODD_PIECES[other], *said]))


@given(st.lists(st.sampled_from(["said"] * 9 + [*range(len(ODD_PIECES))]), max_size=30), st.data())
def test_among_others_usage_is_what_it_would_be(kinds: list[Any], data: st.DataObject) -> None:
    events = [
        piece(f"t{n} ", n + 1) if kind == "said" else ODD_PIECES[kind]
        for n, kind in enumerate(kinds)
    ]
    cut = data.draw(st.sampled_from([None, 1, 50, 400]))
    both_ways(GEMINI, b"".join(events), cut)


@pytest.mark.parametrize("cut", [None, 1, 7, 64])
def test_an_item_that_opens_in_an_event_of_several(cut: int | None) -> None:
    """It changes the place of what follows, however the bytes of its event come."""
    item = OPENED[2].replace(b'"msg_1"', b'"msg_9"')
    both = delta(9, "b").replace(b"\n\n", b"\n") + item
    said = [delta(number, "a") for number in range(3, 9)]
    body = b"".join([*OPENED, *said, both, *said])
    both_ways(RESPONSES, body, cut)
    assert [c.part for c in decoded(ChunkDecoder(RESPONSES), [body])[0] if c.delta][-1] == 1


@given(st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_batch_with_usage_folds_like_its_chunks(batches: list[list[int]]) -> None:
    folds_alike(batches)


def test_so_do_a_few() -> None:
    folds_alike([[3], [4, 5, 6], [7, 2]])


def folds_alike(batches: list[list[int]]) -> None:
    decoder = ChunkDecoder(GEMINI)
    decoder.feed(b"".join(piece("a", n) for n in range(1, 6)), 0.0)
    one, other, newest = (Ingest(model="?", expect_usage=False) for _ in range(3))
    last = 0
    for made in batches:
        run = decoder.feed(b"".join(piece(f"t{n}", n) for n in made), 1.0)
        assert type(run) is TextRun
        one.ingest_all(run)
        newest.ingest(run[0])
        for number, chunk in enumerate(run):
            other.ingest(msgspec.structs.replace(chunk))
            if number:  # as `StreamingCompletion` takes them
                newest.pieces_of(chunk).append(chunk.delta)
                newest.newest_usage = chunk.usage
        last = made[-1]
        assert one.usage == other.usage == newest.usage
    for ingest in (one, other, newest):
        ingest.ingest(StreamChunk(finish_reason="stop", end=True))
    assert one.response() == other.response()
    usage = one.response().usage
    assert usage is not None
    assert (usage.completion_tokens, usage.uncached_input_tokens) == (last, 9)


def test_a_block_that_is_not_settled_teaches_nothing() -> None:
    """The content index is beyond what is told apart."""
    said = [delta(n, f"t{n} ", content_index=10**9) for n in range(4, 9)]
    assert both_ways(RESPONSES, b"".join([*OPENED, *said]))._template is None


def test_a_value_that_is_read_in_another_way_teaches_nothing() -> None:
    block = piece("a", 5)[:-2]
    (chunk,) = ChunkDecoder(GEMINI).feed(block + b"\n\n", 0.0)
    beside = GEMINI.beside_text
    assert beside is not None
    assert SidedTemplate.learn_beside(block, chunk, GEMINI.parse_event, beside) is not None
    other = beside._replace(read=lambda value: None)
    assert SidedTemplate.learn_beside(block, chunk, GEMINI.parse_event, other) is None
