"""Every promise of the modules `promises_*`, on each wire, in memory and over real sockets.

docs/proof/reliability.md is made of the same data, and a test fails when it differs:
``TRIO_MINILLM_WRITE=1 python -m pytest tests/test_reliability.py -k the_page`` writes it anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby, product
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing
from httpx_sse import aconnect_sse

import trio_minillm as llm
from trio_minillm.testing import Reply, ScriptedTransport, reply, serve

from .support.event_fields import ANTHROPIC, GEMINI, OPENAI, RESPONSES, VALUES, walk
from .support.event_fields import TEXT as CONTINUED
from .support.paths import doc
from .support.promises import SO_FAR, WHOLE, Promise, Sees, Wire, wire_named
from .support.promises_endings import ENDINGS
from .support.promises_events import EVENTS
from .support.promises_newer import NEWER
from .support.runs import IN_MEMORY, ON_SOCKETS, TRANSPORTS, client_over, run

_GROUPS = list(dict.fromkeys(p.group for p in (*ENDINGS, *EVENTS, *NEWER)))
PROMISES = sorted([*ENDINGS, *EVENTS, *NEWER], key=lambda p: _GROUPS.index(p.group))

COLUMNS = {
    "openai": "Chat completions",
    "anthropic": "Anthropic",
    "openai_responses": "Responses",
    "gemini": "Gemini",
}
"""The wires that have a column of the table. An array of Gemini's shares that of its events."""
LIKE_OTHERS = ("gemini_array", "compatible", "openrouter", "text_completions")
WIRES: dict[str, Wire] = {name: wire_named(name) for name in (*COLUMNS, *LIKE_OTHERS)}


def merged(made: Reply) -> Reply:
    """The same bytes in as few reads as can be."""
    steps: list[Any] = []
    for step in made.steps:
        if isinstance(step, bytes) and steps and isinstance(steps[-1], bytes):
            steps[-1] += step
        else:
            steps.append(step)
    return msgspec.structs.replace(made, steps=tuple(steps))


# -- what is seen ----------------------------------------------------------------------------------


def telling(error: llm.MiniLLMError | None) -> str:
    """An error's class, and what tells it from others of it."""
    words: list[str] = [] if error is None else [type(error).__name__]
    if isinstance(error, llm.RetriesExhausted):
        return f"{words[0]}: {telling(error.last_error)}"
    if isinstance(error, llm.RefusedError | llm.ProviderError):
        words.append(error.kind)
        if isinstance(error, llm.RefusedError) and error.retry_after is not None:
            words.append(f"{error.retry_after:g} s")
    elif isinstance(error, llm.StreamTimeout):
        words.append(error.clock)
    elif isinstance(error, llm.LimitExceeded):
        words.append(error.bound)
    elif isinstance(error, llm.ProtocolError) and error.event is not None:
        words.append(f"event {error.event}")
    return " ".join(words)


def pairs(calls: Sequence[llm.ToolCall]) -> tuple[tuple[str, str], ...]:
    return tuple((call.name, call.arguments) for call in calls)


def seen(response: llm.CompletionResponse, error: llm.MiniLLMError | None, seconds: float) -> Sees:
    usage = response.usage
    return Sees(
        outcome=str(response.outcome),
        error=telling(error),
        text=response.content,
        usage="unknown" if usage is None else "final" if usage.final else "provisional",
        reason=response.finish_reason,
        tries=response.timings.attempts,
        resumes=response.timings.resumes,
        seconds=seconds,
        calls=pairs(response.tool_calls),
        bad_calls=pairs(response.invalid_tool_calls),
        reasoning=response.reasoning,
        notes=" / ".join(response.notes),
        skipped=response.skipped_events,
    )


async def by_iterating(client: llm.Client, *args: Any, **options: Any) -> Sees:
    """Chunk by chunk, with all that a stream promises about its end."""
    start, text, error = trio.current_time(), "", None
    async with client.stream(*args, **options) as stream:
        try:
            async for chunk in stream:
                text += chunk.delta if chunk.choice == 0 else ""
        except llm.MiniLLMError as exc:
            error = exc
        seconds = trio.current_time() - start
        response = stream.response
        assert await stream.next_chunk() is None
        assert stream.error is error
        if error is not None:
            with pytest.raises(type(error)):
                await stream.collect()
            assert error.partial is not None
            assert (error.partial.outcome, error.partial.content) == (stream.outcome, text)
    assert stream.outcome is response.outcome
    assert sorted(text) == sorted(response.content) == sorted(stream.accumulated)
    return seen(response, error, seconds)


async def by_completing(client: llm.Client, *args: Any, **options: Any) -> Sees:
    start = trio.current_time()
    error: llm.MiniLLMError | None = None
    try:
        response: llm.CompletionResponse | None = await client.complete(*args, **options)
    except llm.MiniLLMError as exc:
        response, error = exc.partial, exc
    assert response is not None
    return seen(response, error, trio.current_time() - start)


WAYS = {"iterate": by_iterating, "complete": by_completing}


async def observed(promise: Promise, wire: Wire, client: llm.Client, url: str, way: str) -> Sees:
    timeouts = msgspec.structs.replace(promise.timeouts, settlement=None)
    found = await WAYS[way](
        client, wire.model(url), "Hi", timeouts=timeouts, **{"max_tokens": 99, **promise.options}
    )
    # The next request works, whatever became of this one.
    following = await client.complete(wire.model(url), "Hi", timeouts=timeouts)
    assert following.outcome is llm.Outcome.FINISHED
    return found


def compare(found: Sees, wanted: Sees) -> None:
    assert wanted.notes in found.notes
    # `complete` has left its block by then, and the rest of a body may be waited for there.
    assert found.seconds == pytest.approx(wanted.seconds, abs=0.3)
    told = {
        name: (is_seen, promised)
        for name, is_seen, promised in zip(Sees._fields, found, wanted, strict=True)
        if is_seen != promised and name not in ("notes", "seconds", "connection")
    }
    assert not told, f"seen, promised: {told}"


def cells(*wires: str, ways: Sequence[str] = (), **more: Sequence[str]) -> list[Any]:
    """Every promise on these wires, taken in its own ways (of these) or, without any, in one, and
    with every combination of ``more``.
    """
    out = []
    for number, promise in enumerate(PROMISES):
        for wire in wires:
            if promise.replies(WIRES[wire]) is None:
                continue
            taken = [way for way in ways if way in promise.ways] or promise.ways[:1]
            for way, *others in product(taken, *more.values()):
                words = promise.fault.replace("…", "and").replace("`", "")
                name = "-".join([str(number), wire, way, *others, words])
                out.append(pytest.param(promise, wire, way, *others, id=name))
    return out


MEMORY_CELLS = cells(*COLUMNS, ways=tuple(WAYS), reads=("split", "merged")) + cells(
    *LIKE_OTHERS, reads=("merged",)
)
"""``split`` has each event in a read of its own, ``merged`` as many in one as can be."""
SOCKET_CELLS = cells("openai", "anthropic", transport=tuple(TRANSPORTS)) + cells(
    "openai_responses", "gemini", "gemini_array", transport=("ours",)
)
"""What differs between the transports is beneath the wires: two of those are enough for the other."""


def in_turn(replies: Sequence[Reply], wanted: Sees) -> list[Reply]:
    """The replies to all requests of a promise, those that go on with an answer among them."""
    requests = max(wanted.tries + wanted.resumes, len(replies))
    return [replies[min(n, len(replies) - 1)] for n in range(requests)]


# -- in memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("promise", "name", "way", "reads"), MEMORY_CELLS)
def test_in_memory(promise: Promise, name: str, way: str, reads: str) -> None:
    wire = WIRES[name]
    replies, wanted = promise.replies(wire), promise.sees(wire)
    assert replies is not None
    if reads == "merged":
        replies = [merged(r) for r in replies]
    tries = in_turn(replies, wanted)
    transport = ScriptedTransport(*tries, reply(*wire.whole))

    async def main() -> Sees:
        retry = llm.Retry(base_delay=0.0)
        async with llm.open_client(transport=transport, retry=retry) as client:
            return await observed(promise, wire, client, "http://test.invalid/v1", way)

    found = run(main, IN_MEMORY)
    assert transport.open_bodies == 0
    compare(found, wanted)


# -- through another client's event source ---------------------------------------------------------


class OtherClient:
    """A program's own client of httpx's, whose answers are read as `Client.stream` reads its own."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    @asynccontextmanager
    async def stream(
        self, model: llm.Model, prompt: str, **options: Any
    ) -> AsyncIterator[llm.StreamingCompletion]:
        taken = {
            name: options[name]
            for name in ("timeouts", "bounds", "lenient", "raw", "expect_usage")
            if name in options
        }
        url = model.provider.endpoint_url(model)
        async with AsyncExitStack() as stack:
            with trio.fail_after(1000):
                source = await stack.enter_async_context(
                    aconnect_sse(self.http, "POST", url, json={"prompt": prompt})
                )
            yield await stack.enter_async_context(
                llm.StreamingCompletion.from_event_source(
                    source, model, choices=options.get("n") or 1, **taken
                )
            )


BODY_CELLS = [
    pytest.param(promise, name, id=f"{number}-{name}-{promise.fault.replace('`', '')}")
    for number, promise in enumerate(PROMISES)
    for name in ("openai", "anthropic")
    if promise.replies(WIRES[name]) is not None
    and promise.sees(WIRES[name]).tries == 1
    and "iterate" in promise.ways
]


@pytest.mark.parametrize(("promise", "name"), BODY_CELLS)
def test_by_an_event_source(promise: Promise, name: str) -> None:
    """The faults of a body, and those of a head that leave a response."""
    wire = WIRES[name]
    replies, wanted = promise.replies(wire), promise.sees(wire)
    assert replies is not None
    transport = ScriptedTransport(*replies)

    async def main() -> Sees:
        async with httpx.AsyncClient(transport=transport, timeout=None) as http:
            args = (OtherClient(http), wire.model("http://test.invalid/v1"), "Hi")
            return await by_iterating(*args, timeouts=promise.timeouts, **promise.options)  # type: ignore[arg-type]

    try:
        found = run(main, IN_MEMORY)
    except (httpx.TransportError, httpx.InvalidURL, trio.TooSlowError):
        return  # it left none
    assert transport.open_bodies == 0
    compare(found, wanted)


# -- over sockets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("promise", "name", "way", "transport"), SOCKET_CELLS)
def test_over_a_socket(promise: Promise, name: str, way: str, transport: str) -> None:
    wire = WIRES[name]
    replies, wanted = promise.replies(wire), promise.sees(wire)
    assert replies is not None
    tries = in_turn(replies, wanted)

    async def main() -> tuple[Sees, str]:
        async with serve(*tries, reply(*wire.whole)) as server:
            retry = llm.Retry(base_delay=0.0)
            async with client_over(transport, retry=retry) as client:
                found = await observed(promise, wire, client, server.base_url, way)
                with trio.fail_after(5):
                    await server.left_with(1)  # a broken one is closed
            with trio.fail_after(5):
                await server.left_with(0)
            *_, last, following = server.requests
            return found, "kept" if last.connection == following.connection else "closed"

    found, connection = run(main, ON_SOCKETS)
    compare(found, wanted)
    assert wanted.connection in (None, connection)


# -- the page --------------------------------------------------------------------------------------

TEXT = """\
# Reliability

Look up what your program sees when a server, a network, or a proxy fails. The tables list {promises} faults, each in every wire format
that can have it. Every cell is checked by tests.

The expectations were written before the code was run against them. Four rows of OpenAI's Responses and Gemini are exceptions:
they were revised afterwards.

## How to read the tables

A fault that starts with "…" continues the row above it. A dash means that the format cannot have the fault. "The same" refers to the
first cell of the row, and "as …" to the cell of that format.

A cell lists, in this order:

1. The [outcome](../concepts/endings.md) and the error. An error comes with its kind, its clock, or the number of its event. It is raised
   once, and `error.partial` holds what arrived before it. `finished` raises nothing.
2. The text that you keep.
3. The usage: final, provisional, or unknown. Provisional usage can still change. For example, Anthropic's first event counts only the
   input, and Gemini's events count the answer so far.
4. The number of attempts, if there is more than one.
5. The time that it takes, if that is more than a second. It is measured with the default clocks, except where a row says otherwise.
6. Whether the connection is kept for the next request or closed. The cell leaves this out if neither is promised.

After every fault, the next request works and no connection is left behind.

{tables}

## How it is tested

The faults and the expectations are data in `tests/support/promises_*.py`. `tests/test_reliability.py` checks them in two ways:

- **In memory**, in {memory:,} cells. The four formats of the columns are tested with a stream and with `complete()`, with each event in a separate
  read and with as many events as possible in one. OpenRouter, compatible servers, text completions, and Gemini's events in a JSON array
  are tested in one of these ways.
- **Over loopback sockets**, in {sockets:,} cells. `TrioTransport` is tested with the four formats and Gemini's array. httpx's own
  transport is tested with OpenAI's and Anthropic's formats.

The tests run on Trio's mock clock, so 300 s take no time. This page is generated from the same data, and a test fails if it
differs. To update the page, run `TRIO_MINILLM_WRITE=1 python -m pytest tests/test_reliability.py -k the_page`.

## Beyond the tables

- **A cut at every byte.** `tests/test_malformed.py` ends the answer of each format after each of its bytes. At five places of each event,
  it does so both cleanly and with a broken connection. An event counts once its JSON is complete, with or without the blank line after it.
- **Every field replaced.** The same file takes {fields} fields of {events} real events and tries {values} values in each place. These include null,
  numbers, strings, lists, objects, `NaN`, integers of 10,000 digits, 5,000 nested brackets, bytes that are not UTF-8, and nothing at all.
  The result is always one of two: an error that names the event and keeps the text so far, or an answer with everything else that the event said.
- **Leaving a stream.** `tests/test_peers.py` leaves a stream in five ways and four phases. The server sees the connection close before the mock
  clock moves. On the real clock, with two busy cores, 200 of each took 0.5 ms (median) and at most 18 ms with `TrioTransport`. With
  httpx's transport, they took 0.7 ms and at most 43 ms. After 400 streams, left 100 at a time, no connection is open and the next request works.
- **Stalled sockets.** The client gives up after 10 s on a server that does not read the prompt, or does not answer the first message of the
  TLS handshake. A consumer that is slower than every clock triggers none of them.
- **A real server.** The tests kill llama.cpp's server, with a real model, in the middle of a stream. The stream raises `ConnectionCut`, and
  the next request raises `SendError`. They also stop the server, so that the clock `idle` runs out. Once the server is resumed, it
  answers again. If the server restarts at its address between two requests, the second request is answered.

## What is not covered

- **The providers' servers.** The tables list faults that users reported of them. Recorded streams have separate tests.
- **Windows and macOS.** None of this has been run there.
- **HTTP/2**, and proxies between the client and the server.
- **TLS handshakes with httpx's transport.** If one is cancelled, httpcore leaves its socket to the garbage collector. `TrioTransport` closes it.
- **Extra bytes with httpx's transport.** Bytes that a server sends after a response are read as the answer to the next request on that
  connection. `TrioTransport` closes such a connection.
- **Mistakes of the model**, such as wrong text, or calls whose arguments are JSON but do not match the schema.
"""

PAGE = doc("reliability.md")


def in_words(sees: Sees) -> str:
    """A cell of the table."""
    words = [f"`{sees.outcome}`"]
    if sees.error:
        words[0] += ": " + re.sub(r"([A-Z]\w+)", r"`\1`", sees.error)
    if sees.text:
        words.append(
            {SO_FAR: "the text so far", WHOLE: "the complete text"}.get(sees.text, "its text")
        )
    if sees.calls:
        words.append("its call")
    if sees.bad_calls:
        words.append("a call that must not run")
    if sees.outcome == "finished" and sees.reason is None:
        words.append("no finish reason")
    if sees.text or sees.usage != "unknown":
        words.append(f"usage {sees.usage}")
    if sees.tries > 1:
        words.append(f"{sees.tries} attempts")
    if sees.resumes:
        times = "once" if sees.resumes == 1 else f"{sees.resumes} times"
        words.append(f"resumed {times}")
    if sees.seconds >= 1:
        words.append(f"after {sees.seconds:g} s")
    if sees.connection is not None:
        words.append(f"connection {sees.connection}")
    return "; ".join(words)


AS = {
    "openai": "the same",
    "anthropic": "as Anthropic",
    "openai_responses": "as Responses",
}
"""The contents of a cell that repeats an earlier one of its row."""


def row(promise: Promise) -> list[str]:
    """The cells of a promise. A cell that repeats an earlier one refers to it."""
    said: dict[str, str] = {}
    for name in COLUMNS:
        wires = [name, "gemini_array"] if name == "gemini" else [name]
        told = [promise.sees(WIRES[w]) for w in wires if promise.replies(WIRES[w]) is not None]
        said[name] = in_words(told[0]) if told else "-"
    written: dict[str, str] = {"-": "-"}
    for name, words in said.items():
        said[name] = written.get(words, words)
        first = not written.keys() - {"-"}
        written.setdefault(words, "the same" if first else AS.get(name, ""))
    return list(said.values())


FIELDS = (OPENAI, CONTINUED, ANTHROPIC, RESPONSES, GEMINI)


def page() -> str:
    counts = {
        "promises": len(PROMISES),
        "memory": len(MEMORY_CELLS),
        "fields": sum(len(walk(events)) for events in FIELDS),
        "events": sum(map(len, FIELDS)),
        "values": len(VALUES),
        "sockets": len(SOCKET_CELLS),
    }
    tables = []
    for group, promises in groupby(PROMISES, key=lambda p: p.group):
        columns = " | ".join(COLUMNS.values())
        lines = [f"## {group}", "", f"| fault | {columns} |", "| --- " * 5 + "|"]
        for promise in promises:
            lines.append(f"| {promise.fault} | {' | '.join(row(promise))} |")
        tables.append("\n".join(lines))
    return TEXT.format(tables="\n\n".join(tables), **counts)


def test_the_page_says_what_is_promised() -> None:
    if os.environ.get("TRIO_MINILLM_WRITE"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "see the docstring of this file"
