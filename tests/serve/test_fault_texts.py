"""Faults as text."""

import json

import pytest

from trio_minillm._serve.fault_texts import NAMES, fault_from
from trio_minillm._serve.programs import struck
from trio_minillm.testing import faults, openai_events, reply

ANSWER = reply(*openai_events("Sea ", "salty"))


@pytest.mark.parametrize(
    ("text", "share", "same"),
    [
        ("cut(-20)", 1.0, faults.cut(-20)),
        ("5% cut(-20, 'reset')", 0.05, faults.cut(-20, "reset")),
        ("0.5 % status(429, retry_after=1)", 0.005, faults.status(429, retry_after=1)),
        ("stall(100, 5)", 1.0, faults.stall(100, 5)),
        ("100% without_usage", 1.0, faults.without_usage()),
        ("split(every=1)", 1.0, faults.split(every=1)),
        ("insert(b'x', 3)", 1.0, faults.insert(b"x", 3)),
    ],
)
def test_a_fault_is_the_one_of_its_name(text: str, share: float, same: faults.Fault) -> None:
    made = fault_from(text)
    assert made.share == share
    assert ANSWER | made.on("openai") == ANSWER | same


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "cut",
            "cut(",
            "cut(x)",
            "cut(open('f'))",
            "cut(-20).x",
            "cut(1)(2)",
            "faults.cut(1)",
        ),
        *("edit(1)", "Fault()", "__import__('os')", "101% cut(1)", "-1% cut(1)", "cut(1); cut(2)"),
        *("cut(at=[].__class__)", "cut(*[1])", "cut(**{'at': 1})", "cut(1, 'no')", "cut(1, 2, 3)"),
        *("split(every=0)", "x% cut(1)", "(" * 5000, "lambda: 0"),
    ],
)
def test_others_are_refused_and_nothing_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^fault "):
        fault_from(text)


def test_what_is_wrong_with_arguments_is_said_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"write cut\(at, how='eof'\)$"):
        fault_from("cut()")
    with pytest.raises(ValueError, match=r"write error\(at=-1, message='overloaded'"):
        fault_from("error(1, 2, 3, 4)")


def test_every_fault_of_testing_can_be_written_but_those_that_take_functions() -> None:
    assert {*NAMES} == {*faults.__all__, "error"} - {"Fault", "edit"}


@pytest.mark.parametrize("wire", ["openai", "text", "anthropic", "responses", "gemini"])
def test_an_error_inside_the_stream(wire: str) -> None:
    made = ANSWER | fault_from("error(2, 'no more')").on(wire)
    assert made.steps[:2] == ANSWER.steps[:2]
    assert len(made.steps) == 3
    assert b"no more" in made.steps[2]  # type: ignore[operator]
    assert made.status == 200


def test_a_failing_status_brings_an_error_at_once_in_place_of_the_answer() -> None:
    late = reply(*openai_events("Sea"), wait=0.3)
    made = struck(late, [faults.status(429, retry_after=2)], "openai")
    assert (made.status, made.wait, made.framing) == (429, 0.0, "length")
    assert made.headers["retry-after"] == "2"
    assert made.headers["content-type"] == "application/json"
    assert json.loads(made.steps[0])["error"]["code"] == 429  # type: ignore[arg-type]
    own = struck(late, [faults.status(503), faults.body("<html>"), faults.late(2)], "openai")
    assert (own.steps, own.wait) == ((b"<html>",), 2)
