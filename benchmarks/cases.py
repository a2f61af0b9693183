"""The cases of each part of the benchmark, their sizes, and the reasons for leaving some out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from answers import LAYOUTS, Answer
from contenders import COMPLETE, FLOOR, OURS


class Wire(NamedTuple):
    """The ways in which a wire format is measured."""

    sdk: str
    """Contender that is the vendor's own SDK; "" for none."""
    schemes: tuple[str, ...] = ("http", "https")


WIRES = {
    "openai": Wire("openai"),
    "anthropic": Wire("anthropic"),
    "responses": Wire("openai", ("http",)),
    "gemini": Wire("", ("http",)),
}
PACED_SHARE = 10
"""Factor by which a paced stream has fewer chunks, since its time is mostly pauses."""
RATE = 2500.0
"""Chunks a second, all streams of the part ``many`` together."""
OTHERS = (0, 1000, 2500)
"""Numbers of other streams that are open while requests are sent."""
STREAM_COUNTS = (1000, 5000)
BIG = {
    "deltas": ("text", 0, (25_000, 50_000, 100_000), "deltas of a few characters"),
    "text": ("text", 1000, (12_500, 25_000, 50_000), "deltas of 1,000 characters: up to 50 MB"),
    "tool": ("tool", 64, (16_384, 32_768, 65_536), "64 characters of tool arguments: up to 4 MB"),
}
IMPORTS = {
    "base": "trio, httpx, msgspec",
    OURS: "trio_minillm",
    "aiohttp": "aiohttp",
    "openai": "openai",
    "anthropic": "anthropic",
}
STEADY = "too slow: never reaches a steady state"
SLOW = "too slow for --quick"


class Sizes(NamedTuple):
    """The amount of work in each part."""

    quick: bool
    chunks: int
    requests: int
    many_seconds: float
    churn_seconds: float
    rounds: dict[str, int]


FULL = Sizes(
    quick=False,
    chunks=20_000,
    requests=300,
    many_seconds=10,
    churn_seconds=30,
    rounds={"chunk": 5, "request": 5, "many": 3, "big": 3, "import": 15, "churn": 1},
)
QUICK = Sizes(
    quick=True,
    chunks=10_000,
    requests=100,
    many_seconds=4,
    churn_seconds=5,
    rounds={"chunk": 2, "request": 2, "many": 1, "big": 1, "import": 5, "churn": 1},
)
PARTS = tuple(FULL.rounds)


class Case(NamedTuple):
    """One measurement of one contender, which runs in a process of its own."""

    part: str
    contender: str
    task: dict[str, Any]
    """Arguments of `measures.measure`, with a port's name for a URL; or the modules to import."""
    tables: tuple[str, ...]
    """Names of the tables that its results go to: one for each answer, or just one."""
    skip: str = ""
    """Reason for leaving it out, if it is."""


def _chunk(sizes: Sizes) -> Iterator[Case]:
    for wire, (sdk, schemes) in WIRES.items():
        for scheme in schemes:
            names = []
            for layout, how in LAYOUTS.items():
                chunks = sizes.chunks // (PACED_SHARE if how.pause else 1)
                names.append(Answer(wire, "text", layout, chunks).name)
            tables = tuple(f"chunk/{wire}/{scheme}/{layout}" for layout in LAYOUTS)
            plain = ("httpx",) if wire in ("openai", "anthropic") else ()
            for contender in filter(None, (FLOOR, "aiohttp", *plain, sdk, OURS)):
                task = {"name": "streams", "port": scheme, "wire": wire, "names": names}
                yield Case("chunk", contender, task, tables)


ALONE = {
    "request/tls": ("openai", "https", "short", "TLS"),
    "request/anthropic": ("anthropic", "many", "short-anthropic", "Anthropic's format"),
    "request/anthropic/tls": ("anthropic", "https", "short-anthropic", "Anthropic's format, TLS"),
}
"""Tables of short requests with no other stream open: wire format, port, model, and in words."""


def _request(sizes: Sizes) -> Iterator[Case]:
    count = sizes.requests
    for others in OTHERS:
        alone = [COMPLETE] if not others else []  # it holds no stream open
        for contender in (FLOOR, "aiohttp", "httpx", "openai", OURS, *alone):
            heavy = others > 1000 and contender in ("httpx", "openai")
            task = {"name": "requests", "port": "many", "count": count, "others": others}
            skip = SLOW if heavy and sizes.quick else ""
            yield Case("request", contender, task, (f"request/{others}",), skip)
    for table, (wire, port, answer, _) in ALONE.items():
        for contender in (FLOOR, "aiohttp", OURS, COMPLETE):
            task = {"name": "requests", "port": port, "wire": wire, "answer": answer}
            yield Case("request", contender, {**task, "count": count, "others": 0}, (table,))


def _many(sizes: Sizes) -> Iterator[Case]:
    for count in STREAM_COUNTS:
        for contender in (FLOOR, "aiohttp", "httpx", "openai", OURS):
            chunks = max(round(sizes.many_seconds * RATE / count), 1)
            skip = ""
            if contender in ("httpx", "openai") and count > 1000:
                skip = STEADY
            elif contender == "httpx" and sizes.quick:
                skip = SLOW
            task = {"name": "many", "port": "many", "count": count, "chunks": chunks, "rate": RATE}
            yield Case("many", contender, task, (f"many/{count}",), skip)


def _big(sizes: Sizes) -> Iterator[Case]:
    for what, (kind, size, steps, _) in BIG.items():
        names = [Answer("openai", kind, "burst", step, size).name for step in steps]
        for contender in (FLOOR, "aiohttp", "openai", OURS):
            if contender == FLOOR and kind == "tool":
                continue  # the floor reads text only
            task = {"name": "streams", "port": "http", "kind": kind, "names": names}
            tables = tuple(f"big/{what}/{step}" for step in steps)
            yield Case("big", contender, task, tables)


def _import(sizes: Sizes) -> Iterator[Case]:
    for name, modules in IMPORTS.items():
        yield Case("import", name, {"modules": modules}, ("import",))


def _churn(sizes: Sizes) -> Iterator[Case]:
    task = {"name": "churn", "port": "many", "secure": "https", "seconds": sizes.churn_seconds}
    yield Case("churn", OURS, task, ("churn",))


_CASES = {
    "chunk": _chunk,
    "request": _request,
    "many": _many,
    "big": _big,
    "import": _import,
    "churn": _churn,
}


def cases(part: str, sizes: Sizes) -> list[Case]:
    """Return the cases of a part, in the order of a round."""
    return list(_CASES[part](sizes))
