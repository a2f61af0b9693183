"""The table of states and events, cell by cell, and what chunks mean to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm import Outcome, StreamChunk, Usage
from trio_minillm._protocol.state import OUTCOMES, TABLE, Event, State, StreamState

FINAL = [State.FINISHED, State.TRUNCATED, State.ERRORED, State.CANCELLED]


def ending(expect_usage=True, choices=1):
    return StreamState(expect_usage=expect_usage, choices=choices)


def feed(machine, *chunks):
    for chunk in chunks:
        machine.chunk(chunk)
    return machine


text = StreamChunk.content("x")
stop = StreamChunk.finished("stop")
done = StreamChunk(end=True, progress=False)


def usage(**more):
    return StreamChunk(usage=Usage(uncached_input_tokens=1, completion_tokens=1), **more)


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


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (Event.ERROR, Outcome.ERRORED),
        (Event.CLOCK, Outcome.FINISHED),
        (Event.CLOSE, Outcome.FINISHED),
        (Event.CUT, Outcome.FINISHED),
        (Event.CANCEL, Outcome.CANCELLED),
        (Event.END, Outcome.FINISHED),
    ],
)
def test_events_when_only_the_usage_is_missing(event, outcome):
    machine = feed(ending(), text, stop)
    assert machine.state is State.ENDING
    machine.event(event)
    assert machine.outcome is outcome


def test_reason_and_usage_end_it_in_either_chunking():
    assert feed(ending(), text, stop, usage()).outcome is Outcome.FINISHED
    assert feed(ending(), text, usage(finish_reason="stop")).outcome is Outcome.FINISHED


def test_without_usage_expected_the_reason_ends_it():
    assert feed(ending(expect_usage=False), text, stop).outcome is Outcome.FINISHED


def test_the_end_marker_alone_is_evidence():
    assert feed(ending(), text, done).outcome is Outcome.FINISHED


def test_usage_from_before_the_reason_does_not_end_it():
    machine = feed(ending(), usage(delta="x"), text, stop)
    assert machine.state is State.ENDING


def test_content_after_the_reason_keeps_it_waiting():
    machine = feed(ending(), stop, text, stop)
    assert machine.state is State.ENDING


def test_every_choice_needs_its_reason():
    other = StreamChunk.finished("stop")
    other.choice = 1
    machine = feed(ending(choices=2, expect_usage=False), stop)
    assert machine.outcome is None
    assert feed(machine, other).outcome is Outcome.FINISHED


def test_a_choice_that_was_seen_needs_its_reason_though_it_was_not_asked_for():
    extra = StreamChunk("y", choice=1)
    machine = feed(ending(), text, extra, stop, usage(choice=1, delta="z"))
    assert machine.outcome is None


def test_running_usage_does_not_close_the_books_before_every_choice_has_ended():
    machine = feed(ending(choices=2), usage(finish_reason="stop"))
    assert machine.outcome is None
    assert feed(machine, usage(finish_reason="stop", choice=1)).outcome is Outcome.FINISHED


def test_usage_does_not_shut_out_a_choice_that_has_not_begun():
    machine = feed(ending(choices=2), text, stop, usage())
    assert (machine.state, machine.usage_final) == (State.ENDING, True)
    feed(machine, StreamChunk("y", choice=1), StreamChunk(finish_reason="stop", choice=1))
    assert (machine.state, machine.usage_final) == (State.ENDING, False)
    feed(machine, usage())
    assert (machine.outcome, machine.usage_final) == (Outcome.FINISHED, True)


def test_a_choice_that_never_comes_does_not_hold_up_a_whole_answer():
    machine = feed(ending(choices=2), text, stop, usage())
    machine.event(Event.CLOCK)
    assert (machine.outcome, machine.usage_final) == (Outcome.FINISHED, True)


@pytest.mark.parametrize(
    ("chunks", "final"),
    [
        ([text, stop, usage(), StreamChunk(), done], True),  # a sign of life is no content
        ([text, usage(), StreamChunk(), done], True),
        ([text, stop, usage()], True),
        ([text, usage(finish_reason="stop")], True),
        ([text, usage(), done], True),  # Snowflake: usage last, no reason
        ([usage(delta="x"), done], True),  # running usage on the last chunk
        ([usage(), text, done], False),  # Anthropic's provisional usage, and nothing since
        ([text, stop, done], False),
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
    progress=st.booleans(),
)


@given(
    st.lists(chunks | st.sampled_from(list(Event))),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([Event.CLOSE, Event.CUT, Event.CLOCK, Event.ERROR, Event.CANCEL, Event.END]),
)
def test_any_sequence_ends_in_one_outcome_and_never_goes_back(steps, expect_usage, choices, last):
    machine = ending(expect_usage, choices)
    order = [State.OPEN, State.ENDING]
    for step in [*steps, last]:
        before = machine.state
        if isinstance(step, Event):
            machine.event(step)
        else:
            machine.chunk(step)
        if before in FINAL:
            assert machine.state is before
        elif machine.state in order:
            assert order.index(machine.state) >= order.index(before)
    assert machine.over
    assert machine.outcome in set(Outcome)
