"""One request that is being answered: its turns, its record, its end."""

from __future__ import annotations

from typing import Final, Protocol

from ..testing._script import Step, eof, half_close, hang, reset
from .connections import Connection
from .measures import Measures
from .pacer import Pacer
from .programs import Program
from .records import Ending, ServedRecord

NOTHING: Final[Program] = iter(())
BROKEN: Final[tuple[float, Step, int]] = (0.0, reset, 0)
"""The item that ends an answer which can't go on."""


class Books(Protocol):
    """The part of a server that an answer knows."""

    pacer: Pacer
    measures: Measures

    def ended(self, serving: Serving, measures: Measures, at: float) -> None:
        """Write down what has ended, and let the next one begin."""
        ...


class Serving:
    """An answer in progress. Its turns are called by the pacer, ``left`` by its connection.

    Its 17 attributes are one state, and what is looked up for each chunk.
    """

    __slots__ = (
        *("_add_itl", "_add_late", "_conn", "_counts", "_data", "_keep", "_last", "_max_late"),
        *("_measures", "_over", "_program", "_send", "_sent", "_server", "_tokens"),
        *("record", "takes_place"),
    )

    def __init__(
        self,
        server: Books,
        conn: Connection,
        record: ServedRecord,
        program: Program,
        *,
        takes_place: bool,
        keep: bool,
    ) -> None:
        self.record = record
        self.takes_place = takes_place
        self._server = server
        self._measures = server.measures
        self._conn = conn
        self._program = program
        self._keep = keep
        self._data: Step = b""
        self._tokens = 0
        self._last: float | None = None
        self._max_late = 0.0
        self._over = False
        # Looked up once, and not for each chunk:
        self._send = conn.send
        self._sent, self._counts = record.sent.append, record.tokens.append
        self._add_late, self._add_itl = server.measures.late.add, server.measures.itl.add

    def start(self, at: float) -> None:
        """Begin with the program: its first pause begins at this time."""
        record = self.record
        record.started = at = max(at, record.received)
        record.queued = at - record.received
        pause, self._data, self._tokens = self._following() or BROKEN
        self._server.pacer.add(at + pause, self)

    def _following(self) -> tuple[float, Step, int] | None:
        """Return what the program has next. A program that fails costs its own answer, which is broken
        off: other streams depend on the task that calls this.
        """
        try:
            return next(self._program, None)
        except Exception:  # noqa: BLE001 - of whatever a script or a fault has made of it
            return BROKEN

    def turn(self, due: float, now: float) -> float | None:
        """Send what is due. Returns when the next is."""
        if self._over:
            return None
        data, tokens = self._data, self._tokens
        if type(data) is bytes:
            if data and not self._send(data):
                if self._over:  # the connection broke
                    return None
                self.record.backlogged += 1
            late = now - due
            self._add_late(late)
            if late > self._max_late:
                self._max_late = late
            if tokens:
                self._content(tokens, now)
        elif not self._marked(data, due):
            return None
        try:
            item = next(self._program, None)
        except Exception:  # noqa: BLE001 - as in `_following`, which would be a call for each chunk
            item = BROKEN
        if item is not None:
            pause, self._data, self._tokens = item
            return due + pause
        self._finish("fault" if self.record.faults else "whole", due)
        self._conn.done(keep=self._keep)
        return None

    def _content(self, tokens: int, now: float) -> None:
        self._sent(now)
        self._counts(tokens)
        measures = self._measures
        measures.chunks += 1
        if tokens > 0:
            measures.completion_tokens += tokens
        if self._last is not None:
            self._add_itl(now - self._last)
        else:
            self.record.first_content = now
            if self.record.stream:
                measures.ttft.add(now - self.record.received)
        self._last = now

    def _marked(self, step: Step, due: float) -> bool:
        """Do what is no data. Returns True if something follows."""
        if step is hang or step is half_close:
            if step is half_close:
                self._conn.end()
            return False  # until the client leaves
        if step is eof:
            self._keep = False
            return True
        self._finish("fault", due)
        self._conn.reset()
        return False

    def left(self) -> None:
        """Take note that the client has hung up, or was given up."""
        slow = self._conn.gave_up
        self._finish("slow" if slow else "left", self._server.pacer.now())

    def stop(self) -> None:
        """Take note that the server ends."""
        self._finish("stopped", self._server.pacer.now())

    def _finish(self, how: Ending, at: float) -> None:
        if self._over:
            return
        self._over = True
        self._program = NOTHING
        record = self.record
        if record.started is None:
            record.queued = at - record.received
        record.ended, record.max_late = how, self._max_late
        record.ended_at = self._server.pacer.now()
        if how == "whole" and self._last is not None:
            self._measures.e2e.add(self._last - record.received)
        self._server.ended(self, self._measures, at)
