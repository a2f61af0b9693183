"""How requests come in: out of the caller's iterable, no further ahead than there is room."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeAlias

import trio

from .types import BatchRequest

Requests: TypeAlias = Iterable[BatchRequest] | AsyncIterable[BatchRequest]

TURN = 32
"""Requests that are pulled before other tasks get a turn."""


class RequestSource:
    """Pulls requests, one after the other, and gives each to ``admit``.

    Where ``crowded`` says so it waits for `wake`. An async generator is closed at the end, however
    that comes: nobody else goes on with it.
    """

    def __init__(
        self,
        requests: Requests,
        admit: Callable[[BatchRequest], object],
        crowded: Callable[[], bool],
    ) -> None:
        self.exhausted: bool = False
        """Whether nothing more will come."""
        self._requests = requests
        self._admit = admit
        self._crowded = crowded
        self._pulled = 0
        self._scope = trio.CancelScope()
        self._room = trio.Event()

    async def run(self) -> None:
        """Until there are no more, or `stop`. Raises what the iterable or ``admit`` raises."""
        with self._scope:
            if self.exhausted:
                pass
            elif isinstance(self._requests, AsyncIterable):
                await self._pull_async(aiter(self._requests))
            else:
                for request in self._requests:
                    await self._take(request)
        self.exhausted = True

    async def _pull_async(self, iterator: AsyncIterator[BatchRequest]) -> None:
        try:
            async for request in iterator:
                await self._take(request)
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()

    async def _take(self, request: BatchRequest) -> None:
        self._admit(request)
        self._pulled += 1
        while self._crowded():
            self._room = trio.Event()
            await self._room.wait()
        if not self._pulled % TURN:
            await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        """There is room again."""
        self._room.set()

    def stop(self) -> None:
        """Pull no more. (An iterable that pays no heed to being cancelled may bring one more.)"""
        self.exhausted = True
        self._scope.cancel()
