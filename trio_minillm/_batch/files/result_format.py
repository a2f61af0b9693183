"""Lines of a file of results: how a `BatchResult` is written, and read again. Pure.

A line is that of OpenAI's Batch API (``id``, ``custom_id``, ``response``, ``error``) with more
beside it. Money is in USD as text, since it is exact; times are in seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from ..._types.cost import CostInfo
from ..._types.errors import ProviderError, RefusedError, RetriesExhausted
from ..._types.messages import ReasoningPart, ToolCall
from ..._types.response import Choice, CompletionResponse, Timings
from ..._types.usage import Usage
from ..types import Attempt, BatchRequest, BatchResult

MARKER = b'{"id":"batch_req_'
"""Beginning of each line."""

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "completed": "stop",
    "incomplete": "length",
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "content_filter"
    ),
}
"""Finish reasons of Anthropic, of OpenAI Responses and of Gemini in the words of chat completions; their
own stand under ``native_finish_reason``. A filter's reason, and calls, are told apart in `_reason_of`.
OpenAI has no word for ``pause_turn``, a paused answer."""


ROW_TYPES: dict[str, type] = {
    "key": str,
    "sample": int,
    "ok": bool,
    "outcome": str,
    "content": str,
    "finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cached_tokens": int,
    "reasoning_tokens": int,
    "cost_usd": float,
    "cost_usd_exact": str,
    "cost_status": str,
    "model": str,
    "error": str,
    "error_message": str,
    "attempts": int,
    "seconds": float,
    "ttft": float,
    "meta": str,
    "score": str,
}
"""Fields of `ResultLine.row` and their types; each may be ``None``."""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a results file, in JSON's types, as `read_results` yields it.

    Its ``repr`` shows no answer.
    """

    id: str
    """The id of the line."""
    custom_id: str
    """The request's key."""
    ok: bool
    """True if there is a complete and valid answer."""
    outcome: str
    """The outcome of the last attempt."""
    request: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    """A hash of the request (see `fingerprint`)."""
    content: str | None = None
    """The text of the answer's first choice; ``None`` if the answer is incomplete."""
    sample: int = 0
    """The number of this answer among several to one request, from 0."""
    response: dict[str, Any] | None = None
    """``status_code``, ``request_id``, and ``body``: a ``chat.completion``, or the refusal."""
    error: dict[str, Any] | None = None
    """``code`` and ``message`` of the last attempt's error, or of the fault in an invalid
    answer."""
    partial: dict[str, Any] | None = None
    """The part of an incomplete answer that arrived, in the shape of a ``chat.completion``."""
    usage: dict[str, Any] | None = None
    """Token counts of the last attempt."""
    cost: dict[str, Any] | None = None
    """The cost of all attempts, and how reliable it is."""
    timings: dict[str, Any] | None = None
    """The times of the last attempt's milestones, in seconds."""
    attempts: list[dict[str, Any]] = []
    """All attempts, in order."""
    cached: bool = False
    """True if the answer came from the cache."""
    score: Any = None
    """The value that the batch's ``score`` function returned."""
    meta: Any = None
    """The request's ``meta``."""

    def __post_init__(self) -> None:
        if self.content is None and self.ok and self.response is not None:
            # The line of an earlier version, or an answer without text.
            with suppress(LookupError, TypeError):
                text = self.response["body"]["choices"][0]["message"]["content"] or ""
                msgspec.structs.force_setattr(self, "content", str(text))

    @property
    def key(self) -> str:
        """The request's key."""
        return self.custom_id

    def row(self) -> dict[str, Any]:
        """Return the line as a flat row for a table.

        The fields are always the same, and hold numbers, text, flags, or ``None``. ``cost_usd`` is
        a float, for sums, and ``cost_usd_exact`` the exact amount as text. ``seconds`` and ``ttft``
        are those of the last attempt. ``meta`` and ``score`` are JSON.
        """
        usage, cost, timings = self.usage or {}, self.cost or {}, self.timings or {}
        error, amount = self.error or {}, cost.get("amount")
        answer = self.partial or (self.response or {}).get("body") or {}
        choice = (answer.get("choices") or [{}])[0]
        return {
            "key": self.custom_id,
            "sample": self.sample,
            "ok": self.ok,
            "outcome": self.outcome,
            "content": self.content,
            "finish_reason": choice.get("finish_reason"),
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "cached_tokens": usage.get("cache_read_tokens"),
            "reasoning_tokens": usage.get("reasoning_tokens"),
            "cost_usd": None if amount is None else float(amount),
            "cost_usd_exact": amount,
            "cost_status": cost.get("resolution"),
            "model": answer.get("model"),
            "error": error.get("code"),
            "error_message": error.get("message"),
            "attempts": len(self.attempts),
            "seconds": timings.get("total"),
            "ttft": timings.get("first_chunk"),
            "meta": _json_text(self.meta),
            "score": _json_text(self.score),
        }

    def __repr__(self) -> str:
        return f"<ResultLine {self.custom_id!r} {self.outcome}>"


def _json_text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def fingerprint(request: BatchRequest) -> str:
    """Return a hash of the model's name, the messages and the parameters, as 16 hex digits.

    Neither address nor key is part of it, so that a run can go on at another address.
    """
    name = request.model.name if request.model else None
    try:
        messages = _encode(request.messages)
        asked = [name, _as_before(messages), dict(request.params), dict(request.extra)]
        text = _encode(asked)
    except UnicodeError:  # its repr would show the text
        raise ValueError("a message or parameter is not valid Unicode") from None
    return blake2b(text, digest_size=8).hexdigest()


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_name_of, order="deterministic")


_NO_EXTRA = re.compile(rb'(?<!"type":"function")(?<!"type":"custom"),"extra":null(?=})')
"""The field of texts and refusals that earlier versions had not; calls have always had it."""
_NOT_CUT = re.compile(rb'("name":(?:null|"(?:[^"\\]|\\.)*")),"cut":false(?=})')
"""The field of messages that earlier versions had not, behind the last that they had."""


def _as_before(messages: bytes) -> msgspec.Raw:
    """Return messages as earlier versions have them, whose files of results are gone on with."""
    return msgspec.Raw(_NOT_CUT.sub(rb"\1", _NO_EXTRA.sub(b"", messages)))


def _name_of(thing: Any) -> str:
    """Return the name that stands for a type or function (a tool, a response format) in a hash."""
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing))}"


def result_line(result: BatchResult, request: str) -> bytes:
    """Return the line of a result, with its newline; ``request`` is the `fingerprint` of its request.

    Raises ``TypeError`` for a meta or a score that JSON can't hold.
    """
    number = f"{request}{'' if not result.sample else f'_{result.sample}'}"
    fields = {
        "id": f"batch_req_{blake2b(result.key.encode(), digest_size=8).hexdigest()}{number}",
        "custom_id": result.key,
        "ok": result.ok,
        "outcome": result.outcome,
        "content": _content(result),
        "request": request,
        "sample": result.sample,
        "response": _response(result),
        "error": _error(result.error or result.invalid),
        "usage": usage_fields(result.usage),
        "cost": cost_fields(result.cost),
        "timings": _timings(None if result.response is None else result.response.timings),
        "attempts": [_attempt(attempt) for attempt in result.attempts],
        "cached": result.cached,
    }
    partial = None if result.error is None else result.error.partial
    if partial is not None and partial.timings.chunks:
        fields |= {
            "partial": completion(partial, _created(result)),
            "timings": _timings(partial.timings),
        }
    fields |= {k: v for k, v in (("score", result.score), ("meta", result.meta)) if v is not None}
    check_score(result.score)
    try:
        return msgspec.json.encode(fields) + b"\n"
    except (TypeError, ValueError, RecursionError):
        what = "the meta and the score of a result must be JSON to be written to a file"
        raise TypeError(what) from None


def check_score(score: Any) -> None:
    """Raise ``TypeError`` for a score that is not plain JSON, and that would be read as something
    else: NaN as null, a set as a list, bytes as base64.
    """
    if isinstance(score, float):
        if not math.isfinite(score):
            raise TypeError(f"the score is not JSON: it holds {score}")
    elif isinstance(score, list | tuple | dict):
        try:
            for value in score.values() if isinstance(score, dict) else score:
                check_score(value)
        except RecursionError:
            raise TypeError("the score is not JSON: it is nested too deeply") from None
        if isinstance(score, dict) and not all(isinstance(name, str) for name in score):
            raise TypeError("the score is not JSON: it has a name that is not text")
    elif isinstance(score, set | frozenset | bytes | bytearray | memoryview):
        raise TypeError(f"the score is not JSON: it holds a {type(score).__name__}")


def _content(result: BatchResult) -> str | None:
    """Return the text of a whole answer. It is in the ``response`` once more, but too deep for tools
    that read JSON lines as a table.
    """
    if result.response is None or not result.ok:
        return None
    return _text(result.response.choices[0])


def _text(choice: Choice) -> str | None:
    """Return the text; ``None`` if there are calls or a refusal in its place."""
    return choice.content or (None if choice.tool_calls or choice.refusal else "")


def _response(result: BatchResult) -> dict[str, Any] | None:
    if result.response is not None:
        answer = result.response
        return {
            "status_code": 200,
            "request_id": answer.request_id or answer.id,
            "body": completion(answer, _created(result)),
        }
    error = _last(result.error)
    if not isinstance(error, RefusedError):
        return None
    info = error.info
    words = {"message": info.message, "type": info.type, "code": info.code}
    return {"status_code": info.status, "request_id": error.request_id, "body": {"error": words}}


def _created(result: BatchResult) -> int:
    return int(result.attempts[-1].started.timestamp()) if result.attempts else 0


def _last(error: Exception | None) -> Exception | None:
    return error.last_error if isinstance(error, RetriesExhausted) else error


def _error(error: Exception | None) -> dict[str, Any] | None:
    if error is None:
        return None
    last = _last(error)
    fields: dict[str, Any] = {"code": type(last).__name__, "message": str(error)}
    if isinstance(last, RefusedError | ProviderError):
        fields |= {"kind": last.kind, "status": last.status, "provider_code": last.code}
    if clock := getattr(last, "clock", None):
        fields["clock"] = clock
    return fields


def _attempt(attempt: Attempt) -> dict[str, Any]:
    fields = msgspec.structs.asdict(attempt)
    fields["waited"] = round(attempt.waited, 6)
    fields |= {
        "usage": usage_fields(attempt.usage),
        "cost": cost_fields(attempt.cost),
        "timings": _timings(attempt.timings),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _timings(timings: Timings | None) -> dict[str, Any] | None:
    """Return the timings that are known, to the microsecond."""
    known = {} if timings is None else msgspec.structs.asdict(timings)
    if not known.get("resumes"):
        known.pop("resumes", None)  # hardly any answer has been taken up again
    return {k: round(v, 6) for k, v in known.items() if v is not None} or None


def usage_fields(usage: Usage | None) -> dict[str, Any] | None:
    """Return the counts that are known, by their names in `Usage`; ``raw`` is left out."""
    if usage is None:
        return None
    prompt, total = _totals(usage)
    fields = {**msgspec.structs.asdict(usage), "prompt_tokens": prompt, "total_tokens": total}
    del fields["raw"]
    return {k: v for k, v in fields.items() if v is not None}


def _totals(usage: Usage) -> tuple[int | None, int | None]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    known = prompt is not None or completion is not None
    return prompt, (prompt or 0) + (completion or 0) if known else None


def cost_fields(cost: CostInfo) -> dict[str, Any]:
    """Return the amount as text (``None`` if it is not known), its resolution and its source."""
    amount = None if cost.amount is None else f"{cost.amount:f}"
    return {"amount": amount, "resolution": cost.resolution, "source": cost.source}


# -- a chat completion -----------------------------------------------------------------------


def completion(response: CompletionResponse, created: int) -> dict[str, Any]:
    """Return an answer of any wire in the shape of OpenAI's ``chat.completion``. ``created`` is in
    seconds since 1970.
    """
    return {
        "id": response.id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [_choice(choice, response.metadata) for choice in response.choices],
        "usage": _openai_usage(response.usage),
    }


def _choice(choice: Choice, metadata: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _text(choice),
        "refusal": choice.refusal,
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    details = [p.raw for p in choice.parts if isinstance(p, ReasoningPart) and p.raw]
    if details:
        message["reasoning_details"] = details
    if choice.tool_calls:
        message["tool_calls"] = _calls(choice.tool_calls)
    if choice.invalid_tool_calls:
        message["invalid_tool_calls"] = _calls(choice.invalid_tool_calls)
    for name in ("annotations", "audio", "images"):
        if value := getattr(choice, name):
            message[name] = value
    reason = choice.finish_reason
    out = {"index": choice.index, "message": message, "logprobs": choice.logprobs}
    if reason in REASONS:
        out["native_finish_reason"] = reason
    return {**out, "finish_reason": _reason_of(choice, metadata)}


def _reason_of(choice: Choice, metadata: Mapping[str, Any]) -> str | None:
    """Return the finish reason in the words of chat completions.

    OpenAI Responses has one word for a text and for calls, and one for all that cuts an answer.
    """
    reason = choice.finish_reason
    if reason == "completed" and choice.tool_calls:
        return "tool_calls"
    details = metadata.get("incomplete_details")
    why = details.get("reason") if isinstance(details, Mapping) else None
    if reason == "incomplete" and why == "content_filter":
        return "content_filter"
    return REASONS.get(reason or "", reason)


def _calls(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for call in calls:
        body = {"name": call.name, "arguments": call.arguments}
        if call.type == "custom":
            body = {"name": call.name, "input": call.arguments}
        out.append({"id": call.id, "type": call.type, call.type: body, **(call.extra or {})})
    return out


def _openai_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    prompt, total = _totals(usage)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }
