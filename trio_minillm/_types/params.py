"""What we ask for beside the messages: tools, formats, reasoning, and the typed parameters.

`Params` lists every typed parameter once; each provider's file says what becomes of each on
its wire. A parameter that a wire does not have is an error there, never silently dropped.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_type_hints

import msgspec

from .messages import CacheHint, ToolCall

JSONObject: TypeAlias = dict[str, Any]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call. ``parameters`` is a JSON schema of an object.

    Make one from a function or a msgspec type with `tool`, or give the schema here.
    """

    name: str
    description: str = ""
    parameters: JSONObject = msgspec.field(default_factory=lambda: {"type": "object"})
    strict: bool | None = None
    """Ask the provider to hold the arguments to the schema (which it then closes)."""
    cache: CacheHint = None
    function: Callable[..., Any] | None = None
    type: Any = None
    """What the arguments are read into by `read`."""

    def read(self, call: ToolCall) -> Any:
        """The call's arguments in the tool's own type (a ``dict`` for a plain schema).

        Raises `msgspec.ValidationError` where they don't fit.
        """
        return call.parsed(Any if self.type is None else self.type)

    def call(self, call: ToolCall) -> Any:
        """Run the tool's function with the call's arguments; awaitable if it is async.

        Raises `msgspec.ValidationError` before the function is entered if they don't fit.
        """
        if self.function is None:
            raise TypeError(f"tool {self.name!r} was not made from a function")
        given = self.read(call)
        return self.function(**{f: getattr(given, f) for f in given.__struct_fields__})


def tool(
    source: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    cache: CacheHint = None,
) -> Tool:
    """A `Tool` from a typed function or a msgspec Struct (or dataclass, or TypedDict).

    The name and the docstring's first paragraph come from the source unless given. Parameters
    without annotation are an error; describe one with ``Annotated[str, msgspec.Meta(...)]``.
    """
    if isinstance(source, type):
        target, function = source, None
    elif callable(source):
        target, function = _arguments_type(source), source
    else:
        raise TypeError(f"a tool is made from a function or a type, not {type(source).__name__}")
    if description is None:
        doc = (inspect.getdoc(source) if function or source.__doc__ else None) or ""
        generated = doc.startswith(f"{source.__name__}(")  # dataclasses write their signature
        description = "" if generated else doc.split("\n\n")[0].strip()
    return Tool(
        name=name or source.__name__,
        description=description,
        parameters=schema_of(target),
        strict=strict,
        cache=cache,
        function=function,
        type=target,
    )


def _arguments_type(function: Callable[..., Any]) -> type:
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {name!r} can't be given by name")
        if name not in hints:
            raise TypeError(f"parameter {name!r} has no annotation")
        if parameter.default is parameter.empty:
            fields.append((name, hints[name]))
        else:
            fields.append((name, hints[name], parameter.default))
    return msgspec.defstruct(function.__name__, fields, kw_only=True)


def schema_of(type: Any) -> JSONObject:
    """The JSON schema of a type, with its root in place (providers refuse a ``$ref`` there)."""
    (root,), components = msgspec.json.schema_components([type], ref_template="#/$defs/{name}")
    schema = dict(root)
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name in components:
        schema = dict(components[name])
        if f"#/$defs/{name}" not in str(components):
            components = {k: v for k, v in components.items() if k != name}
    if components:
        schema["$defs"] = components
    return schema


def closed(schema: Any) -> Any:
    """The schema as strict modes want it: every object closed, every property required."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema  # `true` and `false` are schemas too
    out = {key: _closed_keyword(key, value) for key, value in schema.items()}
    properties = out.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    is_map = isinstance(out.get("additionalProperties"), Mapping)  # strict modes refuse those
    if (properties or out.get("type") == "object") and not is_map:
        out |= {"additionalProperties": False, "required": list(properties)}
        for prop in properties.values():
            if isinstance(prop, dict):
                prop.pop("default", None)
    return out


def _closed_keyword(key: str, value: Any) -> Any:
    named = key in ("properties", "$defs", "definitions", "patternProperties")
    if named and isinstance(value, Mapping):
        return {name: closed(sub) for name, sub in value.items()}
    return value if key in ("default", "enum", "const", "examples") else closed(value)


class JSONSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A response format: JSON that fits ``schema``. ``strict`` asks the provider to enforce it."""

    schema: JSONObject
    name: str = "response"
    description: str | None = None
    strict: bool = True
    type: Any = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """How much the model may think first. Give ``effort`` or ``budget``, not both.

    ``effort`` is the provider's word (``minimal`` … ``high``); ``budget`` is in tokens;
    ``enabled=False`` asks for none. ``summary`` and ``exclude`` say what is shown of it.
    """

    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None
    summary: str | None = None
    exclude: bool | None = None

    def __post_init__(self) -> None:
        if self.effort is not None and self.budget is not None:
            raise ValueError("give reasoning effort or budget, not both")


def reasoning_of(given: Reasoning | str | int | bool) -> Reasoning:
    """A shorthand (``"low"``, ``2000``, ``False``) as a `Reasoning`."""
    if isinstance(given, Reasoning):
        return given
    if isinstance(given, bool):
        return Reasoning(enabled=given)
    return Reasoning(budget=given) if isinstance(given, int) else Reasoning(effort=given)


def tools_of(given: Sequence[Any]) -> list[Tool | JSONObject]:
    """Each tool as a `Tool`; a mapping is a provider's own tool and goes out as it is."""
    out: list[Tool | JSONObject] = []
    for item in given:
        if isinstance(item, Tool):
            out.append(item)
        elif isinstance(item, Mapping):
            out.append(dict(item))
        else:
            out.append(tool(item))
    return out


def format_of(given: Any) -> JSONSchema | Literal["json", "text"] | JSONObject:
    """``"json"``, ``"text"``, a `JSONSchema`, a type, or the wire's own mapping."""
    if isinstance(given, JSONSchema):
        return given
    if isinstance(given, Mapping):
        return dict(given)
    if given in ("json", "text"):
        return "json" if given == "json" else "text"
    if isinstance(given, str):
        raise ValueError("response_format is 'json', 'text', a JSONSchema, a type or a mapping")
    name = getattr(given, "__name__", "response")
    return JSONSchema(schema=schema_of(given), name=name, type=given)


class Params(TypedDict, total=False):
    """The typed parameters of a call. ``None`` is the same as leaving it out."""

    # on every wire, or most of them
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    tools: Sequence[Tool | type | Callable[..., Any] | Mapping[str, Any]] | None
    tool_choice: str | Tool | Mapping[str, Any] | None
    """``auto``, ``none``, ``required``, a tool (or its name), or the wire's own mapping."""
    parallel_tool_calls: bool | None
    response_format: Any
    """``"json"``, a `JSONSchema`, a msgspec type, or the wire's own mapping."""
    reasoning: Reasoning | str | int | bool | None
    user: str | None
    metadata: Mapping[str, str] | None
    service_tier: str | None
    cache: CacheHint
    """A breakpoint behind the last cacheable block (Anthropic, OpenRouter)."""

    # OpenAI and most servers that speak its wire
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[str, int] | None
    logprobs: bool | None
    top_logprobs: int | None
    n: int | None
    verbosity: str | None
    prediction: str | Mapping[str, Any] | None
    modalities: Sequence[str] | None
    audio: Mapping[str, Any] | None
    store: bool | None
    moderation: Mapping[str, Any] | None
    web_search_options: Mapping[str, Any] | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    prompt_cache_options: Mapping[str, Any] | None
    safety_identifier: str | None
    include_obfuscation: bool | None
    stream_options: Mapping[str, Any] | None
    """Added to what is asked of the stream (vLLM's ``continuous_usage_stats``)."""

    # OpenRouter, and samplers that open-weight servers share with it
    min_p: float | None
    top_a: float | None
    repetition_penalty: float | None
    models: Sequence[str] | None
    provider: Mapping[str, Any] | None
    """OpenRouter's routing settings: ``order``, ``only``, ``ignore``, ``sort``, ``max_price`` …"""
    plugins: Sequence[Mapping[str, Any]] | None
    session_id: str | None
    trace: Mapping[str, Any] | None
    image_config: Mapping[str, Any] | None

    # Anthropic
    container: str | Mapping[str, Any] | None
    context_management: Mapping[str, Any] | None
    mcp_servers: Sequence[Mapping[str, Any]] | None
    inference_geo: str | None
    speed: str | None
    betas: Sequence[str] | None


PARAM_NAMES: frozenset[str] = frozenset(Params.__annotations__)


def check_params(given: Mapping[str, Any], options: Iterable[str] = ()) -> int:
    """Check parameters that were given, beside ``options`` of another kind, and return how many
    answers they ask for. Raises ``TypeError`` for an unknown one, ``ValueError`` for a bad one.
    """
    unknown = sorted(set(given) - PARAM_NAMES)
    if unknown:
        from difflib import get_close_matches  # seldom needed, and slow to load

        close = get_close_matches(unknown[0], sorted(PARAM_NAMES.union(options)), 1)
        hint = f"did you mean {close[0]}?" if close else "extra={…} sends any field"
        raise TypeError(f"unknown parameter: {', '.join(unknown)} ({hint})")
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number")
    choices = given.get("n", 1)
    if isinstance(choices, bool) or not isinstance(choices, int) or choices < 1:
        raise ValueError("n must be a whole number from 1 on")
    return choices
