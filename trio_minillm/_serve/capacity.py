"""The places of a server of fixed capacity, and the line before them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

MAX_QUEUED: Final = 100_000
"""Requests that may wait for their turn; more are refused (503), so that memory is bounded."""


class Client(Protocol):
    """A request that waits for its turn."""

    def start(self, at: float) -> None:
        """Begin to be served: the turn came at this time."""
        ...


class Capacity:
    """Places for so many requests at once; others wait, first come, first served."""

    def __init__(self, slots: int | None) -> None:
        self.slots = slots
        self.running = 0
        self._waiting: OrderedDict[int, Client] = OrderedDict()

    @property
    def queued(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """True if not even a place in the line is left."""
        return len(self._waiting) >= MAX_QUEUED

    def enter(self, client: Client, at: float) -> None:
        """Start the client at once, or as soon as it has a place."""
        if self.slots is None or self.running < self.slots:
            self.running += 1
            client.start(at)
        else:
            self._waiting[id(client)] = client

    def leave(self, client: Client, at: float) -> None:
        """Give up the client's place, or its place in the line; the next one has it from then on."""
        if self._waiting.pop(id(client), None) is not None:
            return
        if self._waiting:
            _, following = self._waiting.popitem(last=False)
            following.start(at)
        else:
            self.running -= 1
