"""``trio-minillm costs``: what a ledger's attempts come to, and what is still unsettled."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio
import typer
from typer import Argument, Option

import trio_minillm as llm

from ._options import KEYS, key_of
from ._output import Misuse, OutputError, one_line, usd
from ._terminal import print_error, print_rows, print_table, say, write_all

HEAD = ("attempts", "finished", "tokens in", "tokens out", "USD", "not booked")


_HELP = {
    "by": "Sum by this key of meta.",
    "settle": f"Ask first what unsettled attempts cost; the key is {KEYS['openrouter']}.",
    "base_url": "OpenRouter's address, where it is not the usual one.",
}


async def _settle(ledger: llm.Ledger, base_url: str | None) -> None:
    """Ask OpenRouter what its unsettled attempts cost.

    The key goes to OpenRouter's own address, or where ``base_url`` says: never to an address
    just because it stands in a file.
    """
    key = key_of("openrouter")
    if not key:
        raise Misuse(f"no API key: set {KEYS['openrouter']} in the environment")
    try:
        model = llm.openrouter("any", base_url=base_url, api_key=key)
    except ValueError as exc:
        raise Misuse(str(exc)) from None
    place = ("openrouter", model.base_url)
    ours = [record for record in ledger.unsettled if (record.provider, record.base_url) == place]
    if len(ours) < len(ledger.unsettled):
        others = {r.base_url for r in ledger.unsettled} - {model.base_url}
        say(f"not asked: {', '.join(map(one_line, sorted(others)))} (--base-url names another)\n")
    async with llm.open_client(ledger=ledger) as client:
        await client.settle(ours, model=model)


def _groups(ledger: llm.Ledger, by: str | None) -> Mapping[Any, llm.Totals]:
    return ledger.by_model if by is None else ledger.by_meta(by)


def rows(ledger: llm.Ledger, by: str | None) -> list[tuple[str, ...]]:
    """A row for each model, or each value of a meta key, and one for all; the dearest first."""
    dearest = sorted(_groups(ledger, by).items(), key=lambda item: (-item[1].total, str(item[0])))
    named = [(one_line(str(name)), totals) for name, totals in dearest]
    return [_row(name, totals) for name, totals in (*named, ("all", ledger.totals))]


def _row(name: str, totals: llm.Totals) -> tuple[str, ...]:
    return (
        name,
        f"{totals.attempts:,}",
        f"{totals.outcomes.get(llm.Outcome.FINISHED, 0):,}",
        f"{totals.prompt_tokens:,}",
        f"{totals.completion_tokens:,}",
        usd(totals.total),
        usd(totals.unbooked),
    )


def notes(ledger: llm.JSONLLedger) -> list[tuple[str, str]]:
    """What the sums don't say: which costs are missing from them, and why."""
    counts = ledger.resolutions
    found = {
        "lower bounds": counts.get(llm.CostResolution.LOWER_BOUND, 0),
        "without a price": counts.get(llm.CostResolution.UNPRICED, 0),
        "unknown": counts.get(llm.CostResolution.UNKNOWN, 0),
        "unsettled": len(ledger.unsettled),
        "torn lines": ledger.torn,
        "newer lines": ledger.newer,
    }
    return [(name, f"{count:,}") for name, count in found.items() if count]


def json_line(ledger: llm.JSONLLedger, by: str | None) -> bytes:
    """The same as one line of JSON; amounts are strings, since they are exact."""
    fields = {
        "totals": ledger.totals,
        "by": by or "model",
        "groups": [
            {"name": name, "totals": totals} for name, totals in _groups(ledger, by).items()
        ],
        "unsettled": [
            {"id": r.id, "model": r.model, "provider": r.provider, "at": r.at}
            for r in ledger.unsettled
        ],
        "torn": ledger.torn,
        "newer": ledger.newer,
    }
    return msgspec.json.encode(fields) + b"\n"


def open_ledger(path: Path, *, read_only: bool = False) -> llm.JSONLLedger:
    try:
        return llm.JSONLLedger(path, read_only=read_only)
    except OSError as exc:
        raise Misuse(f"the ledger {path}: {exc.strerror or exc}") from exc


def costs(
    path: Annotated[Path, Argument(metavar="FILE", help="A ledger.")],
    *,
    by: Annotated[str | None, Option(metavar="KEY", help=_HELP["by"])] = None,
    settle: Annotated[bool, Option("--settle", help=_HELP["settle"])] = False,
    base_url: Annotated[str | None, Option(metavar="URL", help=_HELP["base_url"])] = None,
    json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what the attempts in a ledger cost, by model.

    With --settle OpenRouter is asked first what the unsettled ones cost.
    """
    try:
        if not path.exists():
            raise Misuse(f"the ledger {path}: no such file")
        ledger = open_ledger(path, read_only=not settle)
        if settle:
            trio.run(_settle, ledger, base_url)
        if json:
            write_all(sys.stdout, json_line(ledger, by))
        else:
            print_table((by or "model", *HEAD), rows(ledger, by))
            print_rows(notes(ledger))
    except Misuse as exc:
        print_error(f"error: {exc}")
        raise typer.Exit(2) from None
    except OutputError as exc:
        raise typer.Exit(141 if exc.gone else 1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
