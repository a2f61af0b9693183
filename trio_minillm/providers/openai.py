"""OpenAI chat completions, the wire format that most servers speak.

Events are ``data: {chunk}``, the last one ``data: [DONE]``; see OpenAI's API reference. The
peculiarities of other servers' *responses* are read here for all of them, since they don't clash
(hence the length of this file); `Compatible` and `OpenRouter` differ in their requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta, continues_answer, has_content
from .._types.cost import CostInfo, CostResolution, TokenPrice
from .._types.errors import ErrorInfo, MiniLLMError, ProtocolError, ProviderError
from .._types.money import add, exact
from .._types.usage import Usage
from ._base import Model, Parsed, Provider, Request, joined_url
from ._coerce import loose_json
from ._errors import complaint_in, error_from, failure_beside, failure_in, in_short, is_error
from ._history import OPENAI_IDS
from ._openai_events import (
    Call,
    ChoiceEvent,
    ChunkEvent,
    Delta,
    Function,
    decode,
    decode_delta,
    decode_loosely,
    loose_delta,
)
from ._openai_request import Dialect, chat_body, typed_fields
from ._parts import READ_AGAIN, add_parts, bounded, look_again, texts_beside, visible
from ._pricing import native_cost, priced_cost
from ._reasons import failure_of, reason_of
from ._usage import amount_in, at_path, openai_usage

DONE = b"[DONE]"
_NOTHING = Delta()

CHAT: Final = "/chat/completions"
"""The endpoint below the base URL."""
_OWN = Dialect(ids=OPENAI_IDS)
_ELSEWHERE = Dialect(signatures="kept")


class OpenAIChat(Provider):
    """The provider for OpenAI's chat-completions endpoint; the base of those that imitate it."""

    name = "openai"
    replay_wire = "openai"
    literal_text = True
    dialect: Dialect = _OWN

    def endpoint_url(self, model: Model) -> str:
        """Return the URL; a query in the base URL (Azure's ``api-version``) stays at its end."""
        return joined_url(model.base_url, CHAT)

    def auth_headers(self, model: Model) -> dict[str, str]:
        return {"authorization": f"Bearer {model.api_key}"} if model.api_key else {}

    @property
    def typed_fields(self) -> frozenset[str]:
        return typed_fields(self.dialect)

    def build_request(self, request: Request) -> dict[str, Any]:
        return chat_body(request, self.dialect_at(request.model))

    def dialect_at(self, model: Model) -> Dialect:
        """Return what requests to a model differ in.

        At an address other than OpenAI's it may be Gemini that wants its signatures back; OpenAI
        refuses them, as it does every field it does not know.
        """
        if self.dialect is _OWN and urlsplit(model.base_url).hostname != "api.openai.com":
            return _ELSEWHERE
        return self.dialect

    def parse_chunk(self, data: bytes) -> Parsed:
        try:
            chunk = decode(data)
        except (msgspec.DecodeError, UnicodeError) as exc:
            if data.strip() == DONE:
                return StreamChunk(end=True, sentinel=True, progress=False)
            chunk, left_out = _other_shape(data, exc)
            parsed = self._parsed(chunk, data)
            (parsed if isinstance(parsed, StreamChunk) else parsed[-1]).unread += tuple(left_out)
            return parsed
        return self._parsed(chunk, data)

    def _parsed(self, chunk: ChunkEvent, data: bytes) -> StreamChunk | list[StreamChunk]:
        out: list[StreamChunk] = []
        try:
            if chunk.error and (told := _error_of(chunk.error)) is not None:
                raise ProviderError(told, content=self._beside_error(chunk))
            if not chunk.choices:
                return self._without_choices(chunk, data)
            for choice in bounded(chunk.choices):
                out.append(self._choice(choice))
            if any(map(_says_nothing, out)):
                _look_again(data, out)
            if (chunk.code or chunk.base_resp or chunk.header) and (
                told := failure_beside(data)
            ) is not None:
                raise ProviderError(told)
            self._with(chunk, out[-1], data)
        except ProviderError as exc:
            exc.content = (*_continued(out), *exc.content)
            if chunk.usage:  # a failed answer has used tokens, too
                exc.usage = self._told(chunk.usage)
            raise
        return out[0] if len(out) == 1 else out

    def _beside_error(self, chunk: ChunkEvent) -> tuple[StreamChunk, ...]:
        """Return what the choices beside an error add to the answer."""
        out: list[StreamChunk] = []
        with suppress(MiniLLMError):  # the error says more than theirs
            for choice in bounded(chunk.choices or []):
                choice.finish_reason = None
                out.append(self._choice(choice))
        return _continued(out)

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        left_out: list[str] = []
        try:
            chunk = decode(body)
        except (msgspec.DecodeError, UnicodeError) as exc:
            chunk, left_out = _other_shape(body, exc)
        try:
            return self._whole(chunk, body, left_out)
        except ProviderError as exc:
            if chunk.usage:
                exc.usage = self._told(chunk.usage)
            raise

    def _whole(self, chunk: ChunkEvent, body: bytes, left_out: list[str]) -> list[StreamChunk]:
        """Translate a whole answer."""
        if (told := _error_of(chunk.error)) is not None:
            raise ProviderError(told)
        if not chunk.choices:
            raise ProviderError(self.parse_error(None, body))
        if len({choice.index for choice in bounded(chunk.choices)}) < len(chunk.choices):
            for number, choice in enumerate(chunk.choices):
                choice.index = number
        for choice in chunk.choices:
            if choice.message and (choice.delta is None or not _says_something(choice)):
                choice.delta, more = _message(choice)
                left_out += more
            for number, call in enumerate((choice.delta and choice.delta.tool_calls) or ()):
                call.index = number if call.index is None else call.index
        out = [self._choice(choice) for choice in chunk.choices]
        if any(map(_says_nothing, out)):
            _look_again(body, out, whole=True)
        self._with(chunk, out[-1], body)
        if out[-1].finish_reason is None and (told := failure_beside(body)) is not None:
            raise ProviderError(told, content=_continued(out))
        # A body that says nothing is over, and no evidence of an empty answer.
        empty = not any(one.progress for one in out)
        out.append(StreamChunk(end=True, sentinel=empty, progress=False, unread=tuple(left_out)))
        return out

    # -- events ----------------------------------------------------------------------------

    def _without_choices(self, chunk: ChunkEvent, data: bytes) -> StreamChunk:
        """Translate an event without choices: usage, an opening without content, or an error."""
        out = StreamChunk(progress=False, answer=False)
        # The loose reading takes many times as long.
        found = loose_json(data) if len(data) <= READ_AGAIN else msgspec.json.decode(data)
        told = complaint_in(found)
        out.unread = texts_beside(found)
        if told is not None:
            raise ProviderError(told, vague=failure_beside(data) is None)
        return self._with(chunk, out, data)

    def _with(self, chunk: ChunkEvent, out: StreamChunk, data: bytes) -> StreamChunk:
        """Add the fields beside the choices, which belong to the whole response, to a chunk.

        Raises `ProviderError` if they say that an answer failed which ends here.
        """
        out.id = chunk.id
        out.model = chunk.model
        if chunk.usage:
            out.usage = self._told(chunk.usage)
            out.progress = out.progress or out.usage is not None
        if chunk.x_groq is not None:
            if (told := _error_of(chunk.x_groq.error)) is not None:
                raise ProviderError(told)
            if chunk.x_groq.usage and out.usage is None:
                out.usage = self._told(chunk.x_groq.usage)
        if out.delta and out.finish_reason is None and out.usage is None:
            return out  # the rest is repeated with each piece of text: read it at the edges only
        if out.finish_reason is not None and (told := failure_beside(data)) is not None:
            raise ProviderError(told)
        if chunk.cost and (out.usage is None or out.usage.cost is None):
            cost = self._told({"cost": chunk.cost})  # beside the usage
            if out.usage is None or cost is None:
                out.usage = out.usage or cost
            else:
                out.usage.merge_from(cost)
        if out.usage is None and out.finish_reason is not None and chunk.choices:
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

    def _choice(self, choice: ChoiceEvent) -> StreamChunk:
        delta = choice.delta
        if delta is None or ((choice.message or choice.text) and delta == _NOTHING):
            delta = _bare(choice)
        content = delta.content
        out = StreamChunk(content if type(content) is str else "")
        out.choice = choice.index or 0
        if out.choice < 0:
            raise ProtocolError("choices[].index is negative")
        if choice.finish_reason is not None:
            out.finish_reason = reason_of(choice.finish_reason, "choices[].finish_reason")
        # Some servers send the same reasoning under two names: take it once.
        thought = delta.reasoning or delta.reasoning_content
        out.reasoning = thought or delta.reasoning_text or delta.thinking or ""
        if isinstance(content, list):
            add_parts(content, out)
        if delta.refusal:
            out.refusal += delta.refusal
        if delta.tool_calls or delta.function_call is not None:
            out.tool_calls += _call_deltas(delta)
        if delta.reasoning_details:
            out.reasoning_details = tuple(bounded(delta.reasoning_details))
            if not out.reasoning:
                out.reasoning = visible(delta.reasoning_details)
        if delta.annotations:
            out.annotations = (*out.annotations, *delta.annotations)
        out.logprobs = choice.logprobs or None
        out.audio = delta.audio or None
        if delta.images:
            out.images = (*out.images, *delta.images)
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
        if choice.error or delta.error or out.finish_reason is not None:
            _check_end(choice, delta, out)
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


def _other_shape(data: bytes, cause: Exception) -> tuple[ChunkEvent, list[str]]:
    """Read an event that the strict decoder refused. Raises its error if there is no reading it."""
    try:
        return decode_loosely(data)
    except MiniLLMError:
        raise
    except msgspec.DecodeError:
        raise cause from None


def _bare(choice: ChoiceEvent) -> Delta:
    """Return what a choice without a delta says.

    That is ``text``, as in the older completions endpoint, or a piece in ``message``. Beside a finish
    reason, a message repeats what came before.
    """
    if choice.text:
        return Delta(content=choice.text)
    if choice.message and reason_of(choice.finish_reason, "choices[].finish_reason") is None:
        with suppress(msgspec.DecodeError, UnicodeError):
            return decode_delta(choice.message)
        message = loose_json(bytes(choice.message))
        return loose_delta(message)[0] if isinstance(message, Mapping) else _NOTHING
    return _NOTHING


def _message(choice: ChoiceEvent) -> tuple[Delta, list[str]]:
    """Return the message of a whole answer as a delta."""
    try:
        return decode_delta(choice.message), []
    except (msgspec.DecodeError, UnicodeError):
        return loose_delta(loose_json(bytes(choice.message)))


def _error_of(error: Any) -> ErrorInfo | None:
    """Return the failure that the value of a field ``error`` reports, if it reports one."""
    if not error or not is_error(error):
        return None
    if isinstance(error, Mapping) or (isinstance(error, list) and any(map(_is_mapping, error))):
        return error_from(None, {"error": error})
    return error_from(None, {"error": in_short(error)})


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _check_end(choice: ChoiceEvent, delta: Delta, out: StreamChunk) -> None:
    """Raise `ProviderError` if a choice failed; what the same event said comes with it."""
    info = _error_of(choice.error) or _error_of(delta.error)
    if info is None and out.finish_reason is not None:
        info = failure_of(out.finish_reason, choice.finish_reason)
        if info is None and choice.native_finish_reason:
            info = failure_of(choice.native_finish_reason)
    if info is not None:
        raise ProviderError(info, content=_continued([out]))


def _continued(chunks: list[StreamChunk]) -> tuple[StreamChunk, ...]:
    """Return the chunks of a failed event that add to the answer, without their reasons."""
    found = tuple(filter(continues_answer, chunks))
    for chunk in found:
        chunk.finish_reason = None
    return found


def _says_nothing(out: StreamChunk) -> bool:
    if out.delta or (out.progress and out.finish_reason is None):
        return False
    return not has_content(out)


def _look_again(data: bytes, out: list[StreamChunk], *, whole: bool = False) -> None:
    """Look for what choices say that seem to say nothing, in their JSON.

    Raises `ProviderError` if one says that it failed.
    """
    if len(data) > READ_AGAIN:
        return
    with suppress(msgspec.DecodeError, RecursionError):
        found = loose_json(data)
        choices = found.get("choices") if isinstance(found, Mapping) else None
        entries = choices if isinstance(choices, list) else [choices]
        for choice, chunk in zip(entries, out, strict=False):
            if _says_nothing(chunk):
                look_again(choice, chunk, whole=whole)
                _take_reason(choice, chunk)


def _take_reason(choice: Any, out: StreamChunk) -> None:
    """Take a reason from where relays put it. Raises `ProviderError` if the choice failed."""
    if not isinstance(choice, Mapping):
        return
    told = failure_in(choice)
    delta = choice.get("delta")
    if out.finish_reason is None:
        inner = delta if isinstance(delta, Mapping) else {}
        words = inner.get("finish_reason"), inner.get("finishReason"), choice.get("finishReason")
        reasons = (reason_of(word, "choices[].delta.finish_reason") for word in words if word)
        out.finish_reason = next(filter(None, reasons), None)
        out.progress = out.progress or out.finish_reason is not None
        if told is None and out.finish_reason is not None:
            told = failure_of(out.finish_reason)
    if told is not None:
        raise ProviderError(told)


def _says_something(choice: ChoiceEvent) -> bool:
    delta = choice.delta or (_message(choice)[0] if choice.message else _NOTHING)
    said = delta.content, delta.tool_calls, delta.refusal, delta.reasoning, delta.reasoning_content
    return any(said)


def _usages(choice: ChoiceEvent) -> Iterator[Any]:
    """Yield what a choice has as usage: Moonshot puts it there, and others into the delta."""
    yield choice.usage
    if choice.delta is not None:
        yield choice.delta.usage
    if choice.message:
        with suppress(msgspec.DecodeError, UnicodeError):
            yield at_path(msgspec.json.decode(choice.message), ("usage",))


def _metadata(chunk: ChunkEvent, out: StreamChunk) -> None:
    found = out.metadata or {}
    for name in ("provider", "service_tier", "system_fingerprint"):
        value = getattr(chunk, name)
        if value and (isinstance(value, str) or name == "service_tier"):  # in doubt, if no word
            found[name] = value
    for name in ("citations", "search_results", "timings"):
        raw = getattr(chunk, name)
        if raw and bytes(raw) not in (b"null", b"[]"):
            found[name] = raw  # decoded once, when the response is built
    out.metadata = found or None


def _call_deltas(delta: Delta) -> tuple[ToolCallDelta, ...]:
    calls = delta.tool_calls or [Call(index=0, function=delta.function_call)]
    return tuple([_call_delta(call) for call in bounded(calls)])


def _call_delta(call: Call) -> ToolCallDelta:
    kind = "function"
    function = call.function or Function()
    name, arguments = function.name or call.name, function.arguments  # flat, as in Responses
    if arguments is None:
        arguments = _other_arguments(function, call)
    if call.custom is not None:
        name, arguments, kind = call.custom.name, call.custom.input, "custom"
    if arguments is not None and not isinstance(arguments, str):
        # Against the reference, but unmistakable.
        arguments = msgspec.json.encode(arguments).decode()
    ident = None if call.id in ("", "null") else call.id  # Mistral sends the word
    extra = {"extra_content": call.extra_content} if call.extra_content else None
    return ToolCallDelta(call.index, ident, name or None, arguments or "", kind, extra)


def _other_arguments(function: Function, call: Call) -> Any:
    """Return the arguments of a call that has none in their place."""
    inside = function.parameters, function.args, function.input
    beside = call.arguments, call.parameters, call.args, call.input
    return next((given for given in (*inside, *beside) if given is not None), None)
