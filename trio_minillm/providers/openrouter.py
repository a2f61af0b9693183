"""OpenRouter: OpenAI's wire with routing, native cost and reasoning blocks for replay.

Usage always ends the stream, whatever the request says. The generation id stands in the
header ``X-Generation-Id`` and in every chunk; cost questions after the fact need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._messages import ReasoningPart
from .._params import Reasoning
from ._openai_request import Dialect
from .openai import OpenAIChat


def _reasoning(reasoning: Reasoning) -> dict[str, Any]:
    fields = {
        "effort": reasoning.effort,
        "max_tokens": reasoning.budget,
        "enabled": reasoning.enabled,
        "exclude": reasoning.exclude,
        "summary": reasoning.summary,
    }
    return {"reasoning": {k: v for k, v in fields.items() if v is not None}}


def _replay(thoughts: list[ReasoningPart]) -> dict[str, Any]:
    """Blocks go back whole and in order; plain text only where there are no blocks."""
    details = [p.raw for p in thoughts if p.wire == "openrouter" and p.raw is not None]
    if details:
        return {"reasoning_details": details}
    text = "".join(p.text for p in thoughts if p.wire == "openrouter")
    return {"reasoning": text} if text else {}


class OpenRouter(OpenAIChat):
    """OpenRouter's chat-completions endpoint."""

    name = "openrouter"
    replay_wire = "openrouter"
    always_usage = True
    dialect: Dialect = Dialect(
        max_tokens="max_tokens",
        cache_control=True,
        any_tool_content=True,
        document_urls=True,
        reasoning=_reasoning,
        replay=_replay,
        stream_usage=False,  # documented as without effect: usage always comes
        extra_params=(
            "top_k",
            "min_p",
            "top_a",
            "repetition_penalty",
            "models",
            "provider",
            "plugins",
            "session_id",
            "trace",
            "image_config",
        ),
    )

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-generation-id")
