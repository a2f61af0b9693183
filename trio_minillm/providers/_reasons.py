"""Finish reasons of all wire formats: words that are none, and words that name a failure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._types.errors import EXCERPT_CHARS, ErrorInfo, ErrorKind, ProtocolError

NO_REASONS = frozenset(
    {
        *("", "null", "none", "nil", "undefined", "unspecified", "false"),
        *("finish_reason_unspecified", "in_progress", "not_finished"),
    }
)
"""Words, in lower case, that stand where a server means that there is no reason yet."""


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
    "rate_limit_exceeded": _Failure("rate_limit", True, "OpenAI Responses, incomplete_details"),
    "overloaded": _Failure("overloaded", True, "seen from gateways"),
    "malformed_function_call": _Failure("server", True, "Gemini, FinishReason"),
    "malformed_response": _Failure("server", True, "Gemini, FinishReason"),
    "unexpected_tool_call": _Failure("server", True, "Gemini, FinishReason"),
    "too_many_tool_calls": _Failure("server", True, "Gemini, FinishReason"),
    "missing_thought_signature": _Failure("invalid", False, "Gemini, FinishReason"),
}
"""Reasons, in lower case, that name a failure: the answer is not there, whatever came of it."""

_TELLING = frozenset({"error", "errors", "exception", "failed", "failure", "malformed"})
"""Words within a longer reason that make it a failure, too: Gemini's OpenAI-style endpoint sends
``function_call_filter: MALFORMED_FUNCTION_CALL``."""


def reason_of(value: Any, where: str) -> str | None:
    """Return a finish reason in the server's words; ``None`` for a word that is no reason.

    Numbers count as text, and an object as what it names as its type or reason. Raises
    `ProtocolError`, naming the place, for anything else: the reason decides what an answer is.
    """
    if isinstance(value, Mapping):
        value = value.get("type") or value.get("reason") or value.get("finish_reason")
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise ProtocolError(f"{where} is not text")
    return None if value.strip().lower() in NO_REASONS else value


def failure_of(reason: str, details: Any = None) -> ErrorInfo | None:
    """Return the failure that a finish reason names, if it names one.

    ``details`` is the reason as it was sent: SGLang's is an object with a message.
    """
    word = reason.strip().lower()
    found = FAILURES.get(word)
    if found is None:
        if not _TELLING & set(re.split(r"[^a-z]+", word)):
            return None
        found = FAILURES["error"]
    message = details.get("message") if isinstance(details, Mapping) else None
    more = f": {message}" if isinstance(message, str) and message else ""
    return ErrorInfo(
        message=f"the finish reason is {reason!r}{more}"[:EXCERPT_CHARS],
        kind=found.kind,
        code=reason[:100],
        should_retry=found.may_pass,
    )
