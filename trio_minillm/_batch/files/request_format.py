"""Reading of a line of a batch's input as a `BatchRequest`. Pure.

Two forms are read. OpenAI's Batch API has ``{"custom_id", "method", "url", "body"}``, where the
body is that of a chat completion or of a text completion; the short one has ``key``, ``messages`` or
``prompt`` (and ``system``), and parameters beside them. Fields that have a typed parameter become that, so that
a line means the same on every wire; other fields of a *body* are sent as they are.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
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
MAX_SHAPES = 256
"""Shapes of lines that a `RequestReader` remembers at a time."""
MAX_SHAPE = 1 << 16
"""Bytes of the largest shape that it remembers; one with many tools has some KB."""

_OURS = {"key", "custom_id", "model", "messages", "prompt", "system", "meta", "extra"}
_ALIASES = {"max_completion_tokens", "reasoning_effort"}
PARAMETERS = PARAM_NAMES | _ALIASES
"""Fields that are parameters."""
ENVELOPE = frozenset(("custom_id", "method", "url", "body", "meta"))
"""Fields of OpenAI's form."""
SHORT = PARAMETERS | _OURS
"""Fields of the short form."""
JSON_FIELDS = PARAMETERS | {"messages", "meta", "extra", "body"}
"""Fields that may hold something else than text."""
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


class RequestReader:
    """Reads and checks lines as `request_from` and `check_request` do, each shape of line once.

    Lines have one shape if they differ in nothing but their keys, their metas and the texts of their
    messages. Where a provider says that it takes any text (`Provider.any_text`), a line whose shape
    was found good needs no second check; all others are read and checked whole.
    """

    def __init__(
        self, *, model_of: Callable[[str | None], Model], params: Mapping[str, Any]
    ) -> None:
        self._model_of = model_of
        self._params = params
        self._good: dict[bytes, tuple[Model, dict[str, Any], dict[str, Any]]] = {}
        """Shapes that were found good, with the model, the parameters and the extra of each."""

    def read(self, fields: Any) -> tuple[BatchRequest, bytes | None]:
        """Return the request that a line stands for, and the line's shape if it has one.

        Raises ``ValueError`` as `request_from` does.
        """
        shape, messages = _shape(fields)
        if shape is not None and (good := self._good.get(shape)) is not None:
            model, params, extra = good
            key, meta = _key(fields), fields.get("meta")
            return BatchRequest(key, messages, model, params.copy(), extra.copy(), meta), shape
        return request_from(fields, model_of=self._model_of, params=self._params), shape

    def check(self, request: BatchRequest, shape: bytes | None) -> None:
        """Raise ``ValueError`` if a request that `read` returned with this shape could not be sent."""
        if shape in self._good:
            return
        check_request(request)
        model = request.model
        assert model is not None
        if shape is not None and model.provider.any_text:
            if len(self._good) >= MAX_SHAPES:
                self._good.clear()
            self._good[shape] = (model, dict(request.params), dict(request.extra))


def _shape(fields: Any) -> tuple[bytes | None, list[Any]]:
    """Return a line's shape, which is all of it but what may vary, and its messages.

    A line has none (``None``) if one of its messages is more, or less, than a role and a text with
    something to see.
    """
    if type(fields) is not dict:
        return None, []
    rest, body = fields.copy(), None
    rest.pop("custom_id", None)
    rest.pop("meta", None)
    try:
        if "body" in fields:
            body = rest.pop("body").copy()
            messages = body.pop("messages")
        else:
            messages = _messages(fields)
            for name in ("key", "prompt", "system", "messages"):
                rest.pop(name, None)
        roles = []
        for message in messages:
            text = message["content"]
            if len(message) != 2 or type(text) is not str or not text or text.isspace():
                return None, []
            if not text.isascii():
                text.encode()  # half a surrogate is a ValueError
            roles.append(message["role"])
        # Of JSON's types alone, and it tells 1 from 1.0 and True, and NaN from null.
        shape = marshal.dumps((type(messages) is list, rest, body, roles), 2)
    except (AttributeError, LookupError, TypeError, ValueError):
        return None, []
    return (shape if len(shape) <= MAX_SHAPE else None), messages


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
    check_known(fields, ENVELOPE)
    if fields.get("method", "POST") != "POST":
        raise ValueError("method is not POST")
    url = fields.get("url", "/v1/chat/completions")
    if not isinstance(url, str) or not url.endswith("/completions"):
        raise ValueError("url must be /v1/chat/completions or /v1/completions")
    body = fields["body"]
    if not isinstance(body, dict):
        raise ValueError("body is not an object")
    return body if url.endswith("/chat/completions") else _continued(body)


def _continued(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a text completion in the shape of one for chat."""
    if "prompt" not in body or "messages" in body:
        raise ValueError("no prompt" if "prompt" not in body else "messages in a text completion")
    rest = {k: v for k, v in body.items() if k != "prompt"}
    if type(count := rest.get("logprobs")) is int:  # the number of alternatives
        rest |= {"logprobs": True, "top_logprobs": count}
    return {**rest, "messages": _messages({"prompt": body["prompt"]})}


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the short form in the shape of a body."""
    check_known(fields, SHORT)
    body = {k: v for k, v in fields.items() if k not in _OURS}
    if "model" in fields:
        body["model"] = fields["model"]
    return {**body, "messages": _messages(fields)}


def _messages(fields: dict[str, Any]) -> Any:
    messages, prompt, system = fields.get("messages"), fields.get("prompt"), fields.get("system")
    if (messages is None) == (prompt is None):
        raise ValueError("give one of messages and prompt")
    if messages is None:
        messages = [{"role": "user", "content": prompt}]
    if system is not None and isinstance(messages, list):
        messages = [{"role": "system", "content": system}, *messages]
    return messages


def check_known(fields: Collection[str], known: frozenset[str], *, named: bool = False) -> None:
    """Raise ``ValueError`` for fields that are not known, with a hint at what was meant. ``named`` says
    that the fields are a dataset's, of which most are not meant to be ours.
    """
    unknown = sorted(set(fields) - known)
    if unknown:
        hint = _hint(unknown[0], known, 0.8 if named else 0.6)
        strict = "; strict keeps them out of meta" if named else ""
        raise ValueError(f"unknown field: {', '.join(unknown)[:200]}{hint}{strict}")


@lru_cache(maxsize=64)  # it takes 0.1 ms, and a dataset has the same fields in all lines
def _hint(name: str, known: frozenset[str], cutoff: float) -> str:
    close = get_close_matches(name, sorted(known), 1, cutoff)
    return f" (did you mean {close[0]}?)" if close else ""


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
                raise ValueError(f"{name} does not have OpenAI's shape") from None
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
