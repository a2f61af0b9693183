"""A task that runs for as long as a block, where the block is an object's own ``async with``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio


class Background:
    """One task in a nursery that `start` opens and `join` closes.

    Whoever uses it sees to it that the task is done, or will soon be, before `join`, and that the
    task raises nothing: it keeps its exception, and `raise_crash` raises that from the block.
    """

    __slots__ = ("_manager",)

    def __init__(self) -> None:
        self._manager: Any = None

    async def start(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        """Open the nursery and start the task."""
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        nursery.start_soon(run, name=name)

    async def join(self) -> None:
        """Wait for the task and close the nursery. Does nothing if it was not started."""
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.__aexit__(None, None, None)


def raise_crash(crash: BaseException, exc: BaseException | None, message: str) -> None:
    """Raise the exception that a block's task has kept.

    Raises it alone if the block itself raised nothing, else both in an ``ExceptionGroup``.
    """
    if exc is None:
        raise crash
    raise BaseExceptionGroup(message, [exc, crash])
