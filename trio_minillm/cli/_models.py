"""``trio-minillm models``: the models that a provider lists, by the names that ``--model`` takes.

The list is the provider's own, asked for with its key and through its proxy as an answer would be. Without
``--json``, it is a table of what the provider says: not all of them name a price or the longest context.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer import Argument, Option

import trio_minillm as llm

from .._http.connector import open_connector
from .._types.money import exact
from .._vendor_batch.calls import Caller
from .._vendor_batch.vendors import Call
from ..local import LocalModelError
from ..local._named import KEYS, key_of, kind_meant, variable_of
from ..local._settings import find_model
from ..providers._base import loggable_url
from ..providers._model_lists import ListedModel
from ._output import Misuse, OutputError, error_code, error_fields, one_line, safe_json, usd
from ._shared import BaseURL, model_of, run_in_trio
from ._terminal import ALIGNED, print_failure, print_table, say, write_all

MAX_PAGES = 100
"""Pages of a list that are asked for: 100,000 models."""
HEAD = ("model", "context", "answer", "USD/M in", "USD/M out")

_HELP = {
    "provider": "openai, anthropic, gemini, openrouter, openai-responses, text, compatible (with"
    " --base-url), or local.",
    "word": "List only models whose names contain this word.",
    "json": "Print one JSON object.",
}


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The models that were found."""

    models: list[ListedModel]
    doubt: str | None = None
    """The reason why there may be more of them; None if these are all."""


async def listed(model: llm.Model) -> Listing:
    """Return the models at a model's address. Raises `MiniLLMError`, and `Misuse` if it has no list."""
    provider, place = model.provider, loggable_url(model)
    found: dict[str, ListedModel] = {}
    doubt: str | None = None
    marks: set[str | None] = set()
    mark: str | None = None
    async with open_connector() as connect:
        caller = Caller(connect, model)
        while doubt is None:
            marks.add(mark)
            url = provider.models_url(model, mark)
            if url is None:
                raise Misuse(f"there is no list of models at {place}")
            connect.check(url)
            page = provider.parse_models(await caller.once(Call("GET", url, what="list of models")))
            found.update((one.id, one) for one in page.models)
            if (mark := page.next) is None:
                break
            if mark in marks:
                doubt = "the server repeats a page of its list, so models may be missing"
            elif len(marks) == MAX_PAGES:
                doubt = f"the list has more than {MAX_PAGES} pages, and the others were not read"
    return Listing(models=sorted(found.values(), key=lambda one: one.id), doubt=doubt)


def local_models() -> Listing:
    """Return the small model, if it is installed, and the model files of this folder.

    Raises `LocalModelError` if no local model can run.
    """
    paths = sorted(path for path in Path().glob("*.gguf") if path.is_file())
    files = [ListedModel(id=path.name) for path in paths]
    try:
        find_model(None)
    except LocalModelError:
        if not files:
            raise
        find_model(files[0].id)  # raises if llama.cpp is missing, too
        return Listing(models=files)
    return Listing(models=[ListedModel(id=""), *files])


def table(kind: str, models: list[ListedModel]) -> list[tuple[str, ...]]:
    """Return the table, with its head, without the columns that no model has a value in."""
    rows = [HEAD, *(_row(kind, one) for one in models)]
    kept = [n for n in range(len(HEAD)) if not n or any(row[n] for row in rows[1:])]
    return [tuple(row[n] for n in kept) for row in rows]


def _row(kind: str, one: ListedModel) -> tuple[str, ...]:
    tokens = [f"{count:,}" if count else "" for count in (one.context, one.output)]
    price = [usd(rate) for rate in _rates(one).values()] or ["", ""]
    return (one_line(_name(kind, one)), *tokens, *price)


def _rates(one: ListedModel) -> dict[str, Decimal]:
    """Return the price of input and of output, in USD per million tokens; nothing if it is not named."""
    if one.price is None:
        return {}
    return {"input": exact(one.price.input), "output": exact(one.price.output)}


def _name(kind: str, one: ListedModel) -> str:
    """Return the name that ``--model`` takes."""
    return f"{kind}:{one.id}" if one.id else kind


def _fields(kind: str, one: ListedModel) -> dict[str, Any]:
    rates = {name: f"{rate:f}" for name, rate in _rates(one).items()}
    return {
        "model": _name(kind, one),
        "id": one.id or None,
        "context": one.context,
        "output": one.output,
        "price": rates or None,
    }


def _kinds(incomplete: str) -> list[str]:
    """Return the kinds that a shell may complete a word to."""
    return [kind for kind in (*KEYS, "local") if kind.startswith(incomplete)]


def models(
    provider: Annotated[
        str, Argument(metavar="PROVIDER", help=_HELP["provider"], autocompletion=_kinds)
    ],
    word: Annotated[str | None, Argument(metavar="WORD", help=_HELP["word"])] = None,
    *,
    base_url: BaseURL = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
) -> None:
    """List the models of a provider, by the names that --model takes.

    The list comes from the provider itself, so it needs the provider's key. Columns show the longest
    context and the longest answer in tokens, and the price, as far as the provider names them.
    """
    found, doubt = list[ListedModel](), None
    error: Exception | None = None
    variable, secret = variable_of(provider, base_url), key_of(provider, base_url)
    try:
        listing = _found(provider, base_url)
        found = [one for one in listing.models if word is None or _has(one, word)]
        doubt = listing.doubt
    except (llm.MiniLLMError, LocalModelError, Misuse) as exc:
        error = exc
    except ValueError as exc:  # a key, an address or a proxy that can't be used
        error = Misuse(str(exc))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    try:
        if json:
            told = {"provider": provider, "models": [_fields(provider, one) for one in found]}
            what = None if error is None else error_fields(error, secret)
            line = safe_json(
                {**told, "doubt": doubt, "error": what, "exit_code": error_code(error)}
            )
            write_all(sys.stdout, line)
        elif error is None:
            head, *rows = table(provider, found)
            print_table(head, rows, form=ALIGNED)
            if not found:
                say(f"no model{'' if word is None else f' with {one_line(word)!r} in its name'}\n")
            if doubt is not None:
                say(f"note: {doubt}\n")
    except OutputError as exc:
        error = exc
    raise typer.Exit(0 if error is None else print_failure(error, variable, secret, paid=False))


def _found(kind: str, base_url: str | None) -> Listing:
    """Return all models of a kind. Raises `Misuse` for one that there is not."""
    if kind == "local":
        if base_url is not None:
            raise Misuse("local can't be combined with --base-url: its server is started here")
        return local_models()
    if kind not in KEYS:
        likely = kind_meant(kind)
        hint = "" if likely is None else f"; did you mean {likely}?"
        raise Misuse(f"PROVIDER is {', '.join(KEYS)}, or local{hint}")
    if kind == "compatible" and base_url is None:
        raise Misuse("compatible needs --base-url")
    model = model_of(f"{kind}:any", base_url)
    assert isinstance(model, llm.Model)
    return run_in_trio(listed, model)


def _has(one: ListedModel, word: str) -> bool:
    return word.lower() in one.id.lower()
