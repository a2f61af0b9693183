"""OpenAI Responses, whose answers are lists of typed items: messages, reasoning, calls, hosted tools.

Events are ``data: {event}``, each with a ``type`` that is the name of the event, too. An answer opens
with ``response.created``, has an ``output_item.added``, deltas and an ``output_item.done`` for each item,
and ends with ``response.completed``, ``.incomplete``, ``.failed`` or ``error``. There is no ``[DONE]``,
but proxies add it. Whatever is content comes several times; `Items` sees to it that it counts once.
Items of hosted tools are kept as they came, unknown events only show that the stream is alive.

The stream of a background response can be taken up again behind a ``sequence_number``
(`_responses_background`): what reads it, `parse_chunk` and `Items`, needs no second opening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from .._types.chunks import StreamChunk, ToolCallDelta
from .._types.cost import CostInfo, TokenPrice
from .._types.errors import ErrorInfo, ProtocolError, ProviderError
from .._types.usage import Usage
from ._base import (
    MODELS,
    Beside,
    Continuation,
    Model,
    Parsed,
    Provider,
    RepeatFilter,
    Request,
    host_of,
    is_token,
    joined_url,
    url_beside,
)
from ._coerce import clean, loose_json, side_objects, side_text
from ._errors import complaint_in, error_from, failure_beside, is_error, name_answer
from ._parts import bounded, text_within
from ._pricing import stated_or_priced
from ._reasons import failure_of, plain_reason, reason_of
from ._responses_background import BackgroundResponse
from ._responses_events import (
    Event,
    Response,
    decode,
    decode_loosely,
    head_in,
    number_alone,
    response_in,
)
from ._responses_items import (
    CALL,
    MESSAGE,
    REASONING,
    SECTIONS,
    SUMMARIES,
    ItemChunk,
    Items,
    call_in,
    kind_of,
)
from ._responses_request import (
    RESPONSES,
    TYPED_FIELDS,
    included,
    is_openai,
    responses_body,
)
from ._usage import openai_usage

DONE: Final = b"[DONE]"
_LAST: Final = ("completed", "incomplete", "failed", "cancelled", "done")
"""The last words of the types of events that end an answer; the last one is a gateway's."""
_RUNNING: Final = ("created", "queued", "in_progress")
_NO_RESPONSE: Final = (b"", b"null")
_KEEP_ALIVES: Final = ("keepalive", "keep-alive", "ping", "heartbeat")


class OpenAIResponses(Provider):
    """The provider for OpenAI's Responses, and for servers that imitate it."""

    name = "openai-responses"
    replay_wire = "openai-responses"
    literal_text = True
    any_text = True
    always_usage = True
    beside_text: ClassVar[Beside | None] = Beside("sequence_number", number_alone)
    repeat_filter: ClassVar[type[RepeatFilter] | None] = Items

    def endpoint_url(self, model: Model) -> str:
        """Return the URL; a query in the base URL (Azure's ``api-version``) stays at its end."""
        return joined_url(model.base_url, RESPONSES, instead_of="/chat/completions")

    def models_url(self, model: Model, after: str | None = None) -> str:
        """Return the URL of the list, which has one page."""
        return url_beside(self.endpoint_url(model), RESPONSES, MODELS)

    def wire_at(self, model: Model) -> str:
        """Return ``openai-responses`` at OpenAI's own address, and the same with the host
        elsewhere.

        Only the server that encrypted reasoning can decrypt it, and ids belong to one server's
        items.
        """
        host = host_of(model.base_url)
        return self.replay_wire if host == "api.openai.com" else f"{self.replay_wire}@{host}"

    def auth_headers(self, model: Model) -> dict[str, str]:
        if not model.api_key:
            return {}
        if host_of(model.base_url).endswith(".azure.com") and not is_token(model.api_key):
            return {"api-key": model.api_key}
        return {"authorization": f"Bearer {model.api_key}"}

    @property
    def typed_fields(self) -> frozenset[str]:
        return TYPED_FIELDS

    def build_request(self, request: Request) -> dict[str, Any]:
        return responses_body(request)

    def continuation(self, request: Request) -> Continuation | None:
        """Return a way to resume a response in the background."""
        params = request.params
        if not params.get("background"):
            return None
        return BackgroundResponse(
            self.endpoint_url(request.model),
            include=included(params, own=is_openai(request.model.base_url)),
            obfuscated=params.get("include_obfuscation"),
        )

    def counts_all_choices(self, model: Model) -> bool:
        """Return True, because an answer has only one choice."""
        return True

    # -- events ----------------------------------------------------------------------------

    def parse_chunk(self, data: bytes) -> Parsed:
        return self._parse(data, "")

    def parse_event(self, event: str, data: bytes) -> Parsed:
        if event.startswith("response."):  # one that speaks of a failure may mean a tool's
            return self._parse(data, event)
        if event in _KEEP_ALIVES:
            return None
        return super().parse_event(event, data)

    def _parse(self, data: bytes, name: str) -> Parsed:
        """Translate an event; ``name`` is its SSE name, for one that has no type in its data."""
        left_out: list[str] = []
        try:
            event = decode(data)
        except (msgspec.DecodeError, UnicodeError) as exc:
            if data.strip() == DONE:
                return StreamChunk(end=True, sentinel=True, progress=False)
            event = decode_loosely(data, left_out, exc)
        event.type = event.type or name
        parsed = self._parsed(event, data, event.type)
        if left_out and parsed is not None:
            last = parsed if isinstance(parsed, StreamChunk) else parsed[-1]
            last.unread += tuple(left_out)
        return parsed

    def _parsed(self, event: Event, data: bytes, kind: str) -> Parsed:
        reader = _READERS.get(kind)
        if reader is not None and not event.error:
            return reader(event)
        if kind == "error" or (event.error and "_call" not in kind and is_error(event.error)):
            raise ProviderError(error_from(None, loose_json(data)))
        if reader is not None:
            return reader(event)
        family, _, word = kind.rpartition(".")
        if family == "response" and word in _LAST:
            return self._last(event, word)
        if family == "response" and word in _RUNNING and event.response:
            return _running(event)
        if not kind and event.response:
            status = head_in(event.response).status
            return self._last(event, status) if status in _LAST else _running(event)
        if event.object == "response" and event.output:
            return self._ended(response_in(data), "")
        if kind in _KEEP_ALIVES:
            return None
        if kind.startswith("response.") and word != "error":
            return StreamChunk()  # a step of a hosted tool, or one that is not known
        if (told := complaint_in(loose_json(data))) is not None:
            raise ProviderError(told, vague=failure_beside(data) is None)
        odd = not kind and any((event.delta, event.text, event.item, event.part, event.annotation))
        unread = ("an event without a type",) if odd else ()
        return StreamChunk(answer=False, progress=bool(kind), unread=unread)

    # -- whole answers -----------------------------------------------------------------------

    def parse_response(self, body: bytes) -> Sequence[StreamChunk]:
        found = response_in(body)
        if not isinstance(found.output, list) and found.object != "response":
            raise ProviderError(self.parse_error(None, body))
        chunks = self._ended(found, "")
        return Items().removed_from(chunks, body, clean)

    def _last(self, event: Event, word: str) -> list[StreamChunk]:
        # Relays leave it out: the type says how it ended.
        absent = bytes(event.response) in _NO_RESPONSE
        response = Response() if absent else response_in(event.response)
        return self._ended(response, "" if word == "done" else word)

    def _ended(self, response: Response, word: str) -> list[StreamChunk]:
        """Translate the response at the end of an answer; ``word`` is what its event says of it.

        Raises `ProviderError` if it failed. A failed answer has used tokens, too.
        """
        usage = _usage_of(response)
        status = reason_of(response.status, "response.status") or word or None
        info = _failure(response, status) or (failure_of(word) if word else None)
        if info is not None:
            failure = ProviderError(info)
            failure.usage = usage
            name_answer(failure, response.id, response.model)
            raise failure
        left_out: list[str] = []
        out: list[StreamChunk] = list(_listed(response.output))
        metadata: dict[str, Any] = {}
        details = response.incomplete_details
        if isinstance(details, Mapping) and details:
            metadata["incomplete_details"] = dict(details)
        if response.service_tier:  # in doubt, if it is no word
            metadata["service_tier"] = response.service_tier
        last = StreamChunk(end=True, usage=usage, metadata=metadata or None)
        last.id = side_text(response.id, "response.id", left_out) or None
        last.model = side_text(response.model, "response.model", left_out) or None
        last.finish_reason = None if status in _RUNNING else status
        last.progress = last.finish_reason is not None or usage is not None
        last.end = last.finish_reason is not None
        last.unread = tuple(left_out)
        return [*out, last]

    def cost_of(self, usage: Usage | None, price: TokenPrice | None) -> CostInfo:
        """Return the provider's own figure (OpenRouter, xAI), or usage times price."""
        return stated_or_priced(usage, price)


def _running(event: Event) -> StreamChunk:
    """Translate an event that says that the answer is under way."""
    head = head_in(event.response)
    left_out: list[str] = []
    if head.error and is_error(head.error):
        failure = ProviderError(error_from(None, {"error": head.error}))
        name_answer(failure, head.id, head.model)
        raise failure
    out = StreamChunk(progress=False)
    out.id = side_text(head.id, "response.id", left_out) or None
    out.model = side_text(head.model, "response.model", left_out) or None
    out.unread = tuple(left_out)
    return out


def _failure(response: Response, status: str | None) -> ErrorInfo | None:
    """Return the failure that a response at the end reports, if it does."""
    if response.error and is_error(response.error):
        return error_from(None, {"error": response.error})
    details = response.incomplete_details
    reason = details.get("reason") if isinstance(details, Mapping) else None
    if isinstance(reason, str) and reason and (told := failure_of(reason)) is not None:
        return told
    return None if status is None or plain_reason(status) == "completed" else failure_of(status)


def _usage_of(response: Response) -> Usage | None:
    """Return the usage of an answer, with what its hosted tools are charged for."""
    usage = openai_usage(response.usage) if response.usage else None
    if usage is None or usage.empty:
        return None
    output = response.output if isinstance(response.output, list) else []
    ran = [item for item in output if isinstance(item, Mapping)]
    searches = sum(map(_is_search, ran))
    if searches and usage.web_searches is None:
        usage.web_searches = searches
    apart = next((i["type"] for i in ran if i.get("type") in _CHARGED_APART), None)
    if apart is not None and usage.cost is None:
        usage.doubts = {**(usage.doubts or {}), "web_searches": f"no rate covers {apart}"}
    return usage


def _is_search(item: Mapping[str, Any]) -> bool:
    """Return whether an item is a web search: opening a page, or looking in it, is none."""
    action = item.get("action")
    kind = action.get("type") if isinstance(action, Mapping) else None
    return item.get("type") == "web_search_call" and kind in (None, "search")


_CHARGED_APART: Final = ("code_interpreter_call", "file_search_call", "image_generation_call")
"""Items of tools that OpenAI's price list charges by the session, the call or the picture."""


# -- deltas ----------------------------------------------------------------------------------


def _place(event: Event, section: int) -> int | None:
    index = event.output_index
    return None if index is None else index * SECTIONS + section


def _content(event: Event) -> int:
    return min(max(event.content_index or 0, 0), SUMMARIES - 1)


def _summary(event: Event) -> int:
    return SUMMARIES + min(max(event.summary_index or 0, 0), SUMMARIES - 1)


def _said(value: Any, where: str) -> str:
    """Return a piece of the answer's text. Raises `ProtocolError` if it can't be read."""
    if type(value) is str:
        return value
    found = "" if value in (None, [], {}) else text_within(value)
    if found is None:
        raise ProtocolError(f"{where} is not text")
    return str(clean(found))


def _text_delta(event: Event) -> StreamChunk:
    said, section = _said(event.delta, "delta"), _content(event)
    out = StreamChunk(said, progress=bool(said))
    if event.logprobs and isinstance(event.logprobs, list):
        out.logprobs = {"content": event.logprobs}
    return _piece(event, out, section, MESSAGE)


def _refusal_delta(event: Event) -> StreamChunk:
    said = _said(event.delta, "delta")
    return _piece(event, StreamChunk(refusal=said, progress=bool(said)), _content(event), MESSAGE)


def _thought_delta(event: Event) -> StreamChunk:
    return _thought(event, _content(event))


def _summary_delta(event: Event) -> StreamChunk:
    return _thought(event, _summary(event))


def _thought(event: Event, section: int) -> StreamChunk:
    said = event.delta if type(event.delta) is str else text_within(event.delta) or ""
    out = StreamChunk(reasoning=said, progress=bool(said))
    if not said and event.delta:
        out.unread = ("delta",)
    return _piece(event, out, section, REASONING)


def _call_delta(event: Event) -> StreamChunk:
    said, kind = _arguments(event.delta), "function"
    if event.type.startswith("response.custom"):
        kind = "custom"
    call = ToolCallDelta(event.output_index, arguments=said, type=kind)
    return _piece(event, StreamChunk(tool_calls=(call,), progress=bool(said)), 0, CALL)


def _piece(event: Event, out: StreamChunk, section: int, kind: str) -> StreamChunk:
    """Return a piece of content with the place that it belongs to."""
    if not out.progress:
        return StreamChunk(progress=False, unread=out.unread)
    out.part = _place(event, section)
    if out.part is not None:
        return out
    return ItemChunk(
        out.delta,
        out.reasoning,
        out.refusal,
        out.tool_calls,
        logprobs=out.logprobs,
        item_id=event.item_id,
        kind=kind,
        section=section,
    )


def _audio_delta(event: Event) -> StreamChunk:
    said = event.delta if isinstance(event.delta, str) else ""
    key = "transcript" if "transcript" in event.type else "data"
    return StreamChunk(audio={key: said} if said else None, progress=bool(said))


def _annotation(event: Event) -> Parsed:
    if not isinstance(event.annotation, dict):
        return StreamChunk(progress=False, unread=("annotation",))
    return ItemChunk(
        annotations=(clean(event.annotation),),
        index=event.output_index,
        item_id=event.item_id,
        section=_content(event),
    )


# -- what repeats them -------------------------------------------------------------------------


def _whole(event: Event, kind: str, section: int, **content: Any) -> ItemChunk:
    return ItemChunk(
        **content,
        index=event.output_index,
        item_id=event.item_id,
        kind=kind,
        section=section,
        repeats=True,
    )


def _text_done(event: Event) -> StreamChunk:
    part = {"type": "output_text", "text": event.text, "logprobs": event.logprobs}
    return _whole(event, MESSAGE, _content(event), **_part_content(part, "text"))


def _refusal_done(event: Event) -> StreamChunk:
    part = {"type": "refusal", "refusal": event.refusal}
    return _whole(event, MESSAGE, _content(event), **_part_content(part, "refusal"))


def _thought_done(event: Event) -> StreamChunk:
    return _whole(event, REASONING, _content(event), reasoning=text_within(event.text) or "")


def _summary_done(event: Event) -> StreamChunk:
    return _whole(event, REASONING, _summary(event), reasoning=text_within(event.text) or "")


def _call_done(event: Event) -> StreamChunk:
    custom = event.type.startswith("response.custom")
    given = event.input if custom else event.arguments
    kind = "custom" if custom else "function"
    call = ToolCallDelta(event.output_index, None, event.name, _arguments(given), kind)
    return _whole(event, CALL, 0, tool_calls=(call,) if call.arguments else ())


def _part_done(event: Event) -> Parsed:
    """Translate the end of a piece of content, or of a summary."""
    if event.part and not isinstance(event.part, dict):
        return StreamChunk(progress=False, unread=("part",))
    part = event.part or {}
    if event.summary_index is not None or part.get("type") == "summary_text":
        return _whole(event, REASONING, _summary(event), reasoning=text_within(part) or "")
    if part.get("type") == "reasoning_text":
        return _whole(event, REASONING, _content(event), reasoning=text_within(part) or "")
    return _whole(event, MESSAGE, _content(event), **_part_content(part, "part"))


def _part_added(event: Event) -> Parsed:
    """Translate the opening of a piece of content. What it has already counts if nothing follows."""
    chunk = _part_done(event)
    if not isinstance(chunk, ItemChunk) or not (chunk.delta or chunk.reasoning or chunk.refusal):
        return StreamChunk(progress=False)
    chunk.repeats, chunk.held = False, True
    return chunk


def _part_content(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the content of a part of a message, as fields of a chunk."""
    kind = part.get("type")
    left_out: list[str] = []
    found: dict[str, Any] = {}
    if kind == "refusal":
        given, name = part.get("refusal"), "refusal"
    elif kind in _TEXTS or (kind is None and "text" in part):
        given, name = part.get("text"), "delta"
    elif isinstance(kind, str) and "audio" in kind:
        audio = {k: part[k] for k in ("data", "transcript") if isinstance(part.get(k), str)}
        return {"audio": audio or None}
    else:  # a kind that is not known: its text counts if it has one
        given, name = part.get("text") if isinstance(part.get("text"), str) else None, "delta"
    text = "" if given in (None, [], {}) else text_within(given)
    if text is None:
        return {"unreadable": where}
    found[name] = str(clean(text))
    found["annotations"] = tuple(side_objects(part.get("annotations") or [], where, left_out))
    if isinstance(part.get("logprobs"), list) and part["logprobs"]:
        found["logprobs"] = {"content": clean(part["logprobs"])}
    found["unread"] = tuple(left_out)
    return found


_TEXTS: Final = ("output_text", "text", "input_text", "summary_text")


def _item_added(event: Event) -> Parsed:
    item = event.item
    if not isinstance(item, dict) or not kind_of(item):
        return StreamChunk(progress=False, unread=("item",))
    item = clean(item)
    kind, ident = kind_of(item), _ident(item)
    first = ItemChunk(opened=item, index=event.output_index, item_id=ident, kind=kind)
    held = list(_contents(item, event.output_index, MESSAGE))
    if kind == CALL:
        first.tool_calls = (_call(item, event.output_index, with_arguments=False),)
        held = [one for one in held if any(c.arguments for c in one.tool_calls)]
    for one in held:
        one.held, one.repeats = True, False
    return [first, *held]


def _item_done(event: Event) -> Parsed:
    item = event.item
    if not isinstance(item, dict) or not kind_of(item):
        return StreamChunk(progress=False, unread=("item",))
    return list(_end_of(clean(item), event.output_index, listed=False))


def _listed(output: Any) -> Iterator[ItemChunk]:
    """Yield the items at the end of an answer."""
    for place, item in enumerate(bounded(output) if isinstance(output, list) else ()):
        if isinstance(item, dict) and kind_of(item):
            yield from _end_of(clean(item), place, listed=True)


def _end_of(item: dict[str, Any], index: int | None, *, listed: bool) -> Iterator[ItemChunk]:
    """Yield what an item has in it, and then the item."""
    for one in _contents(item, index, MESSAGE):
        one.listed = listed
        yield one
    last = ItemChunk(ended=item, index=index, item_id=_ident(item), kind=kind_of(item))
    last.listed = listed
    if item.get("type") == "image_generation_call" and isinstance(item.get("result"), str):
        last.images, last.repeats = (item,), True
    yield last


def _contents(item: dict[str, Any], index: int | None, where: str) -> Iterator[ItemChunk]:
    """Yield the pieces of content of a whole item."""
    kind, ident = kind_of(item), _ident(item)

    def piece(section: int, content: dict[str, Any], of: int = 0) -> ItemChunk:
        place: dict[str, Any] = {"index": index, "section": section, "of": of}
        return ItemChunk(**content, **place, item_id=ident, kind=kind, repeats=True)

    if kind == MESSAGE:
        content = item.get("content")
        if not all(map(_is_part, content if isinstance(content, list) else [content or ""])):
            yield piece(0, {"unread": ("content",)})
        parts = _parts(content, "output_text")
        for number, part in enumerate(parts):
            yield piece(min(number, SUMMARIES - 1), _part_content(part, "content"), len(parts))
    elif kind == REASONING:
        texts = _parts(item.get("content"), "reasoning_text")
        said = [(n, text_within(part) or "") for n, part in enumerate(texts)]
        if not any(text for _, text in said):
            texts = _parts(item.get("summary"), "summary_text")
            said = [(SUMMARIES + n, text_within(part) or "") for n, part in enumerate(texts)]
        for section, text in said:
            if text:
                yield piece(min(section, SECTIONS - 1), {"reasoning": text}, len(texts))
    elif kind == CALL:
        yield piece(0, {"tool_calls": (_call(item, index, with_arguments=True),)})


def _parts(content: Any, kind: str) -> list[Mapping[str, Any]]:
    """Return the parts of an item; bare text in their place, or among them, is a part."""
    given = bounded(content) if isinstance(content, list) else [content] if content else []
    return [{"type": kind, "text": p} if isinstance(p, str) else p for p in given if _is_part(p)]


def _is_part(value: Any) -> bool:
    return isinstance(value, str | Mapping)


def _call(item: dict[str, Any], index: int | None, *, with_arguments: bool) -> ToolCallDelta:
    custom = item.get("type") == "custom_tool_call"
    given = item.get("input" if custom else "arguments") if with_arguments else None
    left_out: list[str] = []
    name = side_text(item.get("name"), "name", left_out) or ""
    ident = side_text(item.get("call_id"), "call_id", left_out) or _ident(item) or ""
    return call_in(item, index, name, ident, _arguments(given))


def _arguments(given: Any) -> str:
    """Return arguments as text; an object in their place is its JSON."""
    if type(given) is str:
        return given
    return "" if given is None else msgspec.json.encode(clean(given)).decode()


def _ident(item: Mapping[str, Any]) -> str | None:
    ident = item.get("id")
    return ident if isinstance(ident, str) and ident else None


_READERS: Final[dict[str, Callable[[Event], Parsed]]] = {
    "response.output_text.delta": _text_delta,
    "response.output_text.done": _text_done,
    "response.output_text.annotation.added": _annotation,
    "response.output_text_annotation.added": _annotation,
    "response.refusal.delta": _refusal_delta,
    "response.refusal.done": _refusal_done,
    **dict.fromkeys(("response.reasoning_text.delta", "response.reasoning.delta"), _thought_delta),
    **dict.fromkeys(("response.reasoning_text.done", "response.reasoning.done"), _thought_done),
    "response.reasoning_summary_text.delta": _summary_delta,
    "response.reasoning_summary_text.done": _summary_done,
    "response.reasoning_summary.delta": _summary_delta,
    "response.reasoning_summary.done": _summary_done,
    "response.function_call_arguments.delta": _call_delta,
    "response.function_call_arguments.done": _call_done,
    "response.custom_tool_call_input.delta": _call_delta,
    "response.custom_tool_call_input.done": _call_done,
    "response.audio.delta": _audio_delta,
    "response.audio.transcript.delta": _audio_delta,
    "response.output_audio.delta": _audio_delta,
    "response.output_audio_transcript.delta": _audio_delta,
    **dict.fromkeys(
        (
            *("response.content_part.added", "response.reasoning_part.added"),
            "response.reasoning_summary_part.added",
        ),
        _part_added,
    ),
    **dict.fromkeys(
        (
            *("response.content_part.done", "response.reasoning_part.done"),
            "response.reasoning_summary_part.done",
        ),
        _part_done,
    ),
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
}
"""Readers of the events that carry content, by type."""
