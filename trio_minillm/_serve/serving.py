"""One request that is being answered: its turns, its record, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..testing._script import Step, eof, half_close, hang
from .connections import Connection
from .programs import Program
from .records import Ending, ServedRecord

if TYPE_CHECKING:
    from .server import TimedServer

NOTHING: Final[Program] = iter(())


class Serving:
    """An answer in progress. Its turns are called by the pacer, ``left`` by its connection."""

    __slots__ = (
        *("_conn", "_data", "_keep", "_last", "_measures", "_over", "_program", "_server"),
        *("_tokens", "record", "takes_place"),
    )

    def __init__(
        self,
        server: TimedServer,
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
        self._over = False

    def start(self, at: float) -> None:
        """Begin with the program: its first pause begins at this time."""
        self.record.queued = at - self.record.received
        pause, self._data, self._tokens = next(self._program)
        self._server.pacer.add(at + pause, self)

    def turn(self, due: float, now: float) -> float | None:
        """Send what is due. Returns when the next is."""
        if self._over:
            return None
        data = self._data
        if type(data) is bytes:
            if data and not self._conn.send(data):
                if self._over:  # the connection broke
                    return None
                self.record.backlogged += 1
            self._sent(due, now)
        elif not self._marked(data, due):
            return None
        item = next(self._program, None)
        if item is None:
            self._finish("fault" if self.record.faults else "whole", due)
            return None
        pause, self._data, self._tokens = item
        return due + pause

    def _sent(self, due: float, now: float) -> None:
        measures, record, tokens = self._measures, self.record, self._tokens
        late = now - due
        measures.late.add(late)
        if late > record.max_late:
            record.max_late = late
        if not tokens:
            return
        measures.chunks += 1
        if tokens > 0:
            measures.completion_tokens += tokens
        record.sent.append(now)
        record.tokens.append(tokens)
        if self._last is not None:
            measures.itl.add(now - self._last)
        else:
            record.first_content = now
            if record.stream:
                measures.ttft.add(now - record.received)
        self._last = now

    def _marked(self, step: Step, due: float) -> bool:
        """Do what is no data. Returns True if something follows."""
        if step is hang or step is half_close:
            if step is half_close:
                self._conn.half_close()
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
        record.ended = how
        record.ended_at = self._server.pacer.now()
        if how == "whole" and self._last is not None:
            self._measures.e2e.add(self._last - record.received)
        self._server.ended(self, self._measures, at)
        if how not in ("left", "slow", "stopped"):
            self._conn.done(keep=self._keep)
