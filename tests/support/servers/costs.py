"""Usage and costs that known servers report in their own way."""

from __future__ import annotations

from . import Difference

COSTS: list[Difference] = []
