"""The options of ``bench`` on what each request asks for: parameters, further fields, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from typer import Option

import trio_minillm as llm

from .._protocol.redaction import secrets_in
from .._types.messages import Quiet
from ._output import Misuse
from ._shared import extra_from, reasoning_of, schema_from

MAX_TOKENS = 128
"""Tokens of an answer by default, at most: few enough to cost cents."""
MAX_SHOWN = 64
"""Characters of a text in ``--extra`` that a result shows; of a longer one only its length."""
_OWN_SERVERS = ("compatible", "local", "text")
"""Kinds of models whose servers may take fields that no vendor has."""

_HELP = {
    "top_p": "Sample only from the likeliest tokens that make up this probability.",
    "seed": "Seed to send with each request, if the server accepts one.",
    "stop": "Stop sequence; may be repeated.",
    "header": "Extra HTTP header, whose value is never shown; may be repeated.",
    "schema": "JSON Schema to request as the format of the answers.",
    "ignore_eos": "Generate up to the maximum length, on servers such as vLLM and llama.cpp.",
    "min_tokens": "Minimum tokens per answer, on servers such as vLLM.",
}
MostTokens = Annotated[
    int | None,
    Option("--max-tokens", metavar="N", help=f"Maximum tokens per answer. [{MAX_TOKENS}]"),
]
TopP = Annotated[float | None, Option(metavar="P", help=_HELP["top_p"])]
Seed = Annotated[int | None, Option(metavar="N", help=_HELP["seed"])]
Stop = Annotated[list[str] | None, Option(metavar="TEXT", help=_HELP["stop"])]
Header = Annotated[list[str] | None, Option(metavar="NAME:VALUE", help=_HELP["header"])]
Schema = Annotated[Path | None, Option(metavar="FILE", help=_HELP["schema"])]
IgnoreEos = Annotated[bool, Option("--ignore-eos", help=_HELP["ignore_eos"])]
MinTokens = Annotated[int | None, Option(metavar="N", min=0, help=_HELP["min_tokens"])]


class Asked(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """The part that is the same in every request."""

    params: dict[str, Any]
    """Typed parameters."""
    extra: dict[str, Any]
    """Further fields of the body."""
    headers: dict[str, str]
    system: str | None

    @property
    def message(self) -> llm.Message | None:
        """The system message."""
        return None if self.system is None else llm.system(self.system)

    def secret(self, key: str) -> str:
        """Return what must not be shown, a line each: a key, and the values of the headers."""
        return "\n".join([key, *self.headers.values()])

    def on(self, model: llm.Model | str) -> llm.Model | str:
        """Return the model with the headers and, unless it is a local one, the further fields.

        Raises `Misuse` for a local one with headers, and ``ValueError`` for a header that can't be sent,
        without its value.
        """
        if isinstance(model, str):
            if self.headers:
                raise Misuse("--header can't be combined with a local model")
            return model
        return msgspec.structs.replace(self.with_fields(model), headers=self.headers)

    def with_fields(self, model: llm.Model) -> llm.Model:
        """Return the model with the further fields of its requests' bodies."""
        return msgspec.structs.replace(model, extra={**model.extra, **self.extra})

    def config(self) -> dict[str, Any]:
        """Return all of it for a result: no system message, no header's value."""
        return {
            "params": {name: _shown(value) for name, value in self.params.items()},
            "extra": _shown(self.extra),
            "headers": sorted(self.headers),
            "system": None if self.system is None else {"characters": len(self.system)},
        }


class RequestChoice(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """The options on requests, as they were given. Its 12 attributes are these options."""

    system: str | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool = False
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    reasoning: str | None = None
    schema: Path | None = None
    extra: str | None = None
    header: list[str] | None = None

    def asked(self, kind: str, *, max_tokens: int, to_the_end: bool) -> Asked:
        """Return what they ask for. ``kind`` is the model's, ``max_tokens`` the longest answer by the options
        on prompts, which ``to_the_end`` says are to be as long. Raises `Misuse`.
        """
        params = {
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop or None,
            "reasoning": reasoning_of(self.reasoning),
            "response_format": None if self.schema is None else schema_from(self.schema),
        }
        params = {name: value for name, value in params.items() if value is not None}
        extra = extra_from(self.extra, params)
        return Asked(
            params=params,
            extra={**extra, **self._of_own_servers(kind, extra, to_the_end=to_the_end)},
            headers=_headers(self.header or ()),
            system=self.system,
        )

    def _of_own_servers(
        self, kind: str, extra: Mapping[str, Any], *, to_the_end: bool
    ) -> dict[str, Any]:
        """Return the fields that servers of open models take, and vendors do not."""
        fields: dict[str, Any] = {}
        if self.ignore_eos:
            fields["ignore_eos"] = True
        if self.min_tokens is not None:
            fields["min_tokens"] = self.min_tokens
        for name in fields:
            option = "--" + name.replace("_", "-")
            if kind not in _OWN_SERVERS:
                *some, last = _OWN_SERVERS
                raise Misuse(f"{option} works only with {', '.join(some)}, and {last} models")
            if name in extra:
                raise Misuse(f"{option} can't be combined with {name} in --extra")
        if to_the_end and "ignore_eos" not in extra:
            fields["ignore_eos"] = True
        return fields


def _headers(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in given:
        name, mark, value = header.partition(":")
        name = name.strip()
        if not mark or not name:
            raise Misuse("--header must be NAME:VALUE")
        if name.lower() in map(str.lower, found):
            raise Misuse(f"--header {name} is given twice")
        found[name] = value.strip()
    return found


def _shown(value: Any, name: str = "") -> Any:
    """Return a value for a result: texts that are long, or named like a key, by their length."""
    if isinstance(value, str):
        hidden = len(value) > MAX_SHOWN or secrets_in([(name, value)])
        return {"characters": len(value)} if hidden else value
    if isinstance(value, Mapping):
        return {key: _shown(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item, name) for item in value]
    return {"schema": value.name} if isinstance(value, llm.JSONSchema) else value
