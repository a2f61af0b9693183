"""Service level objectives: the limits that an answer must keep to be a good one. Pure."""

from __future__ import annotations

import math
import re

import msgspec

from ..record import Record
from .request import FIGURES, within

_LIMIT = re.compile(r"([a-z0-9_]+)\s*<\s*([0-9.]+(?:e-?[0-9]+)?)\s*(ms|s)")
_SHARE = re.compile(r"([0-9.]+)\s*%\s+(.+)", re.DOTALL)
_SECONDS = {"ms": 0.001, "s": 1.0}


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """A share of all requests that must be answered within limits."""

    share: float
    """Share of the requests that must be good, above 0 and at most 1."""
    limits: dict[str, float]
    """Seconds that a good answer stays below, by names of `FIGURES`."""

    def good(self, record: Record) -> bool:
        """Return True for a whole answer, all of whose figures are below the limits.

        A figure that is not known is not below its limit: ``tpot`` without usage, ``ttft_text`` of an
        answer without text. An answer of one content has no gaps, and keeps any limit of them.
        """
        return record.whole and all(
            within(record, name, limit) for name, limit in self.limits.items()
        )

    def __str__(self) -> str:
        return f"{self.share * 100:g}% {limits_text(self.limits)}"


def parse_objective(text: str) -> Objective:
    """Return the objective that is written ``99% ttft<0.5s,tpot<50ms``. Raises ``ValueError``."""
    found = _SHARE.fullmatch(text.strip())
    share = _number(found[1]) / 100 if found else math.nan
    if found is None or not 0 < share <= 1:
        raise ValueError(f'"{text}" does not start with a share such as 99%')
    return Objective(share=share, limits=parse_limits(found[2]))


def parse_limits(text: str) -> dict[str, float]:
    """Return the limits that are written ``ttft<0.5s,tpot<50ms``, in seconds. Raises ``ValueError``."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        found = _LIMIT.fullmatch(part.strip().lower())
        if found is None:
            hint = "; write ttft<500ms, with a unit" if ":" in part else ""
            raise ValueError(
                f'"{part.strip()}" is not a limit such as ttft<0.5s or tpot<50ms{hint}'
            )
        name, limit = found[1], _number(found[2]) * _SECONDS[found[3]]
        if name not in FIGURES:
            raise ValueError(f'"{name}" is not one of {", ".join(FIGURES)}')
        if name in limits:
            raise ValueError(f"{name} has two limits")
        if not 0 < limit < math.inf:
            raise ValueError(f'the limit "{part.strip()}" is not above 0')
        limits[name] = limit
    return limits


def limits_text(limits: dict[str, float]) -> str:
    """Return limits as `parse_limits` reads them."""
    return ",".join(f"{name}<{limit:g}s" for name, limit in limits.items())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
