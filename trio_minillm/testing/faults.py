"""Faults of servers and networks, as functions over a scripted reply.

Every function here returns a function from `Reply` to `Reply`, so that faults compose::

    testing.reply(*events) | faults.without_usage() | faults.split(every=1) | faults.cut(-20)

They mean the same in memory and over a socket, and change nothing but what they say. Offsets count
the body's bytes, after ``testing.wire`` those of the connection; negative ones count from
the end. Pauses of the script stay where they stand among the bytes.
"""

from __future__ import annotations

import gzip as _gzip
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from ._script import (
    Framing,
    Reply,
    Step,
    eof,
    forever,
    half_close,
    hang,
    head_bytes,
    reset,
    wire,
)

__all__ = [
    "Fault",
    "body",
    "closing",
    "cut",
    "drip",
    "duplicate",
    "edit",
    "endless_body",
    "endless_chunk_size",
    "endless_headers",
    "framing",
    "gzip",
    "inject",
    "insert",
    "keep_alives",
    "late",
    "length",
    "merge",
    "split",
    "stall",
    "status",
    "without_end",
    "without_finish",
    "without_usage",
]

Fault: TypeAlias = Callable[[Reply], Reply]
"""What every function here returns; write your own by returning a changed reply."""


def _steps(change: Callable[[tuple[Step, ...]], Iterable[Step]]) -> Fault:
    return lambda reply: msgspec.structs.replace(reply, steps=tuple(change(reply.steps)))


def _size(steps: Iterable[Step]) -> int:
    return sum(len(step) for step in steps if isinstance(step, bytes))


def _offset(at: int, steps: tuple[Step, ...]) -> int:
    size = _size(steps)
    return max(0, size + at) if at < 0 else min(at, size)


def _parted(steps: tuple[Step, ...], at: int) -> tuple[list[Step], list[Step]]:
    """The steps with the first ``at`` bytes, and the rest."""
    before: list[Step] = []
    left = _offset(at, steps)
    for number, step in enumerate(steps):
        size = len(step) if isinstance(step, bytes) else 0
        if left < size or (left == 0 and size == 0):
            rest = [step[left:] if isinstance(step, bytes) else step, *steps[number + 1 :]]
            if isinstance(step, bytes) and left:
                before.append(step[:left])
            return before, rest
        before.append(step)
        left -= size
    return before, []


def _split(steps: tuple[Step, ...], offsets: Iterable[int]) -> Iterator[Step]:
    """The steps, with the bytes parted at these rising offsets."""
    coming = iter(offsets)
    at, done = next(coming, math.inf), 0
    for step in steps:
        if not isinstance(step, bytes):
            yield step
            continue
        start, end = 0, len(step)
        while at < done + end:
            here = int(at) - done
            if here > start:
                yield step[start:here]
                start = here
            at = next(coming, math.inf)
        yield step[start:]
        done += end


# -- the end, and silence ------------------------------------------------------------------------


def cut(at: int, how: Literal["eof", "reset", "half_close"] = "eof") -> Fault:
    """The connection ends after ``at`` bytes: closed in good order, or reset."""
    mark = {"eof": eof, "reset": reset, "half_close": half_close}[how]
    return _steps(lambda steps: [*_parted(steps, at)[0], mark])


def stall(at: int, seconds: float = math.inf) -> Fault:
    """Silence after ``at`` bytes, for so many seconds or for ever."""
    pause: Step = hang if seconds == math.inf else seconds

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        before, rest = _parted(steps, at)
        return [*before, pause, *rest]

    return _steps(change)


def late(seconds: float = math.inf) -> Fault:
    """The headers take so many seconds, or never come."""
    wait = hang if seconds == math.inf else seconds
    return lambda reply: msgspec.structs.replace(reply, wait=wait)


# -- how bytes fall into reads -------------------------------------------------------------------


def split(*at: int, every: int | None = None) -> Fault:
    """Reads end at these offsets, or after ``every`` so many bytes."""
    if every is not None and every < 1:
        raise ValueError("every must be at least 1 byte")

    def change(steps: tuple[Step, ...]) -> Iterator[Step]:
        for step in _split(steps, sorted(_offset(a, steps) for a in at)):
            if every is None or not isinstance(step, bytes):
                yield step
            else:
                yield from (step[start : start + every] for start in range(0, len(step), every))

    return _steps(change)


def merge() -> Fault:
    """What no pause parts comes in one read."""

    def change(steps: tuple[Step, ...]) -> Iterator[Step]:
        together: list[bytes] = []
        for step in (*steps, None):
            if isinstance(step, bytes):
                together.append(step)
                continue
            if together:
                yield b"".join(together)
                together.clear()
            if step is not None:
                yield step

    return _steps(change)


def drip(size: int = 1, every: float = 1.0) -> Fault:
    """Every read brings ``size`` bytes, and ``every`` seconds pass between two of them."""
    pieces = split(every=size)

    def change(steps: tuple[Step, ...]) -> Iterator[Step]:
        begun = False
        for step in steps:
            if isinstance(step, bytes):
                if begun:
                    yield every
                begun = True
            yield step

    return lambda reply: _steps(change)(pieces(merge()(reply)))


# -- bytes and events ----------------------------------------------------------------------------


def insert(data: bytes, at: int) -> Fault:
    """These bytes stand behind the first ``at`` ones, in a read of their own."""

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        before, rest = _parted(steps, at)
        return [*before, data, *rest]

    return _steps(change)


_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")


def _events(steps: tuple[Step, ...]) -> list[list[Step]]:
    """The steps of each event, the blank line that ends it included; pauses go with what follows.
    What follows the last event is a group of its own.
    """
    text = b"".join(step for step in steps if isinstance(step, bytes))
    ends = [found.end() for found in _BLANK_LINE.finditer(text)]
    groups: list[list[Step]] = []
    group: list[Step] = []
    done = 0
    for step in _split(steps, ends):
        group.append(step)
        done += len(step) if isinstance(step, bytes) else 0
        if len(groups) < len(ends) and done == ends[len(groups)]:
            groups.append(group)
            group = []
    return [*groups, group] if group else groups


def _is_event(group: list[Step]) -> bool:
    return any(isinstance(step, bytes) for step in group)


def _position(at: int, events: list[list[Step]]) -> int:
    count = sum(map(_is_event, events))
    return max(0, count + at) if at < 0 else min(at, count)


def inject(*more: Step, at: int = 0) -> Fault:
    """These steps (events, comments, pauses) stand before the event with this number, from 0;
    negative numbers count from the end, and one past the last is behind it.
    """

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        events = _events(steps)
        events.insert(_position(at, events), list(more))
        return (step for group in events for step in group)

    return _steps(change)


def keep_alives(
    every: float, times: float = math.inf, *, at: int = 0, data: bytes = b": keep-alive\n\n"
) -> Fault:
    """Before an event, ``data`` comes every so many seconds, so many times or for ever."""
    if times == math.inf:
        return inject(forever(data, every), at=at)
    steps: list[Step] = [data, every]
    return inject(*steps * int(times), at=at)


def duplicate(at: int) -> Fault:
    """The event with this number comes twice."""

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        events = _events(steps)
        number = min(_position(at, events), len(events) - 1)
        again = [step for step in events[number] if isinstance(step, bytes)]
        events.insert(number + 1, list(again))
        return (step for group in events for step in group)

    return _steps(change)


def edit(change: Callable[[Any], Any]) -> Fault:
    """Each event's decoded JSON goes through ``change``, which returns what to send, None for no
    event. It gets the text where an event's data is not JSON, such as ``[DONE]``. Events whose
    data stay the same keep their very bytes.
    """

    def changed(steps: tuple[Step, ...]) -> Iterator[Step]:
        for group in _events(steps):
            data = b"".join(step for step in group if isinstance(step, bytes))
            edited = _edited(data, change)
            if edited is data:
                yield from group
                continue
            yield from (step for step in group if not isinstance(step, bytes))
            if edited:
                yield edited

    return _steps(changed)


_DATA_LINE = re.compile(rb"(?m)^data: ?(.*?)\r?$")


def _edited(event: bytes, change: Callable[[Any], Any]) -> bytes:
    lines = _DATA_LINE.findall(event)
    if not lines:
        return event
    text = b"\n".join(lines).decode("utf-8", "replace")
    try:
        there = json.loads(text)
        again = json.loads(text)
    except ValueError:
        there = again = text
    new = change(again)
    if new is None:
        return b""
    if new == there:
        return event
    data = new if isinstance(new, str) else json.dumps(new, ensure_ascii=False)
    head = b"".join(line + b"\n" for line in event.splitlines() if line.startswith(b"event:"))
    return head + b"".join(b"data: %s\n" % line for line in data.encode().split(b"\n")) + b"\n"


def without_end() -> Fault:
    """The wire's own last word is missing: ``[DONE]``, ``message_stop``."""

    def change(data: Any) -> Any:
        if isinstance(data, str) and data.strip() == "[DONE]":
            return None
        return None if isinstance(data, dict) and data.get("type") == "message_stop" else data

    return edit(change)


def without_finish() -> Fault:
    """No finish reason is given: ``finish_reason`` and ``stop_reason`` are null."""

    def change(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for choice in data.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                choice["finish_reason"] = None
        if isinstance(data.get("delta"), dict) and "stop_reason" in data["delta"]:
            data["delta"]["stop_reason"] = None
        return data

    return edit(change)


def without_usage() -> Fault:
    """No usage is given; an event that had nothing else does not come."""

    def change(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        had = data.pop("usage", None) is not None
        if isinstance(data.get("message"), dict):
            data["message"].pop("usage", None)
        return None if had and data.get("choices") == [] else data

    return edit(change)


# -- the response --------------------------------------------------------------------------------


def status(code: int, *, retry_after: float | str | None = None) -> Fault:
    """Another status, perhaps with ``retry-after`` (seconds, or a date as text)."""

    def change(reply: Reply) -> Reply:
        headers = dict(reply.headers)
        if retry_after is not None:
            shown = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
            headers["retry-after"] = shown
        return msgspec.structs.replace(reply, status=code, headers=headers)

    return change


def body(data: bytes | str | dict[str, Any] | list[Any], content_type: str | None = None) -> Fault:
    """Something else in place of the body: bytes, text, or JSON; the status stays.

    The content type is JSON for JSON, HTML for text that begins like it, else as it was.
    """

    def change(reply: Reply) -> Reply:
        raw = data if isinstance(data, bytes) else b""
        kind = content_type
        if isinstance(data, str):
            raw = data.encode()
            kind = kind or ("text/html" if data.lstrip().startswith("<") else None)
        elif not isinstance(data, bytes):
            raw = json.dumps(data).encode()
            kind = kind or "application/json"
        headers = reply.headers | ({"content-type": kind} if kind else {})
        return msgspec.structs.replace(reply, steps=(raw,) if raw else (), headers=headers)

    return change


def framing(how: Framing, *, http: Literal["1.0", "1.1"] = "1.1") -> Fault:
    """How the body's end is told: chunks, ``content-length``, or the connection's end."""
    return lambda reply: msgspec.structs.replace(reply, framing=how, http=http)


def length(off_by: int) -> Fault:
    """``content-length`` is wrong by so many bytes; the connection is closed behind the body."""

    def change(reply: Reply) -> Reply:
        said = max(0, _size(reply.steps) + off_by)
        return msgspec.structs.replace(reply, framing="length", length=said, keep_alive=False)

    return change


def closing() -> Fault:
    """The connection is closed behind the response, and the head says so."""
    return lambda reply: msgspec.structs.replace(reply, keep_alive=False)


def gzip() -> Fault:
    """The body is compressed, though nobody may have asked for it; pauses are lost."""

    def change(reply: Reply) -> Reply:
        data = _gzip.compress(b"".join(s for s in reply.steps if isinstance(s, bytes)), mtime=0)
        headers = reply.headers | {"content-encoding": "gzip"}
        return msgspec.structs.replace(reply, steps=(data,), headers=headers)

    return change


# -- without end ---------------------------------------------------------------------------------

_PAD = 4096


def endless_headers(*, one_line: bool = False) -> Fault:
    """Header lines without end, or one line without end."""

    def change(reply: Reply) -> Reply:
        head = head_bytes(reply.http, reply.status, reply.headers)[:-2]
        pad = b"x" * _PAD if one_line else b"x-pad: " + b"x" * 100 + b"\r\n"
        steps = (head + b"x-long: " if one_line else head, forever(pad))
        return msgspec.structs.replace(reply, steps=steps, raw=True)

    return change


def endless_chunk_size() -> Fault:
    """Behind the body comes a chunk whose size line has no end: an extension goes on and on."""

    def change(reply: Reply) -> Reply:
        whole = wire(msgspec.structs.replace(reply, framing="chunked"))
        steps = (*whole.steps[:-1], b"1;", forever(b"x" * _PAD))
        return msgspec.structs.replace(whole, steps=steps)

    return change


def endless_body(data: bytes = b"x" * _PAD) -> Fault:
    """Behind the body ``data`` is repeated for ever: by default one line without end."""
    return _steps(lambda steps: [*steps, forever(data)])
