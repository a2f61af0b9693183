"""Ctrl-C and SIGTERM in a conversation."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ._output import ENDING_SIGNALS

SIGNALS_ENOUGH = 3
"""Signals since the last prompt after which the program ends at once: something hangs."""
UNHEARD_SECONDS = 0.05
"""Seconds after which the main thread is woken for a signal that it has not responded to. It takes a
thousandth of that, unless it waits already."""


class Signals:
    """The responses to Ctrl-C and SIGTERM, which depend on what the program is doing.

    While it reads, a signal is a `KeyboardInterrupt`. While an answer comes, it ends the answer. None is
    lost in between: one that comes before the work has begun ends it when it begins.
    """

    def __init__(self, typed: Callable[[], str]) -> None:
        self.ending: signal.Signals | None = None
        """SIGTERM, once it has come."""
        self.typed = ""
        """The text at the prompt when the newest signal came."""
        self._typed = typed
        self._raises = False
        self._count = 0
        self._waiting = False
        """True if a signal has come that nothing has responded to."""
        self._stop: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._alarm: _Alarm | None = None

    def __enter__(self) -> Signals:
        if sys.platform != "win32":
            self._alarm = _Alarm()
        self._before = {number: signal.signal(number, self._handle) for number in ENDING_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._alarm is not None:
            self._alarm.close()

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Have signals come out of the block as `KeyboardInterrupt`."""
        self._count, self._waiting, self._raises = 0, False, True
        try:
            yield
        finally:
            self._raises = False

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have a signal call ``stop``: one in the block, or one that came since the last reading."""
        self._stop = stop
        if self._waiting:
            self._waiting = False
            stop()
        try:
            yield
        finally:
            self._stop = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._alarm is not None:
            self._alarm.heard()
        self._count += 1
        if number == signal.SIGTERM:
            self.ending = signal.SIGTERM
        if self._raises:
            self._raises = False
            self.typed = self._typed()
            raise KeyboardInterrupt
        if self._count >= SIGNALS_ENOUGH:
            os._exit(128 + number)
        if self._stop is None:
            self._waiting = True
        else:
            self._stop()


if sys.platform != "win32":

    class _Alarm:
        """A thread that wakes the main one for signals which it has missed.

        Python runs handlers in the main thread between two of its own steps. A signal that comes when
        readline has shown the prompt and does not wait for a key yet, or that the kernel gives to another
        thread, interrupts nothing: its handler would run after the next key. SIGWINCH interrupts the wait,
        because readline responds to it in C. A signal with a handler in Python would do harm: `input` may
        run that while it already raises what another handler has raised. To be made in the main thread.
        """

        def __init__(self) -> None:
            self._signals, self._written = socket.socketpair()
            self._signals.setblocking(False)
            self._written.setblocking(False)
            # Python writes a byte for each signal at once, in whatever thread that has come.
            descriptor = self._written.fileno()
            self._descriptor = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
            self._main = threading.get_ident()
            self._closed = False
            self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
            self._thread.start()

        def heard(self) -> None:
            """Note that handlers run. To be called by each."""
            with suppress(OSError):
                while self._signals.recv(64):
                    pass

        def close(self) -> None:
            """End the thread."""
            signal.set_wakeup_fd(self._descriptor)
            self._closed = True
            self._written.send(b"\0")
            self._thread.join()
            self._signals.close()
            self._written.close()

        def _run(self) -> None:
            while not self._closed:
                select.select([self._signals], [], [])
                if not self._closed:
                    time.sleep(UNHEARD_SECONDS)
                if not self._closed and select.select([self._signals], [], [], 0)[0]:
                    signal.pthread_kill(self._main, signal.SIGWINCH)
