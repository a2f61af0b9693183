"""The server over loopback, on a mocked clock: it does what it says, and says what it did."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

import trio_minillm as llm
from trio_minillm import providers, testing
from trio_minillm._serve import ServedRecord, ServeOptions, TimedServer, open_timed_server
from trio_minillm._serve.connections import MAX_BACKLOG
from trio_minillm._serve.options import WIRES
from trio_minillm._serve.words import text_of

PROVIDERS: dict[str, Any] = {
    "openai": None,
    "text": providers.TextCompletions(),
    "anthropic": providers.Anthropic(),
    "responses": providers.OpenAIResponses(),
    "gemini": providers.Gemini(),
}
each_wire = pytest.mark.parametrize("wire", WIRES)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.02)


def timed(log: Path | None = None, **options: Any) -> Any:
    """A server on Trio's clock, which a test mocks: real time takes no part in it."""
    return open_timed_server(ServeOptions(**options), log=log, now=trio.current_time)


async def ask(server: TimedServer, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
        return await client.post(f"{server.base_url}/chat/completions", json={**CHAT, **more})


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def ended(server: TimedServer, count: int = 1) -> Sequence[ServedRecord]:
    while len(server.records) < count:
        await trio.sleep(0.001)
    return server.records


@each_wire
@pytest.mark.parametrize("reasoning", [0, 2])
async def test_this_library_reads_it_with_the_timing_that_was_set(
    clock: trio.testing.MockClock, wire: str, reasoning: int
) -> None:
    async with timed(ttft=0.3, itl=0.05, tokens=7, reasoning=reasoning) as server:
        async with llm.open_client() as client:
            model = server.model(PROVIDERS[wire], api_key="k")
            began = trio.current_time()
            async with client.stream(model, "one two three") as stream:
                at = [c.received_at - began async for c in stream if c.delta or c.reasoning]
        response = stream.response
    thought = 0 if wire == "text" else reasoning
    assert at == pytest.approx([0.3 + 0.05 * n for n in range(7)], abs=0.002)
    assert response.text == text_of(0, 7 - thought)
    assert response.reasoning == text_of(0, thought)
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (3, 7)
    (record,) = server.records
    assert (record.wire, record.ended, record.prompt_tokens) == (wire, "whole", 3)
    assert (record.completion_tokens, record.reasoning_tokens) == (7, thought)
    assert (response.id or "").endswith(record.id)
    received = record.received
    assert [s - received for s in record.sent] == pytest.approx(
        [0.3 + 0.05 * n for n in range(7)], abs=0.001
    )
    assert record.tokens.tolist() == [1] * 7


@each_wire
async def test_a_whole_answer_comes_when_a_stream_would_end(
    clock: trio.testing.MockClock, wire: str
) -> None:
    paths = {
        "openai": "/v1/chat/completions",
        "text": "/v1/completions",
        "anthropic": "/v1/messages",
        "responses": "/v1/responses",
        "gemini": "/v1beta/models/x:generateContent",
    }
    async with timed(ttft=0.5, itl=0.1, tokens=5) as server, httpx.AsyncClient() as client:
        began = trio.current_time()
        response = await client.post(server.url + paths[wire], json=CHAT, timeout=None)
    assert trio.current_time() - began == pytest.approx(0.9, abs=0.002)
    assert response.status_code == 200
    assert text_of(0, 5) in response.text
    assert response.headers["x-request-id"] == server.records[0].id
    assert not server.records[0].stream
    assert server.metrics()["ttft"]["count"] == 0
    assert server.metrics()["e2e"]["p50"] == pytest.approx(0.9, abs=0.001)


async def test_max_tokens_and_usage_as_real_servers(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0, itl=0.01, tokens_per_chunk=4) as server:
        plain = events(await ask(server, stream=True, max_tokens=10))
        options = {"include_usage": True}
        counted = events(await ask(server, stream=True, max_tokens=10, stream_options=options))
    assert not any("usage" in event for event in plain)
    assert [e["choices"][0]["finish_reason"] for e in plain][-1] == "length"
    texts = [e["choices"][0]["delta"].get("content") for e in plain]
    assert [len(text.split()) for text in texts if text] == [4, 4, 2]
    assert counted[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
    assert server.records[0].tokens.tolist() == [4, 4, 2]


async def test_the_opening_comes_at_once(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0.5, tokens=1, opening=True) as server:
        began, at = trio.current_time(), []
        async with (
            httpx.AsyncClient(timeout=None) as client,
            client.stream(
                "POST", f"{server.base_url}/chat/completions", json={**CHAT, "stream": True}
            ) as response,
        ):
            async for line in response.aiter_lines():
                if line:
                    at.append(trio.current_time() - began)
    assert at[0] == pytest.approx(0, abs=0.001)
    assert at[1] == pytest.approx(0.5, abs=0.001)
    assert server.metrics()["ttft"]["p50"] == pytest.approx(0.5, abs=0.001)


async def test_requests_wait_for_their_turn_in_order(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0.5, itl=0.1, tokens=6, slots=2) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(lambda: ask(server, stream=True))
                await trio.testing.wait_all_tasks_blocked(0.005)
            await trio.sleep(0.25)
            assert (server.metrics()["running"], server.metrics()["queued"]) == (2, 4)
        records = sorted(server.records, key=lambda record: record.number)
    waits = [record.queued for record in records]
    assert waits == pytest.approx([0, 0, 1, 1, 2, 2], abs=0.01)
    first = [(record.first_content or 0) - record.received for record in records]
    assert first == pytest.approx([w + 0.5 for w in waits], abs=0.002)
    assert server.metrics()["queue"]["max"] == pytest.approx(2, abs=0.01)


async def test_it_slows_down_beyond_its_knee(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0.1, itl=0.1, tokens=11, slow_down=2) as server:
        for streams in (1, 2, 4):
            server.reset()
            async with trio.open_nursery() as nursery:
                for _ in range(streams):
                    nursery.start_soon(lambda: ask(server, stream=True))
            expected = 0.1 * max(1, streams / 2)
            assert server.metrics()["itl"]["p50"] == pytest.approx(expected, abs=0.001)


async def test_random_times_are_the_same_in_each_run(clock: trio.testing.MockClock) -> None:
    async def run(seed: int) -> list[float]:
        async with timed(ttft="exp(0.2)", itl="uniform(0, 0.1)", tokens=4, seed=seed) as server:
            for _ in range(2):
                await ask(server, stream=True)
            return [s - r.received for r in server.records for s in r.sent]

    first, again, other = await run(1), await run(1), await run(2)
    assert first == pytest.approx(again, abs=0.001)
    assert first != pytest.approx(other, abs=0.001)


async def test_figures_are_those_of_the_log(clock: trio.testing.MockClock, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    async with timed(
        log, ttft="uniform(0.1,0.5)", itl="exp(0.02)", tokens="uniform(1,6)"
    ) as server:
        for _ in range(10):
            await ask(server, stream=True)
        await ask(server, n=2)
        figures = server.metrics()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["ended"] for line in lines] == ["whole"] * 10 + ["refused"]
    whole = [line for line in lines if line["ended"] == "whole"]
    first = sorted(line["first_content"] - line["received"] for line in whole)
    gaps = sorted(b - a for w in whole for a, b in zip(w["sent"], w["sent"][1:], strict=False))
    for name, values in (("ttft", first), ("itl", gaps)):
        assert figures[name]["count"] == len(values)
        assert figures[name]["mean"] == pytest.approx(sum(values) / len(values))
        assert figures[name]["max"] == pytest.approx(values[-1], abs=1e-6)
        assert figures[name]["p50"] == pytest.approx(values[-(-len(values) // 2) - 1], abs=1e-6)
    assert figures["chunks"] == sum(len(line["sent"]) for line in whole)
    assert figures["tokens"] == {
        "prompt": sum(line["prompt_tokens"] for line in whole),
        "completion": sum(line["completion_tokens"] for line in whole),
    }
    assert figures["requests"] == {"ended": 11, "refused": 1, "whole": 10}
    assert [msgspec.convert(line, type=dict)["number"] for line in whole] == [*range(10)]


async def test_pages_and_reset(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0, itl=0, tokens=2, model="m-9") as server, httpx.AsyncClient() as client:
        await ask(server, stream=True)
        models = (await client.get(f"{server.base_url}/models")).json()
        assert [model["id"] for model in models["data"]] == ["m-9"]
        assert (await client.get(f"{server.url}/health")).json() == {"status": "ok"}
        page = (await client.get(f"{server.url}/metrics")).text
        assert "trio_minillm_serve_chunks_total 2\n" in page
        assert (await client.get(f"{server.url}/metrics.json")).json()["chunks"] == 2
        assert (await client.post(f"{server.url}/reset")).json() == {"reset": True}
        figures = (await client.get(f"{server.url}/metrics.json")).json()
        assert (figures["chunks"], figures["requests"]) == (0, {"ended": 0})
        assert not server.records
        assert (await client.get(f"{server.url}/nothing")).status_code == 404
        assert (await client.delete(f"{server.url}/v1/models")).status_code == 405
        assert (await client.post(f"{server.url}/v1/embeddings", json={})).status_code == 404


async def test_connections_are_kept_and_pipelined_requests_answered_in_order(
    clock: trio.testing.MockClock,
) -> None:
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 1}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    async with timed(ttft=0.1) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(
            (head + b"\r\n" + body) * 2 + head + b"connection: close\r\n\r\n" + body
        )
        async with stream:
            got = b"".join([data async for data in stream])
        assert got.count(b"HTTP/1.1 200 OK") == got.count(b"[DONE]") == 3
        assert [record.id for record in server.records] == [f"{n:012d}" for n in range(3)]
        assert server.metrics()["ttft"]["max"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("fault", "outcome", "ending"),
    [
        ("cut(300)", "truncated", "fault"),
        ("cut(300, 'reset')", "truncated", "fault"),
        ("error(3, 'no more')", "errored", "fault"),
        ("stall(300)", "errored", "left"),
        ("without_usage()", "finished", "fault"),
        ("split(every=1)", "finished", "fault"),
        ("drip(100, 0.1)", "finished", "fault"),
    ],
)
@each_wire
async def test_faults(
    clock: trio.testing.MockClock, wire: str, fault: str, outcome: str, ending: str
) -> None:
    async with timed(ttft=0.1, itl=0.05, tokens=5, usage="late", faults=[fault]) as server:
        timeouts = llm.Timeouts(idle=5, first_chunk=5, total=20)
        async with llm.open_client(retry=llm.Retry(attempts=1), timeouts=timeouts) as client:
            async with client.stream(server.model(PROVIDERS[wire], api_key="k"), "Hi") as stream:
                with suppress(llm.MiniLLMError):
                    await stream.collect()
        assert str(stream.outcome) == outcome
        (record,) = await ended(server)
    assert record.ended == ending
    assert record.faults == [fault.partition("(")[0]]
    assert server.metrics()["faults"] == {record.faults[0]: 1}


async def test_a_refusal_takes_no_place_and_no_time(clock: trio.testing.MockClock) -> None:
    faults = ["status(429, retry_after=7)"]
    async with timed(ttft=5, slots=1, faults=faults) as server:
        began = trio.current_time()
        response = await ask(server, stream=True)
        assert trio.current_time() - began < 0.1
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"]["code"] == 429
    assert server.records[0].status == 429


async def test_a_share_of_requests_is_struck(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=0, itl=0, tokens=1, faults=["30% status(500)"], seed=4) as server:
        codes = [(await ask(server)).status_code for _ in range(40)]
    assert {*codes} == {200, 500}
    assert 5 <= codes.count(500) <= 20
    assert server.metrics()["faults"] == {"status": codes.count(500)}


async def test_who_hangs_up_gives_the_place_back(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=1, itl=1, tokens=1000, slots=1) as server:
        with trio.move_on_after(3.5):
            await ask(server, stream=True)
        (record,) = await ended(server)
        assert (record.ended, len(record.sent)) == ("left", 3)
        with trio.move_on_after(1.5):
            await ask(server, stream=True)
        assert [len(record.sent) for record in await ended(server, 2)] == [3, 1]
        assert server.metrics()["running"] == 0


async def test_who_hangs_up_in_the_line_is_not_served(clock: trio.testing.MockClock) -> None:
    async with timed(ttft=1, itl=1, tokens=5, slots=1) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask(server, stream=True))
        await trio.sleep(0.5)
        with trio.move_on_after(1):
            await ask(server, stream=True)
        await ask(server, stream=True)
        ends = [(r.number, r.ended, round(r.queued)) for r in server.records]
    assert ends == [(1, "left", 1), (0, "whole", 0), (2, "whole", 4)]
    assert server.records[0].started is None


async def test_what_runs_at_the_end_is_recorded(
    clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        async with timed(log, ttft=1, itl=1, tokens=100) as server:
            nursery.start_soon(ask_and_fail, server)
            await trio.sleep(3.5)
    line = json.loads(log.read_text())
    assert (line["ended"], len(line["sent"])) == ("stopped", 3)


async def ask_and_fail(server: TimedServer) -> None:
    with pytest.raises(httpx.HTTPError):
        await ask(server, stream=True)


async def test_who_does_not_read_delays_nobody_and_is_given_up(
    clock: trio.testing.MockClock,
) -> None:
    tokens = 3_000
    async with timed(ttft=0, itl=0, tokens=tokens, tokens_per_chunk=1000) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await slow.socket.connect(("127.0.0.1", server.port))
        body = json.dumps(
            {**CHAT, "stream": True, "max_tokens": 900_000, "ignore_eos": True}
        ).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        await slow.send_all(head % len(body) + body)
        await trio.sleep(0.1)
        response = await ask(server, stream=True)
        assert response.text.count("data: ") == tokens // 1000 + 3
        records = await ended(server, 2)
        await slow.aclose()
    by_end = {record.ended: record for record in records}
    assert by_end["whole"].tokens.tolist() == [1000] * 3
    assert by_end["slow"].backlogged > 0
    assert sum(by_end["slow"].tokens) * 6 > MAX_BACKLOG


async def test_a_half_close_comes_behind_all_that_was_sent(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the client reads so late that most of the answer had to wait for it."""
    monkeypatch.setattr("trio_minillm._serve.connections.MAX_BACKLOG", 64 * 1024 * 1024)
    size = 4_000_000
    fault = f"cut({size}, 'half_close')"
    async with timed(ttft=0, itl=0, tokens_per_chunk=10_000, faults=[fault]) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
            await stream.socket.connect(("127.0.0.1", server.port))
            body = json.dumps({**CHAT, "stream": True, "max_tokens": 1_000_000}).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            await stream.send_all(head % len(body) + body)
            await trio.sleep(1)
            got = sum([len(data) async for data in stream])
        (record,) = await ended(server)
    assert record.backlogged > 0
    assert got > size


async def test_requests_that_are_too_large_or_no_http_are_refused(
    clock: trio.testing.MockClock,
) -> None:
    async with timed() as server:
        for data, status in (
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"431"),
        ):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(data)
            assert (await stream.receive_some())[9:12] == status
            await stream.aclose()


async def test_scripts_are_served_with_their_own_timing(
    clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(
        '{"script": 1}\n{"text": "The sea is salty", "ttft": 1, "itl": 0.5}\n'
        '{"error": {"status": 429, "retry_after": 2}}\n{"text": ["a", "b"], "faults": ["cut(-5)"]}\n'
    )
    async with timed(files=[path], itl=0.25) as server:
        await ask(server, stream=True)
        assert (await ask(server, stream=True)).status_code == 429
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(server, stream=True)
        await ask(server, stream=True)
        records = await ended(server, 4)
    sent = [s - records[0].received for s in records[0].sent]
    assert sent == pytest.approx([1, 1.5, 2, 2.5], abs=0.002)
    assert records[0].tokens.tolist() == [1, 1, 1, 1]
    assert [s - records[2].received for s in records[2].sent] == pytest.approx(
        [0.2, 0.45], abs=0.01
    )
    assert records[2].faults == ["cut"]
    assert records[3].completion_tokens == 4


@pytest.mark.parametrize("retimed", [False, True])
async def test_recordings_are_replayed_or_paced_anew(
    clock: trio.testing.MockClock, tmp_path: Path, retimed: bool
) -> None:
    path, at = tmp_path / "answer.jsonl", []
    reply = testing.reply(
        *[s for e in testing.openai_events("Sea ", "salty ", "still") for s in (0.4, e)]
    )
    async with testing.record(path, testing.ScriptedTransport(reply)) as transport:
        async with llm.open_client(transport=transport) as client:
            await client.complete(testing.model(), "Hi")
    options = {"ttft": 0.1, "itl": 0.2} if retimed else {}
    async with timed(files=[path], **options) as server:
        async with llm.open_client() as client:
            began = trio.current_time()
            async with client.stream(server.model(), "Hi") as stream:
                at = [c.received_at - began async for c in stream if c.delta]
    assert stream.response.text == "Sea salty still"
    expected = [0.1, 0.3, 0.5] if retimed else [0.8, 1.2, 1.6]
    assert at == pytest.approx(expected, abs=0.005)
    assert server.records[0].tokens.tolist() == [-1, -1, -1]
    assert server.metrics()["tokens"]["completion"] == 0


async def test_what_a_wire_format_has_no_form_for_is_refused(
    clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"script": 1}\n{"tool_calls": [{"name": "f", "arguments": "{no"}]}\n')
    async with timed(files=[path]) as server, httpx.AsyncClient() as client:
        for place in ("/v1/messages", "/v1/completions"):
            response = await client.post(server.url + place, json=CHAT)
            assert response.status_code == 400
            assert "can't make such an answer" in response.text
        response = await client.post(f"{server.base_url}/chat/completions", json=CHAT)
        assert response.status_code == 200


async def test_a_taken_port_and_a_bad_file_are_errors_before_anything_runs(tmp_path: Path) -> None:
    async with open_timed_server() as server:
        with pytest.raises(OSError, match="in use"):
            async with open_timed_server(port=server.port):
                pass
    with pytest.raises(FileNotFoundError):
        async with open_timed_server(ServeOptions(files=[tmp_path / "no"])):
            pass
    with pytest.raises(IsADirectoryError):
        async with open_timed_server(log=tmp_path):
            pass


async def test_an_error_of_the_block_comes_out_as_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_timed_server():
            raise ZeroDivisionError


async def test_a_real_clock_is_met_too() -> None:
    """On the machine's own clock, without a bound on how late a busy machine may be."""
    async with open_timed_server(ServeOptions(ttft=0.02, itl=0.005, tokens=5)) as server:
        await ask(server, stream=True)
        (record,) = server.records
        for number, sent in enumerate(record.sent):
            assert sent - record.received >= 0.02 + 0.005 * number - 1e-6


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"ttft": "no"}, "ttft"),
        ({"itl": -1}, "itl"),
        ({"tokens": "x"}, "tokens"),
        ({"tokens_per_chunk": 0}, "tokens_per_chunk"),
        ({"slots": 0}, "slots"),
        ({"reasoning": -1}, "reasoning"),
        ({"usage": "often"}, "usage"),
        ({"wire": "soap"}, "wire"),
        ({"faults": ["no()"]}, "fault"),
    ],
)
def test_options_are_checked(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ServeOptions(**options)


@pytest.mark.parametrize(
    "fault",
    [
        *(f"stall(0, {'9' * 400})", "stall(0, 1e300)", f"late({'9' * 400})", "late(1e300)"),
        *("drip(1, 1e300)", "inject(1e300)", "error(kind=5)"),
    ],
)
@pytest.mark.parametrize("wire", ["openai", "gemini"])
async def test_an_answer_that_cannot_be_made_costs_no_other_one(
    clock: trio.testing.MockClock, wire: str, fault: str
) -> None:
    path = {"openai": "v1/chat/completions", "gemini": "v1/models/m:streamGenerateContent"}[wire]
    async with timed(ttft=0, itl=0, faults=[fault]) as server:
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            with trio.move_on_after(0.1), suppress(httpx.HTTPError):
                await client.post(f"{server.url}/{path}", json={**CHAT, "stream": True})
            assert (await client.get(f"{server.url}/health")).status_code == 200
