"""Numbers that may be random: ``0.3``, ``uniform(0.1, 0.5)``, ``lognormal(0.3, 0.5)``, ``exp(0.2)``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

import msgspec

Draw: TypeAlias = Callable[[Random], float]

FORMS: Final = (
    "a number, uniform(LOW, HIGH), normal(MEAN, SD), lognormal(MEDIAN, SIGMA), or exp(MEAN)"
)
MOST: Final = 1e9
"""The largest number that is taken, and that is drawn: 30 years, or a billion tokens. Sums of such numbers are
exact enough, and no clock overflows."""
_LOG_MOST: Final = math.log(MOST)
_CALL: Final = re.compile(r"\s*([a-z]+)\s*\(([^()]*)\)\s*")


class Distribution(msgspec.Struct, frozen=True):
    """A number, or a distribution of numbers from 0 to `MOST`."""

    text: str
    """The distribution as it was written."""
    mean: float
    """The mean of what is drawn (of ``normal`` before negative numbers become 0)."""
    constant: float | None
    """The number, if there is only one."""
    draw: Draw
    """A function of a generator of random numbers that returns the next one."""


def distribution(given: float | str | Distribution, name: str) -> Distribution:
    """Return what was given as a distribution. Raises ``ValueError``, with the name, for anything else."""
    if isinstance(given, Distribution):
        return given
    number = _number(given)
    if number is not None:
        return Distribution(f"{number:g}", number, number, lambda _: number)
    found = _CALL.fullmatch(given) if isinstance(given, str) else None
    made = None
    if found is not None:
        values = [_number(value) for value in found[2].split(",")]
        numbers = [value for value in values if value is not None]
        if len(numbers) == len(values):
            made = _made(found[1], numbers)
    if made is None:
        raise ValueError(f"{name} must be {FORMS}, with numbers from 0 to {MOST:.0e}")
    mean, draw = made
    return Distribution(str(given).strip(), mean, None, draw)


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= MOST else None


def _made(kind: str, values: list[float]) -> tuple[float, Draw] | None:
    """Return the mean and the function of a distribution, or None if there is none such."""
    match kind, values:
        case "uniform", [low, high] if low <= high:
            return (low + high) / 2, lambda random: random.uniform(low, high)
        case "normal", [mean, sd]:
            return mean, lambda random: min(max(0.0, random.gauss(mean, sd)), MOST)
        case "lognormal", [median, sigma] if median > 0:
            at = math.log(median)
            mean = _exp(at + sigma * sigma / 2)
            return mean, lambda random: _exp(random.normalvariate(at, sigma))
        case "exp", [mean] if mean > 0:
            return mean, lambda random: min(random.expovariate(1 / mean), MOST)
    return None


def _exp(value: float) -> float:
    return math.exp(min(value, _LOG_MOST))
