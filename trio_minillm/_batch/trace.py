"""A log of the control's decisions: to a function, or to a file of JSON lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from .throttle.traced_lane import TraceEvent

TraceTarget: TypeAlias = str | os.PathLike[str] | Callable[[TraceEvent], object]
"""A file, which is written anew, or a function that is called with each event."""


_log = logging.getLogger("trio_minillm")


class Trace:
    """The way of events out of a run: `tell` takes one, and never raises (see `flush`).

    A file that can't be written ends the trace, with a warning, and nothing else.
    """

    def __init__(self, target: TraceTarget) -> None:
        self.began = 0.0
        """Time at which the run began."""
        self._target = target
        self._file: BinaryIO | None = None
        self._encode = msgspec.json.Encoder().encode
        self._failed: Exception | None = None

    def open(self, now: float) -> None:
        """Make the file. Raises `OSError` if that can't be done."""
        self.began = now
        if not callable(self._target):
            self._file = Path(self._target).open("wb")  # noqa: SIM115 - open while the run is

    def tell(self, event: TraceEvent) -> None:
        """Call the function, or write a line, which is kept for a moment."""
        if self._failed is not None:
            return
        try:
            if callable(self._target):
                self._target(event)
            elif self._file is not None:
                self._file.write(self._encode(event) + b"\n")
        except OSError as exc:
            self._lost(exc)
        except Exception as exc:  # noqa: BLE001 - raised by `flush`: here a lane is in the middle of it
            self._failed = exc

    def flush(self) -> None:
        """Let others see the lines so far. Raises what the function has raised."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as exc:
                self._lost(exc)

    def close(self) -> None:
        """Write what is left and close the file. Raises as `flush` does."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()

    def _lost(self, error: OSError) -> None:
        if callable(self._target):
            self._failed = error
            return
        file, self._file = self._file, None
        why = error.strerror or type(error).__name__
        _log.warning("the trace %s can't be written (%s): it ends here", self._target, why)
        with suppress(OSError):
            if file is not None:
                file.close()
