"""The errors of values that are read while they arrive, and the place where a JSON text breaks."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, TypeAlias

import msgspec

from ..._types.response import CompletionResponse, InvalidAnswer, MismatchedAnswer
from .json_grammar import unescaped

Path: TypeAlias = "tuple[str | int, ...]"


class BrokenJSON(InvalidAnswer):
    """The model's text is not JSON, or not the requested JSON, from some place on.

    Everything valid before that place was already returned. The message contains neither the text
    nor a name that the model made up.

    - ``position`` is the number of characters before the fault, in ``text``: the answer's text or
      the arguments of a call.
    - ``path`` is the place in the JSON (``$.cities[0].name``).
    """

    def __init__(
        self, message: str = "", *, position: int = 0, path: Path = (), below: str = ""
    ) -> None:
        super().__init__(message, CompletionResponse())
        self.position: int = position
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        self.path: str | None = f"${''.join(steps)}{below}"
        self._text = ""

    @property
    def text(self) -> str:
        """The text with the fault, as far as it has arrived."""
        return self._text

    def came_in(self, response: CompletionResponse[Any], text: str) -> None:
        """Store the answer and the text in which the fault was found."""
        self.response: CompletionResponse[Any] = response
        self.partial: CompletionResponse[Any] | None = response
        self._text = text

    def __str__(self) -> str:
        return f"{super().__str__()} (character {self.position:,})"


class UnexpectedValue(BrokenJSON, MismatchedAnswer):
    """A value is JSON but does not match its type. Its cause is the error of msgspec or
    pydantic.
    """


def mismatch(
    error: msgspec.ValidationError, position: int, path: Path = (), known: Collection[str] = ()
) -> UnexpectedValue:
    """Return the error of a value at a path that does not match its type; ``known`` are names of types."""
    found = MismatchedAnswer(str(error), CompletionResponse())
    below = (found.path or "$")[1:]
    shown = "" if error.__cause__ is not None else below  # pydantic's may have names of the model's
    said = str(found).partition(" - at `")[0]
    made = UnexpectedValue(
        f"{said} - at `{words_of(path, known)}{shown}`", position=position, path=path, below=below
    )
    made.__cause__ = error.with_traceback(None)
    return made


class CutJSON(BrokenJSON):
    """The answer ended before its JSON did; for example, it reached ``max_tokens``."""


_TOKEN = re.compile(r'[{}\[\],:]|"(?:[^"\\]|\\.)*+"?|[^\s{}\[\],:"]++', re.DOTALL)


def path_of_end(text: str) -> Path:
    """Return the path of the place where a text ends that is the beginning of JSON.

    It reads the whole text, and is for errors only.
    """
    path: list[str | int | None] = []
    for found in _TOKEN.finditer(text):
        word = found[0]
        if word in "{[":
            path.append(0 if word == "[" else None)
        elif word in "}]":
            if path:
                path.pop()
        elif not path or word == ":":
            continue
        elif word == ",":
            last = path[-1]
            path[-1] = last + 1 if isinstance(last, int) else None
        elif path[-1] is None and word[0] == '"' and len(word) > 1 and word[-1] == '"':
            path[-1] = _name(word)
    return tuple(step for step in path if step is not None)


def _name(word: str) -> str:
    try:
        return unescaped(word[1:-1])
    except ValueError:  # it may be where the text breaks
        return word[1:-1]


def words_of(path: Path, known: Any) -> str:
    """Return a path for a message: of its names only those that the type has, the first at most."""
    out = ["$"]
    for number, step in enumerate(path):
        if isinstance(step, int):
            out.append(f"[{step}]")
        else:
            out.append(f".{step}" if not number and step in known else ".…")
    return "".join(out)
