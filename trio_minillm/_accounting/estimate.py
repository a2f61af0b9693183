"""Upper bounds for the cost of a request, before it is sent. Nothing is sent or fetched.

The request is built as for sending. Its text is bounded by its bytes, images by their vendors'
rules, the answer by ``max_tokens``. If one part has no bound, the sum is unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias, Unpack

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
    TokensPart,
    ToolCall,
    ToolResult,
)
from .._types.money import add, scaled, times
from .._types.openai_messages import messages_of
from .._types.params import Params, show_params
from ..providers import Model
from ..providers._base import host_of
from ..providers._charged import asked_of
from ..providers._pricing import STANDARD, is_cheaper, price_at, rates_at
from .image_tokens import image_tokens
from .tokenizers import counter

MESSAGE_TOKENS = 8
"""Tokens around each message. OpenAI's cookbook counts 3 and one for a name; templates of open
models need up to 6 (``<|im_start|>role\\n … <|im_end|>\\n``)."""

HIDDEN_TOKENS = {"api.openai.com": (64, 256), "api.anthropic.com": (64, 1024)}
"""Tokens that a server adds to a prompt on its own: without, and with, tools or a response
format. OpenAI's cookbook counts 3, and 12 around tools; Anthropic's page "Pricing"
lists at most 804 for tools (Opus 4.7 with ``any``)."""

HIDDEN_ELSEWHERE = (1024, 1024)
"""Tokens that any other server may add, without and with tools. Recorded streams have up to 680
(xAI's Grok 4)."""

TURN_TOKENS, PROMPT_TOKENS = 4, 3
"""Tokens that are likely around each message, and around all of them: those of OpenAI's cookbook."""

CHARACTERS_PER_TOKEN = 4
"""Characters of English text in a token, where nothing counts them; other languages have fewer."""

MARGIN = 8
"""A tokenizer's count is taken ``1 / MARGIN`` higher: the text is counted as it is in the body's
JSON, and the server's template does not put it in exactly that way."""

_EQUIPMENT = ("tools", "response_format", "output_config", "text", "toolConfig", "generationConfig")
"""Body fields with tools and formats of answers, which templates may print indented; Gemini has its
formats among the last."""

CountTokens: TypeAlias = Callable[[str], int]

_SERVER_SIDE = (
    *("web_search_options", "plugins", "mcp_servers", "container", "context_management"),
    *("search_parameters", "compound_custom", "data_sources", "enable_search", "cachedContent"),
    *("previous_response_id", "conversation"),
)
"""Body fields by which a server adds to the prompt, or calls the model more than once."""

_AGENTS = ("compound", "sonar", "deep-research", "search", ":online")
"""Parts of the names of models that search on their own."""


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds for one request and its answer, and the likely length of its prompt.

    ``None`` means that there is no bound, or no price; ``notes`` say why. Amounts are in USD, for
    a single attempt. The bounds rest on the published rules that the notes name: a server that
    adds more to a prompt than any known one can exceed them.
    """

    input_tokens: int | None = None
    """Most tokens that the input can have."""
    likely_input_tokens: int | None = None
    """Tokens that the input is likely to have: the text as it is counted, else four characters a token,
    and images at their bounds. The only field that is no bound."""
    output_tokens: int | None = None
    """Tokens of all choices together, reasoning included."""
    input_amount: Decimal | None = None
    """Most that the input can cost, in USD."""
    output_amount: Decimal | None = None
    """Most that the output can cost, in USD."""
    amount: Decimal | None = None
    """The sum of both; ``None`` if one of them is."""
    counted_by: str = "bytes"
    """The way the text was counted: ``"bytes"``, an encoding's name, or the given function's."""
    notes: tuple[str, ...] = ()


@show_params
def estimate(
    model: Model,
    messages: Messages,
    *,
    price: TokenPrice | None = None,
    extra: Mapping[str, Any] | None = None,
    count_tokens: CountTokens | str | None = None,
    **params: Unpack[Params],
) -> CostEstimate:
    """Return upper bounds for the tokens and the cost of a request. Nothing is sent.

    ``messages``, ``extra`` and ``params`` are those of `Client.stream`, checked in the same way.

    By default, a text counts as one token per UTF-8 byte, which no tokenizer with a token for
    every byte exceeds; for English that is about four times too many. A tighter bound needs the
    model's own tokenizer: ``count_tokens`` is a function that counts a text's tokens, or the name
    of one of OpenAI's encodings (``"o200k_base"``) for tiktoken, whose vocabulary must be in its
    folder already. Such a count is taken an eighth higher.

    Without ``price`` the model's own is used, and without that there are no amounts. The highest
    rate that can apply is taken: of all tiers within reach, of the service tier that is asked for,
    and for cache writes if the request, or the server by itself, may write to a cache. There is no
    amount for a service tier, speed or region that the price is not for.

    Raises what `Client.stream` would raise, and for an encoding that can't be used ``ImportError``,
    ``FileNotFoundError`` or ``ValueError``.
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
    unbounded = list(_unbounded(model.name, body))
    notes = [*unbounded, _text_note(count, asked)]
    tokens = _text_tokens(body, count) + _overhead(model, asked, body, notes)
    media = _media_tokens(model.name, asked, notes)
    total = None if unbounded or media is None else tokens + media
    answer = None if unbounded else _answer_tokens(model, body, notes)
    input_amount, output_amount = _amounts(model, body, price, total, answer, notes)
    return CostEstimate(
        input_tokens=total,
        likely_input_tokens=None if media is None else _likely_tokens(asked, body, count) + media,
        output_tokens=answer,
        input_amount=input_amount,
        output_amount=output_amount,
        amount=_sum(input_amount, output_amount),
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
    """Return the body as it would be sent, but with empty data for media that is not text."""
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
    """Return the most tokens of the body's text.

    Tools and formats are indented, as templates may print them.
    """
    indented = {k: body[k] for k in _EQUIPMENT if k in body}
    rest = {k: v for k, v in body.items() if k not in indented}
    text = encoded(rest).decode()
    if indented:
        text += msgspec.json.format(encoded(indented), indent=4).decode()
    if count is not None:
        counted = count(text)
        if isinstance(counted, bool) or not isinstance(counted, int) or counted < 0:
            raise TypeError("count_tokens must return a number of tokens")
        return counted - -counted // MARGIN
    if text.isascii():
        return len(text)
    # Some tokenizers normalize first, which can make a text longer (NFKC up to elevenfold).
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text))
    return max(len(form.encode()) for form in forms)


def _likely_tokens(
    messages: Sequence[Message], body: Mapping[str, Any], count: CountTokens | None
) -> int:
    """Return the tokens that the text of the messages is likely to have, with tools and formats."""
    if count is None:
        count = _by_characters
    equipment = {k: body[k] for k in _EQUIPMENT if k in body}
    around = PROMPT_TOKENS + TURN_TOKENS * len(messages)
    told = sum(count(_told(message)) for message in messages)
    parts = (part for message in messages for part in message.parts)
    told += sum(len(part.ids) for part in parts if isinstance(part, TokensPart))
    return around + told + (count(encoded(equipment).decode()) if equipment else 0)


def _by_characters(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _told(message: Message) -> str:
    """Return the text of a message with that of its calls and results."""
    told = [message.text]
    for part in message.parts:
        if isinstance(part, ToolCall):
            told += [part.name, part.arguments]
        elif isinstance(part, ToolResult):
            told.append(part.text)
        elif isinstance(part, MediaPart) and _is_text(part) and part.data is not None:
            told.append(part.data.decode(errors="replace"))
    return "".join(told)


def _text_note(count: CountTokens | None, messages: Sequence[Message]) -> str:
    rule = "a token for each byte" if count is None else f"as counted, and 1/{MARGIN} more"
    parts = [part for message in messages for part in message.parts]
    if any(isinstance(part, ReasoningPart | OpaquePart) for part in parts):
        rule += "; opaque blocks are taken to be no longer than what stands for them"
    return f"text: {rule}"


def _overhead(
    model: Model, messages: Sequence[Message], body: Mapping[str, Any], notes: list[str]
) -> int:
    host = host_of(model.base_url)
    plain, equipped = HIDDEN_TOKENS.get(host, HIDDEN_ELSEWHERE)
    more = any(body.get(name) for name in _EQUIPMENT)
    hidden = equipped if more else plain
    notes.append(f"hidden: at most {hidden} tokens of the server's own, {MESSAGE_TOKENS} a message")
    return hidden + MESSAGE_TOKENS * len(messages)


def _media(messages: Sequence[Message]) -> Iterator[MediaPart]:
    for message in messages:
        for part in message.parts:
            inner = part.content if isinstance(part, ToolResult) else (part,)
            yield from (p for p in inner if isinstance(p, MediaPart))


def _media_tokens(name: str, messages: Sequence[Message], notes: list[str]) -> int | None:
    """Return the most tokens of all media; ``None`` if there is no rule for one of them."""
    total, bounded, images = 0, True, 0
    for part in _media(messages):
        if isinstance(part, ImagePart):
            found = image_tokens(part, name)
            if found is None:
                notes.append("no bound: no published rule counts this model's images")
            images += 1
        elif isinstance(part, AudioPart):
            found = None
            notes.append("no bound: no published rule counts audio in this wire format")
        elif _is_text(part) and part.data is not None and not getattr(part, "citations", False):
            found = 0  # its text is in the body
        else:
            found = None
            notes.append("no bound: a document's pages and text can't be counted from outside")
        bounded = bounded and found is not None
        total += found or 0
    if images and bounded:
        notes.append(f"images: at most {total} tokens by their vendor's rules")
    return total if bounded else None


def _unbounded(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why a request has no bound.

    They are features by which a server adds to the prompt, or calls the model again.
    """
    for tool in body.get("tools") or ():
        for kind in _kinds_of(tool, named="contents" in body):
            if kind not in ("function", "custom", "functionDeclarations"):
                yield f"no bound: the server may run its own tool {kind}"
    for field in _SERVER_SIDE:
        if body.get(field) not in (None, False):  # {} turns OpenAI's search on
            yield f"no bound: {field} lets the server add to the prompt"
    if isinstance(body.get("prompt"), Mapping):  # of text completions, it is text
        yield "no bound: prompt lets the server add to the prompt"
    for mark in _AGENTS:
        if mark in name.lower():
            yield f"no bound: models named {mark!r} search on their own"


def _kinds_of(tool: Any, *, named: bool) -> Iterable[str]:
    """Return the kinds of a tool; where they are ``named``, it is an object with a field for each."""
    given = tool if isinstance(tool, Mapping) else {"type": "?"}
    return given if named else (given.get("type", "custom"),)


_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields of a body that bound the answer."""


def _answer_tokens(model: Model, body: Mapping[str, Any], notes: list[str]) -> int | None:
    """Return the most tokens of all choices together; ``None`` without a bound."""
    settings = body.get("generationConfig") or {}  # Gemini's
    most = [body.get(field) for field in _BOUNDS]
    most.append(settings.get("maxOutputTokens"))
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
    beside = 0
    if body.get("enable_thinking") and re.search("qwen|qwq", model.name.lower()):
        # Of most of its models, max_tokens bounds the answer alone (Model Studio: API compatibility).
        beside = body.get("thinking_budget", -1)
        if type(beside) is not int or beside < 0:
            notes.append("no bound for the answer: Qwen's max_tokens may leave out the thinking")
            return None
    choices = body.get("best_of") or body.get("n") or settings.get("candidateCount") or 1
    return (max(limits) + beside) * int(choices)


# -- money -----------------------------------------------------------------------------------


def _amounts(
    model: Model,
    body: Mapping[str, Any],
    price: TokenPrice | None,
    total: int | None,
    answer: int | None,
    notes: list[str],
) -> tuple[Decimal | None, Decimal | None]:
    """Return the most USD of so many input tokens and of so many output tokens."""
    if price is None:
        notes.append("no amount: the model has no price")
        return None, None
    if body.get("models"):
        notes.append("no amount: another model may answer, at a price of its own")
        return None, None
    prices = _tier_prices(model, body, price, notes)
    if not prices:
        return None, None
    if getattr(model.provider, "bills", False):  # OpenRouter, on either of its wires
        notes.append("the price is taken to be that of the dearest server that may answer")
    highest = [_highest_rates(one, total) for one in prices]
    rate = {name: max(rates[name] for rates in highest) for name in highest[0]}
    input_rate = max(rate[name] for name in _input_rates(model, body))
    modes = body.get("modalities") or ()
    output_rate = max(rate[name] for name in ("output", "image_output"))
    if "audio" in modes:
        output_rate = max(output_rate, rate["audio_output"])
    return (
        None if total is None else scaled(times(total, input_rate), -6),
        None if answer is None else scaled(times(answer, output_rate), -6),
    )


def _tier_prices(
    model: Model, body: Mapping[str, Any], price: TokenPrice, notes: list[str]
) -> list[TokenPrice]:
    """Return the prices of the service tiers at which a request may be served.

    None if one is not known that may be the dearest. A tier that is asked for may not be given, and
    then the standard one is. Without any, the request is taken to ask for that of the price.
    """
    asked = asked_of(model, body)
    tier = asked.tier(asked.terms)
    if tier is None:  # "auto" leaves the choice to the settings of a project
        return [price, *(price.variants if body.get("service_tier") == "auto" else ())]
    own, standard = price_at(price, tier), price_at(price, STANDARD)
    if own is None and not (is_cheaper(tier) and standard is not None):
        notes.append(f"no amount: there is no price of the service tier {tier!r}")
        return []
    found = [one for one in (own, standard) if one is not None]
    notes.append(f"service tier {tier!r}: at the dearer of its price and the standard one's")
    return found


def _sum(a: Decimal | None, b: Decimal | None) -> Decimal | None:
    return None if a is None or b is None else add(a, b)


def _input_rates(model: Model, body: Mapping[str, Any]) -> list[str]:
    """Return the names of the rates that an input token may have.

    Anthropic's own API writes to its cache on request only; any other may always do so.
    """
    text = msgspec.json.encode(body)
    names = ["input", "cache_read", "image_input", "image_cache_read"]
    if model.provider.name != "anthropic" or b'"cache_control":' in text:
        names.append("cache_write")
    if b'"ttl":"1h"' in text:
        names.append("cache_write_1h")
    return names


def _highest_rates(price: TokenPrice, tokens: int | None) -> dict[str, Decimal]:
    """Return each rate at its highest among the tiers that ``tokens`` of input can reach."""
    marks = [tier.above for tier in price.tiers if tokens is None or tier.above < tokens]
    within = [rates_at(price, 0), *(rates_at(price, mark + 1) for mark in marks)]
    return {name: max(rates[name] for rates in within) for name in within[0]}
