"""The reading of a batch's results: each of its requests comes out once, whatever the files are like."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import trio

from .._types.errors import MiniLLMError, ProtocolError
from .calls import ATTEMPTS, may_pass, wait_before
from .parts import Running
from .vendors import ItemEnd

READS = 3
"""Readings of files in which lines are missing or can't be read."""
READ_AGAIN = 5.0
"""Seconds between two of them."""


class Reading(msgspec.Struct):
    """A reading of the files of a batch."""

    answered: set[int] = msgspec.field(default_factory=set)
    """Places of the requests with an answer."""
    seen: set[int] = msgspec.field(default_factory=set)
    unreadable: int = 0
    """Lines that can't be read, in the newest reading."""
    strange: int = 0
    """Lines that are of no request of this batch, in the newest reading."""

    async def ends(self, running: Running) -> AsyncGenerator[tuple[int, ItemEnd], None]:
        """Yield the place and the end of each request, once. Files that are cut are read again, and
        those in which something is missing `READS` times.

        Raises the error that says that they can't be read.
        """
        assert running.state is not None
        for number in range(READS):
            if number:
                await trio.sleep(READ_AGAIN)
            self.unreadable = self.strange = 0
            for url in running.state.results:
                async with aclosing(self._file(running, url)) as found:
                    async for each in found:
                        yield each
            if len(self.seen) == len(running.part.items):
                break

    async def _file(self, running: Running, url: str) -> AsyncGenerator[tuple[int, ItemEnd], None]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(running.caller.lines(url)) as lines:
                    async for line in lines:
                        found = self._item(running, line)
                        if found is not None:
                            yield found
                return
            except MiniLLMError as exc:
                if attempt == ATTEMPTS or not may_pass(exc):
                    raise
                wait = wait_before(attempt, exc)
            await trio.sleep(wait)

    def _item(self, running: Running, line: bytes) -> tuple[int, ItemEnd] | None:
        """Return what a line says; ``None`` if that is nothing, or was said before."""
        try:
            end = running.vendor.item(line)
        except ProtocolError:
            self.unreadable += 1
            return None
        place = running.part.place_of(end.id)
        if place is None:
            self.strange += 1
            return None
        if place in self.seen:
            return None
        self.seen.add(place)
        if end.answered:
            self.answered.add(place)
        return place, end
