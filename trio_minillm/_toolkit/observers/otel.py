"""OpenTelemetry: a span for each attempt, and the metrics of clients of generative AI.

The names are those of the semantic conventions of `CONVENTIONS`, the last version in which those for
generative AI stood in OpenTelemetry's own repository. The one that they have moved to has released none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from ..._types.messages import (
    AudioPart,
    ImagePart,
    MediaPart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ..._types.response import CompletionResponse
from ..._types.usage import Usage
from ..._version import __version__
from ...providers import Model
from ...providers._base import host_of, is_vertex
from ...providers._server_quirks import server_at
from .log_records import described, error_type
from .observing import AttemptEnd, ObservedAttempt, Observer

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

CONVENTIONS = "1.41.1"
"""Version of OpenTelemetry's semantic conventions whose names are used here."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds of the buckets of all times, in seconds, as the conventions recommend them."""
TOKENS = tuple(4**n for n in range(14))
"""Upper bounds of the buckets of tokens, from the conventions as well: 1 to 67,108,864."""

_REQUEST: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "seed": ("gen_ai.request.seed", int),
    "stop": ("gen_ai.request.stop_sequences", lambda s: [s] if isinstance(s, str) else list(s)),
}
"""Attributes of parameters, and the types that the conventions give them."""

_SERVERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Names of known servers in the conventions, where they differ from ours."""
_PROVIDERS = {"openai-responses": "openai", "gemini": "gcp.gemini"}
"""Names of wire formats at other addresses."""
_OPERATIONS = {"gemini": "generate_content", "text": "text_completion"}
"""Operations of wire formats; all others chat."""
_API_TYPES = {"openai": "chat_completions", "openai-responses": "responses"}


def opentelemetry_observer(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    content: bool = False,
) -> Observer | None:
    """Return an observer that makes OpenTelemetry spans and metrics of a client's attempts.

    Pass it to ``open_client(observer=…)``. Returns ``None`` if OpenTelemetry's API (extra ``otel``)
    is not installed.

    - ``tracer_provider`` and ``meter_provider`` are the program's own by default, even if it sets
      them later. Without any, nothing is recorded.
    - ``content=True`` adds the messages and the answer to the spans. Everyone who can see the spans
      then sees the prompts.
    """
    try:
        return _OpenTelemetryObserver(tracer_provider, meter_provider, content)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "opentelemetry":
            raise
        return None


class _OpenTelemetryObserver(Observer):
    """The observer behind `opentelemetry_observer`."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        content: bool,
    ) -> None:
        from opentelemetry import metrics, trace

        schema = f"https://opentelemetry.io/schemas/{CONVENTIONS}"
        self.wants_content = content
        self._trace = trace
        self._tracer = trace.get_tracer("trio_minillm", __version__, tracer_provider, schema)
        meter = metrics.get_meter("trio_minillm", __version__, meter_provider, schema)

        def histogram(name: str, unit: str, words: str, bounds: Iterable[float]) -> Any:
            return meter.create_histogram(
                f"gen_ai.client.{name}",
                unit,
                words,
                explicit_bucket_boundaries_advisory=list(bounds),
            )

        self._tokens = histogram(
            "token.usage", "{token}", "Number of input and output tokens used.", TOKENS
        )
        self._duration = histogram("operation.duration", "s", "GenAI operation duration.", SECONDS)
        self._first_chunk = histogram(
            "operation.time_to_first_chunk",
            "s",
            "Time from the request to the first chunk with content.",
            SECONDS,
        )
        self._per_chunk = histogram(
            "operation.time_per_output_chunk",
            "s",
            "Mean time between an answer's chunks with content.",
            SECONDS,
        )
        self._spans: dict[ObservedAttempt, tuple[Span, int]] = {}

    def attempt_began(self, attempt: ObservedAttempt) -> None:
        """Start a span, a child of the one that is current where the call was made."""
        known = _identity(attempt.model)
        began = time.time_ns()
        span = self._tracer.start_span(
            f"{known['gen_ai.operation.name']} {attempt.model.name}",
            kind=self._trace.SpanKind.CLIENT,
            attributes=known,
            start_time=began,
        )
        self._spans[attempt] = span, began
        if span.is_recording():
            span.set_attributes(_request_attributes(attempt))
            if attempt.messages is not None:
                span.set_attribute("gen_ai.input.messages", _messages(attempt.messages))

    def attempt_ended(self, attempt: ObservedAttempt, end: AttemptEnd) -> None:
        """End the span, and record the metrics."""
        if attempt not in self._spans:  # its beginning failed
            return
        span, began = self._spans.pop(attempt)
        try:
            if span.is_recording():
                span.set_attributes(_response_attributes(attempt, end))
                if self.wants_content and end.response is not None:
                    span.set_attribute("gen_ai.output.messages", _answers(end.response))
                if end.error is not None:
                    words = described(end.error)
                    span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, words))
        finally:
            span.end(began + int(end.seconds * 1e9))
            self._measure(attempt, end)

    def _measure(self, attempt: ObservedAttempt, end: AttemptEnd) -> None:
        facts = dict(_identity(attempt.model))
        if end.response is not None and end.timings.chunks:
            facts["gen_ai.response.model"] = end.response.model
        failed = {} if end.error is None else {"error.type": error_type(end.error)}
        self._duration.record(end.seconds, facts | failed)
        for name, count in _counts(end.record.usage):
            self._tokens.record(count, facts | {"gen_ai.token.type": name})
        first, last, chunks = end.timings.first_chunk, end.timings.last_chunk, end.timings.chunks
        if first is not None and not end.retried:
            self._first_chunk.record(first, facts)
            if last is not None and chunks > 1:
                self._per_chunk.record((last - first) / (chunks - 1), facts)


# -- attributes ----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _identity(model: Model) -> Mapping[str, str | int]:
    """Return the attributes that spans and metrics share."""
    address = urlsplit(model.base_url)
    port = address.port or (80 if address.scheme.lower() == "http" else 443)
    return {
        "gen_ai.operation.name": _OPERATIONS.get(model.provider.name, "chat"),
        "gen_ai.provider.name": provider_name(model),
        "gen_ai.request.model": model.name,
        "server.address": address.hostname or "",
        "server.port": port,
    }


def provider_name(model: Model) -> str:
    """Return the conventions' name of who is asked: by the address, else by the wire format."""
    if is_vertex(model.base_url):
        return "gcp.vertex_ai"
    if re.search(r"\bbedrock\b.*\.amazonaws\.com$", host_of(model.base_url)):
        return "aws.bedrock"
    server = server_at(model.base_url)
    if server != "generic":
        return _SERVERS.get(server, server)
    return _PROVIDERS.get(model.provider.name, model.provider.name)


def _request_attributes(attempt: ObservedAttempt) -> dict[str, Any]:
    params = attempt.params
    out: dict[str, Any] = {"gen_ai.request.stream": True}
    for name, (attribute, convert) in _REQUEST.items():
        if name in params:
            out[attribute] = convert(params[name])
    if params.get("n", 1) != 1:
        out["gen_ai.request.choice.count"] = params["n"]
    if "response_format" in params:
        out["gen_ai.output.type"] = "text" if params["response_format"] == "text" else "json"
    if attempt.number > 1:
        out["trio_minillm.attempt"] = attempt.number
    if provider_name(attempt.model) == "openai":
        if attempt.model.provider.name in _API_TYPES:
            out["openai.api.type"] = _API_TYPES[attempt.model.provider.name]
        if params.get("service_tier", "auto") != "auto":
            out["openai.request.service_tier"] = params["service_tier"]
    return out


def _response_attributes(attempt: ObservedAttempt, end: AttemptEnd) -> dict[str, Any]:
    usage, response = end.record.usage, end.response
    out: dict[str, Any] = {"trio_minillm.outcome": str(end.outcome)}
    if end.record.id is not None:
        out["gen_ai.response.id"] = end.record.id
    if end.error is not None:
        out["error.type"] = error_type(end.error)
    if usage is not None:
        counts = {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "cache_read.input_tokens": usage.cache_read_tokens,
            "cache_creation.input_tokens": usage.cache_write_tokens,
            "reasoning.output_tokens": usage.reasoning_tokens,
        }
        out |= {f"gen_ai.usage.{k}": v for k, v in counts.items() if v is not None}
    if response is None:
        return out
    if end.timings.first_chunk is not None:
        out["gen_ai.response.time_to_first_chunk"] = end.timings.first_chunk
        out["gen_ai.response.model"] = response.model
    reasons = [c.finish_reason for c in response.choices if c.finish_reason is not None]
    if reasons:
        out["gen_ai.response.finish_reasons"] = reasons
    if provider_name(attempt.model) == "openai":
        for name in ("service_tier", "system_fingerprint"):
            if isinstance(value := response.metadata.get(name), str):
                out[f"openai.response.{name}"] = value
    return out


def _counts(usage: Usage | None) -> list[tuple[str, int]]:
    if usage is None:
        return []
    counts = ("input", usage.prompt_tokens), ("output", usage.completion_tokens)
    return [(name, count) for name, count in counts if count is not None]


# -- content -------------------------------------------------------------------------------------


def _messages(messages: Iterable[Message]) -> str:
    """Return messages as JSON, in the conventions' shape."""
    return _json([{"role": m.role, "parts": list(map(_part, m.parts))} for m in messages])


def _answers(response: CompletionResponse) -> str:
    return _json(
        [
            {
                "role": "assistant",
                "parts": list(map(_part, choice.parts)),
                "finish_reason": choice.finish_reason or "",
            }
            for choice in response.choices
        ]
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _part(part: Part) -> dict[str, Any]:
    """Return a part in the conventions' shape. The bytes of media are left out."""
    if isinstance(part, TextPart):
        return {"type": "text", "content": part.text}
    if isinstance(part, ReasoningPart):
        return {"type": "reasoning", "content": part.text}
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "content": part.text}
    if isinstance(part, ToolCall):
        arguments = {"arguments": _arguments(part)}
        return {"type": "tool_call", "id": part.id, "name": part.name} | arguments
    if isinstance(part, ToolResult):
        return {"type": "tool_call_response", "id": part.call_id, "response": part.text}
    if isinstance(part, MediaPart):
        kind = "image" if isinstance(part, ImagePart) else "document"
        kind = "audio" if isinstance(part, AudioPart) else kind
        facts = {"modality": kind, "mime_type": part.media_type}
        if part.url is not None and not part.url.startswith("data:"):
            return {"type": "uri", "uri": part.url} | facts
        if part.file_id is not None:
            return {"type": "file", "file_id": part.file_id} | facts
        return {"type": kind} | facts
    return {"type": "opaque"}


def _arguments(call: ToolCall) -> Any:
    try:
        return call.parsed()
    except msgspec.DecodeError:
        return call.arguments
