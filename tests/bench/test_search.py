"""The search for the highest load, against servers whose knee is known: no clock, no network."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._bench.search import (
    MAX_AGAIN,
    MAX_HALVINGS,
    MAX_TRIALS,
    Search,
    share_interval,
)


def searched(search: Search, share_at: dict[str, float], requests: int, seed: int) -> Search:
    """Search on a server that serves well up to about its knee: of each request it is a draw."""
    draw, steep = random.Random(seed), share_at["steep"]
    while search.value is not None:
        beyond = math.log(search.value / share_at["knee"]) * steep
        # At the knee it is exactly the wanted share.
        odds = math.log(search.share / (1 - search.share)) - beyond
        share = 1 / (1 + math.exp(-odds)) if odds > -500 else 0.0
        search.tell(sum(draw.random() < share for _ in range(requests)), requests)
    return search


@given(
    st.floats(0.3, 3_000),
    st.floats(0.5, 300),
    st.sampled_from([0.9, 0.95, 0.99]),
    st.integers(0, 10_000),
)
def test_it_finds_the_knee_of_a_noisy_server_within_its_precision(
    knee: float, first: float, share: float, seed: int
) -> None:
    search = Search(over="rate", share=share, first=first, precision=0.05)
    searched(search, {"knee": knee, "steep": 60.0}, 500, seed)
    assert len(search.trials) <= MAX_TRIALS
    if search.met is None:
        assert knee < first / 2**MAX_HALVINGS * 1.1
        return
    assert search.failed is not None
    assert search.met < search.failed <= search.met * 1.05
    assert knee / 1.05 / 1.03 <= search.met <= knee * 1.03
    assert search.why == ""


@given(st.integers(1, 2_000), st.integers(1, 300))
def test_it_finds_the_last_concurrency_that_is_served(knee: int, first: int) -> None:
    search = Search(over="concurrency", share=0.99, first=first, precision=0.001)
    while search.value is not None:
        assert search.value == int(search.value) >= 1
        search.tell(1_000 if search.value <= knee else 0, 1_000)
    assert search.met == knee
    assert search.failed == knee + 1 or knee > 1_000


def test_a_server_that_meets_nothing() -> None:
    search = Search(over="concurrency", share=0.99, first=64, precision=0.05)
    while search.value is not None:
        search.tell(0, 100)
    assert (search.met, search.failed) == (None, 1)
    assert search.fields()["load"] is None
    search = Search(over="rate", share=0.99, first=8, precision=0.05)
    while search.value is not None:
        search.tell(0, 100)
    assert search.failed == 8 / 2**MAX_HALVINGS


def test_a_server_that_refuses_everything_is_not_asked_on() -> None:
    search = Search(over="rate", share=0.99, first=8, precision=0.05)
    while search.value is not None:
        search.tell(0, 100, hopeless=True)
    assert search.why == "all requests failed"
    assert len(search.trials) == 3


def test_an_uncertain_verdict_at_the_knee_is_measured_again_and_taken_together() -> None:
    search = Search(over="rate", share=0.9, first=10, precision=0.05)
    search.tell(100, 100)
    assert search.value == 20
    search.tell(88, 100)  # its interval holds 90 %
    assert search.value == 20
    search.tell(20, 100)
    assert search.value == pytest.approx(math.sqrt(200))
    assert (search.trials[20].runs, search.trials[20].total) == (2, 200)
    assert search.trials[20].certain
    while search.value is not None:
        search.tell(90, 100)  # never certain
    assert max(trial.runs for trial in search.trials.values()) == MAX_AGAIN + 1


def test_a_pass_by_luck_while_the_load_was_doubled_is_found_out() -> None:
    search = Search(over="rate", share=0.9, first=10, precision=0.05)
    search.tell(91, 100)
    search.tell(0, 100)
    while search.value is not None and search.value != 10:
        search.tell(0, 100)
    assert search.value == 10
    search.tell(80, 100)
    assert search.value == 5
    assert search.met is None


def test_a_load_that_this_program_can_not_offer_is_no_verdict_on_the_server() -> None:
    search = Search(over="rate", share=0.9, first=10, precision=0.05)
    while search.value is not None:
        search.tell(1_000, 1_000, offered=search.value <= 100)
    assert search.met is not None
    assert 95 < search.met <= 100
    assert "can't start requests any faster" in search.why
    assert search.fields()["incomplete"] == search.why


def test_a_machine_that_was_busy_for_once_is_asked_again() -> None:
    search = Search(over="rate", share=0.9, first=10, precision=0.05)
    search.tell(1_000, 1_000, offered=False)
    assert search.value == 10
    search.tell(1_000, 1_000)
    assert search.value == 20


def test_it_never_goes_on_for_ever() -> None:
    search = Search(over="rate", share=0.9, first=1, precision=0.05)
    asked = 0
    while search.value is not None:
        search.tell(1_000, 1_000)
        asked += 1
    assert asked == MAX_TRIALS
    assert "gave up after 60 measurements" in search.why


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share(good: int, more: int) -> None:
    low, high = share_interval(good, good + more)
    assert 0 <= low <= good / (good + more) <= high <= 1
    assert share_interval(0, 0) == (0, 1)
    assert share_interval(0, 135)[0] == 0, "not a last digit above it"
