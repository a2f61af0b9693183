"""Reading of a line of a batch's input as a `BatchRequest`. Pure.

Two forms are read. OpenAI's Batch API has ``{"custom_id", "method", "url", "body"}``, where the
body is that of a chat completion; the short one has ``key``, ``messages`` or ``prompt`` (and
``system``), and parameters beside them. Fields that have a typed parameter become that, so that
a line means the same on every wire; other fields of a *body* are sent as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from ..._protocol.request import body_of, encoded, make_request
from ..._types.openai_messages import messages_of
from ..._types.params import PARAM_NAMES, JSONSchema, Reasoning
from ..._types.tools import Tool
from ...providers import Model
from ..types import BatchRequest

MAX_KEY = 1_000
"""Characters of the longest key."""

_ENVELOPE = {"custom_id", "method", "url", "body", "meta"}
_OURS = {"key", "custom_id", "model", "messages", "prompt", "system", "meta", "extra"}
_ALIASES = {"max_completion_tokens", "reasoning_effort"}
_DROPPED = {"stream"}
"""Fields that are passed over: every answer is streamed."""
_REASONING = {"effort", "max_tokens", "enabled", "summary", "exclude"}


def request_from(
    fields: Any, *, model_of: Callable[[str | None], Model], params: Mapping[str, Any]
) -> BatchRequest:
    """Return the request that a line or row stands for.

    ``model_of`` makes a model of the name that the line gives (``None`` if it gives none).
    ``params`` are parameters for lines that lack them.

    Raises ``ValueError`` with the words for a fault, which never quote a message.
    """
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    key = _key(fields)
    if "body" in fields:
        body, extra = _body(fields), {}
    else:
        body, extra = _short(fields), _mapping(fields, "extra")
    given, rest = _params({k: v for k, v in body.items() if k not in ("model", "messages")})
    name = body.get("model")
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError("model is not a name")
    if not isinstance(body.get("messages"), list):
        raise ValueError("messages are not a list" if "messages" in body else "no messages")
    return BatchRequest(
        key=key,
        messages=body["messages"],
        model=model_of(name),
        params={**params, **given},
        extra={**rest, **extra},
        meta=fields.get("meta"),
    )


def check_request(request: BatchRequest) -> None:
    """Raise ``ValueError`` if the request could not be sent to its model, with the words of sending."""
    model = request.model
    assert model is not None
    try:
        messages = messages_of(request.messages)
        encoded(body_of(make_request(model, messages, request.params, extra=request.extra)))
    except TypeError as exc:
        raise ValueError(str(exc)) from None


def _key(fields: dict[str, Any]) -> str:
    key = fields.get("custom_id", fields.get("key"))
    if type(key) is int:
        key = str(key)
    if not isinstance(key, str) or not key:
        raise ValueError("no custom_id or key" if key in (None, "") else "the key is not a string")
    if len(key) > MAX_KEY:
        raise ValueError(f"the key is longer than {MAX_KEY:,} characters")
    return key


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    _check_known(fields, _ENVELOPE)
    if fields.get("method", "POST") != "POST":
        raise ValueError("method is not POST")
    url = fields.get("url", "/v1/chat/completions")
    if not isinstance(url, str) or not url.endswith("/chat/completions"):
        raise ValueError("url is not /v1/chat/completions, the only one that is served here")
    body = fields["body"]
    if not isinstance(body, dict):
        raise ValueError("body is not an object")
    return body


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the short form in the shape of a body."""
    _check_known(fields, {*_OURS, *_ALIASES, *PARAM_NAMES})
    body = {k: v for k, v in fields.items() if k not in _OURS}
    if "model" in fields:
        body["model"] = fields["model"]
    messages = fields.get("messages")
    if (messages is None) == (fields.get("prompt") is None):
        raise ValueError("give one of messages and prompt")
    if messages is None:
        messages = [{"role": "user", "content": fields["prompt"]}]
    if fields.get("system") is not None and isinstance(messages, list):
        messages = [{"role": "system", "content": fields["system"]}, *messages]
    return {**body, "messages": messages}


def _check_known(fields: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        close = get_close_matches(unknown[0], sorted(known), 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"unknown field: {', '.join(unknown)[:200]}{hint}")


def _mapping(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


# -- parameters ------------------------------------------------------------------------------


def _params(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a body's fields as typed parameters, and those that are none."""
    body = {k: v for k, v in body.items() if v is not None and k not in _DROPPED}
    for alias, name in ("max_completion_tokens", "max_tokens"), ("reasoning_effort", "reasoning"):
        if alias in body:
            value = body.pop(alias)
            if body.setdefault(name, value) != value:
                raise ValueError(f"{alias} and {name} contradict each other")
    given = {k: v for k, v in body.items() if k in PARAM_NAMES}
    for name, read in _READERS.items():
        if name in given:
            try:
                given[name] = read(given[name])
            except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
                raise ValueError(f"{name} is not in the shape of OpenAI's") from None
    if not given.get("stream_options", True):
        del given["stream_options"]
    return given, {k: v for k, v in body.items() if k not in PARAM_NAMES}


def _tool(raw: Any) -> Tool | dict[str, Any]:
    """Return a function as a `Tool`, for every wire, and another tool as the provider's own."""
    if raw["type"] != "function" or set(raw) - {"type", "function"}:
        return dict(raw)
    function = raw["function"]
    if set(function) - {"name", "description", "parameters", "strict"}:
        return dict(raw)
    return msgspec.convert({k: v for k, v in function.items() if v is not None}, Tool)


def _tools(raw: Any) -> list[Tool | dict[str, Any]]:
    if not isinstance(raw, list):
        raise TypeError
    return [_tool(item) for item in raw]


def _tool_choice(raw: Any) -> Any:
    if isinstance(raw, dict) and raw.get("type") == "function" and "function" in raw:
        name = raw["function"]["name"]
        return raw if name in ("auto", "none", "required") else name
    return raw


def _format(raw: Any) -> Any:
    if raw in ("json", "text"):
        return raw
    kind = raw["type"]
    if kind == "json_schema":
        return msgspec.convert({"strict": False, **_without_none(raw["json_schema"])}, JSONSchema)
    return {"json_object": "json", "text": "text"}.get(kind) or dict(raw)


def _reasoning(raw: Any) -> Any:
    if raw == "none":
        return False
    if not isinstance(raw, dict):
        return raw
    if set(raw) - _REASONING:
        raise TypeError
    known = _without_none(raw)
    if "max_tokens" in known:
        known["budget"] = known.pop("max_tokens")
    return msgspec.convert(known, Reasoning)


def _stream_options(raw: Any) -> Any:
    return {k: v for k, v in raw.items() if k != "include_usage"}


def _without_none(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in raw.items() if v is not None}


_READERS: dict[str, Callable[[Any], Any]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "response_format": _format,
    "reasoning": _reasoning,
    "stream_options": _stream_options,
}
