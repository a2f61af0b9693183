"""The objective of a load: the share of requests that keep their limits."""

from __future__ import annotations

import re

import msgspec

from ..record import Record
from .figures import time_per_token


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """Limits, and the share of requests that must keep them."""

    share: float
    limits: dict[str, float]

    def good(self, record: Record) -> bool:
        """Return True for a whole answer whose figures are all below the limits."""
        if not record.whole or record.first is None or record.last is None:
            return False
        figures = {
            "ttft": record.first - record.sent,
            "tpot": time_per_token(record) or 0.0,
            "e2e": record.last - record.sent,
        }
        return all(figures[name] < limit for name, limit in self.limits.items())


def parse_objective(text: str) -> Objective:
    """Return the objective in a text such as ``99% ttft<0.5s,tpot<0.05s``. Raises ``ValueError``."""
    found = re.fullmatch(r"\s*(?:([\d.]+)\s*%\s+)?(.+)", text)
    limits = {}
    for part in found[2].split(",") if found else []:
        one = re.fullmatch(r"\s*(ttft|tpot|e2e)\s*<\s*([\d.]+)\s*(ms|s)?\s*", part)
        if one is None:
            raise ValueError(f"not a limit: {part.strip()}")
        limits[one[1]] = float(one[2]) / (1000 if one[3] == "ms" else 1)
    if not found or not limits:
        raise ValueError("an objective is a share and limits: 99% ttft<0.5s,tpot<0.05s")
    return Objective(share=float(found[1] or 99) / 100, limits=limits)
