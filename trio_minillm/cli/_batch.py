"""``trio-minillm batch``: a file of requests in, a file of results out, killed as often as you like.

Guarantees:

- Nothing is sent before the whole input was read and found good.
- A result that is in the output is not asked for again, whatever ended the run, and the output
  has one line for each key. The same command goes on.
- stdout carries the closing table, or the summary as JSON, and nothing else.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from typer import Argument, Option

import trio_minillm as llm
from trio_minillm._batch.throttle.retry import BATCH_RETRY
from trio_minillm.batch import BatchOptions

from ._batch_report import BatchPlan
from ._batch_run import BatchRun
from ._costs import open_ledger
from ._live import run_live
from ._options import (
    BaseURL,
    LedgerFile,
    ModelName,
    TimeoutFirst,
    TimeoutIdle,
    TimeoutTotal,
    key_of,
    model_of,
    timeouts_of,
)
from ._output import Misuse

_HELP = {
    "source": "Requests: JSON lines, .csv, .tsv or .parquet.",
    "target": "Results, as JSON lines. What it has already is not sent again.",
    "concurrency": "Requests at once: a number, or auto, which finds it by trying.",
    "max_concurrency": "The most that auto tries. [1000]",
    "rpm": "Requests a minute, for each model.",
    "tpm": "Tokens a minute, in and out, for each model.",
    "max_cost": "Begin no more once so many USD are spent.",
    "attempts": "Requests in all for one line, where trying again may help. [6]",
    "deadline": "Longest time for one line, all attempts and waits together, in seconds. [none]",
    "temperature": "For lines that name none.",
    "max_tokens": "Longest answer, for lines that name none.",
    "one_model": "Use --model for all lines, whatever model they name.",
    "order": "Write results in the order of the requests.",
    "shard": "Send only the I-th of N parts of the requests, by their keys.",
    "retry_failed": "Send again what failed before.",
    "skip_bad": "Leave out lines that can't be sent, and send the others.",
    "dry_run": "Only read the input, and estimate what it comes to at most.",
    "fsync": "Wait for the disk: never, once a second, or for each result.",
    "cache": "Look for answers to the same requests in this file first, and keep new ones there.",
    "summary": "How to print what came of it.",
    "quiet": "Print nothing on stderr but errors.",
}


def batch(
    source: Annotated[Path, Argument(metavar="INPUT", help=_HELP["source"])],
    target: Annotated[Path, Argument(metavar="OUTPUT", help=_HELP["target"])],
    *,
    model: ModelName,
    base_url: BaseURL = None,
    concurrency: Annotated[str, Option(metavar="N|auto", help=_HELP["concurrency"])] = "auto",
    max_concurrency: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["max_concurrency"])
    ] = None,
    rpm: Annotated[float | None, Option(metavar="N", help=_HELP["rpm"])] = None,
    tpm: Annotated[float | None, Option(metavar="N", help=_HELP["tpm"])] = None,
    max_cost: Annotated[float | None, Option(metavar="USD", help=_HELP["max_cost"])] = None,
    attempts: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["attempts"])] = None,
    deadline: Annotated[float | None, Option(metavar="S", help=_HELP["deadline"])] = None,
    timeout_first: TimeoutFirst = None,
    timeout_idle: TimeoutIdle = None,
    timeout_total: TimeoutTotal = None,
    max_tokens: Annotated[int | None, Option(metavar="N", help=_HELP["max_tokens"])] = None,
    temperature: Annotated[float | None, Option(metavar="T", help=_HELP["temperature"])] = None,
    one_model: Annotated[bool, Option("--one-model", help=_HELP["one_model"])] = False,
    order: Annotated[bool, Option("--order", help=_HELP["order"])] = False,
    shard: Annotated[str | None, Option(metavar="I/N", help=_HELP["shard"])] = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help=_HELP["retry_failed"])] = False,
    skip_bad: Annotated[bool, Option("--skip-bad", help=_HELP["skip_bad"])] = False,
    dry_run: Annotated[bool, Option("--dry-run", help=_HELP["dry_run"])] = False,
    fsync: Annotated[
        Literal["never", "interval", "always"], Option(help=_HELP["fsync"])
    ] = "interval",
    cache: Annotated[Path | None, Option(metavar="FILE", help=_HELP["cache"])] = None,
    ledger: LedgerFile = None,
    summary: Annotated[Literal["text", "json"], Option(help=_HELP["summary"])] = "text",
    quiet: Annotated[bool, Option("--quiet", "-q", help=_HELP["quiet"])] = False,
) -> None:
    """Send a file of requests, and append each result to another file.

    Stopped or killed at any instant, the same command goes on: what has a result is not sent
    again. Ctrl-C sends no more and lets the running requests end, a second one cancels them.
    """
    kind, _, name = model.partition(":")
    secret = key_of(kind)

    def make() -> BatchRun:
        options: BatchOptions = {
            "concurrency": _concurrency(concurrency),
            "max_concurrency": max_concurrency,
            "requests_per_minute": _positive("rpm", rpm),
            "tokens_per_minute": _positive("tpm", tpm),
            "limits": llm.Limits(max_cost=max_cost) if max_cost is not None else None,
            "retry": None if attempts is None else _retry(attempts),
            "deadline": _positive("deadline", deadline),
            "timeouts": timeouts_of(
                first_chunk=timeout_first, idle=timeout_idle, total=timeout_total
            ),
            "ordered": order,
        }
        params = {"max_tokens": max_tokens, "temperature": temperature}
        plan = BatchPlan(
            model=model_of(kind, name, base_url),
            path=name or None,
            source=source,
            target=target,
            one_model=one_model,
            params={key: value for key, value in params.items() if value is not None},
            options=options,
            shard=None if shard is None else shard_of(shard),
            skip_bad=skip_bad,
            retry_failed=retry_failed,
            dry_run=dry_run,
            fsync=fsync,
            cache=cache,
            ledger=open_ledger(ledger) if ledger and not dry_run else None,
        )
        return BatchRun(plan, secret, quiet=quiet)

    run_live(make, json=summary == "json", name=model, secret=secret)


def _concurrency(given: str) -> int | Literal["auto"]:
    if given == "auto":
        return "auto"
    if not given.isdecimal() or not int(given):
        raise Misuse("--concurrency is auto, or a whole number from 1 on")
    return int(given)


def _positive(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise Misuse(f"--{name} must be more than 0")
    return value


def _retry(attempts: int) -> llm.Retry:
    """As patient as a batch is by default."""
    return msgspec.structs.replace(BATCH_RETRY, attempts=attempts)


def shard_of(given: str) -> tuple[int, int]:
    """``3/16`` as (3, 16)."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", given, re.ASCII)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise Misuse("--shard is I/N, from 1/N to N/N")
    return part, parts
