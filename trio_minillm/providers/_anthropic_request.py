"""Build the JSON body of a request to Anthropic Messages, from neutral types.

Rules of the format: instructions are a field at the top level, wherever they stood in the
conversation; roles alternate, so neighbouring turns of one role are merged; ``max_tokens`` is
required; an empty text block is refused, so it is left out. The shapes are those of Anthropic's
API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .._types.messages import (
    CacheHint,
    DocumentPart,
    ImagePart,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from .._types.params import JSONSchema, Reasoning, format_of, reasoning_of
from .._types.schemas import in_object
from .._types.tools import Tool, tools_of
from ._base import Request, refuse_others, take
from ._schemas import ANTHROPIC, Unfit, strict_parameters, strict_schema

DEFAULT_MAX_TOKENS = 8192
"""Tokens that an answer may have unless the caller says: the format requires a number, and every
model since Claude 3.5 allows this one. A reasoning budget is added to it."""

CALL_FIELDS = ("caller", "toolset_name")
"""Fields of a ``tool_use`` block that are sent back with it."""

_SAME = {
    *("temperature", "top_p", "top_k", "service_tier", "container", "context_management"),
    *("mcp_servers", "inference_geo", "speed"),
}
_SHAPED = {
    *("max_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("reasoning", "user", "metadata", "cache", "betas"),
}
TYPED_FIELDS = frozenset(_SAME) | {
    *("model", "max_tokens", "stop_sequences", "tools", "tool_choice", "metadata", "system"),
}
"""Fields of the body that typed parameters decide."""


def messages_body(request: Request) -> dict[str, Any]:
    """Return the body of a streaming request.

    Raises ``ValueError`` for a parameter or a part that the wire format does not have.
    """
    refuse_others(request, _SAME | _SHAPED)
    params = request.params
    system, turns = _turns(request.messages)
    body: dict[str, Any] = {
        "model": request.model.name,
        "messages": turns,
        "max_tokens": params.get("max_tokens", DEFAULT_MAX_TOKENS),
        "stream": True,
        **take(request, {name: name for name in _SAME}),
    }
    if system:
        body["system"] = system
    if "stop" in params:
        stop = params["stop"]
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if params.get("tools"):
        body["tools"] = [_tool(t) for t in tools_of(params["tools"])]
    choice = _tool_choice(params.get("tool_choice"), params.get("parallel_tool_calls"))
    if choice is not None:
        body["tool_choice"] = choice
    _thinking(body, params)
    if "response_format" in params:
        _format(body, params["response_format"])
    metadata = dict(params.get("metadata", {}))
    if "user" in params:
        metadata["user_id"] = params["user"]
    if metadata:
        body["metadata"] = metadata
    if params.get("cache"):
        body["cache_control"] = _mark(params["cache"])
    return body


def _thinking(body: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Add reasoning to the body: older models take a budget, newer ones an effort, never both."""
    if "reasoning" not in params:
        return
    wanted: Reasoning = reasoning_of(params["reasoning"])
    if wanted.enabled is False or wanted.effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    if wanted.budget is not None:
        body["thinking"] = {"type": "enabled", "budget_tokens": wanted.budget}
        if "max_tokens" not in params:
            body["max_tokens"] += wanted.budget
    else:
        body["thinking"] = {"type": "adaptive"}
        if wanted.effort is not None:
            body["output_config"] = {"effort": wanted.effort}
    if wanted.summary is not None or wanted.exclude is not None:
        body["thinking"]["display"] = "omitted" if wanted.exclude else "summarized"


def _format(body: dict[str, Any], given: Any) -> None:
    wanted = format_of(given)
    if wanted == "text":
        return
    if wanted == "json":
        raise ValueError("this wire format has no free JSON mode: give a schema or a type")
    if isinstance(wanted, JSONSchema):
        try:
            schema = strict_schema(in_object(wanted.schema), ANTHROPIC)
        except Unfit as unfit:
            raise ValueError(
                f"response_format: {unfit}; or use a tool without strict, with tool_choice="
            ) from None
        wanted = {"type": "json_schema", "schema": schema}
    body.setdefault("output_config", {})["format"] = wanted


# -- messages --------------------------------------------------------------------------------


def _turns(messages: tuple[Message, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        blocks = [b for part in message.parts if (b := _block(part)) is not None]
        if message.role in ("system", "developer"):
            system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _block(part: Part) -> dict[str, Any] | None:
    """Return a part as a block; ``None`` for one that is left out.

    Left out are empty texts, and the reasoning and opaque blocks of other wire formats.
    """
    if isinstance(part, OpaquePart):
        return part.raw if part.wire == "anthropic" else None
    if isinstance(part, ReasoningPart):
        return _reasoning(part)
    block = _content_block(part)
    cache = getattr(part, "cache", None)
    if block is not None and cache:
        block["cache_control"] = _mark(cache)
    return block


def _reasoning(part: ReasoningPart) -> dict[str, Any] | None:
    if part.wire != "anthropic":
        return None
    if part.raw is not None:
        return part.raw
    if part.encrypted is not None:
        return {"type": "redacted_thinking", "data": part.encrypted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}


def _content_block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        block: dict[str, Any] = {"type": "text", "text": part.text}
        if part.citations:
            block["citations"] = list(part.citations)
        return block if part.text else None
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _source(part)}
    if isinstance(part, DocumentPart):
        return _document(part)
    if isinstance(part, ToolCall):
        return _tool_use(part)
    if isinstance(part, ToolResult):
        return _result(part)
    raise ValueError(f"this wire format has no {type(part).__name__}")


def _tool_use(call: ToolCall) -> dict[str, Any]:
    try:
        given = call.parsed(dict[str, Any])
    except msgspec.MsgspecError:
        raise ValueError(f"the arguments of call {call.id} are not a JSON object") from None
    extra = {k: v for k, v in (call.extra or {}).items() if k in CALL_FIELDS}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given, **extra}


def _result(part: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.call_id}
    content = [b for p in part.content if (b := _block(p)) is not None]
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        block["content"] = content[0]["text"]
    elif content:
        block["content"] = content
    if part.is_error:
        block["is_error"] = True
    return block


def _document(part: DocumentPart) -> dict[str, Any]:
    if part.data is not None and (part.media_type or "").startswith("text/"):
        text = part.data.decode("utf-8", "replace")
        source: dict[str, Any] = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        source = _source(part)
    block: dict[str, Any] = {"type": "document", "source": source}
    if part.title:
        block["title"] = part.title
    if part.context:
        block["context"] = part.context
    if part.citations:
        block["citations"] = {"enabled": True}
    return block


def _source(part: MediaPart) -> dict[str, Any]:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.base64()}


def _mark(cache: CacheHint) -> dict[str, Any]:
    return {"type": "ephemeral"} if cache is True else {"type": "ephemeral", "ttl": cache}


# -- tools -----------------------------------------------------------------------------------


def _tool(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    if isinstance(tool, dict):
        return tool
    out: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        out["description"] = tool.description
    if tool.strict:
        out |= {"strict": True, "input_schema": strict_parameters(tool, ANTHROPIC)}
    if tool.cache:
        out["cache_control"] = _mark(tool.cache)
    return out


def _tool_choice(choice: Any, parallel: bool | None) -> dict[str, Any] | None:
    out: dict[str, Any]
    if isinstance(choice, Mapping):
        out = dict(choice)
    elif isinstance(choice, Tool):
        out = {"type": "tool", "name": choice.name}
    elif choice is not None:
        simple = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
        known = choice in simple
        out = {"type": simple[choice]} if known else {"type": "tool", "name": choice}
    elif parallel is None:
        return None
    else:
        out = {"type": "auto"}
    if parallel is not None and out.get("type") != "none":
        out["disable_parallel_tool_use"] = not parallel
    return out
