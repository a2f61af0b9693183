"""Tests that the benchmark measures a server of known timing truly, on a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm._bench.engine import Engine
from trio_minillm._bench.figures.figures import Figures
from trio_minillm._bench.plan import Closed, Load, Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._serve import ServeOptions, open_timed_server


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Return a virtual clock that gives bytes on a socket a moment of real time."""
    return trio.testing.MockClock(autojump_threshold=0.02)


async def measured(
    options: dict[str, Any], load: Load, requests: int, max_tokens: int = 8
) -> Figures:
    """Return the figures of a server with these options under a load."""
    server_options = ServeOptions(**{"ttft": 0.2, "itl": 0.02, "usage": "late", **options})
    async with (
        open_timed_server(server_options, now=trio.current_time) as server,
        llm.open_client() as client,
    ):
        params = {"max_tokens": max_tokens}
        prompts = (Prompt(messages="hi"),)
        plan = Plan(prompts=prompts, load=load, requests=requests, params=params)
        return (await Engine(client, server.model()).measure(plan)).figures


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tokens_per_chunk": 4},
        {"tokens_per_chunk": 4, "usage": "running"},
        {"opening": True},
        {"reasoning": 4},
    ],
    ids=str,
)
async def test_every_figure_is_what_the_server_did(
    clock: trio.testing.MockClock, options: dict[str, Any], concurrency: int
) -> None:
    found = await measured(options, Closed(concurrency=concurrency), 5)
    each = options.get("tokens_per_chunk", 1)
    chunks = 8 // each
    whole = 0.2 + 0.02 * (chunks - 1)
    expected = {
        "ttft": 0.2,
        "itl": 0.02,
        "itl_max": 0.02,
        "itl_token": 0.02 / each,
        "tpot": 0.02 / each,
        "e2e": whole,
        "ttft_text": 0.2 + 0.02 * options.get("reasoning", 0),
    }
    if "reasoning" in options:
        expected["ttft_reasoning"] = 0.2
    for name, value in expected.items():
        spread = found.latency[name]
        assert spread.mean == pytest.approx(value, abs=1e-6), name
        assert spread.max == pytest.approx(value, abs=1e-6), name
    assert found.latency["itl_token"].estimated is (options.get("usage") != "running")
    assert (found.finished, found.chunks) == (5, 5 * chunks)
    assert found.tokens is not None
    assert found.tokens["output_tokens"] == 40


async def test_a_busy_server_is_seen_from_the_scheduled_instant(
    clock: trio.testing.MockClock,
) -> None:
    """Let ten requests a second meet a server of one place that takes 0.2 s for each: each waits 0.1 s
    longer than the one before, and all of that is seen from the schedule and from the sending."""
    found = await measured({"slots": 1}, Open(rate=10), 10, max_tokens=1)
    waits = [0.2 + 0.1 * number for number in range(10)]
    for name in ("ttft", "ttft_scheduled", "e2e_scheduled"):
        assert found.latency[name].mean == pytest.approx(sum(waits) / 10, abs=1e-6)
        assert found.latency[name].max == pytest.approx(waits[-1], abs=1e-6)
    assert found.latency["late"].max == pytest.approx(0, abs=1e-6)


async def test_a_bound_of_streams_hides_the_wait_only_from_the_sent_instant(
    clock: trio.testing.MockClock,
) -> None:
    """Check that coordinated omission is seen: with one stream at once the requests wait here."""
    found = await measured({}, Open(rate=10, concurrency=1), 10, max_tokens=1)
    waits = [0.2 + 0.1 * number for number in range(10)]
    assert found.latency["ttft"].max == pytest.approx(0.2, abs=1e-6)
    assert found.latency["ttft_scheduled"].mean == pytest.approx(sum(waits) / 10, abs=1e-6)
    assert found.latency["late"].max == pytest.approx(0.9, abs=1e-6)
