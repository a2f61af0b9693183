"""Every bound of `docs/concepts/limits.md`: crossed, it is an error of ours, and memory stays small."""

from __future__ import annotations

import importlib
import re
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._types.chunks import Block, StreamChunk, ToolCallDelta
from trio_minillm._types.errors import EXCERPT_CHARS
from trio_minillm.providers import OpenAIChat
from trio_minillm.testing import ScriptedTransport, openai_events, reply, sse

from .support.paths import doc
from .support.peers import Peer, Script, ours, serving

MIB = 2**20
MOST = 16 * MIB
"""Largest growth of memory allowed, in bytes, whatever a server sends."""
PIECE = 64 * 1024
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def endless(*, before: bytes, again: bytes, head: bytes = CHUNKED) -> Script:
    """A server that never stops: ``again`` for ever, for 64 MiB at the most."""

    async def script(peer: Peer) -> None:
        if await peer.request():
            await peer.send(head + before)
            piece = again * (PIECE // len(again))
            for _ in range(64 * MIB // PIECE):
                await peer.send(piece)

    return script


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def bomb(data: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(data) for _ in range(times)), packer.flush()])


LINE = chunk(b"data: " + b"x" * 60_000)
FLOODS = {
    "a line": endless(before=LINE, again=chunk(b"x" * 8_000)),
    "a comment": endless(before=b"", again=chunk(b":" * 8_000)),
    "data lines": endless(before=b"", again=chunk((b"data: " + b"x" * 100 + b"\n") * 70)),
    "a field": endless(before=b"", again=chunk(b"event: " + b"e" * 8_000)),
    "a body of JSON": endless(before=chunk(b'{"a":"'), again=chunk(b"x" * 8_000)),
    "header lines": endless(head=HEAD, before=b"", again=b"x-y: zzzzzzzzzz\r\n"),
    "a header": endless(head=HEAD, before=b"x-y: ", again=b"z" * 1_000),
    "a status line": endless(head=b"HTTP/1.1 200 ", before=b"", again=b"O" * 1_000),
    "a chunk's size": endless(before=b"", again=b"0" * 1_000),
    "a chunk's extension": endless(before=b"1;", again=b"x" * 1_000),
    "trailers": endless(before=b"0\r\n", again=b"x-y: zzzzzzzzzz\r\n"),
    "interim responses": endless(head=b"", before=b"", again=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": endless(head=b"", before=b"", again=b"HTTP/1.1 103 Hints\r\na: b\r\n\r\n"),
    "an error's body": endless(
        head=CHUNKED.replace(b"200 OK", b"400 Bad"), before=b"", again=chunk(b"x" * 8_000)
    ),
    "a bomb": endless(
        head=CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),
        before=chunk(bomb(b"x" * MIB, 256)),
        again=b"\r\n",
    ),
    "tool calls": endless(
        before=b"",
        again=chunk(
            b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"id":null,"function":'
            b'{"name":"n","arguments":"{}"}}]}}]}\n\n'
        ),
    ),
}


@pytest.fixture
def grown() -> Iterator[Any]:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_is_an_error_and_takes_little_memory(flood: str, grown: Any) -> None:
    retry = llm.Retry(attempts=1)
    async with serving(FLOODS[flood], seconds=120) as server, ours() as http:
        async with llm.open_client(transport=http, retry=retry) as client:
            target = llm.compatible("m", base_url=server.url)
            with pytest.raises(llm.MiniLLMError) as caught:
                await client.complete(target, "Hi", bounds=llm.Bounds(event=4 * MIB))
            assert http.statistics().active == 0
    assert grown() <= MOST
    assert len(str(caught.value)) <= EXCERPT_CHARS + 200


async def test_a_slow_consumer_holds_the_server_back(mock_clock: Any) -> None:
    """Check that what the caller does not take is not read, so that the sender's socket fills up."""
    mock_clock.autojump_threshold = 0.02
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        if await peer.request():
            await peer.send(CHUNKED)
            events = b"".join(openai_events(*["some text"] * 200, done=False, finish=None))
            while True:
                await peer.send(chunk(events))
                sent += len(events)

    async with serving(script, seconds=1_000) as server, ours() as http:
        async with llm.open_client(transport=http) as client:
            async with client.stream(llm.compatible("m", base_url=server.url), "Hi") as stream:
                assert await stream.next_chunk() is not None
                await trio.sleep(5)
                await trio.sleep(500)  # longer than every clock
                assert sent < 32 * MIB
                for _ in range(3_000):
                    assert await stream.next_chunk() is not None


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[' + b"{}," * 200_000 + b"{}]}",
        b'{"choices":[{"delta":{"tool_calls":[' + b"{}," * 200_000 + b"{}]}}]}",
        b'{"x":[' + b'{"a":{}},' * 100_000 + b"1]}",
    ],
    ids=["choices", "tool calls", "unknown fields"],
)
async def test_an_event_of_very_many_objects_is_refused(data: bytes) -> None:
    transport = ScriptedTransport(reply(sse({"choices": []}), b"data: " + data + b"\n\n"))
    async with llm.open_client(transport=transport) as client:
        with pytest.raises(llm.LimitExceeded, match=r"102,400 opening|quotation marks") as caught:
            await client.complete(llm.compatible("m", base_url="http://x.invalid"), "Hi")
    assert caught.value.event == 2


async def test_braces_in_an_ordinary_answer_are_no_objects() -> None:
    text = "{" * 100_000
    transport = ScriptedTransport(reply(*openai_events(text, text, text)))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(llm.compatible("m", base_url="http://x.invalid"), "Hi")
    assert response.content == text * 3


def event_of(name: str, unit: bytes, count: int) -> bytes:
    """An event of OpenAI's wire with a list of these, or a text."""
    head, tail = {
        "list": (b'{"choices":[],"x":[', b"0]}"),
        "object": (b'{"choices":[],"usage":{"completion_tokens_details":{', b'"":0}}}'),
        "text": (b'{"choices":[{"delta":{"content":"', b'"}}]}'),
        "error": (b'{"detail":[', b"0]}"),
    }[name]
    return b"data: " + head + unit * count + tail + b"\n\n"


@pytest.mark.parametrize(
    ("event", "bound"),
    [
        (event_of("list", b"1,", 600_000), "524,288 values"),
        (event_of("list", b'"",', 600_000), "204,800 quotation marks"),
        (event_of("list", b'"\\\\",', 600_000), "204,800 quotation marks"),
        (event_of("object", b'"a" : 1,', 110_000), "204,800 quotation marks"),
        (event_of("object", b'"":1,', 98_000) + b"", None),
        (event_of("text", b"a,", 600_000), None),
        (event_of("text", b"a:", 600_000), None),
        (event_of("text", b"{[", 600_000), None),
        (event_of("text", b'\\"{', 400_000), None),
        (event_of("text", b'\\"a\\":', 400_000), None),
        (event_of("text", b"\\\\", 600_000), None),
    ],
)
def test_what_takes_long_to_build_is_refused_and_text_is_not(event: bytes, bound: Any) -> None:
    decoder = ChunkDecoder(OpenAIChat())
    chunks = decoder.feed(event, 0.0)
    if bound is None:
        assert (len(chunks), decoder.error) == (1, None)
    else:
        assert isinstance(decoder.error, llm.LimitExceeded)
        assert f"more than {bound} in one event" in str(decoder.error)


def test_names_of_fields_are_counted_where_there_is_much_text_beside_them() -> None:
    names = b'"":1,' * 101_000 + b'"a\\\\":1,' * 300 + b'"b":":' + b":" * 2_000 + b'",'
    decoder = ChunkDecoder(OpenAIChat())
    decoder.feed(event_of("object", names, 1), 0.0)
    assert decoder.error is None
    decoder.feed(event_of("object", names + b'"":1,' * 1_200, 1), 0.0)
    assert "more than 102,400 names of fields in one event" in str(decoder.error)


def test_of_a_long_list_of_complaints_a_few_are_looked_at() -> None:
    for unit in (b"1,", b"null,", b'{"msg":"no"},'):
        decoder = ChunkDecoder(OpenAIChat())
        decoder.feed(event_of("error", unit, 30_000), 0.0)
        assert isinstance(decoder.error, llm.ProviderError)
        assert len(str(decoder.error)) < EXCERPT_CHARS + 200


@pytest.mark.parametrize(
    ("chunk", "bound"),
    [
        (StreamChunk(tool_calls=(ToolCallDelta(0, "c", "f", "x" * 2**20),)), "arguments of calls"),
        (
            StreamChunk(tool_calls=(ToolCallDelta(0, arguments="x" * 2**17),), part=0),
            "input of a provider's tool",
        ),
        (StreamChunk(logprobs={str(n): 1 for n in range(5_000)}), "fields of audio or log"),
        (StreamChunk(audio={str(n): 1 for n in range(5_000)}), "fields of audio or log"),
    ],
)
def test_what_an_answer_adds_up_to_is_bounded(chunk: StreamChunk, bound: str) -> None:
    state = Ingest(model="m", expect_usage=True)
    block = {"type": "server_tool_use", "id": "s", "name": "search", "input": {}}
    state.ingest(StreamChunk(part=0, block=Block(start=block)))
    for _ in range(9):
        state.ingest(chunk)
    assert isinstance(state.error, llm.LimitExceeded)
    assert bound in str(state.error)
    assert state.error.partial is not None


BOUNDED = ("_http", "_protocol", "_stream", "_toolkit")
"""The rooms that hold what a server sends."""
OF_OURS = {
    *("MAX_CAUSES", "MAX_CREDIT", "MAX_IDLE", "MAX_KEPT", "MAX_TEMPLATE", "MAX_THREADS"),
    *("MAX_MESSAGES", "MAX_PARAM", "MAX_SESSIONS", "MAX_SHAPES", "MAX_WORDS"),
}
"""Bounds on what the library itself keeps, whatever a server sends."""


def constants() -> Iterator[tuple[str, Any]]:
    """Yield the constants of the rooms, by name, as their own module defines them."""
    for room in (*BOUNDED, "_types"):
        root = Path(llm.__file__).parent
        for path in (root / room).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            module = importlib.import_module(f"trio_minillm.{name}")
            defined = re.findall(r"^([A-Z_]+)(?:: [^=]+)? =", path.read_text(), re.MULTILINE)
            yield from ((name, getattr(module, name)) for name in defined)


def test_the_page_has_every_bound() -> None:
    """The numbers of the table are those of the code."""
    page = doc("limits.md").read_text()
    found = dict(re.findall(r"\| `([A-Z_]+)` \| ([\d,.]+)", page))
    known: dict[str, list[Any]] = {}
    for name, value in constants():
        known.setdefault(name, []).append(value)
    for name, figure in found.items():
        assert known[name] == [float(figure.replace(",", ""))], name
    options = dict(re.findall(r"\| `([a-z_]+)` \| ([\d,]+)", page))
    assert {name: int(figure.replace(",", "")) for name, figure in options.items()} == (
        msgspec.structs.asdict(llm.Bounds())
    )
    bounds = {name for name in known if name.startswith("MAX_")}
    of_types = {"MAX_AMOUNT", "MAX_COUNT", "MAX_PLACES", "MAX_RAW_DEPTH", "MAX_RAW_FIELDS"}
    assert bounds - OF_OURS - of_types <= set(found)
