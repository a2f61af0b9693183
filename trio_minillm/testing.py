"""For tests of programs that stream: scripted servers without sockets, and contract checks.

A `ScriptedTransport` answers every request from a script, in memory and on Trio's clock, so
tests run on `trio.testing.MockClock` without a real second passing::

    transport = testing.ScriptedTransport(testing.reply(*testing.openai_events("Hi", " you")))
    async with llm.open_client(transport=transport) as client:
        response = await client.complete(testing.model(), "Hello")
    assert response.content == "Hi you"

`check_provider` proves that a provider keeps the contract of `trio_minillm.Provider`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, TypeAlias

import httpx
import msgspec
import trio

from ._chunks import CompletionResponse, StreamChunk
from ._decode import ChunkDecoder
from ._errors import EndedEarly, ErrorInfo, MiniLLMError
from ._ingest import Ingest
from ._messages import user
from ._models import compatible
from .providers import Model, Provider, Request

__all__ = [
    "Reply",
    "ScriptedTransport",
    "anthropic_events",
    "check_provider",
    "decode",
    "hang",
    "model",
    "openai_events",
    "reply",
    "settlement",
    "sse",
]


class _Hang:
    def __repr__(self) -> str:
        return "hang"


hang: Final = _Hang()
"""A step that never ends: the connection stays open and silent."""

Step: TypeAlias = bytes | float | int | BaseException | _Hang
"""Bytes are sent as one read; a number is a pause in seconds; an exception breaks the
connection with itself; `hang` stays silent for ever."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One scripted response. ``wait`` (seconds) is how long even the headers take."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: dict[str, str] = msgspec.field(
        default_factory=lambda: {"content-type": "text/event-stream"}
    )
    wait: float | _Hang = 0.0
    error: BaseException | None = None
    """Raised in place of a response: the connection failed."""


def reply(*steps: Step, **options: Any) -> Reply:
    """A `Reply` whose body is these steps."""
    return Reply(steps=steps, **options)


class _Body(httpx.AsyncByteStream):
    def __init__(self, transport: ScriptedTransport, steps: Sequence[Step]) -> None:
        self._transport = transport
        self._steps = steps
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._steps:
            if isinstance(step, bytes):
                await trio.lowlevel.checkpoint()
                yield step
            elif isinstance(step, BaseException):
                raise step
            elif isinstance(step, _Hang):
                await trio.sleep_forever()
            else:
                await trio.sleep(step)
        await trio.lowlevel.checkpoint()
        self._transport.read_to_end += 1

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transport.open_bodies -= 1
        await trio.lowlevel.checkpoint()


class ScriptedTransport(httpx.AsyncBaseTransport):
    """A transport that answers the n-th request with the n-th reply, then with the last.

    Questions after the fact, which are GET requests, are answered by ``settlements`` in the same
    way, by default with 404: not known yet. ``requests`` are the other requests that came,
    ``bodies`` their decoded JSON, ``questions`` the GET ones. ``open_bodies`` counts
    responses that were begun and not closed: 0 means that nothing leaked.
    """

    def __init__(self, *replies: Reply, settlements: Sequence[Reply] = ()) -> None:
        self.replies: tuple[Reply, ...] = replies or (reply(*openai_events("ok")),)
        self.settlements: tuple[Reply, ...] = tuple(settlements) or (_NOT_YET,)
        self.requests: list[httpx.Request] = []
        self.questions: list[httpx.Request] = []
        self.open_bodies: int = 0
        self.read_to_end: int = 0

    @property
    def bodies(self) -> list[Any]:
        """The JSON that each request carried."""
        return [json.loads(request.content) for request in self.requests]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer by the script, with the trace events that httpx's own transport gives."""
        came, replies = self.requests, self.replies
        if request.method == "GET":
            came, replies = self.questions, self.settlements
        chosen = replies[min(len(came), len(replies) - 1)]
        await request.aread()
        came.append(request)
        trace = request.extensions.get("trace")
        await trio.lowlevel.checkpoint()
        if chosen.error is not None:
            raise chosen.error
        if trace is not None:
            await trace("http11.send_request_body.complete", {})
        if isinstance(chosen.wait, _Hang):
            await trio.sleep_forever()
        await trio.sleep(chosen.wait)
        self.open_bodies += 1
        return httpx.Response(
            chosen.status, headers=chosen.headers, stream=_Body(self, chosen.steps)
        )


def settlement(cost: float | str | None, *, id: str = "gen-1", **fields: Any) -> Reply:
    """OpenRouter's answer to what a generation cost, in USD; ``fields`` are more of its record."""
    data = {"id": id, "total_cost": cost, "native_tokens_prompt": 7, "native_tokens_completion": 5}
    body = msgspec.json.encode({"data": data | fields})
    return reply(body, headers={"content-type": "application/json"})


_NOT_YET = Reply(
    steps=(b'{"error":{"message":"Generation not found","code":404}}',),
    status=404,
    headers={"content-type": "application/json"},
)


def model(provider: Provider | None = None, **options: Any) -> Model:
    """A model at an address that does not exist, for use with a `ScriptedTransport`."""
    made = compatible("test-model", base_url="http://test.invalid/v1", **options)
    return made if provider is None else msgspec.structs.replace(made, provider=provider)


# -- bodies ----------------------------------------------------------------------------------


def sse(data: Any, event: str | None = None) -> bytes:
    """One server-sent event: ``data`` is sent as it is if text, else as JSON."""
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


def openai_events(
    *deltas: str, finish: str | None = "stop", usage: bool = True, done: bool = True
) -> list[bytes]:
    """The events of an OpenAI chat-completions stream, one ``bytes`` each."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "test-model-1"}

    def choice(delta: dict[str, str], reason: str | None = None) -> bytes:
        inner = {"index": 0, "delta": delta, "finish_reason": reason}
        return sse({**head, "choices": [inner]})

    events = [choice({"role": "assistant", "content": ""})]
    events += [choice({"content": delta}) for delta in deltas]
    if finish is not None:
        events.append(choice({}, finish))
    if usage:
        made = len(deltas)
        counts = {"prompt_tokens": 7, "completion_tokens": made, "total_tokens": 7 + made}
        events.append(sse({**head, "choices": [], "usage": counts}))
    return [*events, sse("[DONE]")] if done else events


def anthropic_events(*deltas: str, stop: str | None = "end_turn") -> list[bytes]:
    """The events of an Anthropic Messages stream, one ``bytes`` each."""

    def event(kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, **fields}, kind)

    message = {"id": "msg_1", "model": "claude-test", "content": [], "usage": _PROVISIONAL}
    block = {"type": "text", "text": ""}
    events = [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block=block),
    ]
    for delta in deltas:
        inner = {"type": "text_delta", "text": delta}
        events.append(event("content_block_delta", index=0, delta=inner))
    events.append(event("content_block_stop", index=0))
    if stop is not None:
        usage = {"output_tokens": len(deltas)}
        events.append(event("message_delta", delta={"stop_reason": stop}, usage=usage))
        events.append(event("message_stop"))
    return events


_PROVISIONAL = {"input_tokens": 7, "output_tokens": 1}


def decode(
    provider: Provider, pieces: Iterable[bytes], *, expect_usage: bool = True, choices: int = 1
) -> tuple[CompletionResponse, MiniLLMError | None]:
    """What a response body, in these pieces, comes to: no HTTP, no waiting.

    Returns the response and the error that ended it, if one did.
    """
    state = Ingest(
        model="?",
        expect_usage=expect_usage,
        choices=choices,
        wire=provider.replay_wire,
        awaits_end=provider.ends_itself,
    )
    decoder = ChunkDecoder(provider)
    for piece in pieces:
        state.ingest_all(decoder.feed(piece, 0.0))
    state.ingest_all(decoder.finish(0.0))
    state.fail(decoder.error or EndedEarly("the body ended"))
    return state.response(), state.error


# -- the contract of a provider ----------------------------------------------------------------

MALFORMED: Final = tuple(
    s.encode() if isinstance(s, str) else s
    for s in (
        "null", "true", "0", '""', '"text"', "[]", "[[]]", "{}", "{", "NaN", '{"a":NaN}',
        '{"choices":{}}', '{"choices":[null]}', '{"choices":[[]]}', '{"choices":[{"delta":[]}]}',
        '{"choices":[{"delta":{"content":{}}}]}', '{"choices":[{"delta":{"tool_calls":{}}}]}',
        '{"choices":[{"delta":{"tool_calls":[null]}}]}', '{"usage":[]}',
        '{"choices":[],"usage":{"prompt_tokens":"x"}}', '{"error":null}', '{"error":[]}',
        '{"type":"content_block_delta"}', '{"type":"content_block_delta","index":0,"delta":{}}',
        '{"type":"content_block_start","index":"0"}', '{"type":"message_start","message":1}',
        '{"type":"message_delta","usage":{"output_tokens":-1}}', '{"type":7}', "<html>",
        "9" * 10_000, '{"id":' + "9" * 10_000 + "}", "[" * 100_000, b"\xff\xfe", b'{"id":"\xff"}',
    )
)  # fmt: skip
"""Events that no provider sends and every provider must survive."""


def check_provider(
    model: Model, *, streams: Iterable[bytes] = (), errors: Iterable[bytes] = ()
) -> None:
    """Prove that a model's provider keeps the contract; ``AssertionError`` says what it broke.

    ``streams`` are whole response bodies of its wire, each of which must come to a finished
    answer; ``errors`` are bodies of error responses. Checked: the request is JSON, pure and
    without the key; headers can be sent; parsing keeps no state between calls, does not depend
    on how bytes are cut, and raises nothing but the errors it may for malformed events.
    """
    provider = model.provider
    _check_request(model)
    for number, body in enumerate(streams):
        whole, error = decode(provider, [body])
        assert error is None, f"streams[{number}] does not finish: {error!r}"
        cut, error = decode(provider, [body[i : i + 1] for i in range(len(body))])
        assert _same(whole, cut), f"streams[{number}] depends on how its bytes are cut"
    _check_stateless(provider, list(streams))
    for data in MALFORMED:
        _check_malformed(provider, data)
    for body in (*errors, b"", b"{}", b"null", b"<html>", b'{"error":"x"}', b"\xff"):
        info = provider.parse_error(500, body)
        assert isinstance(info, ErrorInfo), "parse_error must return an ErrorInfo for any body"
        assert info.status == 500, "parse_error must keep the HTTP status"


def _check_request(model: Model) -> None:
    provider = model.provider
    secret = "the-key-that-is-nowhere-else"  # noqa: S105 - a canary
    model = msgspec.structs.replace(model, api_key=secret)
    request = Request(model=model, messages=(user("Hello"),), params={}, extra={})
    body = provider.build_request(request)
    encoded = msgspec.json.encode(body)
    assert encoded == msgspec.json.encode(provider.build_request(request)), "it must be pure"
    assert secret.encode() not in encoded, "the key belongs into a header"
    assert b"Hello" in encoded, "the request must carry the messages"
    assert httpx.URL(provider.endpoint_url(model)).is_absolute_url, "endpoint_url must be a URL"
    headers = {**provider.auth_headers(model), **provider.request_headers(request)}
    for name, value in headers.items():
        assert (name + value).isascii(), f"header {name} can't be sent"
        assert name == name.lower(), f"header {name} must be in lower case"
    assert secret not in repr(request) + repr(model) + repr(provider), "repr shows the key"


def _check_stateless(provider: Provider, streams: list[bytes]) -> None:
    """Two bodies decoded in turns come to the same as one after the other."""
    for first, second in zip(streams, streams[1:] + streams[:1], strict=True):
        decoders = (ChunkDecoder(provider), ChunkDecoder(provider))
        chunks: tuple[list[StreamChunk], list[StreamChunk]] = ([], [])
        for i in range(0, max(len(first), len(second)), 16):
            for decoder, body, out in zip(decoders, (first, second), chunks, strict=True):
                out += decoder.feed(body[i : i + 16], 0.0)
        for body, decoder, out in zip((first, second), decoders, chunks, strict=True):
            out += decoder.finish(0.0)
            alone = ChunkDecoder(provider)
            expected = [*alone.feed(body, 0.0), *alone.finish(0.0)]
            assert out == expected, "parsing must keep nothing between two calls"


def _check_malformed(provider: Provider, data: bytes) -> None:
    for parse in (provider.parse_chunk, lambda d: provider.parse_event("error", d)):
        try:
            parse(data)
        except (MiniLLMError, msgspec.MsgspecError, RecursionError, UnicodeError):
            pass
        except Exception as exc:
            shown = data[:60]
            raise AssertionError(f"{shown!r} raises a foreign {type(exc).__name__}") from exc


def _same(one: CompletionResponse, other: CompletionResponse) -> bool:
    return msgspec.structs.asdict(one) == msgspec.structs.asdict(other)
