"""Clocks that one task sleeps by, and whose alarm another may set to an earlier time.

Trio's own sleep ends on a whole millisecond, because epoll counts in those: half a millisecond too late
in the mean. On Linux an alarm is a file (timerfd), which is exact to some 50 µs.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

import trio

_NANO: Final = 1_000_000_000
_ROUNDED: Final = 1e-6
"""Seconds by which the difference of two clocks may be off, as numbers: an alarm that goes off too early
would be set again at once, without end."""
_FARTHEST: Final = 1e9
"""Seconds beyond which an alarm is as good as off: 30 years, which every clock can hold."""
_MONOTONIC, _NONBLOCK, _CLOEXEC, _ABSOLUTE = 1, 0o4000, 0o2000000, 1
"""Constants of Linux's timerfd_create(2) and timerfd_settime(2)."""


class Timer(Protocol):
    """A clock with one alarm."""

    def now(self) -> float:
        """Return the time, in seconds."""
        ...

    def set(self, at: float) -> None:
        """Set the alarm to this time, whatever it was set to; ``math.inf`` turns it off."""
        ...

    async def wait(self) -> None:
        """Wait until the alarm goes off."""
        ...

    def close(self) -> None:
        """Free what the timer holds."""
        ...


class SleepingTimer:
    """A timer by Trio's own clock, for tests and where there is no timerfd."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._at = math.inf
        self._scope: trio.CancelScope | None = None

    def set(self, at: float) -> None:
        self._at = at
        if self._scope is not None:
            self._scope.deadline = self._deadline()

    def _deadline(self) -> float:
        if self.now is trio.current_time:
            return self._at
        return trio.current_time() + self._at - self.now() + _ROUNDED

    async def wait(self) -> None:
        while self.now() < self._at:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await trio.sleep_forever()
            self._scope = None
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Do nothing: it holds nothing."""


class _Spec(ctypes.Structure):
    """Linux's ``struct itimerspec``."""

    _fields_ = (
        ("interval_sec", ctypes.c_long),
        ("interval_nsec", ctypes.c_long),
        ("sec", ctypes.c_long),
        ("nsec", ctypes.c_long),
    )


class FileTimer:
    """A timer by Linux's timerfd, on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        """Raise ``OSError`` or ``AttributeError`` where there is no such thing."""
        libc: Any = ctypes.CDLL(None, use_errno=True)
        self._set_time = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Spec()
        self._address = ctypes.byref(self._spec)

    now = staticmethod(time.monotonic)

    def set(self, at: float) -> None:
        nanos = 0 if at > _FARTHEST else max(1, int(at * _NANO))  # 0 turns it off
        self._spec.sec, self._spec.nsec = divmod(nanos, _NANO)
        self._set_time(self._fd, _ABSOLUTE, self._address, None)

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._fd)
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._fd)
        os.close(self._fd)


def new_timer(now: Callable[[], float] | None = None) -> Timer:
    """Return the most exact timer of this machine, or one by the given clock."""
    if now is None and sys.platform == "linux":
        with suppress(OSError, AttributeError):
            return FileTimer()
    return SleepingTimer(now or time.monotonic)
