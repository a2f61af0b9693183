"""Numbers that may be random."""

from random import Random
from statistics import fmean, median

import pytest

from trio_minillm._serve.distributions import distribution


@pytest.mark.parametrize(
    ("text", "mean", "middle"),
    [
        ("uniform(0.1, 0.5)", 0.3, 0.3),
        ("normal(0.3,0.05)", 0.3, 0.3),
        ("lognormal(0.3, 0.5)", 0.3399, 0.3),
        (" exp( 0.2 ) ", 0.2, 0.1386),
    ],
)
def test_means_and_medians(text: str, mean: float, middle: float) -> None:
    made, random = distribution(text, "ttft"), Random(7)
    drawn = [made.draw(random) for _ in range(20_000)]
    assert made.constant is None
    assert made.mean == pytest.approx(mean, abs=1e-4)
    assert fmean(drawn) == pytest.approx(mean, rel=0.02)
    assert median(drawn) == pytest.approx(middle, rel=0.03)
    assert min(drawn) >= 0
    again = Random(7)
    assert drawn[:5] == [made.draw(again) for _ in range(5)]


@pytest.mark.parametrize("given", [0.3, "0.3", "3e-1"])
def test_a_number_is_always_itself(given: float | str) -> None:
    made = distribution(given, "ttft")
    assert (made.constant, made.mean, made.draw(Random(1)), made.text) == (0.3, 0.3, 0.3, "0.3")
    assert distribution(made, "ttft") is made


@pytest.mark.parametrize(
    "given",
    [
        *("", "x", "-1", "inf", "nan", "uniform(2, 1)", "uniform(1)", "exp(0)", "lognormal(0, 1)"),
        *("poisson(3)", "exp(1", "exp(-1)", "uniform(0,1)+1", "exp(__import__('os'))", True, None),
    ],
)
def test_others_are_refused_by_name(given: object) -> None:
    with pytest.raises(ValueError, match=r"^itl must be a number, uniform\(LOW, HIGH\)"):
        distribution(given, "itl")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["1e308", "uniform(1, 1e308)", "exp(1e10)", 10**400, "1e999"])
def test_numbers_that_no_clock_holds_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"with numbers from 0 to 1e\+09"):
        distribution(given, "itl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["lognormal(1, 1e9)", "lognormal(100, 38)", "normal(1e9, 1e9)", "exp(1e9)"]
)
def test_what_is_drawn_has_a_bound(text: str) -> None:
    made, random = distribution(text, "ttft"), Random(7)
    assert 0 <= made.mean <= 1e9
    assert all(0 <= made.draw(random) <= 1e9 for _ in range(200))
