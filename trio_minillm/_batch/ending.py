"""The end of a batch's run: how it comes about, and what is to be raised then.

==============================  ==================  ===========  ========================================
event                           what runs           what waits   what is raised
==============================  ==================  ===========  ========================================
input exhausted, all done                                        nothing
stopped by the user             goes on to its end  dropped      nothing
fatal error, limit reached,     goes on to its end  dropped      ``stopped``, by iteration after the last
the first refusals all of one                                    result
cause, address unreachable, no
file can be opened
cancelled by the user, or the   cancelled           dropped      nothing
block is left
a task of the run raises        cancelled           dropped      ``crash``, by iteration, else by the
                                                                 block
==============================  ==================  ===========  ========================================
"""

from __future__ import annotations

import trio

from .._types.errors import MiniLLMError


class RunEnd:
    """The state of a run's end. ``done`` is set once no task of the run is left."""

    def __init__(self) -> None:
        self.stopping = False
        """True once nothing more is sent."""
        self.stopped: MiniLLMError | None = None
        """The error that ended the run before its input did."""
        self.crash: BaseException | None = None
        """The first exception that a task of the run raised."""
        self.scope = trio.CancelScope()
        """The scope of all tasks of the run."""
        self.done = trio.Event()
        self.at: float | None = None
        """Time at which the run ended."""

    def finish(self) -> None:
        """Note that no task is left."""
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
