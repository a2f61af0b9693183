"""Streams of any length on each wire format, made of one short answer. Pure.

The events come from the builders of `trio_minillm.testing`, once for each form: an answer with one piece of
reasoning and one of text, in which marks stand for what differs from request to request and from chunk to
chunk. So an answer of ten thousand tokens costs nothing before its first chunk, and a chunk little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from .._types.usage import Usage
from ..testing._answer_parts import AnswerPart, Finish, reasoning
from ..testing._events import answer_body, answer_events
from ..testing._wire_answers import sse
from .options import UsageMode, Wire
from .requests import Asked
from .words import PERIOD, text_of

# Marks. Each is a text or a number that occurs nowhere else; `ID` and `CREATED` are as long as what replaces
# them, so that they can be replaced in what is framed already.
ID, THOUGHT, TEXT = (f"\ue000{name}".encode() for name in ("requestid", "thought", "text"))
PROMPT, MADE, REASONED = 910_000_001, 920_000_002, 13_000_005
SO_FAR, ALL_SO_FAR, TEXT_SO_FAR = 930_000_003, 940_000_004, 950_000_005
NUMBER, CREATED_AT = 960_000_006, 9_700_000_007

MAX_FORMS: Final = 256
"""Forms that are kept: one for each model's name and kind of answer."""


def framed(data: bytes) -> bytes:
    """Return the data as a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unframed(data: bytes) -> bytes:
    """Return the data as they are."""
    return data


class Template:
    """An event with marks in it."""

    __slots__ = ("data", "marks")

    def __init__(self, data: bytes, marks: Iterable[bytes]) -> None:
        self.data = data
        self.marks = tuple(mark for mark in marks if mark in data)

    def filled(self, values: dict[bytes, bytes]) -> bytes:
        """Return the event with values in place of its marks."""
        data = self.data
        for mark in self.marks:
            data = data.replace(mark, values[mark])
        return data


class Length(msgspec.Struct, frozen=True):
    """The tokens of an answer."""

    prompt: int
    reasoning: int
    text: int

    @property
    def made(self) -> int:
        """All tokens of output."""
        return self.reasoning + self.text


class Kind(msgspec.Struct, frozen=True):
    """The sorts of answers of which each has a form of its own."""

    wire: Wire
    model: str
    thinks: bool
    speaks: bool
    finish: Finish
    usage: bool
    """True if usage comes at the end."""
    running: bool
    """True if usage comes with each content."""

    def parts(self) -> list[AnswerPart]:
        """Return the short answer."""
        parts: list[AnswerPart] = [reasoning(THOUGHT.decode())] if self.thinks else []
        return [*parts, TEXT.decode()] if self.speaks or not parts else parts

    def counts(self, prompt: int, made: int, reasoned: int) -> Usage | bool:
        """Return the usage for the builders."""
        if not self.usage:
            return False
        thought = reasoned if self.thinks else None
        return Usage(uncached_input_tokens=prompt, completion_tokens=made, reasoning_tokens=thought)


class Form:
    """The events of one kind of answer."""

    def __init__(self, kind: Kind, frame: Callable[[bytes], bytes]) -> None:
        self.kind = kind
        self.frame = frame
        self._pieces: dict[tuple[int, int], list[bytes]] = {}
        events = answer_events(
            kind.wire, kind.parts(), kind.finish, kind.counts(PROMPT, MADE, REASONED)
        )
        templates = [Template(_edited(event, kind), _MARKS) for event in events]
        holders = [
            next(i for i, template in enumerate(templates) if mark in template.data)
            for mark in (THOUGHT, TEXT)
            if any(mark in template.data for template in templates)
        ]
        first, last = holders[0], holders[-1]
        self.opening = templates[:first]
        self.contents = [templates[i] for i in holders]
        self.between = templates[first + 1 : last]
        self.closing = templates[last + 1 :]
        self.fixed = not {*self.contents[-1].marks, *self.contents[0].marks} & _COUNTED
        """True if contents differ by their text alone."""

    def mark(self, which: int) -> bytes:
        """Return the mark in place of which the text of a content stands."""
        return TEXT if which == len(self.contents) - 1 and self.kind.speaks else THOUGHT

    def pieces(self, which: int, per_chunk: int) -> list[bytes]:
        """Return the contents of so many tokens, of which the text is made over and over.

        They have `ID` and `CREATED` in place of those. The first one of all is another, because it has no
        space before it.
        """
        key = (which, per_chunk)
        made = self._pieces.get(key)
        if made is None:
            mark = self.mark(which)
            rounds = PERIOD // math.gcd(PERIOD, per_chunk)
            same = {ID: ID, CREATED: CREATED}
            made = self._pieces[key] = [
                self.frame(
                    self.contents[which].filled(
                        {**same, mark: text_of(PERIOD + n * per_chunk, per_chunk).encode()}
                    )
                )
                for n in range(rounds)
            ]
        return made


_COUNTED: Final = {str(n).encode() for n in (SO_FAR, ALL_SO_FAR, TEXT_SO_FAR, NUMBER)}
CREATED: Final = str(CREATED_AT).encode()
_MARKS: Final = (
    *(ID, THOUGHT, TEXT, CREATED),
    *(str(n).encode() for n in (PROMPT, MADE, REASONED, PROMPT + MADE, MADE - REASONED)),
    *sorted(_COUNTED),
)


class Forms:
    """The forms that have been needed so far."""

    def __init__(self) -> None:
        self._forms: dict[tuple[Kind, bool], Form] = {}

    def get(self, kind: Kind, *, frame: bool) -> Form:
        """Return the form of this kind, framed for HTTP or not."""
        form = self._forms.get((kind, frame))
        if form is None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            form = self._forms[kind, frame] = Form(kind, framed if frame else unframed)
        return form


# -- names and counts in the events ---------------------------------------------------------------


def renamed(
    event: bytes,
    wire: Wire,
    names: tuple[str, str, int],
    change: Callable[[dict[str, Any]], None] | None = None,
) -> bytes:
    """Return a builder's event with the model's name, the id and the time, and with another change."""
    head, _, text = event.partition(b"data: ")
    if text.startswith(b"[DONE]"):
        return event
    data: dict[str, Any] = msgspec.json.decode(text)
    put_names(data, wire, names)
    if change is not None:
        change(data)
    return sse(data, head.decode().removeprefix("event: ").strip() or None)


def _edited(event: bytes, kind: Kind) -> bytes:
    """Return a builder's event with the model's name, and marks for all that differs."""
    is_content = TEXT in event or THOUGHT in event

    def change(data: dict[str, Any]) -> None:
        if "sequence_number" in data:
            data["sequence_number"] = NUMBER
        if kind.wire == "gemini" and is_content:
            data.pop("usageMetadata", None)
        if kind.running and is_content:
            _add_running(data, kind, is_thought=THOUGHT in event)

    return renamed(event, kind.wire, (kind.model, ID.decode(), CREATED_AT), change)


def put_names(data: dict[str, Any], wire: Wire, names: tuple[str, str, int]) -> None:
    """Put the model's name, the id and the Unix time into an event or a body."""
    model, id, created = names
    if wire in ("openai", "text"):
        prefix = "chatcmpl-" if wire == "openai" else "cmpl-"
        data |= {"id": prefix + id, "created": created, "model": model}
    elif wire == "gemini":
        data |= {"responseId": id, "modelVersion": model}
    elif wire == "anthropic":
        message = data if data.get("type") == "message" else data.get("message")
        if message is not None:
            message |= {"id": f"msg_{id}", "type": "message", "role": "assistant"}
            message |= {"model": model, "stop_reason": message.get("stop_reason")}
            message["stop_sequence"] = None
    else:
        response = data if data.get("object") == "response" else data.get("response")
        if response is not None:
            response |= {"id": f"resp_{id}", "created_at": created, "model": model}


def whole_body(
    wire: Wire,
    parts: Iterable[AnswerPart],
    finish: Finish,
    usage: Usage | bool,
    names: tuple[str, str, int],
) -> dict[str, Any]:
    """Return a builder's answer that is not streamed, with those names, and no usage if that is False."""
    made = answer_body(wire, parts, finish, usage or True)
    if not usage:
        made.pop("usage", None)
        made.pop("usageMetadata", None)
    put_names(made, wire, names)
    return made


def _add_running(data: dict[str, Any], kind: Kind, *, is_thought: bool) -> None:
    if kind.wire in ("openai", "text"):
        data["usage"] = {
            "prompt_tokens": PROMPT,
            "completion_tokens": SO_FAR,
            "total_tokens": ALL_SO_FAR,
        }
    elif kind.wire == "gemini":
        counts = {"promptTokenCount": PROMPT, "totalTokenCount": ALL_SO_FAR}
        if is_thought:
            counts["thoughtsTokenCount"] = SO_FAR
        else:
            counts["candidatesTokenCount"] = TEXT_SO_FAR
            if kind.thinks:
                counts["thoughtsTokenCount"] = REASONED
        data["usageMetadata"] = counts


def kind_of(asked: Asked, length: Length, finish: Finish, mode: UsageMode) -> Kind:
    """Return the kind of the answer to a request."""
    usage, running = asked.usage_by(mode)
    return Kind(
        wire=asked.wire,
        model=asked.model,
        thinks=length.reasoning > 0,
        speaks=length.text > 0,
        finish=finish,
        usage=usage,
        running=running,
    )
