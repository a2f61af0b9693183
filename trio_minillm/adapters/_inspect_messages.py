"""Translation of messages and answers between inspect_ai and this library."""

from __future__ import annotations

from typing import Any

import msgspec
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    Content,
    ContentAudio,
    ContentData,
    ContentDocument,
    ContentImage,
    ContentReasoning,
    ContentText,
)
from inspect_ai.tool import ToolCall as TheirCall

from .._types.messages import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
    audio,
    document,
    image,
)
from .._types.response import Choice

OURS = "trio_minillm"
"""The key under which a message of inspect's keeps what only this library and the provider need."""


def to_ours(message: ChatMessage) -> Message:
    """Translate a message of inspect's.

    Raises ``ValueError`` for content that no wire format has (video).
    """
    content = message.content
    parts: list[Part] = (
        [TextPart(content)] if isinstance(content, str) else [_part(one) for one in content]
    )
    if isinstance(message, ChatMessageTool):
        return Message(role="tool", parts=(_result(message, parts),))
    calls: list[Part] = []
    if isinstance(message, ChatMessageAssistant):
        parts = [part for part in parts if not (isinstance(part, TextPart) and not part.text)]
        extras = ((message.metadata or {}).get(OURS) or {}).get("calls", {})
        calls = [_call(call, extras.get(call.id)) for call in message.tool_calls or ()]
    return Message(role=message.role, parts=(*parts, *calls))


def _result(message: ChatMessageTool, parts: list[Part]) -> ToolResult:
    if message.error is not None:
        parts = [TextPart(f"Error: {message.error.message}")]
    return ToolResult(
        call_id=message.tool_call_id or "",
        name=message.function,
        content=tuple(parts),  # type: ignore[arg-type]  # the provider raises for what it can't carry
        is_error=message.error is not None,
    )


def _part(content: Content) -> Part:
    if isinstance(content, ContentText):
        if content.refusal:
            return RefusalPart(content.text)
        return TextPart(content.text, cache=content.cache_breakpoint or None)
    if isinstance(content, ContentReasoning):
        kept = content.internal
        if isinstance(kept, dict) and OURS in kept:
            return msgspec.convert(kept[OURS], ReasoningPart)
        text = (content.summary or "") if content.redacted else content.reasoning
        return ReasoningPart(text=text, signature=content.signature)
    if isinstance(content, ContentData) and OURS in content.data:
        return msgspec.convert(content.data[OURS], OpaquePart)
    if isinstance(content, ContentImage):
        detail = "high" if content.detail == "original" else content.detail
        return image(_inline(content.image), detail=None if detail == "auto" else detail)
    if isinstance(content, ContentAudio):
        return audio(_inline(content.audio), media_type=f"audio/{content.format}")
    if isinstance(content, ContentDocument):
        return document(
            _inline(content.document), title=content.filename, citations=content.citations
        )
    raise ValueError(f"no wire format of trio_minillm supports {content.type} content")


def _inline(source: str) -> str:
    """Return the source. Raises ``ValueError`` if it is no URL.

    Inspect reads files before it asks a model, so a path here would come from a model's words, and
    must not be opened.
    """
    if not source.startswith(("data:", "https://", "http://")):
        raise ValueError("media must be data: or https: URLs")
    return source


def _call(call: TheirCall, extra: dict[str, Any] | None) -> ToolCall:
    if call.type == "custom":
        text = str(call.arguments.get("input", ""))
        return ToolCall(id=call.id, name=call.function, arguments=text, type="custom", extra=extra)
    arguments = msgspec.json.encode(call.arguments).decode()
    return ToolCall(id=call.id, name=call.function, arguments=arguments, extra=extra)


def from_ours(choice: Choice, model: str) -> ChatMessageAssistant:
    """Translate an answer. Calls that must not be executed carry inspect's ``parse_error``."""
    contents = [one for part in choice.parts for one in _content(part)]
    plain = [one.text for one in contents if isinstance(one, ContentText) and one == _plain(one)]
    calls = [_their_call(call, None) for call in choice.tool_calls]
    calls += [
        _their_call(call, "the call was cut short or its arguments are not JSON")
        for call in choice.invalid_tool_calls
    ]
    extras = {call.id: call.extra for call in choice.tool_calls if call.extra}
    return ChatMessageAssistant(
        content="".join(plain) if len(plain) == len(contents) else contents,
        tool_calls=calls or None,
        model=model,
        source="generate",
        metadata={OURS: {"calls": extras}} if extras else None,
    )


def _plain(text: ContentText) -> ContentText:
    return ContentText(text=text.text)


def _content(part: Part) -> list[Content]:
    if isinstance(part, TextPart):
        return [ContentText(text=part.text, citations=_citations(part) or None)]
    if isinstance(part, RefusalPart):
        return [ContentText(text=part.text, refusal=True)]
    if isinstance(part, ReasoningPart):
        kept: Any = {OURS: msgspec.to_builtins(part)}
        hidden = part.encrypted is not None or not part.text
        return [
            ContentReasoning(
                reasoning=part.encrypted or part.text,
                summary=part.text if hidden and part.text else None,
                signature=part.signature,
                redacted=hidden,
                internal=kept,
            )
        ]
    if isinstance(part, OpaquePart):
        opaque: Any = {OURS: msgspec.to_builtins(part)}
        return [ContentData(data=opaque)]
    return []


def _citations(part: TextPart) -> list[Any]:
    """Return the provider's citations as they came, with the fields that inspect's have."""
    found: list[Any] = []
    for raw in part.citations:
        title = raw.get("title") or raw.get("document_title")
        known = {"cited_text": raw.get("cited_text"), "title": title, "internal": raw}
        if isinstance(raw.get("url"), str):
            found.append({"type": "url", "url": raw["url"], **known})
        else:
            found.append({"type": "content", **known})
    return found


def _their_call(call: ToolCall, error: str | None) -> TheirCall:
    if call.type == "custom":
        arguments: dict[str, Any] = {"input": call.arguments}
    else:
        arguments = {} if error else call.parsed(dict[str, Any])
    return TheirCall(
        id=call.id,
        function=call.name,
        arguments=arguments,
        parse_error=error,
        type=call.type,
    )
