"""The clocks of one attempt. Their lengths are `Timeouts`; when each runs is decided here."""

from __future__ import annotations

import trio

from .._protocol.state import State
from .._types.errors import ConnectTimeout, MiniLLMError, StreamTimeout
from .._types.options import Timeouts

INFINITY = float("inf")


class Clocks:
    """The clocks of one attempt as one cancel scope, whose deadline is the nearest of theirs.

    Before the first content only ``connect`` and then ``first_chunk`` run (``idle`` and
    ``byte_idle`` where that is off), since a model that thinks is silent; after it ``idle``,
    ``byte_idle`` and, once only usage is missing, ``usage_grace``. ``total`` always runs.
    """

    def __init__(self, timeouts: Timeouts, total_at: float) -> None:
        self._timeouts = timeouts
        self._total_at = total_at
        self._now = trio.current_time()
        self._connecting = True
        self._traced = False
        self._waiting_from = 0.0
        self._content_at: float | None = None
        self._bytes_at = self._now
        self._grace_from: float | None = None
        idle = INFINITY if timeouts.idle is None else timeouts.idle
        bytes_idle = INFINITY if timeouts.byte_idle is None else timeouts.byte_idle
        self._quiet = min(idle, bytes_idle)
        self._quiet_name = "idle" if idle <= bytes_idle else "byte_idle"
        self.name = ""
        self.limit = 0.0
        self._due = self._set = INFINITY  # the nearest deadline, and what the scope has
        self._lazy = False
        self.scope = trio.move_on_after(INFINITY)
        self._arm()

    def reading(self, *, lazy: bool) -> trio.CancelScope:
        """A scope for reading the body. ``lazy``: its deadline is not moved with every chunk, which
        would cost as much as decoding it, but when it is reached (see `due`).
        """
        self._lazy, self._set = lazy, self._due
        self.scope = trio.CancelScope(deadline=self._due)
        return self.scope

    def due(self) -> bool:
        """Whether a clock has run out, and not just what was its deadline some chunks ago."""
        return trio.current_time() >= self._due

    def transport_event(self, event: str) -> None:
        """The transport says how far it is; one that says nothing gets both clocks' time."""
        if not self._connecting:
            return
        self._traced = True
        if event == "connection_pool.wait.started":  # in line: no clock runs
            self._waiting_from = self.pause()
        elif event == "connection_pool.wait.complete":
            self.resume(self._waiting_from)
        elif event.endswith("send_request_body.complete"):
            self.sent()
        else:
            self._arm()

    def sent(self) -> None:
        """The request is out: from here on the server's silence counts."""
        if self._connecting:
            self._connecting = False
            self._now = self._bytes_at = trio.current_time()
            self._arm()

    def heard(self, now: float, content: bool, state: State, says: bool) -> None:
        """Bytes came, with or without content; ``says``: behind the end, with some of the answer."""
        self._bytes_at = now
        if content:
            self._content_at = now
            if state is State.OPEN:  # the common case, for which nothing needs to be weighed
                self._arm_for(now + self._quiet, self._quiet_name, self._quiet)
                return
        if state is State.ENDING and (self._grace_from is None or says):
            self._grace_from = now
        self._arm()

    def pause(self) -> float:
        """The consumer is slow: no clock runs. Returns what `resume` wants."""
        self._due = self._set = self.scope.deadline = INFINITY
        return trio.current_time()

    def away(self) -> float:
        """The consumer reads, and has not come back since the last bytes: as `pause`, from then on."""
        self.pause()
        return self._bytes_at

    def resume(self, paused_at: float) -> None:
        """The consumer has caught up: its time is not counted."""
        gone = trio.current_time() - paused_at
        self._now += gone
        self._bytes_at += gone
        self._total_at += gone
        if self._content_at is not None:
            self._content_at += gone
        if self._grace_from is not None:
            self._grace_from += gone
        self._arm()

    def stop(self) -> float:
        """What follows has bounds of its own. Returns what the total clock leaves, in seconds."""
        self._due = self._set = self.scope.deadline = INFINITY
        return max(0.0, self._total_at - trio.current_time())

    def _running(self) -> list[tuple[float, str, float | None]]:
        """The clocks that run now: since when, name, limit."""
        clocks = self._timeouts
        if self._connecting:
            if self._traced:
                return [(self._now, "connect", clocks.connect)]
            if clocks.connect is None or clocks.first_chunk is None:
                return []
            return [(self._now + clocks.connect, "first_chunk", clocks.first_chunk)]
        if self._content_at is None and clocks.first_chunk is not None:
            return [(self._now, "first_chunk", clocks.first_chunk)]
        since = self._now if self._content_at is None else self._content_at
        running: list[tuple[float, str, float | None]] = [
            (since, "idle", clocks.idle),
            (self._bytes_at, "byte_idle", clocks.byte_idle),
        ]
        if self._grace_from is not None:
            running.append((self._grace_from, "usage_grace", clocks.usage_grace))
        return running

    def _arm(self) -> None:
        nearest, name, limit = INFINITY, "", 0.0
        for since, running, seconds in self._running():
            if seconds is not None and since + seconds < nearest:
                nearest, name, limit = since + seconds, running, seconds
        self._arm_for(nearest, name, limit)

    def _arm_for(self, deadline: float, name: str, limit: float) -> None:
        """Set the nearest deadline, unless the total clock's is nearer."""
        if deadline > self._total_at:
            total = self._timeouts.total
            deadline, name = self._total_at, "total"
            limit = float(total) if isinstance(total, int | float) else 0.0
        self.name, self.limit = name, limit
        self._due = deadline
        if deadline < self._set or not self._lazy:
            self._set = self.scope.deadline = deadline

    def error(self, chunks: int, received: int) -> MiniLLMError:
        """The error of the clock that ran out."""
        if self.name == "connect":
            return ConnectTimeout(self.limit)
        return StreamTimeout(self.name, self.limit, chunks=chunks, received=received)
