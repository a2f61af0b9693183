"""Sources of fuzz inputs: seeds, and changes that know what an event stream and a response are.

Random bytes seldom get past the first brace. These changes take a stream that a provider could have
sent and spoil it in one or a few places, as servers and proxies do: an event gone, doubled or from
another stream; a field null, of another type, huge or nested; bytes flipped; a cut.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from trio_minillm import testing

from .targets import HEAD, KEY

MAX_BODY = 2048
"""Bytes of an input's body. Bounds that lie above it have tests of their own."""

SHARED = Path(
    os.environ.get("TRIO_MINILLM_SHARED") or Path(__file__).resolve().parents[3] / "shared"
)

_LONG = "9" * 400
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 127, 10**9, 2**63, -(2**63), 2**64, 0.5, -0.0, 1e308),
    *("", "a", "0", "stop", "error", "tool_calls", "text", "\u2028", "\0", "\ud83d\ude00", KEY),
    *([], {}, [[]], [None], [{}], {"a": None}, {"": {}}, {"type": None}, [0, "a", {}]),
    *({"message": KEY, "code": 429}, {"type": "overloaded_error", "message": "m"}),
)
RAW = (
    *(b"NaN", b"Infinity", b"1e999", b"-0", _LONG.encode(), b"[" * 300, b'{"a":' * 300, b"\xff"),
    *(b"\xef\xbb\xbf", b'"\\ud800"', b'"\\u0000"', b"00", b"1.", b"'a'", b"nul", b'"', b"\\", b"}"),
)
LINES = (
    *(b": ping\n\n", b"event: ping\ndata: {}\n\n", b"data: [DONE]\n\n", b"data:\n\n", b"\n\n"),
    *(b"data\n\n", b"id: 1\n\n", b"retry: 5\n", b"event: error\n", b"error: no\n\n", b"event:\n"),
    *(b"data: null\n\n", b"data: {}\n\n", b'data: {"error":"no"}\n\n', b"\r", b"\r\n", b"data: "),
    *(
        b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n',
        b"<html>",
        b"\xef\xbb",
    ),
    b'data: {"error":{"message":"' + KEY.encode() + b'","code":429}}\n\n',
)


# -- seeds ---------------------------------------------------------------------------------------


def _delta(*deltas: dict[str, Any], **more: Any) -> bytes:
    chunks = [
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}], **more}
        for delta in deltas
    ]
    return b"".join(map(testing.sse, chunks))


def _openai() -> list[bytes]:
    def call(arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **more}]}

    end = b"".join(testing.openai_events()[1:])
    opened = call("", id="call_1", type="function")
    opened["tool_calls"][0]["function"]["name"] = "f"
    detail = {"type": "reasoning.text", "text": "hm", "index": 0, "signature": None}
    several = {
        "id": "c",
        "choices": [{"index": i, "delta": {"content": "x"}, "logprobs": None} for i in (0, 1)],
    }
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
        "cost": 0.001,
        "is_byok": True,
        "cost_details": {"upstream_inference_cost": 0.1},
    }
    return [
        b"".join(testing.openai_events("Hi", " you", "\n")),
        b"".join(testing.openai_events(*"abcdefghijkl")),  # long enough for the fast path
        _delta({"role": "assistant"}, opened, call('{"a"'), call(":1}")) + end,
        _delta({"reasoning": "hm", "reasoning_details": [detail]}, {"reasoning_content": "m"}) + end,
        _delta({"content": "a"}, {"content": "b"}, {"content": "c"}, obfuscation="AbC") + end,
        _delta({"refusal": "no"}, {"audio": {"id": "a", "data": "AA", "transcript": "t"}}) + end,
        _delta({"content": "x", "annotations": [{"type": "url_citation"}]}, usage=None) + end,
        testing.sse(several) + _delta({"content": "y", "images": [{"type": "image_url"}]}) + end,
        _delta({"content": "a"}, provider="P", usage=usage, citations=["u"]) + end,
        json.dumps(
            {
                "id": "c",
                "choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}],
                "usage": usage,
            }
        ).encode(),
        json.dumps({"error": {"message": "no " + KEY, "type": "t", "code": "c", "param": None}}).encode(),
    ]  # fmt: skip


def _responses() -> list[bytes]:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""}
    place = {"output_index": 1, "item_id": "fc_1"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": thought},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": call},
        {"type": "response.function_call_arguments.delta", **place, "delta": '{"a":'},
        {"type": "response.function_call_arguments.done", **place, "arguments": '{"a":1}'},
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {**call, "arguments": "{}"},
        },
        {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"code": "server_error"}},
        },
    ]
    whole = testing.responses_events("Hi", " you", "\n")
    said = b"".join(testing.sse(event) for event in events[:-1])
    return [
        b"".join(whole),
        b"".join(whole[:-1]),
        whole[-1],
        b"".join(testing.responses_events("Hi", status="incomplete")),
        said + whole[-1],
        said + testing.sse(events[-1]),
        testing.sse({"type": "error", "code": "server_error", "message": KEY}, "error"),
        json.dumps(
            {"object": "response", "status": "completed", "output": [thought, call]}
        ).encode(),
    ]


def _anthropic() -> list[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return testing.sse({"type": kind, **fields}, kind)

    def block(start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
        pieces = [event("content_block_delta", index=1, delta=d) for d in deltas]
        begin = event("content_block_start", index=1, content_block=start)
        return b"".join([begin, *pieces, event("content_block_stop", index=1)])

    text = b"".join(testing.anthropic_events("Hi", " you", "\n"))
    begin, end = (
        text.split(b"event: content_block_start")[0],
        text[text.rindex(b"event: message_d") :],
    )
    thinking = block(
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "AA"},
    )
    tool = block(
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"a":'},
        {"type": "input_json_delta", "partial_json": "1}"},
    )
    server = block(
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"q":"x"}'},
    )
    result = block({"type": "web_search_tool_result", "tool_use_id": "s", "content": []})
    hidden = block({"type": "redacted_thinking", "data": "AA"})
    cited = block(
        {"type": "text", "text": "", "citations": []},
        {"type": "citations_delta", "citation": {"type": "c"}},
    )
    return [
        text,
        b"".join(testing.anthropic_events(*"abcdefghijkl")),
        *(begin + middle + end for middle in (thinking, tool, server + result, hidden + cited)),
        begin + event("ping") + event("error", error={"type": "overloaded_error", "message": KEY}),
        json.dumps(
            {
                "id": "m",
                "type": "message",
                "content": [{"type": "text", "text": "whole"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1},
            }
        ).encode(),
    ]  # fmt: skip


def _gemini() -> list[bytes]:
    def event(*parts: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        candidate = {"content": {"parts": parts}, **({"finishReason": reason} if reason else {})}
        return json.dumps({"candidates": [candidate], "responseId": "r", **more}).encode()

    end = event({"text": ""}, reason="STOP", usageMetadata={"promptTokenCount": 3})
    values = [{"jsonPath": "$.a[0]['b']", "stringValue": "x", "willContinue": True}]
    bodies = [
        [event({"text": "Hi"}), event({"text": " you"}), event({"text": "!"}), end],
        [event({"text": "hm", "thought": True, "thoughtSignature": "AA"}, {"text": "a"}), end],
        [
            event({"text": "a", "thoughtSignature": "AA"}, {"text": "", "thoughtSignature": "B"}),
            end,
        ],
        [event({"functionCall": {"name": "f", "args": {"a": 1}, "id": "i"}}), end],
        [
            event({"functionCall": {"name": "f", "willContinue": True}}),
            event({"functionCall": {"partialArgs": values, "willContinue": True}}),
            event({"functionCall": {}}),
            end,
        ],
        [event({"executableCode": {"code": "1"}}, {"inlineData": {"mimeType": "image/png"}}), end],
        [event({"text": "a"}, reason="MALFORMED_FUNCTION_CALL")],
        [json.dumps({"promptFeedback": {"blockReason": "SAFETY"}}).encode()],
        [json.dumps({"error": {"code": 429, "message": KEY, "status": "UNAVAILABLE"}}).encode()],
    ]
    streams = [b"".join(b"data: %b\r\n\r\n" % one for one in body) for body in bodies]
    arrays = [b"[%b\n]" % b",\r\n".join(body) for body in bodies]
    return [*streams, b"".join(testing.gemini_events(*"abcdefghijkl")), *arrays]


def _text() -> list[bytes]:
    def event(text: str, reason: str | None = None, **more: Any) -> bytes:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason, **more}
        return testing.sse(
            {"id": "c", "object": "text_completion", "model": "m", "choices": [choice]}
        )

    older = {"tokens": ["a"], "token_logprobs": [-1.5], "top_logprobs": [{"a": -1.5}]}
    newer = {"content": [{"token": "a", "logprob": -1.5, "top_logprobs": []}]}
    given = [None, {"7": {"logprob": -1.5, "rank": 1, "decoded_token": "a"}}]
    whole = {"index": 0, "text": "whole", "finish_reason": "stop"}
    end = b"".join(testing.text_events())
    return [
        b"".join(testing.text_events("Hi", " you", "\n")),
        b"".join(testing.text_events(*"abcdefghijkl")),
        event("a", logprobs={**older, "text_offset": [3]}) + event("b", logprobs=newer) + end,
        event("", stop_reason=None, token_ids=[1]) + event("x", "length", matched_stop=2) + end,
        event("a", reasoning="hm") + event("b", index=1) + event("c", delta={"content": "d"}) + end,
        json.dumps({"id": "c", "choices": [{**whole, "logprobs": older}]}).encode(),
        json.dumps({"id": "c", "choices": [{**whole, "prompt_logprobs": given}]}).encode(),
        json.dumps({"error": {"message": "no " + KEY, "type": "t", "code": 400}}).encode(),
    ]


def _http() -> list[bytes]:
    ok = b"HTTP/1.1 200 OK\r\n"
    chunked = ok + b"Transfer-Encoding: chunked\r\n"
    return [
        ok + b"Content-Length: 5\r\n\r\nhello",
        chunked
        + b"Content-Type: text/event-stream\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok + b"Content-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n" + ok + b"\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        chunked + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]


HTTP_PIECES = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b"0\r\n\r\n", b"ffffffffffffffff\r\n"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 999 \r\n"),
    *(b"Content-Length: 1\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n"),
    *(b"Transfer-Encoding: \r\n", b" folded\r\n", b"Upgrade: x\r\n", b"\0", b"\xff", b"x" * 300),
)  # fmt: skip

_SETTLEMENT = {
    "data": {"id": "g", "total_cost": 0.5, "native_tokens_prompt": 7, "native_tokens_completion": 5}
}
_REFUSALS = (
    json.dumps({"error": {"message": "no", "type": "t", "code": 429, "metadata": {"raw": KEY}}}).encode(),
    json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}).encode(),
    json.dumps({"error": "no", "object": "error", "detail": [{"msg": "m"}]}).encode(),
    *(json.dumps(_SETTLEMENT).encode(), b"<html><title>502</title></html>", b"12.5"),
    *(b"Wed, 21 Oct 2026 07:28:00 GMT", b"1e400", b"-1", b"nan"),
)  # fmt: skip


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Inputs that are well-formed, each with a head of its own."""
    if target == "request":
        return tuple(random.Random(i).randbytes(48) for i in range(16))
    if target == "http":
        return tuple(bytes([(i % 4) << 6] + [0] * 7) + body for i, body in enumerate(_http() * 4))
    if target == "refusal":
        return tuple(bytes([i * 37 & 255] + [0] * 7) + body for i, body in enumerate(_REFUSALS))
    found = []
    by_wire = (
        *(_openai(), _anthropic(), _openai(), _openai(), _responses(), _gemini(), _gemini()),
        _text(),
    )
    for wire, bodies in enumerate(by_wire):
        found += [bytes([wire | 8] + [0] * 7) + body for body in bodies]
    return (*found, *_recorded())


def _recorded() -> list[bytes]:
    """The beginning and the end of recorded streams, where they are at hand."""
    out = []
    for folder, wire in _FOLDERS:
        for path in sorted((SHARED / "streams" / folder).glob("*.sse"))[:40]:
            events = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n\n")
            body = b"\n\n".join([*events[:4], *events[-5:]])
            if len(body) <= MAX_BODY:
                out.append(bytes([wire | 8] + [0] * 7) + body)
    return out


_FOLDERS = (
    *(("openai_chat", 0), ("anthropic", 1), ("openrouter", 2)),
    *(("openai_responses", 4), ("gemini", 5)),
)


# -- changes -------------------------------------------------------------------------------------


def mutated(target: str, data: bytes, rng: random.Random) -> bytes:
    """The input with one to four changes."""
    if target == "request":
        return _bytes(data or b"\0", rng)[:256]
    head, body = bytearray(data[:HEAD].ljust(HEAD, b"\0")), data[HEAD:]
    if rng.random() < 0.5:
        head[1:] = rng.randbytes(HEAD - 1)  # cut elsewhere
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 4))):
        if rng.random() < 0.1:
            head[0] = rng.randrange(256)
        elif target == "http":
            body = rng.choice((_bytes, _piece))(body, rng)
        elif target == "refusal":
            body = rng.choice((_bytes, _field_of))(body, rng)
        else:
            body = rng.choice(_CHANGES)(body, rng)
    return bytes(head) + body[:MAX_BODY]


def _bytes(body: bytes, rng: random.Random) -> bytes:
    """Flip, insert, delete, copy or cut."""
    at = rng.randrange(len(body) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + rng.randbytes(rng.randrange(1, 5)) + body[at:]
    if kind == 2:
        return body[:at] + body[at + rng.randrange(1, 9) :]
    if kind == 3:
        start = rng.randrange(len(body) + 1)
        return body[:at] + body[start : start + rng.randrange(64)] + body[at:]
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def _piece(body: bytes, rng: random.Random) -> bytes:
    at = rng.choice(
        [body.find(b"\n", rng.randrange(len(body) + 1)) + 1, rng.randrange(len(body) + 1)]
    )
    return body[:at] + rng.choice(HTTP_PIECES) + body[at + rng.choice((0, 0, 1, 9)) :]  # fmt: skip


def _events(body: bytes, rng: random.Random) -> bytes:
    """Events removed, doubled many times, swapped, or taken from another seed."""
    events = body.split(b"\n\n")
    at = rng.randrange(len(events))
    kind = rng.randrange(5)
    if kind == 0:
        del events[at]
    elif kind == 1:
        events[at:at] = [events[at]] * rng.choice((1, 1, 2, 7))
    elif kind == 2:
        other = rng.randrange(len(events))
        events[at], events[other] = events[other], events[at]
    elif kind == 3:
        events.insert(at, rng.choice(rng.choice(seeds("answer"))[HEAD:].split(b"\n\n")))
    else:
        events[at] += rng.choice((b"\r", b"\n", b"\r\n", b" ", b"\n:", b"\ndata: x", b"}"))
    return b"\n\n".join(events)


def _line(body: bytes, rng: random.Random) -> bytes:
    at = rng.choice(
        [body.find(b"\n\n", rng.randrange(len(body) + 1)) + 2, rng.randrange(len(body) + 1)]
    )
    return body[:at] + rng.choice(LINES) + body[at:]  # fmt: skip


def _field(body: bytes, rng: random.Random) -> bytes:
    """One field of one event replaced, removed, renamed or added."""
    events = body.split(b"\n\n")
    at = rng.randrange(len(events))
    head, mark, data = events[at].rpartition(b"data: ")
    events[at] = head + mark + _field_of(data, rng)
    return b"\n\n".join(events)


def _field_of(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return rng.choice(RAW) if rng.random() < 0.1 else _bytes(data, rng)
    places = list(_places(value))
    if not places:
        return json.dumps(rng.choice(NASTY)).encode()
    inside, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[rng.choice((_any_key(rng, places), "error", "type"))] = inside.pop(key)
    elif kind == 2:
        other, there = rng.choice(places)
        inside[key] = json.loads(json.dumps(other[there]))
    elif kind == 3:
        inside[key] = "\0raw\0"
    else:
        inside[key] = rng.choice(NASTY)
    compact = rng.random() < 0.8
    text = json.dumps(
        value, separators=(",", ":") if compact else None, ensure_ascii=rng.random() < 0.5
    )
    return text.encode("utf-8", "replace").replace(b'"\\u0000raw\\u0000"', rng.choice(RAW))  # fmt: skip


def _any_key(rng: random.Random, places: list[tuple[Any, Any]]) -> str:
    return str(rng.choice(places)[1])


def _places(value: Any) -> Any:
    stack = [value] if isinstance(value, dict | list) else []
    while stack:
        inside = stack.pop()
        keys = inside.keys() if isinstance(inside, dict) else range(len(inside))
        for key in keys:
            yield inside, key
            if isinstance(inside[key], dict | list):
                stack.append(inside[key])


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_events, _line, _field, _field, _field, _bytes),
)
