"""The floor: a lower bound for the work that any program in Python must do with the same bytes.

Blocking sockets or epoll, ``find``, and a typed decode by msgspec of the text alone. It ignores
HTTP's framing, which works because no event here straddles two HTTP chunks: it is not a client.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from contenders import PATHS, Options, Take, body


class _Delta(msgspec.Struct, gc=False):
    content: str = ""


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]


class _Text(msgspec.Struct, gc=False):
    text: str = ""


class _Event(msgspec.Struct, gc=False):
    delta: _Text | None = None


class _Said(msgspec.Struct, gc=False):
    type: str = ""
    delta: str = ""


class _Content(msgspec.Struct, gc=False):
    parts: list[_Text]


class _Candidate(msgspec.Struct, gc=False):
    content: _Content


class _Answer(msgspec.Struct, gc=False):
    candidates: list[_Candidate]


_openai = msgspec.json.Decoder(_Chunk).decode
_anthropic = msgspec.json.Decoder(_Event).decode
_responses = msgspec.json.Decoder(_Said).decode
_gemini = msgspec.json.Decoder(_Answer).decode


def _openai_text(data: bytes) -> str:
    choices = _openai(data).choices if data[:1] != b"[" else None
    return choices[0].delta.content if choices else ""


def _anthropic_text(data: bytes) -> str:
    delta = _anthropic(data).delta
    return delta.text if delta is not None else ""


def _responses_text(data: bytes) -> str:
    event = _responses(data)
    return event.delta if event.type == "response.output_text.delta" else ""


def _gemini_text(data: bytes) -> str:
    return _gemini(data).candidates[0].content.parts[0].text


TEXT_OF: dict[str, Callable[[bytes], str]] = {
    "openai": _openai_text,
    "anthropic": _anthropic_text,
    "responses": _responses_text,
    "gemini": _gemini_text,
}


class Floor:
    """A connection that reads one answer after the other."""

    def __init__(self, options: Options) -> None:
        where = urlsplit(options.url)
        assert where.hostname is not None
        assert where.port is not None
        self._text_of = TEXT_OF[options.wire]
        self._host, self._path = where.netloc, PATHS[options.wire]
        self._buffer = b""
        self.sock = socket.create_connection((where.hostname, where.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if where.scheme == "https":
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=where.hostname)

    def send(self, model: str) -> None:
        """Send a request for an answer."""
        data = json.dumps(body(model)).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(data)}"
        self.sock.sendall(head.encode() + b"\r\n\r\n" + data)

    def take(self, take: Take) -> bool:
        """Hand out the texts of one read, and return whether there is more to come."""
        data = self.sock.recv(65536)
        buffer, at = self._buffer + data if self._buffer else data, 0
        while True:
            start = buffer.find(b"data: ", at)
            end = buffer.find(b"\n\n", start) if start >= 0 else -1
            if end < 0:
                break
            at = end + 2
            if text := self._text_of(buffer[start + 6 : end]):
                take(text)
        self._buffer = buffer[at:] if at else buffer
        if not data:
            raise ConnectionError("the connection ended")
        if self._buffer.endswith(b"0\r\n\r\n"):
            self._buffer = b""
            return False
        return True

    def stream(self, model: str, first: Take, take: Take) -> None:
        """Read one answer, with the callbacks that contenders call."""
        started = False

        def begin(text: str) -> None:
            nonlocal started
            (take if started else first)(text)
            started = True

        self.send(model)
        more = True
        while more and not started:
            more = self.take(begin)
        while more:
            more = self.take(take)


def many(options: Options, model: str, count: int, first: Take, take: Take) -> None:
    """Read a number of answers at once, by epoll."""
    epoll, there = select.epoll(), dict[int, Floor]()
    fresh = set[int]()
    for _ in range(count):
        floor = Floor(options)
        there[floor.sock.fileno()] = floor
        epoll.register(floor.sock, select.EPOLLIN)
        fresh.add(floor.sock.fileno())
        floor.send(model)
    while there:
        for number, _ in epoll.poll():
            floor = there[number]
            if number in fresh:
                fresh.remove(number)
                floor.take(first)
            elif not floor.take(take):
                epoll.unregister(number)
                del there[number]
                floor.sock.close()
