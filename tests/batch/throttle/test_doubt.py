"""Tests of the doubt whether refusals are a matter of rate: each line of its table, and the rules."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._batch.throttle.cut_pays import ENOUGH, FEW, LEAST
from trio_minillm._batch.throttle.doubt import (
    CHECK,
    CONTRADICTIONS,
    EARLY,
    EARLY_ABOVE,
    LONGEST_REST,
    REST,
    TRIAL,
    Doubt,
    State,
)
from trio_minillm._batch.throttle.learned_rate import LearnedRate


def answer(doubt: Doubt, refused: int, accepted: int) -> None:
    """Answer so many requests that were just sent, in an order by chance."""
    order = [True] * refused + [False] * accepted
    random.Random(1).shuffle(order)
    for one in order:
        if one:
            doubt.refused(1.0, 1.0)
        else:
            doubt.accepted(1.0)


def begun() -> Doubt:
    """A doubt that has seen one refusal, which is chance."""
    doubt = Doubt()
    doubt.refused(0.0, 0.0)
    assert doubt.seems_chance(0.0, 0)
    return doubt


def cut_at(refused: int, accepted: int) -> Doubt:
    """A doubt whose first cut is to be judged, after such a share of refusals."""
    doubt = begun()
    answer(doubt, refused - 1, accepted)
    doubt.cut(1.0, 0)
    assert doubt.state is State.CUT
    return doubt


# -- FREE ------------------------------------------------------------------------------------------


def test_a_few_refusals_are_chance() -> None:
    doubt = Doubt()
    for second in range(20):
        for _ in range(100):
            doubt.accepted(float(second))
        doubt.refused(float(second), float(second))
        assert doubt.seems_chance(float(second), 0)
    for _ in range(30):
        doubt.refused(21.0, 21.0)
    assert not doubt.seems_chance(21.0, 0)


def test_a_quarter_is_chance_until_enough_answers_have_come() -> None:
    doubt = begun()
    for number in range(1, 100):
        for _ in range(3):
            doubt.accepted(1.0)
        doubt.refused(1.0, 1.0)
        assert doubt.seems_chance(1.0, 0) is (4 * number + 1 < CHECK)


def test_what_turned_out_to_be_chance_is_looked_into_ever_less_often() -> None:
    doubt, seen = cut_at(10, 30), []
    for _ in range(3):
        doubt.raise_rate(1.0)
        doubt.free(1.0)
        answers = 0
        while doubt.seems_chance(1.0, 20):
            answer(doubt, 1, 3)
            answers += 4
        seen.append(answers)
        doubt.cut(1.0, 0)
    assert seen == [2 * CHECK, 4 * CHECK, 8 * CHECK]


@pytest.mark.parametrize(("pending", "few"), [(0, FEW + 1), (4, 13), (1_000, CHECK)])
def test_requests_without_an_answer_may_be_accepted(pending: int, few: int) -> None:
    """Refusals come sooner: of a hundred under way, the first ten to be refused tell little."""
    doubt = Doubt()
    waived = []
    for _ in range(CHECK + 1):
        doubt.refused(0.0, 0.0)
        waived.append(doubt.seems_chance(0.0, pending))
    assert waived.index(False) + 1 == few


def test_a_server_that_refuses_nearly_all_is_told_from_one_that_refuses_half() -> None:
    half, few, many = begun(), begun(), begun()
    answer(half, 50, 50)
    answer(few, 27, 3)
    answer(many, 90, 10)
    assert [doubt.mostly(0) for doubt in (half, few, many)] == [False, True, True]
    assert [doubt.mostly(100) for doubt in (half, few, many)] == [False, False, True]


# -- CUT -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refused", "accepted"), [(10, 190), (40, 160), (100, 100), (150, 50)])
def test_a_cut_pays_if_hardly_anything_is_refused_any_more(refused: int, accepted: int) -> None:
    doubt = cut_at(refused, accepted)
    answers = 0
    while doubt.verdict(0) is None:
        doubt.accepted(1.0)
        answers += 1
    assert doubt.verdict(0) is True
    assert answers <= ENOUGH


@pytest.mark.parametrize(("refused", "accepted"), [(10, 190), (40, 160), (100, 100), (150, 50)])
def test_a_cut_does_not_pay_if_the_share_stays(refused: int, accepted: int) -> None:
    doubt, chance = cut_at(refused, accepted), random.Random(3)
    for _ in range(2 * ENOUGH):
        if doubt.verdict(0) is not None:
            break
        if chance.random() < refused / (refused + accepted):
            doubt.refused(1.0, 1.0)
        else:
            doubt.accepted(1.0)
    assert doubt.verdict(0) is False


def test_refusals_of_what_was_sent_before_a_cut_don_t_speak_against_it() -> None:
    doubt = cut_at(20, 80)
    for _ in range(100):
        doubt.refused(1.0, 0.9)
    assert doubt.verdict(0) is None
    for _ in range(ENOUGH):
        doubt.accepted(1.0)
    assert doubt.verdict(0) is True


def test_refusals_don_t_outrun_the_answers_that_are_still_to_come() -> None:
    doubt = cut_at(50, 50)
    answer(doubt, 6, 4)
    assert doubt.verdict(20) is None
    assert doubt.verdict(0) is False


# -- RAISED ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "refused", "limits"),
    [(0.05, 9, False), (0.05, 11, True), (0.5, 16, False), (0.5, 18, True)],
)
def test_a_raised_rate_is_limited_if_the_share_is_what_a_limit_makes_of_it(
    share: float, refused: int, limits: bool
) -> None:
    """At four times the rate and no more accepted, of what was accepted before a quarter is."""
    doubt = cut_at(round(200 * share), round(200 * (1 - share)))
    doubt.raise_rate(1.0)
    answer(doubt, refused, TRIAL - refused - 1)
    assert doubt.verdict(0) is None
    doubt.accepted(1.0)
    assert doubt.verdict(0) is limits
    assert doubt.verdict(100) is (None if limits else False)


def test_one_that_failed_is_not_tried_again_at_once() -> None:
    doubt, now, rest = cut_at(20, 80), 0.0, REST
    for _ in range(10):
        doubt.raise_failed(now)
        assert doubt.state is State.LIMITED
        assert not doubt.may_raise(now + rest - 1)
        assert doubt.may_raise(now + rest)
        now, rest = now + rest, min(LONGEST_REST, 2 * rest)
    assert rest == LONGEST_REST


# -- LIMITED ---------------------------------------------------------------------------------------


def test_refusals_that_come_too_early_contradict_a_limit_and_others_take_them_back() -> None:
    doubt = begun()
    doubt.limit(0.0)
    doubt.accepted(1.0)
    for number in range(1, CONTRADICTIONS):
        assert not doubt.contradicted(EARLY - 1, 0.0, above=False)
        assert doubt.contested is (number > 1)
    assert not doubt.contradicted(EARLY, 0.0, above=False)
    assert not doubt.contradicted(EARLY - 1, 0.0, above=False)
    assert doubt.contradicted(EARLY - 1, 0.0, above=False)


def test_above_the_estimate_a_refusal_is_expected_unless_nearly_nothing_was_accepted() -> None:
    doubt = begun()
    doubt.limit(0.0)
    doubt.accepted(1.0)
    for _ in range(CONTRADICTIONS):
        assert not doubt.contradicted(EARLY_ABOVE, 0.0, above=True)
    found = [doubt.contradicted(EARLY_ABOVE - 1, 0.0, above=True) for _ in range(CONTRADICTIONS)]
    assert found[-1]


# -- patience --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "accepted", "patience"),
    [(1, 5, 5), (1, 30, 3), (10, 40, 5), (20, 20, 10), (60, 5, 2)],
)
def test_refusals_in_a_row_are_chance_as_the_share_goes(
    refused: int, accepted: int, patience: int
) -> None:
    doubt = begun()
    answer(doubt, refused - 1, accepted)
    assert doubt.patience == patience


def test_patience_is_short_at_a_limit_that_pays_and_endless_where_refusals_are_usual() -> None:
    doubt = cut_at(50, 50)
    assert doubt.patience == 10
    for _ in range(ENOUGH):
        doubt.accepted(1.0)
    doubt.limit(1.0)
    assert doubt.patience == 2
    doubt = cut_at(50, 50)
    doubt.raise_rate(1.0)
    doubt.free(1.0)
    assert doubt.patience == math.inf


def test_a_cut_behind_which_everything_is_refused_leaves_some_patience() -> None:
    doubt = cut_at(70, 30)
    for _ in range(LEAST):
        doubt.refused(1.0, 1.0)
    assert doubt.verdict(0) is False
    doubt.limit(1.0, pays=False)
    assert doubt.usual == 1.0
    assert 2 < doubt.patience < 100


# -- with the rate ---------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["ok", "429", "also", "wait", "long"]), max_size=400), st.booleans()
)
def test_any_order_of_answers_leaves_a_rate_that_can_be_used(events: list[str], told: bool) -> None:
    now, learned = 0.0, LearnedRate(0.0)
    for event in events:
        now += 0.01
        if event == "ok":
            learned.accepted(now, now - 0.005, 3)
        elif event == "429":
            learned.refused(now, 3, sent_at=now - 0.005, told=told)
        elif event == "also":
            learned.also_refused(now, now - 0.005)
        else:
            now += 1.0 if event == "wait" else 100.0
    assert 0.0 <= learned.wait(now) <= 121.0
    assert learned.wait(now + 121.0) == 0.0


def test_the_lowest_rate_is_a_little_more_than_one_a_minute() -> None:
    """Else each request would meet the same second of the server's minute, which others may use up."""
    learned = LearnedRate(0.0)
    for number in range(50):
        learned.refused(60.0 * number, told=True)
    assert learned.active
    assert 1.0 / 60.0 < learned.bucket.rate < 1.2 / 60.0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.7])
def test_chance_ends_without_a_limit_at_any_share(share: float) -> None:
    """At a hundred requests a second, whose refusals come sooner than their answers."""
    learned, chance, events = LearnedRate(0.0), random.Random(5), []
    free, now = 0, 0.0
    for step in range(12_000):
        now = step / 100.0
        events.sort()
        while events and events[0][0] <= now:
            at, sent_at, refused = events.pop(0)
            if refused:
                learned.refused(at, len(events), sent_at=sent_at)
            else:
                learned.accepted(at, sent_at, len(events))
        if learned.wait(now) == 0.0:
            if learned.active:
                learned.bucket.take(1.0, now)
            refused = chance.random() < share
            events.append((now + (0.01 if refused else 0.05), now, refused))
        free += step > 6_000 and not learned.active
    assert free > 0.7 * 6_000


def test_the_states_follow_each_other_as_the_table_says() -> None:
    learned, now = LearnedRate(0.0), itertools.count()
    doubt = learned.doubt
    for _ in range(2_000):  # a quarter is refused, whatever the rate
        at = next(now) / 100.0
        if random.Random(at).random() < 0.25:
            learned.refused(at, sent_at=at)
        else:
            learned.accepted(at, at)
        if doubt.state is State.CUT:
            break
    assert doubt.state is State.CUT
    assert learned.active
    assert not learned.settled
    while doubt.state is State.CUT:  # and nothing more, at a rate below
        at = next(now) / 100.0
        learned.accepted(at, at)
    assert doubt.state is State.LIMITED
    assert learned.settled
