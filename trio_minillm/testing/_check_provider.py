"""The contract of a provider as a test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import httpx
import msgspec

from .._protocol.decoder import ChunkDecoder
from .._types.chunks import StreamChunk
from .._types.errors import ErrorInfo, MiniLLMError
from .._types.messages import user
from .._types.response import CompletionResponse
from ..providers import Model, Provider, Request
from ._events import decode

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
"""Malformed events, which every provider must survive."""


def check_provider(
    model: Model, *, streams: Iterable[bytes] = (), errors: Iterable[bytes] = ()
) -> None:
    """Check that a model's provider keeps its contract.

    - ``streams`` are complete response bodies in its wire format, each of which must give a
      finished answer.
    - ``errors`` are bodies of error responses.

    The checks are: the request is JSON, always the same for the same call, and does not contain the
    key; headers can be sent; parsing keeps no state between calls, does not depend on how the bytes
    are split, and raises only permitted errors for malformed events.

    Raises ``AssertionError``, which says what is wrong.
    """
    provider = model.provider
    _check_request(model)
    for number, body in enumerate(streams):
        whole, error = decode(provider, [body])
        assert error is None, f"streams[{number}] does not finish: {error!r}"
        split, error = decode(provider, [body[i : i + 1] for i in range(len(body))])
        assert _same(whole, split), f"streams[{number}] depends on how its bytes are split"
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
    assert secret.encode() not in encoded, "the key belongs in a header"
    assert b"Hello" in encoded, "the request must carry the messages"
    assert httpx.URL(provider.endpoint_url(model)).is_absolute_url, "endpoint_url must be a URL"
    headers = {**provider.auth_headers(model), **provider.request_headers(request)}
    for name, value in headers.items():
        assert (name + value).isascii(), f"header {name} can't be sent"
        assert name == name.lower(), f"header {name} must be in lower case"
    assert secret not in repr(request) + repr(model) + repr(provider), "repr shows the key"


def _check_stateless(provider: Provider, streams: list[bytes]) -> None:
    """Check that two bodies decoded in turns give the same as one after the other."""
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
