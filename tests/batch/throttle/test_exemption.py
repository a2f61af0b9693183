"""Tests of the doubt whether refusals are a matter of rate."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._batch.throttle.exemption import (
    CONTRADICTIONS,
    FEW,
    LONGEST_REST,
    REST,
    SURE_ANSWERS,
    TRIAL,
    VERY_FEW,
    Doubt,
    Exemption,
)
from trio_minillm._batch.throttle.learned_rate import LearnedRate


def answered(exemption: Exemption, refused: int, accepted: int) -> Exemption:
    order = [True] * refused + [False] * accepted
    random.Random(1).shuffle(order)
    for one in order:
        exemption.count(refused=one)
    return exemption


@pytest.mark.parametrize(
    ("share", "refused", "proven"),
    [
        (0.05, 4, True),
        (0.05, 6, False),
        (0.2, 17, True),
        (0.2, 19, False),
        (0.5, 22, True),
        (0.5, 24, False),
    ],
)
def test_an_exemption_is_proven_if_no_more_are_refused(
    share: float, refused: int, proven: bool
) -> None:
    exemption = answered(Exemption(share), refused, TRIAL - refused - 1)
    assert (exemption.proven, exemption.failed) == (False, False)
    exemption.count(refused=False)
    assert (exemption.proven, exemption.failed) == (proven, not proven)


def test_a_sudden_rise_ends_an_exemption_and_the_usual_share_does_not() -> None:
    exemption = answered(Exemption(0.2), 6, TRIAL - 6)
    answered(exemption, 100, 400)
    assert exemption.proven
    assert not exemption.failed
    answered(exemption, 60, 0)
    assert exemption.failed


@pytest.mark.parametrize(("share", "patience"), [(0.0, 2), (0.05, 4), (0.5, 14), (1.0, 88)])
def test_more_failures_in_a_row_are_chance_where_more_are_refused(
    share: float, patience: int
) -> None:
    assert Exemption(share).patience == patience


def test_a_few_refusals_are_chance() -> None:
    doubt = Doubt()
    for second in range(20):
        for _ in range(100):
            doubt.accepted(float(second))
        doubt.refused()
        assert doubt.seems_chance(float(second), 0)
    for _ in range(10):
        doubt.refused()
    assert not doubt.seems_chance(21.0, 0)


def test_a_quarter_is_chance_until_enough_answers_have_come() -> None:
    doubt = Doubt()
    doubt.refused()
    assert doubt.seems_chance(0.0, 0)
    for number in range(1, 100):
        for _ in range(3):
            doubt.accepted(1.0)
        doubt.refused()
        assert doubt.seems_chance(1.0, 0) is (4 * number + 1 < SURE_ANSWERS)


@pytest.mark.parametrize(("pending", "chance"), [(0, 5), (20, 10), (1_000, 10)])
def test_requests_without_an_answer_may_be_accepted_but_not_all_of_them(
    pending: int, chance: int
) -> None:
    doubt = Doubt()
    waived = []
    for _ in range(20):
        doubt.refused()
        waived.append(doubt.seems_chance(0.0, pending))
    assert waived.index(False) == chance


@pytest.mark.parametrize(
    ("refused", "accepted", "patience"),
    [(1, 5, 3), (1, 30, 3), (10, 40, 6), (20, 20, 14), (30, 5, 2)],
)
def test_refusals_in_a_row_are_chance_as_the_share_goes(
    refused: int, accepted: int, patience: int
) -> None:
    doubt = Doubt()
    doubt.seems_chance(0.0, 0)  # begins to count
    for _ in range(refused - 1):
        doubt.refused()
    for _ in range(accepted):
        doubt.accepted(1.0)
    assert doubt.patience == patience


def test_contradictions_begin_an_exemption_and_others_take_them_back() -> None:
    doubt = Doubt()
    for _ in range(FEW):
        doubt.accepted(0.0)
    for number in range(1, CONTRADICTIONS):
        assert doubt.contradicted(FEW - 1, 0.0, above=False) is (number > 1)
    assert doubt.exemption is None
    doubt.contradicted(FEW, 0.0, above=False)
    doubt.contradicted(FEW - 1, 0.0, above=False)
    assert doubt.exemption is None
    doubt.contradicted(FEW - 1, 0.0, above=False)
    assert doubt.exemption is not None


def test_above_the_estimate_a_refusal_is_expected_unless_nearly_nothing_was_accepted() -> None:
    doubt = Doubt()
    doubt.accepted(0.0)
    for _ in range(CONTRADICTIONS):
        assert not doubt.contradicted(VERY_FEW, 0.0, above=True)
    for _ in range(CONTRADICTIONS):
        doubt.contradicted(VERY_FEW - 1, 0.0, above=True)
    assert doubt.exemption is not None


def test_one_that_failed_is_not_tried_again_at_once() -> None:
    doubt, now, rest = Doubt(), 0.0, REST
    while rest < LONGEST_REST:
        doubt.end(now)
        doubt.accepted(now)
        for _ in range(CONTRADICTIONS + 1):
            doubt.contradicted(1, now + rest - 1, above=False)
        assert doubt.exemption is None
        now += rest
        doubt.contradicted(1, now, above=False)
        assert doubt.exemption is not None
        rest *= 2


@given(
    st.lists(st.sampled_from(["ok", "429", "also", "wait", "long"]), max_size=400), st.booleans()
)
def test_any_order_of_answers_leaves_a_rate_that_can_be_used(events: list[str], told: bool) -> None:
    now, learned = 0.0, LearnedRate(0.0)
    for event in events:
        now += 0.01
        if event == "ok":
            learned.accepted(now, now - 0.005)
        elif event == "429":
            learned.refused(now, told=told)
        elif event == "also":
            learned.also_refused()
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
