"""The replay server: one fixed answer in OpenAI's stream format, over plain HTTP/1.1.

``POST /{mode}/{chunks}/…`` is answered with that many content chunks. The first goes out
alone and is followed by a pause, in which a contender reads its clock; so connecting,
sending the request and reading the headers are outside of what is measured. The modes:

- ``burst``: 64 events in one HTTP chunk, one write. A read brings many events.
- ``merged``: one event in an HTTP chunk, 64 chunks a write. A read brings many HTTP chunks.
- ``paced``: one event in an HTTP chunk, one write, then a pause. A read brings one event.

Run alone it prints its port and serves until its standard input is closed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple


class Mode(NamedTuple):
    """How the events of an answer are laid out on the wire."""

    events_a_chunk: int
    chunks_a_write: int
    paced: bool
    title: str


MODES = {
    "burst": Mode(64, 1, False, "burst: 64 events in an HTTP chunk"),
    "merged": Mode(1, 64, False, "merged: 64 HTTP chunks in a write"),
    "paced": Mode(1, 1, True, "paced: one event in a read"),
}
HEAD_START = 0.02
"""Seconds between the first event and the rest."""
PACE = 0.0005
"""Seconds of sleep after each paced write: several times what the slowest contender needs for
one event, so that it has read one before the next is sent."""

WORDS = ("", "the", "a", "stream", "of", "tokens", "never", "ends,", "naïve", "“quoted”", "\n")
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


def texts(chunks: int) -> list[str]:
    """The answer's pieces: the same for everyone who asks for as many."""
    words = random.Random(chunks)
    return [f" {words.choice(WORDS)}" for _ in range(chunks)]


def digest(pieces: Sequence[str]) -> str:
    """What two equal answers have in common."""
    return hashlib.sha256("".join(pieces).encode()).hexdigest()


def _event(**fields: object) -> bytes:
    chunk = {
        "id": "chatcmpl-CqWvU4yLbJ0sQ8mE2tXh5nRk7dZgA",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": None,
        **fields,
        "obfuscation": "q7RmT2",
    }
    data = json.dumps(chunk, separators=(",", ":"), ensure_ascii=False)
    return b"data: " + data.encode() + b"\n\n"


def _choice(delta: dict[str, str], reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


def events(chunks: int) -> Iterator[bytes]:
    """The events of an answer with so many content chunks, then reason, usage and ``[DONE]``."""
    role = {"role": "assistant"}
    for text in texts(chunks):
        yield _event(choices=_choice({**role, "content": text}), usage=None)
        role = {}
    yield _event(choices=_choice({}, "stop"), usage=None)
    usage = {"prompt_tokens": 9, "completion_tokens": chunks, "total_tokens": chunks + 9}
    yield _event(choices=[], usage=usage)
    yield b"data: [DONE]\n\n"


def bodies(mode: Mode, chunks: int) -> list[bytes]:
    """The answer's body as the payloads of its HTTP chunks; the first is one event."""
    first, *rest = events(chunks)
    size = mode.events_a_chunk
    return [first, *(b"".join(rest[at : at + size]) for at in range(0, len(rest), size))]


@lru_cache(maxsize=8)
def writes(mode: Mode, chunks: int) -> list[bytes]:
    """What goes into the socket, one item a write."""
    first, *rest = (b"%x\r\n%b\r\n" % (len(body), body) for body in bodies(mode, chunks))
    size = mode.chunks_a_write
    parts = [b"".join(rest[at : at + size]) for at in range(0, len(rest), size)]
    return [HEAD + first, *parts[:-1], parts[-1] + b"0\r\n\r\n"]


def _path(connection: socket.socket) -> str:
    """Read one request; return its path, ``""`` at the end of the connection."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (data := connection.recv(65536)):
            return ""
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            while missing > 0:
                missing -= len(connection.recv(missing))
    return head.split(b" ", 2)[1].decode()


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, suppress(ConnectionError):
        while path := _path(connection):
            _, name, chunks, *_ = path.split("/")
            mode = MODES[name]
            first, *rest = writes(mode, int(chunks))
            connection.sendall(first)
            time.sleep(HEAD_START)
            for data in rest:
                connection.sendall(data)
                if mode.paced:
                    time.sleep(PACE)


def main() -> None:
    """Serve on loopback until standard input ends."""
    if len(sys.argv) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[1])})
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
