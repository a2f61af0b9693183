"""Figures: exact where they say so, and in bounded memory."""

from random import Random

import pytest

from trio_minillm._serve.measures import MAX_DISTINCT, NAMES, Measures, Times, prometheus


def nearest_rank(values: list[float], percent: int) -> float:
    return sorted(values)[max(1, -(-percent * len(values) // 100)) - 1]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 5_000])
def test_quantiles_are_exact_to_a_microsecond(count: int) -> None:
    random, times = Random(count), Times()
    values = [random.expovariate(5) for _ in range(count)]
    for value in values:
        times.add(value)
    shown = times.summary()
    assert shown["exact"]
    assert shown["count"] == count
    assert shown["mean"] == pytest.approx(sum(values) / count)
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert shown[name] == pytest.approx(nearest_rank(values, percent), abs=6e-7)
    assert shown["min"] == pytest.approx(min(values), abs=6e-7)
    assert shown["max"] == pytest.approx(max(values), abs=6e-7)


def test_many_different_times_are_kept_to_half_a_thousandth() -> None:
    random, times = Random(1), Times()
    values = [random.lognormvariate(0, 3) for _ in range(50_000)]
    for value in values:
        times.add(value)
    shown = times.summary()
    assert not shown["exact"]
    assert shown["count"] == 50_000
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert shown[name] == pytest.approx(nearest_rank(values, percent), rel=6e-4)
    assert len(times._counts) == MAX_DISTINCT
    assert len(times._buckets) < 40_000
    assert times.buckets()[-1] == pytest.approx(sum(v <= 60 for v in values), abs=5)


def test_nothing_at_all_is_0_behind_many_different_times_too() -> None:
    times = Times()
    for place in range(MAX_DISTINCT):
        times.add(1 + place / 1000)
    for _ in range(2):
        times.add(0.0)
    shown = times.summary()
    assert (shown["count"], shown["min"], shown["exact"]) == (MAX_DISTINCT + 2, 0.0, True)


def test_nothing_is_null_and_what_is_early_counts_as_in_time() -> None:
    times = Times()
    assert times.summary()["p50"] is None
    times.add(-1e-9)
    assert (times.summary()["p50"], times.total) == (0.0, 0.0)


def test_prometheus_reads_it() -> None:
    measures = Measures(0.0)
    measures.requests["openai", "whole"] += 2
    for value in (0.003, 0.02, 0.5):
        measures.ttft.add(value)
    text = prometheus(measures, {"running": ("Requests.", 3)})
    assert text.endswith("\n")
    lines = text.splitlines()
    assert 'trio_minillm_serve_requests_total{wire="openai",ended="whole"} 2' in lines
    assert "trio_minillm_serve_running 3" in lines
    assert 'trio_minillm_serve_ttft_seconds_bucket{le="0.005"} 1' in lines
    assert 'trio_minillm_serve_ttft_seconds_bucket{le="0.5"} 3' in lines
    assert 'trio_minillm_serve_ttft_seconds_bucket{le="+Inf"} 3' in lines
    assert 'trio_minillm_serve_ttft_quantile_seconds{quantile="0.5"} 0.02' in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len({*families})
    assert {f"trio_minillm_serve_{name}_seconds" for name in NAMES} <= {*families}
    for line in lines:
        assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0
