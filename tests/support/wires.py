"""A short answer on each provider's wire, with the usage and the cost that a test gives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import sse

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


class Kind(NamedTuple):
    """A kind of model, as a command line names it, and the wire format that it speaks."""

    format: str
    make: Callable[..., llm.Model]
    events: Callable[..., list[bytes]]
    priced: str = "gpt-5-mini"
    """Name of a model with a known price."""
    base: str = "/v1"
    """Path of the base URL."""


KINDS = {
    "openai": Kind("openai", llm.openai, testing.openai_events),
    "openrouter": Kind("openai", llm.openrouter, testing.openai_events, "openai/gpt-5-mini"),
    "anthropic": Kind(
        "anthropic", llm.anthropic, testing.anthropic_events, "claude-haiku-4-5", base=""
    ),
    "openai-responses": Kind("openai-responses", llm.openai_responses, testing.responses_events),
    "gemini": Kind("gemini", llm.gemini, testing.gemini_events, "gemini-2.5-pro", base=""),
    "text": Kind("text", llm.text_completions, testing.text_events, "gpt-3.5-turbo-instruct"),
    "compatible": Kind("openai", llm.compatible, testing.openai_events),
}
"""All of them; `tests/test_every_wire.py` fails for a provider or a name that is not here."""
FORMATS = sorted({kind.format for kind in KINDS.values()})
MAKERS = [
    partial(kind.make, base_url="http://127.0.0.1") if name == "compatible" else kind.make
    for name, kind in KINDS.items()
]
"""Constructors that need nothing but a name."""
