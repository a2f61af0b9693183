"""Anthropic Messages, whose events open, change and close typed content blocks.

The order is ``message_start``, then blocks (``content_block_start``, ``…_delta``, ``…_stop``), one
or more ``message_delta`` with cumulative usage, and ``message_stop``; ``ping`` and ``error`` may
come anywhere. Unknown events only show that the stream is alive, as Anthropic's versioning policy
asks. Usage in ``message_start`` is provisional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from .._types.chunks import Block, StreamChunk, ToolCallDelta, continues_answer
from .._types.cost import CostInfo, CostResolution, TokenPrice
from .._types.credentials import sendable
from .._types.errors import ProtocolError, ProviderError
from .._types.usage import Usage
from ._anthropic_events import (
    DELTAS,
    EVENTS,
    Delta,
    Event,
    Message,
    decode,
    decode_kind,
    decode_loosely,
    decode_message,
    is_unknown,
    kind_of,
    kind_of_event,
    read_event,
    read_message,
    told,
)
from ._anthropic_ordinary import ordinary_chunk
from ._anthropic_request import AZURE, CALL_FIELDS, OWN_HOST, TYPED_FIELDS, messages_body
from ._base import (
    MODELS,
    Model,
    Parsed,
    Provider,
    Request,
    host_of,
    is_token,
    is_vertex,
    joined_url,
    names_failure,
    url_beside,
)
from ._coerce import clean, loose_json, side_objects, side_text, text
from ._errors import complaint_in, error_from, failure_beside, is_error, name_answer
from ._parts import READ_AGAIN, text_within, texts_of
from ._pricing import stated_or_priced
from ._reasons import USUAL_REASONS, failure_of, reason_of
from ._usage import at_path

_TYPED = EVENTS - {"error"}
"""Names of events that are not failures."""
_OAUTH = "sk-ant-oat"
OAUTH_BETA = "oauth-2025-04-20"
"""Without it, Anthropic refuses a token (litellm#21039, inspect_ai#3343)."""
VERSION = "2023-06-01"
"""Value of ``anthropic-version``, which ``headers=`` of the model overrides. The newer 2026-10-21
refuses every sampling parameter."""


class Anthropic(Provider):
    """The provider for Anthropic's Messages, and for servers that imitate them."""

    name = "anthropic"
    replay_wire = "anthropic"
    literal_text = True
    any_text = True
    always_usage = True

    def endpoint_url(self, model: Model) -> str:
        """Return the URL, with the base URL's query at its end. At Vertex AI, it names the
        model.
        """
        return _url(model.base_url, model.name)

    def models_url(self, model: Model, after: str | None = None) -> str | None:
        """Return the URL of a page of the list (1,000 at most); ``None`` at Vertex AI, which has none in
        this format.
        """
        if is_vertex(model.base_url):
            return None
        page = "limit=1000" + (f"&after_id={quote(after, safe='')}" if after else "")
        return url_beside(self.endpoint_url(model), "/messages", MODELS, page)

    def wire_at(self, model: Model) -> str:
        """Return ``anthropic`` at Anthropic's own address, and the same with the address elsewhere.

        Only Anthropic checks its signatures, and it rejects all others.
        """
        place = _place_of(self.endpoint_url(model))
        return f"{self.replay_wire}@{place}" if place else self.replay_wire

    def auth_headers(self, model: Model) -> dict[str, str]:
        """Return the version and the key, in the header that the address expects.

        Anthropic and Azure expect ``x-api-key``. A token (``sk-ant-oat…``, Entra ID's, or Google's)
        is a bearer token. Servers that imitate Anthropic expect one or the other, so they get both.
        """
        headers = {"anthropic-version": VERSION}
        key, host = model.api_key or "", host_of(model.base_url)
        azure = host.endswith(AZURE)
        if key.startswith(_OAUTH) or (azure and is_token(key)):
            return {**headers, "authorization": f"Bearer {key}"}
        if not key or host == OWN_HOST:
            return {**headers, "x-api-key": key} if key else headers
        if is_vertex(model.base_url):
            return {**headers, "authorization": f"Bearer {key}"}
        headers["x-api-key"] = key
        if not key.startswith("sk-ant-") and not azure:
            headers["authorization"] = f"Bearer {key}"
        return headers

    @property
    def typed_fields(self) -> frozenset[str]:
        return TYPED_FIELDS

    def request_headers(self, request: Request) -> dict[str, str]:
        """Return the betas of the call and of the model's own header, joined in one header."""
        given = request.params.get("betas") or ()
        betas: list[str] = [given] if isinstance(given, str) else list(given)
        if (request.model.api_key or "").startswith(_OAUTH):
            betas.append(OAUTH_BETA)
        if not all(map(sendable, betas)):
            raise ValueError("betas must be printable ASCII without surrounding spaces")
        named = {k.lower(): v for k, v in request.model.headers.items()}.get("anthropic-beta")
        return {"anthropic-beta": ",".join(filter(None, [named, *betas]))} if betas else {}

    def build_request(self, request: Request) -> dict[str, Any]:
        return messages_body(request)

    def parse_chunk(self, data: bytes) -> Parsed:
        ordinary = ordinary_chunk(data)
        return self._parse(data, "") if ordinary is msgspec.UNSET else ordinary

    def _parse(self, data: bytes, name: str) -> Parsed:
        """Translate any event; ``name`` is its SSE name, for one that has no type in its data."""
        try:
            event = decode(data)
        except (msgspec.DecodeError, UnicodeError) as exc:
            if data.strip() == b"[DONE]":  # some proxies add it
                return StreamChunk(end=True, sentinel=True, progress=False)
            with suppress(msgspec.DecodeError):
                if isinstance(exc, msgspec.ValidationError) and is_unknown(decode_kind(data)):
                    return StreamChunk(answer=False)
            left_out: list[str] = []
            parsed = self._parsed(decode_loosely(read_event, data, left_out, exc), data, name)
            if left_out and parsed is not None:
                last = parsed if isinstance(parsed, StreamChunk) else parsed[-1]
                last.unread += tuple(left_out)
            return parsed
        return self._parsed(event, data, name)

    def _parsed(
        self, event: Event, data: bytes, name: str
    ) -> StreamChunk | list[StreamChunk] | None:
        kind = event.type or name or kind_of_event(event)
        # An error counts whatever else the event says.
        if (event.error and is_error(event.error)) or kind == "error":
            raise ProviderError(error_from(None, loose_json(data)))
        if kind == "content_block_delta":
            out = _delta(event)
            silent = not (out.delta or continues_answer(out) or out.block or out.annotations)
            return _delta_again(data, out) if silent else out
        if kind == "content_block_start":
            return _start(event.index, event.content_block)
        if kind == "content_block_stop":
            return _stop(event)
        if kind == "message_delta":
            try:
                if (failure := failure_beside(data)) is not None:
                    raise ProviderError(failure)
                return _message_delta(event)
            except ProviderError as exc:  # a failed answer has used tokens, too
                exc.usage = exc.usage or told(event.usage)
                raise
        if kind == "message_start":
            if isinstance(event.message, Message):
                return _message(event.message)
            return StreamChunk(progress=False, unread=("message",))
        if kind == "message_stop":
            reason = _reason_in(event)
            out = StreamChunk(end=True, progress=False, usage=told(event.usage))
            out.finish_reason, out.progress = reason, reason is not None
            return out
        if kind == "ping":
            return None
        if kind == "message":
            return self._whole_message(data)
        if not kind or "error" in kind:  # a gateway's own: {"type": "too_many_requests_error", …}
            if (failure := complaint_in(loose_json(data))) is not None:
                raise ProviderError(failure, vague=failure_beside(data) is None)
            return StreamChunk(progress=False, answer=False)
        return StreamChunk(answer=False)  # unknown, but a sign of life

    def _whole_message(self, data: bytes) -> StreamChunk | list[StreamChunk]:
        """Translate an event that is a whole answer: relays send one for a server that does not
        stream. What has been streamed before is not said again.
        """
        found = loose_json(data)
        if not isinstance(found, Mapping) or not isinstance(found.get("content"), list | str):
            return StreamChunk(answer=False)
        out = self.parse_response(data)
        for chunk in out:
            chunk.elsewhere = True
        return list(out)

    def parse_event(self, event: str, data: bytes) -> Parsed:
        if event in _TYPED:
            ordinary = ordinary_chunk(data)
            return self._parse(data, event) if ordinary is msgspec.UNSET else ordinary
        if not names_failure(event):
            with suppress(msgspec.DecodeError):
                kind = decode_kind(data)
                if kind.type is None and not kind.error:
                    return None  # a proxy's own event, such as a keep-alive
        return super().parse_event(event, data)

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        try:
            message = decode_message(body)
        except (msgspec.DecodeError, UnicodeError) as exc:
            message = decode_loosely(read_message, body, [], exc)
        if message.content is None or message.type == "error":
            raise ProviderError(self.parse_error(None, body))
        try:
            if (failure := failure_beside(body)) is not None:
                raise ProviderError(failure)
            said = _message(message)
            out = [said] if isinstance(said, StreamChunk) else said
            return [*out, StreamChunk(end=True, progress=False)]
        except ProviderError as exc:
            exc.usage = exc.usage or told(message.usage)
            name_answer(exc, message.id, message.model)
            raise

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """Return usage times price.

        This is a lower bound if the answer also used another model (the advisor tool), because that
        model's tokens are only in ``iterations`` and have another price. It is also a lower bound
        if the answer ran code, because containers are charged by the hour.
        """
        cost = stated_or_priced(usage, price)
        if cost.amount is None:
            return cost
        raw = (usage.raw if usage is not None else None) or {}
        steps = raw.get("iterations")
        own = not isinstance(steps, list) or all(
            isinstance(s, Mapping) and s.get("type", "message") == "message" for s in steps
        )
        if own and not at_path(raw, _RUNS):
            return cost
        return msgspec.structs.replace(cost, resolution=CostResolution.LOWER_BOUND)


@lru_cache(maxsize=256)  # each request asks, and a client knows few addresses
def _place_of(url: str) -> str:
    """Return the place of an endpoint of which blocks are another's than Anthropic's; else ``""``."""
    where = urlsplit(url)
    if where.hostname == OWN_HOST:
        return ""
    path = where.path.partition("/publishers/")[0]  # at Vertex AI the model's name stands behind it
    return where.netloc.lower() + path.removesuffix("/messages").removesuffix("/v1")


@lru_cache(maxsize=256)  # each request asks several times, and a client knows few addresses
def _url(base_url: str, name: str) -> str:
    if not is_vertex(base_url):
        return joined_url(base_url, "/messages", version="/v1")
    base, mark, query = base_url.partition("?")
    base = base.rstrip("/")
    if not base.endswith(_RAW):  # it ends in ``/locations/…``, or names the publisher, too
        base = base.removesuffix("/models").removesuffix(_PUBLISHER)
        base = f"{base}{_PUBLISHER}/models/{quote(name, safe=':@-._~')}"
    return joined_url(f"{base}{mark}{query}", _RAW)


_PUBLISHER = "/publishers/anthropic"
_RAW = ":streamRawPredict"
"""End of an address at Vertex AI (platform.claude.com: Claude on Vertex AI)."""


_RUNS = ("server_tool_use", "code_execution_requests")


def _delta(event: Event) -> StreamChunk:
    delta, index = event.delta or _NO_DELTA, event.index
    kind = delta.type or kind_of(delta)
    if kind not in DELTAS:  # relays take the type of the block
        kind = f"{kind}_delta" if f"{kind}_delta" in DELTAS else kind_of(delta) or kind
    # An empty piece is not progress; relays leave out a field that is empty.
    if kind == "text_delta":
        said = delta.text or ""
        return StreamChunk(said, part=index, progress=bool(said))
    if kind == "thinking_delta":
        said = delta.thinking or ""
        return StreamChunk(reasoning=said, part=index, progress=bool(said))
    if kind == "input_json_delta":
        said = delta.partial_json or ""
        piece = ToolCallDelta(index, arguments=said)
        return StreamChunk(tool_calls=(piece,), part=index, progress=bool(said))
    if kind == "signature_delta":
        said = delta.signature or ""
        block = Block(delta={"signature": said})
        return StreamChunk(part=index, block=block, progress=bool(said))
    if kind == "citations_delta":
        if delta.citation is None:
            return StreamChunk(part=index, progress=False, unread=("delta.citation",))
        return StreamChunk(
            part=index,
            annotations=(delta.citation,),
            block=Block(delta={"citation": delta.citation}),
        )
    if kind == "compaction_delta":
        whole = {"content": delta.content, "encrypted_content": delta.encrypted_content}
        changed = {k: v for k, v in whole.items() if v is not None}
        return StreamChunk(part=index, block=Block(delta=changed))
    return StreamChunk(part=index, progress=bool(kind))


def _delta_again(data: bytes, out: StreamChunk) -> StreamChunk:
    """Look for what a delta says that seems to say nothing, under other names than the reference's."""
    with suppress(msgspec.DecodeError, RecursionError):
        found = loose_json(data) if len(data) <= READ_AGAIN else None
        event = found if isinstance(found, Mapping) else {}
        delta = event.get("delta")
        given = delta if isinstance(delta, Mapping) else event
        kind = str(given.get("type"))
        if "signature" in kind or "citation" in kind or "compaction" in kind:
            return out
        if "json" in kind or "tool" in kind or "input" in kind:
            value = next((given[key] for key in _INPUTS if given.get(key)), "")
            text = value if isinstance(value, str) else msgspec.json.encode(clean(value)).decode()
            out.tool_calls = (ToolCallDelta(out.part, arguments=text),)
        else:
            text, thought = texts_of(given)
            if "think" in kind or "reason" in kind:
                text, thought = "", thought or text
            out.delta, out.reasoning = text, thought
            text += thought
        out.progress = out.progress or bool(text)
    return out


_INPUTS = ("partial_json", "input", "json", "arguments", "text", "delta", "content", "value")


def _stop(event: Event) -> StreamChunk:
    """Translate the end of a block; one with the whole block in it may have a call's input."""
    out = StreamChunk(part=event.index, block=Block(stop=True))
    block = event.content_block
    if block and block.get("type") in CALLS and _input(block):
        out.tool_calls = (ToolCallDelta(event.index, arguments=_input(block)),)
    return out


def _input(block: dict[str, Any]) -> str:
    """Return the input in a call's block, ``""`` if it has none, as in the reference.

    Relays send it whole, some as text, and some under the names of other wires.
    """
    given = next((block[key] for key in ("input", "arguments", "parameters") if block.get(key)), "")
    return given if isinstance(given, str) else msgspec.json.encode(given).decode()


CALLS = ("tool_use", "tool_call", "function", "function_call")
"""Types of the blocks of calls; but for the first, those of relays."""


def _start(index: int | None, block: dict[str, Any] | None) -> StreamChunk:
    """Translate the opening of a block; the content that it has from the start counts as a delta."""
    if block is None or not isinstance(block.get("type"), str):  # its deltas say what it is
        return StreamChunk(part=index, progress=False, unread=("content_block",))
    kind = block["type"]
    left_out: list[str] = []
    if kind in CALLS and kind != "tool_use" and isinstance(block.get("name"), str):
        kind, block = "tool_use", {**block, "type": "tool_use"}
    elif kind == "output_text":
        kind, block = "text", {**block, "type": "text"}
    out = StreamChunk(part=index, block=Block(start=block))
    # An empty block is not progress: minutes of hidden thinking may follow.
    if kind == "text":
        said = block.get("text")
        out.delta = said if isinstance(said, str) else texts_of(block)[0]
        if not out.delta and said not in (None, "", [], {}):
            raise ProtocolError("text of a text block is not text")
        if (citations := block.get("citations")) is not None:
            out.annotations = tuple(side_objects(citations, "citations", left_out))
        out.progress = bool(out.delta or out.annotations)
    elif kind == "thinking":
        signature = side_text(block.get("signature"), "signature", left_out)
        if signature:
            block["signature"] = signature
        said = block.get("thinking")
        thought = text_within(said) if isinstance(said, list | dict) else None
        out.reasoning = thought or side_text(said, "thinking", left_out) or ""
        out.progress = bool(out.reasoning or signature)
    elif kind == "tool_use":
        arguments = _input(block)
        extra = {k: block[k] for k in CALL_FIELDS if block.get(k) is not None}
        name, ident = _string(block, "name"), side_text(block.get("id"), "id", left_out)
        out.tool_calls = (
            ToolCallDelta(index, ident or None, name or None, arguments, extra=extra or None),
        )
    out.unread = tuple(left_out)
    return out


def _string(block: dict[str, Any], key: str) -> str:
    return text(block.get(key), f"{key} of a {block.get('type')} block", []) or ""


def _message(message: Message) -> StreamChunk | list[StreamChunk]:
    """Translate ``message_start``, which has content only if the server had the whole answer."""
    head = StreamChunk(id=message.id, model=message.model, progress=False)
    head.usage = told(message.usage)
    if not message.content and message.stop_reason is None:
        return head
    out = [head]
    for index, block in enumerate(message.content or ()):
        out.append(_start(index, block))
        out.append(StreamChunk(part=index, block=Block(stop=True)))
    reason = _stop_reason(message.stop_reason)
    if reason:
        # The same usage again: together with the finish reason, it is final.
        last = StreamChunk(finish_reason=reason)
        last.usage = told(message.usage)
        last.metadata = _stop_facts(message)
        out.append(last)
    return out


def _message_delta(event: Event) -> StreamChunk:
    out, delta = StreamChunk(), event.delta or _NO_DELTA
    if delta.error and is_error(delta.error):
        raise ProviderError(error_from(None, {"error": delta.error}))
    out.finish_reason = _reason_in(event)
    out.metadata = _stop_facts(delta)
    if event.context_management:
        out.metadata = {**(out.metadata or {}), "context_management": event.context_management}
    out.usage = told(event.usage) or told(delta.usage)
    return out


_NO_DELTA = Delta()


def _reason_in(event: Event) -> str | None:
    """Return the reason why the answer ended, from where the reference or relays put it.

    Raises `ProviderError` if it names a failure.
    """
    delta, message = event.delta or _NO_DELTA, event.message
    usual = delta.stop_reason
    if type(usual) is str and usual in USUAL_REASONS:
        return usual
    inner = message.stop_reason if isinstance(message, Message) else None
    for given in (delta.stop_reason, event.stop_reason, inner, delta.finish_reason):
        if given is not None and (reason := _stop_reason(given)):
            return reason
    return None


def _stop_reason(value: Any) -> str | None:
    """Return the reason why the answer ended. Raises `ProviderError` if it names a failure."""
    reason = reason_of(value, "stop_reason")
    info = None if reason is None else failure_of(reason, value)
    if info is not None:
        raise ProviderError(info)
    return reason


def _stop_facts(source: Delta | Message) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    if source.stop_sequence is not None:
        found["stop_sequence"] = source.stop_sequence
    if source.stop_details is not None:
        found["stop_details"] = source.stop_details
    if source.container is not None:
        found["container"] = source.container
    return found or None
