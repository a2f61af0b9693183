"""The names under which servers put counts and costs into a usage object."""

from __future__ import annotations

from typing import Final, TypeAlias

Path: TypeAlias = tuple[str, ...]
Names: TypeAlias = tuple[Path, ...]


def paths(*names: str) -> Names:
    """Return the paths to fields, each as the names of the objects that it is in and its own."""
    return tuple(tuple(name.split(".")) for name in names)


INSIDE: Final = {
    "read": paths(
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "prompt_tokens_details.cache_read_tokens",
        "prompt_tokens_details.cache_read_input_tokens",
        "prompt_cache_hit_tokens",  # DeepSeek
        "cached_tokens",  # Moonshot, Cohere
        "num_cached_tokens",  # Mistral
        "cachedContentTokenCount",  # Gemini's own wire, as all of these names in its style
        "cachedInputTokens",  # Vercel's AI SDK 5, and below 6
        "inputTokenDetails.cacheReadTokens",
    ),
    "written": paths(
        "prompt_tokens_details.cache_write_tokens",
        "input_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens",  # litellm
        "prompt_tokens_details.cache_creation_input_tokens",
        "cache_write_tokens",
        "inputTokenDetails.cacheWriteTokens",
    ),
}
"""Names of cache tokens that are part of the prompt."""
BESIDE: Final = {
    "read": paths("cache_read_input_tokens", "cacheReadInputTokens"),
    "written": paths(
        "cache_creation_input_tokens", "cacheWriteInputTokens", "cache_write_input_tokens"
    ),
}
"""Names of Anthropic's and Bedrock's wires, where cache tokens are beside the input."""
CACHE_WRITES_BY_LIFE: Final = (
    paths("cache_creation.ephemeral_5m_input_tokens"),
    paths("cache_creation.ephemeral_1h_input_tokens"),
)
"""The parts of Anthropic's cache writes."""
NAMES: Final[dict[str, Names]] = {
    "total_tokens": paths("total_tokens", "totalTokenCount", "totalTokens"),
    "uncached_input_tokens": paths(
        "prompt_tokens",
        "input_tokens",
        "promptTokenCount",
        "inputTokens",  # Bedrock
        "promptTokens",  # relays on Vercel's AI SDK, also below
        "billed_units.input_tokens",  # Cohere's own wire: the tokens that are charged
        "tokens.input_tokens",
    ),
    "cache_read_tokens": INSIDE["read"] + BESIDE["read"],
    "cache_write_tokens": INSIDE["written"] + BESIDE["written"],
    "cache_write_1h_tokens": paths(
        "cache_creation.ephemeral_1h_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",  # litellm
    ),
    "completion_tokens": paths(
        "completion_tokens",
        "output_tokens",
        "candidatesTokenCount",
        "outputTokens",
        "completionTokens",
        "billed_units.output_tokens",
        "tokens.output_tokens",
    ),
    "reasoning_tokens": paths(
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens",
        "completion_tokens_details.thinking_tokens",
        "reasoning_tokens",
        "thinking_tokens",
        "thoughtsTokenCount",
        "reasoningTokens",
        "outputTokenDetails.reasoningTokens",
    ),
    "audio_input_tokens": paths(
        "prompt_tokens_details.audio_tokens", "input_tokens_details.audio_tokens"
    ),
    "image_input_tokens": paths(
        "prompt_tokens_details.image_tokens", "input_tokens_details.image_tokens"
    ),
    "audio_output_tokens": paths(
        "completion_tokens_details.audio_tokens", "output_tokens_details.audio_tokens"
    ),
    "image_output_tokens": paths(
        "completion_tokens_details.image_tokens", "output_tokens_details.image_tokens"
    ),
    "web_searches": paths(
        "server_tool_use.web_search_requests",
        "server_tool_use_details.web_search_requests",  # OpenRouter
        "num_search_queries",  # Perplexity
        "server_side_tool_usage_details.web_search_calls",  # xAI, Responses
    ),
}
"""The names of each count, the one that decides first."""
CHARGED_APART: Final = paths(
    "citation_tokens",  # Perplexity's deep research
    "num_sources_used",  # xAI's live search
    "guard_tokens",  # Snowflake
    "toolUsePromptTokenCount",
    "billed_units.search_units",
)
"""Counts that are charged at rates which a `TokenPrice` does not have."""
COST: Final = paths(
    "cost",
    "cost.total_cost",  # Perplexity
    "cost.total",
    "cost_details.total_cost",
    "total_cost",
    "estimated_cost",  # DeepInfra
    "response_cost",  # litellm
    "cost_usd",
    "total_cost_usd",
)
"""Fields in which providers name the cost, in USD."""
