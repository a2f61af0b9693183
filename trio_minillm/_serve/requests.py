"""A request, as far as the timed server looks at it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..testing._events import wire_of
from ..testing._script import ServedRequest
from .options import MAX_TOKENS, TOKENS, WIRES, UsageMode, Wire

_PATHS: Final = re.compile(
    r".*/(?:(?:chat/)?completions|messages|responses|models/[^/:]+:(?:streamG|g)enerateContent)"
)
_MODEL_IN_PATH: Final = re.compile(r".*/models/([^/:]+):")
MAX_NAME: Final = 200
"""Characters of a model's name, and of a path, that are kept."""


class RefusedRequestError(Exception):
    """A request that can't be served: the status, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Asked(msgspec.Struct, kw_only=True):
    """The wishes of a request."""

    wire: Wire
    model: str
    stream: bool
    prompt_tokens: int
    """Whitespace-separated words of all its texts, or ids of tokens."""
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    """True if the answer has to be as long as it may be (vLLM)."""
    usage: bool
    """True if usage is to come at the stream's end."""
    running_usage: bool
    """True if usage is to come with each chunk (vLLM)."""

    def tokens(self, wanted: float | None) -> tuple[int, bool]:
        """Return the tokens of the answer, and True if the request's limit ended it.

        ``wanted`` is the length that it would have by itself, or None if only the limit counts.
        """
        most = TOKENS if self.max_tokens is None else self.max_tokens
        own = most if wanted is None else max(1, round(wanted))
        if self.ignore_eos and self.max_tokens is not None:
            own = most
        own = min(max(own, self.min_tokens), MAX_TOKENS)
        if self.max_tokens is None or own < self.max_tokens:
            return own, False
        return self.max_tokens, True

    def usage_by(self, mode: UsageMode) -> tuple[bool, bool]:
        """Return True if usage comes at the end of the answer, and True if each content has some, too."""
        late, running = self.usage or not self.stream, self.running_usage
        if mode != "asked":
            late, running = mode != "never", mode == "running"
        return late or running, running and self.wire in ("openai", "text", "gemini")


def wire_in(path: str, only: Wire | None) -> Wire:
    """Return the wire format that a request to this path speaks. Raises `RefusedRequestError`."""
    wire = wire_of(path)
    if not _PATHS.fullmatch(path) or wire not in WIRES:
        raise RefusedRequestError(404, f"unknown path {path[:MAX_NAME]}")
    if only is not None and wire != only:
        raise RefusedRequestError(404, f"this server speaks only the wire format {only}")
    return wire


def asked_of(request: ServedRequest, wire: Wire) -> tuple[Asked, dict[str, Any]]:
    """Return what the request asks for, and its body. Raises `RefusedRequestError`."""
    try:
        body = msgspec.json.decode(request.body)
    except msgspec.DecodeError:
        raise RefusedRequestError(400, "the body is not JSON") from None
    except RecursionError:
        raise RefusedRequestError(400, "the body is nested too deeply") from None
    if not isinstance(body, dict):
        raise RefusedRequestError(400, "the body is not a JSON object")
    for name in ("n", "best_of"):
        if body.get(name) not in (None, 1):
            raise RefusedRequestError(400, f"{name} must be 1: this server gives one choice")
    return _asked(wire, request.path, body), body


def _asked(wire: Wire, path: str, body: dict[str, Any]) -> Asked:
    options = _object(body.get("stream_options"))
    inner = _object(body.get("generationConfig")) if wire == "gemini" else body
    if wire == "gemini":
        found = _MODEL_IN_PATH.match(path)
        model, stream = found[1] if found else "", ":stream" in path
    else:
        model, stream = body.get("model"), bool(body.get("stream"))
    limits = ("max_completion_tokens", "max_output_tokens", "maxOutputTokens", "max_tokens")
    limit = next((inner[name] for name in limits if inner.get(name) is not None), None)
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MAX_TOKENS):
        raise RefusedRequestError(400, f"the token limit must be from 1 to {MAX_TOKENS:,}")
    least = body.get("min_tokens") or 0
    if type(least) is not int or least < 0:
        raise RefusedRequestError(400, "min_tokens must be a whole number, 0 or more")
    return Asked(
        wire=wire,
        model=str(model or "timed")[:MAX_NAME],
        stream=stream,
        prompt_tokens=_prompt_tokens(wire, body),
        max_tokens=limit,
        min_tokens=least,
        ignore_eos=bool(body.get("ignore_eos")),
        usage=wire not in ("openai", "text") or bool(options.get("include_usage")),
        running_usage=wire == "gemini" or bool(options.get("continuous_usage_stats")),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _prompt_tokens(wire: str, body: dict[str, Any]) -> int:
    if wire == "text":
        prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            return len(prompt)
        if isinstance(prompt, list) and len(prompt) > 1:
            raise RefusedRequestError(400, "prompt must be one text or one list of tokens")
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], list):
            return len(prompt[0])
    return sum(len(text.split()) for text in prompt_texts(body))


def prompt_texts(body: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a request's prompt, in the order of its fields."""
    for name in _PROMPTS:
        if name in body:
            yield from _texts_in(body[name])


_PROMPTS: Final = (
    *("system", "instructions", "systemInstruction"),
    *("messages", "prompt", "input", "contents"),
)


_TEXTS: Final = ("text", "content", "parts", "input", "output", "arguments", "thinking")
"""Fields of messages and of their parts that hold text, or hold what does."""
_DEEPEST: Final = 8
"""Levels of messages, contents and parts that are looked into."""


def _texts_in(value: Any, level: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif level > _DEEPEST:
        return
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item, level + 1)
    elif isinstance(value, dict):
        for name in _TEXTS:
            if name in value:
                yield from _texts_in(value[name], level + 1)
