"""Checks of arguments: what is told, and where a warning points."""

from __future__ import annotations

from typing import Any

import pytest

from trio_minillm import Limits
from trio_minillm._types.checks import (
    check_count,
    check_option,
    check_seconds,
    check_type,
    warn_caller,
    wrong_type,
)


def test_an_argument_of_another_type_is_told_by_name() -> None:
    check_type("limits", Limits(), Limits)
    check_type("limits", 3, Limits | int)
    check_option("limits", None, Limits)
    check_option("limits", Limits(), Limits)
    with pytest.raises(TypeError, match="limits must be Limits, not NoneType"):
        check_type("limits", None, Limits)
    with pytest.raises(TypeError, match="limits must be Limits or int, not str"):
        check_type("limits", "x", Limits | int)
    with pytest.raises(TypeError, match="limits must be Limits or None, not int"):
        check_option("limits", 3, Limits)
    assert str(wrong_type("x", 5, str, "a list")) == "x must be str or a list, not int"


@pytest.mark.parametrize("wrong", [0, -1, True, 1.0, "1", None])
def test_a_count_is_a_whole_number_from_1_on(wrong: Any) -> None:
    check_count("n", 1)
    with pytest.raises(ValueError, match="n must be a whole number, 1 or more"):
        check_count("n", wrong)


@pytest.mark.parametrize("wrong", [-1, float("nan"), True, "1", None])
def test_seconds_are_a_number(wrong: Any) -> None:
    check_seconds("wait", 0)
    check_seconds("wait", 0.5)
    with pytest.raises(ValueError, match="wait must be a number of seconds, 0 or more"):
        check_seconds("wait", wrong)


def test_a_warning_points_at_whoever_called() -> None:
    with pytest.warns(UserWarning, match="careful") as caught:
        warn_caller("careful")
    assert caught[0].filename == __file__
