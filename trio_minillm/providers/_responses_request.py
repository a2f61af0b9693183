"""Build the JSON body of a request to OpenAI Responses, from neutral types.

The conversation is a list of items: messages, calls and their results, and what a server's own answers
had besides. A server demands its items back in the order in which they came, and with their ids:
reasoning is refused without the item that followed it, and that item without its reasoning. So ids go
back with a turn's reasoning only, and reasoning at a turn's end stays behind. The shapes are those of
OpenAI's API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from .._types.messages import (
    AudioPart,
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
from .._types.params import Reasoning, reasoning_of
from .._types.tools import Tool, choice_of, tools_of
from ._base import Request, host_of, refuse_others, take
from ._chat_messages import arguments_of
from ._formats import ANY, FORMATS, Formats, response_format
from ._history import MISTRAL_IDS, RESPONSES_IDS, ids_of_family, paired
from ._tool_schemas import checked_name, parameters_of, strict_parameters

RESPONSES: Final = "/responses"
"""The endpoint below the base URL."""
ENCRYPTED: Final = "reasoning.encrypted_content"
"""Value of ``include`` by which reasoning can be sent back that the server does not store."""
_LOGPROBS: Final = "message.output_text.logprobs"
LONGEST_ID: Final = 64
"""Characters of the longest id of an item that OpenAI takes; GitHub's Copilot makes longer ones."""

_SAME = {
    *("temperature", "top_p", "top_logprobs", "parallel_tool_calls", "metadata", "user"),
    *("service_tier", "store", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "safety_identifier", "context_management", "moderation"),
    *("previous_response_id", "conversation", "truncation", "max_tool_calls", "background"),
}
_TABLE = {**{name: name for name in _SAME}, "max_tokens": "max_output_tokens"}
_SHAPED = {
    *("tools", "tool_choice", "response_format", "verbosity", "reasoning", "include", "logprobs"),
    *("cache", "include_obfuscation", "stream_options"),
}
TYPED_FIELDS = frozenset(_TABLE.values()) | {
    *("model", "input", "tools", "tool_choice", "text", "reasoning", "include", "stream_options"),
}
"""Fields of the body that typed parameters decide."""


def is_openai(base_url: str) -> bool:
    """Return whether an address is one of OpenAI's own models: at OpenAI, or at Azure."""
    host = host_of(base_url)
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".azure.com"))


def responses_body(request: Request) -> dict[str, Any]:
    """Return the body of a streaming request.

    Raises ``ValueError`` for a parameter or a part that the wire format does not have.
    """
    params = request.params
    if params:
        refuse_others(request, _TABLE.keys() | _SHAPED)
    body: dict[str, Any] = {
        "model": request.model.name,
        "input": list(_input(request)),
        "stream": True,
        **take(request, _TABLE),
    }
    if not params:
        return body
    if params.get("background") and params.get("store") is False:
        raise ValueError("background=True needs store: the server must keep the answer")
    own = is_openai(request.model.base_url)
    tools = tools_of(params.get("tools", ()))
    formats = _formats_at(request) if tools or "response_format" in params else ANY
    if tools:
        body["tools"] = [_tool(tool, formats) for tool in tools]
    if "tools" in params and not tools:
        body.pop("parallel_tool_calls", None)
    elif "tool_choice" in params:
        body["tool_choice"] = _tool_choice(params["tool_choice"], tools)
    text: dict[str, Any] = {}
    if "response_format" in params:
        text["format"] = _format(params["response_format"], formats)
    if "verbosity" in params:
        text["verbosity"] = params["verbosity"]
    if text:
        body["text"] = text
    if "reasoning" in params and (wanted := _reasoning(reasoning_of(params["reasoning"]))):
        body["reasoning"] = wanted
    if include := list(included(params, own=own)):
        body["include"] = include
    options = dict(params.get("stream_options", {}))
    if "include_obfuscation" in params:
        options["include_obfuscation"] = params["include_obfuscation"]
    if options:
        body["stream_options"] = options
    return body


def included(params: Mapping[str, Any], *, own: bool) -> Iterator[str]:
    """Yield what the answer is to include beside the usual.

    Reasoning that is not stored comes encrypted if it is asked for: else it could not be sent back.
    """
    given = params.get("include") or ()
    found = [given] if isinstance(given, str) else list(given)
    yield from found
    if params.get("logprobs") and _LOGPROBS not in found:
        yield _LOGPROBS
    thinks = "reasoning" in params and reasoning_of(params["reasoning"]).enabled is not False
    if own and params.get("store") is False and thinks and "include" not in params:
        yield ENCRYPTED


def _formats_at(request: Request) -> Formats:
    """Return the formats of answers that the server has."""
    if is_openai(request.model.base_url):
        return FORMATS["openai"]
    from ._server_quirks import server_at  # a large table

    return FORMATS.get(server_at(request.model.base_url), ANY)


def _format(given: Any, formats: Formats) -> dict[str, Any]:
    """Return the format of the answer: that of chat completions, without the object within."""
    wanted = response_format(given, formats)
    inner = wanted.get("json_schema")
    return {"type": "json_schema", **inner} if isinstance(inner, Mapping) else wanted


def _reasoning(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.budget is not None or reasoning.exclude:
        raise ValueError(
            "this wire format accepts a reasoning effort and summary: no budget or exclude"
        )
    effort = reasoning.effort
    if effort is None and reasoning.enabled is False:
        effort = "none"
    given = {"effort": effort, "summary": reasoning.summary}
    return {name: value for name, value in given.items() if value is not None}


# -- tools -----------------------------------------------------------------------------------


def _tool(tool: Tool | dict[str, Any], formats: Formats) -> dict[str, Any]:
    if isinstance(tool, dict):
        return tool
    # Without a word about it, this format tries to make a schema strict, which closes it.
    out: dict[str, Any] = {
        "type": "function",
        "name": checked_name(tool, 64),
        "parameters": parameters_of(tool),
        "strict": bool(tool.strict),
    }
    if tool.strict:
        out["parameters"] = strict_parameters(tool, formats.strict)
    if tool.description:
        out["description"] = tool.description
    return out


_CHOICES = ("auto", "none", "required")


def _tool_choice(given: Any, tools: list[Tool | dict[str, Any]]) -> str | dict[str, Any]:
    choice = choice_of(given, tools, _CHOICES)
    if isinstance(choice, dict) or choice in _CHOICES:
        return choice
    for tool in tools:
        if isinstance(tool, dict) and tool.get("name") == choice and tool.get("type") == "custom":
            return {"type": "custom", "name": choice}
    return {"type": "function", "name": choice}


# -- messages --------------------------------------------------------------------------------


def _input(request: Request) -> Iterator[dict[str, Any]]:
    """Yield the items of the conversation. Raises ``ValueError`` for what the format does not have."""
    model = request.model
    family = ids_of_family(model.name)
    wire = model.provider.wire_at(model)
    turns = _Turns(wire, own=is_openai(model.base_url), stores=request.params.get("store"))
    for message in paired(request.messages, family if family is MISTRAL_IDS else RESPONSES_IDS):
        yield from turns.items(message)


class _Turns:
    """The messages of one conversation as items."""

    def __init__(self, wire: str, *, own: bool, stores: bool | None) -> None:
        self._wire = wire
        self._own = own
        self._stores = stores
        self._custom: set[str] = set()  # ids of calls of custom tools
        self._sent: set[str] = set()  # ids of items, each of which OpenAI takes once

    def items(self, message: Message) -> Iterable[dict[str, Any]]:
        if message.role == "assistant":
            return self._assistant(message)
        if message.role == "tool":
            return list(self._results(message))
        items = list(self._own_items(message.parts))
        parts = [part for part in message.parts if not isinstance(part, OpaquePart | ReasoningPart)]
        if parts or not message.parts:
            items.append({"role": message.role, "content": _content(parts)})
        return items

    def _own_items(self, parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
        """Yield the server's own items: of hosted tools, or the results that it waits for."""
        for part in parts:
            if not isinstance(part, OpaquePart) or part.wire != self._wire:
                continue
            whole = part.raw.get("status") != "in_progress"  # or it was cut
            if whole and not self._is_sent(part.raw):
                yield part.raw
                self._remember(part.raw)

    def _results(self, message: Message) -> Iterator[dict[str, Any]]:
        yield from self._own_items(message.parts)
        for part in message.parts:
            if isinstance(part, OpaquePart):
                continue
            if not isinstance(part, ToolResult):
                raise ValueError("a tool message consists of tool results")
            kind = "custom_tool_call" if part.call_id in self._custom else "function_call"
            content = _content(part.content)
            yield {"type": f"{kind}_output", "call_id": part.call_id, "output": content}

    # -- the model's turns -----------------------------------------------------------------

    def _assistant(self, message: Message) -> list[dict[str, Any]]:
        thoughts = [p for p in message.parts if isinstance(p, ReasoningPart)]
        kept = [p for p in thoughts if self._goes_back(p, cut=message.cut)]
        # What refers to an item that stays behind would be refused.
        named = bool(kept) and len(kept) == len(thoughts)
        out: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart | RefusalPart):
                if isinstance(part, TextPart) and not part.text and not part.citations:
                    continue
                _say(out, part, _head(part.extra) if named else {})
            elif isinstance(part, ReasoningPart):
                if part in kept:
                    out.append(_thought(part))
            elif isinstance(part, ToolCall):
                out.append(self._call(part, named=named))
            elif isinstance(part, OpaquePart):
                if named or not thoughts or not self._own:  # which can't go without their ids
                    out += self._own_items([part])
            else:
                raise ValueError(f"a {type(part).__name__} can't be in an assistant message")
        while out and out[-1].get("type") == "reasoning":
            out.pop()
        for item in out:
            self._remember(item)
        return [_short(item) for item in out]

    def _is_sent(self, item: Mapping[str, Any]) -> bool:
        """Return whether OpenAI would refuse an item as one that is in the conversation already: the
        history has an answer twice (OpenRouterTeam/ai-sdk-provider#254).
        """
        ident = item.get("id")
        return self._own and isinstance(ident, str) and ident in self._sent

    def _remember(self, item: Mapping[str, Any]) -> None:
        ident = item.get("id")
        if isinstance(ident, str) and ident:
            self._sent.add(ident)

    def _goes_back(self, part: ReasoningPart, *, cut: bool) -> bool:
        """Return whether reasoning can be sent: it is this server's, whole, and can be found again.

        OpenAI may store an answer only once it is complete: what belongs to one that was ``cut`` is not found.
        """
        if part.wire != self._wire or part.raw is None or self._is_sent(part.raw):
            return False
        readable = part.encrypted is not None or bool(part.raw.get("content"))
        ident = part.raw.get("id")
        stored = self._stores is not False and not cut and _fits(ident)
        return readable or stored

    def _call(self, call: ToolCall, *, named: bool) -> dict[str, Any]:
        head = _head(call.extra)
        if call.type == "custom" and (self._own or head):
            self._custom.add(call.id)
            out = {"type": "custom_tool_call", "call_id": call.id, "name": call.name}
            out["input"] = call.arguments
        else:
            out = {"type": "function_call", "call_id": call.id, "name": call.name}
            out["arguments"] = arguments_of(call)
        return out | (head if named else {})


def _head(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of an item that its part has kept; an item that is sent back is whole."""
    item = (extra or {}).get("item")
    if not isinstance(item, Mapping):
        return {}
    ident = item.get("id")
    kept = {k: v for k, v in item.items() if k != "id" or _fits(ident)}
    return {**kept, "status": "completed"} if "id" in kept else kept


def _fits(ident: Any) -> bool:
    return isinstance(ident, str) and len(ident) <= LONGEST_ID


def _say(out: list[dict[str, Any]], part: TextPart | RefusalPart, head: dict[str, Any]) -> None:
    """Add a text to the message that it belongs to: the last item, if that has the same head."""
    last = out[-1] if out else {}
    if isinstance(part, RefusalPart):
        piece: dict[str, Any] = {"type": "refusal", "refusal": part.text}
    else:
        piece = {"type": "output_text", "text": part.text, "annotations": list(part.citations)}
    goes_on = last.get("role") == "assistant" and last.items() >= head.items()
    if goes_on and ("id" in head) == ("id" in last):
        last["content"].append(piece)
        return
    out.append({"type": "message", "role": "assistant", "content": [piece], **head})


def _short(item: dict[str, Any]) -> dict[str, Any]:
    """Return a message of plain text as every server takes it: as one string, with its type (llama.cpp
    can't tell what an answer without one is).
    """
    if item.get("role") != "assistant" or item.keys() - {"type", "role", "content"}:
        return item
    content = item["content"]
    if any(p["type"] != "output_text" or p["annotations"] for p in content):
        return item
    return {"type": "message", "role": "assistant", "content": "".join(p["text"] for p in content)}


def _thought(part: ReasoningPart) -> dict[str, Any]:
    raw = {k: v for k, v in (part.raw or {}).items() if v is not None}
    if not _fits(raw.get("id")):
        raw.pop("id", None)
    return {"type": "reasoning", "summary": [], **raw}


# -- content ---------------------------------------------------------------------------------


def _content(parts: Iterable[Part]) -> str | list[dict[str, Any]]:
    given = list(parts)
    if len(given) <= 1 and all(isinstance(p, TextPart) for p in given):
        return "".join(p.text for p in given if isinstance(p, TextPart))
    return [_part(part) for part in given]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        image: dict[str, Any] = {"type": "input_image", "detail": part.detail or "auto"}
        return image | _source(part, "file_id", "image_url")
    if isinstance(part, AudioPart):
        if part.data is None:
            raise ValueError("audio must be given as bytes in this wire format")
        audio = {"data": part.base64(), "format": part.format}
        return {"type": "input_audio", "input_audio": audio}
    if isinstance(part, DocumentPart) and (text := part.plain_text()) is not None:
        title = f"{part.title}:\n\n" if part.title else ""
        return {"type": "input_text", "text": title + text}
    if isinstance(part, DocumentPart):
        if part.url is not None:
            return {"type": "input_file", "file_url": part.url}
        file = {"type": "input_file", **_source(part, "file_id", "file_data")}
        return file if part.file_id is not None else {**file, "filename": part.title or "document"}
    raise ValueError(f"a {type(part).__name__} can't be in this message")


def _source(part: MediaPart, by_id: str, by_data: str) -> dict[str, Any]:
    if part.file_id is not None:
        return {by_id: part.file_id}
    return {by_data: part.data_url()}
