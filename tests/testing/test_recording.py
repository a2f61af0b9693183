"""Recordings: what goes in comes out, and no key does."""

from __future__ import annotations

import base64
import json
import math
import stat
import urllib.parse

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm.testing import faults
from trio_minillm.testing._recording import SEARCH_BYTES

KEY = "sk-proj-aB3dE/fG+hI9_jK2=lM5nO8"
QUOTED = urllib.parse.quote(KEY, safe="")
EVENTS = testing.openai_events("Sea ", "salty")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def ask(transport, url="http://test.invalid/v1/x", method="POST", **options):
    """Send a request, and return what the client reads, each piece with its time, and how it ended."""
    start = trio.current_time()
    seen: list[object] = []
    try:
        request = httpx.Request(method, url, content=b'{"secret": "prompt"}', **options)
        response = await transport.handle_async_request(request)
        seen.append((response.status_code, trio.current_time() - start))
        try:
            async for piece in response.stream:
                seen.append((piece, trio.current_time() - start))
        finally:
            await response.stream.aclose()
        seen.append("end")
    except httpx.TransportError as exc:
        seen.append(type(exc).__name__)
    return seen


seconds = st.integers(1, 9999).map(lambda n: n / 64)  # exact, and so are their sums
pieces = st.lists(st.one_of(st.binary(min_size=1, max_size=9), seconds), max_size=9)
ends = st.sampled_from([(), (testing.reset,), (testing.eof,)])


@settings(deadline=None)
@given(st.lists(st.tuples(pieces, ends, seconds), min_size=1, max_size=3))
def test_what_was_recorded_is_what_is_replayed(tmp_path_factory, scripts):
    path = tmp_path_factory.mktemp("recordings") / "r.jsonl"

    async def main():
        replies = [testing.reply(*steps, *end, wait=wait) for steps, end, wait in scripts]
        async with testing.record(path, testing.ScriptedTransport(*replies)) as transport:
            real = [await ask(transport) for _ in replies]
        again = testing.ScriptedTransport(*testing.replay(path))
        assert [await ask(again) for _ in replies] == real
        fast = testing.ScriptedTransport(*testing.replay(path, speed=math.inf))
        start = trio.current_time()
        there = [await ask(fast) for _ in replies]
        assert trio.current_time() == start
        strip = lambda seen: [s[0] if isinstance(s, tuple) else s for s in seen]  # noqa: E731
        assert list(map(strip, there)) == list(map(strip, real))
        half = testing.ScriptedTransport(*testing.replay(path, speed=0.5))
        start = trio.current_time()
        for _ in replies:
            await ask(half)
        took = trio.current_time() - start
        said = sum(line["t"] for line in lines_of(path) if "end" in line)
        assert took == pytest.approx(2 * said)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("transport", [llm.TrioTransport, httpx.AsyncHTTPTransport])
async def test_over_a_socket(transport, tmp_path, mock_clock):
    mock_clock.autojump_threshold = 0.02
    path = tmp_path / "r.jsonl"
    busy = testing.json_reply({"error": {"message": "later"}}, status=503)
    slow = testing.reply(*EVENTS) | faults.drip(50, 0.2)
    async with testing.serve(busy, slow) as server:
        async with testing.record(path, transport()) as recording:
            async with llm.open_client(transport=recording) as client:
                one = await client.complete(server.model(api_key=KEY), "Hello")
        await server.left_with(0)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in path.read_text()
    assert "Hello" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["end"] for line in lines_of(path) if "end" in line] == ["complete", "complete"]
    replies = testing.replay(path)
    async with testing.serve(*replies) as server, llm.open_client() as client:
        two = await client.complete(server.model(), "Hello")
        memory = testing.ScriptedTransport(*replies)
    async with llm.open_client(transport=memory) as client:
        three = await client.complete(testing.model(), "Hello")
    for again in (two, three):
        assert (again.content, again.usage, again.outcome) == (one.content, one.usage, one.outcome)
        assert again.timings.total == pytest.approx(one.timings.total, abs=0.5)


SPELLINGS = {
    "plain": KEY,
    "JSON": json.dumps({"k": KEY}).replace("/", "\\/"),
    "URL": QUOTED,
    "escaped": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "JSON in JSON": json.dumps(json.dumps({"k": KEY})),
    "cut": KEY[:20],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("every", [1, 7, 10_000])
@pytest.mark.parametrize("padding", [0, SEARCH_BYTES + 300, 2 * SEARCH_BYTES - 40])
async def test_a_key_that_is_echoed_is_not_recorded(
    spelling, every, padding, tmp_path, autojump_clock
):
    path = tmp_path / "r.jsonl"
    told = f"a{'.' * padding}b{SPELLINGS[spelling]}c{'-' * 300}".encode()
    reply = testing.reply(told, headers={"x-echo": KEY, "set-cookie": "id=1234"})
    if every == 1 and padding:
        reply |= faults.split(*range(padding - 500, len(told)))
    else:
        reply |= faults.split(every=every)
    headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
    async with testing.record(path, testing.ScriptedTransport(reply)) as transport:
        seen = await ask(
            transport, f"http://u:{QUOTED}@test.invalid/v1?key={QUOTED}", headers=headers
        )
    assert b"".join(s[0] for s in seen[1:-1]) == told  # the client sees what was said
    body = b"".join(s for s in testing.replay(path)[0].steps if isinstance(s, bytes))
    hidden = len(told) - len(f"a{'.' * padding}bc{'-' * 300}")
    assert len(body) == len(told)
    stars = body.count(b"*")
    assert hidden - 16 <= stars <= hidden
    text = path.read_text()
    assert not any(KEY[i : i + 12] in text for i in range(len(KEY) - 12))
    assert "1234" not in text
    assert lines_of(path)[1]["url"] == "http://test.invalid/v1"


async def test_a_secret_that_no_header_has_can_be_named(tmp_path):
    path = tmp_path / "r.jsonl"
    inner = testing.ScriptedTransport(testing.reply(b"the name is Rumpelstilzchen."))
    async with testing.record(path, inner, secrets=["Rumpelstilzchen"]) as transport:
        await ask(transport)
    assert "Rumpel" not in path.read_text()


async def test_a_stream_that_was_left_is_silent_when_replayed(tmp_path, autojump_clock):
    path = tmp_path / "r.jsonl"
    inner = testing.ScriptedTransport(testing.reply(*EVENTS[:2], testing.hang))
    async with testing.record(path, inner) as transport:
        async with llm.open_client(transport=transport) as client:
            async with client.stream(testing.model(), "Hi") as stream:
                await stream.next_chunk()
    assert inner.open_bodies == 0
    assert lines_of(path)[-1]["end"] == "left"
    (reply,) = testing.replay(path)
    assert reply.steps[-1] is testing.hang


async def test_what_failed_fails_again(tmp_path, autojump_clock):
    path = tmp_path / "r.jsonl"
    down = testing.reply(error=httpx.ConnectError("no route"))
    async with testing.record(path, testing.ScriptedTransport(down)) as transport:
        assert await ask(transport) == ["ConnectError"]
    assert await ask(testing.ScriptedTransport(*testing.replay(path))) == ["ConnectError"]
    with trio.move_on_after(5):
        silent = testing.ScriptedTransport(testing.reply(wait=testing.hang))
        async with testing.record(tmp_path / "s.jsonl", silent) as transport:
            await ask(transport)
    assert testing.replay(tmp_path / "s.jsonl")[0].wait is testing.hang


async def test_questions_are_a_script_of_their_own(tmp_path, autojump_clock):
    path = tmp_path / "r.jsonl"
    inner = testing.ScriptedTransport(settlements=[testing.settlement(0.5)])
    async with testing.record(path, inner) as transport:
        await ask(transport)
        await ask(transport, method="GET")
    assert len(testing.replay(path)) == 1
    (answer,) = testing.replay(path, questions=True)
    assert b"0.5" in answer.steps[0]


async def test_what_takes_up_a_response_is_no_question(tmp_path, autojump_clock):
    path, events = tmp_path / "r.jsonl", testing.responses_events("a", "b")
    inner = testing.ScriptedTransport(testing.resumable(*events))
    async with testing.record(path, inner) as transport:
        await ask(transport, "http://test.invalid/v1/responses")
        place = "http://test.invalid/v1/responses/resp_1"
        await ask(transport, f"{place}?stream=true&starting_after=6", "GET")
        await ask(transport, f"{place}/cancel")
    whole, rest = testing.replay(path, speed=math.inf)
    assert b"".join(whole.steps) == b"".join(events)
    assert b"".join(rest.steps) == b"".join(events[7:])
    (cancelled,) = testing.replay(path, questions=True)
    assert cancelled.status == 404


async def test_a_recording_has_a_bound_and_replaces_no_file(tmp_path, autojump_clock):
    path = tmp_path / "r.jsonl"
    inner = testing.ScriptedTransport(testing.reply(b"x" * 100_000))
    async with testing.record(path, inner, max_bytes=1000) as transport:
        seen = await ask(transport)
        assert len(seen[1][0]) == 100_000
        assert await ask(transport) == seen
    assert path.stat().st_size < 1500
    with pytest.raises(ValueError, match="limit"):
        testing.replay(path)
    with pytest.raises(FileExistsError):
        testing.record(path)


async def test_what_is_compressed_is_not_recorded(tmp_path):
    path = tmp_path / "r.jsonl"
    packed = testing.reply(*EVENTS) | faults.gzip()
    inner = testing.ScriptedTransport(packed)
    async with testing.record(path, inner) as transport:
        await ask(transport, headers={"accept-encoding": "gzip"})
    assert inner.requests[0].headers["accept-encoding"] == "identity"
    with pytest.raises(ValueError, match="compressed"):
        testing.replay(path)


@pytest.mark.parametrize("coding", ["none", "utf-8", "gzip"])
async def test_what_is_said_to_be_compressed_and_is_not_is_recorded(tmp_path, coding):
    path = tmp_path / "r.jsonl"
    inner = testing.ScriptedTransport(
        testing.reply(
            *EVENTS, headers={"content-type": "text/event-stream", "content-encoding": coding}
        )
    )
    async with (
        testing.record(path, inner) as transport,
        llm.open_client(transport=transport) as client,
    ):
        recorded = await client.complete(testing.model(), "Hi")
    async with llm.open_client(
        transport=testing.ScriptedTransport(*testing.replay(path))
    ) as client:
        assert (await client.complete(testing.model(), "Hi")).content == recorded.content != ""


async def test_exchanges_that_interleave_are_told_apart(tmp_path, autojump_clock):
    path = tmp_path / "r.jsonl"
    replies = [testing.reply(*[f"{n}".encode(), 1.0] * 5) for n in range(3)]
    async with testing.record(path, testing.ScriptedTransport(*replies)) as transport:
        async with trio.open_nursery() as nursery:
            for _ in replies:
                nursery.start_soon(ask, transport)
                await trio.testing.wait_all_tasks_blocked()
    for n, reply in enumerate(testing.replay(path, speed=math.inf)):
        assert b"".join(reply.steps) == f"{n}".encode() * 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"{}\n", "not a recording"),
        (b'{"recording":2}\n', "version"),
        (b"nonsense\n", "line 1"),
        (b'{"recording":1}\n{"n":"x"}\n', "line 2"),
        (b'{"recording":1}\n{"n":0,"t":1,"end":"complete"}\n', "line 2"),
        (b'{"recording":1}\n' + b" " * (17 << 20), "more than"),
    ],
)
def test_what_is_no_recording_is_refused(text, words, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=words):
        testing.replay(path)


@settings(deadline=None)
@given(st.data())
def test_a_torn_file_is_read_as_far_as_it_goes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("torn") / "r.jsonl"
    whole = b'{"recording":1}\n' + b"".join(
        json.dumps(line).encode() + b"\n"
        for line in (
            {"n": 0, "t": 0.0, "method": "POST", "url": "http://x/"},
            {"n": 0, "t": 0.5, "status": 200, "headers": []},
            {"n": 0, "t": 0.7, "base64": base64.b64encode(b"\xff").decode()},
            {"n": 0, "t": 0.8, "end": "complete"},
        )
    )
    path.write_bytes(whole[: data.draw(st.integers(16, len(whole)))])
    for reply in testing.replay(path):
        assert reply.wait in (testing.hang, 0.5)


def test_the_speed_is_checked(tmp_path):
    for speed in (0, -1, math.nan):
        with pytest.raises(ValueError, match="speed"):
            testing.replay(tmp_path / "r.jsonl", speed=speed)
