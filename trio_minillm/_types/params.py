"""The typed parameters of a call, and the values that some of them take.

`Params` lists each parameter once; a provider's request builder says how it is sent. A parameter
that a wire format does not have is an error there, never silently dropped.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from .checks import check_option, check_type, wrong_type
from .messages import CacheHint, check_cache
from .schemas import JSONObject, plain_name, schema_of
from .tools import Tool


class JSONSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A response format: JSON that matches ``schema``.

    ``strict`` asks the provider to enforce the schema, which is then closed: every property is
    required, and no others are allowed. A schema that its strict mode can't take (maps, values of any
    type) is asked for without, or is a ``ValueError`` where there is no other mode. A root that is no
    object is put into one. ``type`` is what `CompletionResponse.parsed` decodes into.
    """

    schema: JSONObject
    name: str = "response"
    """Name of the schema, which the model may see."""
    description: str | None = None
    """Purpose of the answer, for the model."""
    strict: bool = True
    type: Any = None

    def __post_init__(self) -> None:
        check_type("schema", self.schema, Mapping)
        if self.name is None:
            msgspec.structs.force_setattr(self, "name", "response")
        check_type("name", self.name, str)
        check_option("description", self.description, str)
        check_type("strict", self.strict, bool)


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """The amount of reasoning before the answer: ``effort`` or ``budget``, not both.

    ``effort`` is one of the provider's words (``minimal`` … ``high``); ``budget`` is in tokens;
    ``enabled=False`` turns reasoning off. ``summary`` and ``exclude`` control how much of it is
    shown.

    Raises ``TypeError`` for a value of another type, ``ValueError`` for an empty effort, a negative
    budget, and if both are given.
    """

    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None
    summary: str | None = None
    exclude: bool | None = None

    def __post_init__(self) -> None:
        for name, kind in (("effort", str), ("budget", int), ("summary", str)):
            check_option(name, getattr(self, name), kind)
        for name in ("enabled", "exclude"):
            check_option(name, getattr(self, name), bool)
        if self.effort == "":
            raise ValueError("reasoning effort must not be empty")
        if self.budget is not None and (isinstance(self.budget, bool) or self.budget < -1):
            raise ValueError(
                "reasoning budget must be a number of tokens, 0 or more, or -1 where a server takes"
                " that for one of its own choice"
            )
        if self.effort is not None and self.budget is not None:
            raise ValueError("give reasoning effort or budget, not both")

    @property
    def is_off(self) -> bool:
        """True if it asks for no reasoning at all: ``enabled=False``, or an effort of ``"none"``."""
        return self.enabled is False or self.effort == "none"


def reasoning_of(given: Reasoning | str | int | bool) -> Reasoning:
    """Return a `Reasoning`, of which ``"low"``, ``2000`` and ``False`` are shorthands."""
    if isinstance(given, Reasoning):
        return given
    if isinstance(given, bool):
        return Reasoning(enabled=given)
    return Reasoning(budget=given) if isinstance(given, int) else Reasoning(effort=given)


def format_of(given: Any) -> JSONSchema | Literal["json", "text"] | JSONObject:
    """Return the format that ``response_format`` asks for.

    A type becomes a `JSONSchema`; the rest stays as it is: ``"json"``, ``"text"``, a `JSONSchema`,
    or the provider's own mapping. Raises ``ValueError`` for another string, ``TypeError`` for what
    is no type, or is one that JSON can't hold.
    """
    if isinstance(given, JSONSchema):
        return given
    if isinstance(given, Mapping):
        return dict(given)
    if given in ("json", "text"):
        return "json" if given == "json" else "text"
    if isinstance(given, str):
        raise ValueError("response_format is 'json', 'text', a JSONSchema, a type or a mapping")
    name = plain_name(getattr(given, "__name__", None))
    try:
        schema = schema_of(given)
    except TypeError as exc:
        raise TypeError(f"response_format: {exc}") from exc.__cause__
    return JSONSchema(schema=schema, name=name, type=given)


class PlainParams(TypedDict, total=False):
    """The parameters of `Params` of which no type depends: all but ``response_format``."""

    # In every wire format, or most of them
    max_tokens: int | None
    """The most tokens of the answer. Reasoning counts where the wire format counts it."""
    temperature: float | None
    """The randomness of the answer: 0 for the most likely tokens, 1 is usual."""
    top_p: float | None
    """The share of probability, from 0 to 1, from which each token is drawn."""
    top_k: int | None
    """The number of likeliest tokens from which each token is drawn."""
    stop: str | Sequence[str] | None
    """The texts before which generation stops. They are not in the answer."""
    seed: int | None
    """A number that makes answers repeatable, as far as the server can."""
    tools: Sequence[Tool | type | Callable[..., Any] | Mapping[str, Any]] | None
    """The functions that the model may call: `Tool`, Python functions, types, or the provider's own
    mappings."""
    tool_choice: str | Tool | type | Callable[..., Any] | Mapping[str, Any] | None
    """``auto``, ``none``, ``required``, one of ``tools`` or its name, or the provider's own mapping."""
    parallel_tool_calls: bool | None
    """True if the model may call several tools in one answer."""
    reasoning: Reasoning | str | int | bool | None
    """The amount of reasoning before the answer: an effort (``"low"``), a budget in tokens, True or
    False, or `Reasoning`."""
    user: str | None
    """An id of the end user, for the provider's checks against abuse."""
    metadata: Mapping[str, str] | None
    """Names and values that the provider keeps with the request."""
    service_tier: str | None
    """The provider's class of service (``"flex"``, ``"priority"`` …), which sets speed and price."""
    cache: CacheHint
    """A cache breakpoint after the last block that can be cached (Anthropic, OpenRouter)."""

    # OpenAI and most servers that speak its format
    frequency_penalty: float | None
    """A penalty, from -2 to 2, for tokens by how often they have occurred."""
    presence_penalty: float | None
    """A penalty, from -2 to 2, for tokens that have occurred at all."""
    logit_bias: Mapping[str, float] | None
    """Numbers to add to the logits of tokens, by the tokens' ids."""
    logprobs: bool | None
    """True for the log probabilities of tokens, in chunks and in the response."""
    top_logprobs: int | None
    """The number of likeliest tokens at each place that ``logprobs`` includes."""
    n: int | None
    """The number of answers to ask for. The response has them as `CompletionResponse.choices`."""
    verbosity: str | None
    """The length of the answer: ``"low"``, ``"medium"`` or ``"high"``."""
    prediction: str | Mapping[str, Any] | None
    """Text that the answer will probably contain, which makes it faster."""
    modalities: Sequence[str] | None
    """The kinds of output: ``["text", "audio"]``, ``["text", "image"]``."""
    audio: Mapping[str, Any] | None
    """The voice and the format of spoken output."""
    store: bool | None
    """True if the provider is to keep the answer."""
    moderation: Mapping[str, Any] | None
    """Settings of the provider's moderation."""
    web_search_options: Mapping[str, Any] | None
    """Settings of the provider's web search."""
    prompt_cache_key: str | None
    """A key that brings requests with the same beginning to the same cache."""
    prompt_cache_retention: str | None
    """The time for which the provider keeps the cached beginning (``"24h"``)."""
    prompt_cache_options: Mapping[str, Any] | None
    """Further settings of the prompt cache."""
    safety_identifier: str | None
    """A stable id of the end user, hashed, for the provider's safety checks."""
    include_obfuscation: bool | None
    """True if the provider is to pad events against traffic analysis."""
    stream_options: Mapping[str, Any] | None
    """Further fields of the request's ``stream_options`` (vLLM's ``continuous_usage_stats``)."""

    # Text completions
    suffix: str | None
    """Text that follows what is to be generated, where the model fills in the middle."""
    echo: bool | None
    """True if the answer begins with the prompt, with ``logprobs`` also that of its tokens."""
    best_of: int | None
    """The number of answers from which the server picks the best."""
    prompt_logprobs: int | None
    """Number of alternatives for each token of the prompt (vLLM's)."""

    # OpenAI Responses
    background: bool | None
    """True if the answer continues without its connection, and is resumed after a cut."""
    include: str | Sequence[str] | None
    """Further parts of the answer: ``reasoning.encrypted_content``, ``file_search_call.results`` …"""
    previous_response_id: str | None
    """The id of the stored response that this request continues."""
    conversation: str | Mapping[str, Any] | None
    """The stored conversation to which the request belongs."""
    truncation: str | None
    """The treatment of a conversation that is too long: ``"auto"`` drops parts of it, ``"disabled"``
    refuses it."""
    max_tool_calls: int | None
    """The most calls of the provider's built-in tools in one answer."""

    # OpenRouter, and samplers that servers of open-weight models share with it
    min_p: float | None
    """The least probability of a token, relative to the likeliest, for it to be drawn."""
    top_a: float | None
    """Like ``min_p``, with a threshold that grows with the square of the likeliest token's probability."""
    repetition_penalty: float | None
    """A factor, 1 for none, by which tokens that have occurred become less likely."""
    models: Sequence[str] | None
    """Models that OpenRouter asks in turn if the first can't answer."""
    provider: Mapping[str, Any] | None
    """OpenRouter's routing options: ``order``, ``only``, ``ignore``, ``sort``, ``max_price`` …"""
    plugins: Sequence[Mapping[str, Any]] | None
    """OpenRouter's plugins, with their settings."""
    session_id: str | None
    """An id that groups requests at OpenRouter."""
    trace: Mapping[str, Any] | None
    """Fields that OpenRouter passes on to the traces of the account."""
    image_config: Mapping[str, Any] | None
    """Settings of generated images: ``aspect_ratio`` …"""

    # Anthropic
    container: str | Mapping[str, Any] | None
    """The id or the settings of the container in which Anthropic runs code."""
    context_management: Mapping[str, Any] | None
    """The ways in which the server clears or compacts a long context."""
    mcp_servers: Sequence[Mapping[str, Any]] | None
    """Servers of the Model Context Protocol that Anthropic connects to itself."""
    inference_geo: str | None
    """The region in which the model must run."""
    speed: str | None
    """``"fast"`` for a faster, more expensive mode, where the model has one."""
    betas: str | Sequence[str] | None
    """Names of beta features, sent in the header ``anthropic-beta``."""


class Params(PlainParams, total=False):
    """The typed parameters of a call; ``None`` is the same as leaving a parameter out."""

    response_format: Any
    """``"json"``, a `JSONSchema`, a type, or the provider's own mapping."""


PARAM_NAMES: frozenset[str] = frozenset(Params.__annotations__)

Call = TypeVar("Call", bound=Callable[..., Any])

_SHOWN = [
    inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=getattr(kind, "__forward_arg__", kind),
    )
    for name, kind in Params.__annotations__.items()
]

OTHER_WAYS = {
    "system": "give llm.system(…) as the first message",
    "stop_sequences": "use stop=",
    "stream": "every answer is streamed",
    "max_completion_tokens": "use max_tokens=",
    "max_output_tokens": "use max_tokens=",
    "reasoning_effort": "use reasoning=",
    "thinking": "use reasoning=",
    "functions": "use tools=",
    "timeout": "use timeouts=llm.Timeouts(…)",
    "retries_invalid": "client.complete and batches ask again, streams do not",
}
"""Names that others have for what is done in another way here."""


def show_params(call: Call) -> Call:
    """Return a function that takes ``**params``, with a signature that has each parameter by name.

    Type checkers read that from the annotation, but notebooks complete what the signature has, and
    `help` shows it.
    """
    own = inspect.signature(call)
    kinds = own.parameters.values()
    fixed = [one for one in kinds if one.kind is not inspect.Parameter.VAR_KEYWORD]
    call.__signature__ = own.replace(parameters=[*fixed, *_SHOWN])  # type: ignore[attr-defined]
    return call


def check_names(given: Iterable[str], options: Iterable[str] = ()) -> None:
    """Raise ``TypeError`` for a name that is no parameter, with a hint from these and ``options``."""
    unknown = sorted(set(given) - PARAM_NAMES)
    if unknown:
        from difflib import get_close_matches  # rarely needed, and slow to import

        close = get_close_matches(unknown[0], sorted(PARAM_NAMES.union(options)), 1)
        other = "extra={…} sends any field"
        hint = f"did you mean {close[0]}? {other}" if close else other
        hint = OTHER_WAYS.get(unknown[0], hint)
        raise TypeError(f"unknown parameter: {', '.join(unknown)} ({hint})")


def check_params(given: Mapping[str, Any], options: Iterable[str] = ()) -> int:
    """Check the parameters of a call and return the number of choices that they ask for.

    ``options`` are the names of other keywords that the caller takes, for the hint in the error.
    Raises ``TypeError`` for an unknown parameter and for a value of another type, ``ValueError`` for
    a value that makes no sense.
    """
    if not given.keys() <= PARAM_NAMES:
        check_names(given, options)
    kinds = _kinds()
    for name, value in given.items():
        kind = kinds[name]
        if type(value) not in kind.exact:
            _check_value(name, value, kind)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number")
        if name in _LEAST and value < _LEAST[name][0]:
            raise ValueError(f"{name} must be {_LEAST[name][1]}")
    if "" in stops_in(given):
        raise ValueError("stop must not hold an empty text: nothing would be generated")
    choices: int = given.get("n", 1)
    return choices


_LEAST = {
    "best_of": (1, "a whole number from 1 on"),
    "max_tokens": (-1, "0 or more, or -1 where a server takes that for no bound"),
    "max_tool_calls": (0, "0 or more"),
    "n": (1, "a whole number from 1 on"),
    "repetition_penalty": (0, "0 or more"),
}
"""The least value of some parameters, and what is wanted of them. Only what all servers refuse is here:
llama.cpp takes any temperature and any share, vLLM -1 as a number of log probabilities. A
``max_tokens`` of 0 fills Anthropic's cache."""


def stops_in(params: Mapping[str, Any]) -> list[str]:
    """Return the stop sequences of a call; none if there are none, of which servers take no list."""
    stop = params.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


class _Kind(msgspec.Struct, frozen=True):
    """The values that a parameter may have."""

    types: tuple[Any, ...]
    items: tuple[Any, ...]
    """Types of the entries, if it may be a list."""
    exact: frozenset[Any]
    """Types whose values need no closer look."""


@lru_cache(maxsize=1)
def _kinds() -> Mapping[str, _Kind]:
    """Return the kind of each parameter, from its annotation."""
    kinds = {name: _kind(hint) for name, hint in get_type_hints(Params).items()}
    kinds["logit_bias"] = msgspec.structs.replace(kinds["logit_bias"], exact=frozenset())
    return kinds


def _kind(hint: Any) -> _Kind:
    types: list[Any] = []
    items: tuple[Any, ...] = ()
    for one in _members(hint):
        origin = get_origin(one) or one
        if origin is Sequence:
            (item,) = get_args(one)
            items = tuple(get_origin(x) or x for x in _members(item))
        elif origin is float:
            types += [float, int]
        elif origin is Any or origin is Literal:  # checked elsewhere
            types.append(object)
        elif origin is not NoneType:
            types.append(origin)
    return _Kind(tuple(types), items, frozenset({dict if t is Mapping else t for t in types}))


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


_NO_LIST = (str, bytes, bytearray, Mapping)


def _check_value(name: str, value: Any, kind: _Kind) -> None:
    """Check a value whose type alone does not say that it is a good one."""
    if name == "cache":
        check_cache(value)
        return
    if name == "logit_bias" and isinstance(value, Mapping):
        for bias in value.values():
            if isinstance(bias, bool) or not isinstance(bias, int | float):
                raise wrong_type("each value of logit_bias", bias, int, float)
        return
    if kind.items and isinstance(value, Collection) and not isinstance(value, _NO_LIST):
        for item in value:
            if not isinstance(item, kind.items):
                raise wrong_type(f"each entry of {name}", item, *kind.items)
        return
    other = isinstance(value, bool) and bool not in kind.types and object not in kind.types
    if other or not isinstance(value, kind.types):
        raise wrong_type(name, value, *kind.types, *(["a list"] if kind.items else []))
