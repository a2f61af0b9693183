"""Tests of the windows by which a server counts: each rule of the model."""

from __future__ import annotations

import pytest

from trio_minillm._batch.throttle.window import AHEAD, ENOUGH, EXCEEDED, SPAN, Window


def used_up(*, refused_at: float = 8.0, sent_at: float = 12.0, accepted: int = 200) -> Window:
    """A window that was taken for one after a gap, in which everything was refused."""
    window = Window(0.0)
    window.refused(refused_at)
    assert window.next(sent_at, accepted, 0) == pytest.approx(accepted / 10.0)
    return window


def tried(window: Window, accepted: int) -> int:
    """The number of requests that may be sent while those are accepted."""
    window.tried(accepted)
    sent = 0
    while window.ready:
        window.ready -= 1
        sent += 1
        window.tried(accepted)
    return sent


def test_a_window_began_between_the_last_refusal_and_the_first_accepted_request() -> None:
    window = used_up()
    assert window.seconds == 10.0
    assert window.allowed == 200


def test_a_gap_after_few_requests_is_no_window() -> None:
    window = Window(0.0)
    window.refused(8.0)
    assert window.next(12.0, ENOUGH - 1, 0) is None
    assert window.seconds is None


def test_one_that_may_be_a_minute_is_a_minute_and_is_not_doubted() -> None:
    """The server accepts again 61 seconds after the first request, whenever it was last asked."""
    window = Window(0.0)
    window.refused(52.0)
    assert window.next(61.0, 1_500, 1_200) == pytest.approx(1_200 / SPAN)
    assert (window.seconds, window.allowed) == (SPAN, 1_200)
    assert not window.unsure
    assert not window.ready


def test_a_shorter_one_may_be_an_outage_and_as_many_are_sent_again_a_few_at_a_time() -> None:
    window = used_up()
    assert window.unsure
    assert window.ready == 200 * AHEAD
    assert tried(window, 400) == 200
    assert window.unsure


def test_if_they_are_accepted_another_window_may_have_begun_and_as_many_are_sent_again() -> None:
    window = used_up()
    tried(window, 400)
    assert tried(window, 200 + round(200 * EXCEEDED)) == 0
    assert tried(window, 201 + round(200 * EXCEEDED)) == 200
    assert tried(window, 202 + round(200 * EXCEEDED)) == 0


def test_it_is_disproved_once_more_is_accepted_than_two_allow() -> None:
    window = used_up()
    most = round(2 * 200 * EXCEEDED)
    assert not window.disproved(200 + most)
    assert window.disproved(200 + most + 1)


def test_a_refusal_proves_it() -> None:
    window = used_up()
    window.confirm()
    assert window.proven
    assert not window.ready
    assert not window.disproved(10_000)
    assert tried(window, 10_000) == 0


def test_the_second_puts_the_length_of_the_first_right() -> None:
    """The run began late in the first window, 20 seconds before it ended."""
    window = Window(0.0)
    window.refused(19.0)
    window.next(21.0, 1_200, 0)
    window.confirm()
    window.refused(79.0)
    assert window.next(81.0, 2_400, 0) == pytest.approx(1_200 / 60.0)
    assert window.seconds == 60.0


def test_several_that_have_ended_are_told_by_what_was_accepted() -> None:
    window = used_up()
    window.confirm()
    window.refused(59.0)
    assert window.is_new(60.5)
    assert window.next(60.5, 200 + 5 * 195, 0) is None
    assert window.seconds == pytest.approx((59.75 - 10.0) / 5)
    assert window.allowed == 200
    assert not window.is_new(61.0)


def test_a_refusal_long_before_it_is_used_up_is_no_end_of_one() -> None:
    window = used_up()
    window.confirm()
    window.refused(11.0)
    assert window.next(11.5, 220, 0) is None
    assert window.seconds == 10.0
    assert not window.is_new(12.0)
    window.refused(19.5)
    assert window.next(20.5, 400, 0) == pytest.approx(20.0)
