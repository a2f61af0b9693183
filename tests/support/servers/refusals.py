"""Refusals of known servers, and how the library classifies them.

Each entry has a body as the server sends it, shortened. A scripted server sends it to the library,
which must report the kind that the entry names, and retry if and only if that can help.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import testing

from . import Difference

_KINDS = {
    "quota": "`quota`; not retried",
    "rate_limit": "`rate_limit`; retried",
    "overloaded": "`overloaded`; retried",
    "invalid": "`invalid`; not retried, and a batch does not slow down",
    "auth": "`auth`; not retried",
    "server": "`server`; retried",
}


class Met(NamedTuple):
    """Result of one call whose first answer was a refusal."""

    error: Any
    content: str | None
    requests: int
    waited: float


def meet(
    body: Any,
    status: int | None = 429,
    *,
    wire: str = "openai",
    headers: dict[str, str] | None = None,
) -> Met:
    """Call a server that refuses once, then answers. ``status`` None: as an event under HTTP 200."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = testing.reply(data, status=status, headers=headers or {}) if status else None
    transport = testing.ScriptedTransport(
        said or testing.reply(testing.sse(body), testing.sse("[DONE]")), testing.answer("ok")
    )
    at = {"base_url": "https://llm.invalid/v1", "api_key": "key-0123456789"}
    model = llm.anthropic("m", **at) if wire == "anthropic" else llm.compatible("m", **at)
    retry = llm.Retry(attempts=2, base_delay=0.0, max_retry_after=60.0)
    error, content = None, None

    async def call() -> float:
        nonlocal error, content
        begun = trio.current_time()
        async with llm.open_client(transport=transport, retry=retry) as client:
            try:
                content = (await client.complete(model, "Hi")).content
            except (llm.RefusedError, llm.ProviderError) as exc:
                error = exc
        return trio.current_time() - begun

    waited = trio.run(call, clock=trio.testing.MockClock(autojump_threshold=0))
    return Met(error, content, len(transport.requests), waited)


def _refusal(
    server: str,
    does: str,
    source: str,
    kind: str,
    body: Any,
    status: int | None = 429,
    *,
    wait: float | None = None,
    says: str = "",
    **more: Any,
) -> Difference:
    """One entry. ``wait``: the wait that the server names, in seconds; above a minute, no retry."""
    again = kind in ("rate_limit", "overloaded", "server") and (wait or 0.0) <= 60.0
    handled = (
        _KINDS[kind]
        if again or wait is None
        else f"`{kind}`; not retried, because the wait exceeds a minute"
    )
    if again and wait is not None:
        handled += f" after {wait:g} s"

    def check() -> None:
        met = meet(body, status, **more)
        assert met.requests == (2 if again else 1)
        if again:
            assert met.content == "ok"
            assert met.waited >= (wait or 0.0)
            return
        assert met.error.kind == kind
        assert says in str(met.error)
        if wait is not None:
            assert llm.Retry().delay(met.error, attempt=1, remaining=1e9, random=0.5) is None

    return Difference(server, does, handled, source, check)


def _error(message: str, code: Any = None, type: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def _google(*limits: str, delay: str | None = None) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": limit} for limit in limits],
        },
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    words = "You exceeded your current quota, please check your plan and billing details."
    return [_error(words, 429, status="RESOURCE_EXHAUSTED", details=details)]


_SPENT = "You exceeded your current quota, please check your plan and billing details."

REFUSALS: list[Difference] = [
    # -- empty accounts
    _refusal(
        "OpenAI",
        "429 and the type `insufficient_quota` for an empty account",
        "platform.openai.com/docs/guides/error-codes",
        "quota",
        _error(_SPENT, "insufficient_quota", "insufficient_quota"),
        headers={"retry-after": "20"},
    ),
    _refusal(
        "Anthropic",
        "400 for an empty account",
        "docs.anthropic.com/en/api/errors",
        "quota",
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"},
        },
        400,
        wire="anthropic",
    ),
    _refusal(
        "Moonshot (Kimi)",
        "429 for a suspended account",
        "continuedev/continue#11443",
        "quota",
        _error(
            "Your account org-1 is suspended due to insufficient balance, please recharge",
            type="exceeded_current_quota_error",
        ),
    ),
    _refusal(
        "MiniMax",
        "HTTP 200 with `base_resp` 1008 for an empty account",
        "platform.minimax.io/docs/api-reference/errorcode",
        "quota",
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        None,
    ),
    _refusal(
        "DashScope (Qwen)",
        "400 `Arrearage` for overdue payments",
        "alibabacloud.com/help/en/model-studio/error-code",
        "quota",
        {
            "code": "Arrearage",
            "message": "Access denied, please make sure your account is in good standing.",
        },
        400,
    ),
    _refusal(
        "DashScope (Qwen)",
        "403 for used-up free tokens",
        "alibabacloud.com/help/en/model-studio/error-code",
        "quota",
        _error("The free tier of the model has been exhausted.", "AllocationQuota.FreeTierOnly"),
        403,
    ),
    _refusal(
        "DashScope (Qwen)",
        "429 `PrepaidBillOverdue` and similar codes",
        "alibabacloud.com/help/en/model-studio/error-code",
        "quota",
        {"code": "PrepaidBillOverdue", "message": "The prepaid bill is overdue."},
    ),
    _refusal(
        "Z.ai (GLM)",
        "429 with code 1311 for a model outside the plan",
        "docs.z.ai/api-reference/api-code",
        "quota",
        _error("Your subscription plan does not yet include access to the model", "1311"),
    ),
    _refusal(
        "Z.ai (GLM)",
        "429 with code 1113 for an empty account",
        "docs.z.ai/api-reference/api-code",
        "quota",
        _error("Insufficient balance or no resource package. Please recharge.", "1113"),
    ),
    _refusal(
        "Z.ai (GLM)",
        "429 `rate_limit_error` with code 1113 for an empty account, in Anthropic's format",
        "zai-org/feedback#789",
        "quota",
        {
            "type": "error",
            "error": {"type": "rate_limit_error", "code": "1113", "message": "[1113][…]"},
        },
        wire="anthropic",
    ),
    _refusal(
        "litellm",
        "400 for a key over its budget",
        "BerriAI/litellm#22726",
        "quota",
        _error(
            "Budget has been exceeded! Current cost: 26.075, Max budget: 0.25",
            "400",
            "budget_exceeded",
        ),
        400,
    ),
    _refusal(
        "Fireworks",
        "412 for a suspended account",
        "amd/gaia#3766",
        "quota",
        _error(
            "Account a is suspended, possibly due to reaching the monthly spending limit",
            "PRECONDITION_FAILED",
        ),
        412,
    ),
    _refusal(
        "xAI",
        "403 for used-up credits",
        "warpdotdev/warp#14863",
        "quota",
        {
            "code": "permission-denied",
            "error": "Your team has either used all available credits or reached its monthly spending limit.",
        },
        403,
    ),
    _refusal(
        "OpenRouter",
        "403 for the limit of a key",
        "RooCodeInc/Roo-Code#515",
        "quota",
        _error(
            "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
            403,
        ),
        403,
    ),
    _refusal(
        "OpenRouter",
        "the upstream's error as JSON text in `metadata.raw`",
        "anomalyco/opencode#24462",
        "quota",
        _error(
            "Provider returned error",
            429,
            metadata={
                "raw": json.dumps(_error("Your account is suspended due to insufficient balance"))
            },
        ),
        says="insufficient balance",
    ),
    _refusal(
        "DeepSeek",
        "402 for an empty account",
        "api-docs.deepseek.com/quick_start/error_codes",
        "quota",
        _error("Insufficient Balance", "invalid_request_error", "unknown_error"),
        402,
    ),
    _refusal(
        "Hugging Face",
        "402 for used-up credits, as bare text",
        "huggingface/agents-course#386",
        "quota",
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
        402,
    ),
    _refusal(
        "SambaNova",
        "403 for an account without a payment method",
        "mnfst/awesome-free-llm-apis#95",
        "quota",
        _error("A payment method is required.", "PAYMENT_METHOD_REQUIRED"),
        403,
    ),
    _refusal(
        "new-api, one-api",
        "403 in Chinese for an empty account",
        "QuantumNous/new-api",
        "quota",
        _error("用户额度不足, 剩余额度: -0.1", "insufficient_user_quota", "new_api_error"),
        403,
    ),
    _refusal(
        "xAI",
        "403 for a team without credits, described as a missing permission",
        "docs.x.ai/docs/key-information/billing",
        "quota",
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created team doesn't have any credits or licenses yet.",
        },
        403,
    ),
    _refusal(
        "one-api",
        "403 for a user without quota",
        "songquanpeng/one-api",
        "quota",
        _error("user quota is not enough", type="one_api_error"),
        403,
    ),
    _refusal(
        "one-api, new-api",
        "429 in Chinese if all channels of a group are busy",
        "QuantumNous/new-api",
        "overloaded",
        _error("当前分组上游负载已饱和，请稍后再试", "upstream_error", "upstream_error"),
        429,
    ),
    _refusal(
        "new-api",
        "503 `model_not_found` if all channels for the model are missing or temporarily off",
        "QuantumNous/new-api",
        "overloaded",
        _error(
            "No available channel for model m under group default (distributor)",
            "model_not_found",
            "new_api_error",
        ),
        503,
    ),
    _refusal(
        "Azure",
        "403 for a used-up call quota",
        "learn.microsoft.com/azure/api-management/quota-policy",
        "quota",
        _error("Out of call volume quota. Quota will be replenished in 12.21:11:32.", "403"),
        403,
    ),
    _refusal(
        "litellm",
        "400 for a key without budget",
        "BerriAI/litellm: ExceededTokenBudget",
        "quota",
        _error("ExceededTokenBudget: Current spend for token: 1.2; Max Budget: 1.0", "400"),
        400,
    ),
    _refusal(
        "Gemini",
        "429 for a spending cap that the user set",
        "ai.google.dev/gemini-api/docs/billing",
        "quota",
        [_error("Your project has exceeded its spending cap.", 429, status="RESOURCE_EXHAUSTED")],
    ),
    _refusal(
        "Gemini",
        "403 for a project without billing",
        "ai.google.dev/gemini-api/docs/troubleshooting",
        "quota",
        [
            _error(
                "This API method requires billing to be enabled.", 403, status="PERMISSION_DENIED"
            )
        ],
        403,
    ),
    _refusal(
        "Volcengine",
        "429 `TooManyRequests` for a used-up free trial",
        "volcengine.com/docs/82379/1299023",
        "quota",
        _error(
            "Your account 1 has exhausted its free trial quota for the m model",
            "QuotaExceeded",
            "TooManyRequests",
        ),
    ),
    _refusal(
        "Volcengine",
        "429 `TooManyRequests` for a limit that the user set",
        "volcengine.com/docs/82379/1299023",
        "quota",
        _error("Your account 1 has reached the set limit", "SetLimitExceeded", "TooManyRequests"),
    ),
    # -- limits of a day or longer
    _refusal(
        "Gemini",
        "429 for a daily limit, with a misleading wait of seconds",
        "google-gemini/gemini-cli#8437",
        "quota",
        _google("GenerateRequestsPerDayPerProjectPerModel-FreeTier", delay="20s"),
    ),
    _refusal(
        "Gemini",
        "429 for a limit of 0, with a wait of seconds",
        "continuedev/continue#10062",
        "quota",
        _error(
            f"{_SPENT}\n* Quota exceeded for metric: x_requests, limit: 0\nPlease retry in 20.04s.",
            429,
        ),
    ),
    _refusal(
        "Cerebras",
        "429 for a daily limit, named only in the text",
        "inference-docs.cerebras.ai/support/rate-limits",
        "quota",
        {
            "message": "Tokens per day limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
    ),
    _refusal(
        "OpenRouter",
        "429 for the daily free requests",
        "openrouter.ai/docs/api-reference/limits",
        "quota",
        _error(
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 requests", 429
        ),
    ),
    _refusal(
        "Bedrock gateways",
        "429 for a daily token limit",
        "minorun365/agent-book#29",
        "quota",
        {"message": "Too many tokens per day, please wait before trying again."},
    ),
    _refusal(
        "Cloudflare",
        "429 for the daily free allocation, in a list of errors",
        "developers.cloudflare.com/workers-ai/platform/errors",
        "quota",
        {
            "success": False,
            "errors": [{"code": 3036, "message": "You have used up your daily free allocation"}],
        },
    ),
    _refusal(
        "watsonx",
        "403 for a monthly token limit, in a list of errors",
        "cloud.ibm.com/apidocs/watsonx-ai",
        "quota",
        {
            "errors": [
                {"code": "token_quota_reached", "message": "The monthly token quota is used up"}
            ],
            "trace": "t",
        },
        403,
        says="monthly token quota",
    ),
    _refusal(
        "GitHub Models",
        "429 for a daily limit that names its end",
        "docs.github.com/en/github-models",
        "rate_limit",
        _error(
            "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 84600 seconds before retrying.",
            "RateLimitReached",
        ),
        wait=84600.0,
    ),
    _refusal(
        "ChatGPT plans",
        "429 for a usage limit that names its end",
        "router-for-me/CLIProxyAPI#1666",
        "rate_limit",
        _error(
            "The usage limit has been reached", type="usage_limit_reached", resets_in_seconds=529498
        ),
        wait=529498.0,
    ),
    # -- limits of a minute, in words of quota too
    _refusal(
        "Gemini",
        "429 for a limit per minute, described as a quota, with `RetryInfo`",
        "google-gemini/gemini-cli#8437",
        "rate_limit",
        _google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", delay="20s"),
        wait=20.0,
    ),
    _refusal(
        "Gemini",
        "429 with the wait only in the text",
        "dyad-sh/dyad#1469",
        "rate_limit",
        _error(
            f"{_SPENT}\n* Quota exceeded for metric: x_tokens, limit: 250000\nPlease retry in 30.6s.",
            429,
        ),
        wait=30.6,
    ),
    _refusal(
        "Vertex AI",
        "429 for a limit per minute, described as a quota",
        "felixbinder/introspection_self_prediction#66",
        "rate_limit",
        _error(
            "Quota exceeded for generate_content_requests_per_minute_per_project. Please submit a quota increase request.",
            429,
        ),
    ),
    _refusal(
        "Cerebras",
        "429 for a limit per minute, with a quota code",
        "anomalyco/opencode#7463",
        "rate_limit",
        {
            "message": "Tokens per minute limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
    ),
    _refusal(
        "DashScope (Qwen)",
        "429 `insufficient_quota` for a token limit per minute",
        "can1357/oh-my-pi PR 8476",
        "rate_limit",
        _error(
            f"{_SPENT} For details, see: https://help.aliyun.com/zh/model-studio/error-code#token-limit",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    _refusal(
        "Azure",
        "429 with the wait in the text, next to advice to raise the quota",
        "learn.microsoft.com/azure/ai-services/openai/how-to/quota",
        "rate_limit",
        _error(
            "Requests have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds. See https://aka.ms/oai/quotaincrease",
            "429",
        ),
        wait=6.0,
    ),
    _refusal(
        "Groq",
        "429 with the wait in the text, next to an offer to upgrade",
        "crewAIInc/crewAI#494",
        "rate_limit",
        _error(
            "Rate limit reached on tokens per minute (TPM): Limit 5000, Used 5747, Requested ~4251. Please try again in 59.977s. Visit https://console.groq.com/settings/billing",
            "rate_limit_exceeded",
            "tokens",
        ),
        wait=59.977,
    ),
    _refusal(
        "Mistral",
        "429 with a numeric code",
        "docs.mistral.ai",
        "rate_limit",
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "code": "1300",
        },
    ),
    _refusal(
        "MiniMax",
        "HTTP 200 with `base_resp` 1002 for a rate limit",
        "infiniflow/ragflow PR 17292",
        "rate_limit",
        {
            "choices": None,
            "usage": {"total_tokens": 0},
            "base_resp": {"status_code": 1002, "status_msg": "rate limit"},
        },
        None,
    ),
    _refusal(
        "Databricks",
        "429 with an `error_code` for a limit per minute",
        "docs.databricks.com/machine-learning/model-serving/model-serving-limits",
        "rate_limit",
        {
            "error_code": "REQUEST_LIMIT_EXCEEDED",
            "message": "Exceeded workspace input tokens per minute rate limit",
        },
    ),
    _refusal(
        "Bedrock gateways",
        "400 with the name of the exception only in a header",
        "docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html",
        "rate_limit",
        {"message": None},
        400,
        headers={"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/"},
    ),
    _refusal(
        "Anthropic",
        "429 for a rate limit, with advice to send less",
        "docs.anthropic.com/en/api/rate-limits",
        "rate_limit",
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "This request would exceed your organization's rate limit of 40,000 input"
                " tokens per minute. Please reduce the prompt length or the maximum tokens requested,"
                " or try again later.",
            },
        },
        wire="anthropic",
    ),
    # -- load
    _refusal(
        "Cerebras",
        "429 for a full queue",
        "inference-docs.cerebras.ai/support/error",
        "overloaded",
        {
            "message": "We're experiencing high traffic right now! Please try again soon.",
            "type": "too_many_requests_error",
            "param": "queue",
            "code": "queue_exceeded",
        },
    ),
    _refusal(
        "Ollama",
        "an error for a full queue, which some gateways turn into 500",
        "ollama/ollama: ErrMaxQueue",
        "overloaded",
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        500,
    ),
    _refusal(
        "Moonshot (Kimi)",
        "429 for a busy engine",
        "platform.moonshot.ai/docs/api/errors",
        "overloaded",
        _error(
            "The engine is currently overloaded, please try again later",
            type="engine_overloaded_error",
        ),
    ),
    _refusal(
        "Cloudflare",
        "429 when no capacity is left",
        "developers.cloudflare.com/workers-ai/platform/errors",
        "overloaded",
        {
            "success": False,
            "errors": [
                {"code": 3040, "message": "Capacity temporarily exceeded, please try again."}
            ],
        },
    ),
    _refusal(
        "Hugging Face TGI",
        "429 with an `error_type` for a full queue",
        "huggingface/text-generation-inference",
        "overloaded",
        {"error": "Model is overloaded", "error_type": "overloaded"},
    ),
    # -- never accepted
    _refusal(
        "Ollama",
        "500 for a picture if the model file has no vision part",
        "ollama/ollama, model/model.go: ErrNoVisionModel",
        "invalid",
        {"error": "this model is missing data required for image input"},
        500,
    ),
    _refusal(
        "OpenAI",
        "429 for a request that exceeds the limit by itself",
        "vanna-ai/vanna-flask#11",
        "invalid",
        _error(
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 342389. The input or output tokens must be reduced in order to run successfully.",
            "rate_limit_exceeded",
            "tokens",
        ),
        headers={"retry-after": "1"},
    ),
    _refusal(
        "Groq",
        "413 with a rate-limit code for a request that is too large",
        "continuedev/continue#10218",
        "invalid",
        _error(
            "Request too large on tokens per minute (TPM): Limit 12000, Requested 14137",
            "rate_limit_exceeded",
            "tokens",
        ),
        413,
    ),
    _refusal(
        "Together",
        "403 for a prompt that is too long",
        "docs.together.ai/docs/error-codes",
        "invalid",
        _error("Input token count + max_tokens must be less than the context length of the model"),
        403,
    ),
    _refusal(
        "Venice",
        "HTTP 200 with an `error_type` for a context that is too long",
        "NousResearch/hermes-agent#68451",
        "invalid",
        {"error_type": "context_length_exceeded", "error_message": "longer than 163840 tokens"},
        None,
        says="163840",
    ),
    _refusal(
        "llama.cpp",
        "501 for a feature that the server was started without",
        "ggml-org/llama.cpp",
        "invalid",
        _error(
            "This server does not support completions. Start it without `--embeddings`",
            501,
            "not_supported_error",
        ),
        501,
    ),
    _refusal(
        "llama.cpp",
        "500 for a picture sent to a model without vision",
        "ggml-org/llama.cpp",
        "invalid",
        _error(
            "image input is not supported - hint: you may need to provide the mmproj",
            500,
            "server_error",
        ),
        500,
    ),
    _refusal(
        "OpenRouter",
        "403 for input that moderation flagged",
        "OpenRouter's reference: errors, moderation",
        "invalid",
        _error("x/y requires moderation on Z. Your input was flagged for 'illicit'", 403),
        403,
    ),
    _refusal(
        "OpenRouter",
        "402 for money that running requests have reserved",
        "macanderson/stella",
        "rate_limit",
        _error(
            "This request would exceed your available credits given your current in-flight requests. "
            "Retry after in-flight requests settle, or add credits.",
            402,
        ),
        402,
    ),
    _refusal(
        "xAI",
        "403 for content that a safety check rejects",
        "theopenco/llmgateway",
        "invalid",
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        },
        403,
        says="usage guidelines",
    ),
    _refusal(
        "MiniMax (keys of a plan)",
        "429 `rate_limit_error` for the limit of a plan",
        "MiniMax-AI/MiniMax-M2.7",
        "quota",
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "usage limit exceeded, 5-hour usage limit reached for Token Plan Starter "
                "(0/0 used), resets at 2026-05-15T15:00:00Z (2056)",
            },
        },
    ),
    _refusal(
        "Azure (through litellm)",
        "500 for a prompt that the content filter rejects, with advice to change it and retry",
        "Azure OpenAI's content management policy; litellm's ContentPolicyViolationError",
        "invalid",
        _error(
            "litellm.BadRequestError: litellm.ContentPolicyViolationError: The response was filtered "
            "due to the prompt triggering Azure OpenAI's content management policy. Please modify "
            "your prompt and retry.",
            500,
        ),
        500,
    ),
    _refusal(
        "TGI",
        "424 for a failed generation",
        "text-generation-inference: router, GenerationError",
        "server",
        {"error": "Request failed during generation: Server error: x", "error_type": "generation"},
        424,
    ),
    _refusal(
        "OpenRouter",
        "404 for a picture sent to a model without vision",
        "JohnnyZ93/oai-compatible-copilot#230",
        "invalid",
        _error("No endpoints found that support image input", 404),
        404,
        says="https://llm.invalid/v1/chat/completions",
    ),
    _refusal(
        "Ollama",
        "400 for tools sent to a model without tool support",
        "ollama/ollama#17301",
        "invalid",
        _error("registry.ollama.ai/library/m:latest does not support tools", type="api_error"),
        400,
    ),
    _refusal(
        "vLLM",
        "422 with the field in FastAPI's `loc`, next to the input",
        "fastapi.tiangolo.com/tutorial/handling-errors",
        "invalid",
        {
            "detail": [
                {
                    "type": "missing",
                    "loc": ["body", "messages", 0, "content"],
                    "msg": "Field required",
                    "input": {"role": "user"},
                }
            ]
        },
        422,
        says="body.messages.0.content: Field required",
    ),
    # -- others
    _refusal(
        "Gemini",
        "400 for a wrong key",
        "ai.google.dev/gemini-api/docs/troubleshooting",
        "auth",
        [_error("API key not valid. Please pass a valid API key.", 400, status="INVALID_ARGUMENT")],
        400,
    ),
    _refusal(
        "AWS gateways",
        "403 with the error text in `Message`",
        "docs.aws.amazon.com/apigateway",
        "auth",
        {"Message": "User is not authorized to access this resource"},
        403,
        says="not authorized",
    ),
    _refusal(
        "nginx (as a proxy)",
        "an HTML page",
        "nginx.org",
        "invalid",
        b"<html><head><title>404 Not Found</title></head><body><center><h1>404 Not Found</h1></center></body></html>",
        404,
        says="404 Not Found (asked https://llm.invalid/v1/chat/completions",
    ),
]
