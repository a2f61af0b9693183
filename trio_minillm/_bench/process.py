"""One worker process, as its parent sees it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import IO

import trio

from .._protocol.redaction import redact_beginnings
from .messages import Order, Over, Status, order_frame
from .plan import Plan

LOG_TAIL = 500
"""Characters of what a dead worker had printed that its error shows, from the end."""


class Worker:
    """One process: what it is told, what it says, and the part that it is carrying out."""

    def __init__(self, number: int, process: trio.Process, log: IO[bytes]) -> None:
        self.number = number
        self.process = process
        self.status = Status()
        self.over: Over | None = None
        """Its report on the part that it carried out last."""
        self.ready = self.dead = self.done = False
        self._log = log
        self._orders, self._waiting = trio.open_memory_channel[bytes](math.inf)

    @property
    def idle(self) -> bool:
        """True if nothing more will come of its part."""
        return self.dead or self.over is not None

    def tell(self, order: Order) -> None:
        """Send an order. It is lost if the process is dead."""
        self._orders.send_nowait(order_frame(order))

    def begin(self, part: Plan) -> None:
        """Give it its part of a plan."""
        self.over, self.ready, self.status = None, False, Status()
        self.tell(part)

    async def keep_telling(self) -> None:
        """Write the orders to the process."""
        assert self.process.stdin is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for frame in self._waiting:
                await self.process.stdin.send_all(frame)

    async def close(self) -> None:
        """Wait for the process, which has closed its output, and close the pipe to it."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await self.process.wait()

    def explain(self, secret: str) -> str:
        """Return how it ended, with the end of what it printed."""
        status = self.process.returncode
        text = f"process {self.number + 1} of the benchmark died"
        if status is not None:
            text += f" (signal {-status})" if status < 0 else f" (status {status})"
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LOG_TAIL))
        tail = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"{text}: {redact_beginnings(tail, secret)}" if tail else text
