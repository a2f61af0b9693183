"""A model provider for inspect_ai: ``--model trio_minillm/openai:gpt-5-mini``.

inspect_ai finds it by itself (entry point ``inspect_ai``). Each call makes one attempt, because
inspect retries and adapts the number of connections itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import msgspec
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    GenerateConfig,
    Logprobs,
    ModelAPI,
    ModelCall,
    ModelOutput,
    ModelUsage,
    RetryDecision,
    StopReason,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolFunction, ToolInfo

from .._client import Client
from .._protocol.request import body_of, encoded, make_request
from .._types.cost import CostResolution
from .._types.errors import (
    MiniLLMError,
    ProtocolError,
    ProviderError,
    RefusedError,
    SendError,
    StreamError,
)
from .._types.openai_messages import messages_of
from .._types.options import Retry, Timeouts
from .._types.params import PARAM_NAMES, JSONSchema, Reasoning
from .._types.response import Choice, CompletionResponse
from .._types.tools import Tool
from ..local._named import KEYS
from ..providers import Model
from . import _inspect_messages as messages
from ._portal import Portal, open_both

STOP_REASONS: dict[str | None, StopReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "model_length",
    "model_context_window_exceeded": "model_length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
"""Finish reasons with inspect's words for them; all others are ``unknown``."""

REFUSALS: dict[str | None, StopReason] = {
    "context_length_exceeded": "model_length",
    "exceed_context_size_error": "model_length",  # llama.cpp
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
}
"""Codes of refused requests that inspect treats as answers, so that the task goes on."""

SAME = {
    **{name: name for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")},
    **{name: name for name in ("frequency_penalty", "presence_penalty", "verbosity")},
    **{name: name for name in ("logprobs", "top_logprobs")},
    "stop_seqs": "stop",
    "num_choices": "n",
}
"""Settings of inspect, with the names of the same parameters here."""

UNSUPPORTED = (
    *("best_of", "prompt_logprobs", "fallback_models", "reasoning_mode", "modalities", "batch"),
)
"""Settings that this library can't apply. They change what is measured, so they are refused."""

MAX_LOGGED = 10_000
"""Characters up to which a string that looks like media is kept in a logged request."""


class TrioMiniLLM(ModelAPI):
    """A model with any wire format of this library, for inspect_ai.

    The name is ``KIND:NAME`` as on the command line of `trio_minillm`: ``openai:``,
    ``openai-responses:``, ``anthropic:``, ``openrouter:``, ``compatible:`` (with a base URL), ``local`` or
    ``local:PATH.gguf``. ``model_args`` are the other arguments of the model's constructor, or of
    `open_local_model`. It works on both of inspect's backends: on Trio
    (``INSPECT_ASYNC_BACKEND=trio``) streams run in inspect's own loop, on asyncio in a thread with
    a Trio loop.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as in the base
        **model_args: Any,
    ) -> None:
        kind = model_name.partition(":")[0]
        variables = [KEYS[kind]] if kind in KEYS else []
        super().__init__(model_name, base_url, api_key, variables, config)
        self._model_args = model_args
        self._portal = Portal(self._opening)

    def _opening(self) -> AbstractAsyncContextManager[tuple[Client, Model]]:
        options = {"base_url": self.base_url, "api_key": self.api_key, **self._model_args}
        return open_both(self.model_name, {"retry": Retry(attempts=1)}, **options)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput | tuple[ModelOutput | Exception, ModelCall]:
        """Make one attempt.

        Raises `MiniLLMError`, which `should_retry` judges, and ``ValueError`` for anything that the
        wire format can't carry.
        """
        options = params_of(config)
        if tools:
            options["tools"] = [_tool(tool) for tool in tools]
            options["tool_choice"] = _tool_choice(tool_choice)
            if config.parallel_tool_calls is not None:
                options["parallel_tool_calls"] = config.parallel_tool_calls
        turns = [messages.to_ours(message) for message in input]
        return await self._portal.call(partial(self._ask, turns, options))

    async def _ask(
        self, turns: Sequence[Any], options: dict[str, Any], opened: tuple[Client, Model]
    ) -> tuple[ModelOutput, ModelCall]:
        client, model = opened
        stream = client.stream(model, turns, **options)
        call = ModelCall.create(_body(model, turns, options), None, _without_media)
        started = time.perf_counter()
        try:
            async with stream:
                await stream.collect()
        except (RefusedError, ProviderError) as error:
            reason = REFUSALS.get(error.code)
            if reason is None:
                raise
            call.set_error({"error": str(error)}, time.perf_counter() - started)
            text = error.info.message
            return ModelOutput.from_content(model.name, text, reason, error=text), call
        response = stream.response
        call.set_response(_received(response), time.perf_counter() - started)
        return output_of(response), call

    def should_retry(self, ex: Exception) -> RetryDecision:
        """Decide on another attempt: for anything that may pass, and for a broken stream too.

        Inspect uses nothing of a broken stream.
        """
        if isinstance(ex, RefusedError | ProviderError):
            after = ex.retry_after if isinstance(ex, RefusedError) else ex.info.retry_after
            if not ex.info.retryable:
                return RetryDecision.no()
            if ex.kind == "rate_limit":
                return RetryDecision.rate_limit(after)
            return RetryDecision.transient(after)
        if isinstance(ex, ProtocolError) or not isinstance(ex, SendError | StreamError):
            return RetryDecision.no()
        return RetryDecision.transient()

    def is_auth_failure(self, ex: Exception) -> bool:
        """Return True for a wrong key, so that inspect's hooks fetch another one."""
        return isinstance(ex, RefusedError) and ex.kind == "auth"

    def connection_key(self) -> str:
        """Return the name under which inspect counts connections: address, key and model."""
        return f"{self.base_url}:{self.initial_api_key}:{self.model_name}"

    def canonical_name(self) -> str:
        """Return the model's name without its kind, as in inspect's own data."""
        return self.model_name.partition(":")[2] or self.model_name

    def tool_result_images(self) -> bool:
        """Return True if a tool may answer with images."""
        return self.model_name.startswith("anthropic:")

    async def aclose(self) -> None:
        """Close the client in the thread. In a Trio run the client is closed with the run."""
        self._portal.close()


modelapi(name="trio_minillm")(TrioMiniLLM)  # as a decorator it would replace the class


def params_of(config: GenerateConfig) -> dict[str, Any]:
    """Translate inspect's settings to parameters of `Client.stream`.

    Settings for connections, retries and caching are left to inspect itself. Raises ``ValueError``
    for those in `UNSUPPORTED`.
    """
    refused = [name for name in UNSUPPORTED if getattr(config, name)]
    if refused:
        raise ValueError(f"not supported by trio_minillm: {', '.join(refused)}")
    given = {ours: getattr(config, theirs) for theirs, ours in SAME.items()}
    out: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if config.logit_bias is not None:
        out["logit_bias"] = {str(token): int(bias) for token, bias in config.logit_bias.items()}
    effort = config.reasoning_effort or config.effort
    summary = None if config.reasoning_summary == "none" else config.reasoning_summary
    if config.reasoning_tokens is not None:
        out["reasoning"] = Reasoning(budget=config.reasoning_tokens, summary=summary)
    elif effort is not None or summary is not None:
        out["reasoning"] = Reasoning(effort=effort, summary=summary)
    if config.response_schema is not None:
        wanted = config.response_schema
        out["response_format"] = JSONSchema(
            schema=wanted.json_schema.model_dump(exclude_none=True, by_alias=True),
            name=wanted.name,
            description=wanted.description,
            strict=wanted.strict is not False,
        )
    if config.cache_prompt is True:
        out["cache"] = True
    if config.extra_body:
        out["extra"] = config.extra_body
    if config.extra_headers:
        out["headers"] = config.extra_headers
    if config.stream_idle_timeout is not None:
        out["timeouts"] = Timeouts(idle=config.stream_idle_timeout)
    return out


def output_of(response: CompletionResponse) -> ModelOutput:
    """Translate a whole answer: all choices, usage and cost."""
    usage, cost = response.usage, response.cost
    spent = None
    if usage is not None and usage.total_tokens is not None:
        paid = cost.amount if cost.resolution is CostResolution.RESOLVED else None
        spent = ModelUsage(
            input_tokens=usage.uncached_input_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            total_tokens=usage.total_tokens,
            input_tokens_cache_write=usage.cache_write_tokens,
            input_tokens_cache_read=usage.cache_read_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            total_cost=None if paid is None else float(paid),
        )
    return ModelOutput(
        model=response.model,
        choices=[_choice(choice, response.model) for choice in response.choices],
        usage=spent,
        response_id=response.id or None,
        metadata={"notes": list(response.notes)} if response.notes else None,
    )


def _choice(choice: Choice, model: str) -> ChatCompletionChoice:
    reason = STOP_REASONS.get(choice.finish_reason, "unknown")
    if reason == "stop" and choice.tool_calls:
        reason = "tool_calls"  # some servers say "stop" for these, too
    logprobs = None
    if choice.logprobs and choice.logprobs.get("content"):
        logprobs = Logprobs.model_validate({"content": choice.logprobs["content"]})
    return ChatCompletionChoice(
        message=messages.from_ours(choice, model), stop_reason=reason, logprobs=logprobs
    )


def _tool(tool: ToolInfo) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters.model_dump(exclude_none=True, by_alias=True),
    )


def _tool_choice(choice: ToolChoice) -> str:
    if isinstance(choice, ToolFunction):
        return choice.name
    return "required" if choice == "any" else choice


def _body(model: Model, turns: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the request's body for inspect's log. It contains no key."""
    params = {name: value for name, value in options.items() if name in PARAM_NAMES}
    request = make_request(model, messages_of(turns), params, extra=options.get("extra"))
    body: dict[str, Any] = msgspec.json.decode(encoded(body_of(request)))
    return body


def _received(response: CompletionResponse) -> dict[str, Any]:
    """Return the response for inspect's log."""
    return {
        "id": response.id,
        "model": response.model,
        "request_id": response.request_id,
        "choices": [
            {
                "content": choice.content,
                "reasoning": choice.reasoning,
                "tool_calls": msgspec.to_builtins(choice.tool_calls + choice.invalid_tool_calls),
                "finish_reason": choice.finish_reason,
            }
            for choice in response.choices
        ],
        "usage": None if response.usage is None else response.usage.raw,
        "timings": msgspec.to_builtins(response.timings),
    }


def _without_media(key: Any, value: Any) -> Any:
    long = isinstance(value, str) and len(value) > MAX_LOGGED
    if long and (key in ("data", "file_data") or value.startswith("data:")):
        return f"[{len(value)} characters of media]"
    return value


__all__ = ["MiniLLMError", "TrioMiniLLM", "output_of", "params_of"]
