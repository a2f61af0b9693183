"""The observation of this process while it measures."""

from __future__ import annotations

import gc
import os
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from ..._batch.histogram import Histogram
from .audit import STALLS, Audit, Pauses, Times
from .stamps import Lags


class Watch(trio.abc.Instrument):
    """An observer of the event loop, the garbage collector and the CPU time, for the length of a block.

    ``seconds`` of a result are on Trio's clock, the other times are real ones.
    """

    def __init__(self, lags: Lags | None = None) -> None:
        self._lags = lags
        self._began = self._cpu = 0.0
        self._waited: float | None = None
        self._stolen: float | None = None
        self._turn: float | None = None
        self._turns = Histogram()
        self._stalls = [0.0] * (len(STALLS) + 1)
        self._pause: float | None = None
        self._pauses: Counter[str] = Counter()
        self._paused = self._longest = 0.0

    def __enter__(self) -> Watch:
        self.restart()
        gc.callbacks.append(self._collected)
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        trio.lowlevel.remove_instrument(self)
        gc.callbacks.remove(self._collected)

    def restart(self) -> None:
        """Forget what was observed so far, as of a warm-up."""
        self._began, self._cpu = trio.current_time(), time.process_time()
        self._waited, self._stolen = waited(), stolen()
        self._turn, self._turns = None, Histogram()
        self._stalls = [0.0] * (len(STALLS) + 1)
        self._pauses, self._paused, self._longest = Counter(), 0.0, 0.0
        if self._lags is not None:
            self._lags.clear()

    def audit(self) -> Audit:
        """Return what was observed so far."""
        seconds, cpu = trio.current_time() - self._began, time.process_time() - self._cpu
        lags = self._lags
        return Audit(
            seconds=seconds,
            cpu_seconds=cpu,
            cpu_share=cpu / seconds if seconds > 0 else None,
            cpu_waited=_since(self._waited, waited()),
            stolen=_since(self._stolen, stolen()),
            lag=None if lags is None or not lags.known else times_of(lags.every),
            lag_first=None if lags is None or not lags.known else times_of(lags.first),
            lag_last=None if lags is None or not lags.known else times_of(lags.last),
            loop=times_of(self._turns),
            stalls={f"{limit:g}": sum(self._stalls[n + 1 :]) for n, limit in enumerate(STALLS)},
            gc=Pauses(
                count=self._pauses.total(),
                total=self._paused,
                longest=self._longest,
                by_generation=dict(sorted(self._pauses.items())),
            ),
        )

    # -- called by Trio ------------------------------------------------------------------------

    def after_io_wait(self, timeout: float) -> None:
        """Begin a turn of the loop."""
        self._turn = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        """End a turn of the loop."""
        if self._turn is not None:
            turn = time.perf_counter() - self._turn
            self._turns.add(turn)
            if turn > STALLS[0]:
                self._stalls[bisect_left(STALLS, turn)] += turn

    # -- called by the garbage collector -------------------------------------------------------

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._pause = now
        elif self._pause is not None:
            pause, self._pause = now - self._pause, None
            self._pauses[str(info["generation"])] += 1
            self._paused += pause
            self._longest = max(self._longest, pause)


def waited() -> float | None:
    """Return the seconds that this thread could have run and had no CPU so far."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # another system, or a kernel without it
        return None


def stolen() -> float | None:
    """Return the seconds that the host of this virtual machine gave a CPU of it to others so far."""
    try:
        with Path("/proc/stat").open() as file:
            ticks = int(file.readline().split()[8])
        return ticks / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
    except (OSError, ValueError, IndexError):
        return None


def _since(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else now - before


def times_of(histogram: Histogram) -> Times:
    """Return a histogram in four numbers."""
    if not histogram.count:
        return Times()
    p50, p99 = histogram.percentiles(50, 99)
    return Times(count=histogram.count, p50=p50, p99=p99, max=histogram.most)
