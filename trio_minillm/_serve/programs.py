"""The program of one answer: its pieces, and the pauses before them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from .. import providers
from .._protocol.decoder import ChunkDecoder
from ..testing._events import json_reply
from ..testing._script import Fault, Forever, Reply, Step, eof, hang, reset, wire
from ..testing._steps import events_of
from .fault_texts import error_body
from .options import Wire

if TYPE_CHECKING:
    from .._types.chunks import StreamChunk

Program: TypeAlias = Iterator[tuple[float, Step, int]]
"""Items: seconds after the item before; bytes, or a mark of a script (`hang`, `eof`, …); the tokens of
content in them: 0 for none, -1 for an unknown number."""

REPEAT_SECONDS: Final = 0.001
"""Seconds between two rounds of what is repeated for ever without a pause of its own."""
EVENTS: Final = {"content-type": "text/event-stream", "cache-control": "no-cache"}


def streamed(
    head: bytes, contents: Iterator[tuple[bytes, int]], first: float, gap: Callable[[], float]
) -> Program:
    """Yield the items of a generated stream, whose contents are framed for HTTP."""
    data, tokens = next(contents)
    if not tokens:  # the opening, at once
        yield 0.0, head + data, 0
        head = b""
        data, tokens = next(contents)
    yield first, head + data, tokens
    for data, tokens in contents:
        yield gap(), data, tokens


def reply_of(
    contents: Iterator[tuple[bytes, int]], first: float, gap: Callable[[], float]
) -> Reply:
    """Return a generated stream, whose contents are not framed, as a scripted reply for faults."""
    data, tokens = next(contents)
    steps: list[Step] = [data]
    wait = first
    if not tokens:
        data, _ = next(contents)
        steps += [first, data]
        wait = 0.0
    for data, _ in contents:
        steps += [gap(), data]
    return Reply(steps=tuple(steps), headers=dict(EVENTS), wait=wait)


def struck(reply: Reply, faults: Iterable[Fault], wire: Wire) -> Reply:
    """Return the reply with the faults. A failing status brings an error in place of the answer, at once."""
    wait, steps = reply.wait, reply.steps
    for fault in faults:
        reply = reply | fault
    if reply.status < 400 or reply.steps != steps:
        return reply
    what = error_body(wire, reply.status, "a fault that was asked for", "fault")
    kept = {name: value for name, value in reply.headers.items() if name not in EVENTS}
    refusal = json_reply(what, status=reply.status, keep_alive=reply.keep_alive)
    return msgspec.structs.replace(
        refusal,
        headers={**refusal.headers, **kept},
        wait=0.0 if reply.wait == wait else reply.wait,
    )


def program_of(
    reply: Reply, wire_format: Wire, *, words: bool, whole: int | None = None
) -> Program:
    """Return the items of a scripted reply. With ``words``, each word of its contents is a token.

    ``whole`` is the number of tokens of an answer that is no stream.
    """
    if reply.error is not None:
        return iter([(0.0, reset, 0)])
    if not isinstance(reply.wait, int | float):
        return iter([(0.0, hang, 0)])
    if whole is None or reply.status != 200:
        marks = _marks(reply, wire_format, words=words)
    else:
        marks = [0] * (sum(isinstance(step, bytes) for step in reply.steps) - 1) + [whole]
    steps = wire(reply).steps
    if not reply.raw:
        marks = [0, *marks]  # the head comes first
    if not reply.keep_alive:
        steps = (*steps, eof)
    return _items(steps, iter(marks), float(reply.wait))


def _items(steps: Iterable[Step], marks: Iterator[int], pause: float) -> Program:
    for step in steps:
        if isinstance(step, bytes):
            yield pause, step, next(marks, 0)
            pause = 0.0
        elif isinstance(step, int | float):
            pause += step
        elif isinstance(step, Forever):
            while True:
                yield from _round(step, pause)
                pause = 0.0
        else:
            yield pause, reset if isinstance(step, BaseException) else step, 0
            return


def _round(forever: Forever, pause: float) -> Program:
    steps = forever.steps
    if not any(isinstance(step, int | float) and step > 0 for step in steps):
        steps = (REPEAT_SECONDS, *steps)
    for step in steps:
        if isinstance(step, bytes):
            yield pause, step, 0
            pause = 0.0
        else:
            pause += step
    yield pause, b"", 0


def _marks(reply: Reply, wire_format: Wire, *, words: bool) -> list[int]:
    """Return the tokens of content that each of the body's bytes completes."""
    data = [step for step in reply.steps if isinstance(step, bytes) and step]
    if reply.raw or reply.status != 200 or "content-encoding" in reply.headers:
        return []
    decoder = ChunkDecoder(PROVIDERS[wire_format]())
    return [sum(_tokens(c, words=words) for c in decoder.feed(piece, 0.0)) for piece in data]


PROVIDERS: Final = {
    "openai": providers.OpenAIChat,
    "text": providers.TextCompletions,
    "anthropic": providers.Anthropic,
    "responses": providers.OpenAIResponses,
    "gemini": providers.Gemini,
}
"""The wire formats, by the names of `trio_minillm.testing`."""


def _tokens(chunk: StreamChunk, *, words: bool) -> int:
    if not (chunk.delta or chunk.reasoning or chunk.tool_calls or chunk.refusal):
        return 0
    if not words:
        return -1
    said = (chunk.delta or "") + " " + (chunk.reasoning or "")
    return max(1, len(said.split()))


def repaced(
    reply: Reply, wire_format: Wire, first: float, gap: Callable[[], float], *, opening: bool
) -> Reply:
    """Return the reply with its contents at new times. All else comes with the content that it follows, or
    with the first one.
    """
    events: list[bytes] = []
    marks: list[Step] = []
    for group in events_of(reply.steps):
        events.append(b"".join(step for step in group if isinstance(step, bytes)))
        marks += [step for step in group if not isinstance(step, bytes | int | float)]
    plain = msgspec.structs.replace(reply, steps=tuple(filter(None, events)))
    tokens = _marks(plain, wire_format, words=False)
    steps: list[Step] = []
    began = False
    for event, count in zip(plain.steps, tokens or [0] * len(plain.steps), strict=True):
        if count and (began or opening):
            steps.append(gap() if began else first)
        began = began or count != 0
        steps.append(event)
    wait = 0.0 if opening else first
    return msgspec.structs.replace(reply, steps=(*_joined(steps), *marks[:1]), wait=wait)


def _joined(steps: list[Step]) -> Iterator[Step]:
    """Yield the steps, with the bytes between two pauses as one."""
    together: list[bytes] = []
    for step in steps:
        if isinstance(step, bytes):
            together.append(step)
        else:
            yield b"".join(together)
            together.clear()
            yield step
    yield b"".join(together)
