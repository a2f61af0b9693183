"""Events in which nothing is odd have a fast path, which is to be the long way but for the time."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.left_out import LeftOut
from trio_minillm._protocol.sniffer import Sniffer
from trio_minillm.providers import SERVERS, Provider, anthropic, openai, text_completions

PROVIDERS: list[Provider] = [
    llm.openai("m", api_key="k").provider,
    llm.anthropic("m", api_key="k").provider,
    llm.openrouter("m", api_key="k").provider,
    *(
        llm.compatible("m", base_url="http://127.0.0.1:1/v1", server=server).provider
        for server in SERVERS
    ),
]
TEXTS: list[Provider] = [
    text_completions.TextCompletions(),
    text_completions.TextCompletions("vllm"),
]
FIELDS = """content role refusal reasoning reasoning_content tool_calls function_call delta message text
usage error code base_resp x_groq finish_reason index id object model created choices status detail
native_finish_reason logprobs token_ids stop_reason provider cost timings name arguments function type
service_tier system_fingerprint obfuscation msg data response success failed prompt_tokens
completion_tokens total_tokens tokens token_logprobs top_logprobs text_offset prompt_logprobs"""
NAMES = FIELDS.split()
SCALARS = st.sampled_from(
    (
        None,
        True,
        0,
        1,
        -1,
        1.5,
        "",
        "a",
        "stop",
        "error",
        "failed",
        "500",
        "Internal error",
        "\ud83d",
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=5,
)
CALL = {"id": "c", "function": {"name": "f", "arguments": "{"}, "unknown": 1}
DELTAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.sampled_from(("a", "b ", "", "\n", None)),
        "refusal": st.none(),
        "tool_calls": st.sampled_from((None, [], [{}], [CALL], [{"index": 0, **CALL}, CALL])),
        "reasoning": st.sampled_from((None, "r")),
        "reasoning_content": st.sampled_from((None, "", "s")),
    },
)
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
OTHERS = (
    b"[DONE]",
    b" [DONE] ",
    b"ping",
    b"[]",
    b"error: it failed",
    b"{",
    b'{"a":1}{"b":2}',
    b"\xef\xbb\xbf{}",
    b"\xff",
    b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
    b'{"choices":[{"delta":{"content":"\\ude00"}}]}',
    b'{"error":{"message":"no"}}',
    b'{"choices":[{"index":0,"message":{"content":"ab"},"finish_reason":"stop"}]}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}',
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
    b'{"type":"message_stop"}',
    b'{"type":"error","error":{"message":"x"}}',
)


@st.composite
def events(draw: Any) -> bytes:
    """An event of OpenAI's that is ordinary, or is that but for a field or two."""
    delta = draw(DELTAS)
    reason = draw(st.sampled_from((None, None, "stop", "length", "error", "")))
    choice = {
        "index": draw(st.sampled_from((0, 0, 1, None))),
        "delta": delta,
        "finish_reason": reason,
    }
    if draw(st.booleans()):
        choice["native_finish_reason"] = draw(st.sampled_from((None, "", "end_turn", "MALFORMED")))
        choice["logprobs"] = draw(st.sampled_from((None, {}, {"content": [{"token": "a"}]})))
    event: dict[str, Any] = {
        "object": draw(st.sampled_from(("chat.completion.chunk", "", "error")))
    }
    event["choices"] = draw(st.sampled_from(([choice], [choice], [], [choice, choice])))
    if draw(st.booleans()):
        event["usage"] = draw(st.sampled_from((None, USAGE)) | VALUES)
    for place in draw(st.lists(st.sampled_from((delta, choice, event)), max_size=2)):
        place[draw(st.sampled_from(NAMES))] = draw(VALUES)
    return json.dumps(event).encode()


LOGPROBS = {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [{"a": -1}]}


@st.composite
def texts(draw: Any) -> bytes:
    """An event of text completions that is ordinary, or is that but for a field or two."""
    logprobs = draw(st.sampled_from((None, {}, LOGPROBS, {"tokens": []}, {"content": []})))
    choice = {
        "text": draw(st.sampled_from(("a", "b ", "", "\n"))),
        "index": draw(st.sampled_from((0, 0, 1))),
        "finish_reason": draw(st.sampled_from((None, None, "stop", "length", "error", ""))),
        "logprobs": json.loads(json.dumps(logprobs)),
    }
    for name in draw(st.lists(st.sampled_from(("reasoning", "native_finish_reason")))):
        choice[name] = draw(st.sampled_from((None, "", "r", "stop")))
    event: dict[str, Any] = {"object": "text_completion", "choices": [choice]}
    if draw(st.booleans()):
        event["usage"] = draw(st.sampled_from((None, USAGE)) | VALUES)
    places = [event, choice, choice["logprobs"] or event]
    for place in draw(st.lists(st.sampled_from(places), max_size=2)):
        place[draw(st.sampled_from(NAMES))] = draw(VALUES)
    return json.dumps(event).encode()


ANTHROPICS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "a", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "a"},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 0}, "context_management": {}},
    {"type": "message_stop"},
    {"type": "ping"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
    {"type": "vendor_event"},
]


@st.composite
def named_events(draw: Any) -> bytes:
    """An event of Anthropic's, perhaps with another field, of another name, or with none."""
    event = json.loads(json.dumps(draw(st.sampled_from(ANTHROPICS))))
    inner = [part for part in event.values() if isinstance(part, dict)]
    for place in draw(st.lists(st.sampled_from((event, *inner)), max_size=2)):
        place[draw(st.sampled_from(NAMES))] = draw(VALUES)
    name = draw(
        st.sampled_from((event["type"], event["type"], None, "error", "", "x", "é", "ping\0"))
    )
    space = draw(st.sampled_from((" ", " ", "", "  ")))
    head = b"" if name is None else f"event:{space}{name}\n".encode()
    return head + b"data: " + json.dumps(event).encode()


def decoded(
    provider: Provider, pieces: Sequence[bytes], *, fast: bool, lenient: bool, choices: int
) -> Any:
    """All that comes out of a decoder, and what it keeps for the events behind."""

    def slow(*args: object) -> None: ...

    def error(exc: BaseException | None) -> Any:
        return exc and (type(exc), str(exc), getattr(exc, "event", None))

    with pytest.MonkeyPatch.context() as monkeypatch:
        if not fast:
            monkeypatch.setattr(ChunkDecoder, "_ordinary", slow)
            monkeypatch.setattr(openai, "ordinary_chunk", slow)
            monkeypatch.setattr(text_completions, "ordinary_chunk", slow)
            monkeypatch.setattr(anthropic, "ordinary_chunk", lambda data: msgspec.UNSET)
        decoder = ChunkDecoder(provider, lenient=lenient, choices=choices)
        chunks = [chunk for piece in pieces for chunk in decoder.feed(piece, 1.0)]
        chunks += decoder.finish(2.0)
        left_out = {name: getattr(decoder.left_out, name) for name in LeftOut.__slots__}
        words = error(decoder.other_words())
    shown = list(map(msgspec.structs.asdict, chunks))
    kept = decoder.events, decoder._reasoned, decoder._doubt, decoder._repeats._said
    learned = decoder._template is None, decoder._credit
    return shown, error(decoder.error), left_out, words, kept, learned


def assert_alike(
    provider: Provider, pieces: Sequence[bytes], lenient: bool = False, choices: int = 1
) -> None:
    fast, slow = (
        decoded(provider, pieces, fast=fast, lenient=lenient, choices=choices)
        for fast in (True, False)
    )
    assert fast == slow


@given(
    st.sampled_from(PROVIDERS),
    st.lists(
        (events() | st.sampled_from(OTHERS)).map(b"data: ".__add__) | named_events(), max_size=6
    ),
    st.lists(st.integers(0, 1500), max_size=2),
    st.booleans(),
    st.sampled_from((1, 2)),
)
def test_the_fast_path_is_the_long_way(
    provider: Provider, found: list[bytes], cuts: list[int], lenient: bool, choices: int
) -> None:
    body = b"".join(event + b"\n\n" for event in found)
    ends = [*sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[i:j] for i, j in zip([0, *ends], ends, strict=False)]
    assert_alike(provider, pieces, lenient, choices)


@given(
    st.sampled_from(TEXTS),
    st.lists(
        (texts() | events() | st.sampled_from(OTHERS)).map(b"data: %b\n\n".__mod__), max_size=6
    ),
    st.booleans(),
    st.sampled_from((1, 2)),
)
def test_the_fast_path_of_text_completions_is_the_long_way(
    provider: Provider, found: list[bytes], lenient: bool, choices: int
) -> None:
    assert_alike(provider, found, lenient, choices)


def chunk(*choices: Any, **more: Any) -> bytes:
    return json.dumps({"object": "chat.completion.chunk", "choices": choices, **more}).encode()


def said(text: str, reason: str | None = None, /, **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": reason, **more}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
@pytest.mark.parametrize(
    "found",
    [
        [chunk(said("a")), chunk(said("", "stop")), chunk(said("b")), b"[DONE]"],
        [chunk(said("a"), said("", index=1)), chunk(said("", "stop"), said("b", "stop", index=1))],
        [chunk(said("a"), said("", index=1, text="b")), b"[DONE]"],
        [chunk(said("", "error")), b"[DONE]"],
        [chunk({"index": 0, "delta": {"tool_calls": [CALL]}}), chunk(said("", "tool_calls"))],
        [chunk(said("a", logprobs={"content": [{"token": "a"}]})), b"[DONE]"],
        [chunk(said("a")), chunk(said("", "stop", native_finish_reason="STOP")), b"[DONE]"],
        [chunk(said("a")), chunk(said("", "stop", native_finish_reason="FAILED")), b"[DONE]"],
        [chunk({**said("a"), "index": -1}), b"[DONE]"],
        [chunk(), chunk(said("a"), provider=7, service_tier="flex", system_fingerprint="f")],
        [chunk(said("a", "stop"), provider="P", service_tier={}, usage=USAGE), b"[DONE]"],
        [chunk(said("", "stop"), usage={"prompt_tokens": None})],
        [chunk(said("a")), chunk(usage=USAGE), b"[DONE]"],
        [chunk(said("a")), chunk(said("", "stop"), status="failed"), b"[DONE]"],
    ],
)
def test_what_follows_a_reason_and_what_stands_beside_another_choice(
    provider: Provider, found: list[bytes]
) -> None:
    assert_alike(provider, [b"data: %b\n\n" % event for event in found])


@given(st.sampled_from(string.ascii_letters), st.binary(max_size=40))
def test_a_body_that_begins_with_a_letter_needs_no_sniffer(letter: str, rest: bytes) -> None:
    sniffer, body = Sniffer(20), letter.encode() + rest
    assert sniffer.feed(body) == body
    assert (sniffer.decided, sniffer.pieces, sniffer.failure) == (True, None, None)


@pytest.mark.parametrize("provider", PROVIDERS[:2], ids=lambda provider: provider.name)
@pytest.mark.parametrize("name", ["content_block_delta", " x", "", "ping", "error", "é"])
def test_an_event_with_a_name(provider: Provider, name: str) -> None:
    event = f"event:{name}\ndata: {json.dumps(ANTHROPICS[2])}\n\n".encode()
    assert_alike(provider, [event, event])


@pytest.mark.parametrize("head", [b"data:", b"data:  ", b"id: 1\ndata: ", b"data: \ndata: ", b""])
@pytest.mark.parametrize("name", ["", "event: message\n", f"event: {'x' * 80}\n", "event: é\n"])
def test_an_event_whose_lines_begin_in_another_way(head: bytes, name: str) -> None:
    event = b"%b%b%b\n\n" % (name.encode(), head, chunk(said("a")))
    assert_alike(PROVIDERS[0], [event, event])


@pytest.mark.parametrize(
    "found",
    [
        [chunk(said("\ud83d")), chunk(said("\ude00"))],
        [chunk(said("\ud83d")), chunk(), chunk(said("", "stop"))],
        [chunk(said(""), model="\ud83d"), chunk(said("", "stop"), model="\ud83d")],
    ],
)
def test_half_of_a_surrogate_pair_in_a_text_and_beside_it(found: list[bytes]) -> None:
    assert_alike(PROVIDERS[0], [b"data: %b\n\n" % event for event in found])


def test_a_piece_of_text_beside_an_empty_message_is_learned() -> None:
    decoder = ChunkDecoder(PROVIDERS[0])
    for text in "abcdef":
        decoder.feed(b"data: %b\n\n" % chunk(said(text, message=None)), 1.0)
    assert decoder._template is not None


def test_a_block_beyond_the_bound_of_an_event() -> None:
    decoder = ChunkDecoder(PROVIDERS[0], max_event=80)
    event = b"data: %b\n\n"
    assert len(decoder.feed(event % chunk(), 1.0)) == 1
    assert decoder.feed(event % chunk(said("a")), 1.0) == []
    assert isinstance(decoder.error, llm.LimitExceeded)
