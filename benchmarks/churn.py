"""Cancellation churn on the library's own transport: nothing may leak, every slot must be usable.

Streams over plain HTTP and TLS are started and cancelled at random moments. Libraries are imported
inside functions, so that the other contenders run without them.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from contenders import KEY, PROMPT, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio_minillm as llm

SLOTS = 10
WORKERS = 15
LONGEST = 0.03
"""Seconds after which a stream is cancelled at the latest: some while they wait for a slot, some
while they connect or shake hands, some in the middle of their answer."""


def _open_sockets() -> int:
    """Return the number of open sockets of this process."""
    found = 0
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with suppress(OSError):  # the descriptor of the listing itself
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")  # noqa: PTH115
    return found


async def _first_chunk(client: llm.Client, model: llm.Model) -> float:
    """Send a request and return the seconds until its first chunk."""
    began = time.perf_counter()
    async with client.stream(model, PROMPT) as stream:
        await stream.receive()
        waited = time.perf_counter() - began
    return waited


async def _start_and_cancel(
    client: llm.Client, models: Sequence[llm.Model], seconds: float
) -> tuple[int, int]:
    """Start and cancel streams; return how many were begun, and how many came to their end."""
    import trio

    from trio_minillm import Outcome

    chance, begun, finished = random.Random(4), 0, 0
    end = trio.current_time() + seconds

    async def worker() -> None:
        nonlocal begun, finished
        while trio.current_time() < end:
            begun += 1
            with trio.move_on_after(chance.uniform(0, LONGEST)):
                async with client.stream(chance.choice(models), PROMPT) as stream:
                    async for _ in stream:
                        if chance.random() < 0.1:
                            break
                finished += stream.outcome is Outcome.FINISHED

    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(worker)
    return begun, finished


async def churn(options: Options, seconds: float, secure: str) -> dict[str, Any]:
    """Start streams and cancel them; raise ``AssertionError`` if anything of them is left."""
    import trio

    import trio_minillm as llm

    def model(url: str, name: str) -> llm.Model:
        return llm.openai(name, base_url=f"{url}/v1", api_key=KEY)

    short, hold = model(options.url, "short"), model(options.url, "hold")
    models = (short, hold, model(secure, "openai/text/paced/50/0"))
    before = _open_sockets()
    transport = llm.TrioTransport(max_connections=SLOTS)
    async with llm.open_client(transport=transport) as client:
        await _first_chunk(client, short)
        usual = await _first_chunk(client, short)
        begun, finished = await _start_and_cancel(client, models, seconds)
        left = transport.statistics()
        assert left.active == left.waiting == 0, f"left behind: {left}"
        sockets = _open_sockets() - before
        assert sockets == left.idle <= SLOTS, f"{sockets} sockets: {left}"
        following = await _first_chunk(client, short)
        with trio.fail_after(5):  # every slot can still be had, all at once
            async with trio.open_nursery() as nursery:
                for _ in range(SLOTS):
                    nursery.start_soon(_first_chunk, client, hold)
    await transport.aclose()
    assert _open_sockets() == before, f"{_open_sockets() - before} sockets left"
    return {
        "streams": begun,
        "whole": finished,
        "idle": left.idle,
        "opened": left.opened,
        "reused": left.reused,
        "usual": usual,
        "next": following,
    }
