"""Faults: what each does to a reply, and that memory and sockets show the same."""

from __future__ import annotations

import gzip
import math
import re

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm.testing import faults

from ..support.paths import doc

EVENTS = testing.openai_events("Sea ", "salty")
REPLY = testing.reply(*EVENTS)
BODY = b"".join(EVENTS)


def sent(reply: testing.Reply) -> bytes:
    return b"".join(step for step in reply.steps if isinstance(step, bytes))


def others(reply: testing.Reply) -> list[object]:
    return [step for step in reply.steps if not isinstance(step, bytes)]


steps = st.lists(
    st.one_of(st.binary(max_size=6), st.floats(0, 9), st.sampled_from(EVENTS)), max_size=8
)


@settings(deadline=None)
@given(steps, st.integers(-20, 200))
def test_a_cut_keeps_what_stands_before_it(given_steps, at):
    whole = testing.reply(*given_steps)
    text = sent(whole)
    broken = whole | faults.cut(at, "reset")
    assert sent(broken) == text[: max(0, len(text) + at) if at < 0 else at]
    assert broken.steps[-1] is testing.reset
    assert others(broken)[:-1] == others(whole)[: len(others(broken)) - 1]


@settings(deadline=None)
@given(steps, st.integers(-20, 200), st.integers(1, 5))
def test_splitting_merging_stalling_and_dripping_lose_nothing(given_steps, at, every):
    whole = testing.reply(*given_steps)
    for fault in (
        faults.split(at, every=every),
        faults.merge(),
        faults.stall(at, 1.0),
        faults.drip(every, 0.5),
        faults.edit(lambda data: data),
    ):
        changed = whole | fault
        assert sent(changed) == sent(whole)
        assert len(others(changed)) >= len(others(whole))
    assert all(
        len(step) <= every
        for step in (whole | faults.split(every=every)).steps
        if isinstance(step, bytes)
    )


@settings(deadline=None)
@given(steps)
def test_pauses_stay_where_they_stand_among_the_bytes(given_steps):
    def stands(reply):
        return [
            (sent(testing.reply(*reply.steps[:number])), step)
            for number, step in enumerate(reply.steps)
            if not isinstance(step, bytes)
        ]

    whole = testing.reply(*given_steps)
    for fault in (faults.split(2, 5, every=3), faults.merge(), faults.edit(lambda data: data)):
        assert stands(whole | fault) == stands(whole)


def test_a_drip_has_its_pauses_between_the_pieces():
    assert (testing.reply(b"abc", b"de") | faults.drip(2, 0.5)).steps == (
        b"ab",
        0.5,
        b"cd",
        0.5,
        b"e",
    )


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_events_are_found_whatever_ends_their_lines(ending):
    text = b"".join(b"data: %d" % n + 2 * ending for n in range(4))
    whole = testing.reply(*(text[i : i + 3] for i in range(0, len(text), 3)), b"rest")
    event = b"data: 1" + 2 * ending
    twice = whole | faults.duplicate(1)
    assert sent(twice) == text.replace(event, event * 2) + b"rest"
    found = whole | faults.inject(b": hi\n\n", at=1)
    assert sent(found) == text.replace(event, b": hi\n\n" + event) + b"rest"
    gone = whole | faults.edit(lambda data: None if data == 1 else data)
    assert sent(gone) == text.replace(event, b"") + b"rest"


def test_events_are_injected_and_duplicated_by_number():
    marked = b": here\n\n"
    for at in range(len(EVENTS) + 1):
        assert sent(REPLY | faults.inject(marked, at=at)) == b"".join(
            [*EVENTS[:at], marked, *EVENTS[at:]]
        )
    for at in range(-len(EVENTS), 0):
        assert sent(REPLY | faults.inject(marked, at=at)) == b"".join(
            [*EVENTS[:at], marked, *EVENTS[at:]]
        )
        assert sent(REPLY | faults.duplicate(at)) == b"".join(
            [*EVENTS[:at], EVENTS[at], *EVENTS[at:]]
        )
    assert sent(REPLY | faults.inject(marked, at=99)) == BODY + marked
    assert sent(REPLY | faults.insert(b"!", 3)) == BODY[:3] + b"!" + BODY[3:]


def ends(provider, reply):
    response, error = testing.decode(provider, [sent(reply)])
    return response, type(error)


OPENAI, ANTHROPIC = providers.OpenAIChat(), providers.Anthropic()
RESPONSES = providers.OpenAIResponses()
TEXT = providers.TextCompletions()
CLAUDE = testing.reply(*testing.anthropic_events("Sea ", "salty"))


def test_what_is_left_out_is_not_there_and_all_else_is():
    response, error = ends(OPENAI, REPLY | faults.without_usage())
    assert (response.content, response.usage, error) == ("Sea salty", None, type(None))
    assert b"usage" not in sent(CLAUDE | faults.without_usage())
    response, error = ends(ANTHROPIC, CLAUDE | faults.without_end())
    assert b"message_stop" not in sent(CLAUDE | faults.without_end())
    assert response.content == "Sea salty"
    assert b"[DONE]" not in sent(REPLY | faults.without_end())
    assert ends(OPENAI, REPLY | faults.without_end())[1] is type(None)
    silent = REPLY | faults.without_end() | faults.without_finish()
    assert ends(OPENAI, silent)[1] is llm.EndedEarly
    claude = CLAUDE | faults.without_end() | faults.without_finish()
    response, error = ends(ANTHROPIC, claude)
    assert (response.content, error) == ("Sea salty", llm.EndedEarly)
    responses = testing.reply(*testing.responses_events("Sea ", "salty"))
    response, error = ends(RESPONSES, responses | faults.without_usage())
    assert (response.content, response.usage, error) == ("Sea salty", None, type(None))
    for fault in (faults.without_end(), faults.without_finish()):
        response, error = ends(RESPONSES, responses | fault)
        assert (response.content, error) == ("Sea salty", llm.EndedEarly)


def test_ends_of_text_completions():
    text = testing.reply(*testing.text_events("Sea ", "salty"))
    response, error = ends(TEXT, text | faults.without_usage())
    assert (response.content, response.usage, error) == ("Sea salty", None, type(None))
    response, error = ends(TEXT, text | faults.without_end())
    assert (response.content, error) == ("Sea salty", type(None))
    response, error = ends(TEXT, text | faults.without_end() | faults.without_finish())
    assert (response.content, error) == ("Sea salty", llm.EndedEarly)


def test_an_edit_keeps_the_events_name_and_what_is_not_json():
    def shout(data):
        if isinstance(data, dict) and data["type"] == "content_block_delta":
            data["delta"]["text"] = data["delta"]["text"].upper()
        return data

    response, _ = ends(ANTHROPIC, CLAUDE | faults.edit(shout))
    assert response.content == "SEA SALTY"
    assert b"event: content_block_delta\n" in sent(CLAUDE | faults.edit(shout))
    done = REPLY | faults.edit(lambda data: "[FIN]" if data == "[DONE]" else data)
    assert sent(done) == BODY.replace(b"[DONE]", b"[FIN]")
    event = testing.reply(b"data: a\ndata: b\n\n")
    assert sent(event | faults.edit(lambda text: text.upper())) == b"data: A\ndata: B\n\n"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="every"):
        faults.split(every=0)
    with pytest.raises(ValueError, match="bytes to repeat"):
        testing.forever(1.0)
    with pytest.raises(ValueError, match="break its line"):
        testing.wire(testing.reply(headers={"a": "b\r\nc: d"}))


# -- the same in memory and over sockets ---------------------------------------------------------


async def seen(transport: httpx.AsyncBaseTransport, url: str) -> tuple[object, ...]:
    """Return what a client sees of one reply, up to 100,000 bytes or for ten seconds."""
    got = bytearray()
    status, end = 0, "silence"
    with trio.move_on_after(10):
        try:
            response = await transport.handle_async_request(
                httpx.Request("POST", url, content=b"{}")
            )
            status = response.status_code
            try:
                pieces = aiter(response.stream)
                end = "more"
                while len(got) < 100_000:
                    got += await anext(pieces)
            except StopAsyncIteration:
                end = "end"
            finally:
                with trio.CancelScope(shield=True):
                    await response.stream.aclose()
        except httpx.TransportError as exc:
            end = type(exc).__name__
        else:
            return status, bytes(got[:100_000]), end
    return status, bytes(got[:100_000]), end if end != "more" else "silence"


CASES = {
    "whole": (REPLY, (200, BODY, "end")),
    "empty": (testing.reply(), (200, b"", "end")),
    "no content": (testing.reply(status=204), (204, b"", "end")),
    "length": (REPLY | faults.framing("length"), (200, BODY, "end")),
    "until closed": (REPLY | faults.framing("close", http="1.0"), (200, BODY, "end")),
    "last on its connection": (REPLY | faults.closing(), (200, BODY, "end")),
    "cut": (REPLY | faults.cut(40), (200, BODY[:40], "RemoteProtocolError")),
    "cut, half open": (
        REPLY | faults.cut(40, "half_close"),
        (200, BODY[:40], "RemoteProtocolError"),
    ),
    "cut where nobody can tell": (
        REPLY | faults.framing("close") | faults.cut(40),
        (200, BODY[:40], "end"),
    ),
    "reset": (REPLY | faults.cut(40) | faults.stall(40, 0.1), ...),
    "too short": (REPLY | faults.length(9), (200, BODY, "RemoteProtocolError")),
    "too long": (REPLY | faults.length(-9), (200, BODY[:-9], "end")),
    "in the head": (
        REPLY | testing.wire | faults.cut(20),
        (0, b"", "RemoteProtocolError"),
    ),
    "in a chunk": (
        REPLY | testing.wire | faults.cut(-30),
        (200, ..., "RemoteProtocolError"),
    ),
    "dripped head and all": (REPLY | testing.wire | faults.drip(9, 0.01), (200, BODY, "end")),
    "stalled": (REPLY | faults.stall(40), (200, BODY[:40], "silence")),
    "late": (REPLY | faults.late(), (0, b"", "silence")),
    "503": (REPLY | faults.status(503, retry_after=2), (503, BODY, "end")),
    "html": (REPLY | faults.body("<html>"), (200, b"<html>", "end")),
    "not http": (testing.raw(b"SSH-2.0-x\r\n\r\n"), (0, b"", "RemoteProtocolError")),
    "endless body": (REPLY | faults.endless_body(), (200, ..., "more")),
    "endless headers": (REPLY | faults.endless_headers(), (0, b"", "RemoteProtocolError")),
    "endless header": (
        REPLY | faults.endless_headers(one_line=True),
        (0, b"", "RemoteProtocolError"),
    ),
    "endless chunk size": (
        REPLY | faults.endless_chunk_size(),
        (200, BODY, "RemoteProtocolError"),
    ),
    "gzip": (REPLY | faults.gzip(), (200, gzip.compress(BODY, mtime=0), "end")),
}


@pytest.mark.parametrize("name", CASES)
async def test_memory_and_sockets_show_the_same(name, mock_clock):
    mock_clock.autojump_threshold = 0.02
    reply, expected = CASES[name]
    memory = testing.ScriptedTransport(reply)
    there = await seen(memory, "http://test.invalid/v1")
    assert memory.open_bodies == 0
    async with testing.serve(reply) as server:
        async with llm.TrioTransport() as transport:
            assert await seen(transport, server.base_url) == there
        await server.left_with(0)
    if expected is not ...:
        status, body, end = expected
        assert (there[0], there[2]) == (status, end)
        assert body is ... or there[1] == body


def test_the_page_names_every_fault():
    page = doc("faults.md").read_text()
    table = page.partition("\n| fault | what happens |\n")[2].partition("\n\n")[0]
    cells = re.findall(r"(?m)^\| (.+?) \|", table)
    named = {name for cell in cells for name in re.findall(r"`(\w+)\(", cell)}
    assert named == set(faults.__all__) - {"Fault"}
    assert all(hasattr(faults, name) for name in faults.__all__)


def test_infinite_times_are_hangs():
    assert (REPLY | faults.stall(1, math.inf)).steps[1] is testing.hang
    assert (REPLY | faults.late()).wait is testing.hang
