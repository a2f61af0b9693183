"""Usage objects of each wire format as `Usage`, whose buckets are disjoint.

Nothing here raises: what can't be read costs itself. A field that is absent stays ``None``; it is
never read as zero. A field that is there and can't be read is ``None``, too, and one of the usage's
``doubts``.

The rules for the OpenAI family, where servers differ most:

1. A count is a whole number, or the text of one, under any of the names in `_usage_names`. The
   first name with a count above 0 decides.
2. Cached and cache-written tokens are part of the prompt, as in OpenAI's reference, unless the
   server shows otherwise: it has the names of Anthropic's or Bedrock's wire with more tokens than
   the prompt has, or beside ``input_tokens``; or its total counts them once more.
3. Where the total exceeds prompt and output by a count that has a name, that count is beside them:
   reasoning is added to the output, cache tokens to the prompt. Where it exceeds them by a number
   that nothing names, that is thinking (Gemini's servers show it in the total alone), and output.
4. What contradicts itself all the same is in doubt, and the total counts most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from .._types.usage import MAX_COUNT, UNREADABLE, Usage, number_in
from ._usage_names import (
    BESIDE,
    CACHE_WRITES_BY_LIFE,
    CHARGED_APART,
    COST,
    INSIDE,
    NAMES,
    Names,
    Path,
    paths,
)

_COMMON: Final = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_tokens_details", "completion_tokens_details"),
    }
)
_COMMON_NAMES: Final = {
    field: tuple(path for path in names if path[0] in _COMMON) for field, names in NAMES.items()
}
"""The names that are left of each count where an object has OpenAI's own fields only: most have,
and some servers send one with each piece of text."""
_CACHES: Final = frozenset(path for names in (INSIDE, BESIDE) for n in names.values() for path in n)


class _Reading:
    """One usage object while it is read: finds its counts, and keeps what is in doubt."""

    def __init__(self, raw: Any) -> None:
        self.raw: dict[str, Any] = dict(raw) if isinstance(raw, Mapping) else {}
        self.doubts: dict[str, str] = {}
        if raw is not None and not isinstance(raw, Mapping):
            self.doubts["total_tokens"] = "it is not an object"
        self.common: bool = self.raw.keys() <= _COMMON
        """True if it has no fields but those that OpenAI's reference always lists."""

    def count(self, field: str, names: Names = ()) -> int | None:
        """Return the first count above 0 under the field's names, or else 0 if one has that."""
        raw, found = self.raw, None
        for path in names or (_COMMON_NAMES if self.common else NAMES)[field]:
            if path[0] not in raw:
                continue
            value = raw[path[0]] if len(path) == 1 else at_path(raw, path)
            if type(value) is int and 0 < value < MAX_COUNT:  # almost always
                self.doubts.pop(field, None)
                return value
            if value is None:
                continue
            number = number_in(value)
            if number is None or number != int(number):
                self.doubts.setdefault(field, f"{'.'.join(path)}{UNREADABLE}")
            elif number:
                self.doubts.pop(field, None)
                return int(number)
            else:
                found = 0
        return None if field in self.doubts else found

    def has(self, *names: Names) -> bool:
        """Return True if one of these names has a number above 0."""
        return any(
            path[0] in self.raw and number_in(at_path(self.raw, path)) for n in names for path in n
        )

    def doubt(self, field: str, why: str) -> None:
        """Note why a field is not certain."""
        self.doubts[field] = why


def openai_usage(raw: Any) -> Usage:
    """Translate a usage object of the OpenAI family, by the rules at the top of this file."""
    return _plain_usage(raw) or _any_usage(raw)


_NOTHING: Final[dict[str, Any]] = {}
_PLAIN_INPUT: Final = frozenset({"cached_tokens", "audio_tokens"})
_PLAIN_OUTPUT: Final = frozenset(
    {
        *("reasoning_tokens", "audio_tokens"),
        *("accepted_prediction_tokens", "rejected_prediction_tokens"),
    }
)


def _plain_usage(raw: Any) -> Usage | None:
    """Return a usage that is as in OpenAI's reference, and adds up, or ``None`` for any other.

    For these it does what `_any_usage` does, in a fifth of the time.
    """
    if type(raw) is not dict or not _COMMON.issuperset(raw):
        return None
    prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens")
    if type(prompt) is not int or type(completion) is not int:
        return None
    total = prompt + completion
    fits = prompt > 0 and completion > 0 and total < MAX_COUNT
    if not fits or raw.get("total_tokens") != total:
        return None
    given = raw.get("prompt_tokens_details") or _NOTHING
    made = raw.get("completion_tokens_details") or _NOTHING
    if (given and not _are_parts(given, _PLAIN_INPUT, prompt)) or (
        made and not _are_parts(made, _PLAIN_OUTPUT, completion)
    ):
        return None
    read = given.get("cached_tokens")
    return Usage(
        uncached_input_tokens=prompt - (read or 0),
        cache_read_tokens=read,
        completion_tokens=completion,
        reasoning_tokens=made.get("reasoning_tokens"),
        audio_input_tokens=given.get("audio_tokens"),
        audio_output_tokens=made.get("audio_tokens"),
        raw=raw.copy(),
    ).read_by(openai_usage)


def _are_parts(details: Any, names: frozenset[str], most: int) -> bool:
    """Return whether details have counts of these names and nothing else, none above ``most``."""
    if type(details) is not dict or not names.issuperset(details):
        return False
    return all(type(count) is int and 0 <= count <= most for count in details.values())


def _any_usage(raw: Any) -> Usage:
    reading = _Reading(raw)
    prompt, completion = reading.count("uncached_input_tokens"), reading.count("completion_tokens")
    read, written = reading.count("cache_read_tokens"), reading.count("cache_write_tokens")
    reasoning, total = reading.count("reasoning_tokens"), reading.count("total_tokens") or 0
    if prompt is None and read is not None:  # DeepSeek's two add up to the prompt
        missed = number_in(reading.raw.get("prompt_cache_miss_tokens"))
        prompt = None if missed is None else int(missed) + read
    beside: frozenset[str] = frozenset()
    if prompt is not None and completion is not None:
        excess = total - prompt - completion
        if excess > 0:
            named = {"reasoning": reasoning, "read": read, "written": written}
            beside = _beside(reading, excess, {name: n for name, n in named.items() if n})
        elif excess < 0 < total:
            reading.doubt("completion_tokens", f"the total is {-excess} less than the counts")
        elif reasoning and not total and "thoughtsTokenCount" in reading.raw:
            beside = frozenset({"reasoning"})
        completion += excess if "thinking" in beside else 0
        completion += reasoning or 0 if "reasoning" in beside else 0
        if reasoning and reasoning > completion:
            reading.doubt("completion_tokens", "more reasoning than output")
    usage = Usage(completion_tokens=completion, reasoning_tokens=reasoning)
    usage.cache_read_tokens, usage.cache_write_tokens = read, written
    if prompt is not None:
        _put_input(usage, reading, prompt, total, beside)
    return _finished(usage, reading, openai_usage, OPENAI_TIERS)


def anthropic_usage(raw: Any) -> Usage:
    """Translate Anthropic's usage, whose buckets are disjoint already."""
    return _plain_anthropic_usage(raw) or _any_anthropic_usage(raw)


_LIVES: Final = frozenset({"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"})
_INPUT, _OUTPUT = paths("input_tokens"), paths("output_tokens")


def _plain_anthropic_usage(raw: Any) -> Usage | None:
    """Return a usage that has only the counts which all of Anthropic's have, perhaps with the lives of
    the cache's tokens and with terms that change no price, or ``None`` for others.

    For these it does what `_any_anthropic_usage` does, in a tenth of the time.
    """
    if type(raw) is not dict:
        return None
    new = read = written = made = tier = place = None
    lives = _NOTHING
    for name, value in raw.items():
        if name == "cache_creation":
            lives = value
        elif name == "service_tier":
            tier = value
        elif name == "inference_geo":
            place = value
        elif type(value) is not int or not 0 <= value < MAX_COUNT:
            return None
        elif name == "input_tokens":
            new = value
        elif name == "output_tokens":
            made = value
        elif name == "cache_read_input_tokens":
            read = value
        elif name == "cache_creation_input_tokens":
            written = value
        else:
            return None
    if (tier is not None and tier != "standard") or (place is not None and place not in _ANYWHERE):
        return None
    if lives is not _NOTHING and not _are_parts(lives, _LIVES, written or 0):
        return None
    if not (new or read or written) and 0 in (new, read, written):
        return None  # a prompt of no tokens
    return Usage(
        uncached_input_tokens=new,
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=made,
        cache_write_1h_tokens=lives.get("ephemeral_1h_input_tokens"),
        service_tier=tier,
        raw=raw.copy(),
    ).read_by(anthropic_usage, output="output_tokens")


def _any_anthropic_usage(raw: Any) -> Usage:
    reading = _Reading(raw)
    usage = Usage(
        uncached_input_tokens=reading.count("uncached_input_tokens", _INPUT),
        cache_read_tokens=reading.count("cache_read_tokens", BESIDE["read"]),
        cache_write_tokens=reading.count("cache_write_tokens", BESIDE["written"]),
        completion_tokens=reading.count("completion_tokens", _OUTPUT),
        reasoning_tokens=reading.count("reasoning_tokens"),
    )
    if not usage.cache_write_tokens:  # some relays leave the sum out
        lives = [reading.count("cache_write_tokens", names) for names in CACHE_WRITES_BY_LIFE]
        if any(lives):
            usage.cache_write_tokens = sum(n or 0 for n in lives)
    return _finished(usage, reading, anthropic_usage, ANTHROPIC_TIERS)


def gemini_usage(raw: Any) -> Usage:
    """Translate Gemini's usage: thoughts are beside the candidates' output, what tools have read is
    beside the prompt, and the cache's tokens are inside it.

    Google's JSON leaves zeros out. Output that is absent is what the total leaves for it.
    """
    return _plain_gemini_usage(raw) or _any_gemini_usage(raw)


_Positive: TypeAlias = Annotated[int, msgspec.Meta(gt=0, lt=MAX_COUNT)]


class _OfText(msgspec.Struct, gc=False):
    """The count of the tokens of text, where there are no others."""

    modality: Literal["TEXT"]


_Details: TypeAlias = Annotated[list[_OfText], msgspec.Meta(min_length=1, max_length=1)]


class _PlainGemini(msgspec.Struct, gc=False, rename="camel", forbid_unknown_fields=True):
    """A usage of text alone, without tools. A field that is there has a count above zero."""

    prompt_token_count: _Positive
    total_token_count: _Positive
    candidates_token_count: _Positive | msgspec.UnsetType = msgspec.UNSET
    thoughts_token_count: _Positive | msgspec.UnsetType = msgspec.UNSET
    cached_content_token_count: _Positive | msgspec.UnsetType = msgspec.UNSET
    prompt_tokens_details: _Details | msgspec.UnsetType = msgspec.UNSET
    candidates_tokens_details: _Details | msgspec.UnsetType = msgspec.UNSET
    cache_tokens_details: _Details | msgspec.UnsetType = msgspec.UNSET


_decode: Final = msgspec.json.Decoder().decode
_decode_plain: Final = msgspec.json.Decoder(_PlainGemini).decode


def plain_gemini_usage(value: bytes) -> Usage:
    """Translate the JSON of a usage that stands beside text.

    Raises ``ValueError``, or msgspec's error, if it is out of the ordinary or counts no output.
    """
    usage = _of_plain_gemini(_decode_plain(value), value)
    if usage is None:
        raise ValueError("not a plain usage")
    return usage


def _plain_gemini_usage(raw: Any) -> Usage | None:
    """Return a usage of text alone that adds up, or ``None`` for any other.

    Gemini sends one with each event. It is what `_any_gemini_usage` makes of it, in a tenth of the time.
    """
    try:
        return _of_plain_gemini(msgspec.convert(raw, _PlainGemini), raw)
    except (msgspec.ValidationError, RecursionError):
        return None


def _of_plain_gemini(found: _PlainGemini, raw: Any) -> Usage | None:
    """Return what a usage says, of which ``raw`` is the object or its JSON."""
    made, thought = found.candidates_token_count, found.thoughts_token_count
    rest, read = found.prompt_token_count, found.cached_content_token_count
    output = (made or 0) + (thought or 0)
    if not output or found.total_token_count != rest + output:
        return None
    if read is not msgspec.UNSET:
        rest -= read
        if rest <= 0:
            return None
    return Usage(
        uncached_input_tokens=rest,
        cache_read_tokens=read or None,
        completion_tokens=output,
        reasoning_tokens=thought or None,
        raw=_decode(raw) if type(raw) is bytes else dict(raw),
    ).read_by(gemini_usage, positive=raw if type(raw) is bytes else True)


def _any_gemini_usage(raw: Any) -> Usage:
    reading = _Reading(raw)
    prompt, tools = (reading.count("uncached_input_tokens", names) for names in _GEMINI_INPUT)
    made, thought = (reading.count("completion_tokens", names) for names in _GEMINI_OUTPUT)
    read, total = reading.count("cache_read_tokens", _GEMINI_READ), reading.count("total_tokens")
    usage = Usage(cache_read_tokens=read, reasoning_tokens=thought)
    if prompt is not None:
        _put_input(usage, reading, prompt + (tools or 0), 0, frozenset())
    if made is not None or thought is not None:
        usage.completion_tokens = (made or 0) + (thought or 0)
    elif prompt is not None and total is not None and "completion_tokens" not in reading.doubts:
        usage.completion_tokens = max(0, total - prompt - (tools or 0))
    known = usage.prompt_tokens is not None and usage.completion_tokens is not None
    if known and total and total != usage.total_tokens:
        reading.doubt("completion_tokens", "the total is not the sum of the counts")
    usage = _finished(usage, reading, gemini_usage, OPENAI_TIERS)
    usage.audio_input_tokens = _of_modality(raw, "prompt", "AUDIO")
    usage.image_input_tokens = _of_modality(raw, "prompt", "IMAGE")
    usage.audio_output_tokens = _of_modality(raw, "candidates", "AUDIO")
    usage.image_output_tokens = _of_modality(raw, "candidates", "IMAGE")
    return usage


_GEMINI_INPUT = paths("promptTokenCount"), paths("toolUsePromptTokenCount")
_GEMINI_OUTPUT = paths("candidatesTokenCount"), paths("thoughtsTokenCount")
_GEMINI_READ = paths("cachedContentTokenCount")


def _of_modality(raw: Any, side: str, modality: str) -> int | None:
    """Return Gemini's count of the tokens of one modality; ``None`` without such a count."""
    details = raw.get(f"{side}TokensDetails") if isinstance(raw, Mapping) else None
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, Mapping) and entry.get("modality") == modality:
            count = number_in(entry.get("tokenCount"))
            return None if count is None else int(count)
    return None


def _finished(
    usage: Usage,
    reading: _Reading,
    reader: Callable[[Any], Usage],
    tiers: Mapping[str, str],
) -> Usage:
    """Add to a usage what all wires have in common."""
    raw = reading.raw
    usage.audio_input_tokens = reading.count("audio_input_tokens")
    usage.image_input_tokens = reading.count("image_input_tokens")
    usage.audio_output_tokens = reading.count("audio_output_tokens")
    usage.image_output_tokens = reading.count("image_output_tokens")
    if not reading.common:
        usage.cache_write_1h_tokens = reading.count("cache_write_1h_tokens")
        usage.web_searches = reading.count("web_searches")
        for path in CHARGED_APART:
            if reading.has((path,)):
                reading.doubt("web_searches", f"no rate covers {'.'.join(path)}")
        usage.cost = _cost(reading)
        if raw.get("search_context_size"):  # Perplexity's fee for each request
            reading.doubt("web_searches", "no rate covers its search_context_size")
        usage.service_tier = tier_in(raw, tiers)
    if usage.prompt_tokens == 0:
        reading.doubt("uncached_input_tokens", "a prompt of no tokens")
    usage.doubts = reading.doubts or None
    usage.raw = raw
    return usage.read_by(reader)


# -- input and output in the OpenAI family ---------------------------------------------------


def _beside(reading: _Reading, excess: int, named: dict[str, int]) -> frozenset[str]:
    """Return the counts that make up what the total has beside prompt and output.

    ``"thinking"`` is one that has no name. If nothing explains it, the output is in doubt.
    """
    for size in range(1, len(named) + 1):
        found = [n for n in combinations(named, size) if sum(map(named.__getitem__, n)) == excess]
        if len(found) > 1:
            reading.doubt("completion_tokens", "the total can be read in more than one way")
        if found:
            return frozenset(found[0])
    other = next((p for p, n in _numbers(reading.raw) if n == excess and p not in _CACHES), None)
    if other is not None:
        name = ".".join(other)[:60]  # it is the server's word
        reading.doubt("completion_tokens", f"the total counts {name!r}, too")
    elif "reasoning" in named:
        reading.doubt("completion_tokens", f"the total has {excess} tokens that nothing names")
    else:
        return frozenset({"thinking"})
    return frozenset()


_SHOWN: Final = frozenset(NAMES["uncached_input_tokens"] + NAMES["completion_tokens"])


def _numbers(raw: Mapping[str, Any], depth: int = 2) -> Iterator[tuple[Path, int]]:
    """Yield every whole number above 0 in an object with its path, but for prompt and output."""
    for name, value in raw.items():
        if isinstance(value, Mapping) and depth:
            yield from (((name, *path), n) for path, n in _numbers(value, depth - 1))
        elif type(value) is int and value > 0 and (name,) not in _SHOWN:
            yield (name,), value


def _put_input(
    usage: Usage, reading: _Reading, prompt: int, total: int, beside: frozenset[str]
) -> None:
    """Put a prompt into the bucket of what no cache had, by rules 2 and 4."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    inside = 0 if "read" in beside else read or 0
    inside += 0 if "written" in beside else written or 0
    usage.uncached_input_tokens = max(0, prompt - inside)
    _doubt_contradictions(reading, prompt)
    if not inside:
        return
    if not reading.common and reading.has(_EITHER) and not reading.has(_INSIDE_READ):
        reading.doubt("uncached_input_tokens", "the cache's tokens may be beside the input")
    theirs = not reading.common and reading.has(*BESIDE.values())
    if theirs and not beside & {"read", "written"} and not reading.has(*INSIDE.values()):
        alike = not reading.has(paths("prompt_tokens"))  # the input has their name, too
        if alike and total and inside <= prompt:
            reading.doubt("cache_read_tokens", "the cache's tokens may be part of the input")
        if alike or inside > prompt:
            usage.uncached_input_tokens = prompt
            return
    if inside > prompt:
        reading.doubt("cache_read_tokens", f"{inside} cache tokens in a prompt of {prompt}")
        fitting = min(read or 0, prompt)  # xAI's models at Azure: the total may be right
        usage.cache_read_tokens = None if read is None else fitting
        usage.cache_write_tokens = None if written is None else min(written, prompt - fitting)
        usage.uncached_input_tokens = prompt - fitting - (usage.cache_write_tokens or 0)


_EITHER: Final = paths("cachedInputTokens")
"""The AI SDK's name until version 5: OpenAI's are part of the input, Anthropic's beside it (vercel/ai#8349)."""
_INSIDE_READ: Final = tuple(path for path in INSIDE["read"] if path not in _EITHER)


def _doubt_contradictions(reading: _Reading, prompt: int) -> None:
    """Doubt the cache's tokens if two fields give different numbers of them."""
    if reading.common:
        return
    raw = reading.raw
    found = {number_in(at_path(raw, p)) for p in NAMES["cache_read_tokens"] if p[0] in raw}
    if len(found - {None, 0}) > 1:
        reading.doubt("cache_read_tokens", "two fields give different numbers of them")
    hit, missed = (number_in(raw.get(f"prompt_cache_{kind}_tokens")) for kind in ("hit", "miss"))
    if hit is not None and missed is not None and hit + missed not in (0, prompt):
        reading.doubt("cache_read_tokens", f"{hit} and {missed} tokens in a prompt of {prompt}")


# -- cost ------------------------------------------------------------------------------------


def _cost(reading: _Reading) -> float | None:
    """Return the provider's own figure for the cost, in USD.

    A ``cost`` of 0 counts: OpenRouter has free models. Under any other name, 0 means that the
    server does not know.
    """
    raw = reading.raw
    for path in COST:
        value = at_path(raw, path) if path[0] in raw else None
        if value is None or isinstance(value, Mapping):
            continue
        amount = amount_in(value)
        if amount is None:
            reading.doubt("cost", f"{'.'.join(path)} is not an amount")
        elif amount or path == ("cost",):
            currency = raw.get("currency") or at_path(raw, ("cost", "currency"))
            if isinstance(currency, str) and currency.upper() not in ("USD", "$", "US$"):
                reading.doubt("cost", "it is not in USD")
                return None
            reading.doubts.pop("cost", None)
            return amount
    return None


def amount_in(value: Any) -> float | None:
    """Return an amount in USD that is given as a number or as text.

    ``None`` for anything else, and for what can't be an amount (negative, 1e12 or more).
    """
    number = number_in(value)
    return float(number) if number is not None and number < 1e12 else None


def at_path(raw: Any, path: Iterable[str]) -> Any:
    """Return the value at a path of names; ``None`` where there is none."""
    for name in path:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw


# -- tiers -----------------------------------------------------------------------------------

OPENAI_TIERS: Final = {
    **dict.fromkeys(("default", "standard_only", "on_demand"), "standard"),
    "fast": "priority",  # OpenAI's newer name for it
}
"""Words for service tiers in OpenAI's family, where they differ from those of `Usage`."""
ANTHROPIC_TIERS: Final = {**OPENAI_TIERS, "priority": "committed"}
"""Likewise for Anthropic, whose priority tier is paid by contract."""
_NOT_SAID: Final = frozenset({"", "auto", "none", "null"})
"""Words that leave the tier open."""
_ANYWHERE: Final = ("global", "not_available")
"""Words for places that have no price of their own."""
_TRAFFIC: Final = ("extra_properties", "google", "traffic_type")
"""The place of the tier in Vertex's usage: ``ON_DEMAND``, ``ON_DEMAND_PRIORITY`` and others."""


TERMS: Final = frozenset(
    {"service_tier", "speed", "inference_geo", _TRAFFIC[0], "serviceTier", "trafficType"}
)
"""Fields that `terms_in` reads."""


TERM_CHARS: Final = 40
"""Characters that count of what such a field says."""


def terms_in(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an answer or a request that its price depends on.

    ``service_tier`` is OpenAI's and Anthropic's, ``speed`` and ``inference_geo`` are Anthropic's,
    ``serviceTier`` is Gemini's, and ``trafficType`` is Vertex AI's.
    """
    if TERMS.isdisjoint(raw):
        return {}
    found = {name: raw.get(name) for name in ("service_tier", "speed", "inference_geo")}
    traffic = at_path(raw, _TRAFFIC) if _TRAFFIC[0] in raw else raw.get("trafficType")
    if not found["service_tier"] and isinstance(raw.get("serviceTier"), str):
        found["service_tier"] = raw["serviceTier"]
    elif isinstance(traffic, str) and not found["service_tier"]:
        found["service_tier"] = traffic.lower().removeprefix("on_demand_")
    words = {k: v.lower()[:TERM_CHARS] for k, v in found.items() if isinstance(v, str)}
    return {name: word for name, word in words.items() if word not in _NOT_SAID}


def tier_in(raw: Mapping[str, Any], tiers: Mapping[str, str]) -> str | None:
    """Return the service tier that an answer or a request names, in the words of `Usage`.

    ``None`` if nothing is said; ``"auto"`` says nothing.
    """
    return tier_of(terms_in(raw), tiers)


def tier_of(terms: Mapping[str, str], tiers: Mapping[str, str]) -> str | None:
    """Return the service tier that such fields (`terms_in`) name, in the words of `Usage`."""
    found = [
        tiers.get(word, word) if name == "service_tier" else word
        for name, word in terms.items()
        if word not in _ANYWHERE
    ]
    special = [word for word in found if word != "standard"]
    return "+".join(special) if special else (found[0] if found else None)
