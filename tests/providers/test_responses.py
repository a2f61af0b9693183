"""Answers in OpenAI's Responses format: every event, every clothing of an item, and each thing once."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import OpaquePart, ReasoningPart, RefusalPart, TextPart, ToolCall, testing
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._types.errors import EndedEarly
from trio_minillm.providers import OpenAIResponses
from trio_minillm.providers import _responses_items as items
from trio_minillm.testing import responses_events, sse

RESPONSES = OpenAIResponses()
WIRE = "openai-responses"
USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "phase": "final_answer",
    "content": [{"type": "output_text", "text": "Salt.", "annotations": []}],
}
CITED = {"type": "url_citation", "url": "https://sea.invalid", "start_index": 0, "end_index": 4}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Rivers."}],
    "encrypted_content": "SECRET",
}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "sky",
    "arguments": '{"at": 1}',
}
CUSTOM = {
    "type": "custom_tool_call",
    "id": "ct_1",
    "call_id": "call_2",
    "name": "sql",
    "input": "x",
}
SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search"},
}
IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBO"}


def event(kind: str, **fields: Any) -> bytes:
    return sse({"type": f"response.{kind}", **fields})


def completed(*output: Any, **fields: Any) -> bytes:
    return event("completed", response=response(*output, **fields))


def response(*output: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "model": "gpt", "status": status}
    return {**head, "output": list(output), "usage": USAGE, **fields}


def added(item: Any, index: Any = 0) -> bytes:
    return event("output_item.added", item=item, output_index=index)


def done(item: Any, index: Any = 0) -> bytes:
    return event("output_item.done", item=item, output_index=index)


def said(text: Any, index: Any = 0, part: Any = 0, **more: Any) -> bytes:
    fields = {"output_index": index, "content_index": part, "delta": text, **more}
    return event("output_text.delta", **fields)


def read(*events: bytes) -> llm.CompletionResponse:
    """Return a finished answer, the same however its bytes are cut."""
    body = b"".join(events)
    whole, error = testing.decode(RESPONSES, [body])
    assert error is None
    cut, _ = testing.decode(RESPONSES, [body[i : i + 1] for i in range(len(body))])
    assert (cut.parts, cut.notes) == (whole.parts, whole.notes)
    return whole


def failed(*events: bytes) -> llm.ProviderError:
    _, error = testing.decode(RESPONSES, events)
    assert isinstance(error, llm.ProviderError), error
    return error


def texts(*events: bytes) -> list[str]:
    """Return the pieces of text that a caller sees."""
    decoder = ChunkDecoder(RESPONSES)
    chunks = [*decoder.feed(b"".join(events), 0.0), *decoder.finish(0.0)]
    assert decoder.error is None
    return [chunk.delta for chunk in chunks if chunk.delta]


# -- an answer -------------------------------------------------------------------------------


def test_an_answer_as_openai_sends_it() -> None:
    found = read(*responses_events("Salt", "y."))
    assert (found.id, found.model, found.content) == ("resp_1", "test-model-1", "Salty.")
    assert found.finish_reason == "completed"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 2)
    assert found.usage.final
    assert found.parts == (TextPart("Salty.", extra={"item": {"id": "msg_1"}}),)
    assert texts(*responses_events("Salt", "y.")) == ["Salt", "y."]
    assert found.timings.chunks == 2 or found.timings.chunks == 0  # `decode` has no times


def test_an_answer_that_was_cut_at_its_limit() -> None:
    found = read(*responses_events("Salt", status="incomplete"))
    assert found.finish_reason == "incomplete"
    assert found.metadata["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_stream_without_its_last_event_is_truncated() -> None:
    found, error = testing.decode(RESPONSES, responses_events("Salt", status=None))
    assert isinstance(error, EndedEarly)
    assert found.content == "Salt"
    found, error = testing.decode(
        RESPONSES, [*responses_events("Salt", status=None), sse("[DONE]")]
    )
    assert isinstance(error, EndedEarly)


def test_proxies_add_a_sentinel_and_keep_alives() -> None:
    pings = [sse({"type": "keepalive"}, "keepalive"), sse({"type": "ping"}), sse("x", "keepalive")]
    found = read(*pings, *responses_events("Salt"), sse(" [DONE] "))
    assert found.content == "Salt"
    whole = [
        *responses_events("Salt", status=None),
        sse({"type": "response.done", "response": response()}),
    ]
    assert read(*whole).finish_reason == "completed"


CLOTHES = {
    "deltas": [said("Sa"), said("lt.")],
    "the end of the text": [
        event("output_text.done", output_index=0, content_index=0, text="Salt.")
    ],
    "the end of the part": [
        event("content_part.done", output_index=0, content_index=0, part=MESSAGE["content"][0])  # type: ignore[index]
    ],
    "the end of the item": [done(MESSAGE)],
    "the end of the answer": [completed(MESSAGE)],
}


@pytest.mark.parametrize("there", list(product((False, True), repeat=5)))
def test_a_text_counts_once_however_often_it_comes(there: tuple[bool, ...]) -> None:
    events = [e for keep, some in zip(there, CLOTHES.values(), strict=True) if keep for e in some]
    events = events if there[-1] else [*events, completed()]
    assert read(*events).content == ("Salt." if any(there) else "")
    assert "".join(texts(*events)) == ("Salt." if any(there) else "")


@pytest.mark.parametrize("item", [REASONING, CALL, CUSTOM, SEARCH, IMAGE, MESSAGE])
@pytest.mark.parametrize("there", list(product((False, True), repeat=3))[1:])
def test_an_item_counts_once_however_often_it_comes(
    item: dict[str, Any], there: tuple[bool, ...]
) -> None:
    opened = {**item, "arguments": ""} if "arguments" in item else item
    events = [added(opened), done(item), completed(item)]
    kept = [e for keep, e in zip(there, events, strict=True) if keep]
    if not there[2]:
        kept.append(completed())
    parts = read(*kept).parts
    assert len(parts) == 1
    assert parts == read(completed(item)).parts or there == (True, False, False)


@pytest.mark.parametrize("name", list(CLOTHES)[1:])
def test_what_the_deltas_of_a_text_lack_comes_with_its_end(name: str) -> None:
    last = [] if name == "the end of the answer" else [completed()]
    found = read(added({**MESSAGE, "content": []}), said("Sa"), *CLOTHES[name], *last)
    assert found.content == "Salt."
    assert not found.notes
    everything = [e for events in CLOTHES.values() for e in events]
    assert read(said("S"), *everything[1:]).content == "Slt."  # another text: the deltas count
    assert read(said("Salt. "), *everything[2:]).content == "Salt. "


def test_what_the_deltas_of_a_refusal_and_of_reasoning_lack_comes_with_their_end() -> None:
    refused = {**MESSAGE, "content": [{"type": "refusal", "refusal": "I can't."}]}
    place = {"output_index": 0, "content_index": 0}
    assert (
        read(event("refusal.delta", delta="I", **place), completed(refused)).refusal == "I can't."
    )
    thought = event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Riv")
    assert read(thought, done(REASONING), completed(REASONING)).reasoning == "Rivers."
    more = event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="Salt")
    assert read(thought, more, done(REASONING), completed()).reasoning == "RivSalt"


@pytest.mark.parametrize(
    ("deltas", "noted"),
    [
        (('{"at"',), False),
        (('{"at": ', "1"), False),
        (("{}",), False),
        (("null",), False),
        (('{"at":1}',), False),
        (('{"at": 2}',), True),
        (('{"at": now',), True),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_the_arguments_at_the_end_of_a_call_count(
    deltas: tuple[str, ...], noted: bool, last: bool
) -> None:
    pieces = [
        event("function_call_arguments.delta", output_index=0, item_id="fc_1", delta=piece)
        for piece in deltas
    ]
    end = event(
        "function_call_arguments.done", output_index=0, item_id="fc_1", arguments='{"at": 1}'
    )
    ends = [completed(CALL)] if last else [end, done(CALL), completed(CALL)]
    found = read(added({**CALL, "arguments": ""}), *pieces, *ends)
    assert [json.loads(call.arguments) for call in found.tool_calls] == [{"at": 1}]
    assert ("others at their end" in "".join(found.notes)) is noted


def test_arguments_at_the_end_of_a_call_that_are_none_change_nothing() -> None:
    piece = event("function_call_arguments.delta", output_index=0, delta='{"at": 1}')
    opened = added({**CALL, "arguments": ""})
    for odd in ("{}", '{"at', ""):
        found = read(opened, piece, completed({**CALL, "arguments": odd}))
        assert [call.arguments for call in found.tool_calls] == ['{"at": 1}']
        assert not found.notes
    other = {**CALL, "id": "fc_2", "arguments": '{"at": 2}'}
    found = read(opened, piece, done(other), completed())  # another item at its index
    assert [call.arguments for call in found.tool_calls] == ['{"at": 1}']


def test_arguments_of_another_call_never_count() -> None:
    """Items need no id, and a list at the end may lack some, or have another order."""
    bare = {k: v for k, v in CALL.items() if k != "id"}
    one, two = bare, {**bare, "call_id": "call_2", "arguments": '{"at": 20}'}
    events = [added({**one, "arguments": ""})]
    for n, call in enumerate((one, two)):
        events += [added({**call, "arguments": ""}, n)]
        events += [event("function_call_arguments.delta", output_index=n, delta=call["arguments"])]
    for listed in ((one, two), (two, one), (two,), (one,)):
        found = read(*events, completed(*listed))
        assert [json.loads(call.arguments) for call in found.tool_calls] == [{"at": 1}, {"at": 20}]
        assert not found.notes


@pytest.mark.parametrize("index", [0, None])
def test_arguments_without_an_id_at_an_index_of_several_calls_never_count(index: Any) -> None:
    def ended(arguments: str) -> bytes:
        return event("function_call_arguments.done", output_index=index, arguments=arguments)

    one, two = CALL, {**CALL, "id": "fc_2", "call_id": "call_2", "arguments": '{"to":2}'}
    events = []
    for call in (one, two):
        piece = event("function_call_arguments.delta", output_index=index, delta=call["arguments"])
        events += [added({**call, "arguments": ""}, index), piece]
    found = read(*events, ended(one["arguments"]), ended(two["arguments"]), completed())
    assert [json.loads(call.arguments) for call in found.tool_calls] == [{"at": 1}, {"to": 2}]


def test_a_message_with_all_texts_completes_none() -> None:
    one, two = message("Sea ", "m1"), message("salt", "m2")
    events = [added({**one, "content": []}), said("Sea ")]
    events += [added({**two, "content": []}, 1), said("salt", 1)]
    for whole in (message("Sea salt", "m1"), message("Sea salt", "m3")):
        assert read(*events, completed(whole)).content == "Sea salt"


def test_the_input_of_a_custom_tool_counts_as_it_ends() -> None:
    def made(*deltas: str) -> llm.CompletionResponse:
        kind = "custom_tool_call_input.delta"
        pieces = [event(kind, output_index=0, item_id="ct_1", delta=piece) for piece in deltas]
        return read(
            added({**CUSTOM, "input": ""}), *pieces, completed({**CUSTOM, "input": "ls -l"})
        )

    for deltas in (("ls -l",), ("ls",), ("l", "s "), ("dir",)):
        found = made(*deltas)
        assert [call.arguments for call in found.tool_calls] == ["ls -l"]
        assert bool(found.notes) is (deltas == ("dir",))


def test_the_end_of_the_arguments_names_the_function() -> None:
    """By OpenAI's reference it does; nothing else may have come of the call."""
    end = event("function_call_arguments.done", output_index=0, name="sky", arguments="{}")
    (call,) = read(end, completed()).tool_calls
    assert (call.name, call.arguments) == ("sky", "{}")


def test_an_answer_of_all_kinds_of_items_keeps_their_order() -> None:
    output = [REASONING, SEARCH, MESSAGE, CALL, CUSTOM, IMAGE]
    found = read(*(done(item, n) for n, item in enumerate(output)), completed(*output))
    thought, search, text, call, custom, image = found.parts
    assert thought == ReasoningPart(text="Rivers.", encrypted="SECRET", wire=WIRE, raw=REASONING)
    assert search == OpaquePart(wire=WIRE, raw=SEARCH)
    assert text == TextPart("Salt.", extra={"item": {"id": "msg_1", "phase": "final_answer"}})
    assert call == ToolCall(
        id="call_1", name="sky", arguments='{"at": 1}', extra={"item": {"id": "fc_1"}}
    )
    assert custom == ToolCall(
        id="call_2", name="sql", arguments="x", type="custom", extra={"item": {"id": "ct_1"}}
    )
    assert image == OpaquePart(wire=WIRE, raw=IMAGE)
    assert found.images == (IMAGE,)
    assert found.tool_calls == (call, custom)
    assert found.reasoning == "Rivers."


def test_a_whole_answer_is_read_as_its_last_event() -> None:
    body = json.dumps(response(REASONING, MESSAGE, CALL)).encode()
    found, error = testing.decode(RESPONSES, [body])
    assert error is None
    assert found.parts == read(completed(REASONING, MESSAGE, CALL)).parts
    assert (found.finish_reason, found.model) == ("completed", "gpt")
    found, error = testing.decode(RESPONSES, [sse(response(MESSAGE))])  # in an event without a type
    assert (found.content, error) == ("Salt.", None)


def test_a_whole_answer_that_is_none() -> None:
    odd = json.dumps(response(MESSAGE)).replace('"gpt"', "NaN").encode()
    assert testing.decode(RESPONSES, [odd])[0].content == "Salt."
    for body in (b'{"detail": "no"}', b'{"error": {"message": "no"}}'):
        _, error = testing.decode(RESPONSES, [body])
        assert isinstance(error, llm.ProviderError)
    queued = json.dumps(response(status="queued")).encode()
    _, error = testing.decode(RESPONSES, [queued])
    assert isinstance(error, EndedEarly)
    _, error = testing.decode(RESPONSES, [b"[1]"])
    assert isinstance(error, llm.ProtocolError)
    with pytest.raises(llm.ProviderError):
        RESPONSES.parse_response(json.dumps(response(status="failed")).encode())


# -- texts -----------------------------------------------------------------------------------


def test_several_texts_of_a_message_are_parts_of_their_own() -> None:
    two = {**MESSAGE, "content": [{"type": "output_text", "text": t} for t in ("Sea", " salt")]}
    found = read(said("Sea"), said(" salt", part=1), done(two), completed(two))
    assert [p.text for p in found.parts if isinstance(p, TextPart)] == ["Sea", " salt"]


@pytest.mark.parametrize("first", [1, 2, 2000])
def test_pieces_numbered_on_from_another_item_are_those_that_are_listed(first: int) -> None:
    """As Bedrock numbers the text behind reasoning; its lists begin at 0 all the same."""
    cited = {"type": "output_text", "text": "Salt.", "annotations": [CITED]}
    one = {**MESSAGE, "content": [cited]}
    at = {"output_index": 0, "content_index": first}
    ends = [
        event("output_text.done", **at, text="Salt."),
        event("content_part.done", **at, part=cited),
    ]
    told = [said("Salt.", part=first)]
    for deltas in (told, [said("Sa", part=first), said("lt.", part=first)]):
        for between in ([], ends):
            found = read(*deltas, *between, done(one), completed(one))
            assert (found.content, found.annotations) == ("Salt.", (CITED,))
            assert [p.text for p in found.parts if isinstance(p, TextPart)] == ["Salt."]
    two = {**MESSAGE, "content": [cited, {"type": "output_text", "text": " Sea."}]}
    found = read(*told, said(" Sea.", part=first + 1), done(two), completed(two))
    assert found.content == "Salt. Sea."
    found = read(said("Salt.", part=2), done(two), completed(two))
    assert found.content == "Salt. Sea."  # the second came with the list alone


@pytest.mark.parametrize("kind", ["content", "summary"])
def test_thoughts_numbered_on_from_another_item_are_those_that_are_listed(kind: str) -> None:
    part = {"type": "reasoning_text" if kind == "content" else "summary_text", "text": "Rocks."}
    whole = {"type": "reasoning", "id": "rs_1", "summary": [], kind: [part]}
    name = "reasoning_text" if kind == "content" else "reasoning_summary_text"
    at = {"output_index": 0, f"{kind}_index": 3}
    pieces = [event(f"{name}.delta", **at, delta=said) for said in ("Ro", "cks.")]
    found = read(*pieces, done(whole), said("Salt.", index=1), completed(whole))
    assert (found.reasoning, found.content) == ("Rocks.", "Salt.")


def test_a_refusal() -> None:
    part = {"type": "refusal", "refusal": "No."}
    refused = {**MESSAGE, "content": [part]}
    place = {"output_index": 0, "content_index": 0}
    deltas = [event("refusal.delta", **place, delta=t) for t in ("N", "o.")]
    whole = [
        event("refusal.done", **place, refusal="No."),
        event("content_part.done", **place, part=part),
    ]
    for events in (deltas, whole[:1], whole[1:], [*deltas, *whole]):
        found = read(added({**MESSAGE, "content": []}), *events, done(refused), completed(refused))
        assert found.refusal == "No."
        assert found.content == ""
        head = {"item": {"id": "msg_1", "phase": "final_answer"}}
        assert found.parts == (RefusalPart("No.", extra=head),)


def test_citations_come_by_themselves_and_at_the_end() -> None:
    cited = {
        **MESSAGE,
        "content": [{"type": "output_text", "text": "Salt.", "annotations": [CITED]}],
    }
    one = event("output_text.annotation.added", output_index=0, content_index=0, annotation=CITED)
    for events in ([said("Salt."), one, done(cited)], [done(cited)], [one, said("Salt.")], [one]):
        found = read(*events, completed(cited))
        assert found.annotations == (CITED,)
        (part,) = found.parts
        assert isinstance(part, TextPart)
        assert part.citations == (CITED,)
        assert part.text == "Salt."
    odd = event("output_text.annotation.added", output_index=0, annotation="x")
    assert any("annotation" in note for note in read(said("a"), odd, completed()).notes)


def test_log_probabilities_count_once() -> None:
    tokens = [{"token": "Sa", "logprob": -1}, {"token": "lt.", "logprob": -2}]
    part = {"type": "output_text", "text": "Salt.", "logprobs": tokens}
    events = [said("Sa", logprobs=tokens[:1]), said("lt.", logprobs=tokens[1:])]
    whole = {**MESSAGE, "content": [part]}
    assert read(*events, done(whole), completed(whole)).logprobs == {"content": tokens}
    assert read(completed(whole)).logprobs == {"content": tokens}


def test_audio_counts_once() -> None:
    part = {"type": "output_audio", "data": "AAAA", "transcript": "Hi"}
    whole = {**MESSAGE, "content": [part]}
    pieces = [event("audio.delta", delta=d) for d in ("AA", "AA", "")]
    pieces.append(event("audio.transcript.delta", delta="Hi"))
    for events in (pieces, []):
        found = read(*events, done(whole), completed(whole))
        assert found.audio == {"data": "AAAA", "transcript": "Hi"}


def test_content_of_other_shapes() -> None:
    odd = [
        ({**MESSAGE, "content": "Salt."}, "Salt."),
        ({**MESSAGE, "content": ["Sa", {"text": "lt."}, 7]}, "Salt."),
        ({**MESSAGE, "content": [{"type": "output_text", "text": {"value": "Salt."}}]}, "Salt."),
        (
            {**MESSAGE, "content": [{"type": "novel", "text": "Salt."}, {"type": "odd", "x": 1}]},
            "Salt.",
        ),
        ({"content": [{"type": "output_text", "text": "Salt."}]}, "Salt."),
        ({"role": "assistant", "content": None}, ""),
    ]
    for item, text in odd:
        assert read(done(item), completed(item)).content == text
    assert read(said({"text": "Salt."}), completed()).content == "Salt."
    assert read(said(None), said(""), said("a"), completed()).content == "a"
    _, error = testing.decode(RESPONSES, [said({"x": 1})])
    assert isinstance(error, llm.ProtocolError)


def test_a_text_at_the_end_that_can_not_be_read_costs_the_answer_only_if_none_came() -> None:
    odd = {**MESSAGE, "content": [{"type": "output_text", "text": {"x": 1}}]}
    found = read(said("Salt."), done(odd), completed())
    assert found.content == "Salt."
    assert any("left out" in note for note in found.notes)
    _, error = testing.decode(RESPONSES, [done(odd)])
    assert isinstance(error, llm.ProtocolError)


def test_content_that_an_item_opens_with_counts_if_no_other_comes() -> None:
    part = event("content_part.added", output_index=0, content_index=0, part=MESSAGE["content"][0])  # type: ignore[index]
    empty = event("content_part.added", output_index=0, part={"type": "output_text", "text": ""})
    assert read(added(MESSAGE), completed()).content == "Salt."
    assert read(part, completed()).content == "Salt."
    assert read(empty, completed()).content == ""
    assert read(added(MESSAGE), part, said("Salt."), completed()).content == "Salt."
    assert read(added(MESSAGE), part, completed(MESSAGE)).content == "Salt."
    assert read(added(CALL), completed()).tool_calls[0].arguments == '{"at": 1}'
    assert read(added(CALL), done(CALL), completed()).tool_calls[0].arguments == '{"at": 1}'


# -- reasoning -------------------------------------------------------------------------------


def test_reasoning_is_shown_once_as_text_or_else_as_its_summary() -> None:
    place = {"output_index": 0, "summary_index": 0}
    part = {"type": "summary_text", "text": "Rivers."}
    text_part = {"type": "reasoning_text", "text": "Rocks."}
    both = {**REASONING, "content": [text_part]}
    summary = [
        event("reasoning_summary_part.added", **place, part={**part, "text": ""}),
        event("reasoning_summary_text.delta", **place, delta="Riv"),
        event("reasoning_summary_text.delta", **place, delta="ers."),
        event("reasoning_summary_text.done", **place, text="Rivers."),
        event("reasoning_summary_part.done", **place, part=part),
    ]
    place = {"output_index": 0, "content_index": 0}
    thoughts = [
        event("reasoning_text.delta", **place, delta="Rocks."),
        event("reasoning_text.done", **place, text="Rocks."),
        event("content_part.done", **place, part=text_part),
    ]
    for events, shown in (
        (summary, "Rivers."),
        (summary[3:4], "Rivers."),
        (summary[4:], "Rivers."),
        (thoughts, "Rocks."),
        (thoughts[1:2], "Rocks."),
        (thoughts[2:], "Rocks."),
        ([*summary, *thoughts], "Rivers."),
        ([*thoughts, *summary], "Rocks."),
        ([], "Rocks."),
    ):
        found = read(
            added({"type": "reasoning", "id": "rs_1"}), *events, done(both), completed(both)
        )
        assert found.reasoning == shown
        assert found.parts == (ReasoningPart(text=shown, encrypted="SECRET", wire=WIRE, raw=both),)


def test_reasoning_that_did_not_end_can_not_go_back() -> None:
    found, _ = testing.decode(
        RESPONSES, [added(REASONING), event("reasoning_text.delta", output_index=0, delta="hm")]
    )
    assert found.parts == (ReasoningPart(text="hm", wire=WIRE),)
    odd = event("reasoning_text.delta", output_index=0, delta={"x": 1})
    assert read(odd, said("a", index=1), completed()).notes == (
        "left out because it could not be read: delta",
    )


def test_pieces_of_reasoning_before_its_item_is_opened_are_of_it() -> None:
    first = event("reasoning_text.delta", output_index=0, delta="hm")
    found = read(first, added(REASONING), first, done(REASONING), completed(REASONING))
    assert found.reasoning == "hmhm"
    assert len(found.parts) == 1


# -- calls -----------------------------------------------------------------------------------


def test_calls_in_pieces() -> None:
    name = "function_call_arguments"
    pieces = [event(f"{name}.delta", output_index=0, delta=d) for d in ('{"at"', ": 1}", "")]
    end = event(f"{name}.done", output_index=0, arguments='{"at": 1}')
    opened = added({**CALL, "arguments": ""})
    expected = read(completed(CALL)).tool_calls
    for events in (
        [opened, *pieces, end, done(CALL)],
        [opened, end],
        [*pieces, done(CALL)],
        [*pieces],
    ):
        assert read(*events, completed(CALL)).tool_calls == expected
    custom = [event("custom_tool_call_input.delta", output_index=0, delta="x")]
    custom_end = event("custom_tool_call_input.done", output_index=0, input="x")
    for events in ([*custom, custom_end], [custom_end], custom):
        found = read(added({**CUSTOM, "input": ""}), *events, done(CUSTOM), completed(CUSTOM))
        assert found.tool_calls == read(completed(CUSTOM)).tool_calls


def test_two_calls_at_once() -> None:
    other = {**CALL, "id": "fc_2", "call_id": "call_9"}
    piece = "function_call_arguments.delta"
    events = [added({**CALL, "arguments": ""}), added({**other, "arguments": ""}, 1)]
    for text in ('{"at":', " 1}"):
        events += [event(piece, output_index=n, delta=text) for n in (0, 1)]
    found = read(*events, completed(CALL, other))
    assert [(c.id, c.arguments) for c in found.tool_calls] == [
        ("call_1", '{"at": 1}'),
        ("call_9", '{"at": 1}'),
    ]


def test_calls_of_other_shapes() -> None:
    bare = {"call_id": "c", "name": "sky", "arguments": {"at": 1}}
    (call,) = read(completed(bare)).tool_calls
    assert (call.name, call.parsed(), call.extra) == ("sky", {"at": 1}, None)
    (call,) = read(completed({**CALL, "call_id": None, "arguments": None})).tool_calls
    assert (call.id, call.parsed()) == ("fc_1", {})
    caller = {**CALL, "caller": {"type": "program"}, "id": 7}
    (call,) = read(completed(caller)).tool_calls
    assert call.extra == {"item": {"caller": {"type": "program"}}}


def test_a_call_of_an_answer_that_was_cut_is_not_run() -> None:
    found = read(done(CALL), event("incomplete", response=response(CALL, status="incomplete")))
    assert found.tool_calls == ()
    assert len(found.invalid_tool_calls) == 1


# -- hosted tools ----------------------------------------------------------------------------


def test_steps_of_hosted_tools_show_that_the_stream_is_alive() -> None:
    for kind in (
        "web_search_call.searching",
        "code_interpreter_call_code.delta",
        "mcp_call.failed",
    ):
        chunk = RESPONSES.parse_event(
            f"response.{kind}", json.dumps({"type": f"response.{kind}"}).encode()
        )
        assert chunk == llm.StreamChunk()
    failing = event("mcp_call.failed", error={"message": "no"})
    assert read(failing, *responses_events("Salt")).content == "Salt"
    assert RESPONSES.parse_chunk(b'{"type": "news"}') == llm.StreamChunk(answer=False)


def test_a_hosted_tool_whose_end_never_came_is_shown_as_it_began() -> None:
    found = read(added({**SEARCH, "status": "in_progress"}), completed())
    assert found.parts == (OpaquePart(wire=WIRE, raw={**SEARCH, "status": "in_progress"}),)


# -- items that are hard to tell apart ---------------------------------------------------------


def message(text: str, ident: str | None) -> dict[str, Any]:
    named = {} if ident is None else {"id": ident}
    return {"type": "message", **named, "content": [{"type": "output_text", "text": text}]}


def test_an_item_is_kept_with_what_only_a_later_end_of_it_has() -> None:
    empty = {**SEARCH, "status": "in_progress", "action": None}
    found = read(added(empty), done(empty), done(SEARCH), completed(SEARCH))
    assert found.parts == (OpaquePart(wire=WIRE, raw=SEARCH),)
    found = read(done({**REASONING, "encrypted_content": ""}), completed(REASONING))
    assert [p.encrypted for p in found.parts if isinstance(p, ReasoningPart)] == ["SECRET"]
    assert found.parts[0].raw == REASONING  # type: ignore[union-attr]
    made = {**IMAGE, "status": "generating", "result": None}
    found = read(done(made), completed(IMAGE))
    assert (found.images, found.parts) == ((IMAGE,), (OpaquePart(wire=WIRE, raw=IMAGE),))
    unnamed = {k: v for k, v in SEARCH.items() if k != "id"}
    assert read(done(unnamed), completed(SEARCH)).parts == (OpaquePart(wire=WIRE, raw=SEARCH),)


def test_another_item_adds_nothing_to_one_that_ended() -> None:
    bare = {k: v for k, v in SEARCH.items() if k != "action"}
    found = read(done(bare), completed({**SEARCH, "id": "ws_2"}))
    assert found.parts == (OpaquePart(wire=WIRE, raw=bare),)


def test_one_index_for_all_items() -> None:
    one, two = message("Sea ", "m1"), message("salt", "m2")
    opened = [{**one, "content": []}, {**two, "content": []}]
    events = [added(opened[0]), said("Sea "), done(one), added(opened[1]), said("salt"), done(two)]
    assert texts(*events, completed(one, two)) == ["Sea ", "salt"]
    assert texts(done(one), done(two), completed(one, two)) == ["Sea ", "salt"]


def test_no_index_at_all() -> None:
    one, two = message("Sea ", "m1"), message("salt", "m2")
    opened = [added({**m, "content": []}, None) for m in (one, two)]
    piece = [said(t, None, item_id=m["id"]) for t, m in (("Sea ", one), ("salt", two))]
    assert texts(*opened, *piece, done(one, None), done(two, None), completed(one, two)) == [
        "Sea ",
        "salt",
    ]
    assert texts(opened[0], said("Sea ", None), done(one, None), completed(one)) == ["Sea "]
    assert texts(said("Sea ", None), done(message("Sea ", None), None), completed(one)) == ["Sea "]
    assert texts(done(one, None), done(two, None), completed(one, two)) == ["Sea ", "salt"]
    again = [said("Sea ", None, item_id="m1"), done(one, None), done(one, None)]
    assert texts(*again, completed()) == ["Sea "]


def test_another_id_in_every_event() -> None:
    events = [
        added(message("", "a")),
        said("Sea ", item_id="b"),
        done(message("Sea ", "c")),
        added(message("", "d"), 1),
        said("salt", 1, item_id="e"),
        done(message("salt", "f"), 1),
    ]
    assert texts(*events, completed(message("Sea ", "g"), message("salt", "h"))) == ["Sea ", "salt"]


def test_an_id_of_an_item_of_another_kind_is_no_hint() -> None:
    thought = {"type": "reasoning", "id": "x", "summary": []}
    assert texts(
        done(thought), said("Salt", None, item_id="x"), completed(message("Salt", "x"))
    ) == ["Salt"]


def test_text_and_reasoning_under_one_index() -> None:
    events = []
    for text in ("a", "b"):
        events += [event("reasoning_text.delta", output_index=0, delta="t"), said(text)]
    found = read(*events, completed())
    assert (found.content, found.reasoning, len(found.parts)) == ("ab", "tt", 2)


def test_the_opening_of_an_item_again_is_the_same_item() -> None:
    head = {**MESSAGE, "content": []}
    assert len(read(added(head), added(head), said("Salt."), done(MESSAGE), completed()).parts) == 1
    assert len(read(said("Salt."), added(head), done(MESSAGE), completed()).parts) == 1
    call = {**CALL, "arguments": ""}
    assert len(read(added(call), added(call), done(CALL), completed()).tool_calls) == 1
    assert len(read(added(SEARCH), added(SEARCH), done(SEARCH), completed()).parts) == 1


def test_the_head_of_a_message_may_come_with_its_end_only() -> None:
    (part,) = read(said("Salt."), done(MESSAGE), completed()).parts
    assert isinstance(part, TextPart)
    assert part.extra == {"item": {"id": "msg_1", "phase": "final_answer"}}


def test_a_message_goes_back_with_the_id_of_its_own_end() -> None:
    """As reasoning does: GitHub's Copilot gives both another in the list at the end."""
    first, listed = {**MESSAGE, "phase": None}, {**MESSAGE, "id": "msg_9"}
    rivers, again = {**REASONING, "id": "rs_1"}, {**REASONING, "id": "rs_9"}
    found = read(done(rivers), said("Salt.", index=1), done(first, 1), completed(again, listed))
    thought, text = found.parts
    assert isinstance(thought, ReasoningPart)
    assert isinstance(text, TextPart)
    assert thought.raw == rivers
    assert text.extra == {"item": {"id": "msg_1", "phase": "final_answer"}}


def test_items_that_are_none_are_left_out() -> None:
    for item in (None, "x", {}, {"x": 1}, {"type": 7}):
        found = read(added(item), done(item), said("a"), completed(item))
        assert found.content == "a"
    odd = {"type": "summary", "summary": [{"text": "x"}]}
    assert read(completed({"summary": odd["summary"]})).reasoning == "x"
    pieces = [{"text": ""}, {"text": "y"}]
    assert read(completed({"type": "reasoning", "summary": pieces})).reasoning == "y"


def test_more_items_than_any_answer_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_ITEMS", 2)
    for events in (
        [done({"type": "x"}, n) for n in range(3)],
        [event("output_text.delta", output_index=n, delta="x") for n in range(3)],
    ):
        response, error = testing.decode(RESPONSES, events)
        assert isinstance(error, llm.ProtocolError)
        assert (error.event, len(response.parts)) == (3, 2)


# -- how it ends -------------------------------------------------------------------------------


def test_a_failed_answer_says_why_and_what_it_used() -> None:
    error = {"code": "server_error", "message": "Try again."}
    failure = failed(event("failed", response=response(status="failed", error=error)))
    assert (failure.code, failure.kind) == ("server_error", "server")
    assert "Try again." in failure.info.message
    assert failure.usage is not None
    assert failure.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([event("failed", response=response(status="failed"))], "failed"),
        ([event("failed", response={})], "failed"),
        ([event("cancelled", response=response(status="cancelled"))], "cancelled"),
        ([completed(status="failed")], "failed"),
        ([completed(error={"code": "x", "message": "no"})], "x"),
        ([event("incomplete", response=response(status="incomplete",
            incomplete_details={"reason": "rate_limit_exceeded"}))], "rate_limit_exceeded"),
        ([event("in_progress", response={"error": {"code": "x", "message": "no"}})], "x"),
        ([sse({"type": "error", "code": "x", "message": "no", "param": None})], "x"),
        ([sse({"type": "error", "error": {"code": "x", "message": "no"}})], "x"),
        ([sse({"error": {"code": "x", "message": "no"}})], "x"),
        ([sse({"error": {"code": "x", "message": "no"}}, "error")], "x"),
        ([sse({"code": "x", "message": "no"}, "error")], "x"),
        ([sse({"type": "response.error", "error": {"code": "x", "message": "no"}})], "x"),
        ([sse({"type": "response.error", "code": "x", "message": "no"})], "x"),
        ([said("a"), sse({"error": "overloaded"})], None),
    ],
)  # fmt: skip
def test_failures_in_all_clothes(events: list[bytes], code: str | None) -> None:
    assert failed(*events).code == code


def test_an_answer_without_a_status_ends_as_its_event_says() -> None:
    assert read(said("a"), event("completed", response={})).finish_reason == "completed"
    assert (
        read(said("a"), event("completed", response=response(status="in_progress"))).finish_reason
        == "completed"
    )
    assert read(said("a"), sse({"response": response()})).finish_reason == "completed"
    opening = sse({"response": {"id": "r", "status": "in_progress"}})
    assert read(opening, said("a"), completed(id=None)).id == "r"
    named = [
        sse({"response": {"id": "r"}}, "response.created"),
        sse({"response": response()}, "response.completed"),
    ]
    assert read(named[0], said("a"), named[1]).finish_reason == "completed"


def test_an_error_that_says_that_all_is_well_is_none() -> None:
    fine = {"type": "response.output_text.delta", "output_index": 0, "delta": "a", "error": {}}
    none = {**fine, "error": {"code": None, "message": None}}
    assert read(sse(fine), sse(none), completed()).content == "aa"


def test_fields_of_other_types_cost_themselves() -> None:
    odd = [
        event("created", response={"id": 7.5, "model": ["m"], "status": "in_progress"}),
        event("created", response="soon"),
        event("created"),
        sse(
            {"type": "response.output_text.delta", "output_index": "0", "delta": "a", "item_id": {}}
        ),
        sse({"type": 7, "sequence_number": 0}),
    ]
    found = read(*odd, said("b"), completed(service_tier="flex", model={"a": 1}))
    assert found.content == "ab"
    assert found.metadata["service_tier"] == "flex"
    nan = b'data: {"type": "response.output_text.delta", "output_index": 0, "delta": "a", "x": NaN}\n\n'
    assert read(nan, completed()).content == "a"
    odd_end = event("output_item.done", item=MESSAGE, output_index=0, item_id={"a": 1})
    assert read(said("Salt."), odd_end, completed()).notes == (
        "left out because it could not be read: item_id",
    )
    end = json.dumps({"type": "response.completed", "response": response()}).replace('"gpt"', "NaN")
    assert read(said("a"), sse(end)).finish_reason == "completed"


def test_a_response_that_is_no_object_is_malformed() -> None:
    _, error = testing.decode(RESPONSES, [said("a"), event("completed", response=[1])])
    assert isinstance(error, llm.ProtocolError)
    _, error = testing.decode(RESPONSES, [b"data: {\n\n"])
    assert isinstance(error, llm.ProtocolError | EndedEarly)


# -- usage and money ---------------------------------------------------------------------------

PRICE = llm.TokenPrice(input=1, output=10, cache_read=0.1, web_search=0.01)


def test_usage_is_in_disjoint_buckets() -> None:
    raw = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 12},
        "total_tokens": 120,
    }
    usage = read(said("a"), completed(usage=raw)).usage
    assert usage is not None
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (40, 60)
    assert (usage.completion_tokens, usage.reasoning_tokens) == (20, 12)
    cost = RESPONSES.cost_of(usage, PRICE)
    assert cost.amount == Decimal("0.000246")
    assert cost.resolution is llm.CostResolution.RESOLVED
    for nothing in ({}, None, {"input_tokens": None}):
        assert read(said("a"), completed(usage=nothing)).usage is None


def test_what_hosted_tools_cost_is_counted_or_makes_a_bound() -> None:
    page = {**SEARCH, "action": {"type": "open_page"}}
    usage = read(said("a"), completed(SEARCH, page, {**SEARCH, "action": None})).usage
    assert usage is not None
    assert usage.web_searches == 2
    assert RESPONSES.cost_of(usage, PRICE).resolution is llm.CostResolution.RESOLVED
    usage = read(said("a"), completed({"type": "code_interpreter_call", "id": "ci"})).usage
    assert RESPONSES.cost_of(usage, PRICE).resolution is llm.CostResolution.LOWER_BOUND
    native = read(said("a"), completed(IMAGE, usage={**USAGE, "cost": 0.5})).usage
    assert RESPONSES.cost_of(native, PRICE).amount == Decimal("0.5")
    ticks = read(said("a"), completed(usage={**USAGE, "cost_in_usd_ticks": 10**9})).usage
    assert RESPONSES.cost_of(ticks, None).amount == Decimal("0.1")


# -- the same however it is cut ------------------------------------------------------------------

BODIES = [
    b"".join(responses_events("Salt", "y – ", "✓\n")),
    b"".join(
        [
            added({**REASONING, "summary": []}),
            event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="é"),
            done(REASONING),
            added({**CALL, "arguments": ""}, 1),
            event("function_call_arguments.delta", output_index=1, delta='{"at": 1}'),
            done(CALL, 1),
            done(SEARCH, 2),
            said("Salt.", 3),
            completed(REASONING, CALL, SEARCH, MESSAGE),
        ]
    ),
]


@given(st.sampled_from(BODIES), st.lists(st.integers(0, 4000), max_size=12))
def test_chunks_and_answer_do_not_depend_on_the_cuts(body: bytes, places: list[int]) -> None:
    edges = [0, *sorted(min(p, len(body)) for p in places), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert testing.decode(RESPONSES, pieces) == testing.decode(RESPONSES, [body])


def test_the_provider_keeps_its_contract() -> None:
    model = llm.openai_responses("gpt-5", api_key="k")
    testing.check_provider(model, streams=BODIES, errors=[b'{"error": {"message": "no"}}'])


def test_a_part_that_is_no_object_costs_itself_alone() -> None:
    odd = event("content_part.done", output_index=0, content_index=0, part=[5])
    found = read(odd, done(MESSAGE, 0), completed(MESSAGE))
    assert found.content == "Salt."
    assert any("part" in note for note in found.notes)
