"""Arithmetic on the steps of a reply: offsets in its bytes, and the events that they form.

An offset counts the bytes of all steps, and an event's number the events; negative ones count from
the end. Pauses and other steps keep their places among the bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._script import Step


def size_of(steps: Iterable[Step]) -> int:
    """Return the number of bytes."""
    return sum(len(step) for step in steps if isinstance(step, bytes))


def offset_in(at: int, steps: tuple[Step, ...]) -> int:
    """Return the offset as a number from 0 to the number of bytes."""
    size = size_of(steps)
    return max(0, size + at) if at < 0 else min(at, size)


def parted(steps: tuple[Step, ...], at: int) -> tuple[list[Step], list[Step]]:
    """Return the steps with the first ``at`` bytes, and the rest."""
    before: list[Step] = []
    left = offset_in(at, steps)
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


def split_at(steps: tuple[Step, ...], offsets: Iterable[int]) -> Iterator[Step]:
    """Yield the steps, with the bytes split at these offsets, which must rise and be 0 or more."""
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


_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_DATA_LINE = re.compile(rb"(?m)^data: ?(.*?)\r?$")


def events_of(steps: tuple[Step, ...]) -> list[list[Step]]:
    """Return the steps of each event, including the blank line that ends it.

    A pause belongs to the event that follows it. Steps after the last event are a group of their
    own.
    """
    text = b"".join(step for step in steps if isinstance(step, bytes))
    ends = [found.end() for found in _BLANK_LINE.finditer(text)]
    groups: list[list[Step]] = []
    group: list[Step] = []
    done = 0
    for step in split_at(steps, ends):
        group.append(step)
        done += len(step) if isinstance(step, bytes) else 0
        if len(groups) < len(ends) and done == ends[len(groups)]:
            groups.append(group)
            group = []
    return [*groups, group] if group else groups


def _is_event(group: list[Step]) -> bool:
    return any(isinstance(step, bytes) for step in group)


def event_number(at: int, events: list[list[Step]]) -> int:
    """Return the number as one from 0 to the number of events."""
    count = sum(map(_is_event, events))
    return max(0, count + at) if at < 0 else min(at, count)


def edited_event(event: bytes, change: Callable[[Any], Any]) -> bytes:
    """Return the event with its data changed, or the same object if the data stay the same.

    ``change`` gets the decoded JSON, or the text if that is not JSON, and returns what to send;
    None leaves out the event.
    """
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
