"""The end of a batch's run: how it comes about, and what is to be raised then.

==============================  ==================  ===========  ========================================
event                           what runs           what waits   what is raised
==============================  ==================  ===========  ========================================
input exhausted, all done                                        nothing
stopped by the user             goes on to its end  dropped      nothing
limit reached, no file can be   goes on to its end  dropped      ``stopped``, by iteration after the last
opened                                                           result
a lane is closed (below)        goes on to its end  dropped,     ``closed``, in the same way, when the
                                                    of the lane  other lanes are done
cancelled by the user, or the   cancelled           dropped      nothing
block is left
a task of the run raises        cancelled           dropped      ``crash``, by iteration, else by the
                                                                 block
==============================  ==================  ===========  ========================================

A lane, an endpoint with one key and one model, is closed for a cause that would meet every further
request: an exhausted quota, a wrong key, first refusals that are all of one cause, a server that refuses
until a time that is too late, an address that does not answer.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import trio

from .._types.errors import MiniLLMError, ProviderError, RefusedError, RefusedUntil
from .throttle.controls import duration
from .throttle.retry import server_delay

LATEST = 366 * 86_400.0
"""Seconds of the longest wait that is named: a date far beyond is a mistake."""


class RunEnd:
    """The state of a run's end. ``done`` is set once no task of the run is left."""

    def __init__(self) -> None:
        self.stopping = False
        """True once nothing more is sent."""
        self.stopped: MiniLLMError | None = None
        """The error that ended the run before its input did."""
        self.closed: MiniLLMError | None = None
        """The error that closed the first of the lanes that are closed."""
        self.crash: BaseException | None = None
        """The first exception that a task of the run raised."""
        self.scope = trio.CancelScope()
        """The scope of all tasks of the run."""
        self.done = trio.Event()
        self.at: float | None = None
        """Time at which the run ended."""

    def finish(self) -> None:
        """Note that no task is left."""
        self.stopped = self.stopped or self.closed
        self.at = trio.current_time()
        self.done.set()

    def crashed(self, exc: BaseException) -> None:
        """Keep an exception that a task raised, and cancel the others; raise a cancellation again.

        A group of a failure and the cancellation that it brought to its siblings is split.
        """
        cancelled: BaseException | None = None
        if isinstance(exc, trio.Cancelled):
            raise exc
        if isinstance(exc, BaseExceptionGroup) and not isinstance(exc, ExceptionGroup):
            cancelled, rest = exc.split(trio.Cancelled)
            if rest is None:
                raise exc
            exc = rest
            while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
                exc = exc.exceptions[0]
        if self.crash is None:
            self.crash = exc
        self.scope.cancel()
        if cancelled is not None:
            raise cancelled


def until_told(error: MiniLLMError, now: datetime) -> MiniLLMError:
    """Return the error that says when to come back, for a refusal that does so; else itself.

    ``now`` is the time of day, in the time zone of whoever reads it.
    """
    wait = server_delay(error)
    if wait is None or not isinstance(error, RefusedError | ProviderError):
        return error
    wait = min(wait, LATEST)
    until = now + timedelta(seconds=wait)
    day = "" if until.date() == now.date() else f"{until:%Y-%m-%d} "
    return RefusedUntil(
        error, until=until, wait=wait, when=f"{day}{until:%H:%M} (in {duration(wait)})"
    )
