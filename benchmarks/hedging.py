"""The gain of a second model: the time to the first content and the cost, with and without one.

    python benchmarks/hedging.py            # print the table
    python benchmarks/hedging.py --write    # and put it into docs/streaming/second-model.md

The real client runs on Trio's mock clock against servers in memory, so that an hour of waiting takes seconds
and each run gives the same numbers. A server's times to the first content are the quantiles of a
distribution, each once, in an order drawn with a fixed seed; the second model's are drawn apart from the
first's. An answer costs 0.001 USD, 0.0004 of it for the prompt, which is also charged for an attempt that is
cancelled; the client asks for that, as OpenRouter can be asked.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import testing

PAGE = Path(__file__).parent.parent / "docs" / "streaming" / "second-model.md"
BEGIN, END = "<!-- benchmarks/hedging.py -->\n", "<!-- end -->\n"
REQUESTS = 2_000
WHOLE, PROMPT = 0.001, 0.0004
"""USD of a whole answer, and of an attempt that was cancelled before any content."""


def few_slow(share: float) -> float:
    """Return a quantile of a server of which 6 % of the requests meet a replica that is busy or cold.

    The others take about 1 s, from 0.5 to 1.5; these take from 7 to 60 s.
    """
    if share < 0.94:
        return 0.5 + share / 0.94
    return float(7.0 * (60.0 / 7.0) ** ((share - 0.94) / 0.06))


def heavy_tail(share: float) -> float:
    """Return a quantile of a log-normal distribution, whose tail has no gap before it."""
    return math.exp(math.log(10) / NormalDist().inv_cdf(0.95) * NormalDist().inv_cdf(share))


SERVERS: dict[str, Callable[[float], float]] = {"6 % slow": few_slow, "log-normal": heavy_tail}
"""Both have a median of about 1 s, and a 95th percentile of ten times that."""
ROWS: dict[str, tuple[float | None, ...]] = {
    "6 % slow": (None, 5.0, 2.0, 1.0),
    "log-normal": (None, 10.0, 5.0, 2.0),
}
"""The seconds after which the second is asked; ``None``: never."""


class Result(NamedTuple):
    """One row: seconds to the first content, requests sent, and USD."""

    p50: float
    p95: float
    p99: float
    sent: int
    cost: Decimal


def times_of(quantile: Callable[[float], float], count: int, seed: str) -> list[float]:
    """Return each of so many quantiles once, in some order."""
    times = [quantile((n + 0.5) / count) for n in range(count)]
    random.Random(seed).shuffle(times)
    return times


def server(quantile: Callable[[float], float], count: int) -> testing.ScriptedTransport:
    """Return both models' servers, as OpenRouter, which says afterwards what an attempt cost."""
    times = {name: iter(times_of(quantile, count, name)) for name in ("first", "second")}
    events = testing.openai_events("Sea ", "water ", "is ", "salty.")
    usage = {"prompt_tokens": 400, "completion_tokens": 60, "cost": WHOLE}
    events[-2] = testing.sse({"choices": [], "usage": usage})
    given = iter(range(2 * count))

    def answer(request: testing.ServedRequest) -> testing.Reply:
        headers = {"content-type": "text/event-stream", "x-generation-id": f"gen-{next(given)}"}
        return testing.reply(next(times[request.json()["model"]]), *events, headers=headers)

    return testing.ScriptedTransport(answer, settlements=[testing.settlement(PROMPT)])


def measure(quantile: Callable[[float], float], after: float | None, count: int) -> Result:
    """Send requests one after the other, each with a second model after so many seconds."""
    transport = server(quantile, count)
    first, second = (
        llm.openrouter(name, base_url="http://server.invalid/v1", api_key="dummy-key")
        for name in ("first", "second")
    )
    choice = first if after is None else llm.first_of(first, second, after=after)

    async def main() -> Result:
        seconds: list[float] = []
        async with llm.open_client(transport=transport) as client:
            for _ in range(count):
                began = trio.current_time()
                async with client.stream(choice, "Why is the sea salty?") as stream:
                    await stream.next_chunk()
                    seconds.append(trio.current_time() - began)
                    await stream.collect()
        seconds.sort()
        p50, p95, p99 = (seconds[math.ceil(count * share) - 1] for share in (0.5, 0.95, 0.99))
        assert client.ledger.attempts == len(transport.requests)
        assert not client.ledger.unsettled
        return Result(p50, p95, p99, client.ledger.attempts, client.ledger.total)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def table(count: int) -> str:
    """Return the table of all rows, in Markdown."""
    lines = [
        "| first content of a model | second after | p50 | p95 | p99 | p99 cut by | requests | USD |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, quantile in SERVERS.items():
        alone: Result | None = None
        for after in ROWS[name]:
            found = measure(quantile, after, count)
            alone = alone or found
            cut = "-" if found is alone else f"{1 - found.p99 / alone.p99:.0%}"
            sent, cost = found.sent / count - 1, float(found.cost / alone.cost) - 1
            more = [f"{found.sent:,}", f"{found.cost:.2f}"]
            if found is not alone:
                more = [f"{found.sent:,} (+{sent:.1%})", f"{found.cost:.2f} (+{cost:.1%})"]
            times = [f"{seconds:.2f} s" for seconds in found[:3]]
            row = [name, "never" if after is None else f"{after:g} s", *times, cut, *more]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    made = table(REQUESTS)
    print(made, end="")
    if "--write" in sys.argv[1:]:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, behind = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{behind}")


if __name__ == "__main__":
    main()
