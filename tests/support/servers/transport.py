"""Connections, proxies and HTTP of known servers."""

from __future__ import annotations

from . import Difference

TRANSPORT: list[Difference] = []
