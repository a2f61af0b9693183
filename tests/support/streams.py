"""Helpers around one stream: read up to a text, record costs, run beside it, cancel at a step."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

import trio_minillm as llm


def count_of(kind: type) -> int:
    """Count the objects of a class that nothing has freed."""
    return sum(type(one) is kind for one in gc.get_objects())


class Told:
    """An ``on_cost`` that keeps what it is told, and when."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.records: list[llm.CostRecord] = []
        self.at: list[float] = []
        self.seconds = seconds

    async def __call__(self, record: llm.CostRecord) -> None:
        await trio.sleep(self.seconds)
        self.records.append(record)
        self.at.append(trio.current_time())

    @property
    def keys(self) -> list[str]:
        return [record.key for record in self.records]


async def take(stream: llm.StreamingCompletion, text: str) -> None:
    """Take chunks until this text has come."""
    while stream.accumulated != text:
        assert await stream.next_chunk() is not None, stream.accumulated


@asynccontextmanager
async def other_task() -> AsyncIterator[list[float]]:
    """Run another task during the block; the list has the times at which it had its turn."""
    turns: list[float] = []

    async def take_turns() -> None:
        while True:
            turns.append(trio.current_time())
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        yield turns
        nursery.cancel_scope.cancel()


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope right before the n-th step of any task, or of ``root`` and what it started."""

    def __init__(
        self, step: int, scope: trio.CancelScope, root: trio.lowlevel.Task | None = None
    ) -> None:
        self.left = step
        self.scope = scope
        self.root = root

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.root is not None:
            own: trio.lowlevel.Task | None = task
            while own is not None and own is not self.root:
                own = own.parent_nursery.parent_task if own.parent_nursery is not None else None
            if own is None:
                return
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def cancelled_at(step: int, do: Callable[..., Awaitable[Any]], *args: Any) -> bool:
    """Cancel it right before its n-th step. Returns True if it had so many."""

    async def run() -> None:
        instrument = CancelAtStep(step, scope, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                await do(*args)
        finally:
            trio.lowlevel.remove_instrument(instrument)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
    return scope.cancel_called
