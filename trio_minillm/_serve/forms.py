"""Streams of any length on each wire format, made of one short answer. Pure.

The events come from the builders of `trio_minillm.testing`, once for each form: an answer with one piece of
reasoning and one of text, in which marks stand for what differs from request to request and from chunk to
chunk. So an answer of ten thousand tokens costs nothing before its first chunk, and a chunk little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .._types.usage import Usage
from ..testing._answer_parts import AnswerPart, reasoning
from ..testing._events import answer_body, answer_events
from ..testing._wire_answers import sse
from .options import UsageMode, Wire
from .words import PERIOD, text_of

Finish: TypeAlias = Literal["auto", "stop", "length", "tool_calls", "content_filter"]
Item: TypeAlias = tuple[float, bytes, int]
"""Seconds after the item before, what is sent then, and the tokens of content in it."""

# Marks. Each is a text or a number that occurs nowhere else, and `ID` is as long as what replaces it.
ID, THOUGHT, TEXT = b"~request~id~", b"~thought~", b"~text~"
_PROMPT, _MADE, _REASONED = 910_000_001, 920_000_002, 13_000_005
_SO_FAR, _ALL_SO_FAR, _TEXT_SO_FAR = 930_000_003, 940_000_004, 950_000_005
_NUMBER, _CREATED = 960_000_006, 970_000_007

MAX_FORMS: Final = 256
"""Forms that are kept: one for each model's name and kind of answer."""
MAX_PIECES: Final = 4_096
"""Pieces of text that a form keeps ready."""


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
        self._pieces: dict[tuple[int, int, bool], bytes] = {}
        events = answer_events(
            kind.wire, kind.parts(), kind.finish, kind.counts(_PROMPT, _MADE, _REASONED)
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
        self._fixed = not {*self.contents[-1].marks, *self.contents[0].marks} & _COUNTED

    def content(self, which: int, first: int, count: int, values: dict[bytes, bytes]) -> bytes:
        """Return a content, of ``count`` tokens from ``first`` on."""
        mark = TEXT if which == len(self.contents) - 1 and self.kind.speaks else THOUGHT
        if not self._fixed:
            values[mark] = text_of(first, count).encode()
            return self.frame(self.contents[which].filled(values))
        place = first % PERIOD if first < PERIOD else PERIOD + first % PERIOD
        key = (place, count, mark is TEXT)
        piece = self._pieces.get(key)
        if piece is None:
            whole = {ID: ID, mark: text_of(first, count).encode()}
            piece = self.frame(self.contents[which].filled(whole))
            if len(self._pieces) < MAX_PIECES:
                self._pieces[key] = piece
        return piece.replace(ID, values[ID])


_COUNTED: Final = {str(n).encode() for n in (_SO_FAR, _ALL_SO_FAR, _TEXT_SO_FAR, _NUMBER, _CREATED)}
_MARKS: Final = (
    *(ID, THOUGHT, TEXT),
    *(str(n).encode() for n in (_PROMPT, _MADE, _REASONED, _PROMPT + _MADE, _MADE - _REASONED)),
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


class Length(msgspec.Struct, frozen=True):
    """The tokens of an answer."""

    prompt: int
    reasoning: int
    text: int

    @property
    def made(self) -> int:
        """All tokens of output."""
        return self.reasoning + self.text


def contents(
    form: Form,
    id: str,
    length: Length,
    per_chunk: int,
    *,
    opening: bool = False,
    end: bytes = b"",
) -> Iterator[tuple[bytes, int]]:
    """Yield what is sent for each content, and its tokens.

    The events before the first content come with it, those after the last, and ``end``, with that. With
    ``opening`` the former come by themselves, as 0 tokens.
    """
    counter = 0
    values = _values(id, length)

    def rendered(templates: Iterable[Template]) -> bytes:
        nonlocal counter
        pieces = []
        for template in templates:
            values[_N] = b"%d" % counter
            counter += 1
            pieces.append(form.frame(template.filled(values)))
        return b"".join(pieces)

    before = rendered(form.opening)
    if opening:
        yield before, 0
        before = b""
    runs = [n for n in (length.reasoning, length.text) if n] or [0]
    made = 0
    for which, total in enumerate(runs):
        is_text = which == len(runs) - 1 and form.kind.speaks
        if which:
            values[THOUGHT] = text_of(0, length.reasoning).encode()
            before += rendered(form.between)
        first = 0
        while first < total:
            count = min(per_chunk, total - first)
            made += count
            _count(values, length.prompt, made, length.reasoning if is_text else None)
            values[_N] = b"%d" % counter
            counter += 1
            data = before + form.content(which, first, count, values)
            first, before = first + count, b""
            if first == total and which == len(runs) - 1:
                values[THOUGHT] = text_of(0, length.reasoning).encode()
                values[TEXT] = text_of(0, length.text).encode()
                data += rendered(form.closing) + end
            yield data, count


_N: Final = str(_NUMBER).encode()
_SO, _ALL, _OF_TEXT = (str(n).encode() for n in (_SO_FAR, _ALL_SO_FAR, _TEXT_SO_FAR))


def _values(id: str, length: Length) -> dict[bytes, bytes]:
    prompt, made, thought = length.prompt, length.made, length.reasoning
    numbers = {
        _PROMPT: prompt,
        _MADE: made,
        _PROMPT + _MADE: prompt + made,
        _REASONED: thought,
        _MADE - _REASONED: made - thought,
        _CREATED: int(time.time()),
    }
    values = {str(mark).encode(): b"%d" % value for mark, value in numbers.items()}
    return {**values, ID: id.encode(), THOUGHT: b"", TEXT: b""}


def _count(values: dict[bytes, bytes], prompt: int, made: int, thought: int | None) -> None:
    values[_SO] = b"%d" % made
    values[_ALL] = b"%d" % (prompt + made)
    values[_OF_TEXT] = b"%d" % (made - (thought or 0))


def body(kind: Kind, id: str, length: Length) -> bytes:
    """Return the answer that is not streamed."""
    parts: list[AnswerPart] = []
    if length.reasoning:
        parts.append(reasoning(text_of(0, length.reasoning)))
    if length.text or not parts:
        parts.append(text_of(0, length.text))
    usage = kind.counts(length.prompt, length.made, length.reasoning)
    made = answer_body(kind.wire, parts, kind.finish, usage if usage else True)
    if not usage:
        made.pop("usage", None)
        made.pop("usageMetadata", None)
    _name(made, kind, id, int(time.time()))
    return msgspec.json.encode(made)


# -- names and counts in the events ---------------------------------------------------------------


def _edited(event: bytes, kind: Kind) -> bytes:
    """Return a builder's event with the model's name, and marks for all that differs."""
    head, _, text = event.partition(b"data: ")
    if text.startswith(b"[DONE]"):
        return event
    data: dict[str, Any] = msgspec.json.decode(text)
    _name(data, kind, ID.decode(), _CREATED)
    if "sequence_number" in data:
        data["sequence_number"] = _NUMBER
    is_content = TEXT in text or THOUGHT in text
    if kind.wire == "gemini" and is_content:
        data.pop("usageMetadata", None)
    if kind.running and is_content:
        _add_running(data, kind, is_thought=THOUGHT in text)
    return sse(data, head.decode().removeprefix("event: ").strip() or None)


def _name(data: dict[str, Any], kind: Kind, id: str, created: int) -> None:
    """Put the model's name, the id and the time into an event or a body."""
    if kind.wire in ("openai", "text"):
        prefix = "chatcmpl-" if kind.wire == "openai" else "cmpl-"
        data |= {"id": prefix + id, "created": created, "model": kind.model}
    elif kind.wire == "gemini":
        data |= {"responseId": id, "modelVersion": kind.model}
    elif kind.wire == "anthropic":
        message = data if data.get("type") == "message" else data.get("message")
        if message is not None:
            message |= {"id": f"msg_{id}", "type": "message", "role": "assistant"}
            message |= {"model": kind.model, "stop_reason": message.get("stop_reason")}
            message["stop_sequence"] = None
    else:
        response = data if data.get("object") == "response" else data.get("response")
        if response is not None:
            response |= {"id": f"resp_{id}", "created_at": created, "model": kind.model}


def _add_running(data: dict[str, Any], kind: Kind, *, is_thought: bool) -> None:
    if kind.wire in ("openai", "text"):
        data["usage"] = {
            "prompt_tokens": _PROMPT,
            "completion_tokens": _SO_FAR,
            "total_tokens": _ALL_SO_FAR,
        }
    elif kind.wire == "gemini":
        counts = {"promptTokenCount": _PROMPT, "totalTokenCount": _ALL_SO_FAR}
        if is_thought:
            counts["thoughtsTokenCount"] = _SO_FAR
        else:
            counts["candidatesTokenCount"] = _TEXT_SO_FAR
            if kind.thinks:
                counts["thoughtsTokenCount"] = _REASONED
        data["usageMetadata"] = counts


def kind_of(
    wire: Wire,
    model: str,
    length: Length,
    finish: Finish,
    mode: UsageMode,
    asked: tuple[bool, bool],
) -> Kind:
    """Return the kind of an answer. ``asked`` says whether usage was asked for, and a running one."""
    late, running = asked
    if mode != "asked":
        late, running = mode != "never", mode == "running"
    return Kind(
        wire=wire,
        model=model,
        thinks=length.reasoning > 0,
        speaks=length.text > 0,
        finish=finish,
        usage=late or running,
        running=running and wire in ("openai", "text", "gemini"),
    )
