"""Refusals of known servers: which words mean what."""

from __future__ import annotations

from . import Difference

REFUSALS: list[Difference] = []
