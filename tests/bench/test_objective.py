"""Tests of service level objectives: how they are written, and which answers are good."""

from __future__ import annotations

from typing import Any

import pytest

from trio_minillm._bench.figures.figures import LATENCIES
from trio_minillm._bench.figures.objective import (
    Objective,
    limits_text,
    parse_limits,
    parse_objective,
)
from trio_minillm._bench.figures.request import FIGURES
from trio_minillm._bench.record import Record


def record_of(**fields: Any) -> Record:
    """Return the record of a whole answer: contents at 0.2, 0.3 and 0.6 s, usage, the end at 0.7 s."""
    usual: dict[str, Any] = {
        "number": 0,
        "scheduled": 0.0,
        "sent": 0.0,
        "ended": 0.7,
        "outcome": "finished",
        "first_text": 0.2,
        "stamps": [0.2, 0.3, 0.6],
        "output_tokens": 5,
    }
    return Record(**{**usual, **fields})


@pytest.mark.parametrize(
    ("text", "share", "limits"),
    [
        ("99% ttft<0.5s,tpot<0.05s", 0.99, {"ttft": 0.5, "tpot": 0.05}),
        ("99.9% ttft<500ms", 0.999, {"ttft": 0.5}),
        ("100% e2e_scheduled < 2s , ITL<1e-2s", 1.0, {"e2e_scheduled": 2.0, "itl": 0.01}),
        (" 50 %  ttft<.5s ", 0.5, {"ttft": 0.5}),
    ],
)
def test_an_objective_is_read(text: str, share: float, limits: dict[str, float]) -> None:
    found = parse_objective(text)
    assert found.share == pytest.approx(share)
    assert found.limits == pytest.approx(limits)
    assert parse_objective(str(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ttft<0.5s", "does not start with a share"),
        ("0% ttft<0.5s", "does not start with a share"),
        ("101% ttft<0.5s", "does not start with a share"),
        ("1.2.3% ttft<0.5s", "does not start with a share"),
        ("99%", "does not start with a share"),
        ("", "does not start with a share"),
        ("99% ttft<0.5", "is not a limit"),
        ("99% ttft:500", "is not a limit"),
        ("99% ttft>1s", "is not a limit"),
        ("99% ttft<0.5s,", "is not a limit"),
        ("99% ttft<1.2.3s", "is not above 0"),
        ("99% ttft<0s", "is not above 0"),
        ("99% ttft<1e999s", "is not above 0"),
        ("99% late<1s", "is not one of ttft, ttft_text"),
        ("99% ttft<1s,ttft<2s", "ttft has two limits"),
    ],
)
def test_what_is_no_objective_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_objective(text)


def test_limits_are_written_as_they_are_read() -> None:
    limits = parse_limits("ttft<250ms,e2e<3s")
    assert limits == {"ttft": 0.25, "e2e": 3.0}
    assert parse_limits(limits_text(limits)) == limits


def test_every_figure_of_a_request_is_a_distribution_of_the_run() -> None:
    assert set(FIGURES) <= set(LATENCIES)


def test_the_figures_of_a_request() -> None:
    record = record_of(scheduled=-0.5, first_reasoning=None)
    found = {name: figure(record) for name, figure in FIGURES.items()}
    assert found == pytest.approx(
        {
            "ttft": 0.2,
            "ttft_text": 0.2,
            "ttft_reasoning": None,
            "e2e": 0.6,
            "e2e_stream": 0.7,
            "itl": 0.2,
            "itl_max": 0.3,
            "tpot": 0.12,
            "ttft_scheduled": 0.7,
            "ttft_text_scheduled": 0.7,
            "ttft_reasoning_scheduled": None,
            "e2e_scheduled": 1.1,
            "e2e_stream_scheduled": 1.2,
        }
    )


@pytest.mark.parametrize(
    ("limits", "fields", "good"),
    [
        ("ttft<0.3s", {}, True),
        ("ttft<0.2s", {}, False),  # below, not at
        ("ttft<0.3s,e2e<0.5s", {}, False),  # all of them
        ("itl<0.25s", {}, True),  # the mean of 0.1 and 0.3
        ("itl_max<0.25s", {}, False),
        ("ttft<0.3s", {"outcome": "truncated"}, False),
        ("ttft<0.3s", {"stamps": []}, False),
        ("ttft_reasoning<9s", {}, False),
        ("tpot<9s", {"output_tokens": None}, False),  # not known
        # One content: nothing to wait for behind it.
        ("itl<1ms,itl_max<1ms,tpot<1ms", {"stamps": [0.2], "output_tokens": 1}, True),
        ("tpot<1ms", {"stamps": [0.2], "output_tokens": None}, False),
        ("itl<1ms", {"stamps": []}, False),
        ("ttft_scheduled<0.3s", {"scheduled": -1.0}, False),
    ],
)
def test_a_good_answer(limits: str, fields: dict[str, Any], good: bool) -> None:
    objective = Objective(share=0.9, limits=parse_limits(limits))
    assert objective.good(record_of(**fields)) is good
