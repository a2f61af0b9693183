"""Tables of a comparison, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from measured import Spread
from process import ADAPTERS
from scenarios import BY_NAME, SCENARIOS
from store import Result

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
NOTHING = "-"
SERVER = "**the server's log**"


def ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value * 1000:.1f}"


def figures(spread: Spread) -> str:
    """Return mean, median and 99th percentile in milliseconds."""
    return NOTHING if spread == Spread() else " / ".join(map(ms, spread))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def name_of(tool: str) -> str:
    return str(ADAPTERS[tool].NAME)


def tables(results: Sequence[Result]) -> str:
    """Return all tables for which there are results."""
    parts = []
    for scenario in SCENARIOS:
        if scenario.kind != "timing":
            continue
        for requests, concurrency in scenario.loads:
            key = (scenario.name, requests, concurrency)
            found = [r for r in results if (r.scenario, r.requests, r.concurrency) == key]
            if found:
                at_once = f"{requests} requests, {concurrency} at once"
                parts.append(f"### {scenario.title}: {at_once}\n\n{timing(found)}")
    faults = [r for r in results if r.scenario in BY_NAME and BY_NAME[r.scenario].kind == "faults"]
    parts += [f"### Faults\n\n{fault_table(faults)}"] if faults else []
    cost = [r for r in results if r.scenario in {"plain", "cost"}]
    if any(r.scenario == "cost" for r in cost):
        parts.append(f"### Cost: 1,000 requests, 50 at once\n\n{cost_table(cost)}")
    local = [r for r in results if r.scenario == "local"]
    parts += [f"### The embedded model\n\n{local_table(local)}"] if local else []
    return "\n\n".join(parts)


def timing(results: Sequence[Result]) -> str:
    """Return the table of a scenario, whose first row is the median run of the server."""
    head = ["", "TTFT", "ITL", "TPOT", "E2E", "tokens", "succeeded", "TTFT off", "E2E off"]
    truths = sorted((r.truth for r in results if r.truth), key=lambda t: t.e2e.mean or 0.0)
    rows = []
    if truths:
        truth = truths[len(truths) // 2]
        first = figures(truth.ttft)
        if truth.text != truth.ttft:
            first += f"; text {figures(truth.text)}"
        rest = map(figures, (truth.chunk, truth.tpot, truth.e2e))
        counts = (number(truth.tokens), str(results[0].requests))
        rows.append([SERVER, first, *rest, *counts, NOTHING, NOTHING])
    rows += [timing_row(result) for result in results]
    return table(head, rows)


def timing_row(result: Result) -> list[str]:
    found = result.run.measured
    if found is None:
        return [name_of(result.tool), result.run.why, *[NOTHING] * 7]
    itl = figures(found.itl)
    if found.chunk != Spread():
        itl += f"; chunks {figures(found.chunk)}"
    truth = result.truth
    return [
        name_of(result.tool),
        figures(found.ttft),
        itl,
        figures(found.tpot),
        figures(found.e2e),
        number(found.tokens),
        str(found.succeeded),
        off(found.ttft, truth and truth.ttft),
        off(found.e2e, truth and truth.e2e),
    ]


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"


def off(found: Spread, true: Spread | None) -> str:
    """Return by how much a mean differs from that of the log of the same run."""
    if true is None or true.mean is None or found.mean is None:
        return NOTHING
    return f"{(found.mean - true.mean) * 1000:+.1f}"


def fault_table(results: Sequence[Result]) -> str:
    """Return who counted which answers as good."""
    names = list(dict.fromkeys(r.scenario for r in results))
    tools = list(dict.fromkeys(r.tool for r in results))
    by_run = {(r.tool, r.scenario): r for r in results}
    rows = [[SERVER, *(true_count([r for r in results if r.scenario == n]) for n in names)]]
    for tool in tools:
        rows.append([name_of(tool), *(counted(by_run.get((tool, name))) for name in names)])
    return table(["", *(BY_NAME[name].title for name in names)], rows)


def true_count(results: Sequence[Result]) -> str:
    whole = sorted({r.truth.whole for r in results if r.truth and r.truth.requests})
    return " or ".join(map(str, whole)) + f" of {results[0].requests} whole"


def counted(result: Result | None) -> str:
    if result is None:
        return NOTHING
    if (found := result.run.measured) is None:
        return result.run.why
    return f"{found.succeeded} good, {found.failed} failed"


def cost_table(results: Sequence[Result]) -> str:
    """Return the CPU time of a few requests and of many, and what many do to the figures."""
    few = {r.tool: r.run.cpu for r in results if (r.requests, r.concurrency) == (10, 1)}
    head = ["", "CPU s, 10 requests", "CPU s, 1,000", "wall s, 1,000"]
    head += ["TTFT", "E2E", "succeeded", "TTFT off", "E2E off"]
    rows = []
    for result in results:
        if result.scenario != "cost":
            continue
        name, ttft, _, _, e2e, _, *rest = timing_row(result)
        started = f"{few[result.tool]:.1f}" if result.tool in few else NOTHING
        took = [f"{result.run.cpu:.1f}", f"{result.run.wall:.1f}"]
        rows.append([name, started, *took, ttft, e2e, *rest])
    return table(head, rows)


def local_table(results: Sequence[Result]) -> str:
    """Return the table of the embedded model, of which there is no log."""
    head = ["", "at once", "TTFT", "ITL", "TPOT", "E2E", "tokens", "succeeded"]
    rows = []
    for r in sorted(results, key=lambda r: r.concurrency):
        name, *cells = timing_row(r)
        rows.append([name, str(r.concurrency), *cells[:6]])
    return table(head, rows)


def write_between(path: Path, text: str) -> None:
    """Put this text between the markers of a page. Raises ``ValueError`` if it has none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path.name} has no markers")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
