"""What several test files need: the data that stand beside the repository, and scripts.

The data are in ``../shared`` seen from the repository, or where ``TRIO_MINILLM_SHARED`` points.
Without them the tests are skipped, and say what is missing.
"""

from __future__ import annotations

import base64
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

import trio_minillm as llm
from trio_minillm.testing import sse

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
SHARED = Path(os.environ.get("TRIO_MINILLM_SHARED") or REPOSITORY.parent / "shared")
TLS_FILES = HERE.parent / "tls"
"""A test authority's certificate for localhost."""


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
    return [pytest.param(r, id=r.name) for r in found if containing in r.body]


# -- scripts with usage and cost -----------------------------------------------------------------

WIRES = ("openai", "anthropic", "openrouter")
KEY = "sk-test-0123456789"
URL = "http://test.invalid/api/v1"


def model_on(wire: str, **options: Any) -> llm.Model:
    """A model on one of `WIRES`, at an address that does not exist."""
    made: llm.Model = getattr(llm, wire)("a/b", **{"base_url": URL, "api_key": KEY, **options})
    return made


class Spent(NamedTuple):
    """A usage object: tokens, and USD where the wire names them."""

    prompt: int
    completion: int
    cost: float | None = None
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def on(self, wire: str) -> dict[str, Any]:
        """The usage object as the wire has it."""
        if wire == "anthropic":
            return {"input_tokens": self.prompt, "output_tokens": self.completion, **self.more}
        raw = {"prompt_tokens": self.prompt, "completion_tokens": self.completion}
        return raw | ({} if self.cost is None else {"cost": self.cost}) | self.more


def begin(wire: str, usage: Spent | None = None, *, id: str = "gen-1") -> list[bytes]:
    """The events up to the text ``abc``; ``usage`` is counted before the last letter, and so is
    provisional.
    """
    if wire == "anthropic":
        message = {"id": id, "model": "a/b", "content": []}
        if usage is not None:
            message["usage"] = usage.on(wire)
        return [
            _named("message_start", message=message),
            _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *(
                _named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
                for text in "abc"
            ),
        ]
    events = [_choice(id, {"role": "assistant", "content": ""})]
    for text in "abc":
        counted = {"usage": usage.on(wire)} if usage is not None and text == "b" else {}
        events.append(_choice(id, {"content": text}, **counted))
    return events


def end(wire: str, usage: Spent | None = None, *, id: str = "gen-1") -> list[bytes]:
    """The events from the finish reason on."""
    if wire == "anthropic":
        counted = {} if usage is None else {"usage": {"output_tokens": usage.completion}}
        return [
            _named("content_block_stop", index=0),
            _named("message_delta", delta={"stop_reason": "end_turn"}, **counted),
            _named("message_stop"),
        ]
    events = [_choice(id, {}, "stop")]
    if usage is not None:
        events.append(sse({"id": id, "choices": [], "usage": usage.on(wire)}))
    return [*events, sse("[DONE]")]


def in_band_error(wire: str, code: int = 400) -> bytes:
    """The event that reports a failure."""
    if wire == "anthropic":
        kind = {400: "invalid_request_error", 529: "overloaded_error"}.get(code, "api_error")
        return _named("error", error={"type": kind, "message": "no"})
    return sse({"error": {"message": "no", "code": code}})


def _choice(id: str, delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
    inner = {"index": 0, "delta": delta, "finish_reason": reason}
    return sse({"id": id, "model": "a/b", "choices": [inner], **more})


def _named(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


class Told:
    """An ``on_cost`` that keeps what it is told, and when."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.records: list[llm.CostRecord] = []
        self.at: list[float] = []
        self.seconds = seconds

    async def __call__(self, record: llm.CostRecord) -> None:
        await trio.sleep(self.seconds)
        self.records.append(record)
        self.at.append(trio.current_time())

    @property
    def keys(self) -> list[str]:
        return [record.key for record in self.records]


async def take(stream: llm.StreamingCompletion, text: str) -> None:
    """Take chunks until this text has come."""
    while stream.accumulated != text:
        assert await stream.next_chunk() is not None, stream.accumulated


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope right before the n-th step of any task."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()
