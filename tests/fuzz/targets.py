"""Fuzz targets, each of which takes any bytes and raises if something happens that must not.

`answer`: whatever a server's body is, it comes to chunks and exactly one outcome, or to one error of
    ours with what had arrived in ``partial``. The same whole, cut anywhere, and byte by byte; the
    same by the fast path and by the slow one; folded in batches or chunk by chunk. No foreign
    exception, no key in an error, nothing held that is out of proportion, and the answer can be
    encoded and sent back.
`http`: whatever a connection's bytes are, they come to a head and a body, or to `BadResponse`; the
    same however they are cut, and never more body than there were bytes.
`refusal`: whatever an error's body, a settlement or a header is, it can be read.
`request`: whatever messages and parameters are, they come to JSON, or to ``ValueError`` or
    ``TypeError`` that does not show the prompt.

An input's first 8 bytes choose the wire, how to cut, and what else to check; see `Choices`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
import msgspec
import trio

import trio_minillm as llm
from trio_minillm._client import Client
from trio_minillm._http.http1 import BadResponse, ResponseParser
from trio_minillm._protocol.decoder import ChunkDecoder, redact
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._types import messages as parts_of
from trio_minillm._types.errors import EXCERPT_CHARS, EndedEarly, ErrorInfo, MiniLLMError
from trio_minillm._types.options import retry_after
from trio_minillm._types.params import PARAM_NAMES
from trio_minillm.providers import (
    Anthropic,
    Compatible,
    Gemini,
    OpenAIChat,
    OpenAIResponses,
    OpenRouter,
    Provider,
    Request,
    TextCompletions,
)
from trio_minillm.testing import ScriptedTransport

HEAD = 8
KEY = "sk-fuzz-0123456789"
PROVIDERS: tuple[Provider, ...] = (
    OpenAIChat(),
    Anthropic(),
    OpenRouter(),
    Compatible(),
    OpenAIResponses(),
    Gemini(),
    Gemini(),
    TextCompletions(),
)
_URL = "http://test.invalid/v1"
MODELS = (
    llm.openai("m", base_url=_URL, api_key=KEY),
    llm.anthropic("m", base_url=_URL, api_key=KEY),
    llm.openrouter("m", base_url=_URL, api_key=KEY),
    llm.compatible("m", base_url=_URL, api_key=KEY),
    llm.openai_responses("m", base_url=_URL, api_key=KEY),
    llm.gemini("gemini-3-pro", base_url=_URL, api_key=KEY),
    llm.gemini("gemini-2.5-pro", base_url=_URL, api_key=KEY),
    llm.text_completions("m", base_url=_URL, api_key=KEY),
)
HELD = 96
"""`QUICK_BYTES` while fuzzing: what is longer goes another way, and inputs are short."""
GROWTH = 64
"""Largest ratio allowed of an encoded answer to the bytes that came.

Text is in it twice, and a call that came as 20 bytes has ids and names.
"""


class Choices(NamedTuple):
    """Choices that the first bytes of an input make."""

    wire: int
    expect_usage: bool
    lenient: bool
    raw: bool
    more: int
    pieces: list[bytes]
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Choices:
        head, body = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
        flags = head[0]
        pieces = _cut(body, head[1], head[2:])
        return cls(
            (flags & 7) % len(PROVIDERS),
            bool(flags & 8),
            bool(flags & 16),
            bool(flags & 32),
            flags >> 6 | (head[1] & 1) << 2,
            pieces,
            body,
        )


def _cut(body: bytes, how: int, places: bytes) -> list[bytes]:
    """In pieces of one size (1 to 128 bytes, about 100 of them at most), or at three places."""
    if how & 1:
        size = max((how >> 1) + 1, len(body) // 100)
        return [body[i : i + size] for i in range(0, len(body), size)]
    cuts = [int.from_bytes(places[i : i + 2], "little") % (len(body) + 1) for i in (0, 2, 4)]
    edges = [0, *sorted(cuts), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


# -- answers -------------------------------------------------------------------------------------


class Decoded(NamedTuple):
    """Result of decoding a body; ``batches`` are its chunks as they came."""

    batches: list[list[llm.StreamChunk]]
    facts: tuple[Any, ...]
    error: MiniLLMError | None

    @property
    def chunks(self) -> list[llm.StreamChunk]:
        return [chunk for batch in self.batches for chunk in batch]


def _decoded(
    provider: Provider, pieces: Iterable[bytes], *, slow: bool = False, **options: bool
) -> Decoded:
    decoder = ChunkDecoder(provider, secrets=[KEY.encode()], **options)
    if slow:
        decoder._credit = 0  # no template is ever learned
    else:
        decoder._learn_from = 0  # and here from the first event on
    batches = [decoder.feed(piece, 0.0) for piece in pieces]
    batches.append(decoder.finish(0.0))
    error = decoder.error
    said = (type(error), str(error), getattr(error, "event", None))
    return Decoded(batches, (*said, decoder.events, decoder.left_out.skipped), error)


def _state(choices: Choices) -> Ingest:
    provider = PROVIDERS[choices.wire]
    return Ingest(
        model="m",
        expect_usage=choices.expect_usage,
        choices=1 + (choices.more & 1),
        wire=provider.replay_wire,
    )


def _folded(state: Ingest, batches: Iterable[list[llm.StreamChunk]], end: MiniLLMError) -> Any:
    for batch in batches:
        state.ingest_all(batch)
    state.fail(end)
    return state.response()


def answer(data: bytes) -> None:
    """A body of a 200."""
    choices = Choices.of(data)
    provider = PROVIDERS[choices.wire]
    whole = _decoded(provider, [choices.body], lenient=choices.lenient)
    ways = {
        "cut": _decoded(provider, choices.pieces, lenient=choices.lenient),
        "slow": _decoded(provider, [choices.body], lenient=choices.lenient, slow=True),
    }
    if choices.raw:
        ways["raw"] = _decoded(provider, [choices.body], lenient=choices.lenient, raw=True)
        for chunk in ways["raw"].chunks:
            chunk.raw = None
    for name, way in ways.items():
        assert way.facts == whole.facts, f"{name}: {way.facts} is not {whole.facts}"
        assert way.chunks == whole.chunks, f"{name}: other chunks"
    if whole.error is not None:
        assert isinstance(whole.error, llm.StreamError), repr(whole.error)
        assert KEY not in f"{whole.error!r}{whole.error}", "an error shows the key"
    _fold(choices, whole, ways)


def _fold(choices: Choices, whole: Decoded, ways: Mapping[str, Decoded]) -> None:
    end = whole.error or EndedEarly("the body ended")
    state = _state(choices)
    response = _folded(state, whole.batches, end)
    outcome, error = state.outcome, state.error
    assert outcome in (llm.Outcome.FINISHED, llm.Outcome.TRUNCATED, llm.Outcome.ERRORED)
    assert (error is None) == (outcome is llm.Outcome.FINISHED), "an error or an answer"
    encoded = msgspec.json.encode(response)
    bound = GROWTH * (len(choices.body) + 64)
    assert len(encoded) <= bound, f"{len(encoded)} bytes held of {len(choices.body)}"
    if error is not None:
        assert error.partial is not None, "what had arrived is lost"
        assert msgspec.json.encode(error.partial) == encoded, "what had arrived is something else"
    for name, way in ways.items():
        one_by_one = ([chunk] for chunk in way.chunks)
        again = _folded(_state(choices), one_by_one, way.error or EndedEarly("the body ended"))
        assert msgspec.json.encode(again) == encoded, f"{name}: another answer, chunk by chunk"
    state.ingest_all([llm.StreamChunk("late", finish_reason="late")])
    state.fail(EndedEarly("late"))
    state.cancel(rejected=True)
    assert (state.outcome, state.error) == (outcome, error), "an outcome changed"
    assert msgspec.json.encode(state.response()) == encoded, "an answer changed after its end"
    _send_back(choices, response)


def _send_back(choices: Choices, response: llm.CompletionResponse) -> None:
    """The turn of an answer is one that its own wire takes, or says why not."""
    if not response.to_message().parts:
        return
    model = MODELS[choices.wire]
    messages: tuple[llm.Message, ...] = (llm.user("x"), response.to_message(), llm.user("y"))
    if model.provider.name == "text":  # it has no turns: what was said is the next prompt
        messages = (llm.user("x", response.content),)
    request = Request(model=model, messages=messages, params={}, extra={})
    body = model.provider.build_request(request)
    assert isinstance(json.loads(msgspec.json.encode(body)), dict)


# -- HTTP ----------------------------------------------------------------------------------------


def http(data: bytes) -> None:
    """The bytes of a connection that was asked one thing."""
    choices = Choices.of(data)
    no_body, ends = bool(choices.more & 1), bool(choices.more & 2)
    whole = _parsed([choices.body], no_body, ends)
    cut = _parsed(choices.pieces, no_body, ends)
    assert cut == whole, f"cut: {cut} is not {whole}"


def _parsed(pieces: Iterable[bytes], no_body: bool, ends: bool) -> tuple[Any, ...]:
    parser = ResponseParser(no_body=no_body)
    body, size, fault = b"", 0, ""
    try:
        for piece in pieces:
            size += len(piece)
            parser.feed(piece)
            body += parser.take()
        if parser.head:
            parser.check()
        if ends:
            parser.feed_end()
            body += parser.take()
    except BadResponse as exc:
        if not parser.head:
            return ("no head",)
        fault = str(exc)
    assert len(body) <= size, "more body than bytes"
    if not parser.head:
        return ("no head",)
    head = parser.take_head()
    assert sum(len(n) + len(v) for n, v in head.headers) <= size, "more headers than bytes"
    assert head.status >= 200, "an interim response is handed out"
    complete = parser.complete and not fault
    facts = head.status, head.version, tuple(head.headers), body
    return (*facts, complete, complete and parser.reusable, fault)


# -- refusals and settlements --------------------------------------------------------------------


def refusal(data: bytes) -> None:
    """The body of an error, the answer to a question after the fact, and a header's value."""
    choices = Choices.of(data)
    provider, body = PROVIDERS[choices.wire], choices.body
    status = (None, 400, 401, 402, 404, 429, 500, 529)[choices.more]
    body_shown = redact(body, [KEY.encode()])
    info = provider.parse_error(status, body_shown)
    if status is not None and choices.lenient:
        info = provider.parse_refusal(status, {"retry-after": "1"}, body_shown)
    assert isinstance(info, ErrorInfo)
    assert len(info.message) <= EXCERPT_CHARS + 1, "an endless excerpt"
    assert status is None or info.status == status
    error = llm.RefusedError(info)
    assert KEY not in f"{info!r}{info.message}{info.code}{info.type}{error!r}", "the key is shown"
    with_value = {("retry-after", "retry-after-ms")[choices.lenient]: body.decode("latin-1")}
    wait = retry_after(with_value, now=1e9)
    assert wait is None or 0 <= wait < float("inf")
    try:
        usage = OpenRouter().parse_settlement(body)
    except (MiniLLMError, msgspec.MsgspecError, RecursionError, UnicodeError):
        return
    if usage is not None:
        MODELS[2].provider.cost_of(usage, None)


# -- requests ------------------------------------------------------------------------------------

SECRET = "the-prompt-that-is-nowhere-else"
_ATOMS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 10**30, 0.0, -0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "auto", "none", "required", "json", "high", "\ud800", "\0", SECRET, "é\u2028"),
    *("data:image/png;base64,AAAA", "https://test.invalid/x.png", b"\x89PNG\r\n\x1a\n", b"%PDF-"),
    *((), [], {}, {"type": "text", "text": SECRET}, {"type": "json_object"}, {"a": {1, 2}}),
    *(object(), int, len, llm.Reasoning(effort="high"), llm.TextPart(SECRET), llm.user(SECRET)),
)
_ROLES = ("system", "developer", "user", "assistant", "tool", "", None, 7)


class _Source:
    """Values out of bytes: each byte is one decision. What runs out decides for the first."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def pick(self, among: Any) -> Any:
        return among[next(self._data, 0) % len(among)]

    def times(self, most: int) -> range:
        return range(next(self._data, 0) % (most + 1))

    def value(self, depth: int = 3) -> Any:
        kind = self.pick("aaaaald") if depth else "a"
        if kind == "l":
            return [self.value(depth - 1) for _ in self.times(4)]
        if kind == "d":
            return {self.pick(_NAMES): self.value(depth - 1) for _ in self.times(4)}
        return self.pick(_ATOMS)

    def part(self) -> Any:
        make: Callable[..., Any] = self.pick(_MAKERS)
        return make(*[self.value(1) for _ in self.times(2)], **self.named(_FIELDS, 3))

    def named(self, names: Any, most: int) -> dict[str, Any]:
        return {self.pick(names): self.value(2) for _ in self.times(most)}

    def message(self) -> Any:
        if self.pick((True, False)):
            return {"role": self.pick(_ROLES), **self.named(_NAMES, 4)}
        make = self.pick((llm.user, llm.system, llm.developer, llm.assistant, llm.tool_result))
        return make(*[self.part() if self.pick((1, 0)) else self.value() for _ in self.times(3)])


_MAKERS = (
    *(llm.text, llm.image, llm.audio, llm.document, llm.ToolCall, parts_of.ToolResult),
    *(parts_of.ReasoningPart, parts_of.OpaquePart, parts_of.RefusalPart, llm.TextPart),
    llm.TokensPart,
)
_FIELDS = (
    *("id", "name", "arguments", "type", "text", "cache", "media_type", "detail", "wire", "raw"),
    *("signature", "encrypted", "content", "is_error", "extra", "url", "data", "title"),
)
_NAMES = (
    *(
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "text",
        "type",
        "id",
        "function",
        "image_url",
    ),
    *("arguments", "url", "input", "cache_control", "reasoning", "refusal", "audio", "file", "a"),
    *("schema", "properties", "parameters", "json_schema", "strict", "", 7, "\ud800"),
)
_PARAMS = sorted(PARAM_NAMES)
LOUD = {"response_format", "tools", "tool_choice"}
"""Parameters that may be types: msgspec quotes what is none."""
_EXTRA = ("seed", "messages", "stream", "x", "temperature", "stop")


def request(data: bytes) -> None:
    """Messages and parameters of any kind and shape."""
    source = _Source(data)
    model = source.pick(MODELS)
    try:
        messages = [source.message() for _ in source.times(3)]
    except (ValueError, TypeError, AttributeError, OverflowError):
        return  # a constructor was given what its types forbid
    params: dict[str, Any] = {}
    try:
        given = messages or source.value()
        params = source.named(_PARAMS, 4)
        extra = source.named(_EXTRA, 1)
        stream = _client().stream(model, given, extra=extra, **params)
    except (ValueError, TypeError) as exc:
        told = SECRET in str(exc) and not LOUD & params.keys()
        assert not told, "the prompt is shown"
        return
    prepared = stream._source._prepared  # type: ignore[attr-defined]
    assert isinstance(json.loads(prepared.body), dict)
    assert KEY.encode() not in prepared.body, "the key is in the body"
    assert all(v.isascii() and v.isprintable() for v in prepared.headers.values())
    httpx.Request("POST", prepared.url, headers=dict(prepared.headers))


@cache
def _client() -> Client:
    """A client that prepares requests and whose block has been left: it can send none."""

    async def main() -> Client:
        async with llm.open_client(transport=ScriptedTransport()) as client:
            return client

    return trio.run(main)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "answer": answer,
    "http": http,
    "refusal": refusal,
    "request": request,
}
