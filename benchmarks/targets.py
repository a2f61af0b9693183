"""The library's performance targets, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cases import ALONE
from contenders import COMPLETE, FLOOR, OURS
from report import Results, markdown, number


class Target(NamedTuple):
    what: str
    value: float | None
    limit: float
    unit: str = "x"

    @property
    def met(self) -> str:
        if self.value is None:
            return "not measured"
        return "yes" if self.value <= self.limit else "no"


def _chunks(results: Results) -> Iterator[Target]:
    def ratio(layout: str, to: str, scheme: str = "http", wire: str = "openai") -> float | None:
        table = f"chunk/{wire}/{scheme}/{layout}"
        return results.ratio((table, OURS), (table, to))

    yield Target("burst: CPU relative to the floor", ratio("burst", FLOOR), 2.2)
    yield Target("burst: CPU relative to openai", ratio("burst", "openai"), 1 / 30)
    for layout in ("flushed", "paced"):
        words = "as fast as it goes" if layout == "flushed" else "woken for each"
        title = f"one event per read ({words})"
        yield Target(f"{title}: CPU relative to the floor", ratio(layout, FLOOR), 2.0)
        yield Target(f"{title}: CPU relative to openai", ratio(layout, "openai"), 1 / 18)
        secure = ratio(layout, "aiohttp", "https")
        yield Target(f"{title}, TLS: CPU relative to aiohttp", secure, 1.0)
    anthropic = ratio("burst", "anthropic", wire="anthropic")
    yield Target("burst, Anthropic's format: CPU relative to its SDK", anthropic, 1 / 6)
    for wire, words in (("responses", "OpenAI Responses"), ("gemini", "Gemini's format")):
        for layout in ("burst", "flushed"):
            ours, chat = (f"chunk/{one}/http/{layout}" for one in (wire, "openai"))
            value = results.ratio((ours, OURS), (chat, OURS))
            yield Target(f"{layout}, {words}: CPU relative to chat completions", value, 2.0)


def _counts(results: Results) -> Iterator[Target]:
    small, large = "many/1000", "many/5000"
    for to, limit in (("aiohttp", 0.95), ("openai", 1 / 3.5)):
        value = results.ratio((small, OURS), (small, to))
        yield Target(f"1,000 streams: CPU relative to {to}", value, limit)
    ours, floors = (results.median(small, one, "p99") for one in (OURS, FLOOR))
    above = (ours - floors) * 1e3 if ours is not None and floors is not None else None
    yield Target("1,000 streams: p99 above the floor's", above, 5.0, "ms")
    half, memory = (results.median(large, OURS, metric) for metric in ("p50", "memory"))
    yield Target("5,000 streams: p50", half and half * 1e3, 1.0, "ms")
    yield Target("5,000 streams: memory per stream", memory and memory / 1024, 14.0, "KiB")
    set_up = results.ratio((large, OURS), (large, "aiohttp"), "set_up")
    yield Target("5,000 streams: time to set up relative to aiohttp", set_up, 1.2)
    for table, words in (("request/0", ""), *((t, f", {w}") for t, (*_, w) in ALONE.items())):
        for mine, limit in ((OURS, 1.3), (COMPLETE, 1.0)):
            value = results.ratio((table, mine), (table, "aiohttp"))
            way = "stream" if mine == OURS else "complete"
            yield Target(f"a short request by {way}{words}: CPU relative to aiohttp", value, limit)
    for metric, words in (("cpu", "CPU"), ("first", "time to the first chunk")):
        value = results.ratio(("request/2500", OURS), ("request/0", OURS), metric)
        yield Target(f"a request with 2,500 open, relative to none: {words}", value, 1.3)


def _sizes(results: Results) -> Iterator[Target]:
    deltas = results.median("big/deltas/100000", OURS, "total")
    text = results.median("big/text/50000", OURS, "total")
    yield Target("100,000 deltas: CPU", deltas, 1.0, "s")
    yield Target("50 MB of text: CPU", text, 2.0, "s")
    value = results.ratio(("import", OURS), ("import", "base"))
    yield Target("import relative to trio + httpx + msgspec", value, 1.15)


def targets(results: Results) -> list[Target]:
    """Return every target with its measured value."""
    return [*_chunks(results), *_counts(results), *_sizes(results)]


def verdicts(results: Results) -> str:
    """Return the targets as a table."""
    rows = [
        [t.what, _shown(t.value, t.unit), _shown(t.limit, t.unit), t.met]
        for t in targets(results)
        if t.value is not None
    ]
    return markdown(["target", "measured", "at most", "met"], rows) if rows else ""


def _shown(value: float, unit: str) -> str:
    """Return a value with its unit; small ratios as fractions, as the targets were stated."""
    if unit == "x" and 0 < value < 0.5:
        return f"1/{number(1 / value)}"
    return f"{number(value)} {unit}"
