"""Build the JSON body of a request to OpenAI chat completions, from neutral types.

The differences between the servers that speak this format are the fields of `Dialect`; the shapes
are those of OpenAI's and OpenRouter's references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from .._types.params import Reasoning, reasoning_of, stops_in
from .._types.tools import Tool, choice_of, tools_of
from ._base import Request, refuse_others, take
from ._chat_messages import MessageRules, cache_mark, chat_messages
from ._formats import FORMATS, Formats, response_format
from ._tool_schemas import checked_name, parameters_of, strict_parameters


class Dialect(MessageRules, frozen=True, kw_only=True):
    """The differences between one server's requests and OpenAI's. The defaults are OpenAI's own.

    The fields of `MessageRules` describe its messages.
    """

    max_tokens: str = "max_completion_tokens"
    """The name of the field that limits the output."""
    seed: str = "seed"
    """The name of the field for the seed."""
    reasoning: Callable[[Reasoning], dict[str, Any]] | None = None
    """A function that returns the fields of the body for ``reasoning=``. By default, only an effort
    is accepted."""
    formats: Formats = FORMATS["openai"]
    """The response formats that the server has."""
    stream_usage: bool = True
    """True if usage is requested with ``stream_options``."""
    flavored_schemas: bool = False
    """True if tool schemas must have the form that Kimi's servers require."""
    one_choice: bool = False
    """True if only one choice (``n=1``) can be requested."""
    extra_params: tuple[str, ...] = ()
    """Parameters that OpenAI does not have, and that are sent under their own name."""
    without: tuple[str, ...] = ()
    """Parameters of OpenAI's that the server rejects, such as ``stream_options``."""


_OWN = (
    *("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs"),
    *("top_logprobs", "n", "parallel_tool_calls", "verbosity", "modalities", "audio", "store"),
    *("metadata", "user", "service_tier", "moderation", "web_search_options", "prompt_cache_key"),
    *("prompt_cache_retention", "prompt_cache_options", "safety_identifier"),
)

_SHAPED = {
    *("max_tokens", "seed", "stop", "tools", "tool_choice", "response_format", "reasoning"),
    *("prediction", "cache", "include_obfuscation", "stream_options"),
}

_FIELDS = {
    *("model", "stop", "tools", "tool_choice", "response_format"),
    *("prediction", "stream_options", "max_tokens", "max_completion_tokens"),
}


def _table(dialect: Dialect) -> Mapping[str, str]:
    """Return the typed parameters that are sent unchanged, each with its name in the body."""
    extra, without = tuple(dialect.extra_params), tuple(dialect.without)
    return _table_of(extra, without, dialect.max_tokens, dialect.seed)


@lru_cache(maxsize=64)
def _table_of(
    extra: tuple[str, ...], without: tuple[str, ...], max_tokens: str, seed: str
) -> Mapping[str, str]:
    table = {name: name for name in (*_OWN, *extra) if name not in without}
    return table | {"max_tokens": max_tokens, "seed": seed}


def typed_fields(dialect: Dialect) -> frozenset[str]:
    """Return the fields of the body that typed parameters decide."""
    return frozenset(_FIELDS) | frozenset(_table(dialect).values())


def chat_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Return the body of a streaming request.

    Raises ``ValueError`` for a parameter or a part that the wire format does not have.
    """
    table = _table(dialect)
    if request.params:
        refuse_others(request, (set(table) | _SHAPED) - set(dialect.without))
    params = request.params
    if dialect.one_choice and params.get("n", 1) != 1:
        raise ValueError("this server returns one choice: send several requests instead of n=")
    body: dict[str, Any] = {
        "model": request.model.name,
        "messages": chat_messages(request.messages, dialect, request.model.name),
        "stream": True,
        **take(request, table),
    }
    options: dict[str, Any] = {}
    if request.expect_usage and dialect.stream_usage:
        options["include_usage"] = True
    if "include_obfuscation" in params:
        options["include_obfuscation"] = params["include_obfuscation"]
    options |= params.get("stream_options", {})
    if options:
        body["stream_options"] = options
    if stops := stops_in(params):  # servers refuse an empty list
        body["stop"] = stops
    tools = tools_of(params.get("tools", ()))
    if tools:  # servers refuse an empty list
        body["tools"] = [_tool(t, dialect) for t in tools]
    else:
        body.pop("parallel_tool_calls", None)  # it is refused without them, and says nothing
    if "tool_choice" in params and (tools or "tools" not in params):
        body["tool_choice"] = _tool_choice(params["tool_choice"], tools)
    if "response_format" in params:
        body["response_format"] = response_format(params["response_format"], dialect.formats)
    if "reasoning" in params:
        encode = dialect.reasoning or _effort
        body |= encode(reasoning_of(params["reasoning"]))
    if "prediction" in params:
        given = params["prediction"]
        whole = {"type": "content", "content": given} if isinstance(given, str) else dict(given)
        body["prediction"] = whole
    if params.get("cache") and dialect.cache_control:
        body["cache_control"] = cache_mark(params["cache"])
    return body


def _effort(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.budget is not None or reasoning.summary or reasoning.exclude:
        raise ValueError(
            "this wire format accepts only a reasoning effort: no budget, summary or exclude"
        )
    if reasoning.effort is None:
        return {"reasoning_effort": "none"} if reasoning.enabled is False else {}
    return {"reasoning_effort": reasoning.effort}


# -- tools ----------------------------------------------------------------------------------


def _tool(tool: Tool | dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    if isinstance(tool, dict):
        return tool
    checks = dialect.ids is not None and not dialect.ids.any_name
    name = checked_name(tool, 64) if checks else tool.name
    parameters = parameters_of(tool, flavored=dialect.flavored_schemas)
    function: dict[str, Any] = {"name": name, "parameters": parameters}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
        if tool.strict:
            function["parameters"] = strict_parameters(tool, dialect.formats.strict)
    out: dict[str, Any] = {"type": "function", "function": function}
    if tool.cache and dialect.cache_control:
        out["cache_control"] = cache_mark(tool.cache)
    return out


_CHOICES = ("auto", "none", "required")


def _tool_choice(given: Any, tools: list[Tool | dict[str, Any]]) -> str | dict[str, Any]:
    choice = choice_of(given, tools, _CHOICES)
    if isinstance(choice, dict) or choice in _CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}
