"""Error bodies of every provider, of refusals and in streams, read in all shapes that are known.

This file finds what a body says: its words, codes, limits and waits, at any depth; `_error_kinds`
has the table of what they mean. What is shown never includes what a server echoes of the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .._types.chunks import StreamChunk
from .._types.errors import EXCERPT_CHARS, RETRYABLE, ErrorInfo, ErrorKind, ProviderError
from ._coerce import clean, loose_json
from ._error_codes import GENERIC, plain_code, status_of
from ._error_kinds import AGAIN, FAULTS, Evidence, kind_of
from ._error_parts import (
    Levels,
    availability,
    code_of,
    codes_of,
    exceptions_in,
    first_of,
    implied_status,
    levels_of,
    limits_of,
    main_of,
    numbers_in,
    object_in,
    time_left,
    told_by,
    type_of,
    wait_of,
    worded_status,
)
from ._error_words import (
    CODES,
    FEW,
    MAX_UNPACKED,
    NESTED,
    NOTHING_SAID,
    READ_CHARS,
    SAID,
    TYPES,
    excerpt,
    field_of,
    text_of_page,
    wait_in,
    without_request,
    words_of,
)

# -- from bytes -----------------------------------------------------------------------------------


def error_info(
    status: int | None, body: bytes, headers: Mapping[str, str] | None = None
) -> ErrorInfo:
    """Classify an error body in any of the shapes that servers use.

    ``status`` is the HTTP status, or ``None`` for an error in a stream. ``headers`` are those of
    the response, with names in lower case. Never raises: the text of an HTML page becomes the
    message, as does a body that is neither JSON nor an event with JSON in it.
    """
    body = body.removeprefix(_BOM)
    found = _decoded(body)
    if found is None:
        found = next(
            (f for f in map(_decoded, re.findall(_EVENT_DATA, body[:MAX_UNPACKED])) if f), None
        )
    if found is None and body.strip() != b"null":
        text = body[: 16 * EXCERPT_CHARS].decode("utf-8", "replace").strip()
        bare = without_request(text[: 4 * EXCERPT_CHARS])
        found = text_of_page(text) if text[:1] == "<" else bare
    return error_from(status, found, headers)


_BOM = b"\xef\xbb\xbf"
_EVENT_DATA = rb"(?m)^(?:data: ?)?(\{.*)$"
"""Data of events: DashScope and others refuse a streaming request in the form of a stream, and relays
report a failure behind half an event."""


def _decoded(body: bytes) -> Any:
    """Return what JSON says, also what only `loose_json` takes, or None if it is none."""
    for decode in (msgspec.json.decode, loose_json):
        with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
            return clean(decode(body))
    return None


# -- from decoded JSON ------------------------------------------------------------------------------


def error_from(
    status: int | None, found: Any, headers: Mapping[str, str] | None = None
) -> ErrorInfo:
    """Classify an error in decoded JSON: an object, its ``error``, a list of these, or plain text.

    ``status`` and ``headers`` are as for `error_info`.
    """
    found = _unwrapped(first_of(found))
    levels = list(levels_of(found))
    own = [level for level, beside in levels if not beside]
    words = words_of(levels) or _unsaid(found)
    code, kind_word = code_of(own), type_of(own)
    headers = headers or {}
    named = headers.get("x-amzn-errortype", "").partition(":")[0][:100]  # Amazon's gateways
    codes = [*codes_of(levels), plain_code(named)]
    if status is None or status < 300:
        status = implied_status(levels, codes, words)
    wait = wait_of(levels)
    told = headers.get("retry-after", "").strip()
    if wait is None and told.isdecimal() and len(told) < 10:
        wait = float(told)
    kind = kind_of(
        Evidence(
            status=_inner_status(levels, codes, words) if status == 500 else status,
            codes=" ".join(codes),
            words=_without_quotes(words[:READ_CHARS], status).lower(),
            limits=limits_of(levels),
            wait=wait if wait is not None else wait_in(words),
            told=told_by(headers),
        )
    )
    main = main_of(found)
    metadata, details = object_in(main, "metadata"), object_in(main, "details")
    if kind == "auth" and (metadata.get("reasons") or metadata.get("patterns")):
        kind = "invalid"  # OpenRouter: 403 because of the content, not because of the key
    advice, after = availability(main)
    wait = after if after is not None else wait
    if wait is None:
        wait = time_left(levels, headers.get("date", ""))
    if kind == "invalid":
        words += field_of(own, words)
    return ErrorInfo(
        message=clean(words[:EXCERPT_CHARS]),
        kind=kind,
        status=status,
        code=clean(code),
        type=clean(kind_word or named or None),
        metadata=clean(metadata or details or None),
        should_retry=advice,
        retry_after=_wait_told(kind, wait, words),
    )


def _unwrapped(found: Any) -> Any:
    """Return an error that is an event in JSON, ``{"event": "error", "data": …}``, with its data as its
    ``error``.
    """
    if not isinstance(found, Mapping) or any(found.get(key) for key in ("error", *SAID)):
        return found
    named = any(str(found.get(key)).lower() in _FAILED for key in ("event", "type"))
    return {**found, "error": found["data"]} if named and found.get("data") else found


def _wait_told(kind: ErrorKind, wait: float | None, words: str) -> float | None:
    """Return the seconds to wait; of a quota if a field names them, as words may mean anything."""
    if kind == "quota" or (kind in RETRYABLE and wait is not None):
        return wait
    return wait_in(words) if kind in RETRYABLE else None


def _inner_status(levels: Levels, codes: Sequence[str], words: str) -> int:
    """Return the status that the body of an HTTP 500 tells, if that is of a request, or else 500.

    Gateways send their own failure, with their upstream's in it (litellm). One of a key or a rate is
    the upstream's in any case, and so is any other in a field unless the words ask to come back
    later: doubt means another attempt. Other statuses in words, and codes, are not where something
    speaks of a failure that passes.
    """
    told = next((n for n in numbers_in(levels) if n != 500), None) or worded_status(words)
    lower = words.lower()
    if told is None and set(codes) - GENERIC and re.search(AGAIN, lower) is None:
        told = status_of(codes)
    elif told in (400, 404, 422) and re.search(_LATER, lower):
        return 500
    if told is None or not 400 <= told < 500 or told == 499:
        return 500
    sure = told in (401, 402, 403, 429) or next(numbers_in(levels), 500) != 500
    at_fault = re.search(FAULTS, lower) is not None or any(map(_is_servers, codes))
    return 500 if at_fault and not sure else told


def _is_servers(code: str) -> bool:
    return (status_of((code,)) or 0) >= 500


_LATER = r"\b(?:try again|retry)(?: \w+){0,3} (?:later|(?:in|after) (?:\d|an?\b|some\b|few\b))|\bwait a\b"


def _without_quotes(words: str, status: int | None) -> str:
    """Return what a complaint about a request says, without the parts of the request that it quotes.

    A gateway quotes its upstream's error: as JSON, or as all that it says.
    """
    if status not in (400, 404, 422) or "{" in words:
        return words
    left = re.sub(_QUOTED, "''", words)
    return left if re.search(r"\w", left) else words


_QUOTED = r"(?<!\w)(['\"`])(?:(?!\1)[^\n]){1,200}\1(?!\w)"


def complaint_in(found: Any) -> ErrorInfo | None:
    """Return the failure that decoded JSON of unknown shape reports, or ``None`` if it reports
    none.

    This is for an event or a body that is no part of an answer, in any wire format. A message alone
    counts (``{"message": …}``), unless something next to it says that all is well or under way, or
    usage or a list of choices shows that it belongs to an answer.
    """
    found = first_of(found)
    if not isinstance(found, Mapping):
        return None
    return error_from(None, found) if _fails(found) or _complains(found) else None


def failure_beside(data: bytes) -> ErrorInfo | None:
    """Return the failure that an event or a body reports beside an answer, or ``None``.

    Only short fields that are made for failures count here, not words. Raises nothing.
    """
    found: dict[str, Any] = {}
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        fields = _fields(data)
        if fields.keys() <= _USUAL and bytes(fields.get("object", b"")) in _CHUNKS:
            return None
        kind = bytes(fields.get("object", b"")).lower()
        if kind != b'"error"' and not _may_fail(fields):
            return None
        for key, value in fields.items():
            if key not in _ANSWER and len(bytes(value)) < READ_CHARS:
                found[key] = msgspec.json.decode(value)
    return error_from(None, found) if _fails(found) else None


_USUAL = frozenset(
    {
        *("id", "object", "created", "model", "choices", "usage"),
        *("service_tier", "system_fingerprint", "obfuscation", "provider"),
    }
)
"""Fields of an ordinary event of chat completions, which say nothing of a failure."""
_CHUNKS = (b'"chat.completion.chunk"', b"")
_ANSWER = frozenset(("choices", "content", "delta", "usage"))
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_error(value: Any) -> bool:
    """Return whether the value of a field ``error`` says that something failed.

    An object does not if each of its fields is empty or says that all is well; nor does a list of
    such objects.
    """
    if isinstance(value, list):
        return any(map(is_error, value[:FEW]))
    if isinstance(value, Mapping):
        if value.get("code") is not None and not _tells(value["code"]):
            words = (value.get(key) for key in ("message", "msg", "detail"))
            return any(map(_tells, words))
        return any(map(is_error, value.values()))
    return _tells(value)


_FAILURE_FIELDS = (
    *("errors", "Error", "error_type", "errorType", "error_message", "errorMessage", "error_msg"),
    *("errmsg", "err_msg", "error_code", "errorCode", "errcode", "err_code", "err", "fault"),
    *("exception", "ErrorMsg", "errorMsg"),
)
_FAILED = frozenset(("error", "failed", "failure", "fail", "errored", "exception"))
_FAILED_OBJECTS = ("error", "Error")
_FINE = frozenset(
    {
        *("", "0", "00", "0000", "200", "ok", "success", "successful", "succeeded", "none", "null"),
        *("成功", "请求成功", "操作成功"),
        *("no error", "noerror", "no errors", "no_error", "normal", "completed", "false", "nil"),
    }
)
_FAULT = "(?i)error|exception|fault"
"""Parts of the names of Amazon's exceptions, in the field ``__type``."""
_WARNING = r"(?:\W|an? )*(?:deprecation )?warn(?:ing)?s?\b"
"""The beginning of a text that is no error, though it stands where one would."""
_UNDER_WAY = frozenset(
    (
        "ok", "success", "succeeded", "queued", "pending", "processing", "in_progress", "running",
        "waiting", "loading", "starting", "alive", "heartbeat", "ping", "keepalive", "keep-alive",
        "pong", "status", "info", "progress", "queueing", "queuing", "loading_model", "notice",
        "thinking", "searching", "notification", "log", "debug", "warning", "warn", "comment", "start",
        "end", "done", "keep_alive",
    )
)  # fmt: skip


def _may_fail(found: Mapping[str, Any]) -> bool:
    """Return whether an object has a field that could say that something failed."""
    return not _SPEAKING.isdisjoint(found) or bool(exceptions_in(found))


_WRAPPINGS = ("response", "Response", "result", "data", "body", "provider", "ResponseMetadata")
"""Fields in which gateways put all that their upstream has sent."""
_STATES = ("object", "type", "event", "status", "state", "result")
_SPEAKING = frozenset(
    {
        *("error", "base_resp", "code", "header", "success", "ok", "status_code", "statusCode"),
        *("type", "event", "status", "state", "__type"),
        *_WRAPPINGS,
        *_FAILURE_FIELDS,
    }
)
"""Fields that `_fails` looks into, but for ``object``, which almost every event has."""


def _fails(found: Mapping[str, Any]) -> bool:
    """Return whether an object says by a field that is made for it that something failed."""
    if found.get("object") in _FAILED_OBJECTS:
        return True
    if not _may_fail(found):
        return False
    error, base = found.get("error"), object_in(found, "base_resp")
    code = next((c for c in (found.get("code"), _code_in_header(found)) if c is not None), None)
    states = (found.get(key) for key in _STATES)
    numbers = (found.get(key) for key in ("code", "status", "status_code", "statusCode"))
    inner = (object_in(found, key) for key in _WRAPPINGS)
    return (
        is_error(error)
        or _tells(base.get("status_code"))
        or any(is_error(found.get(key)) for key in _FAILURE_FIELDS)
        or ("__type" in found and re.search(_FAULT, str(found["__type"])) is not None)
        or (_is_failing(code) and any(map(_tells, _words_of(found))))
        or any(isinstance(state, str) and state.lower() in _FAILED for state in states)
        or any(re.fullmatch("[45][0-9]{2}", str(n)) for n in numbers if type(n) in (int, str))
        or any(found.get(key) in (False, "false", "False") for key in ("success", "ok"))
        or any(is_error(one.get("error") or one.get("Error")) for one in inner)
        or bool(exceptions_in(found))
    )


def _tells(value: Any) -> bool:
    """Return whether a field that is made for errors says that there is one."""
    word = str(value).strip().lower() if type(value) in (str, int) else None
    fine = word is not None and (word in _FINE or re.match(_WARNING, word) is not None)
    return bool(value) and not fine


def _is_failing(code: Any) -> bool:
    """Return whether a code beside words is that of a failure: neither of success nor of HTTP's 2xx."""
    if type(code) not in (str, int) or not _tells(code):
        return False
    return re.fullmatch("[12][0-9]{2}|[A-Za-z]*[Ss]uccess[A-Za-z]*", str(code)) is None


def _code_in_header(found: Mapping[str, Any]) -> Any:
    """Return iFlytek's code."""
    return object_in(found, "header").get("code")


def _words_of(found: Mapping[str, Any]) -> list[Any]:
    inner = object_in(found, "header")
    return [level.get(key) for level in (found, inner) for key in ("message", "msg", "detail")]


def failure_in(found: Mapping[str, Any]) -> ErrorInfo | None:
    """Return the failure that an object reports by a field that is made for it, or ``None``."""
    return error_from(None, found) if _fails(found) else None


def _complains(found: Mapping[str, Any]) -> bool:
    """Return whether an object has an error's words, and nothing beside them says otherwise."""
    code = found.get("code")
    fine = type(code) in (str, int) and not _is_failing(code)
    if fine or found.get("progress") is not None:
        return False
    if any(found.get(key) for key in ("usage", "success", "ok")):
        return False
    states = [found.get(key) for key in ("status", "state", "type", "event", "object", "level")]
    said = [word.strip().lower() for word in _words_of(found) if isinstance(word, str)]
    under_way = any(isinstance(s, str) and is_under_way(s) for s in states)
    under_way = under_way or not _UNDER_WAY.isdisjoint(said)
    if under_way or found.get("choices") is not None:
        return False
    return _has_words(found)


def is_under_way(state: str) -> bool:
    """Return whether a state, or an event's name, says that all is well, or that something goes on."""
    word = state.lower()
    going_on = re.search(_GOING_ON, word) is not None and re.search(_NOT_WELL, word) is None
    return word in _UNDER_WAY or going_on


_TOOLS = (
    *("tool", "tool_name", "toolName", "tool_call_id", "toolCallId", "tool_use_id"),
    *("toolUseId", "toolId"),
)
_ANSWERS = ("choices", "candidates")


def is_of_tool(event: str, data: bytes) -> bool:
    """Return whether an event which reports a failure names a tool that has failed.

    Agents behind an API report what their tools do in events of their own, under a name (Hermes:
    ``hermes.tool.progress``, nanobot) or without. The answer goes on after a tool's failure.
    """
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        found = loose_json(data)
        if isinstance(found, Mapping) and not _is_of_answer(event.lower(), found):
            named = (*_TOOLS, "name", "call_id") if "tool" in event.lower() else _TOOLS
            return any(map(found.get, named)) and not any(map(found.get, _ANSWERS))
    return False


def _is_of_answer(event: str, found: Mapping[str, Any]) -> bool:
    """Return whether a failure has the form of a wire's own, whatever stands beside it."""
    kind = found.get("type")
    if "error" in (event, kind) or str(kind).startswith("response."):
        return True
    return "tool" not in event and isinstance(found.get("error"), Mapping)


_NOT_WELL = (
    "error|exception|fail|fault|overload|unavailable|invalid|denied|exceed|limit|reject|refus"
    "|time_?out|abort|cancel|busy|lost|dead"
)
"""Parts of words that do not say so, whatever else is in them: ``overloaded``, ``tool_failed``."""
_GOING_ON = "progress|status|think|thought|search|queue|wait|load|ping|alive|heart|tool"


def name_answer(failure: ProviderError, ident: Any, model: Any) -> None:
    """Put an answer's id, and the model that gave it, into what the event of its failure says.

    With its id the provider can be asked what the failed answer cost.
    """
    ident, model = (v if isinstance(v, str) and v else None for v in (ident, model))
    if ident is None and model is None:
        return
    if not failure.content:
        failure.content = (StreamChunk(progress=False),)
    failure.content[0].id, failure.content[0].model = ident, model


def _has_words(found: Mapping[str, Any]) -> bool:
    values = (found.get(key) for key in ("message", "Message", "detail", "msg"))
    return any(
        _fails(v) or _has_words(v)
        if isinstance(v, Mapping)
        else isinstance(v, str | list) and _tells(v)
        for v in values
    )


_NAMES = frozenset((*CODES, *TYPES, *SAID, *NESTED, "object", "param", "status", "request_id"))


def _unsaid(found: Any) -> str:
    """Return what to show of an error without words: its code, if it has nothing else, or a part."""
    main = main_of(found)
    word = type_of([main]) or code_of([main])
    others = {k for k, v in main.items() if v not in (None, "", [], {})} - _NAMES
    return word if word and not others else excerpt(found) or NOTHING_SAID


def in_short(value: Any) -> str:
    """Return a JSON value as text; only the first entries of a list, since little is shown."""
    return str(value[:FEW] if isinstance(value, list) else value)
