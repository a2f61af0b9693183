"""The way of requests into a batch: out of the caller's iterable, as far ahead as there is room."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeAlias

import trio

from .types import BatchRequest

Requests: TypeAlias = Iterable[BatchRequest] | AsyncIterable[BatchRequest]

YIELD_EVERY = 32
"""Requests that are pulled before other tasks get a turn."""


class RequestSource:
    """Pulls requests, one after the other, and gives each to ``admit``.

    ``pulled`` is called after some of them, before anything is waited for. While ``full`` returns True
    it waits for `resume`. An async generator is closed in any case: no other code goes on with it.
    """

    def __init__(
        self,
        requests: Requests,
        admit: Callable[[BatchRequest], object],
        full: Callable[[], bool],
        pulled: Callable[[], None],
    ) -> None:
        self.exhausted: bool = False
        """True once no more requests will come."""
        self._requests = requests
        self._admit = admit
        self._full = full
        self._tell = pulled
        self._pulled = 0
        self._scope = trio.CancelScope()
        self._room = trio.Event()
        self.waits: bool = False
        """True while it waits for `resume`."""

    async def run(self) -> None:
        """Pull until there are no more requests, or `stop`. Raises what the iterable or ``admit``
        raises.
        """
        with self._scope:
            if self.exhausted:
                pass
            elif isinstance(self._requests, AsyncIterable):
                await self._pull_async(aiter(self._requests))
            else:
                for request in self._requests:
                    self._admit(request)
                    self._pulled += 1
                    if self._full() or not self._pulled % YIELD_EVERY:
                        await self._pause()
                self._tell()
        self.exhausted = True

    async def _pull_async(self, iterator: AsyncIterator[BatchRequest]) -> None:
        try:
            async for request in iterator:
                self._admit(request)
                self._tell()
                self._pulled += 1
                if self._full() or not self._pulled % YIELD_EVERY:
                    await self._pause()
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()

    async def _pause(self) -> None:
        """Wait until there is room, and let other tasks have their turn now and then."""
        self._tell()
        while self._full():
            self._room, self.waits = trio.Event(), True
            await self._room.wait()
        if not self._pulled % YIELD_EVERY:
            await trio.lowlevel.checkpoint()

    def resume(self) -> None:
        """Go on: there may be room again."""
        self._room.set()
        self.waits = False

    def stop(self) -> None:
        """Pull no more. An iterable that swallows its cancellation may bring one more request."""
        self.exhausted = True
        self._scope.cancel()
