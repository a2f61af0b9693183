"""OpenAI chat completions, the wire format that most servers speak.

Events are ``data: {chunk}``, the last one ``data: [DONE]``; see OpenAI's API reference. The
peculiarities of other servers' *responses* are read here for all of them, since they don't clash
(hence the length of this file); `Compatible` and `OpenRouter` differ in their requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta
from .._types.cost import CostInfo, CostResolution, TokenPrice
from .._types.errors import ProtocolError, ProviderError
from .._types.money import add, exact
from .._types.usage import Usage
from ._base import Model, Parsed, Provider, Request
from ._errors import error_from, in_short
from ._openai_request import Dialect, chat_body, typed_fields
from ._pricing import native_cost, priced_cost
from ._usage import amount_in, at_path, openai_usage

DONE = b"[DONE]"
MAX_ENTRIES: Final = 4096
"""Most choices, content parts, tool calls or reasoning details in one event. Real events have a few;
each becomes an object, and a hundred thousand would hold up every other task for a second."""
_Entry = TypeVar("_Entry")
_ABSENT = msgspec.Raw()
_COMPLAINTS = ("message", "detail", "msg", "errors")
"""Fields in which servers without an ``error`` field report a failure."""


# Only fields that are read are declared: msgspec skips the others without building them.
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None
    extra_content: dict[str, Any] | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_text: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: dict[str, Any] | None = None
    images: list[dict[str, Any]] | None = None
    usage: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None
    error: Any = None
    message: msgspec.Raw = _ABSENT
    usage: Any = None


class _Groq(msgspec.Struct, gc=False):
    usage: Any = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: _Groq | None = None
    provider: Any = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    citations: msgspec.Raw = _ABSENT
    search_results: msgspec.Raw = _ABSENT
    timings: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_NOTHING = _Delta()


class OpenAIChat(Provider):
    """The provider for OpenAI's chat-completions endpoint; the base of those that imitate it."""

    name = "openai"
    replay_wire = "openai"
    literal_text = True
    dialect: Dialect = Dialect()

    def endpoint_url(self, model: Model) -> str:
        return f"{model.base_url.rstrip('/')}/chat/completions"

    def auth_headers(self, model: Model) -> dict[str, str]:
        return {"authorization": f"Bearer {model.api_key}"} if model.api_key else {}

    @property
    def typed_fields(self) -> frozenset[str]:
        return typed_fields(self.dialect)

    def build_request(self, request: Request) -> dict[str, Any]:
        return chat_body(request, self.dialect)

    def parse_chunk(self, data: bytes) -> Parsed:
        try:
            chunk = _decode(data)
        except msgspec.DecodeError:
            if data.strip() == DONE:
                return StreamChunk(end=True, progress=False)
            raise
        try:
            return self._parsed(chunk, data)
        except ProviderError as exc:
            if chunk.usage:  # a failed answer has used tokens, too
                exc.usage = self._told(chunk.usage)
            raise

    def _parsed(self, chunk: _Chunk, data: bytes) -> Parsed:
        choices = chunk.choices
        if chunk.error:
            _raise_error(chunk.error, choices)
        if not choices:
            return self._without_choices(chunk, data)
        if len(choices) == 1:
            return self._with(chunk, self._choice(choices[0]))
        out = [self._choice(choice) for choice in _bounded(choices)]
        self._with(chunk, out[-1])
        return out

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        chunk = _decode(body)
        if chunk.error:
            _raise_error(chunk.error, chunk.choices)
        if not chunk.choices:
            raise ProviderError(self.parse_error(None, body))
        for choice in _bounded(chunk.choices):
            if choice.message and choice.delta is None:
                choice.delta = _decode_delta(choice.message)
                for number, call in enumerate(choice.delta.tool_calls or ()):
                    call.index = number if call.index is None else call.index
        out = [self._choice(choice) for choice in chunk.choices]
        self._with(chunk, out[-1])
        out.append(StreamChunk(end=True, progress=False))
        return out

    # -- events ----------------------------------------------------------------------------

    def _without_choices(self, chunk: _Chunk, data: bytes) -> StreamChunk:
        """Translate an event without choices: usage, an opening without content, or an error."""
        if chunk.choices is None and chunk.usage is None:
            whole = msgspec.json.decode(data)
            told = any(isinstance(whole.get(k), str | list) and whole[k] for k in _COMPLAINTS)
            if told or "error" in (whole.get("object"), whole.get("status")):
                raise ProviderError(error_from(None, whole))
        return self._with(chunk, StreamChunk(progress=False))

    def _with(self, chunk: _Chunk, out: StreamChunk) -> StreamChunk:
        """Add the fields beside the choices, which belong to the whole response, to a chunk."""
        out.id = chunk.id
        out.model = chunk.model
        if chunk.usage:
            out.usage = self._told(chunk.usage)
            out.progress = out.progress or out.usage is not None
        if chunk.x_groq is not None:
            if chunk.x_groq.error:
                _raise_error(chunk.x_groq.error, None)
            if chunk.x_groq.usage and out.usage is None:
                out.usage = self._told(chunk.x_groq.usage)
        if out.delta and out.finish_reason is None and out.usage is None:
            return out  # the rest is repeated with each piece of text: read it at the edges only
        if out.usage is None and chunk.choices:
            out.usage = self._told(*(raw for choice in chunk.choices for raw in _usages(choice)))
        if (
            chunk.provider is not None
            or chunk.service_tier is not None
            or chunk.system_fingerprint is not None
            or chunk.citations
            or chunk.search_results
            or chunk.timings
        ):
            _metadata(chunk, out)
        return out

    def _choice(self, choice: _Choice) -> StreamChunk:
        delta = choice.delta or _NOTHING
        content = delta.content
        out = StreamChunk(content if type(content) is str else "")
        out.choice = choice.index or 0
        if out.choice < 0:
            raise ProtocolError("choices[].index is negative")
        if choice.finish_reason or choice.error:
            out.finish_reason = _finish_reason(choice)
        # Some servers send the same reasoning under two names: take it once.
        out.reasoning = delta.reasoning or delta.reasoning_content or delta.reasoning_text or ""
        if isinstance(content, list):
            _parts(content, out)
        if delta.refusal:
            out.refusal = delta.refusal
        if delta.tool_calls or delta.function_call is not None:
            out.tool_calls = _call_deltas(delta)
        if delta.reasoning_details:
            out.reasoning_details = tuple(_bounded(delta.reasoning_details))
            if not out.reasoning:
                out.reasoning = "".join(_visible(d) for d in delta.reasoning_details)
        if delta.annotations:
            out.annotations = tuple(delta.annotations)
        if choice.logprobs:
            out.logprobs = choice.logprobs
        if delta.audio:
            out.audio = delta.audio
        if delta.images:
            out.images = tuple(delta.images)
        if choice.native_finish_reason:
            out.metadata = {"native_finish_reason": choice.native_finish_reason}
        out.progress = bool(
            out.delta
            or out.reasoning
            or out.finish_reason
            or any(c.id or c.name or c.arguments or c.extra for c in out.tool_calls)
            or out.refusal
            or out.reasoning_details
            or out.annotations
            or out.audio
            or out.images
            or out.logprobs
        )
        return out

    def usage_of(self, raw: Any) -> Usage:
        """Return a usage object of the OpenAI family in disjoint buckets. Raises nothing."""
        return openai_usage(raw)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True for OpenAI's own servers, whose reference charges for all choices."""
        host = urlsplit(model.base_url).hostname or ""
        return host == "api.openai.com" or host.endswith((".api.openai.com", ".azure.com"))

    def _told(self, *places: Any) -> Usage | None:
        """Return the first usage object that says something; ``None`` if none does."""
        found = (self.usage_of(raw) for raw in places if raw)
        return next((usage for usage in found if not usage.empty), None)

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """Return the charge, plus the upstream provider's if the user's own key was used there.

        With ``is_byok``, a gateway's ``cost`` is only its fee; without it, the upstream figure
        repeats ``cost`` and must not be added (OpenRouter's reference).
        """
        if usage is None or usage.cost is None:
            return priced_cost(usage, price)
        amount, raw = exact(usage.cost), usage.raw or {}
        if raw.get("is_byok") is True:
            upstream = amount_in(at_path(raw, ("cost_details", "upstream_inference_cost")))
            if upstream is None:  # the fee is not the whole cost
                return CostInfo(amount, CostResolution.LOWER_BOUND, "native")
            amount = add(amount, exact(upstream))
        return native_cost(usage, amount)


def _bounded(entries: list[_Entry]) -> list[_Entry]:
    """Return the list, or raise `ProtocolError` if it has more than `MAX_ENTRIES`."""
    if len(entries) > MAX_ENTRIES:
        raise ProtocolError(
            f"one event lists more than {MAX_ENTRIES:,} choices, parts, calls or details"
        )
    return entries


def _raise_error(error: Any, choices: Any) -> None:
    """Raise `ProviderError`, unless the error is empty or a bare string beside content."""
    if isinstance(error, Mapping):
        if any(v for v in error.values()):
            raise ProviderError(error_from(None, {"error": error}))
    elif not any(map(_says_something, choices or ())):
        raise ProviderError(error_from(None, {"error": in_short(error)}))


def _finish_reason(choice: _Choice) -> str | None:
    """Return the finish reason, if it is not empty, or raise for a choice that failed."""
    if choice.error or choice.finish_reason == "error":
        _raise_error(choice.error or {"message": "finish reason 'error'"}, None)
    return choice.finish_reason or None


def _says_something(choice: _Choice) -> bool:
    delta = choice.delta or (_decode_delta(choice.message) if choice.message else _NOTHING)
    said = delta.content, delta.tool_calls, delta.refusal, delta.reasoning, delta.reasoning_content
    return any(said)


def _usages(choice: _Choice) -> Iterator[Any]:
    """Yield what a choice has as usage: Moonshot puts it there, and others into the delta."""
    yield choice.usage
    if choice.delta is not None:
        yield choice.delta.usage
    if choice.message:
        yield at_path(msgspec.json.decode(choice.message), ("usage",))


def _metadata(chunk: _Chunk, out: StreamChunk) -> None:
    found = out.metadata or {}
    for name in ("provider", "service_tier", "system_fingerprint"):
        value = getattr(chunk, name)
        if value and isinstance(value, str):
            found[name] = value
    for name in ("citations", "search_results", "timings"):
        raw = getattr(chunk, name)
        if raw and bytes(raw) not in (b"null", b"[]"):
            found[name] = raw  # decoded once, when the response is built
    out.metadata = found or None


def _call_deltas(delta: _Delta) -> tuple[ToolCallDelta, ...]:
    calls = delta.tool_calls or [_Call(index=0, function=delta.function_call)]
    return tuple([_call_delta(call) for call in _bounded(calls)])


def _call_delta(call: _Call) -> ToolCallDelta:
    kind = "function"
    function = call.function or _Function()
    name, arguments = function.name, function.arguments
    if call.custom is not None:
        name, arguments, kind = call.custom.name, call.custom.input, "custom"
    if isinstance(arguments, dict):  # against the reference, but unmistakable
        arguments = msgspec.json.encode(arguments).decode()
    ident = None if call.id in ("", "null") else call.id  # Mistral sends the word
    extra = {"extra_content": call.extra_content} if call.extra_content else None
    return ToolCallDelta(call.index, ident, name or None, arguments or "", kind, extra)


def _parts(content: list[Any], out: StreamChunk) -> None:
    """Translate Mistral's list content: text and thinking parts, and references beside them."""
    said: list[str] = []
    thought: list[str] = []
    others: list[dict[str, Any]] = []
    for part in _bounded(content):
        if isinstance(part, str):
            said.append(part)
            continue
        if not isinstance(part, dict):
            raise ProtocolError("choices[].delta.content[] is neither text nor a part")
        kind = part.get("type")
        if kind in ("text", None):
            said.append(_text(part, "text"))
        elif kind == "thinking":
            inner = part.get("thinking")
            if isinstance(inner, str):
                thought.append(inner)
            elif not isinstance(inner, list | None):
                raise ProtocolError("thinking of a content part is not a list")
            elif not all(isinstance(p, dict) for p in inner or ()):
                raise ProtocolError("thinking of a content part is not a list of parts")
            else:
                thought += [_text(p, "text") for p in inner or ()]
        else:
            others.append(part)
    out.delta += "".join(said)
    out.reasoning += "".join(thought)
    out.annotations = (*out.annotations, *others)


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key) or ""
    if not isinstance(value, str):
        raise ProtocolError(f"{key} of a content part is not text")
    return value


def _visible(detail: dict[str, Any]) -> str:
    value = detail.get("text") or detail.get("summary")
    return value if isinstance(value, str) else ""
