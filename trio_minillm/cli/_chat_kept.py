"""A conversation of ``trio-minillm chat``: its turns, and how they are saved. Waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import trio_minillm as llm

from .._types.messages import Quiet
from ..providers._chat_messages import MessageRules, chat_messages
from ._output import Misuse

LINES, MESSAGES = ".jsonl", ".json"
"""Ends of the names of saved files: of requests, a line for each turn, and of a list of messages."""


class Turn(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and its answer, which may be cut."""

    prompt: llm.Message
    answer: llm.Message
    outcome: llm.Outcome
    """The outcome of the answer: anything but ``finished`` marks a part of one."""
    model: str
    """The model's name, as it was given."""
    system: str | None
    """The system prompt of this turn."""


class Kept(Quiet):
    """The turns that each further request begins with."""

    def __init__(self, system: str | None) -> None:
        self.system = system
        """The system prompt."""
        self.turns: list[Turn] = []
        self._saved: set[Path] = set()

    def _facts(self) -> str:
        return f"{len(self.turns)} turns"

    def clear(self) -> None:
        """Begin a new conversation, with the same system prompt."""
        self.turns.clear()
        self._saved.clear()

    def messages(self, prompt: llm.Message) -> list[llm.Message]:
        """Return the messages of a request with this prompt."""
        return [*_said(self.system, self.turns), prompt]

    def save(self, path: Path, asked: Mapping[str, Any]) -> None:
        """Write the conversation to a file, in the form that its name's end says.

        ``asked`` are the fields that all its requests share. A file that this conversation has not
        written is not written over. Raises `Misuse`.
        """
        if path.suffix not in (LINES, MESSAGES):
            raise Misuse(
                f"the file ends in {LINES}, for requests that batch reads, or in {MESSAGES}"
            )
        if not self.turns:
            raise Misuse("there is no turn to save")
        if path.suffix == LINES:
            data = b"".join(msgspec.json.encode(line) + b"\n" for line in self._lines(asked))
        else:
            said = _in_openais_form(_said(self.system, self.turns))
            data = msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n"
        try:
            place = path.absolute()  # which fails in a folder that is gone
            with place.open("wb" if place in self._saved else "xb") as file:
                self._saved.add(place)
                file.write(data)
        except FileExistsError:
            raise Misuse(f"{path} exists, and is not a file of this conversation") from None
        except OSError as exc:
            raise Misuse(f"{path}: {exc.strerror or exc}") from exc

    def _lines(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the request of each turn, as a line that ``batch`` reads, with the answer beside it."""
        for number, turn in enumerate(self.turns):
            said = [*_said(turn.system, self.turns[:number]), turn.prompt]
            told = {"model": turn.model, "outcome": turn.outcome, "answer": turn.answer.text}
            yield {
                "key": f"turn-{number + 1}",
                "messages": _in_openais_form(said),
                **asked,
                "meta": told,
            }


def _said(system: str | None, turns: Sequence[Turn]) -> list[llm.Message]:
    said = [message for turn in turns for message in (turn.prompt, turn.answer)]
    return said if system is None else [llm.system(system), *said]


def _in_openais_form(messages: Sequence[llm.Message]) -> list[dict[str, Any]]:
    return chat_messages(messages, MessageRules(any_tool_content=True, document_urls=True), "")


def asked_fields(params: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what requests ask for beside their messages, as fields of a line that ``batch`` reads."""
    fields = dict(params)
    form = fields.pop("response_format", None)
    if form is not None:
        schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**fields, **({"extra": dict(extra)} if extra else {})}
