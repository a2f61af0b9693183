"""Tools, formats and reasoning: the shorthands, and the neutral values that they become."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._types.params import (
    PARAM_NAMES,
    check_names,
    check_params,
    format_of,
    reasoning_of,
)
from trio_minillm._types.schemas import schema_of
from trio_minillm._types.tools import choice_of, tools_of
from trio_minillm.testing import ScriptedTransport


def call(name: str, arguments: str = "") -> llm.ToolCall:
    return llm.ToolCall(id="call_1", name=name, arguments=arguments)


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(msgspec.Struct):
    """Somewhere on the planet."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lon: float


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


def weather(
    city: Annotated[str, msgspec.Meta(description="its name in English")],
    unit: Unit = Unit.CELSIUS,
    *,
    days: int = 1,
) -> str:
    """The weather in a city.

    What follows the first paragraph is for people.
    """
    return f"{city} {unit.value} {days}"


async def slow_weather(city: str) -> str:
    """The weather, later."""
    return f"{city}!"


# -- tools from functions --------------------------------------------------------------------


def test_a_tool_from_a_function() -> None:
    made = llm.tool(weather)
    assert (made.name, made.description) == ("weather", "The weather in a city.")
    assert (made.strict, made.cache, made.function) == (None, None, weather)
    assert made.parameters == {
        "title": "weather",
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "its name in English"},
            "unit": {"$ref": "#/$defs/Unit", "default": "c"},
            "days": {"type": "integer", "default": 1},
        },
        "required": ["city"],
        "$defs": {"Unit": {"title": "Unit", "enum": ["c", "f"]}},
    }


def test_what_is_given_beats_what_is_found() -> None:
    made = llm.tool(weather, name="sky", description="Look up.", strict=True, cache="1h")
    assert (made.name, made.description, made.strict, made.cache) == (
        "sky",
        "Look up.",
        True,
        "1h",
    )
    assert llm.tool(weather, description="").description == ""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ('{"city": "Rome"}', "Rome c 1"),
        ('{"city": "Rome", "unit": "f", "days": 3}', "Rome f 3"),
        ('{"city": "Rome", "invented": true}', "Rome c 1"),
        (' {"days": 2, "city": "Köln"} ', "Köln c 2"),
    ],
)
def test_calling_a_tool_runs_its_function(arguments: str, answer: str) -> None:
    assert llm.tool(weather).call(call("weather", arguments)) == answer


async def test_calling_an_async_tool_gives_an_awaitable() -> None:
    pending = llm.tool(slow_weather).call(call("slow_weather", '{"city": "Rome"}'))
    assert inspect.isawaitable(pending)
    assert await pending == "Rome!"


@pytest.mark.parametrize(
    "arguments", ["", "{}", '{"city": 5}', '{"city": "Rome", "unit": "k"}', "[]", "null"]
)
def test_arguments_that_dont_fit_never_reach_the_function(arguments: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        llm.tool(weather).call(call("weather", arguments))


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "Rome", "{'city': 'Rome'}"])
def test_arguments_that_are_not_json(arguments: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        llm.tool(weather).call(call("weather", arguments))


def test_a_tool_without_parameters() -> None:
    def ping() -> str:
        """Ping."""
        return "pong"

    made = llm.tool(ping)
    assert made.parameters == {"title": "ping", "type": "object", "properties": {}, "required": []}
    for nothing in ("", "  ", "{}"):
        assert made.call(call("ping", nothing)) == "pong"


def test_a_method_is_a_tool_without_its_self() -> None:
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def add(self, n: int) -> int:
            """Count on."""
            self.n += n
            return self.n

    counter = Counter()
    made = llm.tool(counter.add)
    assert list(made.parameters["properties"]) == ["n"]
    assert made.call(call("add", '{"n": 2}')) == 2
    assert counter.n == 2


def no_annotation(city) -> None:  # type: ignore[no-untyped-def]
    pass


def positional_only(city: str, /) -> None:
    pass


def many(*cities: str) -> None:
    pass


def anything(**cities: str) -> None:
    pass


@pytest.mark.parametrize("source", [no_annotation, positional_only, many, anything])
def test_a_function_that_cant_be_a_tool(source: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="cit"):
        llm.tool(source)


@pytest.mark.parametrize("source", ["weather", 5, None, functools.partial(weather, days=2)])
def test_what_cant_be_a_tool(source: Any) -> None:
    with pytest.raises(TypeError):
        llm.tool(source)


def test_a_function_without_docstring_has_no_description() -> None:
    def bare(x: int) -> int:
        return x

    assert llm.tool(bare).description == ""


# -- tools from types ------------------------------------------------------------------------


@dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


@dataclass
class Undocumented:
    x: int


class Box(TypedDict):
    """A box."""

    width: int


@pytest.mark.parametrize(
    ("source", "description", "arguments", "value"),
    [
        (Place, "Somewhere on the planet.", '{"lat": 1, "lon": 2}', Place(1.0, 2.0)),
        (Point, "A point.", '{"x": 1}', Point(1)),
        (Box, "A box.", '{"width": 3}', {"width": 3}),
        (Tree, "", '{"value": 1, "children": [{"value": 2}]}', Tree(1, [Tree(2)])),
        # A dataclass without docstring gets one from Python: its signature, which is no
        # description.
        (Undocumented, "", '{"x": 1}', Undocumented(1)),
    ],
)
def test_a_tool_from_a_type(source: Any, description: str, arguments: str, value: Any) -> None:
    made = llm.tool(source)
    assert (made.name, made.description) == (source.__name__, description)
    assert made.parameters["type"] == "object"
    assert made.read(call(made.name, arguments)) == value
    with pytest.raises(TypeError, match="not made from a function"):
        made.call(call(made.name, arguments))


def test_a_tool_from_a_schema_reads_plain_json() -> None:
    made = llm.Tool(name="t", parameters={"type": "object"})
    assert made.read(call("t", '{"a": [1]}')) == {"a": [1]}
    assert made.read(call("t")) == {}
    with pytest.raises(TypeError, match="'t' was not made from a function"):
        made.call(call("t"))


def test_no_parameters_is_an_object_without_any() -> None:
    one, other = llm.Tool(name="a"), llm.Tool(name="b")
    assert one.parameters == {"type": "object"}
    assert one.parameters is not other.parameters


def test_the_schema_of_a_recursive_type_has_its_root_in_place() -> None:
    assert schema_of(Tree) == {
        "title": "Tree",
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "default": []},
        },
        "required": ["value"],
        "$defs": {
            "Tree": {
                "title": "Tree",
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {
                        "type": "array",
                        "items": {"$ref": "#/$defs/Tree"},
                        "default": [],
                    },
                },
                "required": ["value"],
            }
        },
    }


class Route(msgspec.Struct):
    stops: list[Place]
    mode: Literal["car", "foot"] = "car"
    note: str | None = None


def test_the_schema_of_a_nested_type_names_its_inner_types() -> None:
    schema = schema_of(Route)
    assert "$ref" not in schema
    assert list(schema["$defs"]) == ["Place"]
    assert schema["properties"]["stops"]["items"] == {"$ref": "#/$defs/Place"}
    assert schema["$defs"]["Place"]["properties"]["lat"] == {
        "type": "number",
        "minimum": -90,
        "maximum": 90,
    }


def test_the_schema_of_a_type_that_is_no_object() -> None:
    assert schema_of(list[int]) == {"type": "array", "items": {"type": "integer"}}


# -- the shorthands --------------------------------------------------------------------------


def test_each_kind_of_tool_is_taken() -> None:
    made, own = llm.Tool(name="a"), {"type": "web_search_20250305", "name": "web_search"}
    found = tools_of([made, own, weather, Place])
    assert found[0] is made
    assert found[1] == own
    assert found[1] is not own
    assert [t.name for t in found[2:] if isinstance(t, llm.Tool)] == ["weather", "Place"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (llm.Reasoning(effort="low"), llm.Reasoning(effort="low")),
        ("high", llm.Reasoning(effort="high")),
        (2000, llm.Reasoning(budget=2000)),
        (True, llm.Reasoning(enabled=True)),
        (False, llm.Reasoning(enabled=False)),
    ],
)
def test_reasoning_shorthands(given: Any, meant: llm.Reasoning) -> None:
    assert reasoning_of(given) == meant


def test_effort_and_budget_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        llm.Reasoning(effort="low", budget=2000)


@pytest.mark.parametrize("wire_own", [{"type": "grammar", "grammar": "root ::= x"}, {}])
def test_a_format_in_the_wires_own_words(wire_own: dict[str, Any]) -> None:
    found = format_of(wire_own)
    assert found == wire_own
    assert found is not wire_own


def test_formats_by_name_and_by_type() -> None:
    own = llm.JSONSchema(schema={"type": "object"}, name="own")
    assert format_of(own) is own
    assert (format_of("json"), format_of("text")) == ("json", "text")
    made = format_of(Place)
    assert made == llm.JSONSchema(schema=schema_of(Place), name="Place", type=Place)
    assert made.strict  # type: ignore[union-attr]
    nameless = format_of(Place | None)
    assert isinstance(nameless, llm.JSONSchema)
    assert nameless.name == "response"


@pytest.mark.parametrize("wrong", ["yaml", "json_object", ""])
def test_an_unknown_format_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="response_format"):
        format_of(wrong)


# -- which parameters there are --------------------------------------------------------------

WHERE = {
    "openai": llm.openai("m", api_key="k"),
    "openrouter": llm.openrouter("m", api_key="k"),
    "anthropic": llm.anthropic("m", api_key="k"),
    "responses": llm.openai_responses("m", api_key="k"),
    "text": llm.text_completions("m", base_url="http://h/v1"),
    "generic": llm.compatible("m", base_url="http://h/v1"),
    "azure": llm.compatible("m", base_url="http://h/v1", server="azure"),
    "mistral": llm.compatible("m", base_url="http://h/v1", server="mistral"),
    "groq": llm.compatible("m", base_url="http://h/v1", server="groq"),
    "vllm": llm.compatible("m", base_url="http://h/v1", server="vllm"),
}


SAMPLES: dict[str, Any] = {
    "betas": ["x"],
    "container": "x",
    "echo": True,
    "metadata": {},
    "service_tier": "x",
    "suffix": "x",
    "include": "x",
    "include_obfuscation": True,
    "inference_geo": "x",
    "logit_bias": {"1": 1},
    "logprobs": True,
    "modalities": ["text"],
    "models": ["x"],
    "plugins": [{}],
    "prediction": "x",
    "provider": {},
    "previous_response_id": "x",
    "speed": "x",
    "stop": "x",
    "store": True,
    "user": "x",
    "verbosity": "x",
}
"""Values of parameters that are no numbers."""


async def test_an_unknown_parameter_is_a_type_error_that_names_it() -> None:
    async with llm.open_client() as client:
        with pytest.raises(TypeError, match="max_tokenz"):
            client.stream(WHERE["openai"], "hi", max_tokenz=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("wire", "unsupported"),
    [
        # Anthropic refuses unknown fields ("Extra inputs are not permitted"): params.md 2.1.
        *[
            ("anthropic", name)
            for name in (
                "n",
                "seed",
                "logprobs",
                "top_logprobs",
                "logit_bias",
                "frequency_penalty",
                "presence_penalty",
                "verbosity",
                "prediction",
                "modalities",
                "store",
                "min_p",
                "models",
                "include_obfuscation",
            )
        ],
        *[("openai", name) for name in ("top_k", "min_p", "top_a", "models", "provider", "speed")],
        *[("openrouter", name) for name in ("container", "betas", "inference_geo")],
        *[("azure", name) for name in ("top_k", "plugins")],
        *[("mistral", name) for name in ("min_p", "user", "logit_bias")],
        *[("openai", name) for name in ("include", "previous_response_id", "max_tool_calls")],
        *[("responses", name) for name in ("stop", "n", "seed", "top_k", "prediction", "betas")],
        *[("generic", name) for name in ("suffix", "echo", "best_of", "prompt_logprobs")],
        *[("text", name) for name in ("modalities", "store", "service_tier", "metadata")],
        ("groq", "top_k"),
        ("vllm", "container"),
    ],
)
async def test_a_parameter_that_the_wire_lacks_is_never_dropped(
    wire: str, unsupported: str
) -> None:
    async with llm.open_client() as client:
        with pytest.raises(ValueError, match=rf"{unsupported}: not a parameter of the [\w-]+ wire"):
            client.stream(WHERE[wire], "hi", **{unsupported: SAMPLES.get(unsupported, 1)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("system", "give llm.system(…) as the first message"),
        ("stop_sequences", "use stop="),
        ("stream", "every answer is streamed"),
    ],
)
def test_what_is_done_in_another_way_here_is_said(name: str, way: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"unknown parameter: {name} ({way})")):
        check_params({name: "x"})


# -- values ----------------------------------------------------------------------------------


class Level(str, enum.Enum):
    LOW = "low"


class Size(enum.IntEnum):
    SMALL = 5


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": 0},
        {"max_tokens": Size.SMALL, "seed": -1},
        {"temperature": 1, "top_p": 0.5},
        {"verbosity": Level.LOW, "reasoning": Level.LOW},
        {"stop": "x"},
        {"stop": ("x", "y")},
        {"stop": {"x"}},
        {"stop": {"x": 1}.keys()},
        {"betas": "x", "models": ["x"]},
        {"tools": (weather, Place, llm.Tool(name="a"), {"type": "x"})},
        {"tools": {"weather": weather}.values(), "tool_choice": weather},
        {"tool_choice": {"type": "auto"}},
        {"logit_bias": {50256: -100}, "metadata": types.MappingProxyType({"a": "b"})},
        {"plugins": [{"id": "web"}], "container": {"id": "x"}},
        {"reasoning": True, "store": False},
        {"cache": True},
        {"cache": "1h", "response_format": Place},
        # each of these has a server that takes it
        {"temperature": -1, "top_p": 1.5, "top_k": -1, "min_p": -1, "top_logprobs": -1},
        {"max_tokens": -1, "logit_bias": {"5": 0.5}, "prompt_logprobs": -1, "max_tool_calls": 0},
    ],
)
def test_good_values_are_taken(given: dict[str, Any]) -> None:
    assert check_params(given) == 1
    assert check_params({**given, "n": 2}) == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_tokens", "10", "max_tokens must be int, not str"),
        ("max_tokens", 1.5, "max_tokens must be int, not float"),
        ("max_tokens", True, "max_tokens must be int, not bool"),
        ("n", True, "n must be int, not bool"),
        ("seed", "x", "seed must be int, not str"),
        ("temperature", "hot", "temperature must be float or int, not str"),
        ("temperature", True, "temperature must be float or int, not bool"),
        ("store", 1, "store must be bool, not int"),
        ("user", 5, "user must be str, not int"),
        ("stop", 5, "stop must be str or a list, not int"),
        ("stop", b"x", "stop must be str or a list, not bytes"),
        ("stop", ["x", 5], "each entry of stop must be str, not int"),
        ("models", "x", "models must be a list, not str"),
        ("betas", 5, "betas must be str or a list, not int"),
        ("tools", 5, "tools must be a list, not int"),
        ("tools", {"name": "x"}, "tools must be a list, not dict"),
        ("tools", [weather, "x"], "each entry of tools must be Tool or type or Callable or"),
        ("tool_choice", 5, "tool_choice must be str or Tool or type or Callable or Mapping"),
        ("stream_options", 5, "stream_options must be Mapping, not int"),
        ("logit_bias", [5], "logit_bias must be Mapping, not list"),
        ("logit_bias", {"5": "x"}, "each value of logit_bias must be int or float, not str"),
        ("logit_bias", {"5": True}, "each value of logit_bias must be int or float, not bool"),
        ("reasoning", 1.5, "reasoning must be Reasoning or str or int or bool, not float"),
    ],
)
def test_a_value_of_another_type_is_a_type_error(name: str, value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        check_params({name: value})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_tokens", -2, "max_tokens must be 0 or more"),
        ("n", 0, "n must be a whole number from 1 on"),
        ("best_of", 0, "best_of must be a whole number from 1 on"),
        ("max_tool_calls", -1, "max_tool_calls must be 0 or more"),
        ("repetition_penalty", -0.5, "repetition_penalty must be 0 or more"),
        ("temperature", float("nan"), "temperature must be a finite number"),
        ("cache", "2h", "cache must be True, '5m' or '1h'"),
    ],
)
def test_a_value_that_makes_no_sense_is_a_value_error(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_params({name: value})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: llm.Tool(name=3), "name must be str, not int"),  # type: ignore[arg-type]
        (lambda: llm.Tool(name="a", parameters="{}"), "parameters must be Mapping, not str"),  # type: ignore[arg-type]
        (lambda: llm.Tool(name="a", description=5), "description must be str, not int"),  # type: ignore[arg-type]
        (lambda: llm.JSONSchema(schema="{}"), "schema must be Mapping, not str"),  # type: ignore[arg-type]
        (lambda: llm.JSONSchema(schema=[1]), "schema must be Mapping, not list"),  # type: ignore[arg-type]
        (lambda: llm.JSONSchema(schema={}, name=5), "name must be str, not int"),  # type: ignore[arg-type]
        (lambda: llm.Reasoning(effort=5), "effort must be str or None, not int"),  # type: ignore[arg-type]
        (lambda: llm.Reasoning(budget="x"), "budget must be int or None, not str"),  # type: ignore[arg-type]
        (lambda: llm.Reasoning(enabled="x"), "enabled must be bool or None, not str"),  # type: ignore[arg-type]
        (lambda: llm.Reasoning(exclude=1), "exclude must be bool or None, not int"),  # type: ignore[arg-type]
        (lambda: llm.Reasoning(summary=5), "summary must be str or None, not int"),  # type: ignore[arg-type]
        (lambda: llm.JSONSchema(schema={}, strict="x"), "strict must be bool, not str"),  # type: ignore[arg-type]
        (lambda: llm.JSONSchema(schema={}, description=5), "description must be str or None"),  # type: ignore[arg-type]
        (lambda: llm.Tool(name="a", strict="x"), "strict must be bool or None, not str"),  # type: ignore[arg-type]
        (lambda: llm.Tool(name="a", function=5), "function must be a function or None, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_field_of_another_type_is_a_type_error(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: llm.Reasoning(effort=""), "reasoning effort must not be empty"),
        (lambda: reasoning_of(""), "reasoning effort must not be empty"),
        (lambda: llm.Reasoning(budget=-2), "reasoning budget must be a number of tokens"),
        (lambda: llm.Reasoning(budget=True), "reasoning budget must be a number of tokens"),
    ],
)
def test_a_field_that_makes_no_sense_is_a_value_error(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", ["lenient", "raw", "expect_usage"])
async def test_a_flag_is_true_or_false(name: str) -> None:
    async with llm.open_client(transport=ScriptedTransport()) as client:
        with pytest.raises(TypeError, match=f"^{name} must be bool"):
            client.stream(testing.model(), "Hi", **{name: "no"})  # type: ignore[arg-type]


class NoJSON:
    pass


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (5, "response_format: a value of type int is no type"),
        (Place(1, 2), "response_format: a value of type Place is no type"),
        (NoJSON, "response_format: type <class '.*NoJSON'> is not supported"),
        (object, "response_format: type <class 'object'> is not supported"),
    ],
)
def test_a_format_that_is_no_type(wrong: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"^{words}$") as caught:
        format_of(wrong)
    assert caught.value.__cause__ is None


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="tools holds two of the name 'weather'"):
        tools_of([weather, llm.Tool(name="weather")])


def test_a_choice_is_one_of_the_tools() -> None:
    own = {"type": "web_search_20250305", "name": "web_search"}
    tools = tools_of([weather, llm.tool(Place, name="place")])
    for given in ("weather", weather, tools[0]):
        assert choice_of(given, tools, ()) == "weather"
    assert choice_of(Place, tools, ()) == "place"
    assert choice_of("any", tools, ("any",)) == "any"
    assert choice_of(own, tools, ()) == own
    assert choice_of("web_search", [*tools, own], ()) == "web_search"
    assert choice_of("weather", [], ()) == "weather"
    for wrong in ("nope", llm.Tool(name="nope"), slow_weather):
        with pytest.raises(ValueError, match="tool_choice must be one of tools, or its name"):
            choice_of(wrong, tools, ("auto",))


def test_the_parameters_are_those_of_the_typed_dict() -> None:
    assert set(llm.Params.__annotations__) == PARAM_NAMES
    assert not PARAM_NAMES & {"extra", "headers", "timeouts", "retry", "raw", "lenient"}


def test_what_others_leave_empty_is_a_default() -> None:
    nothing: Any = None  # as MCP's tools have it
    assert llm.Tool(name="a", description=nothing).description == ""
    assert llm.JSONSchema(schema={}, name=nothing).name == "response"
    assert check_params({"max_tokens": -1}) == 1  # no bound, at LM Studio


def test_names_that_are_all_known():
    check_names(["temperature", "max_tokens"])
    with pytest.raises(
        TypeError, match=r"unknown parameter: temprature .*did you mean temperature"
    ):
        check_names(["temprature"])


@pytest.mark.parametrize(
    "call", [llm.Client.stream, llm.Client.complete, llm.Client.run_tools, llm.estimate]
)
def test_the_signature_of_a_call_has_its_parameters(call: Callable[..., Any]) -> None:
    """Notebooks complete from it what type checkers know from the annotation."""
    shown = inspect.signature(call).parameters
    assert shown.keys() >= PARAM_NAMES
    assert all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in shown.values())
    assert shown["max_tokens"].annotation == "int | None"
    assert shown["max_tokens"].kind is inspect.Parameter.KEYWORD_ONLY
    assert next(iter(shown)) in ("self", "model")
