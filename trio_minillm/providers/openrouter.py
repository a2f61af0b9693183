"""OpenRouter: OpenAI's format with routing, native cost, and reasoning blocks to be sent back.

Usage always ends the stream, whatever the request says. The generation id is in the header
``X-Generation-Id`` and in every chunk; settlements need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from .._types.messages import ReasoningPart
from .._types.params import Reasoning
from .._types.usage import Usage
from ._base import Model, SettlementRequest, joined_url
from ._chat_messages import TurnOrder
from ._formats import ANY
from ._openai_request import Dialect
from .openai import CHAT, OpenAIChat

if TYPE_CHECKING:
    from ._model_lists import ModelPage


def _reasoning(reasoning: Reasoning) -> dict[str, Any]:
    fields = {
        "effort": reasoning.effort,
        "max_tokens": reasoning.budget,
        "enabled": reasoning.enabled,
        "exclude": reasoning.exclude,
        "summary": reasoning.summary,
    }
    return {"reasoning": {k: v for k, v in fields.items() if v is not None}}


def _replay(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    """Return the reasoning to send back: the blocks, whole and in order, or else the plain text."""
    details = [p.raw for p in thoughts if p.wire == "openrouter" and p.raw is not None]
    if details:
        return {"reasoning_details": details}
    text = "".join(p.text for p in thoughts if p.wire == "openrouter")
    return {"reasoning": text} if text else {}


def _replay_as_text(thoughts: list[ReasoningPart], calls: bool) -> dict[str, Any]:
    """Return the same, and the text in DeepSeek's own field, which some of its hosts demand
    (inspect_ai PR 4080).
    """
    text = "".join(p.text for p in thoughts if p.wire in ("", "compatible", "openrouter"))
    return {**_replay(thoughts, calls), **({"reasoning_content": text} if text else {})}


class _Answer(msgspec.Struct):
    data: dict[str, Any] | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class OpenRouter(OpenAIChat):
    """The provider for OpenRouter's chat completions."""

    name = "openrouter"
    replay_wire = "openrouter"
    always_usage = True
    bills: bool = True
    dialect: Dialect = Dialect(
        wire="openrouter",
        order=TurnOrder(
            no_empty=True, blocks_alone=True
        ),  # the model may be Anthropic's, or Gemini
        signatures="kept",  # Google's, of calls; its other blocks are reasoning details
        max_tokens="max_tokens",
        cache_control=True,
        any_tool_content=True,
        document_urls=True,
        reasoning=_reasoning,
        replay=_replay,
        formats=ANY,  # the model may be Anthropic's, or anybody's
        stream_usage=False,  # documented to have no effect: usage always comes
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

    def dialect_at(self, model: Model) -> Dialect:
        """Return how requests to a model differ."""
        if model.name.startswith("deepseek/"):
            return msgspec.structs.replace(self.dialect, replay=_replay_as_text)
        return self.dialect

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-generation-id")

    def settlement_request(self, model: Model, generation_id: str) -> SettlementRequest:
        """Return ``GET /generation?id=``.

        OpenRouter answers 404 until it has processed the generation, about 9 seconds after its end.
        A generation whose stream was left may first run to its end.
        """
        ident = quote(generation_id, safe="")
        url = joined_url(model.base_url, "/generation", instead_of=CHAT, query=f"id={ident}")
        return SettlementRequest(url=url)

    def parse_models(self, body: bytes) -> ModelPage:
        """Read the list, whose prices are in USD for each token."""
        from ._model_lists import page_of, price_per_token  # only who asks for the list needs it

        return page_of(body, price_per_token)

    def parse_settlement(self, body: bytes) -> Usage | None:
        """Return the generation's record as final usage, or ``None`` while it has no cost.

        ``native_tokens_*`` are the billed counts (the others are normalised). Cached tokens are
        part of the prompt's.
        """
        data = _decode_answer(body).data
        if data is None:
            return None
        raw = {
            "prompt_tokens": data.get("native_tokens_prompt"),
            "completion_tokens": data.get("native_tokens_completion"),
            "prompt_tokens_details": {"cached_tokens": data.get("native_tokens_cached")},
            "completion_tokens_details": {"reasoning_tokens": data.get("native_tokens_reasoning")},
            "cost": data.get("total_cost"),
            "is_byok": data.get("is_byok"),
            "cost_details": {"upstream_inference_cost": data.get("upstream_inference_cost")},
        }
        usage = self.usage_of(raw)
        usage.final = True
        return None if usage.cost is None else usage
