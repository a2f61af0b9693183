"""``trio-minillm bench``: the speed of any endpoint, measured at its streams.

Guarantees:

- Only whole answers count as success. Failures are counted, by kind.
- Times are taken where bytes leave the socket, and latency is that of content: empty openings and
  trailing usage are no content. Only those from the schedule include waiting for a free place.
- A chunk is not a token: both are counted, tokens only where the server says how many.
- The results are printed however the run ends, and memory is bounded however long it takes.
"""

from __future__ import annotations

import math
from typing import Annotated

from typer import Option

import trio_minillm as llm

from .._bench.figures.objective import Objective, parse_limits
from ..local._named import key_of, kind_of
from . import _bench_load_options as load
from . import _bench_output_options as output
from . import _bench_prompt_options as wanted
from . import _bench_request_options as request
from . import _shared as option
from ._bench_hedge import SecondModel
from ._costs import open_ledger
from ._live import run_live
from ._output import Misuse
from ._shared import model_of, picked, positive, priced, timeouts_of


def second_model_of(
    name: str | None,
    base_url: str | None,
    after: float | None,
    asked: request.Asked,
) -> SecondModel | None:
    """Return the second model of ``--hedge``, if there is one. Raises `Misuse`."""
    if name is None:
        if after is not None or base_url is not None:
            raise Misuse("--after and --hedge-base-url need --hedge")
        return None
    if after is None or not 0 <= after < math.inf:
        raise Misuse("--hedge needs --after with a number of seconds, 0 or more")
    model = model_of(name, base_url)
    if isinstance(model, str):
        raise Misuse("--hedge does not take a local model")
    return SecondModel(name=name, model=asked.with_fields(model), after=after)


_HELP = {
    "hedge": "A second model for hedging: each prompt is sent twice, once to --model alone and once to both.",
    "hedge_base_url": "The second model's address. [--base-url, if both models are of the same kind]",
    "after": "Ask the second model if the first has sent no content for S seconds.",
    "goodput": "Count the requests that meet these limits, such as 'ttft<0.5s,tpot<50ms'.",
    "null_run": "Afterwards, run the same load against a timed server on this machine, to measure what this client adds.",
    "random_seed": "Seed for whatever the benchmark draws at random: arrivals, prompts, lengths.",
}


HEADINGS = {
    "model": "Endpoint",
    "requests": "Load",
    "sweep": "Several loads",
    "prompt": "Prompts",
    "system": "Requests",
    "timeout_first": "Limits and cost",
    "hedge": "Hedging",
    "goodput": "Results",
}
"""Headings of the options in the help, each by the first one below it."""


def bench(
    *,
    model: option.ModelName,
    base_url: option.BaseURL = None,
    header: request.Header = None,
    requests: load.Requests = None,
    concurrency: load.Concurrency = None,
    rate: load.Rate = None,
    arrivals: load.Arrivals = None,
    burstiness: load.Burstiness = None,
    ramp: load.RampText = None,
    trace: load.TraceFile = None,
    speed_up: load.SpeedUp = None,
    duration: load.Duration = None,
    warmup: load.Warmup = 0,
    steady: load.Steady = None,
    processes: load.Processes = 1,
    random_seed: Annotated[int, Option(metavar="N", min=0, help=_HELP["random_seed"])] = 0,
    null_run: Annotated[bool, Option("--null-run", help=_HELP["null_run"])] = False,
    sweep: load.SweepText = None,
    find: load.FindText = None,
    find_over: load.FindOver = None,
    precision: load.Precision = 0.05,
    prompt: wanted.PromptText = None,
    prompts: wanted.PromptFile = None,
    prompt_column: wanted.PromptColumn = None,
    system_column: wanted.SystemColumn = None,
    format: wanted.PromptFormat = None,
    turns: wanted.Turns = None,
    think: wanted.Think = None,
    input_tokens: wanted.InputTokens = None,
    output_tokens: wanted.OutputTokens = None,
    prefix_share: wanted.PrefixShare = None,
    unique: wanted.Unique = False,
    system: option.System = None,
    max_tokens: request.MostTokens = None,
    min_tokens: request.MinTokens = None,
    ignore_eos: request.IgnoreEos = False,
    temperature: option.Temperature = None,
    top_p: request.TopP = None,
    seed: request.Seed = None,
    stop: request.Stop = None,
    reasoning: option.ReasoningHow = None,
    schema: request.Schema = None,
    extra: option.Extra = None,
    timeout_first: option.TimeoutFirst = None,
    timeout_idle: option.TimeoutIdle = None,
    timeout_total: option.TimeoutTotal = None,
    attempts: option.Attempts = 1,
    max_cost: option.MaxCost = None,
    price: option.Price = None,
    ledger: option.LedgerFile = None,
    hedge: Annotated[str | None, Option(metavar="KIND:NAME", help=_HELP["hedge"])] = None,
    hedge_base_url: Annotated[
        str | None, Option(metavar="URL", help=_HELP["hedge_base_url"])
    ] = None,
    after: Annotated[float | None, Option(metavar="S", help=_HELP["after"])] = None,
    goodput: Annotated[str | None, Option(metavar="LIMITS", help=_HELP["goodput"])] = None,
    json: output.JSON = False,
    markdown: output.Markdown = False,
    csv: output.CSVFile = None,
    records: output.RecordsFile = None,
    html: output.HTMLFile = None,
    quiet: option.Quiet = False,
) -> None:
    """Measure an endpoint under load: TTFT, inter-token latency, chunks/s, and tokens/s.

    Only complete answers count as success. Results go to stdout, progress to stderr.
    Ctrl-C stops sending and lets running streams finish; a second Ctrl-C cancels them.
    """
    chosen = picked(wanted.PromptChoice, locals())
    asking = picked(request.RequestChoice, locals())
    loads = picked(load.LoadOptions, locals())
    from ._bench_run import Bench, Target  # brings numpy, which the other commands need not load

    secret = key_of(kind_of(model), base_url)
    if hedge is not None and hedge_base_url is None and kind_of(hedge) == kind_of(model):
        hedge_base_url = base_url
    if hedge is not None:
        secret = f"{secret}\n{key_of(kind_of(hedge), hedge_base_url)}"

    outputs = output.Outputs(json=json, markdown=markdown, csv=csv, records=records, html=html)

    def make() -> Bench:
        outputs.check(("--prompts", prompts), ("--ledger", ledger))
        positive("max-cost", max_cost)
        asked = chosen.asked(asking, kind_of(model))
        first = asked.on(priced(model_of(model, base_url), price))
        found = chosen.read(first, asked, loads.most_requests(), random_seed)
        course = loads.course(
            prompts=found.prompts,
            params=asked.params,
            system=asked.message,
            think=found.think,
            seed=random_seed,
            timeouts=timeouts_of(first_chunk=timeout_first, idle=timeout_idle, total=timeout_total),
            attempts=attempts,
        )
        target = Target(
            name=model,
            model=first,
            asked=asked,
            prompts=found,
            second=second_model_of(hedge, hedge_base_url, after, asked),
            limits=llm.Limits(max_cost=max_cost),
            ledger=open_ledger(ledger) if ledger else None,
            secret=asked.secret(secret),
            objective=course.objective or goodput_of(goodput),
            null_run=null_run,
            processes=load.processes_of(processes),
        )
        return Bench(course, target, outputs, quiet=quiet)

    run_live(make, json=json, name=model, base_url=base_url)


def goodput_of(text: str | None) -> Objective | None:
    """Return the limits of ``--goodput``, if there are any. Raises `Misuse`."""
    if text is None:
        return None
    try:
        return Objective(share=1.0, limits=parse_limits(text))
    except ValueError as exc:
        raise Misuse(f"--goodput: {exc}") from exc
