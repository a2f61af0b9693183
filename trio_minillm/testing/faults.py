"""Faults of servers and networks, as functions over a scripted reply.

Every function here returns a function from `Reply` to `Reply`, so that you can compose faults:
``testing.reply(*events) | faults.without_usage() | faults.split(every=1) | faults.cut(-20)``.

A fault has the same effect in memory and over a socket, and changes nothing else. Offsets count the
bytes of the body, or after ``testing.wire`` those of the connection; negative offsets count from
the end. Pauses of the script keep their places among the bytes.

The file is long because it is a catalogue, one short function for each fault.
"""

from __future__ import annotations

import gzip as _gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from ._script import (
    Fault,
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
from ._steps import edited_event, event_number, events_of, offset_in, parted, size_of, split_at

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


def _steps(change: Callable[[tuple[Step, ...]], Iterable[Step]]) -> Fault:
    return lambda reply: msgspec.structs.replace(reply, steps=tuple(change(reply.steps)))


# -- the end, and silence ------------------------------------------------------------------------


def cut(at: int, how: Literal["eof", "reset", "half_close"] = "eof") -> Fault:
    """End the connection after ``at`` bytes.

    ``how`` says in which way: a clean close (``"eof"``), a half-close, or a reset.
    """
    marks = {"eof": eof, "reset": reset, "half_close": half_close}
    if how not in marks:
        raise ValueError(f"how must be one of {', '.join(marks)}")
    mark = marks[how]
    return _steps(lambda steps: [*parted(steps, at)[0], mark])


def stall(at: int, seconds: float = math.inf) -> Fault:
    """Send nothing for ``seconds`` after ``at`` bytes; by default forever."""
    pause: Step = hang if seconds == math.inf else seconds

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        before, rest = parted(steps, at)
        return [*before, pause, *rest]

    return _steps(change)


def late(seconds: float = math.inf) -> Fault:
    """Delay the headers by ``seconds``; by default, never send them."""
    wait = hang if seconds == math.inf else seconds
    return lambda reply: msgspec.structs.replace(reply, wait=wait)


# -- how bytes fall into reads -------------------------------------------------------------------


def split(*at: int, every: int | None = None) -> Fault:
    """Split reads at these offsets, or after every ``every`` bytes."""
    if every is not None and every < 1:
        raise ValueError("every must be at least 1 byte")

    def change(steps: tuple[Step, ...]) -> Iterator[Step]:
        for step in split_at(steps, sorted(offset_in(a, steps) for a in at)):
            if every is None or not isinstance(step, bytes):
                yield step
            else:
                yield from (step[start : start + every] for start in range(0, len(step), every))

    return _steps(change)


def merge() -> Fault:
    """Deliver all bytes between two pauses in one read."""

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
    """Deliver ``size`` bytes in each read, with ``every`` seconds between two reads."""
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
    """Insert ``data`` after the first ``at`` bytes, in a separate read."""

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        before, rest = parted(steps, at)
        return [*before, data, *rest]

    return _steps(change)


def inject(*more: Step, at: int = 0) -> Fault:
    """Insert steps (events, comments, pauses) before the event with the number ``at``.

    Numbers start from 0, and negative ones count from the end. The number of events stands for the
    place after the last one.
    """

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        events = events_of(steps)
        events.insert(event_number(at, events), list(more))
        return (step for group in events for step in group)

    return _steps(change)


def keep_alives(
    every: float, times: float = math.inf, *, at: int = 0, data: bytes = b": keep-alive\n\n"
) -> Fault:
    """Send ``data`` before event ``at``, ``every`` seconds apart, ``times`` times; by default
    forever.
    """
    if times == math.inf:
        return inject(forever(data, every), at=at)
    steps: list[Step] = [data, every]
    return inject(*steps * int(times), at=at)


def duplicate(at: int) -> Fault:
    """Send the event with the number ``at`` twice."""

    def change(steps: tuple[Step, ...]) -> Iterable[Step]:
        events = events_of(steps)
        number = min(event_number(at, events), len(events) - 1)
        again = [step for step in events[number] if isinstance(step, bytes)]
        events.insert(number + 1, list(again))
        return (step for group in events for step in group)

    return _steps(change)


def edit(change: Callable[[Any], Any]) -> Fault:
    """Change the data of each event.

    ``change`` receives the decoded JSON, or the text of data that is not JSON, such as ``[DONE]``.
    It returns what to send instead, or ``None`` to leave out the event. Events whose data does not
    change keep their exact bytes.
    """

    def changed(steps: tuple[Step, ...]) -> Iterator[Step]:
        for group in events_of(steps):
            data = b"".join(step for step in group if isinstance(step, bytes))
            new = edited_event(data, change)
            if new is data:
                yield from group
                continue
            yield from (step for step in group if not isinstance(step, bytes))
            if new:
                yield new

    return _steps(changed)


def without_end() -> Fault:
    """Leave out the wire format's end marker: ``[DONE]``, ``message_stop``, or
    ``response.completed``.

    Gemini's format has none.
    """

    def change(data: Any) -> Any:
        if isinstance(data, str) and data.strip() == "[DONE]":
            return None
        return None if isinstance(data, dict) and data.get("type") in _ENDS else data

    return edit(change)


_LAST_RESPONSES = ("response.completed", "response.incomplete")
_ENDS = ("message_stop", *_LAST_RESPONSES)


def without_finish() -> Fault:
    """Leave out the finish reason.

    ``finish_reason`` and ``stop_reason`` become null, and ``finishReason`` is removed. OpenAI's
    Responses have the reason in their last event, which is left out.
    """

    def change(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("type") in _LAST_RESPONSES:
            return None
        for choice in data.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                choice["finish_reason"] = None
        for candidate in data.get("candidates") or ():
            if isinstance(candidate, dict):
                candidate.pop("finishReason", None)
        if isinstance(data.get("delta"), dict) and "stop_reason" in data["delta"]:
            data["delta"]["stop_reason"] = None
        return data

    return edit(change)


def without_usage() -> Fault:
    """Leave out the usage, and events that have nothing else."""

    def change(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        had = data.pop("usage", None) is not None
        data.pop("usageMetadata", None)
        for name in ("message", "response"):
            if isinstance(data.get(name), dict):
                data[name].pop("usage", None)
        return None if had and data.get("choices") == [] else data

    return edit(change)


# -- the response --------------------------------------------------------------------------------


def status(code: int, *, retry_after: float | str | None = None) -> Fault:
    """Send another status, optionally with ``retry-after`` (seconds, or a date as text)."""

    def change(reply: Reply) -> Reply:
        headers = dict(reply.headers)
        if retry_after is not None:
            shown = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
            headers["retry-after"] = shown
        return msgspec.structs.replace(reply, status=code, headers=headers)

    return change


def body(data: bytes | str | dict[str, Any] | list[Any], content_type: str | None = None) -> Fault:
    """Replace the body by bytes, text, or JSON. The status stays.

    Unless ``content_type`` is given, the content type becomes JSON for JSON, and HTML for text that
    starts like HTML. Otherwise it stays.
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
    """Frame the body by chunks, by ``content-length``, or by the end of the connection.

    ``http`` is the HTTP version in the head.
    """
    return lambda reply: msgspec.structs.replace(reply, framing=how, http=http)


def length(off_by: int) -> Fault:
    """Make ``content-length`` wrong by ``off_by`` bytes, and close the connection after the
    body.
    """

    def change(reply: Reply) -> Reply:
        said = max(0, size_of(reply.steps) + off_by)
        return msgspec.structs.replace(reply, framing="length", length=said, keep_alive=False)

    return change


def closing() -> Fault:
    """Close the connection after the response, and say so in the head."""
    return lambda reply: msgspec.structs.replace(reply, keep_alive=False)


def gzip() -> Fault:
    """Compress the body, even if the request does not allow it. Pauses are lost."""

    def change(reply: Reply) -> Reply:
        data = _gzip.compress(b"".join(s for s in reply.steps if isinstance(s, bytes)), mtime=0)
        headers = reply.headers | {"content-encoding": "gzip"}
        return msgspec.structs.replace(reply, steps=(data,), headers=headers)

    return change


# -- without end ---------------------------------------------------------------------------------

_PAD = 4096
"""Bytes of one step of something endless."""


def endless_headers(*, one_line: bool = False) -> Fault:
    """Send header lines forever, or with ``one_line`` a single endless line."""

    def change(reply: Reply) -> Reply:
        head = head_bytes(reply.http, reply.status, reply.headers)[:-2]
        pad = b"x" * _PAD if one_line else b"x-pad: " + b"x" * 100 + b"\r\n"
        steps = (head + b"x-long: " if one_line else head, forever(pad))
        return msgspec.structs.replace(reply, steps=steps, raw=True)

    return change


def endless_chunk_size() -> Fault:
    """Send a chunk after the body whose size line has an endless extension."""

    def change(reply: Reply) -> Reply:
        whole = wire(msgspec.structs.replace(reply, framing="chunked"))
        steps = (*whole.steps[:-1], b"1;", forever(b"x" * _PAD))
        return msgspec.structs.replace(whole, steps=steps)

    return change


def endless_body(data: bytes = b"x" * _PAD) -> Fault:
    """Repeat ``data`` forever after the body; by default as one endless line."""
    return _steps(lambda steps: [*steps, forever(data)])
