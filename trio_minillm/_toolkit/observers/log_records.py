"""The words in which failures are logged: ours alone, as a server's may quote the prompt."""

from __future__ import annotations

import logging

from ..._accounting.record import CostRecord
from ..._types.errors import MiniLLMError
from ...providers import Model

log = logging.getLogger("trio_minillm")
log.addHandler(logging.NullHandler())  # without one, Python prints warnings that nobody asked for


def log_retry(record: CostRecord, model: Model, error: MiniLLMError) -> None:
    """Log that an attempt has failed and that another follows."""
    if log.isEnabledFor(logging.WARNING):
        extra = {
            "llm_model": record.model,
            "llm_provider": record.provider,
            "llm_attempt": record.attempt,
            "llm_outcome": str(record.outcome),
            "llm_error": error_type(error),
            "llm_request_id": record.request_id,
            "llm_key": record.key,
        }
        words = "attempt %d at %s failed (%s); another follows"
        log.warning(words, record.attempt, model, described(error), extra=extra)


def error_type(error: MiniLLMError) -> str:
    """Return one of few names for an error: the HTTP status of a refusal, or the name of its class."""
    status = getattr(error, "status", None)
    return str(status) if status is not None else type(error).__name__


def described(error: MiniLLMError) -> str:
    """Return an error in words of ours alone: a server's may quote the prompt."""
    facts = [type(error).__name__]
    for name in ("status", "kind", "clock"):
        value = getattr(error, name, None)
        if value is not None:
            facts.append(str(value))
    return " ".join(facts)
