"""The times of open loops: exact, the same for the same seed, and distributed as they should be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._bench.arrivals import expected, offsets
from trio_minillm._bench.plan import Closed, Load, Open, Ramp, Trace
from trio_minillm._bench.trace import TraceError, read_trace

rates = st.floats(0.001, 1000)


def times(load: Load, count: int, seed: int = 0) -> list[float]:
    return list(islice(offsets(load, seed), count))


@given(rates, st.integers(0, 5))
def test_a_constant_rate_has_no_drift(rate: float, seed: int) -> None:
    found = times(Open(rate=rate), 10_001, seed)
    assert found[10_000] == 10_000 / rate
    assert found[0] == 0


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_random_times_depend_on_the_seed_alone(shape: float) -> None:
    slow, fast = Open(rate=1, burstiness=shape), Open(rate=8, burstiness=shape)
    assert times(slow, 50, seed=3) == times(slow, 50, seed=3)
    assert times(slow, 50, seed=3) != times(slow, 50, seed=4)
    assert [at / 8 for at in times(slow, 50)] == times(fast, 50)


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_gaps_have_the_distribution_of_the_burstiness(shape: float) -> None:
    gaps = np.diff([0, *times(Open(rate=50, burstiness=shape), 40_000)])
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(shape), rel=0.03)


def test_counts_of_a_poisson_process_vary_as_much_as_their_mean() -> None:
    """Also those of the first second: a process that began with an arrival would have one too many."""
    firsts = [
        sum(1 for _ in takewhile(lambda at: at < 1, offsets(Open(rate=5, burstiness=1.0), seed)))
        for seed in range(3_000)
    ]
    assert np.mean(firsts) == pytest.approx(5, rel=0.03)
    assert np.var(firsts) == pytest.approx(5, rel=0.08)


ramps = st.builds(
    Ramp,
    first=st.just(0.0) | rates,
    last=st.just(0.0) | rates,
    seconds=st.floats(0.1, 1000),
).filter(lambda ramp: ramp.first + ramp.last > 0)


@given(ramps, st.integers(0, 3_000))
def test_a_ramp_has_reached_its_cumulative_rate_at_each_arrival(ramp: Ramp, number: int) -> None:
    found = times(ramp, number + 1)
    if len(found) <= number:  # it went down to 0
        assert ramp.last == 0
        assert number > expected(ramp, ramp.seconds)
    else:
        assert expected(ramp, found[-1]) == pytest.approx(number, rel=1e-9, abs=1e-6)
        assert found == sorted(found)


def test_a_ramp_from_nothing() -> None:
    ramp = Ramp(first=0, last=10, seconds=20)
    assert times(ramp, 101)[::50] == pytest.approx([0, math.sqrt(200), 20])
    assert times(ramp, 121)[-1] == pytest.approx(22)


def test_the_counts_of_a_random_ramp_are_those_of_its_rate() -> None:
    """Each tenth of it has as many as its area; a draw at the momentary rate would lag behind."""
    ramp = Ramp(first=2, last=50, seconds=10, burstiness=1.0)
    edges = np.linspace(0, 10, 11)
    found = np.zeros(10)
    for seed in range(200):
        found += np.histogram(list(takewhile(lambda at: at < 10, offsets(ramp, seed))), edges)[0]
    means = 200 * np.diff([expected(ramp, edge) for edge in edges])
    assert np.abs(found - means).max() < 4.5 * np.sqrt(means.max())
    assert np.abs((found - means) / np.sqrt(means)).max() < 4


def test_a_trace_is_played_as_it_is() -> None:
    assert times(Trace(offsets=(0, 0.5, 7)), 10) == [0, 0.5, 7]
    with pytest.raises(TypeError):
        times(Closed(), 1)


TRACES = {
    "seconds": "10\n10.5\n\n12\n",
    "JSON lines": '{"timestamp": 0, "input_length": 9}\n{"timestamp": 500}\n{"timestamp": 2000}\n',
    "a column": "id,Timestamp,tokens\n1,3.5,9\n2,4,9\n3,5.5,9\n",
    "dates": "TIMESTAMP,ContextTokens\n2023-11-16 23:59:59.5000000,1\n2023-11-17 00:00:00,1\n"
    "2023-11-17 00:00:01.5,1\n",
}


@pytest.mark.parametrize("form", TRACES)
def test_forms_of_a_trace(form: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(TRACES[form])
    assert read_trace(path) == pytest.approx([0, 0.5, 2])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no requests"),
        ("1\nx\n", "line 2: neither a number"),
        ("2\n1\n", "line 2: earlier than the line before"),
        ("nan\n", "line 1: neither a number of seconds"),
        ("1\ninf\n", "line 2: neither a number of seconds"),
        ('{"timestamp": "nan"}\n', "line 1: not a JSON object with a number"),
        ('{"time": 1}\n', "line 1: not a JSON object"),
        ("{nonsense\n", "line 1: not a JSON object"),
        ("a,timestamp\n1\n", "line 2: neither a number"),
    ],
)
def test_what_is_no_trace(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(TraceError, match=why):
        read_trace(path)


def test_a_line_of_a_trace_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_minillm._bench.trace.MAX_LINE", 20)
    path = tmp_path / "trace"
    path.write_text("1\n" + "2" * 20)
    assert len(read_trace(path)) == 2
    path.write_text("1\n" + "2" * 21)
    with pytest.raises(TraceError, match="line 2: longer than 20 characters"):
        read_trace(path)


def test_a_trace_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(TraceError, match="not a text"):
        read_trace(path)


def every(load: Load, part: int, of: int, count: int) -> Iterator[float]:
    return islice(offsets(load, 1), part, count, of)


@given(st.integers(1, 7), st.integers(0, 60))
def test_parts_are_the_whole(processes: int, count: int) -> None:
    load = Open(rate=3, burstiness=1.0)
    parts = [every(load, part, processes, count) for part in range(processes)]
    assert sorted(at for part in parts for at in part) == times(load, count, 1)
