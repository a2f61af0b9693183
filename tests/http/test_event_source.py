"""Streams over answers that another client has received."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import httpx2
import httpx_sse
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import StreamingCompletion
from trio_minillm.testing import anthropic_events, hang, openai_events, reply, serve, sse

OPENAI = llm.compatible("m", base_url="http://host.invalid/v1", api_key="key-0123456789")
CLAUDE = llm.anthropic("m", api_key="key-0123456789")
BODY = b"".join(e for e in openai_events("Hel", "lo") if isinstance(e, bytes))


def run(main: Any) -> Any:
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def pieces(*given: Any) -> AsyncIterator[Any]:
    for piece in given:
        await trio.lowlevel.checkpoint()
        yield piece


def http(handler: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))


@given(st.lists(st.integers(0, len(BODY)), max_size=9).map(sorted), st.booleans())
def test_any_cut_of_a_body_gives_the_answer(places: list[int], text: bool) -> None:
    cuts = [BODY[a:b] for a, b in zip([0, *places], [*places, len(BODY)], strict=True)]
    given = [cut.decode() for cut in cuts] if text else cuts

    async def main() -> None:
        async with StreamingCompletion.from_event_source(pieces(*given), OPENAI) as stream:
            assert [c.delta async for c in stream if c.delta] == ["Hel", "lo"]
        assert stream.outcome is llm.Outcome.FINISHED
        assert stream.response.usage is not None

    run(main)


@pytest.mark.parametrize("model", [OPENAI, CLAUDE], ids=["openai", "anthropic"])
def test_a_response_of_httpx_and_its_event_source(model: llm.Model) -> None:
    events = anthropic_events("Hel", "lo") if model is CLAUDE else openai_events("Hel", "lo")
    body = b"".join(e for e in events if isinstance(e, bytes))
    headers = {"content-type": "text/event-stream", "x-request-id": "req-1"}

    async def main() -> None:
        async with http(lambda _: httpx.Response(200, headers=headers, content=body)) as client:
            for around in (lambda r: r, httpx_sse.EventSource):
                async with client.stream("POST", "http://host.invalid/v1/x") as response:
                    source = around(response)
                    async with StreamingCompletion.from_event_source(source, model) as stream:
                        answer = await stream.collect()
                    assert answer.content == "Hello"
                    assert answer.request_id == "req-1"

    run(main)


def test_events_that_another_library_has_framed() -> None:
    async def main() -> None:
        events = [
            httpx_sse.ServerSentEvent(event=e.partition(b"\n")[0][7:].decode(), data=data.decode())
            for e in anthropic_events("a\nb")
            if isinstance(e, bytes) and (data := e.partition(b"data: ")[2].strip())
        ]
        async with StreamingCompletion.from_event_source(pieces(*events), CLAUDE) as stream:
            assert (await stream.collect()).content == "a\nb"

    run(main)


class Iterator:
    """An async iterator that is no generator, and has nothing to be closed."""

    def __init__(self, *given: bytes) -> None:
        self.given = list(given)

    def __aiter__(self) -> Iterator:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.given:
            raise StopAsyncIteration
        return self.given.pop(0)


def test_any_async_iterable_is_taken() -> None:
    async def main() -> None:
        async with StreamingCompletion.from_event_source(Iterator(BODY), OPENAI) as stream:
            assert (await stream.collect()).content == "Hello"

    run(main)


def test_a_refusal_is_one_and_is_not_repeated() -> None:
    async def main() -> None:
        body = {"error": {"message": "slow down key-0123456789", "type": "rate_limit_error"}}
        async with http(lambda _: httpx.Response(429, json=body)) as client:
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                async with StreamingCompletion.from_event_source(response, OPENAI) as stream:
                    with pytest.raises(llm.RefusedError, match="slow down") as caught:
                        await stream.collect()
        assert caught.value.kind == "rate_limit"
        assert "key-0123456789" not in str(caught.value)

    run(main)


def test_silence_and_leaving_close_the_source() -> None:
    closed: list[str] = []

    async def silent() -> AsyncIterator[bytes]:
        try:
            yield sse({"choices": [{"delta": {"content": "a"}}]})
            await trio.sleep_forever()
        finally:
            closed.append("yes")

    async def main() -> None:
        clocks = llm.Timeouts(idle=3.0)
        async with StreamingCompletion.from_event_source(
            silent(), OPENAI, timeouts=clocks
        ) as stream:
            begun = trio.current_time()
            with pytest.raises(llm.StreamTimeout) as caught:
                await stream.collect()
            assert caught.value.clock == "idle"
            assert trio.current_time() - begun == pytest.approx(3.0)
        assert closed == ["yes"]
        async with StreamingCompletion.from_event_source(silent(), OPENAI) as stream:
            assert (await anext(stream)).delta == "a"
        assert stream.outcome is llm.Outcome.CANCELLED
        assert closed == ["yes", "yes"]

    run(main)


def test_cancelled_from_outside_it_closes_the_source_and_keeps_what_came() -> None:
    closed: list[str] = []

    async def silent() -> AsyncIterator[bytes]:
        try:
            yield sse({"choices": [{"delta": {"content": "a"}}]})
            await trio.sleep_forever()
        finally:
            closed.append("yes")

    async def main() -> None:
        stream = StreamingCompletion.from_event_source(silent(), OPENAI)
        with trio.move_on_after(1) as scope:
            async with stream:
                await stream.collect()
        assert scope.cancelled_caught
        assert (stream.outcome, stream.accumulated) == (llm.Outcome.CANCELLED, "a")
        assert closed == ["yes"]

    run(main)


def test_its_options_are_those_of_a_call() -> None:
    async def main() -> None:
        body = [sse("{broken"), sse({"choices": [{"delta": {"content": "[1]"}}]}), sse("[DONE]")]
        stop = sse({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        async with StreamingCompletion.from_event_source(
            pieces(*body[:2], stop, body[2]),
            OPENAI,
            expect_usage=False,
            lenient=True,
            raw=True,
            response_type=list[int],
        ) as stream:
            chunks = [chunk async for chunk in stream]
            assert all(chunk.raw for chunk in chunks)
        assert stream.response.skipped_events == 1
        assert stream.response.parsed() == [1]
        small = llm.Bounds(event=64 * 1024)
        long = sse({"choices": [{"delta": {"content": "a" * 100_000}}]})
        async with StreamingCompletion.from_event_source(
            pieces(long), OPENAI, bounds=small
        ) as stream:
            with pytest.raises(llm.LimitExceeded):
                await stream.collect()

    run(main)


def test_what_raises_in_the_source_is_a_bug_and_comes_out() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BODY[:20]
        raise KeyError("of the source")

    async def main() -> None:
        with pytest.raises(KeyError, match="of the source"):
            async with StreamingCompletion.from_event_source(broken(), OPENAI) as stream:
                await stream.collect()

    run(main)


@pytest.mark.parametrize("source", [None, b"bytes", [b"bytes"], iter([b"bytes"])])
def test_another_source_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="neither a response nor an async iterable"):
        StreamingCompletion.from_event_source(source, OPENAI)


def test_the_answer_costs_what_its_tokens_cost() -> None:
    price = llm.TokenPrice(input=1, output=2)
    model = llm.compatible("m", base_url="http://host.invalid/v1", price=price)

    async def main() -> None:
        async with StreamingCompletion.from_event_source(pieces(BODY), model) as stream:
            answer = await stream.collect()
        assert answer.usage is not None
        tokens = (answer.usage.prompt_tokens or 0) + 2 * (answer.usage.completion_tokens or 0)
        assert answer.cost.resolution is llm.CostResolution.RESOLVED
        assert answer.cost.amount == Decimal(tokens) / 1_000_000

    run(main)


def test_a_response_that_was_read_whole_is_read_again_from_memory() -> None:
    headers = {"content-type": "text/event-stream", "x-request-id": "req-1"}

    async def main() -> None:
        async with http(lambda _: httpx.Response(200, headers=headers, content=BODY)) as client:
            read = await client.post("http://host.invalid/v1/x")
            async with client.stream("POST", "http://host.invalid/v1/x") as left:
                await left.aread()
            alone = httpx.Response(200, headers=headers, content=BODY)
            for response in (read, left, alone):
                async with StreamingCompletion.from_event_source(response, OPENAI) as stream:
                    answer = await stream.collect()
                assert (answer.content, answer.request_id) == ("Hello", "req-1")

    run(main)


class Body(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield BODY[:20]
        yield BODY[20:]


def answers(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=Body())


def test_a_response_that_was_not_read_is_streamed() -> None:
    async def main() -> None:
        async with (
            http(answers) as client,
            client.stream("POST", "http://host.invalid/v1/x") as response,
            StreamingCompletion.from_event_source(response, OPENAI) as stream,
        ):
            assert (await stream.collect()).content == "Hello"

    run(main)


def test_a_response_whose_body_is_gone_is_refused_at_once() -> None:
    async def main() -> None:
        async with http(answers) as client:
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                async for _ in response.aiter_raw():
                    pass
                with pytest.raises(ValueError, match="already read or closed: pass it unread"):
                    StreamingCompletion.from_event_source(response, OPENAI)
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                pass
            with pytest.raises(ValueError, match="already read or closed"):
                StreamingCompletion.from_event_source(response, OPENAI)

    run(main)


@pytest.mark.parametrize(
    ("text", "read"),
    [("Hello", "Hello"), ("a\u2028b\u0085c", "a\u2028b\u2028c")],  # httpx cuts at both
    ids=["plain", "cut inside"],
)
def test_lines_of_httpx_get_their_ends_back(text: str, read: str) -> None:
    events = b"".join(e for e in openai_events("x") if isinstance(e, bytes))
    body = events.replace(b'"x"', f'"{text}"'.encode())

    async def main() -> None:
        async with (
            http(lambda _: httpx.Response(200, content=body)) as client,
            client.stream("POST", "http://host.invalid/v1/x") as response,
            StreamingCompletion.from_event_source(response.aiter_lines(), OPENAI) as stream,
        ):
            assert (await stream.collect()).content == read

    run(main)


@pytest.mark.parametrize("item", [{"event": "message", "data": "{}"}, 5, None])
def test_items_of_another_kind_are_a_mistake_of_the_program(item: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="neither bytes, text, nor a server-sent event"):
            async with StreamingCompletion.from_event_source(pieces(item), OPENAI) as stream:
                await stream.collect()

    run(main)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"model": "gpt"}, TypeError, "model must be a Model"),
        ({"choices": "2"}, ValueError, "choices must be a whole number, 1 or more"),
        ({"timeouts": 0}, TypeError, "timeouts must be Timeouts or None, not int"),
        ({"bounds": None}, TypeError, "bounds must be Bounds, not NoneType"),
    ],
)
def test_options_of_another_kind_are_told(given: Any, error: Any, words: str) -> None:
    async def main() -> None:
        with pytest.raises(error, match=words):
            StreamingCompletion.from_event_source(pieces(), **{"model": OPENAI, **given})

    run(main)


# -- by name, and with one clock ---------------------------------------------------------------


@pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
def test_a_name_and_a_provider_are_enough(wire: str) -> None:
    provider = llm.providers.OpenAIChat() if wire == "openai" else llm.providers.Anthropic()
    events = openai_events("Hel", "lo") if wire == "openai" else anthropic_events("Hel", "lo")
    if wire == "gemini":
        provider = llm.providers.Gemini()
        said = {"content": {"parts": [{"text": "Hello"}]}, "finishReason": "STOP"}
        events = [sse({"candidates": [said], "usageMetadata": {"totalTokenCount": 3}})]
    body = b"".join(events)
    headers = {"content-type": "text/event-stream"}

    async def main() -> None:
        async with http(lambda _: httpx.Response(200, headers=headers, content=body)) as client:
            url = "https://host.invalid/v1/x?key=secret"
            async with httpx_sse.aconnect_sse(client, "POST", url) as source:
                async with StreamingCompletion.from_event_source(
                    source, model="m", provider=provider, expect_usage=True, idle_timeout=5
                ) as stream:
                    assert (await stream.collect()).content == "Hello"
                assert stream.model
        async with StreamingCompletion.from_event_source(
            pieces(body), "m", provider=provider
        ) as stream:
            assert (await stream.collect()).content == "Hello"

    run(main)


def test_a_provider_takes_the_place_of_the_models() -> None:
    async def main() -> None:
        body = b"".join(anthropic_events("Hello"))
        provider = llm.providers.Anthropic()
        async with StreamingCompletion.from_event_source(
            pieces(body), OPENAI, provider=provider
        ) as stream:
            assert (await stream.collect()).content == "Hello"

    run(main)


@pytest.mark.parametrize("begun", [False, True])
def test_one_clock_for_all_silence(begun: bool) -> None:
    async def silent() -> AsyncIterator[bytes]:
        if begun:
            yield sse({"choices": [{"delta": {"content": "a"}}]})
        await trio.sleep_forever()

    async def main() -> None:
        async with StreamingCompletion.from_event_source(
            silent(), OPENAI, idle_timeout=7
        ) as stream:
            with pytest.raises(llm.StreamTimeout) as caught:
                await stream.collect()
        assert (caught.value.clock, caught.value.limit) == ("idle" if begun else "first_chunk", 7)
        assert trio.current_time() == pytest.approx(7)

    run(main)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"model": "m", "provider": "openai"}, TypeError, "provider must be Provider or None"),
        ({"idle_timeout": "5"}, ValueError, "idle_timeout must be a number of seconds"),
        ({"idle_timeout": 5, "timeouts": llm.Timeouts()}, ValueError, "or timeouts, not both"),
    ],
)
def test_options_that_do_not_go_together(given: Any, error: Any, words: str) -> None:
    async def main() -> None:
        with pytest.raises(error, match=words):
            StreamingCompletion.from_event_source(pieces(), **{"model": OPENAI, **given})

    run(main)


# -- how events are read -----------------------------------------------------------------------

TEXTS = {
    "U+2028 and U+0085": ("a\u2028b\u0085c", {}),
    "a byte-order mark": ("Hello", {"before": b"\xef\xbb\xbf"}),
    "no blank line behind the last event": ("Hello", {"last": -1}),
    "no line's end at all": ("Hello", {"last": -2}),
    "another content type": ("Hello", {"kind": "text/plain"}),
    "no content type": ("Hello", {"kind": ""}),
    "lines that end in CR": ("Hello", {"end": b"\r"}),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_event_sources_own_parser_costs_nothing(case: str, package: Any) -> None:
    text, options = TEXTS[case]
    events = b"".join(openai_events("x", done=False)).replace(b'"x"', f'"{text}"'.encode())
    body = options.get("before", b"") + events[: options.get("last")]
    body = body.replace(b"\n", options.get("end", b"\n"))
    kind = options.get("kind", "text/event-stream")
    answer = package.Response(200, headers={"content-type": kind} if kind else {}, content=body)
    around = httpx_sse.EventSource if package is httpx else httpx2.EventSource

    async def main() -> None:
        transport = package.MockTransport(lambda _: answer)
        async with package.AsyncClient(transport=transport) as client:
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                async with StreamingCompletion.from_event_source(
                    around(response), OPENAI
                ) as stream:
                    answered = await stream.collect()
            for read in (response, await client.post("http://host.invalid/v1/x")):
                if not hasattr(read, "_content"):
                    continue
                async with StreamingCompletion.from_event_source(read, OPENAI) as stream:
                    assert (await stream.collect()).content == text
        assert (answered.content, answered.outcome) == (text, llm.Outcome.FINISHED)
        assert answered.usage is not None

    run(main)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_events_of_httpx_sse_under_another_content_type(package: Any) -> None:
    """Its generator asks for the content type itself, and tells nothing else."""

    async def main() -> None:
        answer = package.Response(200, json={"error": "key-0123456789"})
        transport = package.MockTransport(lambda _: answer)
        async with package.AsyncClient(transport=transport) as client:
            async with client.stream("GET", "http://host.invalid/") as response:
                if package is httpx:
                    events: Any = httpx_sse.EventSource(response).aiter_sse()
                else:
                    events = aiter(httpx2.EventSource(response))
                async with StreamingCompletion.from_event_source(events, OPENAI) as stream:
                    with pytest.raises(llm.ProtocolError, match="another content type"):
                        await stream.collect()

    run(main)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_break_in_somebody_elses_iterable_is_a_cut(package: Any) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BODY[:20]
        raise package.ReadError("gone")

    async def main() -> None:
        async with StreamingCompletion.from_event_source(broken(), OPENAI) as stream:
            with pytest.raises(llm.ConnectionCut):
                await stream.collect()

    run(main)


def test_a_failure_of_its_own_is_no_cut_where_httpx2_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "httpx2")

    async def broken() -> AsyncIterator[bytes]:
        yield BODY[:20]
        raise KeyError("gone")

    async def main() -> None:
        with pytest.raises(KeyError):
            async with StreamingCompletion.from_event_source(broken(), OPENAI) as stream:
                await stream.collect()

    run(main)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_status_is_a_refusal_whatever_the_content_type(package: Any, status: int) -> None:
    body = {"error": {"message": "no", "type": "t"}}

    async def main() -> None:
        answer = package.Response(status, json=body, headers={"retry-after": "3"})
        transport = package.MockTransport(lambda _: answer)
        around = httpx_sse.EventSource if package is httpx else httpx2.EventSource
        async with package.AsyncClient(transport=transport) as client:
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                async with StreamingCompletion.from_event_source(
                    around(response), OPENAI
                ) as stream:
                    with pytest.raises(llm.RefusedError) as caught:
                        await stream.collect()
        assert (caught.value.status, caught.value.retry_after) == (status, 3)
        assert str(caught.value.url) == "http://host.invalid/v1/x"

    run(main)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("read", [False, True])
def test_the_key_of_the_client_that_asked_is_not_repeated(package: Any, read: bool) -> None:
    """No model has it: the program's own client has sent it."""
    header, field = "token-0123456789abcdef", "AIzaSy0123456789abcdef"

    async def main() -> None:
        answer = package.Response(
            401,
            json={"error": {"message": f"bad {header} or {field}"}},
            headers={"x-request-id": header, "x-echo": field},
        )
        client = package.AsyncClient(transport=package.MockTransport(lambda _: answer))
        sent = {"authorization": f"Bearer {header}"}
        url = f"http://host.invalid/v1/x?key={field}"
        async with client, client.stream("POST", url, headers=sent) as response:
            if read:
                await response.aread()
            async with StreamingCompletion.from_event_source(
                response, "m", provider=llm.providers.Gemini()
            ) as stream:
                with pytest.raises(llm.RefusedError, match="bad") as caught:
                    await stream.collect()
            shown = f"{caught.value} {vars(caught.value)} {stream.headers}"
        assert header not in shown
        assert field not in shown

    run(main)


def test_a_response_of_httpx2_whose_body_is_gone_is_refused_at_once() -> None:
    class Body2(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield BODY

    async def main() -> None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Body2()))
        async with httpx2.AsyncClient(transport=transport) as client:
            async with client.stream("POST", "http://host.invalid/v1/x") as response:
                async for _ in response.aiter_raw():
                    pass
                with pytest.raises(ValueError, match="already read or closed"):
                    StreamingCompletion.from_event_source(response, OPENAI)

    run(main)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("left", [False, True])
async def test_over_sockets_an_event_source_is_read_as_it_comes(package: Any, left: bool) -> None:
    events = openai_events("Hel", "lo")
    answer = reply(*events[:3], hang) if left else reply(*events)
    around = httpx_sse.EventSource if package is httpx else httpx2.EventSource
    async with serve(answer) as server, package.AsyncClient(trust_env=False) as client:
        async with client.stream("POST", f"{server.base_url}/x") as response:
            async with StreamingCompletion.from_event_source(around(response), OPENAI) as stream:
                assert (await anext(stream)).delta == "Hel"
                if not left:
                    assert (await stream.collect()).content == "Hello"
        assert stream.outcome is (llm.Outcome.CANCELLED if left else llm.Outcome.FINISHED)
        await server.left_with(0 if left else 1)


def test_a_name_goes_with_a_response_that_nobody_has_asked_for() -> None:
    async def main() -> None:
        for response in (httpx.Response(200, content=BODY), httpx2.Response(200, content=BODY)):
            async with StreamingCompletion.from_event_source(
                response, "m", provider=llm.providers.OpenAIChat()
            ) as stream:
                assert (await stream.collect()).content == "Hello"

    run(main)
