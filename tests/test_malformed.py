"""Bodies cut at every byte, and events with every field replaced: the right answer, or our error.

What must hold is said by plain functions of the events that were sent (`ending_of`, `check`),
which know nothing of the parsers.
"""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._types.response import Outcome
from trio_minillm.testing import ScriptedTransport, eof, reply, sse

from .support.event_fields import (
    ABSENT,
    ANTHROPIC,
    GEMINI,
    NOTHING,
    OPENAI,
    RESPONSES,
    TEXT,
    VALUES,
    walk,
)
from .support.promises import PIECES, Wire, wire_named

PROVIDERS: dict[str, llm.Provider] = {
    "openai": providers.OpenAIChat(),
    "openrouter": providers.OpenRouter(),
    "compatible": providers.Compatible(),
    "anthropic": providers.Anthropic(),
    "text_completions": providers.TextCompletions(),
    "openai_responses": providers.OpenAIResponses(),
    "gemini": providers.Gemini(),
}
wires = pytest.mark.parametrize(
    "wire", [wire_named(name) for name in PROVIDERS], ids=lambda w: w.name
)


# -- cut at every byte -----------------------------------------------------------------------------


class Ending(NamedTuple):
    finished: bool
    text: str
    reason: str | None
    usage: bool
    """True if the usage is known and final."""


def ending_of(wire: Wire, size: int) -> Ending:
    """Return the ending that the first bytes of `Wire.whole` give; an event counts once its JSON is there."""
    text, reason, usage, end, begin = "", None, False, False, 0
    for event in wire.whole:
        if begin + len(event.rstrip()) > size:
            break
        begin += len(event)
        text += next((p for p in PIECES if event == wire.says(p)), "")
        reason = wire.stop if f'"{wire.stop}"'.encode() in event else reason
        usage = usage or (b'"usage' in event and event in wire.tail())
        end = event == wire.whole[-1]
    return Ending(end or reason is not None, text, reason, usage)


def check_cut(wire: Wire, size: int, response: Any, error: Any, kind: type) -> None:
    wanted = ending_of(wire, size)
    assert (response.content, response.finish_reason) == (wanted.text, wanted.reason)
    assert (response.usage is not None and response.usage.final) is wanted.usage
    if wanted.finished:
        assert error is None
        assert response.outcome is Outcome.FINISHED
    else:
        assert type(error) is kind
        assert response.outcome is Outcome.TRUNCATED


@wires
def test_cut_at_every_byte(wire: Wire) -> None:
    body = b"".join(wire.whole)
    for size in range(len(body) + 1):
        whole = testing.decode(PROVIDERS[wire.name], [body[:size]])
        check_cut(wire, size, *whole, llm.EndedEarly)


@wires
@pytest.mark.parametrize("cut", [None, eof], ids=["in good order", "broken"])
async def test_cut_at_the_edges_of_every_event(wire: Wire, cut: Any, autojump_clock: Any) -> None:
    body, begin, sizes = b"".join(wire.whole), 0, set()
    for event in wire.whole:
        sizes |= {begin + n for n in (0, 1, len(event) // 2, len(event) - 3, len(event) - 1)}
        begin += len(event)
    kind = llm.ConnectionCut if cut else llm.EndedEarly
    for size in sorted(sizes):
        steps = [body[i : min(i + 64, size)] for i in range(0, size, 64)]
        transport = ScriptedTransport(reply(*steps, *([cut] if cut else [])))
        async with llm.open_client(transport=transport) as client:
            timeouts = llm.Timeouts(settlement=None)
            async with client.stream(
                wire.model("http://test.invalid/v1"), "Hi", max_tokens=9, timeouts=timeouts
            ) as stream:
                try:
                    await stream.collect()
                except llm.StreamTruncated:
                    assert stream.error is not None
            check_cut(wire, size, stream.response, stream.error, kind)
        assert transport.open_bodies == 0


@st.composite
def bodies(draw: st.DrawFn, wire: Wire) -> list[bytes]:
    """Text, long and short, among other events, comments and malformed ones, cut anywhere."""
    texts = [wire.says(text) for text in ("a", "bc", "\u00e9\n", "long " * 900, "longer " * 3000)]
    rare = [wire.thinks("hm"), wire.says(""), wire.tail()[0], b": ping\n\n", b"\n", b"id: 7\n\n"]
    rare += [b"event: news\ndata: {}\n\n", b"data: {\n\n"]
    event = st.sampled_from(texts) | st.sampled_from(texts) | st.sampled_from(rare)
    pieces = [b""]
    for whole in draw(st.lists(event, max_size=20)):
        cut = draw(st.sampled_from([None, None, 0.0, 0.5, 0.99]) | st.floats(0, 1))
        at = 0 if cut is None else int(len(whole) * cut)
        pieces[-1] += whole[:at]
        if cut is not None:
            pieces.append(b"")
        pieces[-1] += whole[at:]
    return pieces


@wires
@given(data=st.data())
def test_the_fast_path_and_the_cuts_change_nothing(wire: Wire, data: st.DataObject) -> None:
    """Check that pieces read on the fast path give what the whole gives on the slow path."""
    pieces = data.draw(bodies(wire))
    fast = ChunkDecoder(PROVIDERS[wire.name], lenient=True)
    slow = ChunkDecoder(PROVIDERS[wire.name], lenient=True, raw=True)
    out = [chunk for piece in pieces for chunk in fast.feed(piece, 0.0)] + fast.finish(0.0)
    wanted = slow.feed(b"".join(pieces), 0.0) + slow.finish(0.0)
    for chunk in wanted:
        chunk.raw = None
    assert out == wanted
    assert (fast.events, fast.left_out.skipped, fast.error) == (
        *(slow.events, slow.left_out.skipped, slow.error),
    )


# -- every field replaced --------------------------------------------------------------------------


MARK = "@@@"


def replaced(event: dict[str, Any], path: tuple[Any, ...], value: str) -> bytes:
    whole = copy.deepcopy(event)
    place: Any = whole
    for key in path[:-1]:
        place = place[key]
    if value == ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = MARK
    text = json.dumps(whole).replace(f'"{MARK}"', value)
    return text.encode("latin-1")  # one value is a byte that is no UTF-8


def around(wire: Wire, kind: str, data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the stream up to the event, by which the fast path has been learned, and the rest."""
    event = sse(MARK).replace(MARK.encode(), data)
    before = [*wire.opening, *map(wire.says, PIECES[:2])]
    after = [*map(wire.says, PIECES[2:]), *wire.tail()]
    if kind == "end":
        return [*wire.opening, *map(wire.says, PIECES), event], []
    if kind == "start":
        before = []
        after = [*wire.opening[1:], *map(wire.says, PIECES), *wire.tail()]
    return [*before, event], after


def told(response: llm.CompletionResponse) -> str:
    """All that the answer says, so that what is lost can be seen."""
    said = json.dumps(msgspec.to_builtins(response.choices))
    return said.replace("@test.invalid", "")  # where its blocks belong


async def taken(wire: Wire, steps: list[bytes]) -> tuple[Any, Any]:
    """The response and the error, through the front door."""
    transport, error = ScriptedTransport(reply(*steps)), None
    async with llm.open_client(transport=transport, retry=llm.Retry(attempts=1)) as client:
        model = wire.model("http://test.invalid/v1")
        async with client.stream(model, "Hi", max_tokens=9) as stream:
            try:
                await stream.collect()
            except llm.MiniLLMError as exc:
                error = exc
    assert error is stream.error
    if error is not None:
        assert error.partial is not None
        assert error.partial.outcome is stream.outcome
    stream.response.to_message()
    return stream.response, error


async def check_field(wire: Wire, kind: str, event: dict[str, Any], path: tuple[Any, ...]) -> None:
    for value in VALUES:
        data = replaced(event, path, value)
        before, after = around(wire, kind, data)
        response, error = await taken(wire, [*before, *after])
        # In one read it comes to the same.
        whole, other = testing.decode(PROVIDERS[wire.name], [b"".join([*before, *after])])
        assert (whole.outcome, told(whole)) == (response.outcome, told(response)), value
        # That of a first event names the address, too, and that of an end what is missing.
        if kind != "start" and not isinstance(error, llm.EndedEarly):
            assert str(other) == str(error), value
        earlier = "".join(PIECES[:2]) if len(before) > 1 else ""
        assert response.content.startswith(earlier), value
        if error is None:
            assert response.outcome is Outcome.FINISHED
            assert PIECES[2] in response.content, value
            assert PIECES[3] in response.content, value
            check_loss(kind, event, path, value, response)
            assert response.usage is not None or kind == "end", value
            check_usage(response.usage or llm.Usage())
        elif isinstance(error, llm.ProtocolError):
            assert error.event == len(before), value
        elif isinstance(error, llm.EndedEarly):  # a candidate without a reason, or no last event
            assert path[-1] == "index" or (kind == "end" and path[-1] in ("type", "response")), (
                value
            )
        else:
            assert isinstance(error, llm.ProviderError), value
            assert kind == "error" or path[-1] in ("error", "finish_reason"), value


def check_loss(kind: str, event: Any, path: tuple[Any, ...], value: str, response: Any) -> None:
    """Check that the answer has what the rest of the event said, and the value unless it says nothing."""
    place: Any = event
    for key in path:
        place = place[key]
    said, had, kept = (json.dumps(event), json.dumps(place), told(response))
    unknown = path[-1] == "type" and value[0] == '"'  # types that are not known are ignored
    left_out = any("left out" in note for note in response.notes)
    hint = path == ("output_index",)  # two items of one kind, and nothing that tells them apart
    nothing = path[-1] == "functionCall" and value == "{}"  # the end of a call, and none is open
    if not (unknown or left_out or hint or nothing or "input" in path):
        assert kept.count("lost") >= said.count("lost") - had.count("lost"), (
            path,
            value,
            kept,
            response.notes,
        )
    if "lost" not in had or value in NOTHING or hint:
        return
    too_long = len(value) > 300  # for a float: no number in a field beside the answer
    if left_out or too_long or value[0] in "[{" or value in ("1e999", "NaN", '"\\ud83d"'):
        return  # noted; read for what is in it; no number; no character
    if isinstance(place, dict) and value.startswith("{"):
        return  # unknown fields are ignored
    shown = kept.replace(" ", "").replace("\\", "")  # arguments are text
    assert value.strip('"') in shown, f"{path} = {value} said nothing: {kept}"


def check_usage(usage: llm.Usage | None) -> None:
    for name in ("uncached_input_tokens", "completion_tokens", "cache_read_tokens"):
        count = getattr(usage, name)
        assert count is None or (type(count) is int and 0 <= count < 2**53), name


@pytest.mark.parametrize(("kind", "path"), walk(OPENAI))
async def test_every_field_of_openai(kind: str, path: Any, autojump_clock: Any) -> None:
    await check_field(wire_named("openai"), kind, OPENAI[kind], path)


@pytest.mark.parametrize(("kind", "path"), walk(RESPONSES))
async def test_every_field_of_responses(kind: str, path: Any, autojump_clock: Any) -> None:
    await check_field(wire_named("openai_responses"), kind, RESPONSES[kind], path)


@pytest.mark.parametrize(("kind", "path"), walk(GEMINI))
async def test_every_field_of_gemini(kind: str, path: Any, autojump_clock: Any) -> None:
    await check_field(wire_named("gemini"), kind, GEMINI[kind], path)


@pytest.mark.parametrize(("kind", "path"), walk(ANTHROPIC))
async def test_every_field_of_anthropic(kind: str, path: Any, autojump_clock: Any) -> None:
    await check_field(wire_named("anthropic"), kind, ANTHROPIC[kind], path)


@pytest.mark.parametrize(("kind", "path"), walk(TEXT))
async def test_every_field_of_text_completions(kind: str, path: Any, autojump_clock: Any) -> None:
    await check_field(wire_named("text_completions"), kind, TEXT[kind], path)
