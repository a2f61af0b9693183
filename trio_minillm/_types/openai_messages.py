"""Messages in OpenAI's JSON format, which many programs and datasets have, as `Message` values.

Nothing is dropped silently: what can't be converted is a ``ValueError`` that says which message
it is in, without showing it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .messages import (
    AudioPart,
    CacheHint,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    TokensPart,
    ToolCall,
    ToolResult,
    document,
    image,
    user,
)


def messages_of(
    given: str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any] | int],
) -> tuple[Message, ...]:
    """Return the messages of a call: a string is one user turn, a single message stands for itself,
    and a list of numbers is a prompt by the ids of its tokens.

    Mappings in OpenAI's format are converted (`message_of`). Raises ``TypeError`` or ``ValueError``
    that says which message is wrong, without showing it.
    """
    if isinstance(given, str):
        return (user(given),)
    items: Any = (given,) if isinstance(given, Message | Mapping) else given
    if isinstance(items, _NO_MESSAGES) or not isinstance(items, Iterable):
        hint = ": put parts into llm.user(…)" if isinstance(items, Part) else ""
        kind = type(items).__name__
        raise TypeError(
            f"messages must be a prompt, a message or a list of messages, not {kind}{hint}"
        )
    out: list[Message] = []
    for number, item in enumerate(items):
        if isinstance(item, Message):
            out.append(item)
        elif isinstance(item, Mapping):
            try:
                out.append(message_of(item))
            except ValueError as exc:
                raise ValueError(f"messages[{number}]: {exc}") from None
        elif number == 0 and type(item) is int and isinstance(given, Sequence):
            return (user(TokensPart(tuple(given))),)  # type: ignore[arg-type]
        else:
            raise TypeError(f"messages[{number}] is of type {type(item).__name__}, not a Message")
    if not out:
        raise ValueError("there is no message")
    return tuple(out)


_NO_MESSAGES = (bytes, bytearray, memoryview)


def message_of(raw: Mapping[str, Any]) -> Message:
    """Return the `Message` for a message in OpenAI's JSON format.

    Raises ``ValueError`` for anything that a `Message` can't hold. The error does not show the
    content.
    """
    try:
        return _message(raw)
    except KeyError as exc:
        raise ValueError(f"no {exc}") from None
    except (AttributeError, TypeError):
        raise ValueError("not in the shape of an OpenAI message") from None


def _message(raw: Mapping[str, Any]) -> Message:
    role = raw["role"]
    if role in ("tool", "function"):
        return _tool_message(raw)
    if role not in ("system", "developer", "user", "assistant"):
        raise ValueError("unknown role")
    parts = _reasoning(raw) + _content(
        raw.get("content") if role == "assistant" else raw["content"]
    )
    parts += [_call(call) for call in raw.get("tool_calls") or ()]
    if raw.get("function_call"):
        old = raw["function_call"]
        parts.append(
            ToolCall(
                id=_text(old, "name"), name=_text(old, "name"), arguments=_text(old, "arguments")
            )
        )
    if raw.get("refusal"):
        parts.append(RefusalPart(_text(raw, "refusal")))
    return Message(role=role, parts=tuple(parts), name=raw.get("name"))


def _tool_message(raw: Mapping[str, Any]) -> Message:
    answer = _content(raw.get("content"))
    good = tuple(p for p in answer if isinstance(p, TextPart | ImagePart | DocumentPart))
    if len(good) != len(answer):
        raise ValueError("a tool result has text, images and documents only")
    ident = _text(raw, "tool_call_id" if raw.get("tool_call_id") else "name")
    result = ToolResult(call_id=ident, name=raw.get("name"), content=good)
    return Message(role="tool", parts=(result,))


def _reasoning(raw: Mapping[str, Any]) -> list[Part]:
    """Return OpenRouter's blocks, or else the plain text that other servers want back.

    Blocks of other formats (Anthropic's, in the results of a batch) do not say which address they
    are from, so only their text is kept.
    """
    details = [dict(d) for d in raw.get("reasoning_details") or ()]
    if details:
        return [
            ReasoningPart(wire="openrouter", raw=d, text=_visible(d))
            if str(d.get("type")).startswith("reasoning.")
            else ReasoningPart(text=_visible(d))
            for d in details
        ]
    text = raw.get("reasoning_content") or raw.get("reasoning")
    if text is not None and not isinstance(text, str):
        raise ValueError("reasoning is not text")
    return [ReasoningPart(text=text)] if text else []


def _visible(detail: Mapping[str, Any]) -> str:
    text = detail.get("text") or detail.get("summary") or detail.get("thinking") or ""
    return text if isinstance(text, str) else ""


def _content(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    if content and isinstance(content, list) and type(content[0]) is int:
        return [TokensPart(tuple(content))]
    return [_part(item) for item in content]


def _call(raw: Mapping[str, Any]) -> ToolCall:
    extra = {"extra_content": raw["extra_content"]} if raw.get("extra_content") else None
    if raw.get("type") == "custom":
        body = raw["custom"]
        return ToolCall(
            id=_text(raw, "id"),
            name=_text(body, "name"),
            arguments=_text(body, "input"),
            type="custom",
        )
    body = raw["function"]
    arguments = _text(body, "arguments")
    return ToolCall(id=_text(raw, "id"), name=_text(body, "name"), arguments=arguments, extra=extra)


def _part(raw: Mapping[str, Any]) -> Part:
    kind = raw["type"]
    cache = _cache(raw)
    if kind == "text":
        return TextPart(_text(raw, "text"), cache)
    if kind == "refusal":
        return RefusalPart(_text(raw, "refusal"))
    if kind == "image_url":
        inner = raw["image_url"]
        return image(_text(inner, "url"), detail=inner.get("detail"), cache=cache)
    if kind == "input_audio":
        inner = raw["input_audio"]
        data = _bytes(_text(inner, "data"))
        return AudioPart(data=data, media_type=f"audio/{_text(inner, 'format')}", cache=cache)
    if kind == "file":
        inner = raw["file"]
        title = inner.get("filename")
        if "file_id" in inner:
            return DocumentPart(file_id=_text(inner, "file_id"), title=title, cache=cache)
        return document(_text(inner, "file_data"), title=title, cache=cache)
    raise ValueError("unknown kind of content part")


def _cache(raw: Mapping[str, Any]) -> CacheHint:
    mark = raw.get("cache_control")
    return None if not mark else mark.get("ttl") or True


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is not text")
    return value


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("data is not base64") from None
