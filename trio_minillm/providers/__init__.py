"""Providers: stateless translators between the neutral types and one wire format each.

A new wire format is a subclass of `Provider`, in this package or outside of it.
"""

from typing import TYPE_CHECKING

from .._types.later import loader
from ._base import (
    Continuation,
    FollowUp,
    Model,
    Parsed,
    Provider,
    RepeatFilter,
    Request,
    SettlementRequest,
    refuse_others,
)

if TYPE_CHECKING:
    from ._errors import complaint_in, error_from, error_info
    from ._openai_request import Dialect
    from ._server_quirks import SERVERS
    from .anthropic import Anthropic
    from .compatible import Compatible
    from .gemini import Gemini
    from .openai import OpenAIChat
    from .openai_responses import OpenAIResponses
    from .openrouter import OpenRouter
    from .text_completions import TextCompletions
else:
    # Most programs speak one wire: the others are not loaded, nor what only failures need.
    _LATER = {
        "SERVERS": "_server_quirks",
        **dict.fromkeys(("complaint_in", "error_from", "error_info"), "_errors"),
        "Anthropic": "anthropic",
        "Compatible": "compatible",
        "Dialect": "_openai_request",
        "Gemini": "gemini",
        "OpenAIChat": "openai",
        "OpenAIResponses": "openai_responses",
        "OpenRouter": "openrouter",
        "TextCompletions": "text_completions",
        **{name: name for name in ("anthropic", "compatible", "gemini", "openai", "openrouter")},
        "openai_responses": "openai_responses",
        "text_completions": "text_completions",
    }

    __getattr__, __dir__ = loader(__name__, _LATER)


__all__ = [
    "SERVERS",
    "Anthropic",
    "Compatible",
    "Continuation",
    "Dialect",
    "FollowUp",
    "Gemini",
    "Model",
    "OpenAIChat",
    "OpenAIResponses",
    "OpenRouter",
    "Parsed",
    "Provider",
    "RepeatFilter",
    "Request",
    "SettlementRequest",
    "TextCompletions",
    "complaint_in",
    "error_from",
    "error_info",
    "refuse_others",
]
