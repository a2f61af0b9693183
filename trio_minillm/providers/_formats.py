"""The formats of answers that servers of OpenAI's chat-completions format have, and how they are asked.

A table of facts, by the names of `Compatible`'s servers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .._types.params import format_of
from .._types.schemas import in_object
from ._schemas import COMMON, GRAMMAR, OPENAI, SchemaRules, Unfit, strict_schema


class Formats(msgspec.Struct, frozen=True, kw_only=True):
    """The formats of answers that a server has."""

    json: bool = True
    """True if ``{"type": "json_object"}`` is one."""
    schema: Literal["json_schema", "json_object", ""] = "json_schema"
    """Type of the format that takes a schema, for some of its models at least; empty if none does."""
    strict: SchemaRules = COMMON
    """The part of JSON schema that its strict mode takes, also in tools."""


ANY = Formats()
"""Formats of a server of which nothing else is known: a refusal is then its own to give."""
_JSON_ONLY = Formats(schema="")
_SCHEMA_ONLY = Formats(json=False)
_GRAMMAR = Formats(strict=GRAMMAR)

FORMATS: dict[str, Formats] = {
    "openai": Formats(strict=OPENAI),
    # "This response_format type is unavailable now": BerriAI/litellm#7580, llm-exe/llm-exe#662
    "deepseek": _JSON_ONLY,
    # llama_types.py, ChatCompletionRequestResponseFormat: "json_object" with a field "schema"
    "llama-cpp-python": Formats(schema="json_object"),
    # docs.z.ai, chat completion: "text" and "json_object"; promptfoo/promptfoo PR 9905
    "zai": _JSON_ONLY,
    # "'response_format.type' must be 'json_schema' or 'text'": lmstudio-ai/lmstudio-bug-tracker#189
    "lmstudio": _SCHEMA_ONLY,
    # docs.perplexity.ai, structured outputs: JSON schema
    "perplexity": _SCHEMA_ONLY,
    "llama.cpp": _GRAMMAR,
    "ollama": _GRAMMAR,
    "sglang": _GRAMMAR,
    "vllm": _GRAMMAR,
}
"""Servers that differ from `ANY`."""


def response_format(given: Any, formats: Formats) -> dict[str, Any]:
    """Return the field of the body for ``response_format=``.

    A schema that the strict mode can't take is asked for without it. Raises ``ValueError``, which says
    what to use instead, for a format that the server does not have.
    """
    wanted = format_of(given)
    if isinstance(wanted, dict):
        return wanted
    if isinstance(wanted, str):
        if wanted == "json" and not formats.json:
            raise ValueError("this server has no free JSON mode: give a schema or a type")
        return {"type": "json_object" if wanted == "json" else "text"}
    if not formats.schema:
        raise ValueError(
            "this server accepts no schema as response_format: use 'json' and describe the answer in"
            " the prompt, use a tool, or set another server="
        )
    schema: dict[str, Any] = {"name": wanted.name, "schema": in_object(wanted.schema)}
    if wanted.description:
        schema["description"] = wanted.description
    if wanted.strict:
        try:
            schema |= {"strict": True, "schema": strict_schema(schema["schema"], formats.strict)}
        except Unfit:
            schema["strict"] = False
    if formats.schema == "json_object":
        return {"type": "json_object", "schema": schema["schema"]}
    return {"type": "json_schema", "json_schema": schema}
