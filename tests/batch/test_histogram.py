"""Percentiles in bounded memory: exact for few values, within 1 % for many."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._batch.histogram import ERROR, EXACT, LEAST, Histogram

times = st.lists(st.floats(0, 1e5), min_size=1, max_size=200)
percents = st.integers(0, 100)


def naive(values: list[float], percent: int) -> float:
    """The smallest value that at least so many percent of them are not above."""
    return min(v for v in values if 100 * sum(w <= v for w in values) >= percent * len(values))


def made(values: list[float]) -> Histogram:
    found = Histogram()
    for value in values:
        found.add(value)
    return found


@given(times, percents)
def test_percentiles_are_the_nearest_rank(values: list[float], percent: int) -> None:
    found = made(values)
    assert found.percentiles(percent) == [naive(values, percent)]
    assert (found.least, found.most, found.count) == (min(values), max(values), len(values))


@given(times, percents, percents)
def test_percentiles_out_of_buckets_are_near(values: list[float], one: int, other: int) -> None:
    found = made(values)
    found._in_buckets()
    low, high = sorted([one, other])
    for percent, guess in zip((low, high), found.percentiles(low, high), strict=True):
        assert guess is not None
        exact = naive(values, percent)
        assert abs(guess - exact) <= max(LEAST, ERROR * exact)
        assert found.least <= guess <= found.most
    assert not found.exact


@given(st.lists(st.lists(st.floats(0, 1e5), max_size=50), max_size=6), st.booleans(), percents)
def test_merging_is_counting_all(parts: list[list[float]], spill: bool, percent: int) -> None:
    whole = Histogram()
    for number, part in enumerate(parts):
        piece = made(part)
        if spill and number % 2:
            piece._in_buckets()
        whole.merge(piece)
        assert piece.count == len(part)
    values = [value for part in parts for value in part]
    assert whole.count == len(values)
    assert whole.total == pytest.approx(math.fsum(values))
    (found,) = whole.percentiles(percent)
    if not values:
        assert found is None
    else:
        assert found == pytest.approx(naive(values, percent), rel=ERROR, abs=1e-6)


@given(st.floats(0, 10), st.integers(0, 10))
def test_adding_many_at_once_is_adding_each(value: float, count: int) -> None:
    found = Histogram()
    found.add_times(value, count)
    assert found.percentiles(50, 99) == made([value] * count).percentiles(50, 99)
    assert found.count == count


def test_memory_is_bounded() -> None:
    found = Histogram()
    value = 1e-7
    for number in range(200_000):
        found.add(value)
        value = value * 1.01 if value < 1e7 else 1e-7
        if number == EXACT - 1:
            assert found.exact
    assert not found.exact
    assert len(found._values) <= EXACT
    assert len(found._in_buckets()) <= 1397
    assert found.count == 200_000
    summary = found.summary()
    assert summary["relative_error"] == ERROR
    assert summary["max"] == found.most > 1e6


def test_of_nothing_there_are_no_times() -> None:
    assert Histogram().percentiles(50, 99) == [None, None]
    assert Histogram().summary() == {
        "count": 0,
        "mean": None,
        "p50": None,
        "p90": None,
        "p99": None,
        "max": None,
        "relative_error": 0.0,
    }
