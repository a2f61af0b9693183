"""Other servers that speak OpenAI's chat-completions format.

Their responses are read by `OpenAIChat`; this file has the differences in *requests*. A server is
recognised by its host, or named with ``server=``; an unknown one gets the common denominator.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from .._types.cost import CostInfo, TokenPrice
from .._types.messages import ReasoningPart
from .._types.money import scaled
from .._types.params import Reasoning
from .._types.usage import Usage, number_in
from ._base import Model
from ._openai_request import Dialect
from ._pricing import native_cost
from .openai import OpenAIChat

_SAMPLERS = ("top_k", "min_p", "top_a", "repetition_penalty")


def _text(thoughts: list[ReasoningPart]) -> str:
    return "".join(p.text for p in thoughts if p.wire in ("", "compatible"))


def _replay_always(thoughts: list[ReasoningPart]) -> dict[str, Any]:
    return {"reasoning_content": _text(thoughts)}


def _replay_content(thoughts: list[ReasoningPart]) -> dict[str, Any]:
    return {"reasoning_content": text} if (text := _text(thoughts)) else {}


def _replay_reasoning(thoughts: list[ReasoningPart]) -> dict[str, Any]:
    return {"reasoning": text} if (text := _text(thoughts)) else {}


def _thinking(reasoning: Reasoning) -> dict[str, Any]:
    """Translate reasoning for DeepSeek, which has a switch and an effort."""
    if reasoning.budget is not None or reasoning.summary or reasoning.exclude:
        raise ValueError("DeepSeek takes reasoning effort or on/off: no budget, summary, exclude")
    out: dict[str, Any] = {}
    if reasoning.enabled is not None:
        out["thinking"] = {"type": "enabled" if reasoning.enabled else "disabled"}
    if reasoning.effort is not None:
        out["reasoning_effort"] = reasoning.effort
    return out


GENERIC = Dialect(
    max_tokens="max_tokens",
    developer="system",
    document_urls=True,
    any_tool_content=True,
    extra_params=_SAMPLERS,
)

SERVERS: dict[str, Dialect] = {
    "generic": GENERIC,
    "azure": Dialect(),
    "deepseek": msgspec.structs.replace(
        GENERIC,
        reasoning=_thinking,
        replay=_replay_always,
        replay_beside_calls=True,  # in thinking mode, a turn with calls is refused without it
        extra_params=(),
    ),
    "groq": msgspec.structs.replace(
        GENERIC, max_tokens="max_completion_tokens", replay=_replay_reasoning, extra_params=()
    ),
    "llama.cpp": msgspec.structs.replace(GENERIC, replay=_replay_content),
    "mistral": msgspec.structs.replace(  # it refuses stream_options, and sends usage anyway
        GENERIC,
        seed="random_seed",
        stream_usage=False,
        bare_media=True,
        without=("user", "logit_bias"),
        extra_params=("top_k", "repetition_penalty"),
    ),
    "ollama": msgspec.structs.replace(GENERIC, replay=_replay_reasoning, extra_params=()),
    "vllm": msgspec.structs.replace(GENERIC, replay=_replay_reasoning),
    "xai": msgspec.structs.replace(GENERIC, max_tokens="max_completion_tokens", extra_params=()),
}
"""Known servers, by name; the source of each entry is the server's own reference or SDK."""

_HOSTS = {
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.x.ai": "xai",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
}


_USD_PER_TICK = -10
"""Power of ten of one of xAI's ``cost_in_usd_ticks``, in USD. Not documented: with 1e-10, recorded
streams come to xAI's list prices."""


def server_at(base_url: str) -> str:
    """Return the name of the known server at an address, else ``"generic"``."""
    try:
        host = (urlsplit(base_url).hostname or "").lower()
    except ValueError:  # not an address: `Model` raises for it
        return "generic"
    for known, server in _HOSTS.items():
        if host == known or (known.startswith(".") and host.endswith(known)):
            return server
    return "generic"


class Compatible(OpenAIChat):
    """The provider for any server that speaks OpenAI's chat-completions format.

    ``server`` is the name of an entry of `SERVERS`. Raises ``ValueError`` for an unknown one.
    """

    name = "compatible"
    replay_wire = "compatible"

    def __init__(self, server: str = "generic") -> None:
        if server not in SERVERS:
            raise ValueError(f"unknown server {server!r}; known: {', '.join(sorted(SERVERS))}")
        self.server = server
        self.dialect: Dialect = SERVERS[server]

    def endpoint_url(self, model: Model) -> str:
        """Return the URL; a query in the base URL (Azure's ``api-version``) stays at its end."""
        base, mark, query = model.base_url.partition("?")
        return f"{base.rstrip('/')}/chat/completions{mark}{query}"

    def auth_headers(self, model: Model) -> dict[str, str]:
        if self.server == "azure" and model.api_key:
            return {"api-key": model.api_key}
        return super().auth_headers(model)

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        raw = usage.raw if usage is not None else None
        ticks = number_in((raw or {}).get("cost_in_usd_ticks"))
        if usage is not None and usage.cost is None and ticks:
            return native_cost(usage, scaled(int(ticks), _USD_PER_TICK))
        return super().cost_of(usage, price)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True for Azure and for vLLM, whose server adds up the tokens of all choices."""
        return self.server in ("azure", "vllm") or super().counts_all_choices(model)
