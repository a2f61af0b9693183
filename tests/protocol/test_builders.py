"""Text under construction, read while it grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import StreamChunk, ToolCallDelta
from trio_minillm._protocol.builders import Joined, Place
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.reasons import in_chat_words, pauses


def test_what_has_come_behind_a_place():
    text, place, late = Joined(), Place(), Place()
    assert text.since(place) == ""
    text.pieces += ["a", "bc"]
    assert text.since(place) == "abc"
    text.pieces.append("d")
    assert text.since(place) == "d"
    text.pieces += ["e", "f"]
    text.compact()
    text.pieces.append("g")
    assert text.since(place) == "efg"
    text.pieces.append("h")
    assert text.joined() == "abcdefgh"
    assert text.since(place) == "h"
    assert text.since(late) == "abcdefgh"
    assert (place.chars, late.chars) == (8, 8)
    text.pieces += ["ij"]
    text.compact()
    assert [text.since(place), text.since(place), text.since(late)] == ["ij", "", "ij"]


@given(st.lists(st.sampled_from(["a", "bc", "def", "compact", "join", "read"]), max_size=40))
def test_any_reader_gets_each_character_once(steps):
    text, place, given_out, all_of = Joined(), Place(), "", ""
    for step in steps:
        if step == "compact":
            text.compact()
        elif step == "join":
            assert text.joined() == all_of
        elif step == "read":
            given_out += text.since(place)
            assert given_out == all_of
        else:
            text.pieces.append(step)
            all_of += step
    assert given_out + text.since(place) == all_of


def test_the_choices_that_parts_of_the_first_may_come_in():
    for asked, followed in (1, [0, 1]), (2, [0]):
        machine = Ingest(model="m", expect_usage=True, choices=asked)
        machine.ingest(StreamChunk("a"))
        assert [one.index for one in machine.followed()] == [0]
        machine.ingest(StreamChunk(choice=1, tool_calls=(ToolCallDelta(0, "c", "f", "{}"),)))
        assert [one.index for one in machine.followed()] == followed
        assert machine.first_choice().index == 0


def test_a_reason_for_which_a_turn_is_to_be_continued():
    assert pauses("pause_turn")
    assert not any(map(pauses, ("stop", "end_turn", "tool_use", None)))


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        (None, "stop"),
        ("STOP", "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("length", "length"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("refusal", "content_filter"),
        ("content_filter", "content_filter"),
    ],
)
def test_reasons_in_the_words_of_chat(reason, word):
    assert in_chat_words(reason) == word
