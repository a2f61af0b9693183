"""A command on a terminal of its own, at which a test types."""

from __future__ import annotations

import os
import re
import select
import struct
import termios
import time
from types import TracebackType
from typing import Self

from .command import KEY, LIMIT, environment, start

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


def plain(shown: str) -> str:
    """Return what was shown without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", shown)


class Terminal:
    """The command with a terminal as stdin, stdout and stderr, until the end of the block."""

    def __init__(self, args: list[str], *, columns: int = 80, **env: str) -> None:
        import fcntl
        import pty

        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = start(
            args,
            environment(INPUTRC="/dev/null", PYTHONUTF8="1", **env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Only the terminal that controls a session sends signals to it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""
        """All that it has shown, without what marks pasted text."""
        self.seen = 0
        """Characters of it that a test has waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self.ours)
        assert "Traceback" not in self.shown
        assert KEY not in self.shown

    def type(self, text: str, wait_for: str = "> ") -> None:
        """Wait for a text, by default the prompt, and type."""
        self.until(wait_for)
        os.write(self.ours, text.encode())

    def press(self, text: str) -> None:
        """Type at once."""
        os.write(self.ours, text.encode())

    def until(self, wanted: str) -> str:
        """Wait for a text that it had not shown by the last wait; return all from there on to its end."""
        deadline = time.monotonic() + LIMIT
        while (found := self.shown.find(wanted, self.seen)) < 0:
            assert self._more(deadline), f"{wanted!r} is not in {self.shown[self.seen :]!r}"
        begun, self.seen = self.seen, found + len(wanted)
        return self.shown[begun : self.seen]

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code, and what was shown since the last wait."""
        deadline = time.monotonic() + LIMIT
        while self._more(deadline):
            pass
        return self.process.wait(LIMIT), plain(self.shown[self.seen :])

    def echoes(self) -> bool:
        """Return whether what is typed is shown by the terminal itself, as a shell expects it."""
        return bool(termios.tcgetattr(self.ours)[3] & termios.ECHO)

    def _more(self, deadline: float) -> bool:
        assert select.select([self.ours], [], [], max(0, deadline - time.monotonic()))[0], (
            self.shown
        )
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # Linux's word for the end of a terminal
            return False
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        self.shown += re.sub(r"\x1b\[\?2004[hl]\r?", "", text)
        return bool(data)
