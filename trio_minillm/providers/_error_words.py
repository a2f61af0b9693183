"""Words of errors: sentences, the fields that they are about, pages, excerpts, and waits in prose.

Whatever is shown is bounded, and never includes what a server echoes of the request. Pure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import msgspec

from .._types.errors import EXCERPT_CHARS

FEW: Final = 64
"""Entries of a list in an error that are read: more than an excerpt of the message can show."""
MAX_SHOWN: Final = 512
"""JSON values of a body of unknown shape that are looked at for an excerpt."""
MAX_UNPACKED: Final = 64 * 1024
"""Characters of a text that is read as JSON: gateways wrap their upstream's answer so."""
READ_CHARS: Final = 2_000
"""Characters of the words in which phrases are looked for."""


NESTED = (
    *("error", "errors", "Error", "err", "errorInfo", "fault", "exception", "base_resp", "detail"),
    *("message", "Message", "msg", "error_message", "cause", "causes", "inner", "innererror"),
    "innerError",
    *(
        "ErrorMsg",
        "errorMsg",
        "inner_error",
        "details",
        "metadata",
        "raw",
        "param",
        "issues",
        "response",
        "Response",
    ),
    *("result", "header"),  # the last is iFlytek's
)
"""Fields that may hold an error of their own, as an object, a list, or JSON text."""
SAID = (
    *("message", "Message", "msg", "Msg", "error_message", "errorMessage", "error_msg", "errmsg"),
    *("ErrorMsg", "errorMsg"),
    *("err_msg", "status_msg", "statusMessage", "status_message", "detail", "details", "issues"),
    *("error_description", "description", "title", "faultstring", "reason", "raw"),
)
"""Fields that have the words of an error, those that say most first."""
_BESIDES = ("detail", "details", "error_description", "cause", "err", "exception", "errors", "hint")
"""Those that say something more."""
CODES = ("code", "Code", "error_code", "errorCode", "errcode", "err_code", "__type")
TYPES = ("type", "Type", "error_type", "errorType", "reason")
_ECHOES = frozenset(
    (
        *("input", "inputs", "prompt", "messages", "request", "body", "payload", "content", "text"),
        *("flagged_input", "ctx", "system", "tools", "data", "headers", "raw_input", "query"),
        *("parameters", "params", "arguments", "args", "value", "input_value", "user_message"),
        *("contents", "user_prompt", "question", "conversation", "history", "completion"),
    )
)
"""Fields in which servers send back what they were sent; their values are not shown."""


# -- what an error says -----------------------------------------------------------------


def words_of(levels: Sequence[tuple[Mapping[str, Any], bool]]) -> str:
    """Return what an error says, or nothing: its own words, and those of its causes in brackets."""
    said: list[str] = []
    for level, _ in levels:
        for words in () if "@type" in level else _sentences(level):
            if unpacked(words) is words and not any(words in other for other in said):
                said.append(words)
    return " ".join([*said[:1], *(f"({words})" for words in said[1:4])])


def _sentences(level: Mapping[str, Any]) -> Iterator[str]:
    """Yield what one object says: an ``error`` that is text, and the first of its other words."""
    error = level.get("error")
    texts = (v for v in map(level.get, SAID) if isinstance(v, str) and v.strip())
    others = (v for v in map(level.get, _BESIDES) if isinstance(v, str) and v.strip())
    own = [error] if isinstance(error, str) and error.strip() else []
    said = [without_request(words) for words in (*own, *islice(texts, 1), *others)]
    yield from said
    for key in ("detail", "errors", "details", "issues", "message"):
        value = level.get(key)
        if isinstance(value, Mapping) and key == "errors":  # ASP.NET: the fields, with their faults
            value = [{"loc": k, "msg": _listed(v)} for k, v in value.items() if type(v) is list]
        if isinstance(value, list) and (listed := _listed(value, said)):
            yield listed
            return


def _listed(items: list[Any], known: Sequence[str] = ()) -> str:
    """Return a list of faults as text, each behind the field that it is about.

    FastAPI has that in ``loc``, and echoes the field's value in ``input``, which is left out. So is
    what is ``known``: Google repeats the message of an error in its details.
    """
    said: list[str] = []
    for item in items[:FEW]:
        if isinstance(item, str):
            said.append(without_request(item[: 4 * EXCERPT_CHARS])[:EXCERPT_CHARS])
        elif isinstance(item, Mapping):
            words = next((w for w in (item.get(k) for k in SAID) if isinstance(w, str) and w), "")
            place = next((p for p in map(_place, map(item.get, _PLACES)) if p), "")
            words = without_request(words[: 4 * EXCERPT_CHARS])
            if any(words in one for one in known):
                words = ""
            if words or place:
                said.append(": ".join(filter(None, (place, words)))[:EXCERPT_CHARS])
    return "; ".join(said)


_PLACES = ("loc", "path", "field", "param", "property", "target", "location", "instancePath")


def _place(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ".".join(str(v)[:100] for v in value[:FEW] if isinstance(v, str | int))
    return value[:200] if isinstance(value, str) and value.lower() != "none" else ""


def field_of(levels: Sequence[Mapping[str, Any]], words: str) -> str:
    """Return the field that a request is refused for, in brackets, if the words don't name it."""
    named = next((p for p in (_place(level.get("param")) for level in levels) if p), "")
    return f" (field {named})" if named and named not in words else ""


def excerpt(found: Any) -> str:
    """Return the beginning of a body of unknown shape, without what it may echo."""
    if isinstance(found, str):
        return found.strip()
    shown = _without_echoes(found, [MAX_SHOWN])
    if shown in (None, {}, []):
        return ""
    try:
        return msgspec.json.encode(shown).decode()
    except (ValueError, OverflowError):  # half a surrogate pair
        return "unreadable: " + ascii(list(found))[:EXCERPT_CHARS]


NOTHING_SAID: Final = "no explanation"
"""The words of an error whose body is empty."""


def _without_echoes(value: Any, budget: list[int], depth: int = 6) -> Any:
    """Return a JSON value without nulls, with ``…`` for what may be the request, and bounded."""
    budget[0] -= 1
    if isinstance(value, str):
        return without_request(value[: 4 * EXCERPT_CHARS])[:EXCERPT_CHARS]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "…"
    if isinstance(value, list | Mapping) and (budget[0] <= 0 or not depth):
        return "…"
    if isinstance(value, list):
        return [_without_echoes(v, budget, depth - 1) for v in value[:FEW]]
    if isinstance(value, Mapping):
        few = [(k, v) for k, v in value.items() if v is not None][:FEW]
        return {
            k[:100]: "…" if k.lower() in _ECHOES else _without_echoes(v, budget, depth - 1)
            for k, v in few
        }
    return value


def unpacked(value: Any) -> Any:
    """Return what a text holds that is all JSON, or all a Python literal, or else the value itself.

    Gateways put the JSON of their upstream into text; vLLM and litellm what Python prints of it.
    """
    if (
        not isinstance(value, str)
        or len(value) > MAX_UNPACKED
        or value.lstrip()[:1] not in ("{", "[")
    ):
        return value
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):
        return msgspec.json.decode(value)
    if value.lstrip().startswith(("{'", "[{'")):
        with suppress(
            ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError
        ):
            return msgspec.json.decode(msgspec.json.encode(ast.literal_eval(value.strip())))
    return value


def without_request(words: str) -> str:
    """Return the words without what they quote of the request: messages as JSON or as Python prints
    them (litellm), and values (pydantic, and what imitates it).
    """
    words = re.sub(_MESSAGES, "…", words)
    words = re.sub(_VALUE, r"\1…", words)
    words = re.sub(_QUOTED_VALUES, r"\1\2\3…", words)
    if "input" not in words:
        return words
    words = re.sub(r"(?s)input_value=.*?(?=, input_type=|\Z)", "input_value=…", words)
    if "'loc':" in words or '"loc":' in words:  # a literal that was cut, or has words before it
        words = re.sub(r"(?s)(['\"]input['\"]: ).*", r"\1…", words)
    return words


_MESSAGES = (
    r"""(?s)[{,]\s*(\\*['"])(?:role|messages|contents?|prompt|inputs?|system|tools)\1\s*:\s*\\*['"\[{].*"""
    r"""|[{,]\s*(\\*['"])text\2\s*:\s*\2(?=.{0,9999}\2type\2\s*:\s*\2text\2).*"""
    r"""|\{\s*(\\*['"])type\3\s*:\s*\3text\3\s*,\s*\3text\3.*"""
    r"""|\brole=['"]\w{1,20}['"],? content=.*"""
)
"""A field of a request that holds what a user wrote, and all behind it."""
_VALUE = r"""(?s)(['"], value: )['"].*"""
"""``field: 'messages[8].reasoning', value: '…'``."""
_QUOTED_VALUES = (
    r"""(?s)(invalid (?:type|value): string )"(?:[^"\\]|\\.)*\"?"""  # serde
    r"""|(Invalid value at '[^'\n]{1,200}' \([^)\n]{0,200}\), )".*"""  # Google
    r"""|\b(The value )'.*(?=' is (?:not valid|invalid))"""  # ASP.NET
)
"""Values that a server's framework quotes."""


# -- a page ---------------------------------------------------------------------------


def text_of_page(page: str) -> str:
    """Return what a page of HTML or XML says: its title and the beginning of its text."""
    page = re.sub(_HIDDEN, " ", page[: 16 * EXCERPT_CHARS])
    found = re.search(_TITLE, page)
    title = _as_line(found[1]) if found else ""
    text = _as_line(page[: found.start()] + " " + page[found.end() :] if found else page)
    said = text if text.startswith(title) else ": ".join(filter(None, (title, text)))
    return without_request(said[:EXCERPT_CHARS]) or "a page without text"


_HIDDEN = (
    r"(?is)<(script|style|svg|noscript)\b.*?(?:</\1\s{0,9}>|\Z)|<!--.*?(?:-->|\Z)|<[!?][^>]{0,500}>"
)
_TITLE = r"(?is)<title\b[^>]{0,200}>(.*?)(?:</title\s{0,9}>|\Z)"


def _as_line(markup: str) -> str:
    from html import unescape  # its table of names is large, and pages are rare

    return " ".join(unescape(re.sub(r"<[^>]*(?:>|\Z)", " ", markup)).split())


# -- a wait ---------------------------------------------------------------------------

_UNITS = {
    **dict.fromkeys(("ms", "milli", "毫秒"), 0.001),
    **dict.fromkeys(("s", "秒"), 1.0),
    **dict.fromkeys(("m", "分"), 60.0),
    **dict.fromkeys(("h", "小时"), 3600.0),
    **dict.fromkeys(("d", "天"), 86_400.0),
}
"""Seconds of a unit, by the beginning of its name; of two that fit, the first counts."""
_UNIT = "(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|毫秒|秒钟?|分钟?|小时|天)"
_WAIT_WORDS = (
    r"(?i)\b(?:try(?:ing)? again|retry(?:ing)?|wait|come back|(?:available|allowed) (?:again|in)|resets?|cool ?down|back ?off)\b[^.;\d]{0,30}?"
    rf"((?:\d{{1,9}}(?:\.\d{{1,12}})?\s?{_UNIT}(?:,| and)?\s?){{1,4}})(?![a-z\d])"
    rf"|请(?:在|等待)?\s?((?:\d{{1,9}}(?:\.\d{{1,12}})?\s?{_UNIT}\s?){{1,4}})(?:之后|以后|后)"
)


def wait_in(words: str) -> float | None:
    """Return the seconds of ``try again in 7m12s``, ``wait 84600 seconds`` and the like."""
    found = re.search(_WAIT_WORDS, words[:READ_CHARS])
    if found is None:
        return None
    total = 0.0
    for number, unit in re.findall(rf"(?i)(\d+(?:\.\d+)?)\s?({_UNIT})", found[1] or found[2]):
        total += float(number) * next(s for u, s in _UNITS.items() if unit.lower().startswith(u))
    return total if total < 1e9 else None
