"""The clocks of one attempt. Their lengths are `Timeouts`; when each runs is decided here.

=================  ===============================  ================================================
clock              runs from                        until
=================  ===============================  ================================================
``connect``        the start of the attempt, and    the key and the signature are there;
                   once they are there             the connection stands
``send``           the newest progress of the       the request is sent
                   request, or its beginning
``first_chunk``    the request is sent              the first content
``idle``           the newest content               the answer is over
``byte_idle``      the newest bytes                 the answer is over
``usage_grace``    the finish reason                the answer is over, or content disproves the
                                                    reason; with the usage in hand at most
                                                    `DRAIN_SECONDS`, whatever its length
``total``          the start of the stream          the answer is over; spans all attempts
=================  ===============================  ================================================

Before the first content only ``connect``, ``send`` and then ``first_chunk`` run (``idle`` and
``byte_idle`` only where ``first_chunk`` is off), since a model that thinks is silent; a finish reason
that comes before any content changes nothing of that. A server may begin to answer while the request
is still being sent: until that is done, ``send`` runs in place of ``first_chunk``, ``idle`` and
``byte_idle``. A transport that does not report when it has connected gets the time of ``connect`` and
``first_chunk`` together, from the newest piece of the request that it took. No clock runs while the
consumer is slow or while the request waits for a free connection, or in line for the look-up of a
name. An answer in the background that is taken up again after content has no second ``first_chunk``.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

import trio

from .._http.exchange import DRAIN_SECONDS
from .._protocol.state import OPEN, State, StreamState
from .._types.errors import ConnectTimeout, MiniLLMError, SendTimeout, StreamTimeout
from .._types.options import Timeouts

INFINITY = float("inf")
REOPENED_SECONDS = 5.0
"""Seconds of silence that end an answer whose finish reason was disproved before: a gateway that sends
one with each piece is silent for as long as the model takes for the next."""


def grace_of(state: StreamState, timeouts: Timeouts) -> float | None:
    """Return the seconds of silence that end an answer in this state; ``None`` if none do."""
    if not state.said or state.state not in (State.ENDING, State.WHOLE):
        return None
    grace = timeouts.usage_grace
    if state.reopened:  # the server's reasons come too early
        return REOPENED_SECONDS if grace is None else max(grace, REOPENED_SECONDS)
    if state.state is State.ENDING:
        return grace
    return DRAIN_SECONDS if grace is None else min(grace, DRAIN_SECONDS)


class Deadline:
    """The nearest deadline of several clocks, as the deadline of one cancel scope.

    Moving a scope's deadline costs as much as decoding a chunk, so a lazy one is moved only when
    it comes nearer: the scope may then fire early, and `due` tells.
    """

    __slots__ = (
        "_at",
        "_of_scope",
        "lazy",
        "name",
        "scope",
        "total_at",
    )

    def __init__(self, total_at: float) -> None:
        self.scope: trio.CancelScope | None = None
        """The newest scope that keeps it."""
        self.lazy: bool = False
        """True if the scope may fire too early."""
        self.name: str = ""
        """The clock that it belongs to."""
        self.total_at: float = total_at
        """The time at which the clock ``total`` runs out; no deadline is later."""
        self._at = INFINITY
        self._of_scope = INFINITY

    def new_scope(self) -> trio.CancelScope:
        """Return a fresh cancel scope that keeps the deadline."""
        self._of_scope = self._at
        self.scope = trio.CancelScope(deadline=self._at)
        return self.scope

    def move(self, at: float, name: str) -> None:
        """Set the deadline to the time ``at``, or to that of the clock ``total`` if it is nearer."""
        if at > self.total_at:
            at, name = self.total_at, "total"
        self.name, self._at = name, at
        if self.scope is not None and (
            at < self._of_scope or not (self.lazy or at == self._of_scope)
        ):
            self._of_scope = self.scope.deadline = at

    def put_off_total(self, seconds: float) -> None:
        """Let the clock ``total`` run out later. To be followed by `move`."""
        self.total_at += seconds

    def remove(self) -> None:
        """Let nothing run out until the next `move`."""
        self._at = INFINITY
        if self.scope is not None and self._of_scope != INFINITY:
            self._of_scope = self.scope.deadline = INFINITY

    def due(self) -> bool:
        """Return whether the deadline has passed, and not just one that was set some chunks ago."""
        return trio.current_time() >= self._at


class Phase(Enum):
    """The stages of a request on its way out."""

    ASKING = "asking"
    CONNECTING = "connecting"
    SENDING = "sending"
    SENT = "sent"


CONNECTING: Final = Phase.CONNECTING
SENDING: Final = Phase.SENDING
SENT: Final = Phase.SENT


EVENTS = {
    "credentials.started": Phase.ASKING,
    # A proxy was asked for a tunnel, or a connection that was kept turned out to be dead.
    "connect_tcp.started": CONNECTING,
    "start_tls.started": CONNECTING,
    "send_request_headers.started": SENDING,
    "send_request_body.progress": SENDING,
    "send_request_body.complete": SENT,
    "send_request_body.failed": SENT,  # the server takes no more, but may have answered
}
"""The phase that an event of a transport begins, by the name without what made it (``http11.``)."""


@lru_cache(maxsize=128)
def _without_maker(event: str) -> str:
    return ".".join(event.split(".")[-2:])


class Clocks(Deadline):
    """The clocks of one attempt, told of what happens and read as one `Deadline`.

    ``sent`` says that the request is out unless a transport event says otherwise: where it goes out at
    once, as on a connection that was kept, no deadline is set for what takes no time. ``begun`` says that
    content came before, on a connection that was cut: then ``idle`` runs from the beginning, anew.

    Its 16 attributes are the lengths, what is known of the attempt, and what follows from them.
    """

    __slots__ = (
        "_answered",
        "_bytes_at",
        "_content_at",
        "_grace",
        "_grace_from",
        "_phase",
        "_plain_state",
        "_queued_at",
        "_quiet",
        "_quiet_name",
        "_reported",
        "_since",
        "_timeouts",
        "clock",
        "sent_at",
    )

    def __init__(
        self,
        timeouts: Timeouts,
        total_at: float,
        now: float | None = None,
        sent: bool = False,
        *,
        begun: bool = False,
    ) -> None:
        self.clock: trio.abc.Clock = trio.lowlevel.current_clock()
        """The clock of the run. To ask it takes a third of the steps of `trio.current_time`."""
        self._timeouts = timeouts
        # The phase began, or sending has made progress.
        self._since = self.clock.current_time() if now is None else now
        self._phase = SENT if sent else CONNECTING
        self.sent_at: float | None = self._since if sent else None
        """Time at which the request was out, as far as it is."""
        self._answered = False
        self._reported = False  # the transport says when it has connected
        self._queued_at = 0.0
        self._content_at: float | None = self._since if begun else None
        self._bytes_at = self._since
        self._grace_from = 0.0
        self._grace: float | None = None
        idle = INFINITY if timeouts.idle is None else timeouts.idle
        byte_idle = INFINITY if timeouts.byte_idle is None else timeouts.byte_idle
        self._quiet = min(idle, byte_idle)
        # That in which only silence can end the answer.
        self._plain_state: State | None = OPEN if sent else None
        self._quiet_name = "idle" if idle <= byte_idle else "byte_idle"
        super().__init__(total_at)
        self._arm()

    @property
    def fired(self) -> bool:
        """True if the scope was cancelled, or is from now on: its deadline has passed."""
        scope = self.scope
        return scope is not None and scope.cancel_called

    def transport_event(self, event: str) -> None:
        """Take note of the transport's progress, by the names of httpcore's trace extension."""
        name = _without_maker(event)
        phase = EVENTS.get(name)
        if phase is self._phase is SENT:
            return
        if self.fired:
            return  # what fails now fails because a clock has run out
        if event == "connection_pool.wait.started":  # in line: no clock runs
            self._queued_at = self.pause()
        elif event == "connection_pool.wait.complete":
            self.resume(self._queued_at)
        elif name == "send_request_body.progress":
            self._moved()
        elif phase is not None and not self._answered:
            self._reported = True
            self._enter(phase)
        elif phase is SENT:
            self.sent()
        elif event == "credentials.complete":  # as at the beginning: nothing is known yet
            self._enter(Phase.CONNECTING)
            self._reported = False
            self._arm()

    def _moved(self) -> None:
        if self._phase is not SENT:
            self._since = self.clock.current_time()
            self._arm()

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._since = self._bytes_at = self.clock.current_time()
            self._plain_state = OPEN if phase is SENT else None
            self.sent_at = self._since if phase is SENT else None
        self._arm()

    def answered(self, *, sending: bool, resumable: bool = False) -> None:
        """Take note of the response's head. ``sending``: the request is not out yet. ``resumable``: a
        read that is cancelled too early loses nothing.
        """
        self._answered = True
        self.lazy = resumable
        if not (sending or self._phase is SENT):
            self._enter(SENT)

    def sent(self) -> None:
        """Take note that the request is out: from here on the server's silence counts."""
        if self._phase is not SENT:
            self._enter(SENT)

    def heard(self, now: float, content: bool, state: StreamState, says: bool = False) -> None:
        """Take note of bytes, with or without content, and of the state after them.

        ``says``: the answer went on, though every choice has its finish reason again.
        """
        self._bytes_at = now
        if content and (state.said or state.state is OPEN):
            self._content_at = now
            if state.state is self._plain_state:  # the common case: nothing needs to be weighed
                self._grace = None
                self.move(now + self._quiet, self._quiet_name)
                return
        grace = grace_of(state, self._timeouts)
        if says or grace != self._grace:
            self._grace, self._grace_from = grace, now
        self._arm()

    def pause(self) -> float:
        """Stop all clocks while the consumer is slow. Returns what `resume` takes."""
        self.remove()
        return self.clock.current_time()

    def away(self) -> float:
        """As `pause`, from the newest bytes on: the consumer, which reads, has not come back since."""
        self.remove()
        return self._bytes_at

    def resume(self, paused_at: float) -> None:
        """Let the clocks go on; the time since ``paused_at`` does not count."""
        gone = self.clock.current_time() - paused_at
        self._since += gone
        self._bytes_at += gone
        self.put_off_total(gone)
        if self._content_at is not None:
            self._content_at += gone
        self._grace_from += gone
        self._arm()

    def stop(self) -> float:
        """Stop all clocks for good. Returns what is left of the clock ``total``, in seconds."""
        self.remove()
        return max(0.0, self.total_at - self.clock.current_time())

    def _running(self) -> list[tuple[float, str, float | None]]:
        """Return the clocks that run now, but for ``first_chunk``: since when, name, length."""
        clocks = self._timeouts
        if self._phase is not SENT:
            return self._running_before()
        since = max(self._since, self._content_at or self._since)
        running: list[tuple[float, str, float | None]] = [
            (since, "idle", clocks.idle),
            (self._bytes_at, "byte_idle", clocks.byte_idle),
        ]
        if self._grace is not None:
            running.append((self._grace_from, "usage_grace", self._grace))
        return running

    def _running_before(self) -> list[tuple[float, str, float | None]]:
        """Return the clocks that run before the request is sent."""
        clocks = self._timeouts
        if self._phase is SENDING:
            running: list[tuple[float, str, float | None]] = [(self._since, "send", clocks.send)]
            if self._grace is not None:  # the answer is whole, and the rest is not wanted
                running.append((self._grace_from, "usage_grace", self._grace))
            return running
        if self._reported:
            return [(self._since, "connect", clocks.connect)]
        if clocks.connect is None or clocks.first_chunk is None:
            return []
        return [(self._since + clocks.connect, "first_chunk", clocks.first_chunk)]

    def _arm(self) -> None:
        first = self._timeouts.first_chunk
        if self._content_at is None and first is not None and self._phase is SENT:
            self.move(self._since + first, "first_chunk")  # it runs alone
            return
        nearest, name = INFINITY, ""
        for since, running, seconds in self._running():
            if seconds is not None and since + seconds < nearest:
                nearest, name = since + seconds, running
        self.move(nearest, name)

    def error(self, chunks: int, received: int) -> MiniLLMError:
        """Return the error of the clock that ran out.

        ``chunks`` is the number of chunks with content and ``received`` that of bytes by then.
        """
        name = self.name
        grace = name == "usage_grace"  # its length depends on what came
        limit: float = (self._grace if grace else getattr(self._timeouts, name, None)) or 0.0
        if name == "connect":
            asking = self._phase is Phase.ASKING
            return ConnectTimeout(limit, reason="credentials" if asking else None)
        if name == "send" and not self._answered:
            return SendTimeout(limit)
        return StreamTimeout(name, limit, chunks=chunks, received=received)
