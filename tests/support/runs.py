"""Run a program on a mocked clock, over either transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
import trio.testing

import trio_minillm as llm

TRANSPORTS: dict[str, Callable[[], httpx.AsyncBaseTransport]] = {
    "ours": llm.TrioTransport,
    "httpx": httpx.AsyncHTTPTransport,
}
IN_MEMORY, ON_SOCKETS = 0.0, 0.02
"""Seconds of real silence after which the mocked clock jumps."""


def run(main: Callable[[], Any], threshold: float) -> Any:
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=threshold))


@asynccontextmanager
async def client_over(transport: str, **options: Any) -> AsyncIterator[llm.Client]:
    async with TRANSPORTS[transport]() as made:
        async with llm.open_client(transport=made, **options) as client:
            yield client
