"""The wires: one file each. A new one is a subclass of `Provider`, here or elsewhere."""

from ._base import Model, Parsed, Provider, Request, SettlementRequest, refuse_others
from ._errors import error_from, error_info
from ._openai_request import Dialect
from .anthropic import Anthropic
from .compatible import SERVERS, Compatible
from .openai import OpenAIChat
from .openrouter import OpenRouter

__all__ = [
    "SERVERS",
    "Anthropic",
    "Compatible",
    "Dialect",
    "Model",
    "OpenAIChat",
    "OpenRouter",
    "Parsed",
    "Provider",
    "Request",
    "SettlementRequest",
    "error_from",
    "error_info",
    "refuse_others",
]
