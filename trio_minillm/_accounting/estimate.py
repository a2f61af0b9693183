"""What a request can cost at most, before it is sent. Nothing is sent, and nothing fetched.

The request is built as it would be to be sent. Its text is bounded by its bytes, pictures by
their vendors' rules, the answer by ``max_tokens``; what has no bound makes the sum unknown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias, Unpack
from urllib.parse import urlsplit

import msgspec

from .._protocol.request import Messages, body_of, encoded, make_request, with_price
from .._types.cost import TokenPrice
from .._types.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    ToolResult,
)
from .._types.money import add, scaled, times
from .._types.openai_messages import messages_of
from .._types.params import Params
from ..providers import Model
from ..providers._pricing import rates_at
from .image_tokens import picture_tokens
from .tokenizers import counter

MESSAGE_TOKENS = 8
"""Tokens that stand around a message. OpenAI's cookbook counts 3 and one for a name; templates of
open models need up to 6 (``<|im_start|>role\\n … <|im_end|>\\n``)."""

HIDDEN_TOKENS = {"api.openai.com": (64, 256), "api.anthropic.com": (64, 1024)}
"""Tokens that a server puts before a request of its own accord: without, and with, tools or a
format for the answer. OpenAI's cookbook counts 3, and 12 around tools; Anthropic's page "Pricing"
lists at most 804 for tools (Opus 4.7 with ``any``)."""

HIDDEN_ELSEWHERE = (1024, 1024)
"""The same for every other server. Recorded streams have up to 680 (xAI's Grok 4)."""

MARGIN = 8
"""A tokenizer's count is taken an ``1 / MARGIN`` higher: text is counted as it stands in the
body's JSON, which is not exactly as the server's template puts it."""

CountTokens: TypeAlias = Callable[[str], int]

_SERVER_SIDE = (
    *("web_search_options", "plugins", "mcp_servers", "container", "context_management"),
    *("search_parameters", "compound_custom", "data_sources", "enable_search"),
)
"""Fields of a body with which the server adds to the prompt, or asks the model more than once."""

_AGENTS = ("compound", "sonar", "deep-research", "search", ":online")
"""In names of models that search on their own."""


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds for one request and its answer: what it may come to, never what it will.

    ``None`` means that there is no bound, or no price; ``notes`` say why. Amounts are in USD,
    for a single attempt. The bounds rest on the published rules that the notes name: a server
    that adds more to a prompt than any that is known can exceed them.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    """All answers together, reasoning included."""
    input_amount: Decimal | None = None
    output_amount: Decimal | None = None
    amount: Decimal | None = None
    """Both together; ``None`` as soon as one of them is."""
    counted_by: str = "bytes"
    """How the text was counted: ``"bytes"``, an encoding's name, or the given counter's."""
    notes: tuple[str, ...] = ()


def estimate(
    model: Model,
    messages: Messages,
    *,
    price: TokenPrice | None = None,
    extra: Mapping[str, Any] | None = None,
    count_tokens: CountTokens | str | None = None,
    **params: Unpack[Params],
) -> CostEstimate:
    """What this request can cost at most. Nothing is sent.

    ``messages``, ``extra`` and ``params`` are those of `Client.stream`, checked in the same way.

    By default a text is taken to have as many tokens as UTF-8 bytes, which no tokenizer with a
    token for every byte exceeds; that is about four times too many for English. A tighter bound
    needs the model's own tokenizer: ``count_tokens`` is a function that counts a text's tokens,
    or one of OpenAI's encodings (``"o200k_base"``) for tiktoken, whose vocabulary must be in its
    folder already. Such a count is taken an eighth higher.

    Without ``price`` the model's own is used, and without that there are no amounts. The dearest
    rate that can apply is taken: of all tiers within reach, and of cache writes where the
    request, or the wire by itself, may write to a cache.

    Raises what `Client.stream` would raise, and for an encoding what stands in the way of
    using it (``ImportError``, ``FileNotFoundError``, ``ValueError``).
    """
    model = with_price(model, price)
    asked = messages_of(messages)
    body = _body(model, asked, params, extra)
    count = counter(count_tokens, model.name) if isinstance(count_tokens, str) else count_tokens
    found = _bounds(model, asked, body, count, model.price)
    return msgspec.structs.replace(found, counted_by=_name(count_tokens))


def _bounds(
    model: Model,
    asked: tuple[Message, ...],
    body: dict[str, Any],
    count: CountTokens | None,
    price: TokenPrice | None,
) -> CostEstimate:
    open_end = list(_open_ends(model.name, body))
    notes = [*open_end, _text_note(count, asked)]
    tokens = _text_tokens(body, count) + _overhead(model, asked, body, notes)
    pictures = _media_tokens(model.name, asked, notes)
    total = None if open_end or pictures is None else tokens + pictures
    answer = None if open_end else _answer_tokens(model, body, notes)
    before, after = _amounts(model, body, price, total, answer, notes)
    return CostEstimate(
        input_tokens=total,
        output_tokens=answer,
        input_amount=before,
        output_amount=after,
        amount=None if before is None or after is None else add(before, after),
        notes=tuple(notes),
    )


def _name(count_tokens: CountTokens | str | None) -> str:
    if count_tokens is None or isinstance(count_tokens, str):
        return count_tokens or "bytes"
    return getattr(count_tokens, "__name__", type(count_tokens).__name__)


# -- the request -----------------------------------------------------------------------------


def _body(
    model: Model, messages: tuple[Message, ...], params: Params, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The body as it would be sent, with empty media in the place of media."""
    light = tuple(
        msgspec.structs.replace(m, parts=tuple(_light(p) for p in m.parts)) for m in messages
    )
    return body_of(make_request(model, light, params, extra=extra))


def _light(part: Part) -> Any:
    if isinstance(part, ToolResult):
        return msgspec.structs.replace(part, content=tuple(_light(p) for p in part.content))
    if isinstance(part, MediaPart) and part.data is not None and not _is_text(part):
        return msgspec.structs.replace(part, data=b"")
    return part


def _is_text(part: MediaPart) -> bool:
    return isinstance(part, DocumentPart) and (part.media_type or "").startswith("text/")


# -- tokens ----------------------------------------------------------------------------------


def _text_tokens(body: Mapping[str, Any], count: CountTokens | None) -> int:
    """The body's JSON as text, tools and formats spread out as templates may print them."""
    wide = {k: body[k] for k in ("tools", "response_format", "output_config") if k in body}
    rest = {k: v for k, v in body.items() if k not in wide}
    text = encoded(rest).decode()
    if wide:
        text += msgspec.json.format(encoded(wide), indent=4).decode()
    if count is not None:
        counted = count(text)
        if isinstance(counted, bool) or not isinstance(counted, int) or counted < 0:
            raise TypeError("count_tokens must return a number of tokens")
        return counted - -counted // MARGIN
    if text.isascii():
        return len(text)
    # Some tokenizers normalise first, which can make a text longer (NFKC up to elevenfold).
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text))
    return max(len(form.encode()) for form in forms)


def _text_note(count: CountTokens | None, messages: Sequence[Message]) -> str:
    rule = "a token for each byte" if count is None else f"as counted, and 1/{MARGIN} more"
    parts = [part for message in messages for part in message.parts]
    if any(isinstance(part, ReasoningPart | OpaquePart) for part in parts):
        rule += "; opaque blocks are taken to be no longer than what stands for them"
    return f"text: {rule}"


def _overhead(
    model: Model, messages: Sequence[Message], body: Mapping[str, Any], notes: list[str]
) -> int:
    host = urlsplit(model.base_url).hostname or ""
    plain, equipped = HIDDEN_TOKENS.get(host, HIDDEN_ELSEWHERE)
    more = any(body.get(name) for name in ("tools", "response_format", "output_config"))
    hidden = equipped if more else plain
    notes.append(f"hidden: at most {hidden} tokens of the server's own, {MESSAGE_TOKENS} a message")
    return hidden + MESSAGE_TOKENS * len(messages)


def _media(messages: Sequence[Message]) -> Iterator[MediaPart]:
    for message in messages:
        for part in message.parts:
            inner = part.content if isinstance(part, ToolResult) else (part,)
            yield from (p for p in inner if isinstance(p, MediaPart))


def _media_tokens(name: str, messages: Sequence[Message], notes: list[str]) -> int | None:
    """The most that all media can be; ``None`` where there is no rule for one of them."""
    total, bounded, pictures = 0, True, 0
    for part in _media(messages):
        if isinstance(part, ImagePart):
            found = picture_tokens(part, name)
            if found is None:
                notes.append("no bound: no published rule says how large this model's pictures are")
            pictures += 1
        elif isinstance(part, AudioPart):
            found = None
            notes.append("no bound: no published rule counts sound on this wire")
        elif _is_text(part) and part.data is not None and not getattr(part, "citations", False):
            found = 0  # it is in the body
        else:
            found = None
            notes.append("no bound: a document's pages and text can't be counted from outside")
        bounded = bounded and found is not None
        total += found or 0
    if pictures and bounded:
        notes.append(f"pictures: at most {total} tokens by their vendor's rules")
    return total if bounded else None


def _open_ends(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    """Why a request has no bound at all: the server adds what it finds, and asks again."""
    for tool in body.get("tools") or ():
        kind = tool.get("type", "custom") if isinstance(tool, Mapping) else "?"
        if kind not in ("function", "custom"):
            yield f"no bound: the server may run its own tool {kind}"
    for field in _SERVER_SIDE:
        if body.get(field) not in (None, False):  # {} turns OpenAI's search on
            yield f"no bound: {field} lets the server add to the prompt"
    for mark in _AGENTS:
        if mark in name.lower():
            yield f"no bound: models named {mark!r} search on their own"


def _answer_tokens(model: Model, body: Mapping[str, Any], notes: list[str]) -> int | None:
    most = [body.get(field) for field in ("max_completion_tokens", "max_tokens")]
    limits = [n for n in most if type(n) is int and n >= 0]
    if not limits:
        notes.append("no bound for the answer: without max_tokens it ends when the model does")
        return None
    if body.get("prediction"):
        notes.append("no bound for the answer: rejected predictions are charged beside it")
        return None
    if "grok" in model.name.lower():
        notes.append("no bound for the answer: xAI does not count reasoning against max_tokens")
        return None
    return max(limits) * int(body.get("n") or 1)


# -- money -----------------------------------------------------------------------------------


def _amounts(
    model: Model,
    body: Mapping[str, Any],
    price: TokenPrice | None,
    total: int | None,
    answer: int | None,
    notes: list[str],
) -> tuple[Decimal | None, Decimal | None]:
    if price is None:
        notes.append("no amount: the model has no price")
        return None, None
    if body.get("models"):
        notes.append("no amount: another model may answer, at a price of its own")
        return None, None
    for field in ("service_tier", "speed", "inference_geo"):
        if body.get(field):
            notes.append(f"{field}: the price is taken to be the one for it")
    if model.provider.name == "openrouter":
        notes.append("the price is taken to be that of the dearest server that may answer")
    rate = _dearest(price, total)
    before = max(rate[name] for name in _input_rates(model, body))
    modes = body.get("modalities") or ()
    after = max(rate[name] for name in ("output", "image_output"))
    if "audio" in modes:
        after = max(after, rate["audio_output"])
    return (
        None if total is None else scaled(times(total, before), -6),
        None if answer is None else scaled(times(answer, after), -6),
    )


def _input_rates(model: Model, body: Mapping[str, Any]) -> list[str]:
    """The rates that an input token may have. Only Anthropic's own wire caches on request."""
    text = msgspec.json.encode(body)
    names = ["input", "cache_read", "image_input", "image_cache_read"]
    if model.provider.name != "anthropic" or b'"cache_control":' in text:
        names.append("cache_write")
    if b'"ttl":"1h"' in text:
        names.append("cache_write_1h")
    return names


def _dearest(price: TokenPrice, tokens: int | None) -> dict[str, Decimal]:
    """Each rate at its highest among the tiers that so many input tokens can reach."""
    marks = [tier.above for tier in price.tiers if tokens is None or tier.above < tokens]
    within = [rates_at(price, 0), *(rates_at(price, mark + 1) for mark in marks)]
    return {name: max(rates[name] for rates in within) for name in within[0]}
