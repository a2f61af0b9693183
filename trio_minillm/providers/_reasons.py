"""Finish reasons of all wire formats: words that are none, and words that name a failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._types.errors import EXCERPT_CHARS, RETRYABLE, ErrorInfo, ErrorKind, ProtocolError
from ._error_kinds import BY_STATUS

NO_REASONS = frozenset(
    {
        *("", "null", "none", "nil", "undefined", "unspecified", "false", "0", "na", "n_a"),
        *("in_progress", "not_finished", "unfinished", "not_stopped", "pending", "ongoing"),
        *("continue", "continuing", "running", "generating", "streaming"),
    }
)
"""Words, as `plain_reason` writes them, where a server means that there is no reason yet."""


USUAL_REASONS = frozenset(
    {
        *("stop", "length", "tool_calls", "content_filter"),
        *("end_turn", "max_tokens", "tool_use", "stop_sequence", "STOP"),
    }
)
"""Reasons of almost all answers, which are neither of both: told without a look at their parts."""


class _Failure(NamedTuple):
    kind: ErrorKind
    may_pass: bool  # another attempt may succeed without any change
    source: str


FAILURES: dict[str, _Failure] = {
    "error": _Failure("server", True, "OpenRouter and Mistral, API references"),
    "network_error": _Failure("server", True, "Z.ai, API reference"),
    "abort": _Failure("server", True, "SGLang and vLLM: the engine dropped the request"),
    "aborted": _Failure("server", True, "DeepSeek; LMDeploy"),
    "insufficient_system_resource": _Failure("overloaded", True, "DeepSeek, API reference"),
    "error_finish": _Failure("server", True, "seen from gateways"),
    "error_limit": _Failure("invalid", False, "Cohere v1: the context limit"),
    "error_toxic": _Failure("invalid", False, "Cohere v1: filtered"),
    "timeout": _Failure("timeout", True, "Cohere, API reference"),
    "cancelled": _Failure("server", True, "vLLM, Responses"),
    "canceled": _Failure("server", True, "spelling of the same"),
    "user_cancel": _Failure("server", False, "Cohere v1"),
    "interrupted": _Failure("server", True, "seen from gateways"),
    "time_out": _Failure("timeout", True, "spelling of timeout"),
    "timed_out": _Failure("timeout", True, "spelling of timeout"),
    "deadline_exceeded": _Failure("timeout", True, "gRPC's status, through gateways"),
    "out_of_memory": _Failure("server", True, "seen from gateways"),
    "quota_exceeded": _Failure("quota", False, "seen from gateways"),
    "rate_limit": _Failure("rate_limit", True, "seen from gateways"),
    "insufficient_quota": _Failure("quota", False, "OpenAI's code, through gateways"),
    "resource_exhausted": _Failure("overloaded", True, "gRPC's status, through gateways"),
    "rate_limit_exceeded": _Failure("rate_limit", True, "OpenAI Responses, incomplete_details"),
    "overloaded": _Failure("overloaded", True, "seen from gateways"),
    "malformed_function_call": _Failure("server", True, "Gemini, FinishReason"),
    "malformed_response": _Failure("server", True, "Gemini, FinishReason"),
    "unexpected_tool_call": _Failure("server", True, "Gemini, FinishReason"),
    "too_many_tool_calls": _Failure("server", True, "Gemini, FinishReason"),
    "missing_thought_signature": _Failure("invalid", False, "Gemini, FinishReason"),
}
"""Reasons, as `plain_reason` writes them, that name a failure: the answer is not there, whatever
came of it."""

_TELLING: tuple[tuple[str, str], ...] = (
    ("quota|balance|credits?|billing", "quota_exceeded"),
    ("throttl.*|too_many_requests|rate_limit.*", "rate_limit_exceeded"),
    ("timeout|timedout|time_out|timed_out|deadline", "timeout"),
    (
        "overload.*|unavailable|busy|(?:resources?|memory|capacity|pool)_exhausted|(?:cache|queue|memory|buffer|pool)_full",
        "overloaded",
    ),
    ("cancel.*", "cancelled"),
    ("interrupted|disconnect.*|closed|premature|reset", "interrupted"),
    ("abort.*|preempt.*|evict.*|dropped", "abort"),
    (
        "(?:.*error|errors|exception|fail|fails|failed|failing|failure|fault|malformed|broken)",
        "error",
    ),
    (
        "crash|crashed|dead|unloaded|killed|oom|panic|lost|shutdown|unreachable|unhealthy|unexpected",
        "error",
    ),
    ("bad|invalid|internal|unauthorized|forbidden|terminated", "error"),
)
"""Patterns of words within a longer reason that make it a failure, too, and the row of `FAILURES`
that they stand for: Gemini's OpenAI-style endpoint sends ``function_call_filter:
MALFORMED_FUNCTION_CALL``."""
_MACHINES = frozenset(
    {
        *("connection", "conn", "server", "worker", "engine", "upstream", "backend", "network"),
        *("gpu", "node", "host", "service", "process", "socket", "replica", "cluster", "device"),
    }
)
"""Words for what runs a model: a reason that speaks of it, and of no end and no limit, is that it
failed (``connection_reset``, ``worker_gone``)."""
_ENDS = frozenset(
    {
        *("stop", "stopped", "end", "ended", "done", "complete", "completed", "finish", "finished"),
        *("eos", "length", "limit", "max", "filter", "filtered", "tool", "tools", "call", "calls"),
        *("success", "succeeded", "safety", "policy", "block", "blocked"),
    }
)
_DENYING = frozenset({"no", "not", "without"})
"""Words that make the others say that there was no failure."""

_PREFIX = "^(?:finish_?|stop_?)?(?:reason_)"
_CAMEL = "(?<=[a-z0-9])(?=[A-Z])"


def plain_reason(reason: str) -> str:
    """Return a reason in lower case, its words joined by underscores, without a type's name."""
    snake = re.sub(_CAMEL, "_", reason).lower()
    return re.sub(_PREFIX, "", re.sub("[^a-z0-9]+", "_", snake).strip("_"))


def reason_of(value: Any, where: str) -> str | None:
    """Return a finish reason in the server's words; ``None`` for a word that is no reason.

    Numbers count as text (but 0, which is no reason), an object as what it names as its type or
    reason, and a list as all of its reasons. Raises `ProtocolError`, naming the place, for anything
    else: the reason decides what an answer is.
    """
    if value is None or (type(value) is str and value in USUAL_REASONS):
        return value
    if isinstance(value, list):  # one after another: a failure among them counts
        found = [reason_of(entry, where) for entry in value[:8]]
        return ", ".join(filter(None, found)) or None
    if isinstance(value, Mapping):
        value = value.get("type") or value.get("reason") or value.get("finish_reason")
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise ProtocolError(f"{where} is not text")
    value = value.strip()
    return None if value.lower() in NO_REASONS or plain_reason(value) in NO_REASONS else value


def failure_of(reason: str, details: Any = None) -> ErrorInfo | None:
    """Return the failure that a finish reason names, if it names one.

    ``details`` is the reason as it was sent: SGLang's is an object with a message.
    """
    found = None if reason in USUAL_REASONS else _failure_in(reason)
    if found is None:
        return None
    message = details.get("message") if isinstance(details, Mapping) else None
    more = f": {message}" if isinstance(message, str) and message else ""
    return ErrorInfo(
        message=f"the finish reason is {reason!r}{more}"[:EXCERPT_CHARS],
        kind=found.kind,
        code=reason[:100],
        should_retry=found.may_pass,
    )


def _failure_in(reason: str) -> _Failure | None:
    """Return the failure that a reason, or one of several in it, is or speaks of."""
    for part in (reason, *re.split("[:;,./]", reason[:EXCERPT_CHARS])):
        if (found := FAILURES.get(plain_reason(part))) is not None:
            return found
    plain = plain_reason(reason[:EXCERPT_CHARS])
    if re.fullmatch("(?:http_|status_|code_|error_)?[45][0-9]{2}", plain):
        return _of_status(int(plain[-3:]))
    words = plain.split("_")
    if "ok" in words or "okay" in words:
        return FAILURES["error"] if not _DENYING.isdisjoint(words) else None
    if not _DENYING.isdisjoint(words):
        return None
    for pattern, row in _TELLING:
        if re.search(f"(?:^|_)(?:{pattern})(?:_|$)", plain) is not None:
            return FAILURES[row]
    machines = not _MACHINES.isdisjoint(words) and _ENDS.isdisjoint(words)
    return FAILURES["error"] if machines else None


def _of_status(status: int) -> _Failure:
    kind = BY_STATUS.get(status, "server" if status >= 500 else "invalid")
    return _Failure(kind, kind in RETRYABLE or status >= 500, "an HTTP status in place of a word")
