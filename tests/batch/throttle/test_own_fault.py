"""Tests of failures that are a request's own fault."""

from __future__ import annotations

import pytest

from trio_minillm._batch.throttle.own_fault import (
    CERTAIN,
    LEAST_ROW,
    SERVING_SECONDS,
    SUSPECT,
    OwnFaults,
    Ticket,
    followed,
)


def lane_with(refused: float, answers: int = 400) -> OwnFaults:
    """A lane in which such a share of requests fails."""
    faults, due = OwnFaults(), 0.0
    for number in range(answers):
        due += refused
        if due >= 1.0:
            due -= 1.0
            faults.failed(Ticket(number, number, 0.0, 0.0))
        else:
            faults.accepted(number, number)
    return faults


@pytest.mark.parametrize(
    ("share", "suspect", "certain"), [(0.0, 3, 6), (0.05, 4, 9), (0.2, 6, 15), (0.5, 11, 32)]
)
def test_failures_of_one_request_are_suspect_as_they_are_unlikely(
    share: float, suspect: int, certain: int
) -> None:
    faults, ticket, found = lane_with(share), None, []
    for number in range(1_000, 1_040):
        ticket = followed(Ticket(number, number, 0.0, 0.0), ticket)
        found.append(faults.failed(ticket))
        faults.accepted(number + 0.5, number + 0.5)
        if share and not number % 2:  # the others go on failing as before
            for _ in range(round(20 * share)):
                faults.failed(Ticket(number, number, 0.0, 0.0))
            for _ in range(round(20 * (1 - share))):
                faults.accepted(number + 0.5, number + 0.5)
        if ticket.odds >= CERTAIN:
            break
    assert ticket is not None
    assert abs(found.index(True) + 1 - suspect) <= 1
    assert abs(len(found) - certain) <= 3


def test_a_server_that_fails_everything_makes_nothing_suspect() -> None:
    faults, ticket = lane_with(0.0), None
    for number in range(1_000, 1_100):
        ticket = followed(Ticket(number, number, 0.0, 0.0), ticket)
        assert not faults.failed(ticket)
    assert ticket is not None
    assert ticket.odds < SUSPECT


def test_a_server_serves_for_a_moment_after_an_accepted_request() -> None:
    faults = OwnFaults()
    assert not faults.serving(0.0)
    faults.accepted(1.0, 0.5)
    assert faults.serving(1.0 + SERVING_SECONDS)
    assert not faults.serving(1.1 + SERVING_SECONDS)


def test_a_server_that_fails_nearly_all_is_not_well_though_it_serves_some() -> None:
    faults = OwnFaults()
    faults.accepted(1.0, 0.0)
    assert faults.well(1.0)
    for number in range(300):
        if number % 10:
            faults.failed(Ticket(0.0, number, 0.0, 0.0))
        else:
            faults.accepted(2.0, 0.0)
    assert faults.serving(2.0)
    assert not faults.well(2.0)


def test_failures_in_a_row_are_no_chance_by_the_share_before_them() -> None:
    faults = OwnFaults()
    assert faults.patience == LEAST_ROW
    for number in range(100):
        if number % 2:
            faults.failed(Ticket(0.0, number, 0.0, 0.0))
        else:
            faults.accepted(1.0, 0.0)
    before = faults.patience
    assert before > 2 * LEAST_ROW
    for number in range(100):
        faults.failed(Ticket(0.0, number, 0.0, 0.0))
    assert faults.patience == before
