"""Answers of known servers that differ from the reference."""

from __future__ import annotations

from . import Difference

ANSWERS: list[Difference] = []
