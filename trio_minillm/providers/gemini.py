"""Gemini's own wire, at the Gemini API and at Vertex AI.

Each event has the next parts of the candidates, and usage that counts all so far. There is no end
event: the body ends behind the event with the finish reason, which may have no content. Without
``alt=sse`` the body is one JSON array of the same events.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from .._types.chunks import StreamChunk
from .._types.errors import EXCERPT_CHARS, ErrorInfo, MiniLLMError, ProtocolError, ProviderError
from .._types.usage import Usage
from ._base import (
    MODELS,
    Beside,
    Model,
    Parsed,
    Provider,
    Request,
    is_vertex,
    joined_url,
    url_beside,
)
from ._coerce import loose_json, loose_object
from ._errors import complaint_in, error_from, failure_beside, is_error, name_answer
from ._gemini_events import (
    Event,
    annotations_of,
    chunks_of,
    decode,
    facts_of,
    read_event,
)
from ._gemini_request import NESTED_FIELDS, TYPED_FIELDS, contents_body
from ._parts import bounded
from ._reasons import failure_of, reason_of
from ._usage import gemini_usage, plain_gemini_usage

_TOKENS = ("ya29.",)
"""Beginning of Google's access tokens."""
_API_KEYS = ("AIza", "AQ.")
"""Beginnings of Google's API keys, which Vertex AI takes in its express mode."""
_METHOD = ":streamGenerateContent"


class Gemini(Provider):
    """The provider for Gemini's ``streamGenerateContent``."""

    name = "gemini"
    replay_wire = "gemini"
    literal_text = True
    any_text = True
    always_usage = True
    beside_text: ClassVar[Beside | None] = Beside("usageMetadata", plain_gemini_usage)
    array_events = True
    nested_fields: ClassVar[frozenset[str]] = NESTED_FIELDS

    def endpoint_url(self, model: Model) -> str:
        """Return the URL, with the base URL's query at its end."""
        return _url(model.base_url, model.name)

    def models_url(self, model: Model, after: str | None = None) -> str | None:
        """Return the URL of a page of the list (1,000 at most); ``None`` at Vertex AI, which has none in
        this format.
        """
        if is_vertex(model.base_url):
            return None
        page = "pageSize=1000" + (f"&pageToken={quote(after, safe='')}" if after else "")
        return url_beside(_list_of(model.base_url), "", MODELS, page)

    def auth_headers(self, model: Model) -> dict[str, str]:
        """Return the key in Google's own header, or a token as a bearer token.

        Vertex AI accepts access tokens, and an API key only in its express mode.
        """
        key = model.api_key or ""
        if not key:
            return {}
        vertex = is_vertex(model.base_url) and not key.startswith(_API_KEYS)
        if vertex or key.startswith(_TOKENS):
            return {"authorization": f"Bearer {key}"}
        return {"x-goog-api-key": key}

    @property
    def typed_fields(self) -> frozenset[str]:
        return TYPED_FIELDS

    def build_request(self, request: Request) -> dict[str, Any]:
        return contents_body(request)

    def counts_all_choices(self, model: Model) -> bool:
        """Return True: ``candidatesTokenCount`` is that of all candidates (API reference)."""
        return True

    def parse_chunk(self, data: bytes) -> Parsed:
        try:
            out = _parsed(decode(data), data)
        except (msgspec.DecodeError, UnicodeError) as exc:
            if data.strip() == b"[DONE]":  # some proxies add it
                return StreamChunk(end=True, sentinel=True, progress=False)
            left_out: list[str] = []
            try:
                found = loose_object(data, left_out)
            except msgspec.DecodeError:
                raise exc from None
            out = _parsed(read_event(found, "", left_out), data)
            out[-1].unread += tuple(left_out)
        plain = len(out) == 1 and not any(call.partial is not None for call in out[0].tool_calls)
        return out[0] if plain else out

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        parsed = self.parse_chunk(body)
        out = [parsed] if isinstance(parsed, StreamChunk) else list(parsed or ())
        if not any(chunk.answer for chunk in out):
            raise ProviderError(self.parse_error(None, body))
        # A body that says nothing is over, and no evidence of an empty answer.
        empty = not any(chunk.progress for chunk in out)
        return [*out, StreamChunk(end=True, sentinel=empty, progress=False)]


def _parsed(event: Event, data: bytes) -> list[StreamChunk]:
    """Translate an event, into at least one chunk; its usage is on the last of them."""
    if event.response and isinstance(event.response, dict) and event.candidates is None:
        inner = read_event(event.response, "", [])
        return _parsed(inner, msgspec.json.encode(event.response))
    out: list[StreamChunk] = []
    try:
        if event.error and is_error(event.error):
            with suppress(MiniLLMError):  # the error says more than theirs
                _add_candidates(event, out)
            raise ProviderError(error_from(None, loose_json(data)))
        _add_candidates(event, out)
        if event.prompt_feedback and (told := _blocked(event.prompt_feedback)) is not None:
            raise ProviderError(told)
        if not out:
            out.append(_without_candidates(event, data))
    except ProviderError as exc:  # a failed answer has used tokens, too
        exc.content, exc.usage = tuple(out), _told(event.usage_metadata)
        name_answer(exc, event.response_id, event.model_version)
        raise
    out[0].id, out[0].model = event.response_id, event.model_version
    if (usage := _told(event.usage_metadata)) is not None:
        out[-1].usage = usage
        # Every event has usage, and one that counts the prompt alone has not moved the answer.
        out[-1].progress = out[-1].progress or bool(usage.completion_tokens)
    if event.prompt_feedback:
        out[-1].metadata = {"promptFeedback": event.prompt_feedback, **(out[-1].metadata or {})}
    return out


def _add_candidates(event: Event, out: list[StreamChunk]) -> None:
    """Add the chunks of all candidates. Raises `ProviderError` if one's finish reason is a failure."""
    for candidate in bounded(event.candidates or []):
        if candidate.index is not None and candidate.index < 0:
            raise ProtocolError("candidates[].index is negative")
        chunks = chunks_of(candidate) or [StreamChunk(progress=False)]
        for chunk in chunks:
            chunk.choice = candidate.index or 0
        out += chunks
        last = chunks[-1]
        last.metadata = facts_of(candidate)
        if candidate.grounding_metadata or candidate.citation_metadata:
            left_out: list[str] = []
            last.annotations = annotations_of(candidate, left_out)
            last.unread = (*last.unread, *left_out)
        last.logprobs = candidate.logprobs_result
        reason = candidate.finish_reason and reason_of(candidate.finish_reason, "finishReason")
        if reason:
            told = failure_of(reason)
            if told is not None:  # the words may quote the answer
                said = {"finishMessage": candidate.finish_message}
                raise ProviderError(msgspec.structs.replace(told, metadata=said))
            last.finish_reason = reason
        last.progress = bool(last.progress or reason or last.annotations or last.logprobs)


def _without_candidates(event: Event, data: bytes) -> StreamChunk:
    """Translate an event without candidates: usage, facts beside the answer, or a failure."""
    known = event.candidates is not None or event.usage_metadata or event.prompt_feedback
    if not known:
        with suppress(msgspec.DecodeError, RecursionError):
            if (told := complaint_in(loose_json(data))) is not None:
                raise ProviderError(told, vague=failure_beside(data) is None)
    return StreamChunk(progress=False, answer=bool(known))


def _blocked(feedback: Mapping[str, Any]) -> ErrorInfo | None:
    """Return the failure of a prompt that was blocked: there is no answer, and will be none."""
    reason = feedback.get("blockReason")
    if not isinstance(reason, str) or not reason or reason.upper().endswith("UNSPECIFIED"):
        return None
    words = feedback.get("blockReasonMessage")
    more = f": {words}" if isinstance(words, str) and words else ""
    message = f"the prompt was blocked: {reason}{more}"[:EXCERPT_CHARS]
    return ErrorInfo(message=message, kind="invalid", code=reason[:100], should_retry=False)


def _told(raw: Any) -> Usage | None:
    """Return a usage object, if it says something."""
    usage = gemini_usage(raw) if raw else None
    return None if usage is None or usage.empty else usage


@lru_cache(maxsize=256)  # each request asks several times, and a client knows few addresses
def _url(base_url: str, name: str) -> str:
    base, mark, query = base_url.partition("?")
    base = base.rstrip("/")
    if not base.endswith(_METHOD):
        base = _with_version(base)
        base += _path_of(name, base)
    return joined_url(f"{base}{mark}{query}", _METHOD, query="alt=sse")


def _list_of(base_url: str) -> str:
    """Return the address that the list of models is below: one that names a model, without it."""
    base, mark, query = base_url.partition("?")
    base = re.sub(r"/models/[^/]+$", "", base.rstrip("/"))
    return _with_version(base) + mark + query


def _with_version(base: str) -> str:
    """Return an address with the version of the API, and without what names models in general."""
    base = base.removesuffix("/models")
    if re.search(_VERSION, base) is None:
        base += "/v1" if is_vertex(base) else "/v1beta"
    return base


_VERSION = r"/v\d\w*(?:/|$)"
_BARE = r"/v\d\w*(?:/projects/[^/]+/locations/[^/]+)?$"
"""The end of an address of Vertex AI that names no publisher yet."""


def _path_of(name: str, base: str) -> str:
    """Return the part of an address that names the model.

    A name with a slash is a path of its own: of a tuned model, an endpoint, another publisher's.
    """
    name = quote(name.removeprefix("models/"), safe="/:@-._~")
    if "/" in name:
        return f"/{name}"
    bare = is_vertex(base) and re.search(_BARE, base) is not None
    return f"/publishers/google/models/{name}" if bare else f"/models/{name}"
