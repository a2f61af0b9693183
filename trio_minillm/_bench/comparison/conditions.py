"""Conditions of ``--fail-if``: a figure, an operator, and a bound. Nothing is evaluated as code. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

import msgspec

from .change import Change
from .compare import SHARES, names_of_figures, value_text

_FORM = re.compile(
    r"([a-z0-9_]+(?:\.[a-z0-9]+)?)\s*(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(x|%|ms|s)?"
)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SCALES = {"": 1.0, "s": 1.0, "ms": 0.001, "%": 0.01}


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition under which a comparison has failed."""

    text: str
    """As it was given."""
    name: str
    sign: str
    bound: float
    """In the figure's own unit, or a multiple of the base's value."""
    relative: bool

    def failure(self, changes: Mapping[str, Change]) -> str | None:
        """Return why the comparison has failed by this condition, or None if it has not. What can't be
        checked has failed: the figure was not measured.
        """
        change = changes.get(self.name)
        if change is None or change.new is None:
            return f"{self.text}: {self.name} was not measured"
        bound = self.bound
        if self.relative:
            if change.base is None:
                return f"{self.text}: {self.name} was not measured in the base"
            bound *= change.base
        if not _OPERATORS[self.sign](change.new, bound):
            return None
        times = "" if change.ratio is None else f", {change.ratio:.3g}x the base"
        return f"{self.text}: {self.name} is {value_text(change.new, self.name)}{times}"


def parse_condition(text: str) -> Condition:
    """Return the condition that is written ``ttft.p99 > 1.1x``, ``tpot.mean > 50ms`` or ``failed > 1%``.

    Raises ``ValueError``.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'"{text}" is not a condition such as "ttft.p99 > 1.1x" or "failed > 1%"')
    name, sign, number, unit = found[1], found[2], float(found[3]), found[4] or ""
    if name not in names_of_figures():
        raise ValueError(f'"{name}" is not one of {", ".join(names_of_figures())}')
    if unit == "%" and name not in SHARES:
        raise ValueError(
            f'"{text}": only {" and ".join(SHARES)} take %; write 1.1x for a tenth more'
        )
    if unit in ("s", "ms") and "." not in name:
        raise ValueError(f'"{text}": {name} is not a time')
    relative = unit == "x"
    bound = number if relative else number * _SCALES[unit]
    return Condition(text=text.strip(), name=name, sign=sign, bound=bound, relative=relative)
