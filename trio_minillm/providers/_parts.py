"""Parts of an answer: content in lists, and text where no reference has it.

Servers put text and reasoning into objects and lists of many shapes, and under other names. They
are read by what the names say, so that no text is lost for want of a row in a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta
from .._types.errors import ProtocolError
from . import _coerce as coerce

MAX_ENTRIES: Final = 4096
"""Most choices, content parts, tool calls or reasoning details in one event. Real events have a few;
each becomes an object, and a hundred thousand would hold up every other task for a second."""

READ_AGAIN: Final = 64 * 1024
"""Bytes of the longest event that is read again as plain JSON, which takes many times as long."""
_Entry = TypeVar("_Entry")

_TEXTS = (
    *("text", "content", "value", "message", "output_text", "answer", "response", "summary"),
    *("delta", "data"),
)
"""Fields in which servers put the text of a part, or of a delta."""
_REASONING = (
    "(?:reasoning|thinking|think|thoughts?)(?:content|texts?|summary|delta|details|part|blocks?)?"
    "|reason(?:content|text)|summarytext"
)
"""Names of reasoning, as `_plain` writes them."""
_SEALED = "redacted|encrypted"
"""Types of parts whose data nobody can read."""
_PIECES = ("text", "content", "value", "delta")
_CALLS = ("tool_use", "tool_call", "function_call")
_BESIDE = "cit|refer|source|search|annot|image|audio|video|file|document|tool|function"
"""Types of parts whose text is not the answer's."""
_QUIET = frozenset(
    {
        *("role", "type", "id", "name", "index", "object", "model", "channel", "padding", "phase"),
        *("obfuscation", "logprobs", "token_ids", "prompt_token_ids", "content_filter_results"),
        *("stop_reason", "finish_reason", "matched_stop", "provider_specific_fields", "status"),
        *("function_call", "tool_calls", "content", "reasoning", "reasoning_content", "refusal"),
        *("reasoning_text", "thinking", "reasoning_details", "annotations", "audio", "images"),
        *("usage", "error", "signature", "reasoning_signature", "thought_signature", "created"),
        *("finishReason", "delta", "citations", "references", "sources", "context", "documents"),
        *("thinking_blocks", "executed_tools", "reasoning_steps", "extra_content", "tool_plan"),
        *("search_results", "metadata", "debug", "grounding_metadata", "cache_control"),
        "provider_metadata",
    }
)
"""Fields of a delta that are read elsewhere, or of which nobody misses anything."""
_NAME = "[A-Za-z][A-Za-z0-9_.-]{0,39}"


def _plain(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _is_reasoning(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(_REASONING, _plain(name[:40])) is not None


def bounded(entries: list[_Entry]) -> list[_Entry]:
    """Return the list, or raise `ProtocolError` if it has more than `MAX_ENTRIES`."""
    if len(entries) > MAX_ENTRIES:
        raise ProtocolError(
            f"one event lists more than {MAX_ENTRIES:,} choices, parts, calls or details"
        )
    return entries


def text_within(value: Any, depth: int = 4) -> str | None:
    """Return the text in a part: text, an object with text in one of its fields, or a list of those.

    ``None`` if there is none to be found.
    """
    if isinstance(value, str):
        return str(value)
    if type(value) in (int, float):
        return msgspec.json.encode(value).decode()
    if depth and isinstance(value, list):
        found = [text_within(entry, depth - 1) for entry in bounded(value)]
        return None if None in found else "".join(filter(None, found))
    if depth and isinstance(value, Mapping):
        if re.search(_SEALED, str(value.get("type"))):
            return ""
        fields = list(_text_fields(value))
        for key in fields:
            if value.get(key) is not None:
                return text_within(value[key], depth - 1)
        quiet = value.keys() <= {"type", "signature", "index", "id", "format", *fields}
        return "" if quiet else None
    return None


def _text_fields(part: Mapping[str, Any]) -> Iterator[str]:
    yield "text"
    yield from filter(_is_reasoning, part)
    yield from _TEXTS[1:]


# -- content in a list -----------------------------------------------------------------------


def add_parts(content: list[Any], out: StreamChunk) -> None:
    """Add content that came as a list: text and reasoning in parts of any shape, refusals, pictures,
    and references beside them.

    Raises `ProtocolError` for a text part whose text can't be read.
    """
    said: list[str] = []
    thought: list[str] = []
    others: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    calls: list[ToolCallDelta] = []
    for part in bounded(content):
        kind = _kind_of(part)
        if kind == "text":
            said.append(_text_of(part))
        elif kind == "reasoning":
            found = text_within(part)
            if found is None and any(part.get(k) is not None for k in part if _is_reasoning(k)):
                out.unread = (*out.unread, f"a content part of type {part.get('type')}"[:60])
            thought.append(found or "")
        elif kind == "refusal":
            out.refusal += text_within(part.get("refusal")) or ""
        elif kind == "image_url":
            images.append(coerce.clean(part))
        elif kind in _CALLS and isinstance(part.get("name"), str):
            calls.append(_call_of(part))
        else:
            others.append(coerce.clean(part))
    out.delta += "".join(said)
    out.reasoning += "".join(thought)
    out.images = (*out.images, *images)
    out.annotations = (*out.annotations, *others)
    out.tool_calls += tuple(calls)


def _kind_of(part: Any) -> str:
    """Return what a part is: ``text``, ``reasoning``, or else its own type."""
    if not isinstance(part, Mapping):
        return "text"
    kind = part.get("type")
    if part.get("thought") is True:  # Gemini's mark, through relays
        return "reasoning"
    if kind in ("text", "output_text", "input_text"):
        return "text"
    if _is_reasoning(kind) or (kind is None and any(map(_is_reasoning, part))):
        return "reasoning"
    if kind is None:
        return "text"
    word = kind if isinstance(kind, str) else ""
    text = next((part[key] for key in _PIECES if part.get(key)), None)
    by_words = text_within(text) is not None and re.search(_BESIDE, word.lower()) is None
    return "text" if by_words and word not in ("refusal", "image_url") else word


def _call_of(part: Mapping[str, Any]) -> ToolCallDelta:
    """Return the call in a part of Anthropic's kind, through a relay."""
    given = coerce.clean(part.get("input") or part.get("arguments") or {})
    arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    ident = part.get("id")
    return ToolCallDelta(None, ident if isinstance(ident, str) else None, part["name"], arguments)


def _text_of(part: Any) -> str:
    """Return the text of a text part, or of bare text in its place."""
    value = part
    if isinstance(part, Mapping):
        value = next((part[key] for key in _TEXTS if part.get(key) is not None), None)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    found = text_within(value)
    if found is None:
        raise ProtocolError("the text of choices[].delta.content[] is not text")
    return found


def visible(details: Iterable[Mapping[str, Any]]) -> str:
    """Return the readable text of OpenRouter's reasoning blocks."""
    found = (detail.get("text") or detail.get("summary") for detail in details)
    return "".join(text for text in found if isinstance(text, str))


# -- other places ----------------------------------------------------------------------------


def look_again(choice: Any, out: StreamChunk, *, whole: bool = False) -> None:
    """Add the text of a choice that seems to say nothing, from where the reference has none.

    ``choice`` is its decoded JSON, of a ``whole`` answer or of an event. What a delta has besides is
    noted in ``out.unread``. Raises nothing.
    """
    if not isinstance(choice, Mapping):
        return
    delta, message = choice.get("delta"), choice.get("message")
    delta = delta if isinstance(delta, Mapping) else {}
    _take_texts(delta, out, _TEXTS)
    if whole or out.finish_reason is None:  # beside a reason, they repeat all
        if isinstance(message, Mapping):
            _take_texts(message, out, _TEXTS)
        elif whole and isinstance(choice.get("messages"), list):
            _take_texts({"content": choice["messages"]}, out, ("content",))
        _take_texts(choice, out, ("text", "content", "output_text"))
    if out.delta or out.reasoning:
        out.progress = out.elsewhere = True
        return
    for name, value in list(delta.items())[:MAX_ENTRIES]:
        if value and isinstance(value, str | list | Mapping) and name not in _QUIET:
            shown = name if re.fullmatch(_NAME, name) else "a field of another name"
            out.unread = (*out.unread, f"choices[].delta.{shown}")


def _take_texts(found: Mapping[str, Any], out: StreamChunk, names: Iterable[str]) -> None:
    text, reasoning = texts_of(found, names)
    out.delta = out.delta or text
    out.reasoning = out.reasoning or reasoning


def texts_of(found: Mapping[str, Any], names: Iterable[str] = _TEXTS) -> tuple[str, str]:
    """Return the text in the first of these fields, and the reasoning in the first of its names."""
    text = reasoning = ""
    with suppress(ProtocolError):
        text = next(filter(None, (text_within(found.get(name)) for name in names)), "")
        thoughts = (text_within(found[n]) for n in list(found)[:MAX_ENTRIES] if _is_reasoning(n))
        reasoning = next(filter(None, thoughts), "")
    return text, reasoning


def wrapped_answer(found: Any) -> bytes | None:
    """Return the event or answer with choices that stands in a field of another object, if one does.

    Gateways wrap their upstream's: ``result`` at Cloudflare, ``data``, ``provider``.
    """
    inside = found.values() if isinstance(found, Mapping) else ()
    for value in inside:
        if not isinstance(value, Mapping) or type(value.get("choices")) is not list:
            continue
        if value["choices"] or value.get("usage"):  # the last event may have nothing else
            return msgspec.json.encode(value)
    return None


def texts_beside(found: Any) -> tuple[str, ...]:
    """Return the names of fields with text in an event without choices, which nobody reads."""
    if not isinstance(found, Mapping):
        return ()
    with suppress(ProtocolError):  # a list too long to be looked at
        return tuple(n for n in ("content", "delta", "text") if text_within(found.get(n)))
    return ()
