"""``trio-minillm bench``: the speed of any endpoint, measured at its streams.

Guarantees:

- Only whole answers count as success. Failures are counted, by kind.
- Times are taken where bytes leave the socket, and latency is that of content: empty openings and
  trailing usage are no content. No time includes waiting for a free place.
- A chunk is not a token: both are counted, tokens only where the server says how many.
- The results are printed however the run ends, and memory is bounded however long it takes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from typer import Option

import trio_minillm as llm

from .._bench.plan import CONCURRENCY, REQUESTS, Closed, Load, Open, Plan
from .._bench.prompts.prompt import Prompt
from ..local._named import key_of, kind_of
from . import _shared as option
from ._bench_hedge import SecondModel
from ._costs import open_ledger
from ._live import run_live
from ._output import Misuse
from ._shared import model_of, positive, priced, timeouts_of

MAX_TOKENS = 128
"""Tokens of an answer by default, at most, for the same reason."""
PROMPT = "Tell me a long story about the sea."
"""The prompt by default."""


def prompts_of(prompt: str | None, path: Path | None) -> list[str]:
    """Return the prompts to send in turn. Raises `Misuse` if there are none."""
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


def second_model_of(
    name: str | None, base_url: str | None, after: float | None, rate: float | None
) -> SecondModel | None:
    """Return the second model of ``--hedge``, if there is one. Raises `Misuse`."""
    if name is None:
        if after is not None or base_url is not None:
            raise Misuse("--after and --hedge-base-url need --hedge")
        return None
    if after is None or not 0 <= after < math.inf:
        raise Misuse("--hedge needs --after: seconds, 0 or more")
    if rate is not None:
        raise Misuse("--hedge can't go with --rate")
    model = model_of(name, base_url)
    if isinstance(model, str):
        raise Misuse("--hedge takes no local model")
    return SecondModel(name=name, model=model, after=after)


_HELP = {
    "requests": f"Requests in all. [{REQUESTS}, or as many as --duration allows]",
    "concurrency": f"Most streams at once. [{CONCURRENCY}; with --rate any number]",
    "rate": "Start R requests per second, whatever became of earlier ones.",
    "duration": "Start no more requests after this many seconds.",
    "prompts": "Prompts, one per line, sent in turn.",
    "prompt": "The prompt of all requests.",
    "warmup": "Requests before those that count.",
    "hedge": "A second model: each prompt is sent to the first alone, and with this one behind it.",
    "hedge_base_url": "The second model's address. [that of --model, for one of the same kind]",
    "after": "Ask the second if the first has given no content for this many seconds.",
    "json": "Print the results as one JSON object.",
}


def bench(
    *,
    model: option.ModelName,
    base_url: option.BaseURL = None,
    requests: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["requests"])] = None,
    concurrency: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["concurrency"])
    ] = None,
    rate: Annotated[float | None, Option(metavar="R", help=_HELP["rate"])] = None,
    duration: Annotated[float | None, Option(metavar="S", help=_HELP["duration"])] = None,
    hedge: Annotated[str | None, Option(metavar="KIND:NAME", help=_HELP["hedge"])] = None,
    hedge_base_url: Annotated[
        str | None, Option(metavar="URL", help=_HELP["hedge_base_url"])
    ] = None,
    after: Annotated[float | None, Option(metavar="S", help=_HELP["after"])] = None,
    warmup: Annotated[int, Option(metavar="N", min=0, help=_HELP["warmup"])] = 0,
    prompt: Annotated[str | None, Option(metavar="TEXT", help=_HELP["prompt"])] = None,
    prompts: Annotated[Path | None, Option(metavar="FILE", help=_HELP["prompts"])] = None,
    max_tokens: option.MaxTokens = MAX_TOKENS,
    timeout_first: option.TimeoutFirst = None,
    timeout_idle: option.TimeoutIdle = None,
    timeout_total: option.TimeoutTotal = None,
    attempts: option.Attempts = 1,
    max_cost: option.MaxCost = None,
    price: option.Price = None,
    ledger: option.LedgerFile = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    quiet: option.Quiet = False,
) -> None:
    """Measure an endpoint: time to the first content, gaps between chunks, chunks/s, tokens/s.

    Only whole answers count as success. The results go to stdout, the progress to stderr.
    Ctrl-C sends no more requests and lets the running streams end; a second one cancels them.
    """
    from ._bench_run import Bench, Target  # brings numpy, which the other commands need not load

    secret = key_of(kind_of(model), base_url)
    if hedge is not None and hedge_base_url is None and kind_of(hedge) == kind_of(model):
        hedge_base_url = base_url
    if hedge is not None:
        secret = f"{secret}\n{key_of(kind_of(hedge), hedge_base_url)}"
    if requests is None and duration is None:
        requests = REQUESTS

    def make() -> Bench:
        positive("max-cost", max_cost)
        plan = Plan(
            prompts=tuple(Prompt(messages=text) for text in prompts_of(prompt, prompts)),
            load=load_of(concurrency, rate),
            requests=requests,
            duration=positive("duration", duration),
            warmup=warmup,
            params={"max_tokens": max_tokens},
            timeouts=timeouts_of(first_chunk=timeout_first, idle=timeout_idle, total=timeout_total),
            attempts=attempts,
        )
        target = Target(
            model=priced(model_of(model, base_url), price),
            second=second_model_of(hedge, hedge_base_url, after, rate),
            limits=llm.Limits(max_cost=max_cost),
            ledger=open_ledger(ledger) if ledger else None,
            secret=secret,
        )
        return Bench(plan, target, quiet=quiet)

    run_live(make, json=json, name=model, base_url=base_url)


def load_of(concurrency: int | None, rate: float | None) -> Load:
    """Return the load that the options describe. Raises `Misuse`."""
    if (given := positive("rate", rate)) is not None:
        return Open(rate=given, concurrency=concurrency)
    return Closed(concurrency=concurrency or CONCURRENCY)
