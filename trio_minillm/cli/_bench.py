"""``trio-minillm bench``: how fast any endpoint answers, by what its streams really did.

Guarantees:

- Only whole answers count as success. What failed is counted, and by what it failed of.
- Times are taken where bytes leave the socket, and latency is that of content: openings that
  say nothing and trailing usage are no content. Waiting for a free place is in no time.
- A chunk is not a token: both are counted, tokens only where the server says how many.
- The results come however it ends, and in bounded memory however long it takes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from typer import Option

import trio_minillm as llm

from ._bench_load import CONCURRENCY, Plan
from ._bench_run import Bench
from ._costs import open_ledger
from ._live import run_live
from ._options import (
    Attempts,
    BaseURL,
    LedgerFile,
    MaxTokens,
    ModelName,
    TimeoutFirst,
    TimeoutIdle,
    TimeoutTotal,
    key_of,
    model_of,
    timeouts_of,
)
from ._output import Misuse

REQUESTS, MAX_TOKENS = 100, 128
"""What is sent if nothing else is said: small enough to cost cents."""
PROMPT = "Tell me a long story about the sea."


def prompts_of(prompt: str | None, path: Path | None) -> list[str]:
    """The prompts, to be sent in turn."""
    if prompt is not None and path is not None:
        raise Misuse("--prompt can't go with --prompts")
    if path is None:
        prompts = [PROMPT if prompt is None else prompt]
    else:
        try:
            prompts = path.read_text("utf-8").split("\n")
        except OSError as exc:
            raise Misuse(f"the prompts {path}: {exc.strerror or exc}") from exc
        except UnicodeError:
            raise Misuse(f"the prompts {path}: not UTF-8") from None
    prompts = [line for line in map(str.strip, prompts) if line]
    if not prompts:
        raise Misuse("there is no prompt")
    return prompts


def _check_positive(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise Misuse(f"--{name.replace('_', '-')} must be more than 0")


_HELP = {
    "requests": f"Requests in all. [{REQUESTS}, or what --duration gives time for]",
    "concurrency": f"Streams at once, at most. [{CONCURRENCY}; with --rate any number]",
    "rate": "Begin so many requests a second, whatever became of those before.",
    "duration": "Begin no more after so many seconds.",
    "prompts": "Prompts, one a line, sent in turn.",
    "prompt": "The prompt of all requests.",
    "warmup": "Requests before those that count.",
    "max_cost": "Begin no more once so many USD are spent.",
    "json": "Print the results as one JSON object.",
    "quiet": "Print nothing on stderr but errors.",
}


def bench(
    *,
    model: ModelName,
    base_url: BaseURL = None,
    requests: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["requests"])] = None,
    concurrency: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["concurrency"])
    ] = None,
    rate: Annotated[float | None, Option(metavar="R", help=_HELP["rate"])] = None,
    duration: Annotated[float | None, Option(metavar="S", help=_HELP["duration"])] = None,
    warmup: Annotated[int, Option(metavar="N", min=0, help=_HELP["warmup"])] = 0,
    prompt: Annotated[str | None, Option(metavar="TEXT", help=_HELP["prompt"])] = None,
    prompts: Annotated[Path | None, Option(metavar="FILE", help=_HELP["prompts"])] = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    timeout_first: TimeoutFirst = None,
    timeout_idle: TimeoutIdle = None,
    timeout_total: TimeoutTotal = None,
    attempts: Attempts = 1,
    max_cost: Annotated[float | None, Option(metavar="USD", help=_HELP["max_cost"])] = None,
    ledger: LedgerFile = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help=_HELP["quiet"])] = False,
) -> None:
    """Measure an endpoint: time to the first content, gaps between chunks, chunks/s, tokens/s.

    Only whole answers count as success. The results are on stdout, how it goes on stderr.
    Ctrl-C sends no more and lets the running streams end, a second one cancels them.
    """
    kind, _, name = model.partition(":")
    secret = key_of(kind)
    if requests is None and duration is None:
        requests = REQUESTS
    if concurrency is None and rate is None:
        concurrency = CONCURRENCY

    def make() -> Bench:
        _check_positive(rate=rate, duration=duration, max_cost=max_cost)
        plan = Plan(
            model=model_of(kind, name, base_url),
            path=name or None,
            prompts=prompts_of(prompt, prompts),
            max_tokens=max_tokens,
            requests=requests,
            duration=duration,
            concurrency=concurrency,
            rate=rate,
            warmup=warmup,
            timeouts=timeouts_of(first_chunk=timeout_first, idle=timeout_idle, total=timeout_total),
            retry=llm.Retry(attempts=attempts),
            limits=llm.Limits(max_cost=max_cost),
            ledger=open_ledger(ledger) if ledger else None,
        )
        return Bench(plan, secret, quiet=quiet)

    run_live(make, json=json, name=model, secret=secret)
