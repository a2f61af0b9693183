"""Cancellation churn on our own transport: nothing may be left behind, and every slot usable."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from typing import Any

from contenders import KEY, PROMPT, Options

SLOTS = 10
WORKERS = 15
LONGEST = 0.03
"""Seconds after which a stream is cancelled at the latest: some in line for a slot, some while
they connect or shake hands, some in the middle of their answer."""


def _sockets() -> int:
    """Open sockets of this process."""
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with suppress(OSError):  # that of the listing itself
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")  # noqa: PTH115
    return found


async def churn(options: Options, seconds: float, secure: str) -> dict[str, Any]:
    """Start streams and cancel them, then look at what is left. Raises if anything is."""
    import trio

    import trio_minillm as llm

    def model(url: str, name: str) -> llm.Model:
        return llm.openai(name, base_url=f"{url}/v1", api_key=KEY)

    short, hold = model(options.url, "short"), model(options.url, "hold")
    models = (short, hold, model(secure, "openai/text/paced/50/0"))
    chance, streams, whole = random.Random(4), 0, 0
    before = _sockets()
    transport = llm.TrioTransport(max_connections=SLOTS)

    async with llm.open_client(transport=transport) as client:

        async def first(of: llm.Model) -> float:
            began = time.perf_counter()
            async with client.stream(of, PROMPT) as stream:
                await stream.receive()
                waited = time.perf_counter() - began
            return waited

        async def worker() -> None:
            nonlocal streams, whole
            while trio.current_time() < end:
                streams += 1
                with trio.move_on_after(chance.uniform(0, LONGEST)):
                    async with client.stream(chance.choice(models), PROMPT) as stream:
                        async for _ in stream:
                            if chance.random() < 0.1:
                                break
                    whole += stream.outcome is llm.Outcome.FINISHED

        await first(short)
        usual = await first(short)
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(worker)
        left = transport.statistics()
        assert left.active == left.waiting == 0, f"left behind: {left}"
        assert _sockets() - before == left.idle <= SLOTS, f"{_sockets() - before} sockets: {left}"
        following = await first(short)
        with trio.fail_after(5):  # every slot can still be had, all at once
            async with trio.open_nursery() as nursery:
                for _ in range(SLOTS):
                    nursery.start_soon(first, hold)
    await transport.aclose()
    assert _sockets() == before, f"{_sockets() - before} sockets left"
    return {
        "streams": streams,
        "whole": whole,
        "idle": left.idle,
        "opened": left.opened,
        "reused": left.reused,
        "usual": usual,
        "next": following,
    }
