"""Tests of what comes twice in an answer, or under the number of a choice that nobody asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Outcome, providers
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.state import StreamState
from trio_minillm._types.chunks import StreamChunk

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
OTHER = {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"x":2}'}}


def event(choice: Any, **more: Any) -> bytes:
    choices = [] if choice is None else [choice]
    return b"data: " + json.dumps({"id": "g", "choices": choices, **more}).encode() + b"\n\n"


def delta(text: str, reason: str | None = None, index: int = 0, **more: Any) -> bytes:
    return event({"index": index, "delta": {"content": text, **more}, "finish_reason": reason})


def message(text: str, reason: str | None = None) -> bytes:
    return event({"index": 0, "message": {"content": text}, "finish_reason": reason})


def response(*events: bytes, choices: int = 1) -> llm.CompletionResponse:
    """What is made of a body; ``errored`` at its end if it says no reason."""
    decoder = ChunkDecoder(providers.OpenAIChat(), choices=choices)
    made = Ingest(model="m", expect_usage=True, choices=choices)
    made.ingest_all([*decoder.feed(b"".join(events), 0.0), *decoder.finish(0.0)])
    made.fail(decoder.error or llm.EndedEarly("the body ended"))
    return made.response(unread=decoder.left_out.unread)


DONE = b"data: [DONE]\n\n"
END = (event(None, usage=USAGE), DONE)


# -- a message that grows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [message("Hel"), message("Hello"), message("Hello w", "stop")],
        [message("Hel"), message("Hello"), message("Hello w"), message("Hello w", "stop")],
        [message("Hel"), message("lo"), message(" w"), message("Hello w", "stop")],
        [message("Hel"), message("lo"), message(" w", "stop")],
        [message("Hello w", "stop")],
        [message("Hel"), message("lo w "), message("Hello w", "stop")],
        [message("Hel"), message("Hello"), message("Hello"), message("Hello w", "stop")],
    ],
)
def test_a_message_counts_once_whether_it_grows_or_comes_in_pieces(pieces: list[bytes]) -> None:
    made = response(*pieces, *END)
    assert (made.content.rstrip(), made.outcome) == ("Hello w", Outcome.FINISHED)


@pytest.mark.parametrize("beside", [None, {}, {"role": "assistant"}, {"content": ""}])
@pytest.mark.parametrize("grows", [True, False])
def test_so_does_one_beside_a_delta_that_says_nothing(beside: Any, grows: bool) -> None:
    whole = "The answer is 42."
    said = [whole[:n] if grows else whole[n - 1] for n in range(1, len(whole) + 1)]
    ends = [(text, None) for text in said] + [(whole, "stop")]
    pieces = [
        event({"index": 0, "delta": beside, "message": {"content": text}, "finish_reason": reason})
        for text, reason in ends
    ]
    assert response(*pieces, *END).content == whole
    decoder = ChunkDecoder(providers.OpenAIChat())
    one_by_one = [c.delta for piece in pieces for c in decoder.feed(piece, 0.0)]
    assert "".join(one_by_one) == whole


@pytest.mark.parametrize("said", [["1", "1", "1"], ["No", "No", " way"], ["a", "b", "ab", "c"]])
def test_messages_that_only_repeat_are_pieces(said: list[str]) -> None:
    assert response(*map(message, said), delta("", "stop"), *END).content == "".join(said)


def test_a_message_that_grows_beyond_any_bound_counts_once() -> None:
    sizes = (30_000, 66_000, 66_500, 67_000)
    grown = [message("".join(str(n % 10) for n in range(size))) for size in sizes]
    last = message("".join(str(n % 10) for n in range(67_000)), "stop")
    assert len(response(*grown, last, *END).content) == 67_000


@given(st.lists(st.text("abc \n", min_size=1, max_size=5), min_size=1, max_size=6))
def test_any_message_that_grows_counts_once(pieces: list[str]) -> None:
    grown = ["".join(pieces[: n + 1]) for n in range(len(pieces))]
    made = response(*map(message, grown), delta("", "stop"), *END)
    assert made.content == "".join(pieces)


# -- the whole text again ---------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_text_that_comes_again_beside_the_reason_counts_once(field: str) -> None:
    events = [
        delta("" if field != "content" else text, reason, **({} if field == "content" else {field: text}))
        for text, reason in (("The answer", None), (" is 42.", None), ("The answer is 42.", "stop"))
    ]  # fmt: skip
    made = response(*events, *END)
    assert (made.content or made.reasoning) == "The answer is 42."
    assert any("was repeated with the finish reason" in note for note in made.notes)


@pytest.mark.parametrize("last", [" is 42.", "The answer is", "The answer is 42. "])
def test_another_text_beside_the_reason_is_a_piece(last: str) -> None:
    made = response(delta("The answer"), delta(" is 42."), delta(last, "stop"), *END)
    assert made.content == "The answer is 42." + last


CITED = {"type": "url_citation", "url_citation": {"url": "u"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize("reason", ["stop", None])
def test_what_only_a_message_cites_is_kept(reason: str | None) -> None:
    said = {"role": "assistant", "content": "The answer", "annotations": [CITED]}
    whole = event({"index": 0, "delta": {}, "message": said, "finish_reason": reason})
    made = response(delta("The answer"), whole, delta("", "stop"), *END)
    assert (made.content, made.annotations) == ("The answer", (CITED,))


@pytest.mark.parametrize(("kind", "value"), [("annotations", CITED), ("images", PICTURE)])
@pytest.mark.parametrize("where", ["delta", "message"])
def test_attachments_that_come_again_beside_the_reason_count_once(
    kind: str, value: Any, where: str
) -> None:
    last = {"content": "", kind: [value]}
    end = event({"index": 0, "delta": {}, where: last, "finish_reason": "stop"})
    made = response(delta("The answer"), delta("", **{kind: [value]}), end, *END)
    assert getattr(made, kind) == (value,)
    assert f"the {kind} were repeated with the finish reason: counted once" in made.notes
    last[kind] = [value, {**value, "n": 2}]
    end = event({"index": 0, "delta": {}, where: last, "finish_reason": "stop"})
    made = response(delta("The answer"), delta("", **{kind: [value]}), end, *END)
    assert getattr(made, kind) == tuple(last[kind])
    other = event({"index": 0, "delta": {kind: [{**value, "n": 1}]}, "finish_reason": "stop"})
    made = response(delta("The answer"), delta("", **{kind: [value]}), other, *END)
    assert len(getattr(made, kind)) == 2


@pytest.mark.parametrize(
    ("events", "content"),
    [
        ([delta("ha"), delta("ha", "stop")], "haha"),
        ([delta("ha"), delta("ha"), delta("haha", "stop")], "hahahaha"),
        ([delta("", reasoning_content="5+6"), delta("1"), delta("1", "stop")], "11"),
        ([delta("a" * 20), delta("a" * 20, "stop")], "a" * 40),
    ],
)
def test_what_may_be_said_twice_is_kept(events: list[bytes], content: str) -> None:
    assert response(*events, *END).content == content


# -- numbers of choices that count pieces -------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("end", [END, (DONE,), ()])
@pytest.mark.parametrize("last", ["", "er"])
def test_numbers_that_count_the_pieces_are_one_choice(
    start: int, end: tuple[bytes, ...], last: str
) -> None:
    made = response(
        delta("Wh", index=start),
        delta("isp", index=start + 1),
        delta(last, "stop", index=start + 2),
        *end,
    )
    assert (made.content, made.finish_reason) == ("Whisp" + last, "stop")
    assert (made.outcome, len(made.choices)) == (Outcome.FINISHED, 1)


def test_any_number_of_pieces_may_be_counted() -> None:
    events = [delta(f"t{n} ", index=n) for n in range(300)]
    for end in (END, ()):
        made = response(*events, delta("", "stop", index=300), *end)
        assert made.content == "".join(f"t{n} " for n in range(300))
        assert (made.outcome, len(made.choices)) == (Outcome.FINISHED, 1)
    assert response(*events).content.startswith("t0 t1 t2 ")


@pytest.mark.parametrize("count", [6, 30])
@pytest.mark.parametrize("empty", [{2, 3}, {1, 4}])
@pytest.mark.parametrize("end", [(delta("", "stop", index=99), *END), END])
def test_pieces_without_text_are_counted_too(
    count: int, empty: set[int], end: tuple[bytes, ...]
) -> None:
    """The bytes of an emoji, and special tokens, come as empty texts; the reason may be missing."""
    texts = ["" if n in empty else f"{n} " for n in range(count)]
    made = response(*(delta(text, index=n) for n, text in enumerate(texts)), *end)
    assert (made.content, made.outcome) == ("".join(texts), Outcome.FINISHED)


def test_the_arguments_of_a_call_may_be_counted() -> None:
    def piece(index: int, reason: str | None = None, **call: Any) -> bytes:
        delta = {"tool_calls": [{"index": 0, "function": call}]}
        return event({"index": index, "delta": delta, "finish_reason": reason})

    for blanks in (0, 30):
        texts = ['{"a":', '"b', *["b"] * blanks, '"}']
        made = response(
            piece(0, name="f", arguments=""),
            *(piece(n, arguments=text) for n, text in enumerate(texts, 1)),
            delta("", "tool_calls", index=99),
            *END,
        )
        assert [(c.name, c.arguments) for c in made.tool_calls] == [("f", "".join(texts))]
        assert made.invalid_tool_calls == ()


def test_many_counted_pieces_take_time_in_proportion() -> None:
    state = StreamState(expect_usage=False)
    copied = 0
    for number in range(5_000):
        before = state._seen
        state.chunk(StreamChunk("x", choice=number))
        copied += len(before) if state._seen is not before else 0
    assert copied < 5_000


@pytest.mark.parametrize(
    "events",
    [
        [delta("a"), delta("b", index=1), delta("c"), delta("d", index=1)],
        [delta("a", index=1), delta("b")],
        [delta("a"), delta("b"), delta("c", index=1)],
    ],
)
def test_choices_that_come_again_stay_apart(events: list[bytes]) -> None:
    made = response(*events, delta("", "stop"), delta("", "stop", index=1), *END)
    assert len(made.choices) == 2
    assert made.outcome is Outcome.FINISHED


@pytest.mark.parametrize("first", [0, 1])
def test_each_with_its_reason_stays_apart(first: int) -> None:
    reasons = [delta("", "stop", index=first), delta("", "length", index=1 - first)]
    made = response(delta("a"), delta("b", index=1), *reasons, *END)
    assert [c.content for c in made.choices] == ["a", "b"]


def test_those_that_were_asked_for_stay_apart() -> None:
    made = response(delta("a"), delta("b", "stop", index=1), *END, choices=2)
    assert [c.content for c in made.choices] == ["a", "b"]


@pytest.mark.parametrize("more", [{}, {"logprobs": {"content": [{"token": "t"}]}}])
def test_calls_and_log_probabilities_under_counted_numbers_are_of_one_answer(
    more: dict[str, Any],
) -> None:
    def chunk(index: int, reason: str | None = None, **delta: Any) -> bytes:
        return event({"index": index, "delta": delta, "finish_reason": reason, **more})

    made = response(
        chunk(0, content="a"),
        chunk(1, tool_calls=[{"index": 0, **CALL}]),
        chunk(2, "tool_calls", tool_calls=[{"index": 0, **OTHER}]),
        *END,
    )
    assert [c.content for c in made.choices] == ["a"]
    assert [c.arguments for c in made.tool_calls] == ['{"x":1}', '{"x":2}']
    assert made.logprobs == ({"content": [{"token": "t"}] * 3} if more else None)
    assert made.notes == ("the choice numbers count pieces: read as one answer",)


def test_no_text_of_many_counted_pieces_is_lost_for_what_stands_beside_it() -> None:
    def chunk(number: int) -> bytes:
        beside = {"content": [{"token": str(number)}]}
        return event({"index": number, "delta": {"content": f"{number} "}, "logprobs": beside})

    made = response(*map(chunk, range(40)), delta("", "stop", index=40), *END)
    assert made.content == "".join(f"{number} " for number in range(40))
    assert made.logprobs is not None
    assert len(made.logprobs["content"]) == 40


# -- a choice for each part -------------------------------------------------------------------------


def whole(*messages: dict[str, Any], reason: str = "tool_calls") -> bytes:
    found = [
        {"index": n, "message": {"role": "assistant", **m}, "finish_reason": reason}
        for n, m in enumerate(messages)
    ]
    return json.dumps({"id": "g", "choices": found, "usage": USAGE}).encode()


@pytest.mark.parametrize("reasons", [("tool_calls", "tool_calls"), ("stop", "tool_calls")])
def test_a_streamed_choice_of_calls_belongs_to_the_text(reasons: tuple[str, str]) -> None:
    def call(index: int, **delta: Any) -> bytes:
        return event({"index": index, "delta": {"tool_calls": [{"index": 0, **delta}]}})

    made = response(
        *(delta("I"), delta(" look"), call(1, **CALL), call(2, **OTHER)),
        *(delta("", reasons[0]), delta("", reasons[1], 1), delta("", "tool_calls", 2)),
        *END,
    )
    assert (made.content, len(made.choices)) == ("I look", 1)
    assert [call.arguments for call in made.tool_calls] == ['{"x":1}', '{"x":2}']
    assert (made.finish_reason, made.outcome) == ("tool_calls", Outcome.FINISHED)
    for cut in ("length", "content_filter"):
        for place in (0, 1):
            last = ["tool_calls", "tool_calls"]
            last[place] = cut
            made = response(
                *(delta("I"), call(1, **CALL), delta("", last[0]), delta("", last[1], 1)), *END
            )
            assert (made.tool_calls, made.finish_reason) == ((), cut)
            assert len(made.invalid_tool_calls) == 1
    refused = event({"index": 0, "delta": {"refusal": "no"}})
    made = response(refused, call(1, **CALL), delta("", "stop"), delta("", "tool_calls", 1), *END)
    assert len(made.choices) == 2
    both = [delta("a"), call(0, **CALL), call(1, **OTHER), delta("b", index=1)]
    assert len(response(*both, delta("", "stop"), delta("", "stop", 1), *END).choices) == 2


@pytest.mark.parametrize(
    ("messages", "text", "arguments"),
    [
        ([{"content": "Look."}, {"tool_calls": [CALL]}], "Look.", ['{"x":1}']),
        (
            [{"content": "Look."}, {"tool_calls": [CALL]}, {"tool_calls": [OTHER]}],
            "Look.",
            ['{"x":1}', '{"x":2}'],
        ),
        ([{"content": "Look."}, {"content": " Now:", "tool_calls": [CALL]}], "Look. Now:", ['{"x":1}']),
        ([{"tool_calls": [CALL]}, {"tool_calls": [OTHER]}], "", ['{"x":1}', '{"x":2}']),
    ],
)  # fmt: skip
def test_text_and_calls_in_choices_of_their_own_are_one_answer(
    messages: list[dict[str, Any]], text: str, arguments: list[str]
) -> None:
    made = response(whole(*messages))
    assert len(made.choices) == 1
    assert (made.content, [c.arguments for c in made.tool_calls]) == (text, arguments)


def test_two_texts_in_a_whole_answer_stay_apart() -> None:
    made = response(whole({"content": "a"}, {"content": "b"}, reason="stop"))
    assert [c.content for c in made.choices] == ["a", "b"]


# -- beside the calls -------------------------------------------------------------------------------


@pytest.mark.parametrize("custom", [{}, {"name": "", "input": ""}, {"name": "f", "input": ""}])
def test_an_empty_custom_field_beside_a_function_says_nothing(custom: dict[str, Any]) -> None:
    first, second = {**CALL["function"], "arguments": '{"x":'}, {"arguments": "1}"}  # type: ignore[dict-item]
    made = response(
        delta("", tool_calls=[{"index": 0, "id": "a", "function": first, "custom": custom}]),
        delta("", tool_calls=[{"index": 0, "function": second, "custom": custom}]),
        delta("", "tool_calls"),
        *END,
    )
    assert [(c.name, c.arguments, c.type) for c in made.tool_calls] == [
        ("f", '{"x":1}', "function")
    ]


def test_very_many_reasoning_details_cost_only_themselves() -> None:
    many = [{"type": "reasoning.text", "text": "a", "index": 0}] * 5000
    made = response(delta("Hello", reasoning_details=many), delta("", "stop"), *END)
    assert (made.content, made.reasoning, made.outcome) == ("Hello", "a" * 5000, Outcome.FINISHED)
    assert any("reasoning_details of more entries" in note for note in made.notes)


# -- before the data --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stray", [b" ", b"\0", b"\xe2\x80\x8b", b"\xc2\xa0", b"\xef\xbb\xbf", b" \t "]
)
def test_blanks_before_a_field_or_its_data_are_passed_over(stray: bytes) -> None:
    events = [delta("Hel"), delta("lo"), delta("", "stop"), *END]
    before = response(*(stray + one for one in events))
    assert (before.content, before.outcome) == ("Hello", Outcome.FINISHED)
    if stray.strip():
        return
    inside = response(*(one.replace(b"data: ", b"data: " + stray) for one in events))
    assert (inside.content, inside.outcome) == ("Hello", Outcome.FINISHED)


def test_a_byte_order_mark_in_the_data_is_passed_over() -> None:
    events = [delta("Hel"), delta("lo"), delta("", "stop"), *END]
    made = response(*(one.replace(b"data: ", b"data: \xef\xbb\xbf") for one in events))
    assert (made.content, made.outcome, made.notes) == ("Hello", Outcome.FINISHED, ())


def test_usage_and_other_choices_may_follow_a_whole_answer_in_an_event() -> None:
    made = response(message("Hello w", "stop"), *END)
    assert (made.content, made.usage and made.usage.completion_tokens) == ("Hello w", 2)
    other = event({"index": 1, "message": {"content": "Bye"}, "finish_reason": "stop"})
    made = response(message("Hello w", "stop"), other, *END, choices=2)
    assert [choice.content for choice in made.choices] == ["Hello w", "Bye"]
    assert made.usage is not None
    assert made.usage.completion_tokens == 2


# -- a block that is opened with its text ----------------------------------------------------------

WHOLE = "Hello world, this is all."


def anthropic(*events: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Text, what was handed out, and the notes of an answer of Anthropic's wire."""
    opening: dict[str, Any] = {"type": "message_start", "message": {"id": "m", "content": []}}
    if events[0]["type"] != "message_start":
        events = (opening, *events)
    ending = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}
    decoder = ChunkDecoder(providers.Anthropic())
    made = Ingest(model="m", expect_usage=True)
    chunks = []
    for one in (*events, ending, {"type": "message_stop"}):
        chunks += decoder.feed(b"data: " + json.dumps(one).encode() + b"\n\n", 0.0)
    made.ingest_all(chunks)
    assert (decoder.error, made.outcome) == (None, Outcome.FINISHED)
    found = made.response(unread=decoder.left_out.unread)
    said = "".join(chunk.delta or chunk.reasoning for chunk in chunks)
    return found.content or found.reasoning, said, found.notes


def opened(text: str = "", kind: str = "text", index: int = 0) -> dict[str, Any]:
    block = {"type": kind, kind: text}
    return {"type": "content_block_start", "index": index, "content_block": block}


def streamed(*texts: str, kind: str = "text", index: int = 0) -> list[dict[str, Any]]:
    said = [{"type": f"{kind}_delta", kind: text} for text in texts]
    deltas = [{"type": "content_block_delta", "index": index, "delta": one} for one in said]
    return [*deltas, {"type": "content_block_stop", "index": index}]


PIECES = ("Hello world", ", this", " is all.")


@pytest.mark.parametrize(
    "events",
    [
        [opened(WHOLE), *streamed(*PIECES)],
        [opened(WHOLE), *streamed(WHOLE)],
        [opened(WHOLE, "thinking"), *streamed(*PIECES, kind="thinking")],
        [
            {"type": "message_start", "message": {"content": [{"type": "text", "text": WHOLE}]}},
            opened(),
            *streamed(*PIECES),
        ],
        [
            {"type": "message_start", "message": {"content": [{"type": "text", "text": WHOLE}]}},
            opened(WHOLE),
            *streamed(),
        ],
    ],
)
def test_a_text_that_its_block_was_opened_with_counts_once(events: list[dict[str, Any]]) -> None:
    content, said, notes = anthropic(*events)
    assert (content, said) == (WHOLE, WHOLE)
    assert any("again" in note for note in notes)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([opened(WHOLE), *streamed(*PIECES, " More.")], WHOLE + " More."),
        ([opened(WHOLE), *streamed("Hello world", ", this is all. More.")], WHOLE + " More."),
        ([opened(WHOLE), *streamed("Hello", " moon.", " Hello")], WHOLE + "Hello moon. Hello"),
        ([opened(WHOLE), *streamed("Hello world")], WHOLE + "Hello world"),
        ([opened(WHOLE), *streamed(" And", " so on.")], WHOLE + " And so on."),
        ([opened(WHOLE), *streamed("And", WHOLE)], WHOLE + "And" + WHOLE),
        ([opened("ha"), *streamed("ha", "ha")], "hahaha"),
        ([opened(WHOLE), *streamed(), opened("", index=1), *streamed(WHOLE, index=1)], WHOLE * 2),
    ],
)
def test_what_goes_on_behind_the_text_that_opens_a_block_is_kept(
    events: list[dict[str, Any]], text: str
) -> None:
    content, said, _ = anthropic(*events)
    assert (content, said) == (text, text)


def test_pieces_that_repeat_an_opening_may_come_in_one_read() -> None:
    events = [opened(WHOLE), *streamed(*WHOLE), opened(index=1), *streamed(*"abcdefgh", index=1)]
    whole = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events)
    chunks = ChunkDecoder(providers.Anthropic()).feed(whole, 0.0)
    assert "".join(chunk.delta for chunk in chunks) == WHOLE + "abcdefgh"
