"""Tests of the figures of a run: records in, values out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from trio_minillm._bench.figures import gaps as gaps_module
from trio_minillm._bench.figures.figures import LATENCIES, Figures, figures_of
from trio_minillm._bench.figures.gaps import Gaps, Together
from trio_minillm._bench.figures.notes import notes_of
from trio_minillm._bench.figures.objective import Objective, parse_limits
from trio_minillm._bench.figures.series import series_of
from trio_minillm._bench.figures.store import (
    MAX_FAILURES,
    MAX_REASONS,
    OTHER,
    Store,
    tokens_of,
)
from trio_minillm._bench.record import Failure, Record


def record_of(at: float = 0.0, **fields: Any) -> Record:
    """Return the record of a whole answer: sent 0.1 s late, contents 0.2, 0.3 and 0.6 s after that, the
    end at 0.7 s, 5 tokens.
    """
    usual: dict[str, Any] = {"number": 0, "scheduled": at - 0.1, "sent": at, "ended": at + 0.7}
    usual |= {"stamps": [at + 0.2, at + 0.3, at + 0.6], "first_text": at + 0.2}
    usual |= {"outcome": "finished", "reason": "stop", "output_tokens": 5, "prompt_tokens": 7}
    return Record(**{**usual, **fields})


def failed(at: float = 0.0, **fields: Any) -> Record:
    """Return the record of a request that failed after a second."""
    failure = Failure(**{"type": "ClockError", "clock": "first_chunk", "message": "m", **fields})
    return Record(number=0, scheduled=at, sent=at, ended=at + 1, outcome="errored", failure=failure)


def means(figures: Figures) -> dict[str, float]:
    """Return the means of the distributions that have values."""
    return {
        name: spread.mean for name, spread in figures.latency.items() if spread.mean is not None
    }


def test_every_distribution_of_one_answer() -> None:
    found = figures_of([record_of()])
    assert [*found.latency] == [*LATENCIES]
    assert means(found) == pytest.approx(
        {
            "ttft": 0.2,
            "ttft_text": 0.2,
            "itl": 0.2,
            "itl_token": 0.12,
            "itl_max": 0.3,
            "tpot": 0.12,
            "e2e": 0.6,
            "e2e_stream": 0.7,
            "ttft_scheduled": 0.3,
            "ttft_text_scheduled": 0.3,
            "e2e_scheduled": 0.7,
            "e2e_stream_scheduled": 0.8,
            "late": 0.1,
        }
    )
    assert found.window == pytest.approx(0.6)
    assert found.rates == pytest.approx(
        {
            "requests": 1 / 0.6,
            "chunks": 5.0,
            "output_tokens": 5 / 0.6,
            "input_tokens": 7 / 0.6,
            "output_tokens_per_user": 5 / 0.6,
            "decode_tokens_per_user": 1 / 0.12,
        }
    )


def test_only_whole_answers_have_times_chunks_and_tokens() -> None:
    cut = record_of(1.0, outcome="truncated", failure=Failure(type="TruncatedError"))
    found = figures_of([record_of(), cut, failed(2.0)])
    assert (found.sent, found.finished, found.chunks) == (3, 1, 3)
    assert found.outcomes == {"finished": 1, "truncated": 1, "errored": 1}
    assert all(spread.count <= 1 for name, spread in found.latency.items() if "itl" not in name)
    assert found.tokens is not None
    assert found.tokens["answers"] == 1
    assert [kind["type"] for kind in found.failures] == ["TruncatedError", "ClockError"]


def test_no_requests() -> None:
    found = figures_of([])
    assert (found.sent, found.window, found.tokens, found.series, found.cost) == (0, *[None] * 4)
    assert set(found.rates.values()) == {None}
    assert notes_of(found) == []


def test_a_connection_is_not_late() -> None:
    """Check that making it is part of the time until a request is out, and of nothing else."""
    found = means(figures_of([record_of(called=-0.04)]))
    names = ("late", "sending", "ttft", "ttft_scheduled")
    assert [found[name] for name in names] == pytest.approx([0.06, 0.04, 0.2, 0.3])


def test_reasoning_has_a_time_of_its_own() -> None:
    found = means(figures_of([record_of(first_reasoning=0.2, first_text=0.6)]))
    assert (found["ttft"], found["ttft_reasoning"], found["ttft_text"]) == (0.2, 0.2, 0.6)


# -- tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"counts": [4, 8, 12], "output_tokens": 12}, [4, 4, 4]),
        ({"counts": [1, 1, 5], "output_tokens": 5}, [1, 0, 4]),
        ({"output_tokens": 5}, [5 / 3, 5 / 3, 5 / 3]),
        (
            {"output_tokens": 25, "reasoning_tokens": 20},
            [20 + 5 / 3, 5 / 3, 5 / 3],
        ),  # it was not shown
        (
            {"output_tokens": 25, "reasoning_tokens": 20, "first_reasoning": 0.2},
            [25 / 3, 25 / 3, 25 / 3],
        ),
        ({"output_tokens": 5, "stamps": [0.2]}, [5]),
        ({"output_tokens": 0}, [0, 0, 0]),
        ({"output_tokens": None}, []),
        ({"stamps": []}, []),
    ],
)
def test_the_tokens_of_each_content(fields: dict[str, Any], tokens: list[float]) -> None:
    assert tokens_of(record_of(**fields)) == pytest.approx(tokens)


def test_a_gap_is_shared_by_the_tokens_of_its_content() -> None:
    """Check four tokens a content with running usage: each of their gaps is a quarter."""
    stamps = [0.2, 0.28, 0.36]
    found = figures_of([record_of(stamps=stamps, counts=[4, 8, 12], output_tokens=12)])
    by_token = found.latency["itl_token"]
    assert (by_token.count, by_token.estimated) == (8, False)
    assert by_token.mean == pytest.approx(0.02)
    assert found.latency["itl"].mean == pytest.approx(0.08)
    assert found.latency["tpot"].mean == pytest.approx(0.02)


def test_without_running_usage_it_is_an_estimate() -> None:
    exact = record_of(counts=[1, 2, 5])
    assert not figures_of([exact]).latency["itl_token"].estimated
    assert figures_of([exact, record_of()]).latency["itl_token"].estimated
    unknown = figures_of([record_of(output_tokens=None)])
    assert unknown.latency["itl_token"].count == 0


def test_a_content_without_a_token_adds_its_time_to_the_next() -> None:
    found = figures_of([record_of(counts=[1, 1, 5], output_tokens=5)])
    by_token = found.latency["itl_token"]
    assert by_token.count == 4
    assert by_token.mean == pytest.approx(0.4 / 4)


# -- bounds --------------------------------------------------------------------------------


def test_gaps_beyond_the_bound_are_counted_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    answers = [np.cumsum(draw.exponential(0.02, size=50)).tolist() for _ in range(400)]
    exact = figures_of([record_of(stamps=stamps) for stamps in answers])
    monkeypatch.setattr(gaps_module, "MAX_GAPS", 5_000)
    monkeypatch.setattr(gaps_module, "FLUSH", 500)
    counted = figures_of([record_of(stamps=stamps) for stamps in answers])
    for name in ("itl", "itl_token"):
        mine, theirs = counted.latency[name], exact.latency[name]
        assert mine.relative_error == gaps_module.ERROR
        assert mine.count == theirs.count
        assert mine.max == pytest.approx(theirs.max)
        assert mine.mean == pytest.approx(theirs.mean)
        assert mine.percentiles == pytest.approx(theirs.percentiles, rel=gaps_module.ERROR)
        assert mine.intervals["p50"] == pytest.approx(theirs.intervals["p50"], rel=0.02)
    assert exact.latency["itl"].relative_error == 0
    assert notes_of(counted)[-1] == "percentiles of more than 2,000,000 gaps are within 0.5%"


def test_no_gap_is_between_two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "FLUSH", 4)
    found = figures_of([record_of(float(at)) for at in range(10)])
    assert found.latency["itl"].count == 20
    assert found.latency["itl"].max == pytest.approx(0.3)


def test_ticks_grow_longer_in_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "MAX_TICKS", 4)
    gaps = Gaps()
    gaps.add([float(at) for at in range(10)], [2.0] * 10)
    begins, chunks, tokens = gaps.counted()
    assert begins.size <= 4
    assert (chunks.sum(), tokens.sum(), gaps.tick) == (10, 20, 3.2)


def test_the_kinds_of_failures_and_reasons_are_bounded() -> None:
    store = Store()
    for number in range(MAX_FAILURES + 9):
        store.add(failed(kind=f"k{number}"))
    for number in range(MAX_REASONS + 9):
        store.add(record_of(reason=f"r{number}"))
    found = figures_of(store)
    assert len(found.failures) == MAX_FAILURES + 1
    assert found.failures[0] == {
        **dict.fromkeys(("outcome", "kind", "status", "code", "clock")),
        "type": OTHER,
        "count": 9,
        "example": "",
    }
    assert len(found.reasons) == MAX_REASONS + 1
    assert found.reasons[OTHER] == 9


def test_the_order_of_records_does_not_matter() -> None:
    """Check what processes add one after the other, whose records overlap in time."""
    records = [record_of(at / 7) for at in range(50)]
    one, other = figures_of(records), figures_of(records[::-1])
    assert one.series == other.series
    assert one.rates == pytest.approx(other.rates)
    assert means(one) == pytest.approx(means(other))


# -- retries, cost, goodput ----------------------------------------------------------------


def test_attempts_of_a_model_behind_another_are_no_retries() -> None:
    found = figures_of([record_of(attempts=3), record_of(attempts=2, hedged=True)])
    assert found.retries == 2


def test_contents_of_one_read_are_counted() -> None:
    stamps = [0.2, 0.2, 0.2, 0.6], [0.2], [0.2, 0.4, 0.4, 0.6, 0.6]
    found = figures_of([record_of(stamps=[*each]) for each in stamps])
    assert found.chunks == 10
    assert found.together == Together(contents=4, answers=2, beginnings=1)
    assert figures_of([]).together == Together(contents=0, answers=0, beginnings=0)


def test_costs() -> None:
    found = figures_of([record_of(cost="0.0001"), record_of(cost="0.0003", output_tokens=15)])
    assert found.cost is not None
    assert Decimal(found.cost) == Decimal("0.0004")
    assert found.costs == {
        "per_million_output_tokens": pytest.approx(20),
        "per_good_answer": pytest.approx(0.0002),
    }
    assert set(figures_of([record_of(cost="1"), record_of()]).costs.values()) == {None}
    some = figures_of([record_of(cost="1"), record_of(cost="1", output_tokens=None)])
    assert some.costs == {"per_million_output_tokens": None, "per_good_answer": 1.0}


def test_goodput() -> None:
    objective = Objective(share=0.9, limits=parse_limits("ttft<0.25s"))
    slow = record_of(stamps=[0.3, 0.6], cost="1")
    failing = failed()
    failing.cost = "1"
    records = [record_of(cost="1"), slow, failing]
    found = figures_of(records, objective=objective)
    assert found.goodput is not None
    assert (found.goodput.good, found.goodput.limits) == (1, {"ttft": 0.25})
    assert found.goodput.share == pytest.approx(1 / 3)
    assert found.goodput.rate == pytest.approx(1 / 0.6)
    assert found.costs["per_good_answer"] == 3.0
    assert figures_of(records).goodput is None


# -- the course of a run -------------------------------------------------------------------


def test_the_course_of_a_run() -> None:
    found = figures_of([record_of(10.0), record_of(10.5), failed(11.0)]).series
    assert found is not None
    assert (found.width, found.began) == (1.0, 10.0)
    assert (found.started, found.ended, found.failed) == ([2, 1, 0], [1, 1, 0], [0, 0, 1])
    assert found.running == pytest.approx([0.7 + 0.5, 0.2 + 1.0, 0.0])
    assert found.chunks == [5, 1, 0]
    assert found.tokens == pytest.approx([25 / 3, 5 / 3, 0])
    assert found.ttft_p50[0] == pytest.approx(0.2)
    assert found.ttft_p99[1:] == [None, None]


def test_the_course_of_an_answer_that_ended_before_it_was_sent() -> None:
    """The clocks of a machine were set, or a file of records says so: it is one bin."""
    found = figures_of([record_of(10.0, stamps=[9.0], ended=9.5)]).series
    assert found is not None
    assert (found.started, found.ended) == ([1], [1])


@pytest.mark.parametrize(("seconds", "width"), [(599, 1), (600, 2), (3500, 10), (10**6, 1800)])
def test_long_runs_have_wide_bins(seconds: float, width: float) -> None:
    store = Store()
    store.add(record_of(0.0))
    store.add(record_of(seconds - 0.7))
    found = series_of(store)
    assert found is not None
    assert found.width == width
    assert len(found.started) <= 601
    assert sum(found.chunks) == 6


# -- notes ---------------------------------------------------------------------------------


def test_notes() -> None:
    records = [record_of(attempts=2), record_of(stamps=[]), record_of(output_tokens=None)]
    objective = Objective(share=1, limits={"tpot": 1.0})
    assert notes_of(figures_of(records, objective=objective)) == [
        "1 whole answer had no content",
        "1 whole answer came without usage: there were more tokens than these",
        "sent again: 1; times are from the first attempt on",
        "tpot of 1 whole answer is not known: not good",
        "p90, p95 and p99 of 3 answers are the largest value",
    ]
    assert notes_of(figures_of([record_of()] * 99)) == ["p99 of 99 answers is the largest value"]
    assert notes_of(figures_of([record_of()] * 100)) == []
