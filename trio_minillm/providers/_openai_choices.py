"""One choice of an event of OpenAI chat completions: what it says, why it ended, how it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta, continues_answer, has_content
from .._types.errors import EXCERPT_CHARS, ErrorInfo, MiniLLMError, ProtocolError, ProviderError
from ._coerce import loose_json
from ._errors import error_from, failure_beside, failure_in, in_short, is_error
from ._openai_events import (
    Call,
    ChoiceEvent,
    ChunkEvent,
    Delta,
    Function,
    decode_delta,
    decode_loosely,
    loose_delta,
)
from ._parts import MAX_ENTRIES, READ_AGAIN, add_parts, bounded, look_again, visible
from ._reasons import failure_of, reason_of
from ._usage import at_path

NOTHING = Delta()
"""The delta of a choice that says nothing."""


def chunk_of(choice: ChoiceEvent, data: bytes = b"") -> StreamChunk:
    """Return what a choice says. Raises `ProviderError` if it failed; ``data`` is what it stands in,
    and may have the words for that.
    """
    delta, elsewhere = choice.delta, False
    if delta is None or ((choice.message or choice.text) and delta == NOTHING):
        elsewhere = delta is not None
        delta = without_delta(choice)
    content = delta.content
    out = StreamChunk(content if type(content) is str else "")
    out.choice = choice.index or 0
    if out.choice < 0:
        raise ProtocolError("choices[].index is negative")
    if choice.finish_reason is not None:
        out.finish_reason = reason_of(choice.finish_reason, "choices[].finish_reason")
    # Some servers send the same reasoning under two names: take it once.
    thought = delta.reasoning or delta.reasoning_content
    if thought := thought or delta.reasoning_text or delta.thinking:
        out.reasoning = thought
    if type(content) is list:
        add_parts(content, out)
    if delta.refusal:
        out.refusal += delta.refusal
    if delta.tool_calls or delta.function_call is not None:
        calls = delta.tool_calls or [Call(index=0, function=delta.function_call)]
        out.tool_calls += call_deltas(calls)
    if delta.reasoning_details:
        if len(delta.reasoning_details) <= MAX_ENTRIES:
            out.reasoning_details = tuple(delta.reasoning_details)
        else:
            out.unread = (*out.unread, "reasoning_details of more entries than one event may have")
        if not out.reasoning:
            out.reasoning = visible(delta.reasoning_details)
    if delta.annotations:
        out.annotations = (*out.annotations, *delta.annotations)
    if choice.logprobs:
        out.logprobs = choice.logprobs
    if delta.audio:
        out.audio = delta.audio
    if delta.images:
        out.images = (*out.images, *delta.images)
    if choice.native_finish_reason:
        out.metadata = {"native_finish_reason": choice.native_finish_reason}
    out.progress = advances(out)
    if elsewhere:
        out.elsewhere = continues_answer(out)
    if choice.error or delta.error or out.finish_reason is not None:
        check_end(choice, delta, out, data)
    return out


def advances(out: StreamChunk) -> bool:
    """Return whether what a choice says moves the answer."""
    return bool(
        out.delta
        or out.reasoning
        or out.finish_reason
        or (
            out.tool_calls and any(c.id or c.name or c.arguments or c.extra for c in out.tool_calls)
        )
        or out.refusal
        or out.reasoning_details
        or out.annotations
        or out.audio
        or out.images
        or out.logprobs
    )


def other_shape(data: bytes, cause: Exception) -> tuple[ChunkEvent, list[str]]:
    """Read an event that the strict decoder refused. Raises its error if there is no reading it."""
    try:
        return decode_loosely(data)
    except MiniLLMError:
        raise
    except msgspec.DecodeError:
        raise cause from None


def without_delta(choice: ChoiceEvent) -> Delta:
    """Return what a choice without a delta says.

    That is ``text``, as in the older completions endpoint, with the ``reasoning`` beside it, or a piece
    in ``message``. Beside a finish reason, a message repeats what came before.
    """
    if choice.text or (choice.reasoning and not choice.message):
        return Delta(content=choice.text, reasoning=choice.reasoning)
    if choice.message and reason_of(choice.finish_reason, "choices[].finish_reason") is None:
        with suppress(msgspec.DecodeError, UnicodeError):
            return decode_delta(choice.message)
        message = loose_json(bytes(choice.message))
        return loose_delta(message)[0] if isinstance(message, Mapping) else NOTHING
    return NOTHING


def message_of(choice: ChoiceEvent) -> tuple[Delta, list[str]]:
    """Return the message of a whole answer as a delta."""
    try:
        return decode_delta(choice.message), []
    except (msgspec.DecodeError, UnicodeError):
        return loose_delta(loose_json(bytes(choice.message)))


def error_of(error: Any, beside: bytes = b"") -> ErrorInfo | None:
    """Return the failure that the value of a field ``error`` reports, if it reports one.

    ``beside`` is the JSON that the field is in. Where the value is no object, but ``true`` or a code,
    the words are in other fields.
    """
    if not error or not is_error(error):
        return None
    if isinstance(error, Mapping) or (isinstance(error, list) and any(map(_is_mapping, error))):
        return error_from(None, {"error": error})
    told = failure_beside(beside) if beside else None
    return told or error_from(None, {"error": in_short(error)})


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def check_end(choice: ChoiceEvent, delta: Delta, out: StreamChunk, data: bytes) -> None:
    """Raise `ProviderError` if a choice failed; what the same event said comes with it."""
    info = error_of(choice.error) or error_of(delta.error)
    if info is None and out.finish_reason is not None:
        info = failure_of(out.finish_reason, choice.finish_reason)
        if info is None and choice.native_finish_reason:
            info = failure_of(choice.native_finish_reason)
        if info is not None and (told := _told_beside(data)) is not None:
            words = f"{info.message}: {told.message}"[:EXCERPT_CHARS]
            info = told if told.kind != "server" else msgspec.structs.replace(info, message=words)
    if info is not None:
        raise ProviderError(info, content=continuing([out]))


def _told_beside(data: bytes) -> ErrorInfo | None:
    """Return what an event, or a choice in it, says of the failure that a finish reason names."""
    told = failure_beside(data)
    if told is None and len(data) <= READ_AGAIN:
        with suppress(msgspec.DecodeError, RecursionError):
            choices = at_path(loose_json(data), ("choices",))
            found = filter(_is_mapping, choices if isinstance(choices, list) else ())
            told = next(filter(None, map(failure_in, found)), None)
    return told


def continuing(chunks: list[StreamChunk]) -> tuple[StreamChunk, ...]:
    """Return the chunks of a failed event that add to the answer, without their reasons."""
    found = tuple(filter(continues_answer, chunks))
    for chunk in found:
        chunk.finish_reason = None
    return found


def says_nothing(out: StreamChunk) -> bool:
    """Return whether a chunk has no content, but perhaps a finish reason."""
    if out.delta or (out.progress and out.finish_reason is None):
        return False
    return not has_content(out)


_SILENT = (
    rb'"delta": ?\{(?:"role": ?"assistant")?,? ?(?:"content": ?(?:""|null))?'
    rb'(?:, ?"(?:refusal|function_call|tool_calls|reasoning|reasoning_content)": ?null)*\}'
)
"""The delta of almost every opening and end: for it, nothing is decoded again."""
_ELSEWHERE = rb'"(?:messages?|text|content|output_text|finishReason|code|status)":(?! ?(?:""|null))'
"""Fields of a choice that say something beside such a delta."""


def read_again(data: bytes, out: list[StreamChunk], *, whole: bool = False) -> None:
    """Look for what choices say that seem to say nothing, in their JSON.

    Raises `ProviderError` if one says that it failed.
    """
    usual = len(out) == 1 and re.search(_SILENT, data) and not re.search(_ELSEWHERE, data)
    if len(data) > READ_AGAIN or usual:
        return
    with suppress(msgspec.DecodeError, RecursionError):
        found = loose_json(data)
        choices = found.get("choices") if isinstance(found, Mapping) else None
        entries = choices if isinstance(choices, list) else [choices]
        for choice, chunk in zip(entries, out, strict=False):
            if says_nothing(chunk):
                look_again(choice, chunk, whole=whole)
                _take_reason(choice, chunk)


def _take_reason(choice: Any, out: StreamChunk) -> None:
    """Take a reason from where relays put it. Raises `ProviderError` if the choice failed."""
    if not isinstance(choice, Mapping):
        return
    told = failure_in(choice)
    delta = choice.get("delta")
    if out.finish_reason is None:
        inner = delta if isinstance(delta, Mapping) else {}
        words = inner.get("finish_reason"), inner.get("finishReason"), choice.get("finishReason")
        reasons = (reason_of(word, "choices[].delta.finish_reason") for word in words if word)
        out.finish_reason = next(filter(None, reasons), None)
        out.progress = out.progress or out.finish_reason is not None
        if told is None and out.finish_reason is not None:
            told = failure_of(out.finish_reason)
    if told is not None:
        raise ProviderError(told)


def says_something(choice: ChoiceEvent) -> bool:
    """Return whether a choice of a whole answer has content in its delta, or else in its message."""
    delta = choice.delta or (message_of(choice)[0] if choice.message else NOTHING)
    said = delta.content, delta.tool_calls, delta.refusal, delta.reasoning, delta.reasoning_content
    return any(said)


def usages_in(choice: ChoiceEvent) -> list[Any]:
    """Return what a choice has as usage: Moonshot puts it there, and others into the delta."""
    found = [choice.usage]
    if choice.delta is not None:
        found.append(choice.delta.usage)
    if choice.message:
        with suppress(msgspec.DecodeError, UnicodeError):
            found.append(at_path(msgspec.json.decode(choice.message), ("usage",)))
    return found


class Facts(Protocol):
    """The fields of an event whose values are the same in each event of an answer."""

    provider: Any
    service_tier: Any
    system_fingerprint: str | None


def take_facts(event: Facts, out: StreamChunk) -> None:
    """Add what each event has beside the choices, and is worth keeping, to a chunk's metadata."""
    found = out.metadata or {}
    if event.provider and isinstance(event.provider, str):
        found["provider"] = event.provider
    if event.service_tier:  # in doubt, if it is no word
        found["service_tier"] = event.service_tier
    if event.system_fingerprint:
        found["system_fingerprint"] = event.system_fingerprint
    out.metadata = found or None


def take_documents(event: ChunkEvent, out: StreamChunk) -> None:
    """Likewise for lists and objects, which stay JSON until the response is built."""
    found = out.metadata or {}
    for name in ("citations", "search_results", "timings"):
        raw = getattr(event, name)
        if raw and bytes(raw) not in (b"null", b"[]"):
            found[name] = raw
    out.metadata = found or None


def call_deltas(calls: list[Call]) -> tuple[ToolCallDelta, ...]:
    """Return the pieces of calls in a delta. Raises `ProtocolError` for too many."""
    return tuple([_call_delta(call) for call in bounded(calls)])


def _call_delta(call: Call) -> ToolCallDelta:
    kind = "function"
    function = call.function or Function()
    name, arguments = function.name or call.name, function.arguments  # flat, as in Responses
    if arguments is None:
        arguments = _other_arguments(function, call)
    custom = call.custom
    if custom is not None and (custom.input or (custom.name and not (name or arguments))):
        name, arguments, kind = custom.name, custom.input, "custom"
    if arguments is not None and not isinstance(arguments, str):
        # Against the reference, but unmistakable.
        arguments = msgspec.json.encode(arguments).decode()
    ident = None if call.id in ("", "null") else call.id  # Mistral sends the word
    extra = {"extra_content": call.extra_content} if call.extra_content else None
    return ToolCallDelta(call.index, ident, name or None, arguments or "", kind, extra)


def _other_arguments(function: Function, call: Call) -> Any:
    """Return the arguments of a call that has none in their place."""
    inside = function.parameters, function.args, function.input
    beside = call.arguments, call.parameters, call.args, call.input
    return next((given for given in (*inside, *beside) if given is not None), None)
