"""The replay server's answers in each wire format, as bytes and as texts.

The request's model names the answer, ``WIRE/KIND/LAYOUT/CHUNKS/SIZE``, so that every client asks
for it in its usual way: ``openai/text/burst/20000/0`` is 20,000 short pieces of text.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

PACE = 0.0005
"""Seconds of sleep after each paced write: several times as long as the slowest contender needs for
one event, so that it has read each before the next is sent."""


class Layout(NamedTuple):
    """The division of an answer's events into HTTP chunks and writes."""

    events_a_chunk: int
    chunks_a_write: int
    pause: float
    """Seconds of sleep after a write."""
    title: str


LAYOUTS = {
    "burst": Layout(64, 1, 0, "64 events in an HTTP chunk"),
    "merged": Layout(1, 64, 0, "one event in an HTTP chunk (and a TLS record), 64 in a write"),
    "flushed": Layout(1, 1, 0, "one event in a write, as fast as it goes"),
    "paced": Layout(1, 1, PACE, "one event in a write, then a pause: the client is woken for each"),
}

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
WORDS = ("", "the", "a", "stream", "of", "tokens", "never", "ends,", "naïve", "“quoted”", "\n")
FILLER = "the quick brown fox jumps over the lazy dog and "
PADDING = "q7RmT2xKp9LvZ4wB"


class Answer(NamedTuple):
    """A parsed model name."""

    wire: str
    kind: str
    """``text``, or ``tool`` for the arguments of one tool call."""
    layout: str
    chunks: int
    size: int = 0
    """Characters in a piece; 0 for short words of varying length."""

    @classmethod
    def parse(cls, name: str) -> Answer:
        wire, kind, layout, chunks, size = name.split("/")
        return cls(wire, kind, layout, int(chunks), int(size))

    @property
    def name(self) -> str:
        return "/".join(map(str, self))


def texts(answer: Answer) -> Iterator[str]:
    """Yield the answer's pieces, which are the same for all answers of that size."""
    if not answer.size:
        words = random.Random(answer.chunks)
        for _ in range(answer.chunks):
            yield f" {words.choice(WORDS)}"
        return
    filler = FILLER * (answer.size // len(FILLER) + 1)
    start, end = ('{"text":"', '"}') if answer.kind == "tool" else ("", "")
    for number in range(answer.chunks):
        piece = f"{start}{number:08d}{filler}"[: answer.size]
        start = ""
        yield piece if number < answer.chunks - 1 else piece[: answer.size - len(end)] + end


def digest(pieces: Iterable[str]) -> str:
    """Return a digest of the whole text, to compare answers by."""
    return hashlib.sha256("".join(pieces).encode()).hexdigest()


# -- events ----------------------------------------------------------------------------------


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _openai_event(choices: str, usage: str, padding: str) -> bytes:
    return (
        'data: {"id":"chatcmpl-CqWvU4yLbJ0sQ8mE2tXh5nRk7dZgA","object":"chat.completion.chunk",'
        '"created":1700000000,"model":"gpt-5-mini-2025-08-07","service_tier":"default",'
        f'"system_fingerprint":null,"choices":[{choices}],"usage":{usage},'
        f'"obfuscation":"{padding}"}}\n\n'
    ).encode()


def openai_delta(delta: str, padding: str = PADDING, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return _openai_event(choice, "null", padding)


def _openai_events(answer: Answer) -> Iterator[bytes]:
    """Yield the events, padded as OpenAI does: with some characters of varying number."""
    lengths = random.Random(7)
    tool = answer.kind == "tool"
    role = '"role":"assistant",'
    if tool:
        call = '{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}'
        yield openai_delta(f'{{"role":"assistant","content":null,"tool_calls":[{call}]}}')
    for text in texts(answer):
        said = _dumps(text)
        if tool:
            delta = f'{{"tool_calls":[{{"index":0,"function":{{"arguments":{said}}}}}]}}'
        else:
            delta = f'{{{role}"content":{said}}}'
        role = ""
        yield openai_delta(delta, PADDING[: lengths.randrange(2, len(PADDING))])
    yield openai_delta("{}", finish='"tool_calls"' if tool else '"stop"')
    total = answer.chunks
    usage = {"prompt_tokens": 9, "completion_tokens": total, "total_tokens": total + 9}
    yield _openai_event("", _dumps(usage), PADDING)
    yield b"data: [DONE]\n\n"


def _anthropic_event(kind: str, rest: str) -> bytes:
    return f'event: {kind}\ndata: {{"type":"{kind}"{rest}}}\n\n'.encode()


def _anthropic_events(answer: Answer) -> Iterator[bytes]:
    lengths = random.Random(7)
    message = {
        "model": "claude-haiku-4-5-20251001",
        "id": "msg_01Wv8bQz",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    start = _anthropic_event("message_start", f',"message":{_dumps(message)}')
    block = ',"index":0,"content_block":{"type":"text","text":""}'
    start += _anthropic_event("content_block_start", block)
    for text in texts(answer):
        delta = f',"index":0,"delta":{{"type":"text_delta","text":{_dumps(text)}}}'
        yield start + _anthropic_event("content_block_delta", delta + " " * lengths.randrange(12))
        start = b""
    yield _anthropic_event("content_block_stop", ',"index":0')
    usage = {"output_tokens": answer.chunks}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _anthropic_event("message_delta", f',"delta":{_dumps(stop)},"usage":{_dumps(usage)}')
    yield _anthropic_event("message_stop", "")


def _responses_event(kind: str, number: int, rest: str) -> bytes:
    name = f"response.{kind}"
    data = f'{{"type":"{name}","sequence_number":{number},{rest}}}'
    return f"event: {name}\ndata: {data}\n\n".encode()


def _responses_events(answer: Answer) -> Iterator[bytes]:
    """Yield the events, which are numbered, and padded as those of chat completions are."""
    lengths = random.Random(7)
    ident, item = "resp_0ca0ba552749d18c0069414e6a4bd0", "msg_0ca0ba552749d18c0069414e6c8d90"
    response = {
        "id": ident,
        "object": "response",
        "created_at": 1700000000,
        "status": "in_progress",
        "model": "gpt-5-mini-2025-08-07",
        "output": [],
        "usage": None,
    }
    message = {"id": item, "type": "message", "status": "in_progress", "content": []}
    message["role"] = "assistant"
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    place = f'"item_id":"{item}","output_index":0,"content_index":0'
    start = _responses_event("created", 0, f'"response":{_dumps(response)}')
    start += _responses_event("in_progress", 1, f'"response":{_dumps(response)}')
    start += _responses_event("output_item.added", 2, f'"output_index":0,"item":{_dumps(message)}')
    start += _responses_event("content_part.added", 3, f'{place},"part":{_dumps(part)}')
    number, said = 4, []
    for number, text in enumerate(texts(answer), 4):
        padding = PADDING[: lengths.randrange(2, len(PADDING))]
        rest = f'{place},"delta":{_dumps(text)},"logprobs":[],"obfuscation":"{padding}"'
        yield start + _responses_event("output_text.delta", number, rest)
        start = b""
        said.append(text)
    whole = "".join(said)
    part["text"] = whole
    done = {**message, "status": "completed", "content": [part]}
    rest = f'{place},"text":{_dumps(whole)},"logprobs":[]'
    yield _responses_event("output_text.done", number + 1, rest)
    yield _responses_event("content_part.done", number + 2, f'{place},"part":{_dumps(part)}')
    rest = f'"output_index":0,"item":{_dumps(done)}'
    yield _responses_event("output_item.done", number + 3, rest)
    usage: dict[str, object] = {"input_tokens": 9, "output_tokens": answer.chunks}
    usage["input_tokens_details"] = {"cached_tokens": 0}
    usage["output_tokens_details"] = {"reasoning_tokens": 0}
    usage["total_tokens"] = answer.chunks + 9
    response |= {"status": "completed", "output": [done], "usage": usage}
    yield _responses_event("completed", number + 4, f'"response":{_dumps(response)}')


def _gemini_event(text: str, made: int, finish: str = "") -> bytes:
    usage = (
        f'{{"promptTokenCount":9,"candidatesTokenCount":{made},"totalTokenCount":{made + 9},'
        '"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}]}'
    )
    content = f'{{"parts":[{{"text":{_dumps(text)}}}],"role":"model"}}'
    return (
        f'data: {{"candidates":[{{"content":{content}{finish},"index":0}}],"usageMetadata":{usage},'
        '"modelVersion":"gemini-2.5-flash","responseId":"dX6LadKVC7SZ28oPr9yJoQs"}\n\n'
    ).encode()


def _gemini_events(answer: Answer) -> Iterator[bytes]:
    """Yield the events, each with usage that counts all so far."""
    for number, text in enumerate(texts(answer), 1):
        yield _gemini_event(text, number)
    yield _gemini_event("", answer.chunks, ',"finishReason":"STOP"')


_EVENTS = {
    "openai": _openai_events,
    "anthropic": _anthropic_events,
    "responses": _responses_events,
    "gemini": _gemini_events,
}


def events(answer: Answer) -> Iterator[bytes]:
    """Yield the events of a whole answer."""
    return _EVENTS[answer.wire](answer)


# -- HTTP ------------------------------------------------------------------------------------


def chunk(body: bytes) -> bytes:
    """Return an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


@lru_cache(maxsize=64)
def writes(name: str) -> list[list[bytes]]:
    """Return the HTTP chunks of each write to the socket; the first write is the first event."""
    answer = Answer.parse(name)
    layout = LAYOUTS[answer.layout]
    first, *rest = events(answer)
    size = layout.events_a_chunk
    chunks = [chunk(b"".join(rest[at : at + size])) for at in range(0, len(rest), size)]
    size = layout.chunks_a_write
    parts = [chunks[at : at + size] for at in range(0, len(chunks), size)]
    parts[-1].append(END)
    return [[HEAD, chunk(first)], *parts]
