"""Prompts that are typed at a terminal, with readline where Python has it."""

from __future__ import annotations

from types import ModuleType

import msgspec

from .._types.messages import Quiet
from ._chat_signals import Signals
from ._terminal import print_error, say

PROMPT, FURTHER = "> ", "... "
BLOCK = '"""'
"""Mark before and after lines that are sent as they are."""
MAX_HISTORY = 1_000
"""Prompts of the session that can be got back with the arrow keys."""


class Typed(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """A prompt as it was typed."""

    text: str
    literal: bool = False
    """True if it is to be sent as it is: no command, no files."""

    @property
    def source(self) -> str:
        """The text that stands at the prompt if it is to be typed again."""
        return f"{BLOCK}{self.text}{BLOCK}" if self.literal else self.text

    def _facts(self) -> str:
        return f"{len(self.text)} characters"


def as_given(text: str) -> Typed:
    """Return a text that nobody has typed, in a form that can be typed again and is then sent as it is."""
    literal = "@" in text or text.startswith("/") or _begins_block(text) or _is_open([text])
    return Typed(text=text, literal=literal)


def loaded_readline() -> ModuleType | None:
    """Return readline, set up for prompts; None where Python is built without it."""
    try:
        import readline
    except ImportError:
        return None
    readline.set_auto_history(False)  # a prompt of several lines is one entry
    return readline


class Lines:
    """The prompts of one session.

    A line that ends with a backslash goes on in the next, and so does a text that begins with three
    quotation marks, up to the next three.
    """

    def __init__(self) -> None:
        self._readline = loaded_readline()
        self.signals = Signals(self._buffer)

    def read(self, begun: str, *, hold: bool) -> Typed | None:
        """Return what is typed, which is not blank; None if the user leaves.

        ``begun`` stands at the prompt already. With ``hold``, the first Ctrl-C does not leave: it may
        have been meant for the answer.
        """
        while self.signals.ending is None:
            lines: list[str] = []
            try:
                typed = self._typed(begun, lines)
            except EOFError:
                say("\n")
                if not lines:
                    return None
            except KeyboardInterrupt:
                say("\n")
                if not (lines or self.signals.typed.strip()):
                    if not hold:
                        return None
                    say("Ctrl-C again leaves, and so does Ctrl-D\n")
                    hold = False
            except UnicodeDecodeError as exc:
                print_error(f"error: what was typed is not text in {exc.encoding}")
            else:
                if typed.text.strip():
                    self._keep(typed.source)
                    return typed
            begun = ""
        return None

    def _typed(self, begun: str, lines: list[str]) -> Typed:
        """Return a text of one or more lines, which are in ``lines`` as far as they were typed."""
        lines.append(self._line(PROMPT, begun))
        while _is_open(lines):
            lines.append(self._line(FURTHER, ""))
        text = "\n".join(lines)
        if _begins_block(lines[0]):
            return Typed(text=text.strip()[len(BLOCK) : -len(BLOCK)].strip("\n"), literal=True)
        return Typed(text="\n".join([*(line[:-1] for line in lines[:-1]), lines[-1]]))

    def _line(self, prompt: str, begun: str) -> str:
        if self._readline is not None:
            insert = self._readline.insert_text
            self._readline.set_startup_hook((lambda: insert(begun)) if begun else None)
        with self.signals.raised():
            if self.signals.ending is not None:
                raise KeyboardInterrupt
            try:
                line = input(prompt)
            except SystemError:  # CPython's, for a second signal while the first ends the reading
                raise KeyboardInterrupt from None
        # A byte that is no text is kept by Python in a form that can't be sent.
        return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _buffer(self) -> str:
        return "" if self._readline is None else str(self._readline.get_line_buffer())

    def _keep(self, source: str) -> None:
        readline = self._readline
        if readline is None:
            return
        count = readline.get_current_history_length()
        if count == 0 or readline.get_history_item(count) != source:
            readline.add_history(source)
        if count >= MAX_HISTORY:
            readline.remove_history_item(0)


def _begins_block(line: str) -> bool:
    return line.lstrip().startswith(BLOCK)


def _is_open(lines: list[str]) -> bool:
    """Return whether a text goes on in a further line."""
    if _begins_block(lines[0]):
        whole = "\n".join(lines).strip()
        return len(whole) < 2 * len(BLOCK) or not whole.endswith(BLOCK)
    last = lines[-1]
    return (len(last) - len(last.rstrip("\\"))) % 2 == 1  # an even number is text
