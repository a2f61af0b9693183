"""Requests that known servers want otherwise than the reference."""

from __future__ import annotations

from . import Difference

REQUESTS: list[Difference] = []
