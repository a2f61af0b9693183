"""Build the JSON body of a request to Anthropic Messages, from neutral types.

Rules of the format: instructions are a field at the top level, wherever they stood in the
conversation; roles alternate, so neighbouring turns of one role are merged; ``max_tokens`` is
required; a text block without a visible character is refused, so it is left out.
What is text alone is sent as a string: the format takes it as it takes blocks, and some relays take
nothing else. The shapes are those of Anthropic's API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
from .._types.params import JSONSchema, Reasoning, format_of, reasoning_of, stops_in
from .._types.schemas import in_object
from .._types.tools import Tool, choice_of, tools_of
from ._base import Request, host_of, is_vertex, refuse_others, take
from ._chat_messages import SEE_BELOW, arguments_of
from ._history import ANTHROPIC_IDS, OPENING, paired
from ._schemas import ANTHROPIC, ANTHROPIC_ANSWER, strict_schema
from ._tool_schemas import checked_fields, checked_name, parameters_of, strict_parameters

DEFAULT_MAX_TOKENS = 8192
"""Tokens that an answer may have unless the caller says: the format requires a number, and every
model since Claude 3.5 allows this one. A reasoning budget is added to it."""

OWN_HOST = "api.anthropic.com"
"""Host of Anthropic's own API; all others imitate it, or pass on to it."""
AZURE = ".services.ai.azure.com"
"""End of the hosts of Microsoft Foundry."""
_BEDROCK = r"bedrock-(?:runtime|mantle)\.[\w.-]+\.(?:amazonaws\.com|api\.aws)"
VERTEX_VERSION = "vertex-2023-10-16"
"""Value of ``anthropic_version`` in the body at Vertex AI, which takes the model's name in the address
instead (platform.claude.com: Claude on Vertex AI)."""

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
    system, turns = _turns(request)
    body: dict[str, Any] = {
        "model": request.model.name,
        "messages": turns,
        "max_tokens": params.get("max_tokens", DEFAULT_MAX_TOKENS),
        "stream": True,
        **take(request, {name: name for name in _SAME}),
    }
    if system:
        body["system"] = system
    if stops := stops_in(params):
        _check_stops(stops, request)
        body["stop_sequences"] = stops
    tools = tools_of(params.get("tools", ()))
    if tools:
        body["tools"] = [_tool(t) for t in tools]
    toolless = "tools" in params or "tool_choice" not in params  # where a choice is refused
    choice = _tool_choice(params, tools) if tools or not toolless else None
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
    if is_vertex(request.model.base_url):
        del body["model"]
        if "anthropic_version" not in {**request.model.extra, **request.extra}:
            body["anthropic_version"] = VERTEX_VERSION
    return body


@lru_cache(maxsize=256)
def serves_claude(base_url: str) -> bool:
    """Return whether an address is one of Anthropic's own models: at Anthropic, Amazon Bedrock, Vertex AI
    or Microsoft Foundry. They refuse the same; what imitates them checks less.
    """
    host = host_of(base_url)
    theirs = host == OWN_HOST or host.endswith(AZURE) or re.fullmatch(_BEDROCK, host)
    return bool(theirs) or is_vertex(base_url)


def _check_stops(stops: list[str], request: Request) -> None:
    """Raise ``ValueError`` for a stop sequence that Anthropic refuses (BerriAI/litellm#3286)."""
    if serves_claude(request.model.base_url) and not all(map(str.strip, stops)):
        raise ValueError(
            "stop: Anthropic accepts no sequence of only white space; leave it out and cut the answer yourself"
        )


def _thinking(body: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Add reasoning to the body: older models take a budget, newer ones an effort, never both.

    With a budget, a turn that goes on after tools' results must have thinking of its own, and is
    refused otherwise ("Expected `thinking` …, but found `tool_use`"). Another model's turn has none
    that could be sent, so it ends without thinking.
    """
    if "reasoning" not in params:
        return
    wanted: Reasoning = reasoning_of(params["reasoning"])
    if wanted.is_off:
        body["thinking"] = {"type": "disabled"}
        return
    if wanted.budget is not None and _begun_without_thought(body["messages"]):
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


def _begun_without_thought(turns: list[dict[str, Any]]) -> bool:
    """Return whether the model's turn goes on after tools' results, and has no thinking so far.

    It may have some in its first message alone: not every model thinks between two calls.
    """
    goes_on = False
    for turn, results in zip(turns[-2::-2], turns[::-2], strict=False):
        if not any(block["type"] == "tool_result" for block in _blocks_of(results)):
            break
        if any(map(_is_thought, _blocks_of(turn))):
            return False
        goes_on = True
    return goes_on


def _blocks_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    return turn["content"] if isinstance(turn["content"], list) else []


def _format(body: dict[str, Any], given: Any) -> None:
    wanted = format_of(given)
    if wanted == "text":
        return
    if wanted == "json":
        raise ValueError("this wire format has no free JSON mode: give a schema or a type")
    if isinstance(wanted, JSONSchema):
        schema = strict_schema(in_object(wanted.schema), ANTHROPIC_ANSWER)
        wanted = {"type": "json_schema", "schema": schema}
    body.setdefault("output_config", {})["format"] = wanted


# -- messages --------------------------------------------------------------------------------


class _Turn:
    """Neighbouring messages of one role, each as its blocks."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.messages: list[list[dict[str, Any]]] = []

    def content(self) -> str | list[dict[str, Any]]:
        """Return the blocks, or one string if all of them are plain text."""
        between = "" if self.role == "assistant" else "\n\n"  # an answer goes on in its next block
        texts = [_plain_text(blocks, between) for blocks in self.messages]
        if None not in texts:
            return "\n\n".join(text for text in texts if text)
        return [block for blocks in self.messages for block in blocks]


def _plain_text(blocks: list[dict[str, Any]], between: str) -> str | None:
    """Return the text of blocks that have nothing else; ``None`` if one has."""
    if any(block.keys() != _PLAIN for block in blocks):
        return None
    return between.join(block["text"] for block in blocks)


_PLAIN = {"type", "text"}


def _turns(request: Request) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the instructions and the turns.

    Raises ``ValueError`` if nothing is left to be sent.
    """
    wire = request.model.provider.wire_at(request.model)
    host, claude = host_of(request.model.base_url), serves_claude(request.model.base_url)
    demands = f".{host}".endswith(_THOUGHT_DEMANDED) or host.startswith("api.moonshot.")
    system = _Turn("system")
    turns: list[_Turn] = []
    messages = paired(request.messages, ANTHROPIC_IDS)
    answered = _answered(messages)
    settled = max((n for n, m in enumerate(messages) if m.role == "user"), default=0)
    for number, message in enumerate(messages):
        blocks = _blocks(message, wire)
        if claude and message.role == "assistant":
            blocks = _in_order(_ended(blocks, answered, settled=number < settled))
        if not blocks:
            continue
        if message.role in ("system", "developer"):
            system.messages.append(blocks)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if demands and role == "assistant" and not any(map(_is_thought, blocks)):
            blocks.insert(0, dict(_NO_THOUGHT))
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        turns[-1].messages.append(blocks)
    if not turns:
        raise ValueError("no message has text or another part to send")
    if turns[0].role == "assistant" and host != OWN_HOST:  # Bedrock (anthropic-sdk-typescript#622)
        turns.insert(0, _Turn("user"))
        turns[0].messages.append([{"type": "text", "text": OPENING}])
    if turns[-1].role == "assistant":
        _trim(turns[-1].messages[-1][-1])
    return system.content(), [{"role": t.role, "content": t.content()} for t in turns]


_THOUGHT_DEMANDED = (".api.deepseek.com", ".api.kimi.com", ".xiaomimimo.com")
"""With ``api.moonshot.ai`` and ``.cn``, the servers of this format that refuse a turn of the model
without thinking: "The content[].thinking in the thinking mode must be passed back" (9router#2397,
DeepSeek-Reasonix#8902)."""
_NO_THOUGHT = {"type": "thinking", "thinking": " ", "signature": ""}
"""Thinking of a turn that has none: other models' can't be sent. These servers check no signature."""


def _is_thought(block: dict[str, Any]) -> bool:
    return block["type"] in ("thinking", "redacted_thinking")


def _answered(messages: Sequence[Message]) -> set[str]:
    """Return the ids of the calls that a server's tool has answered."""
    opaque = (p for m in messages for p in m.parts if isinstance(p, OpaquePart))
    return {str(part.raw["tool_use_id"]) for part in opaque if "tool_use_id" in part.raw}


def _ended(
    blocks: list[dict[str, Any]], answered: set[str], *, settled: bool
) -> list[dict[str, Any]]:
    """Return a turn's blocks without those that Anthropic refuses.

    These are thinking without a signature, since it was cut, or at the turn's end; the thinking of a
    model that declined, before the mark of another that took over (code-yeongyu/senpi PR 113); and
    calls of the server's own tools without a result, which the server gives only in a turn that
    goes on, and not in one that is ``settled`` (anthropic-sdk-python#961).
    """
    marks = [n for n, block in enumerate(blocks) if block["type"] == "fallback"]
    declined = marks[-1] if marks else 0
    kept = [
        block
        for n, block in enumerate(blocks)
        if (n >= declined or not _is_thought(block))
        and (block["type"] != "thinking" or block.get("signature"))
        and not ((settled or n < declined) and _is_open(block, answered))
    ]
    while kept and _is_thought(kept[-1]):
        kept.pop()
    return kept


def _is_open(block: dict[str, Any], answered: set[str]) -> bool:
    """Return whether a block is a call of a server's tool without a result."""
    own = block["type"].endswith("_tool_use")  # the caller's calls are just ``tool_use``
    return own and str(block.get("id")) not in answered


def _in_order(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a turn's blocks with its calls behind all others, as Anthropic demands.

    Otherwise it misses their results (can1357/oh-my-pi#544). Other models write texts between calls. What
    stands before thinking is left, because thinking is signed in its place.
    """
    begin = max((n + 1 for n, block in enumerate(blocks) if _is_thought(block)), default=0)
    rest = sorted(blocks[begin:], key=lambda block: block["type"] == "tool_use")
    return blocks[:begin] + rest


def _trim(block: dict[str, Any]) -> None:
    """Cut white space from the end of a prefill, which is refused with it."""
    if block["type"] == "text":
        block["text"] = block["text"].rstrip()


def _blocks(message: Message, wire: str) -> list[dict[str, Any]]:
    """Return a message's parts as blocks, those of the server's own wire as they came.

    Left out are texts without a visible character, and the reasoning and opaque blocks of other
    servers; then also what refers to such blocks: citations, and who called a tool.
    """
    whole = all(p.wire == wire for p in message.parts if isinstance(p, ReasoningPart | OpaquePart))
    out = []
    for part in _texts_of_errors(message.parts):
        if isinstance(part, ReasoningPart | OpaquePart):
            if part.wire == wire:
                out.append(_own_block(part))
            continue
        block = _content_block(part)
        if block is None:
            continue
        if not whole:
            for name in ("citations", *CALL_FIELDS):
                block.pop(name, None)
        if cache := getattr(part, "cache", None):
            block["cache_control"] = _mark(cache)
        out.append(block)
    return out


FAILED = "The tool failed, and gave no message."
"""Text of a tool's result that is an error without a text."""


def _texts_of_errors(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts with text alone in results that are errors, and their pictures behind all
    results: Anthropic refuses an error with other content (vellum-assistant PR 18387), or with none
    (trae-agent PR 231).
    """
    out: list[Part] = []
    behind: list[Part] = []
    for part in parts:
        if isinstance(part, ToolResult) and part.is_error:
            texts = tuple(p for p in part.content if isinstance(p, TextPart) and p.text.strip())
            media = [p for p in part.content if not isinstance(p, TextPart)]
            behind += media
            texts = texts or (TextPart(SEE_BELOW if media else FAILED),)
            part = msgspec.structs.replace(part, content=texts)
        out.append(part)
    return [*out, *behind]


def _own_block(part: ReasoningPart | OpaquePart) -> dict[str, Any]:
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
        return block if part.text.strip() else None
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None
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
    given = msgspec.json.decode(arguments_of(call))
    extra = {k: v for k, v in (call.extra or {}).items() if k in CALL_FIELDS}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given, **extra}


def _result(part: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.call_id}
    content = _blocks(Message(role="tool", parts=part.content), "")
    if content:
        text = _plain_text(content, "\n\n")
        block["content"] = content if text is None else text
    if part.is_error:
        block["is_error"] = True
    return block


def _document(part: DocumentPart) -> dict[str, Any]:
    if (text := part.plain_text()) is not None:
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
    schema = checked_fields(tool, parameters_of(tool))
    out: dict[str, Any] = {"name": checked_name(tool, 128), "input_schema": schema}
    if tool.description:
        out["description"] = tool.description
    if tool.strict:
        out |= {"strict": True, "input_schema": strict_parameters(tool, ANTHROPIC)}
    if tool.cache:
        out["cache_control"] = _mark(tool.cache)
    return out


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}


def _tool_choice(
    params: Mapping[str, Any], tools: list[Tool | dict[str, Any]]
) -> dict[str, Any] | None:
    parallel = params.get("parallel_tool_calls")
    out: dict[str, Any] = {"type": "auto"}
    if "tool_choice" in params:
        others = params.get("mcp_servers", ())  # which have tools of their own
        choice = choice_of(params["tool_choice"], [*tools, *others], _CHOICES)
        if isinstance(choice, dict):
            out = choice
        elif choice in _CHOICES:
            out = {"type": _CHOICES[choice]}
        else:
            out = {"type": "tool", "name": choice}
    elif parallel is None:
        return None
    if parallel is not None and out.get("type") != "none":
        out["disable_parallel_tool_use"] = not parallel
    return out
