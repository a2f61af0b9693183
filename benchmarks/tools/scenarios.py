"""What the server does, and how many requests are sent to it."""

from __future__ import annotations

from typing import Any, NamedTuple

TOKENS = 32
"""Tokens of an answer: long enough for a mean, short enough for five tools."""

TIMING = ("--ttft", "0.2", "--itl", "0.02", "--tokens", str(TOKENS))


class Scenario(NamedTuple):
    """A server, and the load on it."""

    name: str
    title: str
    server: tuple[str, ...]
    """Options of ``trio-minillm serve``."""
    loads: tuple[tuple[int, int], ...] = ((10, 1),)
    """Pairs of requests and concurrency."""
    timeout: float = 60.0
    """Seconds that a request may take, for the tools that have a limit for it."""
    limit: float = 180.0
    """Seconds after which a tool that still runs is stopped, and has measured nothing."""
    kind: str = "timing"
    """Which table it is in: ``timing``, ``faults`` or ``cost``."""


FAULTS: dict[str, Any] = {"loads": ((20, 20),), "kind": "faults"}

SCENARIOS = (
    Scenario("plain", "One token per chunk", TIMING, ((10, 1), (100, 20))),
    Scenario("four", "Four tokens per chunk", (*TIMING, "--tokens-per-chunk", "4")),
    Scenario("opening", "An empty opening before the first chunk", (*TIMING, "--opening")),
    Scenario(
        "reasoning", "16 tokens of reasoning, then 16 of text", (*TIMING, "--reasoning", "16")
    ),
    Scenario(
        "late", "Usage in the last event, although not requested", (*TIMING, "--usage", "late")
    ),
    Scenario("cut", "connection closed midway", (*TIMING, "--fault", "30% cut(3000)"), **FAULTS),
    Scenario("error", "an error inside a 200", (*TIMING, "--fault", "30% error(16)"), **FAULTS),
    Scenario(
        "stall",
        "stream silent forever",
        (*TIMING, "--fault", "30% stall(3000)"),
        timeout=5.0,
        limit=120.0,
        **FAULTS,
    ),
    Scenario(
        "cost",
        "Cost",
        ("--ttft", "0.05", "--itl", "0.005", "--tokens", str(TOKENS)),
        loads=((1000, 50),),
        kind="cost",
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
