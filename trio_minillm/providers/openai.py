"""OpenAI chat completions, the wire format that most servers speak.

Events are ``data: {chunk}``, the last one ``data: [DONE]``; see OpenAI's API reference. The
peculiarities of other servers' *responses* are read here for all of them, since they don't clash;
`Compatible` and `OpenRouter` differ in their requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import msgspec

from .._types.chunks import StreamChunk
from .._types.cost import CostInfo, TokenPrice
from .._types.errors import MiniLLMError, ProviderError
from .._types.usage import Usage
from ._base import MODELS, Model, Provider, Request, host_of, joined_url, url_beside
from ._coerce import loose_json
from ._errors import complaint_in, failure_beside, name_answer
from ._history import OPENAI_IDS
from ._openai_choices import (
    chunk_of,
    continuing,
    error_of,
    message_of,
    other_shape,
    read_again,
    says_nothing,
    says_something,
    take_documents,
    take_facts,
    usages_in,
)
from ._openai_events import ChunkEvent, decode
from ._openai_ordinary import ordinary_chunk
from ._openai_request import Dialect, chat_body, typed_fields
from ._parts import READ_AGAIN, bounded, texts_beside, wrapped_answer
from ._pricing import stated_or_priced
from ._usage import openai_usage

DONE = b"[DONE]"

CHAT: Final = "/chat/completions"
"""The endpoint below the base URL."""
Read: TypeAlias = StreamChunk | Sequence[StreamChunk]
"""Chunks of an event; this wire has one for each."""
_OWN = Dialect(ids=OPENAI_IDS)
_ELSEWHERE = Dialect(signatures="kept")


class OpenAIChat(Provider):
    """The provider for OpenAI's chat completions, and the base class for servers that imitate
    them.
    """

    name = "openai"
    replay_wire = "openai"
    literal_text = True
    any_text = True
    bills: bool = False
    """True if the server charges what it reports as the cost, so that 0 means free."""
    dialect: Dialect = _OWN

    def endpoint_url(self, model: Model) -> str:
        """Return the URL; a query in the base URL (Azure's ``api-version``) stays at its end."""
        return joined_url(model.base_url, CHAT)

    def models_url(self, model: Model, after: str | None = None) -> str | None:
        """Return the URL of the list, which has one page."""
        return url_beside(self.endpoint_url(model), CHAT, MODELS)

    def auth_headers(self, model: Model) -> dict[str, str]:
        return {"authorization": f"Bearer {model.api_key}"} if model.api_key else {}

    @property
    def typed_fields(self) -> frozenset[str]:
        return typed_fields(self.dialect)

    def build_request(self, request: Request) -> dict[str, Any]:
        return chat_body(request, self.dialect_at(request.model))

    def dialect_at(self, model: Model) -> Dialect:
        """Return how requests to a model differ.

        At an address other than OpenAI's, it may be Gemini that wants its signatures back. OpenAI
        rejects them, as it does every field that it does not know.
        """
        if self.dialect is _OWN and host_of(model.base_url) != "api.openai.com":
            return _ELSEWHERE
        return self.dialect

    def parse_chunk(self, data: bytes) -> Read:
        if data == DONE:
            return StreamChunk(end=True, sentinel=True, progress=False)
        try:
            if (ordinary := ordinary_chunk(data, self._told)) is not None:
                return ordinary
            chunk = decode(data)
        except (msgspec.DecodeError, UnicodeError) as exc:
            if data.strip() == DONE:
                return self.parse_chunk(DONE)
            chunk, left_out = other_shape(data, exc)
            parsed = self._parsed(chunk, data)
            (parsed if isinstance(parsed, StreamChunk) else parsed[-1]).unread += tuple(left_out)
            return parsed
        return self._parsed(chunk, data)

    def _parsed(self, chunk: ChunkEvent, data: bytes) -> Read:
        out: list[StreamChunk] = []
        try:
            told = error_of(chunk.error, data) if chunk.error else None
            if told is None and (chunk.code or chunk.base_resp or chunk.header):
                told = failure_beside(data)
            if told is not None:
                raise ProviderError(told, content=self._beside_error(chunk))
            if not chunk.choices:
                return self._without_choices(chunk, data)
            silent = False
            for choice in bounded(chunk.choices):
                made = chunk_of(choice, data)
                out.append(made)
                silent = silent or says_nothing(made)
            if silent:
                read_again(data, out)
            self._with(chunk, out[-1], data)
        except ProviderError as exc:
            exc.content = (*continuing(out), *exc.content)
            self._beside_failure(chunk, exc)
            raise
        return out[0] if len(out) == 1 else out

    def _beside_error(self, chunk: ChunkEvent) -> tuple[StreamChunk, ...]:
        """Return what the choices beside an error add to the answer."""
        out: list[StreamChunk] = []
        with suppress(MiniLLMError):  # the error says more than theirs
            for choice in bounded(chunk.choices or []):
                choice.finish_reason = None
                out.append(chunk_of(choice))
        return continuing(out)

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        left_out: list[str] = []
        try:
            chunk = decode(body)
        except (msgspec.DecodeError, UnicodeError) as exc:
            chunk, left_out = other_shape(body, exc)
        try:
            return self._whole(chunk, body, left_out)
        except ProviderError as exc:
            self._beside_failure(chunk, exc)
            raise

    def _beside_failure(self, chunk: ChunkEvent, failure: ProviderError) -> None:
        """Add what the event of a failure says of the answer: a failed one has used tokens, too."""
        if chunk.usage:
            failure.usage = self._told(chunk.usage)
        name_answer(failure, chunk.id, chunk.model)

    def _whole(self, chunk: ChunkEvent, body: bytes, left_out: list[str]) -> list[StreamChunk]:
        """Translate a whole answer."""
        if (told := error_of(chunk.error, body)) is not None:
            raise ProviderError(told)
        if not chunk.choices:
            with suppress(msgspec.DecodeError):  # in a looser reading it is an error
                if (inner := wrapped_answer(msgspec.json.decode(body))) is not None:
                    unwrapped = list(self.parse_response(inner))
                    self._add_usage(chunk, unwrapped[-1])
                    return unwrapped
            raise ProviderError(self.parse_error(None, body))
        if len({choice.index for choice in bounded(chunk.choices)}) < len(chunk.choices):
            for number, choice in enumerate(chunk.choices):
                choice.index = number
        for choice in chunk.choices:
            if choice.message and (choice.delta is None or not says_something(choice)):
                choice.delta, more = message_of(choice)
                left_out += more
            for number, call in enumerate((choice.delta and choice.delta.tool_calls) or ()):
                call.index = number if call.index is None else call.index
        out = [chunk_of(choice, body) for choice in chunk.choices]
        if any(map(says_nothing, out)):
            read_again(body, out, whole=True)
        self._with(chunk, out[-1], body)
        if out[-1].finish_reason is None and (told := failure_beside(body)) is not None:
            raise ProviderError(told, content=continuing(out))
        # A body that says nothing is over, and no evidence of an empty answer.
        empty = not any(one.progress for one in out)
        out.append(StreamChunk(end=True, sentinel=empty, progress=False, unread=tuple(left_out)))
        return out

    # -- events ----------------------------------------------------------------------------

    def _without_choices(self, chunk: ChunkEvent, data: bytes) -> Read:
        """Translate an event without choices: usage, an opening without content, an error, or an
        event in a wrapping.
        """
        out = StreamChunk(progress=False, answer=False)
        # The loose reading takes many times as long.
        if chunk.usage and chunk.choices is not None:
            told = failure_beside(data)
        else:
            found = loose_json(data) if len(data) <= READ_AGAIN else msgspec.json.decode(data)
            if (inner := wrapped_answer(found)) is not None:
                parsed = self.parse_chunk(inner)
                self._add_usage(chunk, parsed if isinstance(parsed, StreamChunk) else parsed[-1])
                return parsed
            told = complaint_in(found)
            out.unread = texts_beside(found)
        if told is not None:
            raise ProviderError(told, vague=failure_beside(data) is None)
        return self._with(chunk, out, data)

    def _add_usage(self, wrapping: ChunkEvent, last: StreamChunk) -> None:
        """Add to the last chunk of what was in a wrapping the usage that stands beside it."""
        if wrapping.usage and last.usage is None:  # DashScope's ``output``
            last.usage = self._told(wrapping.usage)

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
            if (told := error_of(chunk.x_groq.error)) is not None:
                raise ProviderError(told)
            if chunk.x_groq.usage and out.usage is None:
                out.usage = self._told(chunk.x_groq.usage)
        if out.delta and out.finish_reason is None and out.usage is None:
            return out  # the rest is repeated with each piece of text: read it at the edges only
        ended = out.finish_reason is not None
        if ended and (told := failure_beside(data)) is not None:
            raise ProviderError(told)
        if chunk.cost and (out.usage is None or out.usage.cost is None):
            cost = self._told({"cost": chunk.cost})  # beside the usage
            if out.usage is None or cost is None:
                out.usage = out.usage or cost
            else:
                out.usage.merge_from(cost)
        if out.usage is None and ended and chunk.choices:
            for choice in chunk.choices:
                out.usage = out.usage or self._told(*usages_in(choice))
        if chunk.provider or chunk.service_tier or chunk.system_fingerprint:
            take_facts(chunk, out)
        if chunk.citations or chunk.search_results or chunk.timings:
            take_documents(chunk, out)
        return out

    def usage_of(self, raw: Any) -> Usage:
        """Return a usage object of the OpenAI family in disjoint buckets. Raises nothing."""
        return openai_usage(raw)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True for OpenAI's own servers, whose reference says that all choices are
        charged.
        """
        host = host_of(model.base_url)
        return host == "api.openai.com" or host.endswith((".api.openai.com", ".azure.com"))

    def _told(self, *places: Any) -> Usage | None:
        """Return the first usage object that says something; ``None`` if none does."""
        for raw in places:
            if raw:
                usage = self.usage_of(raw)
                if usage.completion_tokens is not None or not usage.empty:
                    return usage
        return None

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        return stated_or_priced(usage, price, bills=self.bills)
