"""Build the JSON body of a request to Gemini's ``streamGenerateContent``, from neutral types.

Rules of the format: instructions are a field of their own, wherever they stood in the conversation;
a conversation begins with the user; a turn with calls is followed by one with their results, and
neighbouring turns of one role are merged. An empty text is refused, so it is left out. Sampling and
formats are fields of ``generationConfig``. The shapes are those of Google's API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .._types.messages import (
    DocumentPart,
    MediaPart,
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
from .._types.tools import Tool, choice_of, tools_of
from ._base import Request, refuse_others, take
from ._chat_messages import UNCHECKED_SIGNATURE, arguments_of
from ._history import OPENING, CallIds, paired
from ._schemas import GEMINI, Unfit, strict_schema
from ._tool_schemas import checked_name, parameters_of

_SAMPLING = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "n": "candidateCount",
}
"""Parameters that are sent unchanged in ``generationConfig``, with their names there."""
_SHAPED = {
    *("stop", "tools", "tool_choice", "response_format", "reasoning", "modalities"),
    *("service_tier", "cache"),
}
NESTED_FIELDS = frozenset({"generationConfig", "toolConfig"})
TYPED_FIELDS = frozenset({"contents", "systemInstruction", "tools", "serviceTier", "model"})
"""Fields of the body that typed parameters decide."""

IDS = CallIds(".+", any_name=False)
"""Any id will do, since only the server's own are sent. Names of functions are letters, digits, ``_``,
``-``, ``.`` and ``:`` (reference of ``FunctionDeclaration``)."""

EFFORT_TOKENS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens for thoughts that an effort stands for, where a model has no levels of it (Gemini 2.5).
Source: Google's page on OpenAI compatibility, "Thinking"."""


def contents_body(request: Request) -> dict[str, Any]:
    """Return the body of a streaming request.

    Raises ``ValueError`` for a parameter or a part that the wire format does not have.
    """
    if request.params:
        refuse_others(request, _SAMPLING.keys() | _SHAPED)
    params = request.params
    system, contents = _contents(request)
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    tools = tools_of(params.get("tools", ()))
    if tools:
        body["tools"] = _tools(tools)
    if tools or "tools" not in params:  # a choice among no tools is refused
        config = _tool_config(params, tools)
        if config:
            body["toolConfig"] = config
    generation = _generation(request)
    if generation:
        body["generationConfig"] = generation
    if "service_tier" in params:
        body["serviceTier"] = params["service_tier"]
    return body


def _generation(request: Request) -> dict[str, Any]:
    params = request.params
    out = take(request, _SAMPLING)
    if "stop" in params:
        stop = params["stop"]
        out["stopSequences"] = [stop] if isinstance(stop, str) else list(stop)
    if "modalities" in params:
        out["responseModalities"] = [str(one).upper() for one in params["modalities"]]
    if "response_format" in params:
        out |= _format(params["response_format"])
    if "reasoning" in params:
        out["thinkingConfig"] = _thinking(reasoning_of(params["reasoning"]), request.model.name)
    return out


def _format(given: Any) -> dict[str, Any]:
    wanted = format_of(given)
    if wanted == "text":
        return {}
    if wanted == "json":
        return {"responseMimeType": "application/json"}
    if not isinstance(wanted, JSONSchema):
        return wanted  # fields of `generationConfig`
    schema = in_object(wanted.schema)
    if wanted.strict:
        with suppress(Unfit):  # it has one mode for every schema
            schema = strict_schema(schema, GEMINI)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _thinking(wanted: Reasoning, model: str) -> dict[str, Any]:
    """Return ``thinkingConfig``: Gemini 3 takes levels, older models a number of tokens."""
    if wanted.enabled is False or wanted.effort == "none":
        return {"thinkingBudget": 0}
    out: dict[str, Any] = {"includeThoughts": not wanted.exclude}
    if wanted.budget is not None:
        out["thinkingBudget"] = wanted.budget
    elif wanted.effort is not None and is_older(model):
        if wanted.effort not in EFFORT_TOKENS:
            raise ValueError(f"reasoning effort must be one of {', '.join(EFFORT_TOKENS)}, or none")
        out["thinkingBudget"] = EFFORT_TOKENS[wanted.effort]
    elif wanted.effort is not None:
        out["thinkingLevel"] = wanted.effort
    return out


def is_older(model: str) -> bool:
    """Return True for the models before Gemini 3."""
    return re.search(r"gemini-[12]\b", model) is not None


# -- messages --------------------------------------------------------------------------------


def _contents(request: Request) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of the instructions, and the turns.

    Raises ``ValueError`` if nothing is left to be sent.
    """
    model = request.model
    wire = model.provider.wire_at(model)
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    calls: dict[str, ToolCall] = {}  # by their ids
    for message in paired(request.messages, IDS):
        calls |= {part.id: part for part in message.parts if isinstance(part, ToolCall)}
        parts = _parts(message.parts, wire, model.name, calls)
        if message.role == "assistant" and not is_older(model.name):
            _sign(parts)
        if not parts:
            continue
        if message.role in ("system", "developer"):
            system += parts
            continue
        role = "model" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    if not turns:
        raise ValueError("no message has text or another part to send")
    if turns[0]["role"] == "model":
        turns.insert(0, {"role": "user", "parts": [{"text": OPENING}]})
    return system, turns


def _sign(parts: list[dict[str, Any]]) -> None:
    """Mark a turn's calls as made by another model, if the first of them has no signature.

    Gemini 3 demands one of the first call of each step, and takes this in its place.
    """
    first = next((part for part in parts if "functionCall" in part), None)
    if first is not None:
        first.setdefault("thoughtSignature", UNCHECKED_SIGNATURE)


def _parts(
    given: Sequence[Part], wire: str, model: str, calls: Mapping[str, ToolCall]
) -> list[dict[str, Any]]:
    """Return a message's parts, those of Gemini's own wire as they came.

    Left out are empty texts, thoughts without a signature, which tell the model nothing, and the
    reasoning and opaque blocks of other wires.
    """
    out: list[dict[str, Any]] = []
    for part in given:
        if isinstance(part, OpaquePart):
            if part.wire == wire:
                _add_opaque(part.raw, out)
        elif isinstance(part, ReasoningPart):
            if part.wire == wire and part.signature:
                thought = {"text": part.text, "thought": True}
                out.append({**thought, "thoughtSignature": part.signature})
        elif isinstance(part, TextPart | RefusalPart):
            if part.text:
                out.append({"text": part.text})
        elif isinstance(part, ToolCall):
            out.append(_call(part))
        elif isinstance(part, ToolResult):
            out += _result(part, calls[part.call_id], model)
        elif isinstance(part, MediaPart):
            out.append(_media(part))
        else:
            raise ValueError(f"this wire format has no {type(part).__name__}")
    return out


def _add_opaque(raw: dict[str, Any], out: list[dict[str, Any]]) -> None:
    """Add an opaque part; a bare signature is that of the text before it."""
    if raw.keys() != {"thoughtSignature"}:
        out.append(raw)
    elif out and "text" in out[-1] and "thoughtSignature" not in out[-1]:
        out[-1].update(raw)
    else:  # its text is gone: the conversation was changed
        out.append({"text": "", **raw})


def _call(call: ToolCall) -> dict[str, Any]:
    given = msgspec.json.decode(arguments_of(call))
    extra = call.extra or {}
    function: dict[str, Any] = {"name": call.name, "args": given}
    if extra.get("id"):
        function["id"] = extra["id"]
    out: dict[str, Any] = {"functionCall": function}
    signature = extra.get("thoughtSignature") or _compatible_signature(extra)
    if signature:
        out["thoughtSignature"] = signature
    return out


def _compatible_signature(extra: Mapping[str, Any]) -> Any:
    """Return the signature of a call that came over Google's OpenAI-style endpoint."""
    found: Any = extra.get("extra_content")
    for name in ("google", "thought_signature"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _result(part: ToolResult, call: ToolCall, model: str) -> list[dict[str, Any]]:
    """Return the result of a call: in words, with its pictures in it or, for models before Gemini 3,
    behind it. It has an id only if the server gave the call one.
    """
    media = [_media(p) for p in part.content if isinstance(p, MediaPart)]
    said = {"error" if part.is_error else "output": part.text}
    function: dict[str, Any] = {"name": call.name, "response": said}
    if call.extra and call.extra.get("id"):
        function["id"] = call.extra["id"]
    inside = [one for one in media if "inlineData" in one and not is_older(model)]
    if inside:
        function["parts"] = inside
    behind = [one for one in media if one not in inside]
    return [{"functionResponse": function}, *behind]


def _media(part: MediaPart) -> dict[str, Any]:
    if isinstance(part, DocumentPart) and (text := part.plain_text()) is not None:
        title = f"{part.title}:\n\n" if part.title else ""
        return {"text": title + text}
    if part.data is not None:
        return {"inlineData": {"mimeType": part.media_type, "data": part.base64()}}
    kind = {"mimeType": part.media_type} if part.media_type else {}
    return {"fileData": {**kind, "fileUri": part.file_id or part.url}}


# -- tools -----------------------------------------------------------------------------------


def _tools(tools: Sequence[Tool | dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools: ours as declarations in one entry, the provider's own as they are."""
    ours = [_declaration(one) for one in tools if isinstance(one, Tool)]
    others = [one for one in tools if not isinstance(one, Tool)]
    return [{"functionDeclarations": ours}, *others] if ours else others


def _declaration(tool: Tool) -> dict[str, Any]:
    out: dict[str, Any] = {"name": checked_name(tool, 64)}
    if tool.description:
        out["description"] = tool.description
    parameters = parameters_of(tool)
    if parameters.get("properties"):  # an object without any is refused
        out["parametersJsonSchema"] = parameters
    return out


_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "any": "ANY"}


def _tool_config(
    params: Mapping[str, Any], tools: list[Tool | dict[str, Any]]
) -> dict[str, Any] | None:
    """Return ``toolConfig``. Strict tools are checked against their schemas by the mode alone."""
    strict = any(isinstance(one, Tool) and one.strict for one in tools)
    choice: str | dict[str, Any] | None = "auto" if strict else None
    if "tool_choice" in params:
        choice = choice_of(params["tool_choice"], tools, _CHOICES)
    if choice is None:
        return None
    if isinstance(choice, dict):
        return choice if "functionCallingConfig" in choice else {"functionCallingConfig": choice}
    if choice in _CHOICES:
        mode = "VALIDATED" if strict and choice == "auto" else _CHOICES[choice]
        return {"functionCallingConfig": {"mode": mode}}
    return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice]}}
