"""Tests of the summary of numbers, and of its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from trio_minillm._bench.figures.intervals import (
    MAX_GROUPS,
    MIN_REQUESTS,
    Resampling,
    groups_of,
    intervals_of,
)
from trio_minillm._bench.figures.spread import Spread, fields_of, spread_of

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def spread_with_intervals(values: np.ndarray, seed: int = 0) -> Spread:
    groups = groups_of(np.arange(values.size), values.size)
    return spread_of(values, resampling=Resampling(values.size, seed), groups=groups)


def test_a_percentile_is_a_value_that_was_observed() -> None:
    found = spread_of([float(value) for value in range(100, 0, -1)])
    assert found.percentiles == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 100}
    assert (found.count, found.mean, found.min, found.max) == (100, 50.5, 1, 100)
    assert found.std == pytest.approx(29.0115, abs=1e-4)
    assert [found.at(name) for name in ("p99", "mean")] == [99, 50.5]


def test_few_values() -> None:
    assert spread_of([]) == Spread(count=0)
    assert spread_of([float("nan")]) == Spread(count=0)
    one = spread_of([2.0])
    assert (one.count, one.mean, one.std, one.at("p50"), one.at("p999")) == (1, 2, None, 2, 2)


def test_a_value_with_a_weight_stands_for_so_many() -> None:
    values, weights = np.array([3.0, 1.0, 2.0, 9.0]), np.array([2.0, 5.0, 3.0, 0.0])
    assert spread_of(values, weights) == spread_of(np.repeat(values, weights.astype(int)))


def test_summaries_have_their_fields_in_json() -> None:
    fields = fields_of(spread_of([1.0, 2.0]))
    assert [*fields] == [
        *("count", "mean", "std", "min", "p50", "p90", "p95", "p99", "p999", "max"),
        *("intervals", "estimated", "relative_error"),
    ]


def test_few_requests_have_no_interval() -> None:
    values = np.arange(MIN_REQUESTS, dtype=float)
    assert not spread_with_intervals(values[:-1]).intervals
    assert [*spread_with_intervals(values).intervals] == ["mean", "p50"]


@pytest.mark.parametrize(
    ("count", "most"),
    [
        (35, "p50"),
        (36, "p90"),
        (71, "p90"),
        (72, "p95"),
        (367, "p95"),
        (368, "p99"),
        (3688, "p999"),
    ],
)
def test_a_percentile_has_an_interval_if_there_are_enough_values(count: int, most: str) -> None:
    """Check that its upper bound need not be the largest value."""
    names = ["mean", "p50", "p90", "p95", "p99", "p999"]
    found = spread_with_intervals(np.random.default_rng(0).random(count))
    assert [*found.intervals] == names[: names.index(most) + 1]


def test_the_same_seed_gives_the_same_intervals() -> None:
    values = np.random.default_rng(0).random(500)
    assert spread_with_intervals(values) == spread_with_intervals(values)
    assert spread_with_intervals(values).intervals != spread_with_intervals(values, 1).intervals


@pytest.mark.parametrize("count", [100, 1000, 5000])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int) -> None:
    """Check on exponential times, whose mean and percentiles are known: 95 % of the intervals, by more
    or less what 200 runs allow."""
    draw = np.random.default_rng(1)
    truth = {"mean": 1.0, "p50": np.log(2), "p90": np.log(10)}
    hits = dict.fromkeys(truth, 0)
    for seed in range(200):
        found = spread_with_intervals(draw.exponential(size=count), seed).intervals
        for name, value in truth.items():
            low, high = found[name]
            hits[name] += bool(low <= value <= high)
    assert all(178 <= hit <= 199 for hit in hits.values()), hits


def test_values_of_a_request_are_drawn_together() -> None:
    """Check that 40 answers of 100 equal gaps each tell no more than 40 gaps do."""
    each = np.random.default_rng(2).exponential(size=40)
    resampling, owners = Resampling(40), np.arange(40)
    order = np.argsort(each)
    one = intervals_of(each[order], np.ones(40), owners[order], SHARES, resampling)
    values, many = np.repeat(each, 100), np.repeat(owners, 100)
    order = np.argsort(values, kind="stable")
    all_of = intervals_of(values[order], np.ones(4000), many[order], SHARES, resampling)
    assert all_of["mean"] == pytest.approx(one["mean"])
    assert all_of["p50"] == pytest.approx(one["p50"], rel=0.05)


def test_a_run_of_many_values_is_worked_up_in_bins() -> None:
    """Check that the bins, narrow about each percentile, leave the intervals what they are."""
    values = np.sort(np.random.default_rng(3).exponential(size=50_000))
    groups = groups_of(np.random.default_rng(4).permutation(50_000), 50_000)
    found = intervals_of(values, np.ones(50_000), groups, SHARES, Resampling(50_000))
    for name, share in SHARES.items():
        error = np.sqrt(share / (1 - share) / 50_000)
        low, high = found[name]
        assert low < np.quantile(values, share) < high
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.35)


def test_requests_are_dealt_out_without_a_pattern() -> None:
    groups = groups_of(np.arange(40_000), 40_000)
    sizes = np.bincount(groups, minlength=MAX_GROUPS)
    assert sizes.size == MAX_GROUPS
    assert 50 < sizes.min() < sizes.max() < 160
    of_one_prompt = groups_of(np.arange(0, 40_000, MAX_GROUPS), 40_000)
    assert np.unique(of_one_prompt).size > 80  # not all in one group
    assert groups_of(np.arange(5), 5).tolist() == [0, 1, 2, 3, 4]
