"""Usage and costs that known servers report in their own way."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

import trio_minillm as llm
from trio_minillm._protocol.ingest import Ingest
from trio_minillm.providers._charged import asked_of
from trio_minillm.providers._safe_calls import safe_cost

from . import Difference

_PRICE = llm.TokenPrice(input=1, output=10, cache_read=0.1, cache_write=1.25)
_STOP = {"delta": {}, "finish_reason": "stop", "index": 0}
_DEFAULT = llm.compatible("m", base_url="https://llm.invalid/v1", price=_PRICE)


def _answer(
    *events: dict[str, Any], model: llm.Model = _DEFAULT, body: dict[str, Any] | None = None
) -> tuple[llm.Usage, llm.CostInfo]:
    """Return the usage and the cost of an answer of these events."""
    ingest = Ingest(model="m", expect_usage=True, asked=asked_of(model, body or {}))
    for event in events:
        parsed = model.provider.parse_chunk(msgspec.json.encode(event))
        ingest.ingest_all(parsed if isinstance(parsed, list) else filter(None, [parsed]))
    usage = ingest.charged_usage
    assert usage is not None, "no usage"
    usage.final = True  # this is about the counts
    return usage, safe_cost(model, usage)


def _counts(
    raw: dict[str, Any],
    wanted: tuple[int | None, ...],
    *,
    resolved: bool = True,
    **given: Any,
) -> Callable[[], None]:
    """Check uncached, read, written and output tokens, and whether the cost is resolved."""

    def check() -> None:
        event = {"choices": [_STOP], "usage": raw}
        if given.get("model") is _GEMINI:
            event = {"candidates": [_SAID], "usageMetadata": raw}
        elif given.get("model") is _CLAUDE:
            event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": raw}
        usage, cost = _answer(event, **given)
        found = (
            usage.uncached_input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.completion_tokens,
        )
        assert found == wanted, found
        assert (cost.resolution is llm.CostResolution.RESOLVED) is resolved, cost

    return check


def _costs(amount: str, *events: dict[str, Any], **given: Any) -> Callable[[], None]:
    """Check that the cost is this amount of the provider's own."""

    def check() -> None:
        _, cost = _answer(*events, **given)
        found = (cost.amount, cost.resolution.value, cost.source)
        assert found == (Decimal(amount), "resolved", "native"), cost

    return check


def _resolution(wanted: str, *events: dict[str, Any], **given: Any) -> Callable[[], None]:
    def check() -> None:
        _, cost = _answer(*events, **given)
        assert cost.resolution.value == wanted, cost

    return check


def _usage(**more: Any) -> dict[str, Any]:
    return {"prompt_tokens": 100, "completion_tokens": 20, **more}


def _chunk(raw: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [_STOP], "usage": raw, **more}


def _at(server: str) -> llm.Model:
    return llm.compatible("m", base_url="https://llm.invalid/v1", server=server, price=_PRICE)


_CLAUDE = llm.anthropic("m", api_key="none", price=_PRICE)
_OPENAI = llm.openai("m", api_key="none", price=_PRICE)
_ROUTER = llm.openrouter("m", api_key="none")


def _claude(**usage: Any) -> list[dict[str, Any]]:
    start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 100}}}
    end = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20, **usage}}
    return [start, {"type": "message_delta", **end}]


_GEMINI = llm.gemini("m", api_key="none", price=_PRICE)
_THOUGHTS = {"candidatesTokenCount": 2, "thoughtsTokenCount": 5, "totalTokenCount": 18}
_TOLD = {"promptTokenCount": 10, "toolUsePromptTokenCount": 1, **_THOUGHTS}
_SAID = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}

COSTS: list[Difference] = [
    Difference(
        "Gemini",
        "reports thoughts outside `candidatesTokenCount`, and what tools read outside the prompt",
        "thoughts count as output, and what tools read as input; tools may cost extra, so the cost is then a lower bound",
        "ai.google.dev/api/generate-content, `UsageMetadata`",
        _counts(_TOLD, (11, None, None, 7), resolved=False, model=_GEMINI),
    ),
    Difference(
        "Gemini",
        "charges for searches without counting them",
        "the cost is a lower bound if Google Search is among the tools",
        "ai.google.dev/gemini-api/docs/pricing",
        _resolution(
            "lower_bound",
            {"candidates": [_SAID], "usageMetadata": _TOLD},
            model=_GEMINI,
            body={"tools": [{"googleSearch": {}}]},
        ),
    ),
    Difference(
        "Gemini (OpenAI-compatible)",
        "counts thinking only in `total_tokens`",
        "output is the total minus the prompt",
        "mozilla-ai/any-llm#1290, Clarifai/clarifai-python#978",
        _counts(_usage(total_tokens=500), (100, None, None, 400)),
    ),
    Difference(
        "xAI",
        "leaves reasoning out of `completion_tokens`, but not out of the total",
        "reasoning is counted as output",
        "vercel/ai, `convert-xai-chat-usage.ts`",
        _counts(
            _usage(total_tokens=150, completion_tokens_details={"reasoning_tokens": 30}),
            (100, None, None, 50),
            model=_at("xai"),
        ),
    ),
    Difference(
        "xAI",
        "reports the cost in `cost_in_usd_ticks` of 1e-10 USD",
        "used as the cost",
        "xai-org/xai-sdk-python",
        _costs("0.0123", _chunk(_usage(cost_in_usd_ticks=123_000_000)), model=_at("xai")),
    ),
    Difference(
        "Azure (xAI's models)",
        "reports more cached tokens than the prompt has",
        "the total is used, and the cost is a lower bound",
        "crmne/ruby_llm, recorded streams",
        _counts(
            _usage(total_tokens=120, prompt_tokens_details={"cached_tokens": 373}),
            (0, 100, None, 20),
            resolved=False,
        ),
    ),
    Difference(
        "litellm, Cline, Vercel AI Gateway (Claude in OpenAI's format)",
        "report cache tokens under Anthropic's names, at the top level, as a part of the prompt",
        "read from there; the rest of the prompt is uncached",
        "NousResearch/hermes-agent#14220, cline/cline#10266, BerriAI/litellm#39505",
        _counts(
            _usage(total_tokens=120, cache_read_input_tokens=90, cache_creation_input_tokens=0),
            (10, 90, 0, 20),
        ),
    ),
    Difference(
        "gateways that pass on Anthropic's counts",
        "report cache tokens outside `prompt_tokens`",
        "added to `prompt_tokens` if they exceed it, or if the total includes them",
        "Anthropic's reference: `input_tokens` has no cache tokens",
        _counts(_usage(cache_read_input_tokens=9000), (100, 9000, None, 20)),
    ),
    Difference(
        "Bedrock gateways",
        "report `inputTokens`, `outputTokens`, `cacheReadInputTokens`, and `cacheWriteInputTokens`",
        "all four are read, and cache tokens are added to the input",
        "AWS's reference of Converse: `TokenUsage`",
        _counts(
            {
                "inputTokens": 100,
                "outputTokens": 20,
                "cacheReadInputTokens": 50,
                "cacheWriteInputTokens": 5,
                "totalTokens": 175,
            },
            (100, 50, 5, 20),
        ),
    ),
    Difference(
        "DeepSeek",
        "splits the prompt into `prompt_cache_hit_tokens` and `prompt_cache_miss_tokens`",
        "hits count as cache reads",
        "DeepSeek's reference",
        _counts(
            _usage(prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), (36, 64, None, 20)
        ),
    ),
    Difference(
        "Moonshot (Kimi)",
        "sends `cached_tokens` at the top level, and the usage inside the last choice",
        "read from there",
        "earendil-works/pi#2017, northes/go-moonshot#17",
        _resolution("resolved", {"choices": [{**_STOP, "usage": _usage(cached_tokens=40)}]}),
    ),
    Difference(
        "Mistral",
        "reports cached tokens as `num_cached_tokens`",
        "counted as cache reads",
        "prism-php/prism, recorded streams",
        _counts(_usage(num_cached_tokens=64), (36, 64, None, 20), model=_at("mistral")),
    ),
    Difference(
        "Cohere",
        "sends `tokens` and `billed_units` in its own format",
        "the billed units count",
        "Cohere's reference of Chat",
        _counts(
            {
                "billed_units": {"input_tokens": 5, "output_tokens": 7},
                "tokens": {"input_tokens": 71},
            },
            (5, None, None, 7),
        ),
    ),
    Difference(
        "Groq",
        "also sends the usage in `x_groq`",
        "read from there if it is nowhere else",
        "Groq's reference",
        _resolution("resolved", {"choices": [_STOP], "x_groq": {"id": "r", "usage": _usage()}}),
    ),
    Difference(
        "Groq",
        "calls its standard tier `on_demand`",
        "the standard price applies",
        "Groq's reference: Service tiers",
        _resolution("resolved", _chunk(_usage(), service_tier="on_demand")),
    ),
    Difference(
        "DeepInfra",
        "reports the cost as `estimated_cost`",
        "used as the cost",
        "BerriAI/litellm#38802",
        _costs("0.00042", _chunk(_usage(estimated_cost=0.00042))),
    ),
    Difference(
        "Perplexity",
        "reports the cost as an object with `total_cost`",
        "the total is used as the cost",
        "Perplexity's reference",
        _costs("0.006", _chunk(_usage(cost={"request_cost": 0.005, "total_cost": 0.006}))),
    ),
    Difference(
        "Perplexity",
        "charges `citation_tokens` and deep-research searches separately",
        "without its own figure, the cost is a lower bound",
        "Perplexity's page Pricing",
        _resolution("lower_bound", _chunk(_usage(citation_tokens=5000))),
    ),
    Difference(
        "OpenRouter",
        "charges only a fee if you bring your own key (`is_byok`)",
        "the upstream's charge is added, and only then",
        "OpenRouter's reference: Usage accounting",
        _costs(
            "0.51",
            _chunk(_usage(cost=0.01, is_byok=True, cost_details={"upstream_inference_cost": 0.5})),
            model=_ROUTER,
        ),
    ),
    Difference(
        "litellm",
        "reports the cost in the usage of a stream, if configured to",
        "used as the cost (its header is sent before the cost of a stream is known)",
        "litellm's reference: `include_cost_in_streaming_usage`",
        _costs("0.002", _chunk(_usage(cost=0.002))),
    ),
    Difference(
        "Snowflake",
        "includes `guard_tokens` in the total",
        "not counted as output; the cost is a lower bound",
        "Snowflake's reference: Cortex COMPLETE",
        _counts(_usage(guard_tokens=30, total_tokens=150), (100, None, None, 20), resolved=False),
    ),
    Difference(
        "Databricks (Gemini's models)",
        "sends null counts with the finish reason, and the real counts after it",
        "null counts are ignored",
        "block/goose#7997",
        _resolution(
            "resolved",
            _chunk({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}),
            {"choices": [], "usage": _usage()},
        ),
    ),
    Difference(
        "relays of Anthropic's format",
        "send zeros for the input in `message_start` or `message_delta`",
        "a zero never replaces a count",
        "BerriAI/litellm#41406, chenyme/grok2api#612",
        _resolution("resolved", *_claude(input_tokens=0), model=_CLAUDE),
    ),
    Difference(
        "litellm (Messages in front of chat completions)",
        "counts cached tokens neither as input nor as cache reads",
        "its counts: fewer tokens than the prompt has",
        "seen with litellm 1.82.6 in front of llama.cpp (`nox -s servers`)",
        _counts(
            {"input_tokens": 14, "output_tokens": 16, "cache_read_input_tokens": 0},
            (14, 0, None, 16),
            model=_CLAUDE,
        ),
    ),
    Difference(
        "Anthropic",
        "names the speed in the usage (`speed: fast`)",
        "priced at the price of that speed; at the standard price, a lower bound",
        "Anthropic's page Fast mode",
        _resolution("lower_bound", *_claude(speed="fast"), model=_CLAUDE),
    ),
    Difference(
        "Anthropic",
        "names the region in the usage (`inference_geo: us` costs 1.1 times as much)",
        "at the standard price, a lower bound",
        "Anthropic's page Data residency",
        _resolution("lower_bound", *_claude(inference_geo="us"), model=_CLAUDE),
    ),
    Difference(
        "OpenAI",
        "may serve another tier than requested, and names it",
        "priced at the tier that served; not resolved without its price",
        "OpenAI's reference: `service_tier`",
        _resolution(
            "lower_bound",
            _chunk(_usage(), service_tier="priority"),
            model=_OPENAI,
            body={"service_tier": "auto"},
        ),
    ),
    Difference(
        "OpenAI",
        "counts the tokens of all choices",
        "with `n=2`, the cost is resolved",
        "OpenAI's reference: `n`",
        _resolution("resolved", _chunk(_usage()), model=_OPENAI, body={"n": 2}),
    ),
    Difference(
        "vLLM",
        "counts the tokens of all choices",
        "with `n=2`, the cost is resolved",
        "vllm-project/vllm, `serving_chat.py`",
        _resolution("resolved", _chunk(_usage()), model=_at("vllm"), body={"n": 2}),
    ),
    Difference(
        "llama.cpp",
        "counts the tokens of only one choice",
        "with `n=2`, the cost is a lower bound",
        "ggml-org/llama.cpp, measured",
        _resolution("lower_bound", _chunk(_usage()), model=_at("llama.cpp"), body={"n": 2}),
    ),
]
"""Each is one way to count or to charge that OpenAI's or Anthropic's reference does not have."""
