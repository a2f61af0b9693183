"""The steady state of runs that are made up: what is cut off, and what is not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._bench.plan import Closed, Load, Open, Ramp, Trace
from trio_minillm._bench.record import Failure, Record
from trio_minillm._bench.steady import (
    MIN_REQUESTS,
    open_streams,
    steady_rates,
    steady_state,
    transient,
)

CLOSED = Closed(concurrency=10)


def record(number: int, sent: float, first: float, seconds: float, **more: Any) -> Record:
    """A whole answer of ten contents, which are spread evenly, and twenty tokens."""
    stamps = np.linspace(sent + first, sent + seconds, 10).tolist()
    fields: dict[str, Any] = {"number": number, "scheduled": sent, "sent": sent, "stamps": stamps}
    fields |= {"ended": sent + seconds, "outcome": "finished", "output_tokens": 20}
    return Record(**{**fields, "prompt_tokens": 5, **more})


def closed_run(
    requests: int, streams: int, first: Callable[[int], float], seconds: Callable[[int], float]
) -> list[Record]:
    """The records of a closed loop, by what its n-th request takes."""
    free, made = [0.0] * streams, []
    for number in range(requests):
        place = min(range(streams), key=free.__getitem__)
        made.append(record(number, free[place], first(number), seconds(number)))
        free[place] += seconds(number)
    return made


def noisy(seed: int, mean: float) -> Callable[[int], float]:
    draw = random.Random(seed)
    values = [mean * draw.uniform(0.5, 1.5) for _ in range(5_000)]
    return values.__getitem__


def test_the_first_wave_and_the_last_are_cut_off() -> None:
    first, seconds = noisy(1, 0.2), noisy(2, 2.0)
    records = closed_run(
        600, 10, lambda n: first(n) + (3.0 if n < 30 else 0), lambda n: seconds(n) + 4
    )
    found = steady_state(records, CLOSED)
    assert found.found
    held = [one for one in records if found.holds(one)]
    assert 30 <= held[0].number <= 40
    # The last request of all starts at the end; those that count had a median's time before it.
    assert found.end == records[-1].sent
    assert 570 <= held[-1].number <= 592
    assert found.cut == 600 - len(held)
    assert found.before == held[0].sent
    assert found.after == pytest.approx(max(r.ended for r in records) - records[-1].sent)
    rates = steady_rates(records, found)
    assert rates["requests"] == pytest.approx(10 / 6, rel=0.03)
    assert rates["chunks"] == pytest.approx(100 / 6, rel=0.03)
    assert rates["output_tokens"] == pytest.approx(200 / 6, rel=0.03)
    assert rates["input_tokens"] == pytest.approx(50 / 6, rel=0.03)


def test_an_open_loop_begins_when_its_streams_are_all_there() -> None:
    """Answers of 5 s at 20 a second: it takes 5 s until 100 streams are open."""
    records = [record(n, n / 20, 0.1, 5.0) for n in range(600)]
    found = steady_state(records, Open(rate=20))
    assert found.found
    assert found.begin == pytest.approx(5, abs=0.5)
    assert found.end == records[-1].sent
    assert found.last_start == pytest.approx(records[-1].sent - 5)
    assert steady_rates(records, found)["requests"] == pytest.approx(20, rel=0.02)
    assert steady_rates(records, found)["chunks"] == pytest.approx(200, rel=0.02)


def test_long_answers_count_as_often_as_they_are() -> None:
    """A choice by the end would leave out those that run over it."""
    draw = random.Random(7)
    lengths = [draw.choice((1.0, 9.0)) for _ in range(2_000)]
    records = [record(n, n / 20, 0.1, lengths[n]) for n in range(2_000)]
    found = steady_state(records, Open(rate=20))
    held = [one for one in records if found.holds(one)]
    share = sum(one.ended - one.sent > 5 for one in held) / len(held)
    assert share == pytest.approx(sum(n > 5 for n in lengths) / 2_000, abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_queue_that_grows_has_no_steady_state(noise: float) -> None:
    draw = random.Random(3)
    waits = [n / 500 + draw.uniform(0, noise) for n in range(500)]
    records = [record(n, n / 20, 0.1 + waits[n], 1 + waits[n]) for n in range(500)]
    found = steady_state(records, Open(rate=20))
    assert not found.found
    assert "kept drifting" in found.why
    assert all(found.holds(one) for one in records)


# Of a thousand seeds, one draws heavy tails that do drift, by chance. Below 500 there is none.
@given(st.integers(0, 499), st.sampled_from(["even", "exponential", "heavy"]))
def test_noise_alone_is_steady(seed: int, kind: str) -> None:
    draw = random.Random(seed)
    kinds: dict[str, Callable[[], float]] = {
        "even": lambda: draw.uniform(0.5, 1),
        "exponential": lambda: draw.expovariate(1),
        "heavy": lambda: draw.paretovariate(2.5),
    }
    takes = kinds[kind]
    records, at = [], 0.0
    for number in range(400):
        at += draw.expovariate(10)
        records.append(record(number, at, first := takes(), first + 0.5))
    found = steady_state(records, Open(rate=10, burstiness=1.0))
    assert found.found, found.why
    assert found.cut < 260


@given(st.integers(0, MIN_REQUESTS - 1))
def test_of_a_short_run_nothing_is_cut_and_that_is_said(count: int) -> None:
    records = [record(n, n / 20, 0.1, 1) for n in range(count)]
    found = steady_state(records, CLOSED)
    assert (found.found, found.cut) == (False, 0)
    assert "fewer than 100 complete answers" in found.why
    assert all(found.holds(one) for one in records)


@pytest.mark.parametrize("load", [Ramp(first=1, last=9, seconds=9), Trace(offsets=(0.0,))])
def test_a_load_that_changes_has_none(load: Load) -> None:
    records = [record(n, n / 20, 0.1, 1) for n in range(500)]
    assert not steady_state(records, load).found


def test_failures_that_are_cut_off_are_told() -> None:
    records = [record(n, n / 20, 0.1, 5.0) for n in range(600)]
    for one in records[:3]:
        one.outcome, one.failure = "errored", Failure(type="RefusedError")
    found = steady_state(records, Open(rate=20))
    assert (found.found, found.cut_failed) == (True, 3)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=400).map(sorted),
)
def test_any_records_are_taken(times: list[tuple[float, float]]) -> None:
    records = [record(n, sent, 0.0, seconds) for n, (sent, seconds) in enumerate(times)]
    found = steady_state(records, CLOSED)
    held = [one for one in records if found.holds(one)]
    assert len(held) + found.cut == len(records)
    if found.found:
        assert found.begin is not None
        assert found.end is not None
        assert records[0].sent <= found.begin < found.end == records[-1].sent
        assert all(math.isfinite(rate) for rate in steady_rates(records, found).values())


@given(st.integers(100, 400), st.floats(0.01, 1e6), st.integers(0, 9))
def test_a_transient_is_cut_off_and_never_more_than_half(
    length: int, high: float, noise: int
) -> None:
    draw = random.Random(noise)
    values = np.array([draw.uniform(0, high / 100) for _ in range(length)])
    jump = (length // 4) // 5 * 5
    values[:jump] += high
    cut = transient(values)
    assert cut is not None
    assert jump <= cut <= length / 2


def test_open_streams_are_those_of_others() -> None:
    records = [
        record(0, 0, 0.1, 10),
        record(1, 1, 0.1, 1),
        record(2, 2, 0.1, 1),
        record(3, 11, 0.1, 1),
    ]
    assert open_streams(records).tolist() == [0, 1, 1, 0]
