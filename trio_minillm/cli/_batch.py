"""``trio-minillm batch``: a file of requests in, a file of results out, however often it is killed.

Guarantees:

- Nothing is sent before the whole input has been read and found good.
- A request with a result in the output is not sent again, whatever ended the run, and the output
  has one line for each sample of a key. The same command continues the work.
- stdout carries the closing table or the summary as JSON, and nothing else; or the results alone,
  if OUTPUT is ``-``, and stderr the rest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from typer import Argument, Option

import trio_minillm as llm
from trio_minillm._batch.throttle.retry import BATCH_RETRY
from trio_minillm.batch import BatchOptions

from ..local._named import is_local, key_of, kind_of
from . import _shared as option
from ._batch_files import check_files, ledger_for
from ._batch_judging import judged
from ._batch_output import STDOUT, target_of
from ._batch_report import BatchPlan
from ._batch_run import BatchRun
from ._batch_via import planned
from ._live import run_live
from ._output import Misuse
from ._shared import model_of, positive, priced, schema_from, timeouts_of
from ._verbose import watcher

MAX_SAMPLES = 10_000
"""Most answers to each line; the state of each is looked up while the input is read."""
_HELP = {
    "source": "The requests: JSON lines, .csv, .tsv or .parquet, also with .gz or .zst; - is stdin.",
    "target": "The results: JSON lines, .parquet, .arrow, .feather, or - for stdout. Requests that have a"
    " result in this file are not sent again.",
    "key": "Input column with a line's key. [key; with --prompt, the line's number]",
    "prompt": "Input column with the prompt.",
    "system": "Input column with a system message.",
    "strict": "Refuse unknown columns. Without this, --key, --prompt and --system keep them as meta.",
    "format": "The input's format, if its name does not tell.",
    "concurrency": "Requests at a time: a number, or auto to find a good one.",
    "max_concurrency": "The most that auto tries. [1000]",
    "no_adapt": "Keep the given limits: learn no others from the server, and never pause.",
    "rpm": "Requests per minute, for each model.",
    "tpm": "Tokens per minute, input and output together, for each model.",
    "attempts": "Try each line up to N times, as long as its failures may be temporary. [6]",
    "deadline": "Give up on a line after S seconds, retries and waits included. [no limit]",
    "timeout_total": "Stop an attempt after S seconds. [600]",
    "temperature": "The temperature for lines that set none.",
    "max_tokens": "The longest answer in tokens, for lines that set none.",
    "one_model": "Use --model for every line, whatever model the line names.",
    "order": "Write results in the order of the requests.",
    "shard": "Send only part I of N of the requests, chosen by their keys.",
    "samples": "Answers to each line. A later run with a larger N requests only the missing ones.",
    "schema": "A JSON schema for answers to lines that set none. Answers are checked against it.",
    "retries_invalid": "Ask again up to N times if an answer is invalid, and say what is wrong with it.",
    "score": "A function of a result, whose value is written as its score.",
    "check": "Send one request first, and stop if it fails.",
    "retry_failed": "Send requests that failed in earlier runs once more.",
    "skip_bad": "Skip lines that can't be sent, and send the others.",
    "dry_run": "Only read the input, and estimate its tokens and cost: the likely and the highest.",
    "fsync": "When to force results to the disk: never, once a second, or after each.",
    "cache": "Take answers to identical requests from this file, and add new ones to it.",
    "trace": "Log decisions on rates, concurrency and pauses to this file, as JSON lines.",
    "summary": "The form of the summary.",
    "via": "Send requests live, or in the provider's own batches: half the price, within a day.",
    "then": "Finally, send live what the batches did not answer.",
    "cancel": "Cancel the batches of this run, and fetch what they had answered.",
    "part_requests": "The most requests in a batch. [50000 at OpenAI, 100000 at Anthropic]",
    "part_mb": "The most megabytes in a batch. [100]",
    "look_every": "Check each batch at least every S seconds. [60]",
}


def batch(
    source: Annotated[Path, Argument(metavar="INPUT", help=_HELP["source"])],
    target: Annotated[str, Argument(metavar="OUTPUT", help=_HELP["target"])],
    *,
    model: option.ModelName,
    base_url: option.BaseURL = None,
    key: Annotated[str | None, Option(metavar="COL", help=_HELP["key"])] = None,
    prompt: Annotated[str | None, Option(metavar="COL", help=_HELP["prompt"])] = None,
    system: Annotated[str | None, Option(metavar="COL", help=_HELP["system"])] = None,
    strict: Annotated[bool, Option("--strict", help=_HELP["strict"])] = False,
    format: Annotated[
        Literal["jsonl", "csv", "tsv", "parquet"] | None, Option(help=_HELP["format"])
    ] = None,
    concurrency: Annotated[str, Option(metavar="N|auto", help=_HELP["concurrency"])] = "auto",
    max_concurrency: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["max_concurrency"])
    ] = None,
    no_adapt: Annotated[bool, Option("--no-adapt", help=_HELP["no_adapt"])] = False,
    rpm: Annotated[float | None, Option(metavar="N", help=_HELP["rpm"])] = None,
    tpm: Annotated[float | None, Option(metavar="N", help=_HELP["tpm"])] = None,
    max_cost: option.MaxCost = None,
    attempts: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["attempts"])] = None,
    lenient: option.Lenient = False,
    deadline: Annotated[float | None, Option(metavar="S", help=_HELP["deadline"])] = None,
    timeout_first: option.TimeoutFirst = None,
    timeout_idle: option.TimeoutIdle = None,
    timeout_total: Annotated[float | None, Option(metavar="S", help=_HELP["timeout_total"])] = None,
    max_tokens: Annotated[int | None, Option(metavar="N", help=_HELP["max_tokens"])] = None,
    temperature: Annotated[float | None, Option(metavar="T", help=_HELP["temperature"])] = None,
    one_model: Annotated[bool, Option("--one-model", help=_HELP["one_model"])] = False,
    order: Annotated[bool, Option("--order", help=_HELP["order"])] = False,
    shard: Annotated[str | None, Option(metavar="I/N", help=_HELP["shard"])] = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help=_HELP["retry_failed"])] = False,
    skip_bad: Annotated[bool, Option("--skip-bad", help=_HELP["skip_bad"])] = False,
    samples: Annotated[int, Option(metavar="N", min=1, max=MAX_SAMPLES, help=_HELP["samples"])] = 1,
    schema: Annotated[Path | None, Option(metavar="FILE", help=_HELP["schema"])] = None,
    retries_invalid: Annotated[int, Option(metavar="N", min=0, help=_HELP["retries_invalid"])] = 0,
    score: Annotated[str | None, Option(metavar="MODULE:FUNCTION", help=_HELP["score"])] = None,
    check: Annotated[bool, Option("--check", help=_HELP["check"])] = False,
    dry_run: Annotated[bool, Option("--dry-run", help=_HELP["dry_run"])] = False,
    fsync: Annotated[
        Literal["never", "interval", "always"], Option(help=_HELP["fsync"])
    ] = "interval",
    cache: Annotated[Path | None, Option(metavar="FILE", help=_HELP["cache"])] = None,
    price: option.Price = None,
    ledger: option.LedgerFile = None,
    trace: Annotated[Path | None, Option(metavar="FILE", help=_HELP["trace"])] = None,
    via: Annotated[Literal["live", "provider"], Option(help=_HELP["via"])] = "live",
    then: Annotated[Literal["live"] | None, Option(help=_HELP["then"])] = None,
    cancel: Annotated[bool, Option("--cancel", help=_HELP["cancel"])] = False,
    part_requests: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["part_requests"])
    ] = None,
    part_mb: Annotated[float | None, Option(metavar="MB", help=_HELP["part_mb"])] = None,
    look_every: Annotated[float | None, Option(metavar="S", help=_HELP["look_every"])] = None,
    summary: Annotated[Literal["text", "json"], Option(help=_HELP["summary"])] = "text",
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
) -> None:
    """Send a file of requests, and append each result to another file.

    Run the same command again to continue after a stop or a crash: requests that have a result are not
    sent again, unless results go to stdout. Ctrl-C or SIGTERM sends no more requests and lets running
    ones finish; a second one cancels them. With --via provider, either leaves the batches with the
    provider, and the same command fetches the answers later.
    """

    def make() -> BatchRun:
        secret = key_of(kind_of(model), base_url)
        place = target_of(target, retry_failed=retry_failed, journal=via == "provider")
        check_files(source, place, schema=schema, ledger=ledger, cache=cache, trace=trace)
        _check_together(concurrency, max_concurrency, no_adapt=no_adapt, local=is_local(model))
        clocks = timeouts_of(first_chunk=timeout_first, idle=timeout_idle, total=timeout_total)
        options: BatchOptions = {
            "concurrency": _concurrency(concurrency),
            "adapt": "off" if no_adapt else "rate+concurrency",
            "max_concurrency": max_concurrency,
            **_rates(rpm, tpm),
            "limits": None if max_cost is None else llm.Limits(max_cost=max_cost),
            "retry": _retry(attempts),
            "deadline": positive("deadline", deadline),
            "lenient": lenient,
            "timeouts": clocks,
            "ordered": order,
            **judged(schema, retries_invalid, score),
        }
        plan = BatchPlan(
            model=priced(model_of(model, base_url, asks=not dry_run), price),
            source=source,
            target=place,
            columns={"key": key, "prompt": prompt, "system": system},
            strict=strict,
            format=format,
            one_model=one_model,
            params=params_from(max_tokens, temperature, schema),
            options=options,
            shard=None if shard is None else shard_of(shard),
            skip_bad=skip_bad,
            retry_failed=retry_failed,
            samples=samples,
            check=check,
            dry_run=dry_run,
            fsync=fsync,
            cache=cache,
            trace=trace,
            ledger=ledger_for(ledger, dry_run=dry_run),
            observer=watcher(verbose=verbose, quiet=quiet, secret=secret),
        )
        parts = part_requests, part_mb, look_every
        return BatchRun(planned(plan, via, parts, then=then, cancel=cancel), secret, quiet=quiet)

    run_live(make, json=summary == "json", name=model, base_url=base_url, stderr=target == STDOUT)


def _check_together(given: str, most: int | None, *, no_adapt: bool, local: bool) -> None:
    if most is not None and (given != "auto" or local):
        raise Misuse("--max-concurrency needs --concurrency auto, and a model that is not local")
    if no_adapt and given == "auto" and not local:
        raise Misuse("--no-adapt needs a number for --concurrency")


def params_from(
    max_tokens: int | None, temperature: float | None, schema: Path | None
) -> dict[str, Any]:
    """Return the parameters for lines that lack them. Raises `Misuse` for a schema that is none."""
    form = None if schema is None else schema_from(schema)
    params = {"max_tokens": max_tokens, "temperature": temperature, "response_format": form}
    return {name: value for name, value in params.items() if value is not None}


def _rates(rpm: float | None, tpm: float | None) -> BatchOptions:
    return {
        "requests_per_minute": positive("rpm", rpm),
        "tokens_per_minute": positive("tpm", tpm),
    }


def _concurrency(given: str) -> int | Literal["auto"]:
    if given == "auto":
        return "auto"
    if not given.isdecimal() or not int(given):
        raise Misuse("--concurrency takes auto, or a whole number of 1 or more")
    return int(given)


def _retry(attempts: int | None) -> llm.Retry | None:
    return None if attempts is None else msgspec.structs.replace(BATCH_RETRY, attempts=attempts)


def shard_of(given: str) -> tuple[int, int]:
    """Return ``3/16`` as (3, 16). Raises `Misuse` for anything else."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", given, re.ASCII)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise Misuse("--shard takes I/N, from 1/N to N/N")
    return part, parts
