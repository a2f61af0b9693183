"""A conversation on a terminal: ``trio-minillm chat`` without a prompt, or with ``--interactive``.

Guarantees:

- What was typed is not lost: a prompt that has got no answer stands at the next prompt again, to be
  sent or changed, whatever was wrong (a file, the request, the network, the server).
- A turn is kept as soon as anything of its answer has arrived, and marked by its outcome: also one that
  Ctrl-C has ended, and one that broke.
- Errors end no conversation. Ctrl-D, Ctrl-C at an empty prompt, ``/exit`` and SIGTERM do, and the
  conversation's costs are then asked for and told.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import trio_minillm as llm

from ..local._named import kind_of
from ._chat_answer import Ask, Chosen, finish
from ._chat_files import FilePart, file_line, file_part, mentioned, path_of
from ._chat_kept import Kept, Turn, asked_fields
from ._chat_lines import Lines, Typed, as_given
from ._chat_loop import Stage, StoppedError
from ._costs import cost_text
from ._output import Answer, Misuse, OutputError, Row, error_code, error_line, many, one_line
from ._shared import model_of
from ._terminal import print_error, print_rows, say

COMMANDS = {
    "/help": "show these commands",
    "/clear": "start a new conversation with the same model and system prompt",
    "/undo": "drop the last turn",
    "/save FILE": "save as requests that batch reads (.jsonl), or as messages (.json)",
    "/model KIND:NAME": "switch to another model",
    "/system TEXT": "set the system prompt; without TEXT there is none",
    "/cost": "show the tokens and the cost so far",
    "/exit": "leave, as Ctrl-D does",
}
"""Each command, and what it does."""
_BESIDE = (
    ("@PATH", 'a picture, sound, PDF or text; @"PATH" with spaces, \\@ for the sign itself'),
    ("\\", "at the end of a line: the prompt continues on the next one"),
    ('"""', "around a prompt: it is sent as it is, without files and commands"),
    ("Ctrl-C", "stops an answer, and keeps the part that arrived; at an empty prompt, leaves"),
)


class LeaveError(Exception):
    """The end of a conversation that is asked for with ``/exit``."""


def converse(
    ask: Ask, chosen: Chosen, system: str | None, first: str, files: Sequence[FilePart]
) -> int:
    """Converse on the terminal until the user leaves, and return the exit code.

    ``first`` is the first prompt, if it is not blank, and ``files`` go with the first prompt in any case.
    """
    lines = Lines()
    with lines.signals as signals:
        talk = Talk(ask, chosen, Kept(system), lines, files)
        code = talk.run(first)
        try:
            with signals.raised():  # already when the note promises it
                if talk.asks_costs() and not ask.quiet:
                    say("asking what it cost; Ctrl-C does not wait for the answer\n")
                talk.stage.close()
        except KeyboardInterrupt:
            code = code or 130
        if not ask.quiet:
            talk.print_totals()
    if (unwritten := ask.ledger.unwritten()) is not None:
        print_error(error_line(unwritten, None))
        code = code or error_code(unwritten)
    return 128 + signals.ending if signals.ending is not None else code


class Talk:
    """A conversation, as its user sees it."""

    def __init__(
        self, ask: Ask, chosen: Chosen, kept: Kept, lines: Lines, files: Sequence[FilePart]
    ) -> None:
        self.stage = Stage(ask.ledger, lines.signals, ask.observer)
        self._ask = ask
        self._first = chosen
        self._chosen = chosen
        self._kept = kept
        self._lines = lines
        self._files = self._first_files = files
        self._stopped = False
        """True if Ctrl-C has ended the newest answer."""

    def run(self, first: str) -> int:
        """Open the model, then answer prompts until the user leaves. Return the exit code."""
        try:
            self.stage.open(self._chosen.model)
        except StoppedError:
            return 128 + signal.SIGINT
        except (llm.MiniLLMError, Misuse, ValueError) as exc:
            return self._tell(exc)
        self._note(f"{self._chosen.name} · /help shows the commands, Ctrl-D leaves")
        if first.strip():
            typed: Typed | None = as_given(first)
        else:
            typed = self._lines.read("", hold=False)
        try:
            while typed is not None:
                begun = "" if self._is_done(typed) else typed.source
                typed = self._lines.read(begun, hold=self._stopped)
        except LeaveError:
            pass
        except OutputError as exc:  # the terminal is gone
            return error_code(exc)
        return 0

    def _is_done(self, typed: Typed) -> bool:
        """Do what was typed, and tell what goes wrong; return whether it need not be typed again."""
        self._stopped = False
        try:
            return self._take(typed)
        except StoppedError:
            return False
        except (llm.MiniLLMError, Misuse, ValueError) as exc:
            self._tell(exc)
            return False

    def _take(self, typed: Typed) -> bool:
        """Do what was typed; return whether it is done with. Raises whatever went wrong."""
        if typed.literal or not typed.text.startswith("/") or "\n" in typed.text:
            return self._answer(typed)
        self._command(typed.text)
        return True

    # -- a turn --------------------------------------------------------------------------------------

    def _answer(self, typed: Typed) -> bool:
        """Have a prompt answered; return whether anything of the answer has arrived."""
        prompt = self._prompt(typed)
        ask, answer = self._ask, Answer(secret=self._chosen.secret)
        self.stage.answer(ask, self._kept.messages(prompt), answer)
        self._stopped = answer.interrupted is not None
        if self._stopped and ask.quiet:
            say("\n")  # after the ^C that the terminal shows
        finish(answer, ask.mode, ask.quiet, self._chosen.variable)
        if isinstance(answer.error, OutputError):
            raise answer.error
        response, said = answer.response, answer.response.to_message()
        whole = response.outcome is llm.Outcome.FINISHED
        if response.outcome is None or not (whole or said.parts):
            return False
        turn = Turn(
            prompt=prompt,
            answer=said,
            outcome=response.outcome,
            model=self._chosen.name,
            system=self._kept.system,
        )
        self._kept.turns.append(turn)
        self._files = ()
        if not whole:
            self._note("this part is kept as the answer; /undo drops the turn")
        return True

    def _prompt(self, typed: Typed) -> llm.Message:
        text, paths = (typed.text, []) if typed.literal else mentioned(typed.text)
        found = [(path, file_part(path)) for path in paths]
        for path, part in found:
            self._note(f"with {file_line(path, part)}")
        return llm.user(text, *self._files, *(part for _, part in found))

    # -- commands ------------------------------------------------------------------------------------

    def _command(self, text: str) -> None:
        """Carry out a command. Raises `Misuse`, `LeaveError`, and whatever went wrong."""
        name, _, rest = text.partition(" ")
        rest = rest.strip()
        takes = {known.partition(" ")[0]: known for known in COMMANDS}
        if name not in takes:
            raise Misuse(f"no command {one_line(name)}; a space before the / makes it a prompt")
        if rest and " " not in takes[name]:
            raise Misuse(f"{name} takes nothing after it")
        if name == "/exit":
            raise LeaveError
        if name == "/help":
            print_rows([*COMMANDS.items(), *_BESIDE])
        elif name == "/clear":
            self._kept.clear()
            self._first_files = self._files  # none, once they were sent
            self._note("a new conversation")
        elif name == "/undo":
            self._undo()
        elif name == "/save":
            self._save(rest)
        elif name == "/model":
            self._switch(rest)
        elif name == "/system":
            self._kept.system = rest or None
            self._note("the system prompt is set" if rest else "no system prompt")
        elif name == "/cost":
            print_rows(self._totals())

    def _undo(self) -> None:
        if not self._kept.turns:
            raise Misuse("there is no turn to drop")
        self._kept.turns.pop()
        if not self._kept.turns:
            self._files = self._first_files  # the next prompt is the first again
        self._note(f"dropped; {many(len(self._kept.turns), 'turn')} left")

    def _save(self, given: str) -> None:
        name = given[1:-1] if given[:1] == given[-1:] == '"' else given
        if not name:
            raise Misuse("/save takes the name of a file")
        path = path_of(name)
        self._kept.save(path, asked_fields(self._ask.params, self._ask.extra))
        self._note(f"saved to {one_line(str(path))}")

    def _switch(self, name: str) -> None:
        """Go on with another model; with the one before if the other can't be opened."""
        if not name:
            raise Misuse(f"/model takes KIND:NAME; now it is {self._chosen.name}")
        before, first = self._chosen, self._first
        base_url = first.base_url if kind_of(name) == kind_of(first.name) else None
        model = first.model if name == first.name else model_of(name, base_url)
        try:
            self.stage.open(model)
        except Exception:
            self.stage.open(before.model)
            raise
        self._chosen = Chosen(name=name, base_url=base_url, model=model)
        self._note(f"now with {one_line(name)}")

    # -- what is told --------------------------------------------------------------------------------

    def asks_costs(self) -> bool:
        """Return whether the provider is being asked what answers cost."""
        return self.stage.read(lambda ledger: bool(ledger.unsettled))

    def print_totals(self) -> None:
        """Print the sums of the conversation, if anything was sent."""
        if self.stage.read(lambda ledger: ledger.totals).attempts:
            print_rows(self._totals())

    def _totals(self) -> list[Row]:
        sums = self.stage.read(lambda ledger: ledger.totals)
        told = f"{many(len(self._kept.turns), 'turn')} · {many(sums.attempts, 'request')}"
        tokens = f"{sums.prompt_tokens:,} in · {sums.completion_tokens:,} out"
        missing = sums.attempts - sums.counted
        if missing:
            tokens += f" · those of {many(missing, 'request')} unknown"
        return [("conversation", told), ("tokens", tokens), ("cost", cost_text(sums))]

    def _note(self, text: str) -> None:
        if not self._ask.quiet:
            say(f"{text}\n")

    def _tell(self, error: Exception) -> int:
        """Print an error, and return its exit code."""
        if isinstance(error, ValueError) and not isinstance(error, llm.MiniLLMError):
            error = Misuse(str(error))
        print_error(error_line(error, self._chosen.variable, self._chosen.secret))
        return error_code(error)
