"""Build the messages of a request in OpenAI's chat-completions format, for servers that differ.

First the conversation is made fit for any server (`paired`), then each message is encoded, then the
order is changed where the server refuses it. What a server takes is said by its `MessageRules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

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
from ._history import MISTRAL_IDS, OPENING, CallIds, ids_of_family, paired

Replay: TypeAlias = Callable[[list[ReasoningPart], bool], dict[str, Any]]
"""Function from the reasoning of a turn, and whether it has calls, to fields of its message."""

BRIDGE = "OK."
"""Turn of the model between a tool's result and the user, where the one must not follow the other."""
UNCHECKED_SIGNATURE = "skip_thought_signature_validator"
"""Value that Gemini takes in place of its own signature, for calls of other models
(ai.google.dev/gemini-api/docs/thought-signatures)."""
EMPTY_RESULT = "(The result is empty.)"
"""Text of a tool's result that has none, which Gemini's models refuse, also through gateways (Roo-Code
PR 10672)."""
SEE_BELOW = "(See the attachment below.)"
"""Text of a tool's result that had none, whose pictures are sent as a user's message."""


class TurnOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The orders of messages that a server refuses, each with what is done instead."""

    one_system: bool = False
    """Instructions stand in one message at the start: all are put there, wherever they were."""
    alternate: bool = False
    """User and model take turns: neighbouring messages of one role are merged."""
    opening: bool = False
    """The user speaks first: `OPENING` is put before a turn of the model's."""
    bridge: bool = False
    """A user's message must not follow a tool's result: `BRIDGE` is put between them."""
    no_empty: bool = False
    """A turn of the model without text and calls is left out, and a tool's empty result is
    `EMPTY_RESULT`."""
    blocks_alone: bool = False
    """A turn is not empty if it has reasoning blocks to give back."""


class MessageRules(msgspec.Struct, frozen=True, kw_only=True):
    """The differences between the messages that one server accepts and OpenAI's."""

    developer: str = "developer"
    """The role that developer messages get."""
    cache_control: bool = False
    """True if text parts and tools carry cache breakpoints (elsewhere caching is automatic)."""
    any_tool_content: bool = False
    """True if a tool result may contain images and documents. Elsewhere, these are sent in a user
    message after the results."""
    document_urls: bool = False
    """True if documents may be given by URL."""
    bare_media: bool = False
    """True if audio and documents are sent as bare strings (Mistral's shapes)."""
    wire: str = "compatible"
    """The name of the wire format that the server's own reasoning blocks belong to."""
    replay: Replay | None = None
    """A function that returns the fields of an assistant message with the reasoning to send back.
    By default, none is sent back."""
    signatures: Literal["", "kept", "required"] = ""
    """``"kept"`` if Gemini's signatures of calls (``extra_content``) are sent back, ``"required"``
    if a turn with calls is rejected without one."""
    ids: CallIds | None = None
    """The ids of calls that the server accepts. With ``None``, and for Mistral's models, the
    model's name decides."""
    order: TurnOrder = TurnOrder()
    """The orders of messages that the server rejects, and what is sent instead."""
    own_parts: bool = True
    """True if messages may contain parts that only OpenAI has: refusals and custom tool calls.
    Elsewhere, a refusal is text, and a custom call is a function call with the argument
    ``input``."""
    names: bool = True
    """False if messages must not have names, which are then left out."""
    prefill: str = ""
    """The field that marks a final assistant message as the beginning of the answer."""
    text_lists: bool = True
    """False if content that is only text is sent as one string, because some servers accept no
    list."""
    silent: str | None = None
    """The content of a turn that has calls and no text."""


def chat_messages(
    messages: Sequence[Message], rules: MessageRules, model: str
) -> list[dict[str, Any]]:
    """Return the messages of a request to ``model``.

    Raises ``ValueError`` for a part that the wire format does not have, and for a tool result
    without its call.
    """
    ids, order = ids_of_family(model), rules.order
    if ids is MISTRAL_IDS:  # whoever serves them has their tokenizer check the conversation
        order = msgspec.structs.replace(order, bridge=True)
    elif rules.ids is not None:
        ids = rules.ids
    fit = paired(messages, ids)
    out = [m for message in fit for m in _message(message, rules, model)]
    out = _arranged(out, order)
    last = out[-1] if out else {}
    if rules.prefill and last.get("role") == "assistant" and "tool_calls" not in last:
        last[rules.prefill] = True
    return out


# -- the order -------------------------------------------------------------------------------


def _arranged(messages: list[dict[str, Any]], order: TurnOrder) -> list[dict[str, Any]]:
    if order.no_empty:
        keeps = order.blocks_alone
        messages = [_not_empty(m) for m in messages if not _is_empty(m, blocks_alone=keeps)]
    if order.one_system:
        system = [m for m in messages if m["role"] == "system"]
        others = [m for m in messages if m["role"] != "system"]
        messages = [_merged(system), *others] if system else others
    if order.alternate:
        messages = _alternating(messages)
    if order.opening:
        messages = _opened(messages)
    if order.bridge:
        messages = _bridged(messages)
    return messages


def _is_empty(message: dict[str, Any], *, blocks_alone: bool) -> bool:
    if message["role"] != "assistant" or (blocks_alone and message.get("reasoning_details")):
        return False
    return not (message.get("content") or message.get("tool_calls") or message.get("refusal"))


def _not_empty(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool" and not message["content"]:
        return {**message, "content": EMPTY_RESULT}
    return message


def _merged(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one message with the contents of several, and their name if it is the same."""
    contents = [m["content"] for m in messages if m["content"]]
    first = messages[0]
    if any(m.get("name") != first.get("name") for m in messages):
        first = {k: v for k, v in first.items() if k != "name"}
    if all(isinstance(content, str) for content in contents):
        return {**first, "content": "\n\n".join(contents)}
    parts: list[Any] = []
    for content in contents:
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {**first, "content": parts}


def _alternating(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        spoken = role in ("user", "assistant") and "tool_calls" not in message
        if spoken and out and out[-1]["role"] == role and "tool_calls" not in out[-1]:
            out[-1] = _merged([out[-1], message])
            continue
        out.append(message)
    return out


def _opened(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = next((n for n, m in enumerate(messages) if m["role"] != "system"), None)
    if first is None or messages[first]["role"] != "assistant":
        return messages
    return [*messages[:first], {"role": "user", "content": OPENING}, *messages[first:]]


def _bridged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "user" and out and out[-1]["role"] == "tool":
            out.append({"role": "assistant", "content": BRIDGE})
        out.append(message)
    return out


# -- one message -----------------------------------------------------------------------------


def _message(message: Message, rules: MessageRules, model: str) -> Iterable[dict[str, Any]]:
    if message.role == "tool":
        yield from _tool_results(message, rules)
        return
    role = rules.developer if message.role == "developer" else message.role
    out: dict[str, Any] = {"role": role}
    if message.name is not None and rules.names:
        out["name"] = re.sub(_UNNAMED, "_", message.name)[:64]
    if message.role == "assistant":
        out |= _assistant(message, rules, model)
    else:
        out["content"] = _content(message.parts, rules)
    yield out


_UNNAMED = r"[\s<|\\/>]+"
"""Characters that OpenAI refuses in the name of a message (extended_openai_conversation#251)."""


def _tool_results(message: Message, rules: MessageRules) -> Iterable[dict[str, Any]]:
    """Yield the results, then what the format has no place for in them as a user's message."""
    attached: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            raise ValueError("a tool message consists of tool results")
        content: list[Part] = list(part.content)
        media = [p for p in content if not isinstance(p, TextPart)]
        if media and not rules.any_tool_content:
            content = [p for p in content if isinstance(p, TextPart)] or [TextPart(SEE_BELOW)]
            attached += [TextPart(f"Attachment to the result of {part.name or 'a tool'}:"), *media]
        if part.cache and content and isinstance(content[-1], TextPart):
            content[-1] = TextPart(content[-1].text, part.cache)
        yield {
            "role": "tool",
            "tool_call_id": part.call_id,
            "content": _content(content, rules),
        }
    if attached:
        yield {"role": "user", "content": _content(attached, rules)}


def _assistant(message: Message, rules: MessageRules, model: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, MediaPart | ToolResult):
            raise ValueError(f"a {type(part).__name__} can't be in an assistant message")
    said = [p for p in message.parts if isinstance(p, TextPart)]
    calls = [p for p in message.parts if isinstance(p, ToolCall)]
    refusals = [p.text for p in message.parts if isinstance(p, RefusalPart)]
    thoughts = [p for p in message.parts if isinstance(p, ReasoningPart)]
    if refusals and not rules.own_parts:
        said += [TextPart("".join(refusals))]
        refusals = []
    if any(p.cache for p in said) and rules.cache_control:
        out["content"] = _content(said, rules)
    else:
        out["content"] = "".join(p.text for p in said) if said else None
    if refusals:
        out["refusal"] = "".join(refusals)
    if calls:
        out["tool_calls"] = [_call(c, rules) for c in calls]
        if not out["content"]:
            out["content"] = rules.silent
        signed = any("extra_content" in (c.extra or {}) for c in calls)
        # A gateway that has Gemini's models hands the request on to a server that demands it.
        demanded = rules.signatures == "required" or (rules.signatures and "gemini-3" in model)
        if demanded and not signed:
            out["tool_calls"][0] |= _unchecked(model)
    elif out["content"] is None and not refusals:
        out["content"] = ""
    if rules.replay is not None:
        out |= rules.replay(thoughts, bool(calls))
    return out


def _unchecked(model: str) -> dict[str, Any]:
    """Return the signature of a call that Gemini did not make; models before 3 need none."""
    if "gemini-1" in model or "gemini-2" in model:
        return {}
    return {"extra_content": {"google": {"thought_signature": UNCHECKED_SIGNATURE}}}


def _call(call: ToolCall, rules: MessageRules) -> dict[str, Any]:
    kind: str = call.type
    if kind == "custom" and rules.own_parts:
        body: dict[str, Any] = {"custom": {"name": call.name, "input": call.arguments}}
    else:
        kind = "function"
        body = {"function": {"name": call.name, "arguments": arguments_of(call)}}
    extra = {k: v for k, v in (call.extra or {}).items() if k == "extra_content"}
    return {"id": call.id, "type": kind, **body, **(extra if rules.signatures else {})}


def arguments_of(call: ToolCall) -> str:
    """Return the arguments as the JSON that servers parse: an object, where models send nothing.

    A custom tool's text becomes the argument ``input``. What is no object, since it was cut or is no
    JSON, becomes the argument ``arguments``: servers refuse it, in this request and in all later ones
    (vllm-project/vllm#43995, OpenHands/software-agent-sdk#2887).
    """
    if call.type == "custom":
        return msgspec.json.encode({"input": call.arguments}).decode()
    if call.arguments.strip() in ("", "null"):
        return "{}"
    try:
        _decode_object(call.arguments)
    except msgspec.MsgspecError:
        return msgspec.json.encode({"arguments": call.arguments}).decode()
    return call.arguments


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


# -- content ---------------------------------------------------------------------------------


def _content(parts: Iterable[Part], rules: MessageRules) -> str | list[dict[str, Any]]:
    given = list(parts)
    plain = [p.text for p in given if isinstance(p, TextPart) and not _marked(p, rules)]
    if len(plain) == len(given) and (len(given) <= 1 or not rules.text_lists):
        return "\n\n".join(plain)
    return [_part(p, rules) for p in given]


def _marked(part: Part, rules: MessageRules) -> bool:
    return rules.cache_control and isinstance(part, TextPart) and bool(part.cache)


def cache_mark(cache: CacheHint) -> dict[str, Any]:
    """Return a cache breakpoint."""
    return {"type": "ephemeral"} if cache is True else {"type": "ephemeral", "ttl": cache}


def _part(part: Part, rules: MessageRules) -> dict[str, Any]:
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
        out = {"type": "input_audio", "input_audio": part.base64() if rules.bare_media else audio}
    elif isinstance(part, DocumentPart) and (text := part.plain_text()) is not None:
        title = f"{part.title}:\n\n" if part.title else ""
        out = {"type": "text", "text": title + text}  # OpenAI takes PDF alone (pydantic-ai#4445)
    elif isinstance(part, DocumentPart) and rules.bare_media and part.file_id is None:
        out = {"type": "document_url", "document_url": part.data_url()}
    elif isinstance(part, DocumentPart):
        out = {"type": "file", "file": _file(part, rules)}
    else:
        raise ValueError(f"a {type(part).__name__} can't be in this message")
    if isinstance(part, TextPart) and _marked(part, rules):
        out["cache_control"] = cache_mark(part.cache)
    return out


def _url(part: MediaPart) -> str:
    if part.file_id is not None:
        raise ValueError("this wire format takes images as bytes or URL, not by file id")
    return part.data_url()


def _file(part: DocumentPart, rules: MessageRules) -> dict[str, Any]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    if part.url is not None and not rules.document_urls:
        raise ValueError("this wire format takes documents as bytes or by file id, not by URL")
    return {"filename": part.title or "document", "file_data": part.data_url()}
