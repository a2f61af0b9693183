"""The text of a call as servers send it: with placeholders, again, or all so far with every piece."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.builders import Joined, Place
from trio_minillm._protocol.calls import CallBuilder
from trio_minillm._protocol.ingest import COMPACT_EVERY
from trio_minillm._types.chunks import StreamChunk, ToolCallDelta

DOC = json.dumps({"path": "a/b.txt", "content": "one two three", "n": 12})


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["", "read", "compact", "join"]))))
def test_a_place_follows_however_the_pieces_are_joined(steps):
    text, place, found = Joined(), Place(), ""
    late = Place()
    for piece, then in steps:
        text.pieces.append(piece)
        if then == "read":
            found += text.since(place)
        elif then == "compact":
            text.compact()
        elif then == "join":
            text.joined()
    found += text.since(place)
    assert found == text.joined() == text.since(late)
    assert text.since(place) == ""
    assert place.chars == len(found)


async def read(*pieces):
    """The fields that came while the pieces did, all fields, and the call."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    first = ToolCallDelta(0, "c", "write")
    early = []
    view = None
    for piece in pieces:
        chunk = StreamChunk(tool_calls=(msgspec_copy(first, piece),))
        first = ToolCallDelta(0)
        stream.ingest(chunk)
        if view is None:
            call = await stream.calls().__anext__()
            view = call.fields()
        while view._look() and view._ready:
            early.append(view._ready.popleft())
    stream.ingest(StreamChunk(finish_reason="tool_calls", end=True))
    await send.aclose()
    rest = [] if view._ended else [field async for field in view]
    return early, early + rest, call


def msgspec_copy(delta, arguments):
    return ToolCallDelta(delta.index, delta.id, delta.name, arguments)


def joined(fields):
    texts = {}
    for field in fields:
        texts[field.name] = texts.get(field.name, "") + field.delta
    return texts


CUMULATIVE = [DOC[:end] for end in range(20, len(DOC) + 5, 5)]
SENT = {
    "once": [DOC[i : i + 4] for i in range(0, len(DOC), 4)],
    "at once": [DOC],
    "a placeholder first": ["{}", *(DOC[i : i + 9] for i in range(0, len(DOC), 9))],
    "null first": ["null", DOC[:30], DOC[30:]],
    "again in the end": [DOC[:30], DOC[30:], DOC],
    "all so far with every piece": CUMULATIVE,
    "all so far, and again": [*CUMULATIVE, DOC],
    "a placeholder, then all so far": ["{}", *CUMULATIVE],
    "a placeholder behind": [DOC[:30], DOC[30:], "{}"],
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_nothing_is_handed_out_twice(sent):
    early, fields, call = await read(*sent)
    assert fields == early
    assert joined(fields) == {"path": "a/b.txt", "content": "one two three", "n": "12"}
    assert call.runnable
    assert call.tool_call.parsed(dict) == json.loads(DOC)


LATER = {
    "all so far from the first characters": [DOC[:end] for end in range(1, len(DOC) + 1)],
    "encoded twice": [json.dumps(DOC)],
    "marks of the model's own": ["```json\n" + DOC + "\n```<|tool_call_end|>"],
}


@pytest.mark.parametrize("sent", LATER.values(), ids=LATER)
async def test_what_the_builder_makes_of_it_in_the_end(sent):
    _, fields, call = await read(*sent)
    assert joined(fields) == {"path": "a/b.txt", "content": "one two three", "n": "12"}
    assert call.runnable


async def test_two_different_copies_can_not_be_run():
    _, fields, call = await read(DOC, DOC.replace("one", "six"))
    assert joined(fields)["content"] == "one two three"
    assert call.runnable is False
    assert call.tool_call is None


async def replaced(*pieces):
    """The fields of a call whose pieces are read, and whose arguments are others at its end."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    stream.ingest(StreamChunk(part=0, tool_calls=(ToolCallDelta(0, "c", "write"),)))
    call = await stream.calls().__anext__()
    view, early = call.fields(), []
    for piece in pieces:
        stream.ingest(StreamChunk(part=0, tool_calls=(ToolCallDelta(0, arguments=piece),)))
        while view._look() and view._ready:
            early.append(view._ready.popleft())
    stream.ingest(StreamChunk(part=0, block=llm.Block(whole=DOC), progress=False))
    stream.ingest(StreamChunk(finish_reason="tool_calls", end=True))
    await send.aclose()
    fields = early + [field async for field in view]
    assert call.runnable
    assert call.arguments == DOC
    return joined(fields)


@pytest.mark.parametrize("pieces", [["{}"], ["{", "}"], ["null"], [" {"], ['{"pa'], [DOC[:20]]])
async def test_arguments_that_are_others_at_the_end_are_read_from_their_beginning(pieces):
    found = await replaced(*pieces)
    assert found == {"path": "a/b.txt", "content": "one two three", "n": "12"}


@pytest.mark.parametrize("piece", ['{"path": "zz', '{"path": "zzz", "n": 1', '{"path": [1, '])
async def test_fields_of_other_arguments_are_never_joined_with_those_that_count(piece):
    with pytest.raises(llm.BrokenJSON):
        await replaced(piece)


async def test_a_call_without_arguments():
    for pieces in ([""], ["{}"], ["{", "}"], ["null"]):
        early, fields, call = await read(*pieces)
        assert (early, fields) == ([], [])
        assert call.runnable
        assert call.partial().value == {}


async def test_objects_that_begin_with_pieces_are_no_copies():
    items = [{"name": f"item {n}"} for n in range(40)]
    parts = ['{"items": [', *(json.dumps(i) + "," for i in items[:-1]), json.dumps(items[-1]), "]}"]
    _, fields, call = await read(*parts)
    assert json.loads(joined(fields)["items"]) == items
    assert call.runnable


async def test_pieces_that_were_joined_meanwhile_come_once():
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    text = json.dumps({"text": "x" * (3 * COMPACT_EVERY)})
    stream.ingest(StreamChunk(tool_calls=(ToolCallDelta(0, "c", "write"),)))
    view = (await stream.calls().__anext__()).fields()
    seen = []
    for number, piece in enumerate(text):
        stream.ingest(StreamChunk(tool_calls=(ToolCallDelta(0, arguments=piece),)))
        if number % 700 == 0:
            view._look()
            seen += view._ready
            view._ready.clear()
    view._look()
    seen += view._ready
    assert joined(seen)["text"] == "x" * (3 * COMPACT_EVERY)
    await send.aclose()


async def test_text_in_another_choice_than_the_calls():
    """As GitHub's Copilot has them."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    send.send_nowait(StreamChunk('{"a": 1'))
    send.send_nowait(StreamChunk(choice=1, tool_calls=(ToolCallDelta(0, "c", "write", DOC),)))
    send.send_nowait(StreamChunk("}"))
    send.send_nowait(StreamChunk(finish_reason="tool_calls", end=True))
    await send.aclose()
    calls = [call async for call in stream.calls()]
    assert [f.value async for f in stream.fields() if f.done] == [1]
    assert [f.name async for f in calls[0].fields() if f.done] == ["path", "content", "n"]
    assert [call.tool_call for call in calls] == list(stream.response.tool_calls)


async def test_choices_whose_numbers_count_pieces():
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    for number, piece in enumerate(DOC):
        send.send_nowait(StreamChunk(piece, choice=number))
    send.send_nowait(StreamChunk(choice=len(DOC), finish_reason="stop", end=True))
    await send.aclose()
    fields = [f async for f in stream.fields()]
    assert stream.response.content == DOC
    assert {f.name: f.value for f in fields if f.done} == json.loads(DOC)


async def test_text_parts_that_take_turns_differ_in_the_end():
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    for part, piece in ((0, '{"a": '), (1, '"x"}'), (0, '"b"}')):
        send.send_nowait(StreamChunk(piece, part=part))
    send.send_nowait(StreamChunk(finish_reason="stop", end=True))
    await send.aclose()
    with pytest.raises(llm.BrokenJSON):
        [field async for field in stream.fields()]


async def test_copies_of_a_call_are_none_of_their_own():
    """LocalAI sends one call under several indexes."""
    stream, send = llm.StreamingCompletion.from_channel("m", expect_usage=False)
    for index in (0, 1):
        delta = ToolCallDelta(index, "c", "write", DOC)
        send.send_nowait(StreamChunk(tool_calls=(delta,)))
    send.send_nowait(StreamChunk(finish_reason="tool_calls", end=True))
    await send.aclose()
    calls = [call async for call in stream.calls()]
    assert [call.runnable for call in calls] == [True, False]
    assert len(stream.response.tool_calls) == 1


def test_an_id_alone_is_no_call():
    assert CallBuilder().says_nothing
