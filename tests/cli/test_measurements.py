"""The sums of a batch's answers, of which its summary is made."""

from __future__ import annotations

from typing import Any

import pytest

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.cli import _measurements as _measure
from trio_minillm.cli._measurements import Results, Sample

from ..support.command import KEY


def answer(**fields: Any) -> llm.CompletionResponse:
    usual: dict[str, Any] = {
        "outcome": llm.Outcome.FINISHED,
        "timings": llm.Timings(first_chunk=1.0, last_chunk=3.0, total=3.5, chunks=5),
        "usage": llm.Usage(uncached_input_tokens=10, completion_tokens=21, final=True),
    }
    return llm.CompletionResponse(**usual | fields)


def results_of(*samples: Sample) -> Results:
    results = Results("measured", KEY)
    results.first_sent = 10.0
    for sample in samples:
        results.add(sample)
    return results


def test_the_window_ends_with_the_last_content_of_a_whole_answer() -> None:
    cut = answer(outcome=llm.Outcome.TRUNCATED)
    results = results_of(
        Sample(response=answer(), last_at=15.0),
        Sample(response=answer(), last_at=14.0),
        Sample(response=cut, error=llm.EndedEarly("no end"), last_at=99.0),
        Sample(response=answer(outcome=llm.Outcome.CANCELLED), last_at=99.0),
    )
    assert results.window == 5.0
    assert (results.rate(results.chunks), results.tokens_rate) == (2.0, 42 / 5)
    assert (results.sent, results.finished, results.failed) == (4, 2, 1)
    assert results.latencies.per_token.percentiles(50) == [pytest.approx(2.0 / (21 * 4 / 5))]


def test_hidden_reasoning_is_not_between_the_first_and_the_last_content() -> None:
    usage = llm.Usage(completion_tokens=21, reasoning_tokens=16, final=True)
    shown = llm.Choice(reasoning="hm")
    hidden = results_of(Sample(response=answer(usage=usage), last_at=15.0))
    visible = results_of(Sample(response=answer(usage=usage, choices=(shown,)), last_at=15.0))
    assert hidden.latencies.per_token.percentiles(50) == [2.0 / (5 * 4 / 5)]
    assert visible.latencies.per_token.percentiles(50) == [pytest.approx(2.0 / (21 * 4 / 5))]
    assert hidden.tokens.sums["completion_tokens"] == 21
    assert "(16 of them reasoning)" in dict(hidden.rows())["tokens"]


def test_an_answer_that_came_at_once_has_no_time_between_its_tokens() -> None:
    whole = llm.Timings(first_chunk=1.0, last_chunk=1.0, total=1.5, chunks=1)
    assert (
        results_of(Sample(response=answer(timings=whole), last_at=15.0)).latencies.per_token.count
        == 0
    )


def test_usage_that_is_not_final_counts_no_tokens() -> None:
    running = llm.Usage(completion_tokens=4)
    results = results_of(
        Sample(response=answer(usage=running), last_at=15.0),
        Sample(response=answer(), last_at=15.0),
    )
    assert (results.tokens.answers, results.tokens.sums["completion_tokens"]) == (1, 21)
    assert "1 complete answer reported no usage; their tokens are not counted" in results.notes()


def test_what_was_not_sent_is_not_counted() -> None:
    unsent = llm.Timings(attempts=0)
    results = results_of(
        Sample(response=answer(timings=unsent, outcome=llm.Outcome.CANCELLED)),
        Sample(response=answer(outcome=None)),
    )
    assert results.sent == 0
    assert results.rows() == [("finished", "0 of 0")]


def test_kinds_of_failure_and_reasons_are_bounded_and_say_no_key() -> None:
    results = Results("measured", KEY)
    for status in range(400, 500):
        info = llm.ErrorInfo(message=f"no {KEY}", kind="invalid", status=status)
        failed = answer(outcome=llm.Outcome.ERRORED)
        results.add(Sample(response=failed, error=llm.RefusedError(info)))
        choice = llm.Choice(finish_reason=f"r{status}{KEY}")
        results.add(Sample(response=answer(choices=(choice,)), last_at=1.0))
    assert len(results.failures.fields()) == _measure.MAX_ERRORS + 1
    assert len(results.reasons) == _measure.MAX_REASONS + 1
    assert sum(e["count"] for e in results.failures.fields()) == results.failed == 100
    assert KEY not in f"{results.fields()} {results.failures.fields()} {results.rows()}"
    assert isinstance(results.failures.commonest, llm.RefusedError)


def test_a_busy_client_says_so() -> None:
    results = results_of(Sample(response=answer(), last_at=15.0))
    note = "this program used 95% of a core, so it may have been the bottleneck"
    results.cpu, results.seconds = 0.95, 1.0
    assert note in results.notes()
    results.cpu, results.seconds = 0.095, 0.1
    assert results.notes() == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0, "0.00 ms"),
        (0.0042, "4.20 ms"),
        (0.1234, "123.4 ms"),
        (1234, "1,234.00 s"),
    ],
)
def test_seconds_are_shown_short(seconds: float | None, shown: str) -> None:
    assert _measure.seconds_text(seconds) == shown
