"""The table of states and events, cell by cell, and what chunks mean to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import Outcome, StreamChunk, Usage
from trio_minillm._protocol.state import OUTCOMES, TABLE, Event, State, StreamState
from trio_minillm._types.chunks import ToolCallDelta

FINAL = [State.FINISHED, State.TRUNCATED, State.ERRORED, State.CANCELLED]


def ending(expect_usage=True, choices=1):
    return StreamState(expect_usage=expect_usage, choices=choices)


def feed(machine, *chunks):
    for chunk in chunks:
        machine.chunk(chunk)
    return machine


def usage(**more):
    return StreamChunk(usage=Usage(uncached_input_tokens=1, completion_tokens=1), **more)


text = StreamChunk.content("x")
stop = StreamChunk.finished("stop")
done = StreamChunk(end=True, progress=False)
sentinel = StreamChunk(end=True, sentinel=True, progress=False)
opening = StreamChunk(progress=False)
beside = StreamChunk(progress=False, answer=False)


def test_the_table_has_every_cell():
    assert set(TABLE) == set(State)
    for row in TABLE.values():
        assert set(row) == set(Event)


@pytest.mark.parametrize("state", FINAL)
@pytest.mark.parametrize("event", Event)
def test_a_final_state_is_never_left(state, event):
    assert TABLE[state][event] is state


@pytest.mark.parametrize("state", State)
def test_an_outcome_stands_exactly_in_the_final_states(state):
    assert (OUTCOMES[state] is not None) == (state in FINAL)


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (Event.ERROR, Outcome.ERRORED),
        (Event.MALFORMED, Outcome.ERRORED),
        (Event.CLOCK, Outcome.ERRORED),
        (Event.CLOSE, Outcome.TRUNCATED),
        (Event.CUT, Outcome.TRUNCATED),
        (Event.CANCEL, Outcome.CANCELLED),
        (Event.END, Outcome.FINISHED),
    ],
)
def test_events_in_the_middle_of_an_answer(event, outcome):
    machine = feed(ending(), text)
    machine.event(event)
    assert machine.outcome is outcome


@pytest.mark.parametrize("usages", [[], [usage()]], ids=["usage missing", "usage in hand"])
@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (Event.ERROR, Outcome.ERRORED),
        (Event.MALFORMED, Outcome.FINISHED),
        (Event.CLOCK, Outcome.FINISHED),
        (Event.CLOSE, Outcome.FINISHED),
        (Event.CUT, Outcome.FINISHED),
        (Event.CANCEL, Outcome.CANCELLED),
        (Event.END, Outcome.FINISHED),
    ],
)
def test_events_behind_the_finish_reason(event, outcome, usages):
    machine = feed(ending(), text, stop, *usages)
    assert machine.state is (State.WHOLE if usages else State.ENDING)
    machine.event(event)
    assert machine.outcome is outcome


def test_reason_and_usage_make_it_whole_in_either_chunking():
    for chunks in ([text, stop, usage()], [text, usage(finish_reason="stop")]):
        machine = feed(ending(), *chunks)
        assert (machine.state, machine.usage_final) == (State.WHOLE, True)
        assert feed(machine, sentinel).outcome is Outcome.FINISHED
        assert machine.usage_final
        silent = feed(ending(), *chunks)
        assert silent.event(Event.CLOCK) is State.FINISHED
        assert silent.usage_final


def test_without_usage_expected_the_reason_makes_it_whole():
    assert feed(ending(expect_usage=False), text, stop).state is State.WHOLE


def test_the_wires_own_end_event_is_evidence():
    assert feed(ending(), text, done).outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("chunks", "finished"),
    [
        ([text, sentinel], False),
        ([opening, sentinel], False),
        ([text, stop, sentinel], True),
        ([text, usage(), sentinel], True),
        ([usage(delta="x"), sentinel], False),  # running usage, with every piece
        ([opening, usage(), sentinel], False),  # of what did not come
        ([opening, usage(delta="x"), usage(), sentinel], True),
        ([usage(), text, sentinel], False),  # it does not count what came after it
        ([text, StreamChunk(usage=Usage()), sentinel], False),  # nulls
        ([text, StreamChunk(usage=Usage(completion_tokens=0)), sentinel], False),  # of a text?
        ([StreamChunk(usage=Usage(completion_tokens=0)), sentinel], True),  # an empty answer
        ([opening, StreamChunk(usage=Usage(completion_tokens=0)), sentinel], True),  # empty
        ([usage(progress=False), sentinel], False),
        ([text, StreamChunk("y", choice=1), stop, sentinel], False),  # choice 1 has no reason
    ],
)
def test_a_sentinel_needs_a_reason_or_usage_before_it(chunks, finished):
    machine = feed(ending(), *chunks)
    assert machine.outcome is (Outcome.FINISHED if finished else None)
    machine.event(Event.CLOSE)
    assert machine.outcome is (Outcome.FINISHED if finished else Outcome.TRUNCATED)


@pytest.mark.parametrize("end", [done, sentinel])
@pytest.mark.parametrize("before", [[], [beside], [StreamChunk(answer=False)]])
def test_no_end_event_ends_what_was_never_an_answer(end, before):
    machine = feed(ending(), *before, end)
    assert (machine.outcome, machine.understood) == (None, False)


def test_usage_from_before_the_reason_does_not_make_it_whole():
    machine = feed(ending(), usage(delta="x"), text, stop)
    assert machine.state is State.ENDING


@pytest.mark.parametrize(
    "more",
    [
        text,
        StreamChunk(refusal="x"),
        StreamChunk(tool_calls=(ToolCallDelta(0, arguments="{"),)),
        StreamChunk(images=({"type": "image_url"},)),
        StreamChunk(audio={"data": "AAAA"}),
    ],
)
def test_content_behind_the_reason_disproves_it(more):
    for before in ([text, stop], [text, stop, usage()]):
        machine = feed(ending(), *before, more)
        assert (machine.state, machine.reopened) == (State.OPEN, True)
        assert machine.event(Event.CLOSE) is State.TRUNCATED
    machine = feed(ending(), text, stop, usage(), more)
    assert feed(machine, stop).state is State.ENDING, "the usage did not count it"
    assert feed(machine, usage()).state is State.WHOLE


@pytest.mark.parametrize(
    "more",
    [
        StreamChunk("\n"),
        StreamChunk(reasoning="x"),
        StreamChunk(audio={"expires_at": 7}),
        StreamChunk(tool_calls=(ToolCallDelta(0, "c1", "f"),)),
    ],
)
@pytest.mark.parametrize("end", [Event.CLOSE, Event.CUT, Event.CLOCK, sentinel])
def test_what_says_nothing_behind_the_reason_leaves_the_answer_whole(more, end):
    for before in ([text, stop], [text, stop, usage()]):
        machine = feed(ending(), *before, more)
        assert machine.outcome is None, "more may follow"
        feed(machine, end) if end is sentinel else machine.event(end)
        assert machine.outcome is Outcome.FINISHED
        machine = feed(ending(), *before, more, text)
        feed(machine, end) if end is sentinel else machine.event(end)
        assert machine.outcome is not Outcome.FINISHED


@pytest.mark.parametrize(
    "fact",
    [
        opening,
        beside,
        StreamChunk(metadata={"provider": "x"}, progress=False),
        StreamChunk(tool_calls=(ToolCallDelta(0),), progress=False),
        StreamChunk(reasoning_details=({"type": "reasoning.encrypted", "data": "AAAA"},)),
        StreamChunk(annotations=({"type": "a"},)),
    ],
)
def test_facts_behind_the_reason_do_not(fact):
    machine = feed(ending(), text, stop, usage(), fact)
    assert (machine.state, machine.reopened) == (State.WHOLE, False)


def test_a_reason_on_every_chunk_counts_with_the_last():
    chunks = [usage(delta="x", finish_reason="stop") for _ in range(3)]
    machine = feed(ending(), *chunks)
    assert (machine.state, machine.reopened) == (State.WHOLE, True)
    assert not machine.usage_final, "it may be running on"
    assert feed(machine, sentinel).outcome is Outcome.FINISHED
    assert machine.usage_final


def test_every_choice_needs_its_reason():
    other = StreamChunk.finished("stop")
    other.choice = 1
    machine = feed(ending(choices=2, expect_usage=False), stop)
    assert machine.state is State.OPEN
    assert feed(machine, other).state is State.WHOLE


def test_a_choice_that_was_seen_needs_its_reason_though_it_was_not_asked_for():
    extra = StreamChunk("y", choice=1)
    machine = feed(ending(), text, extra, stop, usage(choice=1, delta="z"))
    assert machine.state is State.OPEN
    assert feed(ending(), text, stop, extra).state is State.OPEN


def test_running_usage_does_not_close_the_books_before_every_choice_has_ended():
    machine = feed(ending(choices=2), usage(finish_reason="stop"))
    assert machine.state is State.ENDING
    assert feed(machine, usage(finish_reason="stop", choice=1)).state is State.WHOLE


def test_usage_does_not_shut_out_a_choice_that_has_not_begun():
    machine = feed(ending(choices=2), text, stop, usage())
    assert (machine.state, machine.usage_final) == (State.ENDING, True)
    feed(machine, StreamChunk("y", choice=1), StreamChunk(finish_reason="stop", choice=1))
    assert (machine.state, machine.usage_final) == (State.ENDING, False)
    feed(machine, usage())
    assert (machine.state, machine.usage_final) == (State.WHOLE, True)


def test_a_choice_that_never_comes_does_not_hold_up_a_whole_answer():
    machine = feed(ending(choices=2), text, stop, usage())
    machine.event(Event.CLOCK)
    assert (machine.outcome, machine.usage_final) == (Outcome.FINISHED, True)


@pytest.mark.parametrize(
    ("chunks", "final"),
    [
        ([text, stop, usage(), StreamChunk(), done], True),  # a sign of life is no content
        ([text, usage(), StreamChunk(), done], True),
        ([text, stop, usage(), sentinel], True),
        ([text, usage(finish_reason="stop"), sentinel], True),
        ([text, usage(), sentinel], True),  # Snowflake: usage last, no reason
        ([usage(delta="x"), usage(), sentinel], True),  # running usage before
        ([usage(), text, done], False),  # Anthropic's provisional usage, and nothing since
        ([text, stop, sentinel], False),
        (
            [text, StreamChunk(usage=Usage(completion_tokens=0), finish_reason="stop"), sentinel],
            False,
        ),
        ([text, StreamChunk(usage=Usage(completion_tokens=0), finish_reason="stop"), done], True),
    ],
)
def test_usage_is_final_when_nothing_was_generated_after_it(chunks, final):
    machine = feed(ending(), *chunks)
    assert machine.outcome is Outcome.FINISHED
    assert machine.usage_final is final


chunks = st.builds(
    StreamChunk,
    delta=st.sampled_from(["", "a"]),
    finish_reason=st.sampled_from([None, None, "stop", "length"]),
    usage=st.sampled_from([None, None, Usage(completion_tokens=1)]),
    choice=st.integers(0, 2),
    end=st.sampled_from([False, False, False, True]),
    sentinel=st.booleans(),
    progress=st.booleans(),
    answer=st.booleans(),
)


OF_CHUNKS = {Event.CONTENT, Event.MORE, Event.REASON, Event.WHOLE}
"""Events that only chunks make: told from outside, they contradict what the chunks have said."""


@given(
    st.lists(chunks | st.sampled_from([e for e in Event if e not in OF_CHUNKS])),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from(
        [Event.CLOSE, Event.CUT, Event.CLOCK, Event.ERROR, Event.MALFORMED, Event.CANCEL, Event.END]
    ),
)
def test_any_sequence_ends_in_one_outcome_and_never_goes_back(steps, expect_usage, choices, last):
    machine = ending(expect_usage, choices)
    for step in [*steps, last]:
        before = machine.state
        if isinstance(step, Event):
            machine.event(step)
        else:
            machine.chunk(step)
        if before in FINAL:
            assert machine.state is before
        elif machine.state is State.OPEN and before is not State.OPEN:
            assert isinstance(step, Event) or step.delta or step.choice, "only content re-opens it"
    assert machine.over
    assert machine.outcome in set(Outcome)


def test_a_choice_that_gives_its_reason_twice_is_one_choice():
    state = StreamState(expect_usage=True)
    state.chunk(StreamChunk("a", choice=1))
    for _ in range(2):
        state.chunk(StreamChunk(finish_reason="stop", choice=1))
    assert state.reasoned == {1}
