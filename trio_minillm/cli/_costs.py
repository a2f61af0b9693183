"""``trio-minillm costs``: the sums of a ledger, and the attempts that are still unsettled.

What other commands say of a ledger is here, too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec.structs import replace
from typer import Argument, Option

import trio_minillm as llm

from .._accounting.ledger_file import JSONLLedger  # now: later, too many files may be open
from ..local._named import KEYS, key_of
from ..providers._base import loggable_url
from ._output import Misuse, OutputError, many, one_line, usd
from ._shared import no_key, run_in_trio
from ._terminal import print_failure, print_rows, print_table, say, write_all

HEAD = ("attempts", "finished", "tokens in", "tokens out", "USD", "not counted")


_HELP = {
    "by": "Add up by this key of meta instead of by model.",
    "settle": f"First ask OpenRouter for final costs that are missing, with {KEYS['openrouter']}.",
    "base_url": "OpenRouter's address, in place of its usual one.",
}


class RunLedger(llm.Ledger):
    """A ledger of one run's sums alone, which passes each record on to the ``--ledger`` file."""

    def __init__(self, file: llm.Ledger | None, *, sum_meta: bool = True) -> None:
        super().__init__()
        self._file = file
        self._sum_meta = sum_meta

    def record(self, record: llm.CostRecord) -> bool:
        if self._file is not None:
            self._file.record(record)
        return super().record(record if self._sum_meta else replace(record, meta=None))

    def flush(self) -> None:
        """Leave it to `unwritten`, which the command calls when it ends, to write what waits."""

    def unwritten(self) -> OutputError | None:
        """Write the records that wait to be written, and return the error if that fails."""
        file = self._file
        if isinstance(file, JSONLLedger) and file.pending:
            try:
                file.flush()
            except OSError as exc:
                what = f"{many(file.pending, 'attempt')} of the ledger"
                return OutputError(exc, what, file.path)
        return None


def open_ledger(path: Path, *, read_only: bool = False) -> JSONLLedger:
    """Open the ledger. Raises `Misuse` if the file can't be used, or holds something else."""
    try:
        ledger = JSONLLedger(path, read_only=read_only)
        if ledger.torn and not ledger.attempts and not ledger.newer:
            with path.open("rb") as file:
                if file.read(5) != b'{"v":':  # else the first record was torn by a kill
                    raise Misuse(f"{path} is not a ledger: it has no record of an attempt")
    except OSError as exc:
        raise Misuse(f"the ledger {path}: {exc.strerror or exc}") from exc
    return ledger


def cost_fields(totals: llm.Totals | None, warmup: llm.Totals | None) -> dict[str, Any]:
    """Return the cost of the attempts for JSON, in USD and as strings because it is exact."""
    totals, warmup = totals or llm.Totals(), warmup or llm.Totals()
    counts = {r.value: totals.resolutions.get(r, 0) for r in llm.CostResolution}
    known = counts["resolved"] + counts["lower_bound"]
    return {
        "amount": f"{totals.total:f}" if known else None,
        "at_least": known < totals.booked or counts["lower_bound"] > 0,
        "resolutions": counts,
        "not_booked": f"{totals.unbooked:f}",
        "warmup": f"{warmup.total:f}",
    }


def told_cost(fields: dict[str, Any]) -> str:
    """Return in words what `cost_fields` has returned, but for the warm-up."""
    counts, unbooked = fields["resolutions"], Decimal(fields["not_booked"])
    if fields["amount"] is None:
        return "unpriced (tokens known, price not)" if counts["unpriced"] else "unknown"
    least = "at least " if fields["at_least"] else ""
    more = f" · failed attempts ${usd(unbooked)}" if unbooked else ""
    return f"{least}${usd(Decimal(fields['amount']))}{more}"


def cost_text(totals: llm.Totals | None) -> str:
    """Return the amount, and how far it can be trusted."""
    return told_cost(cost_fields(totals, None))


async def _settle(ledger: llm.Ledger, base_url: str | None) -> None:
    """Ask OpenRouter what its unsettled attempts cost.

    The key goes to OpenRouter's own address or to ``base_url``, never to an address only because
    a file contains it.
    """
    key = key_of("openrouter")
    if not key:
        raise no_key("openrouter")
    try:
        model = llm.openrouter("any", base_url=base_url, api_key=key)
    except ValueError as exc:
        raise Misuse(str(exc)) from None
    address = loggable_url(model)  # as records have it
    wires = ("openrouter", "text")
    ours = [r for r in ledger.unsettled if r.provider in wires and r.base_url == address]
    if len(ours) < len(ledger.unsettled):
        others = {r.base_url for r in ledger.unsettled} - {address}
        say(
            f"not looked up: {', '.join(map(one_line, sorted(others)))} (--base-url selects an address)\n"
        )
    async with llm.open_client(ledger=ledger) as client:
        await client.settle(ours, model=model)


def _groups(ledger: llm.Ledger, by: str | None) -> Mapping[Any, llm.Totals]:
    return ledger.by_model if by is None else ledger.by_meta(by)


def rows(ledger: llm.Ledger, by: str | None) -> list[tuple[str, ...]]:
    """Return a row for each model or value of a meta key, the dearest first, and the total."""
    dearest = sorted(_groups(ledger, by).items(), key=lambda item: (-item[1].total, str(item[0])))
    named = [(one_line(str(name)), totals) for name, totals in dearest]
    return [_row(name, totals) for name, totals in (*named, ("all", ledger.totals))]


def _row(name: str, totals: llm.Totals) -> tuple[str, ...]:
    sure = llm.CostResolution.RESOLVED, llm.CostResolution.LOWER_BOUND
    known = sum(totals.resolutions.get(resolution, 0) for resolution in sure)
    # Not known is not zero.
    tokens = totals.counted or not totals.attempts
    unbooked = totals.unbooked_known or totals.attempts == totals.booked
    return (
        name,
        f"{totals.attempts:,}",
        f"{totals.outcomes.get(llm.Outcome.FINISHED, 0):,}",
        f"{totals.prompt_tokens:,}" if tokens else "-",
        f"{totals.completion_tokens:,}" if tokens else "-",
        usd(totals.total) if known or not totals.booked else "-",
        usd(totals.unbooked) if unbooked else "-",
    )


def notes(ledger: JSONLLedger) -> list[tuple[str, str]]:
    """Return how much is missing from the sums, by reason."""
    totals, counts = ledger.totals, ledger.resolutions
    found = {
        "lower bounds": counts.get(llm.CostResolution.LOWER_BOUND, 0),
        "without a price": counts.get(llm.CostResolution.UNPRICED, 0),
        "unknown": counts.get(llm.CostResolution.UNKNOWN, 0),
        "not counted, cost unknown": totals.attempts - totals.booked - totals.unbooked_known,
        "without tokens": totals.attempts - totals.counted,
        "unsettled": len(ledger.unsettled),
        "torn lines": ledger.torn,
        "newer lines": ledger.newer,
    }
    return [(name, f"{count:,}") for name, count in found.items() if count]


def json_line(ledger: JSONLLedger, by: str | None) -> bytes:
    """Return all of it as one line of JSON, with amounts as strings because they are exact."""
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


def costs(
    path: Annotated[Path, Argument(metavar="FILE", help="The ledger.")],
    *,
    by: Annotated[str | None, Option(metavar="KEY", help=_HELP["by"])] = None,
    settle: Annotated[bool, Option("--settle", help=_HELP["settle"])] = False,
    base_url: Annotated[str | None, Option(metavar="URL", help=_HELP["base_url"])] = None,
    json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Add up what the attempts in a ledger have cost, by model.

    The ledger is the file of --ledger. It is only read, unless --settle looks up final costs.
    """
    try:
        if base_url is not None and not settle:
            raise Misuse("--base-url needs --settle, which asks at that address")
        if not path.exists():
            raise Misuse(f"the ledger {path}: no such file")
        ledger = open_ledger(path, read_only=not settle)
        if settle:
            run_in_trio(_settle, ledger, base_url)
        if json:
            write_all(sys.stdout, json_line(ledger, by))
        else:
            print_table((by or "model", *HEAD), rows(ledger, by))
            print_rows(notes(ledger))
    except (Misuse, OutputError) as exc:
        raise typer.Exit(print_failure(exc)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
