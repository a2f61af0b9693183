"""The ingest machine: what chunks add up to."""

import copy
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Block, Outcome, StreamChunk, ToolCallDelta, Usage
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.state import StreamState
from trio_minillm._types.errors import EndedEarly
from trio_minillm._types.options import BOUNDS


def machine(*chunks, expect_usage=True, wire="w", **options):
    made = Ingest(model="m", expect_usage=expect_usage, wire=wire, **options)
    made.ingest_all(chunks)
    return made


def finished(*chunks, **options):
    return machine(*chunks, StreamChunk(end=True, progress=False), **options).response()


def call(*deltas, **options):
    """A finished answer made of tool-call deltas, one a chunk."""
    return finished(*[StreamChunk(tool_calls=(d,)) for d in deltas], **options)


D = ToolCallDelta


# -- text and the simple things --------------------------------------------------------------


def test_many_pieces_are_joined_in_order_and_take_the_space_of_their_text():
    texts = [f"{i} " for i in range(5000)]
    chunks = [StreamChunk(t, reasoning=t, tool_calls=(D(0, "a", "f", t),)) for t in texts]
    made = machine(*chunks)
    assert sum(len(part.pieces) for part in made._first.parts) < 3 * 1024
    assert made.accumulated == "".join(texts)
    response = made.response()
    assert response.content == response.reasoning == "".join(texts)
    assert response.invalid_tool_calls[0].arguments == "".join(texts)


def test_text_is_joined_in_order():
    state = machine(StreamChunk("Hel"), StreamChunk("lo"))
    assert state.accumulated == "Hello"
    assert state.response().content == "Hello"


def test_id_and_model_are_the_first_that_are_not_empty():
    made = machine(
        StreamChunk(id="", model=""), StreamChunk(id="a", model="b"), StreamChunk(id="c")
    )
    assert (made.id, made.model) == ("a", "b")


def test_the_last_reason_wins_and_a_conflict_is_noted():
    response = finished(StreamChunk.finished("tool_calls"), StreamChunk.finished("stop"))
    assert response.finish_reason == "stop"
    assert response.choices[0].finish_reasons == ("tool_calls", "stop")
    assert "finish reasons" in response.notes[0]


def test_reasons_without_end_are_not_all_kept():
    response = finished(*[StreamChunk.finished(str(i)) for i in range(100)])
    assert response.finish_reason == "99"
    assert len(response.choices[0].finish_reasons) == 16


def test_raw_usage_without_end_is_not_all_kept():
    steps = [StreamChunk(usage=Usage(completion_tokens=i, raw={str(i): i})) for i in range(1000)]
    response = finished(*steps)
    assert len(response.usage.raw) <= 256
    assert response.usage.raw["999"] == 999


def test_a_repeated_reason_is_no_conflict():
    response = finished(StreamChunk.finished("stop"), StreamChunk.finished("stop"))
    assert response.notes == ()


def test_the_end_marker_invents_no_reason():
    assert finished(StreamChunk("x")).finish_reason is None


def test_the_reason_can_be_read_while_it_runs():
    assert machine(StreamChunk("x")).finish_reason is None
    assert machine(StreamChunk("x"), StreamChunk.finished("stop")).finish_reason == "stop"


def test_choices_are_kept_apart_and_in_order():
    response = finished(StreamChunk("b", choice=1), StreamChunk("a"), StreamChunk("c", choice=1))
    assert [c.content for c in response.choices] == ["a", "bc"]
    assert [c.index for c in response.choices] == [0, 1]


def test_reasoning_refusal_annotations_logprobs_and_audio():
    response = finished(
        StreamChunk(reasoning="hm"),
        StreamChunk(reasoning="m"),
        StreamChunk(refusal="no"),
        StreamChunk(annotations=({"a": 1},)),
        StreamChunk(logprobs={"content": [1], "refusal": None}),
        StreamChunk(logprobs={"content": [2], "refusal": [3]}),
        StreamChunk(audio={"id": "au", "data": "AA", "transcript": "he"}),
        StreamChunk(audio={"data": "BB", "transcript": "y", "expires_at": 5}),
    )
    assert response.reasoning == "hmm"
    assert response.refusal == "no"
    assert response.annotations == ({"a": 1},)
    assert response.logprobs == {"content": [1, 2], "refusal": [3]}
    assert response.choices[0].audio == {
        "id": "au",
        "data": "AABB",
        "transcript": "hey",
        "expires_at": 5,
    }


def test_fields_that_change_their_type_are_taken_as_they_come():
    steps = [{"content": [1]}, {"content": "a"}, {"content": "b"}, {"content": 5}, {"content": "c"}]
    for count, expected in [(1, [1]), (2, "a"), (3, "ab"), (4, 5), (5, "c")]:
        given = [StreamChunk(logprobs=step) for step in steps[:count]]
        assert finished(*given).logprobs == {"content": expected}
    assert finished(StreamChunk(logprobs={"x": 5}), StreamChunk(logprobs={"x": [2]})).logprobs == {
        "x": [2]
    }


def test_malformed_metadata_is_left_out_and_noted():
    for bad in (b"[1e9999]", b'["\xff"]', b"[" * 100_000):
        response = finished(
            StreamChunk("x", metadata={"citations": msgspec.Raw(bad), "provider": "P"})
        )
        assert response.content == "x"
        assert response.metadata == {"provider": "P"}
        assert "citations" in response.notes[0]


def test_what_the_decoder_has_left_out_is_noted():
    response = machine(StreamChunk("a")).response(unread={"delta.x": 1, "a malformed event": 1200})
    assert response.notes == (
        "left out because it could not be read: delta.x",
        "left out because it could not be read: a malformed event (1,200 times)",
    )


def test_a_choice_0_that_never_came_is_not_shown():
    made = machine(StreamChunk("b", choice=1), StreamChunk(finish_reason="stop", choice=1))
    assert (made.accumulated, made.finish_reason) == ("b", "stop")
    assert [c.index for c in made.response().choices] == [1]
    assert made.response().content == "b"


def test_a_negative_choice_is_malformed():
    made = machine(StreamChunk("a"), StreamChunk("x", choice=-1))
    assert isinstance(made.error, llm.ProtocolError)
    assert made.response().content == "a"


def test_reason_and_usage_may_be_corrected_until_the_end():
    steps = [
        StreamChunk(finish_reason="end_turn", usage=Usage(completion_tokens=1)),
        StreamChunk(finish_reason="max_tokens", usage=Usage(completion_tokens=2)),
    ]
    made = machine(*steps)
    assert made.outcome is None
    made.ingest(StreamChunk(end=True, progress=False))
    response = made.response()
    assert (response.finish_reason, response.usage.completion_tokens) == ("max_tokens", 2)
    assert response.usage.final


def test_pictures_are_kept():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    response = finished(StreamChunk(images=(picture,)), StreamChunk(audio={"data": "AA"}))
    assert response.images == response.choices[0].images == (picture,)
    assert response.audio == {"data": "AA"}


def test_metadata_is_merged_and_raw_json_read_once():
    raw = msgspec.Raw(b'["u"]')
    response = finished(
        StreamChunk(metadata={"provider": "P", "citations": msgspec.Raw(b"[]")}),
        StreamChunk(metadata={"citations": raw}),
    )
    assert response.metadata == {"provider": "P", "citations": ["u"]}


def test_chunks_with_content_are_counted_and_timed():
    made = machine(
        StreamChunk(progress=False, received_at=1.0),
        StreamChunk("a", received_at=2.0),
        StreamChunk("b", received_at=3.0),
        StreamChunk(finish_reason="stop", received_at=4.0),
        StreamChunk(usage=Usage(completion_tokens=2), received_at=5.0),
    )
    assert (made.chunks, made.first_at, made.last_at) == (2, 2.0, 3.0)


# -- usage -----------------------------------------------------------------------------------


def test_usage_is_replaced_field_by_field_and_never_summed():
    response = finished(
        StreamChunk(usage=Usage(uncached_input_tokens=15, completion_tokens=1, raw={"a": 1})),
        StreamChunk(
            finish_reason="end_turn", usage=Usage(completion_tokens=9, cost=0.5, raw={"b": 2})
        ),
    )
    assert response.usage == Usage(
        uncached_input_tokens=15, completion_tokens=9, cost=0.5, final=True, raw={"a": 1, "b": 2}
    )
    assert response.usage.total_tokens == 24


def test_usage_of_a_cut_stream_is_provisional():
    made = machine(StreamChunk(usage=Usage(completion_tokens=1)), StreamChunk("x"))
    made.fail(llm.ConnectionCut("gone"))
    assert made.response().usage.final is False


def test_the_chunk_is_not_changed_by_folding_it():
    first = StreamChunk(usage=Usage(completion_tokens=1))
    machine(first, StreamChunk(usage=Usage(completion_tokens=2)))
    assert first.usage == Usage(completion_tokens=1)


def test_a_response_is_a_snapshot():
    made = machine(StreamChunk("a"), StreamChunk(usage=Usage(completion_tokens=1)))
    before = made.response()
    made.ingest_all([StreamChunk("b"), StreamChunk(usage=Usage(completion_tokens=2))])
    assert (before.content, before.usage.completion_tokens) == ("a", 1)


# -- tool calls ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "deltas", "expected"),
    [
        (
            "pieces by index",
            [D(0, "a", "f", '{"x":'), D(0, arguments="1}")],
            [("a", "f", '{"x":1}')],
        ),
        (
            "pieces by id, whatever the index says",
            [D(0, "a", "f", "{"), D(3, "a", arguments="}")],
            [("a", "f", "{}")],
        ),
        (
            "a piece without index and id goes to the last call",
            [D(0, "a", "f", "{"), D(None, arguments="}")],
            [("a", "f", "{}")],
        ),
        (
            "a new id on a used index opens a new call",
            [D(0, "a", "f", "{}"), D(0, "b", "f", "{}")],
            [("a", "f", "{}"), ("b", "f", "{}")],
        ),
        (
            "and what follows on that index goes to the newer one",
            [D(0, "a", "f", "{}"), D(0, "b", "g", "{"), D(0, arguments="}")],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (
            "empty ids and names never overwrite",
            [D(0, "a", "f", "{"), D(0, "", "", "}")],
            [("a", "f", "{}")],
        ),
        (
            "a repeated id and name change nothing",
            [D(0, "a", "f", "{"), D(0, "a", "f", "}")],
            [("a", "f", "{}")],
        ),
        (
            "interleaved indexes",
            [
                D(0, "a", "f", "{"),
                D(1, "b", "g", "{"),
                D(0, arguments="}"),
                D(1, arguments="}"),
            ],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (
            "indexes out of order, negative and huge",
            [D(10**9, "a", "f", "{}"), D(-1, "b", "g", "{}")],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (
            "a name that comes late",
            [D(0, "a", None, "{}"), D(0, None, "f", "")],
            [("a", "f", "{}")],
        ),
        (
            "an id that comes late",
            [D(0, None, "f", "{"), D(0, "a", None, "}")],
            [("a", "f", "{}")],
        ),
        (
            "no ids, no indexes: another name is another call",
            [D(None, None, "f", "{}"), D(None, None, "g", "{}")],
            [("call_0", "f", "{}"), ("call_1", "g", "{}")],
        ),
        (
            "no ids, one index: the same name with a new object is another call",
            [D(0, None, "f", '{"x":1}'), D(0, None, "f", '{"x":2}')],
            [("call_0", "f", '{"x":1}'), ("call_1", "f", '{"x":2}')],
        ),
        (
            "no ids: the same name while the object is open is the same call",
            [D(0, None, "f", '{"x":'), D(0, None, "f", "1}")],
            [("call_0", "f", '{"x":1}')],
        ),
        (
            "… behind them",
            [D(0, "a", "f", '{"x":1}'), D(0, None, None, "{}")],
            [("a", "f", '{"x":1}')],
        ),
        (
            "… and more than once",
            [D(0, "a", "f", '{"x":'), D(0, None, None, '{"x":1}'), D(0, None, None, "{}")],
            [("a", "f", '{"x":1}')],
        ),
    ],
)
def test_deltas_find_their_call(why, deltas, expected):
    response = call(*deltas)
    assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == expected, why
    assert response.invalid_tool_calls == ()


@pytest.mark.parametrize(
    ("why", "deltas"),
    [
        ("not JSON", [D(0, "a", "f", "{")]),
        ("NaN is not JSON", [D(0, "a", "f", '{"x":NaN}')]),
        ("JSON, but no object", [D(0, "a", "f", "[1]")]),
        ("JSON, but no object", [D(0, "a", "f", "5")]),
        ("two objects", [D(0, "a", "f", "{}{}")]),
        ("no name", [D(0, "a", None, "{}")]),
        ("too deep", [D(0, "a", "f", "[" * 100_000)]),
    ],
)
def test_what_must_not_be_executed_is_set_apart(why, deltas):
    response = call(*deltas)
    assert response.tool_calls == ()
    assert len(response.invalid_tool_calls) == 1
    assert response.to_message().parts == ()


@pytest.mark.parametrize("error", [llm.ConnectionCut("x"), llm.EndedEarly("x"), None])
def test_calls_of_a_stream_that_was_cut_are_invalid(error):
    made = machine(StreamChunk(tool_calls=(D(0, "a", "f", "{}"),)))
    if error is None:
        made.cancel()
    else:
        made.fail(error)
    response = made.response()
    assert response.tool_calls == ()
    assert [c.id for c in response.invalid_tool_calls] == ["a"]


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "content_filter", "SAFETY"]
)
@pytest.mark.parametrize("arguments", ["", "{}", '{"x":1}', '{"x":'])
def test_no_call_of_an_answer_that_was_cut_or_filtered_can_be_run(reason, arguments):
    cut = StreamChunk.finished(reason)
    response = finished(StreamChunk(tool_calls=(D(0, "a", "f", arguments),)), cut)
    assert response.tool_calls == ()
    assert [c.id for c in response.invalid_tool_calls] == ["a"]


def test_a_custom_tools_arguments_need_not_be_json():
    response = call(D(0, "a", "f", "free ", type="custom"), D(0, arguments="text"))
    assert response.tool_calls[0].arguments == "free text"
    assert response.tool_calls[0].type == "custom"


def test_extra_fields_of_a_call_are_kept():
    extra = {"extra_content": {"google": {"thought_signature": "s"}}}
    response = call(D(0, "a", "f", "{}", extra=extra))
    assert response.tool_calls[0].extra == extra


# -- content blocks --------------------------------------------------------------------------


def start(number, kind, **fields):
    return StreamChunk(part=number, block=Block(start={"type": kind, **fields}))


def change(number, **fields):
    return StreamChunk(part=number, block=Block(delta=fields))


def tool_use(number, ident, name, arguments=""):
    chunk = start(number, "tool_use", id=ident, name=name, input={})
    chunk.tool_calls = (D(number, ident, name, arguments),)
    return chunk


def piece(number, text):
    return StreamChunk(part=number, tool_calls=(D(number, arguments=text),))


def test_blocks_become_parts_in_order_with_signatures_and_citations():
    response = finished(
        start(0, "thinking", thinking="", signature=""),
        StreamChunk(reasoning="hm", part=0),
        change(0, signature="sig"),
        start(1, "redacted_thinking", data="opaque"),
        start(2, "text", text="", citations=[{"c": 0}]),
        StreamChunk("Hi", part=2),
        change(2, citation={"c": 1}),
        tool_use(3, "t", "f"),
        piece(3, '{"x"'),
        piece(3, ":1}"),
        StreamChunk(part=3, block=Block(stop=True)),
    )
    thought, hidden, said, asked = response.parts
    assert thought == llm.ReasoningPart(
        text="hm",
        signature="sig",
        wire="w",
        raw={"type": "thinking", "thinking": "hm", "signature": "sig"},
    )
    assert (hidden.encrypted, hidden.raw) == (
        "opaque",
        {"type": "redacted_thinking", "data": "opaque"},
    )
    assert said == llm.TextPart("Hi", citations=({"c": 0}, {"c": 1}))
    assert (asked.id, asked.name, asked.arguments) == ("t", "f", '{"x":1}')
    assert response.to_message().parts == response.parts


def test_the_parts_of_a_copied_machine_are_its_own():
    """What is shared by machines while it is empty must not be shared by the parts of one copy."""
    begun = [StreamChunk("a", reasoning="b"), StreamChunk("c", reasoning="d", choice=1)]
    rest = [
        StreamChunk(reasoning="e", part=0),
        StreamChunk(reasoning="f", part=0, choice=1),
        change(None, signature="s"),
    ]
    made = machine(*begun, choices=2)
    copied = copy.deepcopy(made)
    for one in (copied, made):
        one.ingest_all(copy.deepcopy(rest))
    assert copied.response().choices == made.response().choices


def test_what_a_block_lacks_of_its_whole_text_is_added_to_the_chunk():
    def again(number: int | None, whole: str) -> StreamChunk:
        return StreamChunk(part=number, block=Block(whole=whole), progress=False)

    made = machine(start(0, "text"), StreamChunk("Sa", part=0), tool_use(1, "t", "f"))
    made.ingest(piece(1, '{"x"'))
    rest = [again(0, "Salt"), again(1, '{"x":1}'), again(0, "Sal"), again(2, "x")]
    for chunk in rest:
        made.ingest(chunk)
    assert [(c.delta, [d.arguments for d in c.tool_calls], c.progress) for c in rest] == [
        ("lt", [], True),
        ("", [":1}"], True),
        ("", [], False),
        ("", [], False),
    ]
    assert made.accumulated == "Salt"
    made.ingest(StreamChunk(finish_reason="stop", end=True))
    assert [c.arguments for c in made.response().tool_calls] == ['{"x":1}']


def test_blocks_may_overlap():
    response = finished(
        start(0, "text"),
        tool_use(1, "t", "f"),
        StreamChunk("a", part=0),
        piece(1, "{}"),
        StreamChunk("b", part=0),
    )
    assert response.content == "ab"
    assert response.tool_calls[0].arguments == "{}"


def test_a_block_number_that_is_used_again_is_a_new_block():
    response = finished(
        tool_use(1, "first", "f"), piece(1, '{"v'), tool_use(1, "second", "f"), piece(1, "{}")
    )
    assert [c.id for c in response.tool_calls] == ["second"]
    assert [c.id for c in response.invalid_tool_calls] == ["first"]


def test_server_tools_are_opaque_and_get_their_input():
    response = finished(
        start(0, "server_tool_use", id="s", name="web_search", input={}),
        piece(0, '{"query":'),
        piece(0, '"x"}'),
        start(1, "web_search_tool_result", tool_use_id="s", content=[]),
        start(2, "compaction", content=None),
        change(2, content="short", encrypted_content="zz"),
    )
    assert [p.raw for p in response.parts] == [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "compaction", "content": "short", "encrypted_content": "zz"},
    ]
    assert response.tool_calls == ()


def test_a_server_tools_broken_input_is_left_out():
    response = finished(start(0, "server_tool_use", id="s", input={}), piece(0, "{"))
    assert response.parts[0].raw == {"type": "server_tool_use", "id": "s", "input": {}}


def test_deltas_for_blocks_that_were_never_opened_lose_nothing():
    response = finished(
        StreamChunk("text", part=7),
        StreamChunk(reasoning="hm", part=8),
        piece(9, "{}"),
        change(5, content="x"),
        tool_use(4, "t", "f", "{}"),
        change(4, signature="not for a call"),
        StreamChunk("into a call", part=9),
    )
    assert response.content == "textinto a call"
    assert response.reasoning == "hm"
    assert response.invalid_tool_calls[0].arguments == "{}"


def test_an_empty_text_block_is_no_part():
    assert finished(start(0, "text", text="")).parts == ()


# -- reasoning details -----------------------------------------------------------------------


def details(*items):
    return finished(*[StreamChunk(reasoning_details=(i,)) for i in items], wire="openrouter")


def test_pieces_of_one_detail_are_merged_and_the_late_signature_is_kept():
    response = details(
        {"type": "reasoning.text", "text": "Let ", "index": 0, "signature": None},
        {"type": "reasoning.text", "text": "me", "index": 0, "format": "f"},
        {"type": "reasoning.text", "index": 0, "signature": "sig"},
        {"type": "reasoning.text", "index": 0, "signature": ""},
    )
    (part,) = response.parts
    assert part.raw == {
        "type": "reasoning.text",
        "text": "Let me",
        "index": 0,
        "signature": "sig",
        "format": "f",
    }
    assert (part.text, part.signature) == ("Let me", "sig")


def test_details_of_other_kinds_indexes_or_ids_stay_apart_and_in_order():
    response = details(
        {"type": "reasoning.summary", "summary": "a", "index": 0, "id": "1"},
        {"type": "reasoning.summary", "summary": "b", "index": 0, "id": "2"},
        {"type": "reasoning.encrypted", "data": "x", "index": 0},
        {"type": "reasoning.encrypted", "data": "y", "index": 0},
        {"type": "reasoning.summary", "summary": "c", "index": 1},
    )
    assert [(p.text, p.encrypted) for p in response.parts] == [
        ("a", None),
        ("b", None),
        ("", "x"),
        ("", "y"),
        ("c", None),
    ]


def test_a_late_empty_field_of_a_detail_never_overwrites():
    (part,) = details(
        {"type": "reasoning.text", "text": "a", "index": 0, "format": "f"},
        {"type": "reasoning.text", "text": None, "index": 0, "format": None, "extra": None},
    ).parts
    assert part.raw == {
        "type": "reasoning.text",
        "text": "a",
        "index": 0,
        "format": "f",
        "extra": None,
    }


def test_a_detail_without_text_stays_without():
    raw = {"type": "reasoning.text", "index": 0, "signature": "s"}
    assert details(raw).parts[0].raw == raw
    assert details({**raw, "text": None}).parts[0].raw == {**raw, "text": None}


# -- endings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (llm.ConnectionCut("x"), Outcome.TRUNCATED),
        (llm.EndedEarly("x"), Outcome.TRUNCATED),
        (llm.StreamTimeout("idle", 1.0), Outcome.ERRORED),
        (llm.ProtocolError("x", event=3), Outcome.ERRORED),
        (llm.SendError("x"), Outcome.ERRORED),
    ],
)
def test_failures_have_their_outcome_and_the_partial_answer(error, outcome):
    made = machine(StreamChunk("half"))
    made.fail(error)
    assert made.outcome is outcome
    assert made.error is error
    assert error.partial.content == "half"
    assert error.partial.outcome is outcome


def test_the_usage_of_a_failure_is_counted():
    for before in ([], [StreamChunk(usage=Usage(uncached_input_tokens=5))]):
        made = machine(StreamChunk("half"), *before)
        error = llm.ProviderError(llm.ErrorInfo(message="no", kind="server"))
        error.usage = Usage(completion_tokens=3)
        made.fail(error)
        usage = made.response().usage
        assert (usage.uncached_input_tokens, usage.completion_tokens) == (5 if before else None, 3)


def test_what_came_is_joined_now_and_then_and_stays_what_it_was():
    made = machine(*[StreamChunk(text) for text in "abc"], StreamChunk(reasoning="hm"))
    for _ in range(2):
        made.compact()
        made.ingest(StreamChunk("d"))
    response = made.response()
    assert (response.content, response.reasoning) == ("abcdd", "hm")


def test_a_piece_under_an_id_of_its_own_goes_on_with_arguments_that_are_open():
    first = D(index=0, id="a", name="f", arguments='{"x":')
    (whole,) = call(first, D(index=0, id="b", arguments="1}")).tool_calls
    assert (whole.id, whole.arguments) == ("a", '{"x":1}')
    answer = call(first, D(index=0, id="b", name="g", arguments="{}"))
    assert [c.name for c in (*answer.tool_calls, *answer.invalid_tool_calls)] == ["g", "f"]


def test_a_limit_of_the_callers_own_has_what_had_arrived():
    made = machine(StreamChunk("Hel"))
    limit = llm.BudgetExceeded("max_tokens", 5, 4)
    made.cancel(error=limit)
    assert (made.outcome, made.error) == (Outcome.CANCELLED, limit)
    assert limit.partial.content == "Hel"
    made.cancel(rejected=True)
    assert not made.rejected


def test_a_whole_answer_survives_what_follows_and_notes_it():
    made = machine(StreamChunk("all"), StreamChunk.finished("stop"))
    made.fail(llm.StreamTimeout("usage_grace", 1.0))
    assert made.outcome is Outcome.FINISHED
    assert made.error is None
    assert "usage_grace" in made.response().notes[0]


def test_a_note_of_an_early_end_does_not_deny_the_reason_that_came():
    made = machine(StreamChunk("all"), StreamChunk.finished("stop"))
    made.fail(llm.EndedEarly("the body ended without a finish reason or an end marker"))
    assert made.outcome is Outcome.FINISHED
    assert all("without a finish reason" not in note for note in made.response().notes)
    asked = machine(StreamChunk("a"), StreamChunk(finish_reason="stop", end=True))
    assert asked.response().notes == ()


def test_nothing_changes_after_the_end():
    made = machine(StreamChunk("a"))
    made.cancel(rejected=True)
    before = made.response()
    made.ingest(StreamChunk("b", usage=Usage(completion_tokens=1), finish_reason="stop"))
    made.fail(llm.EndedEarly("x"))
    made.cancel()
    assert msgspec.structs.asdict(made.response()) == msgspec.structs.asdict(before)
    assert before.rejected
    assert before.outcome is Outcome.CANCELLED


@pytest.mark.parametrize(
    ("chunks", "bound"),
    [
        ([StreamChunk(annotations=({},) * 2**18), StreamChunk(annotations=({},))], "annotations"),
        (
            [
                StreamChunk(reasoning_details=({"type": "x"},) * 2**18),
                StreamChunk(reasoning_details=({"type": "x"},)),
            ],
            "reasoning blocks",
        ),
        (
            [
                StreamChunk(logprobs={"content": [1] * 2**18}),
                StreamChunk(logprobs={"content": [1]}),
            ],
            "log probabilities",
        ),
        (
            [StreamChunk("x", choice=i) for i in (*range(BOUNDS.choices)[::-1], BOUNDS.choices)],
            "choices",
        ),
        (
            [
                StreamChunk(tool_calls=(D(i, str(i), "f", "{}"),))
                for i in range(BOUNDS.tool_calls + 1)
            ],
            "tool calls",
        ),
        ([StreamChunk("x", part=i) for i in range(BOUNDS.parts + 1)], "content blocks"),
        (
            [StreamChunk(tool_calls=(D(0, "a", "f", "x" * (BOUNDS.arguments // 2)),))] * 3,
            "characters in the arguments of calls",
        ),
        (
            [
                StreamChunk(part=0, block=Block(start={"type": "server_tool_use", "id": "s"})),
                *[StreamChunk(part=0, tool_calls=(D(0, "", "", "x" * (BOUNDS.tool_input // 2)),))]
                * 3,
            ],
            "characters in the input of a provider's tool",
        ),
        (
            [
                StreamChunk(audio={f"{i}-{j}": 1 for j in range(BOUNDS.parts // 2)})
                for i in range(3)
            ],
            "fields of audio or log probabilities",
        ),
        (
            [
                StreamChunk("x"),
                StreamChunk(audio=dict.fromkeys(map(str, range(BOUNDS.parts + 1)), 1)),
            ],
            "fields of audio or log probabilities",
        ),
    ],
)
def test_bounds_are_errors_of_ours(chunks, bound):
    made = machine(*chunks[:-1])
    assert made.outcome is None
    made.ingest(chunks[-1])
    assert made.outcome is Outcome.ERRORED
    assert isinstance(made.error, llm.LimitExceeded)
    assert made.error.bound == bound


# -- properties ------------------------------------------------------------------------------

texts = st.text(max_size=3)
deltas = st.builds(
    ToolCallDelta,
    index=st.none() | st.integers(-1, 3),
    id=st.none() | st.sampled_from(["", "a", "b"]),
    name=st.none() | st.sampled_from(["", "f", "g"]),
    arguments=st.sampled_from(["", "{", "}", "{}", '{"x":1}', "nope"]),
    type=st.sampled_from(["function", "custom"]),
)
starts = st.sampled_from(
    [
        {"type": "text", "text": ""},
        {"type": "thinking", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "server_tool_use", "id": "s", "name": "n", "input": {}},
        {"type": "tool_use", "id": "t", "name": "n"},
        {"type": "who_knows"},
    ]
)
blocks = st.builds(Block, start=starts) | st.builds(
    Block, delta=st.sampled_from([{"signature": "s"}, {"citation": {}}, {"content": "c"}, {}])
)
chunks = st.builds(
    StreamChunk,
    delta=texts,
    reasoning=texts,
    refusal=st.sampled_from(["", "no"]),
    tool_calls=st.lists(deltas, max_size=2).map(tuple),
    finish_reason=st.sampled_from([None, None, None, "stop", "length", "tool_calls"]),
    usage=st.none()
    | st.builds(Usage, completion_tokens=st.none() | st.integers(0, 9), raw=st.just({"r": 1})),
    id=st.sampled_from([None, "", "id"]),
    model=st.sampled_from([None, "", "m2"]),
    choice=st.integers(0, 2),
    part=st.none() | st.integers(0, 3),
    block=st.none() | blocks,
    reasoning_details=st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["reasoning.text", "reasoning.encrypted", "x"])},
            optional={"text": st.none() | texts, "index": st.integers(0, 1), "data": texts},
        ),
        max_size=2,
    ).map(tuple),
    logprobs=st.none() | st.just({"content": [1], "refusal": None}),
    end=st.sampled_from([False] * 9 + [True]),
    progress=st.booleans(),
)
failures = st.sampled_from(
    [
        llm.ConnectionCut("x"),
        llm.EndedEarly("x"),
        llm.StreamTimeout("idle", 1.0),
        llm.ProtocolError("x"),
        None,
    ]
)


def asdict(response):
    """A response as comparable data."""
    return msgspec.structs.asdict(response)


@given(st.lists(chunks, max_size=12), failures, st.booleans(), st.integers(1, 3))
def test_any_chunks_and_any_ending_come_to_one_outcome(given_chunks, failure, expect, choices):
    made = Ingest(model="m", expect_usage=expect, choices=choices)
    seen = []
    for chunk in given_chunks:
        made.ingest(chunk)
        seen.append(made.outcome)
    made.fail(copy.copy(failure)) if failure is not None else made.cancel()
    settled = [o for o in seen if o is not None]
    assert made.outcome is not None
    assert set(settled) <= {made.outcome}
    response = made.response()
    assert (made.error is None) == (made.outcome in (Outcome.FINISHED, Outcome.CANCELLED))
    for choice in response.choices:
        assert choice.tool_calls == () or made.outcome is Outcome.FINISHED
        for tool_call in choice.tool_calls:
            assert tool_call.type == "custom" or tool_call.parsed() is not ...
        assert choice.content == "".join(
            p.text for p in choice.parts if isinstance(p, llm.TextPart)
        )


@given(st.lists(chunks, max_size=12), failures, st.lists(st.integers(0, 12)), st.booleans())
def test_one_batch_or_many_come_to_the_same(given_chunks, failure, cuts, expect):
    responses = []
    for edges in ([0, len(given_chunks)], sorted({0, len(given_chunks), *cuts})):
        made = Ingest(model="m", expect_usage=expect)
        for a, b in itertools.pairwise(edges):
            made.ingest_all(copy.deepcopy(given_chunks[a:b]))
        made.fail(copy.copy(failure)) if failure is not None else made.cancel()
        responses.append(asdict(made.response()))
    assert responses[0] == responses[1]


@pytest.mark.parametrize(
    ("native", "whole"), [("MAX_TOKENS", False), ("SAFETY", False), ("STOP", True)]
)
@pytest.mark.parametrize("again", [None, {}, {"native_finish_reason": "STOP"}])
def test_the_reason_of_the_server_behind_a_gateway_counts_for_calls(native, whole, again):
    ingest = Ingest(model="m", expect_usage=False)
    ingest.ingest(StreamChunk(tool_calls=(ToolCallDelta(0, "a", "f", "{}"),)))
    ingest.ingest(StreamChunk(finish_reason="stop", metadata={"native_finish_reason": native}))
    if again is not None:
        ingest.ingest(StreamChunk(finish_reason="stop", metadata=again))
    ingest.fail(EndedEarly("the body ended"))
    response = ingest.response()
    assert bool(response.tool_calls) is whole
    assert bool(response.invalid_tool_calls) is not whole


def test_choices_that_never_came_are_noted():
    ingest = Ingest(model="m", expect_usage=False, choices=2)
    ingest.ingest(StreamChunk("a"))
    ingest.ingest(StreamChunk(finish_reason="stop"))
    ingest.ingest(StreamChunk(end=True, sentinel=True, progress=False))
    assert ingest.outcome is Outcome.FINISHED
    assert "2 choices were requested, and 1 arrived" in ingest.response().notes


pieces = st.one_of(
    st.builds(StreamChunk, st.sampled_from(["a", "b" * 20])),
    st.builds(StreamChunk, reasoning=st.sampled_from(["a", "b" * 20])),
    st.builds(
        StreamChunk,
        st.sampled_from(["", "a", "b" * 20]),
        finish_reason=st.sampled_from(["stop", "length"]),
        choice=st.sampled_from([0, 0, 0, 1, -1]),
    ),
    st.builds(
        lambda n, choice: StreamChunk("a", usage=Usage(completion_tokens=n), choice=choice),
        st.sampled_from([1, 0, None]),
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.builds(lambda n: StreamChunk(usage=Usage(completion_tokens=n)), st.sampled_from([1, 0])),
    st.builds(
        lambda n: StreamChunk(tool_calls=(ToolCallDelta(n, f"c{n}", "f", "{}"),)), st.integers(0, 4)
    ),
    st.just(StreamChunk(progress=False, id="i", model="n")),
)


@given(st.lists(pieces, max_size=6), st.lists(pieces, max_size=6), st.booleans(), st.booleans())
def test_the_last_batch_is_folded_alike_whoever_asks_the_state(
    before, last, sentinel, expect_usage
):
    last = [*last, StreamChunk(end=True, sentinel=sentinel, progress=False)]
    bounds = msgspec.structs.replace(BOUNDS, tool_calls=2)
    one, other = (Ingest(model="m", expect_usage=expect_usage, bounds=bounds) for _ in range(2))
    told = StreamState(expect_usage=expect_usage)
    for chunk in [*before, *last]:
        told.chunk(chunk)
    one.ingest_all(copy.deepcopy([*before, *last]))
    other.ingest_all(copy.deepcopy(before))
    if told.over:
        other.ingest_last(copy.deepcopy(last), told)
        assert other.response() == one.response()
        assert repr(other.error) == repr(one.error)
        for name in StreamState.__slots__:
            assert getattr(other.state, name) == getattr(one.state, name), name


def test_a_limit_that_the_last_batch_crosses_counts_although_the_reader_is_over():
    calls = [StreamChunk(tool_calls=(ToolCallDelta(n, f"c{n}", "f", "{}"),)) for n in range(3)]
    last = [*calls, StreamChunk(finish_reason="stop"), StreamChunk(end=True, progress=False)]
    told = StreamState(expect_usage=False)
    for chunk in last:
        told.chunk(chunk)
    ingest = Ingest(
        model="m", expect_usage=False, bounds=msgspec.structs.replace(BOUNDS, tool_calls=2)
    )
    ingest.ingest_last(last, told)
    assert (told.outcome, ingest.outcome) == (Outcome.FINISHED, Outcome.ERRORED)
    assert isinstance(ingest.error, llm.LimitExceeded)


@pytest.mark.parametrize("usage", [None, Usage(completion_tokens=1)])
def test_a_last_batch_with_usage_and_one_without(usage):
    last = [StreamChunk("a", usage=usage), StreamChunk(finish_reason="stop")]
    last.append(StreamChunk(end=True, progress=False))
    told, ingest = StreamState(expect_usage=False), Ingest(model="m", expect_usage=False)
    for chunk in last:
        told.chunk(chunk)
    ingest.ingest_last(last, told)
    assert (ingest.outcome, ingest.accumulated) == (Outcome.FINISHED, "a")
    assert (ingest.usage is None) is (usage is None)


@pytest.mark.parametrize("content", ["a", ""])
def test_a_last_batch_may_have_text_beside_its_reason(content):
    last = [StreamChunk("b"), StreamChunk(content, finish_reason="stop")]
    last.append(StreamChunk(end=True, progress=False))
    told, ingest = StreamState(expect_usage=False), Ingest(model="m", expect_usage=False)
    for chunk in last:
        told.chunk(chunk)
    ingest.ingest_last(last, told)
    assert (ingest.outcome, ingest.accumulated) == (Outcome.FINISHED, f"b{content}")


def test_the_last_batch_adds_nothing_to_an_answer_that_was_left():
    told = StreamState(expect_usage=False)
    last = [StreamChunk("a", finish_reason="stop"), StreamChunk(end=True, progress=False)]
    for chunk in last:
        told.chunk(chunk)
    ingest = Ingest(model="m", expect_usage=False)
    ingest.cancel()
    ingest.ingest_last(last, told)
    assert (ingest.outcome, ingest.accumulated) == (Outcome.CANCELLED, "")


def test_arguments_that_take_the_place_of_others_count_for_their_limit():
    few = msgspec.structs.replace(BOUNDS, arguments=30)
    made = machine(bounds=few)
    for number in range(4):
        made.ingest(tool_use(number, f"t{number}", "f"))
        made.ingest(piece(number, '{"y":'))
        made.ingest(StreamChunk(part=number, block=Block(whole='{"x":1234}'), progress=False))
    assert isinstance(made.error, llm.LimitExceeded)
    made_of = [call.arguments for call in made.response().invalid_tool_calls]
    assert made_of == ['{"x":1234}', '{"x":1234}', '{"x":1234}', '{"y":']
