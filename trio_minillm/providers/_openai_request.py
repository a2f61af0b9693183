"""Build the JSON body of a request to OpenAI chat completions, from neutral types.

The differences between the servers that speak this format are the fields of `Dialect`; the shapes
are those of OpenAI's and OpenRouter's references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from .._types.messages import (
    AudioPart,
    CacheHint,
    DocumentPart,
    ImagePart,
    MediaPart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from .._types.params import Reasoning, reasoning_of
from .._types.tools import Tool, tools_of
from ._base import Request, refuse_others, take
from ._formats import FORMATS, Formats, response_format
from ._schemas import strict_parameters


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """The differences between one server's requests and OpenAI's; the defaults are OpenAI's own."""

    max_tokens: str = "max_completion_tokens"
    """Name of the field that bounds the output."""
    seed: str = "seed"
    """Name of the field for the seed."""
    developer: str = "developer"
    """Role that developer messages get."""
    cache_control: bool = False
    """True if text parts and tools carry cache breakpoints (elsewhere caching is automatic)."""
    any_tool_content: bool = False
    """True if a tool result may contain images and documents."""
    document_urls: bool = False
    """True if documents may be given by URL."""
    reasoning: Callable[[Reasoning], dict[str, Any]] | None = None
    """Function that returns the fields of the body for ``reasoning=``; by default only an effort is
    taken."""
    replay: Callable[[list[ReasoningPart]], dict[str, Any]] | None = None
    """Function that returns the fields of an assistant message with the reasoning to send back; by
    default none is."""
    replay_beside_calls: bool = False
    """True if an assistant turn with tool calls must have a reasoning field, even an empty one."""
    bare_media: bool = False
    """True if audio and documents are sent as bare strings (Mistral's shapes)."""
    formats: Formats = FORMATS["openai"]
    """Formats of answers that the server has."""
    stream_usage: bool = True
    """True if usage is asked for with ``stream_options``."""
    extra_params: tuple[str, ...] = ()
    """Typed parameters other than OpenAI's that are sent under their own name."""
    without: tuple[str, ...] = ()
    """Typed parameters of OpenAI's that the server refuses."""


_OWN = (
    *("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs"),
    *("top_logprobs", "n", "parallel_tool_calls", "verbosity", "modalities", "audio", "store"),
    *("metadata", "user", "service_tier", "moderation", "web_search_options", "prompt_cache_key"),
    *("prompt_cache_retention", "prompt_cache_options", "safety_identifier"),
)

_SHAPED = {
    *("max_tokens", "seed", "stop", "tools", "tool_choice", "response_format", "reasoning"),
    *("prediction", "cache", "include_obfuscation", "stream_options"),
}

_FIELDS = {
    *("model", "stop", "tools", "tool_choice", "response_format"),
    *("prediction", "stream_options", "max_tokens", "max_completion_tokens"),
}


def _table(dialect: Dialect) -> dict[str, str]:
    """Return the typed parameters that are sent unchanged, each with its name in the body."""
    names = (*_OWN, *dialect.extra_params)
    table = {name: name for name in names if name not in dialect.without}
    return table | {"max_tokens": dialect.max_tokens, "seed": dialect.seed}


def typed_fields(dialect: Dialect) -> frozenset[str]:
    """Return the fields of the body that typed parameters decide."""
    return frozenset(_FIELDS) | frozenset(_table(dialect).values())


def chat_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Return the body of a streaming request.

    Raises ``ValueError`` for a parameter or a part that the wire format does not have.
    """
    table = _table(dialect)
    refuse_others(request, set(table) | _SHAPED)
    params = request.params
    body: dict[str, Any] = {
        "model": request.model.name,
        "messages": [m for message in request.messages for m in _message(message, dialect)],
        "stream": True,
        **take(request, table),
    }
    options: dict[str, Any] = {}
    if request.expect_usage and dialect.stream_usage:
        options["include_usage"] = True
    if "include_obfuscation" in params:
        options["include_obfuscation"] = params["include_obfuscation"]
    options |= params.get("stream_options", {})
    if options:
        body["stream_options"] = options
    if "stop" in params:
        stop = params["stop"]
        body["stop"] = [stop] if isinstance(stop, str) else list(stop)
    if params.get("tools"):  # servers refuse an empty list
        body["tools"] = [_tool(t, dialect) for t in tools_of(params["tools"])]
    if "tool_choice" in params:
        body["tool_choice"] = _tool_choice(params["tool_choice"])
    if "response_format" in params:
        body["response_format"] = response_format(params["response_format"], dialect.formats)
    if "reasoning" in params:
        encode = dialect.reasoning or _effort
        body |= encode(reasoning_of(params["reasoning"]))
    if "prediction" in params:
        given = params["prediction"]
        whole = {"type": "content", "content": given} if isinstance(given, str) else dict(given)
        body["prediction"] = whole
    if params.get("cache") and dialect.cache_control:
        body["cache_control"] = _mark(params["cache"])
    return body


def _effort(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.budget is not None or reasoning.summary or reasoning.exclude:
        raise ValueError(
            "this wire format takes reasoning effort only: no budget, summary or exclude"
        )
    if reasoning.effort is None:
        return {"reasoning_effort": "none"} if reasoning.enabled is False else {}
    return {"reasoning_effort": reasoning.effort}


# -- messages --------------------------------------------------------------------------------


def _message(message: Message, dialect: Dialect) -> Iterable[dict[str, Any]]:
    if message.role == "tool":
        for part in message.parts:
            if not isinstance(part, ToolResult):
                raise ValueError("a tool message is made of tool results")
            yield _tool_result(part, dialect)
        return
    role = dialect.developer if message.role == "developer" else message.role
    out: dict[str, Any] = {"role": role}
    if message.name is not None:
        out["name"] = message.name
    if message.role == "assistant":
        out |= _assistant(message, dialect)
    else:
        out["content"] = _content(message.parts, dialect)
    yield out


def _tool_result(result: ToolResult, dialect: Dialect) -> dict[str, Any]:
    if not dialect.any_tool_content and any(not isinstance(p, TextPart) for p in result.content):
        raise ValueError("in this wire format a tool result has text only")
    parts = list(result.content)
    if result.cache and parts and isinstance(parts[-1], TextPart):
        parts[-1] = TextPart(parts[-1].text, result.cache)
    content = _content(parts, dialect)
    return {"role": "tool", "tool_call_id": result.call_id, "content": content}


def _assistant(message: Message, dialect: Dialect) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, MediaPart | ToolResult):
            raise ValueError(f"a {type(part).__name__} can't be in an assistant message")
    said = [p for p in message.parts if isinstance(p, TextPart)]
    calls = [p for p in message.parts if isinstance(p, ToolCall)]
    refusals = [p.text for p in message.parts if isinstance(p, RefusalPart)]
    thoughts = [p for p in message.parts if isinstance(p, ReasoningPart)]
    if any(p.cache for p in said) and dialect.cache_control:
        out["content"] = _content(said, dialect)
    else:
        out["content"] = "".join(p.text for p in said) if said else None
    if refusals:
        out["refusal"] = "".join(refusals)
    if calls:
        out["tool_calls"] = [_call(c) for c in calls]
    elif out["content"] is None and not refusals:
        out["content"] = ""
    if dialect.replay is not None and (thoughts or (calls and dialect.replay_beside_calls)):
        out |= dialect.replay(thoughts)
    return out


def _call(call: ToolCall) -> dict[str, Any]:
    if call.type == "custom":
        body: dict[str, Any] = {"custom": {"name": call.name, "input": call.arguments}}
    else:
        # Servers parse this string, and refuse an empty one, which models do send.
        body = {"function": {"name": call.name, "arguments": call.arguments or "{}"}}
    extra = {k: v for k, v in (call.extra or {}).items() if k == "extra_content"}
    return {"id": call.id, "type": call.type, **body, **extra}


def _content(parts: Iterable[Part], dialect: Dialect) -> str | list[dict[str, Any]]:
    given = list(parts)
    plain = [p.text for p in given if isinstance(p, TextPart) and not _marked(p, dialect)]
    if len(plain) == len(given) <= 1:
        return "".join(plain)
    return [_part(p, dialect) for p in given]


def _marked(part: Part, dialect: Dialect) -> bool:
    return dialect.cache_control and isinstance(part, TextPart) and bool(part.cache)


def _mark(cache: CacheHint) -> dict[str, Any]:
    return {"type": "ephemeral"} if cache is True else {"type": "ephemeral", "ttl": cache}


def _part(part: Part, dialect: Dialect) -> dict[str, Any]:
    if isinstance(part, TextPart):
        out: dict[str, Any] = {"type": "text", "text": part.text}
    elif isinstance(part, ImagePart):
        out = {"type": "image_url", "image_url": {"url": _url(part)}}
        if part.detail:
            out["image_url"]["detail"] = part.detail
    elif isinstance(part, AudioPart):
        if part.data is None:
            raise ValueError("audio must be given as bytes in this wire format")
        audio: Any = {"data": part.base64(), "format": part.format}
        out = {"type": "input_audio", "input_audio": part.base64() if dialect.bare_media else audio}
    elif isinstance(part, DocumentPart) and dialect.bare_media and part.file_id is None:
        out = {"type": "document_url", "document_url": part.data_url()}
    elif isinstance(part, DocumentPart):
        out = {"type": "file", "file": _file(part, dialect)}
    else:
        raise ValueError(f"a {type(part).__name__} can't be in this message")
    if isinstance(part, TextPart) and _marked(part, dialect):
        out["cache_control"] = _mark(part.cache)
    return out


def _url(part: MediaPart) -> str:
    if part.file_id is not None:
        raise ValueError("this wire format takes images as bytes or URL, not by file id")
    return part.data_url()


def _file(part: DocumentPart, dialect: Dialect) -> dict[str, Any]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    if part.url is not None and not dialect.document_urls:
        raise ValueError("this wire format takes documents as bytes or by file id, not by URL")
    return {"filename": part.title or "document", "file_data": part.data_url()}


# -- tools ----------------------------------------------------------------------------------


def _tool(tool: Tool | dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    if isinstance(tool, dict):
        return tool
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
        if tool.strict:
            function["parameters"] = strict_parameters(tool, dialect.formats.strict)
    out: dict[str, Any] = {"type": "function", "function": function}
    if tool.cache and dialect.cache_control:
        out["cache_control"] = _mark(tool.cache)
    return out


def _tool_choice(choice: str | Tool | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, Tool):
        choice = choice.name
    elif isinstance(choice, Mapping):
        return dict(choice)
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}
