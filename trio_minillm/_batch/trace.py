"""A log of the control's decisions: to a function, or to a file of JSON lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from .throttle.traced_lane import TraceEvent

TraceTarget: TypeAlias = str | os.PathLike[str] | Callable[[TraceEvent], object]
"""A file, which is written anew, or a function that is called with each event."""


class Trace:
    """The way of events out of a run: `tell` takes one, and never raises (see `flush`)."""

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
        except Exception as exc:  # noqa: BLE001 - raised by `flush`: here a lane is in the middle of it
            self._failed = exc

    def flush(self) -> None:
        """Let others see the lines so far. Raises what the function or the file has raised."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Write what is left and close the file. Raises as `flush` does."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
