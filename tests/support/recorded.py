"""Recorded streams and the conformance cases of server-sent events, as parameters of tests.

The data stand beside the repository (`paths.SHARED`). Without them the tests are skipped, and say
what is missing.
"""

from __future__ import annotations

import base64
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from .paths import SHARED


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _absent(path: Path) -> list[Any]:
    reason = f"{path} is missing; TRIO_MINILLM_SHARED names its folder"
    return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]


class Case:
    """One case of ``sse-conformance.json``."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.name: str = raw["name"]
        self.body = base64.b64decode(raw["input_b64"])
        self.chunks = [base64.b64decode(c) for c in raw.get("chunks_b64", ())]
        self.events = [(e["event"], e["data"], e["last_event_id"]) for e in raw["events"]]
        self.retry_ms: int | None = raw.get("retry_ms")
        self.comments: int | None = len(raw["comments"]) if "comments" in raw else None


class Recording:
    """One recorded stream: its bytes, where they are from, and what they mean."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dialect = name.partition("/")[0]

    def _file(self, suffix: str) -> Path:
        return SHARED / "streams" / (self.name + suffix)

    @cached_property
    def body(self) -> bytes:
        return self._file(".sse").read_bytes()

    @cached_property
    def meta(self) -> dict[str, Any]:
        return _read(self._file(".json"))

    @cached_property
    def expected(self) -> dict[str, Any]:
        return _read(self._file(".expected.json"))

    @property
    def data(self) -> list[Any]:
        """The events' JSON, read by a plain loop: good for recordings, not for all streams."""
        lines = [line.strip() for line in self.body.splitlines()]
        payloads = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        return [json.loads(p) for p in payloads if p and p != b"[DONE]"]

    def __repr__(self) -> str:
        return self.name


def conformance_cases() -> list[Any]:
    """Every conformance case, as parameters named after it."""
    path = SHARED / "sse-conformance.json"
    if not path.exists():
        return _absent(path)
    cases = [Case(raw) for raw in _read(path)["cases"]]
    return [pytest.param(case, id=case.name) for case in cases]


def recordings(*dialects: str, containing: bytes = b"") -> list[Any]:
    """The recorded streams of some dialects, as parameters named after them."""
    path = SHARED / "streams" / "index.json"
    if not path.exists():
        return _absent(path)
    found = [Recording(raw["name"]) for raw in _read(path) if raw["dialect"] in dialects]
    mark = pytest.mark.recorded
    return [pytest.param(r, id=r.name, marks=mark) for r in found if containing in r.body]


# -- scripts with usage and cost -----------------------------------------------------------------
