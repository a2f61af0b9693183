"""Tests of a limit on the number at once: each line of its table."""

from __future__ import annotations

import itertools

from trio_minillm._batch.throttle.at_once import REST, SURE, TRIALS, AtOnce

NUMBERS = itertools.count(1)


def accept(at_once: AtOnce, others: int, times: int = 1, now: float = 1.0) -> None:
    for _ in range(times):
        number = next(NUMBERS)
        at_once.sent(number, others)
        at_once.accepted(number, now, others)
        at_once.ended(number)


def kept(limit: int) -> AtOnce:
    """A number that is kept to."""
    at_once = AtOnce()
    for _ in range(SURE):
        assert at_once.limit is None
        assert not at_once.full(10_000)
        accept(at_once, limit - 1, 50)
        at_once.refused(0.5, limit)
    assert at_once.limit == limit
    return at_once


def test_refusals_beside_more_than_any_accepted_request_had_are_for_the_number() -> None:
    at_once = kept(10)
    assert [at_once.full(n) for n in (9, 10, 11)] == [False, True, True]


def test_refusals_beside_as_many_as_others_had_are_not() -> None:
    at_once = AtOnce()
    for _ in range(20):
        for others in range(7, 13):
            accept(at_once, others, 20)
        at_once.refused(0.5, 11)
    assert at_once.limit is None


def test_one_that_speaks_for_the_rate_takes_back_one_that_speaks_for_the_number() -> None:
    at_once = AtOnce()
    for others in (10, 5, 10, 5, 10, 5):
        accept(at_once, 9, 50)
        at_once.refused(0.5, others)
        assert at_once.limit is None


def test_few_accepted_requests_tell_nothing() -> None:
    at_once = AtOnce()
    for _ in range(10 * SURE):
        accept(at_once, 9)
        at_once.refused(0.5, 10)
        at_once.refused(0.5, 11)
        if at_once.limit is not None:
            break
        accept(at_once, 11)
    assert at_once.limit is None


def test_those_sent_before_a_refusal_came_are_not_counted() -> None:
    """The refused one was beside them, but not under way at the server."""
    at_once = AtOnce()
    for second in range(SURE):
        accept(at_once, 12, 50, now=second - 0.1)
        accept(at_once, 9, 50, now=second + 0.5)
        at_once.refused(second + 1.0, 10)
    assert at_once.limit is None  # the first refusal had twelve others before it that do count
    accept(at_once, 9, 50, now=SURE + 0.5)
    at_once.refused(SURE + 1.0, 10)
    assert at_once.limit == 10


def test_one_more_is_tried_at_a_time_and_kept_after_some_in_a_row() -> None:
    at_once = kept(10)
    accept(at_once, 9, REST)
    for _ in range(TRIALS):
        assert at_once.limit == 10
        assert not at_once.full(10)
        number = next(NUMBERS)
        at_once.sent(number, 10)
        assert at_once.full(10)
        at_once.accepted(number, 1.0, 10)
        at_once.ended(number)
    assert at_once.limit == 11


def one_more(at_once: AtOnce) -> int:
    """Send a request beside as many as are allowed, once it is time to try that."""
    accept(at_once, 9, REST)
    number = next(NUMBERS)
    at_once.sent(number, 10)
    return number


def test_a_refused_trial_leaves_the_number_and_the_rest_begins_anew() -> None:
    at_once = kept(10)
    for _ in range(5):
        at_once.ended(one_more(at_once))
        at_once.refused(0.5, 10)
        assert at_once.limit == 10
        assert at_once.full(10)


def test_a_refusal_while_there_is_one_more_is_for_that_one() -> None:
    at_once = kept(10)
    for _ in range(5):
        number = one_more(at_once)
        at_once.accepted(number, 1.0, 10)  # by chance: an answer was on its way
        at_once.refused(0.5, 9)
        at_once.ended(number)
        assert at_once.limit == 10


def test_a_refusal_after_a_raise_takes_it_back() -> None:
    at_once = kept(10)
    accept(at_once, 9, REST)
    accept(at_once, 10, TRIALS)
    assert at_once.limit == 11
    at_once.refused(0.5, 10)
    assert at_once.limit == 10


def test_refusals_below_the_number_end_it() -> None:
    at_once = kept(10)
    for _ in range(SURE):
        assert at_once.limit == 10
        at_once.refused(0.5, 7)
    assert at_once.limit is None
